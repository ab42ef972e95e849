/* SPDX-License-Identifier: MIT */
/*
 * accept.  A listener has two halves: the queue of TAS connections in shared memory, popped without a lock by any
 * process, and the kernel's own queue.  Blocking waits for both.
 *
 * accept4() on a blocking kernel socket would wait for the kernel's half alone; so it is called only when ppoll says
 * that a connection is there, and the listener's lock_rx keeps other acceptors of the memory set from taking it in
 * between.
 */
#include "sockets/sock.h"

enum { NOTHING = -4096 /* no errno */, KERNEL_TURN = 16, TAKE_NS = 50000000 };

/*
 * Pops one connection.  0: sock is filled and claimed; NOTHING.  The table lock keeps threads of this process apart, so
 * a claim bit that was clear before ours is ours to take back; between processes the compare-and-swap decides.
 */
static int pop(struct tas_obj *o, struct tas_msg_sock *sock)
{
	struct tas_block *b = tas__block(o);
	uint64_t at = atomic_load_explicit(&b->a.rx_consumed, memory_order_acquire);
	uint32_t number = atomic_load(&o->number);

	while (at < atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire)) {
		uint32_t len = atomic_load_explicit(&b->x.rx[0].len, memory_order_relaxed);
		struct tas_accept_entry *ring =
			tas__obj_mem(o, atomic_load_explicit(&b->x.rx[0].off, memory_order_relaxed), len);
		bool had;

		if (!ring || len < sizeof *ring || (len & (len - 1)))
			return NOTHING;
		ring += at & (len / sizeof *ring - 1);
		sock->id = atomic_load_explicit(&ring->id, memory_order_relaxed);
		sock->gen = atomic_load_explicit(&ring->gen, memory_order_relaxed);
		sock->block = atomic_load_explicit(&ring->block, memory_order_relaxed);
		had = sock->id < TAS_SOCK_MAX && tas_claim_test(o->ss->r->claims, sock->id);
		/* in memory that others write: no socket that we hold already, and none of ours alone */
		if (sock->id >= TAS_SOCK_MAX || (number && (had || TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(sock->block)) != number)))
			return NOTHING;
		/* the claim is there before the pop is: the service never sees a connection that nobody has */
		tas_claim_set(o->ss->r->claims, sock->id);
		if (atomic_compare_exchange_strong(&b->a.rx_consumed, &at, at + 1)) {
			tas__hint(o->ss, b, o->id);
			return 0;
		}
		if (!had) {
			tas_claim_clear(o->ss->r->claims, sock->id);
			tas__hint(o->ss, b, sock->id);
		}
	}
	return NOTHING;
}

/* A number that is not needed after all. */
static void give_back(struct tas_kept *k, int fd)
{
	sys_close(fd);
	if (k)
		tas__pool_add(k);
}

