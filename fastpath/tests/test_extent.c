/* SPDX-License-Identifier: MIT */
/* Extents and counters: every byte of a stream is found where its writer put it, while rings are replaced under way. */
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <sched.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "abi/tas_extent.h"

static void put(struct tas_extent *e, uint64_t base, uint64_t off, uint32_t len, uint32_t gen)
{
	atomic_store(&e->base, base);
	atomic_store(&e->off, off);
	atomic_store(&e->len, len);
	atomic_store(&e->gen, gen);
}

static void a_span_ends_at_the_ring_and_at_the_end_of_data(void **state)
{
	struct tas_span s;

	(void)state;
	s = tas_extent_span(8192, 1000, 4096, 1000 + 4090, 1000 + 4100);
	assert_int_equal(s.off, 8192 + 4090);
	assert_int_equal(s.len, 6);
	s = tas_extent_span(8192, 1000, 4096, 1000 + 4096, 1000 + 4100);
	assert_int_equal(s.off, 8192);
	assert_int_equal(s.len, 4);
}

static void the_extent_with_the_largest_base_not_beyond_wins(void **state)
{
	struct tas_extent rx[TAS_EXT_SLOTS] = { 0 };
	struct tas_span s;

	(void)state;
	put(&rx[1], 0, 4096, 4096, 1);
	put(&rx[0], 100, 65536, 65536, 2);
	s = tas_rx_span(rx, 90, 200);
	assert_int_equal(s.off, 4096 + 90);
	assert_int_equal(s.len, 10); /* up to the next extent's base */
	s = tas_rx_span(rx, 100, 200);
	assert_int_equal(s.off, 65536);
	assert_int_equal(s.len, 100);
}

static void a_corrupt_extent_gives_no_bytes(void **state)
{
	struct tas_extent rx[TAS_EXT_SLOTS] = { 0 };

	(void)state;
	assert_int_equal(tas_rx_span(rx, 0, 10).len, 0);
	put(&rx[0], 0, 4096, 3000, 1);
	assert_int_equal(tas_rx_span(rx, 0, 10).len, 0);
	put(&rx[0], 11, 4096, 4096, 1);
	assert_int_equal(tas_rx_span(rx, 10, 11).len, 0);
}

/* A writer process and a reader process share one direction of a socket by the rules of docs/internals.md; the writer
 * rebases an idle ring and replaces rings by larger and smaller ones.  The reader checks every byte. */
enum { TOTAL = 8 << 20, ARENA = 1 << 18 };

struct shared {
	struct tas_extent rx[TAS_EXT_SLOTS];
	_Alignas(128) _Atomic uint64_t delivered;
	_Alignas(128) _Atomic uint64_t consumed;
	_Atomic uint32_t failed;
	uint8_t arena[2][ARENA];
};

static uint8_t byte_at(uint64_t off)
{
	return (uint8_t)(off ^ (off >> 8) ^ (off >> 16));
}

static void reader(struct shared *s)
{
	uint64_t c = 0;
	unsigned seed = 3;

	while (c < TOTAL) {
		uint64_t d = atomic_load_explicit(&s->delivered, memory_order_acquire);

		if (d == c) {
			sched_yield();
			continue;
		}
		uint64_t end = c + 1 + (uint64_t)rand_r(&seed) % (d - c);
		struct tas_span p = tas_rx_span(s->rx, c, end);

		if (!p.len)
			goto bad;
		for (uint32_t i = 0; i < p.len; i++)
			if (((uint8_t *)s->arena)[p.off + i] != byte_at(c + i))
				goto bad;
		c += p.len;
		atomic_store_explicit(&s->consumed, c, memory_order_release);
	}
	_exit(0);
bad:
	atomic_store(&s->failed, 1);
	_exit(1);
}

static void readers_follow_replaced_and_rebased_rings(void **state)
{
	struct shared *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	uint64_t d = 0, base[2] = { 0, UINT64_MAX };
	uint32_t len[2] = { 4096, 0 }, gen = 1, cur = 0;
	unsigned seed = 1;
	int status;

	(void)state;
	assert_true(s != MAP_FAILED);
	put(&s->rx[0], 0, 0, 4096, 1);
	pid_t p = fork();

	assert_true(p >= 0);
	if (!p)
		reader(s);
	while (d < TOTAL && !atomic_load(&s->failed)) {
		uint64_t c = atomic_load_explicit(&s->consumed, memory_order_acquire);
		uint32_t r = (uint32_t)rand_r(&seed);

		if (base[!cur] != UINT64_MAX && c >= base[cur]) { /* the old ring is empty */
			atomic_store_explicit(&s->rx[!cur].gen, 0, memory_order_release);
			base[!cur] = UINT64_MAX;
		}
		if (c == d && base[!cur] == UINT64_MAX && r % 3 == 0) { /* idle: begin again at the first byte */
			base[cur] = d;
			atomic_store_explicit(&s->rx[cur].base, d, memory_order_relaxed);
		} else if (base[!cur] == UINT64_MAX && r % 64 == 1) {
			cur = !cur;
			base[cur] = d;
			len[cur] = 4096u << (r / 64 % 7);
			put(&s->rx[cur], d, (uint64_t)cur * ARENA, len[cur], ++gen);
		}
		uint64_t room = len[cur] - (d - (c > base[cur] ? c : base[cur]));
		uint64_t n = room ? 1 + r / 7 % room : 0;

		if (!n) {
			sched_yield();
			continue;
		}
		if (n > TOTAL - d)
			n = TOTAL - d;
		for (uint64_t i = 0; i < n; i++)
			s->arena[cur][(d + i - base[cur]) & (len[cur] - 1)] = byte_at(d + i);
		d += n;
		atomic_store_explicit(&s->delivered, d, memory_order_release);
	}
	assert_int_equal(waitpid(p, &status, 0), p);
	assert_int_equal(status, 0);
	munmap(s, sizeof *s);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_span_ends_at_the_ring_and_at_the_end_of_data),
		cmocka_unit_test(the_extent_with_the_largest_base_not_beyond_wins),
		cmocka_unit_test(a_corrupt_extent_gives_no_bytes),
		cmocka_unit_test(readers_follow_replaced_and_rebased_rings),
	};

	return cmocka_run_group_tests_name("extents", tests, NULL, NULL);
}
