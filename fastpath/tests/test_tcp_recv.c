/* SPDX-License-Identifier: MIT */
/* Receiving: reassembly, acknowledgements, windows, PAWS, urgent pointer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim_peer.h"

#define A TCP_F_ACK
#define F TCP_F_FIN
#define P TCP_F_PSH
#define U TCP_F_URG

static struct peer p;

static int32_t block(unsigned i, bool right)
{
	return (int32_t)((right ? p.out[0].sack[i].right : p.out[0].sack[i].left) - PEER_THEIR);
}

static void in_order_data_is_acknowledged_every_second_segment(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A, 0, 0, 1448);
	assert_int_equal(p.events, TCP_EV_READABLE);
	assert_int_equal(p.res.rx_off, 0);
	assert_int_equal(p.res.rx_len, 1448);
	peer_expect_n(&p, 0);
	peer_in(&p, A, 1448, 0, 1448);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 2896, 0);
	assert_true(tcp_deadline(&p.c) == UINT64_MAX);
}

static void a_single_segment_is_acknowledged_within_40_ms(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A | P, 0, 0, 100);
	peer_expect_n(&p, 0);
	assert_int_equal(peer_next(&p), 40);
	peer_expect(&p, 0, A, 0, 100, 0);
}

static void our_data_carries_the_acknowledgement(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A | P, 0, 0, 100);
	peer_write(&p, 50);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | P, 0, 100, 50);
	assert_true(p.c.delack_at == UINT64_MAX);
}

static void an_acknowledgement_waits_a_moment_for_the_answer(void **state)
{
	(void)state;
	peer_established(&p);
	p.c.quick = 16;
	p.c.ack_wait = 50;
	peer_in(&p, A | P, 0, 0, 100);
	peer_expect_n(&p, 0);
	peer_write(&p, 50);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | P, 0, 100, 50);
	peer_in(&p, A | F, 100, 50, 0);
	peer_expect_n(&p, 0);
	tcp_app_shutdown(&p.c, p.now);
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | F, 50, 101, 0);
}

static void without_an_answer_an_acknowledgement_waits_no_longer(void **state)
{
	(void)state;
	peer_established(&p);
	p.c.quick = 16;
	p.c.ack_wait = 50;
	peer_in(&p, A | P, 0, 0, 100);
	peer_expect_n(&p, 0);
	assert_true(tcp_deadline(&p.c) == p.now + 50000);
	peer_next(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 100, 0);
	peer_in(&p, A | P, 100, 0, 1448); /* two segments do not wait */
	peer_in(&p, A | P, 1548, 0, 1448);
	peer_expect_n(&p, 1);
	peer_in(&p, A | F, 2996, 0, 0);
	peer_expect_n(&p, 0);
	assert_true(tcp_deadline(&p.c) == p.now + 50000);
	peer_next(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 2997, 0);
}

static void an_acknowledgement_waits_ten_times_as_long_for_an_application_that_has_not_looked(void **state)
{
	(void)state;
	peer_established(&p);
	p.c.quick = 16;
	p.c.ack_wait = 50;
	peer_in(&p, A | P, 0, 0, 100);
	tcp_app_slow(&p.c, p.now); /* its time has not come */
	assert_true(tcp_deadline(&p.c) == p.now + 50000);
	for (int i = 0; i < 9; i++) {
		p.now += 50000;
		tcp_app_slow(&p.c, p.now);
		assert_true(tcp_deadline(&p.c) == p.now + 50000);
	}
	p.now += 50000;
	tcp_app_slow(&p.c, p.now);
	assert_true(tcp_deadline(&p.c) == p.now);
	peer_next(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 100, 0);
	p.c.quick = 0; /* an ordinary delay is not made longer */
	peer_in(&p, A | P, 100, 0, 100);
	p.now = tcp_deadline(&p.c);
	tcp_app_slow(&p.c, p.now);
	assert_true(tcp_deadline(&p.c) == p.now);
}

