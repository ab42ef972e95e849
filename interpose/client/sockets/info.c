/* SPDX-License-Identifier: MIT */
/* TCP_INFO: what the service says of the connection, as Linux's structure has it. */
#include <linux/tcp.h>
#include <netinet/in.h>
#include <string.h>

#include "sockets/sock.h"

static void fill(struct tcp_info *ti, const struct tas_msg_info *i)
{
	/* Linux: a socket whose connection waits in TIME_WAIT is closed */
	ti->tcpi_state = i->state == TAS_S_TIME_WAIT ? TAS_S_CLOSE : (uint8_t)i->state;
	ti->tcpi_ca_state = (uint8_t)i->ca_state;
	ti->tcpi_retransmits = (uint8_t)i->retransmits;
	ti->tcpi_probes = (uint8_t)i->probes;
	ti->tcpi_backoff = (uint8_t)i->backoff;
	ti->tcpi_options = (uint8_t)i->options;
	ti->tcpi_snd_wscale = i->snd_wscale & 0xf;
	ti->tcpi_rcv_wscale = i->rcv_wscale & 0xf;
	ti->tcpi_rto = i->rto_us;
	ti->tcpi_ato = i->ato_us;
	ti->tcpi_snd_mss = i->snd_mss;
	ti->tcpi_rcv_mss = i->rcv_mss;
	ti->tcpi_unacked = i->unacked;
	ti->tcpi_sacked = i->sacked;
	ti->tcpi_lost = i->lost;
	ti->tcpi_retrans = i->retrans;
	ti->tcpi_last_data_sent = i->last_data_sent;
	ti->tcpi_last_data_recv = i->last_data_recv;
	ti->tcpi_last_ack_recv = i->last_ack_recv;
	ti->tcpi_pmtu = i->pmtu;
	ti->tcpi_rcv_ssthresh = i->rcv_ssthresh;
	ti->tcpi_rtt = i->rtt_us;
	ti->tcpi_rttvar = i->rttvar_us;
	ti->tcpi_snd_ssthresh = i->snd_ssthresh;
	ti->tcpi_snd_cwnd = i->snd_cwnd;
	ti->tcpi_advmss = i->advmss;
	ti->tcpi_reordering = i->reordering;
	ti->tcpi_rcv_space = i->rcv_space;
	ti->tcpi_total_retrans = i->total_retrans;
	/* not paced; Linux tells the same number whether it paces or not */
	if (i->rtt_us)
		ti->tcpi_pacing_rate = 2000000ull * i->snd_cwnd * i->snd_mss / i->rtt_us;
	ti->tcpi_max_pacing_rate = ~0ull;
	ti->tcpi_bytes_acked = i->bytes_acked;
	ti->tcpi_bytes_received = i->bytes_received;
	ti->tcpi_segs_out = i->segs_out;
	ti->tcpi_segs_in = i->segs_in;
	ti->tcpi_notsent_bytes = i->notsent;
	ti->tcpi_min_rtt = i->min_rtt_us;
	ti->tcpi_data_segs_in = i->data_segs_in;
	ti->tcpi_data_segs_out = i->data_segs_out;
	ti->tcpi_delivery_rate_app_limited = !i->notsent;
	ti->tcpi_delivered = i->delivered;
	ti->tcpi_bytes_sent = i->bytes_sent;
	ti->tcpi_bytes_retrans = i->bytes_retrans;
	ti->tcpi_snd_wnd = i->snd_wnd;
}

enum { AT_RCV_WND = sizeof(struct tcp_info) /* newer than the headers of some systems */ };

int tas__info_give(struct tas_obj *o, int fd, void *val, socklen_t *len)
{
	uint8_t room[512] = { 0 }; /* the kernel's structure may be longer than ours */
	socklen_t n = sizeof room;
	struct tas_msg m = {0};
	struct tcp_info ti;

	memset(&ti, 0, sizeof ti);
	ti.tcpi_state = TAS_S_CLOSE;
	m.u.sock.id = o->id;
	m.u.sock.gen = o->gen;
	if (sys_getsockopt(fd, IPPROTO_TCP, TCP_INFO, room, &n) < 0 || n < sizeof ti)
		n = sizeof ti;
	memset(room, 0, sizeof room);
	if (tas__obj_live(o) && tas__ask(o->ss, &m, TAS_MSG_INFO, NULL, 0) == 0) {
		fill(&ti, &m.u.info);
		if (n >= AT_RCV_WND + sizeof m.u.info.rcv_wnd)
			memcpy(room + AT_RCV_WND, &m.u.info.rcv_wnd, sizeof m.u.info.rcv_wnd);
	}
	memcpy(room, &ti, sizeof ti);
	return tas__opt_give(val, len, room, n);
}
