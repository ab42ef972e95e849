/* SPDX-License-Identifier: MIT */
/*
 * Finding a driver's descriptors.  The receive queues of net_tap and net_af_xdp are ordinary descriptors on which
 * epoll works, but DPDK has no call that tells them (for these drivers 22.11 offers no receive interrupt that would survive
 * without the trigger signal).  So /proc/self/fd is compared before and after the driver has opened its queue.
 */
#include <dirent.h>
#include <fcntl.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/edge.h"

enum { FDS = sizeof(((struct tas_fdset *)0)->bit) * 8 };

/* Calls fn for every open descriptor below FDS. */
static void each_fd(void (*fn)(int fd, void *arg), void *arg)
{
	DIR *d = opendir("/proc/self/fd");
	struct dirent *e;
	int fd;

	if (!d)
		return;
	while ((e = readdir(d))) {
		fd = atoi(e->d_name);
		if (e->d_name[0] != '.' && fd != dirfd(d) && fd < FDS)
			fn(fd, arg);
	}
	closedir(d);
}

static void mark(int fd, void *arg)
{
	struct tas_fdset *s = arg;

	s->bit[fd / 64] |= 1ull << (fd % 64);
}

void tas__fds_snapshot(struct tas_fdset *s)
{
	memset(s, 0, sizeof(*s));
	each_fd(mark, s);
}

static bool is_tap(int fd)
{
	char path[64], to[64];
	ssize_t n;

	snprintf(path, sizeof(path), "/proc/self/fd/%d", fd);
	n = readlink(path, to, sizeof(to) - 1);
	if (n < 0)
		return false;
	to[n] = 0;
	return !strcmp(to, "/dev/net/tun");
}

static bool is_port_socket(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && (domain == AF_PACKET || domain == AF_XDP);
}

struct search {
	const struct tas_fdset *before;
	int found;
};

static void look_for_port(int fd, void *arg)
{
	struct search *s = arg;

	if (!(s->before->bit[fd / 64] & 1ull << (fd % 64)) && (is_tap(fd) || is_port_socket(fd)) && (s->found < 0 || fd < s->found))
		s->found = fd;
}

int tas__fds_find_port(struct tas_fdset *seen)
{
	struct search s = { .before = seen, .found = -1 };

	each_fd(look_for_port, &s);
	if (s.found >= 0)
		mark(s.found, seen);
	return s.found;
}

static void clear_async(int fd, void *arg)
{
	unsigned *n = arg;
	int flags = fcntl(fd, F_GETFL);

	if (flags < 0 || !(flags & O_ASYNC) || !is_tap(fd))
		return;
	if (!fcntl(fd, F_SETFL, flags & ~O_ASYNC))
		++*n;
}

unsigned tas__fds_clear_async(void)
{
	unsigned n = 0;

	each_fd(clear_async, &n);
	return n;
}
