/* SPDX-License-Identifier: MIT */
/*
 * Bells: how a direct peer reaches an epoll set.
 *
 * The marks of an epoll set lie in the set's own memory, which only its holders map: who can write there could hide the events of
 * other members.  A bell is a copy of the marks and of the sleepers' word in memory that the peer has: the memory set of the
 * connection.  There is one for each epoll set and memory set, made when the service had to pass on the first event between them.  The
 * epoll set's processes find its bells in the head, a peer finds the one to mark in the block of the socket.
 *
 * Who has an eventfd can make writes to it wait, and take from it what others rang.  So only processes of the epoll set's own memory set,
 * which can have the set itself as well, get the set's (TAS_MSG_BELL, once).  A bell in memory shared with another program has an eventfd of
 * its own.  That program gets it; the set's processes get an epoll set of the kernel's in which it is an edge-triggered member
 * (TAS_MSG_BELLS_HEAR), and so can neither make a write wait nor be kept from waking for others.  It is built anew whenever it is asked for: a change of
 * one that an application has might wait for its lock.  Sleepers who cannot be reached so (TAS_BELL_SERVICE) the service rings for.  While nobody
 * sleeps it does not hear of messages.
 *
 * Each message to a sleeper whom its writer may not wake is a hint, until the service has rung.  A state "was asked" of the word would spare
 * all but the first, and is not there: if it is set before the hint, everybody relies on a process that may be stopped or die in between;
 * if after it, the sleeper may have woken and sleep anew by then, with the state of a hint that has been answered long ago.  Every writer
 * hints for itself, so none can make another's message late.
 *
 * All holders must reach the bell: a set that processes of several memory sets hold has none.  A bell that goes loses its key;
 * who marks looks for the key afterwards, and else tells the service.  Its memory is used for bells only until the memory set goes,
 * since a peer may be about to mark it.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/eventfd.h>
#include <unistd.h>

#include "fast/sock.h"
#include "slow/epset.h"

enum { BELL_SIZE = 4096, CHAIN_MAX = 256, EVENTFDS_MAX = 4096 /* of all bells */ };
_Static_assert(sizeof(struct tas_bell) <= BELL_SIZE, "fits");

struct bell {
	struct tas_set *set;
	tas_off_t at;
	struct tas_epset *e; /* NULL: nobody's */
	uint32_t place;	     /* in the head */
	int efd; /* its own; -1: none */
	struct bell *next;
};

static struct bell *bells;
static uint64_t last_key;
static unsigned n_eventfds;

static struct tas_bell *shared_of(const struct bell *b)
{
	return tas__mem_ptr(b->set, b->at);
}

static void show(const struct bell *b, tas_off_t at)
{
	struct tas_ep_head *h = &b->e->m->head;

	atomic_store_explicit(&h->bell[b->place], at, memory_order_relaxed);
	/* pairs with the acquire load in tas__ep_bells_look() */
	atomic_fetch_add_explicit(&h->bell_seq, 1, memory_order_release);
}

static void orphan(struct bell *b)
{
	atomic_store_explicit(&shared_of(b)->key, 0, memory_order_seq_cst);
	show(b, 0);
	b->e = NULL;
	if (b->efd < 0)
		return;
	close(b->efd);
	b->efd = -1;
	n_eventfds--;
}

void tas__bells_forget(struct tas_epset *e)
{
	for (struct bell *b = bells; b; b = b->next)
		if (b->e == e)
			orphan(b);
}

/* What was marked is marked in the set's own memory: its holders do not look at the bells any more. */
void tas__bells_revoke(struct tas_epset *e)
{
	struct tas_ep_head *h = &e->m->head;

	for (struct bell *b = bells; b; b = b->next) {
		struct tas_bell *shared = shared_of(b);

		if (b->e != e)
			continue;
		orphan(b);
		for (uint32_t w = 0; w < TAS_EP_WORDS; w++) {
			uint64_t bits = atomic_exchange_explicit(&shared->word[w], 0, memory_order_seq_cst);

			if (!bits)
				continue;
			atomic_fetch_or_explicit(&h->word[w], bits, memory_order_seq_cst);
			atomic_fetch_or_explicit(&h->top, 1ull << (w / TAS_EP_TOP), memory_order_seq_cst);
		}
	}
	if (atomic_exchange_explicit(&h->sleeping, 0, memory_order_seq_cst))
		tas__epset_ring(e);
}

void tas__bells_forget_set(const struct tas_set *s)
{
	for (struct bell **q = &bells, *b; (b = *q);) {
		if (b->set != s) {
			q = &b->next;
			continue;
		}
		if (b->e)
			orphan(b);
		*q = b->next;
		free(b);
	}
}

static struct bell *bell_new(struct tas_set *s)
{
	struct bell *b = calloc(1, sizeof *b);
	tas_off_t at = b ? tas__mem_alloc(s, BELL_SIZE) : 0;

	if (!at) {
		free(b);
		return NULL;
	}
	memset(tas__mem_ptr(s, at), 0, BELL_SIZE);
	*b = (struct bell){ .set = s, .at = at, .efd = -1, .next = bells };
	bells = b;
	return b;
}

static struct bell *bell_for(struct tas_set *s, struct tas_epset *e)
{
	struct bell *spare = NULL, *b;
	struct tas_bell *shared;
	uint64_t places = 0;

