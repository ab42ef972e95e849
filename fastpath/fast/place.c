/* SPDX-License-Identifier: MIT */
/*
 * Receiving into place: where a port shows a packet's headers before it hands over the packet, the payload of a whole segment goes
 * straight into the stream's ring, without a stop in a packet buffer.
 *
 * Nothing is guessed: the headers that were seen say whose bytes these are, so they never lie in anybody else's memory.  Only the plain
 * case has a place: the next bytes of an established connection that has nothing out of order, all of them within its window.  The engine
 * judges the segment when its bytes are there.  What it refuses then lies in the ring behind what was delivered, where nothing is yet.
 */
#include <sys/uio.h>

#include "abi/tas_extent.h"
#include "fast/wire.h"

/* The segment whose place was told last; its payload comes before anything else happens. */
static _Thread_local struct {
	struct tas_sock *s;
	struct tcp_seg seg;
} told;

static bool find_place(struct tas_sock *s, const struct tcp_seg *seg)
{
	struct tcp_rx_want want;
	uint64_t high;

	if (!s || s->listener || !s->base.b || s->base.closed)
		return false;
	want = tcp_rx_want(&s->u.tcp, seg);
	high = tcp_rx_high(&s->u.tcp);
	return want.len == seg->len && want.off == high && tas__rx_reserve(s, want.off, want.len, high);
}

unsigned tas_core_place(struct tas_core *c, const uint8_t *tcp, unsigned len, const struct tas_rx_meta *meta, struct iovec *to)
{
	struct tas_addr local = meta->dst, peer = meta->src;
	uint64_t off, end;
	unsigned n = 0;

	if (tcp_parse(tcp, len, &told.seg) < 0 || (told.seg.flags | TCP_F_PSH) != (TCP_F_ACK | TCP_F_PSH) || !told.seg.len)
		return 0;
	local.port = __builtin_bswap16(told.seg.dport);
	peer.port = __builtin_bswap16(told.seg.sport);
	told.seg.tos = meta->tos;
	told.s = tas__flow_find(c, &local, &peer);
	if (!find_place(told.s, &told.seg))
		return 0;
	for (off = tcp_rx_high(&told.s->u.tcp), end = off + told.seg.len; off < end; n++) {
		struct tas_span p = tas__rx_space(told.s, off, end);

		if (!p.len || n == TAS_PLACE_PIECES) /* cannot be: two rings, each with one end */
			return 0;
		to[n] = (struct iovec){ tas__mem_ptr(told.s->base.set, p.off), p.len };
		off += p.len;
	}
	return n;
}

void tas_core_placed(struct tas_core *c)
{
	tas_count(c, TAS_CTR_tcp_in, 1);
	tas_count(c, TAS_CTR_rx_placed, 1);
	tas__wire_input(told.s, &told.seg, NULL);
}
