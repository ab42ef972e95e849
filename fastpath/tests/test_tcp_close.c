/* SPDX-License-Identifier: MIT */
/* Ends: FIN in every order, resets, TIME_WAIT, orphans. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "sim_peer.h"

#define A TCP_F_ACK
#define S TCP_F_SYN
#define R TCP_F_RST
#define F TCP_F_FIN
#define P TCP_F_PSH

static struct peer p;

static void shut(void)
{
	tcp_app_shutdown(&p.c, p.now);
	p.n = 0;
	peer_flush(&p);
}

static void shut_and_close(void)
{
	tcp_app_close(&p.c, p.now);
	p.n = 0;
	peer_flush(&p);
}

static void assert_state(enum tcp_state s)
{
	assert_string_equal(tcp_state_name(tcp_state(&p.c)), tcp_state_name(s));
}

static void active_close_ends_in_time_wait_for_60_s(void **state)
{
	(void)state;
	peer_established(&p);
	shut_and_close();
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, F | A, 0, 0, 0);
	assert_state(TCP_S_FIN_WAIT1);
	peer_in(&p, A, 0, 1, 0);
	assert_state(TCP_S_FIN_WAIT2);
	peer_in(&p, F | A, 0, 1, 0);
	assert_state(TCP_S_TIME_WAIT);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 1, 1, 0);
	peer_wait(&p, 59999);
	assert_state(TCP_S_TIME_WAIT);
	peer_wait(&p, 1);
	assert_state(TCP_S_CLOSE);
	assert_true(p.events & TCP_EV_CLOSED && !(p.events & TCP_EV_ERROR));
}

static void passive_close_ends_with_the_ack_of_our_fin(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, F | A, 0, 0, 0);
	assert_int_equal(p.events, TCP_EV_FIN);
	assert_state(TCP_S_CLOSE_WAIT);
	peer_expect(&p, 0, A, 0, 1, 0);
	peer_write(&p, 5); /* the other direction still works */
	peer_expect(&p, 0, A | P, 0, 1, 5);
	shut();
	peer_expect(&p, 0, F | A, 5, 1, 0);
	assert_state(TCP_S_LAST_ACK);
	peer_in(&p, A, 1, 6, 0);
	assert_state(TCP_S_CLOSE);
	assert_int_equal(p.res.acked, 5);
	assert_true(p.events & TCP_EV_CLOSED && !(p.events & TCP_EV_ERROR));
}

static void both_at_once_go_through_closing(void **state)
{
	(void)state;
	peer_established(&p);
	shut_and_close();
	peer_in(&p, F | A, 0, 0, 0);
	assert_state(TCP_S_CLOSING);
	peer_expect(&p, 0, A, 1, 1, 0);
	peer_in(&p, A, 1, 1, 0);
	assert_state(TCP_S_TIME_WAIT);
}

static void fin_that_acknowledges_ours_goes_straight_to_time_wait(void **state)
{
	(void)state;
	peer_established(&p);
	shut_and_close();
	peer_in(&p, F | A, 0, 1, 0);
	assert_state(TCP_S_TIME_WAIT);
	peer_expect(&p, 0, A, 1, 1, 0);
}

static void fin_rides_on_the_last_data(void **state)
{
	(void)state;
	peer_established(&p);
	tcp_app_written(&p.c, 2000);
	shut();
	peer_expect_n(&p, 2);
	peer_expect(&p, 0, A, 0, 0, 1448);
	peer_expect(&p, 1, F | A | P, 1448, 0, 552);
	peer_in(&p, A, 0, 2000, 0);
	assert_state(TCP_S_FIN_WAIT1);
	assert_int_equal(p.res.acked, 2000);
	peer_in(&p, A, 0, 2001, 0);
	assert_state(TCP_S_FIN_WAIT2);
	assert_int_equal(p.res.acked, 2000);
}

static void lost_fin_is_sent_again(void **state)
{
	(void)state;
	peer_established(&p);
	tcp_app_written(&p.c, 10);
	shut();
	assert_int_equal(peer_next(&p), 201);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, F | A | P, 0, 0, 10);
	peer_in(&p, A, 0, 10, 0);
	peer_wait(&p, 1000);
	peer_expect(&p, 0, F | A, 10, 0, 0);
}

