/* SPDX-License-Identifier: MIT */
/* When a fast-path thread more or less is at work, given what the cores have done and what processors had to do. */
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <string.h>

#include <cmocka.h>

#include "service/scale.c"

enum { WINDOW = 100 * 1000 * 1000 };
struct tas_core tas_cores[TAS_CORES_MAX];
unsigned tas_n_cores = 4;
static unsigned flows_each;
static uint64_t now, idle_ns;

unsigned tas_core_flows(const struct tas_core *c)
{
	(void)c;
	return flows_each;
}

void tas__seat_allowed(cpu_set_t *may)
{
	CPU_ZERO(may);
}

static uint64_t idle(void)
{
	return idle_ns;
}

/* One window: how much of it the first `running` cores were at work, and how many processors were idle, in percent. */
static unsigned window(unsigned running, unsigned work, unsigned spare, unsigned segments)
{
	now += WINDOW;
	idle_ns += (uint64_t)WINDOW * spare / 100;
	for (unsigned i = 0; i < running; i++) {
		tas_cores[i].counters[TAS_CTR_work_ns] += (uint64_t)WINDOW * work / 100;
		tas_cores[i].counters[TAS_CTR_tcp_in] += segments;
	}
	return tas__scale(now, running, idle);
}

static int setup(void **state)
{
	(void)state;
	memset(tas_cores, 0, sizeof tas_cores);
	memset(&last, 0, sizeof last);
	quiet = 0;
	now = idle_ns = 1000000000;
	flows_each = 16;
	return 0;
}

static void load_and_an_idle_processor_bring_one_more(void **state)
{
	(void)state;
	assert_int_equal(window(1, 95, 100, 5000), 1); /* nothing to compare with */
	assert_int_equal(window(1, 95, 100, 5000), 1); /* the first busy one: the processors are looked at */
	assert_int_equal(window(1, 95, 100, 5000), 2);
	assert_int_equal(window(4, 95, 100, 5000), 4); /* no more than allowed */
}

static void without_an_idle_processor_none_comes(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(window(1, 99, 40, 5000), 1);
}

static void one_that_is_half_busy_needs_no_other(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 50; i++)
		assert_int_equal(window(1, 50, 150, 5000), 1);
}

static void local_traffic_and_a_single_connection_cannot_be_shared(void **state)
{
	(void)state;
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(window(1, 99, 100, 3), 1);
	setup(state);
	flows_each = 0;
	for (unsigned i = 0; i < 10; i++)
		assert_int_equal(window(1, 99, 100, 5000), 1);
}

static void after_a_second_of_little_work_one_goes(void **state)
{
	unsigned windows = 0;

	(void)state;
	window(3, 95, 100, 5000);
	while (window(3, 10, 100, 100) == 3)
		windows++;
	assert_in_range(windows, 8, 10);
	for (unsigned i = 0; i < 50; i++) /* two that are busy stay */
		assert_int_equal(window(2, 70, 0, 5000), 2);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test_setup(load_and_an_idle_processor_bring_one_more, setup),
		cmocka_unit_test_setup(without_an_idle_processor_none_comes, setup),
		cmocka_unit_test_setup(one_that_is_half_busy_needs_no_other, setup),
		cmocka_unit_test_setup(local_traffic_and_a_single_connection_cannot_be_shared, setup),
		cmocka_unit_test_setup(after_a_second_of_little_work_one_goes, setup),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
