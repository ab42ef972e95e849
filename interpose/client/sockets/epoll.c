/* SPDX-License-Identifier: MIT */
/* Members of epoll sets: epoll_ctl, and what happens to members when their sockets change.  See ep.h for the idea. */
#include "sockets/ep.h"

/* ---- items, under both locks ---- */
/* The kernel half of a listener: level, edge and one-shot as the program asked, our marker as data. */
int tas__ep_khalf(struct tas_ep *ep, const struct tas_member *m, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u64 = TAS_EP_HALF | m->item};
	struct tas_entry *e = tas__entry(m->fd);
	int fd = tas__ep_number(ep);

	/* The number may be another socket's by now, a dup keeps the listener: that half goes with the last close only. */
	if (op != EPOLL_CTL_ADD && (!e || atomic_load(&e->p) != m->o))
		return 0;
	return fd < 0 ? -EBADF : tas__epoll_ctl_raw(fd, op, m->fd, &ev);
}

struct wish {
	int fd;
	uint32_t events;
	uint64_t data;
	bool off; /* one-shot, and has had its event */
};

static int half_begin(struct tas_ep *ep, const struct tas_member *m, const struct wish *w)
{
	int r = tas__ep_khalf(ep, m, EPOLL_CTL_ADD, w->off ? EPOLLONESHOT : w->events);

	return r == -EEXIST ? tas__ep_khalf(ep, m, EPOLL_CTL_MOD, w->events & ~(uint32_t)EPOLLEXCLUSIVE) : r;
}

static int member_begin(struct tas_ep *ep, struct tas_obj *o, const struct wish *w)
{
	struct tas_ep_item *i;
	struct tas_member *m;
	uint32_t x;
	int r = 0;

	if (!tas__ep_need(ep, o->ss))
		return -ENOMEM;
	x = tas__ep_item_new(ep);
	if (!x)
		return -ENOSPC;
	i = tas__ep_item(ep, x);
	*i = (struct tas_ep_item){
		.flags = TAS_IT_FORCE | (w->off ? TAS_IT_OFF : 0),
		.id = o->id,
		.gen = o->gen,
		.run = tas__ep_run(o->ss),
		.block = o->at,
		.fd = w->fd,
		.events = w->events,
		.data = w->data,
	};
	m = tas__member_new(ep, o, x, w->fd);
	if (m && atomic_load(&o->kind) == TAS_OBJ_LISTEN) {
		r = half_begin(ep, m, w);
		i->flags |= TAS_IT_KHALF;
		atomic_store(&ep->p.m->head.kernel, 1);
		atomic_store_explicit(&ep->kernel_quiet, 0, memory_order_relaxed);
	}
	if (!m || r < 0) {
		if (m)
			tas__member_free(m);
		i->flags = 0;
		i->hash_next = ep->p.m->head.free;
		ep->p.m->head.free = x;
		return m ? r : -ENOMEM;
	}
	tas__ep_item_begin(ep, x);
	ep->p.m->head.near |= tas__obj_near(o);
	if (ep->p.ss && ep->p.ss == o->ss)
		tas__obj_sub_add(o, tas__ep_sub(ep), w->events & EPOLLEXCLUSIVE);
	tas__ep_ready(ep, x);
	tas__ep_wake(ep);
	return 0;
}

/* Of a member whose socket this process knows. */
static void member_end(struct tas_ep *ep, struct tas_member *m, bool in_kernel)
{
	struct tas_obj *o = m->o;

	/* of a socket that has ended the block may be another's */
	if (!tas__ep_other(ep, o, m->item) && ep->p.ss && o->ss == ep->p.ss && atomic_load(&tas__block(o)->s.gen) == o->gen)
		tas__obj_sub_del(o, tas__ep_sub(ep));
	if ((tas__ep_item(ep, m->item)->flags & TAS_IT_KHALF) && in_kernel)
		tas__ep_khalf(ep, m, EPOLL_CTL_DEL, 0);
	tas__ep_item_end(ep, m->item);
	tas__member_free(m);
}

/* The record of an item whose socket is o; an item that another process added gets one. */
static struct tas_member *record_of(struct tas_ep *ep, struct tas_obj *o, uint32_t x)
{
	struct tas_member *m = ep->cache[x];

	if (m && m->o == o)
		return m;
	if (m) /* a ghost, or of a member that was here before */
		tas__member_free(m);
	return tas__member_new(ep, o, x, tas__ep_item(ep, x)->fd);
}

