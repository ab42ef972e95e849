/* SPDX-License-Identifier: MIT */
/*
 * Timers.  One slot (`timer`, rtx_at) serves purposes that exclude each other: retransmission, persist, FIN_WAIT2 of an
 * orphan, TIME_WAIT.  Beside it run the delayed acknowledgement and keep-alive.  Deadlines move lazily: a keep-alive that
 * fires early looks at last_rcv and goes on sleeping.
 */
#include "tcp/tcp_conn.h"

#include <errno.h>

enum {
	ORPHAN_RETRIES = 8, /* Linux: tcp_orphan_retries() when the sysctl is 0 */
	SYN_LINEAR = 4,
};

/* ---- Round trip time, RFC 6298 ---- */
void tcp__rtt_init(struct tcp_conn *c)
{
	c->srtt8 = c->rttvar4 = 0;
	c->min_rtt = UINT32_MAX;
	c->rto = c->flags & TCP__SYN_RTX ? 3000000 : c->syn_timeout < 1000000 ? 1000000 : c->syn_timeout;
}

/* RFC 6298 §2.  Linux: the variance term, not the sum, is at least rto_min. */
static void rto_update(struct tcp_conn *c)
{
	uint64_t rto = c->srtt8 / 8 + (c->rttvar4 < c->rto_min ? c->rto_min : c->rttvar4);

	c->rto = (uint32_t)(rto > TCP__RTO_MAX / 1000 ? TCP__RTO_MAX / 1000 : rto);
}

void tcp__rtt_sample(struct tcp_conn *c, uint64_t ns)
{
	uint32_t us = ns < 1000 ? 1 : ns / 1000 > 100000000 ? 100000000 : (uint32_t)(ns / 1000);

	if (us < c->min_rtt)
		c->min_rtt = us;
	if (!c->srtt8) {
		c->srtt8 = us * 8;
		c->rttvar4 = us * 2;
	} else {
		uint32_t srtt = c->srtt8 / 8;
		uint32_t delta = us > srtt ? us - srtt : srtt - us;

		c->rttvar4 = c->rttvar4 - c->rttvar4 / 4 + delta;
		c->srtt8 = c->srtt8 - srtt + us;
		if (!c->srtt8)
			c->srtt8 = 1;
	}
	rto_update(c);
	c->backoff = 0;
}

uint64_t tcp__rto(const struct tcp_conn *c)
{
	uint64_t t = c->rto * 1000ull;

	for (unsigned i = 0; i < c->backoff && t < TCP__RTO_MAX; i++)
		t *= 2;
	return t < TCP__RTO_MAX ? t : TCP__RTO_MAX;
}

static void back_off(struct tcp_conn *c)
{
	if (c->backoff < 63)
		c->backoff++;
}

/* RFC 5482.  Linux: from the first unanswered transmission, or from the first look at a closed window. */
static bool user_timeout_over(const struct tcp_conn *c, uint64_t now)
{
	return c->user_timeout && now - c->stall_at >= c->user_timeout * TCP__MS;
}

/* Retransmission or persist, not later than the user timeout ends (Linux: tcp_clamp_rto_to_user_timeout). */
void tcp__arm_rto(struct tcp_conn *c, enum tcp__timer t, uint64_t now)
{
	uint64_t at = now + tcp__rto(c);

	if (c->user_timeout) {
		uint64_t end = c->stall_at + c->user_timeout * TCP__MS;

		if (end <= now)
			end = now + TCP__MS;
		if (at > end)
			at = end;
	}
	tcp__arm(c, t, at);
}

/*
 * Something is in flight: a probe of the tail where RFC 8985 §7.2 allows one, or a look at a hole that stays (there: RACK's
 * reordering timer, §6.3, which with two round trips has no need of a time for every segment), else retransmission.
 */
