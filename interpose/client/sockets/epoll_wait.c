/* SPDX-License-Identifier: MIT */
/*
 * epoll_wait.  A set without TAS members waits in the kernel with the caller's own arguments.  Otherwise: put the items of the
 * buckets that the service marked on the ready list, report what is ready; level-triggered items stay on the list until they
 * are found not ready.  Then the kernel's members, without waiting.  Nothing at all: spin a little, then sleep in ppoll on the
 * set's own descriptor (kernel members), its eventfd (TAS members), which threads of all its processes share, and what its bells ring.
 *
 * The eventfd is a member of the kernel's set, too: who waits for the descriptor from outside (a set around it, poll, a process
 * that knows of no TAS member) hears it ring.
 */
#include "sockets/ep.h"

enum { EVENTS_MAX = INT32_MAX / (int)sizeof(struct epoll_event), BLIND_NS = 2000000 };
enum { MARKS = 256 /* taken at once */ };
enum { QUIET = 16, KERNEL_EVERY = 50000, KERNEL_SPIN = 12500 /* cycles, some 20 and 5 us */ };

/* When to stop: ns; 0: at once; UINT64_MAX: never; LATER: not asked for the time yet, which many calls never need. */
enum { LATER = 1 };

/* ---- TAS members, under the set's lock ---- */
/* What the peer has written: of all that were marked at once, not of one after the other. */
static inline void fetch_news(struct tas_ep *ep, uint32_t x)
{
	const struct tas_member *m = ep->cache[x];
	const struct tas_block *b = m && m->o ? atomic_load_explicit(&m->o->b, memory_order_relaxed) : NULL;

	if (b)
		__builtin_prefetch(&b->s);
}

/* What the program's recv() and its answer will touch that lies with the peer; old addresses do no harm. */
static inline void fetch_next(struct tas_obj *o)
{
	const void *out = atomic_load_explicit(&o->next_out, memory_order_relaxed);
	const struct tas_block *peer = atomic_load_explicit(&o->peer, memory_order_relaxed);

	__builtin_prefetch(atomic_load_explicit(&o->next_in, memory_order_relaxed));
	if (!peer)
		return;
	__asm__ volatile("prefetchw (%0)" : : "r"(&peer->s));
	__asm__ volatile("prefetchw (%0)" : : "r"(out));
}

/* Members whose sockets have these buckets go on the ready list. */
static inline void ready_buckets(struct tas_ep *ep, const uint16_t *bucket, uint32_t n)
{
	struct tas_ep_memory *m = ep->p.m;
	bool many = tas__ep_many(ep);

	if (many)
		tas__ep_ahead_items(ep, bucket, n);
	for (uint32_t k = 0; k < n; k++) {
		uint32_t x = m->bucket[bucket[k]];

		for (uint32_t left = m->head.used; x && left; x = tas__ep_item(ep, x)->hash_next, left--) {
			if (!many)
				fetch_news(ep, x & (TAS_EP_ITEMS - 1));
			tas__ep_ready(ep, x & (TAS_EP_ITEMS - 1));
		}
	}
}

static inline void take_marks(struct tas_ep *ep, _Atomic uint64_t *tops, _Atomic uint64_t words[TAS_EP_WORDS])
{
	uint16_t bucket[MARKS];
	uint32_t n = 0;
	uint64_t top, word;

	if (!atomic_load_explicit(tops, memory_order_relaxed))
		return;
	for (top = atomic_exchange(tops, 0); top; top &= top - 1) {
		uint32_t w = TAS_EP_TOP * (uint32_t)__builtin_ctzll(top);

		for (uint32_t end = w + TAS_EP_TOP; w < end; w++) {
			if (!atomic_load(&words[w]))
				continue;
			if (n > MARKS - 64) {
				ready_buckets(ep, bucket, n);
				n = 0;
			}
			for (word = atomic_exchange(&words[w], 0); word; word &= word - 1)
				bucket[n++] = (uint16_t)(w * 64 + (uint32_t)__builtin_ctzll(word));
		}
	}
	ready_buckets(ep, bucket, n);
}

static void drain_marks(struct tas_ep *ep)
{
	tas__ep_bells_look(ep);
	take_marks(ep, &ep->p.m->head.top, ep->p.m->head.word);
	for (uint32_t k = 0; k < ep->n_bells; k++)
		if (ep->bell[k])
			take_marks(ep, &ep->bell[k]->top, ep->bell[k]->word);
}

