/* SPDX-License-Identifier: MIT */
/* Stream memory of the service (fast/stream.c) against an application that this test plays, honestly and not. */
#include <errno.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <cmocka.h>

#include "abi/tas_extent.h"
#include "fast/sock.h"

struct tas_config tas_config = { .tcp_rxbuf_len = 1 << 20, .tcp_txbuf_len = 4 << 20 };

/* ---- memory: one chunk, never reused, so that a stale position is seen as wrong bytes ---- */
static struct tas_chunk chunk;
static struct tas_set set = { .n_chunks = 1 };
static uint32_t used = 4096;
static bool full;

tas_off_t tas__mem_alloc(struct tas_set *s, uint32_t len)
{
	uint32_t at = (used + len - 1) & ~(len - 1);

	(void)s;
	if (full || at + len > TAS_CHUNK_SIZE)
		return 0;
	used = at + len;
	return TAS_OFF(0, at);
}

void tas__mem_free(struct tas_set *s, tas_off_t off, uint32_t len)
{
	memset(tas__mem_ptr(s, off), 0xdd, len);
}

static bool scarce;
bool tas__mem_scarce(const struct tas_set *s)
{
	(void)s;
	return scarce;
}

static unsigned woken;
void tas__wake_soon(struct tas_sock *s, unsigned what)
{
	(void)s;
	woken |= what;
}

void tas__sock_flags(struct tas_sock *s, uint32_t flags)
{
	atomic_fetch_or(&s->base.b->s.flags, flags);
}

static uint64_t timer;
void tas__timer_set(struct tas_sock *s, uint64_t when)
{
	(void)s;
	timer = when;
}

void tas__slack_add(struct tas_sock *s)
{
	(void)s;
}

static uint64_t rx_high; /* of a connection over the link */
uint64_t tcp_rx_high(const struct tcp_conn *c)
{
	(void)c;
	return rx_high;
}

static bool writer_has_lock;
bool tas__block_lock(_Atomic uint32_t *word)
{
	(void)word;
	return !writer_has_lock;
}

void tas__block_unlock(_Atomic uint32_t *word)
{
	(void)word;
}

static struct tas_core core;
static struct tas_sock sock;
static struct tas_block block;

static int fresh(void **state)
{
	(void)state;
	memset(&sock, 0, sizeof sock);
	memset((void *)&block, 0, sizeof block);
	sock.base.set = &set;
	sock.base.b = &block;
	sock.core = &core;
	core.now = 1000;
	timer = UINT64_MAX;
	writer_has_lock = false;
	sock.rcv_buf = 65536;
	sock.rcv_limit = 65536;
	set.chunk[0] = &chunk;
	free(chunk.map);
	chunk.map = malloc(TAS_CHUNK_SIZE);
	used = 4096;
	full = false;
	woken = 0;
	return chunk.map ? 0 : -1;
}

/* ---- the application ---- */
static void answer(unsigned slot, uint64_t base)
{
	atomic_store(&block.a.tx_base[slot].base, base);
	atomic_store(&block.a.tx_base[slot].epoch, 0);
	atomic_store(&block.a.tx_base[slot].gen, atomic_load(&block.x.tx[slot].gen));
}

static void wrote(uint64_t to)
{
	atomic_store(&block.a.tx_written, to);
}

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off * 7 ^ off >> 9);
}

static void writers_begin_where_they_say(void **state)
{
	(void)state;
	assert_int_equal(tas__tx_first(&sock), 0);
	answer(0, 0);
	wrote(100);
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
	assert_int_equal(sock.written, 100);
	assert_int_equal(tas__app_read(&sock), 0);
	tas__tx_acked(&sock, 100);
	assert_int_equal(atomic_load(&block.s.tx_acked), 100);
	/* idle: begins at the start of the ring again */
	atomic_store(&block.a.tx_base[0].base, 100);
	atomic_store(&block.a.tx_base[0].epoch, 1);
	wrote(150);
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
	assert_int_equal(tas__tx_data(&sock, 100, 150).off, sock.tx[0].off);
}

static void a_larger_ring_is_offered_to_a_writer_without_room(void **state)
{
	uint32_t len;

	(void)state;
	assert_int_equal(tas__tx_first(&sock), 0);
	len = sock.tx[0].len;
	answer(0, 0);
	wrote(len);
	atomic_store(&block.a.tx_want, 2 * len);
	assert_true(tas__app_read(&sock) & TAS_CH_WRITTEN);
	assert_int_equal(sock.tx[1].len, 2 * len);
	assert_true(woken & TAS_WAKE_OUT);
	answer(1, len);
	wrote(len + 10);
	assert_true(tas__app_read(&sock) & TAS_CH_WRITTEN);
	tas__tx_acked(&sock, len);
	assert_int_equal(atomic_load(&block.x.tx[0].gen), 0); /* the old ring is empty */
}

