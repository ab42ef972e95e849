/* SPDX-License-Identifier: MIT */
/*
 * The Internet checksum (RFC 1071).  Sums are kept as native-order 64-bit numbers of 16-bit one's-complement addition; the
 * order of bytes does not matter to it as long as header fields are loaded and stored as they lie in memory.
 */
#ifndef TAS_CHECKSUM_H
#define TAS_CHECKSUM_H

#include <stddef.h>
#include <stdint.h>

/* Adds n bytes at p to sum; only the last of several pieces may have an odd length. */
uint64_t tas__sum(const void *p, size_t n, uint64_t sum);

static inline uint16_t tas__sum_fold(uint64_t sum)
{
	sum = (sum >> 32) + (uint32_t)sum;
	sum = (sum >> 32) + (uint32_t)sum;
	sum = (sum >> 16) + (sum & 0xffff);
	sum = (sum >> 16) + (sum & 0xffff);
	return (uint16_t)sum;
}

/* The checksum field for data whose field is 0; and 0 for data with a correct field. */
static inline uint16_t tas__checksum(const void *p, size_t n, uint64_t sum)
{
	return (uint16_t)~tas__sum_fold(tas__sum(p, n, sum));
}

/* Pseudo header of TCP and UDP over IPv4; addresses in network order, len of the segment in host order. */
static inline uint64_t tas__sum_pseudo4(uint32_t src, uint32_t dst, uint8_t proto, uint32_t len)
{
	return (uint64_t)src + dst + __builtin_bswap16(proto) + __builtin_bswap16((uint16_t)len);
}

#endif
