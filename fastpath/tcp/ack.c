/* SPDX-License-Identifier: MIT */
/* The ACK field: what it acknowledges, the peer's window (RFC 9293 §3.10.7.4 fifth), the state changes that follow. */
#include "tcp/tcp_conn.h"

/* snd_una moves forward to `to`.  Round trip (RFC 6298 §3 Karn: a segment sent twice is not timed; with timestamps the echo
 * serves then, RFC 7323 §4), congestion window. */
void tcp__ack_advance(struct tcp_conn *c, uint64_t to, const struct tcp_seg *seg, uint64_t now)
{
	uint64_t acked = to - c->snd_una;
	bool grow = c->recovery == TCP__LOSS || (c->recovery == TCP__OPEN && c->snd_una < c->cwnd_full);

	c->snd_una = to;
	c->flags &= ~TCP__HOLE;
	if (c->flags & TCP__RTT_TIMING) {
		if (to >= c->rtt_end) {
			c->flags &= ~TCP__RTT_TIMING;
			tcp__rtt_sample(c, now - c->rtt_at);
		}
	} else if (c->flags & TCP__TS && seg->has_ts && seg->tsecr) {
		int32_t ms = seq_diff(tcp__ts_clock(c, now), seg->tsecr);

		if (ms >= 0 && ms < 120000)
			tcp__rtt_sample(c, (uint64_t)(ms ? ms : 1) * TCP__MS);
	}
	c->retransmits = 0;
	c->soft_error = 0;
	c->stall_at = now;
	if (c->n_sacked)
		c->n_sacked = (uint8_t)tcp__ranges_trim(c->sacked, c->n_sacked, (uint32_t)to);
	if (grow)
		tcp__cc_acked(c, acked, now);
}

/* RFC 6298 §5.2, §5.3; after loss recovery has looked at the acknowledgement, because that decides which timer it is. */
void tcp__ack_timer(struct tcp_conn *c, uint64_t now)
{
	if (c->timer > TCP__T_PERSIST)
		return;
	if (c->snd_una == c->snd_nxt)
		tcp__disarm(c);
	else
		tcp__arm_rtx(c, now);
}

void tcp__window_set(struct tcp_conn *c, const struct tcp_seg *seg)
{
	uint32_t wnd = (uint32_t)seg->wnd << c->snd_wscale;

	c->snd_wl1 = seg->seq;
	c->snd_wnd_end = c->snd_una + wnd;
	if (wnd > c->max_wnd)
		c->max_wnd = wnd;
	/* The window opened: tcp_output() looks again, and arms persist again when it is still not enough. */
	if (c->timer == TCP__T_PERSIST && c->snd_wnd_end > c->snd_nxt) {
		c->backoff = 0;
		tcp__disarm(c);
	}
}

/* RFC 9293 §3.10.7.4, as Linux (tcp_may_update_window): among segments that cannot be told apart a larger window counts, and 0. */
bool tcp__window_newer(const struct tcp_conn *c, const struct tcp_seg *seg, bool advances)
{
	uint64_t end = c->snd_una + ((uint64_t)seg->wnd << c->snd_wscale);

	return advances || seq_gt(seg->seq, c->snd_wl1) ||
	       (seg->seq == c->snd_wl1 && (end > c->snd_wnd_end || !seg->wnd));
}

/* RFC 5961 §5.2: acknowledges what was never sent, or what is too old.  Linux: and not before the first byte. */
static bool ack_acceptable(const struct tcp_conn *c, int64_t pos)
{
	uint64_t back = c->max_wnd < c->snd_una ? c->max_wnd : c->snd_una;

	return pos <= (int64_t)c->snd_nxt && pos >= (int64_t)(c->snd_una - back);
}

/* RFC 5681 §2: a duplicate acknowledgement. */
static bool is_duplicate(const struct tcp_conn *c, const struct tcp_seg *seg)
{
	return !seg->len && !(seg->flags & (TCP_F_SYN | TCP_F_FIN)) && c->snd_una != c->snd_nxt &&
	       c->snd_una + ((uint64_t)seg->wnd << c->snd_wscale) == c->snd_wnd_end;
}

static void fin_acked(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	switch (c->state) {
	case TCP_S_FIN_WAIT1:
		tcp__enter_fin_wait2(c, now, res);
		break;
	case TCP_S_CLOSING:
		tcp__enter_time_wait(c, now);
		break;
	case TCP_S_LAST_ACK:
		tcp__closed(c, res);
		break;
	default:
		break;
	}
}

/* Returns false when the segment is not to be processed further. */
bool tcp__ack(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	int64_t pos = seq_widen(c->snd_una, seg->ack - c->snd_seq0);
	uint64_t una = c->snd_una;

	if (!ack_acceptable(c, pos))
		return false;
	c->probes = 0;
	bool advances = pos > (int64_t)una;
	bool dup = pos == (int64_t)una && is_duplicate(c, seg);
	if (advances) {
		tcp__ack_advance(c, (uint64_t)pos, seg, now);
		res->events |= TCP_EV_WRITABLE;
	}
	if (pos >= (int64_t)una && tcp__window_newer(c, seg, advances))
		tcp__window_set(c, seg);
	bool open = c->recovery == TCP__OPEN;

	tcp__recover_ack(c, seg, c->snd_una - una, dup);
	tcp__ecn_ack(c, seg);
	if (advances || (open && c->recovery)) /* Linux: what is at snd_una goes again now: its time begins */
		tcp__ack_timer(c, now);
	if (advances && tcp__fin_acked(c))
		fin_acked(c, now, res);
	return true;
}
