/* SPDX-License-Identifier: MIT */
/*
 * Stream memory: extents of both directions as the service trusts them (docs/internals.md, "Counters").
 *
 * Receive: no memory until the first byte, then a small ring, then (in the other slot) one that holds all that is offered.  An
 * empty ring begins again at its first byte, so that small messages stay in the same cache lines; idle connections have none (slack.c).
 * Transmit: the service offers rings, the writer answers from which offset it uses them.  Shared words are read once and
 * range-checked here; everything else works on the private copies.
 */
#include <errno.h>
#include <string.h>

#include "abi/tas_extent.h"
#include "fast/sock.h"

enum { RX_FIRST = 4096, TX_FIRST = 16384, TX_LEAST = 256, TX_BUSY = 1 << 20 };
static const uint64_t stall_ns = 5 * 1000 * 1000;

static uint32_t pow2_up(uint64_t n)
{
	return n <= 4096 ? 4096 : 1u << (64 - __builtin_clzll(n - 1));
}

static void publish(struct tas_extent *e, const struct tas_ring *r)
{
	atomic_store_explicit(&e->base, r->base, memory_order_relaxed);
	atomic_store_explicit(&e->off, r->off, memory_order_relaxed);
	atomic_store_explicit(&e->len, r->len, memory_order_relaxed);
	e->kind = TAS_EXT_SERVICE;
	/* pairs with the acquire loads in tas_rx_span() and in the writer's look for a new extent */
	atomic_store_explicit(&e->gen, r->gen, memory_order_release);
}

static int ring_new(struct tas_sock *s, struct tas_ring *r, struct tas_extent *e, uint32_t len, uint64_t base)
{
	tas_off_t off = tas__mem_alloc(s->base.set, len);

	if (!off)
		return -ENOMEM;
	if (!++s->ext_gen)
		s->ext_gen = 1;
	*r = (struct tas_ring){ .base = base, .off = off, .len = len, .gen = s->ext_gen };
	publish(e, r);
	tas__slack_add(s);
	return 0;
}

static void ring_drop(struct tas_sock *s, struct tas_ring *r, struct tas_extent *e)
{
	if (!r->gen)
		return;
	atomic_store_explicit(&e->gen, 0, memory_order_release);
	tas__mem_free(s->base.set, r->off, r->len);
	*r = (struct tas_ring){ 0 };
}

void tas__streams_free(struct tas_sock *s)
{
	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		ring_drop(s, &s->rx[i], &s->base.b->x.rx[i]);
		ring_drop(s, &s->tx[i], &s->base.b->x.tx[i]);
	}
}

/* ---- receive ---- */
/* The slot that covers offset at: the largest base not beyond it. */
static const struct tas_ring *ring_at(const struct tas_ring r[TAS_EXT_SLOTS], uint64_t at, uint64_t *limit)
{
	const struct tas_ring *best = NULL;

	/* equal bases (a ring that was never used before the next was answered): the newer one */
	for (int i = 0; i < TAS_EXT_SLOTS; i++)
		if (r[i].active && r[i].base <= at &&
		    (!best || r[i].base > best->base || (r[i].base == best->base && (int32_t)(r[i].gen - best->gen) > 0)))
			best = &r[i];
	for (int i = 0; i < TAS_EXT_SLOTS; i++)
		if (r[i].active && r[i].base > at && r[i].base < *limit)
			*limit = r[i].base;
	return best;
}

/* Frees the older receive ring once everything in it has been consumed. */
static void rx_retire(struct tas_sock *s)
{
	struct tas_ring *cur = &s->rx[s->rx_cur], *old = &s->rx[!s->rx_cur];

	if (old->gen && s->consumed >= cur->base)
		ring_drop(s, old, &s->base.b->x.rx[!s->rx_cur]);
}

static bool rx_grow(struct tas_sock *s, uint64_t base, uint64_t end)
{
	unsigned slot = s->rx[s->rx_cur].gen ? !s->rx_cur : s->rx_cur;
	uint64_t need = end - base;
	uint32_t len;

	if (s->rx[slot].gen)
		return false;
	if (!s->rx[s->rx_cur].gen && need <= RX_FIRST)
		len = RX_FIRST;
	else
		len = pow2_up(need > s->rcv_buf ? need : s->rcv_buf);
	if (ring_new(s, &s->rx[slot], &s->base.b->x.rx[slot], len, base) < 0)
		return false;
	s->rx[slot].active = true;
	s->rx_cur = (uint8_t)slot;
	return true;
}

