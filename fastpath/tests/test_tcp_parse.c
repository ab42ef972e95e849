/* SPDX-License-Identifier: MIT */
/* Headers on the wire, resets without connection, initial sequence numbers. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <cmocka.h>
#include <string.h>

#include "tcp/tcp.h"

static void same(const struct tcp_seg *a, const struct tcp_seg *b)
{
	assert_true(a->seq == b->seq && a->ack == b->ack && a->len == b->len && a->sport == b->sport);
	assert_true(a->dport == b->dport && a->wnd == b->wnd && a->urg == b->urg && a->flags == b->flags);
	assert_true(a->hdr_len == b->hdr_len && a->has_ts == b->has_ts && a->has_wscale == b->has_wscale);
	assert_true(a->sack_ok == b->sack_ok && a->wscale == b->wscale && a->n_sack == b->n_sack && a->mss == b->mss);
	assert_true(a->tsval == b->tsval && a->tsecr == b->tsecr);
	assert_memory_equal(a->sack, b->sack, sizeof(a->sack));
}

static void what_is_built_parses_back(void **state)
{
	struct tcp_seg syn = { .seq = 0xdeadbeef, .ack = 0x01020304, .sport = 80, .dport = 65535, .wnd = 40000,
			       .urg = 7, .flags = TCP_F_SYN | TCP_F_ACK, .has_ts = true, .has_wscale = true,
			       .sack_ok = true, .wscale = 9, .mss = 1460, .tsval = 11, .tsecr = 22 };
	struct tcp_seg data = { .flags = TCP_F_ACK | TCP_F_PSH | TCP_F_URG, .has_ts = true, .n_sack = 3, .len = 100,
				.tsval = 0xffffffff, .sack = { { 1, 2 }, { 3, 4 }, { 0xfffffff0, 5 } } };
	struct tcp_seg back;
	uint8_t p[TCP_HDR_MAX];

	(void)state;
	assert_int_equal(tcp_build(p, &syn), 40);
	assert_int_equal(tcp_parse(p, 40, &back), 0);
	same(&back, &syn);
	assert_int_equal(tcp_build(p, &data), 60);
	assert_int_equal(tcp_parse(p, 160, &back), 0);
	same(&back, &data);
	data.n_sack = 0;
	memset(data.sack, 0, sizeof(data.sack));
	assert_int_equal(tcp_build(p, &data), 32);
	assert_int_equal(tcp_parse(p, 132, &back), 0);
	same(&back, &data);
}

static void sack_blocks_that_do_not_fit_are_left_out(void **state)
{
	struct tcp_seg s = { .flags = TCP_F_ACK, .has_ts = true, .n_sack = 4 }, back;
	uint8_t p[TCP_HDR_MAX];

	(void)state;
	assert_int_equal(tcp_build(p, &s), 60);
	assert_int_equal(tcp_parse(p, 60, &back), 0);
	assert_int_equal(back.n_sack, 3);
	s.has_ts = false;
	assert_int_equal(tcp_build(p, &s), 56);
	assert_int_equal(tcp_parse(p, 56, &back), 0);
	assert_int_equal(back.n_sack, 4);
}

static int with_options(struct tcp_seg *s, uint8_t flags, const uint8_t *o, unsigned n)
{
	uint8_t p[60] = { 0 };

	p[12] = (uint8_t)((20 + n) / 4 << 4);
	p[13] = flags;
	memcpy(p + 20, o, n);
	return tcp_parse(p, 20 + n, s);
}
#define WITH(s, flags, ...) with_options(s, flags, (const uint8_t[]){ __VA_ARGS__ }, sizeof((uint8_t[]){ __VA_ARGS__ }))

static void malformed_headers_are_refused(void **state)
{
	uint8_t p[60] = { 0 };
	struct tcp_seg s;

	(void)state;
	assert_int_equal(tcp_parse(p, 19, &s), -1);
	p[12] = 4 << 4; /* header shorter than 20 */
	assert_int_equal(tcp_parse(p, 40, &s), -1);
	p[12] = 8 << 4; /* longer than the segment */
	assert_int_equal(tcp_parse(p, 31, &s), -1);
	assert_int_equal(tcp_parse(p, 32, &s), 0);
}

