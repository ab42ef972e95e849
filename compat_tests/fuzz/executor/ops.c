/* SPDX-License-Identifier: MIT */
/* The operations of a program: each makes its call and writes what is to be seen of it. */
#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/select.h>
#include <sys/stat.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "fuzz.h"

static __thread unsigned char data[DATA_MAX];

static void say(struct slot *s, const char *format, ...) __attribute__((format(printf, 2, 3)));
static void say(struct slot *s, const char *format, ...)
{
	size_t n = strlen(s->text);
	va_list ap;

	va_start(ap, format);
	vsnprintf(s->text + n, sizeof(s->text) - n, format, ap);
	va_end(ap);
}

/* ---- results ---- */
static void result(struct slot *s, long ret)
{
	int error = errno;

	s->ret = ret;
	s->error = ret < 0 ? error : 0;
}

static void made(struct slot *s, long ret) /* a descriptor, perhaps a stream socket */
{
	int one = 1;

	result(s, ret);
	if (ret >= 0)
		setsockopt((int)ret, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	errno = s->error;
}

static void say_address(struct slot *s, const struct sockaddr_storage *a, socklen_t len)
{
	char text[64] = "?";
	int port = 0;

	if (len == 0) {
		say(s, " none");
		return;
	}
	if (a->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)a;

		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		port = ntohs(in->sin_port);
	} else if (a->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)a;

		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		port = ntohs(in6->sin6_port);
	}
	say(s, " %s len %u port <%d>", text, len, port); /* the conductor names what is between < and > */
}

static uint32_t hash(const unsigned char *p, size_t n)
{
	uint32_t h = 2166136261u;

	while (n--)
		h = (h ^ *p++) * 16777619u;
	return h;
}

/* Bytes of a message are numbered from an origin that the conductor gives (args: fd len flags origin). */
static void pattern(long origin, size_t n)
{
	for (size_t i = 0; i < n; i++)
		data[i] = (unsigned char)((size_t)origin * 31 + i * 7 + (i >> 8));
}

static size_t size_of(long n)
{
	return n < 0 ? 0 : n > DATA_MAX ? DATA_MAX : (size_t)n;
}

static void say_data(struct slot *s, long n)
{
	if (n > 0)
		say(s, " #%08x", hash(data, (size_t)n));
}

/* ---- making sockets ---- */
static void op_socket(struct slot *s)
{
	made(s, socket((int)s->arg[0], SOCK_STREAM | (int)s->arg[1], 0));
}

static void op_socketpair(struct slot *s)
{
	int fd[2] = { -1, -1 };
	int r = socketpair(AF_UNIX, SOCK_STREAM | (int)s->arg[1], 0, fd);

	result(s, r ? r : fd[0]);
	s->second = fd[1];
	say(s, " and %d", fd[1]);
}

static void op_pipe(struct slot *s)
{
	int fd[2] = { -1, -1 };
	int r = pipe2(fd, O_NONBLOCK);

	result(s, r ? r : fd[0]);
	s->second = fd[1];
	say(s, " and %d", fd[1]);
}

static void op_eventfd(struct slot *s)
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

static void op_bind(struct slot *s)
{
	fit_address(s);
	result(s, bind((int)s->arg[0], (void *)&s->addr, s->addr_len));
	if (!s->ret)
		port_of(s);
}

static void op_listen(struct slot *s)
{
	result(s, listen((int)s->arg[0], (int)s->arg[1]));
	if (!s->ret)
		port_of(s);
}

static void op_connect(struct slot *s)
{
	fit_address(s);
	result(s, connect((int)s->arg[0], (void *)&s->addr, s->addr_len));
}

static void op_dissolve(struct slot *s)
{
	struct sockaddr a = { .sa_family = AF_UNSPEC };

	result(s, connect((int)s->arg[0], &a, sizeof(a)));
}

static void op_accept(struct slot *s)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	made(s, accept4((int)s->arg[0], (void *)&a, &len, (int)s->arg[1]));
	if (s->ret >= 0)
		say_address(s, &a, len);
}

static void op_getsockname(struct slot *s)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	result(s, getsockname((int)s->arg[0], (void *)&a, &len));
	if (!s->ret)
		say_address(s, &a, len);
}

