/* SPDX-License-Identifier: MIT */
/* Ends of a connection: the application's three ways (RFC 9293 §3.10.4, §3.10.5), errors, TIME_WAIT. */
#include "tcp/tcp_conn.h"

#include <errno.h>

void tcp__closed(struct tcp_conn *c, struct tcp_result *res)
{
	c->state = TCP_S_CLOSE;
	c->flags &= ~(TCP__ACK_NOW | TCP__RARE_OUTPUT | TCP__PUSH);
	c->dupacks_due = 0;
	tcp__disarm(c);
	c->delack_at = c->keep_at = TCP__NEVER;
	if (res)
		res->events |= TCP_EV_CLOSED;
}

void tcp__fail(struct tcp_conn *c, int error, struct tcp_result *res)
{
	tcp__closed(c, res);
	res->events |= TCP_EV_ERROR;
	res->error = error;
}

void tcp__enter_time_wait(struct tcp_conn *c, uint64_t now)
{
	c->state = TCP_S_TIME_WAIT;
	c->keep_at = TCP__NEVER;
	tcp__arm(c, TCP__T_TIME_WAIT, now + c->time_wait * TCP__MS);
}

void tcp__enter_fin_wait2(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	c->state = TCP_S_FIN_WAIT2;
	if (!(c->flags & TCP__ORPHAN))
		return;
	if (c->linger2 == UINT32_MAX) { /* Linux: no time at all, and the peer is told */
		tcp__closed(c, res);
		if (res)
			res->reset_reply = true;
		else
			c->flags |= TCP__RST_DUE;
		return;
	}
	/* Linux, tcp_fin_time(): at least three and a half timeouts */
	uint64_t t = c->linger2 ? (c->linger2 - 1) * TCP__SEC : c->fin_timeout * TCP__MS, least = c->rto * 3500ull;

	tcp__arm(c, TCP__T_FIN_WAIT2, now + (t > least ? t : least));
}

void tcp_app_shutdown(struct tcp_conn *c, uint64_t now)
{
	(void)now;
	switch (c->state) {
	case TCP_S_SYN_SENT:
		tcp__closed(c, NULL);
		break;
	case TCP_S_SYN_RECV:
		c->flags |= TCP__FIN_QUEUED;
		break;
	case TCP_S_ESTABLISHED: /* Linux: the state changes at once, the FIN may have to wait behind data */
		c->flags |= TCP__FIN_QUEUED;
		c->state = TCP_S_FIN_WAIT1;
		break;
	case TCP_S_CLOSE_WAIT:
		c->flags |= TCP__FIN_QUEUED;
		c->state = TCP_S_LAST_ACK;
		break;
	default:
		break;
	}
}

void tcp_app_deaf(struct tcp_conn *c)
{
	c->flags |= TCP__DEAF;
}

void tcp_app_close(struct tcp_conn *c, uint64_t now)
{
	tcp_app_shutdown(c, now);
	if (c->state == TCP_S_CLOSE || c->flags & TCP__ORPHAN)
		return;
	c->flags |= TCP__ORPHAN;
	if (c->state == TCP_S_FIN_WAIT2)
		tcp__enter_fin_wait2(c, now, NULL);
}

/* RFC 9293 §3.10.5.  Linux: tcp_need_reset(); CLOSING and LAST_ACK only while not everything was sent. */
static bool reset_due(const struct tcp_conn *c)
{
	switch (c->state) {
	case TCP_S_SYN_RECV:
	case TCP_S_ESTABLISHED:
	case TCP_S_FIN_WAIT1:
	case TCP_S_FIN_WAIT2:
	case TCP_S_CLOSE_WAIT:
		return true;
	case TCP_S_CLOSING:
	case TCP_S_LAST_ACK:
		return !tcp__fin_sent(c);
	default:
		return false;
	}
}

void tcp_app_abort(struct tcp_conn *c, uint64_t now)
{
	bool rst = reset_due(c);

	(void)now;
	if (c->state == TCP_S_CLOSE)
		return;
	tcp__closed(c, NULL);
	if (rst)
		c->flags |= TCP__RST_DUE;
}

/* RFC 6191, RFC 9293 §3.6.1.  Linux: tcp_timewait_state_process(). */
bool tcp_time_wait_reusable(const struct tcp_conn *c, const struct tcp_seg *syn)
{
	bool ts = c->flags & TCP__TS && syn->has_ts;

	if (c->state != TCP_S_TIME_WAIT || (syn->flags & (TCP_F_SYN | TCP_F_ACK | TCP_F_RST)) != TCP_F_SYN)
		return false;
	if (ts && seq_lt(syn->tsval, c->ts_recent)) /* PAWS */
		return false;
	return seq_gt(syn->seq, tcp__rcv_seq(c, c->rcv_nxt)) || (ts && seq_gt(syn->tsval, c->ts_recent));
}

uint32_t tcp_time_wait_isn(const struct tcp_conn *c)
{
	return tcp__snd_seq(c, c->snd_nxt) + 65535 + 2;
}

int tcp_soft_error(const struct tcp_conn *c)
{
	return c->soft_error;
}

void tcp_icmp_error(struct tcp_conn *c, uint32_t seq, int error, bool hard, uint64_t now, struct tcp_result *res)
{
	*res = (struct tcp_result){ 0 };
	(void)now;
	switch (c->state) {
	case TCP_S_NONE:
	case TCP_S_CLOSE:
	case TCP_S_TIME_WAIT:
		break;
	case TCP_S_SYN_SENT: /* Linux: any unreachable ends a connect */
		if (seq == c->snd_seq0 - 1)
			tcp__fail(c, error, res);
		break;
	case TCP_S_SYN_RECV:
		if (seq == c->snd_seq0 - 1 && hard)
			tcp__fail(c, error, res);
		break;
	default: { /* RFC 5927 §4.1: only about something in flight, or just behind it.  Linux: never ends a connection by itself */
		int64_t pos = seq_widen(c->snd_una, seq - c->snd_seq0);

		if (pos >= (int64_t)c->snd_una && pos <= (int64_t)c->snd_nxt && error > 0 && error < 256)
			c->soft_error = (uint8_t)error;
	}
	}
	res->delivered = tcp__delivered(c);
	res->acked = tcp__acked(c);
}
