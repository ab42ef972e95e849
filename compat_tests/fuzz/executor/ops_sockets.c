/* SPDX-License-Identifier: MIT */
/* Operations on sockets and numbers: making, naming, connecting, copying, closing, options, passing. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <unistd.h>

#include "ops.h"

/* ---- making sockets ---- */
void op_socket(struct slot *s)
{
	made(s, socket((int)s->arg[0], SOCK_STREAM | (int)s->arg[1], 0));
}

void op_socketpair(struct slot *s)
{
	int fd[2] = { -1, -1 };
	int r = socketpair(AF_UNIX, SOCK_STREAM | (int)s->arg[1], 0, fd);

	result(s, r ? r : fd[0]);
	s->second = fd[1];
	say(s, " and %d", fd[1]);
}

void op_pipe(struct slot *s)
{
	int fd[2] = { -1, -1 };
	int r = pipe2(fd, O_NONBLOCK);

	result(s, r ? r : fd[0]);
	s->second = fd[1];
	say(s, " and %d", fd[1]);
}

void op_eventfd(struct slot *s)
{
	result(s, eventfd((unsigned int)s->arg[0], EFD_NONBLOCK));
}

static void port_of(struct slot *s)
{
	struct sockaddr_storage a = { 0 };
	socklen_t len = sizeof(a);

	if (!getsockname((int)s->arg[0], (void *)&a, &len) && (a.ss_family == AF_INET || a.ss_family == AF_INET6))
		s->port = ntohs(((struct sockaddr_in *)&a)->sin_port);
}

/* An IPv4 address for a socket of IPv6 is mapped. */
static void fit_address(struct slot *s)
{
	struct sockaddr_in v4;
	struct sockaddr_in6 *v6 = (void *)&s->addr;
	int domain = 0;
	socklen_t len = sizeof(domain);

	if (s->addr.ss_family != AF_INET || getsockopt((int)s->arg[0], SOL_SOCKET, SO_DOMAIN, &domain, &len) || domain != AF_INET6)
		return;
	memcpy(&v4, &s->addr, sizeof(v4));
	memset(v6, 0, sizeof(*v6));
	v6->sin6_family = AF_INET6;
	v6->sin6_port = v4.sin_port;
	v6->sin6_addr.s6_addr[10] = v6->sin6_addr.s6_addr[11] = 0xff;
	memcpy(&v6->sin6_addr.s6_addr[12], &v4.sin_addr, 4);
	s->addr_len = sizeof(*v6);
}

void op_bind(struct slot *s)
{
	fit_address(s);
	result(s, bind((int)s->arg[0], (void *)&s->addr, s->addr_len));
	if (!s->ret)
		port_of(s);
}

void op_listen(struct slot *s)
{
	result(s, listen((int)s->arg[0], (int)s->arg[1]));
	if (!s->ret)
		port_of(s);
}

void op_connect(struct slot *s)
{
	fit_address(s);
	result(s, connect((int)s->arg[0], (void *)&s->addr, s->addr_len));
}

void op_dissolve(struct slot *s)
{
	struct sockaddr a = { .sa_family = AF_UNSPEC };

	result(s, connect((int)s->arg[0], &a, sizeof(a)));
}

void op_accept(struct slot *s)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	made(s, accept4((int)s->arg[0], (void *)&a, &len, (int)s->arg[1]));
	if (s->ret >= 0)
		say_address(s, &a, len);
}

void op_getsockname(struct slot *s)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	result(s, getsockname((int)s->arg[0], (void *)&a, &len));
	if (!s->ret)
		say_address(s, &a, len);
}

void op_getpeername(struct slot *s)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	result(s, getpeername((int)s->arg[0], (void *)&a, &len));
	if (!s->ret)
		say_address(s, &a, len);
}

/* ---- numbers ---- */
void op_close(struct slot *s)
{
	result(s, s->arg[0] > 2 ? close((int)s->arg[0]) : (errno = EBADF, -1));
}

