/* SPDX-License-Identifier: MIT */
/*
 * One round of a core: hints of applications, timers, output; and the protocol of going to sleep.
 *
 * Processes that hinted within the last millisecond are looked at every round (`polled`); the others have need_wakeup set and ring
 * their doorbell at the next hint.
 */
#include "fast/sock.h"

enum { POLL_IDLE_NS = 1000 * 1000, HINTS_MAX = 128 };

static struct tas_proc *polled;
static struct tas_sock *out_head, **out_tail = &out_head;

void tas__output_soon(struct tas_sock *s)
{
	if (s->out_queued)
		return;
	s->out_queued = true;
	s->out_next = NULL;
	*out_tail = s;
	out_tail = &s->out_next;
}

void tas__output_forget(struct tas_sock *s)
{
	struct tas_sock **p;

	if (!s->out_queued)
		return;
	for (p = &out_head; *p != s; p = &(*p)->out_next)
		;
	*p = s->out_next;
	if (out_tail == &s->out_next)
		out_tail = p;
	s->out_queued = false;
}

static unsigned output_run(void)
{
	unsigned n = 0;

	/* what queues itself again while we are at it waits for the next round */
	struct tas_sock *s = out_head;

	out_head = NULL;
	out_tail = &out_head;
	while (s) {
		struct tas_sock *next = s->out_next;

		s->out_queued = false;
		/* may free s, never another socket that is queued */
		if (s->base.kind == TAS_K_LINK)
			tas__wire_output(s);
		else
			tas__local_output(s);
		s = next;
		n++;
	}
	return n;
}

static void hint(struct tas_core *c, struct tas_proc *p, uint32_t id)
{
	struct tas_sock_base *b = tas__sock(id, 0);
	struct tas_sock *s;
	int changed;

	tas_count(c, TAS_CTR_app_hints, 1);
	if (!b || b->set != p->set) {
		tas_count(c, TAS_CTR_app_bad_hints, 1);
		return;
	}
	s = tas__of(b);
	if (b->kind == TAS_K_LISTENER) {
		tas__listener_hint(s);
	} else if (!s->dead && !b->closed) {
		changed = tas__app_read(s);
		if (changed < 0) {
			tas__sock_nonsense(s);
			return;
		}
		if (b->kind == TAS_K_LINK)
			tas__wire_hint(s, changed);
		else
			tas__local_hint(s, changed);
		b = tas__sock(id, 0); /* the hint may have ended it */
		if (!b || tas__of(b) != s)
			return;
	}
	if (!tas_claim_test(p->region->claims, id))
		tas__sock_unclaimed(b);
}

unsigned tas__proc_hints(struct tas_core *c, struct tas_proc *p)
{
	uint32_t id[HINTS_MAX];
	uint32_t n = tas_bitmap_drain(&p->region->core[c->index].dirty, id, HINTS_MAX);

	for (uint32_t i = 0; i < n; i++)
		hint(c, p, id[i]);
	if (n)
		p->hinted = c->now;
	tas__wakes_run();
	return n;
}

void tas__proc_poll_start(struct tas_proc *p)
{
	if (p->polled)
		return;
	p->polled = true;
	p->hinted = tas_cores[0].now;
	p->next_polled = polled;
	polled = p;
	atomic_store_explicit(&p->region->core[0].need_wakeup, 0, memory_order_relaxed);
}

void tas__proc_poll_stop(struct tas_proc *p)
{
	struct tas_proc **q;

	if (!p->polled)
		return;
	for (q = &polled; *q != p; q = &(*q)->next_polled)
		;
	*q = p->next_polled;
	p->polled = false;
}

/* Stop looking at processes without recent hints.  They are asked to ring first, then looked at a last time. */
static void retire_idle(struct tas_core *c)
{
	struct tas_proc **q = &polled;

	while (*q) {
		struct tas_proc *p = *q;

		if (c->now - p->hinted < POLL_IDLE_NS) {
			q = &p->next_polled;
			continue;
		}
		/* pairs with the producer's look at need_wakeup after its fetch-or */
		atomic_store_explicit(&p->region->core[c->index].need_wakeup, 1, memory_order_seq_cst);
		if (tas_bitmap_any(&p->region->core[c->index].dirty)) {
			atomic_store_explicit(&p->region->core[c->index].need_wakeup, 0, memory_order_relaxed);
			p->hinted = c->now;
			q = &p->next_polled;
			continue;
		}
		*q = p->next_polled;
		p->polled = false;
	}
}

unsigned tas_core_poll(struct tas_core *c)
{
	static uint64_t last_retire;
	unsigned work = 0;
	struct tas_proc *p, *next;

	tas__wakes_run(); /* of the packets that came before */
	for (p = polled; p; p = next) {
		next = p->next_polled;
		work += tas__proc_hints(c, p);
	}
	if (c->now - last_retire > POLL_IDLE_NS / 4) {
		last_retire = c->now;
		retire_idle(c);
	}
	tas__timers_run(c, &work);
	work += output_run();
	tas__wakes_run();
	return work;
}

uint64_t tas_core_deadline(const struct tas_core *c)
{
	return tas__timer_next(c);
}

bool tas_core_sleep_begin(struct tas_core *c)
{
	struct tas_proc *p;

	tas__wakes_run(); /* of requests handled since the last round */
	for (p = polled; p; p = p->next_polled) {
		atomic_store_explicit(&p->region->core[c->index].need_wakeup, 1, memory_order_seq_cst);
		if (tas_bitmap_any(&p->region->core[c->index].dirty)) {
			tas_core_sleep_end(c);
			return false;
		}
	}
	if (out_head) {
		tas_core_sleep_end(c);
		return false;
	}
	tas_count(c, TAS_CTR_sleeps, 1);
	return true;
}

void tas_core_sleep_end(struct tas_core *c)
{
	for (struct tas_proc *p = polled; p; p = p->next_polled)
		atomic_store_explicit(&p->region->core[c->index].need_wakeup, 0, memory_order_relaxed);
}
