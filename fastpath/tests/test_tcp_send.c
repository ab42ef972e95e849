/* SPDX-License-Identifier: MIT */
/* Sending: segment sizes, Nagle, cork, windows and probes, keep-alive, user timeout, urgent pointer. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "sim_peer.h"

#define A TCP_F_ACK
#define R TCP_F_RST
#define F TCP_F_FIN
#define P TCP_F_PSH
#define U TCP_F_URG

static struct peer p;

static void options(struct tcp_opts o)
{
	tcp_app_options(&p.c, &o, p.now);
	p.n = 0;
	peer_flush(&p);
}

static void data_goes_in_full_segments_and_the_last_pushes(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 4000);
	peer_expect_n(&p, 3);
	peer_expect(&p, 0, A, 0, 0, 1448);
	peer_expect(&p, 1, A, 1448, 0, 1448);
	peer_expect(&p, 2, A | P, 2896, 0, 1104);
	assert_int_equal(p.off[2], 2896);
	peer_in(&p, A, 0, 4000, 0);
	assert_int_equal(p.res.acked, 4000);
	assert_int_equal(p.events, TCP_EV_WRITABLE);
	assert_true(tcp_deadline(&p.c) == UINT64_MAX);
}

static void offload_gets_one_large_segment(void **state)
{
	(void)state;
	peer_established(&p);
	p.max_len = 65536;
	peer_write(&p, 10000);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | P, 0, 0, 10000);
	peer_in(&p, A, 0, 10000, 0);
	p.max_len = 4000; /* whole segments only */
	peer_write(&p, 10000);
	peer_expect(&p, 0, A, 10000, 0, 2896);
}

static void the_initial_window_is_ten_segments(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 100000);
	peer_expect_n(&p, 10);
	peer_in(&p, A, 0, 2896, 0); /* slow start: two more for each acknowledged */
	peer_expect_n(&p, 4);
}

static void nagle_holds_one_small_segment_behind_another(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 100);
	peer_expect_n(&p, 1);
	peer_write(&p, 100);
	peer_expect_n(&p, 0);
	peer_in(&p, A, 0, 100, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | P, 100, 0, 100);
	peer_write(&p, 1448 + 50); /* a full one goes, its tail waits */
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 200, 0, 1448);
}

static void small_tail_goes_when_only_full_segments_are_in_flight(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 1448);
	peer_write(&p, 100); /* Linux: Minshall */
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | P, 1448, 0, 100);
}

static void nodelay_sends_at_once(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 100);
	peer_write(&p, 100);
	peer_expect_n(&p, 0);
	options((struct tcp_opts){ .nodelay = true });
	peer_expect_n(&p, 1); /* what waited goes */
	peer_write(&p, 100);
	peer_expect_n(&p, 1);
}

static void cork_holds_for_200_ms_at_most(void **state)
{
	(void)state;
	peer_established(&p);
	options((struct tcp_opts){ .cork = true, .nodelay = true });
	peer_write(&p, 100);
	peer_expect_n(&p, 0);
	assert_int_equal(peer_next(&p), 201);
	peer_expect_n(&p, 1);
	peer_in(&p, A, 0, 100, 0);
	peer_write(&p, 1500);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 100, 0, 1448);
	options((struct tcp_opts){ .nodelay = true });
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | P, 1548, 0, 52);
	options((struct tcp_opts){ .cork = true });
	peer_write(&p, 10);
	tcp_app_shutdown(&p.c, p.now); /* the last segment is not held */
	p.n = 0;
	peer_flush(&p);
	peer_expect(&p, 0, A | P | F, 1600, 0, 10);
}

