/* SPDX-License-Identifier: MIT */
/*
 * With very many members nothing of them is in the cache: a request and its answer touch some 25 lines of a connection, one after
 * the other.  What the next members of the ready list will need, here, in the program's recv() and in its send(), is asked for
 * before the first of them is looked at, in stages of which each needs what the one before has brought.
 *
 * Only hints: what is read here may be out of date, and nothing depends on it.  Memory is looked at only where this process has it mapped.
 */
#include "abi/tas_extent.h"
#include "sockets/ep.h"

/* It will be written to as well: without asking its last writer a second time. */
static inline void fetch(const void *p)
{
	__asm__ volatile("prefetchw (%0)" : : "r"(p));
}

static inline void fetch_span(struct tas_obj *o, struct tas_span p)
{
	const void *at = p.len ? tas__mem_known(o->ss, p.off, 1) : NULL;

	if (at)
		fetch(at);
}

static struct tas_obj *object(struct tas_ep *ep, uint32_t x)
{
	const struct tas_ep_item *i = tas__ep_item(ep, x);
	const struct tas_member *m = ep->cache[x];
	struct tas_obj *o = m ? m->o : NULL;
	const struct tas_entry *e = tas__entry(i->fd);

	if (e)
		__builtin_prefetch(e);
	if (!o)
		return NULL;
	fetch(o);
	fetch((const char *)o + 64);
	return o;
}

static struct tas_block *block(struct tas_ep *ep, uint32_t x, const struct tas_obj *o)
{
	const struct tas_ep_item *i = tas__ep_item(ep, x);
	struct tas_block *b;

	if (!o || o->id != i->id || o->gen != i->gen)
		return NULL;
	b = atomic_load_explicit(&o->b, memory_order_acquire);
	if (!b)
		return NULL;
	for (size_t at = 0; at < sizeof *b; at += 64)
		fetch((const char *)b + at);
	return b;
}

/* Of a direct peer: what send() and recv() look at there. */
static inline void fetch_peer(const struct tas_block *peer)
{
	fetch(&peer->s);
	__builtin_prefetch(&peer->x);
	__builtin_prefetch(&peer->a);
	__builtin_prefetch(&peer->c);
}

/* Has the socket been written to directly before?  Then it knows what the next message touches, and nothing has to be looked for. */
static bool known(struct tas_obj *o)
{
	const struct tas_block *peer = atomic_load_explicit(&o->peer, memory_order_relaxed);

	if (!peer)
		return false;
	fetch_peer(peer);
	__builtin_prefetch(atomic_load_explicit(&o->next_in, memory_order_relaxed));
	fetch(atomic_load_explicit(&o->next_out, memory_order_relaxed));
	return true;
}

/* Where it reads, and where it writes: NULL, or the peer's block. */
static const struct tas_block *rings(struct tas_obj *o, const struct tas_block *b)
{
	uint64_t from = atomic_load_explicit(&b->a.rx_consumed, memory_order_relaxed);
	uint64_t to = atomic_load_explicit(&b->a.tx_written, memory_order_relaxed);
	tas_off_t direct = atomic_load_explicit(&b->s.direct, memory_order_relaxed);
	const struct tas_block *peer;

	fetch_span(o, tas_rx_span(b->x.rx, from, from + 1));
	if (direct) {
		peer = TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(direct)) == atomic_load_explicit(&o->number, memory_order_relaxed)
			       ? tas__mem_known(o->ss, direct, sizeof *peer)
			       : NULL;
		if (!peer)
			return NULL;
		fetch_peer(peer);
		return peer;
	}
	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		uint32_t gen = atomic_load_explicit(&b->x.tx[i].gen, memory_order_acquire);
		uint32_t len = atomic_load_explicit(&b->x.tx[i].len, memory_order_relaxed);
		uint64_t base = atomic_load_explicit(&b->a.tx_base[i].base, memory_order_relaxed);

		if (gen && gen == atomic_load_explicit(&b->a.tx_base[i].gen, memory_order_relaxed) && len && !(len & (len - 1)))
			fetch_span(o, tas_extent_span(atomic_load_explicit(&b->x.tx[i].off, memory_order_relaxed), base, len, to,
						      to + 1));
	}
	return NULL;
}

void tas__ep_ahead(struct tas_ep *ep, uint32_t x)
{
	uint32_t at[TAS_EP_AHEAD], n;
	struct tas_obj *o[TAS_EP_AHEAD];
	const struct tas_block *b[TAS_EP_AHEAD], *peer[TAS_EP_AHEAD];

	for (n = 0; x && n < TAS_EP_AHEAD; n++) {
		at[n] = x;
		x = tas__ep_item(ep, x)->ready_next & (TAS_EP_ITEMS - 1);
	}
	for (uint32_t k = 0; k < n; k++)
		o[k] = object(ep, at[k]);
	for (uint32_t k = 0; k < n; k++)
		b[k] = block(ep, at[k], o[k]);
	for (uint32_t k = 0; k < n; k++)
		peer[k] = b[k] && !known(o[k]) ? rings(o[k], b[k]) : NULL;
	for (uint32_t k = 0; k < n; k++)
		if (peer[k]) {
			uint64_t to = atomic_load_explicit(&b[k]->a.tx_written, memory_order_relaxed);

			fetch_span(o[k], tas_rx_span(peer[k]->x.rx, to, to + 1));
		}
}

void tas__ep_ahead_items(struct tas_ep *ep, const uint16_t *bucket, uint32_t n)
{
	for (uint32_t k = 0; k < n; k++) {
		uint32_t x = ep->p.m->bucket[bucket[k]] & (TAS_EP_ITEMS - 1);
		const struct tas_ep_item *i = &ep->p.m->item[x];

		if (!x)
			continue;
		fetch(i);
		fetch((const char *)i + 64);
		__builtin_prefetch(&ep->cache[x]);
	}
}
