// SPDX-License-Identifier: MIT
/*
 * epoll.  Of a set that has no member of TAS and is this process's alone the kernel knows everything, so libc's own call is made.
 * But the set may get its first such member at any moment: who is going to sleep is counted, so that this wakes him, and who comes
 * back with events looks whether it has happened meanwhile; then one of them may be the set's own bell, not the program's.
 */
#include <time.h>

#include "preload.h"
#include "raw.h"
#include "sockets/ep.h"

/* The set of a number, if the kernel knows all of it up to now.  It may be closed at any time: its memory stays that of a set. */
static inline __attribute__((always_inline)) struct tas_ep *set_of(int fd)
{
	struct tas_entry *e = tas__entry(fd);
	struct tas_ep *set = e ? atomic_load_explicit(&e->p, memory_order_acquire) : NULL;

	return set && tas__state(fd) == TAS_FD_EPOLL ? set : NULL;
}

static inline __attribute__((always_inline)) struct tas_ep *kernels_own(int fd)
{
	struct tas_ep *set = tas__state(fd) == TAS_FD_EPOLL ? set_of(fd) : NULL;

	return set && !set->shared && !set->nests && !tas__ep_head(set) ? set : NULL;
}

/* A call that may sleep.  The count stays raised when the thread is cancelled in it: then the set rings once more than it must. */
#define ASLEEP(set, call) \
	({ \
		int in_ = 0; \
\
		atomic_fetch_add(&(set)->raw_waiters, 1); \
		if (likely(!tas__ep_head(set))) \
			in_ = (call); \
		atomic_fetch_sub(&(set)->raw_waiters, 1); \
		in_; \
	})

struct wait {
	int ep;
	struct epoll_event *ev;
	int max, ms;
	const sigset_t *mask;
	struct timespec start;
};

static void left(const struct wait *w, struct timespec *ts)
{
	struct timespec now;
	int64_t ns;

	clock_gettime(CLOCK_MONOTONIC, &now);
	ns = w->ms * 1000000ll - (now.tv_sec - w->start.tv_sec) * 1000000000ll - (now.tv_nsec - w->start.tv_nsec);
	if (ns < 0)
		ns = 0;
	ts->tv_sec = ns / 1000000000;
	ts->tv_nsec = ns % 1000000000;
}

/* The set got a member of TAS while the kernel gave n events. */
static __attribute__((noinline)) int go_on(struct tas_ep *set, int n, const struct wait *w)
{
	struct timespec ts = {0, 0};

	if (n < 0 || tas__passive())
		return n;
	if (n > 0)
		n = tas__ep_programs(set, w->ep, w->ev, n);
	if (n)
		return n;
	if (w->ms > 0)
		left(w, &ts);
	return (int)tas__result(CP(tas_epoll_pwait2(w->ep, w->ev, w->max, w->ms < 0 ? NULL : &ts, w->mask)));
}

int tas__w_epoll_create(int size)
{
	if (unlikely(!tas__ready))
		tas__start();
	if (tas__passive() || size <= 0)
		return tas__real.epoll_create(size);
	return (int)tas__result(tas_epoll_create1(0));
}

int tas__w_epoll_create1(int flags)
{
	if (unlikely(!tas__ready))
		tas__start();
	if (tas__passive())
		return tas__real.epoll_create1(flags);
	return (int)tas__result(tas_epoll_create1(flags));
}

static __attribute__((noinline)) int slow_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	struct tas_ep *set;

	if (tas__passive())
		return tas__real.epoll_ctl(ep, op, fd, ev);
	/* of a set's first kernel member, and of sets in sets, the client library has to hear */
	if (tas__kernel(fd) && tas__state(ep) == TAS_FD_EPOLL && (set = set_of(ep)) && set->kernel)
		return tas__real.epoll_ctl(ep, op, fd, ev);
	return (int)tas__result(tas_epoll_ctl(ep, op, fd, ev));
}

int tas__w_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	if (likely(tas__kernel(fd) && (tas__kernel(ep) || (op != EPOLL_CTL_ADD && tas__state(ep) == TAS_FD_EPOLL))))
		return tas__real.epoll_ctl(ep, op, fd, ev);
	return slow_ctl(ep, op, fd, ev);
}

int tas__epoll_pwait(int ep, struct epoll_event *ev, int max, int ms, const sigset_t *mask)
{
	struct timespec ts;

	return tas_epoll_pwait2(ep, ev, max, tas__from_ms(ms, &ts), mask);
}

static __attribute__((noinline)) int slow_pwait(int ep, struct epoll_event *ev, int max, int ms, const sigset_t *mask)
{
	if (tas__passive())
		return tas__real.epoll_pwait(ep, ev, max, ms, mask);
	return (int)tas__result(CP(tas__epoll_pwait(ep, ev, max, ms, mask)));
}

/* libc's call, with or without a mask: what the rare case needs is put together there. */
#define OWN_WAIT(real_wait, the_mask) \
	({ \
		struct tas_ep *set = kernels_own(ep); \
		struct timespec start; \
		int r_; \
\
		if (unlikely(!set)) \
			return slow_pwait(ep, ev, max, ms, the_mask); \
		if (ms > 0) \
			clock_gettime(CLOCK_MONOTONIC, &start); \
		r_ = ms ? ASLEEP(set, real_wait) : real_wait; \
		if (unlikely(tas__ep_head(set) != NULL)) { \
			struct wait w = {ep, ev, max, ms, the_mask, ms > 0 ? start : (struct timespec){0, 0}}; \
\
			r_ = go_on(set, r_, &w); \
		} \
		r_; \
	})

static __attribute__((noinline)) int own_pwait(int ep, struct epoll_event *ev, int max, int ms, const sigset_t *mask)
{
	return OWN_WAIT(tas__real.epoll_pwait(ep, ev, max, ms, mask), mask);
}

static __attribute__((noinline)) int own_wait(int ep, struct epoll_event *ev, int max, int ms)
{
	return OWN_WAIT(tas__real.epoll_wait(ep, ev, max, ms), NULL);
}

int tas__w_epoll_wait(int ep, struct epoll_event *ev, int max, int ms)
{
	if (likely(tas__kernel(ep)))
		return tas__real.epoll_wait(ep, ev, max, ms);
	return own_wait(ep, ev, max, ms);
}

static __attribute__((noinline)) int masked_pwait(int ep, struct epoll_event *ev, int max, int ms, const sigset_t *mask)
{
	sigset_t room;

	mask = tas__mask(mask, &room);
	return tas__kernel(ep) ? tas__real.epoll_pwait(ep, ev, max, ms, mask) : own_pwait(ep, ev, max, ms, mask);
}

int tas__w_epoll_pwait(int ep, struct epoll_event *ev, int max, int ms, const sigset_t *mask)
{
	if (unlikely(mask && tas__raw_mode != TAS_RAW_OFF))
		return masked_pwait(ep, ev, max, ms, mask);
	if (likely(tas__kernel(ep)))
		return tas__real.epoll_pwait(ep, ev, max, ms, mask);
	return own_pwait(ep, ev, max, ms, mask);
}

int tas__w_epoll_pwait2(int ep, struct epoll_event *ev, int max, const struct timespec *timeout, const sigset_t *mask)
{
	sigset_t room;

	mask = tas__mask(mask, &room);
	if (likely(tas__kernel(ep)) || tas__passive())
		return tas__real.epoll_pwait2(ep, ev, max, timeout, mask);
	return (int)tas__result(CP(tas_epoll_pwait2(ep, ev, max, timeout, mask)));
}
