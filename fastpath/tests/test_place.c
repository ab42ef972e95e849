/* SPDX-License-Identifier: MIT */
/* Which segments have a place that can be told before their payload is read (fast/place.c), and where it is. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <string.h>
#include <sys/uio.h>
#include <cmocka.h>

#include "abi/tas_extent.h"
#include "fast/wire.h"

enum { RING = 8192, LEN = 3000 };

static uint8_t ring[TAS_EXT_SLOTS][RING];
static struct tas_sock sock, *found;
static struct tas_block block;
static struct tas_core core;
static struct tcp_rx_want want;
static uint64_t high, second_base; /* where the second ring begins */
static bool memory;
static unsigned inputs;
static const uint8_t *input_payload;
static struct tcp_seg input_seg;

struct tas_sock *tas__flow_find(const struct tas_core *c, const struct tas_addr *local, const struct tas_addr *peer)
{
	assert_ptr_equal(c, &core);
	assert_int_equal(local->port, __builtin_bswap16(80));
	assert_int_equal(peer->port, __builtin_bswap16(4000));
	return found;
}

struct tcp_rx_want tcp_rx_want(const struct tcp_conn *c, const struct tcp_seg *seg)
{
	(void)c, (void)seg;
	return want;
}

uint64_t tcp_rx_high(const struct tcp_conn *c)
{
	(void)c;
	return high;
}

bool tas__rx_reserve(struct tas_sock *s, uint64_t off, uint32_t len, uint64_t from)
{
	assert_ptr_equal(s, &sock);
	assert_int_equal(off, want.off);
	assert_int_equal(len, want.len);
	assert_int_equal(from, high);
	return memory;
}

/* Positions of the first ring are those of the stream; the second takes over at second_base. */
struct tas_span tas__rx_space(struct tas_sock *s, uint64_t off, uint64_t end)
{
	unsigned slot = off >= second_base;
	uint64_t at = (off - (slot ? second_base : 0)) % RING, n = RING - at;

	(void)s;
	if (!slot && end > second_base)
		end = second_base;
	return (struct tas_span){ TAS_OFF(slot, at), (uint32_t)(end - off < n ? end - off : n) };
}

void tas__wire_input(struct tas_sock *s, const struct tcp_seg *seg, const uint8_t *payload)
{
	assert_ptr_equal(s, &sock);
	inputs++;
	input_seg = *seg;
	input_payload = payload;
}

static struct tas_chunk chunk[TAS_EXT_SLOTS];
static struct tas_set set = { .n_chunks = TAS_EXT_SLOTS };

static int fresh(void **state)
{
	(void)state;
	memset(&sock, 0, sizeof sock);
	sock.base.b = &block;
	sock.base.set = &set;
	for (int i = 0; i < TAS_EXT_SLOTS; i++) {
		chunk[i].map = ring[i];
		set.chunk[i] = &chunk[i];
	}
	found = &sock;
	high = 100;
	want = (struct tcp_rx_want){ .off = 100, .len = LEN };
	second_base = UINT64_MAX;
	memory = true;
	inputs = 0;
	memset(core.counters, 0, sizeof core.counters);
	return 0;
}

static unsigned place_flags(struct iovec *to, uint8_t flags)
{
	struct tcp_seg seg = { .sport = 4000, .dport = 80, .seq = 9, .ack = 7, .wnd = 1, .flags = flags, .has_ts = true };
	const struct tas_rx_meta meta = { .tos = 8 };
	uint8_t header[TCP_HDR_MAX];

	return tas_core_place(&core, header, tcp_build(header, &seg) + LEN, &meta, to);
}

static unsigned place(struct iovec *to)
{
	return place_flags(to, TCP_F_ACK | TCP_F_PSH);
}

static void test_the_next_bytes_go_where_the_stream_has_them(void **state)
{
	struct iovec to[TAS_PLACE_PIECES];

	(void)state;
	assert_int_equal(place(to), 1);
	assert_ptr_equal(to[0].iov_base, ring[0] + 100);
	assert_int_equal(to[0].iov_len, LEN);
	assert_int_equal(inputs, 0);
	tas_core_placed(&core);
	assert_int_equal(inputs, 1);
	assert_null(input_payload);
	assert_int_equal(input_seg.len, LEN);
	assert_int_equal(input_seg.seq, 9);
	assert_int_equal(input_seg.tos, 8);
	assert_int_equal(core.counters[TAS_CTR_rx_placed], 1);
	assert_int_equal(core.counters[TAS_CTR_tcp_in], 1);
}

static void test_a_place_may_have_pieces(void **state)
{
	struct iovec to[TAS_PLACE_PIECES];

	(void)state;
	high = want.off = RING - 1000; /* over the ring's end, then into the next ring */
	second_base = RING + 500;
	assert_int_equal(place(to), 3);
	assert_ptr_equal(to[0].iov_base, ring[0] + RING - 1000);
	assert_int_equal(to[0].iov_len, 1000);
	assert_ptr_equal(to[1].iov_base, ring[0]);
	assert_int_equal(to[1].iov_len, 500);
	assert_ptr_equal(to[2].iov_base, ring[1]);
	assert_int_equal(to[2].iov_len, LEN - 1500);
}

static void test_what_is_not_next_has_no_place(void **state)
{
	struct iovec to[TAS_PLACE_PIECES];

	(void)state;
	want.off = 5000; /* behind a hole */
	assert_int_equal(place(to), 0);
	high = 6000; /* fills one */
	want.off = 100;
	assert_int_equal(place(to), 0);
	high = 100;
	want.len = LEN - 1; /* partly there already, or beyond the window */
	assert_int_equal(place(to), 0);
	want.len = 0;
	assert_int_equal(place(to), 0);
}

static void test_only_plain_segments_have_a_place(void **state)
{
	static const uint8_t others[] = { TCP_F_FIN, TCP_F_SYN, TCP_F_RST, TCP_F_URG, 0x40, 0x80 };
	struct iovec to[TAS_PLACE_PIECES];

	(void)state;
	for (unsigned i = 0; i < sizeof others; i++)
		assert_int_equal(place_flags(to, TCP_F_ACK | others[i]), 0);
	assert_int_equal(place_flags(to, TCP_F_PSH), 0);
	assert_int_equal(place_flags(to, TCP_F_ACK), 1);
}

static void test_only_connections_with_a_reader_and_memory_have_a_place(void **state)
{
	struct tas_sock listener;
	struct iovec to[TAS_PLACE_PIECES];

	(void)state;
	found = NULL;
	assert_int_equal(place(to), 0);
	found = &sock;
	sock.listener = &listener; /* an embryo */
	assert_int_equal(place(to), 0);
	sock.listener = NULL;
	sock.base.closed = true;
	assert_int_equal(place(to), 0);
	sock.base.closed = false;
	sock.base.b = NULL;
	assert_int_equal(place(to), 0);
	sock.base.b = &block;
	memory = false;
	assert_int_equal(place(to), 0);
	memory = true;
	assert_int_equal(place(to), 1);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(test_the_next_bytes_go_where_the_stream_has_them, fresh),
		cmocka_unit_test_setup(test_a_place_may_have_pieces, fresh),
		cmocka_unit_test_setup(test_what_is_not_next_has_no_place, fresh),
		cmocka_unit_test_setup(test_only_plain_segments_have_a_place, fresh),
		cmocka_unit_test_setup(test_only_connections_with_a_reader_and_memory_have_a_place, fresh),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
