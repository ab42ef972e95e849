/* SPDX-License-Identifier: MIT */
/* Congestion window in bytes: slow start, Reno's avoidance (RFC 5681), restart after idleness; CUBIC is in cc_cubic.c. */
#include "tcp/tcp_conn.h"

enum { IW_SEGMENTS = 10 }; /* RFC 6928 */

uint32_t tcp__initial_window(const struct tcp_conn *c)
{
	/* RFC 5681 §3.1: one segment when the SYN was lost.  Linux: when it was lost more than once. */
	return (uint32_t)c->mss * (c->total_retrans > 1 ? 1 : IW_SEGMENTS);
}

void tcp__cc_init(struct tcp_conn *c)
{
	c->cwnd = tcp__initial_window(c);
	c->ssthresh = UINT32_MAX;
	c->cc_epoch = 0;
	c->cc_wmax = c->cc_acc = 0;
}

static void grow(struct tcp_conn *c, uint64_t by)
{
	uint64_t w = c->cwnd + by;

	c->cwnd = w > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)w;
}

/* One segment per window of acknowledged bytes (RFC 5681 §3.1 (3), RFC 3465). */
static void reno_acked(struct tcp_conn *c, uint64_t acked)
{
	uint64_t x = acked * c->mss + c->cc_acc;

	grow(c, x / c->cwnd);
	c->cc_acc = (uint32_t)(x % c->cwnd);
}

/* New data was sent.  A window that is not used must not grow (RFC 7661; Linux: tcp_is_cwnd_limited). */
void tcp__cc_sent(struct tcp_conn *c)
{
	uint64_t flight = tcp__in_flight(c);

	if (c->cwnd < c->ssthresh ? 2 * flight > c->cwnd : flight + c->mss > c->cwnd)
		c->cwnd_full = c->snd_nxt;
}

/* Of a window that was in use, `acked` bytes are acknowledged. */
void tcp__cc_acked(struct tcp_conn *c, uint64_t acked, uint64_t now)
{
	if (c->cwnd < c->ssthresh) {
		uint64_t part = c->ssthresh - c->cwnd < acked ? c->ssthresh - c->cwnd : acked;

		grow(c, part);
		acked -= part;
	}
	if (!acked)
		return;
	if (c->cc == TCP_CC_CUBIC)
		tcp__cubic_acked(c, acked, now);
	else
		reno_acked(c, acked);
}

uint32_t tcp__cc_on_loss(struct tcp_conn *c)
{
	/* Linux: half of the window, not of what is in flight. */
	uint32_t t = c->cc == TCP_CC_CUBIC ? tcp__cubic_on_loss(c) : c->cwnd / 2;

	return t > 2u * c->mss ? t : 2u * c->mss;
}

/* RFC 5681 §4.1.  Linux: half per RTO of idleness, not below the initial window. */
void tcp__cc_idle(struct tcp_conn *c, uint64_t now)
{
	uint64_t idle = now - c->last_snd, rto = tcp__rto(c);
	uint32_t restart = (uint32_t)c->mss * IW_SEGMENTS, w = c->cwnd;

	if (idle <= rto)
		return;
	if (c->ssthresh != UINT32_MAX && c->ssthresh < w - w / 4)
		c->ssthresh = w - w / 4;
	if (restart > w)
		restart = w;
	for (; idle > rto && w > restart; idle -= rto)
		w /= 2;
	c->cwnd = w > restart ? w : restart;
	c->cc_epoch = 0;
	c->cc_acc = 0;
}
