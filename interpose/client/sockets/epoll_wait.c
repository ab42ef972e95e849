/* SPDX-License-Identifier: MIT */
/*
 * epoll_wait.  A set without TAS members waits in the kernel with the caller's own arguments.  Otherwise: take socket
 * ids out of the ready bitmap, put their items on the ready list, report what is ready; level-triggered items stay on
 * the list until they are found not ready.  Then the kernel's members, without waiting.  Nothing at all: spin a little,
 * then sleep in ppoll on the set's own descriptor (kernel members) and the wait set's eventfd (TAS members).
 */
#include "sockets/ep.h"

enum { EVENTS_MAX = INT32_MAX / (int)sizeof(struct epoll_event), DRAIN = 64, BLIND_NS = 2000000 };

/* ---- TAS members, under the set's lock ---- */
static void drain_bitmap(struct tas_ep *ep)
{
	uint32_t id[DRAIN], n;
	struct tas_session *ss = ep->w.ss;

	if (!ss)
		return;
	do {
		n = tas_bitmap_drain(&ss->r->ready[ep->w.index], id, DRAIN);
		for (uint32_t k = 0; k < n; k++)
			for (struct tas_item *i = tas__ep_items(ep, id[k]); i; i = i->hash_next)
				if (i->id == id[k])
					tas__ep_ready(ep, i);
	} while (n == DRAIN);
}

/* Loaded before readiness is judged: what comes in between counts as news next time. */
static struct tas_seen see(const struct tas_block *b)
{
	struct tas_seen n;

	n.in = atomic_load_explicit(&b->s.ev_in, memory_order_acquire);
	n.out = atomic_load_explicit(&b->s.ev_out, memory_order_acquire);
	n.rx = atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire);
	n.flags = atomic_load_explicit(&b->s.flags, memory_order_acquire);
	n.error = atomic_load_explicit(&b->s.error, memory_order_acquire);
	n.state = atomic_load_explicit(&b->s.state, memory_order_acquire);
	return n;
}

/* Does an edge-triggered item have news since it was reported?  Linux passes an event on only to members that ask for
 * it. */
static bool has_edge(struct tas_item *i, const struct tas_seen *now, uint32_t revents)
{
	const struct tas_seen *was = &i->seen;
	uint32_t lowat = atomic_load_explicit(&i->o->b->a.rcvlowat, memory_order_relaxed);
	/* Linux, tcp_data_ready(): bytes are no event before there are enough */
	bool data = now->rx != was->rx && (lowat < 2 || (revents & EPOLLIN) || tas__rx_avail(i->o->b) >= lowat);
	bool in = now->in != was->in && (data || now->flags != was->flags || now->error != was->error ||
					 now->state != was->state);
	bool out = now->out != was->out;

	if (revents & (EPOLLERR | EPOLLHUP))
		return in || out;
	return (in && (i->events & (EPOLLIN | EPOLLRDNORM | EPOLLRDHUP | EPOLLPRI))) ||
	       (out && (i->events & (EPOLLOUT | EPOLLWRNORM)));
}

/* One item of the ready list.  True: *ev is filled. */
static bool report(struct tas_ep *ep, struct tas_item *i, struct epoll_event *ev)
{
	struct tas_seen now = see(tas__block(i->o));
	uint32_t r;

	tas__ep_unready(i);
	if (i->flags & TAS_IT_OFF)
		return false;
	r = tas__obj_ready(i->o) & (i->events | EPOLLERR | EPOLLHUP);
	if (!r) {
		if (i->flags & TAS_IT_FORCE) /* a new member: what comes from here on is news */
			i->seen = now;
		i->flags &= ~(uint32_t)TAS_IT_FORCE;
		return false;
	}
	if ((i->events & EPOLLET) && !(i->flags & TAS_IT_FORCE) && !has_edge(i, &now, r))
		return false;
	i->flags &= ~(uint32_t)TAS_IT_FORCE;
	i->seen = now;
	i->stamp = ep->stamp;
	ev->events = r;
	ev->data = i->data;
	if (i->events & EPOLLONESHOT) {
		i->flags |= TAS_IT_OFF;
		if (i->flags & TAS_IT_KHALF)
			tas__ep_khalf(ep, i, EPOLL_CTL_MOD, EPOLLONESHOT);
	} else if (!(i->events & EPOLLET)) {
		tas__ep_ready(ep, i); /* level: stays until found not ready */
	}
	return true;
}

