/* SPDX-License-Identifier: MIT */
/*
 * Output: each call describes at most one segment, the most urgent one: RST, SYN, the first lost segment, probes, further lost
 * segments, new data and FIN, a bare acknowledgement.  Every segment with ACK carries the newest acknowledgement, window,
 * timestamps and SACK blocks, and so fulfils a pending acknowledgement.
 */
#include "tcp/tcp_conn.h"

/* ---- Header fields ---- */
static unsigned sack_block_count(const struct tcp_conn *c)
{
	unsigned n = c->n_ooo + !!(c->flags & TCP__DSACK), max = c->flags & TCP__TS ? 3 : 4;

	return !(c->flags & TCP__SACK) ? 0 : n < max ? n : max;
}

/* Payload of a full segment now; SACK blocks take their room from it. */
static uint32_t mss_now(const struct tcp_conn *c)
{
	unsigned n = sack_block_count(c);

	return n ? c->mss - 4 - 8 * n : c->mss;
}

static void fill_timestamps(const struct tcp_conn *c, uint64_t now, struct tcp_seg *seg)
{
	if (c->flags & TCP__TS) {
		seg->has_ts = true;
		seg->tsval = tcp__ts_clock(c, now);
		seg->tsecr = c->ts_recent;
	}
}

/* Acknowledgement, window, timestamps, SACK.  What was pending is done with it. */
static void fill_ack(struct tcp_conn *c, uint64_t now, struct tcp_seg *seg)
{
	unsigned n = sack_block_count(c);

	seg->flags |= TCP_F_ACK;
	seg->ack = tcp__rcv_seq(c, c->rcv_nxt);
	seg->wnd = tcp__rcv_select_window(c);
	fill_timestamps(c, now, seg);
	if (n)
		tcp__rcv_sack_blocks(c, seg, n);
	tcp__ecn_send(c, seg, false);
	if (c->rcv_nxt != c->rcv_acked && c->quick)
		c->quick--;
	c->rcv_acked = c->rcv_nxt;
	c->delack_at = TCP__NEVER;
	c->ack_waits = 0;
	if (!c->dupacks_due)
		c->flags &= ~TCP__ACK_NOW;
}

/* Linux (tcp_acceptable_seq): not outside a window that the peer took back. */
static uint64_t acceptable_pos(const struct tcp_conn *c)
{
	if (c->snd_nxt <= c->snd_wnd_end)
		return c->snd_nxt;
	return c->snd_wnd_end > c->snd_una ? c->snd_wnd_end : c->snd_una;
}

static void output_rst(struct tcp_conn *c, struct tcp_seg *seg)
{
	c->flags &= ~TCP__RST_DUE;
	seg->flags = TCP_F_RST | TCP_F_ACK;
	seg->seq = tcp__snd_seq(c, acceptable_pos(c));
	seg->ack = tcp__rcv_seq(c, c->rcv_nxt);
}

static void output_syn(struct tcp_conn *c, uint64_t now, struct tcp_seg *seg)
{
	bool again = c->timer == TCP__T_RTO || c->flags & TCP__SYN_RTX;
	uint64_t wnd = c->rcv_limit > c->rcv_nxt ? c->rcv_limit - c->rcv_nxt : 0;

	c->flags &= ~TCP__SYN_DUE;
	seg->flags = TCP_F_SYN;
	seg->seq = c->snd_seq0 - 1;
	seg->mss = c->mss_adv;
	seg->wnd = (uint16_t)(wnd < 65535 ? wnd : 65535);
	fill_timestamps(c, now, seg);
	seg->sack_ok = c->flags & TCP__SACK;
	seg->has_wscale = c->flags & TCP__WSCALE;
	seg->wscale = c->rcv_wscale;
	if (c->state == TCP_S_SYN_RECV) {
		seg->flags |= TCP_F_ACK;
		seg->ack = c->rcv_seq0;
		tcp__ecn_send(c, seg, false);
		c->flags &= ~TCP__ACK_NOW;
	}
	if (again) {
		c->flags |= TCP__SYN_RTX;
		c->flags &= ~TCP__RTT_TIMING;
		c->total_retrans++;
	} else {
		c->flags |= TCP__RTT_TIMING;
		c->rtt_at = now;
		c->stall_at = now;
	}
	if (c->timer != TCP__T_RTO)
		tcp__arm_rto(c, TCP__T_RTO, now);
}

