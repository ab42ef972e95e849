/* SPDX-License-Identifier: MIT */
#include "sim.h"

#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

struct sim_pkt {
	uint64_t at, order, off;
	int to;
	uint32_t len;
	uint8_t *data; /* NULL in virtual mode */
	unsigned hdr_len;
	uint8_t hdr[TCP_HDR_MAX];
};

static void fail(struct sim *s, int e, const char *fmt, ...)
{
	va_list ap;
	int n;

	if (s->failure[0])
		return;
	n = snprintf(s->failure, sizeof(s->failure), "seed %llu t=%.6f end %d (%s): ", (unsigned long long)s->cfg.seed,
		     (double)s->now / 1e9, e, tcp_state_name(tcp_state(&s->end[e].c)));
	va_start(ap, fmt);
	vsnprintf(s->failure + n, sizeof(s->failure) - (size_t)n, fmt, ap);
	va_end(ap);
}

uint64_t sim_random(struct sim *s, uint64_t below)
{
	uint64_t z = s->rng += 0x9e3779b97f4a7c15u;

	z = (z ^ z >> 30) * 0xbf58476d1ce4e5b9u;
	z = (z ^ z >> 27) * 0x94d049bb133111ebu;
	z ^= z >> 31;
	return below ? z % below : 0;
}

static bool chance(struct sim *s, uint32_t ppm)
{
	return ppm && sim_random(s, 1000000) < ppm;
}

static uint8_t pattern(int side, uint64_t off)
{
	return (uint8_t)(off * 0x9e3779b97f4a7c15u >> 56 ^ (unsigned)side * 0x55);
}

static void trace(const struct sim *s, const char *what, int from, const struct tcp_seg *seg, uint64_t off)
{
	char flags[9], *f = flags;

	for (int i = 0; i < 8; i++)
		if (seg->flags & 1 << i)
			*f++ = "FSRPAUEC"[i];
	*f = 0;
	fprintf(stderr, "%.6f %c %s %s seq %u ack %u off %llu len %u wnd %u sack %u [%s]\n", (double)s->now / 1e9,
		"><"[from], what, flags, seg->seq, seg->ack, (unsigned long long)off, seg->len, seg->wnd, seg->n_sack,
		tcp_state_name(tcp_state(&s->end[from].c)));
}

/* ---- Link: a heap of packets by time ---- */
static bool before(const struct sim_pkt *a, const struct sim_pkt *b)
{
	return a->at != b->at ? a->at < b->at : a->order < b->order;
}

static void heap_push(struct sim *s, struct sim_pkt *p)
{
	unsigned i = s->n_heap++;

	if (s->n_heap > s->cap_heap) {
		s->cap_heap = s->cap_heap ? 2 * s->cap_heap : 256;
		s->heap = realloc(s->heap, s->cap_heap * sizeof(*s->heap));
	}
	for (; i && before(p, s->heap[(i - 1) / 2]); i = (i - 1) / 2)
		s->heap[i] = s->heap[(i - 1) / 2];
	s->heap[i] = p;
}

static struct sim_pkt *heap_pop(struct sim *s)
{
	struct sim_pkt *top = s->heap[0], *last = s->heap[--s->n_heap];
	unsigned i = 0;

	for (;;) {
		unsigned k = 2 * i + 1;

		if (k >= s->n_heap)
			break;
		if (k + 1 < s->n_heap && before(s->heap[k + 1], s->heap[k]))
			k++;
		if (!before(s->heap[k], last))
			break;
		s->heap[i] = s->heap[k];
		i = k;
	}
	s->heap[i] = last;
	return top;
}

