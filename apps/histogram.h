/* SPDX-License-Identifier: MIT */
/* Latency histogram: 64 steps per power of two of nanoseconds, so that a percentile is exact to 1.6 %. */
#ifndef APPS_HISTOGRAM_H
#define APPS_HISTOGRAM_H

#include <stdint.h>

enum { HIST_STEP_BITS = 6, HIST_STEPS = 1 << HIST_STEP_BITS, HIST_BINS = (64 - HIST_STEP_BITS + 1) * HIST_STEPS };

struct histogram {
	uint64_t count, sum, min, max;
	uint64_t bins[HIST_BINS];
};

static inline unsigned histogram_bin(uint64_t ns)
{
	unsigned shift;

	if (ns < HIST_STEPS)
		return (unsigned)ns;
	shift = 63 - (unsigned)__builtin_clzll(ns) - HIST_STEP_BITS;
	return (shift + 1) * HIST_STEPS + (unsigned)((ns >> shift) - HIST_STEPS);
}

/* The middle of a bin. */
static inline double histogram_value(unsigned bin)
{
	unsigned shift;

	if (bin < HIST_STEPS)
		return bin;
	shift = bin / HIST_STEPS - 1;
	return ((double)(HIST_STEPS + bin % HIST_STEPS) + 0.5) * (double)(1ull << shift);
}

static inline void histogram_add(struct histogram *h, uint64_t ns)
{
	if (h->count == 0 || ns < h->min)
		h->min = ns;
	if (ns > h->max)
		h->max = ns;
	h->count++;
	h->sum += ns;
	h->bins[histogram_bin(ns)]++;
}

static inline void histogram_merge(struct histogram *to, const struct histogram *from)
{
	if (from->count == 0)
		return;
	if (to->count == 0 || from->min < to->min)
		to->min = from->min;
	if (from->max > to->max)
		to->max = from->max;
	to->count += from->count;
	to->sum += from->sum;
	for (unsigned i = 0; i < HIST_BINS; i++)
		to->bins[i] += from->bins[i];
}

/* Nanoseconds that a share of the values (0 to 1) does not exceed. */
static inline double histogram_percentile(const struct histogram *h, double share)
{
	uint64_t seen = 0, want = (uint64_t)(share * (double)h->count);

	if (h->count == 0)
		return 0;
	for (unsigned i = 0; i < HIST_BINS; i++) {
		seen += h->bins[i];
		if (seen > want) {
			double v = histogram_value(i);

			return v > (double)h->max ? (double)h->max : v < (double)h->min ? (double)h->min : v;
		}
	}
	return (double)h->max;
}

#endif
