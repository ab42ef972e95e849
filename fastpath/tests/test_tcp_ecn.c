/* SPDX-License-Identifier: MIT */
/* Explicit congestion notification (RFC 3168): agreed to when asked for, marks echoed, echoes obeyed once per window. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>

#include "sim_peer.h"

#define S TCP_F_SYN
#define A TCP_F_ACK
#define P TCP_F_PSH
#define E TCP_F_ECE
#define W TCP_F_CWR

enum { ECT0 = 2, CE = 3 };

static struct peer p;

static void open_with(uint8_t flags, uint8_t tos)
{
	struct tcp_seg syn;

	peer_init(&p, true);
	p.cfg.ecn = true;
	syn = peer_make(&p, flags, -1, 0, 0);
	syn.ack = 0;
	syn.tos = tos;
	tcp_open_passive(&p.c, &p.cfg, PEER_OUR - 1, &syn, 65536, p.now);
	p.n = 0;
	peer_flush(&p);
}

static void data(uint8_t flags, uint8_t tos, int64_t seq, uint32_t len)
{
	struct tcp_seg s = peer_make(&p, A | flags, seq, p.c.snd_nxt > 0 ? (int64_t)p.c.snd_nxt : 0, len);

	s.tos = tos;
	peer_seg(&p, &s);
}

static void agreed(void)
{
	open_with(S | E | W, 0);
	peer_expect(&p, 0, S | A | E, -1, 0, 0);
	assert_int_equal(p.out[0].tos, 0); /* RFC 3168 §6.1.1: a SYN is not marked as capable */
	peer_in(&p, A, 0, 0, 0);
}

static void it_is_agreed_to_when_the_peer_asks_for_all_of_it(void **state)
{
	(void)state;
	agreed();
	open_with(S | E, 0);
	peer_expect(&p, 0, S | A, -1, 0, 0);
	open_with(S | E | W, CE); /* a network that marks SYNs */
	peer_expect(&p, 0, S | A, -1, 0, 0);
}

static void a_mark_is_echoed_until_the_peer_slows_down(void **state)
{
	(void)state;
	agreed();
	data(P, CE, 0, 100);
	peer_expect(&p, 0, A | E, 0, 100, 0);
	data(P, ECT0, 100, 100);
	peer_expect(&p, 0, A | E, 0, 200, 0);
	data(P | W, ECT0, 200, 100);
	peer_expect(&p, 0, A, 0, 300, 0);
	data(P, ECT0, 300, 100);
	peer_expect(&p, 0, A, 0, 400, 0);
}

static void new_data_is_marked_as_capable_and_what_goes_again_is_not(void **state)
{
	(void)state;
	agreed();
	peer_write(&p, 1448);
	assert_int_equal(p.out[0].tos, ECT0);
	while (!p.c.retransmits)
		peer_next(&p);
	peer_expect(&p, 0, A | P, 0, 0, 1448);
	assert_int_equal(p.out[0].tos, 0);
}

static void an_echo_halves_the_window_once_per_round_trip(void **state)
{
	uint32_t w;

	(void)state;
	agreed();
	peer_write(&p, 1448 * 30);
	w = p.c.cwnd;
	peer_in(&p, A | E, 0, 1448, 0);
	assert_true(p.c.cwnd < w);
	assert_true(p.c.cwnd <= p.c.ssthresh);
	w = p.c.cwnd;
	peer_in(&p, A | E, 0, 2 * 1448, 0);
	assert_true(p.c.cwnd >= w); /* of the same window */
	peer_in(&p, A | E, 0, 10 * 1448, 0);
	assert_true(p.n > 0 && p.out[0].flags & W); /* the next new data says it, once */
	for (unsigned i = 1; i < p.n; i++)
		assert_false(p.out[i].flags & W);
	assert_int_equal(p.c.total_retrans, 0);
}

static void a_peer_that_did_not_ask_is_never_answered_with_it(void **state)
{
	(void)state;
	open_with(S, 0);
	peer_in(&p, A, 0, 0, 0);
	data(P, CE, 0, 3000);
	assert_false(p.out[0].flags & E);
	peer_write(&p, 3000);
	assert_int_equal(p.out[0].tos, 0);
	peer_in(&p, A | E, 3000, 1448, 0);
	assert_int_equal(p.c.ssthresh, UINT32_MAX);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(it_is_agreed_to_when_the_peer_asks_for_all_of_it),
		cmocka_unit_test(a_mark_is_echoed_until_the_peer_slows_down),
		cmocka_unit_test(new_data_is_marked_as_capable_and_what_goes_again_is_not),
		cmocka_unit_test(an_echo_halves_the_window_once_per_round_trip),
		cmocka_unit_test(a_peer_that_did_not_ask_is_never_answered_with_it),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
