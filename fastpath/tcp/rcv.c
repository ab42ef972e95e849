/* SPDX-License-Identifier: MIT */
/*
 * Receiving: where payload goes, reassembly, when to acknowledge, which window to offer.
 *
 * Bytes land in place even when they come out of order; `ooo` only remembers which ranges beyond rcv_nxt are there.  A segment
 * that would need a 33rd range is refused (rx_len 0): the peer sends it again when holes have closed.
 */
#include "tcp/tcp_conn.h"

#include <errno.h>

enum { ACK_WAITS = 10 };

/* Everything that decides acceptance of payload is here, so that tcp_rx_want() and tcp_input() cannot disagree. */
struct tcp_rx_want tcp__rcv_place(const struct tcp_conn *c, const struct tcp_seg *seg)
{
	struct tcp_rx_want none = { .off = c->rcv_nxt }, w;
	uint64_t limit = c->rcv_adv;
	int64_t pos;

	if (!seg->len || seg->flags & (TCP_F_SYN | TCP_F_RST) || !(seg->flags & TCP_F_ACK))
		return none;
	if (!tcp__state_in(c, TCP__M_MAY_RECEIVE | 1u << TCP_S_SYN_RECV) || c->flags & (TCP__FIN_RCVD | TCP__ORPHAN))
		return none;
	if (c->flags & TCP__FIN_SEEN && c->rcv_fin < limit)
		limit = c->rcv_fin;
	pos = seq_widen(c->rcv_nxt, seg->seq - c->rcv_seq0);
	w.skip = pos < (int64_t)c->rcv_nxt ? (uint32_t)((int64_t)c->rcv_nxt - pos) : 0;
	if (w.skip >= seg->len)
		return none;
	w.off = (uint64_t)(pos + w.skip);
	if (w.off >= limit)
		return none;
	w.len = seg->len - w.skip;
	if (w.len > limit - w.off)
		w.len = (uint32_t)(limit - w.off);
	if (c->n_ooo) {
		uint32_t l = (uint32_t)w.off, r = l + w.len;

		if (tcp__ranges_cover(c->ooo, c->n_ooo, l, r))
			return none;
		if (w.off != c->rcv_nxt && c->n_ooo == TCP__OOO_MAX && tcp__ranges_apart(c->ooo, c->n_ooo, l, r))
			return none;
	}
	return w;
}

struct tcp_rx_want tcp_rx_want(const struct tcp_conn *c, const struct tcp_seg *seg)
{
	return tcp__rcv_place(c, seg);
}

uint64_t tcp_rx_high(const struct tcp_conn *c)
{
	if (!c->n_ooo)
		return tcp__delivered(c);
	return (uint64_t)seq_widen(c->rcv_nxt, c->ooo[c->n_ooo - 1].right);
}

uint64_t tcp_rx_urgent(const struct tcp_conn *c)
{
	return c->flags & TCP__URG_RCV ? c->rcv_urg : UINT64_MAX;
}

/* ---- Acknowledging ---- */
/*
 * Due now.  But a segment that carries nothing else costs both ends as much as one with data, and the application is about to hear of what
 * came: its answer, or its own FIN, takes the acknowledgement along if it comes within ack_wait.
 */
static void ack_soon(struct tcp_conn *c, uint64_t now)
{
	uint64_t at = now + c->ack_wait * 1000ull;

	if (!c->ack_wait || c->flags & TCP__QUICKACK) {
		c->flags |= TCP__ACK_NOW;
	} else if (at < c->delack_at) {
		c->delack_at = at;
		c->ack_waits = 1;
	}
}

void tcp_app_slow(struct tcp_conn *c, uint64_t now)
{
	if (!c->ack_waits || c->ack_waits == ACK_WAITS || c->delack_at > now)
		return;
	c->delack_at = now + c->ack_wait * 1000ull;
	c->ack_waits++;
}