/* Loaded before readiness is judged: what comes in between counts as news next time.  The sequences of a block that was left behind
 * leap, and would make news of nothing. */
static inline struct tas_ep_seen see(struct tas_obj *o)
{
	const struct tas_block *b;
	struct tas_ep_seen n;

	do {
		b = tas__block(o);
		n.in = atomic_load_explicit(&b->s.ev_in, memory_order_acquire);
		n.out = atomic_load_explicit(&b->s.ev_out, memory_order_acquire);
		n.rx = atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire);
		n.flags = atomic_load_explicit(&b->s.flags, memory_order_acquire);
		n.error = atomic_load_explicit(&b->s.error, memory_order_acquire);
		n.state = atomic_load_explicit(&b->s.state, memory_order_acquire);
		n.shut = atomic_load_explicit(&b->a.shut, memory_order_acquire) & (TAS_SHUT_RD | TAS_SHUT_WR);
	} while (tas__moved(b));
	return n;
}

/* Does an edge-triggered item have news since it was reported?  Linux passes data on only to members that ask for it
 * (sk_data_ready), a change of state to all (sk_state_change). */
static bool has_edge(const struct tas_ep_item *i, struct tas_obj *o, const struct tas_ep_seen *now, uint32_t revents)
{
	const struct tas_ep_seen *was = &i->seen;
	uint32_t lowat = atomic_load_explicit(&o->b->a.rcvlowat, memory_order_relaxed);
	/* Linux, tcp_data_ready(): bytes are no event before there are enough */
	bool data = now->rx != was->rx && (lowat < 2 || (revents & EPOLLIN) || tas__rx_avail(o->b) >= lowat);
	bool change = now->flags != was->flags || now->error != was->error || now->state != was->state ||
		      now->shut != was->shut;
	bool in = now->in != was->in && (data || change), out = now->out != was->out;

	if (in && (change || (i->events & (EPOLLIN | EPOLLRDNORM | EPOLLRDBAND | EPOLLPRI))))
		return true;
	return out && ((revents & (EPOLLERR | EPOLLHUP)) || (i->events & (EPOLLOUT | EPOLLWRNORM)));
}

/* The object of an item; NULL: not known here, or perhaps closed (tas__ep_tidy()). */
static inline struct tas_obj *object_of(struct tas_ep *ep, uint32_t x)
{
	const struct tas_ep_item *i = tas__ep_item(ep, x);
	struct tas_member *m = ep->cache[x];
	struct tas_obj *o = m ? m->o : NULL;

	if (!o || o->id != i->id || o->gen != i->gen || (i->flags & TAS_IT_UNSURE) || tas__obj_closed(o))
		return NULL;
	return o;
}

/* One item of the ready list.  True: *ev is filled. */
static bool report(struct tas_ep *ep, uint32_t x, struct epoll_event *ev)
{
	struct tas_ep_item *i = tas__ep_item(ep, x);
	struct tas_ep_head *h = &ep->p.m->head;
	struct tas_obj *o = object_of(ep, x);
	bool edge = i->events & EPOLLET;
	struct tas_ep_seen now;
	uint32_t r;

	tas__ep_unready(ep, x);
	if (__builtin_expect(!o, 0)) {
		ep->odd = true;
		i->flags |= TAS_IT_ODD;
		i->stamp = h->stamp;
		tas__ep_ready(ep, x);
		return false;
	}
	if (i->flags & TAS_IT_OFF)
		return false;
	if (edge)
		now = see(o);
	r = tas__obj_ready_of(o, i->events) & (i->events | EPOLLERR | EPOLLHUP);
	if (!r) {
		if (edge && (i->flags & TAS_IT_FORCE)) /* a new member: what comes from here on is news */
			i->seen = now;
		i->flags &= ~(uint32_t)(TAS_IT_FORCE | TAS_IT_ODD);
		return false;
	}
	if (edge && !(i->flags & TAS_IT_FORCE) && !has_edge(i, o, &now, r))
		return false;
	if (r & EPOLLIN)
		fetch_next(o);
	i->flags &= ~(uint32_t)(TAS_IT_FORCE | TAS_IT_ODD);
	if (edge)
		i->seen = now;
	i->stamp = h->stamp;
	ev->events = r;
	ev->data.u64 = i->data;
	if (i->events & EPOLLONESHOT) {
		i->flags |= TAS_IT_OFF;
		if (i->flags & TAS_IT_KHALF)
			tas__ep_khalf(ep, ep->cache[x], EPOLL_CTL_MOD, EPOLLONESHOT);
	} else if (!edge) {
		tas__ep_ready(ep, x); /* level: stays until found not ready */
	}
	return true;
}

