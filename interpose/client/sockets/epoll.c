/* SPDX-License-Identifier: MIT */
/* Epoll sets: their life and their members.  See ep.h for the idea, epoll_wait.c for waiting. */
#include <string.h>

#include "sockets/ep.h"

enum { SLAB = 256, SLABS_MAX = 4096, BUCKETS_FIRST = 16 };

static struct tas_item *item_slabs[SLABS_MAX]; /* table lock to grow; entries constant */
static uint32_t n_slabs;
static struct tas_item *free_items; /* table lock */
static struct tas_ep *all_sets, *free_sets;
static _Atomic uint64_t mark_base;

/* ---- markers ---- */
uint64_t tas__mark(uint32_t index)
{
	uint64_t base = atomic_load(&mark_base), none = 0;

	if (!base) {
		sys3(SYS_getrandom, SYS_P(&base), sizeof base, 0);
		base = (base | 1ull << 63) & ~0xffffffull;
		if (!atomic_compare_exchange_strong(&mark_base, &none, base))
			base = none;
	}
	return base | index;
}

bool tas__is_mark(uint64_t data, uint32_t *index)
{
	uint64_t base = atomic_load(&mark_base);

	*index = data & 0xffffff;
	return base &&
	       (data & ~0xffffffull) == base; /* no base: nothing was ever marked, and small data is the program's */
}

struct tas_item *tas__item_at(uint32_t index)
{
	return index / SLAB < n_slabs ? &item_slabs[index / SLAB][index % SLAB] : NULL;
}

/* ---- memory ---- */
static struct tas_item *item_new(void)
{
	struct tas_item *i = free_items;

	if (!i && n_slabs < SLABS_MAX) {
		struct tas_item *s =
			sys_mmap(NULL, SLAB * sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

		if (!s)
			return NULL;
		for (uint32_t k = SLAB; k--;) {
			s[k].index = n_slabs * SLAB + k;
			s[k].free = free_items;
			free_items = &s[k];
		}
		item_slabs[n_slabs++] = s;
		i = free_items;
	}
	if (i)
		free_items = i->free;
	return i;
}

static void item_free(struct tas_item *i)
{
	i->ep = NULL;
	i->o = NULL;
	i->free = free_items;
	free_items = i;
}

static struct tas_ep *ep_new(int fd)
{
	struct tas_ep *ep = free_sets;

