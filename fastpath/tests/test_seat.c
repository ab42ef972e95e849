/* SPDX-License-Identifier: MIT */
/* When core 0 keeps the processor it is on, and when it gives it back. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdio.h>
#include <string.h>
#include <fcntl.h>
#include <unistd.h>

#include <cmocka.h>

static cpu_set_t mask;
static unsigned here = 1, sets;
static uint64_t ran, delayed;
static unsigned n_threads;

static int fake_get(pid_t pid, size_t size, cpu_set_t *to)
{
	(void)pid, (void)size;
	*to = mask;
	return 0;
}

static int fake_set(pid_t pid, size_t size, const cpu_set_t *from)
{
	(void)pid, (void)size;
	mask = *from;
	sets++;
	return 0;
}

static int fake_cpu(void)
{
	return (int)here;
}

static int fake_open(const char *path, int flags)
{
	(void)path, (void)flags;
	return 1000;
}

static ssize_t fake_pread(int fd, void *to, size_t size, off_t at)
{
	(void)fd, (void)at;
	return snprintf(to, size, "%llu %llu 7\n", (unsigned long long)ran, (unsigned long long)delayed);
}
#define sched_getaffinity fake_get
#define sched_setaffinity fake_set
#define sched_getcpu fake_cpu
#define open fake_open
#define pread fake_pread
#include "service/seat.c"

struct tas_config tas_config;
static struct tas_core core;

unsigned tas__threads_running(void)
{
	return n_threads;
}

enum { MS = 1000 * 1000 };

static unsigned worked = 90; /* percent */

/* So many windows of 10 ms, each with packets and a share of waiting in percent. */
static void pass(unsigned windows, unsigned packets, unsigned waiting, bool hog)
{
	while (windows--) {
		core.now += window;
		core.counters[TAS_CTR_rx_packets] += packets;
		core.counters[TAS_CTR_work_ns] += window * worked / 100;
		delayed += window * waiting / 100;
		ran += window;
		tas__seat_look(&core, hog);
	}
}

static void allow(unsigned first, unsigned last)
{
	CPU_ZERO(&mask);
	for (unsigned i = first; i <= last; i++)
		CPU_SET(i, &mask);
}

static bool allowed(unsigned first, unsigned last)
{
	return CPU_COUNT(&mask) == (int)(last - first + 1) && CPU_ISSET(first, &mask) && CPU_ISSET(last, &mask);
}

static int setup(void **state)
{
	(void)state;
	memset(&seat, 0, sizeof(seat));
	memset(&core, 0, sizeof(core));
	core.now = 1000000ull * MS;
	tas_config.link = TAS_LINK_TAP;
	n_threads = 1;
	here = 1;
	sets = 0;
	allow(0, 3);
	pass(1, 0, 0, false); /* the first has nothing to be compared with */
	return 0;
}

static void while_packets_come_it_stays_where_it_is(void **state)
{
	(void)state;
	pass(2, 1000, 0, false);
	assert_true(allowed(0, 3));
	pass(1, 1000, 0, false);
	assert_true(allowed(1, 1));
	pass(1000, 1000, 5, false);
	assert_true(allowed(1, 1));
	pass(1000, 1000, 14, false); /* a program that we serve had to run here */
	assert_true(allowed(1, 1));
	assert_int_equal(sets, 1);
}

static void without_packets_it_does_not(void **state)
{
	(void)state;
	pass(1000, 49, 0, false);
	assert_int_equal(sets, 0);
	worked = 59; /* nor with little to do for them */
	pass(1000, 1000, 0, false);
	assert_int_equal(sets, 0);
	worked = 90;
	tas_config.link = TAS_LINK_MEMIF; /* whose packets are no system calls */
	pass(1000, 1000, 0, false);
	assert_int_equal(sets, 0);
	tas_config.link = TAS_LINK_TAP;
	n_threads = 2;
	pass(1000, 1000, 0, false);
	assert_int_equal(sets, 0);
	n_threads = 1;
	allow(1, 1); /* there is nothing to choose */
	pass(1000, 1000, 0, false);
	assert_int_equal(sets, 0);
}

