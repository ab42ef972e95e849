/* SPDX-License-Identifier: MIT */
/* A byte stream whose every position can be computed: what rpcclient and bulk send, and compare with what comes back.
 * The period is a prime, so that data shifted by any power of two differs. */
#ifndef APPS_PATTERN_H
#define APPS_PATTERN_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

enum { PATTERN_LEN = 65521, PATTERN_SPAN = 65536 };

/* PATTERN_SPAN bytes can be read from any start below PATTERN_LEN. */
static unsigned char pattern_bytes[PATTERN_LEN + PATTERN_SPAN];

static inline void pattern_init(uint64_t seed)
{
	uint64_t x = seed * 0x9e3779b97f4a7c15u + 1;

	for (size_t i = 0; i < PATTERN_LEN; i++) {
		x ^= x << 13;
		x ^= x >> 7;
		x ^= x << 17;
		pattern_bytes[i] = (unsigned char)(x >> 32);
	}
	for (size_t i = 0; i < PATTERN_SPAN; i++)
		pattern_bytes[PATTERN_LEN + i] = pattern_bytes[i % PATTERN_LEN];
}

/* The stream from offset on; valid for PATTERN_SPAN bytes. */
static inline const unsigned char *pattern_at(uint64_t offset)
{
	return pattern_bytes + offset % PATTERN_LEN;
}

/* True if n bytes (any number) at buf are the stream from offset on. */
static inline bool pattern_matches(const unsigned char *buf, size_t n, uint64_t offset)
{
	while (n > 0) {
		size_t part = n < PATTERN_SPAN ? n : PATTERN_SPAN;

		if (memcmp(buf, pattern_at(offset), part) != 0)
			return false;
		buf += part;
		offset += part;
		n -= part;
	}
	return true;
}

#endif