static int take_tas(struct tas_ep *ep, struct epoll_event *ev, int max)
{
	int n = 0;

	while (n < max) {
		struct tas_item *i = ep->ready.ready_next;

		if (i == &ep->ready || i->stamp == ep->stamp)
			break; /* the end, or where this call began to put level-triggered items back */
		if (report(ep, i, &ev[n]))
			n++;
	}
	return n;
}

/* ---- kernel members ---- */
/* Our own members among n kernel events: kernel halves of listeners become events of theirs, the rest goes. */
static int sort_kernel(struct tas_ep *ep, struct epoll_event *ev, int n)
{
	int kept = 0;

	for (int k = 0; k < n; k++) {
		uint32_t index;
		struct tas_item *i;

		if (!tas__is_mark(ev[k].data.u64, &index)) {
			ev[kept++] = ev[k];
			continue;
		}
		i = tas__item_at(index);
		if (!i || i->ep != ep || !(i->flags & TAS_IT_KHALF) || (i->flags & TAS_IT_OFF) || i->stamp == ep->stamp)
			continue; /* an alarm, a stale half, or reported by its TAS half already */
		i->stamp = ep->stamp;
		if (i->events & EPOLLONESHOT)
			i->flags |= TAS_IT_OFF;
		ev[kept].events = ev[k].events;
		ev[kept++].data = i->data;
	}
	return kept;
}

static int take_kernel(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max)
{
	int r;

	if (max <= 0 || !atomic_load(&ep->kernel))
		return 0;
	r = tas__epoll_look_raw(epfd, ev, max);
	return r > 0 ? sort_kernel(ep, ev, r) : r == -EINTR ? 0 : r;
}

/* The service of the wait set's session died, or there is no wait set: look at every member. */
static void look_at_all(struct tas_ep *ep)
{
	if (ep->w.ss && tas__alive(ep->w.ss))
		return;
	if (!ep->w.ss) {
		for (uint32_t k = 0; k < ep->n_buckets; k++)
			for (struct tas_item *i = ep->bucket[k]; i; i = i->hash_next) {
				if (!ep->w.ss && tas__alive(i->o->ss))
					tas__ep_ensure(ep, i->o->ss);
				tas__ep_ready(ep, i);
			}
	} else if (!ep->death_seen) {
		ep->death_seen = true;
		tas__ep_force_all(ep);
	}
}

/* Everything that is ready now, TAS and kernel members sharing the room.  Number of events, or -errno. */
static int collect(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max)
{
	uint64_t mask = tas__ep_lock(ep);
	bool kernel = atomic_load(&ep->kernel);
	int lim = !kernel ? max : max > 1 ? max - max / 4 : (int)(ep->turn++ & 1), n, k;

	ep->stamp++;
	look_at_all(ep);
	drain_bitmap(ep);
	n = take_tas(ep, ev, lim);
	k = take_kernel(ep, epfd, ev + n, max - n);
	if (k > 0)
		n += k;
	if (n < max && lim < max)
		n += take_tas(ep, ev + n, max - n);
	tas__ep_unlock(ep, mask);
	return !n && k < 0 ? k : n;
}

/* ---- waiting ---- */
/* Listeners among the members whose service has gone look for the next one. */
static void revive(struct tas_ep *ep)
{
	int fd[16], n = 0;
	uint64_t mask;

	/* a set made while no service was there has no session: its listeners look too */
	if (!atomic_load(&ep->n_listen) || (ep->w.ss && tas__alive(ep->w.ss)))
		return;
	mask = tas__ep_lock(ep);
	for (uint32_t k = 0; k < ep->n_buckets; k++)
		for (struct tas_item *i = ep->bucket[k]; i && n < 16; i = i->hash_next)
			if ((i->flags & TAS_IT_KHALF) && !tas__alive(i->o->ss))
				fd[n++] = i->fd;
	tas__ep_unlock(ep, mask);
	while (n--) {
		struct tas_obj *o = tas__obj_get(fd[n]);

		if (o && atomic_load(&o->kind) == TAS_OBJ_LISTEN)
			tas__listener_revive(o, fd[n]);
		if (o)
			tas__obj_put(o);
	}
}

