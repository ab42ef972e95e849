/* SPDX-License-Identifier: MIT */
/*
 * Hint bitmaps: "look at number n".  Three levels of 64; setting is idempotent, so there is no overflow and no duplicate.
 *
 * Any number of threads may set; one thread drains.  A hint says where to look, never what happened: the state it speaks of
 * is published first, and tas_bitmap_set() is the barrier (a seq_cst read-modify-write even when the bit was set already).
 *
 * Ordering: the producer sets leaf, then mid if the leaf word was empty, then top if the mid word was empty.  The consumer
 * takes top, then mid, then leaf.  A second producer that finds the leaf word occupied relies on the first to go on, so
 * all producers of one bitmap are threads of one process (application → service) or of the service (ready bitmaps): they
 * are stopped and killed together.
 */
#ifndef TAS_BITMAP_H
#define TAS_BITMAP_H

#include "tas_abi.h"

/* Marks n (0 ≤ n < TAS_SOCK_MAX).  Returns nonzero if this call made the bitmap non-empty. */
static inline int tas_bitmap_set(struct tas_bitmap *b, uint32_t n)
{
	uint32_t leaf = n >> 6, mid = n >> 12;

	/* pairs with the exchanges in tas_bitmap_drain() */
	if (atomic_fetch_or_explicit(&b->leaf[leaf], 1ull << (n & 63), memory_order_seq_cst))
		return 0;
	if (atomic_fetch_or_explicit(&b->mid[mid], 1ull << (leaf & 63), memory_order_seq_cst))
		return 0;
	return atomic_fetch_or_explicit(&b->top, 1ull << mid, memory_order_seq_cst) == 0;
}

/* A look that may be stale; nonzero: something is marked.  Pairs with tas_bitmap_set() when preceded by a seq_cst store. */
static inline int tas_bitmap_any(const struct tas_bitmap *b)
{
	return atomic_load_explicit(&b->top, memory_order_seq_cst) != 0;
}

/* Takes at most max numbers out of the bitmap into out, in ascending order within this look; what does not fit stays
 * marked.  Returns how many.  One consumer at a time. */
static inline uint32_t tas_bitmap_drain(struct tas_bitmap *b, uint32_t *out, uint32_t max)
{
	uint32_t n = 0;
	uint64_t top, mid, leaf;

	if (!atomic_load_explicit(&b->top, memory_order_relaxed) || !max)
		return 0;
	top = atomic_exchange_explicit(&b->top, 0, memory_order_seq_cst);
	while (top) {
		uint32_t i = (uint32_t)__builtin_ctzll(top);

		mid = atomic_exchange_explicit(&b->mid[i], 0, memory_order_seq_cst);
		while (mid) {
			uint32_t w = i * 64 + (uint32_t)__builtin_ctzll(mid);

			leaf = atomic_exchange_explicit(&b->leaf[w], 0, memory_order_seq_cst);
			while (leaf && n < max) {
				out[n++] = w * 64 + (uint32_t)__builtin_ctzll(leaf);
				leaf &= leaf - 1;
			}
			if (leaf) { /* out is full: put back what is left, all levels */
				atomic_fetch_or_explicit(&b->leaf[w], leaf, memory_order_seq_cst);
				atomic_fetch_or_explicit(&b->mid[i], mid, memory_order_seq_cst);
				atomic_fetch_or_explicit(&b->top, top, memory_order_seq_cst);
				return n;
			}
			mid &= mid - 1;
			if (n == max && mid) {
				atomic_fetch_or_explicit(&b->mid[i], mid, memory_order_seq_cst);
				atomic_fetch_or_explicit(&b->top, top, memory_order_seq_cst);
				return n;
			}
		}
		top &= top - 1;
		if (n == max && top) {
			atomic_fetch_or_explicit(&b->top, top, memory_order_seq_cst);
			return n;
		}
	}
	return n;
}

/* Plain one-level bitmaps (claims): one bit per socket id. */
static inline int tas_claim_test(const _Atomic uint64_t *w, uint32_t n)
{
	return (atomic_load_explicit(&w[n >> 6], memory_order_seq_cst) >> (n & 63)) & 1;
}

static inline void tas_claim_set(_Atomic uint64_t *w, uint32_t n)
{
	atomic_fetch_or_explicit(&w[n >> 6], 1ull << (n & 63), memory_order_seq_cst);
}

static inline void tas_claim_clear(_Atomic uint64_t *w, uint32_t n)
{
	atomic_fetch_and_explicit(&w[n >> 6], ~(1ull << (n & 63)), memory_order_seq_cst);
}

#endif