void tcp__arm_rtx(struct tcp_conn *c, uint64_t now)
{
	const uint32_t not = c->recovery ? TCP__NO_TAIL | TCP__HOLE : TCP__NO_TAIL | TCP__TAIL;
	uint64_t pto;

	if ((c->flags & (TCP__SACK | not)) != TCP__SACK || c->retransmits || !c->srtt8 || c->user_timeout) {
		tcp__arm_rto(c, TCP__T_RTO, now);
		return;
	}
	/* Two round trips; for a lone segment also the peer's delayed acknowledgement, but not later than the timeout.
	 * Linux: plus 200 ms for a lone one, else plus two ticks. */
	pto = c->srtt8 * 250ull + (tcp__in_flight(c) <= c->mss ? c->rto_min * 1000ull : 4 * TCP__MS);
	tcp__arm(c, TCP__T_PTO, now + (pto < tcp__rto(c) ? pto : tcp__rto(c)));
}

static void probe_timeout(struct tcp_conn *c, uint64_t now)
{
	uint64_t at = c->last_snd + tcp__rto(c);

	if (c->recovery | c->n_sacked) { /* no probe of the tail, a hole is in front of it */
		tcp__recover_hole(c);
		tcp__arm(c, TCP__T_RTO, at > now + tcp__rto(c) / 2 ? at : now + tcp__rto(c) / 2);
		return;
	}
	c->flags |= TCP__TAIL_DUE;
	tcp__arm_rto(c, TCP__T_RTO, now);
}

static unsigned retries_allowed(const struct tcp_conn *c)
{
	/* Linux: an orphan is given up sooner. */
	return c->flags & TCP__ORPHAN && c->data_retries > ORPHAN_RETRIES ? ORPHAN_RETRIES : c->data_retries;
}

/* ---- Retransmission ---- */
/* How long an active open may take: as if each SYN had been given twice the time of the one before (Linux: tcp_model_timeout). */
static uint64_t syn_time(const struct tcp_conn *c)
{
	uint64_t t = c->syn_timeout * 1000ull, sum = t;

	for (unsigned i = 0; i < c->syn_retries; i++) {
		t = 2 * t < TCP__RTO_MAX ? 2 * t : TCP__RTO_MAX;
		sum += t;
	}
	return sum;
}

/* Linux, tcp_syn_linear_timeouts: the first four SYNs that go again do not wait longer each time. */
static bool syn_is_linear(const struct tcp_conn *c)
{
	return c->state == TCP_S_SYN_SENT && c->retransmits <= SYN_LINEAR;
}

static bool syn_given_up(const struct tcp_conn *c, uint64_t now)
{
	if (c->state == TCP_S_SYN_SENT)
		return now - c->stall_at >= syn_time(c) || c->retransmits >= c->syn_retries + SYN_LINEAR;
	return c->retransmits >= c->syn_retries;
}

static void syn_timeout(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	/* Linux, syn_ack_recalc(): who waits for data lives that long, and repeats itself only at its end */
	bool waits = c->acked && c->retransmits < c->defer, again = !waits || c->retransmits + 1 >= c->defer;

	if ((syn_given_up(c, now) && !waits) || user_timeout_over(c, now)) {
		tcp__fail(c, c->soft_error ? c->soft_error : ETIMEDOUT, res);
		return;
	}
	c->retransmits++;
	if (!syn_is_linear(c))
		back_off(c);
	if (again)
		c->flags |= TCP__SYN_DUE | TCP__SYN_RTX;
	c->flags &= ~TCP__RTT_TIMING; /* Karn */
	tcp__arm_rto(c, TCP__T_RTO, now);
}

/* The window was taken back below what is in flight: retransmissions serve as probes, and the connection lives while the peer
 * answers (Linux: "Receiver dastardly shrinks window"). */
static bool shrunken_window_answers(const struct tcp_conn *c, uint64_t now)
{
	return c->snd_wnd_end <= c->snd_una && now - c->last_rcv < 2 * TCP__RTO_MAX;
}

static void data_timeout(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	if (c->snd_una == c->snd_nxt) {
		tcp__disarm(c);
		return;
	}
	bool over = c->retransmits >= retries_allowed(c) && !shrunken_window_answers(c, now);
	if (over || user_timeout_over(c, now)) {
		tcp__fail(c, c->soft_error ? c->soft_error : ETIMEDOUT, res);
		return;
	}
	tcp__recover_timeout(c);
	if (c->retransmits < 255)
		c->retransmits++;
	back_off(c);
	tcp__arm_rto(c, TCP__T_RTO, now);
}

