/* SPDX-License-Identifier: MIT */
/*
 * Timers: one binary heap per core (tas_stack.timers), one entry per socket.
 *
 * Deadlines move with nearly every segment, mostly into the future.  So an entry is only moved when its deadline comes nearer;
 * one that fires too early looks again and goes back.
 */
#include <stdlib.h>

#include "fast/sock.h"

static void place(struct tas_stack *k, uint32_t i, struct tas_sock *s)
{
	k->timers.at[i] = s;
	s->heap_at = i + 1;
}

static void sift_up(struct tas_stack *k, uint32_t i)
{
	struct tas_sock *s = k->timers.at[i];

	while (i) {
		uint32_t parent = (i - 1) / 2;

		if (k->timers.at[parent]->heap_key <= s->heap_key)
			break;
		place(k, i, k->timers.at[parent]);
		i = parent;
	}
	place(k, i, s);
}

static void sift_down(struct tas_stack *k, uint32_t i)
{
	struct tas_sock *s = k->timers.at[i];

	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child >= k->timers.n)
			break;
		if (child + 1 < k->timers.n && k->timers.at[child + 1]->heap_key < k->timers.at[child]->heap_key)
			child++;
		if (k->timers.at[child]->heap_key >= s->heap_key)
			break;
		place(k, i, k->timers.at[child]);
		i = child;
	}
	place(k, i, s);
}

void tas__timer_del(struct tas_sock *s)
{
	struct tas_stack *k = s->core->stack;
	uint32_t i = s->heap_at - 1;
	struct tas_sock *last;

	if (!s->heap_at)
		return;
	s->heap_at = 0;
	last = k->timers.at[--k->timers.n];
	if (last == s)
		return;
	place(k, i, last);
	sift_up(k, i);
	sift_down(k, last->heap_at - 1);
}

void tas__timer_set(struct tas_sock *s, uint64_t when)
{
	struct tas_stack *k = s->core->stack;

	if (when == UINT64_MAX) /* an armed entry fires, finds nothing due and stays away */
		return;
	if (s->heap_at) {
		if (when < s->heap_key) {
			s->heap_key = when;
			sift_up(k, s->heap_at - 1);
		}
		return;
	}
	if (k->timers.n == k->timers.room) {
		uint32_t room = k->timers.room ? 2 * k->timers.room : 256;
		struct tas_sock **at = realloc(k->timers.at, room * sizeof *at);

		if (!at) {
			tas_warn("no memory for timers");
			return;
		}
		k->timers.at = at;
		k->timers.room = room;
	}
	s->heap_key = when;
	place(k, k->timers.n, s);
	sift_up(k, k->timers.n++);
}

uint64_t tas__timer_next(const struct tas_core *c)
{
	const struct tas_stack *k = c->stack;

	return k->timers.n ? k->timers.at[0]->heap_key : UINT64_MAX;
}

/* A bounded number of due timers per round, so that packets are not kept waiting. */
void tas__timers_run(struct tas_core *c, unsigned *work)
{
	struct tas_stack *k = c->stack;

	for (int budget = 256; budget && k->timers.n && k->timers.at[0]->heap_key <= c->now; budget--) {
		struct tas_sock *s = k->timers.at[0];

		tas__timer_del(s);
		(*work)++;
		switch (s->base.kind) {
		case TAS_K_LISTENER:
			tas__listener_timer(s);
			break;
		case TAS_K_LINK:
			tas__wire_timer(s);
			break;
		case TAS_K_LOCAL:
			tas__local_timer(s);
			break;
		}
	}
}
