/* SPDX-License-Identifier: MIT */
/*
 * The far end of a direct connection (docs/internals.md): its writer puts bytes into our receive extent as the service would, and
 * we into its.  What lies in the peer's block is as good as the peer is: positions and lengths are checked before they are
 * used, and what is wrong leaves no room, after which the service looks at the connection.
 *
 * Locks of ours are held while we touch the peer's block (lock_tx to write, lock_rx to tell of room): the service frees it or makes the
 * connection ordinary only when it has them.  Waking is done under them, too, so that the death of a process in the middle of it
 * is a death with a lock held, after which the service wakes.
 */
#include <limits.h>
#include <string.h>

#include "abi/tas_extent.h"
#include "sockets/sock.h"

/* So much of a ring is used before it is begun anew, if nothing is in it: one look at the reader's counter, and a small
 * ring stays in the cache. */
enum { ANEW = 256 };

/* The receive extent that is in use at `written`: the newest. */
static inline int newest(const struct tas_block *p, uint64_t written, struct tas_target *t)
{
	uint32_t gen = 0;
	int best = -1;

	*t = (struct tas_target){0};
#pragma GCC unroll 2
	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		const struct tas_extent *e = &p->x.rx[i];
		uint32_t g = atomic_load_explicit(&e->gen, memory_order_acquire);
		uint64_t base = atomic_load_explicit(&e->base, memory_order_relaxed);

		if (!g || base > written || (best >= 0 && (base < t->base || (base == t->base && (int32_t)(g - gen) < 0))))
			continue;
		best = i;
		gen = g;
		t->base = base;
	}
	if (best < 0)
		return best;
	t->len = atomic_load_explicit(&p->x.rx[best].len, memory_order_relaxed);
	t->off = atomic_load_explicit(&p->x.rx[best].off, memory_order_relaxed);
	if (t->len & (t->len - 1))
		t->len = 0;
	return best;
}

static void room(struct tas_target *t, uint64_t written, uint64_t consumed)
{
	uint64_t used = written - (consumed > t->base ? consumed : t->base);

	t->room = consumed <= written && used < t->len ? t->len - used : 0;
}

struct tas_target tas__direct_guess(const struct tas_block *peer, uint64_t written)
{
	struct tas_target t;

	if (newest(peer, written, &t) >= 0)
		room(&t, written, atomic_load_explicit(&peer->a.rx_consumed, memory_order_seq_cst));
	return t;
}

static inline struct tas_target target(struct tas_obj *o, struct tas_block *peer, uint64_t written, uint64_t need)
{
	uint64_t consumed = atomic_load_explicit(&o->consumed, memory_order_relaxed);
	struct tas_target t;
	int i = newest(peer, written, &t);

	if (i < 0)
		return t;
	room(&t, written, consumed);
	if (t.room >= need && written - t.base < ANEW)
		return t;
	/* seq_cst: a writer has said before that it waits for room */
	consumed = atomic_load_explicit(&peer->a.rx_consumed, memory_order_seq_cst);
	atomic_store_explicit(&o->consumed, consumed, memory_order_relaxed);
	if (consumed == written && t.base != written) { /* before rx_delivered goes beyond it, nobody looks at it */
		t.base = written;
		atomic_store_explicit(&peer->x.rx[i].base, written, memory_order_relaxed);
	}
	room(&t, written, consumed);
	return t;
}

struct tas_target tas__direct_target(struct tas_obj *o, struct tas_block *peer, uint64_t written, uint64_t need)
{
	return target(o, peer, written, need);
}

/* An event of the peer's, whose sequence is ev, for which `waiters` sleep there. */
static inline bool tell(struct tas_obj *o, struct tas_block *peer, _Atomic uint32_t *ev, _Atomic uint32_t *waiters, tas_off_t *learn)
{
	struct tas_bell *bell = NULL;
	bool others;

	/* the barrier between the state and the look at the sleepers, as in the service's tas__wake() */
	atomic_fetch_add_explicit(ev, 1, memory_order_seq_cst);
	if (atomic_load_explicit(&peer->c.bell_sub, memory_order_acquire))
		bell = tas__obj_mem(o, atomic_load_explicit(&peer->c.bell, memory_order_relaxed), sizeof *bell);
	others = tas__tell_subscribers(o->ss, peer, peer->s.id, bell, learn);
	if (atomic_load_explicit(waiters, memory_order_seq_cst))
		sys_futex(ev, FUTEX_WAKE, INT32_MAX, NULL);
	return others;
}