static void op_getpeername(struct slot *s)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof(a);

	result(s, getpeername((int)s->arg[0], (void *)&a, &len));
	if (!s->ret)
		say_address(s, &a, len);
}

/* ---- data ---- */
static void op_send(struct slot *s)
{
	pattern(s->arg[3], size_of(s->arg[1]));
	result(s, send((int)s->arg[0], data, size_of(s->arg[1]), (int)s->arg[2]));
}

static void op_write(struct slot *s)
{
	pattern(s->arg[3], size_of(s->arg[1]));
	result(s, write((int)s->arg[0], data, size_of(s->arg[1])));
}

static void op_notify(struct slot *s) /* to an eventfd */
{
	uint64_t one = 1;

	result(s, write((int)s->arg[0], &one, sizeof(one)));
}

static void op_recv(struct slot *s)
{
	result(s, recv((int)s->arg[0], data, size_of(s->arg[1]), (int)s->arg[2]));
	if (!((int)s->arg[2] & MSG_TRUNC))
		say_data(s, s->ret);
}

static void op_read(struct slot *s)
{
	result(s, read((int)s->arg[0], data, size_of(s->arg[1])));
	say_data(s, s->ret);
}

static int cut(struct iovec *v, long n) /* into three pieces, the middle one empty */
{
	size_t half = size_of(n) / 2;

	v[0] = (struct iovec){ data, half };
	v[1] = (struct iovec){ data + half, 0 };
	v[2] = (struct iovec){ data + half, size_of(n) - half };
	return 3;
}

static void op_writev(struct slot *s)
{
	struct iovec v[3];
	int n = cut(v, s->arg[1]);

	pattern(s->arg[3], size_of(s->arg[1]));
	result(s, writev((int)s->arg[0], v, n));
}

static void op_readv(struct slot *s)
{
	struct iovec v[3];

	result(s, readv((int)s->arg[0], v, cut(v, s->arg[1])));
	say_data(s, s->ret);
}

static void op_sendmsg(struct slot *s)
{
	struct iovec v[3];
	struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)cut(v, s->arg[1]) };

	pattern(s->arg[3], size_of(s->arg[1]));
	result(s, sendmsg((int)s->arg[0], &m, (int)s->arg[2]));
}

static void op_recvmsg(struct slot *s)
{
	struct iovec v[3];
	struct sockaddr_storage name;
	char control[64];
	struct msghdr m = { .msg_name = &name, .msg_namelen = sizeof(name), .msg_iov = v, .msg_iovlen = (size_t)cut(v, s->arg[1]),
			    .msg_control = control, .msg_controllen = sizeof(control) };

	result(s, recvmsg((int)s->arg[0], &m, (int)s->arg[2]));
	if (s->ret < 0)
		return;
	say(s, " name %u control %zu flags %#x", m.msg_namelen, m.msg_controllen, m.msg_flags);
	if (!((int)s->arg[2] & MSG_TRUNC))
		say_data(s, s->ret);
}

/* n messages of so many bytes each; args: fd len n origin. */
static void op_sendmmsg(struct slot *s)
{
	struct mmsghdr m[4] = { 0 };
	struct iovec v[4];
	unsigned int n = s->arg[2] < 0 || s->arg[2] > 4 ? 4 : (unsigned int)s->arg[2];

	pattern(s->arg[3], size_of(s->arg[1]));
	for (unsigned int i = 0; i < n; i++) {
		v[i] = (struct iovec){ data, size_of(s->arg[1]) };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	}
	result(s, sendmmsg((int)s->arg[0], m, n, MSG_DONTWAIT));
	for (int i = 0; i < s->ret; i++)
		say(s, " %u", m[i].msg_len);
}

static void op_recvmmsg(struct slot *s)
{
	struct mmsghdr m[4] = { 0 };
	struct iovec v[4];
	size_t each = size_of(s->arg[1]) > DATA_MAX / 4 ? DATA_MAX / 4 : size_of(s->arg[1]);
	unsigned int n = s->arg[2] < 0 || s->arg[2] > 4 ? 4 : (unsigned int)s->arg[2];

	for (unsigned int i = 0; i < n; i++) {
		v[i] = (struct iovec){ data + i * each, each };
		m[i].msg_hdr = (struct msghdr){ .msg_iov = &v[i], .msg_iovlen = 1 };
	}
	result(s, recvmmsg((int)s->arg[0], m, n, MSG_DONTWAIT, NULL));
	for (int i = 0; i < s->ret; i++)
		say(s, " %u flags %#x #%08x", m[i].msg_len, m[i].msg_hdr.msg_flags, hash(data + (size_t)i * each, m[i].msg_len));
}

