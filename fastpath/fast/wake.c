/* SPDX-License-Identifier: MIT */
/*
 * Telling applications that something happened on a socket.
 *
 * Order: the caller has published the state; the event sequence goes up by a seq_cst read-modify-write (the barrier); then the
 * ready bitmaps of the wait sets that watch the socket; then the sleepers' words.  A sleeper announces itself before its last
 * look, so one of both sees the other (docs/internals.md, "Publish and sleep").
 *
 * Waking is dear (a system call, often a sleeping CPU), so a batch of packets or hints tells each socket once, at its end.
 *
 * Who is woken takes a processor, perhaps the one on which the peers of other connections are about to send.  While packets come in
 * bursts, a sleeper on an epoll set is therefore woken when a round finds less than BURST of them, or after HOLD_NS; what is ready is
 * marked at once.  So a server gets the requests of many clients at a time.  A few packets at a time are never held.
 */
#include <limits.h>
#include <linux/futex.h>
#include <sys/syscall.h>
#include <unistd.h>

#include "fast/sock.h"
#include "slow/epset.h"
#include "slow/memory.h"

enum { BURST = 4, HOLD_NS = 40000 };

void tas__futex_wake(_Atomic uint32_t *word)
{
	syscall(SYS_futex, word, FUTEX_WAKE, INT_MAX, NULL, NULL, 0);
}

void tas__epset_ring(const struct tas_epset *e)
{
	if (tas__ring(e->uid, e->efd))
		return;
	tas_warn("an epoll set's wake descriptor blocks");
	for (uint32_t i = 0; i < e->n_sets; i++)
		tas__set_condemn(e->set[i]);
}

static void ring_sleeper(struct tas_epset *e)
{
	struct tas_ep_head *h = &e->m->head;

	if (!atomic_exchange_explicit(&h->sleeping, 0, memory_order_seq_cst))
		return;
	tas_count(tas_this, TAS_CTR_app_wakeups, 1);
	if (!tas__set_dead(e->set[0]))
		tas__epset_ring(e);
}

/* In the middle of a burst: tas_core_ring() will.  By index, the set may go until then. */
static bool ring_later(struct tas_core *c, const struct tas_epset *e)
{
	const uint32_t room = sizeof(c->rings.set) / sizeof(c->rings.set[0]);

	if (c->burst < BURST)
		return false;
	for (uint32_t i = 0; i < c->rings.n; i++)
		if (c->rings.set[i] == e->index)
			return true;
	if (c->rings.n == room)
		return false;
	if (!c->rings.n)
		c->rings.since = c->now;
	c->rings.set[c->rings.n++] = e->index;
	return true;
}

void tas_core_ring(struct tas_core *c)
{
	if (c->burst >= BURST && c->now - c->rings.since < HOLD_NS)
		return;
	while (c->rings.n) {
		struct tas_epset *e = tas__epsets[c->rings.set[--c->rings.n]];

		if (e)
			ring_sleeper(e);
	}
}

/* An epoll set: mark, and wake whoever sleeps on it in any process. */
static bool wake_epset(struct tas_sock *s, struct tas_epset *e, bool may_wait)
{
	struct tas_ep_head *h = &e->m->head;
	uint32_t bucket = s->base.id & (TAS_EP_BUCKETS - 1), w = bucket / 64;

	if (!tas__epset_reaches(e, s->base.set))
		return false;
	if (!atomic_fetch_or_explicit(&h->word[w], 1ull << (bucket % 64), memory_order_seq_cst))
		atomic_fetch_or_explicit(&h->top, 1ull << (w / TAS_EP_TOP), memory_order_seq_cst);
	if (!atomic_load_explicit(&h->sleeping, memory_order_seq_cst))
		return false;
	if (!may_wait || !ring_later(tas_this, e))
		ring_sleeper(e);
	return true;
}

/* True: somebody slept there, and was woken. */
static bool wake_set(struct tas_sock *s, uint32_t sub)
{
	uint32_t slot = (sub & ~(uint32_t)TAS_SUB_EXCLUSIVE) >> 16, ws = (sub & 0xffff) - 1;
	struct tas_proc *p = slot < TAS_PROC_MAX ? tas__procs[slot] : NULL;

	if (slot == TAS_EP_SLOT)
		return ws < TAS_EP_MAX && tas__epsets[ws] && wake_epset(s, tas__epsets[ws], !(sub & TAS_SUB_EXCLUSIVE));

	/* the word is the application's: it may name only wait sets of its own memory set */
	if (!p || !tas__set_reaches(p->set, s->base.set) || ws >= TAS_WS_MAX || p->ws_efd[ws] < 0 || !p->region)
		return false;
	if (ws < TAS_WS_BITMAPS)
		tas_bitmap_set(&p->region->ready[ws], s->base.id);
	if (!atomic_load_explicit(&p->region->ws[ws].sleeping, memory_order_seq_cst))
		return false;
	if (!atomic_exchange_explicit(&p->region->ws[ws].sleeping, 0, memory_order_seq_cst))
		return false;
	tas_count(tas_this, TAS_CTR_app_wakeups, 1);
	if (tas__set_dead(p->set) || tas__ring(p->uid, p->ws_efd[ws]))
		return true;
	tas_warn("process %d made its wake descriptor block", (int)p->pid);
	tas__set_condemn(p->set);
	return true;
}