bool tas__rx_reserve(struct tas_sock *s, uint64_t off, uint32_t len, uint64_t high)
{
	struct tas_ring *cur = &s->rx[s->rx_cur];
	uint64_t end = off + len, from;

	if (cur->gen) {
		uint64_t consumed = atomic_load_explicit(&s->base.b->a.rx_consumed, memory_order_acquire);

		if (consumed < s->consumed || consumed > s->delivered)
			return false; /* the hint that follows resets the connection */
		s->consumed = consumed;
		rx_retire(s);
		if (consumed == s->delivered && high == s->delivered && off == high && !s->rx[!s->rx_cur].gen &&
		    cur->base != off && len <= cur->len) {
			cur->base = off; /* nobody reads: all is consumed */
			atomic_store_explicit(&s->base.b->x.rx[s->rx_cur].base, off, memory_order_relaxed);
		}
		from = consumed > cur->base ? consumed : cur->base;
		if (end <= from || end - from <= cur->len)
			return true;
	}
	from = s->delivered > high ? s->delivered : high;
	if (!rx_grow(s, from, end > from ? end : from + 1))
		return false;
	rx_retire(s); /* an idle ring that was too small: two rings must never have the same base */
	return true;
}

bool tas__rx_ring(struct tas_sock *s, uint32_t len)
{
	const struct tas_ring *cur = &s->rx[s->rx_cur];
	unsigned slot = cur->gen ? !s->rx_cur : s->rx_cur;

	if (cur->gen && cur->len >= len)
		return true;
	rx_retire(s);
	if (s->rx[slot].gen || ring_new(s, &s->rx[slot], &s->base.b->x.rx[slot], len, s->delivered) < 0)
		return false;
	s->rx[slot].active = true;
	s->rx_cur = (uint8_t)slot;
	rx_retire(s);
	return true;
}

bool tas__rx_larger(struct tas_sock *s, uint32_t want)
{
	uint32_t max = tas_config.tcp_rxbuf_len > tas_config.tcp_txbuf_len ? tas_config.tcp_rxbuf_len : tas_config.tcp_txbuf_len;

	want = pow2_up(want < max ? want : max);
	return want > s->rx[s->rx_cur].len && tas__rx_ring(s, want);
}

bool tas__rx_adopt(struct tas_sock *s, uint64_t w)
{
	struct tas_ring *cur = &s->rx[s->rx_cur], *old = &s->rx[!s->rx_cur];
	uint64_t base = atomic_load_explicit(&s->base.b->x.rx[s->rx_cur].base, memory_order_relaxed);
	uint64_t c = atomic_load_explicit(&s->base.b->a.rx_consumed, memory_order_acquire);

	if (w >> 62 || w < s->delivered || c < s->consumed || c > w || base < cur->base || base > w)
		return false;
	if (w - (c > base ? c : base) > cur->len || (c < base && (!old->gen || base - c > old->len || base != cur->base)))
		return false;
	cur->base = base;
	s->consumed = c;
	s->delivered = w;
	rx_retire(s);
	return true;
}

struct tas_span tas__rx_space(struct tas_sock *s, uint64_t off, uint64_t end)
{
	uint64_t limit = end;
	const struct tas_ring *r = ring_at(s->rx, off, &limit);

	return r ? tas_extent_span(r->off, r->base, r->len, off, limit) : (struct tas_span){ 0, 0 };
}

void tas__rx_write(struct tas_sock *s, uint64_t off, const uint8_t *from, uint32_t len)
{
	while (len) {
		struct tas_span p = tas__rx_space(s, off, off + len);

		if (!p.len)
			return; /* cannot be: tas__rx_reserve() said yes */
		memcpy(tas__mem_ptr(s->base.set, p.off), from, p.len);
		off += p.len;
		from += p.len;
		len -= p.len;
	}
}

