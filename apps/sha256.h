/* SPDX-License-Identifier: MIT */
/* SHA-256 (FIPS 180-4), so that a transfer can be compared with sha256sum's word for it. */
#ifndef APPS_SHA256_H
#define APPS_SHA256_H

#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

enum { SHA256_BLOCK = 64, SHA256_HEX = 65 };

struct sha256 {
	uint32_t h[8];
	uint64_t length; /* bytes so far */
	unsigned char pending[SHA256_BLOCK];
};

static inline void sha256_init(struct sha256 *s)
{
	static const uint32_t start[8] = {0x6a09e667, 0xbb67ae85, 0x3c6ef372, 0xa54ff53a,
					  0x510e527f, 0x9b05688c, 0x1f83d9ab, 0x5be0cd19};

	memcpy(s->h, start, sizeof(start));
	s->length = 0;
}

static inline uint32_t sha256_ror(uint32_t x, unsigned n)
{
	return x >> n | x << (32 - n);
}

static inline __attribute__((always_inline)) void sha256_round(uint32_t v[8], unsigned j, uint32_t kw)
{
	uint32_t a = v[(8 - j) & 7], b = v[(9 - j) & 7], c = v[(10 - j) & 7], e = v[(12 - j) & 7], f = v[(13 - j) & 7],
		 g = v[(14 - j) & 7];
	uint32_t t = v[(15 - j) & 7] + (sha256_ror(e, 6) ^ sha256_ror(e, 11) ^ sha256_ror(e, 25)) + ((e & f) ^ (~e & g)) + kw;

	v[(11 - j) & 7] += t;
	v[(15 - j) & 7] = t + (sha256_ror(a, 2) ^ sha256_ror(a, 13) ^ sha256_ror(a, 22)) + ((a & b) ^ (a & c) ^ (b & c));
}

static inline void sha256_block(struct sha256 *s, const unsigned char *p)
{
	/* The first 32 bits of the fractional parts of the cube roots of the first 64 primes. */
	static const uint32_t k[64] = {
		0x428a2f98, 0x71374491, 0xb5c0fbcf, 0xe9b5dba5, 0x3956c25b, 0x59f111f1, 0x923f82a4, 0xab1c5ed5,
		0xd807aa98, 0x12835b01, 0x243185be, 0x550c7dc3, 0x72be5d74, 0x80deb1fe, 0x9bdc06a7, 0xc19bf174,
		0xe49b69c1, 0xefbe4786, 0x0fc19dc6, 0x240ca1cc, 0x2de92c6f, 0x4a7484aa, 0x5cb0a9dc, 0x76f988da,
		0x983e5152, 0xa831c66d, 0xb00327c8, 0xbf597fc7, 0xc6e00bf3, 0xd5a79147, 0x06ca6351, 0x14292967,
		0x27b70a85, 0x2e1b2138, 0x4d2c6dfc, 0x53380d13, 0x650a7354, 0x766a0abb, 0x81c2c92e, 0x92722c85,
		0xa2bfe8a1, 0xa81a664b, 0xc24b8b70, 0xc76c51a3, 0xd192e819, 0xd6990624, 0xf40e3585, 0x106aa070,
		0x19a4c116, 0x1e376c08, 0x2748774c, 0x34b0bcb5, 0x391c0cb3, 0x4ed8aa4a, 0x5b9cca4f, 0x682e6ff3,
		0x748f82ee, 0x78a5636f, 0x84c87814, 0x8cc70208, 0x90befffa, 0xa4506ceb, 0xbef9a3f7, 0xc67178f2,
	};
	uint32_t w[64], v[8];

	for (unsigned i = 0; i < 16; i++, p += 4)
		w[i] = (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
	for (unsigned i = 16; i < 64; i++) {
		uint32_t a = w[i - 15], b = w[i - 2];

		w[i] = w[i - 16] + (sha256_ror(a, 7) ^ sha256_ror(a, 18) ^ a >> 3) + w[i - 7] +
		       (sha256_ror(b, 17) ^ sha256_ror(b, 19) ^ b >> 10);
	}
	memcpy(v, s->h, sizeof(v));
	for (unsigned i = 0; i < 64; i += 8) { /* the eight variables rotate by renaming */
		sha256_round(v, 0, k[i] + w[i]);
		sha256_round(v, 1, k[i + 1] + w[i + 1]);
		sha256_round(v, 2, k[i + 2] + w[i + 2]);
		sha256_round(v, 3, k[i + 3] + w[i + 3]);
		sha256_round(v, 4, k[i + 4] + w[i + 4]);
		sha256_round(v, 5, k[i + 5] + w[i + 5]);
		sha256_round(v, 6, k[i + 6] + w[i + 6]);
		sha256_round(v, 7, k[i + 7] + w[i + 7]);
	}
	for (unsigned i = 0; i < 8; i++)
		s->h[i] += v[i];
}

static inline void sha256_add(struct sha256 *s, const void *data, size_t n)
{
	const unsigned char *p = data;
	size_t used = s->length % SHA256_BLOCK;

	s->length += n;
	if (used + n < SHA256_BLOCK) {
		memcpy(s->pending + used, p, n);
		return;
	}
	if (used > 0) {
		memcpy(s->pending + used, p, SHA256_BLOCK - used);
		sha256_block(s, s->pending);
		p += SHA256_BLOCK - used;
		n -= SHA256_BLOCK - used;
	}
	for (; n >= SHA256_BLOCK; n -= SHA256_BLOCK, p += SHA256_BLOCK)
		sha256_block(s, p);
	memcpy(s->pending, p, n);
}

static inline void sha256_hex(struct sha256 *s, char text[SHA256_HEX])
{
	uint64_t bits = s->length * 8;
	unsigned char tail[8], one = 0x80, zero = 0;

	for (unsigned i = 0; i < 8; i++)
		tail[i] = (unsigned char)(bits >> (56 - 8 * i));
	sha256_add(s, &one, 1);
	while (s->length % SHA256_BLOCK != SHA256_BLOCK - 8)
		sha256_add(s, &zero, 1);
	sha256_add(s, tail, 8);
	for (unsigned i = 0; i < 8; i++)
		snprintf(text + 8 * i, 9, "%08x", s->h[i]);
}

#endif