static int ep_sleep(struct tas_ep *ep, int epfd, uint64_t end, const sigset_t *mask, struct tas_sig_mark m)
{
	struct pollfd p[3] = {{.fd = epfd, .events = POLLIN}, {.fd = -1, .events = POLLIN}, {.fd = -1}};
	struct tas_session *ss;
	struct tas_waiter w;
	struct timespec ts;
	uint64_t cap = BLIND_NS, sig = tas__ep_lock(ep);
	int r = 0;

	w = ep->w; /* the set may get another while we sleep: keep the session */
	ss = w.ss;
	if (ss) {
		tas__session_ref(ss);
		p[1].fd = w.fd;
		p[2].fd = tas__alive(ss) ? atomic_load(&ss->ctl) : -1;
		cap = tas__alive(ss) || !atomic_load(&ep->n_listen) ? UINT64_MAX : TAS_REVIVE_MS * 1000000ull;
	} else if (!(ss = tas__session_get())) { /* no service: nothing but a next one to look for */
		cap = TAS_REVIVE_MS * 1000000ull;
	} else {
		tas__session_put(ss);
		ss = NULL;
	}
	atomic_fetch_add(&ep->sleepers, 1);
	tas__ep_unlock(ep, sig);
	if (ss)
		tas__waiter_arm(&w);
	if (!tas__ep_pending(ep))
		r = tas__ppoll(p, 3, tas__left(end, cap, &ts), mask, m, false, p[1].fd);
	atomic_fetch_sub(&ep->sleepers, 1);
	if (ss) {
		if (p[1].revents & POLLIN) {
			atomic_store(&ep->rung, false);
			tas__waiter_drain(&w);
		}
		if (p[2].revents & (POLLHUP | POLLERR))
			tas__session_died(ss);
		tas__session_put(ss);
	}
	return r < 0 ? r : 0;
}

/* Puts members off the ready list that have nothing to report; true if one is left. */
static bool settle(struct tas_ep *ep)
{
	struct tas_item *i, *next;

	drain_bitmap(ep);
	for (i = ep->ready.ready_next; i != &ep->ready; i = next) {
		struct tas_seen now = see(tas__block(i->o));
		uint32_t r = tas__obj_ready(i->o) & (i->events | EPOLLERR | EPOLLHUP);

		next = i->ready_next;
		if ((i->flags & TAS_IT_OFF) || !r ||
		    ((i->events & EPOLLET) && !(i->flags & TAS_IT_FORCE) && !has_edge(i, &now, r)))
			tas__ep_unready(i);
	}
	return ep->ready.ready_next != &ep->ready;
}

/* Lets whoever else waits for the set hear of what is there now, or of the next event. */
void tas__ep_announce(struct tas_ep *ep)
{
	struct tas_session *ss = ep->w.ss;

	if (!ss)
		return;
	/* a set that is exposed is always armed, unless the service rang */
	if (atomic_load(&ep->exposed) && !atomic_load(&ss->r->ws[ep->w.index].sleeping))
		atomic_store(&ep->rung, true);
	tas__waiter_arm(&ep->w);
	if (settle(ep) || (!ep->death_seen && !tas__alive(ss))) {
		/* rings once: every time is an event for an edge-triggered set around this one */
		if (!atomic_exchange(&ep->rung, true) || atomic_load(&ep->sleepers))
			tas__waiter_signal(&ep->w);
	} else if (atomic_load(&ep->rung)) {
		tas__ep_unring(ep);
		tas__waiter_arm(&ep->w);
		if (settle(ep) && !atomic_exchange(&ep->rung, true))
			tas__waiter_signal(&ep->w);
	}
}

/* Whoever goes with events leaves the others able to hear the next one. */
static void leave(struct tas_ep *ep)
{
	uint64_t mask;

	if (!atomic_load(&ep->sleepers) && !atomic_load(&ep->exposed))
		return;
	mask = tas__ep_lock(ep);
	tas__ep_announce(ep);
	tas__ep_unlock(ep, mask);
}

/* inline: its other caller is rare */
static inline __attribute__((always_inline)) int wait_mixed(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max, uint64_t end, const sigset_t *mask)
{
	struct tas_sig_mark sig = tas__sig_mark();
	struct tas_spin spin = {0};
	int n;

	if (atomic_load(&ep->exposed) && ep->w.ss)
		tas__ep_unring(ep);
	for (;;) {
		revive(ep);
		if (ep->nests)
			tas__ep_refresh_all();
		n = collect(ep, epfd, ev, max);
		if (!n && !end && ep->near && ep->w.ss && tas__settle(ep->w.ss))
			n = collect(ep, epfd, ev, max);
		if (n) {
			if (n > 0)
				atomic_store_explicit(&ep->active, tas__tsc(), memory_order_relaxed);
			break;
		}
		if (!end || (end != UINT64_MAX && tas__now() >= end))
			break;
		if (tas__sig_came(sig, false)) {
			n = -EINTR;
			break;
		}
		if (ep->w.ss && tas__spin(ep->w.ss, &spin, atomic_load_explicit(&ep->active, memory_order_relaxed)))
			continue;
		n = ep_sleep(ep, epfd, end, mask, sig);
		if (n < 0)
			break;
	}
	leave(ep);
	return n;
}

