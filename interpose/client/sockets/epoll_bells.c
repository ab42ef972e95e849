/* SPDX-License-Identifier: MIT */
/*
 * The bells of an epoll set (fast/bell.c), by which direct peers reach it: finding and mapping them, and how who sleeps is woken.
 *
 * A bell in memory of this process's own set is rung by the set's eventfd, which its writers may have.  One in memory shared with
 * another program has an eventfd of its own, which that program gets and this one does not: the service puts those of all bells of a set
 * as edge-triggered members into an epoll set of the kernel's (TAS_MSG_BELLS_HEAR), in which our threads sleep beside the rest.  What the
 * peer does to its eventfd, take from it or fill it, then concerns only what it rings for itself; nobody reads it, each write is an edge.
 *
 * `sleeping` of a bell says who can wake: whoever has its eventfd (TAS_BELL_OPEN), or the service alone, since not all who sleep would hear
 * it: another process that has the set, something that waits for the set's descriptor from outside.
 */
#include "sockets/ep.h"

/* ---- where they are ---- */
static void bell_drop(struct tas_ep *ep, uint32_t k)
{
	uint32_t number = TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(ep->bell_at[k]));

	if (ep->bell[k] && number)
		tas__shared_release(ep->p.ss, number);
	else if (ep->bell[k])
		atomic_fetch_sub(&ep->p.ss->bells, 1);
	ep->bell[k] = NULL;
	ep->bell_at[k] = 0;
	ep->own &= ~(1ull << k);
}

static int memory_hold(struct tas_session *ss, uint32_t number)
{
	int r;

	tas__mutex_lock(&ss->ws_lock);
	r = tas__shared_hold(ss, number);
	tas__mutex_unlock(&ss->ws_lock);
	return r;
}

/* Its memory is the one of the connections that it is for; held, since they may end before it.  False: it cannot be had. */
static bool bell_take(struct tas_ep *ep, uint32_t k, tas_off_t at)
{
	uint32_t number = TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(at));
	struct tas_session *ss = ep->p.ss;

	if (number && memory_hold(ss, number) < 0)
		return false;
	ep->bell[k] = tas__mem(ss, at, sizeof *ep->bell[k]);
	if (!ep->bell[k]) {
		if (number)
			tas__shared_release(ss, number);
		return false;
	}
	if (!number) {
		atomic_fetch_add(&ss->bells, 1);
		ep->own |= 1ull << k;
	}
	ep->bell_at[k] = at;
	return true;
}

void tas__ep_bells_look(struct tas_ep *ep)
{
	struct tas_ep_head *h = &ep->p.m->head;
	uint32_t seq = atomic_load_explicit(&h->bell_seq, memory_order_acquire);
	bool all = true;

	if (__builtin_expect(seq == ep->bell_seq, 1) || !ep->p.ss)
		return;
	ep->n_bells = 0;
	ep->heard = 0; /* one may have gone and come back at its place, with another eventfd */
	for (uint32_t k = 0; k < TAS_EP_BELLS; k++) {
		tas_off_t at = atomic_load_explicit(&h->bell[k], memory_order_relaxed);

		if (at != ep->bell_at[k]) {
			bell_drop(ep, k);
			if (at)
				all &= bell_take(ep, k, at);
		}
		if (ep->bell[k])
			ep->n_bells = k + 1;
		if (ep->bell[k] && !(ep->own >> k & 1))
			atomic_store_explicit(&ep->deaf, true, memory_order_relaxed);
	}
	atomic_store_explicit(&ep->bell_seq, seq, memory_order_relaxed);
	if (!all && tas__may(TAS_MAY_ASK) && !atomic_load(&ep->p.ss->dead)) { /* what it was marked with is ours again after that */
		struct tas_msg m = {.u.ep.index = ep->p.index};

		tas__tell(atomic_load(&ep->p.ss->ctl), &m, TAS_MSG_BELLS_END);
	}
}

