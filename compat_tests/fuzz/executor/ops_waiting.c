/* SPDX-License-Identifier: MIT */
/* Operations that wait, and the look after each step. */
#include <poll.h>
#include <stdio.h>
#include <stdlib.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/stat.h>

#include "ops.h"

/* ---- waiting ---- */
static void say_events(struct slot *s, int var, unsigned int ev)
{
	char text[96];

	events_text(text, sizeof(text), ev);
	say(s, " %c=%s", var < 0 ? '?' : 'a' + var, text);
}

void op_poll(struct slot *s) /* timeout, then pairs: fd events */
{
	struct pollfd p[N_ARGS];
	int n = 0;

	for (int i = 1; i + 1 < s->n_args; i += 2)
		p[n++] = (struct pollfd){ .fd = (int)s->arg[i], .events = (short)s->arg[i + 1] };
	result(s, poll(p, (nfds_t)n, (int)s->arg[0]));
	for (int i = 0; s->ret > 0 && i < n; i++)
		say_events(s, s->var[1 + 2 * i], (unsigned short)p[i].revents);
}

void op_select(struct slot *s)
{
	struct timeval none = { 0, 0 };
	fd_set set[3];
	int top = 0;

	for (int k = 0; k < 3; k++)
		FD_ZERO(&set[k]);
	for (int i = 1; i + 1 < s->n_args; i += 2) {
		int fd = (int)s->arg[i];

		if (fd < 0 || fd >= FD_SETSIZE)
			continue;
		top = fd >= top ? fd + 1 : top;
		for (int k = 0; k < 3; k++)
			if (s->arg[i + 1] >> k & 1)
				FD_SET(fd, &set[k]);
	}
	result(s, select(top, &set[0], &set[1], &set[2], s->arg[0] ? NULL : &none));
	for (int i = 1; s->ret > 0 && i + 1 < s->n_args; i += 2) {
		int fd = (int)s->arg[i];

		if (fd < 0 || fd >= FD_SETSIZE)
			continue;
		say(s, " %c=%s%s%s", s->var[i] < 0 ? '?' : 'a' + s->var[i], FD_ISSET(fd, &set[0]) ? "r" : "",
		    FD_ISSET(fd, &set[1]) ? "w" : "", FD_ISSET(fd, &set[2]) ? "x" : "");
	}
}

void op_epoll(struct slot *s)
{
	result(s, epoll_create1(EPOLL_CLOEXEC));
}

void op_ctl(struct slot *s) /* set op fd events */
{
	struct epoll_event e = { .events = (uint32_t)s->arg[3], .data.u64 = (uint64_t)s->var[2] };

	result(s, epoll_ctl((int)s->arg[0], (int)s->arg[1], (int)s->arg[2], &e));
}

static int by_data(const void *a, const void *b)
{
	const struct epoll_event *x = a, *y = b;

	if (x->data.u64 != y->data.u64)
		return x->data.u64 < y->data.u64 ? -1 : 1;
	return x->events < y->events ? -1 : x->events > y->events;
}

void op_ewait(struct slot *s) /* set max timeout */
{
	struct epoll_event e[N_VARS];
	int max = s->arg[1] > N_VARS ? N_VARS : (int)s->arg[1];

	result(s, epoll_wait((int)s->arg[0], e, max, (int)s->arg[2]));
	if (s->ret <= 0 || (s->ret == max && max < 16)) /* allowed: choice */
		return;
	qsort(e, (size_t)s->ret, sizeof(*e), by_data); /* allowed: order */
	for (int i = 0; i < s->ret; i++)
		say_events(s, (int)e[i].data.u64, e[i].events);
}

/* What all numbers are ready for, and how much lies there to read: after each step. */
void op_look(struct slot *s)
{
	struct pollfd p[N_ARGS];
	size_t len = 0;

	for (int i = 0; i < s->n_look; i++)
		p[i] = (struct pollfd){ .fd = s->look[i], .events = POLLIN | POLLPRI | POLLOUT | POLLRDHUP };
	poll(p, (nfds_t)s->n_look, 0);
	s->looked[0] = 0;
	for (int i = 0; i < s->n_look; i++) {
		struct stat st;
		char text[96];
		int bytes = 0;

		events_text(text, sizeof(text), (unsigned short)p[i].revents);
		len += (size_t)snprintf(s->looked + len, TEXT - len, " %c=%s", 'a' + s->look_var[i], text);
		if ((p[i].revents & POLLNVAL) || fstat(p[i].fd, &st) || !S_ISSOCK(st.st_mode)) /* a pipe is locked while it is spliced */
			continue;
		if (ioctl(p[i].fd, FIONREAD, &bytes) || !bytes)
			continue;
		len += (size_t)snprintf(s->looked + len, TEXT - len, bytes < MANY ? "/%d" : "/many", bytes); /* allowed: fill */
	}
}
