/* SPDX-License-Identifier: MIT */
/*
 * Timers: one binary heap per core, one entry per socket.
 *
 * Deadlines move with nearly every segment, mostly into the future.  So an entry is only moved when its deadline comes nearer;
 * one that fires too early looks again and goes back.
 */
#include <stdlib.h>

#include "fast/sock.h"

struct heap {
	struct tas_sock **at;
	uint32_t n, room;
};

static struct heap heaps[TAS_CORES_MAX];

static void place(struct heap *h, uint32_t i, struct tas_sock *s)
{
	h->at[i] = s;
	s->heap_at = i + 1;
}

static void sift_up(struct heap *h, uint32_t i)
{
	struct tas_sock *s = h->at[i];

	while (i) {
		uint32_t parent = (i - 1) / 2;

		if (h->at[parent]->heap_key <= s->heap_key)
			break;
		place(h, i, h->at[parent]);
		i = parent;
	}
	place(h, i, s);
}

static void sift_down(struct heap *h, uint32_t i)
{
	struct tas_sock *s = h->at[i];

	for (;;) {
		uint32_t child = 2 * i + 1;

		if (child >= h->n)
			break;
		if (child + 1 < h->n && h->at[child + 1]->heap_key < h->at[child]->heap_key)
			child++;
		if (h->at[child]->heap_key >= s->heap_key)
			break;
		place(h, i, h->at[child]);
		i = child;
	}
	place(h, i, s);
}

void tas__timer_del(struct tas_sock *s)
{
	struct heap *h = &heaps[s->core->index];
	uint32_t i = s->heap_at - 1;
	struct tas_sock *last;

	if (!s->heap_at)
		return;
	s->heap_at = 0;
	last = h->at[--h->n];
	if (last == s)
		return;
	place(h, i, last);
	sift_up(h, i);
	sift_down(h, last->heap_at - 1);
}

void tas__timer_set(struct tas_sock *s, uint64_t when)
{
	struct heap *h = &heaps[s->core->index];

	if (when == UINT64_MAX) /* an armed entry fires, finds nothing due and stays away */
		return;
	if (s->heap_at) {
		if (when < s->heap_key) {
			s->heap_key = when;
			sift_up(h, s->heap_at - 1);
		}
		return;
	}
	if (h->n == h->room) {
		uint32_t room = h->room ? 2 * h->room : 256;
		struct tas_sock **at = realloc(h->at, room * sizeof *at);

		if (!at) {
			tas_warn("no memory for timers");
			return;
		}
		h->at = at;
		h->room = room;
	}
	s->heap_key = when;
	place(h, h->n, s);
	sift_up(h, h->n++);
}

uint64_t tas__timer_next(const struct tas_core *c)
{
	const struct heap *h = &heaps[c->index];

	return h->n ? h->at[0]->heap_key : UINT64_MAX;
}

/* A bounded number of due timers per round, so that packets are not kept waiting. */
void tas__timers_run(struct tas_core *c, unsigned *work)
{
	struct heap *h = &heaps[c->index];

	for (int budget = 256; budget && h->n && h->at[0]->heap_key <= c->now; budget--) {
		struct tas_sock *s = h->at[0];

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

void tas__timers_exit(void)
{
	for (int i = 0; i < TAS_CORES_MAX; i++) {
		free(heaps[i].at);
		heaps[i] = (struct heap){ 0 };
	}
}
