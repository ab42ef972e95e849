/* SPDX-License-Identifier: MIT */
/* Opening: both SYNs, their retransmission, options, refusal, simultaneous open. */
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

static void active_open_offers_everything_and_connects(void **state)
{
	(void)state;
	peer_init(&p, true);
	peer_connect(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, S, -1, 0, 0);
	assert_int_equal(p.out[0].mss, 1460);
	assert_true(p.out[0].has_ts && p.out[0].sack_ok && p.out[0].has_wscale);
	assert_int_equal(p.out[0].wscale, 5); /* 65535 << 5 covers 1 MiB */
	assert_int_equal(p.out[0].wnd, 65535);
	p.now += 10000000;
	peer_in(&p, S | A, -1, 0, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, 0);
	assert_int_equal(p.events, TCP_EV_CONNECTED);
	assert_int_equal(tcp_state(&p.c), TCP_S_ESTABLISHED);
	assert_int_equal(tcp_mss(&p.c), 1448);
	struct tcp_stats st;
	tcp_get_stats(&p.c, &st);
	assert_int_equal(st.srtt_ns, 10000000);
	assert_int_equal(st.rto_ns, 210000000); /* Linux: srtt + 200 ms */
	assert_int_equal(st.cwnd, 14480);
	assert_int_equal(st.snd_wnd, 65535); /* not scaled in a SYN */
	assert_true(tcp_deadline(&p.c) == UINT64_MAX);
}

static void passive_open_mirrors_options(void **state)
{
	(void)state;
	peer_init(&p, true);
	p.syn_sack = false;
	p.syn_mss = 1000;
	peer_listen(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, S | A, -1, 0, 0);
	assert_true(p.out[0].has_ts && !p.out[0].sack_ok && p.out[0].has_wscale);
	assert_int_equal(tcp_state(&p.c), TCP_S_SYN_RECV);
	assert_int_equal(tcp_mss(&p.c), 988);
	peer_in(&p, A, 0, 0, 0);
	peer_expect_n(&p, 0);
	assert_int_equal(p.events, TCP_EV_CONNECTED);
	assert_int_equal(p.c.snd_wnd_end, 65535u << 7); /* scaled from here on */
}

static void peer_without_options_gets_536_bytes_and_no_scaling(void **state)
{
	(void)state;
	peer_established_plain(&p);
	assert_int_equal(tcp_mss(&p.c), 536);
	peer_expect(&p, 0, A, 0, 0, 0);
	assert_false(p.out[0].has_ts);
	assert_int_equal(p.out[0].wnd, 65535);
	assert_int_equal(p.c.snd_wscale, 0);
	assert_int_equal(p.c.rcv_wscale, 0);
	assert_false(p.c.flags & (TCP__TS | TCP__SACK | TCP__WSCALE));
}

static void syns_go_every_second_then_seldom_and_time_out(void **state)
{
	const uint64_t after[] = { 1000, 1000, 1000, 1000, 1000, 2000, 4000, 8000, 16000, 32000 };

	(void)state;
	peer_init(&p, true);
	peer_connect(&p);
	for (int i = 0; i < 10; i++) {
		assert_int_equal(peer_next(&p), after[i]);
		peer_expect_n(&p, 1);
		peer_expect(&p, 0, S, -1, 0, 0);
	}
	assert_int_equal(peer_next(&p), 64000);
	peer_expect_n(&p, 0);
	assert_int_equal(p.events, TCP_EV_ERROR | TCP_EV_CLOSED);
	assert_int_equal(p.error, ETIMEDOUT);
	assert_true(tcp_deadline(&p.c) == UINT64_MAX);
}

static void syn_ack_is_repeated_by_timer_and_by_the_peers_syn(void **state)
{
	struct tcp_seg syn;

	(void)state;
	peer_init(&p, true);
	peer_listen(&p);
	assert_int_equal(peer_next(&p), 1000);
	peer_expect(&p, 0, S | A, -1, 0, 0);
	p.now += 100000000;
	syn = peer_make(&p, S, -1, 0, 0);
	peer_seg(&p, &syn);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, S | A, -1, 0, 0);
	peer_seg(&p, &syn); /* at most every half second */
	peer_expect_n(&p, 0);
	peer_wait(&p, 120000);
	assert_int_equal(p.error, ETIMEDOUT);
	assert_int_equal(p.c.total_retrans, 6);
}

