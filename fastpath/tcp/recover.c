/* SPDX-License-Identifier: MIT */
/*
 * Loss recovery: NewReno (RFC 6582) without SACK, RFC 6675 with it, and after a timeout.
 *
 * One picture serves all three.  [rtx_next, lost_end) minus what is sacked is believed lost and not sent again yet.  The pipe
 * estimate is what was sent, minus what is sacked, minus that; tcp_output() fills the congestion window with
 * retransmissions from rtx_next first, then with new data.  The three differ in how lost_end moves:
 *
 *   NewReno   one segment at snd_una, again at each partial acknowledgement; duplicates count as sacked segments
 *   SACK      up to the hole above which enough was sacked (IsLost), or a tail loss probe was
 *   timeout   everything that was in flight
 *
 * A retransmission that is lost itself is noticed (SACK) when data first sent after it is sacked: rtx_mark.
 */
#include "tcp/tcp_conn.h"

static uint64_t widen(const struct tcp_conn *c, uint32_t pos)
{
	return (uint64_t)seq_widen(c->snd_una, pos);
}

static uint64_t from_una(const struct tcp_conn *c, uint64_t pos)
{
	return pos > c->snd_una ? pos : c->snd_una;
}

/* Sacked bytes in [from, to). */
static uint64_t sacked_between(const struct tcp_conn *c, uint64_t from, uint64_t to)
{
	uint64_t sum = 0;

	for (unsigned i = 0; i < c->n_sacked; i++) {
		uint64_t l = widen(c, c->sacked[i].left), r = widen(c, c->sacked[i].right);

		if (l < from)
			l = from;
		if (r > to)
			r = to;
		if (l < r)
			sum += r - l;
	}
	return sum;
}

uint64_t tcp__sacked(const struct tcp_conn *c)
{
	return c->n_sacked ? sacked_between(c, c->snd_una, c->snd_nxt) : 0;
}

uint64_t tcp__lost(const struct tcp_conn *c)
{
	return c->recovery && c->lost_end > c->snd_una ? c->lost_end - c->snd_una - sacked_between(c, c->snd_una, c->lost_end) : 0;
}

/* RFC 6675 §4 SetPipe(). */
uint64_t tcp__pipe(const struct tcp_conn *c)
{
	uint64_t flight = tcp__in_flight(c), out = 0, from;

	if (!(c->n_sacked | c->recovery | c->dupacks))
		return flight;
	if (c->flags & TCP__SACK)
		out = sacked_between(c, c->snd_una, c->snd_nxt);
	else if (c->recovery != TCP__LOSS)
		out = (uint64_t)c->dupacks * c->mss;
	from = from_una(c, c->rtx_next);
	if (c->recovery && c->lost_end > from)
		out += c->lost_end - from - sacked_between(c, from, c->lost_end);
	return out < flight ? flight - out : 0;
}

/* The next hole to send again: [*from, *to).  any: not only below lost_end, but below anything that was sacked (RFC 6675 §4
 * NextSeg() rule 3). */
bool tcp__recover_next(const struct tcp_conn *c, bool any, uint64_t *from, uint64_t *to)
{
	uint64_t pos = from_una(c, c->rtx_next), end = c->lost_end;

	if (any && c->n_sacked)
		end = widen(c, c->sacked[c->n_sacked - 1].left);
	for (unsigned i = 0; i < c->n_sacked; i++) {
		uint64_t l = widen(c, c->sacked[i].left), r = widen(c, c->sacked[i].right);

		if (r <= pos)
			continue;
		if (l > pos) {
			if (l < end)
				end = l;
			break;
		}
		pos = r;
	}
	*from = pos;
	*to = end;
	return pos < end;
}

/* RFC 2018 §5, RFC 6675 §5.  Returns whether anything new was learnt. */
static bool scoreboard_update(struct tcp_conn *c, const struct tcp_seg *seg)
{
	bool grew, any = false;

	for (unsigned i = 0; i < seg->n_sack; i++) {
		int64_t l = seq_widen(c->snd_una, seg->sack[i].left - c->snd_seq0);
		int64_t r = seq_widen(c->snd_una, seg->sack[i].right - c->snd_seq0);

		/* At or below snd_una: a duplicate was reported (RFC 2883). */
		if (l <= (int64_t)c->snd_una || r <= l || r > (int64_t)c->snd_nxt)
			continue;
		c->n_sacked = (uint8_t)tcp__ranges_add(c->sacked, c->n_sacked, TCP__SACKED_MAX, (uint32_t)l,
						       (uint32_t)r, &grew);
		any |= grew;
	}
	return any;
}

