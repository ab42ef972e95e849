/* SPDX-License-Identifier: MIT */
/*
 * Who has something to send.  A budget's worth goes per round: packets that come in meanwhile wait in the port's queue, which is not
 * long, and the acknowledgements of what goes out are among them.  Sockets take turns; who has more to send stands at the end again.
 *
 * A port that is full stops only those whose packets go there.  They are held aside, so that a round does not walk over them, and
 * what they would have sent stays in the streams: nothing is lost.
 */
#include "fast/sock.h"

enum {
	PER_SOCKET = 32, /* segments */
	PER_ROUND = 64,
};

void tas__output_soon(struct tas_sock *s)
{
	if (s->out_queued)
		return;
	s->out_queued = true;
	s->out_next = NULL;
	*s->core->stack->out_tail = s;
	s->core->stack->out_tail = &s->out_next;
	s->core->stack->n_out++;
}

void tas__output_forget(struct tas_sock *s)
{
	struct tas_stack *k = s->core->stack;
	struct tas_sock **p;

	if (!s->out_queued)
		return;
	for (p = s->out_held ? &k->held_head : &k->out_head; *p != s; p = &(*p)->out_next)
		;
	*p = s->out_next;
	if (s->out_held && k->held_tail == &s->out_next)
		k->held_tail = p;
	else if (!s->out_held && k->out_tail == &s->out_next)
		k->out_tail = p;
	k->n_out -= !s->out_held;
	s->out_queued = s->out_held = false;
}

/* The port is full: s, which is at the head, waits until it is not. */
static void hold(struct tas_stack *k, struct tas_sock *s)
{
	tas__output_forget(s);
	s->out_queued = s->out_held = true;
	s->out_next = NULL;
	*k->held_tail = s;
	k->held_tail = &s->out_next;
}

/* Who waited goes before the others, in the order in which they came. */
static void let_go(struct tas_stack *k)
{
	for (struct tas_sock *s = k->held_head; s; s = s->out_next) {
		s->out_held = false;
		k->n_out++;
	}
	*k->held_tail = k->out_head;
	if (!k->out_head)
		k->out_tail = k->held_tail;
	k->out_head = k->held_head;
	k->held_head = NULL;
	k->held_tail = &k->held_head;
}

unsigned tas__output_run(struct tas_core *c)
{
	struct tas_stack *k = c->stack;
	unsigned n, spent = 0;

	if (k->held_head && !tas_net_full(c))
		let_go(k);
	n = k->n_out;
	while (n-- && spent < PER_ROUND && k->out_head) {
		struct tas_sock *s = k->out_head;

		if (s->base.kind == TAS_K_LINK && tas_net_full(c)) {
			hold(k, s);
			continue;
		}
		tas__output_forget(s);
		if (s->base.kind == TAS_K_LINK)
			spent += 1 + tas__wire_output(s, PER_SOCKET);
		else
			spent += 1 + tas__local_output(s);
	}
	return spent;
}
