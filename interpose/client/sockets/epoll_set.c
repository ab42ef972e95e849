/* SPDX-License-Identifier: MIT */
/*
 * What an epoll set is made of: this process's records, the locks, and in shared memory items, chains and the ready list.
 * See ep.h and abi/tas_epoll.h.
 */
#include <string.h>

#include "sockets/ep.h"

enum { SLAB = 256, SLABS_MAX = 4096, STEAL_NS = 1000000000, SLICE_NS = 100000000 };
#define WAITED (1u << 31)

static struct tas_member *slabs[SLABS_MAX]; /* table lock */
static uint32_t n_slabs;
static struct tas_member *free_members;
static struct tas_ep *all_sets, *free_sets;

/* ---- records of this process ---- */
struct tas_member *tas__member_at(uint32_t n)
{
	return n / SLAB < n_slabs ? &slabs[n / SLAB][n % SLAB] : NULL;
}

struct tas_member *tas__member_new(struct tas_ep *ep, struct tas_obj *o, uint32_t item, int fd)
{
	struct tas_member *m = free_members;

	if (!m && n_slabs < SLABS_MAX) {
		struct tas_member *s =
			sys_mmap(NULL, SLAB * sizeof *s, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);

		if (!s)
			return NULL;
		for (uint32_t k = SLAB; k--;) {
			s[k].free = free_members;
			free_members = &s[k];
		}
		slabs[n_slabs++] = s;
		m = free_members;
	}
	if (!m)
		return NULL;
	free_members = m->free;
	*m = (struct tas_member){.o = o, .ep = ep, .item = item, .fd = fd, .obj_next = o->items};
	o->items = m;
	if (item)
		ep->cache[item] = m;
	return m;
}

void tas__member_free(struct tas_member *m)
{
	struct tas_obj *o = m->o;
	_Atomic(struct tas_member *) *p = &o->items;

	while (*p && *p != m)
		p = &(*p)->obj_next;
	if (*p)
		*p = m->obj_next;
	if (m->item && m->ep->cache && m->ep->cache[m->item] == m)
		m->ep->cache[m->item] = NULL;
	m->ep = NULL;
	m->o = NULL;
	m->free = free_members;
	free_members = m;
	if (atomic_load(&o->flags) & TAS_OF_GHOST)
		tas__ghost_put(o);
}

