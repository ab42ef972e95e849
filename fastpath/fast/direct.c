/* SPDX-License-Identifier: MIT */
/*
 * Direct connections: both ends are applications, and bytes pass from one to the other without the service.
 *
 * A local connection that carries data for a while becomes direct when every process that holds one of its ends can reach both:
 * they lie in one memory set, or they move, for two programs of one user, into the shared set of these two.  From then on the
 * writer does what the service did: it copies into the reader's receive extent, advances rx_delivered and ev_in in the reader's
 * block, and wakes it.  The reader wakes a writer that waits for room.  The service hears only of what is left to it: larger
 * rings, wake-ups of wait sets of other processes, and everything that is not plain data.
 *
 * Anything else (shutdown, close, buffer sizes, a passed descriptor, a bridge) makes the connection ordinary first.  For the reader
 * that is no change: its extents and counters are what they were.  For the writer it is `direct` in its own block, which it
 * looks at under lock_tx.  The service changes it while it holds the four locks of both blocks; if one is taken, it comes again.
 * So nobody writes into memory that is about to be freed, and the counters that are read then are those of the last direct byte.
 *
 * Nothing that the applications say is trusted: counters are range-checked when they are read, and nonsense resets the connection.
 */
#include <errno.h>

#include "abi/tas_extent.h"
#include "fast/sock.h"
#include "slow/memory.h"

enum {
	RING_FIRST = 64 * 1024,
	RING_OF_MANY = 4096,	   /* a ring that is there already (stream.c, RX_FIRST): of so many a new one is a page more each */
	PATIENT = 256 * 1024,	   /* a writer that can wait asks for no more (client/sockets/send.c) */
	PAIRS_MAX = 256,	   /* shared sets of one memory set, at which no more are made for this */
	STALL_NS = 5 * 1000 * 1000, /* a writer finds no room for so long: the ordinary path has more */
	RETRY_NS = 50 * 1000, RETRY_MAX_NS = 20 * 1000 * 1000,
};

/* ---- locks ---- */
struct locks {
	_Atomic uint32_t *word[4];
	int n;
};

static void release(struct locks *l)
{
	while (l->n)
		tas__block_unlock(l->word[--l->n]);
}

/* All four, or none. */
static bool take(struct locks *l, struct tas_sock *s)
{
	struct tas_lock_line *a = &s->base.b->c, *b = &s->u.local.peer->base.b->c;
	_Atomic uint32_t *want[4] = { &a->lock_rx, &a->lock_tx, &b->lock_rx, &b->lock_tx };

	for (l->n = 0; l->n < 4; l->n++) {
		if (!tas__block_lock(want[l->n])) {
			release(l);
			return false;
		}
		l->word[l->n] = want[l->n];
	}
	return true;
}

/* ---- counters ---- */
/* What was written and consumed directly becomes known to the service, which thinks of it as delivered.  False: nonsense. */
static bool sync_one(struct tas_sock *from)
{
	struct tas_sock *to = from->u.local.peer;
	uint64_t was = from->written;
	uint32_t events, segs;

	if (!tas__rx_adopt(to, atomic_load_explicit(&from->base.b->a.tx_written, memory_order_acquire)))
		return false;
	from->written = from->acked = to->delivered;
	if (to->rcv_limit < to->delivered)
		to->rcv_limit = to->delivered;
	if (to->rcv_limit < to->consumed + to->rcv_buf)
		to->rcv_limit = to->consumed + to->rcv_buf;
	if (from->written == was)
		return true;
	tas_count(from->core, TAS_CTR_bytes_local, from->written - was);
	/* a segment for each write, or for what a segment can carry; when it was is not known better than this */
	events = atomic_load_explicit(&to->base.b->s.ev_in, memory_order_relaxed);
	segs = (uint32_t)((from->written - was + TAS_LOCAL_MSS - 1) / TAS_LOCAL_MSS);
	if (events - to->u.local.counted > segs && events - to->u.local.counted <= from->written - was)
		segs = events - to->u.local.counted;
	to->u.local.counted = events;
	from->u.local.segs_out += segs;
	to->u.local.segs_in += segs;
	from->u.local.sent_at = to->u.local.got_at = from->core->now;
	return true;
}