static int take_tas(struct tas_ep *ep, struct epoll_event *ev, int max)
{
	const struct tas_ep_head *h = &ep->p.m->head;
	uint32_t fetched = tas__ep_many(ep) ? 0 : UINT32_MAX;
	int n = 0;

	while (n < max) {
		uint32_t x = tas__ep_item(ep, 0)->ready_next & (TAS_EP_ITEMS - 1);

		if (!x || tas__ep_item(ep, x)->stamp == h->stamp)
			break; /* the end, or where this call began to put level-triggered items back */
		if (!fetched) {
			tas__ep_ahead(ep, x);
			fetched = TAS_EP_AHEAD;
		}
		fetched--;
		if (report(ep, x, &ev[n]))
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
		struct tas_ep_item *i;

		if (tas__is_wake(ev[k].data.u64))
			continue; /* somebody rang */
		if (!tas__is_half(ev[k].data.u64)) {
			ev[kept++] = ev[k];
			continue;
		}
		i = tas__ep_item(ep, (uint32_t)ev[k].data.u64 & 0xffffff);
		if ((i->flags & (TAS_IT_USED | TAS_IT_KHALF | TAS_IT_OFF)) != (TAS_IT_USED | TAS_IT_KHALF) ||
		    i->stamp == ep->p.m->head.stamp)
			continue; /* a stale half, or reported by its TAS half already */
		i->stamp = ep->p.m->head.stamp;
		if (i->events & EPOLLONESHOT)
			i->flags |= TAS_IT_OFF;
		ev[kept].events = ev[k].events;
		ev[kept++].data.u64 = i->data;
	}
	return kept;
}

/* A bell that rings takes a place from the others: then they get their turn. */
static int take_kernel(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max)
{
	int r, n = 0;

	if (max <= 0 || !atomic_load(&ep->p.m->head.kernel))
		return 0;
	ep->kernel_looked = tas__tsc();
	for (int tries = 0; tries < 2; tries++) {
		r = tas__epoll_look_raw(epfd, ev, max);
		if (r < 0)
			return r == -EINTR ? 0 : r;
		n = sort_kernel(ep, ev, r);
		if (n || r < max)
			break;
	}
	r = (int)atomic_load_explicit(&ep->kernel_quiet, memory_order_relaxed);
	atomic_store_explicit(&ep->kernel_quiet, n ? 0 : r + (r < QUIET), memory_order_relaxed);
	return n;
}

/*
 * A look is a system call.  Where there are other events, or the caller is about to look again, kernel members that have long been
 * silent are looked at now and then.
 */
static bool kernel_due(const struct tas_ep *ep, uint32_t every)
{
	return atomic_load_explicit(&ep->kernel_quiet, memory_order_relaxed) < QUIET || tas__tsc() - ep->kernel_looked > every;
}

/* The service of the set's session died, or there is none: look at every member. */
static void look_at_all(struct tas_ep *ep)
{
	struct tas_ep_head *h = &ep->p.m->head;

	if (!ep->p.ss) {
		tas__ep_ready_all(ep, 0);
	} else if (!tas__alive(ep->p.ss) && !h->death_seen) {
		h->death_seen = 1;
		tas__ep_ready_all(ep, TAS_IT_FORCE);
	}
}

/* again: this call has looked before, and will again before it gives up or sleeps. */
static int collect_once(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max, bool again)
{
	uint64_t mask = tas__ep_lock(ep);
	struct tas_ep_head *h = &ep->p.m->head;
	bool kernel = atomic_load_explicit(&h->kernel, memory_order_relaxed);
	int lim = !kernel ? max : max > 1 ? max - max / 4 : (int)(h->turn++ & 1), n, k;

	h->stamp++;
	look_at_all(ep);
	drain_marks(ep);
	n = take_tas(ep, ev, lim);
	k = (n || again) && !kernel_due(ep, n ? KERNEL_EVERY : KERNEL_SPIN) ? 0 : take_kernel(ep, epfd, ev + n, max - n);
	if (k > 0)
		n += k;
	if (n < max && lim < max)
		n += take_tas(ep, ev + n, max - n);
	tas__ep_unlock(ep, mask);
	return !n && k < 0 ? k : n;
}