/* RFC 6675 §4 IsLost(): end of the highest hole above which DupThresh ranges, or more than DupThresh - 1 segments, are
 * sacked. */
static uint64_t lost_below(const struct tcp_conn *c)
{
	uint64_t sum = 0;

	for (unsigned i = c->n_sacked, above = 0; i > 0; i--) {
		sum += c->sacked[i - 1].right - c->sacked[i - 1].left;
		if (++above >= TCP__DUP_THRESH || sum > (TCP__DUP_THRESH - 1u) * c->mss)
			return widen(c, c->sacked[i - 1].left);
	}
	return c->snd_una;
}

static void mark_lost(struct tcp_conn *c, uint64_t end)
{
	if (end > c->lost_end)
		c->lost_end = end < c->snd_nxt ? end : c->snd_nxt;
}

static void begin(struct tcp_conn *c, enum tcp__recovery how)
{
	c->recovery = (uint8_t)how;
	c->recover = c->rtx_mark = c->snd_nxt;
	c->rtx_next = c->lost_end = c->snd_una;
	c->flags |= TCP__HEAD_DUE;
	c->flags &= ~(TCP__RTT_TIMING | TCP__TAIL | TCP__TAIL_DUE); /* Karn; no tail probe any more */
}

/* RFC 6582 §3.2 step 1, 4: not again for what a timeout has already repaired. */
static bool may_enter(const struct tcp_conn *c)
{
	return c->snd_una != c->snd_nxt && (c->flags & TCP__SACK || !(c->flags & TCP__HAD_RTO) || c->snd_una > c->recover);
}

static void enter_recovery(struct tcp_conn *c)
{
	c->ssthresh = tcp__cc_on_loss(c);
	c->cwnd = c->ssthresh;
	begin(c, TCP__RECOVERY);
	c->flags &= ~TCP__HAD_RTO;
	mark_lost(c, c->snd_una + c->mss);
	mark_lost(c, lost_below(c));
}

static void leave(struct tcp_conn *c)
{
	if (c->recovery == TCP__RECOVERY && c->cwnd > c->ssthresh)
		c->cwnd = c->ssthresh;
	c->recovery = TCP__OPEN;
	c->dupacks = 0;
	c->flags &= ~TCP__HEAD_DUE;
}

/* RFC 6582 §3.2 step 3: the next segment is lost as well; the window deflates by what was acknowledged. */
static void newreno_partial(struct tcp_conn *c, uint64_t acked)
{
	uint64_t segs = (acked + c->mss - 1) / c->mss;

	c->dupacks = segs > c->dupacks ? 0 : (uint8_t)(c->dupacks - segs + 1);
	c->rtx_next = c->snd_una;
	c->lost_end = c->snd_una;
	mark_lost(c, c->snd_una + c->mss);
	c->flags |= TCP__HEAD_DUE;
}

static void in_recovery(struct tcp_conn *c, uint64_t acked, bool dup)
{
	if (c->snd_una >= c->recover) {
		leave(c);
		return;
	}
	if (!(c->flags & TCP__SACK)) {
		if (c->recovery == TCP__LOSS)
			return;
		if (acked)
			newreno_partial(c, acked);
		else if (dup && c->dupacks < 255)
			c->dupacks++;
		return;
	}
	if (acked) {
		c->rtx_mark = c->snd_nxt;
	} else if (sacked_between(c, c->rtx_mark, c->snd_nxt) > (TCP__DUP_THRESH - 1u) * c->mss) {
		c->rtx_mark = c->snd_nxt; /* the retransmission was lost too */
		c->flags |= TCP__HEAD_DUE;
	}
	mark_lost(c, lost_below(c));
}

