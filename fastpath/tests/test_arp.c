/* SPDX-License-Identifier: MIT */
/* Neighbours: asking, waiting, giving up, ageing, making room. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>

#include <cmocka.h>

#include "slow/arp.c"

#define MS 1000000ull

static struct {
	unsigned requests, unicasts, sent, dropped, unreachable;
	uint32_t last_ip;
	void *last_pkt;
	struct tas_arp *again; /* drop() sends another packet to last_ip, as TCP might */
} seen;

static void on_request(void *ctx, uint32_t src, uint32_t ip, const uint8_t *mac)
{
	(void)ctx;
	(void)src;
	seen.requests += !mac;
	seen.unicasts += !!mac;
	seen.last_ip = ip;
}

static void on_send(void *ctx, void *pkt, const uint8_t mac[6])
{
	(void)ctx;
	(void)mac;
	seen.sent++;
	seen.last_pkt = pkt;
}

static void on_drop(void *ctx, void *pkt, bool unreachable)
{
	(void)ctx;
	seen.dropped++;
	seen.unreachable += unreachable;
	seen.last_pkt = pkt;
	if (unreachable && seen.again)
		tas__arp_wait(seen.again, seen.last_ip, 1, pkt, 100000 * MS);
}

static const struct tas_arp_ops ops = { on_request, on_send, on_drop };
static const uint8_t mac[6] = { 2, 0, 0, 0, 0, 9 };
static int pkt[2000];

static struct tas_arp *fresh(void)
{
	memset(&seen, 0, sizeof(seen));
	return tas__arp_new(MS / 2, 10000 * MS, &ops, NULL);
}

static void a_packet_waits_until_the_answer(void **state)
{
	struct tas_arp *a = fresh();

	(void)state;
	assert_null(tas__arp_lookup(a, 7, 1, 0));
	tas__arp_wait(a, 7, 1, &pkt[0], 0);
	tas__arp_wait(a, 7, 1, &pkt[1], 0);
	assert_int_equal(seen.requests, 1);
	tas__arp_learn(a, 7, mac, false, MS);
	assert_int_equal(seen.sent, 2);
	assert_ptr_equal(seen.last_pkt, &pkt[1]);
	assert_memory_equal(tas__arp_lookup(a, 7, 1, MS), mac, 6);
	tas__arp_timer(a, 2 * MS); /* the request's timer finds nothing left to do */
	assert_true(tas__arp_deadline(a) == UINT64_MAX);
	tas__arp_free(a);
}

static void requests_double_to_the_maximum_then_stop(void **state)
{
	struct tas_arp *a = fresh();
	uint64_t gap, last = 0, due;
	unsigned n = 0;

	(void)state;
	tas__arp_wait(a, 7, 1, &pkt[0], 0);
	while ((due = tas__arp_deadline(a)) != UINT64_MAX) {
		gap = due - last;
		assert_true(gap <= 10000 * MS);
		last = due;
		tas__arp_timer(a, due);
		n++;
	}
	assert_int_equal(seen.requests, n);
	assert_int_equal(n, 16); /* 0.5 ms * 2^15 > 10 s */
	assert_int_equal(seen.unreachable, 1);
	assert_int_equal(tas__arp_count(a), 0);
	tas__arp_free(a);
}

static void waiting_packets_are_given_up_after_three_seconds(void **state)
{
	struct tas_arp *a = fresh();
	uint64_t due = 0;

	(void)state;
	tas__arp_wait(a, 7, 1, &pkt[0], 0);
	while (!seen.unreachable) {
		due = tas__arp_deadline(a);
		tas__arp_timer(a, due);
	}
	assert_in_range(due / MS, 3000, 6000);
	assert_int_equal(tas__arp_count(a), 1); /* still asking */
	tas__arp_free(a);
}

static void the_owner_may_send_while_it_hears_of_the_failure(void **state)
{
	struct tas_arp *a = fresh();
	unsigned i;

	(void)state;
	for (i = 0; i < 8; i++)
		tas__arp_wait(a, 7, 1, &pkt[i], 0);
	seen.again = a;
	while (!seen.unreachable)
		tas__arp_timer(a, tas__arp_deadline(a));
	assert_int_equal(seen.dropped, 8);
	seen.again = NULL;
	tas__arp_free(a);
	assert_int_equal(seen.dropped, 16);
}