static void first_segments_and_quickack_are_acknowledged_at_once(void **state)
{
	struct tcp_opts o = { .quickack = true };

	(void)state;
	peer_established(&p);
	p.c.quick = 2;
	for (int i = 0; i < 3; i++) {
		peer_in(&p, A | P, i * 10, 0, 10);
		peer_expect_n(&p, i < 2 ? 1 : 0);
	}
	tcp_app_options(&p.c, &o, p.now);
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 1); /* the pending one goes */
	peer_in(&p, A | P, 30, 0, 10);
	peer_expect_n(&p, 1);
}

static void holes_are_reported_and_filled(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A, 1000, 0, 500);
	assert_int_equal(p.res.rx_off, 1000);
	assert_int_equal(p.res.rx_len, 500);
	assert_int_equal(p.res.delivered, 0);
	assert_int_equal(p.events, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, 0);
	assert_int_equal(p.out[0].n_sack, 1);
	assert_int_equal(block(0, false), 1000);
	assert_int_equal(block(0, true), 1500);
	peer_in(&p, A, 2000, 0, 500);
	assert_int_equal(p.out[0].n_sack, 2); /* the newest first, RFC 2018 §4 */
	assert_int_equal(block(0, false), 2000);
	assert_int_equal(block(1, false), 1000);
	peer_in(&p, A, 1500, 0, 500);
	assert_int_equal(p.out[0].n_sack, 1);
	assert_int_equal(block(0, false), 1000);
	assert_int_equal(block(0, true), 2500);
	assert_int_equal(tcp_rx_high(&p.c), 2500);
	peer_in(&p, A, 0, 0, 1200); /* overlaps */
	assert_int_equal(p.res.rx_len, 1200);
	assert_int_equal(p.res.delivered, 2500);
	assert_int_equal(p.events, TCP_EV_READABLE);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 2500, 0);
	assert_int_equal(p.out[0].n_sack, 0);
	assert_int_equal(tcp_rx_high(&p.c), 2500);
}

static void old_bytes_are_cut_off_and_reported_as_duplicate(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A, 0, 0, 1000);
	peer_in(&p, A, 500, 0, 1000);
	assert_int_equal(p.res.rx_skip, 500);
	assert_int_equal(p.res.rx_off, 1000);
	assert_int_equal(p.res.rx_len, 500);
	assert_int_equal(block(0, false), 500); /* RFC 2883 */
	assert_int_equal(block(0, true), 1000);
	peer_in(&p, A, 0, 0, 1000); /* nothing new */
	assert_int_equal(p.res.rx_len, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 1500, 0);
}

static void the_33rd_range_is_refused_until_a_hole_closes(void **state)
{
	(void)state;
	peer_established(&p);
	for (int i = 0; i < 32; i++) {
		peer_in(&p, A, 100 + i * 200, 0, 100);
		assert_int_equal(p.res.rx_len, 100);
	}
	peer_in(&p, A, 100 + 32 * 200, 0, 100);
	assert_int_equal(p.res.rx_len, 0);
	peer_expect_n(&p, 1); /* still a duplicate acknowledgement */
	peer_in(&p, A, 100 + 31 * 200 + 100, 0, 50); /* touching one is fine */
	assert_int_equal(p.res.rx_len, 50);
	peer_in(&p, A, 0, 0, 100);
	assert_int_equal(p.res.delivered, 200);
	peer_in(&p, A, 100 + 32 * 200, 0, 100);
	assert_int_equal(p.res.rx_len, 100);
}

static void peer_without_sack_gets_one_duplicate_per_segment(void **state)
{
	struct tcp_seg s;
	struct tcp_result res;

	(void)state;
	peer_established_plain(&p);
	for (int i = 1; i <= 3; i++) { /* a batch: input without output between */
		s = peer_make(&p, A, i * 500, 0, 500);
		tcp_input(&p.c, &s, p.now, &res);
	}
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 3);
	for (unsigned i = 0; i < 3; i++)
		peer_expect(&p, i, A, 0, 0, 0);
}

static void data_beyond_the_window_is_cut(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A, 65536 - 100, 0, 1000);
	assert_int_equal(p.res.rx_len, 100);
	peer_in(&p, A, 65536, 0, 1000); /* just outside */
	assert_int_equal(p.res.rx_len, 0);
	peer_expect_n(&p, 1);
	peer_in(&p, A, 70000, 0, 1000); /* far outside */
	assert_int_equal(p.res.rx_len, 0);
	peer_expect_n(&p, 1);
}