static void link_put(struct sim *s, int from, struct tcp_seg *seg, uint64_t off)
{
	const struct sim_cfg *cfg = &s->cfg;
	unsigned copies = chance(s, cfg->dup_ppm) ? 2 : 1;
	uint64_t at = s->now;

	if ((cfg->filter && cfg->filter(cfg->filter_arg, from, seg, off, s->now)) || chance(s, cfg->loss_ppm)) {
		s->dropped++;
		if (cfg->trace)
			trace(s, "lost", from, seg, off);
		return;
	}
	if (cfg->trace)
		trace(s, "sent", from, seg, off);
	if (cfg->strip_options && seg->flags & TCP_F_SYN)
		seg->has_ts = seg->has_wscale = seg->sack_ok = false;
	if (cfg->ns_per_byte) {
		uint64_t *line = &s->line_free[from];

		if (*line < s->now)
			*line = s->now;
		if (cfg->queue_ns && *line - s->now > cfg->queue_ns) {
			s->dropped++;
			return;
		}
		*line += (seg->len + 66) * cfg->ns_per_byte;
		at = *line;
	}
	while (copies--) {
		struct sim_pkt *p = calloc(1, sizeof(*p));

		p->at = at + cfg->delay + sim_random(s, cfg->jitter);
		if (chance(s, cfg->reorder_ppm))
			p->at += sim_random(s, cfg->reorder_delay);
		p->order = s->order++;
		p->to = !from;
		p->off = off;
		p->len = seg->len;
		p->hdr_len = tcp_build(p->hdr, seg);
		if (!cfg->virtual_payload && seg->len) {
			p->data = malloc(seg->len);
			for (uint32_t i = 0; i < seg->len; i++)
				p->data[i] = pattern(from, off + i);
		}
		heap_push(s, p);
	}
}

/* ---- Output ---- */
/* Cuts what the engine gave for a port with segmentation offload. */
static void put_cut(struct sim *s, int e, const struct tcp_seg *seg, uint64_t off)
{
	uint32_t mss = tcp_mss(&s->end[e].c), done = 0;

	do {
		struct tcp_seg part = *seg;

		part.seq += done;
		part.len = seg->len - done < mss ? seg->len - done : mss;
		if (done + part.len < seg->len)
			part.flags &= (uint8_t)~(TCP_F_FIN | TCP_F_PSH);
		part.urg = seg->urg > done ? (uint16_t)(seg->urg - done) : 0;
		if (!part.urg)
			part.flags &= (uint8_t)~TCP_F_URG;
		link_put(s, e, &part, off + done);
		done += part.len;
	} while (done < seg->len);
}

static void output(struct sim *s, int e)
{
	struct sim_end *me = &s->end[e], *peer = &s->end[!e];
	uint32_t mss = tcp_mss(&me->c), max_len = s->cfg.side[e].max_len;
	struct tcp_seg seg;
	unsigned n = 0;
	uint64_t off;

	if (max_len < mss)
		max_len = mss;
	while (tcp_output(&me->c, s->now, max_len, &seg, &off)) {
		if (++n > 100000) {
			fail(s, e, "output does not end");
			return;
		}
		me->sent_segs++;
		me->sent_bytes += seg.len;
		if (seg.len > max_len)
			fail(s, e, "segment of %u bytes, at most %u", seg.len, max_len);
		if (seg.len && (off < me->acked || off + seg.len > me->written))
			fail(s, e, "sends [%llu,+%u) outside of what is in memory", (unsigned long long)off, seg.len);
		if (seg.len && peer->open && off + seg.len > peer->edge && off >= peer->edge && off > me->acked)
			fail(s, e, "sends beyond the peer's window");
		me->edge = me->c.rcv_adv > me->edge ? me->c.rcv_adv : me->edge;
		put_cut(s, e, &seg, off);
	}
}