/* From a file of our own; args: fd len _ origin. */
static void op_sendfile(struct slot *s)
{
	int file = memfd_create("fuzz", MFD_CLOEXEC);
	off_t at = 3;

	pattern(s->arg[3], size_of(s->arg[1]) + 3);
	if (write(file, data, size_of(s->arg[1]) + 3) < 0)
		s->second = -1;
	result(s, sendfile((int)s->arg[0], file, &at, size_of(s->arg[1])));
	say(s, " at %ld", (long)at);
	close(file);
}

static void op_splice(struct slot *s) /* from to len */
{
	result(s, splice((int)s->arg[0], NULL, (int)s->arg[1], NULL, size_of(s->arg[2]), SPLICE_F_NONBLOCK));
}

/* Writes until the socket has refused for a while: the other end takes some, and a ring grows once nothing has moved for 5 ms. */
static void op_fill(struct slot *s)
{
	int refused = 0, rounds = 0;
	ssize_t n = 0;

	memset(data, 'f', DATA_MAX);
	while (refused < 40 && rounds++ < 4000) {
		n = send((int)s->arg[0], data, DATA_MAX, MSG_DONTWAIT | MSG_NOSIGNAL);
		if (n < 0 && errno != EAGAIN)
			break;
		refused = n < 0 ? refused + 1 : 0;
		if (n < 0)
			usleep(1000);
	}
	result(s, n < 0 ? -1 : 0);
}

/* Reads until nothing has come for a while. */
static void op_drain(struct slot *s)
{
	int nothing = 0;
	ssize_t n = 0;

	while (nothing < 20) {
		n = recv((int)s->arg[0], data, DATA_MAX, MSG_DONTWAIT);
		if (n == 0 || (n < 0 && errno != EAGAIN))
			break;
		nothing = n < 0 ? nothing + 1 : 0;
		if (n < 0)
			usleep(1000);
	}
	result(s, n);
}

static void op_shutdown(struct slot *s)
{
	result(s, shutdown((int)s->arg[0], (int)s->arg[1]));
}

/* ---- numbers ---- */
static void op_close(struct slot *s)
{
	result(s, s->arg[0] > 2 ? close((int)s->arg[0]) : (errno = EBADF, -1));
}

static void op_close_range(struct slot *s)
{
	long from = s->arg[0] > 2 ? s->arg[0] : 3, to = s->arg[1] > from ? s->arg[1] : from;

	result(s, close_range((unsigned int)from, (unsigned int)(to > 60 ? 60 : to), 0));
}

static void op_dup(struct slot *s)
{
	result(s, dup((int)s->arg[0]));
}

static void op_dup2(struct slot *s)
{
	result(s, s->arg[1] > 2 ? dup2((int)s->arg[0], (int)s->arg[1]) : (errno = EBADF, -1));
}

static void op_dup3(struct slot *s)
{
	result(s, s->arg[1] > 2 ? dup3((int)s->arg[0], (int)s->arg[1], O_CLOEXEC) : (errno = EBADF, -1));
}

static void op_dupfd(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_DUPFD, (int)s->arg[1]));
}

static void op_setfl(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_SETFL, s->arg[1] ? O_NONBLOCK : 0));
}

static void op_getfl(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_GETFL));
}

static void op_setfd(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_SETFD, s->arg[1] ? FD_CLOEXEC : 0));
}

static void op_getfd(struct slot *s)
{
	result(s, fcntl((int)s->arg[0], F_GETFD));
}

static void op_fionbio(struct slot *s)
{
	int on = (int)s->arg[1];

	result(s, ioctl((int)s->arg[0], FIONBIO, &on));
}

static void op_fionread(struct slot *s)
{
	int n = -1;

	result(s, ioctl((int)s->arg[0], FIONREAD, &n));
	if (!s->ret)
		say(s, " %d", n);
}