struct tas_ep *tas__ep_all(void)
{
	return __atomic_load_n(&all_sets, __ATOMIC_ACQUIRE);
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
	ep->p = TAS_EP_NO_PART;
	ep->n_bells = 0;
	ep->own = ep->heard = 0;
	atomic_store_explicit(&ep->bell_seq, 0, memory_order_relaxed);
	atomic_store(&ep->m, NULL);
	ep->shared = ep->nests = ep->kernel = ep->exposed = ep->odd = false;
	atomic_store_explicit(&ep->kernel_quiet, 0, memory_order_relaxed);
	atomic_store(&ep->raw_waiters, 0);
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

/* ---- ready list ---- */
void tas__ep_ready_first(struct tas_ep *ep, uint32_t x)
{
	struct tas_ep_item *head = tas__ep_item(ep, 0), *i = tas__ep_item(ep, x);

	tas__ep_unready(ep, x);
	i->flags |= TAS_IT_READY;
	i->ready_prev = 0;
	i->ready_next = head->ready_next;
	__atomic_store_n(&tas__ep_item(ep, i->ready_next)->ready_prev, x, __ATOMIC_RELEASE);
	head->ready_next = x;
}

void tas__ep_ready_all(struct tas_ep *ep, uint32_t flags)
{
	uint32_t used = ep->p.m->head.used;

	for (uint32_t x = 1; x < used && x < TAS_EP_ITEMS; x++) {
		struct tas_ep_item *i = tas__ep_item(ep, x);

		if (!(i->flags & TAS_IT_USED))
			continue;
		i->flags |= flags;
		tas__ep_ready(ep, x);
	}
}

bool tas__ep_pending(struct tas_ep *ep)
{
	struct tas_ep_head *h = tas__ep_head(ep);

	if (__atomic_load_n(&ep->p.m->item[0].ready_prev, __ATOMIC_ACQUIRE))
		return true;
	if (!ep->p.ss)
		return false;
	for (uint32_t k = 0; k < ep->n_bells; k++)
		if (ep->bell[k] && atomic_load(&ep->bell[k]->top))
			return true;
	/* seq_cst: after the sleeper announced itself */
	return atomic_load(&h->top) || atomic_load_explicit(&h->bell_seq, memory_order_relaxed) != ep->bell_seq || (!h->death_seen && !tas__alive(ep->p.ss));
}

/* ---- items ---- */
static void chain(struct tas_ep *ep, uint32_t x)
{
	struct tas_ep_item *i = tas__ep_item(ep, x);
	uint32_t *head = &ep->p.m->bucket[i->id & (TAS_EP_BUCKETS - 1)];

	i->hash_next = *head;
	*head = x;
}

uint32_t tas__ep_item_new(struct tas_ep *ep)
{
	struct tas_ep_head *h = &ep->p.m->head;
	uint32_t x = h->free & (TAS_EP_ITEMS - 1);

	if (x)
		h->free = tas__ep_item(ep, x)->hash_next;
	else if (h->used < TAS_EP_ITEMS)
		x = h->used++;
	return x;
}

void tas__ep_item_begin(struct tas_ep *ep, uint32_t x)
{
	struct tas_ep_head *h = &ep->p.m->head;
	struct tas_ep_item *i = tas__ep_item(ep, x);

	__atomic_store_n(&i->flags, i->flags | TAS_IT_USED, __ATOMIC_RELEASE); /* what died from here on is found by rebuild() */
	chain(ep, x);
	if (i->flags & TAS_IT_KHALF)
		atomic_fetch_add(&h->n_listen, 1);
	atomic_fetch_add(&h->n_items, 1);
}

void tas__ep_item_end(struct tas_ep *ep, uint32_t x)
{
	struct tas_ep_head *h = &ep->p.m->head;
	struct tas_ep_item *i = tas__ep_item(ep, x);
	uint32_t *p = &h->free;

	tas__ep_unready(ep, x);
	p = &ep->p.m->bucket[i->id & (TAS_EP_BUCKETS - 1)];
	for (uint32_t n = h->used; *p && *p != x && n; n--)
		p = &tas__ep_item(ep, *p)->hash_next;
	if (*p == x)
		*p = i->hash_next;
	if (i->flags & TAS_IT_KHALF)
		atomic_fetch_sub(&h->n_listen, 1);
	atomic_fetch_sub(&h->n_items, 1);
	__atomic_store_n(&i->flags, 0, __ATOMIC_RELEASE);
	i->hash_next = h->free;
	h->free = x;
}

static bool is_of(const struct tas_ep_item *i, const struct tas_obj *o)
{
	return i->id == o->id && i->gen == o->gen && i->run == tas__ep_run(o->ss);
}

uint32_t tas__ep_find(struct tas_ep *ep, const struct tas_obj *o, int fd)
{
	uint32_t x = ep->p.m->bucket[o->id & (TAS_EP_BUCKETS - 1)];

	for (uint32_t n = ep->p.m->head.used; x && n; x = tas__ep_item(ep, x)->hash_next, n--)
		if (is_of(tas__ep_item(ep, x), o) && tas__ep_item(ep, x)->fd == fd)
			return x & (TAS_EP_ITEMS - 1);
	return 0;
}

bool tas__ep_other(struct tas_ep *ep, const struct tas_obj *o, uint32_t but)
{
	uint32_t x = ep->p.m->bucket[o->id & (TAS_EP_BUCKETS - 1)];

	for (uint32_t n = ep->p.m->head.used; x && n; x = tas__ep_item(ep, x)->hash_next, n--)
		if (x != but && is_of(tas__ep_item(ep, x), o))
			return true;
	return false;
}

/* Somebody died at work: marks, chains, lists and counts anew. */
static __attribute__((noinline)) void rebuild(struct tas_ep *ep)
{
	struct tas_ep_memory *m = ep->p.m;
	struct tas_ep_head *h = &m->head;
	uint32_t n = 0, listen = 0;

	/* marks that were half taken: everything is looked at below */
	atomic_store(&h->top, 0);
	for (int w = 0; w < TAS_EP_WORDS; w++)
		atomic_store(&h->word[w], 0);
	memset(m->bucket, 0, sizeof m->bucket);
	h->free = 0;
	if (!h->used || h->used > TAS_EP_ITEMS)
		h->used = h->used ? TAS_EP_ITEMS : 1;
	m->item[0].ready_next = m->item[0].ready_prev = 0;
	for (uint32_t x = 1; x < h->used; x++) {
		struct tas_ep_item *i = &m->item[x];

		i->flags &= ~(uint32_t)TAS_IT_READY;
		if (!(i->flags & TAS_IT_USED)) {
			i->hash_next = h->free;
			h->free = x;
			continue;
		}
		chain(ep, x);
		tas__ep_ready(ep, x);
		n++;
		listen += (i->flags & TAS_IT_KHALF) != 0;
	}
	atomic_store(&h->n_items, n);
	atomic_store(&h->n_listen, listen);
}

/* ---- locks ---- */
static uint32_t tag_of(const struct tas_ep *ep)
{
	uint32_t tid = tas__tid() & 0xfffff;

	return (ep->p.ss ? (ep->p.ss->slot + 1) << 20 : 0) | (tid ? tid : 1);
}

/* The service frees the lock of one who died.  Without a service a holder that stays too long is taken for dead. */
static __attribute__((noinline)) void memory_wait(struct tas_ep *ep, _Atomic uint32_t *w, uint32_t tag)
{
	uint64_t since = 0, now;
	uint32_t who = 0, slept = 0;

	for (int i = 0;; i++) {
		struct timespec ts = {.tv_nsec = SLICE_NS};
		uint32_t v = atomic_load_explicit(w, memory_order_relaxed);

		if (!v) { /* others may sleep: keep the mark, so that our unlock wakes one of them */
			if (atomic_compare_exchange_weak_explicit(w, &v, tag | slept, memory_order_acquire, memory_order_relaxed))
				return;
			continue;
		}
		if (i < 64) {
			__builtin_ia32_pause();
			continue;
		}
		now = tas__now();
		if ((v & ~WAITED) != who) {
			who = v & ~WAITED;
			since = now;
		}
		if (now - since > STEAL_NS && !(ep->p.ss && tas__alive(ep->p.ss)) &&
		    atomic_compare_exchange_strong_explicit(w, &v, tag | WAITED, memory_order_acquire, memory_order_relaxed))
			return;
		if (!(v & WAITED) && !atomic_compare_exchange_weak_explicit(w, &v, v | WAITED, memory_order_relaxed,
									    memory_order_relaxed))
			continue;
		slept = WAITED;
		sys_futex(w, FUTEX_WAIT, v | WAITED, &ts);
	}
}

static inline void memory_lock(struct tas_ep *ep)
{
	struct tas_ep_head *h = &ep->p.m->head;
	uint32_t tag = tag_of(ep), v = 0;

	if (!atomic_compare_exchange_strong_explicit(&h->lock, &v, tag, memory_order_acquire, memory_order_relaxed))
		memory_wait(ep, &h->lock, tag);
	if (__builtin_expect(h->busy, 0))
		rebuild(ep);
	h->busy = 1;
	atomic_signal_fence(memory_order_seq_cst);
}

static inline void memory_unlock(struct tas_ep *ep)
{
	struct tas_ep_head *h = &ep->p.m->head;

	atomic_signal_fence(memory_order_seq_cst);
	h->busy = 0;
	if (atomic_exchange_explicit(&h->lock, 0, memory_order_release) & WAITED)
		sys_futex(&h->lock, FUTEX_WAKE, 1, NULL);
}

static inline void enter(struct tas_ep *ep)
{
	tas__mutex_lock(&ep->lock);
	if (ep->p.m)
		memory_lock(ep);
}

static inline void leave(struct tas_ep *ep)
{
	if (ep->p.m)
		memory_unlock(ep);
	tas__mutex_unlock(&ep->lock);
}

void tas__ep_enter(struct tas_ep *ep)
{
	enter(ep);
}

void tas__ep_exit(struct tas_ep *ep)
{
	leave(ep);
}

uint64_t tas__ep_lock(struct tas_ep *ep)
{
	uint64_t mask = tas__signals_block();

	enter(ep);
	return mask;
}

void tas__ep_unlock(struct tas_ep *ep, uint64_t mask)
{
	leave(ep);
	tas__signals_restore(mask);
}

/* ---- the memory ---- */
void tas__part_drop(struct tas_ep_part *p, bool tell)
{
	struct tas_msg msg = {.u.ep = {.index = p->index}};

	if (p->ss && tell && !atomic_load(&p->ss->dead))
		tas__tell(atomic_load(&p->ss->ctl), &msg, TAS_MSG_EP_CLOSE);
	tas__internal_close(p->efd);
	tas__internal_close(p->bells_fd);
	if (p->m)
		tas__shared_unmap(p->m, sizeof *p->m);
	if (p->ss)
		tas__session_put(p->ss);
	*p = TAS_EP_NO_PART;
}

/* Threads that look at the head without the lock may have the old one in hand: the new one takes its place, its address stays. */
static struct tas_ep_memory *in_place_of(struct tas_ep_memory *old, struct tas_ep_memory *m)
{
	void *at;