static void what_more_follows_waits_for_it_or_for_any_segment(void **state)
{
	(void)state;
	peer_init(&p, true);
	peer_established(&p);
	tcp_app_more(&p.c, 0);
	peer_write(&p, 100);
	peer_expect_n(&p, 0);
	tcp_app_more(&p.c, UINT64_MAX); /* the rest */
	peer_write(&p, 50);
	peer_expect(&p, 0, A | P, 0, 0, 150);
	peer_in(&p, A, 0, 150, 0);
	tcp_app_more(&p.c, 150);
	peer_write(&p, 10);
	peer_expect_n(&p, 0);
	peer_in(&p, A | P, 0, 150, 20); /* data alone lets nothing go */
	for (unsigned i = 0; i < p.n; i++)
		assert_int_equal(p.out[i].len, 0);
	peer_in(&p, A, 20, 150, 0);
	peer_expect(&p, 0, A, 150, 20, 10); /* without PSH: more follows */
	peer_in(&p, A, 20, 160, 0);
	tcp_app_more(&p.c, 170); /* of 20 bytes the first 10 were not written with it */
	peer_write(&p, 20);
	peer_expect(&p, 0, A, 160, 20, 20);
}

static void small_windows_are_not_filled_sillily(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A, 0, 0, 1); /* the peer's scaled window, large */
	p.wnd = 8;               /* 1024 bytes */
	peer_in(&p, A, 1, 0, 1);
	peer_write(&p, 5000);
	peer_expect_n(&p, 0); /* less than a segment: wait, override after the timeout */
	assert_true(peer_next(&p) <= 40); /* the delayed acknowledgement */
	assert_true(peer_next(&p) >= 160);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 2, 1024);
}

static void segments_are_bound_to_half_of_a_small_peers_window(void **state)
{
	(void)state;
	peer_init(&p, false);
	p.wnd = 1000;
	p.syn_mss = 1460;
	peer_connect(&p);
	peer_in(&p, TCP_F_SYN | A, -1, 0, 0);
	peer_write(&p, 3000);
	peer_expect_n(&p, 2);
	peer_expect(&p, 0, A, 0, 0, 500);
	peer_expect(&p, 1, A, 500, 0, 500);
}

static void close_window(void)
{
	peer_established(&p);
	peer_write(&p, 1000);
	p.wnd = 0;
	peer_in(&p, A, 0, 1000, 0);
	p.events = 0;
	peer_write(&p, 5000);
	peer_expect_n(&p, 0);
}

static void a_closed_window_is_probed_for_ever_while_the_peer_answers(void **state)
{
	uint64_t last = 0, total = 0;

	(void)state;
	close_window();
	for (int i = 0; i < 300; i++) {
		uint64_t ms = peer_next(&p);

		assert_true(ms >= last && ms <= 120000);
		last = ms;
		total += ms;
		peer_expect_n(&p, 1);
		peer_expect(&p, 0, A, 999, 0, 0); /* Linux: empty, one below */
		peer_in(&p, A, 0, 1000, 0);
	}
	assert_int_equal(last, 120000);
	assert_true(total > 8 * 3600 * 1000);
	p.wnd = 1000; /* scaled */
	peer_in(&p, A, 0, 1000, 0);
	peer_expect_n(&p, 4);
	peer_expect(&p, 0, A, 1000, 0, 1448);
	assert_int_equal(p.c.backoff, 0);
}

static void a_closed_window_without_answers_times_out(void **state)
{
	(void)state;
	close_window();
	peer_wait(&p, 7200000);
	assert_int_equal(p.error, ETIMEDOUT);
	assert_int_equal(p.events, TCP_EV_ERROR | TCP_EV_CLOSED);
}

static void an_orphan_does_not_wait_for_a_window_for_ever(void **state)
{
	(void)state;
	close_window();
	tcp_app_close(&p.c, p.now);
	p.n = 0;
	peer_flush(&p);
	for (int i = 0; i < 30 && tcp_state(&p.c) != TCP_S_CLOSE; i++) {
		peer_next(&p);
		peer_in(&p, A, 0, 1000, 0);
	}
	assert_int_equal(tcp_state(&p.c), TCP_S_CLOSE);
}

