/* SPDX-License-Identifier: MIT */
/* TCP headers between wire and struct tcp_seg, and the RST for a segment without connection. */
#include "tcp/tcp.h"

#include <string.h>

enum { OPT_END = 0, OPT_NOP = 1, OPT_MSS = 2, OPT_WSCALE = 3, OPT_SACK_OK = 4, OPT_SACK = 5, OPT_TS = 8 };
enum { WSCALE_MAX = 14 };

static uint16_t get16(const uint8_t *p)
{
	return (uint16_t)(p[0] << 8 | p[1]);
}

static uint32_t get32(const uint8_t *p)
{
	return (uint32_t)p[0] << 24 | (uint32_t)p[1] << 16 | (uint32_t)p[2] << 8 | p[3];
}

static uint8_t *put16(uint8_t *p, uint16_t v)
{
	p[0] = (uint8_t)(v >> 8);
	p[1] = (uint8_t)v;
	return p + 2;
}

static uint8_t *put32(uint8_t *p, uint32_t v)
{
	return put16(put16(p, (uint16_t)(v >> 16)), (uint16_t)v);
}

/* One option with its length byte.  A length that is not the option's own makes it unknown (Linux: likewise). */
static void parse_option(const uint8_t *p, unsigned len, struct tcp_seg *seg)
{
	bool syn = seg->flags & TCP_F_SYN;

	switch (p[0]) {
	case OPT_MSS: /* RFC 9293 §3.7.1: only in SYN segments */
		if (len == 4 && syn)
			seg->mss = get16(p + 2);
		break;
	case OPT_WSCALE: /* RFC 7323 §2.3: more than 14 counts as 14 */
		if (len == 3 && syn) {
			seg->has_wscale = true;
			seg->wscale = p[2] > WSCALE_MAX ? WSCALE_MAX : p[2];
		}
		break;
	case OPT_SACK_OK:
		if (len == 2 && syn)
			seg->sack_ok = true;
		break;
	case OPT_TS:
		if (len == 10) {
			seg->has_ts = true;
			seg->tsval = get32(p + 2);
			seg->tsecr = get32(p + 6);
		}
		break;
	case OPT_SACK:
		if (len < 10 || (len - 2) % 8 || (len - 2) / 8 > TCP_SACK_MAX || syn)
			break;
		seg->n_sack = (uint8_t)((len - 2) / 8);
		for (unsigned i = 0; i < seg->n_sack; i++) {
			seg->sack[i].left = get32(p + 2 + 8 * i);
			seg->sack[i].right = get32(p + 6 + 8 * i);
		}
		break;
	}
}

int tcp_parse(const uint8_t *p, size_t total, struct tcp_seg *seg)
{
	if (total < 20)
		return -1;
	unsigned hdr = (p[12] >> 4) * 4u;
	if (hdr < 20 || hdr > total)
		return -1;
	*seg = (struct tcp_seg){
		.sport = get16(p), .dport = get16(p + 2), .seq = get32(p + 4), .ack = get32(p + 8),
		.len = (uint32_t)(total - hdr), .flags = p[13], .wnd = get16(p + 14), .urg = get16(p + 18),
		.hdr_len = (uint8_t)hdr,
	};
	/* Timestamps alone, aligned as RFC 7323 appendix A recommends: nearly every segment. */
	if (hdr == 32 && get32(p + 20) == (OPT_NOP << 24 | OPT_NOP << 16 | OPT_TS << 8 | 10)) {
		seg->has_ts = true;
		seg->tsval = get32(p + 24);
		seg->tsecr = get32(p + 28);
		return 0;
	}
	for (unsigned i = 20; i < hdr;) {
		if (p[i] == OPT_END)
			break;
		if (p[i] == OPT_NOP) {
			i++;
			continue;
		}
		if (i + 1 >= hdr || p[i + 1] < 2 || i + p[i + 1] > hdr)
			break; /* Linux: what came before counts, the segment is good */
		parse_option(p + i, p[i + 1], seg);
		i += p[i + 1];
	}
	return 0;
}

unsigned tcp_build(uint8_t *p, struct tcp_seg *seg)
{
	uint8_t *o = p + 20;
	unsigned n_sack = seg->n_sack > TCP_SACK_MAX ? TCP_SACK_MAX : seg->n_sack;

	if (seg->mss) {
		*o++ = OPT_MSS;
		*o++ = 4;
		o = put16(o, seg->mss);
	}
	if (seg->sack_ok) {
		*o++ = OPT_SACK_OK;
		*o++ = 2;
	}
	if (seg->has_ts) {
		if (!seg->sack_ok) {
			*o++ = OPT_NOP;
			*o++ = OPT_NOP;
		}
		*o++ = OPT_TS;
		*o++ = 10;
		o = put32(put32(o, seg->tsval), seg->tsecr);
	} else if (seg->sack_ok) {
		*o++ = OPT_NOP;
		*o++ = OPT_NOP;
	}
	if (seg->has_wscale) {
		*o++ = OPT_NOP;
		*o++ = OPT_WSCALE;
		*o++ = 3;
		*o++ = seg->wscale;
	}
	while (n_sack && (size_t)(o - p) + 4 + 8 * n_sack > TCP_HDR_MAX)
		n_sack--;
	if (n_sack) {
		*o++ = OPT_NOP;
		*o++ = OPT_NOP;
		*o++ = OPT_SACK;
		*o++ = (uint8_t)(2 + 8 * n_sack);
		for (unsigned i = 0; i < n_sack; i++)
			o = put32(put32(o, seg->sack[i].left), seg->sack[i].right);
	}
	seg->hdr_len = (uint8_t)(o - p);
	put16(p, seg->sport);
	put16(p + 2, seg->dport);
	put32(p + 4, seg->seq);
	put32(p + 8, seg->ack);
	p[12] = (uint8_t)(seg->hdr_len / 4 << 4);
	p[13] = seg->flags;
	put16(p + 14, seg->wnd);
	put16(p + 16, 0);
	put16(p + 18, seg->urg);
	return seg->hdr_len;
}

bool tcp_reset_for(const struct tcp_seg *seg, struct tcp_seg *out)
{
	if (seg->flags & TCP_F_RST)
		return false;
	*out = (struct tcp_seg){ .sport = seg->dport, .dport = seg->sport, .hdr_len = 20, .tos = seg->tos & 0xfc };
	if (seg->flags & TCP_F_ACK) {
		out->seq = seg->ack;
		out->flags = TCP_F_RST;
	} else {
		out->ack = seg->seq + seg->len + !!(seg->flags & TCP_F_SYN) + !!(seg->flags & TCP_F_FIN);
		out->flags = TCP_F_RST | TCP_F_ACK;
	}
	return true;
}
