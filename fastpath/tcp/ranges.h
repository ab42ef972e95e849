/* SPDX-License-Identifier: MIT */
/*
 * A small sorted set of disjoint ranges [left, right) on the 32-bit circle: what lies out of order at the receiver, and what
 * the peer has selectively acknowledged at the sender.  All ranges of one set lie within 2^31 of each other.  Positions are
 * lower halves of stream offsets.
 */
#ifndef TAS_TCP_RANGES_H
#define TAS_TCP_RANGES_H

#include "tcp/seq.h"

struct tcp_range {
	uint32_t left, right;
};

/* Would [left, right) be a range of its own, touching none? */
bool tcp__ranges_apart(const struct tcp_range *r, unsigned n, uint32_t left, uint32_t right);
/* Is [left, right) covered by one range? */
bool tcp__ranges_cover(const struct tcp_range *r, unsigned n, uint32_t left, uint32_t right);
/* Adds [left, right), joining what it touches.  Returns the new count; equal sets and *grew false when it added nothing,
 * or when a range of its own was needed and max was reached. */
unsigned tcp__ranges_add(struct tcp_range *r, unsigned n, unsigned max, uint32_t left, uint32_t right, bool *grew);
/* Forgets everything before pos.  Returns the new count. */
unsigned tcp__ranges_trim(struct tcp_range *r, unsigned n, uint32_t pos);

#endif
