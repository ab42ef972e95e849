/* SPDX-License-Identifier: MIT */
/* Loss: timeouts, NewReno, SACK, congestion windows, path MTU. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <errno.h>

#include "sim_peer.h"

#define A TCP_F_ACK
#define P TCP_F_PSH
#define M 1448 /* payload of a segment with timestamps */
#define N 536  /* with a plain peer */

static struct peer p;

/* ack, then one or two ranges of which the second may be empty */
static void sack(int64_t ack, int64_t l1, int64_t r1, int64_t l2, int64_t r2)
{
	const int64_t edges[] = { l1, r1, l2, r2 };

	peer_in_sack(&p, 0, ack, r2 ? 2 : 1, edges);
}

static void timeout_repeats_the_first_segment_and_doubles(void **state)
{
	uint64_t last = 0;

	(void)state;
	peer_established(&p);
	peer_write(&p, 5 * M);
	peer_expect_n(&p, 5);
	for (int i = 0; i < 15; i++) {
		uint64_t ms = peer_next(&p);

		assert_true(i ? ms == 2 * last || ms / 2 == last || ms == 120000 : ms == 201);
		last = ms;
		peer_expect_n(&p, 1);
		peer_expect(&p, 0, A, 0, 0, M);
		assert_int_equal(p.c.cwnd, M);
		assert_int_equal(p.c.ssthresh, 5 * M);
	}
	peer_next(&p);
	peer_expect_n(&p, 0);
	assert_int_equal(p.error, ETIMEDOUT); /* tcp_retries2 = 15: about 15 minutes */
	assert_in_range(p.now / 1000000000 - 1000, 900, 960);
}

static void after_a_timeout_everything_is_sent_again_in_slow_start(void **state)
{
	(void)state;
	peer_established_plain(&p);
	peer_write(&p, 8 * N);
	peer_next(&p);
	peer_expect_n(&p, 1);
	peer_in(&p, A, 0, N, 0);
	peer_expect_n(&p, 2);
	peer_expect(&p, 0, A, N, 0, N);
	peer_expect(&p, 1, A, 2 * N, 0, N);
	peer_in(&p, A, 0, 3 * N, 0);
	peer_expect_n(&p, 4);
	peer_in(&p, A, 0, 8 * N, 0); /* the rest had arrived */
	peer_expect_n(&p, 0);
	assert_int_equal(p.c.recovery, TCP__OPEN);
}

static void a_retransmitted_segment_gives_no_sample_without_timestamps(void **state)
{
	uint32_t srtt;

	(void)state;
	peer_established_plain(&p);
	peer_write(&p, 100);
	srtt = p.c.srtt8;
	peer_next(&p);
	peer_next(&p);
	p.now += 5000000;
	peer_in(&p, A, 0, 100, 0);
	assert_int_equal(p.c.srtt8, srtt); /* Karn */
	assert_int_equal(p.c.backoff, 2);  /* kept until there is a sample, RFC 6298 §5.7 */
	peer_write(&p, 100);
	p.now += 2000000;
	peer_in(&p, A, 0, 200, 0);
	assert_int_equal(p.c.backoff, 0);
	assert_true(p.c.srtt8 > srtt);
}

static void a_retransmitted_segment_gives_a_sample_with_timestamps(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 100);
	peer_next(&p);
	p.now += 2000000;
	peer_in(&p, A, 0, 100, 0);
	assert_int_equal(p.c.backoff, 0);
}

