/* SPDX-License-Identifier: MIT */
/* How long somebody looks before sleeping, beside the service and elsewhere. */
#include <sched.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stddef.h>
#include <stdint.h>
#include <stdlib.h>

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

/* Most looks of some waits: one of them may meet others' work, which ends a wait as well. */
static unsigned looks(void)
{
	unsigned most = 0;

	for (int i = 0; i < 200; i++) {
		struct tas_spin s = { 0 };
		unsigned n = 0;

		while (tas__spin(ss, &s, tas__tsc()))
			n++;
		most = n > most ? n : most;
	}
	return most;
}

static void test_elsewhere_it_looks_for_a_while(void **state)
{
	(void)state;
	ss->r->cpu = (uint32_t)sched_getcpu() + 1;
	assert_true(looks() > 2);
}

static void test_beside_a_service_that_polls_it_looks_twice(void **state)
{
	(void)state;
	ss->r->cpu = (uint32_t)sched_getcpu();
	assert_int_equal(looks(), 2);
}

static void test_beside_a_service_that_sleeps_it_looks_for_a_while(void **state)
{
	(void)state;
	ss->r->cpu = (uint32_t)sched_getcpu();
	ss->r->core[0].need_wakeup = 1;
	assert_true(looks() > 2);
	ss->r->core[0].need_wakeup = 0;
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(test_elsewhere_it_looks_for_a_while),
		cmocka_unit_test(test_beside_a_service_that_polls_it_looks_twice),
		cmocka_unit_test(test_beside_a_service_that_sleeps_it_looks_for_a_while),
	};

	return cmocka_run_group_tests(tests, set_up, tear_down);
}
