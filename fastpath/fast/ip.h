/* SPDX-License-Identifier: MIT */
/* IPv4 headers: what is accepted from the link (RFC 791, RFC 1122 §3.2.1) and what is put on it.  Free of DPDK. */
#ifndef TAS_IP_H
#define TAS_IP_H

#include <stdbool.h>
#include <stdint.h>

enum { TAS_IP_HLEN = 20, TAS_IP_TTL = 64 };
enum { TAS_IP_ICMP = 1, TAS_IP_TCP = 6, TAS_IP_UDP = 17 };
enum { TAS_IP_DF = 0x4000, TAS_IP_MF = 0x2000, TAS_IP_OFFMASK = 0x1fff };
enum { TAS_IP_ECN_CE = 3 };

struct tas_ip_hdr {
	uint8_t version_ihl;
	uint8_t tos;
	uint16_t total_len; /* this and all below in network order */
	uint16_t id;
	uint16_t frag;
	uint8_t ttl;
	uint8_t proto;
	uint16_t checksum;
	uint32_t src, dst;
} __attribute__((packed, aligned(2)));

_Static_assert(sizeof(struct tas_ip_hdr) == TAS_IP_HLEN, "IPv4 header");

enum tas_ip_verdict {
	TAS_IP_OK,
	TAS_IP_MALFORMED,    /* version, header length, total length */
	TAS_IP_BAD_CHECKSUM,
	TAS_IP_FRAGMENT,     /* no reassembly here: our segments say DF, and peers send us at most our MSS */
	TAS_IP_MARTIAN,      /* a source that no host has */
};

struct tas_ip_info {
	unsigned hlen; /* header with options */
	unsigned len;  /* header and payload; the frame may be longer (padding) */
};

/* The header of n bytes at p.  checksum_ok: the port has verified it. */
enum tas_ip_verdict tas__ip_parse(const void *p, unsigned n, bool checksum_ok, struct tas_ip_info *info);

/* Writes a header without options and with its checksum (0 when the port fills it in). */
void tas__ip_build(struct tas_ip_hdr *h, uint32_t src, uint32_t dst, uint8_t proto, unsigned payload, uint16_t id, bool df,
		   bool checksum);
/* What a socket asked for (TAS_PKT_*) in a header that was built; before its checksum. */
void tas__ip_options(struct tas_ip_hdr *h, uint32_t ip, uint16_t id);
void tas__ip_seal(struct tas_ip_hdr *h); /* the checksum */

/* Source or destination that is one host: not 0/8, 127/8, multicast, reserved or broadcast. */
static inline bool tas__ip_is_host(uint32_t a)
{
	uint8_t top = *(const uint8_t *)&a;

	return top != 0 && top != 127 && top < 224;
}

#endif