static void three_duplicates_start_fast_retransmit(void **state)
{
	(void)state;
	peer_established_plain(&p);
	peer_write(&p, 20 * N);
	peer_expect_n(&p, 10);
	peer_in(&p, A, 0, 0, 0);
	peer_expect_n(&p, 1); /* limited transmit, RFC 3042 */
	peer_expect(&p, 0, A, 10 * N, 0, N);
	peer_in(&p, A, 0, 0, 0);
	peer_expect_n(&p, 1);
	peer_in(&p, A, 0, 0, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, N);
	assert_int_equal(p.c.recovery, TCP__RECOVERY);
	assert_int_equal(p.c.ssthresh, 5 * N);
	for (int i = 0; i < 4; i++) { /* the window inflates */
		peer_in(&p, A, 0, 0, 0);
		peer_expect_n(&p, 0);
	}
	peer_in(&p, A, 0, 0, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 12 * N, 0, N);
	peer_in(&p, A, 0, 4 * N, 0); /* partial: RFC 6582 §3.2 step 3 */
	peer_expect(&p, 0, A, 4 * N, 0, N);
	assert_int_equal(p.c.recovery, TCP__RECOVERY);
	peer_in(&p, A, 0, 12 * N, 0); /* recovery point */
	assert_int_equal(p.c.recovery, TCP__OPEN);
	assert_int_equal(p.c.cwnd, 5 * N);
	assert_int_equal(p.c.total_retrans, 2);
}

static void window_updates_and_data_are_not_duplicates(void **state)
{
	(void)state;
	peer_established_plain(&p);
	peer_write(&p, 10 * N);
	for (int i = 0; i < 5; i++) {
		p.wnd--;
		peer_in(&p, A, 0, 0, 0);
	}
	for (int i = 0; i < 5; i++)
		peer_in(&p, A | P, i, 0, 1);
	assert_int_equal(p.c.recovery, TCP__OPEN);
	assert_int_equal(p.c.total_retrans, 0);
}

static void duplicates_after_a_timeout_do_not_start_recovery_again(void **state)
{
	(void)state;
	peer_established_plain(&p);
	peer_write(&p, 8 * N);
	peer_next(&p);
	peer_in(&p, A, 0, 8 * N, 0);
	peer_write(&p, 4 * N);
	for (int i = 0; i < 4; i++) /* the peer answers retransmissions of what it had */
		peer_in(&p, A, 0, 8 * N, 0);
	assert_int_equal(p.c.recovery, TCP__OPEN);
}

static void sack_repairs_exactly_the_holes(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 10 * M);
	peer_expect_n(&p, 10);
	/* Lost: 0, 3, 4.  Arrived: 1, 2, 5..9. */
	sack(0, M, 2 * M, 0, 0);
	peer_expect_n(&p, 0);
	sack(0, M, 3 * M, 0, 0);
	sack(0, 5 * M, 6 * M, M, 3 * M);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, M);
	assert_int_equal(p.c.recovery, TCP__RECOVERY);
	sack(0, 5 * M, 7 * M, M, 3 * M);
	sack(0, 5 * M, 8 * M, M, 3 * M); /* three above: 3 and 4 are lost */
	sack(0, 5 * M, 9 * M, M, 3 * M);
	sack(0, 5 * M, 10 * M, M, 3 * M);
	peer_in(&p, A, 0, 3 * M, 0);
	assert_int_equal(p.c.total_retrans, 3);
	assert_int_equal(p.c.bytes_retrans, 3 * M);
	peer_in(&p, A, 0, 10 * M, 0);
	assert_int_equal(p.c.recovery, TCP__OPEN);
	assert_int_equal(p.c.n_sacked, 0);
	assert_int_equal(p.c.cwnd, 5 * M);
}

static void a_timeout_in_recovery_starts_from_the_first_hole_again(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 10 * M);
	sack(0, M, 2 * M, 6 * M, 10 * M); /* lost: 0, 2..5 */
	peer_expect(&p, 0, A, 0, 0, M);
	sack(0, M, 2 * M, 6 * M, 10 * M);
	assert_true(p.c.rtx_next > (uint64_t)M);
	peer_next(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, M);
	assert_int_equal(tcp__pipe(&p.c), M);
	peer_in(&p, A, 0, 2 * M, 0);
	peer_expect_n(&p, 3); /* slow start: one became three, two were acknowledged */
	peer_expect(&p, 0, A, 2 * M, 0, M);
	peer_expect(&p, 2, A, 4 * M, 0, M);
	assert_int_equal(tcp__pipe(&p.c), 3 * M); /* neither what is sacked nor what is still to be repaired */
	peer_in(&p, A, 0, 3 * M, 0);
	peer_expect(&p, 0, A, 5 * M, 0, M);
	peer_in(&p, A, 0, 10 * M, 0);
	assert_int_equal(p.c.recovery, TCP__OPEN);
}