/* Fills [from, to) of the ring that begins at base. */
static void fill(unsigned slot, uint64_t base, uint64_t from, uint64_t to)
{
	for (uint64_t at = from; at < to; at++)
		*(uint8_t *)tas__mem_ptr(&set, sock.tx[slot].off + ((at - base) & (sock.tx[slot].len - 1))) = byte_at(at);
	wrote(to);
}

static void bytes_are_there(uint64_t from, uint64_t to)
{
	static uint8_t buf[1 << 20];

	tas__tx_read(&sock, from, buf, (uint32_t)(to - from));
	for (uint64_t at = from; at < to; at++)
		assert_int_equal(buf[at - from], byte_at(at));
}

static void a_writer_whose_reader_stalls_gets_the_largest_ring(void **state)
{
	uint64_t len, end;

	(void)state;
	assert_int_equal(tas__tx_first(&sock), 0);
	len = sock.tx[0].len;
	answer(0, 0);
	fill(0, 0, 0, len);
	atomic_store(&block.a.tx_want, 8 * len);
	assert_true(tas__app_read(&sock) >= 0);
	answer(1, len);
	end = len + sock.tx[1].len;
	fill(1, len, len, end);
	atomic_store(&block.a.tx_want, 1 << 20);
	assert_true(tas__app_read(&sock) >= 0);
	tas__tx_acked(&sock, 100); /* both rings are in use */
	assert_true(timer <= 1000 + 5000000);
	core.now = timer;
	tas__tx_stalled(&sock); /* something moved meanwhile */
	assert_int_equal(sock.tx[1].gen, atomic_load(&block.x.tx[1].gen));
	assert_true(timer > core.now);
	core.now = timer;
	writer_has_lock = true;
	tas__tx_stalled(&sock);
	assert_true(timer > core.now);
	writer_has_lock = false;
	core.now = timer;
	scarce = true; /* connections to come need memory, too */
	tas__tx_stalled(&sock);
	assert_int_equal(sock.tx[0].len, len);
	scarce = false;
	assert_true(tas__app_read(&sock) >= 0); /* it still waits */
	core.now = timer;
	tas__tx_stalled(&sock);
	assert_int_equal(sock.tx[0].len, 4 << 20);
	assert_int_equal(sock.tx[1].gen, 0);
	assert_int_equal(atomic_load(&block.a.tx_base[0].gen), atomic_load(&block.x.tx[0].gen));
	assert_int_equal(atomic_load(&block.a.tx_base[0].base), 100);
	assert_int_equal(sock.stall_at, 0);
	bytes_are_there(100, end);
	fill(0, 100, end, end + 500000); /* the writer goes on there */
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
	bytes_are_there(end, end + 500000);
	/* all of it has gone: the memory goes, too */
	tas__tx_acked(&sock, end + 500000);
	assert_int_equal(sock.tx[1].gen, 0);
	assert_int_equal(sock.tx[0].len, 16384);
	wrote(end + 500010);
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
}

/* All that was written so far has gone, the connection is idle. */
static uint64_t gone_idle(uint64_t end)
{
	wrote(end);
	assert_true(tas__app_read(&sock) >= 0);
	tas__tx_acked(&sock, end);
	assert_true(tas__tx_give(&sock));
	return end;
}