/* A reader that holds lock_rx finds something to read, or does not look at the ring: none is needed here. */
bool tas__rx_give(struct tas_sock *s)
{
	uint64_t consumed = atomic_load_explicit(&s->base.b->a.rx_consumed, memory_order_acquire);

	if (consumed != s->delivered || (s->base.kind == TAS_K_LINK && tcp_rx_high(&s->u.tcp) != s->delivered))
		return false;
	s->consumed = consumed;
	for (int i = 0; i < TAS_EXT_SLOTS; i++)
		ring_drop(s, &s->rx[i], &s->base.b->x.rx[i]);
	return true;
}

/* ---- transmit ---- */
static uint32_t tx_first_len(void)
{
	return pow2_up(TX_FIRST < tas_config.tcp_txbuf_len ? TX_FIRST : tas_config.tcp_txbuf_len);
}

int tas__tx_first(struct tas_sock *s)
{
	return ring_new(s, &s->tx[0], &s->base.b->x.tx[0], tx_first_len(), 0);
}

/* The largest ring for a writer whose bytes move on: more than the path holds only takes caches. */
static uint32_t tx_busy_len(const struct tas_sock *s)
{
	uint64_t len = TX_BUSY;

	if (s->base.kind == TAS_K_LINK && 4ull * s->u.tcp.cwnd > len)
		len = 4ull * s->u.tcp.cwnd;
	return len < tas_config.tcp_txbuf_len ? (uint32_t)len : tas_config.tcp_txbuf_len;
}

/* What a program may write that nobody reads. */
static uint32_t tx_most(const struct tas_sock *s)
{
	uint32_t len = s->sndbuf_seen && s->sndbuf_seen < tas_config.tcp_txbuf_len ? s->sndbuf_seen : tas_config.tcp_txbuf_len;

	return pow2_up(len);
}

/*
 * Linux takes megabytes of a program whose peer does not read, and programs count on it (both ends write first).  So a writer that
 * waits while nothing moves gets the largest ring: everything moves into it, under the writer's lock.
 */
static bool tx_replace(struct tas_sock *s, uint32_t len)
{
	struct tas_extent_line *x = &s->base.b->x;
	struct tas_tx_base *t = &s->base.b->a.tx_base[0];
	/* not at the cost of connections to come */
	tas_off_t off = len > TX_BUSY && tas__mem_scarce(s->base.set) ? 0 : tas__mem_alloc(s->base.set, len);
	struct tas_ring r = { .base = s->acked, .off = off, .len = len, .active = true };

	if (!off)
		return false;
	for (uint64_t at = s->acked; at < s->written;) {
		struct tas_span to = tas_extent_span(off, r.base, len, at, s->written);

		tas__tx_read(s, at, tas__mem_ptr(s->base.set, to.off), to.len);
		at += to.len;
	}
	for (int i = 0; i < TAS_EXT_SLOTS; i++)
		ring_drop(s, &s->tx[i], &x->tx[i]);
	tas__slack_add(s);
	if (!++s->ext_gen)
		s->ext_gen = 1;
	r.gen = s->ext_gen;
	atomic_store_explicit(&t->base, r.base, memory_order_relaxed);
	atomic_store_explicit(&t->epoch, 0, memory_order_relaxed);
	atomic_store_explicit(&t->gen, r.gen, memory_order_release);
	s->tx[0] = r;
	s->tx_cur = 0;
	publish(&x->tx[0], &r);
	return true;
}

/* Under the writer's lock nothing is written meanwhile; what was written and not yet looked at waits for the next time. */
void tas__tx_stalled(struct tas_sock *s)
{
	struct tas_block *b = s->base.b;
	bool waits;

	s->stall_at = 0;
	if (!b || s->dead || s->base.closed)
		return;
	waits = atomic_load_explicit(&b->a.tx_want, memory_order_relaxed) && s->tx[s->tx_cur].active;
	if (!waits || s->tx[s->tx_cur].len >= tx_most(s))
		return;
	if (s->acked == s->stall_acked && tas__block_lock(&b->c.lock_tx)) {
		bool known = atomic_load_explicit(&b->a.tx_written, memory_order_acquire) == s->written;

		if (known && tx_replace(s, tx_most(s)))
			tas__wake_soon(s, TAS_WAKE_OUT);
		tas__block_unlock(&b->c.lock_tx);
		if (known)
			return;
	}
	s->stall_acked = s->acked;
	s->stall_at = s->core->now + stall_ns;
	tas__timer_set(s, s->stall_at);
}