static void coalesced_sack_is_enough_to_see_a_loss(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 10 * M);
	sack(0, M, 10 * M, 0, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 0, 0, M);
}

static void a_lost_retransmission_is_noticed(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 40 * M);
	sack(0, M, 10 * M, 0, 0); /* 0 goes again, and new data with it */
	peer_expect(&p, 0, A, 0, 0, M);
	assert_true(p.n > 3);
	sack(0, M, 10 * M, 10 * M, 11 * M);
	peer_wait(&p, 1);
	sack(0, M, 13 * M, 0, 0); /* sent after it, and arrived */
	assert_int_equal((int32_t)p.out[0].seq, 0);
	assert_int_equal(p.c.total_retrans, 2);
	assert_int_equal(p.c.retransmits, 0);
}

static void nonsense_in_sack_is_ignored(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 5 * M);
	sack(0, 4 * M, 6 * M, 0, 0);         /* beyond what was sent */
	sack(0, 3 * M, 2 * M, 0, 0);         /* backwards */
	sack(0, -5 * M, -4 * M, 0, 0);       /* duplicate report */
	sack(0, 0, 5 * M, 0, 0);             /* from the left edge */
	sack(0, 2 * M, 2 * M, 0, 0);
	assert_int_equal(p.c.n_sacked, 0);
	assert_int_equal(p.c.recovery, TCP__OPEN);
}

static void a_peer_that_takes_back_sacked_data_gets_it_again(void **state)
{
	(void)state;
	peer_established(&p);
	peer_write(&p, 4 * M);
	sack(0, M, 2 * M, 0, 0);
	peer_in(&p, A, 0, M, 0); /* now it denies having [M, 2M) */
	peer_next(&p);
	peer_expect(&p, 0, A, M, 0, M);
	assert_int_equal(p.c.n_sacked, 0);
	peer_in(&p, A, 0, 4 * M, 0);
	assert_int_equal(p.c.recovery, TCP__OPEN);
}

static void icmp_is_only_told_when_the_connection_times_out(void **state)
{
	struct tcp_result res;

	(void)state;
	peer_established(&p);
	peer_write(&p, 100);
	tcp_icmp_error(&p.c, PEER_OUR + 5000, EHOSTUNREACH, true, p.now, &res); /* not in flight */
	assert_int_equal(p.c.soft_error, 0);
	tcp_icmp_error(&p.c, PEER_OUR, EHOSTUNREACH, true, p.now, &res);
	assert_int_equal(res.events, 0);
	peer_wait(&p, 3600000);
	assert_int_equal(p.error, EHOSTUNREACH);
}

static void a_smaller_path_sends_again_in_smaller_segments(void **state)
{
	uint32_t cwnd;

	(void)state;
	peer_established(&p);
	peer_write(&p, 4 * M);
	cwnd = p.c.cwnd;
	tcp_path_mtu(&p.c, PEER_OUR + 100000, 1000, p.now); /* not in flight */
	assert_int_equal(tcp_mss(&p.c), M);
	tcp_path_mtu(&p.c, PEER_OUR, 1000, p.now);
	assert_int_equal(tcp_mss(&p.c), 988);
	p.n = 0;
	peer_flush(&p);
	peer_expect_n(&p, 6);
	peer_expect(&p, 0, A, 0, 0, 988);
	peer_expect(&p, 5, A | P, 5 * 988, 0, 4 * M - 5 * 988);
	peer_in(&p, A, 0, 4 * M, 0);
	assert_int_equal(p.c.cwnd, cwnd); /* not congestion */
	assert_int_equal(p.c.recovery, TCP__OPEN);
}

static void with_tail_probes(void)
{
	peer_established(&p);
	p.c.flags &= ~TCP__NO_TAIL;
}

