/* SPDX-License-Identifier: MIT */
/* How long somebody looks before sleeping, beside the service and elsewhere. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include <cmocka.h>

#include "lowlevel/low.h"

static struct tas_session *ss;

static int set_up(void **state)
{
	cpu_set_t one;

	(void)state;
	CPU_ZERO(&one);
	CPU_SET(sched_getcpu(), &one);
	ss = calloc(1, sizeof(*ss));
	ss->r = calloc(1, sizeof(*ss->r));
	ss->r->h.poll_us = 1000000; /* the client's own limit holds */
	return sched_setaffinity(0, sizeof(one), &one);
}

static int tear_down(void **state)
{
	(void)state;
	free(ss->r);
	free(ss);
	return 0;
}

/* Most looks of some waits.  One of them may meet others' work, which ends it, and then nobody spins for a while: as many waits as it takes. */
static unsigned looks(bool gives_way)
{
	unsigned most = 0;

	for (int i = 0; i < 20000 && (i < 100 || most < 2) && most <= 2; i++) {
		struct tas_spin s = { .gives_way = gives_way };
		unsigned n = 0;

		while (tas__spin(ss, &s, tas__tsc()))
			n++;
		most = n > most ? n : most;
		if (!n)
			usleep(1000);
	}
	return most;
}

/* More than twice, at last. */
static bool spins(bool gives_way)
{
	for (int i = 0; i < 100; i++)
		if (looks(gives_way) > 2)
			return true;
	return false;
}

static void test_elsewhere_it_looks_for_a_while(void **state)
{
	(void)state;
	ss->r->cpu = (uint32_t)sched_getcpu() + 1;
	assert_true(spins(true));
}

static void test_beside_a_service_that_polls_it_looks_twice(void **state)
{
	(void)state;
	ss->r->cpu = (uint32_t)sched_getcpu();
	assert_int_equal(looks(true), 2);
}

static void test_the_reader_of_a_stream_looks_for_a_while(void **state)
{
	(void)state;
	ss->r->cpu = (uint32_t)sched_getcpu();
	assert_true(spins(false));
}

static void test_beside_a_service_that_sleeps_it_looks_for_a_while(void **state)
{
	(void)state;
	ss->r->cpu = (uint32_t)sched_getcpu();
	ss->r->core[0].need_wakeup = 1;
	assert_true(spins(true));
	ss->r->core[0].need_wakeup = 0;
}

/* One wait; did it look at all?  Its end: nothing came, or something did at the first look. */
static bool looked(bool comes)
{
	struct tas_spin s = { 0 };
	bool any = tas__spin(ss, &s, tas__tsc());

	while (any && !comes && tas__spin(ss, &s, tas__tsc()))
		;
	return any;
}

/* Others' work ends a wait, too, and then nobody looks for a while: as many tries as it takes. */
static bool waits_are(const char *want)
{
	char got[64] = { 0 };

	for (size_t i = 0; want[i]; i++)
		got[i] = looked(false) ? '1' : '0';
	return !strcmp(got, want);
}

static void test_who_looks_in_vain_looks_less_and_less_until_it_helps(void **state)
{
	bool less = false, again = false;

	(void)state;
	ss->r->cpu = (uint32_t)sched_getcpu() + 1;
	for (int i = 0; i < 200 && !(less && again); i++) {
		for (int k = 0; k < 200 && !looked(true); k++)
			usleep(1000);
		less = waits_are("111110100100001");
		for (int k = 0; k < 16 && !looked(true); k++)
			;
		again = waits_are("1111");
	}
	assert_true(less && again);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_elsewhere_it_looks_for_a_while),
		cmocka_unit_test(test_beside_a_service_that_polls_it_looks_twice),
		cmocka_unit_test(test_the_reader_of_a_stream_looks_for_a_while),
		cmocka_unit_test(test_beside_a_service_that_sleeps_it_looks_for_a_while),
		cmocka_unit_test(test_who_looks_in_vain_looks_less_and_less_until_it_helps),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
