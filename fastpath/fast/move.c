/* SPDX-License-Identifier: MIT */
/*
 * A socket moves from one memory set to another, data in flight included.
 *
 * Applications use the old block at the same moment.  Bytes and counters change only under the socket's two locks: the service
 * takes both if they are free, else it says "in a moment"; it never waits for them.  Words that are written without a lock are
 * copied, then `moved` is stored, then they are read again: a writer that was late sees `moved` and repeats itself (tas_abi.h).
 * The accept queue's counter is swapped for one that pops nothing.  Order: the new block is whole before `moved` names it.
 *
 * The old block stays until the socket ends or its set has no process: that is how those who know it find the new one.
 */
#include <errno.h>
#include <limits.h>
#include <stdlib.h>
#include <string.h>

#include "abi/tas_extent.h"
#include "fast/sock.h"

enum { LOCKED = 1 /* slot 0: the service */, LEAP = 1 << 30 };
#define WAITED (1u << 31)

struct tas_moved {
	struct tas_set *set;
	tas_off_t block;
	struct tas_moved *next;
};

/* New memory of one socket. */
struct place {
	struct tas_sock *s;
	struct tas_moved *old; /* for the node that remembers where it was */
	tas_off_t block, rx[TAS_EXT_SLOTS], tx[TAS_EXT_SLOTS];
};

void tas__moved_drop(struct tas_sock_base *s, const struct tas_set *set)
{
	for (struct tas_moved **p = &s->moved, *m; (m = *p);) {
		struct tas_block *b = tas__mem_ptr(m->set, m->block);

		if (set && m->set != set) {
			p = &m->next;
			continue;
		}
		*p = m->next;
		atomic_store_explicit(&b->s.gen, 0, memory_order_release);
		tas__mem_free(m->set, m->block, TAS_BLOCK_SIZE);
		m->set->n_moved--;
		m->set->n_socks--;
		if (!set) /* else the caller does, when it has done with it */
			tas__set_put(m->set);
		free(m);
	}
}

bool tas__sock_was_in(const struct tas_sock_base *s, const struct tas_set *set)
{
	for (const struct tas_moved *m = s->moved; m; m = m->next)
		if (m->set == set)
			return true;
	return false;
}

/* ---- memory ---- */
static void place_free(struct place *p, struct tas_set *to)
{
	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		if (p->rx[i])
			tas__mem_free(to, p->rx[i], p->s->rx[i].len);
		if (p->tx[i])
			tas__mem_free(to, p->tx[i], p->s->tx[i].len);
	}
	if (p->block)
		tas__mem_free(to, p->block, TAS_BLOCK_SIZE);
	free(p->old);
	p->s = NULL;
}

static bool place_make(struct place *p, struct tas_sock *s, struct tas_set *to)
{
	bool ok;

	*p = (struct place){ .s = s, .old = malloc(sizeof *p->old), .block = tas__mem_alloc(to, TAS_BLOCK_SIZE) };
	ok = p->old && p->block;
	for (int i = 0; ok && i < TAS_EXT_SLOTS; i++) {
		ok = (!s->rx[i].gen || (p->rx[i] = tas__mem_alloc(to, s->rx[i].len))) &&
		     (!s->tx[i].gen || (p->tx[i] = tas__mem_alloc(to, s->tx[i].len)));
	}
	if (!ok)
		place_free(p, to);
	return ok;
}

/* Stream offsets that have something in their rings. */
struct live {
	uint64_t from, to;
};

static const struct live nothing = { 0, 0 }, everything = { 0, UINT64_MAX };

/* Under lock_rx. */
static struct live live_rx(const struct tas_sock *s, const struct tas_block *b)
{
	uint64_t consumed = atomic_load_explicit(&b->a.rx_consumed, memory_order_acquire);

	if (s->base.kind != TAS_K_LOCAL) /* an accept queue; bytes out of order */
		return everything;
	if (consumed < s->consumed || consumed > s->delivered)
		consumed = s->consumed;
	return (struct live){ consumed, s->delivered };
}

