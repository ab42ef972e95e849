/* SPDX-License-Identifier: MIT */
/* Hint bitmaps: nothing marked is lost, nothing unmarked appears, with one and with several producers. */
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <sched.h>
#include <unistd.h>
#include <sys/mman.h>
#include <sys/wait.h>
#include <cmocka.h>

#include "abi/tas_bitmap.h"

static struct tas_bitmap *fresh(void)
{
	void *p = mmap(NULL, sizeof(struct tas_bitmap), PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);

	assert_true(p != MAP_FAILED);
	return p;
}

static void drop(struct tas_bitmap *b)
{
	munmap(b, sizeof *b);
}

static void what_is_set_is_drained_once_in_order(void **state)
{
	static const uint32_t ids[] = { 0, 1, 63, 64, 4095, 4096, 100000, TAS_SOCK_MAX - 1 };
	struct tas_bitmap *b = fresh();
	uint32_t out[16];

	(void)state;
	for (int i = 7; i >= 0; i--) {
		tas_bitmap_set(b, ids[i]);
		tas_bitmap_set(b, ids[i]);
	}
	assert_true(tas_bitmap_any(b));
	assert_int_equal(tas_bitmap_drain(b, out, 16), 8);
	assert_memory_equal(out, ids, sizeof ids);
	assert_false(tas_bitmap_any(b));
	assert_int_equal(tas_bitmap_drain(b, out, 16), 0);
	drop(b);
}

static void a_drain_with_little_room_leaves_the_rest_marked(void **state)
{
	struct tas_bitmap *b = fresh();
	uint32_t out[3], n, total = 0, last = 0;

	(void)state;
	for (uint32_t i = 0; i < 1000; i++)
		tas_bitmap_set(b, i * 257 % TAS_SOCK_MAX);
	while ((n = tas_bitmap_drain(b, out, 3))) {
		for (uint32_t i = 0; i < n; i++) {
			assert_true(!total || out[i] > last);
			last = out[i];
			total++;
		}
	}
	assert_int_equal(total, 1000);
	drop(b);
}

/* Stress: every producer counts up a word of its own and marks it; the consumer looks only at marked words.  At the end it
 * has seen every final value: no mark was lost. */
enum { PRODUCERS = 4, WORDS = 300, ROUNDS = 20000 };

struct stress {
	struct tas_bitmap *b;
	_Atomic uint32_t value[PRODUCERS][WORDS];
	_Atomic uint32_t running;
};

static void produce(struct stress *s, int who)
{
	unsigned seed = (unsigned)who * 7919 + 1;

	for (int i = 0; i < ROUNDS; i++) {
		uint32_t w = (uint32_t)rand_r(&seed) % WORDS;

		atomic_fetch_add_explicit(&s->value[who][w], 1, memory_order_relaxed);
		tas_bitmap_set(s->b, (uint32_t)who * 65536 + w * 97);
	}
	atomic_fetch_sub(&s->running, 1);
}

static void consume(struct stress *s)
{
	static uint32_t seen[PRODUCERS][WORDS];
	uint32_t out[64], n;
	int last = 0;

	memset(seen, 0, sizeof seen);
	for (;;) {
		int done = !atomic_load(&s->running);

		while ((n = tas_bitmap_drain(s->b, out, 64))) {
			for (uint32_t i = 0; i < n; i++) {
				uint32_t who = out[i] / 65536, w = out[i] % 65536;

				assert_true(who < PRODUCERS && w % 97 == 0 && w / 97 < WORDS);
				seen[who][w / 97] = atomic_load_explicit(&s->value[who][w / 97], memory_order_relaxed);
			}
		}
		if (last)
			break;
		last = done;
		sched_yield();
	}
	for (int who = 0; who < PRODUCERS; who++)
		for (int w = 0; w < WORDS; w++)
			assert_int_equal(seen[who][w], atomic_load(&s->value[who][w]));
}

struct arg {
	struct stress *s;
	int who;
};

static void *thread(void *p)
{
	struct arg *a = p;

	produce(a->s, a->who);
	return NULL;
}

static void no_hint_is_lost_between_threads(void **state)
{
	static struct stress s;
	pthread_t t[PRODUCERS];
	struct arg a[PRODUCERS];

	(void)state;
	s.b = fresh();
	atomic_store(&s.running, PRODUCERS);
	for (int i = 0; i < PRODUCERS; i++) {
		a[i] = (struct arg){ &s, i };
		assert_int_equal(pthread_create(&t[i], NULL, thread, &a[i]), 0);
	}
	consume(&s);
	for (int i = 0; i < PRODUCERS; i++)
		pthread_join(t[i], NULL);
	drop(s.b);
}

static void no_hint_is_lost_between_processes(void **state)
{
	struct stress *s = mmap(NULL, sizeof *s, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_ANONYMOUS, -1, 0);
	int status;

	(void)state;
	assert_true(s != MAP_FAILED);
	s->b = fresh();
	atomic_store(&s->running, PRODUCERS);
	for (int i = 0; i < PRODUCERS; i++) {
		pid_t p = fork();

		assert_true(p >= 0);
		if (!p) {
			produce(s, i);
			_exit(0);
		}
	}
	consume(s);
	for (int i = 0; i < PRODUCERS; i++) {
		assert_true(wait(&status) > 0);
		assert_int_equal(status, 0);
	}
	drop(s->b);
	munmap(s, sizeof *s);
}

static void claims_are_independent_bits(void **state)
{
	static _Atomic uint64_t w[TAS_SOCK_MAX / 64];

	(void)state;
	tas_claim_set(w, 5);
	tas_claim_set(w, 6);
	tas_claim_set(w, TAS_SOCK_MAX - 1);
	tas_claim_clear(w, 5);
	assert_false(tas_claim_test(w, 5));
	assert_true(tas_claim_test(w, 6));
	assert_true(tas_claim_test(w, TAS_SOCK_MAX - 1));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(what_is_set_is_drained_once_in_order),
		cmocka_unit_test(a_drain_with_little_room_leaves_the_rest_marked),
		cmocka_unit_test(no_hint_is_lost_between_threads),
		cmocka_unit_test(no_hint_is_lost_between_processes),
		cmocka_unit_test(claims_are_independent_bits),
	};

	return cmocka_run_group_tests_name("hint bitmaps", tests, NULL, NULL);
}