static void an_idle_writer_keeps_a_small_ring(void **state)
{
	uint64_t end;

	(void)state;
	assert_int_equal(tas__tx_first(&sock), 0);
	answer(0, 0);
	wrote(100);
	assert_true(tas__app_read(&sock) > 0);
	assert_false(tas__tx_give(&sock)); /* not acknowledged */
	tas__tx_acked(&sock, 100);
	wrote(110);
	assert_false(tas__tx_give(&sock)); /* written, the hint is on its way */
	assert_true(tas__app_read(&sock) > 0);
	tas__tx_acked(&sock, 110);
	writer_has_lock = true;
	assert_false(tas__tx_give(&sock));
	writer_has_lock = false;
	end = gone_idle(120);
	assert_int_equal(sock.tx[0].len, 256);
	assert_int_equal(sock.tx[1].gen, 0);
	assert_int_equal(atomic_load(&block.x.tx[1].gen), 0);
	fill(0, end, end, end + 256); /* a small message fits */
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
	bytes_are_there(end, end + 256);
	end = gone_idle(end + 256);
	assert_int_equal(sock.tx[0].len, 256);
	/* a larger ring that nobody took up is no reason to keep both */
	atomic_store(&block.a.tx_want, 256); /* word of room, no larger ring */
	assert_int_equal(tas__app_read(&sock), 0);
	assert_int_equal(sock.tx[0].len + sock.tx[1].len, 256);
	atomic_store(&block.a.tx_want, 4096);
	writer_has_lock = true;
	assert_int_equal(tas__app_read(&sock), 0);
	assert_int_equal(sock.tx[1].len, 4096);
	writer_has_lock = false;
	assert_true(tas__tx_give(&sock));
	assert_int_equal(sock.tx[0].len, 256);
	assert_int_equal(sock.tx[1].gen, 0);
}

static void a_message_that_does_not_fit_gets_a_ring_first(void **state)
{
	uint64_t end;
	unsigned cur;

	(void)state;
	assert_int_equal(tas__tx_first(&sock), 0);
	answer(0, 0);
	end = gone_idle(100);
	woken = 0;
	atomic_store(&block.a.tx_want, 4096);
	assert_int_equal(tas__app_read(&sock), 0);
	cur = sock.tx_cur;
	assert_int_equal(sock.tx[cur].len, 16384);
	assert_true(sock.tx[cur].active);
	assert_true(woken & TAS_WAKE_OUT);
	assert_int_equal(atomic_load(&block.a.tx_base[cur].gen), atomic_load(&block.x.tx[cur].gen));
	assert_int_equal(atomic_load(&block.a.tx_base[cur].base), end);
	fill(cur, end, end, end + 16384);
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
	bytes_are_there(end, end + 16384);
	/* without memory, or when a limit is set: what there is, or that */
	end = gone_idle(end + 16384);
	full = true;
	atomic_store(&block.a.tx_want, 4096);
	assert_int_equal(tas__app_read(&sock), 0);
	assert_int_equal(sock.tx[sock.tx_cur].len, 256);
	full = false;
	atomic_store(&block.a.tx_want, 1 << 18);
	assert_int_equal(tas__app_read(&sock), 0);
	assert_int_equal(sock.tx[sock.tx_cur].len, 1 << 18);
}

static void what_stays_in_a_small_ring_moves_to_a_larger_one(void **state)
{
	uint64_t end;

	(void)state;
	assert_int_equal(tas__tx_first(&sock), 0);
	answer(0, 0);
	end = gone_idle(100);
	fill(sock.tx_cur, end, end, end + 100);
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
	tas__tx_stays(&sock);
	assert_int_equal(sock.tx[sock.tx_cur].len, 256); /* room enough */
	fill(sock.tx_cur, end, end + 100, end + 200);
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
	writer_has_lock = true;
	tas__tx_stays(&sock);
	assert_int_equal(sock.tx[sock.tx_cur].len, 256);
	writer_has_lock = false;
	tas__tx_stays(&sock);
	assert_int_equal(sock.tx[sock.tx_cur].len, 16384);
	bytes_are_there(end, end + 200);
	fill(sock.tx_cur, end, end + 200, end + 10000);
	assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
	bytes_are_there(end, end + 10000);
}

static void an_offer_answered_while_counters_are_read_waits_for_its_bytes(void **state)
{
	(void)state;
	assert_int_equal(tas__tx_first(&sock), 0);
	answer(0, 0);
	wrote(sock.tx[0].len);
	atomic_store(&block.a.tx_want, 1 << 20);
	assert_true(tas__app_read(&sock) > 0);
	tas__tx_acked(&sock, 200);
	wrote(sock.tx[0].len + 100); /* what the service reads first … */
	answer(1, sock.tx[0].len + 100);
	answer(1, sock.tx[0].len + 200); /* … and what the writer has done before the service reads on */
	assert_true(tas__app_read(&sock) >= 0);
	assert_int_equal(sock.written, sock.tx[0].len + 100);
	assert_false(sock.tx[1].active);
	wrote(sock.tx[0].len + 200);
	assert_true(tas__app_read(&sock) >= 0);
}

