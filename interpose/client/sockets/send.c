/* SPDX-License-Identifier: MIT */
/*
 * Sending.  The writer copies into its transmit extent under lock_tx, answers a larger extent when the service offers
 * one, begins again at the start of the ring when everything is acknowledged, and hints the service.  On a direct connection it
 * copies into the peer's receive extent instead, and tells the peer (direct.c).
 */
#include <string.h>

#include "abi/tas_extent.h"
#include "sockets/sock.h"

enum {
	PIECE = 128 << 10, /* bytes copied between two hints: the service works on the first while we copy the next */
	DIRECT_PIECE = 64 << 10,  /* the same for a reader */
	WANT_MAX = 1 << 20,
	RING_FIRST = 16384, /* of a connection that is not idle */
	STALL_US = 3000,
	DIRECT_RING = 256 << 10, /* what a writer that can wait asks for: it stays in the cache */
};

/* The extent in use: answered by us, with the largest base; of two with the same (the older was never written to) the newer, as the
 * service has it.  -1: none. */
static int current_extent(struct tas_block *b, uint64_t *base, uint32_t *len)
{
	uint32_t newest = 0;
	int cur = -1;

	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		uint32_t gen = atomic_load_explicit(&b->x.tx[i].gen, memory_order_acquire);
		uint64_t at;

		if (!gen || atomic_load_explicit(&b->a.tx_base[i].gen, memory_order_acquire) != gen)
			continue;
		at = atomic_load_explicit(&b->a.tx_base[i].base, memory_order_relaxed);
		if (cur < 0 || at > *base || (at == *base && (int32_t)(gen - newest) > 0)) {
			cur = i;
			newest = gen;
			*base = at;
			*len = atomic_load_explicit(&b->x.tx[i].len, memory_order_relaxed);
		}
	}
	return cur;
}

/* An extent that the service offers and nobody has answered yet. */
static int offered_extent(struct tas_block *b, uint32_t *gen)
{
	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		*gen = atomic_load_explicit(&b->x.tx[i].gen, memory_order_acquire);
		if (*gen && atomic_load_explicit(&b->a.tx_base[i].gen, memory_order_relaxed) != *gen)
			return i;
	}
	return -1;
}

/* SO_SNDBUF as the program set it bounds what is queued, whatever the ring could hold.  0: it did not. */
static uint32_t limit_of(const struct tas_block *b)
{
	return atomic_load_explicit(&b->a.sndbuf, memory_order_relaxed);
}

static uint64_t within_limit(const struct tas_block *b, uint64_t room, uint64_t queued, uint32_t *len)
{
	uint32_t limit = limit_of(b);

	if (__builtin_expect(!limit, 1))
		return room;
	if (*len > limit)
		*len = limit;
	if (queued >= limit)
		return 0;
	return room < limit - queued ? room : limit - queued;
}

/* Bytes that can be written now (without the lock: a guess that poll may act on); *len: of the ring, 0: none yet. */
uint64_t tas__tx_room(struct tas_obj *o, uint32_t *len)
{
	struct tas_block *b = tas__block(o), *peer = tas__direct(o, b);
	uint64_t base = 0, acked, written, queued, room;
	uint32_t gen;
	int i;

	*len = 0;
	written = atomic_load_explicit(&b->a.tx_written, memory_order_acquire);
	if (peer) {
		struct tas_target t = tas__direct_guess(peer, written);

		*len = t.len;
		return t.room;
	}
	i = offered_extent(b, &gen);
	acked = atomic_load_explicit(&b->s.tx_acked, memory_order_acquire);
	queued = written > acked ? written - acked : 0;
	if (i >= 0) {
		*len = atomic_load_explicit(&b->x.tx[i].len, memory_order_relaxed);
		return within_limit(b, *len, queued, len);
	}
	if (current_extent(b, &base, len) < 0)
		return 0;
	if (acked > base)
		base = acked;
	room = written <= base ? *len : written - base >= *len ? 0 : *len - (written - base);
	return within_limit(b, room, queued, len);
}

/*
 * Under lock_tx: the extent to write to at `written`, and its base.  A new offer is answered first.  An idle writer
 * (all acknowledged) begins at the start of the ring again: base, then epoch; the service reads them only after it saw
 * bytes beyond, and until it acknowledges those, nothing here changes.
 */