bool tas__direct_sync(struct tas_sock *s)
{
	return sync_one(s) && sync_one(s->u.local.peer);
}

/* ---- becoming ordinary ---- */
/* The words that applications see as the service would have left them; a writer killed in the middle may not have. */
static void show(struct tas_sock *s)
{
	struct tas_block *b = s->base.b;
	atomic_store_explicit(&b->s.direct, 0, memory_order_seq_cst);
	atomic_store_explicit(&b->s.tx_acked, s->acked, memory_order_release);
	atomic_store_explicit(&b->s.rx_delivered, s->delivered, memory_order_release);
	s->u.local.direct = s->u.local.ends = false;
	s->u.local.passed = 0;
	atomic_store_explicit(&b->a.tx_want, 0, memory_order_relaxed); /* of a ring of the peer's; who waits asks again */
	if (atomic_exchange_explicit(&b->c.want_room, 0, memory_order_seq_cst))
		tas__wake_soon(s, TAS_WAKE_OUT);
}

static void end(struct tas_sock *s)
{
	struct tas_sock *peer = s->u.local.peer;
	bool sane = tas__direct_sync(s);

	show(s);
	show(peer);
	if (!sane) {
		tas_count(s->core, TAS_CTR_app_bad_counters, 1);
		s->u.local.nonsense = peer->u.local.nonsense = true;
	}
}

int tas__direct_end(struct tas_sock *s)
{
	struct locks l;

	if (!tas__is_direct(s))
		return 0;
	if (!take(&l, s))
		return -EAGAIN;
	end(s);
	tas__tx_renew(s);
	tas__tx_renew(s->u.local.peer);
	release(&l);
	return 0;
}

/* ---- locks that nobody has ---- */
/* Who holds a lock of s has claimed it, or another process of its memory set has. */
static bool may_hold(const struct tas_sock *s, uint32_t word)
{
	uint32_t slot = (word >> 20) & 0x7ff;
	const struct tas_proc *p = slot ? tas__procs[slot - 1] : NULL;

	if (!slot)
		return false; /* the service's, which are free while we look: local connections belong to one core */
	for (uint32_t i = 0; p && i < tas__n_procs; i++)
		if (tas__procs[i] && tas__procs[i]->set == p->set && tas__procs[i]->region &&
		    tas_claim_test(tas__procs[i]->region->claims, s->base.id))
			return true;
	return false;
}

/* The far end can write what it likes into the words: nobody waits for what it made up. */
static void locks_check(struct tas_sock *s)
{
	struct tas_lock_line *c = &s->base.b->c;
	_Atomic uint32_t *word[] = { &c->lock_rx, &c->lock_tx };

	for (int i = 0; i < 2; i++) {
		uint32_t v = atomic_load_explicit(word[i], memory_order_relaxed);

		if (!v || may_hold(s, v) || !atomic_compare_exchange_strong(word[i], &v, 0))
			continue;
		tas__futex_wake(word[i]);
		if (!s->u.local.nonsense)
			tas_count(s->core, TAS_CTR_app_bad_counters, 1);
		s->u.local.nonsense = true;
	}
}

/* Somebody has a lock: in a moment.  A stopped program may keep it for long. */
static void again(struct tas_sock *s)
{
	uint64_t *ns = &s->u.local.retry_ns;

	if (*ns >= RETRY_MAX_NS) {
		locks_check(s);
		if (s->u.local.peer)
			locks_check(s->u.local.peer);
	}
	*ns = !*ns ? RETRY_NS : *ns < RETRY_MAX_NS ? 2 * *ns : *ns;
	tas__timer_set(s, s->core->now + *ns);
}