static struct tas_member *find_plain(struct tas_obj *o, struct tas_ep *ep, int fd)
{
	for (struct tas_member *m = o->items; m; m = m->obj_next)
		if (m->ep == ep && m->fd == fd && !m->item)
			return m;
	return NULL;
}

/* ---- epoll_ctl ---- */
/* The kernel's member, whose events and data we need when it becomes one of TAS. */
static int ctl_plain(struct tas_ep *ep, int epfd, int op, struct tas_obj *o, int fd, struct epoll_event *ev)
{
	struct tas_member *m = find_plain(o, ep, fd);
	int r = tas__epoll_ctl_raw(epfd, op, fd, ev);

	if (r < 0)
		return r;
	if (op == EPOLL_CTL_DEL) {
		if (m)
			tas__member_free(m);
		return 0;
	}
	ep->kernel = true;
	atomic_store_explicit(&ep->kernel_quiet, 0, memory_order_relaxed);
	if (ep->p.m)
		atomic_store(&ep->p.m->head.kernel, 1);
	if (!m)
		m = tas__member_new(ep, o, 0, fd);
	if (!m)
		return 0; /* it stays the kernel's */
	m->events = ev->events;
	m->data = ev->data;
	return 0;
}

static int ctl_add(struct tas_ep *ep, struct tas_obj *o, int fd, const struct epoll_event *ev)
{
	struct wish w = {.fd = fd, .events = ev->events, .data = ev->data.u64};

	if (!tas__ep_need(ep, o->ss))
		return -ENOMEM;
	if (tas__ep_find(ep, o, fd))
		return -EEXIST;
	return member_begin(ep, o, &w);
}

static int ctl_mod(struct tas_ep *ep, struct tas_member *m, const struct epoll_event *ev)
{
	struct tas_ep_item *i = tas__ep_item(ep, m->item);
	int r = 0;

	if ((ev->events | i->events) & EPOLLEXCLUSIVE)
		return -EINVAL;
	if (i->flags & TAS_IT_KHALF)
		r = tas__ep_khalf(ep, m, EPOLL_CTL_MOD, ev->events);
	if (r < 0)
		return r;
	i->events = ev->events;
	i->data = ev->data.u64;
	i->flags = (i->flags & ~(uint32_t)TAS_IT_OFF) | TAS_IT_FORCE;
	tas__ep_ready(ep, m->item);
	tas__ep_wake(ep);
	return 0;
}

static int ctl_locked(struct tas_ep *ep, int epfd, int op, struct tas_obj *o, int fd, struct epoll_event *ev)
{
	struct tas_member *m;
	uint32_t x;

	if (atomic_load(&o->kind) == TAS_OBJ_PLAIN)
		return ctl_plain(ep, epfd, op, o, fd, ev);
	if (op == EPOLL_CTL_ADD)
		return ctl_add(ep, o, fd, ev);
	if (!ep->p.m && ep->shared) /* made by another process since */
		tas__ep_need(ep, o->ss);
	x = ep->p.m ? tas__ep_find(ep, o, fd) : 0;
	if (!x)
		return -ENOENT;
	m = record_of(ep, o, x);
	if (!m)
		return -ENOMEM;
	if (op == EPOLL_CTL_MOD)
		return ctl_mod(ep, m, ev);
	member_end(ep, m, true);
	return 0;
}

int tas_epoll_create1(int flags)
{
	int fd = (int)sys1(SYS_epoll_create1, flags), err;
	struct tas_ep *ep;

	if (fd < 0)
		return fd;
	tas__forget(fd, TAS_FD_KERNEL);
	ep = tas__ep_adopt(fd, false, &err);
	if (ep)
		tas__ep_put(ep);
	return fd;
}

static int check_ctl(int epfd, int op, int fd, const struct epoll_event *ev)
{
	const uint32_t with_exclusive =
		EPOLLIN | EPOLLOUT | EPOLLERR | EPOLLHUP | EPOLLWAKEUP | EPOLLET | EPOLLEXCLUSIVE;

	if (epfd == fd)
		return -EINVAL;
	if (op != EPOLL_CTL_ADD && op != EPOLL_CTL_MOD && op != EPOLL_CTL_DEL)
		return -EINVAL;
	if (op == EPOLL_CTL_DEL)
		return 0;
	if (tas__wild(ev))
		return -EFAULT;
	if ((ev->events & EPOLLEXCLUSIVE) && (op == EPOLL_CTL_MOD || (ev->events & ~with_exclusive)))
		return -EINVAL;
	return 0;
}