static void a_lost_tail_is_probed_after_two_round_trips(void **state)
{
	(void)state;
	with_tail_probes();
	peer_write(&p, 5 * M);
	assert_in_range(peer_next(&p), 4, 8);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A | P, 4 * M, 0, M); /* the last one again */
	/* 3 and 4 were lost: the probe shows it. */
	peer_in(&p, A, 0, 3 * M, 0);
	sack(3 * M, 4 * M, 5 * M, 0, 0);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 3 * M, 0, M);
	peer_in(&p, A, 0, 5 * M, 0);
	assert_int_equal(p.c.recovery, TCP__OPEN);
	assert_int_equal(p.c.retransmits, 0);
	assert_int_equal(p.c.cwnd, 5 * M);
}

static void a_probe_prefers_new_data_and_is_followed_by_the_timeout(void **state)
{
	(void)state;
	with_tail_probes();
	peer_write(&p, 20 * M);
	peer_expect_n(&p, 10);
	peer_next(&p);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, 10 * M, 0, M);
	assert_int_equal(peer_next(&p), 201);
	peer_expect(&p, 0, A, 0, 0, M);
	assert_int_equal(p.c.recovery, TCP__LOSS);
}

static void a_probe_that_repaired_a_loss_counts_as_congestion(void **state)
{
	const int64_t dsack[] = { 4 * M, 5 * M };

	(void)state;
	for (int lost = 0; lost < 2; lost++) {
		with_tail_probes();
		peer_write(&p, 5 * M);
		peer_next(&p);
		if (lost)
			peer_in(&p, A, 0, 5 * M, 0);
		else /* only the acknowledgements were lost */
			peer_in_sack(&p, 0, 5 * M, 1, dsack);
		peer_write(&p, M);
		peer_in(&p, A, 0, 6 * M, 0);
		assert_int_equal(p.c.flags & TCP__TAIL, 0);
		assert_int_equal(p.c.ssthresh == UINT32_MAX, !lost);
	}
}

static void a_lone_segment_is_probed_with_the_timeout(void **state)
{
	(void)state;
	with_tail_probes();
	peer_write(&p, 100);
	assert_int_equal(peer_next(&p), 201);
	peer_expect(&p, 0, A | P, 0, 0, 100);
	assert_int_equal(p.c.cwnd, 10 * M); /* a probe, no timeout yet */
	assert_int_equal(peer_next(&p), 201);
	assert_int_equal(p.c.cwnd, M);
}

static void a_hole_and_its_lost_retransmission_are_repaired_within_round_trips(void **state)
{
	(void)state;
	with_tail_probes();
	peer_write(&p, 3 * M);
	sack(0, 2 * M, 3 * M, 0, 0); /* one segment sacked: too few for fast retransmit, and no more will come */
	assert_in_range(peer_next(&p), 4, 8);
	peer_expect_n(&p, 2);
	peer_expect(&p, 0, A, 0, 0, M);
	peer_expect(&p, 1, A, M, 0, M);
	assert_int_equal(p.c.recovery, TCP__RECOVERY);
	peer_in(&p, A, 0, M, 0); /* the first arrived, the second was lost again */
	assert_in_range(peer_next(&p), 3, 8);
	peer_expect_n(&p, 1);
	peer_expect(&p, 0, A, M, 0, M);
	assert_in_range(peer_next(&p), 100, 201); /* and again: now it is the timeout's */
	assert_int_equal(p.c.recovery, TCP__LOSS);
}

/* The window after n round trips in avoidance. */
static uint32_t avoid(uint8_t cc, unsigned n)
{
	uint64_t at = 0;

	peer_init(&p, true);
	p.cfg.cc = cc;
	peer_connect(&p);
	p.now += 1000000;
	peer_in(&p, TCP_F_SYN | A, -1, 0, 0);
	p.c.cwnd = 100 * M;
	p.c.ssthresh = 100 * M;
	for (unsigned i = 0; i < n; i++) {
		peer_write(&p, p.c.cwnd / M * M);
		at += p.c.cwnd / M * M;
		p.now += 10000000;
		while (p.c.snd_una < at)
			peer_in(&p, A, 0, (int64_t)(p.c.snd_una + (p.c.snd_nxt - p.c.snd_una > 2 * M ? 2 * M
											: p.c.snd_nxt - p.c.snd_una)), 0);
	}
	return p.c.cwnd / M;
}

