// SPDX-License-Identifier: MIT
/*
 * Sets that the kernel knows alone, for the interposer, which leaves looks at them to libc.
 *
 * No reference is taken: memory of a set stays that of a set when it is closed, and what is read of it only chooses a way.
 */
#include "sockets/ep.h"

static inline struct tas_ep *set_of(int fd)
{
	struct tas_entry *e = tas__state(fd) == TAS_FD_EPOLL ? tas__entry(fd) : NULL;
	struct tas_ep *ep = e ? atomic_load_explicit(&e->p, memory_order_acquire) : NULL;

	/* the number may have become a socket's in between */
	return ep && tas__state(fd) == TAS_FD_EPOLL ? ep : NULL;
}

struct tas_ep *tas_epoll_kernels_own(int fd)
{
	struct tas_ep *ep = set_of(fd);

	return ep && !ep->shared && !ep->nests && !tas__ep_head(ep) ? ep : NULL;
}

bool tas_epoll_has_kernel(int fd)
{
	struct tas_ep *ep = set_of(fd);

	return ep && ep->kernel;
}

int tas_epoll_programs(struct tas_ep *set, int fd, struct epoll_event *ev, int n)
{
	struct tas_ep *now;

	if (n <= 0 || !tas__ep_head(set))
		return n;
	now = tas__ep_get(fd);
	if (now && now == set && tas__ep_rang(set, ev, n))
		tas__ep_sort(set, ev, &n);
	if (now)
		tas__ep_put(now);
	return n;
}
