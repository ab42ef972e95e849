/* SPDX-License-Identifier: MIT */
/* dup and relatives, fcntl, ioctl.  The kernel does the work; the table and the mirror of O_NONBLOCK follow. */
#include <linux/sockios.h>
#include <sys/ioctl.h>

#include "sockets/sock.h"

enum { LARGE = 0100000 }; /* O_LARGEFILE, which is 0 for us */

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
	atomic_fetch_and(&o->latent, ~(uint32_t)TAS_LATENT_BLOCKS);
	atomic_store(&o->blocks, fl < 0 || (fl & ~(O_NONBLOCK | LARGE)) != O_RDWR ? -1 : !(fl & O_NONBLOCK));
	if (fl >= 0 && atomic_load_explicit(&o->kind, memory_order_acquire) != TAS_OBJ_PLAIN)
		tas__app_store(o, c.nonblock, (uint32_t)(fl & O_NONBLOCK));
	tas__obj_put(o);
}

/*
 * O_NONBLOCK of a socket whose file nobody else has, and which has no other flag: the backing socket need not follow before
 * somebody asks it (tas__opts_settle()).  Others are settled, and the caller asks the kernel.
 */
static bool flags_known(struct tas_obj *o, int fd)
{
	if (tas__obj_own(o) && atomic_load_explicit(&o->kind, memory_order_acquire) != TAS_OBJ_LISTEN && atomic_load(&o->blocks) >= 0 &&
	    !(atomic_load(&o->flags) & TAS_OF_ASYNC))
		return true;
	tas__opts_settle(o, fd);
	return false;
}

static struct tas_obj *socket_of(int fd)
{
	uint8_t st = tas__state(fd);

	return st == TAS_FD_PLAIN || st == TAS_FD_TAS ? tas__obj_get(fd) : NULL;
}

static void set_blocks(struct tas_obj *o, bool blocks)
{
	if (atomic_exchange(&o->blocks, blocks) == blocks)
		return;
	atomic_fetch_xor(&o->latent, TAS_LATENT_BLOCKS);
	if (atomic_load_explicit(&o->kind, memory_order_acquire) != TAS_OBJ_PLAIN)
		tas__app_store(o, c.nonblock, blocks ? 0 : O_NONBLOCK);
}

/* F_GETFL and F_SETFL without the kernel; -ENOSYS: they need it. */
static int quick_flags(int fd, int cmd, unsigned long arg)
{
	struct tas_obj *o = socket_of(fd);
	int r = -ENOSYS;

	if (!o)
		return r;
	if (!flags_known(o, fd)) {
		;
	} else if (cmd == F_GETFL) {
		r = O_RDWR | (atomic_load(&o->blocks) ? 0 : O_NONBLOCK);
	} else if (!(arg & (O_ASYNC | O_APPEND | O_DIRECT | O_NOATIME))) {
		set_blocks(o, !(arg & O_NONBLOCK));
		r = 0;
	} else {
		tas__opts_settle(o, fd);
	}
	tas__obj_put(o);
	return r;
}

/* FIONBIO likewise. */
static bool quick_fionbio(int fd, const int *arg)
{
	struct tas_obj *o = tas__wild(arg) ? NULL : socket_of(fd);
	bool known;

	if (!o)
		return false;
	known = flags_known(o, fd);
	if (known)
		set_blocks(o, !*arg);
	tas__obj_put(o);
	return known;
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
	int r = cmd == F_GETFL || cmd == F_SETFL ? quick_flags(fd, cmd, arg) : -ENOSYS;

	if (r >= 0)
		return r;
	r = sys_fcntl(tas__raw(fd), cmd, arg);
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
		a = tas__direct(o, b) ? w : atomic_load(&b->s.tx_acked);
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
	struct tas_obj *o;
	int r;

	if (request == FIONBIO && quick_fionbio(fd, arg))
		return 0;
	o = tas__conn_get(fd);
	r = o ? ioctl_conn(o, fd, request, arg) : sys_ioctl(tas__raw(fd), request, arg);
	if (o)
		tas__obj_put(o);
	if (r == 0 && request == FIONBIO)
		mirror_nonblock(fd);
	if (r == 0 && (request == FIOASYNC || request == FIOSETOWN || request == SIOCSPGRP))
		owner_changed(fd, false);
	return r;
}
