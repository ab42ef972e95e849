/* Invariant: no sequence of segments, calls and times breaks sim_check(), moves a stream backwards, places bytes outside of the
 * window, sends what is not in memory, leaves a deadline in the past, or makes the fast path differ from the general one.
 * SPDX-License-Identifier: MIT */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "sim.h"

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size);

struct fuzz {
	const uint8_t *p, *end;
	struct tcp_conn c;
	uint64_t now, delivered, acked, written, limit;
	bool eof;
};

static void expect(const struct fuzz *f, bool ok, const char *what)
{
	if (ok)
		return;
	fprintf(stderr, "broken in %s: %s\n", tcp_state_name(tcp_state(&f->c)), what);
	abort();
}

static uint8_t u8(struct fuzz *f)
{
	return f->p < f->end ? *f->p++ : 0;
}

static uint32_t u32(struct fuzz *f)
{
	uint32_t v = u8(f);

	return v | (uint32_t)u8(f) << 8 | (uint32_t)u8(f) << 16 | (uint32_t)u8(f) << 24;
}

/* A length that is small, about a segment, about a window, or anything. */
static uint32_t length(struct fuzz *f)
{
	uint8_t how = u8(f);

	switch (how & 3) {
	case 0:
		return how >> 2;
	case 1:
		return f->c.mss * (uint32_t)(how >> 4) + (how >> 2 & 3) - 1;
	case 2:
		return tcp__rcv_wnd(&f->c) / ((how >> 5) + 1u) + (how >> 2 & 7) - 3;
	default:
		return u32(f) & 0xffffff;
	}
}

/* Sequence numbers near the edges that matter. */
static uint32_t number(struct fuzz *f, bool ack)
{
	const struct tcp_conn *c = &f->c;
	uint8_t how = u8(f);
	const uint32_t recv[8] = { tcp__rcv_seq(c, c->rcv_nxt), c->rcv_seq0 - 1, tcp__rcv_seq(c, c->rcv_adv),
				   tcp__rcv_seq(c, tcp_rx_high(c)), c->rcv_seq0 + (c->n_ooo ? c->ooo[0].left : 0),
				   tcp__rcv_seq(c, c->rcv_acked), tcp__rcv_seq(c, c->rcv_nxt) - 1000, 0 };
	const uint32_t send[8] = { tcp__snd_seq(c, c->snd_nxt), tcp__snd_seq(c, c->snd_una),
				   tcp__snd_seq(c, c->snd_una) + c->mss, tcp__snd_seq(c, c->recover),
				   tcp__snd_seq(c, c->rtx_next), c->snd_seq0 - 1,
				   c->snd_seq0 + (c->n_sacked ? c->sacked[0].right : 0), 0 };

	if ((how & 7) == 7)
		return u32(f);
	return (ack ? send : recv)[how & 7] + (how & 8 ? length(f) : 0) + (how >> 4 & 3) - 1 * !!(how & 64);
}

static struct tcp_seg segment(struct fuzz *f)
{
	struct tcp_seg s = { 0 };
	uint8_t opts = u8(f), kind = u8(f);
	static const uint8_t usual[] = { TCP_F_ACK, TCP_F_ACK, TCP_F_ACK | TCP_F_PSH, TCP_F_ACK | TCP_F_FIN,
					 TCP_F_SYN | TCP_F_ACK, TCP_F_SYN, TCP_F_RST, TCP_F_ACK | TCP_F_URG };

	s.flags = kind & 8 ? u8(f) : usual[kind & 7];
	s.seq = number(f, false);
	s.ack = number(f, true);
	s.len = kind & 16 ? length(f) & 0xffff : 0;
	s.wnd = (uint16_t)(kind & 32 ? u32(f) : 65535);
	s.urg = (uint16_t)(s.flags & TCP_F_URG ? length(f) : 0);
	s.has_ts = opts & 1 ? f->c.flags & TCP__TS : opts & 2;
	s.tsval = f->c.ts_recent + (opts & 4 ? u32(f) : opts >> 6);
	s.tsecr = tcp__ts_clock(&f->c, f->now) - (opts & 8 ? u32(f) : 0);
	if (s.flags & TCP_F_SYN) {
		s.mss = (uint16_t)(opts & 16 ? u32(f) : 1460);
		s.sack_ok = opts & 32;
		s.has_wscale = opts & 64;
		s.wscale = opts >> 4 < 15 ? opts >> 4 : 14;
	} else if (opts & 16) {
		s.n_sack = 1 + (opts >> 5 & 3);
		for (unsigned i = 0; i < s.n_sack; i++) {
			s.sack[i].left = number(f, true);
			s.sack[i].right = opts & 128 ? number(f, true) : s.sack[i].left + length(f);
		}
	}
	s.hdr_len = 20;
	return s;
}

static void result(struct fuzz *f, const struct tcp_result *res)
{
	expect(f, res->delivered >= f->delivered && res->delivered <= f->limit, "delivered");
	expect(f, res->acked >= f->acked && res->acked <= f->written, "acked");
	expect(f, !f->eof || res->delivered == f->delivered, "data behind FIN");
	expect(f, !(res->events & TCP_EV_CLOSED) || tcp_state(&f->c) == TCP_S_CLOSE, "CLOSED without state");
	expect(f, !(res->events & TCP_EV_ERROR) || res->error, "ERROR without errno");
	f->delivered = res->delivered;
	f->acked = res->acked;
	f->eof |= !!(res->events & TCP_EV_FIN);
}