static void a_fin_waits_for_the_window(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 1000);
	p.wnd = 0;
	peer_in(&p, A, 0, 1000, 0);
	tcp_app_shutdown(&p.c, p.now);
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 0);
	peer_next(&p);
	peer_expect(&p, 0, A, 999, 0, 0);
	p.wnd = 1;
	peer_in(&p, A, 0, 1000, 0);
	peer_expect(&p, 0, A | F, 1000, 0, 0);
}

static void a_window_taken_back_does_not_kill_while_the_peer_lives(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 5000);
	p.wnd = 0;
	peer_in(&p, A, 0, 1448, 0);
	for (int i = 0; i < 40; i++) {
		peer_next(&p);
		peer_expect(&p, 0, A, 1448, 0, 1448);
		peer_in(&p, A, 0, 1448, 0);
	}
	assert_int_equal(tcp_state(&p.c), TCP_S_ESTABLISHED);
	peer_wait(&p, 3600000);
	assert_int_equal(p.error, ETIMEDOUT);
}

static void idle_connections_restart_from_the_initial_window(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 14480);
	peer_in(&p, A, 0, 14480, 0);
	peer_write(&p, 28960);
	peer_expect_n(&p, 20);
	peer_in(&p, A, 0, 14480 + 28960, 0);
	assert_int_equal(p.c.cwnd, 14480 * 4);
	peer_wait(&p, 10000);
	peer_write(&p, 100000);
	peer_expect_n(&p, 10);
}

static void keepalive_probes_and_gives_up(void **state)
{
	(void)state;
	peer_established(&p);
	options((struct tcp_opts){ .keepalive = true, .keep_idle = 10, .keep_intvl = 2, .keep_cnt = 3 });
	peer_wait(&p, 9998);
	assert_true(p.events == 0 && p.n == 0);
	peer_next(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, -1, 0, 0);
	peer_in(&p, A, 0, 0, 0); /* alive */
	peer_next(&p);           /* looks, and sleeps on */
	peer_expect_n(&p, 0);
	peer_next(&p);
	peer_expect(&p, 0, A, -1, 0, 0);
	for (int i = 0; i < 2; i++) {
		assert_int_equal(peer_next(&p), 2000);
		peer_expect(&p, 0, A, -1, 0, 0);
	}
	assert_int_equal(peer_next(&p), 2000);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, R | A, 0, 0, 0);
	assert_int_equal(p.error, ETIMEDOUT);
}

static void keepalive_counts_from_the_last_segment(void **state)
{
	(void)state;
	peer_established(&p);
	options((struct tcp_opts){ .keepalive = true, .keep_idle = 10 });
	for (int i = 0; i < 10; i++) {
		peer_wait(&p, 9000);
		peer_expect_n(&p, i > 0); /* only the delayed acknowledgement */
		peer_in(&p, A | P, i * 10, 0, 10);
	}
	assert_int_equal(p.c.keep_probes, 0);
	options((struct tcp_opts){ .keepalive = false });
	peer_wait(&p, 40);
	assert_true(tcp_deadline(&p.c) == UINT64_MAX);
}

static void user_timeout_ends_a_stalled_connection(void **state)
{
	uint64_t start;

	(void)state;
	peer_established(&p);
	options((struct tcp_opts){ .user_timeout = 5000 });
	peer_wait(&p, 60000); /* idleness does not count */
	start = p.now;
	peer_write(&p, 100);
	while (!p.error)
		peer_next(&p);
	assert_int_equal(p.error, ETIMEDOUT);
	assert_in_range((p.now - start) / 1000000, 5000, 5001);

	close_window();
	options((struct tcp_opts){ .user_timeout = 5000 });
	start = p.now;
	while (!p.error) {
		peer_next(&p);
		if (!p.error)
			peer_in(&p, A, 0, 1000, 0); /* Linux: answers to probes do not help */
	}
	assert_in_range((p.now - start) / 1000000, 4000, 6000);
}

