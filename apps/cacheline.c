/* SPDX-License-Identifier: MIT */
/* cacheline: the round trip of one cache line between CPU 0 and CPU 1, in nanoseconds: tells where the host has put them now. */
#include <pthread.h>
#include <sched.h>
#include <stdatomic.h>
#include <stdio.h>
#include <time.h>

enum { ROUNDS = 200000 };

static _Alignas(128) _Atomic unsigned turn;

static int pin(int cpu)
{
	cpu_set_t s;

	CPU_ZERO(&s);
	CPU_SET(cpu, &s);
	return sched_setaffinity(0, sizeof s, &s);
}

static void *answer(void *p)
{
	(void)p;
	if (pin(1))
		return (void *)1;
	for (unsigned i = 0; i < ROUNDS; i++) {
		while (atomic_load_explicit(&turn, memory_order_acquire) != 2 * i + 1)
			;
		atomic_store_explicit(&turn, 2 * i + 2, memory_order_release);
	}
	return NULL;
}

int main(void)
{
	struct timespec a, b;
	pthread_t t;

	if (pin(0) || pthread_create(&t, NULL, answer, NULL)) {
		perror("cacheline");
		return 1;
	}
	clock_gettime(CLOCK_MONOTONIC, &a);
	for (unsigned i = 0; i < ROUNDS; i++) {
		atomic_store_explicit(&turn, 2 * i + 1, memory_order_release);
		while (atomic_load_explicit(&turn, memory_order_acquire) != 2 * i + 2)
			;
	}
	clock_gettime(CLOCK_MONOTONIC, &b);
	pthread_join(t, NULL);
	printf("%.0f\n", ((double)(b.tv_sec - a.tv_sec) * 1e9 + (double)(b.tv_nsec - a.tv_nsec)) / ROUNDS);
	return 0;
}