static void fill_window(void)
{
	peer_established(&p);
	for (int64_t at = 0; at < 65536; at += 1024) {
		peer_in(&p, A, at, 0, 1024);
		assert_int_equal(p.res.rx_len, 1024);
	}
	peer_wait(&p, 100);
}

static void window_closes_and_opens_without_silly_steps(void **state)
{
	(void)state;
	fill_window();
	assert_int_equal(tcp__rcv_wnd(&p.c), 0);
	tcp_app_window(&p.c, 65536 + 500); /* read a little: no update */
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 0);
	peer_in(&p, A, 65536, 0, 1); /* probe with a byte: refused, answered */
	assert_int_equal(p.res.rx_len, 0);
	peer_expect_n(&p, 1);
	assert_int_equal(p.out[0].wnd, 0); /* still closed: RFC 9293 §3.8.6.2.2 */
	peer_in(&p, A, 65535, 0, 0); /* probe as Linux sends it */
	peer_expect_n(&p, 1);
	tcp_app_window(&p.c, 65536 + 1448);
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 1);
	assert_int_equal(p.out[0].wnd << p.c.rcv_wscale, 1440); /* steps of the scale */
	tcp_app_window(&p.c, 65536 + 2 * 1448);
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 1); /* doubled */
	tcp_app_window(&p.c, 65536 + 3 * 1448);
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 0);
}

/* Linux's receiver has a fast path for segments whose window is that of the one before. */
static void a_wide_window_stays_the_same(void **state)
{
	(void)state;
	peer_established(&p);
	for (int i = 0; i < 50; i++) {
		peer_in(&p, A | P, i * 100, i * 50, 100);
		tcp_app_window(&p.c, 65536 + (uint64_t)(i + 1) * 100);
		peer_write(&p, 50);
		peer_expect_n(&p, 1);
		assert_int_equal(p.out[0].wnd << p.c.rcv_wscale, 65536);
	}
}

static void a_lost_window_update_is_repeated_to_a_probe(void **state)
{
	(void)state;
	fill_window();
	tcp_app_window(&p.c, 2 * 65536);
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 1); /* lost */
	p.now += 1000000000;
	peer_in(&p, A, 65535, 0, 0);
	peer_expect_n(&p, 1);
	assert_int_equal(p.out[0].wnd << p.c.rcv_wscale, 65536);
}

static void the_right_edge_moves_back_by_rounding_at_most(void **state)
{
	uint32_t edge = 0;

	(void)state;
	peer_established(&p);
	for (int64_t at = 0; at < 60000; at += 777) {
		peer_in(&p, A, at, 0, 777);
		if (p.n) {
			uint32_t e = p.out[0].ack + ((uint32_t)p.out[0].wnd << p.c.rcv_wscale);
			assert_true(e + (1u << p.c.rcv_wscale) > edge); /* RFC 7323 §2.4 */
			edge = e > edge ? e : edge;
			assert_true(e <= 65536);
		}
	}
}

static void old_timestamps_are_refused(void **state)
{
	struct tcp_seg s;

	(void)state;
	peer_established(&p);
	peer_in(&p, A, 0, 0, 100);
	peer_in(&p, A, 100, 0, 2000);
	s = peer_make(&p, A, 2100, 0, 100);
	s.tsval -= 5000;
	peer_seg(&p, &s); /* RFC 7323 §5.3 */
	assert_int_equal(p.res.rx_len, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 2100, 0);
	s.has_ts = false; /* Linux: accepted */
	peer_seg(&p, &s);
	assert_int_equal(p.res.rx_len, 100);
	p.now += 25ull * 86400 * 1000000000; /* RFC 7323 §5.5: outdated */
	s = peer_make(&p, A, 2200, 0, 100);
	s.tsval = p.c.ts_recent - 5;
	peer_seg(&p, &s);
	assert_int_equal(p.res.rx_len, 100);
}