/* Under lock_tx.  Where in the ring they lie is the writer's to say, and may not have been looked at yet. */
static struct live live_tx(const struct tas_sock *s, const struct tas_block *b)
{
	return atomic_load_explicit(&b->a.tx_written, memory_order_acquire) == s->acked ? nothing : everything;
}

static void bytes_move(uint8_t *to, const uint8_t *from, const struct tas_ring *r, struct live l)
{
	if (l.from < r->base)
		l.from = r->base;
	if (l.to > l.from && l.to - l.from > r->len) {
		memcpy(to, from, r->len);
		return;
	}
	while (l.from < l.to) {
		struct tas_span p = tas_extent_span(0, r->base, r->len, l.from, l.to);

		memcpy(to + p.off, from + p.off, p.len);
		l.from += p.len;
	}
}

/* What the extent says comes from the service's own copy: the application can have scribbled over the other. */
static void ring_move(struct tas_set *from, struct tas_set *to, struct tas_ring *r, struct tas_extent *e, tas_off_t off, struct live live)
{
	if (r->gen) {
		bytes_move(tas__mem_ptr(to, off), tas__mem_ptr(from, r->off), r, live);
		tas__mem_free(from, r->off, r->len);
		r->off = off;
	}
	atomic_store_explicit(&e->off, r->off, memory_order_relaxed);
	atomic_store_explicit(&e->len, r->len, memory_order_relaxed);
	atomic_store_explicit(&e->gen, r->gen, memory_order_relaxed);
	e->kind = r->gen ? TAS_EXT_SERVICE : TAS_EXT_NONE;
}

/* ---- words that applications write without a lock ---- */
static void word_again(_Atomic uint32_t *to, const _Atomic uint32_t *from, uint32_t copied)
{
	uint32_t now = atomic_load_explicit(from, memory_order_seq_cst);

	/* who writes there already knows better */
	if (now != copied)
		atomic_compare_exchange_strong(to, &copied, now);
}

struct words {
	uint32_t err_seen, opts, keep[3], user_timeout, rcvlowat, rcvbuf, sndbuf, tx_want, nonblock, subs_lost, ip, maxseg, defer, syncnt, linger2,
		soft_error, subs[TAS_SUBS];
};

#define EACH_WORD(X) \
	X(a.err_seen, err_seen) X(a.opts, opts) X(a.keep_idle, keep[0]) X(a.keep_intvl, keep[1]) X(a.keep_cnt, keep[2]) \
	X(a.user_timeout, user_timeout) X(a.rcvlowat, rcvlowat) X(a.rcvbuf, rcvbuf) X(a.sndbuf, sndbuf) \
	X(a.tx_want, tx_want) X(c.nonblock, nonblock) X(c.subs_lost, subs_lost) X(c.ip, ip) X(c.maxseg, maxseg) \
	X(c.defer, defer) X(c.syncnt, syncnt) X(c.linger2, linger2) X(c.soft_error, soft_error)

static void words_read(struct words *w, const struct tas_block *b)
{
#define READ(field, name) w->name = atomic_load_explicit(&b->field, memory_order_relaxed);
	EACH_WORD(READ)
#undef READ
	for (int i = 0; i < TAS_SUBS; i++)
		w->subs[i] = atomic_load_explicit(&b->c.subs[i], memory_order_relaxed);
}

static void words_again(struct tas_block *to, const struct tas_block *from, const struct words *w)
{
#define AGAIN(field, name) word_again(&to->field, &from->field, w->name);
	EACH_WORD(AGAIN)
#undef AGAIN
	for (int i = 0; i < TAS_SUBS; i++)
		word_again(&to->c.subs[i], &from->c.subs[i], w->subs[i]);
	atomic_fetch_or(&to->a.shut, atomic_load_explicit(&from->a.shut, memory_order_seq_cst));
}