	if (ep) {
		free_sets = ep->free;
	} else {
		ep = sys_mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (!ep)
			return NULL;
		ep->next = all_sets;
		all_sets = ep;
	}
	ep->fd = fd;
	ep->kick_fd = -1;
	ep->w.ss = NULL;
	ep->ready.ready_next = ep->ready.ready_prev = &ep->ready;
	ep->exposed_in = ep->inherited = ep->death_seen = ep->near = false;
	atomic_store(&ep->kernel, false);
	atomic_store(&ep->exposed, false);
	atomic_store(&ep->n_tas, 0);
	atomic_store(&ep->n_listen, 0);
	atomic_store(&ep->refs, 1);
	return ep;
}

bool tas__ep_try_ref(struct tas_ep *ep)
{
	uint32_t n = atomic_load(&ep->refs);

	while (n)
		if (atomic_compare_exchange_weak(&ep->refs, &n, n + 1))
			return true;
	return false;
}

uint64_t tas__ep_lock(struct tas_ep *ep)
{
	uint64_t mask = tas__signals_block();

	tas__mutex_lock(&ep->lock);
	return mask;
}

void tas__ep_unlock(struct tas_ep *ep, uint64_t mask)
{
	tas__mutex_unlock(&ep->lock);
	tas__signals_restore(mask);
}

int tas__ep_number(struct tas_ep *ep)
{
	uint32_t high = atomic_load(&tas__high);
	struct tas_entry *e = tas__entry(ep->fd);

	if (tas__state(ep->fd) == TAS_FD_EPOLL && e && atomic_load(&e->p) == ep)
		return ep->fd;
	for (uint32_t fd = 0; fd < high; fd++) {
		e = tas__entry((int)fd);
		if (tas__state((int)fd) == TAS_FD_EPOLL && e && atomic_load(&e->p) == ep)
			return ep->fd = (int)fd;
	}
	return -1;
}

/* ---- hash by socket id ---- */
static bool hash_grow(struct tas_ep *ep)
{
	uint32_t n = ep->n_buckets ? ep->n_buckets * 2 : BUCKETS_FIRST;
	size_t size = n * sizeof(struct tas_item *);
	struct tas_item **b = sys_mmap(NULL, size, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

	if (!b)
		return ep->n_buckets != 0;
	for (uint32_t k = 0; k < ep->n_buckets; k++) {
		struct tas_item *i = ep->bucket[k], *next;

		for (; i; i = next) {
			next = i->hash_next;
			i->hash_next = b[i->id & (n - 1)];
			b[i->id & (n - 1)] = i;
		}
	}
	if (ep->bucket)
		sys_munmap(ep->bucket, ep->n_buckets * sizeof(struct tas_item *));
	ep->bucket = b;
	ep->n_buckets = n;
	return true;
}

struct tas_item *tas__ep_items(struct tas_ep *ep, uint32_t id)
{
	return ep->n_buckets ? ep->bucket[id & (ep->n_buckets - 1)] : NULL;
}

static bool hash_add(struct tas_ep *ep, struct tas_item *i)
{
	struct tas_item **b;

	if (atomic_load(&ep->n_tas) >= ep->n_buckets && !hash_grow(ep))
		return false;
	i->id = i->o->id;
	b = &ep->bucket[i->id & (ep->n_buckets - 1)];
	i->hash_next = *b;
	*b = i;
	return true;
}

static void hash_del(struct tas_ep *ep, struct tas_item *i)
{
	for (struct tas_item **p = &ep->bucket[i->id & (ep->n_buckets - 1)]; *p; p = &(*p)->hash_next) {
		if (*p == i) {
			*p = i->hash_next;
			return;
		}
	}
}

/* ---- ready list ---- */
void tas__ep_ready(struct tas_ep *ep, struct tas_item *i)
{
	if (i->flags & TAS_IT_READY)
		return;
	i->flags |= TAS_IT_READY;
	i->ready_next = &ep->ready;
	i->ready_prev = ep->ready.ready_prev;
	i->ready_prev->ready_next = i;
	/* the head is looked at without the lock by tas__ep_pending() */
	__atomic_store_n(&ep->ready.ready_prev, i, __ATOMIC_RELEASE);
}

void tas__ep_unready(struct tas_item *i)
{
	if (!(i->flags & TAS_IT_READY))
		return;
	i->flags &= ~(uint32_t)TAS_IT_READY;
	i->ready_prev->ready_next = i->ready_next;
	__atomic_store_n(&i->ready_next->ready_prev, i->ready_prev, __ATOMIC_RELEASE);
}

void tas__ep_force_all(struct tas_ep *ep)
{
	for (uint32_t k = 0; k < ep->n_buckets; k++) {
		for (struct tas_item *i = ep->bucket[k]; i; i = i->hash_next) {
			i->flags |= TAS_IT_FORCE;
			tas__ep_ready(ep, i);
		}
	}
}

bool tas__ep_pending(struct tas_ep *ep)
{
	struct tas_session *ss = ep->w.ss;

	if (__atomic_load_n(&ep->ready.ready_prev, __ATOMIC_ACQUIRE) != &ep->ready)
		return true;
	if (!ss)
		return false;
	return tas_bitmap_any(&ss->r->ready[ep->w.index]) || (!ep->death_seen && !tas__alive(ss));
}

/* ---- wait set ---- */
static void expose_now(struct tas_ep *ep)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = tas__mark(TAS_MARK_WAKE)};
	int fd = tas__ep_number(ep);

	if (!ep->exposed_in && ep->w.ss && fd >= 0)
		ep->exposed_in = tas__epoll_ctl_raw(fd, EPOLL_CTL_ADD, ep->w.fd, &ev) == 0;
	tas__ep_announce(ep);
}

static void ep_release_waiter(struct tas_ep *ep)
{
	int fd = tas__ep_number(ep);

	if (ep->exposed_in && fd >= 0)
		tas__epoll_ctl_raw(fd, EPOLL_CTL_DEL, ep->w.fd, NULL);
	ep->exposed_in = false;
	tas__waiter_put(&ep->w);
}

