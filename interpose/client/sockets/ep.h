/* SPDX-License-Identifier: MIT */
/*
 * Epoll sets: what epoll.c (membership) and epoll_wait.c (waiting) share.
 *
 * The program's descriptor is a real epoll set of the kernel's.  It holds the kernel members with the program's data,
 * PLAIN members likewise (they move here when they become TAS), and the kernel halves of TAS listeners under a marker.
 * TAS members are items here: keyed (object, number), found by socket id when the service marks the ready bitmap of the
 * set's wait set.
 *
 * A set without TAS members is left to the kernel entirely.
 */
#ifndef TAS_EP_H
#define TAS_EP_H

#include "sockets/sock.h"

/* tas_item.flags, under the set's lock */
enum {
	TAS_IT_TAS = 1u << 0, /* user-level item; else a PLAIN member of the kernel's set */
	TAS_IT_READY = 1u << 1, /* on the ready list */
	TAS_IT_FORCE = 1u << 2, /* report if ready, whatever the event sequences say (added, modified, service died) */
	TAS_IT_OFF = 1u << 3, /* EPOLLONESHOT has fired */
	TAS_IT_KHALF = 1u << 4, /* listener: its backing socket is in the kernel's set under our marker */
};

/* What an edge-triggered item compares.  The event sequences say that something happened; the service may raise them a
 * moment after the state is visible (once for a batch), so an input edge also needs state that differs. */
struct tas_seen {
	uint32_t in, out; /* event sequences */
	uint64_t rx; /* rx_delivered */
	uint32_t flags, error, state;
};

struct tas_item {
	struct tas_obj *o;
	struct tas_ep *ep; /* NULL: free */
	int fd;
	uint32_t index; /* of this item, for markers; constant */
	uint32_t id; /* socket id it is hashed under */
	uint32_t events, flags;
	epoll_data_t data;
	struct tas_seen seen; /* at the last report */
	uint64_t stamp; /* wait call that reported it */
	struct tas_item *hash_next;
	struct tas_item *obj_next; /* tas_obj.items; table lock */
	struct tas_item *ready_next, *ready_prev;
	struct tas_item *free;
};

struct tas_ep {
	_Atomic uint32_t refs;
	struct tas_mutex lock; /* taken with signals blocked */
	int fd; /* a number of it; tas__ep_number() */
	struct tas_waiter w; /* w.ss NULL: none (yet) */
	_Atomic uint32_t n_tas, n_listen;
	_Atomic bool kernel; /* has or had members in the kernel's set */
	_Atomic bool exposed; /* something else waits for the set's descriptor */
	bool exposed_in; /* the wait set's eventfd is in the kernel's set */
	bool nests; /* another set is a member */
	_Atomic bool rung; /* the wait set's eventfd was written, and not read since */
	bool near; /* has had a member whose other end may be ours as well */
	bool inherited; /* came through a fork: the kernel's set is shared with the parent */
	bool death_seen; /* everything was forced since the service of w.ss died */
	_Atomic uint32_t sleepers, raw_waiters;
	int kick_fd; /* -1; else an eventfd in the kernel's set that wakes raw waiters */
	uint64_t stamp;
	uint32_t turn;
	_Atomic uint64_t active;
	struct tas_item **bucket;
	uint32_t n_buckets; /* power of two */
	struct tas_item ready; /* head of the ready list */
	struct tas_ep *next, *free;
};

/* Data of our own members in the kernel's set: a random prefix and an item's index. */
enum { TAS_MARK_KICK = 0xfffffe, TAS_MARK_WAKE = 0xffffff };
uint64_t tas__mark(uint32_t index);
bool tas__is_mark(uint64_t data, uint32_t *index);
struct tas_item *tas__item_at(uint32_t index); /* NULL: beyond the last one */
/* Under the table lock. */
struct tas_item *tas__item_new(void);
void tas__item_free(struct tas_item *i);
struct tas_ep *tas__ep_new(int fd);
void tas__ep_recycle(struct tas_ep *ep);

uint64_t tas__ep_lock(struct tas_ep *ep);
void tas__ep_unlock(struct tas_ep *ep, uint64_t mask);

/* Under the set's lock. */
int tas__ep_number(struct tas_ep *ep);
bool tas__ep_ensure(struct tas_ep *ep, struct tas_session *ss); /* has a wait set of this session */
void tas__ep_ready(struct tas_ep *ep, struct tas_item *i); /* puts it on the ready list */
void tas__ep_unready(struct tas_item *i);
bool tas__ep_hash_add(struct tas_ep *ep, struct tas_item *i);
void tas__ep_hash_del(struct tas_ep *ep, struct tas_item *i);
struct tas_item *tas__ep_items(struct tas_ep *ep, uint32_t id); /* bucket to walk by hash_next, comparing id */
bool tas__ep_fired(int epfd, int fd); /* a one-shot member of the kernel's set that has had its event */
void tas__ep_force_all(struct tas_ep *ep);
int tas__ep_khalf(struct tas_ep *ep, struct tas_item *i, int op, uint32_t events);
bool tas__ep_pending(struct tas_ep *ep); /* without lock as well */
/* Somebody waits for this set and should look again. */
void tas__ep_wake(struct tas_ep *ep);
void tas__ep_announce(struct tas_ep *ep);
void tas__ep_unring(struct tas_ep *ep); /* without lock as well */
void tas__ep_unkick(struct tas_ep *ep);

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
