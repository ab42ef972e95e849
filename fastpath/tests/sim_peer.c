/* SPDX-License-Identifier: MIT */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "sim.h"
#include "sim_peer.h"

void peer_init(struct peer *p, bool full)
{
	memset(p, 0, sizeof(*p));
	p->cfg = (struct tcp_config){ .mss = 1460, .rcv_wnd_max = 1 << 20, .timestamps = true, .sack = true,
				      .no_tail_probe = true };
	p->now = 1000ull * SIM_SEC;
	p->wnd = 65535;
	p->ts = p->syn_sack = p->syn_wscale = full;
	p->syn_mss = full ? 1460 : 0;
	p->wscale = 7;
	p->tsval = 5000000;
}

void peer_flush(struct peer *p)
{
	const char *bad;

	while (tcp_output(&p->c, p->now, p->max_len ? p->max_len : tcp_mss(&p->c), p->out + p->n, p->off + p->n)) {
		p->out[p->n].seq -= PEER_OUR;
		p->out[p->n].ack -= PEER_THEIR;
		if (++p->n == sizeof(p->out) / sizeof(p->out[0]))
			fail_msg("output does not end");
	}
	if ((bad = sim_check(&p->c)))
		fail_msg("%s", bad);
}

static void note(struct peer *p)
{
	p->events |= p->res.events;
	if (p->res.events & TCP_EV_ERROR)
		p->error = p->res.error;
}

void peer_connect(struct peer *p)
{
	tcp_open_active(&p->c, &p->cfg, PEER_OUR - 1, 65536, p->now);
	p->n = 0;
	peer_flush(p);
}

void peer_listen(struct peer *p)
{
	struct tcp_seg syn = peer_make(p, TCP_F_SYN, -1, 0, 0);

	syn.ack = 0;
	tcp_open_passive(&p->c, &p->cfg, PEER_OUR - 1, &syn, 65536, p->now);
	p->n = 0;
	peer_flush(p);
}

static void established(struct peer *p, bool full)
{
	peer_init(p, full);
	peer_connect(p);
	p->now += SIM_MS;
	peer_in(p, TCP_F_SYN | TCP_F_ACK, -1, 0, 0);
	assert_int_equal(tcp_state(&p->c), TCP_S_ESTABLISHED);
	p->events = 0;
	p->c.quick = 0; /* delayed acknowledgements from the start: tests of the beginning set it */
}

void peer_established(struct peer *p)
{
	established(p, true);
}

void peer_established_plain(struct peer *p)
{
	established(p, false);
}

struct tcp_seg peer_make(const struct peer *p, uint8_t flags, int64_t seq, int64_t ack, uint32_t len)
{
	struct tcp_seg s = { .seq = PEER_THEIR + (uint32_t)seq, .ack = PEER_OUR + (uint32_t)ack, .len = len,
			     .flags = flags, .wnd = p->wnd, .hdr_len = 20 };

	if (p->ts) {
		s.has_ts = true;
		s.tsval = p->tsval + (uint32_t)(p->now / SIM_MS);
		s.tsecr = flags & TCP_F_ACK ? tcp__ts_clock(&p->c, p->now) - 1 : 0;
	}
	if (flags & TCP_F_SYN) {
		s.mss = (uint16_t)p->syn_mss;
		s.sack_ok = p->syn_sack;
		s.has_wscale = p->syn_wscale;
		s.wscale = p->wscale;
	}
	return s;
}

void peer_seg(struct peer *p, const struct tcp_seg *seg)
{
	struct tcp_rx_want want = tcp_rx_want(&p->c, seg);

	tcp_input(&p->c, seg, p->now, &p->res);
	if (p->res.rx_len) {
		assert_int_equal(want.off, p->res.rx_off);
		assert_int_equal(want.len, p->res.rx_len);
		assert_int_equal(want.skip, p->res.rx_skip);
	}
	note(p);
	p->n = 0;
	peer_flush(p);
}

void peer_in(struct peer *p, uint8_t flags, int64_t seq, int64_t ack, uint32_t len)
{
	struct tcp_seg s = peer_make(p, flags, seq, ack, len);

	peer_seg(p, &s);
}

void peer_in_sack(struct peer *p, int64_t seq, int64_t ack, unsigned n, const int64_t *edges)
{
	struct tcp_seg s = peer_make(p, TCP_F_ACK, seq, ack, 0);

	s.n_sack = (uint8_t)n;
	for (unsigned i = 0; i < n; i++) {
		s.sack[i].left = PEER_OUR + (uint32_t)edges[2 * i];
		s.sack[i].right = PEER_OUR + (uint32_t)edges[2 * i + 1];
	}
	peer_seg(p, &s);
}

static void run_timer(struct peer *p)
{
	tcp_timer(&p->c, p->now, &p->res);
	note(p);
	peer_flush(p);
}

void peer_wait(struct peer *p, uint64_t ms)
{
	uint64_t until = p->now + ms * SIM_MS;

	p->n = 0;
	while (tcp_deadline(&p->c) <= until) {
		if (tcp_deadline(&p->c) > p->now)
			p->now = tcp_deadline(&p->c);
		run_timer(p);
	}
	p->now = until;
}

uint64_t peer_next(struct peer *p)
{
	uint64_t from = p->now;

	p->n = 0;
	assert_true(tcp_deadline(&p->c) != UINT64_MAX);
	if (tcp_deadline(&p->c) > p->now)
		p->now = tcp_deadline(&p->c);
	run_timer(p);
	return (p->now - from) / SIM_MS;
}

void peer_write(struct peer *p, uint64_t more)
{
	tcp_app_written(&p->c, p->c.written + more);
	p->n = 0;
	peer_flush(p);
}

void peer_expect_n(struct peer *p, unsigned n)
{
	if (p->n != n) {
		for (unsigned i = 0; i < p->n && i < 20; i++)
			print_error("  sent: flags %02x seq %d ack %d len %u wnd %u\n", p->out[i].flags,
				    (int32_t)p->out[i].seq, (int32_t)p->out[i].ack, p->out[i].len, p->out[i].wnd);
		fail_msg("%u segments sent, %u expected", p->n, n);
	}
}

void peer_expect(struct peer *p, unsigned i, uint8_t flags, int64_t seq, int64_t ack, uint32_t len)
{
	const struct tcp_seg *s = &p->out[i];

	if (i >= p->n)
		fail_msg("only %u segments sent", p->n);
	if (s->flags != flags || (int32_t)s->seq != seq || (flags & TCP_F_ACK && (int32_t)s->ack != ack) || s->len != len)
		fail_msg("segment %u: flags %02x seq %d ack %d len %u, expected %02x %d %d %u", i, s->flags,
			 (int32_t)s->seq, (int32_t)s->ack, s->len, flags, (int)seq, (int)ack, len);
}