void op_close_range(struct slot *s)
{
	long from = s->arg[0] > 2 ? s->arg[0] : 3, to = s->arg[1] > from ? s->arg[1] : from;

	result(s, close_range((unsigned int)from, (unsigned int)(to > 60 ? 60 : to), 0));
}

void op_dup(struct slot *s)
{
	result(s, dup((int)s->arg[0]));
}

void op_dup2(struct slot *s)
{
	result(s, s->arg[1] > 2 ? dup2((int)s->arg[0], (int)s->arg[1]) : (errno = EBADF, -1));
}

void op_dup3(struct slot *s)
{
	result(s, s->arg[1] > 2 ? dup3((int)s->arg[0], (int)s->arg[1], O_CLOEXEC) : (errno = EBADF, -1));
}

void op_dupfd(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_DUPFD, (int)s->arg[1]));
}

void op_setfl(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_SETFL, s->arg[1] ? O_NONBLOCK : 0));
}

void op_getfl(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_GETFL));
}

void op_setfd(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_SETFD, s->arg[1] ? FD_CLOEXEC : 0));
}

void op_getfd(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_GETFD));
}

void op_fionbio(struct slot *s)
{
	int on = (int)s->arg[1];

	result(s, ioctl((int)s->arg[0], FIONBIO, &on));
}

void op_fionread(struct slot *s)
{
	int n = -1;

	result(s, ioctl((int)s->arg[0], FIONREAD, &n));
	if (!s->ret)
		say(s, " %d", n);
}

void op_sockatmark(struct slot *s)
{
	result(s, sockatmark((int)s->arg[0]));
}

/* ---- options ---- */
void op_setopt(struct slot *s)
{
	const struct option *o = &options[(size_t)s->arg[1] % n_options];
	long value[2] = { 0, 0 };
	int *word = (int *)value;

	if (o->size == 16) { /* a time: long enough to be no limit */
		value[0] = s->arg[2] ? 1000 : 0;
	} else {
		word[0] = (int)s->arg[2];
		word[1] = s->n_args > 3 ? (int)s->arg[3] : 0;
	}
	result(s, setsockopt((int)s->arg[0], o->level, o->option, value, (socklen_t)o->size));
}

void op_getopt(struct slot *s)
{
	const struct option *o = &options[(size_t)s->arg[1] % n_options];
	int word[4] = { 0 };
	socklen_t len = (socklen_t)o->size;

	result(s, getsockopt((int)s->arg[0], o->level, o->option, word, &len));
	if (s->ret)
		return;
	say(s, " len %u:", len);
	for (unsigned int i = 0; i < len / 4; i++)
		say(s, " %d", word[i]);
}

/* ---- passing ---- */
void op_sendfd(struct slot *s) /* through fd */
{
	char byte = 'f', room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	struct cmsghdr *c = CMSG_FIRSTHDR(&m);
	int fd = (int)s->arg[1];

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof(int));
	memcpy(CMSG_DATA(c), &fd, sizeof(fd));
	result(s, sendmsg((int)s->arg[0], &m, MSG_DONTWAIT | MSG_NOSIGNAL));
}

void op_recvfd(struct slot *s)
{
	char byte, room[CMSG_SPACE(sizeof(int))] = { 0 };
	struct iovec v = { &byte, 1 };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof(room) };
	struct cmsghdr *c;
	ssize_t r = recvmsg((int)s->arg[0], &m, MSG_DONTWAIT);
	int fd = -1;

	result(s, r);
	if (r < 0)
		return;
	c = CMSG_FIRSTHDR(&m);
	if (c && c->cmsg_level == SOL_SOCKET && c->cmsg_type == SCM_RIGHTS)
		memcpy(&fd, CMSG_DATA(c), sizeof(fd));
	say(s, " of %zd bytes", r);
	s->ret = fd;
}