static void op_sockatmark(struct slot *s)
{
	result(s, sockatmark((int)s->arg[0]));
}

/* ---- options ---- */
static void op_setopt(struct slot *s)
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

static void op_getopt(struct slot *s)
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

/* ---- waiting ---- */
static void say_events(struct slot *s, int var, unsigned int ev)
{
	char text[96];

	events_text(text, sizeof(text), ev);
	say(s, " %c=%s", var < 0 ? '?' : 'a' + var, text);
}

static void op_poll(struct slot *s) /* timeout, then pairs: fd events */
{
	struct pollfd p[N_ARGS];
	int n = 0;

	for (int i = 1; i + 1 < s->n_args; i += 2)
		p[n++] = (struct pollfd){ .fd = (int)s->arg[i], .events = (short)s->arg[i + 1] };
	result(s, poll(p, (nfds_t)n, (int)s->arg[0]));
	for (int i = 0; s->ret > 0 && i < n; i++)
		say_events(s, s->var[1 + 2 * i], (unsigned short)p[i].revents);
}

static void op_select(struct slot *s)
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

static void op_epoll(struct slot *s)
{
	result(s, epoll_create1(EPOLL_CLOEXEC));
}

static void op_ctl(struct slot *s) /* set op fd events */
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

static void op_ewait(struct slot *s) /* set max timeout */
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

/* ---- passing ---- */
static void op_sendfd(struct slot *s) /* through fd */
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

static void op_recvfd(struct slot *s)
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

const struct op ops[] = {
	{ "socket", op_socket, 2 },	  { "socketpair", op_socketpair, 1 }, { "pipe", op_pipe, 0 },
	{ "eventfd", op_eventfd, 1 },	  { "bind", op_bind, 2 },	      { "listen", op_listen, 2 },
	{ "connect", op_connect, 2 },	  { "dissolve", op_dissolve, 1 },     { "accept", op_accept, 2 },
	{ "getsockname", op_getsockname, 1 }, { "getpeername", op_getpeername, 1 }, { "send", op_send, 3 },
	{ "write", op_write, 2 },	  { "notify", op_notify, 1 },	      { "recv", op_recv, 3 },
	{ "read", op_read, 2 },		  { "writev", op_writev, 2 },	      { "readv", op_readv, 2 },
	{ "sendmsg", op_sendmsg, 3 },	  { "recvmsg", op_recvmsg, 3 },	      { "fill", op_fill, 1 },
	{ "sendmmsg", op_sendmmsg, 3 },	  { "recvmmsg", op_recvmmsg, 3 },     { "sendfile", op_sendfile, 2 },
	{ "splice", op_splice, 3 },	  { "close_range", op_close_range, 2 },
	{ "drain", op_drain, 1 },	  { "shutdown", op_shutdown, 2 },     { "close", op_close, 1 },
	{ "dup", op_dup, 1 },		  { "dup2", op_dup2, 2 },	      { "dup3", op_dup3, 2 },
	{ "dupfd", op_dupfd, 2 },	  { "setfl", op_setfl, 2 },	      { "getfl", op_getfl, 1 },
	{ "setfd", op_setfd, 2 },	  { "getfd", op_getfd, 1 },	      { "fionbio", op_fionbio, 2 },
	{ "fionread", op_fionread, 1 },	  { "sockatmark", op_sockatmark, 1 }, { "setopt", op_setopt, 3 },
	{ "getopt", op_getopt, 2 },	  { "poll", op_poll, 1 },	      { "select", op_select, 1 },
	{ "epoll", op_epoll, 0 },	  { "ctl", op_ctl, 4 },		      { "ewait", op_ewait, 3 },
	{ "sendfd", op_sendfd, 2 },	  { "recvfd", op_recvfd, 1 },	      { "fork", op_fork, 0 },
	{ "exec", op_exec, 0 },		  { "exit", op_exit, 0 },	      { "handler", op_handler, 2 },
	{ "thread", op_thread, 1 },	  { "reset", op_reset, 0 },	      { "look", op_look, 0 },
	{ "kill", NULL, 2 },		  { "join", NULL, 1 },		      { NULL, NULL, 0 },
};

int op_find(const char *name)
{
	for (int i = 0; ops[i].name; i++)
		if (!strcmp(ops[i].name, name))
			return i;
	return -1;
}
