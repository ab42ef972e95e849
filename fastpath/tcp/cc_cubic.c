/* SPDX-License-Identifier: MIT */
/*
 * CUBIC, RFC 9438.  W(t) = C (t - K)^3 + origin, with C = 0.4 segments/s^3 and beta = 0.7; t counts from the first
 * acknowledgement of an epoch (after a loss or idleness).  Windows in bytes, time in milliseconds, integers only.
 */
#include "tcp/tcp_conn.h"

enum { T_MAX = 1 << 17 }; /* ms; keeps the cube of t in 64 bits */

static uint32_t cube_root(uint64_t a)
{
	uint32_t r = 0;

	for (int bit = 20; bit >= 0; bit--) {
		uint64_t t = r | 1u << bit;

		if (t * t * t <= a)
			r = (uint32_t)t;
	}
	return r;
}

static void begin_epoch(struct tcp_conn *c, uint64_t now)
{
	c->cc_epoch = now ? now : 1;
	c->cc_west = c->cwnd;
	c->cc_acc = c->cc_acc_west = 0;
	if (c->cwnd < c->cc_wmax) { /* §4.2: K = cbrt((W_max - cwnd) / C), here in ms */
		c->cc_k = cube_root((uint64_t)(c->cc_wmax - c->cwnd) * 2500000000u / c->mss);
		c->cc_origin = c->cc_wmax;
	} else {
		c->cc_k = 0;
		c->cc_origin = c->cwnd;
	}
}

/* §4.2, at t ms into the epoch. */
static uint64_t w_cubic(const struct tcp_conn *c, uint64_t t)
{
	bool below = t < c->cc_k;
	uint64_t d = below ? c->cc_k - t : t - c->cc_k;

	if (d > T_MAX)
		d = T_MAX;
	d = d * d * d / 1000 * c->mss / 2500000;
	if (below)
		return d < c->cc_origin ? c->cc_origin - d : 0;
	return c->cc_origin + d;
}

/* §4.3: what Reno would have, with additive increase 3 (1 - beta) / (1 + beta) = 9/17. */
static void reno_friendly(struct tcp_conn *c, uint64_t acked)
{
	uint64_t x = acked * c->mss * 9 / 17 + c->cc_acc_west;

	c->cc_west += (uint32_t)(x / c->cc_west);
	c->cc_acc_west = (uint32_t)(x % c->cc_west);
	if (c->cc_west > c->cwnd)
		c->cwnd = c->cc_west;
}

void tcp__cubic_acked(struct tcp_conn *c, uint64_t acked, uint64_t now)
{
	uint64_t target, most = c->cwnd + c->cwnd / 2;

	if (!c->cc_epoch)
		begin_epoch(c, now);
	target = w_cubic(c, (now - c->cc_epoch) / TCP__MS + c->srtt8 / 8000);
	if (target > most) /* §4.2 */
		target = most;
	if (target > c->cwnd) {
		uint64_t x = (target - c->cwnd) * acked + c->cc_acc;

		c->cc_acc = (uint32_t)(x % c->cwnd);
		x = x / c->cwnd + c->cwnd;
		c->cwnd = x > UINT32_MAX / 2 ? UINT32_MAX / 2 : (uint32_t)x;
	}
	reno_friendly(c, acked);
}

/* §4.6, §4.7 fast convergence. */
uint32_t tcp__cubic_on_loss(struct tcp_conn *c)
{
	uint64_t w = c->cwnd;

	c->cc_wmax = (uint32_t)(w < c->cc_wmax ? w * 17 / 20 : w);
	c->cc_epoch = 0;
	return (uint32_t)(w * 7 / 10);
}