/* All that was written has gone, and nobody writes now: the next write gets a ring of this length. */
static bool tx_anew(struct tas_sock *s, uint32_t len)
{
	struct tas_block *b = s->base.b;
	bool done;

	if (s->base.closed || !tas__block_lock(&b->c.lock_tx))
		return false;
	done = s->acked == s->written && atomic_load_explicit(&b->a.tx_written, memory_order_acquire) == s->acked &&
	       tx_replace(s, len);
	tas__block_unlock(&b->c.lock_tx);
	return done;
}

/* Linux keeps no memory for what has gone from the largest buffer either. */
static void tx_shrink(struct tas_sock *s)
{
	if (s->tx[s->tx_cur].len > tx_busy_len(s))
		tx_anew(s, TX_FIRST);
}

void tas__tx_unoffer(struct tas_sock *s)
{
	unsigned other = !s->tx_cur;

	if (s->tx[other].gen && !s->tx[other].active)
		ring_drop(s, &s->tx[other], &s->base.b->x.tx[other]);
}

void tas__tx_renew(struct tas_sock *s)
{
	struct tas_ring *cur = &s->tx[s->tx_cur];
	unsigned other = !s->tx_cur;

	if (s->base.closed || cur->len >= TX_FIRST || s->tx[other].gen || ring_new(s, &s->tx[other], &s->base.b->x.tx[other], cur->len, 0) < 0)
		return;
	ring_drop(s, cur, &s->base.b->x.tx[s->tx_cur]);
	s->tx_cur = (uint8_t)other;
}

bool tas__tx_give(struct tas_sock *s)
{
	return s->tx[0].len + s->tx[1].len <= TX_LEAST || tx_anew(s, TX_LEAST);
}

/*
 * A ring that was made small while the connection was idle becomes one as at the beginning before anybody sees how small it is: for
 * a message that does not fit (want), and when what was written stays in it.  A writer that has the lock hints when it is done.
 */
static bool tx_join(struct tas_sock *s, uint32_t len)
{
	struct tas_block *b = s->base.b;
	bool done;

	if (!tas__block_lock(&b->c.lock_tx))
		return false;
	done = atomic_load_explicit(&b->a.tx_written, memory_order_acquire) == s->written && tx_replace(s, len);
	tas__block_unlock(&b->c.lock_tx);
	return done;
}

static bool tx_first_again(struct tas_sock *s, uint32_t want)
{
	uint32_t len = s->tx[0].len + s->tx[1].len;

	return len && len < tx_first_len() && tx_join(s, want > tx_first_len() ? pow2_up(want) : tx_first_len());
}

void tas__tx_stays(struct tas_sock *s)
{
	if (s->written - s->acked > TX_LEAST / 2)
		tx_first_again(s, 0);
}

/* The writer found no room and would like a larger ring: offer one if a slot and memory are there. */
static void tx_offer(struct tas_sock *s, uint32_t want)
{
	const struct tas_ring *cur = &s->tx[s->tx_cur];
	unsigned slot = !s->tx_cur;
	uint32_t len;

	if (s->base.closed)
		return;
	if (s->sndbuf_seen && want > s->sndbuf_seen)
		want = s->sndbuf_seen;
	if (want > cur->len && tx_first_again(s, want < tx_busy_len(s) ? want : tx_busy_len(s))) {
		tas__wake_soon(s, TAS_WAKE_OUT);
		return;
	}
	if (!cur->active)
		return;
	if (!s->stall_at && cur->len < tx_most(s)) {
		s->stall_acked = s->acked;
		s->stall_at = s->core->now + stall_ns;
		tas__timer_set(s, s->stall_at);
	}
	len = pow2_up(want > tx_busy_len(s) ? tx_busy_len(s) : want);
	if (s->tx[slot].gen) {
		/* the reader of a local connection does not read, else the older one would be empty: all in one, as much as Linux takes */
		if (s->base.kind == TAS_K_LOCAL && len > s->tx[0].len + s->tx[1].len && tx_join(s, len))
			tas__wake_soon(s, TAS_WAKE_OUT);
		return;
	}
	if (want <= cur->len || len <= cur->len || ring_new(s, &s->tx[slot], &s->base.b->x.tx[slot], len, 0) < 0)
		return;
	tas__wake_soon(s, TAS_WAKE_OUT);
}

