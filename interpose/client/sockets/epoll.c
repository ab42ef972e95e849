/* SPDX-License-Identifier: MIT */
/* Members of epoll sets: epoll_ctl, and what happens to members when their sockets change.  See ep.h for the idea,
 * epoll_set.c for what a set is made of, epoll_wait.c for waiting. */
#include "sockets/ep.h"

/* ---- items, under both locks ---- */
/* The kernel half of a listener: level, edge and one-shot as the program asked, our marker as data. */
int tas__ep_khalf(struct tas_ep *ep, struct tas_item *i, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u64 = tas__mark(i->index)};
	struct tas_entry *e = tas__entry(i->fd);
	int fd = tas__ep_number(ep);

	/* The number may be another socket's by now, a dup keeps the listener: that half goes with the last close only. */
	if (op != EPOLL_CTL_ADD && (!e || atomic_load(&e->p) != i->o))
		return 0;
	return fd < 0 ? -EBADF : tas__epoll_ctl_raw(fd, op, i->fd, &ev);
}

static int tas_member_begin(struct tas_ep *ep, struct tas_item *i)
{
	struct tas_obj *o = i->o;
	uint32_t off = i->flags & TAS_IT_OFF;
	bool listens = atomic_load(&o->kind) == TAS_OBJ_LISTEN;
	int r;

	if (!tas__ep_hash_add(ep, i))
		return -ENOMEM;
	i->flags = TAS_IT_TAS | TAS_IT_FORCE | off;
	i->stamp = 0;
	if (listens) {
		r = tas__ep_khalf(ep, i, EPOLL_CTL_ADD, off ? EPOLLONESHOT : i->events);
		if (r == -EEXIST)
			r = tas__ep_khalf(ep, i, EPOLL_CTL_MOD, i->events & ~(uint32_t)EPOLLEXCLUSIVE);
		if (r < 0) {
			tas__ep_hash_del(ep, i);
			return r;
		}
		i->flags |= TAS_IT_KHALF;
		atomic_fetch_add(&ep->n_listen, 1);
		atomic_store(&ep->kernel, true);
	}
	atomic_fetch_add(&ep->n_tas, 1);
	ep->near |= tas__obj_near(o);
	tas__ep_ready(ep, i);
	if (tas__ep_ensure(ep, o->ss))
		tas__obj_subscribe(&ep->w, o, i->events & EPOLLEXCLUSIVE);
	tas__ep_wake(ep);
	return 0;
}

static void tas_member_end(struct tas_ep *ep, struct tas_item *i, bool in_kernel)
{
	struct tas_obj *o = i->o;
	bool other = false;

	tas__ep_unready(i);
	tas__ep_hash_del(ep, i);
	for (struct tas_item *k = o->items; k; k = k->obj_next)
		other |= k != i && k->ep == ep && (k->flags & TAS_IT_TAS);
	if (!other && ep->w.ss && o->ss == ep->w.ss)
		tas__obj_unsubscribe(&ep->w, o);
	if (i->flags & TAS_IT_KHALF) {
		atomic_fetch_sub(&ep->n_listen, 1);
		if (in_kernel)
			tas__ep_khalf(ep, i, EPOLL_CTL_DEL, 0);
	}
	atomic_fetch_sub(&ep->n_tas, 1);
	i->flags = 0;
}

static void obj_unlink(struct tas_item *i)
{
	for (struct tas_item **p = &i->o->items; *p; p = &(*p)->obj_next) {
		if (*p == i) {
			*p = i->obj_next;
			return;
		}
	}
}

static struct tas_item *find_item(struct tas_obj *o, struct tas_ep *ep, int fd)
{
	for (struct tas_item *i = o->items; i; i = i->obj_next)
		if (i->ep == ep && i->fd == fd)
			return i;
	return NULL;
}

/* ---- epoll_ctl ---- */
static int ctl_add(struct tas_ep *ep, int epfd, struct tas_obj *o, int fd, struct epoll_event *ev)
{
	struct tas_item *i;
	int r;

	if (find_item(o, ep, fd))
		return -EEXIST;
	i = tas__item_new();
	if (!i)
		return -ENOMEM;
	i->o = o;
	i->ep = ep;
	i->fd = fd;
	i->flags = 0;
	i->events = ev->events;
	i->data = ev->data;
	if (atomic_load(&o->kind) == TAS_OBJ_PLAIN) {
		r = tas__epoll_ctl_raw(epfd, EPOLL_CTL_ADD, fd, ev);
		atomic_store(&ep->kernel, true);
	} else {
		r = tas_member_begin(ep, i);
	}
	if (r < 0) {
		tas__item_free(i);
		return r;
	}
	i->obj_next = o->items;
	o->items = i;
	return 0;
}

