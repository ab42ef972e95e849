/* SPDX-License-Identifier: MIT */
/* Opening: configuration, both SYNs, simultaneous open (RFC 9293 §3.5), what the options on SYNs settle. */
#include "tcp/tcp_conn.h"

#include <errno.h>
#include <string.h>

enum {
	MSS_DEFAULT = 536, /* RFC 9293 §3.7.1: peer without the option */
	MSS_MIN = 48,      /* Linux: tcp_min_snd_mss */
	TS_OPTION = 12,
};
#define SYN_AGAIN (8 * TCP__MS) /* Linux: TCP_TIMEOUT_MIN, two ticks */

static uint32_t or_default(uint64_t v, uint64_t unit, uint64_t dflt)
{
	v = (v ? v : dflt) / unit;
	return v > UINT32_MAX ? UINT32_MAX : v ? (uint32_t)v : 1;
}

void tcp__set_mss(struct tcp_conn *c, unsigned mss)
{
	if (mss < MSS_MIN)
		mss = MSS_MIN;
	c->mss_base = (uint16_t)mss;
	c->mss = (uint16_t)(mss - (c->flags & TCP__TS ? TS_OPTION : 0));
}

static void open_common(struct tcp_conn *c, const struct tcp_config *cfg, uint32_t isn, uint64_t rcv_limit, uint64_t now)
{
	memset(c, 0, sizeof(*c));
	c->snd_seq0 = isn + 1;
	c->rcv_limit = rcv_limit;
	c->mss_adv = cfg->mss ? cfg->mss : MSS_DEFAULT;
	c->mss_base = c->mss = c->mss_adv;
	c->rcv_mss = c->mss_adv < MSS_DEFAULT ? c->mss_adv : MSS_DEFAULT;
	while (c->rcv_wscale < 14 && 65535ull << c->rcv_wscale < cfg->rcv_wnd_max)
		c->rcv_wscale++;
	c->ts_offset = cfg->ts_offset;
	c->syn_timeout = or_default(cfg->syn_timeout, 1000, TCP__SEC);
	c->rto_min = or_default(cfg->rto_min, 1000, 200 * TCP__MS);
	c->delack = or_default(cfg->delack, 1000, 40 * TCP__MS);
	c->ack_wait = (uint32_t)(cfg->ack_wait / 1000);
	c->time_wait = or_default(cfg->time_wait, TCP__MS, 60 * TCP__SEC);
	c->fin_timeout = or_default(cfg->fin_timeout, TCP__MS, 60 * TCP__SEC);
	c->data_retries = cfg->data_retries ? cfg->data_retries : 15;
	c->cc = cfg->cc;
	c->quick = TCP__QUICK_ACKS;
	c->keep_idle = 7200;
	c->keep_intvl = 75;
	c->keep_cnt = 9;
	c->delack_at = c->keep_at = c->more_from = TCP__NEVER;
	c->last_rcv = c->last_snd = c->last_data = c->stall_at = now;
	tcp__rtt_init(c);
	c->rto = c->syn_timeout;
	c->flags = TCP__SYN_DUE | (cfg->no_tail_probe ? TCP__NO_TAIL : 0);
	tcp__disarm(c);
}

void tcp_open_active(struct tcp_conn *c, const struct tcp_config *cfg, uint32_t isn, uint64_t rcv_limit, uint64_t now)
{
	open_common(c, cfg, isn, rcv_limit, now);
	c->syn_retries = cfg->syn_retries ? cfg->syn_retries : 6;
	c->state = TCP_S_SYN_SENT;
	/* Offered; what the peer does not confirm is taken back (settle_options). */
	c->flags |= (cfg->timestamps ? TCP__TS : 0) | (cfg->sack ? TCP__SACK : 0) | TCP__WSCALE;
}