/* Adopts the writer's answers, given that it has written up to w. */
static int tx_adopt(struct tas_sock *s, uint64_t w)
{
	for (unsigned i = 0; i < TAS_EXT_SLOTS; i++) {
		struct tas_ring *r = &s->tx[i];
		struct tas_tx_base *t = &s->base.b->a.tx_base[i];
		uint32_t epoch;
		uint64_t base;

		/* pairs with the writer's release stores of gen and epoch, after base */
		if (!r->gen || atomic_load_explicit(&t->gen, memory_order_acquire) != r->gen)
			continue;
		epoch = atomic_load_explicit(&t->epoch, memory_order_acquire);
		if (r->active && epoch == r->epoch)
			continue;
		base = atomic_load_explicit(&t->base, memory_order_relaxed);
		if (base > w && !r->active)
			continue; /* answered after w was read: its bytes come with the next hint */
		if (base < s->written || base > w)
			return -EPROTO;
		if (r->active && s->acked != s->written)
			return -EPROTO;
		if (!r->active)
			s->tx_cur = (uint8_t)i;
		r->base = base;
		r->epoch = epoch;
		r->active = true;
	}
	return 0;
}

static int tx_read(struct tas_sock *s)
{
	uint64_t w = atomic_load_explicit(&s->base.b->a.tx_written, memory_order_acquire);
	const struct tas_ring *cur, *old;
	uint64_t from;

	if (w == s->written)
		return 0;
	if (w < s->written || tx_adopt(s, w) < 0)
		return -EPROTO;
	cur = &s->tx[s->tx_cur];
	old = &s->tx[!s->tx_cur];
	from = s->acked > cur->base ? s->acked : cur->base;
	if (!cur->active || w < from || w - from > cur->len)
		return -EPROTO;
	if (s->acked < cur->base && (!old->active || cur->base - s->acked > old->len))
		return -EPROTO;
	s->written = w;
	if (3 * (w - from) >= 2 * (uint64_t)cur->len || (s->sndbuf_seen && 3 * (w - s->acked) >= 2 * (uint64_t)s->sndbuf_seen))
		s->tx_full = true;
	return TAS_CH_WRITTEN;
}

struct tas_span tas__tx_data(const struct tas_sock *s, uint64_t off, uint64_t end)
{
	uint64_t limit = end;
	const struct tas_ring *r = ring_at(s->tx, off, &limit);

	return r ? tas_extent_span(r->off, r->base, r->len, off, limit) : (struct tas_span){ 0, 0 };
}

void tas__tx_read(const struct tas_sock *s, uint64_t off, uint8_t *to, uint32_t len)
{
	while (len) {
		struct tas_span p = tas__tx_data(s, off, off + len);

		if (!p.len) {
			memset(to, 0, len); /* cannot be: ranges were checked when they were written */
			return;
		}
		memcpy(to, tas__mem_ptr(s->base.set, p.off), p.len);
		off += p.len;
		to += p.len;
		len -= p.len;
	}
}

void tas__tx_acked(struct tas_sock *s, uint64_t acked)
{
	struct tas_ring *cur = &s->tx[s->tx_cur], *old = &s->tx[!s->tx_cur];
	uint64_t used;
	uint32_t len = cur->len;

	if (acked <= s->acked || !s->base.b)
		return;
	s->acked = acked;
	atomic_store_explicit(&s->base.b->s.tx_acked, acked, memory_order_release);
	if (old->active && cur->active && acked >= cur->base)
		ring_drop(s, old, &s->base.b->x.tx[!s->tx_cur]);
	used = s->written - (acked > cur->base ? acked : cur->base);
	if (s->sndbuf_seen && s->sndbuf_seen < len) {
		len = s->sndbuf_seen;
		used = s->written - acked;
	}
	/* Linux: a writer is told when a third is free (sk_stream_is_writeable) */
	if (3 * used <= 2 * (uint64_t)len &&
	    (s->tx_full ||
	     (s->room_told != s->written && atomic_load_explicit(&s->base.b->a.tx_want, memory_order_relaxed)))) {
		s->tx_full = false;
		s->room_told = s->written; /* once: tx_want stands until it writes */
		tas__wake_soon(s, TAS_WAKE_OUT);
	}
	if (acked == s->written && len > TX_BUSY)
		tx_shrink(s);
}

