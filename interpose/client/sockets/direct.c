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
#include "sockets/sock.h"

/* So much of a ring is used before it is begun anew, if nothing is in it: one look at the reader's counter, and a small
 * ring stays in the cache. */
enum { ANEW = 256 };

/* The receive extent that is in use at `written`: the newest. */
static int newest(const struct tas_block *p, uint64_t written, struct tas_target *t)
{
	uint32_t gen = 0;
	int best = -1;

	*t = (struct tas_target){0};
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

struct tas_target tas__direct_target(struct tas_obj *o, struct tas_block *peer, uint64_t written, uint64_t need)
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

/* An event of the peer's, whose sequence is ev, for which `waiters` sleep there. */
static bool tell(struct tas_obj *o, struct tas_block *peer, _Atomic uint32_t *ev, _Atomic uint32_t *waiters, tas_off_t *learn)
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