bool tas__ep_ensure(struct tas_ep *ep, struct tas_session *ss)
{
	if (ep->w.ss == ss)
		return true;
	if (!tas__alive(ss))
		return false;
	if (ep->w.ss)
		ep_release_waiter(ep);
	if (tas__waiter_get(ss, true, &ep->w) < 0) {
		ep->w.ss = NULL; /* epoll_wait looks at all members now and then */
		return false;
	}
	ep->death_seen = false;
	for (uint32_t k = 0; k < ep->n_buckets; k++)
		for (struct tas_item *i = ep->bucket[k]; i; i = i->hash_next)
			if (i->o->ss == ss)
				tas__subscribe(&ep->w, i->o->b, i->o->id, i->o->gen);
	tas__ep_force_all(ep);
	if (atomic_load(&ep->exposed))
		expose_now(ep);
	return true;
}

void tas__ep_unkick(struct tas_ep *ep)
{
	int fd = tas__ep_number(ep);

	if (ep->kick_fd < 0)
		return;
	if (fd >= 0)
		tas__epoll_ctl_raw(fd, EPOLL_CTL_DEL, ep->kick_fd, NULL);
	tas__internal_close(ep->kick_fd);
	ep->kick_fd = -1;
}

/* Threads that sleep in the kernel's epoll_wait alone, because there was no TAS member: show them something. */
static void kick_raw(struct tas_ep *ep)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = tas__mark(TAS_MARK_KICK)};
	int fd = tas__ep_number(ep);

	if (!atomic_load(&ep->raw_waiters) || ep->kick_fd >= 0 || fd < 0)
		return;
	ep->kick_fd = tas__internal_fd((int)sys2(SYS_eventfd2, 1, O_NONBLOCK | O_CLOEXEC));
	if (ep->kick_fd >= 0)
		tas__epoll_ctl_raw(fd, EPOLL_CTL_ADD, ep->kick_fd, &ev);
}

void tas__ep_wake(struct tas_ep *ep)
{
	kick_raw(ep);
	if (ep->w.ss && (atomic_load(&ep->sleepers) || atomic_load(&ep->exposed)))
		tas__ep_announce(ep);
}

/* ---- items, under both locks ---- */
/* The kernel half of a listener: level, edge and one-shot as the program asked, our marker as data. */
int tas__ep_khalf(struct tas_ep *ep, struct tas_item *i, int op, uint32_t events)
{
	struct epoll_event ev = {.events = events, .data.u64 = tas__mark(i->index)};
	int fd = tas__ep_number(ep);

	return fd < 0 ? -EBADF : tas__epoll_ctl_raw(fd, op, i->fd, &ev);
}