bool tas__direct_ended(struct tas_sock *s)
{
	if (tas__direct_end(s)) {
		s->u.local.ends = true;
		again(s);
		return false;
	}
	s->u.local.retry_ns = 0;
	return true;
}

/* ---- becoming direct ---- */
static bool plain(const struct tas_sock *s)
{
	const struct tas_app_line *a = &s->base.b->a;

	return !s->dead && !s->u.local.nonsense && !s->u.local.ends && !s->base.closed && !s->listener &&
	       !tas__accept_waiting(s) && !s->bridge && !s->rx_eof && !s->app_fin && !s->app_deaf &&
	       !atomic_load_explicit(&a->shut, memory_order_relaxed) && !atomic_load_explicit(&a->rcvbuf, memory_order_relaxed) &&
	       !atomic_load_explicit(&a->sndbuf, memory_order_relaxed);
}

/* A process that has shut itself in cannot map what it would need. */
static bool shut_in(const struct tas_set *x, const struct tas_set *y)
{
	for (uint32_t i = 0; i < tas__n_procs; i++) {
		const struct tas_proc *p = tas__procs[i];

		if (p && p->mail_ended && (tas__set_reaches(p->set, x) || tas__set_reaches(p->set, y)))
			return true;
	}
	return false;
}

/* Is there a memory set in which both ends can lie, or can there be one?  Changes nothing but `never`, where that will not change. */
static bool can_meet(struct tas_sock *a, const struct tas_sock *b)
{
	const struct tas_set *x = a->base.set, *y = b->base.set;

	if (x != y && (x->number || y->number || tas__set_dead(x) || tas__set_dead(y) || x->n_shared >= PAIRS_MAX ||
		       y->n_shared >= PAIRS_MAX))
		return false;
	a->u.local.never = x->uid != y->uid || shut_in(x, y);
	return !a->u.local.never;
}

static struct tas_set *meeting(const struct tas_sock *a, const struct tas_sock *b)
{
	struct tas_set *both[2] = { a->base.set, b->base.set };

	return both[0] == both[1] ? both[0] : tas__set_shared(both, 2);
}

/* Under the locks: nothing is on its way any more, and there is a ring to write to. */
static bool quiet(struct tas_sock *from)
{
	uint32_t most = tas__socks_cold() ? RING_OF_MANY : RING_FIRST;
	uint32_t len = tas_config.tcp_rxbuf_len < most ? tas_config.tcp_rxbuf_len : most;

	return tas__local_drain(from) && tas__rx_ring(from->u.local.peer, len);
}

static void told(struct tas_sock *s)
{
	/* what it asked for it needs no more */
	tas__tx_unoffer(s);
	/* pairs: who polls stores this, then looks at direct */
	if (atomic_exchange_explicit(&s->base.b->a.tx_want, 0, memory_order_seq_cst))
		tas__wake_soon(s, TAS_WAKE_OUT);
	s->u.local.direct = true;
	s->u.local.counted = s->u.local.told_in = atomic_load_explicit(&s->base.b->s.ev_in, memory_order_relaxed);
	s->u.local.told_out = atomic_load_explicit(&s->base.b->s.ev_out, memory_order_relaxed);
}

/* Both lie in one memory set, maybe in a new one.  Alone: others read which sets there are, and what they hold. */
static bool meet(struct tas_sock *a, struct tas_sock *b, bool *moved)
{
	struct tas_set *set = meeting(a, b);

	*moved = set && a->base.set != set;
	if (*moved && !tas__sock_move_pair(a, b, set)) {
		tas__set_put(set);
		return false;
	}
	return set;
}