/* ---- Input ---- */
static void note_result(struct sim *s, int e, const struct tcp_result *res)
{
	struct sim_end *me = &s->end[e], *peer = &s->end[!e];

	if (res->delivered < me->delivered || res->delivered > peer->written)
		fail(s, e, "delivered %llu, was %llu, peer wrote %llu", (unsigned long long)res->delivered,
		     (unsigned long long)me->delivered, (unsigned long long)peer->written);
	if (res->acked < me->acked || res->acked > me->written || res->acked > peer->delivered)
		fail(s, e, "acked %llu, was %llu, wrote %llu, peer has %llu", (unsigned long long)res->acked,
		     (unsigned long long)me->acked, (unsigned long long)me->written, (unsigned long long)peer->delivered);
	if (me->eof && res->delivered != me->delivered)
		fail(s, e, "data after FIN");
	me->delivered = res->delivered;
	me->acked = res->acked;
	if (res->events && me->turn_at == UINT64_MAX)
		me->turn_at = s->now + 1 + sim_random(s, s->cfg.side[e].turn_max);
	if (res->events & TCP_EV_FIN) {
		if (me->eof)
			fail(s, e, "FIN twice");
		if (me->delivered != peer->written)
			fail(s, e, "FIN at %llu of %llu", (unsigned long long)me->delivered,
			     (unsigned long long)peer->written);
		me->eof = true;
		me->eof_at = s->now;
	}
	if (res->events & TCP_EV_ERROR) {
		me->error = true;
		me->error_no = res->error;
	}
	if (res->events & TCP_EV_CLOSED)
		me->closed = true;
	if (res->events & TCP_EV_CLOSED && tcp_state(&me->c) != TCP_S_CLOSE)
		fail(s, e, "closed in state %s", tcp_state_name(tcp_state(&me->c)));
}

/* The fast path must do what the general path does. */
static void input_both_ways(struct sim *s, int e, const struct tcp_seg *seg, struct tcp_result *res)
{
	struct tcp_conn *c = &s->end[e].c, copy;
	struct tcp_result other;

	memcpy(&copy, c, sizeof(copy));
	memset(&other, 0, sizeof(other));
	copy.segs_in++;
	tcp__input_general(&copy, seg, s->now, &other);
	tcp_input(c, seg, s->now, res);
	other.delivered = tcp__delivered(&copy);
	other.acked = tcp__acked(&copy);
	for (size_t i = 0; i < sizeof(copy); i++)
		if (((uint8_t *)&copy)[i] != ((uint8_t *)c)[i])
			fail(s, e, "fast path differs from general path at byte %zu of struct tcp_conn", i);
	if (other.events != res->events || other.rx_off * !!other.rx_len != res->rx_off * !!res->rx_len ||
	    other.rx_len != res->rx_len || other.rx_skip != res->rx_skip || other.delivered != res->delivered)
		fail(s, e, "fast path's result differs from general path's");
}

static void place(struct sim *s, int e, const struct sim_pkt *p, const struct tcp_result *res)
{
	struct sim_end *me = &s->end[e];
	uint32_t size = s->cfg.side[e].rcvbuf;

	if (res->rx_off != p->off + res->rx_skip || res->rx_skip + res->rx_len > p->len)
		fail(s, e, "payload at %llu placed at %llu", (unsigned long long)(p->off + res->rx_skip),
		     (unsigned long long)res->rx_off);
	if (res->rx_off < me->delivered || res->rx_off + res->rx_len > me->consumed + size)
		fail(s, e, "placed outside of memory");
	if (p->data && !s->failure[0])
		for (uint32_t i = 0; i < res->rx_len; i++)
			me->ring[(res->rx_off + i) & me->ring_mask] = p->data[res->rx_skip + i];
}

static void reset_reply(struct sim *s, int e, const struct tcp_seg *seg)
{
	struct tcp_seg rst;

	if (tcp_reset_for(seg, &rst)) {
		s->end[e].reset_sent = true;
		link_put(s, e, &rst, 0);
	}
}

static void open_passive(struct sim *s, int e, const struct tcp_seg *seg)
{
	struct sim_end *me = &s->end[e];
	const struct sim_side *side = &s->cfg.side[e];

	if (me->closed || seg->flags != TCP_F_SYN) {
		if (me->closed || !(seg->flags & TCP_F_SYN))
			reset_reply(s, e, seg);
		return;
	}
	tcp_open_passive(&me->c, &side->tcp, side->isn, seg, side->rcvbuf, s->now);
	tcp_app_options(&me->c, &side->opts, s->now);
	me->open = true;
	me->edge = me->c.rcv_adv;
	me->turn_at = s->now;
}