	if (tas__map_hook) /* the service's own mapping: nothing to move; the old one stays */
		return m;
	at = (void *)sys5(SYS_mremap, m, sizeof *m, sizeof *m, 3 /* MREMAP_MAYMOVE | MREMAP_FIXED */, old);
	return at == (void *)old ? old : m;
}

void tas__ep_take(struct tas_ep *ep, const struct tas_ep_part *p)
{
	struct tas_ep_part old = ep->p;

	tas__ep_bells_drop(ep);
	ep->p = *p;
	if (old.m) {
		atomic_store(&old.m->head.lock, 0);
		ep->p.m = in_place_of(old.m, p->m);
		old.m = NULL;
		tas__part_drop(&old, true);
	}
	memory_lock(ep);
	atomic_store_explicit(&ep->m, ep->p.m, memory_order_release);
}

void tas__ep_ring(struct tas_ep *ep)
{
	uint64_t one = 1;

	if (ep->p.efd >= 0)
		sys_write(ep->p.efd, &one, sizeof one);
}

void tas__ep_drain(struct tas_ep *ep)
{
	uint64_t n;

	atomic_store(&ep->p.m->head.rung, 0); /* first: who rings in between is heard */
	if (ep->p.efd >= 0)
		sys_read(ep->p.efd, &n, sizeof n);
}