/* ---- the application's line ---- */
static bool rx_read(struct tas_sock *s, int *changed)
{
	uint64_t c = atomic_load_explicit(&s->base.b->a.rx_consumed, memory_order_acquire);
	uint64_t limit;

	if (c < s->consumed || c > s->delivered)
		return false;
	s->consumed = c;
	rx_retire(s);
	/* the reader keeps up: offer more, as long as memory for it can be had (a free slot, or a ring that large) */
	if (!s->rcvbuf_seen && c - s->grow_mark >= s->rcv_buf && s->rcv_buf < tas_config.tcp_rxbuf_len) {
		s->grow_mark = c;
		if (!s->rx[!s->rx_cur].gen)
			s->rcv_buf *= 2;
	}
	limit = c + s->rcv_buf;
	if (limit > s->rcv_limit) {
		s->rcv_limit = limit;
		*changed |= TAS_CH_CONSUMED;
	}
	return true;
}

/* Linux: the urgent byte before, if it is what the program would read next, is left out for ever, whether MSG_OOB has taken it or not. */
void tas__rx_urgent(struct tas_sock *s, uint64_t end)
{
	struct tas_app_line *a = &s->base.b->a;
	uint64_t before = atomic_load_explicit(&s->base.b->s.rx_urg, memory_order_relaxed);

	if (end <= before)
		return;
	if (before && before <= s->delivered && atomic_load_explicit(&a->rx_consumed, memory_order_acquire) + 1 == before)
		atomic_store_explicit(&a->urg_read, before, memory_order_relaxed);
	atomic_store_explicit(&s->base.b->s.rx_urg, end, memory_order_release);
	tas__sock_flags(s, TAS_F_URG);
}

int tas__app_read(struct tas_sock *s)
{
	struct tas_app_line *a = &s->base.b->a;
	int changed = 0, r = tx_read(s);
	uint32_t want, keep[4];

	s->sndbuf_seen = atomic_load_explicit(&a->sndbuf, memory_order_relaxed);
	want = atomic_load_explicit(&a->rcvbuf, memory_order_relaxed);
	if (want != s->rcvbuf_seen) {
		s->rcvbuf_seen = want;
		s->rcv_buf = tas__window_of(want); /* less: what was offered stays, and is not offered again */
	}
	if (r < 0 || !rx_read(s, &changed))
		return -EPROTO;
	changed |= r;
	want = atomic_load_explicit(&a->tx_want, memory_order_relaxed);
	if (want)
		tx_offer(s, want);
	uint32_t shut = atomic_load_explicit(&a->shut, memory_order_acquire);

	if (!s->app_deaf && (shut & TAS_SHUT_RD)) {
		s->app_deaf = true;
		changed |= TAS_CH_DEAF;
	}
	if (!s->app_fin && (shut & TAS_SHUT_WR)) {
		/* what was written before the shutdown is visible now */
		r = tx_read(s);
		if (r < 0)
			return -EPROTO;
		s->app_fin = true;
		changed |= TAS_CH_SHUT | r;
	}
	/* its bytes may not be visible yet: then the hint that follows them brings it */
	uint64_t urg = atomic_load_explicit(&a->tx_urg, memory_order_relaxed);

	if (urg > s->urg_written && urg <= s->written) {
		s->urg_written = urg;
		changed |= TAS_CH_URG;
	}
	keep[0] = atomic_load_explicit(&a->keep_idle, memory_order_relaxed);
	keep[1] = atomic_load_explicit(&a->keep_intvl, memory_order_relaxed);
	keep[2] = atomic_load_explicit(&a->keep_cnt, memory_order_relaxed);
	keep[3] = atomic_load_explicit(&a->user_timeout, memory_order_relaxed);
	/* pairs with the release store of TAS_O_NEWS */
	uint32_t opts = atomic_load_explicit(&a->opts, memory_order_acquire) & ~(uint32_t)TAS_O_MORE;

	if (opts != s->opts_seen || memcmp(keep, s->keep_seen, sizeof keep)) {
		if ((opts ^ s->opts_seen) & TAS_O_NEWS)
			tas__wire_options(s, &s->base.b->c);
		s->opts_seen = opts;
		memcpy(s->keep_seen, keep, sizeof keep);
		changed |= TAS_CH_OPTS;
	}
	return changed;
}