/* RFC 1122 §4.2.3.6, Linux tcp_xmit_probe_skb(): an empty segment just below the window: the peer must answer. */
static void output_probe(struct tcp_conn *c, uint64_t now, struct tcp_seg *seg)
{
	c->flags &= ~TCP__PROBE_DUE;
	fill_ack(c, now, seg);
	seg->seq = tcp__snd_seq(c, c->snd_una - 1);
}

/* Linux: the pointer counts to the byte behind the urgent one, and says "far" while it does not reach. */
static void fill_urgent(const struct tcp_conn *c, uint64_t from, struct tcp_seg *seg)
{
	if (!(c->flags & TCP__URG_SND) || from >= c->snd_urg)
		return;
	seg->flags |= TCP_F_URG;
	seg->urg = (uint16_t)(c->snd_urg - from < 65535 ? c->snd_urg - from : 65535);
}

/* Positions [from, to), the FIN's included. */
static void output_range(struct tcp_conn *c, uint64_t now, uint64_t from, uint64_t to, struct tcp_seg *seg, uint64_t *off)
{
	bool fin = to > c->written;

	if (to - from > (fin ? 1 : 0) && c->rcv_nxt != c->rcv_acked)
		c->flags |= TCP__PINGPONG;
	fill_ack(c, now, seg);
	seg->seq = tcp__snd_seq(c, from);
	seg->len = (uint32_t)(to - from - fin);
	*off = from;
	if (fin)
		seg->flags |= TCP_F_FIN;
	if (seg->len && to >= c->written && (c->more_from >= c->written || c->flags & TCP__PUSH)) /* Linux: not MSG_MORE's */
		seg->flags |= TCP_F_PSH;
	c->data_out += seg->len != 0;
	if (seg->len && from == c->snd_nxt)
		tcp__ecn_send(c, seg, true);
	fill_urgent(c, from, seg);
	c->last_snd = now;
}

/* ---- Retransmission ---- */
static void output_again(struct tcp_conn *c, uint64_t now, uint64_t from, uint64_t to, struct tcp_seg *seg, uint64_t *off)
{
	uint64_t most = from + mss_now(c);

	if (to > most && !(to == most + 1 && to > c->written)) /* a FIN does not count */
		to = most;
	output_range(c, now, from, to, seg, off);
	if (c->timer != TCP__T_RTO && !(c->timer == TCP__T_PTO && c->recovery))
		tcp__arm_rto(c, TCP__T_RTO, now);
	if (c->rtx_next < to)
		c->rtx_next = to;
	c->flags &= ~TCP__RTT_TIMING;
	c->total_retrans++;
	c->bytes_retrans += seg->len;
}

static bool output_head(struct tcp_conn *c, uint64_t now, struct tcp_seg *seg, uint64_t *off)
{
	uint64_t to = c->snd_nxt;

	c->flags &= ~TCP__HEAD_DUE;
	if (c->snd_una == c->snd_nxt || !tcp__state_in(c, TCP__M_MAY_SEND))
		return false;
	if (c->n_sacked) {
		uint64_t left = (uint64_t)seq_widen(c->snd_una, c->sacked[0].left);

		if (left > c->snd_una && left < to)
			to = left;
	}
	output_again(c, now, c->snd_una, to, seg, off);
	return true;
}