static int writer_extent(struct tas_block *b, uint64_t written, uint64_t acked, uint64_t *base, uint32_t *len)
{
	uint32_t gen;
	int i = offered_extent(b, &gen);

	if (i >= 0) {
		struct tas_tx_base *t = &b->a.tx_base[i];

		atomic_store_explicit(&t->base, written, memory_order_relaxed);
		atomic_store_explicit(&t->epoch, 0, memory_order_relaxed);
		atomic_store_explicit(&t->gen, gen, memory_order_release);
		*base = written;
		*len = atomic_load_explicit(&b->x.tx[i].len, memory_order_relaxed);
		return i;
	}
	i = current_extent(b, base, len);
	if (i >= 0 && acked == written && *base != written) {
		struct tas_tx_base *t = &b->a.tx_base[i];

		*base = written;
		atomic_store_explicit(&t->base, written, memory_order_relaxed);
		atomic_fetch_add_explicit(&t->epoch, 1, memory_order_release);
	}
	return i;
}

static ssize_t source_get(struct tas_source *s, uint8_t *p, size_t n)
{
	size_t left = n;

	if (s->pipe)
		return tas__pipe_io(SYS_preadv2, s->in_fd, p, n);
	if (s->in_fd >= 0)
		return s->off ? sys4(SYS_pread64, s->in_fd, SYS_P(p), n, *s->off) : sys_read(s->in_fd, p, n);
	while (left) {
		size_t k = s->iov->iov_len - s->at;

		if (k > left)
			k = left;
		if (k && tas__wild(s->iov->iov_base))
			return n == left ? -EFAULT : (ssize_t)(n - left);
		if (k)
			memcpy(p, (const uint8_t *)s->iov->iov_base + s->at, k);
		p += k;
		left -= k;
		s->at += k;
		if (s->at == s->iov->iov_len && s->n_iov > 1) {
			s->iov++;
			s->n_iov--;
			s->at = 0;
		}
	}
	return (ssize_t)n;
}

/*
 * Length of the ring to ask for: room for all that is left, at least eight times what there is, or what SO_SNDBUF allows: a
 * reader that takes nothing leaves us the ring in use and one more, and Linux takes megabytes of a program before it lets
 * it wait for itself.  The service clamps it.
 */
static uint32_t want_of(const struct tas_block *b, uint32_t len, size_t left)
{
	uint32_t want = len >= WANT_MAX ? 1u << 30 : len ? len * 8 : 16384, limit = limit_of(b);

	if (limit && len >= limit)
		return 1; /* no larger ring, but word of room */
	if (limit)
		return limit < WANT_MAX ? limit : WANT_MAX;
	while (want < left && want < WANT_MAX)
		want *= 2;
	return want;
}

/* Which ring it is, for grow_asked. */
static uint32_t ring_mark(const struct tas_block *b, int slot)
{
	return ~atomic_load_explicit(&b->x.tx[slot].gen, memory_order_relaxed);
}

/*
 * May the service still have a larger ring for us?  Linux takes what a non-blocking writer has as long as the buffer
 * may grow; so one that was refused waits until the service has answered, once for each size of the ring.
 */
static bool may_grow(struct tas_obj *o)
{
	struct tas_block *b = tas__block(o);
	uint64_t base = 0;
	uint32_t len = 0, mark;
	int cur = current_extent(b, &base, &len);

	if (tas__direct(o, b)) {
		tas__tx_room(o, &len);
		return len < WANT_MAX && atomic_exchange_explicit(&o->grow_asked, len, memory_order_relaxed) != len;
	}
	if (cur < 0)
		return true;
	mark = ring_mark(b, cur);
	if (len >= WANT_MAX || (limit_of(b) && len >= limit_of(b)) || atomic_load_explicit(&o->grow_asked, memory_order_relaxed) == mark)
		return false;
	/* both slots taken: the old ring is not empty yet, and the service cannot offer another */
	for (int i = 0; i < TAS_EXT_SLOTS; i++)
		if (!atomic_load_explicit(&b->x.tx[i].gen, memory_order_acquire)) {
			atomic_store_explicit(&o->grow_asked, mark, memory_order_relaxed);
			return true;
		}
	return offered_extent(b, &len) >= 0;
}

/* MSG_MORE: what was written since the last call without it may wait. */
static void more_follows(struct tas_block *b, bool more, uint64_t from)
{
	uint32_t opts = atomic_load_explicit(&b->a.opts, memory_order_relaxed);

	if (__builtin_expect(more == !!(opts & TAS_O_MORE), 1))
		return;
	if (more) {
		atomic_store_explicit(&b->a.more, (uint32_t)from, memory_order_relaxed);
		atomic_fetch_or(&b->a.opts, TAS_O_MORE);
	} else {
		atomic_fetch_and(&b->a.opts, ~(uint32_t)TAS_O_MORE);
	}
}

/*
 * The ring of an idle connection is small.  What is written at once arrives at once, as on Linux, so a message that does not fit waits
 * for a larger one: asked for once for each ring, there may be no memory for it.
 */
