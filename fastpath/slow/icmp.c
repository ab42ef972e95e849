/* SPDX-License-Identifier: MIT */
#include "slow/icmp.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "fast/checksum.h"

enum { ECHO_REPLY = 0, UNREACH = 3, QUENCH = 4, REDIRECT = 5, ECHO = 8, TIME_EXCEEDED = 11, PARAMETER = 12 };
enum { FRAG_NEEDED = 4 };

/* Destination unreachable by code, as Linux's icmp_err_convert: errno, and whether it ends a connection. */
static const struct {
	int error;
	bool hard;
} unreach[16] = {
	{ ENETUNREACH, false },
	{ EHOSTUNREACH, false },
	{ ENOPROTOOPT, true },
	{ ECONNREFUSED, true },
	{ EMSGSIZE, false },
	{ EOPNOTSUPP, false },
	{ ENETUNREACH, true },
	{ EHOSTDOWN, true },
	{ ENONET, true },
	{ ENETUNREACH, true },
	{ EHOSTUNREACH, true },
	{ ENETUNREACH, false },
	{ EHOSTUNREACH, false },
	{ EHOSTUNREACH, true },
	{ EHOSTUNREACH, true },
	{ EHOSTUNREACH, true },
};

/* Routers older than RFC 1191 leave the next-hop MTU out: the next smaller of the usual ones. */
static unsigned plateau_below(unsigned len)
{
	static const unsigned plateaus[] = { 32000, 17914, 8166, 4352, 2002, 1492, 1006, 508, 296, 68 };
	unsigned i;

	for (i = 0; i < sizeof(plateaus) / sizeof(plateaus[0]); i++)
		if (plateaus[i] < len)
			return plateaus[i];
	return 68;
}

static enum tas_icmp_kind parse_error(const uint8_t *icmp, unsigned n, struct tas_icmp_error *e)
{
	const struct tas_ip_hdr *in = (const struct tas_ip_hdr *)(icmp + TAS_ICMP_HLEN);
	uint8_t type = icmp[0], code = icmp[1];
	unsigned hlen;

	if (n < TAS_ICMP_HLEN + TAS_IP_HLEN)
		return TAS_ICMP_MALFORMED;
	hlen = (in->version_ihl & 15) * 4u;
	if (in->version_ihl >> 4 != 4 || hlen < TAS_IP_HLEN || n < TAS_ICMP_HLEN + hlen + 8)
		return TAS_ICMP_MALFORMED;
	if (in->proto != TAS_IP_TCP || in->frag & htons(TAS_IP_OFFMASK))
		return TAS_ICMP_IGNORE;
	*e = (struct tas_icmp_error){ .src = in->src, .dst = in->dst, .tcp8 = icmp + TAS_ICMP_HLEN + hlen };
	switch (type) {
	case UNREACH:
		if (code > 15)
			return TAS_ICMP_IGNORE;
		e->error = unreach[code].error;
		e->hard = unreach[code].hard;
		if (code == FRAG_NEEDED) {
			e->mtu = (unsigned)icmp[6] << 8 | icmp[7];
			if (!e->mtu)
				e->mtu = plateau_below(ntohs(in->total_len));
		}
		return TAS_ICMP_ERROR;
	case TIME_EXCEEDED:
		e->error = EHOSTUNREACH;
		return TAS_ICMP_ERROR;
	case PARAMETER:
		e->error = EPROTO;
		e->hard = true;
		return TAS_ICMP_ERROR;
	default:
		return TAS_ICMP_IGNORE;
	}
}

enum tas_icmp_kind tas__icmp_parse(const uint8_t *ip, const struct tas_ip_info *info, struct tas_icmp_error *e)
{
	const uint8_t *icmp = ip + info->hlen;
	unsigned n = info->len - info->hlen;

	if (n < TAS_ICMP_HLEN)
		return TAS_ICMP_MALFORMED;
	if (tas__checksum(icmp, n, 0))
		return TAS_ICMP_BAD_CHECKSUM;
	switch (icmp[0]) {
	case ECHO:
		return TAS_ICMP_ECHO;
	case UNREACH:
	case TIME_EXCEEDED:
	case PARAMETER:
		return parse_error(icmp, n, e);
	default:
		return TAS_ICMP_IGNORE;
	}
}

void tas__icmp_echo_reply(uint8_t *ip, const struct tas_ip_info *info, uint16_t id)
{
	struct tas_ip_hdr *h = (struct tas_ip_hdr *)ip;
	uint8_t *icmp = ip + info->hlen;
	uint32_t src = h->src;
	uint16_t sum;

	h->src = h->dst;
	h->dst = src;
	h->ttl = TAS_IP_TTL;
	h->id = htons(id);
	h->frag = 0;
	h->checksum = 0;
	h->checksum = tas__checksum(h, info->hlen, 0);
	icmp[0] = ECHO_REPLY;
	memset(icmp + 2, 0, 2);
	sum = tas__checksum(icmp, info->len - info->hlen, 0);
	memcpy(icmp + 2, &sum, 2);
}

bool tas__icmp_may_complain(const uint8_t *ip, const struct tas_ip_info *info)
{
	const struct tas_ip_hdr *h = (const struct tas_ip_hdr *)ip;
	uint8_t type;

	if (!tas__ip_is_host(h->src) || !tas__ip_is_host(h->dst))
		return false;
	if (h->proto != TAS_IP_ICMP)
		return true;
	if (info->len <= info->hlen)
		return false;
	type = ip[info->hlen];
	return type != UNREACH && type != QUENCH && type != REDIRECT && type != TIME_EXCEEDED && type != PARAMETER;
}

unsigned tas__icmp_unreach(uint8_t *out, const uint8_t *ip, const struct tas_ip_info *info, uint8_t code, uint16_t id)
{
	const struct tas_ip_hdr *h = (const struct tas_ip_hdr *)ip;
	unsigned n = info->len < TAS_ICMP_ERROR_MAX ? info->len : TAS_ICMP_ERROR_MAX;
	uint8_t *icmp = out + TAS_IP_HLEN;
	uint16_t sum;

	memset(icmp, 0, TAS_ICMP_HLEN);
	icmp[0] = UNREACH;
	icmp[1] = code;
	memcpy(icmp + TAS_ICMP_HLEN, ip, n);
	n += TAS_ICMP_HLEN;
	sum = tas__checksum(icmp, n, 0);
	memcpy(icmp + 2, &sum, 2);
	tas__ip_build((struct tas_ip_hdr *)out, h->dst, h->src, TAS_IP_ICMP, n, id, false, true);
	return TAS_IP_HLEN + n;
}
