/* SPDX-License-Identifier: MIT */
#include "fast/ip.h"

#include <arpa/inet.h>

#include "abi/tas_abi.h"
#include "fast/checksum.h"

enum tas_ip_verdict tas__ip_parse(const void *p, unsigned n, bool checksum_ok, struct tas_ip_info *info)
{
	const struct tas_ip_hdr *h = p;

	if (n < TAS_IP_HLEN || h->version_ihl >> 4 != 4)
		return TAS_IP_MALFORMED;
	info->hlen = (h->version_ihl & 15) * 4u;
	info->len = ntohs(h->total_len);
	if (info->hlen < TAS_IP_HLEN || info->len < info->hlen || info->len > n)
		return TAS_IP_MALFORMED;
	if (!checksum_ok && tas__checksum(p, info->hlen, 0))
		return TAS_IP_BAD_CHECKSUM;
	if (h->frag & htons(TAS_IP_MF | TAS_IP_OFFMASK))
		return TAS_IP_FRAGMENT;
	if (!tas__ip_is_host(h->src))
		return TAS_IP_MARTIAN;
	return TAS_IP_OK;
}

void tas__ip_build(struct tas_ip_hdr *h, uint32_t src, uint32_t dst, uint8_t proto, unsigned payload, uint16_t id, bool df,
		   bool checksum)
{
	*h = (struct tas_ip_hdr){
		.version_ihl = 0x45,
		.total_len = htons((uint16_t)(TAS_IP_HLEN + payload)),
		.id = htons(id),
		.frag = df ? htons(TAS_IP_DF) : 0,
		.ttl = TAS_IP_TTL,
		.proto = proto,
		.src = src,
		.dst = dst,
	};
	if (checksum)
		tas__ip_seal(h);
}

void tas__ip_options(struct tas_ip_hdr *h, uint32_t ip, uint16_t id)
{
	h->tos = ip & TAS_PKT_TOS;
	if (ip >> TAS_PKT_TTL_SHIFT & 0xff)
		h->ttl = (uint8_t)(ip >> TAS_PKT_TTL_SHIFT);
	if (ip & TAS_PKT_FRAGMENTS) {
		h->frag = 0;
		h->id = htons(id);
	}
}

void tas__ip_seal(struct tas_ip_hdr *h)
{
	h->checksum = 0;
	h->checksum = tas__checksum(h, TAS_IP_HLEN, 0);
}
