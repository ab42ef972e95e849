/* SPDX-License-Identifier: MIT */
#include "fast/checksum.h"

#include <string.h>

/* 32-bit words into two 64-bit accumulators: no carries to handle for any length that fits an mbuf, and the two chains
 * run in parallel. */
uint64_t tas__sum(const void *data, size_t n, uint64_t sum)
{
	const uint8_t *p = data;
	uint64_t a = sum, b = 0, w[4];
	uint16_t h;

	a = (a >> 32) + (uint32_t)a;
	for (; n >= 32; n -= 32, p += 32) {
		memcpy(w, p, 32);
		a += (w[0] & 0xffffffff) + (w[0] >> 32) + (w[1] & 0xffffffff) + (w[1] >> 32);
		b += (w[2] & 0xffffffff) + (w[2] >> 32) + (w[3] & 0xffffffff) + (w[3] >> 32);
	}
	for (; n >= 2; n -= 2, p += 2) {
		memcpy(&h, p, 2);
		a += h;
	}
	if (n) {
		h = 0;
		memcpy(&h, p, 1); /* padded with a zero byte behind it */
		a += h;
	}
	return a + b;
}