static int ctl_mod(struct tas_ep *ep, int epfd, struct tas_item *i, struct epoll_event *ev)
{
	int r = 0;

	if ((ev->events | i->events) & EPOLLEXCLUSIVE)
		return -EINVAL;
	if (!(i->flags & TAS_IT_TAS))
		r = tas__epoll_ctl_raw(epfd, EPOLL_CTL_MOD, i->fd, ev);
	else if (i->flags & TAS_IT_KHALF)
		r = tas__ep_khalf(ep, i, EPOLL_CTL_MOD, ev->events);
	if (r < 0)
		return r;
	i->events = ev->events;
	i->data = ev->data;
	if (i->flags & TAS_IT_TAS) {
		i->flags = (i->flags & ~(uint32_t)TAS_IT_OFF) | TAS_IT_FORCE;
		tas__ep_ready(ep, i);
		tas__ep_wake(ep);
	}
	return 0;
}

static int ctl_del(struct tas_ep *ep, int epfd, struct tas_item *i)
{
	int r = 0;

	if (i->flags & TAS_IT_TAS)
		tas_member_end(ep, i, true);
	else
		r = tas__epoll_ctl_raw(epfd, EPOLL_CTL_DEL, i->fd, NULL);
	if (r < 0)
		return r;
	obj_unlink(i);
	tas__item_free(i);
	return 0;
}

static int ctl_locked(struct tas_ep *ep, int epfd, int op, struct tas_obj *o, int fd, struct epoll_event *ev)
{
	struct tas_item *i;

	if (op == EPOLL_CTL_ADD)
		return ctl_add(ep, epfd, o, fd, ev);
	i = find_item(o, ep, fd);
	if (!i) /* a PLAIN socket that was added before we knew of the set (inherited) is the kernel's to judge */
		return atomic_load(&o->kind) == TAS_OBJ_PLAIN ? tas__epoll_ctl_raw(epfd, op, fd, ev) : -ENOENT;
	return op == EPOLL_CTL_MOD ? ctl_mod(ep, epfd, i, ev) : ctl_del(ep, epfd, i);
}

/* A set that was made elsewhere (inherited, received) and gets its first socket of ours. */
static struct tas_ep *ep_adopt(int fd, bool inherited, int *err)
{
	struct tas_dropped old = {NULL, NULL};
	struct tas_ep *ep;
	uint64_t mask = tas__table_lock();

	ep = tas__ep_new(fd);
	*err = ep ? tas__number_set(fd, TAS_FD_EPOLL, ep, &old) : -ENOMEM;
	if (ep && *err < 0) {
		tas__ep_recycle(ep);
		ep = NULL;
	}
	if (ep) {
		ep->inherited = inherited;
		atomic_store(&ep->kernel, inherited);
		atomic_fetch_add(&ep->refs, 1);
	}
	tas__table_unlock(mask);
	tas__drop_done(old);
	return ep;
}

int tas_epoll_create1(int flags)
{
	int fd = (int)sys1(SYS_epoll_create1, flags), err;
	struct tas_ep *ep;

	if (fd < 0)
		return fd;
	tas__forget(fd, TAS_FD_KERNEL);
	ep = ep_adopt(fd, false, &err);
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
	struct tas_ep *ep;
	int r = tas__epoll_ctl_raw(tas__raw(epfd), op, tas__raw(fd), ev);

	if (r < 0 || op != EPOLL_CTL_ADD)
		return r;
	ep = tas__ep_get(epfd);
	if (ep) {
		atomic_store(&ep->kernel, true);
		if (tas__state(fd) == TAS_FD_EPOLL)
			ep->nests = true;
		tas__ep_put(ep);
	}
	if (tas__state(fd) == TAS_FD_EPOLL)
		tas__ep_expose(fd);
	return r;
}

int tas_epoll_ctl(int epfd, int op, int fd, struct epoll_event *ev)
{
	struct tas_obj *o = tas__obj_get(fd);
	struct tas_ep *ep;
	uint64_t mask, inner;
	int r;

	if (!o)
		return ctl_kernel(epfd, op, fd, ev);
	ep = tas__ep_get(epfd);
	r = 0;
	if (!ep) { /* is it a set at all?  the kernel says ENOENT for a number that is no member */
		r = tas__epoll_ctl_raw(tas__raw(epfd), EPOLL_CTL_DEL, fd, NULL);
		if (r == -ENOENT || r == 0)
			ep = ep_adopt(epfd, true, &r);
	}
	if (ep)
		r = check_ctl(epfd, op, fd, ev);
	if (ep && r == 0) {
		mask = tas__table_lock();
		inner = tas__ep_lock(ep);
		r = ctl_locked(ep, epfd, op, o, fd, ev);
		tas__ep_unlock(ep, inner);
		tas__table_unlock(mask);
	}
	if (ep)
		tas__ep_put(ep);
	tas__obj_put(o);
	return r;
}