static bool output_lost(struct tcp_conn *c, uint64_t now, bool any, struct tcp_seg *seg, uint64_t *off)
{
	uint64_t from, to, pipe;

	if (!tcp__recover_next(c, any, &from, &to) || from >= c->snd_wnd_end)
		return false;
	pipe = tcp__pipe(c);
	if (pipe && pipe + mss_now(c) > c->cwnd)
		return false;
	output_again(c, now, from, to, seg, off);
	return true;
}

/* ---- New data ---- */
/* RFC 9293 §3.7.4 Nagle; Linux: Minshall's variant (only a small segment in flight holds back another), a cork, and neither for
 * urgent data or the last segment before a FIN. */
static bool small_may_go(const struct tcp_conn *c)
{
	if (c->flags & (TCP__PUSH | TCP__FIN_QUEUED) || (c->flags & TCP__URG_SND && c->snd_urg > c->snd_nxt))
		return true;
	if (c->flags & TCP__CORK || (c->flags & TCP__MORE && c->snd_nxt >= c->more_from))
		return false;
	return c->flags & TCP__NODELAY || c->snd_small <= c->snd_una;
}

/* How much of the `avail` unsent bytes goes out now in one segment (or one burst that the port cuts). */
static uint32_t sendable(const struct tcp_conn *c, uint64_t avail, uint32_t max_len)
{
	uint32_t mss = mss_now(c), half = c->max_wnd > 536 ? c->max_wnd / 2 : c->max_wnd;
	uint64_t pipe = tcp__pipe(c), wnd, room, lim = avail;

	if (c->snd_nxt >= c->snd_wnd_end)
		return 0;
	wnd = c->snd_wnd_end - c->snd_nxt;
	room = c->cwnd > pipe ? c->cwnd - pipe : 0;
	if (!pipe && room < mss)
		room = mss;
	/* SACK blocks in each segment, or an urgent pointer that counts from its own: not for the port to cut */
	if (mss < c->mss || max_len < mss || c->flags & TCP__URG_SND)
		max_len = mss;
	if (half && half < mss) /* RFC 9293 §3.8.6.2.1 (3), Linux tcp_bound_to_half_wnd() */
		mss = max_len = half;
	if (lim > wnd)
		lim = wnd;
	if (lim > room)
		lim = room;
	if (lim > max_len)
		lim = max_len;
	if (lim % mss && (lim < avail || !small_may_go(c))) {
		if (lim < mss && c->flags & TCP__PUSH)
			return (uint32_t)lim;
		lim -= lim % mss;
	}
	return (uint32_t)lim;
}

/* The next len bytes, and the FIN behind the last one.  A FIN needs room in the window, not in the congestion window
 * (Linux). */
static bool output_next(struct tcp_conn *c, uint64_t now, uint32_t len, struct tcp_seg *seg, uint64_t *off)
{
	uint64_t from = c->snd_nxt, to = from + len;
	bool fin = to == c->written && c->flags & TCP__FIN_QUEUED && to < c->snd_wnd_end;

	if (!len && !fin)
		return false;
	if (c->snd_una == from)
		c->stall_at = now;
	if (c->timer == TCP__T_PERSIST)
		tcp__disarm(c);
	if ((to - from) % c->mss)
		c->snd_small = to;
	to += fin;
	output_range(c, now, from, to, seg, off);
	c->snd_nxt = to;
	if (c->timer != TCP__T_RTO)
		tcp__arm_rtx(c, now);
	c->flags &= ~TCP__PUSH;
	tcp__cc_sent(c);
	if (!(c->flags & TCP__RTT_TIMING) && !c->recovery) {
		c->flags |= TCP__RTT_TIMING;
		c->rtt_end = to;
		c->rtt_at = now;
	}
	return true;
}

static bool output_new(struct tcp_conn *c, uint64_t now, uint32_t max_len, struct tcp_seg *seg, uint64_t *off)
{
	uint32_t len = 0;

	if (c->snd_nxt < c->written) {
		if (c->snd_una == c->snd_nxt)
			tcp__cc_idle(c, now);
		len = sendable(c, c->written - c->snd_nxt, max_len);
		if (!len)
			return false;
	}
	return output_next(c, now, len, seg, off);
}

