/* SPDX-License-Identifier: MIT */
/* dup and relatives, fcntl, ioctl.  The kernel does the work; the table and the mirror of O_NONBLOCK follow. */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "sockets/sock.h"

/* Number `to` now refers to what fd refers to.  Called after the kernel made it so. */
static void follow(int fd, int to)
{
	struct tas_dropped old = {NULL, NULL};
	struct tas_obj *o = tas__obj_get(fd);
	struct tas_ep *ep = o ? NULL : tas__ep_get(fd);
	uint64_t mask;
	int r;

	if (!o && !ep) {
		tas__forget(to, tas__state(fd) == TAS_FD_KERNEL ? TAS_FD_KERNEL : TAS_FD_UNKNOWN);
		return;
	}
	mask = tas__table_lock();
	r = tas__number_set(to, (enum tas_fd_state)tas__state(fd), o ? (void *)o : (void *)ep, &old);
	tas__table_unlock(mask);
	tas__drop_done(old);
	if (r < 0 && o)
		tas__obj_put(o);
	else if (r < 0)
		tas__ep_put(ep);
}

int tas_dup(int fd)
{
	int r = (int)sys1(SYS_dup, tas__raw(fd));

	if (r >= 0)
		follow(fd, r);
	return r;
}

int tas_dup3(int fd, int to, int flags)
{
	struct tas_obj *o;
	int r;

	if (tas__state(to) == TAS_FD_INTERNAL)
		return -EBADF;
	if (fd != to && tas__state(to) == TAS_FD_TAS && sys_fcntl(tas__raw(fd), F_GETFD, 0) >= 0) {
		o = tas__obj_get(to);
		if (o) {
			tas__before_close(o, to);
			tas__obj_put(o);
		}
	}
	r = (int)sys3(SYS_dup3, tas__raw(fd), to, flags);
	if (r >= 0)
		follow(fd, r);
	return r;
}

int tas_dup2(int fd, int to)
{
	if (fd == to) {
		int r = sys_fcntl(tas__raw(fd), F_GETFD, 0);

		return r < 0 ? r : fd;
	}
	return tas_dup3(fd, to, 0);
}

static void mirror_nonblock(int fd)
{
	struct tas_obj *o = tas__obj_get(fd);
	int fl;

	if (!o)
		return;
	fl = sys_fcntl(fd, F_GETFL, 0);
	atomic_store(&o->blocks, fl < 0 ? -1 : !(fl & O_NONBLOCK));
	if (fl >= 0 && atomic_load_explicit(&o->kind, memory_order_acquire) != TAS_OBJ_PLAIN)
		tas__app_store(o, c.nonblock, (uint32_t)(fl & O_NONBLOCK));
	tas__obj_put(o);
}

/* known: only a socket that had an owner or O_ASYNC before is concerned */
static void owner_changed(int fd, bool known)
{
	struct tas_obj *o = tas__obj_get(fd);

	if (!o)
		return;
	if (!known || (atomic_load(&o->flags) & TAS_OF_ASYNC))
		tas__async_update(o, fd);
	tas__obj_put(o);
}

int tas_fcntl(int fd, int cmd, unsigned long arg)
{
	int r = sys_fcntl(tas__raw(fd), cmd, arg);

	if (r < 0)
		return r;
	if (tas__state(fd) == TAS_FD_UNKNOWN)
		tas__recognise(fd); /* or the next call would come here again */
	if (cmd == F_DUPFD || cmd == F_DUPFD_CLOEXEC)
		follow(fd, r);
	else if (cmd == F_SETFL)
		mirror_nonblock(fd);
	if (cmd == F_SETOWN || cmd == F_SETOWN_EX || cmd == F_SETSIG || cmd == F_SETFL)
		owner_changed(fd, cmd == F_SETFL && !(arg & O_ASYNC));
	return r;
}

static int give_int(void *arg, uint64_t v)
{
	if (tas__wild(arg))
		return -EFAULT;
	*(int *)arg = v > INT32_MAX ? INT32_MAX : (int)v;
	return 0;
}

static int ioctl_conn(struct tas_obj *o, int fd, unsigned long request, void *arg)
{
	struct tas_block *b = o->b;
	uint64_t w, a;

	switch (request) {
	case FIONREAD: /* = SIOCINQ */
		if (!tas__rx_avail(b) && tas__obj_near(o))
			tas__settle(o->ss);
		a = tas__rx_from(b);
		w = tas__urg_inline(b) ? UINT64_MAX : tas__urg_mark(b);
		return give_int(arg, w < atomic_load(&b->s.rx_delivered) ? w - a : tas__rx_avail(b));
	case TIOCOUTQ: /* = SIOCOUTQ */
	case SIOCOUTQNSD:
		w = atomic_load(&b->a.tx_written);
		a = atomic_load(&b->s.tx_acked);
		return give_int(arg, w > a ? w - a : 0);
	case SIOCATMARK:
		if (tas__urg_mark(b) == UINT64_MAX && tas__obj_near(o))
			tas__settle(o->ss);
		return give_int(arg, tas__urg_mark(b) == tas__rx_from(b));
	default:
		return sys_ioctl(fd, request, arg);
	}
}

int tas_ioctl(int fd, unsigned long request, void *arg)
{
	struct tas_obj *o = tas__conn_get(fd);
	int r;

	r = o ? ioctl_conn(o, fd, request, arg) : sys_ioctl(tas__raw(fd), request, arg);
	if (o)
		tas__obj_put(o);
	if (r == 0 && request == FIONBIO)
		mirror_nonblock(fd);
	if (r == 0 && (request == FIOASYNC || request == FIOSETOWN || request == SIOCSPGRP))
		owner_changed(fd, false);
	return r;
}
