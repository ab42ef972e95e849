/* SPDX-License-Identifier: MIT */
/* close, close_range, shutdown. */
#include <linux/close_range.h>

#include "sockets/sock.h"

static void linger(struct tas_obj *o, int seconds)
{
	struct tas_block *b = tas__block(o);
	uint64_t end = tas__now() + (uint64_t)seconds * 1000000000u;
	struct timespec ts;

	tas__app_or(o, TAS_SHUT_WR);
	tas__hint(o->ss, b, o->id);
	/* Linux waits here even on a non-blocking socket, and a signal ends the wait */
	for (;; b = tas__block(o)) {
		if (!tas__obj_live(o) || (atomic_load(&b->s.flags) & TAS_F_RESET) || tas__now() >= end ||
		    atomic_load(&b->s.tx_acked) >= atomic_load(&b->a.tx_written))
			return;
		/* acknowledgements below a full ring do not bump the event word: look every few milliseconds */
		if (sys_futex(&b->s.ev_out, FUTEX_WAIT, atomic_load(&b->s.ev_out), tas__left(end, 2000000, &ts)) ==
		    -EINTR)
			return;
	}
}

/* Linux: unread data at close() is a RST; what comes behind it is one after the FIN.  The service looks later. */
void tas__note_unread(struct tas_obj *o)
{
	struct tas_block *b;
	bool unread;

	if (atomic_load(&o->kind) != TAS_OBJ_CONN || !tas__obj_live(o) ||
	    atomic_load(&o->refs) > 2 || /* ours, and this number's: otherwise it lives on */
	    (atomic_fetch_or(&o->flags, TAS_OF_LOOKED) & TAS_OF_LOOKED))
		return;
	unread = tas__rx_avail(tas__block(o));
	if (!unread && tas__obj_near(o) && !tas__settled(o->ss)) /* this process may have sent what is not there yet */
		return;
	if (!unread && !(atomic_load(&o->flags) & TAS_OF_SHARED)) {
		tas__app_or(o, TAS_ALL_READ);
	} else if (unread) { /* another holder had said so at its close */
		do {
			b = tas__block(o);
			atomic_fetch_and(&b->a.shut, ~(uint32_t)TAS_ALL_READ);
		} while (tas__moved(b));
	}
}

void tas__before_close(struct tas_obj *o, int fd)
{
	struct linger l = {0, 0};
	socklen_t len = sizeof l;

	/* Linux: a call in progress holds the socket beyond its last number, of which the kernel will speak */
	if ((atomic_load(&o->flags) & TAS_OF_WATCHED_TOO) && atomic_load(&o->refs) > 2 && tas__numbers(o) == 1)
		tas__watch_not(o);
	tas__note_unread(o);
	if (!tas__opt_touched_linger(o) || atomic_load(&o->kind) != TAS_OBJ_CONN || !tas__obj_live(o))
		return;
	if (atomic_load(&o->refs) > 2) /* ours, and this number's: otherwise it lives on */
		return;
	if (sys_getsockopt(fd, SOL_SOCKET, SO_LINGER, &l, &len) < 0 || !l.l_onoff)
		return;
	if (!l.l_linger)
		tas__app_or(o, TAS_ABORT); /* whoever closes last: the option is the socket's */
	else if (!(atomic_load(&o->flags) & TAS_OF_SHARED) && !tas__rx_avail(tas__block(o))) /* unread: reset at once */
		linger(o, l.l_linger);
}

/* keep: its backing socket may be used again. */
static int close_number(int fd, bool keep)
{
	uint8_t st = tas__state(fd);
	struct tas_dropped d = {NULL, NULL};
	struct tas_kept *k;
	struct tas_obj *o;
	uint64_t mask;
	int r = 0;

	switch (st) {
	case TAS_FD_INTERNAL:
		return -EBADF;
	case TAS_FD_UNKNOWN:
	case TAS_FD_KERNEL:
		if ((unsigned)fd < TAS_FD_TABLE_MAX)
			tas__set_state(fd, TAS_FD_UNKNOWN);
		return sys_close(fd);
	case TAS_FD_TAS:
		o = tas__obj_get(fd);
		if (o) {
			tas__before_close(o, fd);
			tas__obj_put(o);
		}
		break;
	}
	mask = tas__table_lock();
	d = tas__number_drop(fd, TAS_FD_UNKNOWN);
	k = keep ? tas__pool_return(d.o, fd) : NULL;
	if (!k)
		r = sys_close(fd);
	tas__table_unlock(mask);
	tas__drop_done(d);
	if (k)
		tas__pool_add(k);
	return r;
}

