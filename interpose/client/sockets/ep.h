/* SPDX-License-Identifier: MIT */
/*
 * Epoll sets: what epoll.c (membership), epoll_set.c (what a set is made of), epoll_share.c (whose it is),
 * epoll_bells.c (who wakes it) and epoll_wait.c share.
 *
 * The program's descriptor is a real epoll set of the kernel's.  It holds the kernel members with the program's data, PLAIN
 * members likewise (they move here when they become TAS), and the kernel halves of TAS listeners under a marker.  Members of
 * TAS are items in the set's shared memory (abi/tas_epoll.h), keyed (socket, number): every process that has the set sees the
 * same ones.  A set gets that memory with its first member of TAS; without one it is left to the kernel entirely.
 *
 * What a process has beside it: struct tas_ep, and per membership that it knows of a struct tas_member, which leads from the
 * item to the process's object of the socket.  A process that has no number for a member's socket (it closed it, or another one
 * added it) makes a ghost: an object without a claim.
 *
 * Locks: the table's, then ep->lock (of this process), then the memory's (of all); tas__ep_lock() takes the last two.
 */
#ifndef TAS_EP_H
#define TAS_EP_H

#include "sockets/sock.h"

struct tas_member {
	struct tas_obj *o;
	struct tas_ep *ep; /* NULL: free */
	uint32_t item; /* its index; 0: a PLAIN member, in the kernel's set */
	int fd;
	uint32_t events; /* PLAIN */
	epoll_data_t data; /* PLAIN */
	_Atomic(struct tas_member *) obj_next; /* tas_obj.items; table lock */
	struct tas_member *free;
};

/* Shared memory as this process has it. */
struct tas_ep_part {
	struct tas_ep_memory *m;
	struct tas_session *ss; /* referenced; NULL: blind, nobody marks and rings (no service): look now and then */
	uint32_t index;
	uint64_t token;
	int efd; /* internal; -1: blind */
	int bells_fd; /* internal: an epoll set of the kernel's with the eventfds of the bells `heard`; -1: none yet */
};

#define TAS_EP_NO_PART ((struct tas_ep_part){.efd = -1, .bells_fd = -1})

struct tas_ep {
	_Atomic uint32_t refs;
	struct tas_mutex lock; /* taken with signals blocked */
	int fd; /* a number of it; tas__ep_number() */
	struct tas_ep_part p;
	_Atomic(struct tas_ep_memory *) m; /* = p.m, for a look without lock; NULL: no member of TAS yet */
	struct tas_member **cache; /* by item; NULL: not known to this process */
	bool shared; /* another process may have the set */
	bool nests; /* another set is a member */
	bool kernel, exposed; /* as in the head, until there is one */
	bool odd; /* an item on the ready list wants tas__ep_tidy() */
	_Atomic uint32_t kernel_quiet; /* looks at the kernel's members in a row that found nothing */
	uint64_t kernel_looked; /* tsc of the last one; under the lock */
	_Atomic uint32_t raw_waiters; /* threads in the kernel's epoll_wait alone */
	_Atomic uint32_t bell_seq; /* of the head when these were looked up */
	uint32_t n_bells; /* up to the last one */
	tas_off_t bell_at[TAS_EP_BELLS]; /* 0: none */
	struct tas_bell *bell[TAS_EP_BELLS]; /* its memory is held */
	uint64_t own, heard; /* a bit each: in memory of our own set; in p.bells_fd */
	_Atomic bool deaf; /* others' memory has bells, and the service was not asked for their eventfds yet */
	_Atomic bool rang; /* p.bells_fd has edges that somebody has woken for */
	struct tas_ep *next, *free;
};

static inline struct tas_ep_head *tas__ep_head(struct tas_ep *ep)
{
	struct tas_ep_memory *m = atomic_load_explicit(&ep->m, memory_order_acquire);

	return m ? &m->head : NULL;
}

/* Whoever shares the memory may have written any index. */
static inline struct tas_ep_item *tas__ep_item(struct tas_ep *ep, uint32_t x)
{
	return &ep->p.m->item[x & (TAS_EP_ITEMS - 1)];
}