static void a_deferred_handshake_waits_for_data_or_for_its_time(void **state)
{
	(void)state;
	peer_init(&p, true);
	p.cfg.defer = 2;
	peer_listen(&p);
	peer_in(&p, A, 0, 0, 0);
	peer_expect_n(&p, 0);
	assert_int_equal(tcp_state(&p.c), TCP_S_SYN_RECV);
	peer_in(&p, A | TCP_F_PSH, 0, 0, 10);
	assert_int_equal(tcp_state(&p.c), TCP_S_ESTABLISHED);
	assert_int_equal(p.c.rcv_nxt, 10);

	peer_init(&p, true);
	p.cfg.defer = 2;
	peer_listen(&p);
	peer_in(&p, A, 0, 0, 0);
	peer_next(&p); /* the first timeout, of which only we know */
	peer_wait(&p, 2500);
	peer_expect(&p, 0, S | A, -1, 0, 0);
	peer_in(&p, A, 0, 0, 0);
	assert_int_equal(tcp_state(&p.c), TCP_S_ESTABLISHED);
}

static void a_lost_syn_costs_the_initial_window_and_a_3_s_timeout(void **state)
{
	(void)state;
	peer_init(&p, false);
	peer_connect(&p);
	peer_next(&p);
	peer_next(&p);
	p.now += 5000000;
	peer_in(&p, S | A, -1, 0, 0);
	assert_int_equal(p.c.cwnd, 536); /* Linux: lost twice */
	struct tcp_stats st;
	tcp_get_stats(&p.c, &st);
	assert_int_equal(st.rto_ns, 3000000000u); /* RFC 6298 §5.7; Karn: no sample */
	assert_int_equal(st.srtt_ns, 0);
}

static void refusal_needs_an_acceptable_ack(void **state)
{
	(void)state;
	peer_init(&p, true);
	peer_connect(&p);
	peer_in(&p, R, -1, 0, 0); /* no ACK: dropped */
	assert_int_equal(p.events, 0);
	peer_in(&p, R | A, -1, 5, 0); /* of something else */
	assert_int_equal(p.events, 0);
	assert_false(p.res.reset_reply);
	peer_in(&p, A, -1, 5, 0);
	assert_true(p.res.reset_reply);
	peer_in(&p, A, -1, 0, 0); /* acceptable, but no SYN: dropped */
	assert_int_equal(tcp_state(&p.c), TCP_S_SYN_SENT);
	peer_in(&p, R | A, -1, 0, 0);
	assert_int_equal(p.error, ECONNREFUSED);
	assert_int_equal(tcp_state(&p.c), TCP_S_CLOSE);
}

static void an_echo_from_the_future_is_refused(void **state)
{
	struct tcp_seg s;

	(void)state;
	peer_init(&p, true);
	peer_connect(&p);
	s = peer_make(&p, S | A, -1, 0, 0);
	s.tsecr += 1000;
	peer_seg(&p, &s);
	assert_true(p.res.reset_reply);
	assert_int_equal(tcp_state(&p.c), TCP_S_SYN_SENT);
}

static void simultaneous_open_connects(void **state)
{
	struct tcp_seg s;

	(void)state;
	peer_init(&p, true);
	peer_connect(&p);
	s = peer_make(&p, S, -1, 0, 0);
	s.ack = 0;
	peer_seg(&p, &s);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, S | A, -1, 0, 0);
	assert_int_equal(tcp_state(&p.c), TCP_S_SYN_RECV);
	peer_in(&p, S | A, -1, 0, 0);
	assert_int_equal(tcp_state(&p.c), TCP_S_ESTABLISHED);
	assert_int_equal(p.events, TCP_EV_CONNECTED);
	peer_write(&p, 10);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | P, 0, 0, 10);
}

