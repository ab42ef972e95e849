/* SPDX-License-Identifier: MIT */
/*
 * What TCP_INFO tells of a connection.
 *
 * Over the link it is the engine's own account.  A local connection has no segments; bytes are counted as the segments of a loopback
 * device would carry them, and are acknowledged in the moment in which they are moved: so nothing is ever in flight, what the reader has
 * no room for is unsent, and the round trip is as short as can be said.
 */
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <string.h>

#include "fast/sock.h"

enum { LOCAL_MTU = 65535, MSS_UNKNOWN = 536, REORDERING = 3, ATO_US = 40000, RTO_US = 200000 };

static uint32_t ms_since(const struct tas_sock *s, uint64_t then)
{
	return s->core->now > then ? (uint32_t)((s->core->now - then) / 1000000) : 0;
}

static void of_local(const struct tas_sock *s, struct tas_msg_info *i)
{
	const struct tas_sock *peer = s->u.local.peer;
	uint32_t handshake = i->state == TAS_S_SYN_SENT ? 1 : s->active ? 2 : 1, fin = s->app_fin && s->acked == s->written;

	i->snd_mss = i->advmss = atomic_load_explicit(&s->base.b->s.mss, memory_order_relaxed);
	i->rcv_mss = s->delivered ? i->snd_mss : MSS_UNKNOWN;
	i->pmtu = LOCAL_MTU;
	i->options = TCPI_OPT_TIMESTAMPS | TCPI_OPT_SACK | TCPI_OPT_WSCALE;
	while (65535ull << i->rcv_wscale < tas_config.tcp_rxbuf_len)
		i->rcv_wscale++;
	i->snd_wscale = i->rcv_wscale;
	i->rtt_us = i->rttvar_us = i->min_rtt_us = 1;
	i->rto_us = RTO_US + 1000;
	i->ato_us = s->delivered ? ATO_US : 0;
	i->notsent = (uint32_t)(s->written - s->acked) + (s->app_fin && s->acked != s->written);
	i->snd_wnd = peer ? (uint32_t)(peer->rcv_limit - peer->delivered) : 0;
	i->rcv_wnd = (uint32_t)(s->rcv_limit - s->delivered);
	i->data_segs_in = s->u.local.segs_in;
	i->data_segs_out = s->u.local.segs_out;
	i->segs_out = handshake + i->data_segs_out + i->data_segs_in + fin;
	i->segs_in = (i->state == TAS_S_SYN_SENT ? 0 : 3 - handshake) + i->data_segs_in + i->data_segs_out + s->rx_eof;
	i->delivered = i->data_segs_out + 1;
	i->last_data_sent = i->last_ack_recv = ms_since(s, s->u.local.sent_at);
	i->last_data_recv = ms_since(s, s->u.local.got_at);
	i->bytes_acked += fin;
}

static void of_link(const struct tas_sock *s, struct tas_msg_info *i)
{
	struct tcp_stats st;

	tcp_get_stats(&s->u.tcp, &st);
	i->rtt_us = (uint32_t)(st.srtt_ns / 1000);
	i->rttvar_us = (uint32_t)(st.rttvar_ns / 1000);
	i->rto_us = (uint32_t)(st.rto_ns / 1000);
	i->ato_us = st.data_segs_in ? st.ato_us : 0;
	i->min_rtt_us = (uint32_t)(st.min_rtt_ns / 1000);
	i->snd_mss = st.snd_mss;
	i->rcv_mss = st.rcv_mss;
	i->advmss = st.adv_mss;
	i->pmtu = st.path_mss + 40u;
	i->snd_cwnd = st.snd_mss ? st.cwnd / st.snd_mss : 0;
	i->snd_ssthresh = st.snd_mss && st.ssthresh < 0x7fffffff ? st.ssthresh / st.snd_mss : 0x7fffffff;
	i->retransmits = st.retransmits;
	i->total_retrans = st.total_retrans;
	i->unacked = st.snd_mss ? (st.unacked_bytes + st.snd_mss - 1u) / st.snd_mss : 0;
	i->sacked = st.sacked_segs;
	i->lost = st.lost_segs;
	i->retrans = st.rtx_segs;
	i->ca_state = st.recovery ? st.recovery + 2u : st.sacked_segs ? 1 : 0; /* TCP_CA_Open, Disorder, CWR, Recovery, Loss */
	i->backoff = st.backoff;
	i->probes = st.probes;
	i->snd_wnd = st.snd_wnd;
	i->rcv_wnd = st.rcv_wnd;
	i->options = (st.timestamps ? TCPI_OPT_TIMESTAMPS : 0) | (st.sack ? TCPI_OPT_SACK : 0) |
		     (st.wscale_ok ? TCPI_OPT_WSCALE : 0) | (st.ecn ? TCPI_OPT_ECN : 0) | (st.ecn_seen ? TCPI_OPT_ECN_SEEN : 0);
	i->snd_wscale = st.snd_wscale;
	i->rcv_wscale = st.rcv_wscale;
	i->segs_in = (uint32_t)st.segs_in;
	i->segs_out = (uint32_t)st.segs_out;
	i->data_segs_in = st.data_segs_in;
	i->data_segs_out = st.data_segs_out;
	i->delivered = st.delivered_segs + 1;
	i->notsent = st.notsent_bytes;
	i->bytes_sent = s->sent_high + st.bytes_retrans;
	i->bytes_retrans = st.bytes_retrans;
	i->bytes_acked += st.fin_acked;
	i->last_data_sent = ms_since(s, st.last_data_out);
	i->last_data_recv = ms_since(s, st.last_data_in);
	i->last_ack_recv = ms_since(s, st.last_ack_in);
}

int tas__op_info(struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep)
{
	struct tas_sock_base *b = tas__sock(req->u.sock.id, req->u.sock.gen);
	struct tas_msg_info *i = &rep->u.info;
	struct tas_sock *s;

	if (!b || !tas__set_reaches(p->set, b->set))
		return -EINVAL;
	s = tas__of(b);
	if (tas__is_direct(s))
		tas__direct_sync(s);
	memset(i, 0, sizeof *i);
	i->state = atomic_load_explicit(&b->b->s.state, memory_order_relaxed);
	i->bytes_acked = i->bytes_sent = s->acked;
	/* Linux: the own SYN counts */
	i->bytes_acked += s->active && i->state != TAS_S_SYN_SENT;
	i->bytes_received = s->delivered + s->rx_eof;
	i->rcv_space = i->rcv_ssthresh = s->rcv_buf;
	i->snd_cwnd = 10;
	i->snd_ssthresh = 0x7fffffff;
	i->reordering = REORDERING;
	if (b->kind == TAS_K_LISTENER)
		i->unacked = tas__accept_queued(s); /* Linux: length of the accept queue */
	else if (b->kind == TAS_K_LOCAL)
		of_local(s, i);
	else
		of_link(s, i);
	return 0;
}
