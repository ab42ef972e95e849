/* SPDX-License-Identifier: MIT */
/* Routes: ours, on the link, behind a next hop, the kernel's. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>

#include <cmocka.h>

#include "service/values.c"
#include "slow/route.c"

static struct tas_config c;
static struct tas_routes t;

static uint32_t ip(const char *s)
{
	uint32_t v;

	assert_int_equal(inet_pton(AF_INET, s, &v), 1);
	return v;
}

static void add(const char *prefix)
{
	assert_int_equal(tas__value_prefix(prefix, 24, &c.addr[c.n_addr++]), 0);
}

static int load(const char *route)
{
	unsigned bad;

	if (route) {
		assert_int_equal(tas__value_route(route, &c.route[c.n_route].dst, &c.route[c.n_route].nexthop), 0);
		c.n_route++;
	}
	return tas__routes_init(&t, &c, &bad);
}

static int setup(void **state)
{
	(void)state;
	memset(&c, 0, sizeof(c));
	c.link = TAS_LINK_TAP;
	add("10.0.0.1/24");
	add("10.0.0.9/24");
	add("192.168.7.1/30");
	return 0;
}

static void expect(const char *dst, enum tas_route_kind kind, const char *src, const char *hop)
{
	struct tas_next n = tas__routes_find(&t, ip(dst));

	if (n.kind != kind)
		fail_msg("%s: kind %d, not %d", dst, n.kind, kind);
	if (src)
		assert_int_equal(n.src, ip(src));
	if (hop)
		assert_int_equal(n.nexthop, ip(hop));
}

static void our_addresses_and_our_prefixes(void **state)
{
	(void)state;
	assert_int_equal(load(NULL), 0);
	expect("10.0.0.1", TAS_ROUTE_OWN, "10.0.0.1", NULL);
	expect("10.0.0.9", TAS_ROUTE_OWN, "10.0.0.9", NULL);
	expect("10.0.0.77", TAS_ROUTE_LINK, "10.0.0.1", "10.0.0.77");
	expect("192.168.7.2", TAS_ROUTE_LINK, "192.168.7.1", "192.168.7.2");
	expect("8.8.8.8", TAS_ROUTE_NONE, NULL, NULL);
}

static void loopback_groups_and_broadcasts_are_not_ours(void **state)
{
	(void)state;
	assert_int_equal(load("0.0.0.0/0,10.0.0.254"), 0);
	expect("127.0.0.1", TAS_ROUTE_NONE, NULL, NULL);
	expect("224.0.0.1", TAS_ROUTE_NONE, NULL, NULL);
	expect("255.255.255.255", TAS_ROUTE_NONE, NULL, NULL);
	expect("0.0.0.0", TAS_ROUTE_NONE, NULL, NULL);
	expect("10.0.0.255", TAS_ROUTE_NONE, NULL, NULL);
	expect("10.0.0.0", TAS_ROUTE_NONE, NULL, NULL);
}

static void the_longest_prefix_wins(void **state)
{
	(void)state;
	assert_int_equal(load("0.0.0.0/0,10.0.0.254"), 0);
	assert_int_equal(load("172.16.0.0/12,10.0.0.253"), 0);
	assert_int_equal(load("172.16.5.5/32,192.168.7.2"), 0);
	expect("8.8.8.8", TAS_ROUTE_LINK, "10.0.0.1", "10.0.0.254");
	expect("172.16.1.1", TAS_ROUTE_LINK, "10.0.0.1", "10.0.0.253");
	expect("172.16.5.5", TAS_ROUTE_LINK, "192.168.7.1", "192.168.7.2");
	expect("10.0.0.77", TAS_ROUTE_LINK, "10.0.0.1", "10.0.0.77");
}

static void a_next_hop_must_be_a_neighbour(void **state)
{
	(void)state;
	assert_int_equal(load("0.0.0.0/0,10.9.0.254"), -EHOSTUNREACH);
	c.n_route = 0;
	assert_int_equal(load("0.0.0.0/0,10.0.0.9"), -EHOSTUNREACH); /* ourselves */
}

static void without_a_link_only_our_addresses_are_known(void **state)
{
	(void)state;
	c.link = TAS_LINK_NONE;
	assert_int_equal(load(NULL), 0);
	expect("10.0.0.1", TAS_ROUTE_OWN, NULL, NULL);
	expect("10.0.0.77", TAS_ROUTE_NONE, NULL, NULL);
}

static void neighbours_are_told_from_strangers(void **state)
{
	(void)state;
	assert_int_equal(load("0.0.0.0/0,10.0.0.254"), 0);
	assert_true(tas__routes_onlink(&t, ip("10.0.0.2")));
	assert_false(tas__routes_onlink(&t, ip("8.8.8.8")));
	assert_false(tas__routes_onlink(&t, ip("0.0.0.0")));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(our_addresses_and_our_prefixes, setup),
		cmocka_unit_test_setup(loopback_groups_and_broadcasts_are_not_ours, setup),
		cmocka_unit_test_setup(the_longest_prefix_wins, setup),
		cmocka_unit_test_setup(a_next_hop_must_be_a_neighbour, setup),
		cmocka_unit_test_setup(without_a_link_only_our_addresses_are_known, setup),
		cmocka_unit_test_setup(neighbours_are_told_from_strangers, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