/* From now on all are, if nothing has changed since the service was asked. */
static void hear(struct tas_ep *ep, struct tas_session *ss, uint32_t index)
{
	struct tas_msg m = {.op = TAS_MSG_BELLS_HEAR, .u.ep.index = index};
	unsigned n = 1;
	int fd = -1;

	if (!tas__may(TAS_MAY_OPEN) || tas__rpc(ss, &m, NULL, 0, &fd, &n) < 0 || n != 1)
		return;
	fd = tas__internal_fd(fd);
	tas__ep_enter(ep);
	if (fd >= 0 && ep->p.ss == ss && ep->p.index == index && m.u.hear.seq == atomic_load(&ep->bell_seq)) {
		int had = ep->p.bells_fd;

		if (had < 0)
			ep->p.bells_fd = fd;
		if (had < 0 || sys3(SYS_dup3, fd, had, O_CLOEXEC) >= 0)
			ep->heard = m.u.hear.places;
		if (had < 0)
			fd = -1;
		if (atomic_load(&ep->p.m->head.sleepers)) /* in the old one */
			tas__ep_ring(ep);
	}
	tas__ep_exit(ep);
	tas__internal_close(fd);
}

/* Asks the service for their memory, which may take long, before the lock is held for tas__ep_bells_look(). */
void tas__ep_bells_map(struct tas_ep *ep)
{
	tas_off_t at[TAS_EP_BELLS];
	uint64_t mask = tas__ep_lock(ep);
	struct tas_session *ss = ep->p.ss;
	uint32_t n = 0, held = 0, index = ep->p.index;
	bool deaf;

	if (ss)
		tas__session_ref(ss);
	for (uint32_t k = 0; ss && k < TAS_EP_BELLS; k++) {
		at[n] = atomic_load_explicit(&ep->p.m->head.bell[k], memory_order_relaxed);
		n += at[n] && at[n] != ep->bell_at[k];
	}
	tas__ep_exit(ep);
	for (; held < n; held++) {
		uint32_t number = TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(at[held]));

		if (number && memory_hold(ss, number) < 0)
			break;
		tas__mem(ss, at[held], sizeof(struct tas_bell));
	}
	tas__ep_enter(ep);
	tas__ep_bells_look(ep);
	deaf = atomic_exchange_explicit(&ep->deaf, false, memory_order_relaxed);
	tas__ep_exit(ep);
	if (deaf && ss)
		hear(ep, ss, index);
	while (held--)
		if (TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(at[held])))
			tas__shared_release(ss, TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(at[held])));
	tas__signals_restore(mask);
	if (ss)
		tas__session_put(ss);
}

void tas__ep_bells_drop(struct tas_ep *ep)
{
	for (uint32_t k = 0; k < ep->n_bells; k++)
		bell_drop(ep, k);
	ep->n_bells = 0;
	ep->heard = 0;
	atomic_store_explicit(&ep->bell_seq, 0, memory_order_relaxed);
	atomic_store_explicit(&ep->deaf, false, memory_order_relaxed);
}

/* ---- who sleeps ---- */
static void arm(struct tas_ep *ep, uint64_t open)
{
	for (uint32_t k = 0; k < ep->n_bells; k++)
		if (ep->bell[k])
			atomic_exchange_explicit(&ep->bell[k]->sleeping, open >> k & 1 ? TAS_BELL_OPEN : TAS_BELL_SERVICE,
						 memory_order_seq_cst);
	if (ep->p.ss)
		atomic_exchange_explicit(&ep->p.m->head.sleeping, 1, memory_order_seq_cst);
}

void tas__ep_arm(struct tas_ep *ep)
{
	arm(ep, ep->own);
}

int tas__ep_arm_hearing(struct tas_ep *ep)
{
	const struct tas_ep_head *h = &ep->p.m->head;
	struct epoll_event ev[TAS_EP_BELLS];
	bool alone = ep->heard && !atomic_load(&h->exposed) && atomic_load(&h->holders) == 1;

	/* edges of before: what they rang for is looked at once more after this */
	if (alone && atomic_exchange(&ep->rang, false))
		tas__epoll_look_raw(ep->p.bells_fd, ev, TAS_EP_BELLS);
	arm(ep, alone ? ep->own | ep->heard : ep->own);
	return alone ? ep->p.bells_fd : -1;
}

void tas__ep_disarm(struct tas_ep *ep)
{
	for (uint32_t k = 0; k < ep->n_bells; k++)
		if (ep->bell[k])
			atomic_store_explicit(&ep->bell[k]->sleeping, TAS_BELL_AWAKE, memory_order_relaxed);
	atomic_store_explicit(&ep->p.m->head.sleeping, 0, memory_order_relaxed);
}

bool tas__ep_armed(struct tas_ep *ep)
{
	bool armed = atomic_load(&ep->p.m->head.sleeping);

	for (uint32_t k = 0; k < ep->n_bells; k++)
		armed &= !ep->bell[k] || atomic_load(&ep->bell[k]->sleeping);
	return armed;
}