static inline uint32_t tas__ep_run(const struct tas_session *ss)
{
	return (uint32_t)ss->instance;
}

static inline uint32_t tas__ep_sub(const struct tas_ep *ep)
{
	return (uint32_t)TAS_EP_SLOT << 16 | (ep->p.index + 1);
}

static inline bool tas__is_wake(uint64_t data)
{
	return (data & ~TAS_EP_TOKEN_BITS) == TAS_EP_TOKEN;
}

static inline bool tas__is_half(uint64_t data)
{
	return (data & ~0xffffffull) == TAS_EP_HALF;
}

/* ---- ready list: item 0 is its head; under the set's lock ---- */
static inline void tas__ep_ready(struct tas_ep *ep, uint32_t x)
{
	struct tas_ep_item *head = ep->p.m->item, *i = &head[x & (TAS_EP_ITEMS - 1)];

	if (i->flags & TAS_IT_READY)
		return;
	i->flags |= TAS_IT_READY;
	i->ready_next = 0;
	i->ready_prev = head->ready_prev;
	tas__ep_item(ep, i->ready_prev)->ready_next = x;
	/* the head is looked at without the lock by tas__ep_pending() */
	__atomic_store_n(&head->ready_prev, x, __ATOMIC_RELEASE);
}

static inline void tas__ep_unready(struct tas_ep *ep, uint32_t x)
{
	struct tas_ep_item *i = tas__ep_item(ep, x);

	if (!(i->flags & TAS_IT_READY))
		return;
	i->flags &= ~(uint32_t)TAS_IT_READY;
	tas__ep_item(ep, i->ready_prev)->ready_next = i->ready_next;
	__atomic_store_n(&tas__ep_item(ep, i->ready_next)->ready_prev, i->ready_prev, __ATOMIC_RELEASE);
}

/* ---- epoll_set.c.  Under the table lock: ---- */
struct tas_member *tas__member_new(struct tas_ep *ep, struct tas_obj *o, uint32_t item, int fd); /* linked; NULL: no memory */
void tas__member_free(struct tas_member *m); /* unlinked; a ghost ends with it */
struct tas_member *tas__member_at(uint32_t n); /* any of any set, free ones too; NULL: beyond the last */
struct tas_ep *tas__ep_new(int fd);
void tas__ep_recycle(struct tas_ep *ep);
struct tas_ep *tas__ep_all(void);

uint64_t tas__ep_lock(struct tas_ep *ep);
void tas__ep_unlock(struct tas_ep *ep, uint64_t mask);
void tas__ep_enter(struct tas_ep *ep); /* signals are blocked */
void tas__ep_exit(struct tas_ep *ep);

/* Under the set's lock. */
void tas__ep_take(struct tas_ep *ep, const struct tas_ep_part *p); /* from now on this is its memory; what it had goes */
void tas__part_drop(struct tas_ep_part *p, bool tell);
int tas__ep_number(struct tas_ep *ep);
uint32_t tas__ep_item_new(struct tas_ep *ep); /* 0: none */
void tas__ep_item_begin(struct tas_ep *ep, uint32_t x); /* it is filled */
void tas__ep_item_end(struct tas_ep *ep, uint32_t x);
uint32_t tas__ep_find(struct tas_ep *ep, const struct tas_obj *o, int fd); /* 0: no such member */
bool tas__ep_other(struct tas_ep *ep, const struct tas_obj *o, uint32_t but); /* o under another number */
void tas__ep_ready_first(struct tas_ep *ep, uint32_t x); /* it is on the list: it becomes the first */
void tas__ep_ready_all(struct tas_ep *ep, uint32_t flags);
bool tas__ep_pending(struct tas_ep *ep);
void tas__ep_ring(struct tas_ep *ep);
void tas__ep_drain(struct tas_ep *ep);