/* ---- what happens to members ---- */
void tas__ep_put(struct tas_ep *ep)
{
	struct tas_item *i;
	uint64_t mask;

	if (atomic_fetch_sub(&ep->refs, 1) != 1)
		return;
	mask = tas__table_lock();
	tas__mutex_lock(&ep->lock);
	/* closing a set is rare; members do not know their neighbours */
	for (uint32_t n = 0; (i = tas__item_at(n)); n++) {
		if (i->ep != ep)
			continue;
		if (i->flags & TAS_IT_TAS)
			tas_member_end(ep, i, false);
		obj_unlink(i);
		tas__item_free(i);
	}
	if (ep->kick_fd >= 0)
		tas__internal_close(ep->kick_fd);
	ep->kick_fd = -1;
	tas__waiter_put(&ep->w);
	if (ep->bucket)
		sys_munmap(ep->bucket, ep->n_buckets * sizeof(struct tas_item *));
	ep->bucket = NULL;
	ep->n_buckets = 0;
	tas__mutex_unlock(&ep->lock);
	tas__ep_recycle(ep);
	tas__table_unlock(mask);
}

void tas__ep_forget(struct tas_obj *o)
{
	while (o->items) {
		struct tas_item *i = o->items;
		struct tas_ep *ep = i->ep;

		tas__mutex_lock(&ep->lock);
		if (i->flags & TAS_IT_TAS)
			tas_member_end(ep, i, false);
		o->items = i->obj_next;
		tas__item_free(i);
		tas__mutex_unlock(&ep->lock);
	}
}

void tas__ep_became_tas(struct tas_obj *o)
{
	if (o->items)
		atomic_fetch_or(&o->flags, TAS_OF_MARKED);
	for (struct tas_item *i = o->items, *next; i; i = next) {
		struct tas_ep *ep = i->ep;
		int fd;

		next = i->obj_next;
		tas__mutex_lock(&ep->lock);
		fd = tas__ep_number(ep);
		if ((i->events & EPOLLONESHOT) && tas__ep_fired(fd, i->fd))
			i->flags |= TAS_IT_OFF;
		if (fd >= 0)
			tas__epoll_ctl_raw(fd, EPOLL_CTL_DEL, i->fd, NULL);
		if (tas_member_begin(ep, i) < 0) {
			obj_unlink(i);
			tas__item_free(i);
		}
		tas__mutex_unlock(&ep->lock);
	}
}

void tas__ep_became_kernel(struct tas_obj *o)
{
	while (o->items) {
		struct tas_item *i = o->items;

		o->items = i->obj_next;
		tas__item_free(i);
	}
}

void tas__ep_moved(struct tas_obj *o, struct tas_obj *to)
{
	while (o->items) {
		struct tas_item *i = o->items;
		struct tas_ep *ep = i->ep;
		struct epoll_event ev = {.events = i->events, .data = i->data};
		int fd, r = 0;

		tas__mutex_lock(&ep->lock);
		fd = tas__ep_number(ep);
		if (i->flags & TAS_IT_TAS)
			tas_member_end(ep, i, true);
		o->items = i->obj_next;
		i->o = to;
		if (atomic_load(&to->kind) == TAS_OBJ_PLAIN)
			tas__epoll_ctl_raw(fd, EPOLL_CTL_ADD, i->fd, &ev);
		else
			r = tas_member_begin(ep, i);
		if (r == 0) {
			i->obj_next = to->items;
			to->items = i;
		} else {
			tas__item_free(i);
		}
		tas__mutex_unlock(&ep->lock);
	}
}

/* The kernel would drop the listener's half with the last number only if no other process holds the file.  A set that
 * is shared with the parent keeps it: there it is the parent's member, too. */
void tas__ep_closing(struct tas_obj *o)
{
	for (struct tas_item *i = o->items; i; i = i->obj_next) {
		tas__mutex_lock(&i->ep->lock);
		if ((i->flags & TAS_IT_KHALF) && !i->ep->inherited)
			tas__ep_khalf(i->ep, i, EPOLL_CTL_DEL, 0);
		tas__mutex_unlock(&i->ep->lock);
	}
}

void tas__ep_kick(struct tas_obj *o, uint32_t events)
{
	for (struct tas_item *i = o->items; i; i = i->obj_next) {
		if (!(i->flags & TAS_IT_TAS) || (events && !(i->events & events)))
			continue;
		tas__mutex_lock(&i->ep->lock);
		i->flags |= TAS_IT_FORCE;
		tas__ep_ready(i->ep, i);
		tas__ep_wake(i->ep);
		tas__mutex_unlock(&i->ep->lock);
	}
}