static int ctl_kernel(int epfd, int op, int fd, struct epoll_event *ev)
{
	struct tas_ep *ep, *inner;
	struct tas_ep_head *h;
	int r = tas__epoll_ctl_raw(tas__raw(epfd), op, tas__raw(fd), ev);

	if (r < 0 || op != EPOLL_CTL_ADD)
		return r;
	inner = tas__ep_get(fd);
	ep = tas__ep_get(epfd);
	if (ep) {
		h = tas__ep_head(ep);
		ep->kernel = true;
		atomic_store_explicit(&ep->kernel_quiet, 0, memory_order_relaxed);
		if (h)
			atomic_store(&h->kernel, 1);
		if (inner)
			ep->nests = true;
		tas__ep_put(ep);
	}
	if (inner) {
		tas__ep_expose(fd);
		tas__ep_put(inner);
	}
	return r;
}

int tas_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	struct tas_obj *o = tas__obj_get(fd);
	struct tas_ep *ep;
	uint64_t mask;
	int r = 0;

	if (!o)
		return ctl_kernel(epfd, op, fd, ev);
	ep = tas__ep_get(epfd);
	if (!ep) { /* is it a set at all?  the kernel says ENOENT for a number that is no member */
		r = tas__epoll_ctl_raw(tas__raw(epfd), EPOLL_CTL_DEL, fd, NULL);
		if (r == -ENOENT || r == 0)
			ep = tas__ep_adopt(epfd, true, &r);
	}
	if (ep)
		r = check_ctl(epfd, op, fd, ev);
	if (ep && r == 0) {
		/* another process may have connected it, and with that taken it out of the kernel's set */
		if (ep->shared && tas__plain_recheck(fd)) {
			tas__obj_put(o);
			o = tas__obj_get(fd);
		}
		mask = tas__table_lock();
		tas__ep_enter(ep);
		r = o ? ctl_locked(ep, epfd, op, o, fd, ev) : -EBADF;
		tas__ep_exit(ep);
		tas__table_unlock(mask);
	}
	if (ep)
		tas__ep_put(ep);
	if (o)
		tas__obj_put(o);
	return r;
}

/* ---- the set goes ---- */
/* Members that only other processes knew: their sockets forget the set when it is gone. */
static void end_unknown(struct tas_ep *ep)
{
	for (uint32_t x = 1; x < ep->p.m->head.used && x < TAS_EP_ITEMS; x++)
		if (tas__ep_item(ep, x)->flags & TAS_IT_USED)
			tas__ep_item_end(ep, x);
}

static void forget_members(struct tas_ep *ep)
{
	bool alone = ep->p.m && (!ep->shared || (ep->p.ss && atomic_load(&ep->p.m->head.holders) <= 1));

	for (uint32_t x = 1; ep->p.m && x < ep->p.m->head.used && x < TAS_EP_ITEMS; x++) {
		struct tas_member *m = ep->cache[x];

		if (m && alone && tas__ep_find(ep, m->o, m->fd) == x)
			member_end(ep, m, false);
		else if (m)
			tas__member_free(m);
	}
	for (uint32_t n = 0; ep->kernel; n++) { /* closing such a set is rare; members do not know their neighbours */
		struct tas_member *m = tas__member_at(n);

		if (!m)
			break;
		if (m->ep == ep)
			tas__member_free(m);
	}
	if (alone)
		end_unknown(ep);
}

void tas__ep_put(struct tas_ep *ep)
{
	struct tas_ep_part p;
	uint64_t mask;

	if (atomic_fetch_sub(&ep->refs, 1) != 1)
		return;
	mask = tas__table_lock();
	tas__ep_enter(ep);
	forget_members(ep);
	tas__ep_exit(ep);
	tas__ep_bells_drop(ep);
	p = ep->p;
	ep->p = TAS_EP_NO_PART;
	atomic_store(&ep->m, NULL);
	tas__part_end(&p);
	if (ep->cache)
		sys_munmap(ep->cache, TAS_EP_ITEMS * sizeof *ep->cache);
	ep->cache = NULL;
	tas__ep_recycle(ep);
	tas__table_unlock(mask);
}