static void receive(struct sim *s, struct sim_pkt *p)
{
	struct sim_end *me = &s->end[p->to];
	struct tcp_rx_want want;
	struct tcp_result res;
	struct tcp_seg seg;

	if (tcp_parse(p->hdr, p->hdr_len + p->len, &seg)) {
		/* The parser only looks at the header. */
		fail(s, p->to, "built a header that does not parse");
		return;
	}
	if (me->closed || !me->open) {
		open_passive(s, p->to, &seg);
		return;
	}
	want = tcp_rx_want(&me->c, &seg);
	if (want.len && chance(s, s->cfg.nomem_ppm))
		return;
	input_both_ways(s, p->to, &seg, &res);
	if (res.rx_len) {
		if (res.rx_len != want.len || res.rx_off != want.off || res.rx_skip != want.skip)
			fail(s, p->to, "rx_want and input disagree");
		place(s, p->to, p, &res);
	}
	note_result(s, p->to, &res);
	if (res.reset_reply)
		reset_reply(s, p->to, &seg);
}

/* ---- Applications ---- */
static bool read_some(struct sim *s, int e, uint64_t most)
{
	struct sim_end *me = &s->end[e];
	uint64_t n = me->delivered - me->consumed;

	if (n > most)
		n = most;
	if (!s->cfg.virtual_payload)
		for (uint64_t i = me->consumed; i < me->consumed + n; i++)
			if (me->ring[i & me->ring_mask] != pattern(!e, i)) {
				fail(s, e, "byte %llu is wrong", (unsigned long long)i);
				return false;
			}
	me->consumed += n;
	if (n)
		tcp_app_window(&me->c, me->consumed + s->cfg.side[e].rcvbuf);
	return n;
}

static bool write_some(struct sim *s, int e)
{
	struct sim_end *me = &s->end[e];
	const struct sim_side *side = &s->cfg.side[e];
	uint64_t room = side->sndbuf - (me->written - me->acked), n = 1 + sim_random(s, side->write_max);

	if (n > room)
		n = room;
	if (n > side->bytes - me->written)
		n = side->bytes - me->written;
	if (n) {
		me->written += n;
		tcp_app_written(&me->c, me->written);
	}
	return n;
}

static void app_gone(struct sim *s, int e)
{
	struct sim_end *me = &s->end[e];

	me->app_closed = true;
	if (tcp_state(&me->c) == TCP_S_CLOSE)
		me->closed = true;
	(void)s;
}

static void app_turn(struct sim *s, int e)
{
	struct sim_end *me = &s->end[e];
	const struct sim_side *side = &s->cfg.side[e];
	bool all_read, busy;

	me->turn_at = UINT64_MAX; /* until something happens */
	if (me->app_closed || tcp_state(&me->c) == TCP_S_SYN_SENT || tcp_state(&me->c) == TCP_S_SYN_RECV)
		return;
	busy = read_some(s, e, 1 + sim_random(s, side->read_max));
	busy |= write_some(s, e);
	if (busy)
		me->turn_at = s->now + 1 + sim_random(s, side->turn_max);
	uint64_t end = side->bytes + s->cfg.side[!e].bytes;
	if (side->how == SIM_ABORT && me->consumed + me->written >= (side->abort_after < end ? side->abort_after : end)) {
		tcp_app_abort(&me->c, s->now);
		app_gone(s, e);
		return;
	}
	all_read = me->eof && me->consumed == me->delivered;
	if (me->written < side->bytes)
		return;
	if (side->how == SIM_SHUTDOWN)
		tcp_app_shutdown(&me->c, s->now);
	if (all_read || (side->how == SIM_CLOSE && me->consumed >= s->cfg.side[!e].bytes)) {
		tcp_app_close(&me->c, s->now);
		app_gone(s, e);
	}
}

/* ---- Time ---- */
static void after_event(struct sim *s, int e)
{
	struct sim_end *me = &s->end[e];
	struct tcp_result res;
	const char *bad;

	output(s, e);
	for (int i = 0; me->open && tcp_deadline(&me->c) <= s->now; i++) {
		if (i > 3) {
			fail(s, e, "deadline stays in the past");
			return;
		}
		tcp_timer(&me->c, s->now, &res);
		note_result(s, e, &res);
		output(s, e);
	}
	if ((bad = sim_check(&me->c)))
		fail(s, e, "%s", bad);
	if (me->closed) { /* what was delivered can still be read */
		if (!me->app_closed && !me->error)
			while (!s->failure[0] && read_some(s, e, UINT64_MAX))
				;
		me->open = false;
	}
}

