/* SPDX-License-Identifier: MIT */
/*
 * The processor that core 0 keeps while a tap is busy.
 *
 * On a tap each packet is a system call, and the service is the busiest of those who take part.  When it sleeps or yields for a moment, the
 * scheduler may put it beside a program that it serves: each then waits for the other, with a processor idle, until the next balancing.  So
 * who has a processor to itself stays there (sched_setaffinity) as long as that is so, and the programs find the others.
 *
 * Looked at a hundred times a second.  Kept: when packets have come for some windows, in which we worked most of the time (one
 * connection that waits for each answer is served as well wherever we are) and hardly waited for a processor
 * (/proc/thread-self/schedstat).  Given back: after a second without many packets, asleep or not; when we had to wait, or a yield met
 * a thread that does not cooperate (idle.c): somebody else is here, and we could not go elsewhere; and for a second thread of our
 * own.  After trouble it is not tried again for a while, which doubles.
 *
 * The set that was allowed before is given back as it was, and never left.  Whoever changes ours meanwhile (taskset) means it: then it is
 * left alone for good.
 */
#include <fcntl.h>
#include <sched.h>
#include <stdlib.h>
#include <unistd.h>

#include "service/threads.h"

enum { BUSY = 50 /* packets in a window */, CALM = 3 /* windows */, CROWDED = 2 };
enum { WORKED = 60, WAITED = 15 /* percent of a window; who shares a processor with a thread that computes waits for half of it */ };
static const uint64_t window = 10000000, silent = 1000000000, pause_min = 100000000, pause_max = 10000000000;

static struct {
	cpu_set_t own, before; /* while kept: what we set, and what was allowed until then */
	bool kept, left_alone;
	int schedstat;         /* 0: not opened yet; -1: this kernel does not say */
	uint64_t at, packets, worked, waited; /* of the last window's end */
	uint64_t last_busy, since;
	uint64_t not_before, pause;
	unsigned calm, crowded; /* windows in a row */
} seat;

/* How long this thread has been ready to run and did not, ns.  False: not known. */
static bool waited(uint64_t *ns)
{
	char text[96], *end;
	ssize_t n;

	if (!seat.schedstat)
		seat.schedstat = open("/proc/thread-self/schedstat", O_RDONLY | O_CLOEXEC);
	n = seat.schedstat > 0 ? pread(seat.schedstat, text, sizeof(text) - 1, 0) : -1;
	if (n <= 0)
		return false;
	text[n] = 0;
	strtoull(text, &end, 10);
	*ns = strtoull(end, NULL, 10);
	return true;
}

static bool set_by_others(void)
{
	cpu_set_t now;

	return sched_getaffinity(0, sizeof(now), &now) || !CPU_EQUAL(&now, &seat.own);
}

static void give_back(void)
{
	if (set_by_others())
		seat.left_alone = true;
	else
		sched_setaffinity(0, sizeof(seat.before), &seat.before);
	seat.kept = false;
	seat.calm = seat.crowded = 0;
}

static void keep(uint64_t now)
{
	int cpu = sched_getcpu();

	if (cpu < 0 || sched_getaffinity(0, sizeof(seat.before), &seat.before) || CPU_COUNT(&seat.before) < 2)
		return;
	CPU_ZERO(&seat.own);
	CPU_SET((unsigned)cpu, &seat.own);
	seat.kept = !sched_setaffinity(0, sizeof(seat.own), &seat.own);
	seat.since = now;
}

static void in_trouble(uint64_t now)
{
	if (now - seat.since >= pause_max)
		seat.pause = 0; /* it went well for long */
	seat.pause = !seat.pause ? pause_min : seat.pause * 2 < pause_max ? seat.pause * 2 : pause_max;
	seat.not_before = now + seat.pause;
	give_back();
}

static void judge(uint64_t now, bool packets, bool busy, bool crowded, bool hog)
{
	if (packets)
		seat.last_busy = now;
	seat.crowded = crowded ? seat.crowded + 1 : 0;
	seat.calm = packets && busy && !crowded && !hog ? seat.calm + 1 : 0;
	if (!seat.kept && seat.calm >= CALM && now >= seat.not_before)
		keep(now);
	else if (seat.kept && (hog || seat.crowded >= CROWDED))
		in_trouble(now);
	else if (seat.kept && (set_by_others() || now - seat.last_busy >= silent))
		give_back();
}

void tas__seat_look(const struct tas_core *c, bool hog)
{
	uint64_t now = c->now, packets = c->counters[TAS_CTR_rx_packets] + c->counters[TAS_CTR_tx_packets];
	uint64_t worked = c->counters[TAS_CTR_work_ns], w, took;

	if ((now < seat.at + window && !(hog && seat.kept)) || seat.left_alone || tas_config.link != TAS_LINK_TAP ||
	    tas__threads_running() > 1 || !waited(&w))
		return;
	took = now - seat.at;
	if (seat.at && took)
		judge(now, (packets - seat.packets) * window >= BUSY * took, (worked - seat.worked) * 100 >= WORKED * took,
		      (w - seat.waited) * 100 >= WAITED * took, hog);
	seat.at = now;
	seat.worked = worked;
	seat.packets = packets;
	seat.waited = w;
}

uint64_t tas__seat_deadline(void)
{
	return seat.kept ? seat.last_busy + silent : UINT64_MAX;
}

void tas__seat_leave(void)
{
	if (seat.kept)
		give_back();
}

void tas__seat_allowed(cpu_set_t *may)
{
	CPU_ZERO(may);
	if (seat.kept && !set_by_others())
		*may = seat.before;
	else
		sched_getaffinity(0, sizeof(*may), may);
}