/* ---- the move itself: nothing can fail here ---- */
/* locks: what the words of the new block say. */
static void transfer(struct place *p, struct tas_set *to, uint32_t locks)
{
	struct tas_sock_base *s = &p->s->base;
	struct tas_block *old = s->b, *b = tas__mem_ptr(to, p->block);
	struct tas_set *from = s->set;
	struct words w;

	words_read(&w, old);
	memcpy((void *)b, (const void *)old, sizeof *b);
	atomic_store_explicit(&b->c.lock_rx, locks, memory_order_relaxed);
	atomic_store_explicit(&b->c.lock_tx, locks, memory_order_relaxed);
	atomic_store_explicit(&b->c.wait_in, 0, memory_order_relaxed);
	atomic_store_explicit(&b->c.wait_out, 0, memory_order_relaxed);
	atomic_store_explicit(&b->c.bell_sub, 0, memory_order_relaxed);
#define WRITE(field, name) atomic_store_explicit(&b->field, w.name, memory_order_relaxed);
	EACH_WORD(WRITE)
#undef WRITE
	for (int i = 0; i < TAS_SUBS; i++)
		atomic_store_explicit(&b->c.subs[i], w.subs[i], memory_order_relaxed);
	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		ring_move(from, to, &p->s->rx[i], &b->x.rx[i], p->rx[i], live_rx(p->s, old));
		ring_move(from, to, &p->s->tx[i], &b->x.tx[i], p->tx[i], live_tx(p->s, old));
	}
	*p->old = (struct tas_moved){ .set = from, .block = s->block, .next = s->moved };
	s->moved = p->old;
	s->set = to;
	s->block = p->block;
	s->b = b;
	from->n_moved++; /* its block is counted there as before */
	to->n_socks++;
	tas__sock_publish(p->s, (enum tas_sock_state)atomic_load_explicit(&old->s.state, memory_order_relaxed));
	atomic_store_explicit(&old->s.moved, p->block, memory_order_seq_cst);
	words_again(b, old, &w);
}

void tas__block_unlock(_Atomic uint32_t *w)
{
	if (atomic_exchange_explicit(w, 0, memory_order_release) & WAITED)
		tas__futex_wake(w);
}

bool tas__block_lock(_Atomic uint32_t *w)
{
	uint32_t none = 0;

	return atomic_compare_exchange_strong_explicit(w, &none, LOCKED, memory_order_acquire, memory_order_relaxed);
}

static int move_connection(struct tas_sock *s, struct tas_set *to)
{
	struct tas_block *old = s->base.b;
	struct place p;
	int err = -EAGAIN;

	if (!tas__block_lock(&old->c.lock_rx))
		return err;
	if (!tas__block_lock(&old->c.lock_tx))
		goto out_rx;
	err = -ENOBUFS;
	if (place_make(&p, s, to)) {
		transfer(&p, to, 0);
		err = 0;
	}
	tas__block_unlock(&old->c.lock_tx);
out_rx:
	tas__block_unlock(&old->c.lock_rx);
	return err;
}

/* Those in the queue: no application knows them yet. */
static struct place *places_of_queue(struct tas_sock *l, struct tas_set *to, uint32_t *n)
{
	struct place *p;

	*n = 0;
	tas__accept_queued(l); /* those that were popped leave the list */
	for (struct tas_sock *c = l->u.lis.aq_head; c; c = c->aq_next)
		++*n;
	p = calloc(*n + 1, sizeof *p);
	*n = 0;
	for (struct tas_sock *c = p ? l->u.lis.aq_head : NULL; c; c = c->aq_next) {
		if (place_make(&p[*n], c, to)) {
			++*n;
			continue;
		}
		while (*n)
			place_free(&p[--*n], to);
		free(p);
		return NULL;
	}
	return p;
}

