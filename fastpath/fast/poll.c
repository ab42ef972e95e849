/* SPDX-License-Identifier: MIT */
/*
 * One round of a core: hints of applications, timers, output; and the protocol of going to sleep.
 *
 * Processes that hinted within the last millisecond are looked at every round (`polled`); the others have need_wakeup set and ring
 * their doorbell at the next hint.
 */
#include <errno.h>
#include <sched.h>

#include "fast/sock.h"
#include "fast/wire.h"

enum {
	POLL_IDLE_NS = 1000 * 1000,
	HINTS_MAX = 128,
	AHEAD = 2,
	HINT_ROUNDS = 64,
};

bool tas__sock_hint(struct tas_sock *s)
{
	uint32_t id = s->base.id;
	struct tas_sock_base *b;
	unsigned owner;
	int changed;

	if (s->base.kind == TAS_K_LISTENER) {
		tas__listener_hint(s);
		return true;
	}
	if (s->dead || s->base.closed)
		return true;
	if (tas__is_direct(s) && tas__direct_hint(s))
		return true;
	changed = tas__local_nonsense(s) ? -EPROTO : tas__app_read(s);
	if (changed > 0 && (changed & (TAS_CH_DEAF | TAS_CH_SHUT))) /* other processes may sleep on it */
		tas__wake_soon(s, TAS_WAKE_IN);
	if (changed < 0)
		tas__sock_nonsense(s); /* not freed: it is not closed */
	else if (s->base.kind == TAS_K_LINK)
		tas__wire_hint(s, changed);
	else
		tas__local_hint(s, changed);
	/* the hint may have ended it */
	b = tas_alone || tas__sock_mine(s->core, id, &owner) ? tas__sock(id, 0) : NULL;
	if (!b || tas__of(b) != s)
		return false;
	tas__tx_stays(s);
	return true;
}

/* A hint that was said to another than the owner: the connection has moved, or the application writes what it likes. */
static void pass_on(struct tas_core *c, struct tas_proc *p, uint32_t id, unsigned owner)
{
	if (owner == TAS_NOBODY) {
		tas_count(c, TAS_CTR_app_bad_hints, 1);
		return;
	}
	tas_bitmap_set(&p->region->core[owner].dirty, id);
	atomic_exchange_explicit(&p->region->core[owner].need_wakeup, 0, memory_order_seq_cst);
	tas_kick(&tas_cores[owner]);
}

static void hint(struct tas_core *c, struct tas_proc *p, uint32_t id)
{
	struct tas_sock_base *b;
	unsigned owner;

	tas_count(c, TAS_CTR_app_hints, 1);
	if (!tas_alone && !tas__sock_mine(c, id, &owner)) {
		pass_on(c, p, id, owner);
		return;
	}
	b = tas__sock(id, 0);
	if (!b || !tas__set_reaches(p->set, b->set)) {
		tas_count(c, TAS_CTR_app_bad_hints, 1);
		return;
	}
	if (!tas__sock_hint(tas__of(b)))
		return;
	if (!tas_claim_test(p->region->claims, id))
		tas__sock_unclaimed(b);
}

/* ahead: hints between two stages of fetching what they touch; 0: it is in the cache. */
static void hints(struct tas_core *c, struct tas_proc *p, const uint32_t *id, uint32_t n, uint32_t ahead)
{
	for (uint32_t i = 0; i < n + ahead * TAS_AHEAD; i++) {
		for (unsigned stage = 0; ahead && stage < TAS_AHEAD; stage++) {
			uint32_t at = i - ahead * stage; /* wraps */

			if (at < n)
				tas__sock_ahead(c, id[at], stage);
		}
		if (i >= ahead * TAS_AHEAD)
			hint(c, p, id[i - ahead * TAS_AHEAD]);
	}
}

static unsigned drain(struct tas_core *c, struct tas_proc *p)
{
	struct tas_core_hints *h = &p->region->core[c->index];
	uint32_t id[HINTS_MAX], n, round = atomic_load_explicit(&h->busy, memory_order_relaxed);

	if (!(round & 1) && !atomic_load_explicit(&h->dirty.top, memory_order_relaxed))
		return 0;
	/* odd until a drain was complete */
	atomic_store_explicit(&h->busy, round | 1, memory_order_seq_cst);
	n = tas_bitmap_drain(&h->dirty, id, HINTS_MAX);

	hints(c, p, id, n, tas__socks_cold() ? AHEAD : 0);
	p->lane[c->index].hints += n;
	if (n)
		p->lane[c->index].hinted = c->now;
	tas__wakes_run(c);
	if (n < HINTS_MAX)
		atomic_store_explicit(&h->busy, (round | 1) + 1, memory_order_release);
	return n;
}

