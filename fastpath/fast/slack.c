/* SPDX-License-Identifier: MIT */
/*
 * Slack: rings of connections that nothing has moved on for a second or two go back, but for a small one to write to.
 *
 * Each core has a list of the sockets that got a ring.  Once a second it is gone through, a few at a time so that nobody waits:
 * who has not moved since the pass before gives back what is empty, and leaves the list when only the least is left.  A core
 * without such sockets has no timer.  What a socket needs again it gets again as the first time: a ring to receive into with the
 * next byte, a larger one to write to when a message does not fit (stream.c).
 */
#include "fast/sock.h"

enum { SLICE = 64 };
static const uint64_t slice_ns = 500 * 1000;
uint64_t tas__slack_pass_ns = 1000 * 1000 * 1000; /* a test is in a hurry */

void tas__slack_add(struct tas_sock *s)
{
	struct tas_stack *k = s->core->stack;

	if (s->slack_pprev)
		return;
	if (!k->slack.head)
		k->slack.at = s->core->now + tas__slack_pass_ns;
	s->slack_next = NULL;
	s->slack_pprev = k->slack.tail;
	*k->slack.tail = s;
	k->slack.tail = &s->slack_next;
	k->slack.n++;
}

void tas__slack_del(struct tas_sock *s)
{
	struct tas_stack *k = s->core->stack;

	if (!s->slack_pprev)
		return;
	*s->slack_pprev = s->slack_next;
	if (s->slack_next)
		s->slack_next->slack_pprev = s->slack_pprev;
	else
		k->slack.tail = s->slack_pprev;
	s->slack_pprev = NULL;
	k->slack.n--;
}

/* True: there is nothing left that it could give. */
static bool give(struct tas_sock *s)
{
	const struct tas_block *b = s->base.b;
	uint64_t mark;
	bool rx;

	if (!b || s->dead || s->base.closed || s->bridge)
		return true;
	mark = atomic_load_explicit(&b->a.tx_written, memory_order_relaxed) +
	       atomic_load_explicit(&b->s.rx_delivered, memory_order_relaxed);
	if (mark != s->slack_mark) {
		s->slack_mark = mark;
		return false;
	}
	/* who has one of its locks uses it; a direct connection becomes one again when it is used */
	if (tas__is_direct(s) && tas__direct_end(s))
		return false;
	rx = tas__rx_give(s);
	return tas__tx_give(s) && rx;
}

void tas__slack_run(struct tas_core *c)
{
	struct tas_stack *k = c->stack;

	if (!k->slack.head || c->now < k->slack.at)
		return;
	if (!k->slack.pass || k->slack.pass > k->slack.n)
		k->slack.pass = k->slack.n;
	for (unsigned n = 0; n < SLICE && k->slack.pass; n++, k->slack.pass--) {
		struct tas_sock *s = k->slack.head;
		bool done;

		tas__slack_del(s);
		if (k->slack.head)
			__builtin_prefetch(k->slack.head->base.b);
		done = give(s);
		/* behind all others; what it got meanwhile put it there */
		if (done)
			tas__slack_del(s);
		else
			tas__slack_add(s);
	}
	k->slack.at = c->now + (k->slack.pass ? slice_ns : tas__slack_pass_ns);
}

uint64_t tas__slack_next(const struct tas_core *c)
{
	return c->stack->slack.head ? c->stack->slack.at : UINT64_MAX;
}