static bool too_small(struct tas_obj *o, const struct tas_block *b, int slot, uint32_t len)
{
	uint32_t limit = limit_of(b), mark;

	if (slot < 0 || len >= RING_FIRST || (limit && len >= limit))
		return false;
	mark = ring_mark(b, slot);
	return atomic_exchange_explicit(&o->grow_asked, mark, memory_order_relaxed) != mark;
}

/* Under lock_tx: where bytes from `written` on go. */
static struct tas_target own_target(struct tas_block *b, uint64_t written, int *slot)
{
	struct tas_target t = {0};
	uint64_t acked = atomic_load_explicit(&b->s.tx_acked, memory_order_acquire), from;
	uint32_t len_limited = UINT32_MAX;
	int i = *slot = writer_extent(b, written, acked, &t.base, &t.len);

	from = acked > t.base ? acked : t.base;
	if (i < 0)
		return (struct tas_target){0};
	t.off = atomic_load_explicit(&b->x.tx[i].off, memory_order_relaxed);
	if (!(t.len & (t.len - 1)) && written - from < t.len)
		t.room = within_limit(b, t.len - (written - from), written - acked, &len_limited);
	return t;
}

/* No room.  True: the service is to hear of it. */
static bool ask_for_room(struct tas_obj *o, struct tas_block *b, const struct tas_block *peer, uint32_t len, size_t left, int flags)
{
	if (peer) {
		uint64_t now = tas__tsc();

		/* pairs: the reader stores rx_consumed, then looks here */
		atomic_store_explicit(&b->c.want_room, 1, memory_order_seq_cst);
		if (len && len >= ((flags & MSG_DONTWAIT) ? WANT_MAX : DIRECT_RING)) {
			/* it is large enough; the service looks now and then whether anything moves */
			atomic_store_explicit(&b->a.tx_want, 1, memory_order_relaxed);
			if (now - atomic_load_explicit(&o->waited, memory_order_relaxed) < STALL_US * tas__per_us())
				return false;
			atomic_store_explicit(&o->waited, now, memory_order_relaxed);
			return true;
		}
	}
	atomic_store_explicit(&b->a.tx_want, peer && !(flags & MSG_DONTWAIT) ? DIRECT_RING : want_of(b, len, left), memory_order_relaxed);
	return true;
}

/* One copy of at most max bytes, of left that are to be sent; MSG_DONTWAIT in flags: the caller will not wait.  Bytes, 0: no room
 * (or end of the file: *eof; or not enough for now, and the service was asked for more: *wait), -errno.  *blind: the far end's memory
 * cannot be had here. */
static ssize_t put_once(struct tas_obj *o, struct tas_source *src, size_t max, size_t left, int flags, bool *eof, bool *wait, bool *blind)
{
	struct tas_block *b, *peer;
	struct tas_target t;
	uint64_t at, urgent = 0;
	tas_off_t learn = 0;
	bool tell = true;
	ssize_t done = 0;
	int slot = -1, r = tas__obj_lock(o, true, &b);

	*blind = false;
	if (r < 0)
		return r == -EDEADLK ? -EAGAIN : 0;
	at = atomic_load_explicit(&b->a.tx_written, memory_order_relaxed);
	peer = tas__direct(o, b);
	*blind = tas__direct_blind(b, peer);
	if (*blind) {
		tas__unlock(&b->c.lock_tx);
		return -ENOMEM;
	}
	if (peer && max > DIRECT_PIECE)
		max = DIRECT_PIECE;
	t = peer ? tas__direct_target(o, peer, at, max) : own_target(b, at, &slot);
	max = max < t.room ? max : (size_t)t.room;
	*wait = !peer && max < left && too_small(o, b, slot, t.len);
	if (*wait)
		max = 0;
	while ((size_t)done < max) {
		struct tas_span p = tas_extent_span(t.off, t.base, t.len, at, at + (max - (size_t)done));
		uint8_t *mem = tas__obj_mem(o, p.off, p.len);
		ssize_t n = mem ? source_get(src, mem, p.len) : tas__alive(o->ss) ? -ENOMEM : -ECONNRESET;

		if (!mem && peer && !done) {
			*blind = true;
			tas__unlock(&b->c.lock_tx);
			return -ENOMEM;
		}
		if (n <= 0) {
			*eof = n == 0;
			done = done ? done : n;
			break;
		}
		if (src->off)
			*src->off += n;
		at += (uint64_t)n;
		done += n;
		if (n < (ssize_t)p.len)
			break; /* short read, or a bad address further on: the caller comes again if it wants more */
	}
	if (done > 0) {
		if (atomic_load_explicit(&b->a.tx_want, memory_order_relaxed))
			atomic_store_explicit(&b->a.tx_want, 0, memory_order_relaxed);
		if ((flags & MSG_OOB) && (size_t)done == left)
			atomic_store_explicit(&b->a.tx_urg, urgent = at, memory_order_relaxed);
		more_follows(b, flags & MSG_MORE, at - (uint64_t)done);
		atomic_store_explicit(&b->a.tx_written, at, memory_order_release);
		if (peer) {
			/* what was asked of rings here is forgotten there */
			if (atomic_load_explicit(&o->grow_asked, memory_order_relaxed))
				atomic_store_explicit(&o->grow_asked, 0, memory_order_relaxed);
			tell = tas__direct_delivered(o, peer, at, urgent, &learn);
		}
	} else {
		tell = !max && ask_for_room(o, b, peer, t.len, left, flags);
	}
	tas__unlock(&b->c.lock_tx);
	if (tell)
		tas__hint(o->ss, b, o->id);
	tas__direct_told(o, learn);
	if (done > 0)
		atomic_store_explicit(&o->active, tas__tsc(), memory_order_relaxed);
	return done;
}