bool tas__direct_delivered(struct tas_obj *o, struct tas_block *peer, uint64_t to, uint64_t urgent, tas_off_t *learn)
{
	if (__builtin_expect(urgent != 0, 0)) {
		uint64_t before = atomic_load_explicit(&peer->s.rx_urg, memory_order_relaxed);

		/* as the service's tas__rx_urgent() */
		if (before && before <= atomic_load_explicit(&peer->s.rx_delivered, memory_order_relaxed) &&
		    atomic_load_explicit(&peer->a.rx_consumed, memory_order_acquire) + 1 == before)
			atomic_store_explicit(&peer->a.urg_read, before, memory_order_relaxed);
		atomic_store_explicit(&peer->s.rx_urg, urgent, memory_order_release);
		atomic_fetch_or_explicit(&peer->s.flags, TAS_F_URG, memory_order_release);
	}
	atomic_store_explicit(&peer->s.rx_delivered, to, memory_order_release);
	return tell(o, peer, &peer->s.ev_in, &peer->c.wait_in, learn);
}

bool tas__direct_room(struct tas_obj *o, const struct tas_block *b, struct tas_block *peer, tas_off_t *learn)
{
	struct tas_target t;
	uint64_t written;

	/* pairs: the writer sets this, then looks at rx_consumed */
	if (!atomic_load_explicit(&peer->c.want_room, memory_order_seq_cst))
		return false;
	written = atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire);
	t = tas__direct_guess(b, written);
	/* Linux: a writer is told when a third is free (sk_stream_is_writeable) */
	if (3 * t.room < t.len || !atomic_exchange_explicit(&peer->c.want_room, 0, memory_order_seq_cst))
		return false;
	return tell(o, peer, &peer->s.ev_out, &peer->c.wait_out, learn);
}

/* ---- the plain case ---- */
/*
 * A message that is there goes to the program, one for which there is room to the peer, as recv.c and send.c do it, without what
 * those have for everything else: here nothing has happened but bytes, and the first look finds it so.  Whatever is different in any
 * way is left to them, untouched.
 */
enum { PIECE = 64 << 10 };

static inline struct tas_obj *plain_get(int fd)
{
	struct tas_entry *e;
	struct tas_obj *o;
	uint32_t n;

	if (tas__state(fd) != TAS_FD_TAS || !(tas__trusted || tas__owned))
		return NULL;
	e = tas__entry(fd);
	o = atomic_load_explicit(&e->p, memory_order_acquire);
	if (!o)
		return NULL;
	n = atomic_load_explicit(&o->refs, memory_order_relaxed);
	if (!n || !atomic_compare_exchange_strong_explicit(&o->refs, &n, n + 1, memory_order_acquire, memory_order_relaxed))
		return NULL;
	/* as in tas__obj_get() */
	if (atomic_load_explicit(&e->p, memory_order_acquire) == o &&
	    atomic_load_explicit(&o->kind, memory_order_acquire) == TAS_OBJ_CONN)
		return o;
	tas__obj_put(o);
	return NULL;
}

/* Whether a wait for it would spin: who waits in an epoll set does not wait for it. */
static inline void was_active(struct tas_obj *o, const struct tas_block *b)
{
	if (!atomic_load_explicit(&o->items, memory_order_relaxed) || !atomic_load_explicit(&b->c.nonblock, memory_order_relaxed))
		atomic_store_explicit(&o->active, tas__tsc(), memory_order_relaxed);
}

static inline size_t recv_locked(struct tas_obj *o, struct tas_block *b, void *buf, size_t n, bool *tell, tas_off_t *learn)
{
	uint64_t at = atomic_load_explicit(&b->a.rx_consumed, memory_order_relaxed);
	uint64_t end = atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire);
	tas_off_t direct = atomic_load_explicit(&b->s.direct, memory_order_relaxed);
	struct tas_block *peer;
	struct tas_span p;
	uint8_t *mem;

	if (!direct || tas__moved(b) || end <= at || atomic_load_explicit(&b->s.rx_urg, memory_order_acquire) ||
	    atomic_load_explicit(&b->c.peek_off, memory_order_relaxed) || atomic_load_explicit(&b->a.rcvlowat, memory_order_relaxed) > 1)
		return 0;
	if (n > end - at)
		n = end - at;
	p = tas_rx_span(b->x.rx, at, at + n);
	peer = tas__obj_mem(o, direct, sizeof *peer);
	mem = tas__obj_mem(o, p.off, p.len);
	if (!peer || !mem || p.len != n)
		return 0;
	memcpy(buf, mem, n);
	/* seq_cst: before the look at want_room */
	atomic_store_explicit(&b->a.rx_consumed, at + n, memory_order_seq_cst);
	if (atomic_load_explicit(&peer->c.want_room, memory_order_seq_cst))
		*tell = tas__direct_room(o, b, peer, learn);
	atomic_store_explicit(&o->next_in, mem + n, memory_order_relaxed);
	return n;
}

