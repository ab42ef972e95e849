/* SPDX-License-Identifier: MIT */
/*
 * Arriving segments: the common case first, then the guards of RFC 9293 §3.10.7.4 in their order: sequence number, RST, SYN,
 * ACK, URG, payload, FIN; before them PAWS (RFC 7323 §5.3).
 */
#include "tcp/tcp_conn.h"

#include <errno.h>

#define OOW_INTERVAL (500 * TCP__MS) /* Linux: tcp_invalid_ratelimit */

/* ---- Timestamps, RFC 7323 ---- */
/* §5.3 R1.  Linux: a segment without the option is accepted, and ts_recent expires after 24 days. */
static bool paws_rejects(const struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now)
{
	if (!(c->flags & TCP__TS) || !seg->has_ts || seq_geq(seg->tsval, c->ts_recent))
		return false;
	return (uint32_t)(now / TCP__SEC) - c->ts_recent_age < 24u * 86400;
}

/* §4.3: only a segment that covers Last.ACK.sent. */
static void ts_recent_update(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now)
{
	if (c->flags & TCP__TS && seg->has_ts && seq_leq(seg->seq, tcp__rcv_seq(c, c->rcv_acked)) &&
	    (seq_geq(seg->tsval, c->ts_recent) || (uint32_t)(now / TCP__SEC) - c->ts_recent_age >= 24u * 86400)) {
		c->ts_recent = seg->tsval;
		c->ts_recent_age = (uint32_t)(now / TCP__SEC);
	}
}

/* ---- Answers to what is not acceptable ---- */
/* RFC 5961 §7 and Linux's tcp_invalid_ratelimit: one such acknowledgement per interval, or two confused peers play ping-pong. */
static bool may_answer(struct tcp_conn *c, uint64_t now)
{
	if (c->oow_at && now - c->oow_at < OOW_INTERVAL)
		return false;
	c->oow_at = now ? now : 1;
	return true;
}

static void challenge_ack(struct tcp_conn *c, uint64_t now)
{
	if (may_answer(c, now))
		c->flags |= TCP__ACK_NOW;
}

static void answer_unacceptable(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now)
{
	if (seg->flags & TCP_F_RST)
		return;
	if (c->state == TCP_S_SYN_RECV && (seg->flags & (TCP_F_SYN | TCP_F_ACK)) == TCP_F_SYN &&
	    seg->seq + 1 == c->rcv_seq0) {
		if (may_answer(c, now)) /* the peer's SYN again: our SYN+ACK was lost */
			c->flags |= TCP__SYN_DUE | TCP__SYN_RTX;
		return;
	}
	/* Linux: a segment with payload is a retransmission, it always gets its acknowledgement. */
	if (seg->len || seg->flags & TCP_F_FIN)
		c->flags |= TCP__ACK_NOW;
	else
		challenge_ack(c, now);
}

/* ---- Guards ---- */
static uint32_t seg_space(const struct tcp_seg *seg)
{
	return seg->len + !!(seg->flags & TCP_F_SYN) + !!(seg->flags & TCP_F_FIN);
}

/* First: sequence number.  Linux (tcp_sequence): its end not before the last acknowledgement sent, its start not behind the
 * window; wider than RFC 9293's table by the edges, so that a full or closed window does not make acknowledgements deaf. */
static bool seq_acceptable(const struct tcp_conn *c, const struct tcp_seg *seg)
{
	return seq_geq(seg->seq + seg_space(seg), tcp__rcv_seq(c, c->rcv_acked)) &&
	       seq_leq(seg->seq, tcp__rcv_seq(c, c->rcv_nxt) + tcp__rcv_wnd(c));
}

/* Second: RST, RFC 5961 §3.2: exactly at rcv_nxt, else challenge. */
static void input_rst(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	if (seg->seq != tcp__rcv_seq(c, c->rcv_nxt)) {
		challenge_ack(c, now);
		return;
	}
	if (c->state == TCP_S_TIME_WAIT || (c->flags & TCP__ORPHAN && c->state != TCP_S_SYN_RECV))
		tcp__closed(c, res);
	else
		tcp__fail(c, c->state == TCP_S_CLOSE_WAIT ? EPIPE : ECONNRESET, res); /* Linux: tcp_reset() */
}

/* RFC 9293 §3.5 figure 8: the other side's SYN+ACK of a simultaneous open. */
static bool is_simultaneous_synack(const struct tcp_conn *c, const struct tcp_seg *seg)
{
	return c->state == TCP_S_SYN_RECV && seg->flags & TCP_F_ACK && seg->seq + 1 == c->rcv_seq0 && !seg->len &&
	       !(c->flags & TCP__PASSIVE) && seg->ack == c->snd_seq0;
}

/* Linux, tcp_check_req() with TCP_DEFER_ACCEPT: the handshake's last segment alone accepts nothing until so many timeouts passed. */
bool tcp_defers(const struct tcp_conn *c, const struct tcp_seg *seg)
{
	return c->state == TCP_S_SYN_RECV && c->flags & TCP__PASSIVE && c->retransmits < c->defer && seg->seq == c->rcv_seq0 &&
	       !seg->len && seg->ack == c->snd_seq0 && (seg->flags & (TCP_F_ACK | TCP_F_SYN | TCP_F_RST | TCP_F_FIN)) == TCP_F_ACK;
}