static bool begin(struct tas_sock *a, struct locks *l)
{
	struct tas_sock *b = a->u.local.peer;
	bool met, moved;

	if (!quiet(a) || !quiet(b) || !plain(a) || !plain(b))
		return false;
	tas_alone_in();
	met = meet(a, b, &moved);
	tas_alone_out();
	if (!met)
		return false;
	a->u.local.moved |= moved;
	b->u.local.moved |= moved;
	atomic_store_explicit(&a->base.b->s.direct, b->base.block, memory_order_seq_cst);
	atomic_store_explicit(&b->base.b->s.direct, a->base.block, memory_order_seq_cst);
	told(a);
	told(b);
	release(l);
	if (moved) { /* the new blocks came into being locked */
		struct locks fresh = { .word = { &a->base.b->c.lock_rx, &a->base.b->c.lock_tx, &b->base.b->c.lock_rx,
						 &b->base.b->c.lock_tx }, .n = 4 };

		release(&fresh);
	}
	tas_count(a->core, TAS_CTR_conn_direct, 1);
	return true;
}

/* Before what takes a while. */
static void wake_now(struct tas_sock *s)
{
	unsigned due = s->wake_due;

	tas__wake_forget(s);
	if (due)
		tas__wake(s, due);
}

void tas__direct_consider(struct tas_sock *s, uint32_t bytes)
{
	struct tas_sock *peer = s->u.local.peer;
	struct locks l;

	s->u.local.passed += 1 + bytes / 16384;
	if (!tas_config.direct_after || s->u.local.never || peer->u.local.never || s->u.local.passed < tas_config.direct_after)
		return;
	s->u.local.passed = 0;
	if (!plain(s) || !plain(peer) || tas__is_direct(s) || !can_meet(s, peer))
		return;
	wake_now(peer);
	wake_now(s);
	if (!take(&l, s))
		return;
	if (begin(s, &l))
		return;
	release(&l);
	/* what was seen meanwhile of either is nobody's news any more */
	tas__output_soon(s);
	tas__output_soon(peer);
}

/* ---- while direct ---- */
/* The writer has no room and would like a larger ring.  False: one that will not wait cannot have it. */
static bool grow(struct tas_sock *from, uint32_t want)
{
	_Atomic uint32_t *lock = &from->base.b->c.lock_tx;
	bool larger;

	if (!tas__block_lock(lock)) {
		again(from);
		return true;
	}
	larger = sync_one(from) && tas__rx_larger(from->u.local.peer, want);
	if (larger)
		tas__wake_soon(from, TAS_WAKE_OUT);
	tas__block_unlock(lock);
	from->u.local.retry_ns = 0;
	return larger || want <= PATIENT;
}

/* The peer's wait sets that s, or the peer, could not reach. */
static void pass_on(struct tas_sock *to)
{
	uint32_t in = atomic_load_explicit(&to->base.b->s.ev_in, memory_order_seq_cst);
	uint32_t out = atomic_load_explicit(&to->base.b->s.ev_out, memory_order_seq_cst);

	if (in == to->u.local.told_in && out == to->u.local.told_out)
		return;
	to->u.local.told_in = in;
	to->u.local.told_out = out;
	tas__wake_news(to);
	tas__bell_hang(to);
}

static uint64_t taken(const struct tas_sock *by)
{
	return atomic_load_explicit(&by->base.b->a.rx_consumed, memory_order_relaxed);
}

/* The writer waits.  If nothing moves until then, the connection becomes ordinary. */
static void watch_stall(struct tas_sock *s)
{
	if (!s->stall_at) {
		s->stall_acked = taken(s->u.local.peer);
		s->stall_at = s->core->now + STALL_NS;
	}
	tas__timer_set(s, s->stall_at);
}

void tas__direct_timer(struct tas_sock *s)
{
	if (s->stall_at && s->stall_at <= s->core->now) {
		s->stall_at = 0;
		if (atomic_load_explicit(&s->base.b->a.tx_want, memory_order_relaxed) && taken(s->u.local.peer) == s->stall_acked)
			tas__direct_ended(s);
	}
	tas__sock_hint(s);
}