	_Static_assert(TAS_EP_BELLS == 64, "a bit each");
	for (b = bells; b; b = b->next) {
		if (b->e == e && b->set == s)
			return b;
		if (b->e == e)
			places |= 1ull << b->place;
		if (b->set == s && !b->e)
			spare = b;
	}
	b = places == UINT64_MAX ? NULL : spare ? spare : bell_new(s);
	if (!b)
		return NULL;
	b->e = e;
	b->place = (uint32_t)__builtin_ctzll(~places);
	shared = shared_of(b);
	/* until its owner knows it, who marks it rings */
	atomic_store_explicit(&shared->sleeping, TAS_BELL_SERVICE, memory_order_relaxed);
	atomic_store_explicit(&shared->sub, TAS_EP_SLOT << 16 | (e->index + 1), memory_order_relaxed);
	atomic_store_explicit(&shared->key, ++last_key, memory_order_seq_cst);
	show(b, b->at);
	return b;
}

/* Is s a member?  So say those who have the set; its own memory a peer can write to. */
static bool has_member(const struct tas_epset *e, const struct tas_sock *s)
{
	const struct tas_ep_memory *m = e->m;
	uint32_t x = __atomic_load_n(&m->bucket[s->base.id & (TAS_EP_BUCKETS - 1)], __ATOMIC_RELAXED);

	for (int n = 0; x && n < CHAIN_MAX; n++) {
		const struct tas_ep_item *i = &m->item[x & (TAS_EP_ITEMS - 1)];

		if ((__atomic_load_n(&i->flags, __ATOMIC_ACQUIRE) & TAS_IT_USED) &&
		    __atomic_load_n(&i->id, __ATOMIC_RELAXED) == s->base.id &&
		    __atomic_load_n(&i->gen, __ATOMIC_RELAXED) == s->base.gen)
			return true;
		x = __atomic_load_n(&i->hash_next, __ATOMIC_RELAXED);
	}
	return false;
}

/* The set that the application's word names, if all who have it can have a bell in the memory of s. */
static struct tas_epset *set_of_sub(const struct tas_sock *s, uint32_t sub)
{
	uint32_t index = (sub & 0xffff) - 1;
	struct tas_epset *e = sub >> 16 == TAS_EP_SLOT && index < TAS_EP_MAX ? tas__epsets[index] : NULL;

	return e && !e->mute && e->n_sets == 1 && tas__set_reaches(e->set[0], s->base.set) ? e : NULL;
}

static bool hangs(const struct tas_epset *e, const struct tas_set *s, tas_off_t at)
{
	for (const struct bell *b = bells; b; b = b->next)
		if (b->e == e && b->set == s)
			return b->at == at;
	return false;
}

void tas__bell_hang(struct tas_sock *s)
{
	struct tas_lock_line *c = &s->base.b->c;
	uint32_t is = atomic_load_explicit(&c->bell_sub, memory_order_relaxed), found = 0;
	struct tas_epset *e = NULL;
	struct bell *b;

	for (int i = 0; i < TAS_SUBS; i++) {
		uint32_t sub = atomic_load_explicit(&c->subs[i], memory_order_relaxed);
		struct tas_epset *of = set_of_sub(s, sub); /* NULL for exclusive ones, too */

		if (of && sub == is && hangs(of, s->base.set, atomic_load_explicit(&c->bell, memory_order_relaxed)))
			return;
		if (of && (of->set[0] == s->base.set || has_member(of, s))) {
			e = of;
			found = sub;
		}
	}
	b = e ? bell_for(s->base.set, e) : NULL;
	if (!b)
		return;
	/* a set that is in none of the words any more may be marked in vain */
	atomic_store_explicit(&c->bell_sub, 0, memory_order_seq_cst);
	atomic_store_explicit(&c->bell, b->at, memory_order_seq_cst);
	atomic_store_explicit(&c->bell_sub, found, memory_order_seq_cst);
}

int tas__op_bell(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep)
{
	for (const struct bell *b = bells; b; b = b->next) {
		if (b->at != req->u.bell.at || !b->e || !tas__set_reaches(p->set, b->set))
			continue;
		rep->u.bell.at = b->at;
		rep->u.bell.key = atomic_load_explicit(&shared_of(b)->key, memory_order_relaxed);
		if (b->e->set[0] != p->set)
			return b->efd < 0 ? -EACCES : b->efd;
		return b->set == p->set && p->uid == b->e->uid ? b->e->efd : -EACCES;
	}
	return -ENOENT;
}

/* Has b, in memory shared with others, an eventfd that is a member of hear now? */
static bool wire(struct bell *b, int hear)
{
	struct epoll_event ev = { .events = EPOLLIN | EPOLLET };

	if (b->efd < 0 && n_eventfds < EVENTFDS_MAX) {
		b->efd = eventfd(0, EFD_NONBLOCK | EFD_CLOEXEC);
		n_eventfds += b->efd >= 0;
	}
	return b->efd >= 0 && !epoll_ctl(hear, EPOLL_CTL_ADD, b->efd, &ev);
}

int tas__op_bells_hear(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep)
{
	const struct tas_epset *e = tas__epset_held(p, req->u.ep.index);
	uint64_t places = 0;
	int hear;

	if (!e || e->mute || e->n_sets != 1)
		return -ENOENT;
	hear = epoll_create1(EPOLL_CLOEXEC);
	if (hear < 0)
		return -EMFILE;
	for (struct bell *b = bells; b; b = b->next)
		if (b->e == e && b->set != p->set && wire(b, hear))
			places |= 1ull << b->place;
	rep->u.hear.places = places;
	rep->u.hear.seq = atomic_load_explicit(&e->m->head.bell_seq, memory_order_relaxed);
	if (places)
		return hear;
	close(hear);
	return -ENOENT;
}
