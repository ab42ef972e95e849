/* SPDX-License-Identifier: MIT */
/*
 * The calls that send: whose the number is, what Linux checks before it looks at the bytes, and then tas__send() (send.c).
 */
#include <limits.h>

#include "sockets/sock.h"

enum { CONTROL_MOST = 1024 }; /* control data that the kernel has room for in any case */

static ssize_t send_iov(struct tas_obj *o, int fd, const struct iovec *iov, int n_iov, size_t total, int flags)
{
	struct tas_source src = {.iov = iov, .n_iov = n_iov, .in_fd = -1};

	return tas__send(o, fd, &src, total, flags);
}

/* Of the calls that have flags. */
static ssize_t send_flags(struct tas_obj *o, int fd, const struct iovec *iov, int n_iov, size_t total, int flags)
{
	ssize_t r = send_iov(o, fd, iov, n_iov, total, flags);

	if (__builtin_expect(flags & MSG_ZEROCOPY, 0) && r > 0)
		tas__zerocopy_sent(o, fd);
	return r;
}

static bool again(int fd, ssize_t r)
{
	return (r == -EPIPE || r == -ENOTCONN) && tas__plain_recheck(fd);
}

static bool is_ours(int fd)
{
	struct tas_obj *o = tas__obj_get(fd);

	if (o)
		tas__obj_put(o);
	return o != NULL;
}

ssize_t tas_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len)
{
	struct tas_obj *o;
	struct iovec v = {.iov_base = (void *)(uintptr_t)buf, .iov_len = n > INT_MAX ? INT_MAX : n};
	ssize_t r = !addr && tas__direct_plain(flags) ? tas__direct_send(fd, buf, n) : 0;

	if (r)
		return r;

	if (__builtin_expect(flags & MSG_FASTOPEN, 0) && is_ours(fd)) {
		r = tas__beyond(buf, v.iov_len) ? -EFAULT : tas__fastopen(fd, addr, len, flags);
		if (r < 0)
			return r;
		flags &= ~MSG_FASTOPEN;
		addr = NULL;
		len = 0;
	}
	do {
		o = tas__conn_get(fd);
		if (!o)
			r = tas__sleep6(SYS_sendto, tas__raw(fd), SYS_P(buf), (long)n, flags, SYS_P(addr), len);
	} while (!o && again(fd, r));
	if (!o)
		return tas__plain_result(fd, r);
	r = addr ? tas__addr_check(addr, len) : 0; /* the name means nothing to a connection, but must be one */
	if (tas__beyond(buf, v.iov_len)) /* Linux: first of all */
		r = -EFAULT;
	if (r == 0)
		r = send_flags(o, fd, &v, 1, v.iov_len, flags);
	tas__obj_put(o);
	return r;
}

/* The kernel copies control data before any protocol sees it, and has room for so much.  Its answer for the backing socket; that this
 * one is not connected comes later. */
static int control_too_long(int fd, const struct msghdr *msg)
{
	const struct msghdr m = {.msg_control = msg->msg_control, .msg_controllen = msg->msg_controllen};
	long r = sys3(SYS_sendmsg, fd, SYS_P(&m), MSG_NOSIGNAL | MSG_DONTWAIT);

	return r == -ENOBUFS || r == -EFAULT || r == -ENOMEM ? (int)r : 0;
}

/* Linux looks at control messages of its socket level, though none means anything to a stream of bytes. */
static int check_control(const struct msghdr *msg)
{
	struct msghdr *m = (struct msghdr *)(uintptr_t)msg;
	const uint8_t *end = (const uint8_t *)msg->msg_control + msg->msg_controllen;

	if (!msg->msg_controllen)
		return 0;
	if (tas__wild(msg->msg_control))
		return -EFAULT;
	for (struct cmsghdr *c = CMSG_FIRSTHDR(m); c; c = CMSG_NXTHDR(m, c))
		if (c->cmsg_len < sizeof *c || c->cmsg_len > (size_t)(end - (uint8_t *)c) ||
		    (c->cmsg_level == SOL_SOCKET && c->cmsg_type != SCM_RIGHTS && c->cmsg_type != SCM_CREDENTIALS &&
		     c->cmsg_type != SO_TIMESTAMPING_OLD && c->cmsg_type != SO_TIMESTAMPING_NEW && c->cmsg_type != SO_MARK))
			return -EINVAL;
	return 0;
}

static bool may_send(struct tas_obj *o)
{
	uint32_t state = atomic_load_explicit(&o->b->s.state, memory_order_acquire);

	if (atomic_load_explicit(&o->b->a.shut, memory_order_relaxed) & TAS_SHUT_WR)
		return false;
	return tas__obj_live(o) && (state == TAS_S_ESTABLISHED || state == TAS_S_CLOSE_WAIT);
}

