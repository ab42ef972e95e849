/* SPDX-License-Identifier: MIT */
/* Invariants of struct tcp_conn that hold between any two calls of the engine. */
#include "sim.h"

static const char *check_ranges(const struct tcp_range *r, unsigned n, uint64_t low, uint64_t high)
{
	int64_t at = (int64_t)low;

	for (unsigned i = 0; i < n; i++) {
		int64_t l = seq_widen(low, r[i].left), e = seq_widen(low, r[i].right);

		if (l <= at)
			return "ranges touch each other or the edge";
		if (e <= l)
			return "empty range";
		at = e;
	}
	return n && at > (int64_t)high ? "range beyond the end" : NULL;
}

const char *sim_check(const struct tcp_conn *c)
{
	const char *bad;

	if (c->state == TCP_S_CLOSE)
		return tcp_deadline(c) != UINT64_MAX ? "closed, but a timer runs" : NULL;
	if (c->snd_una > c->snd_nxt)
		return "snd_una > snd_nxt";
	if (c->snd_nxt > c->written + !!(c->flags & TCP__FIN_QUEUED))
		return "snd_nxt beyond what was written";
	if (c->state == TCP_S_SYN_SENT)
		return NULL;
	if (c->rcv_acked > c->rcv_nxt)
		return "acknowledged more than arrived";
	if (tcp__delivered(c) > c->rcv_adv)
		return "delivered beyond the window";
	if (c->rcv_adv > c->rcv_limit)
		return "window beyond the limit";
	if (c->n_ooo > TCP__OOO_MAX || c->n_sacked > TCP__SACKED_MAX)
		return "too many ranges";
	if ((bad = check_ranges(c->ooo, c->n_ooo, c->rcv_nxt, c->rcv_adv)))
		return bad;
	/* The first sacked range may touch snd_una when the peer takes back what it sacked. */
	if (c->n_sacked && seq_diff(c->sacked[0].left, (uint32_t)c->snd_una) < 0)
		return "sacked below snd_una";
	if (c->n_sacked > 1 && (bad = check_ranges(c->sacked + 1, c->n_sacked - 1u,
						   (uint64_t)seq_widen(c->snd_una, c->sacked[0].right), c->snd_nxt)))
		return bad;
	if (c->state != TCP_S_SYN_RECV && (c->cwnd < c->mss || !c->ssthresh))
		return "congestion window below one segment";
	if (tcp__pipe(c) > tcp__in_flight(c))
		return "pipe larger than what is in flight";
	if (c->snd_una != c->snd_nxt && c->timer != TCP__T_RTO && c->timer != TCP__T_PTO &&
	    !(c->flags & TCP__HEAD_DUE))
		return "in flight without retransmission timer";
	if (c->state == TCP_S_TIME_WAIT && c->timer != TCP__T_TIME_WAIT)
		return "TIME_WAIT without timer";
	return NULL;
}