/* ---- what happens to members ---- */
bool tas__ep_forget(struct tas_obj *o)
{
	bool others = atomic_load(&o->flags) & TAS_OF_SHARED, ask = false;

	while (o->items) {
		struct tas_member *m = o->items;
		struct tas_ep *ep = m->ep;

		tas__ep_enter(ep);
		if (!m->item || !ep->p.m || ep->cache[m->item] != m || tas__ep_find(ep, o, m->fd) != m->item) {
			tas__member_free(m);
		} else if (others) {
			tas__ep_item(ep, m->item)->flags |= TAS_IT_UNSURE;
			ask |= atomic_load(&ep->p.m->head.holders) > 1;
			tas__member_free(m);
		} else {
			member_end(ep, m, false);
		}
		tas__ep_exit(ep);
	}
	return ask;
}

struct import {
	struct tas_ep *ep;
	struct tas_obj *o;
	uint64_t ino;
};

/* The kernel takes all events from a one-shot member that has fired. */
static bool fired(uint32_t events)
{
	return (events & EPOLLONESHOT) && !(events & ~(uint32_t)(EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE));
}

static void move_here(struct tas_ep *ep, struct tas_obj *o, const struct wish *w)
{
	int fd = tas__ep_number(ep);

	if (fd >= 0)
		tas__epoll_ctl_raw(fd, EPOLL_CTL_DEL, w->fd, NULL);
	member_begin(ep, o, w);
}

/* A line of a set that others have, too: they may have added or changed what we have no record of. */
static bool import_line(const struct tas_line *l, void *arg)
{
	struct import *im = arg;
	struct wish w = {.fd = l->fd, .events = l->events, .data = l->data, .off = fired(l->events)};
	struct tas_entry *e = tas__entry(l->fd);

	if (l->ino == im->ino && e && atomic_load(&e->p) == im->o)
		move_here(im->ep, im->o, &w);
	return false;
}

struct search {
	int fd;
	bool fired;
};

static bool search_line(const struct tas_line *l, void *arg)
{
	struct search *s = arg;

	if (l->fd != s->fd)
		return false;
	s->fired = fired(l->events);
	return true;
}

static void import_from(struct tas_ep *ep, struct tas_obj *o, int fd)
{
	struct import im = {.ep = ep, .o = o};
	struct stat st;
	int set;

	tas__ep_enter(ep);
	set = tas__ep_number(ep);
	if (set >= 0 && sys_fstat(fd, &st) == 0) {
		im.ino = st.st_ino;
		tas__ep_lines(set, import_line, &im);
	}
	tas__ep_exit(ep);
}

void tas__ep_became_tas(struct tas_obj *o, int fd)
{
	bool others = atomic_load(&o->flags) & TAS_OF_SHARED;
	struct tas_member *next;

	if (o->items)
		atomic_fetch_or(&o->flags, TAS_OF_MARKED);
	for (struct tas_member *m = o->items; m; m = next) {
		struct tas_ep *ep = m->ep;
		struct wish w = {.fd = m->fd, .events = m->events, .data = m->data.u64};
		struct search s = {.fd = m->fd};

		next = m->obj_next;
		if (m->item)
			continue;
		if (others && ep->shared) { /* see below */
			tas__member_free(m);
			continue;
		}
		tas__ep_enter(ep);
		if ((w.events & EPOLLONESHOT) && tas__ep_lines(tas__ep_number(ep), search_line, &s))
			w.off = s.fired;
		tas__member_free(m);
		move_here(ep, o, &w);
		tas__ep_exit(ep);
	}
	for (struct tas_ep *ep = others ? tas__ep_all() : NULL; ep; ep = ep->next)
		if (ep->shared && atomic_load(&ep->refs))
			import_from(ep, o, fd);
}

void tas__ep_became_kernel(struct tas_obj *o)
{
	while (o->items)
		tas__member_free(o->items);
}

void tas__ep_moved(struct tas_obj *o, struct tas_obj *to)
{
	while (o->items) {
		struct tas_member *m = o->items;
		struct tas_ep *ep = m->ep;
		struct tas_ep_item *i;
		struct epoll_event ev;
		struct wish w;

		tas__ep_enter(ep);
		if (!m->item || !ep->p.m || ep->cache[m->item] != m || tas__ep_find(ep, o, m->fd) != m->item) {
			tas__member_free(m);
			tas__ep_exit(ep);
			continue;
		}
		i = tas__ep_item(ep, m->item);
		w = (struct wish){.fd = m->fd, .events = i->events, .data = i->data, .off = i->flags & TAS_IT_OFF};
		member_end(ep, m, true);
		ev = (struct epoll_event){.events = w.events, .data.u64 = w.data};
		if (atomic_load(&to->kind) == TAS_OBJ_PLAIN)
			ctl_plain(ep, tas__ep_number(ep), EPOLL_CTL_ADD, to, w.fd, &ev);
		else if (!ep->p.m || !tas__ep_find(ep, to, w.fd)) /* not by another process that moved it, too */
			member_begin(ep, to, &w);
		tas__ep_exit(ep);
	}
}

