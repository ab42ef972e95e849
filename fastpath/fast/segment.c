/* SPDX-License-Identifier: MIT */
/* Packets to segments and back: the only file of the connection part that touches mbufs. */
#include <rte_mbuf.h>

#include "abi/tas_extent.h"
#include "fast/wire.h"

bool tas_core_tcp(struct tas_core *c, struct rte_mbuf *m, const struct tas_rx_meta *meta)
{
	const uint8_t *p = rte_pktmbuf_mtod(m, const uint8_t *);
	struct tas_addr local = meta->dst, peer = meta->src;
	struct tcp_seg seg;

	if (tcp_parse(p, rte_pktmbuf_pkt_len(m), &seg) < 0) {
		tas_count(c, TAS_CTR_rx_malformed, 1);
	} else {
		local.port = __builtin_bswap16(seg.dport);
		peer.port = __builtin_bswap16(seg.sport);
		seg.tos = meta->tos;
		if (!tas__flow_segment(c, &seg, p + seg.hdr_len, &local, &peer))
			return false;
	}
	tas_count(c, TAS_CTR_tcp_in, 1);
	rte_pktmbuf_free(m);
	return true;
}

/* Payload behind what m holds; what does not fit goes into further buffers, which only a port that cuts is given. */
static bool append_payload(struct tas_core *c, struct rte_mbuf *m, struct tas_sock *s, uint64_t off, uint32_t len)
{
	struct rte_mbuf *last = m;

	while (len) {
		uint32_t n = rte_pktmbuf_tailroom(last) < len ? rte_pktmbuf_tailroom(last) : len;

		tas__tx_read(s, off, rte_pktmbuf_mtod_offset(last, uint8_t *, last->data_len), n);
		last->data_len = (uint16_t)(last->data_len + n);
		m->pkt_len += n;
		off += n;
		len -= n;
		if (!len)
			return true;
		last->next = tas_net_alloc(c);
		if (!last->next)
			return false;
		last = last->next;
		m->nb_segs++;
	}
	return true;
}

/* The port has copied the bytes or dropped them when tas_net_send_tcp() returns: nobody waits for this count to become zero. */
static _Thread_local struct rte_mbuf_ext_shared_info lent;

static void nothing_to_free(void *addr, void *opaque)
{
	(void)addr, (void)opaque;
}

/* Payload that stays where the application wrote it, behind m's header. */
static bool lend_payload(struct tas_core *c, struct rte_mbuf *m, struct tas_sock *s, uint64_t off, uint32_t len)
{
	struct rte_mbuf *last = m;

	lent.free_cb = nothing_to_free;
	while (len) {
		struct tas_span p = tas__tx_data(s, off, off + len);

		if (!p.len) /* cannot be: ranges were checked when they were written */
			return false;
		last->next = tas_net_alloc(c);
		if (!last->next)
			return false;
		last = last->next;
		m->nb_segs++;
		rte_mbuf_ext_refcnt_set(&lent, INT16_MAX);
		rte_pktmbuf_attach_extbuf(last, tas__mem_ptr(s->base.set, p.off), 0, (uint16_t)p.len, &lent);
		last->data_len = (uint16_t)p.len;
		m->pkt_len += p.len;
		off += p.len;
		len -= p.len;
	}
	return true;
}

bool tas__segment_send(struct tas_core *c, struct tas_sock *s, struct tcp_seg *seg, uint64_t off, const struct tas_addr *local,
		       const struct tas_addr *peer)
{
	struct rte_mbuf *m = tas_net_alloc(c);
	uint8_t *p;
	unsigned hdr;

	if (!m)
		return false;
	seg->sport = tas__port(local);
	seg->dport = tas__port(peer);
	p = (uint8_t *)rte_pktmbuf_append(m, TCP_HDR_MAX);
	hdr = tcp_build(p, seg);
	rte_pktmbuf_trim(m, (uint16_t)(TCP_HDR_MAX - hdr));
	if (seg->len) {
		if (!(tas_net_lends(seg->len) ? lend_payload : append_payload)(c, m, s, off, seg->len)) {
			rte_pktmbuf_free(m);
			return false;
		}
		if (seg->len > tcp_mss(&s->u.tcp))
			m->tso_segsz = tcp_mss(&s->u.tcp);
		tas_count(c, TAS_CTR_bytes_out, seg->len);
	}
	if (seg->flags & TCP_F_RST)
		tas_count(c, TAS_CTR_tcp_rst_out, 1);
	tas_count(c, TAS_CTR_tcp_out, 1);
	tas_net_send_tcp(c, m, local, peer, (s ? s->ip : 0) | seg->tos);
	return true;
}