int tas_close(int fd)
{
	return close_number(fd, true);
}

/* Spares the library's own numbers: the kernel closes the pieces between them. */
int tas_close_range(unsigned first, unsigned last, int flags)
{
	uint32_t high = atomic_load(&tas__high);
	unsigned from = first, end = last < high ? last + 1 : high;
	int r;

	if (first > last || (flags & ~(CLOSE_RANGE_UNSHARE | CLOSE_RANGE_CLOEXEC)))
		return -EINVAL;
	if (flags & CLOSE_RANGE_CLOEXEC)
		return (int)sys3(SYS_close_range, first, last, flags); /* ours have it already */
	for (unsigned fd = first; fd < end; fd++) {
		switch (tas__state((int)fd)) {
		case TAS_FD_UNKNOWN:
			break;
		case TAS_FD_KERNEL:
			tas__set_state((int)fd, TAS_FD_UNKNOWN);
			break;
		case TAS_FD_INTERNAL:
			if (fd > from) {
				r = (int)sys3(SYS_close_range, from, fd - 1, flags);
				if (r < 0)
					return r;
			}
			from = fd + 1;
			break;
		default:
			close_number((int)fd, false); /* a kept one would lie in the range that the kernel closes at the end */
		}
	}
	return from <= last ? (int)sys3(SYS_close_range, from, last, flags) : 0;
}

static int shutdown_listener(struct tas_obj *o, int fd, int how)
{
	struct tas_msg m = {0};
	int r = (int)sys2(SYS_shutdown, fd, how);

	if (r < 0)
		return r;
	if (how == SHUT_WR) {
		tas__obj_kick(o); /* nothing happens, which is an event */
		return r;
	}
	/* Linux: a listening socket that is shut for reading listens no more */
	tas__app_or(o, TAS_SHUT_RD);
	if (tas__alive(o->ss)) {
		m.u.sock.id = o->id;
		m.u.sock.gen = o->gen;
		tas__ask(o->ss, &m, TAS_MSG_UNLISTEN, NULL, 0);
	}
	tas__obj_kick(o);
	return 0;
}

static int shutdown_conn(struct tas_obj *o, int fd, int how)
{
	struct tas_block *b = o->b;
	uint32_t state = atomic_load(&b->s.state);
	uint32_t bits = how == SHUT_RD ? TAS_SHUT_RD : how == SHUT_WR ? TAS_SHUT_WR : TAS_SHUT_RD | TAS_SHUT_WR;

	if (!tas__obj_live(o) || state == TAS_S_CLOSE || state == TAS_S_TIME_WAIT || (atomic_load(&b->s.flags) & TAS_F_RESET)) {
		tas__obj_kick(o); /* Linux: an event all the same */
		return -ENOTCONN;
	}
	if (state == TAS_S_SYN_SENT) { /* Linux: gives the attempt up */
		int r = tas__disconnect(o, fd);

		tas__obj_kick(o);
		return r;
	}
	atomic_fetch_or(&o->flags, TAS_OF_CONNECTED); /* Linux: a connect() that nobody asked about again counts as done */
	tas__app_or(o, bits);
	tas__hint(o->ss, b, o->id);
	tas__obj_kick(o);
	return 0;
}

int tas_shutdown(int fd, int how)
{
	struct tas_obj *o = tas__obj_get(fd);
	uint32_t kind = o ? atomic_load_explicit(&o->kind, memory_order_acquire) : TAS_OBJ_PLAIN;
	int r;

	if (how < SHUT_RD || how > SHUT_RDWR)
		r = (int)sys2(SYS_shutdown, tas__raw(fd), how); /* EINVAL or what is wrong with fd */
	else if (kind == TAS_OBJ_PLAIN)
		r = (int)sys2(SYS_shutdown, tas__raw(fd), how);
	else if (kind == TAS_OBJ_LISTEN)
		r = shutdown_listener(o, fd, how);
	else
		r = shutdown_conn(o, fd, how);
	if (o)
		tas__obj_put(o);
	return r;
}