/* ---- epoll_bells.c, under the set's lock ---- */
void tas__ep_bells_look(struct tas_ep *ep); /* bells (direct peers' way to reach the set) come and go */
void tas__ep_bells_map(struct tas_ep *ep);  /* those that it has not seen before; without the lock */
static inline bool tas__ep_bells_news(struct tas_ep *ep)
{
	return __builtin_expect(atomic_load_explicit(&ep->p.m->head.bell_seq, memory_order_acquire) !=
						atomic_load_explicit(&ep->bell_seq, memory_order_relaxed) ||
					atomic_load_explicit(&ep->deaf, memory_order_relaxed), 0);
}
void tas__ep_bells_drop(struct tas_ep *ep);
void tas__ep_arm(struct tas_ep *ep); /* as tas__waiter_arm() */
/* The same for a thread that sleeps on what is returned as well, if that is not -1. */
int tas__ep_arm_hearing(struct tas_ep *ep);
void tas__ep_disarm(struct tas_ep *ep); /* nobody sleeps: direct peers need not ring */
bool tas__ep_armed(struct tas_ep *ep); /* nobody has rung since */

/* ---- epoll_ahead.c, under the set's lock ---- */
enum { TAS_EP_MANY = 1024, TAS_EP_AHEAD = 64 };
static inline bool tas__ep_many(const struct tas_ep *ep)
{
	return atomic_load_explicit(&ep->p.m->head.n_items, memory_order_relaxed) > TAS_EP_MANY;
}
/* Fetches what the members in these buckets will touch of the set's memory into the cache. */
void tas__ep_ahead_items(struct tas_ep *ep, const uint16_t *bucket, uint32_t n);
/* The same of the sockets behind x and TAS_EP_AHEAD - 1 more of the ready list. */
void tas__ep_ahead(struct tas_ep *ep, uint32_t x);

/* ---- epoll_share.c ---- */
bool tas__ep_need(struct tas_ep *ep, struct tas_session *ss); /* under both locks: has memory, of this session if it can be had */
void tas__part_end(struct tas_ep_part *p); /* nobody is in it any more; table lock */
bool tas__ep_met(struct tas_ep *ep, uint64_t token); /* this was found in the kernel's set; takes locks */
struct tas_line {
	int fd;
	uint32_t events;
	uint64_t data, ino;
};
/* Every member of the kernel's set, until fn says true. */
bool tas__ep_lines(int epfd, bool (*fn)(const struct tas_line *l, void *arg), void *arg);
struct tas_ep *tas__ep_adopt(int fd, bool shared, int *err);

/* ---- epoll.c ---- */
/* Takes locks: finds or ends items that are odd; not all: those that a call has met and not reported. */
void tas__ep_tidy(struct tas_ep *ep, bool all);
int tas__ep_khalf(struct tas_ep *ep, const struct tas_member *m, int op, uint32_t events);

/* ---- epoll_wait.c, under the set's lock ---- */
/* Lets whoever else waits for the set hear of what is there now, or of the next event.  event: something happened just now. */
void tas__ep_announce(struct tas_ep *ep, bool event);
/* An item was put on the ready list: somebody waits for this set and should look again. */
void tas__ep_wake(struct tas_ep *ep);
/* Takes the lock.  Ours out of *n events of the kernel's; false: what rang is of a service that has gone. */
bool tas__ep_sort(struct tas_ep *ep, struct epoll_event *ev, int *n);
/* Events that a set in the set gave though no member of its is ready go; how many are left.  Takes locks. */
int tas__ep_drop_silent(int epfd, struct epoll_event *ev, int n);
/* A bell among events of the kernel's: there is a member of TAS, or was. */
bool tas__ep_rang(struct tas_ep *ep, const struct epoll_event *ev, int n);

static inline int tas__epoll_ctl_raw(int ep, int op, int fd, struct epoll_event *ev)
{
	return (int)sys4(SYS_epoll_ctl, ep, op, fd, SYS_P(ev));
}

static inline int tas__epoll_wait_raw(int ep, struct epoll_event *ev, int max, const struct timespec *ts,
				      const sigset_t *mask)
{
	return (int)tas__sleep6(SYS_epoll_pwait2, ep, SYS_P(ev), max, SYS_P(ts), SYS_P(mask), 8);
}

static inline int tas__epoll_look_raw(int ep, struct epoll_event *ev, int max)
{
	struct timespec none = {0, 0};

	return (int)sys6(SYS_epoll_pwait2, ep, SYS_P(ev), max, SYS_P(&none), 0, 8);
}

#endif