/* RFC 8985 §7.4.2.  Was the tail lost, and repaired by the probe?  Then it counts as congestion. */
static void tail_acked(struct tcp_conn *c, const struct tcp_seg *seg, bool advances, bool dup)
{
	bool dsack = seg->n_sack && seq_leq(seg->sack[0].right, seg->ack);

	if (c->snd_una < c->tail_end)
		return;
	if (!(c->flags & TCP__TAIL_RTX) || dsack || (!advances && dup)) {
		c->flags &= ~TCP__TAIL;
	} else if (c->snd_una > c->tail_end) {
		c->flags &= ~TCP__TAIL;
		c->ssthresh = tcp__cc_on_loss(c);
		c->cwnd = c->ssthresh;
	}
}

/* The probe arrived and something before it did not; after two round trips that is no reordering. */
static bool tail_shows_loss(const struct tcp_conn *c)
{
	return c->flags & TCP__TAIL && c->n_sacked && widen(c, c->sacked[c->n_sacked - 1].right) >= c->tail_end;
}

/* After each acknowledgement in window; acked: by how much snd_una moved. */
void tcp__recover_ack(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t acked, bool dup)
{
	bool tail;

	if (!(c->recovery | c->n_sacked | c->dupacks | seg->n_sack) && !dup && !(c->flags & TCP__TAIL))
		return;
	if (c->flags & TCP__TAIL)
		tail_acked(c, seg, acked, dup);
	if (c->flags & TCP__SACK)
		dup = scoreboard_update(c, seg) && !acked;
	if (c->recovery) {
		in_recovery(c, acked, dup);
		return;
	}
	if (acked)
		c->dupacks = 0;
	else if (dup && c->dupacks < 255)
		c->dupacks++;
	tail = tail_shows_loss(c);
	if ((c->dupacks >= TCP__DUP_THRESH || lost_below(c) > c->snd_una || tail) && may_enter(c)) {
		enter_recovery(c);
		if (tail)
			mark_lost(c, widen(c, c->sacked[c->n_sacked - 1].left));
	}
}

/* What was sent after the segment at snd_una is sacked, or that segment was sent again, and for two round trips it has not been
 * acknowledged: lost (RFC 8985 §6.2).  Once until snd_una moves; after that it is the retransmission timeout's. */
void tcp__recover_hole(struct tcp_conn *c)
{
	if (!c->recovery) {
		if (!may_enter(c))
			return;
		enter_recovery(c);
		mark_lost(c, widen(c, c->sacked[c->n_sacked - 1].left));
	}
	c->rtx_mark = c->snd_nxt;
	c->flags |= TCP__HEAD_DUE | TCP__HOLE;
}

/* RFC 6298 §5.4..5.6, RFC 5681 §3.1. */
void tcp__recover_timeout(struct tcp_conn *c)
{
	/* Linux: once per window of data. */
	if (!c->retransmits && c->recovery != TCP__RECOVERY)
		c->ssthresh = tcp__cc_on_loss(c);
	/* RFC 2018 §8: the receiver gave up what it had sacked: what is first in the queue was reported once. */
	if (c->n_sacked && widen(c, c->sacked[0].left) <= c->snd_una)
		c->n_sacked = 0;
	c->cwnd = c->mss;
	c->dupacks = 0;
	begin(c, TCP__LOSS);
	c->flags |= TCP__HAD_RTO;
	mark_lost(c, c->snd_nxt);
}

/* RFC 1191 §6.5.  Linux: tcp_simple_retransmit(): what was too large goes again, and it was not congestion. */
void tcp_path_mtu(struct tcp_conn *c, uint32_t seq, uint16_t mss, uint64_t now)
{
	int64_t pos = seq_widen(c->snd_una, seq - c->snd_seq0);

	(void)now;
	if (!tcp__state_in(c, TCP__M_MAY_SEND) || mss >= c->mss_base || pos < (int64_t)c->snd_una ||
	    pos >= (int64_t)c->snd_nxt)
		return;
	tcp__set_mss(c, mss);
	if (c->recovery == TCP__LOSS)
		return;
	begin(c, TCP__RECOVERY);
	if (c->ssthresh < c->cwnd)
		c->ssthresh = c->cwnd;
	mark_lost(c, c->snd_nxt);
}
