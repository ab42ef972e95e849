/* SPDX-License-Identifier: MIT */
/* What an epoll set is made of: items and sets in memory, markers, hash and ready list, the wait set, fork.  See ep.h.
 */
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
struct tas_item *tas__item_new(void)
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

void tas__item_free(struct tas_item *i)
{
	i->ep = NULL;
	i->o = NULL;
	i->free = free_items;
	free_items = i;
}

struct tas_ep *tas__ep_new(int fd)
{
	struct tas_ep *ep = free_sets;

	if (ep) {
		free_sets = ep->free;
	} else {
		ep = sys_mmap(NULL, 4096, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
		if (!ep)
			return NULL;
		ep->next = all_sets;
		__atomic_store_n(&all_sets, ep, __ATOMIC_RELEASE);
	}
	ep->fd = fd;
	ep->kick_fd = -1;
	ep->w.ss = NULL;
	ep->ready.ready_next = ep->ready.ready_prev = &ep->ready;
	atomic_store(&ep->rung, false);
	ep->nests = ep->exposed_in = ep->inherited = ep->death_seen = ep->near = false;
	atomic_store(&ep->kernel, false);
	atomic_store(&ep->exposed, false);
	atomic_store(&ep->n_tas, 0);
	atomic_store(&ep->n_listen, 0);
	atomic_store(&ep->refs, 1);
	return ep;
}

void tas__ep_recycle(struct tas_ep *ep)
{
	ep->free = free_sets;
	free_sets = ep;
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

/* A line of fdinfo: "tfd:        5 events: 40000000 data: ..."; the kernel takes all events from a one-shot member that has
 * fired.  1: that, 0: it has not, -1: another line. */
static int fired_line(const char *c, int fd)
{
	uint32_t n = 0, events = 0;

	if (c[0] != 't' || c[1] != 'f' || c[2] != 'd' || c[3] != ':')
		return -1;
	for (c += 4; *c == ' '; c++)
		;
	for (; *c >= '0' && *c <= '9'; c++)
		n = n * 10 + (uint32_t)(*c - '0');
	if (n != (uint32_t)fd)
		return -1;
	while (*c && *c != ':')
		c++;
	for (c += *c == ':'; *c == ' '; c++)
		;
	for (; (*c >= '0' && *c <= '9') || (*c >= 'a' && *c <= 'f'); c++)
		events = events << 4 | (uint32_t)(*c <= '9' ? *c - '0' : *c - 'a' + 10);
	return !(events & ~(uint32_t)(EPOLLET | EPOLLONESHOT | EPOLLWAKEUP | EPOLLEXCLUSIVE));
}

bool tas__ep_fired(int epfd, int fd)
{
	char path[40] = "/proc/self/fdinfo/", buf[4096], digits[12];
	int n = 0, at = 18, file, found = -1;
	size_t have = 0;
	ssize_t r;

	for (unsigned v = (unsigned)epfd; v || !n; v /= 10)
		digits[n++] = (char)('0' + v % 10);
	while (n)
		path[at++] = digits[--n];
	file = (int)sys4(SYS_openat, AT_FDCWD, SYS_P(path), O_RDONLY | O_CLOEXEC, 0);
	while (file >= 0 && found < 0 && (r = sys_read(file, buf + have, sizeof buf - 1 - have)) > 0) {
		char *line = buf, *end;

		have += (size_t)r;
		buf[have] = 0;
		for (; found < 0 && (end = memchr(line, '\n', have - (size_t)(line - buf))); line = end + 1)
			found = fired_line(line, fd);
		have -= (size_t)(line - buf);
		memmove(buf, line, have);
	}
	if (file >= 0)
		sys_close(file);
	return found == 1;
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

bool tas__ep_hash_add(struct tas_ep *ep, struct tas_item *i)
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

void tas__ep_hash_del(struct tas_ep *ep, struct tas_item *i)
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
	if (ep->w.ss)
		tas__waiter_arm(&ep->w); /* or the first announcement would think that the service has rung already */
	tas__ep_announce(ep);
}

static void ep_release_waiter(struct tas_ep *ep)
{
	int fd = tas__ep_number(ep);

	if (ep->exposed_in && fd >= 0)
		tas__epoll_ctl_raw(fd, EPOLL_CTL_DEL, ep->w.fd, NULL);
	ep->exposed_in = false;
	tas__ep_unring(ep);
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
				tas__obj_subscribe(&ep->w, i->o, i->events & EPOLLEXCLUSIVE);
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

void tas__ep_unring(struct tas_ep *ep)
{
	atomic_store(&ep->rung, false); /* first: who rings in between is heard */
	tas__waiter_drain(&ep->w);
	if (atomic_load(&ep->exposed)) /* an exposed set that is not armed means that the service has rung: not so any more */
		tas__waiter_arm(&ep->w);
}

static void refresh(struct tas_ep *ep)
{
	uint64_t mask = tas__ep_lock(ep);

	tas__ep_announce(ep);
	tas__ep_unlock(ep, mask);
}

void tas__ep_refresh(int fd)
{
	struct tas_ep *ep = tas__ep_get(fd);

	if (!ep)
		return;
	if (ep->nests)
		tas__ep_refresh_all();
	else if (atomic_load(&ep->exposed) && ep->w.ss)
		refresh(ep);
	tas__ep_put(ep);
}

void tas__ep_refresh_all(void)
{
	for (struct tas_ep *ep = __atomic_load_n(&all_sets, __ATOMIC_ACQUIRE); ep; ep = ep->next) {
		if (!atomic_load(&ep->exposed) || !tas__ep_try_ref(ep))
			continue;
		if (ep->w.ss)
			refresh(ep);
		tas__ep_put(ep);
	}
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
		atomic_store(&ep->rung, false);
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