static void handshake_ack_with_a_wrong_number_is_reset(void **state)
{
	(void)state;
	peer_init(&p, true);
	peer_listen(&p);
	peer_in(&p, A, 0, 7, 0);
	assert_true(p.res.reset_reply);
	assert_int_equal(tcp_state(&p.c), TCP_S_SYN_RECV);
	peer_in(&p, R, 0, 0, 0);
	assert_int_equal(p.events, TCP_EV_ERROR | TCP_EV_CLOSED);
}

static void handshake_ack_may_carry_data_and_fin(void **state)
{
	(void)state;
	peer_init(&p, true);
	peer_listen(&p);
	peer_in(&p, A | P | F, 0, 0, 100);
	assert_int_equal(p.events, TCP_EV_CONNECTED | TCP_EV_READABLE | TCP_EV_FIN);
	assert_int_equal(p.res.rx_len, 100);
	assert_int_equal(p.res.delivered, 100);
	assert_int_equal(tcp_state(&p.c), TCP_S_CLOSE_WAIT);
	peer_expect(&p, 0, A, 0, 101, 0);
}

static void unreachable_ends_connecting_at_once(void **state)
{
	struct tcp_result res;

	(void)state;
	peer_init(&p, true);
	peer_connect(&p);
	tcp_icmp_error(&p.c, PEER_OUR + 77, EHOSTUNREACH, false, p.now, &res); /* not about our SYN */
	assert_int_equal(res.events, 0);
	tcp_icmp_error(&p.c, PEER_OUR - 1, EHOSTUNREACH, false, p.now, &res);
	assert_int_equal(res.events, TCP_EV_ERROR | TCP_EV_CLOSED);
	assert_int_equal(res.error, EHOSTUNREACH);
}

static void shutdown_and_close_while_connecting_just_forget(void **state)
{
	(void)state;
	for (int i = 0; i < 3; i++) {
		peer_init(&p, true);
		peer_connect(&p);
		if (i == 0)
			tcp_app_shutdown(&p.c, p.now);
		else if (i == 1)
			tcp_app_close(&p.c, p.now);
		else
			tcp_app_abort(&p.c, p.now);
		assert_int_equal(tcp_state(&p.c), TCP_S_CLOSE);
		p.n = 0;
		peer_flush(&p);
		peer_expect_n(&p, 0);
		peer_in(&p, S | A, -1, 0, 0);
		assert_true(p.res.reset_reply);
	}
}

static void syn_retries_and_timeout_follow_the_configuration(void **state)
{
	(void)state;
	peer_init(&p, true);
	p.cfg.syn_retries = 2;
	p.cfg.syn_timeout = 10000000;
	peer_connect(&p);
	for (int i = 0; i < 5; i++)
		assert_int_equal(peer_next(&p), 10);
	assert_int_equal(p.error, 0);
	assert_int_equal(peer_next(&p), 20); /* 10, 20 and 40 ms have passed */
	assert_int_equal(p.error, ETIMEDOUT);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(active_open_offers_everything_and_connects),
		cmocka_unit_test(passive_open_mirrors_options),
		cmocka_unit_test(peer_without_options_gets_536_bytes_and_no_scaling),
		cmocka_unit_test(syns_go_every_second_then_seldom_and_time_out),
		cmocka_unit_test(a_deferred_handshake_waits_for_data_or_for_its_time),
		cmocka_unit_test(syn_ack_is_repeated_by_timer_and_by_the_peers_syn),
		cmocka_unit_test(a_lost_syn_costs_the_initial_window_and_a_3_s_timeout),
		cmocka_unit_test(refusal_needs_an_acceptable_ack),
		cmocka_unit_test(an_echo_from_the_future_is_refused),
		cmocka_unit_test(simultaneous_open_connects),
		cmocka_unit_test(handshake_ack_with_a_wrong_number_is_reset),
		cmocka_unit_test(handshake_ack_may_carry_data_and_fin),
		cmocka_unit_test(unreachable_ends_connecting_at_once),
		cmocka_unit_test(shutdown_and_close_while_connecting_just_forget),
		cmocka_unit_test(syn_retries_and_timeout_follow_the_configuration),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