static void fin_out_of_order_waits_for_the_data_before_it(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, F | A | P, 1000, 0, 500);
	assert_int_equal(p.events, 0);
	assert_int_equal(p.res.rx_len, 500);
	assert_int_equal(tcp_rx_high(&p.c), 1500);
	assert_state(TCP_S_ESTABLISHED);
	peer_expect(&p, 0, A, 0, 0, 0);
	peer_in(&p, A, 0, 0, 1000);
	assert_int_equal(p.events, TCP_EV_READABLE | TCP_EV_FIN);
	assert_int_equal(p.res.delivered, 1500);
	peer_expect(&p, 0, A, 0, 1501, 0);
	assert_state(TCP_S_CLOSE_WAIT);
	peer_in(&p, A, 1501, 0, 10); /* behind the FIN: nothing */
	assert_int_equal(p.res.rx_len, 0);
}

static void bare_fin_before_its_data_is_remembered(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, F | A, 700, 0, 0);
	assert_int_equal(p.events, 0);
	peer_in(&p, A, 0, 0, 900); /* data never goes beyond a FIN */
	assert_int_equal(p.res.rx_len, 700);
	assert_int_equal(p.events, TCP_EV_READABLE | TCP_EV_FIN);
}

static void a_fin_beyond_the_window_is_not_believed(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, F | A, 65530, 0, 10);
	assert_int_equal(p.res.rx_len, 6);
	assert_false(p.c.flags & TCP__FIN_SEEN);
	peer_in(&p, F | A, 65530, 0, 6); /* at the right edge itself: fine */
	assert_true(p.c.flags & TCP__FIN_SEEN);
}

static void half_closed_connection_still_receives(void **state)
{
	(void)state;
	peer_established(&p);
	shut();
	peer_in(&p, A, 0, 1, 0);
	assert_state(TCP_S_FIN_WAIT2);
	assert_true(tcp_deadline(&p.c) == UINT64_MAX); /* not an orphan: for ever */
	peer_in(&p, A, 0, 1, 1000);
	assert_int_equal(p.res.rx_len, 1000);
	assert_int_equal(p.res.delivered, 1000);
}

static void orphan_waits_60_s_in_fin_wait2(void **state)
{
	(void)state;
	peer_established(&p);
	shut();
	peer_in(&p, A, 0, 1, 0);
	shut_and_close();
	peer_wait(&p, 59999);
	assert_state(TCP_S_FIN_WAIT2);
	peer_wait(&p, 1);
	assert_state(TCP_S_CLOSE);
	assert_int_equal(p.events & TCP_EV_ERROR, 0);
}

static void data_for_an_orphan_is_answered_by_reset(void **state)
{
	(void)state;
	peer_established(&p);
	shut_and_close();
	peer_in(&p, A, 0, 1, 0);
	peer_in(&p, A, 0, 1, 10);
	assert_true(p.res.reset_reply);
	assert_int_equal(p.res.rx_len, 0);
	assert_state(TCP_S_CLOSE);
}

static void orphan_gives_up_after_8_retries(void **state)
{
	(void)state;
	peer_established(&p);
	tcp_app_written(&p.c, 10);
	shut_and_close();
	peer_wait(&p, 3600000);
	assert_state(TCP_S_CLOSE);
	assert_int_equal(p.c.total_retrans, 8);
}

static void reset_must_hit_the_exact_number(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, R, 70000, 0, 0); /* outside */
	peer_expect_n(&p, 0);
	peer_in(&p, R, 1, 0, 0); /* inside: RFC 5961 challenge */
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, 0);
	peer_in(&p, R, 2, 0, 0); /* one per half second */
	peer_expect_n(&p, 0);
	assert_int_equal(p.events, 0);
	peer_in(&p, R, 0, 0, 0);
	assert_int_equal(p.events, TCP_EV_ERROR | TCP_EV_CLOSED);
	assert_int_equal(p.error, ECONNRESET);
	assert_int_equal(tcp_state(&p.c), TCP_S_CLOSE);
}

static void reset_in_close_wait_is_epipe(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, F | A, 0, 0, 0);
	peer_in(&p, R, 1, 0, 0);
	assert_int_equal(p.error, EPIPE);
}

static void syn_in_a_connection_is_challenged(void **state)
{
	struct tcp_seg s;

	(void)state;
	peer_established(&p);
	s = peer_make(&p, S, 100, 0, 0);
	peer_seg(&p, &s);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, 0);
	assert_state(TCP_S_ESTABLISHED);
}