/* RFC 9293 §3.8.6.1.  Runs when there is something to send, nothing in flight, and the window (or SWS avoidance, or a cork)
 * holds it back.  Linux: probes go on for ever while the peer answers them; the override of a small window or of TCP_CORK
 * is the same timer. */
static void persist_timeout(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	bool open = c->snd_wnd_end > c->snd_nxt;
	bool gone = c->probes >= retries_allowed(c);

	/* Linux: an orphan does not wait for ever for a window, even if probes are answered. */
	if (c->flags & TCP__ORPHAN && c->backoff >= ORPHAN_RETRIES && tcp__rto(c) >= TCP__RTO_MAX)
		gone = true;
	if (!open && (gone || user_timeout_over(c, now))) {
		tcp__fail(c, c->soft_error ? c->soft_error : ETIMEDOUT, res);
		return;
	}
	if (open) {
		c->flags |= TCP__PUSH;
	} else {
		c->flags |= TCP__PROBE_DUE;
		if (c->probes < 255)
			c->probes++;
		back_off(c);
	}
	tcp__arm_rto(c, TCP__T_PERSIST, now);
}

/* ---- Keep-alive, RFC 1122 §4.2.3.6 ---- */
void tcp__keepalive_restart(struct tcp_conn *c, uint64_t now)
{
	bool on = c->flags & TCP__KEEPALIVE && tcp__state_in(c, TCP__M_SYNCHRONIZED) && c->state != TCP_S_TIME_WAIT;

	c->keep_at = on ? now + c->keep_idle * TCP__SEC : TCP__NEVER;
	c->keep_probes = 0;
}

static void keepalive_timeout(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	uint64_t idle = now - c->last_rcv;

	if (!(c->flags & TCP__KEEPALIVE) || !tcp__state_in(c, TCP__M_SYNCHRONIZED) || c->state == TCP_S_TIME_WAIT) {
		c->keep_at = TCP__NEVER;
		return;
	}
	/* Retransmission or persist already watches the peer. */
	if (c->snd_una != c->snd_nxt || c->snd_nxt < c->written || idle < c->keep_idle * TCP__SEC) {
		c->keep_probes = 0;
		c->keep_at = idle < c->keep_idle * TCP__SEC ? c->last_rcv + c->keep_idle * TCP__SEC
							    : now + c->keep_idle * TCP__SEC;
		return;
	}
	/* Linux: a user timeout replaces the count of probes. */
	bool dead = c->user_timeout ? idle >= c->user_timeout * TCP__MS && c->keep_probes > 0
				    : c->keep_probes >= c->keep_cnt;
	if (dead) {
		tcp__fail(c, c->soft_error ? c->soft_error : ETIMEDOUT, res);
		c->flags |= TCP__RST_DUE;
		return;
	}
	if (c->keep_probes < 255)
		c->keep_probes++;
	c->flags |= TCP__PROBE_DUE;
	c->keep_at = now + c->keep_intvl * TCP__SEC;
}

void tcp_timer(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	*res = (struct tcp_result){ 0 };
	if (c->delack_at <= now) {
		c->delack_at = TCP__NEVER;
		c->flags |= TCP__ACK_NOW;
		c->flags &= ~TCP__PINGPONG; /* nothing to ride on: no longer interactive */
	}
	if (c->keep_at <= now)
		keepalive_timeout(c, now, res);
	if (c->rtx_at <= now) {
		switch (c->timer) {
		case TCP__T_RTO:
			if (c->state == TCP_S_SYN_SENT || c->state == TCP_S_SYN_RECV)
				syn_timeout(c, now, res);
			else
				data_timeout(c, now, res);
			break;
		case TCP__T_PTO:
			probe_timeout(c, now);
			break;
		case TCP__T_PERSIST:
			persist_timeout(c, now, res);
			break;
		case TCP__T_FIN_WAIT2:
		case TCP__T_TIME_WAIT:
			tcp__closed(c, res);
			break;
		default:
			tcp__disarm(c);
		}
	}
	res->delivered = tcp__delivered(c);
	res->acked = tcp__acked(c);
}

uint64_t tcp_deadline(const struct tcp_conn *c)
{
	uint64_t t = c->rtx_at < c->delack_at ? c->rtx_at : c->delack_at;

	return t < c->keep_at ? t : c->keep_at;
}
