/* SPDX-License-Identifier: MIT */
/*
 * Last-close watch: inotify tells when the kernel drops the last reference to a backing socket's open file, wherever
 * duplicates of its descriptor have gone (other programs, messages in flight).  The watch is put on the service's own
 * /proc/self/fd/N while it holds a copy, and stays with the inode when the copy is closed.
 *
 * Watch descriptors count up and come back only after 2^31 of them, so a hash by their lower bits is perfect for all that
 * live at one time; collisions are chained through the socket table.
 */
#include <errno.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/inotify.h>
#include <unistd.h>

#include "slow/process.h"
#include "slow/watch.h"

enum { BUCKETS = 1 << 16 };

static struct {
	struct tas_pollable io;
	uint32_t count;
	bool complained;
	uint32_t head[BUCKETS];      /* socket id + 1, 0: none */
	uint32_t next[TAS_SOCK_MAX]; /* of the socket with this id: the next in its chain, id + 1 */
} watch = { .io.fd = -1 };

static uint32_t *bucket(int wd)
{
	return &watch.head[(uint32_t)wd % BUCKETS];
}

static struct tas_sock_base *find(int wd)
{
	for (uint32_t i = *bucket(wd); i; i = watch.next[i - 1]) {
		struct tas_sock_base *s = tas__sock(i - 1, 0);

		if (s && s->wd == wd)
			return s;
	}
	return NULL;
}

static void forget(struct tas_sock_base *s)
{
	uint32_t *p = bucket(s->wd);

	while (*p && *p != s->id + 1)
		p = &watch.next[*p - 1];
	if (*p) {
		*p = watch.next[s->id];
		watch.count--;
	}
	s->wd = -1;
}

int tas__watch_add(struct tas_sock_base *s, int fd)
{
	char path[32];
	int wd;

	if (s->wd >= 0)
		return 0;
	if (watch.io.fd < 0)
		return -ENOSYS;
	snprintf(path, sizeof path, "/proc/self/fd/%d", fd);
	wd = inotify_add_watch(watch.io.fd, path, IN_CLOSE | IN_ONESHOT);
	if (wd < 0) {
		int err = errno;

		if (!watch.complained)
			tas_warn("cannot watch a socket: %s%s", strerror(err),
				 err == ENOSPC ? " (see fs.inotify.max_user_watches)" : "");
		watch.complained = true;
		return -err;
	}
	s->wd = wd;
	watch.next[s->id] = *bucket(wd);
	*bucket(wd) = s->id + 1;
	watch.count++;
	return 0;
}

void tas__watch_del(struct tas_sock_base *s)
{
	int wd = s->wd;

	if (wd < 0)
		return;
	tas_shared_in();
	forget(s);
	tas_shared_out();
	inotify_rm_watch(watch.io.fd, wd);
}

uint32_t tas__watch_count(void)
{
	return watch.count;
}

static void closed(struct tas_sock_base *s)
{
	forget(s);
	tas__claims_clear(s);
	tas__sock_last_close(s);
}

static int by_number(const void *a, const void *b)
{
	return *(const int *)a < *(const int *)b ? -1 : *(const int *)a > *(const int *)b;
}

/* Events were lost: a watch that the kernel no longer lists has fired. */
static void recount(void)
{
	size_t n = 0, room = watch.count + 1024;
	int *live = malloc(room * sizeof *live), wd;
	char path[48], line[256];
	FILE *f;

	snprintf(path, sizeof path, "/proc/self/fdinfo/%d", watch.io.fd);
	f = live ? fopen(path, "re") : NULL;
	if (!f) {
		tas_warn("inotify lost events and cannot be asked again: closed sockets may stay");
		free(live);
		return;
	}
	while (n < room && fgets(line, sizeof line, f))
		if (sscanf(line, "inotify wd:%x", (unsigned *)&wd) == 1)
			live[n++] = wd;
	fclose(f);
	qsort(live, n, sizeof *live, by_number);
	for (uint32_t id = 0; n < room && id < TAS_SOCK_MAX; id++) {
		struct tas_sock_base *s = tas__sock(id, 0);

		if (s && s->wd >= 0 && !bsearch(&s->wd, live, n, sizeof *live, by_number))
			closed(s);
	}
	free(live);
}

static void ready(struct tas_pollable *p, uint32_t events)
{
	_Alignas(struct inotify_event) char buf[4096];
	ssize_t n = read(p->fd, buf, sizeof buf); /* level triggered: the rest comes next round */

	(void)events;
	for (ssize_t at = 0; at < n;) {
		const struct inotify_event *e = (const void *)(buf + at);
		struct tas_sock_base *s;

		at += (ssize_t)(sizeof *e + e->len);
		if (e->mask & IN_Q_OVERFLOW) {
			recount();
			continue;
		}
		s = (e->mask & IN_CLOSE) ? find(e->wd) : NULL;
		if (s)
			closed(s);
	}
}

int tas__watch_init(void)
{
	int err;

	watch.io.fn = ready;
	watch.io.fd = inotify_init1(IN_NONBLOCK | IN_CLOEXEC);
	if (watch.io.fd < 0)
		return -errno;
	err = tas_loop_add(&watch.io, EPOLLIN);
	if (err)
		tas__watch_exit();
	return err;
}

void tas__watch_exit(void)
{
	if (watch.io.fd < 0)
		return;
	tas_loop_del(&watch.io);
	close(watch.io.fd);
	watch.io.fd = -1;
	if (watch.count)
		memset(watch.head, 0, sizeof watch.head);
	watch.count = 0;
}
