// SPDX-License-Identifier: MIT
/*
 * The wrappers whose first parameter decides, made from the list, and the few socket calls that need a hand.
 *
 * The generated function is the hot path for kernel descriptors: a table look-up and a tail call.
 */
#include <limits.h>
#include <linux/sockios.h>

#include "preload.h"

#define FD(ret, name, params, args, goes) \
	static __attribute__((noinline)) ret slow_##name params \
	{ \
		if (tas__passive()) \
			return tas__real.name args; \
		return (ret)tas__result(goes); \
	} \
	ret tas__w_##name params \
	{ \
		if (likely(tas__kernel(fd))) \
			return tas__real.name args; \
		return slow_##name args; \
	}
#define OWN(ret, name, params, args, file)
#define NEW(ret, name, params, file)
#define SAME(name, target)
TAS_CALLS(FD, OWN, NEW, SAME)

TAS_SAME(__connect, connect);
TAS_SAME(__read, read);
TAS_SAME(__write, write);
TAS_SAME(__send, send);
TAS_SAME(preadv64v2, preadv2);
TAS_SAME(pwritev64v2, pwritev2);
TAS_SAME(__close, close);

int tas__w_socket(int domain, int type, int protocol)
{
	if (unlikely(!tas__ready))
		tas__start();
	if (tas__passive())
		return tas__real.socket(domain, type, protocol);
	return (int)tas__result(tas_socket(domain, type, protocol));
}

int tas__w_sockatmark(int fd)
{
	int mark = 0;
	long r;

	if (tas__kernel(fd) || tas__passive())
		return tas__real.sockatmark(fd);
	r = tas_ioctl(fd, SIOCATMARK, &mark);
	return r < 0 ? (int)tas__result(r) : mark;
}

/* Sockets have no position: an offset other than "here" is ESPIPE, which the kernel says of the backing socket.  Which flags
 * it knows, it says as well: that socket is not connected, so a read does nothing else. */
static int rwf_to_msg(int fd, int flags)
{
	char byte;
	struct iovec one = {&byte, 1};

	if (flags & ~(RWF_HIPRI | RWF_DSYNC | RWF_SYNC | RWF_NOWAIT | RWF_APPEND) &&
	    tas__real.preadv2(fd, &one, 1, -1, flags | RWF_NOWAIT) < 0 && errno == EOPNOTSUPP)
		return -EOPNOTSUPP;
	return flags & RWF_NOWAIT ? MSG_DONTWAIT : 0;
}

ssize_t tas__preadv2(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
	int msg_flags = rwf_to_msg(fd, flags);

	if (off != -1 || n < 0 || n > IOV_MAX) {
		ssize_t r = tas__real.preadv2(fd, iov, n, off, flags);

		return r < 0 ? -errno : r;
	}
	return msg_flags < 0 ? msg_flags : tas_recvmsg(fd, &msg, msg_flags);
}

ssize_t tas__pwritev2(int fd, const struct iovec *iov, int n, off64_t off, int flags)
{
	struct msghdr msg = {.msg_iov = (struct iovec *)iov, .msg_iovlen = (size_t)n};
	int msg_flags = rwf_to_msg(fd, flags);

	if (off != -1 || n < 0 || n > IOV_MAX) {
		ssize_t r = tas__real.pwritev2(fd, iov, n, off, flags);

		return r < 0 ? -errno : r;
	}
	return msg_flags < 0 ? msg_flags : tas_sendmsg(fd, &msg, msg_flags);
}
