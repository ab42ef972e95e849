/* SPDX-License-Identifier: MIT */
/*
 * Bridges, the program's side.  Nothing here uses or changes the state of the library: the caller may be a vfork child, whose
 * memory is its parent's, and its numbers may be others than its parent's.  So what a number is, the kernel and the service say,
 * over a control socket made for the purpose.  Its end tells the service that the program runs.
 */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>
#include <sys/un.h>

#include "sockets/sock.h"
#include "tas.h"

enum { NUMBERS_MAX = 1024, CTL_FROM = 200, REPLY_S = 5 };

/* A TCP socket without a connection of the kernel's: TAS's, or nobody's. */
static bool may_be_ours(int fd)
{
	uint8_t st = 0;
	socklen_t len = 1;
	int f = sys_fcntl(fd, F_GETFD, 0);

	return f >= 0 && !(f & FD_CLOEXEC) && sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, &st, &len) == 0 && st == TAS_S_CLOSE;
}

bool tas_may_hold_sockets(void)
{
	for (int fd = 0; fd < NUMBERS_MAX; fd++)
		if (may_be_ours(fd))
			return true;
	return false;
}

static uint64_t cookie_of(int fd)
{
	uint64_t c = 0;
	socklen_t len = sizeof c;

	return sys_getsockopt(fd, SOL_SOCKET, SO_COOKIE, &c, &len) < 0 ? 0 : c;
}

static int dial(void)
{
	struct sockaddr_un a = {.sun_family = AF_UNIX};
	struct timeval tv = {.tv_sec = REPLY_S};
	int fd = sys_socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0), high;

	if (fd < 0)
		return fd;
	/* not among the numbers that the program or its shell are about to use */
	high = sys_fcntl(fd, F_DUPFD_CLOEXEC, CTL_FROM);
	if (high >= 0) {
		sys_close(fd);
		fd = high;
	}
	strncpy(a.sun_path, tas_socket_path(), sizeof a.sun_path - 1);
	sys_setsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	sys_setsockopt(fd, SOL_SOCKET, SO_SNDTIMEO, &tv, sizeof tv);
	if (sys3(SYS_connect, fd, SYS_P(&a), sizeof a) < 0) {
		sys_close(fd);
		return -ECONNREFUSED;
	}
	return fd;
}

/* The stream for fd, or -errno. */
static int ask(int ctl, int fd)
{
	struct tas_msg m = {.magic = TAS_ABI_MAGIC, .op = TAS_MSG_BRIDGE};
	union {
		struct cmsghdr h;
		char room[CMSG_SPACE(sizeof(int))];
	} u;
	struct iovec v = {.iov_base = &m, .iov_len = sizeof m};
	struct msghdr h = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = &u, .msg_controllen = sizeof u};
	int stream = -EPROTO;

	if (tas__tell_fd(ctl, &m, TAS_MSG_BRIDGE, fd) < 0)
		return -EPIPE;
	if (sys3(SYS_recvmsg, ctl, SYS_P(&h), MSG_CMSG_CLOEXEC) < (long)sizeof m)
		return -EPIPE;
	if (h.msg_controllen >= CMSG_LEN(sizeof(int)))
		memcpy(&stream, CMSG_DATA(&u.h), sizeof stream);
	return m.err ? -ENOTCONN : stream;
}

/* Puts the stream onto every number of the same socket. */
static void replace(struct tas_bridges *b, int first, int stream)
{
	int flags = sys_fcntl(first, F_GETFL, 0);
	uint64_t cookie = cookie_of(first);

	sys_fcntl(stream, F_SETFL, (unsigned long)(flags & O_NONBLOCK));
	for (int fd = first; fd < NUMBERS_MAX && b->n < sizeof b->fd / sizeof b->fd[0]; fd++) {
		int saved;

		if (!may_be_ours(fd) || cookie_of(fd) != cookie)
			continue;
		saved = sys_fcntl(fd, F_DUPFD_CLOEXEC, CTL_FROM);
		if (saved < 0 || sys3(SYS_dup3, stream, fd, 0) < 0) {
			sys_close(saved);
			continue;
		}
		b->fd[b->n] = fd;
		b->saved[b->n++] = saved;
	}
	sys_close(stream);
}

void tas_bridge(struct tas_bridges *b)
{
	b->ctl = -1;
	b->n = 0;
	for (int fd = 0; fd < NUMBERS_MAX && b->n < sizeof b->fd / sizeof b->fd[0]; fd++) {
		int stream;

		if (!may_be_ours(fd))
			continue;
		if (b->ctl < 0)
			b->ctl = dial();
		if (b->ctl < 0)
			return;
		stream = ask(b->ctl, fd);
		if (stream >= 0)
			replace(b, fd, stream);
	}
}

void tas_bridge_cancel(struct tas_bridges *b)
{
	struct tas_msg m = {0};

	for (unsigned i = 0; i < b->n; i++) {
		sys3(SYS_dup3, b->saved[i], b->fd[i], 0);
		sys_close(b->saved[i]);
	}
	if (b->ctl < 0)
		return;
	tas__tell(b->ctl, &m, TAS_MSG_BRIDGE_CANCEL);
	sys_close(b->ctl);
}