static void urgent_pointer_follows_the_mark(void **state)
{
	(void)state;
	peer_established(&p);
	tcp_app_urgent(&p.c, 100);
	peer_write(&p, 100);
	peer_expect(&p, 0, A | P | U, 0, 0, 100);
	assert_int_equal(p.out[0].urg, 100);
	tcp_app_urgent(&p.c, 101); /* urgent data is not held by Nagle */
	peer_write(&p, 1);
	peer_expect(&p, 0, A | P | U, 100, 0, 1);
	assert_int_equal(p.out[0].urg, 1);
	peer_in(&p, A, 0, 101, 0);
	peer_write(&p, 1);
	peer_expect(&p, 0, A | P, 101, 0, 1);
}

static void nothing_is_written_behind_a_fin(void **state)
{
	(void)state;
	peer_established(&p);
	tcp_app_shutdown(&p.c, p.now);
	peer_write(&p, 100);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | F, 0, 0, 0);
}

static void sack_blocks_take_their_room_from_the_payload(void **state)
{
	(void)state;
	peer_established(&p);
	peer_in(&p, A, 1000, 0, 10);
	p.max_len = 65536;
	peer_write(&p, 5000);
	peer_expect(&p, 0, A, 0, 0, 1448 - 12);
	assert_int_equal(p.out[0].n_sack, 1);
}

static void statistics_tell_what_happened(void **state)
{
	struct tcp_stats st;

	(void)state;
	peer_established(&p);
	peer_write(&p, 3000);
	peer_next(&p);
	tcp_get_stats(&p.c, &st);
	assert_int_equal(st.unacked_bytes, 3000);
	assert_int_equal(st.total_retrans, 1);
	assert_int_equal(st.bytes_retrans, 1448);
	assert_int_equal(st.retransmits, 1);
	assert_int_equal(st.segs_out, 1 + 1 + 3 + 1);
	assert_int_equal(st.segs_in, 1);
	assert_int_equal(st.cwnd, 1448);
	assert_int_equal(st.snd_mss, 1448);
	assert_true(st.timestamps && st.sack && st.wscale_ok);
	assert_string_equal(tcp_state_name((enum tcp_state)99), "UNKNOWN");
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(data_goes_in_full_segments_and_the_last_pushes),
		cmocka_unit_test(offload_gets_one_large_segment),
		cmocka_unit_test(the_initial_window_is_ten_segments),
		cmocka_unit_test(nagle_holds_one_small_segment_behind_another),
		cmocka_unit_test(small_tail_goes_when_only_full_segments_are_in_flight),
		cmocka_unit_test(nodelay_sends_at_once),
		cmocka_unit_test(cork_holds_for_200_ms_at_most),
		cmocka_unit_test(what_more_follows_waits_for_it_or_for_any_segment),
		cmocka_unit_test(small_windows_are_not_filled_sillily),
		cmocka_unit_test(segments_are_bound_to_half_of_a_small_peers_window),
		cmocka_unit_test(a_closed_window_is_probed_for_ever_while_the_peer_answers),
		cmocka_unit_test(a_closed_window_without_answers_times_out),
		cmocka_unit_test(an_orphan_does_not_wait_for_a_window_for_ever),
		cmocka_unit_test(a_fin_waits_for_the_window),
		cmocka_unit_test(a_window_taken_back_does_not_kill_while_the_peer_lives),
		cmocka_unit_test(idle_connections_restart_from_the_initial_window),
		cmocka_unit_test(keepalive_probes_and_gives_up),
		cmocka_unit_test(keepalive_counts_from_the_last_segment),
		cmocka_unit_test(user_timeout_ends_a_stalled_connection),
		cmocka_unit_test(urgent_pointer_follows_the_mark),
		cmocka_unit_test(nothing_is_written_behind_a_fin),
		cmocka_unit_test(sack_blocks_take_their_room_from_the_payload),
		cmocka_unit_test(statistics_tell_what_happened),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
