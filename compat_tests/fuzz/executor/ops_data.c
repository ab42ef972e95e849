/* SPDX-License-Identifier: MIT */
/* Operations that move bytes: pieces of a pattern, of which the trace shows a hash. */
#include <errno.h>
#include <fcntl.h>
#include <signal.h>
#include <string.h>
#include <sys/mman.h>
#include <sys/sendfile.h>
#include <sys/uio.h>
#include <unistd.h>

#include "ops.h"

static __thread unsigned char data[DATA_MAX];

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

/* ---- data ---- */
void op_send(struct slot *s)
{
	pattern(s->arg[3], size_of(s->arg[1]));
	result(s, send((int)s->arg[0], data, size_of(s->arg[1]), (int)s->arg[2]));
}

void op_write(struct slot *s)
{
	pattern(s->arg[3], size_of(s->arg[1]));
	result(s, write((int)s->arg[0], data, size_of(s->arg[1])));
}

void op_notify(struct slot *s) /* to an eventfd */
{
	uint64_t one = 1;

	result(s, write((int)s->arg[0], &one, sizeof(one)));
}

void op_recv(struct slot *s)
{
	result(s, recv((int)s->arg[0], data, size_of(s->arg[1]), (int)s->arg[2]));
	if (!((int)s->arg[2] & MSG_TRUNC))
		say_data(s, s->ret);
}

void op_read(struct slot *s)
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

void op_writev(struct slot *s)
{
	struct iovec v[3];
	int n = cut(v, s->arg[1]);

	pattern(s->arg[3], size_of(s->arg[1]));
	result(s, writev((int)s->arg[0], v, n));
}

void op_readv(struct slot *s)
{
	struct iovec v[3];

	result(s, readv((int)s->arg[0], v, cut(v, s->arg[1])));
	say_data(s, s->ret);
}

void op_sendmsg(struct slot *s)
{
	struct iovec v[3];
	struct msghdr m = { .msg_iov = v, .msg_iovlen = (size_t)cut(v, s->arg[1]) };

	pattern(s->arg[3], size_of(s->arg[1]));
	result(s, sendmsg((int)s->arg[0], &m, (int)s->arg[2]));
}

void op_recvmsg(struct slot *s)
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
void op_sendmmsg(struct slot *s)
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

void op_recvmmsg(struct slot *s)
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
void op_sendfile(struct slot *s)
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

void op_splice(struct slot *s) /* from to len */
{
	result(s, splice((int)s->arg[0], NULL, (int)s->arg[1], NULL, size_of(s->arg[2]), SPLICE_F_NONBLOCK));
}

/* Writes until the socket has refused for a while: the other end takes some, and a ring grows once nothing has moved for 5 ms. */
void op_fill(struct slot *s)
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
void op_drain(struct slot *s)
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

void op_shutdown(struct slot *s)
{
	result(s, shutdown((int)s->arg[0], (int)s->arg[1]));
}
