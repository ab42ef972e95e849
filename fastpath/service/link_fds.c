/* SPDX-License-Identifier: MIT */
/*
 * Finding a driver's descriptors.  The receive queues of net_af_xdp are ordinary descriptors on which epoll works, but DPDK has no call
 * that tells them.  So /proc/self/fd is compared before and after the driver has opened its queue.
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

static bool is_port_socket(int fd)
{
	int domain = 0;
	socklen_t len = sizeof(domain);

	return !getsockopt(fd, SOL_SOCKET, SO_DOMAIN, &domain, &len) && domain == AF_XDP;
}

struct search {
	const struct tas_fdset *before;
	int found;
};

static void look_for_port(int fd, void *arg)
{
	struct search *s = arg;

	if (!(s->before->bit[fd / 64] & 1ull << (fd % 64)) && is_port_socket(fd) && (s->found < 0 || fd < s->found))
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