/* The last process that had the epoll set died. */
static bool gone(uint32_t sub)
{
	uint32_t ws = (sub & 0xffff) - 1;

	return (sub & ~(uint32_t)TAS_SUB_EXCLUSIVE) >> 16 == TAS_EP_SLOT && (ws >= TAS_EP_MAX || !tas__epsets[ws]);
}

/* Wait sets in the order of their slots; of exclusive ones as many as there is news, as Linux's wait queue does. */
static void wake_sets(struct tas_sock *s, uint32_t exclusive)
{
	struct tas_block *b = s->base.b;
	bool any = false;

	for (int i = 0; i < TAS_SUBS; i++) {
		uint32_t sub = atomic_load_explicit(&b->c.subs[i], memory_order_seq_cst);

		if (sub && gone(sub))
			atomic_compare_exchange_strong(&b->c.subs[i], &sub, 0);
		else if (sub & TAS_SUB_EXCLUSIVE)
			any = true;
		else if (sub)
			wake_set(s, sub);
	}
	for (uint32_t i = 0; i < s->base.n_more_subs; i++) {
		if (s->base.more_subs[i] & TAS_SUB_EXCLUSIVE)
			any = true;
		else
			wake_set(s, s->base.more_subs[i]);
	}
	if (!any)
		return;
	for (int i = 0; i < TAS_SUBS && exclusive; i++) {
		uint32_t sub = atomic_load_explicit(&b->c.subs[i], memory_order_seq_cst);

		if ((sub & TAS_SUB_EXCLUSIVE) && wake_set(s, sub))
			exclusive--;
	}
	for (uint32_t i = 0; i < s->base.n_more_subs && exclusive; i++)
		if ((s->base.more_subs[i] & TAS_SUB_EXCLUSIVE) && wake_set(s, s->base.more_subs[i]))
			exclusive--;
}

void tas__wake_watchers(struct tas_sock *s)
{
	wake_sets(s, UINT32_MAX);
}

void tas__wake_news(struct tas_sock *s)
{
	wake_sets(s, 1);
}

static void wake(struct tas_sock *s, unsigned what)
{
	struct tas_block *b = s->base.b;

	if (what & TAS_WAKE_IN)
		atomic_fetch_add_explicit(&b->s.ev_in, 1, memory_order_seq_cst);
	if (what & TAS_WAKE_OUT)
		atomic_fetch_add_explicit(&b->s.ev_out, 1, memory_order_seq_cst);
	if (tas__is_direct(s)) { /* what is beyond is of the peer */
		s->u.local.told_in += what & TAS_WAKE_IN ? 1 : 0;
		s->u.local.told_out += what & TAS_WAKE_OUT ? 1 : 0;
	}
	if (s->bridge)
		tas__bridge_wake(s->bridge);
	wake_sets(s, s->base.kind == TAS_K_LISTENER ? tas__accept_news(s) : 1);
	if ((what & TAS_WAKE_IN) && atomic_load_explicit(&b->c.wait_in, memory_order_seq_cst)) {
		tas_count(tas_this, TAS_CTR_app_wakeups, 1);
		tas__futex_wake(&b->s.ev_in);
	}
	if ((what & TAS_WAKE_OUT) && atomic_load_explicit(&b->c.wait_out, memory_order_seq_cst)) {
		tas_count(tas_this, TAS_CTR_app_wakeups, 1);
		tas__futex_wake(&b->s.ev_out);
	}
}

void tas__wake(struct tas_sock *s, unsigned what)
{
	if (!s->base.b)
		return;
	if (s->base.kind != TAS_K_LISTENER) {
		wake(s, what);
		return;
	}
	tas_shared_in(); /* connections come to it on all cores */
	wake(s, what);
	tas_shared_out();
}

/* ---- batches ---- */
void tas__wake_soon(struct tas_sock *s, unsigned what)
{
	if (!s->base.b || !what)
		return;
	if (!s->wake_due) {
		s->wake_next = s->core->stack->wake_head;
		s->core->stack->wake_head = s;
	}
	s->wake_due |= (uint8_t)what;
}

void tas__wakes_run(struct tas_core *c)
{
	struct tas_sock **head = &c->stack->wake_head;

	while (*head) {
		struct tas_sock *s = *head;
		unsigned what = s->wake_due;

		*head = s->wake_next;
		s->wake_due = 0;
		tas__wake(s, what);
	}
}

void tas__wake_forget(struct tas_sock *s)
{
	struct tas_sock **p;

	if (!s->wake_due)
		return;
	for (p = &s->core->stack->wake_head; *p != s; p = &(*p)->wake_next)
		;
	*p = s->wake_next;
	s->wake_due = 0;
}