void tas__ep_kick(struct tas_obj *o, uint32_t events)
{
	for (struct tas_member *m = o->items; m; m = m->obj_next) {
		struct tas_ep *ep = m->ep;

		if (!m->item)
			continue;
		tas__ep_enter(ep);
		if (ep->p.m && tas__ep_find(ep, o, m->fd) == m->item &&
		    (!events || (tas__ep_item(ep, m->item)->events & events))) {
			tas__ep_item(ep, m->item)->flags |= TAS_IT_FORCE;
			tas__ep_ready(ep, m->item);
			tas__ep_wake(ep);
		}
		tas__ep_exit(ep);
	}
}

/* ---- odd ones ---- */
/* An object for the socket of an item: ours, or a ghost.  NULL: this process cannot reach it. */
static struct tas_obj *object_for(struct tas_ep *ep, const struct tas_ep_item *i)
{
	struct tas_msg_sock s = {.id = i->id, .gen = i->gen, .block = i->block};
	struct tas_session *ss = ep->p.ss;

	if (!ss || i->run != tas__ep_run(ss))
		return NULL;
	return tas__ghost_new(ss, &s, ep->p.index);
}

static struct tas_obj *known_object(const struct tas_ep *ep, const struct tas_ep_item *i)
{
	struct tas_entry *e = tas__entry(i->fd);
	struct tas_obj *o = e && tas__state(i->fd) == TAS_FD_TAS ? atomic_load(&e->p) : NULL;

	/* under the table lock what has a number lives */
	if (o && o->ss == ep->p.ss && o->id == i->id && o->gen == i->gen)
		return o;
	return tas__obj_numbered(ep->p.ss, i->id, i->gen);
}

static void tidy_one(struct tas_ep *ep, uint32_t x, bool all)
{
	struct tas_ep_item *i = tas__ep_item(ep, x);
	struct tas_member *m = ep->cache[x];
	struct tas_obj *o = m ? m->o : NULL;
	bool known = o && o->id == i->id && o->gen == i->gen, met = i->flags & TAS_IT_ODD;

	/* in a call: reported by it already, whatever that has become since; the next one meets it */
	if (!met && (!all || (known && !(i->flags & TAS_IT_UNSURE) && !tas__obj_closed(o))))
		return;
	i->flags &= ~(uint32_t)TAS_IT_ODD;
	if (!known) {
		o = known_object(ep, i);
		if (!o)
			o = object_for(ep, i);
		m = o ? record_of(ep, o, x) : NULL;
	}
	if (!m) { /* not to be reached: others may, for whom it stays a member */
		tas__ep_unready(ep, x);
		return;
	}
	if (tas__alive(o->ss) && tas__obj_closed(o) && tas__obj_gone(o)) {
		member_end(ep, m, true);
	} else {
		i->flags &= ~(uint32_t)TAS_IT_UNSURE;
		if (met)
			i->stamp = 0; /* not reported by the call that found it odd, and not odd, or no more */
		tas__ep_ready_first(ep, x);
	}
}

void tas__ep_tidy(struct tas_ep *ep, bool all)
{
	struct tas_session *ss = ep->p.ss;
	uint32_t next, left;
	uint64_t mask;

	if (ss)
		tas__settle(ss); /* a close of ours has been seen */
	mask = tas__table_lock();
	tas__ep_enter(ep);
	ep->odd = false;
	left = ep->p.m ? ep->p.m->head.used : 0;
	for (uint32_t x = left ? tas__ep_item(ep, 0)->ready_next & (TAS_EP_ITEMS - 1) : 0; x && left; x = next, left--) {
		next = tas__ep_item(ep, x)->ready_next & (TAS_EP_ITEMS - 1);
		tidy_one(ep, x, all);
	}
	tas__ep_exit(ep);
	tas__table_unlock(mask);
}