static void senseless_counters_are_refused(void **state)
{
	static const uint64_t bad[] = { 16385, 1 << 20, UINT64_MAX, UINT64_MAX - 5, 99 };

	for (unsigned i = 0; i < sizeof bad / sizeof *bad; i++) {
		assert_int_equal(fresh(state), 0);
		assert_int_equal(tas__tx_first(&sock), 0);
		answer(0, 0);
		wrote(100);
		assert_int_equal(tas__app_read(&sock), TAS_CH_WRITTEN);
		wrote(bad[i]);
		assert_int_equal(tas__app_read(&sock), -EPROTO);
	}
	assert_int_equal(fresh(state), 0);
	assert_int_equal(tas__tx_first(&sock), 0);
	wrote(1); /* never answered the offer */
	assert_int_equal(tas__app_read(&sock), -EPROTO);
	assert_int_equal(fresh(state), 0);
	atomic_store(&block.a.rx_consumed, 1); /* nothing was delivered */
	assert_int_equal(tas__app_read(&sock), -EPROTO);
}

/* A direct writer has put bytes into the ring of the other, and the other has taken some: as they say, as far as it can be. */
static bool adopts(uint64_t base, uint64_t consumed, uint64_t written)
{
	atomic_store(&block.x.rx[sock.rx_cur].base, base);
	atomic_store(&block.a.rx_consumed, consumed);
	return tas__rx_adopt(&sock, written);
}

static void a_direct_writer_and_its_reader_are_believed_within_the_ring(void **state)
{
	(void)state;
	assert_true(tas__rx_ring(&sock, 4096));
	assert_true(adopts(0, 0, 0));
	assert_true(adopts(0, 10, 4096));
	assert_true(adopts(0, 100, 4196)); /* it went round */
	assert_true(adopts(4196, 4196, 4300));
	assert_int_equal(sock.rx[sock.rx_cur].base, 4196);
	assert_int_equal(sock.delivered, 4300);
	assert_int_equal(sock.consumed, 4196);

	assert_false(adopts(4196, 4196, 4299)); /* fewer than before */
	assert_false(adopts(4196, 4195, 4300));
	assert_false(adopts(4196, 4301, 4300)); /* more than there is */
	assert_false(adopts(4196, 4196, 4196 + 4097)); /* more than fits */
	assert_false(adopts(4000, 4196, 4300));	       /* a ring that begins where it did not */
	assert_false(adopts(4301, 4300, 4300));
	assert_false(adopts(4250, 4200, 4300)); /* begun anew while something was in it */
	assert_false(adopts(UINT64_MAX, UINT64_MAX, UINT64_MAX));
	assert_int_equal(sock.delivered, 4300);
	assert_int_equal(sock.consumed, 4196);
	assert_true(adopts(4196, 4200, 4310));

	/* a larger ring begins behind what is in the smaller one, which stays until that is read */
	assert_true(tas__rx_larger(&sock, 10000));
	assert_int_equal(sock.rx[sock.rx_cur].len, 16384);
	assert_true(adopts(4310, 4210, 4400));
	assert_false(adopts(4311, 4210, 4400)); /* not while the reader is in the smaller one */
	assert_true(sock.rx[!sock.rx_cur].gen);
	assert_true(adopts(4310, 4310, 4400));
	assert_false(sock.rx[!sock.rx_cur].gen);
	assert_false(adopts(4310, 4209, 4400));
}

static void without_memory_received_bytes_are_refused_and_nothing_changes(void **state)
{
	(void)state;
	full = true;
	assert_false(tas__rx_reserve(&sock, 0, 100, 0));
	assert_int_equal(atomic_load(&block.x.rx[0].gen), 0);
	full = false;
	assert_true(tas__rx_reserve(&sock, 0, 100, 0));
}

/* The reader's side of docs/internals.md: every byte that was delivered is where tas_rx_span() says. */
static void consume(uint64_t *c, uint64_t n)
{
	uint64_t end = *c + n;

	while (*c < end) {
		struct tas_span p = tas_rx_span(block.x.rx, *c, end);
		const uint8_t *mem = tas__mem_ptr(&set, p.off);

		assert_int_not_equal(p.len, 0);
		for (uint32_t i = 0; i < p.len; i++)
			if (mem[i] != byte_at(*c + i))
				fail_msg("byte %llu is wrong", (unsigned long long)(*c + i));
		*c += p.len;
	}
	atomic_store(&block.a.rx_consumed, *c);
}

static void deliver(uint32_t n)
{
	uint8_t buf[1000];

	for (uint32_t i = 0; i < n; i++)
		buf[i] = byte_at(sock.delivered + i);
	assert_true(tas__rx_reserve(&sock, sock.delivered, n, sock.delivered));
	tas__rx_write(&sock, sock.delivered, buf, n);
	sock.delivered += n;
	atomic_store(&block.s.rx_delivered, sock.delivered);
}

