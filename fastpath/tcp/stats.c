/* SPDX-License-Identifier: MIT */
/* Read-only views. */
#include "tcp/tcp_conn.h"

enum tcp_state tcp_state(const struct tcp_conn *c)
{
	return (enum tcp_state)c->state;
}

uint16_t tcp_mss(const struct tcp_conn *c)
{
	return c->mss;
}

static uint32_t segments(const struct tcp_conn *c, uint64_t bytes)
{
	return c->mss ? (uint32_t)((bytes + c->mss - 1) / c->mss) : 0;
}

void tcp_get_stats(const struct tcp_conn *c, struct tcp_stats *s)
{
	*s = (struct tcp_stats){
		.srtt_ns = c->srtt8 * 125ull,
		.rttvar_ns = c->rttvar4 * 250ull,
		.rto_ns = tcp__rto(c),
		.min_rtt_ns = c->min_rtt == UINT32_MAX ? 0 : c->min_rtt * 1000ull,
		.cwnd = c->cwnd,
		.ssthresh = c->ssthresh,
		.snd_wnd = (uint32_t)(c->snd_wnd_end > c->snd_una ? c->snd_wnd_end - c->snd_una : 0),
		.rcv_wnd = tcp__rcv_wnd(c),
		.retransmits = c->retransmits,
		.total_retrans = c->total_retrans,
		.unacked_bytes = (uint32_t)tcp__in_flight(c),
		.snd_mss = c->mss,
		.rcv_mss = c->rcv_mss,
		.snd_wscale = c->snd_wscale,
		.rcv_wscale = c->rcv_wscale,
		.timestamps = c->flags & TCP__TS,
		.sack = c->flags & TCP__SACK,
		.wscale_ok = c->flags & TCP__WSCALE,
		.segs_in = c->segs_in,
		.segs_out = c->segs_out,
		.bytes_retrans = c->bytes_retrans,
		.last_data_in = c->last_data,
		.last_data_out = c->last_snd,
		.last_ack_in = c->last_rcv,
		.data_segs_in = c->data_in,
		.data_segs_out = c->data_out,
		.notsent_bytes = (uint32_t)(c->written > c->snd_nxt ? c->written - c->snd_nxt : 0),
		.sacked_segs = segments(c, tcp__sacked(c)),
		.lost_segs = segments(c, tcp__lost(c)),
		.rtx_segs = c->recovery ? segments(c, c->rtx_next > c->snd_una ? c->rtx_next - c->snd_una : 0) : 0,
		.delivered_segs = segments(c, tcp__acked(c) + tcp__sacked(c)),
		.adv_mss = (uint16_t)(c->mss_adv - (c->flags & TCP__TS ? 12 : 0)),
		.path_mss = c->mss_base,
		.fin_acked = tcp__fin_acked(c),
		.backoff = c->backoff,
		.probes = c->probes > c->keep_probes ? c->probes : c->keep_probes,
		.recovery = c->recovery,
		.ecn = c->ecn & TCP__ECN_OK,
		.ecn_seen = c->ecn & TCP__ECN_SEEN,
		.ato_us = c->delack,
	};
}

const char *tcp_state_name(enum tcp_state s)
{
	static const char *const names[] = {
		[TCP_S_NONE] = "NONE",
		[TCP_S_ESTABLISHED] = "ESTABLISHED",
		[TCP_S_SYN_SENT] = "SYN_SENT",
		[TCP_S_SYN_RECV] = "SYN_RECV",
		[TCP_S_FIN_WAIT1] = "FIN_WAIT1",
		[TCP_S_FIN_WAIT2] = "FIN_WAIT2",
		[TCP_S_TIME_WAIT] = "TIME_WAIT",
		[TCP_S_CLOSE] = "CLOSE",
		[TCP_S_CLOSE_WAIT] = "CLOSE_WAIT",
		[TCP_S_LAST_ACK] = "LAST_ACK",
		[TCP_S_CLOSING] = "CLOSING",
	};

	return (unsigned)s < sizeof(names) / sizeof(names[0]) && names[s] ? names[s] : "UNKNOWN";
}