ssize_t tas__direct_recv(int fd, void *buf, size_t n)
{
	struct tas_obj *o;
	struct tas_block *b;
	tas_off_t learn = 0;
	bool tell = false;
	size_t done = 0;

	if (!n || n > INT_MAX || tas__wild(buf) || tas__beyond(buf, n) || !(o = plain_get(fd)))
		return 0;
	b = atomic_load_explicit(&o->b, memory_order_acquire);
	if (tas__lock_try(o->ss, &b->c.lock_rx)) {
		done = recv_locked(o, b, buf, n, &tell, &learn);
		tas__unlock(&b->c.lock_rx);
		if (__builtin_expect(tell, 0))
			tas__hint(o->ss, b, o->id);
		tas__direct_told(o, learn);
		if (done)
			was_active(o, b);
	}
	tas__obj_put(o);
	return (ssize_t)done;
}

static inline size_t send_locked(struct tas_obj *o, struct tas_block *b, const void *buf, size_t n, bool *tell, tas_off_t *learn)
{
	uint64_t at = atomic_load_explicit(&b->a.tx_written, memory_order_relaxed);
	tas_off_t direct = atomic_load_explicit(&b->s.direct, memory_order_seq_cst);
	uint32_t state = atomic_load_explicit(&b->s.state, memory_order_acquire);
	struct tas_block *peer;
	struct tas_target t;
	struct tas_span p;
	uint8_t *mem;

	if (!direct) {
		atomic_store_explicit(&o->peer, NULL, memory_order_relaxed);
		return 0;
	}
	if (tas__moved(b) || !tas__obj_live(o) || state == TAS_S_SYN_SENT || state == TAS_S_SYN_RECV ||
	    (atomic_load_explicit(&b->s.flags, memory_order_acquire) & (TAS_F_TX_EOF | TAS_F_RESET | TAS_F_ERROR)) ||
	    (atomic_load_explicit(&b->a.shut, memory_order_acquire) & TAS_SHUT_WR) ||
	    (atomic_load_explicit(&b->a.opts, memory_order_relaxed) & TAS_O_MORE) ||
	    atomic_load_explicit(&b->a.tx_want, memory_order_relaxed) || atomic_load_explicit(&o->grow_asked, memory_order_relaxed))
		return 0;
	peer = tas__obj_mem(o, direct, sizeof *peer);
	if (!peer)
		return 0;
	t = target(o, peer, at, n);
	if (t.room < n)
		return 0;
	p = tas_extent_span(t.off, t.base, t.len, at, at + n);
	mem = tas__obj_mem(o, p.off, p.len);
	if (!mem || p.len != n)
		return 0;
	memcpy(mem, buf, n);
	atomic_store_explicit(&b->a.tx_written, at + n, memory_order_release);
	*tell = tas__direct_delivered(o, peer, at + n, 0, learn);
	atomic_store_explicit(&o->peer, peer, memory_order_relaxed);
	/* target() begins anew there, if the peer has read all by then */
	atomic_store_explicit(&o->next_out, at + n - t.base < ANEW ? mem + n : mem - (p.off - t.off), memory_order_relaxed);
	return n;
}

ssize_t tas__direct_send(int fd, const void *buf, size_t n)
{
	struct tas_obj *o;
	struct tas_block *b;
	tas_off_t learn = 0;
	bool tell = false;
	size_t done = 0;

	if (!n || n > PIECE || tas__wild(buf) || tas__beyond(buf, n) || !(o = plain_get(fd)))
		return 0;
	b = atomic_load_explicit(&o->b, memory_order_acquire);
	if (tas__lock_try(o->ss, &b->c.lock_tx)) {
		done = send_locked(o, b, buf, n, &tell, &learn);
		tas__unlock(&b->c.lock_tx);
		if (__builtin_expect(tell, 0))
			tas__hint(o->ss, b, o->id);
		tas__direct_told(o, learn);
		if (done)
			was_active(o, b);
	}
	tas__obj_put(o);
	return (ssize_t)done;
}