/* A TAS connection from the queue: number, NOTHING, or -errno. */
static int accept_tas(struct tas_obj *o, int from, int flags, struct sockaddr *addr, socklen_t *len)
{
	struct tas_msg_sock sock;
	struct tas_obj *c;
	struct tas_kept *kept = NULL;
	uint64_t mask;
	int fd, r;

	if (!tas__obj_live(o) || !tas__rx_avail(o->b) || (atomic_load(&o->b->a.shut) & TAS_SHUT_RD))
		return NOTHING;
	mask = tas__table_lock();
	fd = tas__pool_take(o->b->s.family, flags, &kept);
	if (fd == -ENOENT)
		fd = sys_socket(o->b->s.family, SOCK_STREAM | flags, 0);
	r = fd < 0 ? fd : pop(o, &sock);
	tas__table_unlock(mask);
	if (fd < 0)
		return fd; /* EMFILE: the connection stays in the queue */
	if (r) {
		give_back(kept, fd);
		return r;
	}
	c = tas__obj_from(o->ss, &sock, TAS_OBJ_CONN);
	if (!c) { /* its memory cannot be mapped: the peer sees a close */
		tas__claim_drop(o->ss, o->b, sock.id);
		give_back(kept, fd);
		return -ENOMEM;
	}
	atomic_store(&c->flags, TAS_OF_BOUND | TAS_OF_CONNECTED);
	atomic_store(&c->active, tas__tsc());
	atomic_store(&c->blocks, !(flags & SOCK_NONBLOCK));
	if (kept) {
		mask = tas__table_lock();
		tas__pool_lend(kept, c, flags & SOCK_NONBLOCK);
		tas__table_unlock(mask);
	}
	atomic_store(&c->b->c.nonblock, flags & SOCK_NONBLOCK ? O_NONBLOCK : 0);
	if (tas__opts_touched(o))
		tas__opts_inherit(o, from, c, fd);
	tas__watch_too(c, fd);
	if (tas__adopt(fd, TAS_FD_TAS, c) < 0) {
		tas__obj_put(c);
		sys_close(fd);
		return -ENOMEM;
	}
	if (addr) {
		r = tas__addr_out(&c->b->s.peer, c->b->s.family, addr, len);
		if (r < 0) {
			tas_close(fd);
			return r;
		}
	}
	return fd;
}

static int accept_kernel(int fd, int flags, struct sockaddr *addr, socklen_t *len)
{
	int r = (int)tas__sleep5(SYS_accept4, fd, SYS_P(addr), SYS_P(len), flags, 0);

	if (r >= 0)
		tas__forget(r, TAS_FD_KERNEL);
	return r;
}

static bool readable(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	struct timespec none = {0, 0};

	return sys_ppoll(&p, 1, &none, NULL) > 0;
}

/* The kernel's half without waiting: number, NOTHING, or -errno. */
static int accept_half(struct tas_obj *o, int fd, int flags, struct sockaddr *addr, socklen_t *len)
{
	struct tas_block *b = tas__block(o);
	bool locked;
	int r;

	/* first, also where accept4() would not wait: for nothing it makes a file and throws it away, which costs 2 us */
	if (!readable(fd))
		return NOTHING;
	if (tas__nonblock(o)) {
		r = accept_kernel(fd, flags, addr, len);
		return r == -EAGAIN ? NOTHING : r;
	}
	/* without the lock (its owner stopped or died with the service) the worst is to wait for the kernel's half */
	locked = tas__lock(o->ss, &b->c.lock_rx, TAKE_NS) == 0;
	r = readable(fd) ? accept_kernel(fd, flags, addr, len) : NOTHING;
	if (locked)
		tas__unlock(&b->c.lock_rx);
	return r;
}

/*
 * Linux restarts accept() after a handler that was installed with SA_RESTART; ppoll never does.  Which
 * handlers ran is known where they are counted (lowlevel/signal.c); else, if every handler of the process restarts, so
 * does accept.
 */
static bool all_handlers_restart(void)
{
	struct {
		uintptr_t handler;
		unsigned long flags;
		uintptr_t restorer;
		uint64_t mask;
	} sa;

	for (int sig = 1; sig < 32; sig++) {
		if (sys4(SYS_rt_sigaction, sig, 0, SYS_P(&sa), 8) == 0 && sa.handler > 1 && !(sa.flags & SA_RESTART))
			return false;
	}
	return true;
}

/* Sleeps until either half has something, the service goes, or it is time to look for a service.  0, -EINTR, -EAGAIN.
 */
