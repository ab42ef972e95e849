// SPDX-License-Identifier: MIT
/*
 * epoll.  A look (no timeout) at a set that has no member of TAS and is this process's alone is libc's own call.  Who is going to sleep
 * goes to the client library, which counts him: the set may get its first such member meanwhile, and its bell would wake him.  libc's
 * call could not be counted, since a thread that is cancelled in it does not come back.
 */
#include "preload.h"
#include "raw.h"

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
	if (tas__passive())
		return tas__real.epoll_ctl(ep, op, fd, ev);
	/* of a set's first kernel member, and of sets in sets, the client library has to hear */
	if (tas__kernel(fd) && tas_epoll_has_kernel(ep))
		return tas__real.epoll_ctl(ep, op, fd, ev);
	return (int)tas__result(tas_epoll_ctl(ep, op, fd, ev));
}

int tas__w_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev)
{
	if (likely(tas__kernel(fd) && (tas__kernel(ep) || (op != EPOLL_CTL_ADD && tas_fd_states[ep] == TAS_FD_EPOLL))))
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

static __attribute__((noinline)) int own_pwait(int ep, struct epoll_event *ev, int max, int ms, const sigset_t *mask)
{
	struct tas_ep *set = ms ? NULL : tas_epoll_kernels_own(ep);
	int n;

	if (!set)
		return slow_pwait(ep, ev, max, ms, mask);
	n = tas__real.epoll_pwait(ep, ev, max, 0, mask);
	return likely(n <= 0) || tas__passive() ? n : tas_epoll_programs(set, ep, ev, n);
}

static __attribute__((noinline)) int own_wait(int ep, struct epoll_event *ev, int max, int ms)
{
	struct tas_ep *set = ms ? NULL : tas_epoll_kernels_own(ep);
	int n;

	if (!set)
		return slow_pwait(ep, ev, max, ms, NULL);
	n = tas__real.epoll_wait(ep, ev, max, 0);
	return likely(n <= 0) || tas__passive() ? n : tas_epoll_programs(set, ep, ev, n);
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