static void after_a_second_of_silence_it_may_go_anywhere_again(void **state)
{
	(void)state;
	allow(1, 2);
	pass(3, 1000, 0, false);
	assert_true(allowed(1, 1));
	assert_true(tas__seat_deadline() == core.now + 1000 * MS);
	pass(99, 10, 0, false);
	assert_true(allowed(1, 1));
	pass(1, 10, 0, false);
	assert_true(allowed(1, 2)); /* not more than before */
	assert_true(tas__seat_deadline() == UINT64_MAX);
	pass(3, 1000, 0, false);
	assert_true(allowed(1, 1)); /* silence is no trouble: at once again */
	core.now += 1000 * MS;      /* all of it asleep */
	tas__seat_look(&core, false);
	assert_true(allowed(1, 2));
}

static void whoever_else_wants_the_processor_gets_it(void **state)
{
	unsigned pauses[8], n = 0;

	(void)state;
	pass(3, 1000, 0, false);
	pass(1, 1000, 50, false);
	assert_true(allowed(1, 1)); /* once may be chance */
	pass(1, 1000, 0, false);
	pass(2, 1000, 50, false);
	assert_true(allowed(0, 3));
	for (n = 0; n < 8; n++) { /* not again at once, and later each time */
		for (pauses[n] = 0; !seat.kept; pauses[n]++)
			pass(1, 1000, 0, false);
		pass(2, 1000, 50, false);
		assert_false(seat.kept);
	}
	assert_in_range(pauses[0], 9, 12);
	assert_in_range(pauses[1], 19, 22);
	assert_in_range(pauses[7], 999, 1002); /* 10 s at most */
	pass(2000, 1000, 20, false);
	assert_true(allowed(0, 3)); /* never beside somebody */
}

static void a_thread_that_does_not_cooperate_is_left_at_once(void **state)
{
	(void)state;
	pass(3, 1000, 0, false);
	core.now += MS; /* within a window */
	tas__seat_look(&core, true);
	assert_true(allowed(0, 3));
	pass(100, 1000, 0, true);
	assert_true(allowed(0, 3));
	pass(3, 1000, 0, false);
	assert_true(allowed(1, 1));
}

static void who_sets_it_from_outside_means_it(void **state)
{
	(void)state;
	pass(3, 1000, 0, false);
	assert_true(allowed(1, 1));
	allow(2, 3);
	pass(1, 1000, 0, false);
	assert_true(allowed(2, 3));
	pass(5000, 1000, 0, false);
	pass(5000, 0, 0, false);
	assert_true(allowed(2, 3));
	assert_int_equal(sets, 1);
}

static void other_threads_are_not_bound_by_it(void **state)
{
	cpu_set_t may;

	(void)state;
	pass(3, 1000, 0, false);
	tas__seat_allowed(&may);
	assert_int_equal(CPU_COUNT(&may), 4);
	assert_true(allowed(1, 1));
	tas__seat_leave(); /* before one is made */
	assert_true(allowed(0, 3));
}

#define TEST(f) cmocka_unit_test_setup(f, setup)
int main(void)
{
	const struct CMUnitTest tests[] = {
		TEST(while_packets_come_it_stays_where_it_is),
		TEST(without_packets_it_does_not),
		TEST(after_a_second_of_silence_it_may_go_anywhere_again),
		TEST(whoever_else_wants_the_processor_gets_it),
		TEST(a_thread_that_does_not_cooperate_is_left_at_once),
		TEST(who_sets_it_from_outside_means_it),
		TEST(other_threads_are_not_bound_by_it),
	};
	return cmocka_run_group_tests(tests, NULL, NULL);
}