static int tas_member_begin(struct tas_ep *ep, struct tas_item *i)
{
	struct tas_obj *o = i->o;
	bool listens = atomic_load(&o->kind) == TAS_OBJ_LISTEN;
	int r;

	if (!hash_add(ep, i))
		return -ENOMEM;
	i->flags = TAS_IT_TAS | TAS_IT_FORCE;
	i->stamp = 0;
	if (listens) {
		r = tas__ep_khalf(ep, i, EPOLL_CTL_ADD, i->events);
		if (r == -EEXIST)
			r = tas__ep_khalf(ep, i, EPOLL_CTL_MOD, i->events & ~(uint32_t)EPOLLEXCLUSIVE);
		if (r < 0) {
			hash_del(ep, i);
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
		tas__subscribe(&ep->w, o->b, o->id, o->gen);
	tas__ep_wake(ep);
	return 0;
}

static void tas_member_end(struct tas_ep *ep, struct tas_item *i, bool in_kernel)
{
	struct tas_obj *o = i->o;
	bool other = false;

	tas__ep_unready(i);
	hash_del(ep, i);
	for (struct tas_item *k = o->items; k; k = k->obj_next)
		other |= k != i && k->ep == ep && (k->flags & TAS_IT_TAS);
	if (!other && ep->w.ss && o->ss == ep->w.ss)
		tas__unsubscribe(&ep->w, o->b, o->id, o->gen);
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
	i = item_new();
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
		item_free(i);
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
	item_free(i);
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

	ep = ep_new(fd);
	*err = ep ? tas__number_set(fd, TAS_FD_EPOLL, ep, &old) : -ENOMEM;
	if (ep && *err < 0) {
		ep->free = free_sets;
		free_sets = ep;
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
	if (!ev)
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
	uint64_t mask;

	if (atomic_fetch_sub(&ep->refs, 1) != 1)
		return;
	mask = tas__table_lock();
	tas__mutex_lock(&ep->lock);
	for (uint32_t s = 0; s < n_slabs; s++) { /* closing a set is rare; members do not know their neighbours */
		for (struct tas_item *i = item_slabs[s]; i < item_slabs[s] + SLAB; i++) {
			if (i->ep != ep)
				continue;
			if (i->flags & TAS_IT_TAS)
				tas_member_end(ep, i, false);
			obj_unlink(i);
			item_free(i);
		}
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
	ep->free = free_sets;
	free_sets = ep;
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
		item_free(i);
		tas__mutex_unlock(&ep->lock);
	}
}

void tas__ep_became_tas(struct tas_obj *o)
{
	for (struct tas_item *i = o->items, *next; i; i = next) {
		struct tas_ep *ep = i->ep;
		int fd;

		next = i->obj_next;
		tas__mutex_lock(&ep->lock);
		fd = tas__ep_number(ep);
		if (fd >= 0)
			tas__epoll_ctl_raw(fd, EPOLL_CTL_DEL, i->fd, NULL);
		if (tas_member_begin(ep, i) < 0) {
			obj_unlink(i);
			item_free(i);
		}
		tas__mutex_unlock(&ep->lock);
	}
}

void tas__ep_became_kernel(struct tas_obj *o)
{
	while (o->items) {
		struct tas_item *i = o->items;

		o->items = i->obj_next;
		item_free(i);
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
			item_free(i);
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

void tas__ep_kick(struct tas_obj *o)
{
	for (struct tas_item *i = o->items; i; i = i->obj_next) {
		if (!(i->flags & TAS_IT_TAS))
			continue;
		tas__mutex_lock(&i->ep->lock);
		i->flags |= TAS_IT_FORCE;
		tas__ep_ready(i->ep, i);
		tas__ep_wake(i->ep);
		tas__mutex_unlock(&i->ep->lock);
	}
}

void tas__ep_expose(int fd)
{
	struct tas_ep *ep = tas__ep_get(fd);
	uint64_t mask;

	if (!ep)
		return;
	if (!atomic_exchange(&ep->exposed, true)) {
		mask = tas__ep_lock(ep);
		expose_now(ep);
		tas__ep_unlock(ep, mask);
	}
	tas__ep_put(ep);
}

/* ---- fork ---- */
void tas__ep_fork_prepare(void)
{
	for (struct tas_ep *ep = all_sets; ep; ep = ep->next)
		tas__mutex_lock(&ep->lock);
}

void tas__ep_fork_parent(void)
{
	for (struct tas_ep *ep = all_sets; ep; ep = ep->next)
		tas__mutex_unlock(&ep->lock);
}

/* The child has its own copy of the items; its wait set is made when it first waits.  The eventfds it inherited are
 * closed. */
void tas__ep_fork_child(void)
{
	uint32_t high = atomic_load(&tas__high);

	for (struct tas_ep *ep = all_sets; ep; ep = ep->next) {
		struct tas_session *ss = ep->w.ss;

		atomic_store(&ep->lock.w, 0);
		if (!atomic_load(&ep->refs))
			continue;
		ep->w.ss = NULL;
		ep->inherited = true;
		ep->exposed_in = false;
		ep->kick_fd = -1;
		atomic_store(&ep->sleepers, 0);
		atomic_store(&ep->raw_waiters, 0);
		atomic_store(&ep->refs, 0);
		if (ss)
			tas__session_put(ss);
	}
	for (uint32_t fd = 0; fd < high; fd++) {
		struct tas_entry *e = tas__entry((int)fd);
		struct tas_ep *ep = e && tas__state((int)fd) == TAS_FD_EPOLL ? atomic_load(&e->p) : NULL;

		if (ep)
			atomic_fetch_add(&ep->refs, 1);
	}
}
