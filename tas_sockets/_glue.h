/* SPDX-License-Identifier: MIT */
/*
 * What the Python module adds to libtas_sockets: Python's timeouts (a deadline beside a non-blocking descriptor), addresses
 * as plain fields, and vectors built without a Python object per part.  Results are -errno; GLUE_TIMEOUT is no errno.
 */
#ifndef TAS_GLUE_H
#define TAS_GLUE_H

#include <sys/socket.h>

#include "tas.h"
#include "tas_sockets.h"

/* cffi: from here to the next such mark, the text is what the interpreter is told, too (_build_ffi.py) */
enum { GLUE_TIMEOUT = -100000 };

/* An IPv4 or IPv6 address; family 0: none. */
struct glue_addr {
	int family;
	unsigned port, flow, scope;
	unsigned char ip[16];
};

/* deadline: CLOCK_MONOTONIC nanoseconds, or -1: as the descriptor's own O_NONBLOCK says. */
int glue_made(int fd);
int glue_look(int fd);
ssize_t glue_sendto(int fd, const char *buf, size_t n, int flags, const struct glue_addr *to, int64_t deadline);
ssize_t glue_recvmsg(int fd, struct msghdr *m, int flags, int64_t deadline);
ssize_t glue_sendmsg(int fd, const struct msghdr *m, int flags, int64_t deadline);
ssize_t glue_sendmsg_to(int fd, const struct msghdr *m, int flags, const struct glue_addr *to, int64_t deadline);
ssize_t glue_sendfile(int fd, int in, int64_t off, size_t n, int64_t deadline);
int glue_accept(int fd, struct glue_addr *from, int64_t deadline);
int glue_bind(int fd, const struct glue_addr *a);
int glue_connect(int fd, const struct glue_addr *a);
int glue_connected(int fd, int64_t deadline);
int glue_getname(int fd, int peer, struct glue_addr *a);
void glue_signal(int sig);
int glue_close(int fd);
int glue_nonblock(int fd);
void glue_announce(int fd);
/* select() over three lists of numbers; each list is overwritten by 1 (ready) and 0 */
int glue_select(int *r, int nr, int *w, int nw, int *x, int nx, int64_t timeout_ns);
int glue_poll(struct pollfd *p, int n, int64_t timeout_ns);
int glue_epoll_ctl(int ep, int op, int fd, uint32_t events);
/* cffi: end */

/* for _fast.c */
ssize_t glue_recv(int fd, void *buf, size_t n, int flags, int64_t deadline);
ssize_t glue_send(int fd, const char *buf, size_t n, int flags, int64_t deadline);
int glue_epoll_wait(int ep, struct epoll_event *ev, int max, int64_t timeout_ns);

#endif
