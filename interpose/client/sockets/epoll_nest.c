// SPDX-License-Identifier: MIT
/*
 * Epoll sets that something outside waits for: another set, poll, select.
 *
 * To the kernel such a set is readable while its bell rings.  The service rings for all news of a member, wanted or not, so
 * whoever looks from outside settles the bell first; an event of a set that then is silent is nobody's.
 */
#include "sockets/ep.h"

void tas__ep_expose(int fd)
{
	struct tas_ep *ep = tas__ep_get(fd);
	uint64_t mask;

	if (!ep)
		return;
	if (!ep->exposed) {
		mask = tas__ep_lock(ep);
		ep->exposed = true;
		if (ep->p.m) {
			/* armed, or the first announcement would think that the service has rung already */
			tas__ep_arm(ep);
			atomic_store(&ep->p.m->head.exposed, 1);
			tas__ep_announce(ep, false);
		}
		tas__ep_unlock(ep, mask);
	}
	tas__ep_put(ep);
}

static void refresh(struct tas_ep *ep)
{
	uint64_t mask;

	if (tas__ep_bells_news(ep))
		tas__ep_bells_map(ep);
	for (int i = 0; i < 2; i++) {
		mask = tas__ep_lock(ep);
		if (ep->p.m)
			tas__ep_announce(ep, false);
		tas__ep_unlock(ep, mask);
		if (!ep->odd)
			break;
		tas__ep_tidy(ep, true);
	}
}

static bool is_exposed(struct tas_ep *ep)
{
	struct tas_ep_head *h = tas__ep_head(ep);

	return h && atomic_load(&h->exposed) && ep->p.ss;
}

void tas__ep_refresh(int fd)
{
	struct tas_ep *ep = tas__ep_get(fd);

	if (!ep)
		return;
	if (ep->nests || ep->shared)
		tas__ep_refresh_all();
	else if (is_exposed(ep))
		refresh(ep);
	tas__ep_put(ep);
}

void tas__ep_refresh_all(void)
{
	for (struct tas_ep *ep = tas__ep_all(); ep; ep = ep->next) {
		if (!tas__ep_try_ref(ep))
			continue;
		if (is_exposed(ep))
			refresh(ep);
		tas__ep_put(ep);
	}
}

struct source {
	uint64_t data;
	bool silent, other;
};

/* A member of the outer set: could the event be its? */
static bool source_line(const struct tas_line *l, void *arg)
{
	struct pollfd p = {.fd = l->fd, .events = POLLIN};
	struct timespec none = {0, 0};
	struct source *s = arg;

	if (l->data != s->data)
		return false;
	/* one that has fired would have to be armed again */
	if (!(l->events & EPOLLONESHOT) && tas__state(l->fd) == TAS_FD_EPOLL && sys_ppoll(&p, 1, &none, NULL) == 0)
		s->silent = true;
	else
		s->other = true;
	return s->other;
}

int tas__ep_drop_silent(int epfd, struct epoll_event *ev, int n)
{
	int kept = 0;

	tas__ep_refresh_all();
	for (int k = 0; k < n; k++) {
		struct source s = {.data = ev[k].data.u64};

		if (ev[k].events == EPOLLIN)
			tas__ep_lines(epfd, source_line, &s);
		if (!s.silent || s.other)
			ev[kept++] = ev[k];
	}
	return kept;
}