/* Tail loss probe, RFC 8985 §7.3: one new segment, whatever the congestion window says, or the last one again. */
static bool output_tail(struct tcp_conn *c, uint64_t now, struct tcp_seg *seg, uint64_t *off)
{
	uint64_t len = mss_now(c), wnd = c->snd_wnd_end > c->snd_nxt ? c->snd_wnd_end - c->snd_nxt : 0, from;

	c->flags &= ~(TCP__TAIL_DUE | TCP__TAIL_RTX);
	if (c->snd_una == c->snd_nxt || c->recovery || !tcp__state_in(c, TCP__M_MAY_SEND))
		return false;
	c->flags |= TCP__TAIL;
	if (c->snd_nxt < c->written && wnd >= (c->written - c->snd_nxt < len ? c->written - c->snd_nxt : len)) {
		output_next(c, now, (uint32_t)(c->written - c->snd_nxt < len ? c->written - c->snd_nxt : len), seg, off);
	} else {
		len += tcp__fin_sent(c);
		from = tcp__in_flight(c) > len ? c->snd_nxt - len : c->snd_una;
		output_again(c, now, from, c->snd_nxt, seg, off);
		c->flags |= TCP__TAIL_RTX;
	}
	c->tail_end = c->snd_nxt;
	return true;
}

/* Something is left, nothing is in flight that would bring an acknowledgement: persist. */
static void watch_window(struct tcp_conn *c, uint64_t now)
{
	if (c->timer != TCP__T_NONE || c->snd_una != c->snd_nxt)
		return;
	if (c->snd_nxt < c->written || (c->snd_nxt == c->written && c->flags & TCP__FIN_QUEUED)) {
		c->stall_at = now;
		tcp__arm_rto(c, TCP__T_PERSIST, now);
	}
}

/* ---- Order ---- */
static bool output_rare(struct tcp_conn *c, uint64_t now, struct tcp_seg *seg, uint64_t *off)
{
	if (c->flags & TCP__RST_DUE) {
		output_rst(c, seg);
		return true;
	}
	if (c->flags & TCP__SYN_DUE) {
		output_syn(c, now, seg);
		return true;
	}
	if (c->flags & TCP__HEAD_DUE && output_head(c, now, seg, off))
		return true;
	if (c->flags & TCP__TAIL_DUE && output_tail(c, now, seg, off))
		return true;
	if (c->flags & TCP__PROBE_DUE) {
		output_probe(c, now, seg);
		return true;
	}
	return false;
}

static bool output_any(struct tcp_conn *c, uint64_t now, uint32_t max_len, struct tcp_seg *seg, uint64_t *off)
{
	if (c->flags & TCP__RARE_OUTPUT && output_rare(c, now, seg, off))
		return true;
	if (tcp__state_in(c, TCP__M_MAY_SEND)) {
		if (c->recovery && output_lost(c, now, false, seg, off))
			return true;
		if (c->snd_nxt <= c->written && output_new(c, now, max_len, seg, off))
			return true;
		if (c->recovery && output_lost(c, now, true, seg, off))
			return true;
		watch_window(c, now);
	}
	if (!(c->flags & TCP__ACK_NOW) && !tcp__rcv_update_due(c))
		return false;
	if (c->dupacks_due)
		c->dupacks_due--;
	fill_ack(c, now, seg);
	seg->seq = tcp__snd_seq(c, acceptable_pos(c));
	return true;
}

bool tcp_output(struct tcp_conn *c, uint64_t now, uint32_t max_len, struct tcp_seg *seg, uint64_t *off)
{
	*seg = (struct tcp_seg){ 0 };
	*off = c->snd_nxt;
	if (!output_any(c, now, max_len, seg, off))
		return false;
	c->segs_out++;
	return true;
}