static void few_packets_wait_and_the_oldest_goes(void **state)
{
	struct tas_arp *a = fresh();
	unsigned i;

	(void)state;
	for (i = 0; i < TAS_ARP_PENDING + 1; i++)
		tas__arp_wait(a, 7, 1, &pkt[i], 0);
	assert_int_equal(seen.dropped, 1);
	assert_ptr_equal(seen.last_pkt, &pkt[0]);
	for (i = 0; i < 1000; i++)
		tas__arp_wait(a, 1000 + i, 1, &pkt[i], 0);
	assert_int_equal(a->n_pending, TAS_ARP_PENDING_ALL);
	tas__arp_free(a);
	assert_int_equal(seen.dropped, TAS_ARP_PENDING + 1 + 1000);
}

static void an_old_neighbour_is_asked_by_unicast_and_used_meanwhile(void **state)
{
	struct tas_arp *a = fresh();
	uint64_t t = 61000 * MS;
	unsigned i;

	(void)state;
	tas__arp_learn(a, 7, mac, true, 0);
	assert_non_null(tas__arp_lookup(a, 7, 1, t));
	assert_non_null(tas__arp_lookup(a, 7, 1, t));
	assert_int_equal(seen.unicasts, 1);
	tas__arp_learn(a, 7, mac, false, t);
	tas__arp_timer(a, t + 2000 * MS);
	assert_int_equal(seen.unicasts, 1);
	t += 61000 * MS; /* now nobody answers */
	assert_non_null(tas__arp_lookup(a, 7, 1, t));
	for (i = 0; i < 3; i++)
		tas__arp_timer(a, tas__arp_deadline(a));
	assert_int_equal(seen.unicasts, 4);
	assert_null(tas__arp_lookup(a, 7, 1, t + 4000 * MS));
	tas__arp_free(a);
}

static void a_neighbour_that_moves_is_followed(void **state)
{
	static const uint8_t other[6] = { 2, 0, 0, 0, 0, 10 };
	struct tas_arp *a = fresh();

	(void)state;
	tas__arp_learn(a, 7, mac, true, 0);
	tas__arp_learn(a, 7, other, false, 1);
	assert_memory_equal(tas__arp_lookup(a, 7, 1, 2), other, 6);
	tas__arp_learn(a, 8, other, false, 1); /* gossip about strangers is not kept */
	assert_null(tas__arp_lookup(a, 8, 1, 2));
	tas__arp_free(a);
}

static void a_full_table_forgets_the_least_recently_used(void **state)
{
	struct tas_arp *a = fresh();
	unsigned i;

	(void)state;
	for (i = 0; i < TAS_ARP_ENTRIES; i++)
		tas__arp_learn(a, 1 + i, mac, true, i);
	assert_non_null(tas__arp_lookup(a, 1, 1, 5000));
	tas__arp_learn(a, 99999, mac, true, 5001);
	assert_int_equal(tas__arp_count(a), TAS_ARP_ENTRIES);
	assert_non_null(tas__arp_lookup(a, 1, 1, 5002));
	assert_null(tas__arp_lookup(a, 2, 1, 5002));
	assert_non_null(tas__arp_lookup(a, 99999, 1, 5002));
	tas__arp_free(a);
}

static void packets_are_parsed_and_built(void **state)
{
	struct tas_arp_pkt in = { .op = TAS_ARP_REPLY, .sha = { 2, 3, 4, 5, 6, 7 }, .tha = { 8 }, .spa = 1, .tpa = 2 }, got;
	uint8_t p[TAS_ARP_LEN];

	(void)state;
	tas__arp_build(p, &in);
	assert_int_equal(tas__arp_parse(p, sizeof(p), &got), 0);
	assert_int_equal(got.op, in.op);
	assert_memory_equal(got.sha, in.sha, 6);
	assert_int_equal(got.spa, 1);
	assert_int_equal(got.tpa, 2);
	assert_int_equal(tas__arp_parse(p, sizeof(p) - 1, &got), -EINVAL);
	p[8] = 1; /* a group as sender */
	assert_int_equal(tas__arp_parse(p, sizeof(p), &got), -EINVAL);
	p[8] = 2;
	p[7] = 3; /* RARP */
	assert_int_equal(tas__arp_parse(p, sizeof(p), &got), -EINVAL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_packet_waits_until_the_answer),
		cmocka_unit_test(requests_double_to_the_maximum_then_stop),
		cmocka_unit_test(waiting_packets_are_given_up_after_three_seconds),
		cmocka_unit_test(the_owner_may_send_while_it_hears_of_the_failure),
		cmocka_unit_test(few_packets_wait_and_the_oldest_goes),
		cmocka_unit_test(an_old_neighbour_is_asked_by_unicast_and_used_meanwhile),
		cmocka_unit_test(a_neighbour_that_moves_is_followed),
		cmocka_unit_test(a_full_table_forgets_the_least_recently_used),
		cmocka_unit_test(packets_are_parsed_and_built),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