/* Everything that is ready now, TAS and kernel members sharing the room.  Number of events, or -errno. */
static int collect(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max, bool again)
{
	int n = collect_once(ep, epfd, ev, max, again);
	uint64_t mask;

	for (int tries = 0; __builtin_expect(ep->odd, 0) && n >= 0 && n < max && tries < 4; tries++) {
		tas__ep_tidy(ep, false); /* those that can be reported are the first of the list now */
		mask = tas__ep_lock(ep);
		n += take_tas(ep, ev + n, max - n);
		tas__ep_unlock(ep, mask);
	}
	return n;
}

/* ---- waiting ---- */
/* Listeners among the members whose service has gone look for the next one. */
static __attribute__((noinline)) void revive(struct tas_ep *ep)
{
	int fd[16], n = 0;
	uint64_t mask;

	mask = tas__ep_lock(ep);
	for (uint32_t x = 1; x < ep->p.m->head.used && x < TAS_EP_ITEMS && n < 16; x++)
		if (tas__ep_item(ep, x)->flags & TAS_IT_KHALF)
			fd[n++] = tas__ep_item(ep, x)->fd;
	tas__ep_unlock(ep, mask);
	while (n--) {
		struct tas_obj *o = tas__obj_get(fd[n]);

		if (o && atomic_load(&o->kind) == TAS_OBJ_LISTEN && !tas__alive(o->ss))
			tas__listener_revive(o, fd[n]);
		if (o)
			tas__obj_put(o);
	}
}

static void woken_by(struct tas_ep *ep, bool eventfd, bool bell)
{
	uint64_t sig = tas__ep_lock(ep); /* it may have another eventfd by now */
	const struct tas_ep_head *h = &ep->p.m->head;

	if (bell)
		atomic_store_explicit(&ep->rang, true, memory_order_relaxed);
	if (eventfd)
		tas__ep_drain(ep);
	if (!atomic_load(&h->sleepers) && !atomic_load(&h->exposed))
		tas__ep_disarm(ep);
	tas__ep_unlock(ep, sig);
}

static int ep_sleep(struct tas_ep *ep, int epfd, uint64_t end, const sigset_t *mask, struct tas_sig_mark m)
{
	struct pollfd p[4] = {{.fd = epfd, .events = POLLIN}, {.fd = -1, .events = POLLIN}, {.fd = -1, .events = POLLIN}, {.fd = -1}};
	struct tas_session *ss;
	struct timespec ts;
	uint64_t cap = BLIND_NS, sig = tas__ep_lock(ep);
	struct tas_ep_head *h = tas__ep_head(ep);
	bool pending;
	int r = 0;

	ss = ep->p.ss; /* the set may get another while we sleep */
	if (ss) {
		tas__session_ref(ss);
		p[1].fd = ep->p.efd;
		p[3].fd = tas__alive(ss) ? atomic_load(&ss->ctl) : -1;
		cap = tas__alive(ss) || !atomic_load(&h->n_listen) ? UINT64_MAX : TAS_REVIVE_MS * 1000000ull;
	} else if (!(ss = tas__session_get())) { /* no service: nothing but a next one to look for */
		cap = TAS_REVIVE_MS * 1000000ull;
	} else {
		tas__session_put(ss);
		ss = NULL;
	}
	atomic_fetch_add(&h->sleepers, 1);
	p[2].fd = tas__ep_arm_hearing(ep);
	pending = tas__ep_pending(ep);
	tas__ep_unlock(ep, sig);
	if (!pending)
		r = tas__ppoll(p, 4, tas__left(end, cap, &ts), mask, m, false, p[1].fd);
	atomic_fetch_sub(&h->sleepers, 1);
	if ((p[1].revents | p[2].revents) & POLLIN)
		woken_by(ep, p[1].revents & POLLIN, p[2].revents & POLLIN);
	else if (p[0].revents)
		atomic_store_explicit(&ep->kernel_quiet, 0, memory_order_relaxed);
	if (ss) {
		if (p[3].revents & (POLLHUP | POLLERR))
			tas__session_died(ss);
		tas__session_put(ss);
	}
	return r < 0 ? r : 0;
}

