/* SPDX-License-Identifier: MIT */
/* ICMP: echo, errors sent, errors received. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "fast/checksum.c"
#include "fast/ip.c"
#include "slow/icmp.c"

static _Alignas(4) uint8_t pkt[2000];
static struct tas_ip_info info;

static uint32_t addr(uint8_t last)
{
	const uint8_t a[4] = { 10, 0, 0, last };
	uint32_t v;

	memcpy(&v, a, 4);
	return v;
}

/* An ICMP message with n bytes behind its header, from .2 to .1. */
static void message(uint8_t type, uint8_t code, unsigned n)
{
	uint8_t *m = pkt + TAS_IP_HLEN;
	uint16_t sum;

	tas__ip_build((struct tas_ip_hdr *)pkt, addr(2), addr(1), TAS_IP_ICMP, TAS_ICMP_HLEN + n, 1, false, true);
	m[0] = type;
	m[1] = code;
	memset(m + 2, 0, 2);
	sum = tas__checksum(m, TAS_ICMP_HLEN + n, 0);
	memcpy(m + 2, &sum, 2);
	info = (struct tas_ip_info){ TAS_IP_HLEN, TAS_IP_HLEN + TAS_ICMP_HLEN + n };
}

/* An error about a segment of ours, .1 to .2. */
static void error_message(uint8_t type, uint8_t code, unsigned mtu, unsigned quoted_len)
{
	uint8_t *q = pkt + TAS_IP_HLEN + TAS_ICMP_HLEN;

	memset(pkt, 0, sizeof(pkt));
	tas__ip_build((struct tas_ip_hdr *)q, addr(1), addr(2), TAS_IP_TCP, quoted_len, 1, true, true);
	pkt[TAS_IP_HLEN + 6] = (uint8_t)(mtu >> 8);
	pkt[TAS_IP_HLEN + 7] = (uint8_t)mtu;
	message(type, code, TAS_IP_HLEN + 8);
}

static void an_echo_is_answered_with_its_own_bytes(void **state)
{
	struct tas_icmp_error e;
	struct tas_ip_info got;
	unsigned i;

	(void)state;
	for (i = 0; i < 56; i++)
		pkt[TAS_IP_HLEN + TAS_ICMP_HLEN + i] = (uint8_t)i;
	message(8, 0, 56);
	assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_ECHO);
	tas__icmp_echo_reply(pkt, &info, 77);
	assert_int_equal(tas__ip_parse(pkt, info.len, false, &got), TAS_IP_OK);
	assert_int_equal(((struct tas_ip_hdr *)pkt)->src, addr(1));
	assert_int_equal(((struct tas_ip_hdr *)pkt)->dst, addr(2));
	assert_int_equal(pkt[TAS_IP_HLEN], 0);
	assert_int_equal(tas__checksum(pkt + TAS_IP_HLEN, TAS_ICMP_HLEN + 56, 0), 0);
	assert_int_equal(pkt[TAS_IP_HLEN + TAS_ICMP_HLEN + 55], 55);
}

static void a_broken_message_is_told(void **state)
{
	struct tas_icmp_error e;

	(void)state;
	message(8, 0, 56);
	pkt[60] ^= 1;
	assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_BAD_CHECKSUM);
	info.len = info.hlen + 7;
	assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_MALFORMED);
	message(3, 1, 20); /* quotes too little */
	memset(pkt + 28, 0, 20);
	message(3, 1, 20);
	assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_MALFORMED);
}

static void errors_become_the_errno_of_linux(void **state)
{
	static const struct {
		uint8_t type, code;
		int error;
		bool hard;
	} cases[] = {
		{ 3, 0, ENETUNREACH, false }, { 3, 1, EHOSTUNREACH, false }, { 3, 2, ENOPROTOOPT, true },
		{ 3, 3, ECONNREFUSED, true }, { 3, 13, EHOSTUNREACH, true }, { 11, 0, EHOSTUNREACH, false },
		{ 12, 0, EPROTO, true },
	};
	struct tas_icmp_error e;
	unsigned i;

	(void)state;
	for (i = 0; i < sizeof(cases) / sizeof(cases[0]); i++) {
		error_message(cases[i].type, cases[i].code, 0, 20);
		assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_ERROR);
		assert_int_equal(e.error, cases[i].error);
		assert_int_equal(e.hard, cases[i].hard);
		assert_int_equal(e.src, addr(1));
		assert_int_equal(e.dst, addr(2));
		assert_ptr_equal(e.tcp8, pkt + 20 + 8 + 20);
	}
}

static void fragmentation_needed_carries_the_mtu(void **state)
{
	struct tas_icmp_error e;

	(void)state;
	error_message(3, 4, 1400, 1480);
	assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_ERROR);
	assert_int_equal(e.error, EMSGSIZE);
	assert_int_equal(e.mtu, 1400);
	error_message(3, 4, 0, 1480); /* an old router: the plateau below 1500 */
	assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_ERROR);
	assert_int_equal(e.mtu, 1492);
}

static void errors_about_others_are_ignored(void **state)
{
	struct tas_icmp_error e;

	(void)state;
	error_message(3, 3, 0, 20);
	((struct tas_ip_hdr *)(pkt + 28))->proto = TAS_IP_UDP;
	message(3, 3, 28);
	assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_IGNORE);
	message(0, 0, 8);
	assert_int_equal(tas__icmp_parse(pkt, &info, &e), TAS_ICMP_IGNORE);
}

static void unreachable_quotes_the_packet_and_is_a_sound_packet(void **state)
{
	uint8_t out[600];
	struct tas_ip_info got;
	struct tas_icmp_error e;
	unsigned n;

	(void)state;
	memset(pkt, 7, sizeof(pkt));
	tas__ip_build((struct tas_ip_hdr *)pkt, addr(2), addr(1), TAS_IP_UDP, 1400, 3, false, true);
	info = (struct tas_ip_info){ 20, 1420 };
	assert_true(tas__icmp_may_complain(pkt, &info));
	n = tas__icmp_unreach(out, pkt, &info, TAS_ICMP_UNREACH_PORT, 9);
	assert_int_equal(n, 576);
	assert_int_equal(tas__ip_parse(out, n, false, &got), TAS_IP_OK);
	assert_int_equal(((struct tas_ip_hdr *)out)->dst, addr(2));
	assert_memory_equal(out + 28, pkt, 576 - 28);
	assert_int_equal(tas__icmp_parse(out, &got, &e), TAS_ICMP_IGNORE); /* about UDP; but its checksum is right */
}

static void errors_are_not_answered_with_errors(void **state)
{
	(void)state;
	error_message(3, 3, 0, 20);
	assert_false(tas__icmp_may_complain(pkt, &info));
	message(8, 0, 8);
	assert_true(tas__icmp_may_complain(pkt, &info));
	memcpy(&((struct tas_ip_hdr *)pkt)->dst, (uint8_t[4]){ 224, 0, 0, 1 }, 4);
	assert_false(tas__icmp_may_complain(pkt, &info));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(an_echo_is_answered_with_its_own_bytes),
		cmocka_unit_test(a_broken_message_is_told),
		cmocka_unit_test(errors_become_the_errno_of_linux),
		cmocka_unit_test(fragmentation_needed_carries_the_mtu),
		cmocka_unit_test(errors_about_others_are_ignored),
		cmocka_unit_test(unreachable_quotes_the_packet_and_is_a_sound_packet),
		cmocka_unit_test(errors_are_not_answered_with_errors),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
