/* SPDX-License-Identifier: MIT */
/* Sleepers on epoll sets: when they are rung. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>

#include <cmocka.h>

#include "fast/wake.c"

#include "one_thread.h"

/* ---- the rest, faked ---- */
struct tas_epset *tas__epsets[TAS_EP_MAX];
struct tas_proc *tas__procs[TAS_PROC_MAX];

struct tas_core tas_cores[TAS_CORES_MAX];
_Thread_local struct tas_core *tas_this;
static unsigned rung;

bool tas__set_dead(const struct tas_set *s)
{
	(void)s;
	return false;
}

bool tas__ring(uid_t uid, int efd)
{
	(void)uid, (void)efd;
	rung++;
	return true;
}

void tas__set_condemn(struct tas_set *s)
{
	(void)s;
}

uint32_t tas__accept_news(struct tas_sock *s)
{
	(void)s;
	return 1;
}

void tas__bridge_wake(struct tas_bridge *b)
{
	(void)b;
}

/* ---- */
static struct tas_set memory;
static struct tas_ep_memory m[3];
static struct tas_epset set[3];
static struct tas_sock sock;
static struct tas_block block;
static struct tas_core *c;

static int setup(void **state)
{
	(void)state;
	c = tas_this = &tas_cores[0];
	*c = (struct tas_core){ .now = 1000000 };
	rung = 0;
	sock.base = (struct tas_sock_base){ .id = 70, .set = &memory, .b = &block };
	for (uint32_t i = 0; i < 3; i++) {
		set[i] = (struct tas_epset){ .index = i, .m = &m[i], .n_sets = 1, .set = { &memory } };
		atomic_store(&m[i].head.sleeping, 0);
		atomic_store(&m[i].head.word[1], 0);
		tas__epsets[i] = &set[i];
	}
	return 0;
}

static bool marked(int i)
{
	return atomic_load(&m[i].head.word[1]) == 1ull << 6;
}

static void of_a_few_packets_a_sleeper_hears_at_once(void **state)
{
	(void)state;
	c->burst = BURST - 1;
	assert_false(wake_epset(&sock, &set[0], true)); /* nobody sleeps */
	assert_true(marked(0));
	assert_int_equal(rung, 0);
	atomic_store(&m[0].head.sleeping, 1);
	assert_true(wake_epset(&sock, &set[0], true));
	assert_int_equal(rung, 1);
	assert_int_equal(atomic_load(&m[0].head.sleeping), 0);
	assert_int_equal(c->counters[TAS_CTR_app_wakeups], 1);
}

static void of_a_burst_when_it_is_over(void **state)
{
	(void)state;
	c->burst = BURST;
	for (int i = 0; i < 3; i++)
		atomic_store(&m[i].head.sleeping, 1);
	for (int k = 0; k < 2; k++)
		for (int i = 0; i < 2; i++)
			assert_true(wake_epset(&sock, &set[i], true));
	assert_true(marked(0) && marked(1));
	assert_true(wake_epset(&sock, &set[2], false)); /* one of several who would do */
	assert_int_equal(rung, 1);
	tas_core_ring(c);
	assert_int_equal(rung, 1);
	assert_int_equal(atomic_load(&m[0].head.sleeping), 1);
	c->burst = 1;
	tas_core_ring(c);
	assert_int_equal(rung, 3);
	assert_int_equal(c->rings.n, 0);
	tas_core_ring(c);
	assert_int_equal(rung, 3);
}

static void bursts_without_end_hold_nobody_for_long(void **state)
{
	(void)state;
	c->burst = 1000;
	atomic_store(&m[0].head.sleeping, 1);
	assert_true(wake_epset(&sock, &set[0], true));
	c->now += HOLD_NS - 1;
	tas_core_ring(c);
	assert_int_equal(rung, 0);
	c->now += 1;
	tas_core_ring(c);
	assert_int_equal(rung, 1);
}

static void who_went_meanwhile_is_not_rung(void **state)
{
	(void)state;
	c->burst = BURST;
	for (int i = 0; i < 2; i++) {
		atomic_store(&m[i].head.sleeping, 1);
		assert_true(wake_epset(&sock, &set[i], true));
	}
	tas__epsets[0] = NULL;			/* its last holder died */
	atomic_store(&m[1].head.sleeping, 0);	/* a timeout woke it */
	c->burst = 0;
	tas_core_ring(c);
	assert_int_equal(rung, 0);
}

static void more_sets_than_there_is_room_for_are_rung_at_once(void **state)
{
	static struct tas_epset many[9];

	(void)state;
	c->burst = BURST;
	for (uint32_t i = 0; i < 9; i++) {
		many[i] = set[0];
		many[i].index = i;
		tas__epsets[i] = &many[i];
		atomic_store(&m[0].head.sleeping, 1);
		assert_true(wake_epset(&sock, &many[i], true));
		assert_int_equal(rung, i == 8);
	}
	for (uint32_t i = 0; i < 9; i++)
		tas__epsets[i] = NULL;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(of_a_few_packets_a_sleeper_hears_at_once, setup),
		cmocka_unit_test_setup(of_a_burst_when_it_is_over, setup),
		cmocka_unit_test_setup(bursts_without_end_hold_nobody_for_long, setup),
		cmocka_unit_test_setup(who_went_meanwhile_is_not_rung, setup),
		cmocka_unit_test_setup(more_sets_than_there_is_room_for_are_rung_at_once, setup),
	};

	return cmocka_run_group_tests(tests, NULL, NULL);
}
