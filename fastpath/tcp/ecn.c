/* SPDX-License-Identifier: MIT */
/*
 * Explicit congestion notification (RFC 3168), agreed to when the peer asks, as Linux's tcp_ecn = 2 does.
 *
 * Receiver: a mark on a segment is echoed (ECE on every acknowledgement) until the peer says that it slowed down (CWR).
 * Sender: new data says ECT(0); an echo halves the window once per round trip, and so does a loss, and the next new data says CWR.
 */
#include "tcp/tcp_conn.h"

enum { NOT_ECT = 0, ECT0 = 2, CE = 3, MASK = 3 };

/* RFC 3168 §6.1.1.  Linux: not if the SYN's packet is marked itself, which no host that knows the rules would send. */
void tcp__ecn_open(struct tcp_conn *c, const struct tcp_seg *syn)
{
	if ((syn->flags & (TCP_F_ECE | TCP_F_CWR)) == (TCP_F_ECE | TCP_F_CWR) && !(syn->tos & MASK))
		c->ecn = TCP__ECN_OK;
}

/* A segment that carries data was accepted.  RFC 3168 §6.1.3; Linux: acknowledgements of marks are not delayed. */
void tcp__ecn_data(struct tcp_conn *c, const struct tcp_seg *seg)
{
	if (!(c->ecn & TCP__ECN_OK))
		return;
	if (seg->flags & TCP_F_CWR) {
		c->ecn &= ~TCP__ECN_ECHO;
		c->flags |= TCP__ACK_NOW; /* Linux: its window may be a single segment now */
	}
	switch (seg->tos & MASK) {
	case NOT_ECT: /* Linux: a retransmission, probably */
		if (c->ecn & TCP__ECN_SEEN)
			c->flags |= TCP__ACK_NOW;
		break;
	case CE:
		if (!(c->ecn & TCP__ECN_ECHO))
			c->flags |= TCP__ACK_NOW;
		c->ecn |= TCP__ECN_ECHO | TCP__ECN_SEEN;
		break;
	default:
		c->ecn |= TCP__ECN_SEEN;
	}
}

/* The peer's acknowledgement was accepted.  §6.1.2: once per window of data, and not again while a loss is repaired. */
void tcp__ecn_ack(struct tcp_conn *c, const struct tcp_seg *seg)
{
	if (!(c->ecn & TCP__ECN_OK) || !(seg->flags & TCP_F_ECE) || seg->flags & TCP_F_SYN || c->recovery ||
	    c->snd_una < c->ecn_end)
		return;
	c->ssthresh = tcp__cc_on_loss(c);
	if (c->cwnd > c->ssthresh)
		c->cwnd = c->ssthresh;
	c->ecn_end = c->snd_nxt;
	c->ecn |= TCP__ECN_CWR;
}

/* What a segment that goes out says; fresh: it has data, for the first time.  §6.1.5: retransmissions are not marked as capable. */
void tcp__ecn_send(struct tcp_conn *c, struct tcp_seg *seg, bool fresh)
{
	if (!(c->ecn & TCP__ECN_OK))
		return;
	if (seg->flags & TCP_F_SYN) {
		seg->flags |= TCP_F_ECE;
		return;
	}
	if (c->ecn & TCP__ECN_ECHO)
		seg->flags |= TCP_F_ECE;
	if (!fresh)
		return;
	seg->tos = ECT0;
	if (c->ecn & TCP__ECN_CWR)
		seg->flags |= TCP_F_CWR;
	c->ecn &= ~TCP__ECN_CWR;
}
