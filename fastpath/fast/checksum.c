/* SPDX-License-Identifier: MIT */
#include "fast/checksum.h"

#include <string.h>

/*
 * 32-bit words into 64-bit accumulators: no carries to handle for any length that fits an mbuf, and several chains run in
 * parallel.  With AVX2 32 bytes at a time: what a link without hardware sums costs per byte is this loop.
 */
#if defined(__x86_64__)
typedef uint64_t lanes __attribute__((vector_size(32)));

enum { WIDE = 64, WORTH_IT = 256 };

/* n is a multiple of WIDE. */
__attribute__((target("avx2"))) static uint64_t sum_wide(const uint8_t *p, size_t n)
{
	lanes a = { 0 }, b = { 0 }, v, w;

	for (; n; n -= WIDE, p += WIDE) {
		memcpy(&v, p, sizeof(v));
		memcpy(&w, p + sizeof(v), sizeof(w));
		a += (v & 0xffffffff) + (v >> 32);
		b += (w & 0xffffffff) + (w >> 32);
	}
	a += b;
	return a[0] + a[1] + a[2] + a[3];
}

static size_t wide_part(size_t n)
{
	return n >= WORTH_IT && __builtin_cpu_supports("avx2") ? n / WIDE * WIDE : 0;
}
#else
static uint64_t sum_wide(const uint8_t *p, size_t n)
{
	(void)p, (void)n;
	return 0;
}

static size_t wide_part(size_t n)
{
	(void)n;
	return 0;
}
#endif

uint64_t tas__sum(const void *data, size_t n, uint64_t sum)
{
	const uint8_t *p = data;
	size_t wide = wide_part(n);
	uint64_t a = sum, b = 0, w[4];
	uint16_t h;

	a = (a >> 32) + (uint32_t)a;
	if (wide) {
		b = sum_wide(p, wide);
		p += wide;
		n -= wide;
	}
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