static int wait_both(struct tas_obj *o, int fd, uint64_t end, struct tas_sig_mark m)
{
	struct tas_waiter w = {0};
	struct pollfd p[3] = {{.fd = fd, .events = POLLIN}, {.fd = -1, .events = POLLIN}, {.fd = -1}};
	uint64_t slice = UINT64_MAX;
	struct timespec ts;
	bool live = tas__obj_live(o);
	int r = 0;

	if (live) {
		p[2].fd = atomic_load(&o->ss->ctl);
		if (tas__waiter_get(o->ss, false, &w) == 0 && tas__obj_subscribe(&w, o, true) == 0) {
			p[1].fd = w.fd;
			tas__waiter_arm(&w);
		} else {
			slice = 2000000;
		}
	} else {
		slice = TAS_REVIVE_MS * 1000000ull;
	}
	if (!live || !tas__rx_avail(o->b))
		r = tas__ppoll(p, 3, tas__left(end, slice, &ts), NULL, m, end == UINT64_MAX, p[1].fd);
	if (w.ss) {
		tas__obj_unsubscribe(&w, o);
		tas__waiter_put(&w);
	}
	if (live && (p[2].revents & (POLLHUP | POLLERR)))
		tas__session_died(o->ss);
	if (r == -EINTR && end == UINT64_MAX && !tas__sig_came(m, true) &&
	    (tas__sig_came(m, false) || all_handlers_restart()))
		return 0;
	if (r == 0 && end != UINT64_MAX && tas__now() >= end)
		return -EAGAIN;
	return r < 0 ? r : 0;
}

static uint64_t accept_timeout(int fd)
{
	struct {
		int64_t s, us;
	} tv = {0, 0};
	socklen_t len = sizeof tv;

	if (sys_getsockopt(fd, SOL_SOCKET, SO_RCVTIMEO, &tv, &len) < 0 || (!tv.s && !tv.us))
		return UINT64_MAX;
	return tas__now() + (uint64_t)tv.s * 1000000000u + (uint64_t)tv.us * 1000u;
}

static int accept_once(struct tas_obj *o, int fd, int flags, struct sockaddr *addr, socklen_t *len)
{
	bool kernel_first =
		atomic_fetch_add_explicit(&o->turn, 1, memory_order_relaxed) % KERNEL_TURN == KERNEL_TURN - 1;
	int r = NOTHING;

	if (!kernel_first)
		r = accept_tas(o, fd, flags, addr, len);
	if (r == NOTHING)
		r = accept_half(o, fd, flags, addr, len);
	if (r == NOTHING && kernel_first)
		r = accept_tas(o, fd, flags, addr, len);
	return r;
}

static int accept_listener(struct tas_obj *o, int fd, int flags, struct sockaddr *addr, socklen_t *len, bool *moved)
{
	struct tas_sig_mark sig = tas__sig_mark();
	struct tas_spin spin = {0};
	uint64_t end = 0;
	int r;

	for (;;) {
		if (tas__listener_revive(o, fd)) {
			*moved = true;
			return 0;
		}
		r = accept_once(o, fd, flags, addr, len);
		if (r != NOTHING)
			return r;
		if (tas__nonblock(o))
			return -EAGAIN;
		if (tas__sig_came(sig, true))
			return -EINTR;
		if (tas__spin(o->ss, &spin, atomic_load_explicit(&o->active, memory_order_relaxed)))
			continue;
		if (!end)
			end = accept_timeout(fd);
		r = wait_both(o, fd, end, sig);
		if (r < 0) {
			if (tas__rx_avail(o->b))
				tas__hint(o->ss, o->b, o->id); /* we may be the one who was woken for it: the service wakes another */
			return r;
		}
	}
}

int tas_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags)
{
	struct tas_obj *o;
	bool moved;
	int r;

	do {
		moved = false;
		o = tas__obj_get(fd);
		if (!o || atomic_load_explicit(&o->kind, memory_order_acquire) != TAS_OBJ_LISTEN)
			r = accept_kernel(tas__raw(fd), flags, addr, len);
		else if (flags & ~(SOCK_CLOEXEC | SOCK_NONBLOCK))
			r = -EINVAL;
		else
			r = accept_listener(o, fd, flags, addr, len, &moved);
		if (o)
			tas__obj_put(o);
	} while (moved);
	return r;
}