static void abort_sends_reset_where_linux_does(void **state)
{
	(void)state;
	for (int i = 0; i < 5; i++) {
		peer_established(&p);
		peer_write(&p, 100);
		if (i == 1)
			shut();
		if (i == 2 || i == 3)
			peer_in(&p, F | A, 0, 0, 0);
		if (i == 3) {
			shut(); /* LAST_ACK, everything sent */
			assert_state(TCP_S_LAST_ACK);
		}
		if (i == 4)
			peer_listen(&p);
		tcp_app_abort(&p.c, p.now);
		assert_state(TCP_S_CLOSE);
		p.n = 0;
		peer_flush(&p);
		peer_expect_n(&p, i == 3 ? 0 : 1);
		if (i != 3)
			peer_expect(&p, 0, R | A, i == 1 ? 101 : i == 4 ? 0 : 100, i == 2, 0);
		assert_true(tcp_deadline(&p.c) == UINT64_MAX);
	}
}

static void time_wait(void)
{
	peer_established(&p);
	shut_and_close();
	peer_in(&p, F | A, 0, 1, 0);
	assert_state(TCP_S_TIME_WAIT);
	p.events = 0;
}

static void time_wait_answers_a_repeated_fin_and_starts_again(void **state)
{
	(void)state;
	time_wait();
	peer_wait(&p, 50000);
	peer_in(&p, F | A, 0, 1, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 1, 1, 0);
	peer_wait(&p, 59000);
	assert_state(TCP_S_TIME_WAIT);
	peer_in(&p, A, 1, 1, 0); /* a plain acknowledgement: silence */
	peer_expect_n(&p, 0);
	peer_in(&p, A, 1, 1, 10); /* data: acknowledged, nothing more */
	peer_expect_n(&p, 1);
	assert_int_equal(p.res.rx_len, 0);
	peer_wait(&p, 60000);
	assert_state(TCP_S_CLOSE);
}

static void reset_ends_time_wait_silently(void **state)
{
	(void)state;
	time_wait();
	peer_in(&p, R, 1, 0, 0);
	assert_int_equal(p.events, TCP_EV_CLOSED);
}

static void time_wait_gives_way_to_a_newer_syn(void **state)
{
	struct tcp_seg s;

	(void)state;
	time_wait();
	s = peer_make(&p, S, 1000, 0, 0);
	assert_true(tcp_time_wait_reusable(&p.c, &s));
	s.seq = PEER_THEIR - 5000; /* older number, newer timestamp */
	assert_false(tcp_time_wait_reusable(&p.c, &s));
	s.tsval += 10;
	assert_true(tcp_time_wait_reusable(&p.c, &s));
	s.tsval -= 10000; /* older timestamp: PAWS */
	s.seq = PEER_THEIR + 5000;
	assert_false(tcp_time_wait_reusable(&p.c, &s));
	s.has_ts = false;
	assert_true(tcp_time_wait_reusable(&p.c, &s));
	s.flags = S | A;
	assert_false(tcp_time_wait_reusable(&p.c, &s));
	assert_true(seq_gt(tcp_time_wait_isn(&p.c), PEER_OUR + 1));
}

static void closed_connection_answers_with_reset(void **state)
{
	(void)state;
	peer_established(&p);
	tcp_app_abort(&p.c, p.now);
	peer_flush(&p);
	peer_in(&p, A, 0, 0, 10);
	assert_true(p.res.reset_reply);
	peer_in(&p, R, 0, 0, 0);
	assert_false(p.res.reset_reply);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(active_close_ends_in_time_wait_for_60_s),
		cmocka_unit_test(passive_close_ends_with_the_ack_of_our_fin),
		cmocka_unit_test(both_at_once_go_through_closing),
		cmocka_unit_test(fin_that_acknowledges_ours_goes_straight_to_time_wait),
		cmocka_unit_test(fin_rides_on_the_last_data),
		cmocka_unit_test(lost_fin_is_sent_again),
		cmocka_unit_test(fin_out_of_order_waits_for_the_data_before_it),
		cmocka_unit_test(bare_fin_before_its_data_is_remembered),
		cmocka_unit_test(a_fin_beyond_the_window_is_not_believed),
		cmocka_unit_test(half_closed_connection_still_receives),
		cmocka_unit_test(orphan_waits_60_s_in_fin_wait2),
		cmocka_unit_test(data_for_an_orphan_is_answered_by_reset),
		cmocka_unit_test(orphan_gives_up_after_8_retries),
		cmocka_unit_test(reset_must_hit_the_exact_number),
		cmocka_unit_test(reset_in_close_wait_is_epipe),
		cmocka_unit_test(syn_in_a_connection_is_challenged),
		cmocka_unit_test(abort_sends_reset_where_linux_does),
		cmocka_unit_test(time_wait_answers_a_repeated_fin_and_starts_again),
		cmocka_unit_test(reset_ends_time_wait_silently),
		cmocka_unit_test(time_wait_gives_way_to_a_newer_syn),
		cmocka_unit_test(closed_connection_answers_with_reset),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