static void reno_grows_by_one_segment_per_round_trip(void **state)
{
	(void)state;
	assert_in_range(avoid(TCP_CC_RENO, 10), 108, 111);
}

static void cubic_grows_to_its_plateau_and_beyond(void **state)
{
	uint32_t early, plateau, later;

	(void)state;
	early = avoid(TCP_CC_CUBIC, 10);
	assert_in_range(early, 100, 112); /* at least Reno's friend */
	p.c.cwnd = 100 * M;
	p.c.ssthresh = tcp__cc_on_loss(&p.c);
	assert_int_equal(p.c.ssthresh / M, 70);
	p.c.cwnd = p.c.ssthresh;
	/* K = cbrt(30 / 0.4) = 4.2 s */
	for (uint64_t ms = 0; ms < 4200; ms += 10)
		tcp__cubic_acked(&p.c, p.c.cwnd, p.now += 10000000);
	plateau = p.c.cwnd / M;
	assert_in_range(plateau, 98, 330); /* Reno's friend may be faster at 10 ms */
	for (uint64_t ms = 0; ms < 20000; ms += 10)
		tcp__cubic_acked(&p.c, p.c.cwnd, p.now += 10000000);
	later = p.c.cwnd / M;
	assert_in_range(later, 1600, 4000); /* 0.4 (24.2 - 4.2)^3 + 100 = 3300 */
}

static void an_unused_window_does_not_grow(void **state)
{
	(void)state;
	peer_established(&p);
	for (int i = 0; i < 50; i++) {
		peer_write(&p, M);
		peer_in(&p, A, 0, (i + 1) * M, 0);
	}
	assert_int_equal(p.c.cwnd, 10 * M);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(timeout_repeats_the_first_segment_and_doubles),
		cmocka_unit_test(after_a_timeout_everything_is_sent_again_in_slow_start),
		cmocka_unit_test(a_retransmitted_segment_gives_no_sample_without_timestamps),
		cmocka_unit_test(a_retransmitted_segment_gives_a_sample_with_timestamps),
		cmocka_unit_test(three_duplicates_start_fast_retransmit),
		cmocka_unit_test(window_updates_and_data_are_not_duplicates),
		cmocka_unit_test(duplicates_after_a_timeout_do_not_start_recovery_again),
		cmocka_unit_test(sack_repairs_exactly_the_holes),
		cmocka_unit_test(a_timeout_in_recovery_starts_from_the_first_hole_again),
		cmocka_unit_test(coalesced_sack_is_enough_to_see_a_loss),
		cmocka_unit_test(a_lost_retransmission_is_noticed),
		cmocka_unit_test(nonsense_in_sack_is_ignored),
		cmocka_unit_test(a_peer_that_takes_back_sacked_data_gets_it_again),
		cmocka_unit_test(icmp_is_only_told_when_the_connection_times_out),
		cmocka_unit_test(a_smaller_path_sends_again_in_smaller_segments),
		cmocka_unit_test(a_lost_tail_is_probed_after_two_round_trips),
		cmocka_unit_test(a_probe_prefers_new_data_and_is_followed_by_the_timeout),
		cmocka_unit_test(a_probe_that_repaired_a_loss_counts_as_congestion),
		cmocka_unit_test(a_lone_segment_is_probed_with_the_timeout),
		cmocka_unit_test(a_hole_and_its_lost_retransmission_are_repaired_within_round_trips),
		cmocka_unit_test(reno_grows_by_one_segment_per_round_trip),
		cmocka_unit_test(cubic_grows_to_its_plateau_and_beyond),
		cmocka_unit_test(an_unused_window_does_not_grow),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