/* Puts members off the ready list that have nothing to report; true if one is left. */
static bool settle(struct tas_ep *ep)
{
	uint32_t next, left = ep->p.m->head.used;
	bool any = false;

	drain_marks(ep);
	for (uint32_t x = tas__ep_item(ep, 0)->ready_next & (TAS_EP_ITEMS - 1); x && left; x = next, left--) {
		struct tas_ep_item *i = tas__ep_item(ep, x);
		struct tas_obj *o = object_of(ep, x);
		struct tas_ep_seen now;
		uint32_t r;

		next = i->ready_next & (TAS_EP_ITEMS - 1);
		if (!o) {
			ep->odd = true;
			continue;
		}
		now = see(o);
		r = tas__obj_ready_of(o, i->events) & (i->events | EPOLLERR | EPOLLHUP);
		if ((i->flags & TAS_IT_OFF) || !r ||
		    ((i->events & EPOLLET) && !(i->flags & TAS_IT_FORCE) && !has_edge(i, o, &now, r)))
			tas__ep_unready(ep, x);
		else
			any = true;
	}
	return any;
}

/* The bell rings once while something stays ready: every time is an event for an edge-triggered set around this one. */
void tas__ep_announce(struct tas_ep *ep, bool event)
{
	struct tas_ep_head *h = &ep->p.m->head;
	struct tas_session *ss = ep->p.ss;

	if (!ss)
		return;
	/* not armed though somebody sleeps, or something outside waits: the service rang */
	if (atomic_load(&h->exposed) && !tas__ep_armed(ep))
		atomic_store(&h->rung, 1);
	tas__ep_arm(ep);
	if (settle(ep) || (!h->death_seen && !tas__alive(ss))) {
		if (!atomic_exchange(&h->rung, 1) || event || atomic_load(&h->sleepers))
			tas__ep_ring(ep);
	} else if (atomic_load(&h->rung)) {
		tas__ep_drain(ep);
		tas__ep_arm(ep);
		if (settle(ep) && !atomic_exchange(&h->rung, 1))
			tas__ep_ring(ep);
	}
}

void tas__ep_wake(struct tas_ep *ep)
{
	struct tas_ep_head *h = &ep->p.m->head;

	/* threads that sleep in the kernel alone, because there was no member of TAS: this process's are counted */
	if (atomic_load(&ep->raw_waiters) || (ep->shared && atomic_load(&h->n_items) == 1)) {
		atomic_store(&h->rung, 1); /* so who looks from outside and finds nothing silences it */
		tas__ep_ring(ep);
	} else if (atomic_load(&h->sleepers) || atomic_load(&h->exposed)) {
		tas__ep_announce(ep, true);
	}
}

/* ---- epoll_wait ---- */
/* Whoever goes with events leaves the others able to hear the next one. */
static void leave(struct tas_ep *ep)
{
	struct tas_ep_head *h = tas__ep_head(ep);
	uint64_t mask;

	if (!atomic_load_explicit(&h->sleepers, memory_order_relaxed) && !atomic_load_explicit(&h->exposed, memory_order_relaxed))
		return;
	if (tas__ep_bells_news(ep))
		tas__ep_bells_map(ep);
	mask = tas__ep_lock(ep);
	tas__ep_announce(ep, false);
	tas__ep_unlock(ep, mask);
}

/* inline: its other caller is rare */
static inline __attribute__((always_inline)) int wait_mixed(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max,
							    uint64_t end, const struct timespec *timeout,
							    const sigset_t *mask)
{
	struct tas_sig_mark sig = tas__sig_mark();
	struct tas_ep_head *h = tas__ep_head(ep);
	struct tas_spin spin = {.gives_way = true};
	bool again = false;
	int n;

	for (;;) {
		/* a set made while no service was there has no session: its listeners look too */
		if (atomic_load_explicit(&h->n_listen, memory_order_relaxed) && !(ep->p.ss && tas__alive(ep->p.ss)))
			revive(ep);
		if (ep->nests)
			tas__ep_refresh_all();
		if (tas__ep_bells_news(ep))
			tas__ep_bells_map(ep);
		n = collect(ep, epfd, ev, max, again);
		again = false;
		if (!n && !end && h->near && ep->p.ss && tas__settle(ep->p.ss))
			n = collect(ep, epfd, ev, max, false);
		if (n) {
			if (n > 0)
				atomic_store_explicit(&h->active, tas__tsc(), memory_order_relaxed);
			break;
		}
		if (end == LATER)
			end = tas__deadline(timeout);
		else if (!end || (end != UINT64_MAX && tas__now() >= end))
			break;
		if (tas__sig_came(sig, false)) {
			n = -EINTR;
			break;
		}
		if (ep->p.ss && tas__spin(ep->p.ss, &spin, atomic_load_explicit(&h->active, memory_order_relaxed))) {
			again = true;
			continue;
		}
		n = ep_sleep(ep, epfd, end, mask, sig);
		if (n < 0)
			break;
	}
	leave(ep);
	return n;
}

