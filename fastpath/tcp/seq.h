/* SPDX-License-Identifier: MIT */
/* Sequence number arithmetic, RFC 9293 §3.4: a 32-bit circle; a is before b when the shorter way from a to b is up. */
#ifndef TAS_TCP_SEQ_H
#define TAS_TCP_SEQ_H

#include <stdbool.h>
#include <stdint.h>

static inline int32_t seq_diff(uint32_t a, uint32_t b)
{
	return (int32_t)(a - b);
}

static inline bool seq_lt(uint32_t a, uint32_t b)
{
	return seq_diff(a, b) < 0;
}

static inline bool seq_leq(uint32_t a, uint32_t b)
{
	return seq_diff(a, b) <= 0;
}

static inline bool seq_gt(uint32_t a, uint32_t b)
{
	return seq_diff(a, b) > 0;
}

static inline bool seq_geq(uint32_t a, uint32_t b)
{
	return seq_diff(a, b) >= 0;
}

/* The 64-bit position near `near` whose lower half is `low`: at most 2^31 away.  Signed, because a position may lie before
 * the start of the stream (the SYN is at -1). */
static inline int64_t seq_widen(uint64_t near, uint32_t low)
{
	return (int64_t)near + seq_diff(low, (uint32_t)near);
}

#endif