/* RFC 9293 §3.8.6.3, RFC 5681 §4.2: at least every second full segment, and within the delay.  Linux: the first ones and
 * those of a one-way transfer's start are not delayed. */
void tcp__rcv_ack_policy(struct tcp_conn *c, uint32_t len, uint64_t now)
{
	if (len > c->rcv_mss)
		c->rcv_mss = (uint16_t)(len < c->mss_adv ? len : c->mss_adv);
	if (c->flags & TCP__QUICKACK || c->rcv_nxt - c->rcv_acked >= 2u * c->rcv_mss)
		c->flags |= TCP__ACK_NOW;
	else if (c->quick && !(c->flags & TCP__PINGPONG))
		ack_soon(c, now);
	else if (c->delack_at == TCP__NEVER)
		c->delack_at = now + c->delack * 1000ull;
}

static void ack_at_once(struct tcp_conn *c)
{
	c->flags |= TCP__ACK_NOW;
	/* A peer without SACK counts duplicates; one with SACK reads the blocks. */
	if (!(c->flags & TCP__SACK) && c->dupacks_due < 255)
		c->dupacks_due++;
}

/* RFC 2883: what came twice. */
static void report_duplicate(struct tcp_conn *c, uint64_t from, uint64_t to)
{
	if (!(c->flags & TCP__SACK) || from >= to)
		return;
	c->flags |= TCP__DSACK;
	c->dsack_left = (uint32_t)from;
	c->dsack_right = (uint32_t)to;
}

/* ---- Reassembly ---- */
static void pull_ooo(struct tcp_conn *c)
{
	while (c->n_ooo && seq_leq(c->ooo[0].left, (uint32_t)c->rcv_nxt)) {
		int64_t right = seq_widen(c->rcv_nxt, c->ooo[0].right);

		if (right > (int64_t)c->rcv_nxt)
			c->rcv_nxt = (uint64_t)right;
		c->n_ooo = (uint8_t)tcp__ranges_trim(c->ooo, c->n_ooo, (uint32_t)right);
	}
}

static void place_payload(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	struct tcp_rx_want w = tcp__rcv_place(c, seg);
	int64_t pos = seq_widen(c->rcv_nxt, seg->seq - c->rcv_seq0);
	bool grew;

	if (!w.len) { /* old, outside the window, or no range left */
		if (pos >= 0 && pos + seg->len <= (int64_t)tcp_rx_high(c))
			report_duplicate(c, (uint64_t)pos, (uint64_t)pos + seg->len);
		ack_at_once(c);
		return;
	}
	if (w.skip && pos >= 0)
		report_duplicate(c, (uint64_t)pos, c->rcv_nxt);
	res->rx_skip = w.skip;
	res->rx_len = w.len;
	res->rx_off = w.off;
	if (w.off != c->rcv_nxt) {
		uint32_t l = (uint32_t)w.off;

		c->n_ooo = (uint8_t)tcp__ranges_add(c->ooo, c->n_ooo, TCP__OOO_MAX, l, l + w.len, &grew);
		c->ooo_recent = l;
		ack_at_once(c);
		return;
	}
	c->rcv_nxt += w.len;
	res->events |= TCP_EV_READABLE;
	if (c->n_ooo) { /* RFC 5681 §4.2: a segment that fills a gap is acknowledged at once */
		pull_ooo(c);
		c->flags |= TCP__ACK_NOW;
		c->dupacks_due = 0;
	}
	tcp__rcv_ack_policy(c, w.len, now);
	if (w.skip)
		c->flags |= TCP__ACK_NOW;
}