static void broken_options_end_the_list(void **state)
{
	struct tcp_seg s;

	(void)state;
	assert_int_equal(WITH(&s, TCP_F_SYN, 2, 0, 0, 0), 0);  /* length 0 */
	assert_int_equal(WITH(&s, TCP_F_SYN, 2, 1, 0, 0), 0);  /* length 1 */
	assert_int_equal(WITH(&s, TCP_F_SYN, 1, 1, 2, 4), 0);  /* beyond the header */
	assert_int_equal(s.mss, 0);
	assert_int_equal(WITH(&s, TCP_F_SYN, 1, 1, 1, 2), 0);  /* no length byte */
	assert_int_equal(WITH(&s, TCP_F_SYN, 0, 2, 99, 0), 0); /* behind the end: anything */
	assert_int_equal(WITH(&s, TCP_F_SYN, 2, 4, 5, 0xb4, 3, 0, 4, 2), 0);
	assert_int_equal(s.mss, 1460); /* what came before counts */
	assert_false(s.sack_ok);
}

static void options_count_where_they_belong(void **state)
{
	struct tcp_seg s;

	(void)state;
	assert_int_equal(WITH(&s, TCP_F_SYN, 2, 4, 5, 0xb4, 3, 3, 20, 1), 0);
	assert_int_equal(s.mss, 1460);
	assert_int_equal(s.wscale, 14); /* RFC 7323 §2.3 */
	assert_int_equal(WITH(&s, TCP_F_ACK, 2, 4, 5, 0xb4, 3, 3, 2, 1), 0);
	assert_int_equal(s.mss, 0); /* only in a SYN */
	assert_false(s.has_wscale);
	assert_int_equal(WITH(&s, TCP_F_SYN, 2, 6, 5, 0xb4, 1, 1, 1, 1), 0); /* MSS of another length: unknown */
	assert_int_equal(s.mss, 0);
	assert_int_equal(WITH(&s, TCP_F_SYN, 253, 4, 5, 6, 2, 4, 2, 0), 0); /* unknown ones are skipped */
	assert_int_equal(s.mss, 512);
	assert_int_equal(WITH(&s, TCP_F_ACK, 5, 9, 0, 0, 0, 0, 0, 0, 0, 1, 1, 1), 0);
	assert_int_equal(s.n_sack, 0);
}

static void a_stray_segment_is_answered_by_the_reset_that_fits(void **state)
{
	struct tcp_seg in = { .sport = 1, .dport = 2, .seq = 100, .ack = 500, .len = 10, .flags = TCP_F_ACK }, out;

	(void)state;
	assert_true(tcp_reset_for(&in, &out));
	assert_int_equal(out.flags, TCP_F_RST);
	assert_int_equal(out.seq, 500);
	assert_int_equal(out.sport, 2);
	assert_int_equal(out.dport, 1);
	in.flags = TCP_F_SYN | TCP_F_FIN;
	assert_true(tcp_reset_for(&in, &out));
	assert_int_equal(out.flags, TCP_F_RST | TCP_F_ACK);
	assert_int_equal(out.seq, 0);
	assert_int_equal(out.ack, 112);
	in.flags = TCP_F_RST | TCP_F_ACK;
	assert_false(tcp_reset_for(&in, &out));
}

static void siphash_gives_the_published_vector(void **state)
{
	uint8_t key[16], data[15];

	(void)state;
	for (uint8_t i = 0; i < 16; i++)
		key[i] = i;
	for (uint8_t i = 0; i < 15; i++)
		data[i] = i;
	assert_true(tcp_siphash(key, data, 15) == 0xa129ca6149be45e5u);
	assert_true(tcp_siphash(key, data, 0) == 0x726fdb47dd0e0e31u);
}

static void isn_depends_on_tuple_key_and_clock(void **state)
{
	uint8_t key[16] = { 1 }, other[16] = { 2 };

	(void)state;
	assert_int_equal(tcp_isn(key, "abc", 3, 4000000) - tcp_isn(key, "abc", 3, 0), 1000); /* 4 µs */
	assert_int_not_equal(tcp_isn(key, "abc", 3, 0), tcp_isn(key, "abd", 3, 0));
	assert_int_not_equal(tcp_isn(key, "abc", 3, 0), tcp_isn(other, "abc", 3, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_built_parses_back),
		cmocka_unit_test(sack_blocks_that_do_not_fit_are_left_out),
		cmocka_unit_test(malformed_headers_are_refused),
		cmocka_unit_test(broken_options_end_the_list),
		cmocka_unit_test(options_count_where_they_belong),
		cmocka_unit_test(a_stray_segment_is_answered_by_the_reset_that_fits),
		cmocka_unit_test(siphash_gives_the_published_vector),
		cmocka_unit_test(isn_depends_on_tuple_key_and_clock),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