static bool input_ack_syn_recv(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	if (seg->ack != c->snd_seq0) {
		res->reset_reply = true;
		return false;
	}
	c->snd_una = 0;
	tcp__established(c, now, res);
	c->snd_wnd_end = 0;
	/* In a SYN+ACK the window is not scaled. */
	if (seg->flags & TCP_F_SYN)
		c->snd_wnd_end = seg->wnd;
	else
		tcp__window_set(c, seg);
	return true;
}

/* TIME_WAIT, as Linux's tcp_timewait_state_process().  A SYN that may open anew was taken out by the caller. */
static void input_time_wait(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now)
{
	if (seg->seq == tcp__rcv_seq(c, c->rcv_nxt) && !seg_space(seg)) {
		ts_recent_update(c, seg, now);
		return;
	}
	if (seg->flags & TCP_F_FIN)
		tcp__enter_time_wait(c, now);
	if (seg->len || seg->flags & TCP_F_FIN)
		c->flags |= TCP__ACK_NOW;
	else
		challenge_ack(c, now);
}

static void input_synchronized(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	if (paws_rejects(c, seg, now) && !(seg->flags & TCP_F_RST)) {
		answer_unacceptable(c, seg, now);
		return;
	}
	if (!seq_acceptable(c, seg)) {
		answer_unacceptable(c, seg, now);
		return;
	}
	if (seg->flags & TCP_F_RST) {
		input_rst(c, seg, now, res);
		return;
	}
	c->last_rcv = now;
	c->keep_probes = 0;
	if (seg->flags & TCP_F_SYN && !is_simultaneous_synack(c, seg)) { /* RFC 5961 §4.2 */
		if (c->state == TCP_S_SYN_RECV && !(seg->flags & TCP_F_ACK) && seg->seq + 1 == c->rcv_seq0)
			answer_unacceptable(c, seg, now);
		else
			challenge_ack(c, now);
		return;
	}
	if (c->state == TCP_S_TIME_WAIT) {
		input_time_wait(c, seg, now);
		return;
	}
	if (!(seg->flags & TCP_F_ACK))
		return;
	if (c->state == TCP_S_SYN_RECV) {
		if (tcp_defers(c, seg)) {
			c->acked = true;
			return;
		}
		if (!input_ack_syn_recv(c, seg, now, res))
			return;
	} else {
		if (!tcp__ack(c, seg, now, res)) {
			challenge_ack(c, now);
			return;
		}
		if (c->state == TCP_S_CLOSE)
			return;
	}
	ts_recent_update(c, seg, now);
	tcp__rcv_segment(c, seg, now, res);
}

void tcp__input_general(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	switch (c->state) {
	case TCP_S_NONE:
	case TCP_S_CLOSE:
		res->reset_reply = !(seg->flags & TCP_F_RST);
		break;
	case TCP_S_SYN_SENT:
		tcp__input_syn_sent(c, seg, now, res);
		break;
	default:
		input_synchronized(c, seg, now, res);
	}
}

/* The common case: ESTABLISHED, nothing lost in either direction, next in sequence, an acknowledgement of what is in flight, and
 * either payload or progress.  Does exactly what the general path would do with it. */
static inline bool input_fast(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	uint64_t acked = seg->ack - tcp__snd_seq(c, c->snd_una);

	if (c->state != TCP_S_ESTABLISHED || (seg->flags & ~TCP_F_PSH) != TCP_F_ACK || c->ecn ||
	    seg->seq != tcp__rcv_seq(c, c->rcv_nxt) || (c->n_ooo | c->n_sacked | c->recovery | c->dupacks | seg->n_sack))
		return false;
	acked = (uint32_t)acked;
	if (acked > tcp__in_flight(c) || (!acked && !seg->len) || seg->len > tcp__rcv_wnd(c) ||
	    c->flags & (TCP__FIN_SEEN | TCP__TAIL))
		return false;
	if (c->flags & TCP__TS) {
		if (!seg->has_ts || seq_lt(seg->tsval, c->ts_recent))
			return false;
		if (c->rcv_nxt == c->rcv_acked) {
			c->ts_recent = seg->tsval;
			c->ts_recent_age = (uint32_t)(now / TCP__SEC);
		}
	}
	c->last_rcv = now;
	c->keep_probes = 0;
	c->probes = 0;
	if (acked) {
		tcp__ack_advance(c, c->snd_una + acked, seg, now);
		tcp__ack_timer(c, now);
		res->events |= TCP_EV_WRITABLE;
	}
	if (tcp__window_newer(c, seg, acked))
		tcp__window_set(c, seg);
	if (seg->len) {
		c->last_data = now;
		c->data_in++;
		res->rx_len = seg->len;
		res->rx_off = c->rcv_nxt;
		res->events |= TCP_EV_READABLE;
		c->rcv_nxt += seg->len;
		tcp__rcv_ack_policy(c, seg->len, now);
	}
	return true;
}

void tcp_input(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	*res = (struct tcp_result){ 0 };
	c->segs_in++;
	/* Linux: whatever comes lets go what only waits for more (tcp_data_snd_check), but data that acknowledges nothing */
	if (!seg->len || seg->ack != tcp__snd_seq(c, c->snd_una))
		c->flags &= ~TCP__MORE;
	if (!input_fast(c, seg, now, res))
		tcp__input_general(c, seg, now, res);
	res->delivered = tcp__delivered(c);
	res->acked = tcp__acked(c);
}