static void only_segments_at_the_left_edge_give_the_echoed_timestamp(void **state)
{
	struct tcp_seg s;
	uint32_t first;

	(void)state;
	peer_established(&p);
	first = p.c.ts_recent;
	p.now += 50000000;
	s = peer_make(&p, A, 1000, 0, 100); /* out of order: RFC 7323 §4.3 */
	peer_seg(&p, &s);
	assert_int_equal(p.out[0].tsecr, first);
	s = peer_make(&p, A, 0, 0, 1000);
	peer_seg(&p, &s);
	assert_int_equal(p.out[0].tsecr, s.tsval);
}

static void urgent_mark_is_where_linux_sees_it(void **state)
{
	struct tcp_seg s;

	(void)state;
	peer_established(&p);
	assert_true(tcp_rx_urgent(&p.c) == UINT64_MAX);
	s = peer_make(&p, A | U, 0, 0, 10);
	s.urg = 10; /* the byte before the pointer: the tenth */
	peer_seg(&p, &s);
	assert_true(p.events & TCP_EV_URG);
	assert_int_equal(tcp_rx_urgent(&p.c), 9);
	p.events = 0;
	s.urg = 5; /* older: not again */
	peer_seg(&p, &s);
	assert_int_equal(p.events & TCP_EV_URG, 0);
	s = peer_make(&p, A | U, 10, 0, 0); /* announced before the byte comes */
	s.urg = 100;
	peer_seg(&p, &s);
	assert_true(p.events & TCP_EV_URG);
	assert_int_equal(tcp_rx_urgent(&p.c), 109);
}

static void acknowledging_the_unsent_is_not_accepted(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A, 0, 5, 100); /* we sent nothing */
	assert_int_equal(p.res.rx_len, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, 0);
	peer_in(&p, A, 0, -10000000, 100); /* RFC 5961 §5: too old; the challenge is rationed */
	assert_int_equal(p.res.rx_len, 0);
	peer_expect_n(&p, 0);
	peer_in(&p, A, 0, -1, 100); /* Linux: never before the first byte */
	assert_int_equal(p.res.rx_len, 0);
	peer_write(&p, 1400);
	peer_expect_n(&p, 1);
	peer_in(&p, A, 0, 1400, 0);
	peer_in(&p, A, 0, 400, 100); /* old, but within the window: the data counts */
	assert_int_equal(p.res.rx_len, 100);
}

static void segment_without_ack_is_dropped(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, P, 0, 0, 100);
	assert_int_equal(p.res.rx_len, 0);
	assert_int_equal(p.events, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(in_order_data_is_acknowledged_every_second_segment),
		cmocka_unit_test(a_single_segment_is_acknowledged_within_40_ms),
		cmocka_unit_test(our_data_carries_the_acknowledgement),
		cmocka_unit_test(an_acknowledgement_waits_a_moment_for_the_answer),
		cmocka_unit_test(an_acknowledgement_waits_ten_times_as_long_for_an_application_that_has_not_looked),
		cmocka_unit_test(without_an_answer_an_acknowledgement_waits_no_longer),
		cmocka_unit_test(first_segments_and_quickack_are_acknowledged_at_once),
		cmocka_unit_test(holes_are_reported_and_filled),
		cmocka_unit_test(old_bytes_are_cut_off_and_reported_as_duplicate),
		cmocka_unit_test(the_33rd_range_is_refused_until_a_hole_closes),
		cmocka_unit_test(peer_without_sack_gets_one_duplicate_per_segment),
		cmocka_unit_test(data_beyond_the_window_is_cut),
		cmocka_unit_test(window_closes_and_opens_without_silly_steps),
		cmocka_unit_test(a_wide_window_stays_the_same),
		cmocka_unit_test(a_lost_window_update_is_repeated_to_a_probe),
		cmocka_unit_test(the_right_edge_moves_back_by_rounding_at_most),
		cmocka_unit_test(old_timestamps_are_refused),
		cmocka_unit_test(only_segments_at_the_left_edge_give_the_echoed_timestamp),
		cmocka_unit_test(urgent_mark_is_where_linux_sees_it),
		cmocka_unit_test(acknowledging_the_unsent_is_not_accepted),
		cmocka_unit_test(segment_without_ack_is_dropped),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