bool sim_step(struct sim *s)
{
	uint64_t at = UINT64_MAX;

	for (int e = 0; e < 2; e++) {
		struct sim_end *me = &s->end[e];

		if (!me->open)
			continue;
		if (tcp_deadline(&me->c) < at)
			at = tcp_deadline(&me->c);
		if (!me->app_closed && me->turn_at < at)
			at = me->turn_at;
	}
	if (s->n_heap && s->heap[0]->at < at)
		at = s->heap[0]->at;
	if (at == UINT64_MAX || s->failure[0])
		return false;
	if (at > s->now)
		s->now = at;
	s->steps++;
	if (s->cfg.shrink_at && s->now >= s->cfg.shrink_at) {
		s->cfg.shrink_at = 0;
		for (int e = 0; e < 2; e++)
			if (s->end[e].open)
				tcp_path_mtu(&s->end[e].c, tcp__snd_seq(&s->end[e].c, s->end[e].c.snd_una),
					     s->end[e].c.mss_base * 2 / 3, s->now);
	}
	/* A burst: what arrives at one end at this time, up to a random number of packets, is answered together. */
	if (s->n_heap && s->heap[0]->at <= s->now) {
		int to = s->heap[0]->to;
		unsigned burst = 1 + (unsigned)sim_random(s, 8);

		while (burst-- && s->n_heap && s->heap[0]->at <= s->now && s->heap[0]->to == to) {
			struct sim_pkt *p = heap_pop(s);

			receive(s, p);
			free(p->data);
			free(p);
		}
		if (s->end[to].open)
			after_event(s, to);
	}
	for (int e = 0; e < 2; e++) {
		struct sim_end *me = &s->end[e];

		if (!me->open)
			continue;
		if (!me->app_closed && me->turn_at <= s->now)
			app_turn(s, e);
		after_event(s, e);
	}
	return !s->failure[0];
}

void sim_init(struct sim *s, const struct sim_cfg *cfg)
{
	memset(s, 0, sizeof(*s));
	s->cfg = *cfg;
	s->rng = cfg->seed * 2 + 1;
	s->now = SIM_SEC;
	for (int e = 0; e < 2; e++) {
		struct sim_end *me = &s->end[e];
		const struct sim_side *side = &s->cfg.side[e];

		for (me->ring_mask = 1; me->ring_mask < side->rcvbuf; me->ring_mask *= 2)
			;
		me->ring_mask--;
		if (!cfg->virtual_payload)
			me->ring = calloc(1, me->ring_mask + 1);
		if (e && !cfg->simultaneous)
			continue;
		tcp_open_active(&me->c, &side->tcp, side->isn, side->rcvbuf, s->now);
		tcp_app_options(&me->c, &side->opts, s->now);
		me->open = true;
		me->turn_at = s->now;
		me->edge = side->rcvbuf < 65535 ? side->rcvbuf : 65535;
	}
	for (int e = 0; e < 2; e++)
		if (s->end[e].open)
			after_event(s, e);
}

bool sim_run(struct sim *s)
{
	while (sim_step(s))
		if (s->now > s->cfg.time_limit) {
			struct sim_end *a = &s->end[0], *b = &s->end[1];

			fail(s, a->open ? 0 : 1, "does not end: %s %s, wrote %llu/%llu, read %llu/%llu",
			     tcp_state_name(tcp_state(&a->c)), tcp_state_name(tcp_state(&b->c)),
			     (unsigned long long)a->written, (unsigned long long)b->written,
			     (unsigned long long)a->consumed, (unsigned long long)b->consumed);
		}
	return !s->failure[0];
}

void sim_free(struct sim *s)
{
	while (s->n_heap) {
		struct sim_pkt *p = heap_pop(s);

		free(p->data);
		free(p);
	}
	free(s->heap);
	free(s->end[0].ring);
	free(s->end[1].ring);
	memset(s, 0, sizeof(*s));
}