/* RFC 7323 §2.2, §3.2; RFC 2018 §2: an option holds when both SYNs carried it. */
static void settle_options(struct tcp_conn *c, const struct tcp_seg *syn, uint64_t now)
{
	unsigned mss = syn->mss ? syn->mss : MSS_DEFAULT;

	if (!syn->has_ts)
		c->flags &= ~TCP__TS;
	if (!syn->sack_ok)
		c->flags &= ~TCP__SACK;
	if (!syn->has_wscale) {
		c->flags &= ~TCP__WSCALE;
		c->rcv_wscale = 0;
	} else {
		c->snd_wscale = syn->wscale;
	}
	c->ts_recent = syn->tsval;
	c->ts_recent_age = (uint32_t)(now / TCP__SEC);
	tcp__set_mss(c, mss < c->mss_adv ? mss : c->mss_adv);

	c->rcv_seq0 = syn->seq + 1;
	c->rcv_nxt = c->rcv_acked = 0;
	/* The window in SYN segments is not scaled, RFC 7323 §2.2. */
	c->rcv_adv = c->rcv_limit < 65535 ? c->rcv_limit : 65535;
	c->rcv_big = (uint32_t)(c->rcv_limit < UINT32_MAX ? c->rcv_limit : UINT32_MAX);
	c->snd_wnd_end = syn->wnd;
	c->max_wnd = syn->wnd;
	c->snd_wl1 = syn->seq;
}

void tcp_open_passive(struct tcp_conn *c, const struct tcp_config *cfg, uint32_t isn, const struct tcp_seg *syn,
		      uint64_t rcv_limit, uint64_t now)
{
	open_common(c, cfg, isn, rcv_limit, now);
	c->syn_retries = cfg->syn_retries ? cfg->syn_retries : 5;
	c->state = TCP_S_SYN_RECV;
	c->flags |= TCP__PASSIVE | (cfg->timestamps ? TCP__TS : 0) | (cfg->sack ? TCP__SACK : 0) | TCP__WSCALE;
	c->defer = cfg->defer;
	if (cfg->ecn)
		tcp__ecn_open(c, syn);
	settle_options(c, syn, now);
}

/* Our SYN is acknowledged. */
void tcp__established(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	c->state = TCP_S_ESTABLISHED;
	tcp__disarm(c);
	if (c->flags & TCP__RTT_TIMING)
		tcp__rtt_sample(c, now - c->rtt_at);
	else
		tcp__rtt_init(c); /* RFC 6298 §5.7: 3 s after a lost SYN, until there is a sample */
	c->flags &= ~(TCP__RTT_TIMING | TCP__SYN_DUE);
	c->retransmits = c->backoff = 0;
	tcp__cc_init(c);
	res->events |= TCP_EV_CONNECTED;
	if (c->flags & TCP__FIN_QUEUED)
		c->state = TCP_S_FIN_WAIT1;
	tcp__keepalive_restart(c, now);
}

/* RFC 9293 §3.10.7.3 */
void tcp__input_syn_sent(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	bool ack = seg->flags & TCP_F_ACK;

	if (ack && seg->ack != c->snd_seq0) {
		res->reset_reply = !(seg->flags & TCP_F_RST);
		/* Linux: an old connection of the peer's that our RST has just ended; the SYN goes again at once */
		if (!c->retransmits)
			tcp__arm(c, TCP__T_RTO, now + SYN_AGAIN);
		return;
	}
	/* RFC 7323 §3.2: an echo of a timestamp that we cannot have sent (Linux: PAWSACTIVEREJECTED). */
	if (ack && c->flags & TCP__TS && seg->has_ts && seg->tsecr &&
	    seq_gt(seg->tsecr, tcp__ts_clock(c, now))) {
		res->reset_reply = !(seg->flags & TCP_F_RST);
		return;
	}
	if (seg->flags & TCP_F_RST) {
		if (ack)
			tcp__fail(c, ECONNREFUSED, res);
		return;
	}
	if (!(seg->flags & TCP_F_SYN))
		return;
	settle_options(c, seg, now);
	if (ack) {
		c->flags |= TCP__ACK_NOW;
		tcp__established(c, now, res);
		return;
	}
	/* Simultaneous open: our SYN goes again, now with an acknowledgement. */
	c->state = TCP_S_SYN_RECV;
	c->flags |= TCP__SYN_DUE;
}
