/* SPDX-License-Identifier: MIT */
/*
 * What to do in a round without work, on a machine whose processors are shared with the applications we serve.
 *
 * Polling costs the application its time slice if it sits on our CPU; sleeping costs a wake of 10 to 40 µs.  So: yield.  A
 * yield that comes back in under 1 µs found nobody else: spin about 1.5 µs and try again.  A longer one let somebody
 * work, probably for us: yield again.  One of over 300 µs met a thread that does not cooperate: sleep at once, and for
 * 2 ms (doubling to 100 ms while it goes on) do not poll at all, so that the scheduler sees us as a thread that waits.
 * After the polling interval without news: sleep.
 */
#include <sched.h>

#include "service/edge.h"

static const uint64_t alone = 1000, spin = 1500, hog = 300000, hold_min = 2000000, hold_max = 100000000;

bool tas__idle(struct tas_idle *i, uint64_t now, uint64_t poll)
{
	uint64_t took;

	if (now - i->last_work >= poll || now < i->held_until)
		return false;
	if (now < i->next_yield)
		return true;
	sched_yield();
	took = tas__clock() - now;
	if (took < alone) {
		i->next_yield = now + took + spin;
	} else if (took > hog) {
		/* hogs met in a row, not minutes apart */
		i->hold = i->hold && now - i->held_until < 2 * hold_max ? i->hold * 2 : hold_min;
		if (i->hold > hold_max)
			i->hold = hold_max;
		i->held_until = now + took + i->hold;
		return false;
	}
	return true;
}