static int move_listener(struct tas_sock *l, struct tas_set *to)
{
	struct tas_block *old = l->base.b;
	struct tas_accept_entry *ring;
	struct place own, *queue;
	uint32_t n, mask = l->rx[0].len / (uint32_t)sizeof *ring - 1;
	uint64_t popped;

	if (!place_make(&own, l, to))
		return -ENOBUFS;
	queue = places_of_queue(l, to, &n);
	if (!queue) {
		place_free(&own, to);
		return -ENOBUFS;
	}
	/* from here on nobody pops */
	popped = atomic_exchange_explicit(&old->a.rx_consumed, UINT64_MAX, memory_order_seq_cst);
	if (popped > l->u.lis.queued || popped < l->consumed)
		popped = l->u.lis.queued; /* nonsense: they lose what waits */
	transfer(&own, to, 0);
	ring = tas__mem_ptr(to, l->rx[0].off);
	for (uint32_t i = 0; i < n; i++) {
		struct tas_sock *c = queue[i].s;

		if (c->aq_at < popped) { /* a process of the old set has it */
			place_free(&queue[i], to);
			continue;
		}
		transfer(&queue[i], to, 0);
		atomic_store_explicit(&ring[c->aq_at & mask].block, c->base.block, memory_order_relaxed);
	}
	free(queue);
	atomic_store_explicit(&l->base.b->a.rx_consumed, popped, memory_order_release);
	return 0;
}

/* May one process hold both ends now? */
static void check_near(struct tas_sock *s)
{
	struct tas_sock *peer = s->base.kind == TAS_K_LOCAL ? s->u.local.peer : NULL;
	bool near = false;

	if (!peer || !peer->base.set)
		return;
	for (uint32_t i = 0; i < s->base.set->n_members; i++)
		near |= tas__set_reaches(s->base.set->member[i], peer->base.set);
	if (near || tas__set_reaches(s->base.set, peer->base.set)) {
		tas__sock_flags(s, TAS_F_NEAR);
		tas__sock_flags(peer, TAS_F_NEAR);
	}
}

void tas__sock_taken(const struct tas_proc *by, struct tas_sock_base *s)
{
	struct tas_sock *peer = s->kind == TAS_K_LOCAL ? tas__of(s)->u.local.peer : NULL;

	for (uint32_t i = 0; peer && i < tas__n_procs; i++) {
		const struct tas_proc *p = tas__procs[i];

		if (!p || p->set != by->set || !p->region || !tas_claim_test(p->region->claims, peer->base.id))
			continue;
		tas__sock_flags(tas__of(s), TAS_F_NEAR);
		tas__sock_flags(peer, TAS_F_NEAR);
		return;
	}
}

/* Who sleeps on the old block looks again, and finds the new one.  There the sequences go on from where they were: nothing has
 * happened.  Here they leap, so that what was read here is never equal to what is read there. */
static void wake_old(struct tas_sock *s, struct tas_block *old)
{
	tas_count(s->core, TAS_CTR_sock_moves, 1);
	atomic_fetch_add_explicit(&old->s.ev_in, LEAP, memory_order_seq_cst);
	atomic_fetch_add_explicit(&old->s.ev_out, LEAP, memory_order_seq_cst);
	if (atomic_load_explicit(&old->c.wait_in, memory_order_seq_cst))
		tas__futex_wake(&old->s.ev_in);
	if (atomic_load_explicit(&old->c.wait_out, memory_order_seq_cst))
		tas__futex_wake(&old->s.ev_out);
}

bool tas__sock_move_pair(struct tas_sock *a, struct tas_sock *b, struct tas_set *to)
{
	struct tas_block *old_a = a->base.b, *old_b = b->base.b;
	struct place pa, pb;

	if (!place_make(&pa, a, to))
		return false;
	if (!place_make(&pb, b, to)) {
		place_free(&pa, to);
		return false;
	}
	transfer(&pa, to, LOCKED);
	transfer(&pb, to, LOCKED);
	wake_old(a, old_a);
	wake_old(b, old_b);
	return true;
}

int tas__sock_move(struct tas_sock_base *base, struct tas_set *to)
{
	struct tas_sock *s = tas__of(base);
	struct tas_block *old = base->b;
	int err;

	if (base->set == to)
		return 0;
	err = tas__direct_end(s);
	if (err)
		return err;
	err = base->kind == TAS_K_LISTENER ? move_listener(s, to) : move_connection(s, to);
	if (err)
		return err;
	check_near(s);
	wake_old(s, old);
	tas__wake_watchers(s);
	return 0;
}