static void input(struct fuzz *f)
{
	struct tcp_seg seg = segment(f);
	struct tcp_rx_want want = tcp_rx_want(&f->c, &seg);
	struct tcp_result res, other = { 0 };
	struct tcp_conn copy;

	memcpy(&copy, &f->c, sizeof(copy));
	copy.segs_in++;
	tcp__input_general(&copy, &seg, f->now, &other);
	tcp_input(&f->c, &seg, f->now, &res);
	expect(f, !memcmp(&copy, &f->c, sizeof(copy)), "fast path differs");
	if (res.rx_len) {
		expect(f, want.off == res.rx_off && want.len == res.rx_len && want.skip == res.rx_skip, "rx_want differs");
		expect(f, res.rx_off >= f->delivered && res.rx_off + res.rx_len <= f->limit, "placed outside");
		expect(f, res.rx_skip + res.rx_len <= seg.len, "more than the segment has");
		expect(f, res.rx_off + res.rx_len <= tcp_rx_high(&f->c), "beyond rx_high");
	}
	result(f, &res);
}

static void output(struct fuzz *f)
{
	uint32_t max_len = u8(f) & 1 ? 65535 : tcp_mss(&f->c);
	struct tcp_seg seg;
	uint8_t wire[TCP_HDR_MAX];
	uint64_t off;

	for (int n = 0; tcp_output(&f->c, f->now, max_len, &seg, &off); n++) {
		expect(f, n < 300000, "output does not end");
		expect(f, tcp_build(wire, &seg) <= TCP_HDR_MAX, "header");
		expect(f, seg.len <= max_len || seg.len <= f->c.mss, "segment too long");
		expect(f, !seg.len || (off >= f->acked && off + seg.len <= f->written), "sends what is not in memory");
	}
}

static void timer(struct fuzz *f)
{
	uint8_t how = u8(f);
	struct tcp_result res;

	if (how & 128 && tcp_deadline(&f->c) != UINT64_MAX) {
		if (tcp_deadline(&f->c) > f->now)
			f->now = tcp_deadline(&f->c);
	} else {
		f->now += (uint64_t)(how & 127) * (how & 127) * 1000 * (how & 1 ? 1 : 1000);
	}
	for (int n = 0; tcp_deadline(&f->c) <= f->now; n++) {
		expect(f, n < 4, "deadline stays in the past");
		tcp_timer(&f->c, f->now, &res);
		result(f, &res);
	}
}

static void app(struct fuzz *f)
{
	struct tcp_result res;
	uint8_t how = u8(f);
	struct tcp_opts o;

	switch (how & 7) {
	case 0:
	case 1:
		if (f->written < f->acked + (1 << 21))
			tcp_app_written(&f->c, f->written + (length(f) & 0xfffff));
		f->written = f->c.written;
		break;
	case 2:
	case 3:
		if (f->limit < f->delivered + (1 << 20))
			f->limit += length(f) & 0xfffff;
		tcp_app_window(&f->c, f->limit);
		break;
	case 4:
		if (how & 8)
			tcp_app_shutdown(&f->c, f->now);
		else if (how & 16)
			tcp_app_close(&f->c, f->now);
		else if (how & 32)
			tcp_app_abort(&f->c, f->now);
		break;
	case 5:
		o = (struct tcp_opts){ .nodelay = how & 8, .cork = how & 16, .keepalive = how & 32, .quickack = how & 64 };
		o.keep_idle = u8(f);
		o.keep_intvl = u8(f) + 1;
		o.keep_cnt = u8(f);
		o.user_timeout = how & 128 ? u32(f) & 0xffff : 0;
		tcp_app_options(&f->c, &o, f->now);
		break;
	case 6:
		tcp_app_urgent(&f->c, f->written + (how >> 3) - 4);
		break;
	default:
		if (how & 8) {
			tcp_icmp_error(&f->c, number(f, true), 113, how & 16, f->now, &res);
			result(f, &res);
		} else {
			tcp_path_mtu(&f->c, number(f, true), (uint16_t)u32(f), f->now);
		}
	}
}

int LLVMFuzzerTestOneInput(const uint8_t *data, size_t size)
{
	struct fuzz f = { .p = data, .end = data + size, .now = 5000000000u };
	uint8_t how = u8(&f), more = u8(&f);
	struct tcp_config cfg = { .mss = (uint16_t)(how & 1 ? 1460 : u32(&f)), .timestamps = how & 2, .sack = how & 4,
				  .rcv_wnd_max = how & 8 ? 1 << 20 : u32(&f) & 0x3fffffff, .cc = how >> 4 & 1,
				  .ts_offset = more * 0x1010101u, .no_tail_probe = more & 1 };
	uint32_t isn = how & 32 ? UINT32_MAX - more : u32(&f);

	f.limit = how & 64 ? 65536 : u32(&f) & 0xfffff;
	if (how & 128) {
		struct tcp_seg syn = segment(&f);

		syn.flags = TCP_F_SYN;
		syn.n_sack = 0;
		tcp_open_passive(&f.c, &cfg, isn, &syn, f.limit, f.now);
	} else {
		tcp_open_active(&f.c, &cfg, isn, f.limit, f.now);
	}
	while (f.p < f.end) {
		const char *bad;
		uint8_t op = u8(&f);

		if (op < 130)
			input(&f);
		else if (op < 180)
			output(&f);
		else if (op < 210)
			timer(&f);
		else
			app(&f);
		bad = tcp_state(&f.c) != TCP_S_CLOSE ? sim_check(&f.c) : NULL;
		expect(&f, !bad, bad);
	}
	return 0;
}
