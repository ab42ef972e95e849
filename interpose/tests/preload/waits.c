// SPDX-License-Identifier: MIT
/* poll, select and epoll over kernel and TCP descriptors, timeouts, and what becomes of their arguments. */
#define _FORTIFY_SOURCE 2
#include <sys/eventfd.h>
#include <time.h>

#include "say.h"

static void polls(int s[2], int ev)
{
	struct pollfd p[4] = {{s[1], POLLIN, 0}, {s[0], POLLOUT, 0}, {ev, POLLIN, 0}, {-1, POLLIN, 9}};
	struct pollfd *volatile nowhere = NULL;
	char c;

	SAY(poll(p, 4, 0));
	printf("revents %x %x %x %x\n", p[0].revents, p[1].revents, p[2].revents, p[3].revents);
	SAY(poll(p, 1, 20));
	SAY(eventfd_write(ev, 1));
	SAY(write(s[0], "x", 1));
	recv(s[1], &c, 1, MSG_PEEK);
	SAY(poll(p, 4, -1));
	printf("revents %x %x %x %x\n", p[0].revents, p[1].revents, p[2].revents, p[3].revents);
	p[3].fd = 999;
	SAY(ppoll(p, 4, &(struct timespec){1, 0}, NULL));
	printf("revents %x\n", p[3].revents);
	SAY(ppoll(p, 4, &(struct timespec){1, -1}, NULL));
	SAY(poll(nowhere, 0, 1));
	SAY(poll(nowhere, 1, 1));
}

static void selects(int s[2], int ev)
{
	struct timeval tv = {5, 0};
	fd_set r, w, e;

	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&e);
	FD_SET(s[1], &r);
	FD_SET(s[0], &r);
	FD_SET(ev, &r);
	FD_SET(s[0], &w);
	FD_SET(s[0], &e);
	SAY(select(64, &r, &w, &e, &tv));
	printf("in %d %d %d out %d err %d, time left: %d\n", !!FD_ISSET(s[1], &r), !!FD_ISSET(s[0], &r),
	       !!FD_ISSET(ev, &r), !!FD_ISSET(s[0], &w), !!FD_ISSET(s[0], &e), tv.tv_sec >= 3 && tv.tv_sec <= 5);
	FD_ZERO(&r);
	FD_SET(s[0], &r);
	tv = (struct timeval){0, 30000};
	SAY(select(s[0] + 1, &r, NULL, NULL, &tv));
	printf("left %ld.%06ld, set %d\n", (long)tv.tv_sec, (long)tv.tv_usec, !!FD_ISSET(s[0], &r));
	FD_SET(s[0], &r);
	FD_SET(60, &r); /* not open, but in the kernel's smallest table */
	SAY(select(61, &r, NULL, NULL, &tv));
	SAY(select(-1, NULL, NULL, NULL, &tv));
	FD_ZERO(&r);
	FD_SET(s[0], &r);
	SAY(select(s[0] + 1, &r, NULL, NULL, &(struct timeval){-1, 0}));
	FD_SET(s[1], &r);
	SAY(pselect(s[1] + 1, &r, NULL, NULL, &(struct timespec){1, 0}, NULL));
}

/* Numbers that are not open: within the kernel's table, far behind its end, behind ours.  How long the table is at the start
 * depends on who started us, so it is made to grow first. */
static void select_far(int s[2])
{
	static const int far[] = {63, 64, 200, 255, 40000, 1200000};
	static unsigned long sets[2][1300000 / 64];
	struct timeval none = {0, 0};

	dup2(s[1], 200);
	close(200);
	for (size_t i = 0; i < sizeof far / sizeof far[0]; i++) {
		int fd = far[i];
		int behind;

		memset(sets, 0, sizeof sets);
		FD_SET(s[0], (fd_set *)sets[0]);
		FD_SET(s[0], (fd_set *)sets[1]);
		sets[0][fd / 64] |= 1ul << fd % 64;
		errno = 0;
		SAY(select(fd + 1, (fd_set *)sets[0], (fd_set *)sets[1], NULL, &none));
		behind = (int)(sets[0][fd / 64] >> fd % 64 & 1);
		printf("%d: in %d out %d, still there %d\n", fd, !!FD_ISSET(s[0], (fd_set *)sets[0]),
		       !!FD_ISSET(s[0], (fd_set *)sets[1]), behind);
	}
}

