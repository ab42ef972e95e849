/* SPDX-License-Identifier: MIT */
/*
 * Reading extents: where the bytes of a stream lie.
 *
 * Receive direction (service writes, application reads).  The service publishes an extent, then the data, then
 * rx_delivered (release).  A reader that holds lock_rx, has loaded rx_delivered (acquire) and finds consumed < delivered,
 * sees the extents of all bytes below delivered.  The service replaces or rebases an extent only when every byte in it
 * has been consumed, so a reader never sees one change under it; a slot that changes meanwhile has a base at or above
 * delivered and is not chosen.
 *
 * Transmit direction (application writes, service reads).  The service offers an extent; the writer answers in tx_base.
 * The service keeps private copies of what it adopted and never reads a shared extent back.
 */
#ifndef TAS_EXTENT_H
#define TAS_EXTENT_H

#include "tas_abi.h"

/* A contiguous piece of a stream in memory. */
struct tas_span {
	tas_off_t off; /* position of the first byte */
	uint32_t len;  /* contiguous bytes; 0: none */
};

/* Contiguous bytes from stream offset at, inside one extent, not beyond end.  base ≤ at. */
static inline struct tas_span tas_extent_span(tas_off_t off, uint64_t base, uint32_t len, uint64_t at, uint64_t end)
{
	uint32_t pos = (uint32_t)(at - base) & (len - 1);
	uint64_t n = end - at;
	struct tas_span s = { off + pos, len - pos };

	if (n < s.len)
		s.len = (uint32_t)n;
	return s;
}

/* The readable piece that starts at stream offset at, when bytes up to end are delivered (at < end).
 * Returns len 0 if no extent covers it: the block is corrupt, treat as connection reset. */
static inline struct tas_span tas_rx_span(const struct tas_extent rx[TAS_EXT_SLOTS], uint64_t at, uint64_t end)
{
	int best = -1;
	uint64_t base[TAS_EXT_SLOTS], limit = end;

#pragma GCC unroll 2
	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		/* pairs with the release store of gen by the service */
		if (!atomic_load_explicit(&rx[i].gen, memory_order_acquire)) {
			base[i] = UINT64_MAX;
			continue;
		}
		base[i] = atomic_load_explicit(&rx[i].base, memory_order_relaxed);
		if (base[i] <= at && (best < 0 || base[i] > base[best]))
			best = i;
	}
	if (best < 0)
		return (struct tas_span){ 0, 0 };
#pragma GCC unroll 2
	for (int i = 0; i < TAS_EXT_SLOTS; i++)
		if (base[i] > at && base[i] < limit)
			limit = base[i]; /* the next extent takes over there */
	uint32_t len = atomic_load_explicit(&rx[best].len, memory_order_relaxed);
	if (!len || (len & (len - 1)))
		return (struct tas_span){ 0, 0 };
	return tas_extent_span(atomic_load_explicit(&rx[best].off, memory_order_relaxed), base[best], len, at, limit);
}

#endif