static unsigned drain_all(struct tas_proc *p)
{
	unsigned n = 0;

	for (unsigned i = 0; i < tas_n_cores; i++)
		n += drain(&tas_cores[i], p);
	return n;
}

unsigned tas__proc_hints(struct tas_core *c, struct tas_proc *p)
{
	uint64_t mail = tas__mail_take(c, p);
	unsigned n = drain(c, p);

	if (__builtin_expect(!mail, 1))
		return n;
	tas_alone_in();
	/* what the sender did before it asked (a close, say) comes first */
	for (unsigned i = 0, more = 1; more && i < HINT_ROUNDS; i++)
		n += more = drain_all(p);
	tas__mail_answer(c, p, mail);
	p->mails += (unsigned)__builtin_popcountll(mail);
	p->lane[c->index].hinted = c->now;
	tas__wakes_run(c);
	tas_alone_out();
	return n + (unsigned)__builtin_popcountll(mail);
}

unsigned tas__proc_hints_all(struct tas_proc *p)
{
	unsigned n = tas__proc_hints(&tas_cores[0], p);

	for (unsigned i = 1; i < tas_n_cores; i++)
		n += drain(&tas_cores[i], p);
	return n;
}

/* Has p said anything that was not looked at? */
static bool said(const struct tas_core *c, struct tas_proc *p)
{
	struct tas_core_hints *h = &p->region->core[c->index];

	return tas_bitmap_any(&h->dirty) || atomic_load_explicit(&h->mail, memory_order_seq_cst);
}

void tas__proc_poll_start(struct tas_core *c, struct tas_proc *p)
{
	if (p->lane[c->index].polled)
		return;
	p->lane[c->index].polled = true;
	p->lane[c->index].hinted = c->now;
	p->lane[c->index].next = c->stack->polled;
	c->stack->polled = p;
	atomic_store_explicit(&p->region->core[c->index].need_wakeup, 0, memory_order_relaxed);
}

static void poll_leave(struct tas_core *c, struct tas_proc *p)
{
	struct tas_proc **q;

	if (!p->lane[c->index].polled)
		return;
	for (q = &c->stack->polled; *q != p; q = &(*q)->lane[c->index].next)
		;
	*q = p->lane[c->index].next;
	p->lane[c->index].polled = false;
}

/* ---- with several cores ---- */
void tas__proc_poll_stop(struct tas_proc *p)
{
	for (unsigned i = 0; i < tas_n_cores; i++)
		poll_leave(&tas_cores[i], p);
}

/* Stop looking at processes without recent hints.  They are asked to ring first, then looked at a last time. */
static void retire_idle(struct tas_core *c)
{
	struct tas_proc **q = &c->stack->polled;

	while (*q) {
		struct tas_proc *p = *q;

		if (c->now - p->lane[c->index].hinted < POLL_IDLE_NS) {
			q = &p->lane[c->index].next;
			continue;
		}
		/* pairs with the producer's look at need_wakeup after its fetch-or */
		atomic_store_explicit(&p->region->core[c->index].need_wakeup, 1, memory_order_seq_cst);
		if (said(c, p)) {
			atomic_store_explicit(&p->region->core[c->index].need_wakeup, 0, memory_order_relaxed);
			p->lane[c->index].hinted = c->now;
			q = &p->lane[c->index].next;
			continue;
		}
		*q = p->lane[c->index].next;
		p->lane[c->index].polled = false;
	}
}

/* Who waits on our processor can let us work or sleep, but finds nothing by looking (interpose/client/lowlevel/wait.c). */
static void say_where(struct tas_proc *p, uint32_t cpu)
{
	if (atomic_load_explicit(&p->region->cpu, memory_order_relaxed) != cpu)
		atomic_store_explicit(&p->region->cpu, cpu, memory_order_relaxed);
}