static void show(const struct epoll_event *ev, int n)
{
	uint64_t seen = 0;
	uint32_t events = 0;

	for (int i = 0; i < n; i++) {
		seen |= ev[i].data.u64;
		events |= ev[i].events;
	}
	printf("members %lx events %x\n", seen, events);
}

static void epolls(int s[2], int ev)
{
	struct epoll_event add = {.events = EPOLLIN, .data.u64 = 1}, got[8];
	char buf[8];
	int e = (int)SAY(epoll_create(1)), n;

	SAY(epoll_create(0));
	SAY(epoll_create1(77));
	SAY(epoll_ctl(e, EPOLL_CTL_ADD, s[1], &add));
	SAY(epoll_ctl(e, EPOLL_CTL_ADD, s[1], &add));
	add.data.u64 = 2;
	SAY(epoll_ctl(e, EPOLL_CTL_ADD, ev, &add));
	add.data.u64 = 4;
	add.events = EPOLLOUT;
	SAY(epoll_ctl(e, EPOLL_CTL_ADD, s[0], &add));
	n = (int)SAY(epoll_wait(e, got, 8, -1));
	show(got, n);
	SAY(epoll_ctl(e, EPOLL_CTL_DEL, s[0], NULL));
	SAY(epoll_ctl(e, EPOLL_CTL_DEL, s[0], NULL));
	add.data.u64 = 8;
	add.events = EPOLLIN | EPOLLONESHOT;
	SAY(epoll_ctl(e, EPOLL_CTL_MOD, s[1], &add));
	n = (int)SAY(epoll_pwait(e, got, 8, 0, NULL));
	show(got, n);
	n = (int)SAY(epoll_pwait2(e, got, 8, &(struct timespec){0, 1000000}, NULL));
	show(got, n);
	SAY(read(s[1], buf, 8));
	add.events = EPOLLIN | EPOLLET;
	SAY(epoll_ctl(e, EPOLL_CTL_MOD, s[1], &add));
	SAY(epoll_ctl(e, EPOLL_CTL_DEL, ev, NULL));
	SAY(epoll_wait(e, got, 8, 20));
	SAY(write(s[0], "e", 1));
	n = (int)SAY(epoll_wait(e, got, 8, 1000));
	show(got, n);
	SAY(epoll_wait(e, got, 8, 20));
	SAY(epoll_wait(e, got, 0, 0));
	SAY(epoll_wait(s[0], got, 8, 0));
	SAY(epoll_ctl(e, EPOLL_CTL_ADD, e, &add));
	SAY(epoll_ctl(e, 9, s[0], &add));
	SAY(epoll_ctl(e, EPOLL_CTL_ADD, 999, &add));
	SAY(epoll_ctl(s[0], EPOLL_CTL_ADD, s[1], &add));
	SAY(close(s[0]));
	SAY(poll(&(struct pollfd){.fd = s[1], .events = POLLRDHUP}, 1, 1000));
	add.events = EPOLLIN | EPOLLRDHUP;
	SAY(epoll_ctl(e, EPOLL_CTL_MOD, s[1], &add));
	n = (int)SAY(epoll_wait(e, got, 8, 1000));
	show(got, n);
	SAY(close(s[1]));
	SAY(epoll_wait(e, got, 8, 0));
	SAY(close(e));
}

int main(void)
{
	int s[2], ev = eventfd(0, EFD_NONBLOCK);

	alarm(30);
	tcp_pair(s);
	polls(s, ev);
	selects(s, ev);
	select_far(s);
	epolls(s, ev);
	return 0;
}