/* Events, and no memory to put them: Linux says so when one comes, which stays. */
static __attribute__((noinline)) int wait_nowhere(struct tas_ep *ep, int epfd, uint64_t end, const struct timespec *timeout, const sigset_t *mask)
{
	struct epoll_event ev;
	int r = wait_mixed(ep, epfd, &ev, 1, end, timeout, mask);
	uint64_t sig;

	if (r <= 0)
		return r;
	sig = tas__ep_lock(ep);
	for (uint32_t x = 1; x < ep->p.m->head.used && x < TAS_EP_ITEMS; x++) {
		struct tas_ep_item *i = tas__ep_item(ep, x);

		if (!(i->flags & TAS_IT_USED) || i->stamp != ep->p.m->head.stamp)
			continue;
		i->flags = (i->flags & ~(uint32_t)TAS_IT_OFF) | TAS_IT_FORCE;
		tas__ep_ready(ep, x);
	}
	tas__ep_unlock(ep, sig);
	return -EFAULT;
}

bool tas__ep_rang(struct tas_ep *ep, const struct epoll_event *ev, int n)
{
	for (int k = 0; k < n; k++) {
		if (!tas__is_wake(ev[k].data.u64) && !tas__is_half(ev[k].data.u64))
			continue;
		if (!tas__ep_head(ep) && tas__is_wake(ev[k].data.u64))
			tas__ep_met(ep, ev[k].data.u64); /* another process made it */
		return true;
	}
	return false;
}

static uint32_t n_items(struct tas_ep *ep)
{
	struct tas_ep_head *h = tas__ep_head(ep);

	return h ? atomic_load_explicit(&h->n_items, memory_order_relaxed) : 0;
}

bool tas__ep_sort(struct tas_ep *ep, struct epoll_event *ev, int *n)
{
	uint64_t sig = tas__ep_lock(ep);
	bool has = ep->p.m;

	if (has) {
		ep->p.m->head.stamp++;
		*n = sort_kernel(ep, ev, *n);
		if (!*n && !n_items(ep))
			tas__ep_drain(ep); /* only our own bell */
	}
	tas__ep_unlock(ep, sig);
	return has;
}

/* No TAS member: the kernel alone, unless the first one comes while we sleep (then 0, early). */
static int wait_raw(struct tas_ep *ep, int epfd, struct epoll_event *ev, int max, uint64_t end, const sigset_t *mask)
{
	struct timespec ts;
	bool bell;
	int r;

	do {
		if (ep->nests || ep->shared)
			tas__ep_refresh_all();
		atomic_fetch_add(&ep->raw_waiters, 1);
		r = n_items(ep) ? 0 : tas__epoll_wait_raw(epfd, ev, max, tas__left(end, UINT64_MAX, &ts), mask);
		atomic_fetch_sub(&ep->raw_waiters, 1);
		bell = r > 0 && tas__ep_rang(ep, ev, r) && tas__ep_sort(ep, ev, &r);
		if (r > 0 && ep->nests) {
			r = tas__ep_drop_silent(epfd, ev, r);
			bell = true;
		}
	} while (bell && !r && !n_items(ep));
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
	if (max <= 0 || max > EVENTS_MAX || bad_time(timeout) || (mask && tas__wild(mask)) || (tas__wild(ev) && !n_items(ep))) {
		r = tas__epoll_wait_raw(epfd, ev, max, timeout, mask); /* the kernel says what is wrong */
		goto out;
	}
	end = !timeout ? UINT64_MAX : !timeout->tv_sec && !timeout->tv_nsec ? 0 : LATER;
	if (!n_items(ep)) {
		if (end == LATER)
			end = tas__deadline(timeout);
		r = wait_raw(ep, epfd, ev, max, end, mask);
		if (r || !n_items(ep))
			goto out;
	}
	r = tas__wild(ev) ? wait_nowhere(ep, epfd, end, timeout, mask)
			  : wait_mixed(ep, epfd, ev, max, end, timeout, mask);
out:
	tas__ep_put(ep);
	return r;
}