/* Name and vector of a message to a connection. */
static int check_message(const struct msghdr *msg, size_t *total)
{
	socklen_t len = msg->msg_namelen;
	int r = 0;

	if ((int)len < 0)
		return -EINVAL;
	if (msg->msg_name)
		r = tas__addr_check(msg->msg_name, len > sizeof(struct sockaddr_storage) ? sizeof(struct sockaddr_storage) : len);
	if (r == 0)
		r = tas__iov_check(msg->msg_iov, msg->msg_iovlen, total);
	return r;
}

ssize_t tas_sendmsg(int fd, const struct msghdr *msg, int flags)
{
	struct msghdr without;
	struct tas_obj *o;
	size_t total;
	ssize_t r;

	if (__builtin_expect(flags & MSG_FASTOPEN, 0) && !tas__wild(msg) && is_ours(fd)) {
		r = tas__iov_check(msg->msg_iov, msg->msg_iovlen, &total);
		if (r == 0)
			r = tas__fastopen(fd, msg->msg_name, msg->msg_namelen, flags);
		if (r < 0)
			return r;
		without = *msg;
		without.msg_name = NULL;
		without.msg_namelen = 0;
		msg = &without;
		flags &= ~MSG_FASTOPEN;
	}
	do {
		o = tas__conn_get(fd);
		if (!o) {
			r = !tas__wild(msg) && msg->msg_controllen ? tas__watch_passed(msg) : 0;
			if (r < 0)
				return r;
			r = tas__sleep3(SYS_sendmsg, tas__raw(fd), SYS_P(msg), flags);
		}
	} while (!o && again(fd, r));
	if (!o)
		return tas__plain_result(fd, r);
	if (flags & INT32_MIN) /* MSG_CMSG_COMPAT: the kernel's own */
		r = -EINVAL;
	else
		r = tas__wild(msg) ? -EFAULT : check_message(msg, &total);
	if (r == 0 && msg->msg_controllen > CONTROL_MOST)
		r = control_too_long(fd, msg);
	if (r == 0 && may_send(o))
		r = check_control(msg);
	if (r == 0)
		r = send_flags(o, fd, msg->msg_iov, (int)msg->msg_iovlen, total, flags);
	tas__obj_put(o);
	return r;
}

ssize_t tas_write(int fd, const void *buf, size_t n)
{
	struct tas_obj *o;
	struct iovec v = {.iov_base = (void *)(uintptr_t)buf, .iov_len = n > 0x7ffff000 ? 0x7ffff000 : n};
	ssize_t r = tas__direct_send(fd, buf, n);

	if (r)
		return r;
	do {
		o = tas__conn_get(fd);
		if (!o)
			r = tas__sleep3(SYS_write, tas__raw(fd), SYS_P(buf), n);
	} while (!o && again(fd, r));
	if (!o)
		return tas__plain_result(fd, r);
	r = tas__beyond(buf, n) ? -EFAULT : send_iov(o, fd, &v, 1, v.iov_len, 0);
	tas__obj_put(o);
	return r;
}

ssize_t tas_writev(int fd, const struct iovec *iov, int n)
{
	struct tas_obj *o;
	size_t total;
	ssize_t r;

	do {
		o = tas__conn_get(fd);
		if (!o)
			r = tas__sleep3(SYS_writev, tas__raw(fd), SYS_P(iov), n);
	} while (!o && again(fd, r));
	if (!o)
		return tas__plain_result(fd, r);
	r = n < 0 || n > 1024 ? -EINVAL : tas__iov_check(iov, (size_t)n, &total);
	if (r == 0 && total) /* Linux: a vector of nothing is not sent, whatever the state */
		r = send_iov(o, fd, iov, n, total, 0);
	tas__obj_put(o);
	return r;
}

int tas_sendmmsg(int fd, struct mmsghdr *vec, unsigned n, int flags)
{
	ssize_t r = 0;
	unsigned i;

	if (!n)
		return (int)sys4(SYS_sendmmsg, tas__raw(fd), SYS_P(vec), 0, flags); /* is it a socket at all? */
	for (i = 0; i < n && i < 1024; i++) {
		r = tas__wild(vec) ? -EFAULT : tas_sendmsg(fd, &vec[i].msg_hdr, flags);
		if (r < 0)
			break;
		vec[i].msg_len = (unsigned)r;
	}
	return i && r != -ECANCELED ? (int)i : (int)r;
}
