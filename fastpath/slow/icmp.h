/* SPDX-License-Identifier: MIT */
/*
 * ICMP (RFC 792, RFC 1122 §3.2.2): echo replies, errors that we send, errors that tell us something about our segments.
 * Free of DPDK: works on bytes that begin at the IP header (checked, without options trouble: hlen is given).
 */
#ifndef TAS_ICMP_H
#define TAS_ICMP_H

#include <stdbool.h>
#include <stdint.h>

#include "fast/ip.h"

enum { TAS_ICMP_HLEN = 8, TAS_ICMP_ERROR_MAX = 576 - TAS_IP_HLEN - TAS_ICMP_HLEN };
enum { TAS_ICMP_UNREACH_PROTO = 2, TAS_ICMP_UNREACH_PORT = 3 };

enum tas_icmp_kind {
	TAS_ICMP_IGNORE,
	TAS_ICMP_BAD_CHECKSUM,
	TAS_ICMP_MALFORMED,
	TAS_ICMP_ECHO,  /* answer it */
	TAS_ICMP_ERROR, /* about a packet of ours: see struct tas_icmp_error */
};

struct tas_icmp_error {
	uint32_t src, dst; /* of our packet, network order */
	const uint8_t *tcp8;
	int error; /* errno */
	bool hard;
	unsigned mtu; /* 0, or of the next hop */
};

enum tas_icmp_kind tas__icmp_parse(const uint8_t *ip, const struct tas_ip_info *info, struct tas_icmp_error *e);

/* Turns an echo request into its reply in place: type, addresses, TTL, both checksums. */
void tas__icmp_echo_reply(uint8_t *ip, const struct tas_ip_info *info, uint16_t id);

/* May the packet be answered with an ICMP error? (RFC 1122: not another error, not from or to more than one host.) */
bool tas__icmp_may_complain(const uint8_t *ip, const struct tas_ip_info *info);
/* Writes IP and ICMP header and as much of the packet as belongs there to out (576 bytes); returns the length. */
unsigned tas__icmp_unreach(uint8_t *out, const uint8_t *ip, const struct tas_ip_info *info, uint8_t code, uint16_t id);

#endif