unsigned tas_core_poll(struct tas_core *c)
{
	uint32_t cpu = (uint32_t)sched_getcpu();
	unsigned work = 0;
	struct tas_proc *p, *next;

	tas__wakes_run(c); /* of the packets that came before */
	tas__stage(c, TAS_ST_receive);
	for (p = c->stack->polled; p; p = next) {
		next = p->lane[c->index].next;
		if (c->index == 0)
			say_where(p, cpu);
		work += tas__proc_hints(c, p);
	}
	tas__stage(c, TAS_ST_hints);
	if (c->now - c->stack->last_retire > POLL_IDLE_NS / 4) {
		c->stack->last_retire = c->now;
		retire_idle(c);
	}
	tas__timers_run(c, &work);
	tas__stage(c, TAS_ST_timers);
	work += tas__output_run(c);
	tas__stage(c, TAS_ST_output);
	tas__slack_run(c);
	tas__wakes_run(c);
	if (c->index == 0 && (tas__bridges_due() || tas__sets_due())) {
		work++;
		tas_alone_in();
		if (tas__sets_due())
			tas__sets_put();
		tas__bridges_run();
		tas__wakes_run(c);
		tas_alone_out();
	}
	tas__stage(c, TAS_ST_wake);
	return work;
}

/* What was said to cores that no thread works for. */
static void rang_for_others(struct tas_proc *p)
{
	for (unsigned i = 1; i < tas_n_cores; i++) {
		struct tas_core_hints *h = &p->region->core[i];

		if (tas_cores[i].running || atomic_load_explicit(&h->need_wakeup, memory_order_relaxed))
			continue;
		atomic_store_explicit(&h->need_wakeup, 1, memory_order_seq_cst);
		while (drain(&tas_cores[i], p))
			;
	}
}

unsigned tas_core_rang(struct tas_core *c, uint32_t slot)
{
	struct tas_proc *p = tas__procs[slot];

	if (p && !c->index && tas_n_cores > 1)
		rang_for_others(p);
	/* the doorbell is one for all cores: was it for this one? */
	if (!p || (tas_n_cores > 1 && atomic_load_explicit(&p->region->core[c->index].need_wakeup, memory_order_relaxed) &&
		   !said(c, p)))
		return 0;
	tas__proc_poll_start(c, p);
	return tas__proc_hints(c, p);
}

unsigned tas_core_listen(struct tas_core *c)
{
	unsigned n = 0;

	for (uint32_t i = 0; i < tas__n_procs; i++)
		n += tas_core_rang(c, i);
	return n;
}

void tas_core_recruit(struct tas_core *c)
{
	for (uint32_t i = 0; i < tas__n_procs; i++)
		if (tas__procs[i] && tas__procs[i]->doorbell.fd >= 0 && tas_threads_hear(tas__procs[i]->doorbell.fd, i))
			tas_warn("core %u does not hear process %d", c->index, (int)tas__procs[i]->pid);
}

void tas_core_dismiss(struct tas_core *c)
{
	for (uint32_t i = 0; i < tas__n_procs; i++)
		if (tas__procs[i] && tas__procs[i]->doorbell.fd >= 0)
			tas_threads_deaf(tas__procs[i]->doorbell.fd, c->index);
}

void tas_core_retire(struct tas_core *c)
{
	tas__socks_leave(c, &tas_cores[0]); /* those without a flow: dead, not yet closed */
	for (uint32_t i = 0; i < tas__n_procs; i++) {
		struct tas_proc *p = tas__procs[i];

		if (!p)
			continue;
		poll_leave(c, p);
		/* who still believes that its connections are here rings, and core 0 hears it */
		atomic_store_explicit(&p->region->core[c->index].need_wakeup, 1, memory_order_seq_cst);
		while (drain(c, p))
			;
	}
}

bool tas_core_has_work(const struct tas_core *c, uint64_t until)
{
	return c->stack->wake_head || c->stack->out_head || tas_core_deadline(c) < until;
}

void tas_core_wakes(struct tas_core *c)
{
	tas__wakes_run(c);
}

uint64_t tas_core_deadline(const struct tas_core *c)
{
	uint64_t timer = tas__timer_next(c), slack = tas__slack_next(c);

	return timer < slack ? timer : slack;
}

bool tas_core_sleep_begin(struct tas_core *c)
{
	struct tas_proc *p;

	tas__wakes_run(c); /* of requests handled since the last round */
	for (p = c->stack->polled; p; p = p->lane[c->index].next) {
		atomic_store_explicit(&p->region->core[c->index].need_wakeup, 1, memory_order_seq_cst);
		if (said(c, p)) {
			tas_core_sleep_end(c);
			return false;
		}
	}
	if (c->stack->out_head || (!c->index && (tas__bridges_due() || tas__sets_due()))) {
		tas_core_sleep_end(c);
		return false;
	}
	tas_count(c, TAS_CTR_sleeps, 1);
	return true;
}

void tas_core_sleep_end(struct tas_core *c)
{
	for (struct tas_proc *p = c->stack->polled; p; p = p->lane[c->index].next)
		atomic_store_explicit(&p->region->core[c->index].need_wakeup, 0, memory_order_relaxed);
}