/* ---- FIN, RFC 9293 §3.10.7.4 eighth ---- */
static void fin_in_order(struct tcp_conn *c, uint64_t now, struct tcp_result *res)
{
	c->rcv_nxt++;
	c->flags |= TCP__FIN_RCVD;
	c->flags &= ~TCP__PINGPONG;
	if (c->state == TCP_S_ESTABLISHED)
		ack_soon(c, now);
	else
		c->flags |= TCP__ACK_NOW;
	res->events |= TCP_EV_FIN;
	switch (c->state) {
	case TCP_S_ESTABLISHED:
		c->state = TCP_S_CLOSE_WAIT;
		break;
	case TCP_S_FIN_WAIT1:
		c->state = TCP_S_CLOSING;
		break;
	case TCP_S_FIN_WAIT2:
		tcp__enter_time_wait(c, now);
		break;
	}
}

static void note_fin(struct tcp_conn *c, const struct tcp_seg *seg)
{
	int64_t fin = seq_widen(c->rcv_nxt, seg->seq - c->rcv_seq0) + seg->len;

	if (c->flags & (TCP__FIN_RCVD | TCP__FIN_SEEN)) {
		c->flags |= TCP__ACK_NOW;
		return;
	}
	if (fin < (int64_t)c->rcv_nxt || fin < (int64_t)tcp_rx_high(c)) /* before data that we have: nonsense */
		return;
	/* Its position may be the right edge itself (Linux: a bare FIN is taken with a closed window). */
	if ((uint64_t)fin > c->rcv_adv)
		return;
	c->rcv_fin = (uint64_t)fin;
	c->flags |= TCP__FIN_SEEN;
	if ((uint64_t)fin != c->rcv_nxt && !seg->len) /* its payload's place has been answered */
		ack_at_once(c);
}

/* ---- Urgent pointer ---- */
/* Linux: the pointer names the byte behind the urgent one (as RFC 793 was read by BSD, against RFC 1122 §4.2.2.4). */
static void note_urgent(struct tcp_conn *c, const struct tcp_seg *seg, struct tcp_result *res)
{
	int64_t at = seq_widen(c->rcv_nxt, seg->seq - c->rcv_seq0) + seg->urg - (seg->urg ? 1 : 0);

	if (at < (int64_t)c->rcv_nxt || (c->flags & TCP__URG_RCV && at <= (int64_t)c->rcv_urg))
		return;
	c->rcv_urg = (uint64_t)at;
	c->flags |= TCP__URG_RCV;
	res->events |= TCP_EV_URG;
}

/* Sixth to eighth step: URG, payload, FIN. */
void tcp__rcv_segment(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res)
{
	bool fin = seg->flags & TCP_F_FIN;

	if (!seg->len && !fin && !(seg->flags & TCP_F_URG))
		return;
	if (!tcp__state_in(c, TCP__M_MAY_RECEIVE)) { /* behind the peer's FIN: ignored, but a FIN again is acknowledged */
		if (seg->len || fin)
			c->flags |= TCP__ACK_NOW;
		return;
	}
	if (seg->flags & TCP_F_URG)
		note_urgent(c, seg, res);
	if ((c->flags & TCP__ORPHAN || (c->flags & TCP__DEAF && c->state != TCP_S_ESTABLISHED)) && seg->len &&
	    seq_gt(seg->seq + seg->len, tcp__rcv_seq(c, c->rcv_nxt))) {
		/* RFC 1122 §4.2.2.13: data that nobody will read is answered by RST.  Linux: also after shutdown(SHUT_RDWR);
		 * while only reading is shut, it is taken. */
		if (c->flags & TCP__ORPHAN)
			tcp__closed(c, res);
		else
			tcp__fail(c, ECONNRESET, res);
		res->reset_reply = true;
		return;
	}
	if (seg->len) {
		c->last_data = now;
		c->data_in++;
		tcp__ecn_data(c, seg);
		place_payload(c, seg, now, res);
	}
	if (fin)
		note_fin(c, seg);
	if (c->flags & TCP__FIN_SEEN && !(c->flags & TCP__FIN_RCVD) && c->rcv_nxt == c->rcv_fin)
		fin_in_order(c, now, res);
}

