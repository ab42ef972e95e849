/* SPDX-License-Identifier: MIT */
/*
 * How many fast-path threads?  Decided ten times a second.
 *
 * One more, when a thread has been at work for most of the last window, there are connections over the link to share, and a
 * processor has had nothing to do for most of the same window: a thread that only takes time slices from applications makes
 * everything slower.  One less, when all that is done would have left one of them idle half of the time, for a second.
 */
#include <sched.h>
#include <stdio.h>
#include <unistd.h>

#include "service/threads.h"

enum { QUIET_WINDOWS = 10, SEGMENTS = 500 /* in a window: what the threads could share */ };

struct window {
	uint64_t at, idle, segments, work[TAS_CORES_MAX];
};
static struct window last;
static unsigned quiet;

uint64_t tas__scale_idle_ns(void)
{
	unsigned long long user, nice, sys, idle, wait;
	uint64_t ticks = 0;
	char line[512];
	cpu_set_t may;
	unsigned cpu;
	FILE *f = fopen("/proc/stat", "re");

	if (!f)
		return 0;
	tas__seat_allowed(&may);
	while (fgets(line, sizeof line, f))
		if (sscanf(line, "cpu%u %llu %llu %llu %llu %llu", &cpu, &user, &nice, &sys, &idle, &wait) == 6 && cpu < CPU_SETSIZE &&
		    CPU_ISSET(cpu, &may))
			ticks += idle + wait;
	fclose(f);
	return ticks * (1000000000 / (uint64_t)sysconf(_SC_CLK_TCK));
}

unsigned tas__scale(uint64_t now, unsigned running, uint64_t (*idle_ns)(void))
{
	struct window w = { .at = now };
	uint64_t took = now - last.at, all = 0, most = 0;
	unsigned flows = 0, n = running;
	bool busy;

	for (unsigned i = 0; i < tas_n_cores; i++) {
		uint64_t did;

		w.work[i] = tas_cores[i].counters[TAS_CTR_work_ns];
		w.segments += tas_cores[i].counters[TAS_CTR_tcp_in];
		did = w.work[i] - last.work[i];
		all += did;
		most = did > most ? did : most;
		flows += tas_core_flows(&tas_cores[i]);
	}
	busy = last.at && most * 10 >= took * 8 && w.segments - last.segments > SEGMENTS;
	if (busy)
		w.idle = idle_ns(); /* counts from the first busy window on */
	if (busy && last.idle && running < tas_n_cores && flows > running && (w.idle - last.idle) * 10 >= took * 7)
		n = running + 1;
	quiet = running > 1 && all * 2 <= took * (2 * (running - 1) - 1) ? quiet + 1 : 0;
	if (quiet >= QUIET_WINDOWS)
		n = running - 1;
	if (n != running)
		quiet = 0;
	last = w;
	return n;
}