bool tas__direct_hint(struct tas_sock *s)
{
	const struct tas_app_line *a = &s->base.b->a;
	uint32_t want;

	if (!plain(s)) {
		pass_on(s->u.local.peer); /* it may be a while */
		return !tas__direct_ended(s);
	}
	pass_on(s->u.local.peer);
	want = atomic_load_explicit(&a->tx_want, memory_order_relaxed);
	if (want) {
		watch_stall(s);
		if (want > s->u.local.peer->rx[s->u.local.peer->rx_cur].len && !grow(s, want)) {
			if (!tas__direct_ended(s))
				return true;
			/* for a writer that was refused there, and will not wait, the largest ring here */
			s->stall_acked = s->acked;
			atomic_store_explicit(&s->base.b->a.tx_want, want, memory_order_relaxed);
			tas__tx_stalled(s);
			return false;
		}
	}
	return true;
}

static struct tas_sock *reached(const struct tas_proc *p, const struct tas_msg *req)
{
	struct tas_sock_base *b = tas__sock(req->u.sock.id, req->u.sock.gen);

	return b && b->kind == TAS_K_LOCAL && !b->closed && tas__set_reaches(p->set, b->set) ? tas__of(b) : NULL;
}

/* The asker's own end, not the other: it lay in this set before, and nobody else has it. */
static bool is_of(const struct tas_sock *s, const struct tas_set *set)
{
	for (uint32_t i = 0; i < tas__n_procs; i++) {
		const struct tas_proc *p = tas__procs[i];

		if (p && p->set != set && p->region && tas__set_reaches(p->set, s->base.set) &&
		    tas_claim_test(p->region->claims, s->base.id))
			return false;
	}
	return tas__sock_was_in(&s->base, set);
}

int tas__op_ordinary(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep)
{
	struct tas_sock *s = reached(p, req);
	int err;

	if (!s)
		return -EINVAL;
	locks_check(s);
	err = tas__direct_end(s);
	if (!err && s->u.local.moved && is_of(s, p->set))
		err = tas__sock_move(&s->base, p->set);
	s->u.local.never |= !err;
	rep->u.sock = (struct tas_msg_sock){ .id = s->base.id, .gen = s->base.gen, .block = s->base.block };
	if (s->u.local.nonsense)
		tas__sock_hint(s);
	return err;
}

int tas__op_locks(const struct tas_proc *p, const struct tas_msg *req)
{
	const struct tas_sock_base *b = tas__sock(req->u.sock.id, req->u.sock.gen);
	struct tas_sock *s = reached(p, req);

	if (!b || b->closed || !tas__set_reaches(p->set, b->set))
		return -EINVAL;
	if (!s)
		return 0;
	locks_check(s);
	if (s->u.local.nonsense)
		tas__sock_hint(s);
	return 0;
}

void tas__direct_shut_in(const struct tas_proc *p)
{
	for (uint32_t w = 0; w < TAS_SOCK_MAX / 64; w++)
		for (uint64_t bits = atomic_load_explicit(&p->region->claims[w], memory_order_relaxed); bits; bits &= bits - 1) {
			struct tas_sock_base *b = tas__sock(w * 64 + (uint32_t)__builtin_ctzll(bits), 0);

			if (!b || b->kind != TAS_K_LOCAL || b->closed || !tas__set_reaches(p->set, b->set))
				continue;
			tas__of(b)->u.local.never = true;
			tas__direct_ended(tas__of(b));
		}
}

void tas__direct_forget_proc(struct tas_sock *s, bool locked)
{
	if (!tas__is_direct(s))
		return;
	pass_on(s->u.local.peer); /* it may have been about to say so */
	if (!locked)
		return;
	tas__wake_soon(s->u.local.peer, TAS_WAKE_IN | TAS_WAKE_OUT);
	tas__direct_ended(s);
}