static inline ssize_t put(struct tas_obj *o, struct tas_source *src, size_t max, size_t left, int flags, bool *eof, bool *wait)
{
	bool blind;
	ssize_t r = put_once(o, src, max, left, flags, eof, wait, &blind);

	/* if it stays so it is a peer's nonsense, which the service does not know of */
	for (int i = 0; __builtin_expect(blind, 0) && i < TAS_ORDINARY_MAX && tas__ordinary(o); i++)
		r = put_once(o, src, max, left, flags, eof, wait, &blind);
	return r;
}

static int broken(struct tas_obj *o, int flags)
{
	int err = tas__obj_error(o, true);

	if (err && err != EPIPE)
		return -err;
	if (!(flags & MSG_NOSIGNAL))
		sys3(SYS_tgkill, sys0(SYS_getpid), sys0(SYS_gettid), SIGPIPE);
	return -EPIPE;
}

ssize_t tas__send(struct tas_obj *o, int fd, struct tas_source *src, size_t n, int flags)
{
	struct tas_block *b = tas__block(o);
	bool nonblock = (flags & MSG_DONTWAIT) || tas__nonblock(o), asked = false, eof = false, settled = false, wait;
	struct tas_wait w = {.sig = tas__sig_mark()};
	size_t sent = 0;

	for (;; b = tas__block(o)) {
		uint32_t seen = atomic_load_explicit(&b->s.ev_out, memory_order_acquire);
		uint32_t shut = atomic_load_explicit(&b->a.shut, memory_order_acquire);
		uint32_t f = atomic_load_explicit(&b->s.flags, memory_order_acquire);
		uint32_t state = atomic_load_explicit(&b->s.state, memory_order_acquire);
		ssize_t r = 0;

		wait = false;
		if ((shut & TAS_SHUT_WR) || (f & (TAS_F_TX_EOF | TAS_F_RESET)) || !tas__obj_live(o))
			return sent ? (ssize_t)sent : broken(o, flags);
		if ((f & TAS_F_ERROR) && tas__obj_error(o, false)) /* the connection goes on after it */
			return sent ? (ssize_t)sent : -tas__obj_error(o, true);
		if (state != TAS_S_SYN_SENT && state != TAS_S_SYN_RECV) {
			if (sent == n)
				return (ssize_t)sent;
			r = put(o, src, n - sent > PIECE ? PIECE : n - sent, n - sent, flags | (nonblock ? MSG_DONTWAIT : 0), &eof, &wait);
			if (r < 0)
				return sent ? (ssize_t)sent : r;
			if (eof)
				return (ssize_t)sent + r;
		}
		if (r > 0) {
			sent += (size_t)r;
			asked = settled = false;
			if (sent == n)
				return (ssize_t)sent;
			continue;
		}
		if (wait) {
			tas__settle(o->ss);
			continue;
		}
		atomic_store_explicit(&o->no_space, true, memory_order_relaxed);
		if (!asked) { /* room may have come between the look and the asking */
			asked = true;
			continue;
		}
		if (nonblock && !settled && (may_grow(o) || tas__obj_near(o)) && tas__settle(o->ss)) {
			settled = true;
			continue;
		}
		if (nonblock)
			return sent ? (ssize_t)sent : -EAGAIN;
		w.partial = sent > 0;
		r = tas__obj_wait(o, fd, false, seen, shut, &w);
		if (r < 0)
			return sent && r != -ECANCELED ? (ssize_t)sent : r;
	}
}