/* Events, and no memory to put them: Linux says so when one comes, which stays. */
static __attribute__((noinline)) int wait_nowhere(struct tas_ep *ep, int epfd, uint64_t end, const sigset_t *mask)
{
	struct epoll_event ev;
	int r = wait_mixed(ep, epfd, &ev, 1, end, mask);
	uint64_t sig;

	if (r <= 0)
		return r;
	sig = tas__ep_lock(ep);
	for (uint32_t k = 0; k < ep->n_buckets; k++) {
		for (struct tas_item *i = ep->bucket[k]; i; i = i->hash_next) {
			if (i->stamp != ep->stamp)
				continue;
			i->flags = (i->flags & ~(uint32_t)TAS_IT_OFF) | TAS_IT_FORCE;
			tas__ep_ready(ep, i);
		}
	}
	tas__ep_unlock(ep, sig);
	return -EFAULT;
}

static bool any_mark(const struct epoll_event *ev, int n)
{
	uint32_t index;

	for (int k = 0; k < n; k++)
		if (tas__is_mark(ev[k].data.u64, &index))
			return true;
	return false;
}

/* No TAS member: the kernel alone, unless the first one comes while we sleep (then 0, early). */
static int wait_raw(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max, uint64_t end, const sigset_t *mask)
{
	struct timespec ts;
	uint64_t sig;
	bool alarm;
	int r;

	do {
		if (ep->nests)
			tas__ep_refresh_all();
		atomic_fetch_add(&ep->raw_waiters, 1);
		r = atomic_load(&ep->n_tas) ? 0
					    : tas__epoll_wait_raw(epfd, ev, max, tas__left(end, UINT64_MAX, &ts), mask);
		alarm = r > 0 && any_mark(ev, r);
		if (atomic_fetch_sub(&ep->raw_waiters, 1) != 1 && !alarm)
			break;
		if (!alarm && __atomic_load_n(&ep->kick_fd, __ATOMIC_RELAXED) < 0)
			break;
		sig = tas__ep_lock(ep);
		if (!atomic_load(&ep->raw_waiters))
			tas__ep_unkick(ep);
		if (alarm) {
			ep->stamp++;
			r = sort_kernel(ep, ev, r);
			if (!r && ep->w.ss)
				tas__ep_unring(ep); /* only our own alarm rang */
		}
		tas__ep_unlock(ep, sig);
	} while (alarm && !r && !atomic_load(&ep->n_tas));
	return r;
}

static bool bad_time(const struct timespec *t)
{
	return t && (t->tv_sec < 0 || (unsigned long)t->tv_nsec > 999999999);
}

int tas_epoll_pwait2(int epfd, struct epoll_event *ev, int max, const struct timespec *timeout, const sigset_t *mask)
{
	struct tas_ep *ep = tas__ep_get(epfd);
	uint64_t end;
	int r;

	if (!ep)
		return tas__epoll_wait_raw(tas__raw(epfd), ev, max, timeout, mask);
	if (max <= 0 || max > EVENTS_MAX || bad_time(timeout) || (mask && tas__wild(mask)) || (tas__wild(ev) && !atomic_load(&ep->n_tas))) {
		r = tas__epoll_wait_raw(epfd, ev, max, timeout, mask); /* the kernel says what is wrong */
		goto out;
	}
	end = timeout && !timeout->tv_sec && !timeout->tv_nsec ? 0 : tas__deadline(timeout);
	if (!atomic_load(&ep->n_tas)) {
		r = wait_raw(ep, epfd, ev, max, end, mask);
		if (r || !atomic_load(&ep->n_tas))
			goto out;
	}
	r = tas__wild(ev) ? wait_nowhere(ep, epfd, end, mask) : wait_mixed(ep, epfd, ev, max, end, mask);
out:
	tas__ep_put(ep);
	return r;
}