/* ---- Window ---- */
/* What the caller's limit would allow now. */
static uint32_t window_free(const struct tcp_conn *c)
{
	uint64_t max = 65535ull << c->rcv_wscale;
	uint64_t w = c->rcv_limit > c->rcv_nxt ? c->rcv_limit - c->rcv_nxt : 0;

	return (uint32_t)(w < max ? w : max);
}

/* RFC 9293 §3.8.6.2.2: the right edge moves by at least a segment or half of the buffer. */
static uint32_t window_step(const struct tcp_conn *c)
{
	uint32_t half = c->rcv_big / 2;

	return half < c->rcv_mss ? half : c->rcv_mss;
}

/* The window field for a segment that goes out now; advances rcv_adv. */
uint16_t tcp__rcv_select_window(struct tcp_conn *c)
{
	uint32_t freew = window_free(c), cur = tcp__rcv_wnd(c), wnd = freew;
	unsigned s = c->rcv_wscale;

	if (freew > c->rcv_big)
		c->rcv_big = freew;
	/* SWS avoidance: keep the edge that the peer knows.  The field counts in steps of the scale; round up where the
	 * limit allows, so that the edge does not go back by the rounding (RFC 7323 §2.4).  A window that is wide open is not silly:
	 * its edge follows every byte, as Linux's does, and the field stays the same, which keeps the peer on its fast path. */
	if (freew < cur + window_step(c) && (freew < c->rcv_big / 2 || freew >> s << s < cur)) {
		wnd = (cur + (1u << s) - 1) >> s << s;
		if (wnd > freew)
			wnd = cur;
	}
	uint32_t field = wnd >> s;
	if (field > 65535)
		field = 65535;
	if (field && c->rcv_nxt + ((uint64_t)field << s) > c->rcv_adv)
		c->rcv_adv = c->rcv_nxt + ((uint64_t)field << s);
	return (uint16_t)field;
}

/* Is an acknowledgement worth sending only to open the window?  Linux (tcp_cleanup_rbuf): when it would double. */
bool tcp__rcv_update_due(const struct tcp_conn *c)
{
	uint32_t freew, cur = tcp__rcv_wnd(c);

	if (c->rcv_limit <= c->rcv_adv || !tcp__state_in(c, TCP__M_MAY_RECEIVE) || c->flags & TCP__FIN_RCVD)
		return false;
	freew = window_free(c) >> c->rcv_wscale << c->rcv_wscale;
	return freew && freew >= 2ull * cur && freew - cur >= window_step(c);
}

/* ---- SACK, RFC 2018 §4 ---- */
/* Fills seg->sack with at most max blocks: a duplicate (RFC 2883), the range that grew last, then the others in turn, so that
 * every range is reported within a few acknowledgements.  Returns how many. */
unsigned tcp__rcv_sack_blocks(struct tcp_conn *c, struct tcp_seg *seg, unsigned max)
{
	unsigned n = 0, recent = 0;

	if (c->flags & TCP__DSACK && max) {
		seg->sack[n].left = c->rcv_seq0 + c->dsack_left;
		seg->sack[n++].right = c->rcv_seq0 + c->dsack_right;
		c->flags &= ~TCP__DSACK;
	}
	for (unsigned i = 0; i < c->n_ooo; i++)
		if (seq_leq(c->ooo[i].left, c->ooo_recent) && seq_gt(c->ooo[i].right, c->ooo_recent))
			recent = i;
	for (unsigned i = 0; i <= c->n_ooo && c->n_ooo && n < max; i++) { /* once more: the recent one's turn counts as none */
		unsigned k = recent;

		if (i) { /* walk over the rest, starting where the last acknowledgement stopped */
			k = c->sack_turn++ % c->n_ooo;
			if (k == recent)
				continue;
		}
		seg->sack[n].left = c->rcv_seq0 + c->ooo[k].left;
		seg->sack[n++].right = c->rcv_seq0 + c->ooo[k].right;
	}
	seg->n_sack = (uint8_t)n;
	return n;
}