static void an_idle_reader_has_no_ring(void **state)
{
	uint64_t c = 0;

	(void)state;
	deliver(1000);
	consume(&c, 999);
	assert_false(tas__rx_give(&sock)); /* a byte is unread */
	consume(&c, 1);
	sock.base.kind = TAS_K_LINK;
	rx_high = 1100; /* bytes from beyond a gap */
	assert_false(tas__rx_give(&sock));
	rx_high = 1000;
	assert_true(tas__rx_give(&sock));
	assert_int_equal(atomic_load(&block.x.rx[0].gen) + atomic_load(&block.x.rx[1].gen), 0);
	deliver(500);
	consume(&c, 500);
	atomic_store(&block.a.rx_consumed, c + 1); /* nonsense is the next hint's */
	assert_false(tas__rx_give(&sock));
	assert_int_equal(tas__app_read(&sock), -EPROTO);
}

/* Arrivals of random length, now and then out of order, and a reader that takes random amounts: rings are made, outgrown,
 * rebased and dropped on the way. */
static void whatever_arrives_is_read_back(void **state)
{
	for (unsigned seed = 0; seed < 300; seed++) {
		unsigned r = seed;
		uint64_t c = 0;
		uint8_t buf[70000];

		assert_int_equal(fresh(state), 0);
		for (int step = 0; step < 200; step++) {
			uint64_t room = sock.rcv_limit - sock.delivered;
			uint32_t n = 1 + (uint32_t)rand_r(&r) % (rand_r(&r) % 8 ? 3000 : 65000);
			uint32_t ahead = 0;

			n = n < room ? n : (uint32_t)room;
			if (n > 1 && rand_r(&r) % 4 == 0) { /* the second half comes first */
				ahead = n / 2;
				for (uint32_t i = ahead; i < n; i++)
					buf[i] = byte_at(sock.delivered + i);
				if (tas__rx_reserve(&sock, sock.delivered + ahead, n - ahead, sock.delivered))
					tas__rx_write(&sock, sock.delivered + ahead, buf + ahead, n - ahead);
				else
					ahead = 0;
			}
			for (uint32_t i = 0; i < n; i++)
				buf[i] = byte_at(sock.delivered + i);
			uint32_t first = ahead ? ahead : n;

			if (!ahead && rand_r(&r) % 4 == 0)
				tas__rx_give(&sock);
			if (n && tas__rx_reserve(&sock, sock.delivered, first, ahead ? sock.delivered + n : sock.delivered)) {
				tas__rx_write(&sock, sock.delivered, buf, first);
				sock.delivered += n;
				atomic_store(&block.s.rx_delivered, sock.delivered);
			}
			if (rand_r(&r) % 3)
				consume(&c, rand_r(&r) % 3 ? sock.delivered - c : (uint64_t)rand_r(&r) % (sock.delivered - c + 1));
			assert_true(tas__app_read(&sock) >= 0);
			assert_false(sock.rx[0].gen && sock.rx[1].gen && sock.rx[0].base == sock.rx[1].base);
		}
		consume(&c, sock.delivered - c);
		assert_true(c > 0);
	}
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(writers_begin_where_they_say, fresh),
		cmocka_unit_test_setup(a_larger_ring_is_offered_to_a_writer_without_room, fresh),
		cmocka_unit_test_setup(a_writer_whose_reader_stalls_gets_the_largest_ring, fresh),
		cmocka_unit_test_setup(an_idle_writer_keeps_a_small_ring, fresh),
		cmocka_unit_test_setup(a_message_that_does_not_fit_gets_a_ring_first, fresh),
		cmocka_unit_test_setup(what_stays_in_a_small_ring_moves_to_a_larger_one, fresh),
		cmocka_unit_test_setup(an_idle_reader_has_no_ring, fresh),
		cmocka_unit_test_setup(an_offer_answered_while_counters_are_read_waits_for_its_bytes, fresh),
		cmocka_unit_test_setup(senseless_counters_are_refused, fresh),
		cmocka_unit_test_setup(a_direct_writer_and_its_reader_are_believed_within_the_ring, fresh),
		cmocka_unit_test_setup(without_memory_received_bytes_are_refused_and_nothing_changes, fresh),
		cmocka_unit_test_setup(whatever_arrives_is_read_back, fresh),
	};

	return cmocka_run_group_tests_name("stream memory", tests, NULL, NULL);
}
