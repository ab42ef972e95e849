/* SPDX-License-Identifier: MIT */
/*
 * The table of sockets: ids, generations, blocks, ports, identities; claims and the last close.
 *
 * An id names a block that applications can see.  Connections that applications do not know yet (embryos) or any more
 * (lingering, TIME_WAIT) have none.  Ids are reused last in, first out, so that hint bitmaps stay dense; a generation tells
 * users apart.
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>

#include "abi/tas_epoll.h"
#include "fast/sock.h"

enum { COOKIE_BUCKETS = 1 << 14, SOCKS_PER_SET = 1 << 17, COLD = 1024 /* sockets: some 2 KB each */ };

static struct tas_sock *table[TAS_SOCK_MAX];
/* Core that owns the socket of this id, TAS_NOBODY: none.  An entry of the table is looked at by its owner only (or alone): others
 * could meet one that is just being freed. */
static _Atomic uint8_t owner_of[TAS_SOCK_MAX];
static uint32_t generation; /* one for all ids: a block that is another socket's by now never has the same */
static uint32_t *free_ids;
static uint32_t n_free, next_id;
static struct tas_sock_base *by_cookie[COOKIE_BUCKETS];
static struct tas_sock *by_port[65536];
static uint32_t n_ports, n_listeners;
static _Atomic uint32_t n_placed;

static struct tas_sock_base **cookie_bucket(uint64_t cookie)
{
	return &by_cookie[(cookie * 0x9e3779b97f4a7c15ull) >> 50];
}

int tas__socks_init(void)
{
	free_ids = malloc(TAS_SOCK_MAX * sizeof *free_ids);
	if (!free_ids)
		return -ENOMEM;
	for (uint32_t i = 0; tas_n_cores > 1 && i < TAS_SOCK_MAX; i++)
		atomic_store_explicit(&owner_of[i], TAS_NOBODY, memory_order_relaxed);
	for (unsigned i = 0; i < tas_n_cores; i++) {
		struct tas_stack *k = calloc(1, sizeof *k);

		if (!k || tas__flows_init(k) < 0) {
			free(k);
			return -ENOMEM;
		}
		k->out_tail = &k->out_head;
		k->held_tail = &k->held_head;
		k->slack.tail = &k->slack.head;
		tas_cores[i].stack = k;
	}
	return 0;
}

/* Peers over the link are told (RST); nothing else is left to say. */
void tas__socks_exit(void)
{
	if (!free_ids || !tas_cores[0].stack)
		return;
	for (uint32_t i = 0; i < 65536; i++) {
		while (by_port[i]) {
			tas__wire_goodbye(by_port[i]);
			tas__sock_free(by_port[i]);
		}
	}
	for (uint32_t i = 0; i < next_id; i++) /* dead ones, which have no port any more */
		if (table[i])
			tas__sock_free(table[i]);
	free(free_ids);
	free_ids = NULL;
	n_free = next_id = 0;
	for (unsigned i = 0; i < tas_n_cores; i++) {
		while (tas_cores[i].stack->polled)
			tas__proc_poll_stop(tas_cores[i].stack->polled);
		free(tas_cores[i].stack->timers.at);
		free(tas_cores[i].stack->flows);
		free(tas_cores[i].stack);
		tas_cores[i].stack = NULL;
	}
}

static uint32_t id_get(void)
{
	if (n_free)
		return free_ids[--n_free];
	return next_id < TAS_SOCK_MAX ? next_id++ : UINT32_MAX;
}

/* Without the part of the union that another kind has: a TCP engine is larger than all the rest, and too large for malloc's quick lists. */
static size_t size_of(enum tas_sock_kind kind)
{
	const struct tas_sock *s = NULL;

	switch (kind) {
	case TAS_K_LOCAL:
		return offsetof(struct tas_sock, u) + sizeof s->u.local;
	case TAS_K_LISTENER:
		return offsetof(struct tas_sock, u) + sizeof s->u.lis;
	default:
		return sizeof *s;
	}
}

struct tas_sock *tas__sock_new(struct tas_core *c, enum tas_sock_kind kind)
{
	struct tas_sock *s = malloc(size_of(kind));

	if (!s)
		return NULL;
	memset((void *)s, 0, size_of(kind));
	s->base.kind = kind;
	s->base.id = UINT32_MAX;
	s->base.wd = -1;
	s->core = c;
	return s;
}

static void owner_set(uint32_t id, unsigned core)
{
	if (tas_n_cores > 1)
		atomic_store_explicit(&owner_of[id], (uint8_t)core, memory_order_release);
}

bool tas__sock_mine(const struct tas_core *c, uint32_t id, unsigned *owner)
{
	*owner = id < TAS_SOCK_MAX ? atomic_load_explicit(&owner_of[id], memory_order_acquire) : TAS_NOBODY;
	return *owner == c->index;
}

void tas__sock_core(struct tas_sock *s, struct tas_core *c)
{
	s->core = c;
	if (s->base.id == UINT32_MAX)
		return;
	atomic_store_explicit(&s->base.b->s.core, (uint16_t)c->index, memory_order_relaxed);
	owner_set(s->base.id, c->index);
}

void tas__socks_leave(const struct tas_core *c, struct tas_core *to)
{
	for (uint32_t i = 0; i < next_id; i++)
		if (table[i] && table[i]->core == c)
			tas__flow_move(table[i], to);
}

static int place(struct tas_sock *s, struct tas_set *set, int family)
{
	uint32_t max = tas_config.max_socks_per_set ? tas_config.max_socks_per_set : SOCKS_PER_SET;
	tas_off_t off;
	uint32_t id;

	if (set->n_socks >= max)
		return -ENOBUFS;
	id = id_get();
	if (id == UINT32_MAX)
		return -ENOBUFS;
	off = tas__mem_alloc(set, TAS_BLOCK_SIZE);
	if (!off) {
		free_ids[n_free++] = id;
		return -ENOBUFS;
	}
	if (!++generation)
		generation = 1;
	s->base.id = id;
	s->base.gen = generation;
	s->base.set = set;
	s->base.block = off;
	s->base.b = tas__mem_ptr(set, off);
	s->base.ident.domain = family;
	memset((void *)s->base.b, 0, sizeof *s->base.b);
	set->n_socks++;
	n_placed++;
	if (s->base.kind == TAS_K_LISTENER)
		n_listeners++;
	table[id] = s;
	owner_set(id, s->core->index);
	return 0;
}

int tas__sock_place(struct tas_sock *s, struct tas_set *set, int family)
{
	int err;

	tas_shared_in();
	err = place(s, set, family);
	tas_shared_out();
	return err;
}

static void forget_cookie(struct tas_sock_base *b)
{
	struct tas_sock_base **p;

	if (!b->ident.cookie)
		return;
	tas_shared_in();
	for (p = cookie_bucket(b->ident.cookie); *p; p = &(*p)->by_cookie) {
		if (*p == b) {
			*p = b->by_cookie;
			break;
		}
	}
	tas_shared_out();
	b->ident.cookie = 0;
}

void tas__sock_unplace(struct tas_sock *s)
{
	struct tas_sock_base *b = &s->base;

	if (b->id == UINT32_MAX)
		return;
	tas_shared_in();
	tas__bridge_orphan(s);
	tas__accept_forget(s);
	tas__moved_drop(b, NULL);
	tas__watch_del(b);
	forget_cookie(b);
	free(b->more_subs);
	b->more_subs = NULL;
	b->n_more_subs = 0;
	tas__streams_free(s);
	atomic_store_explicit(&b->b->s.gen, 0, memory_order_release);
	tas__mem_free(b->set, b->block, TAS_BLOCK_SIZE);
	owner_set(b->id, TAS_NOBODY);
	table[b->id] = NULL;
	free_ids[n_free++] = b->id;
	n_placed--;
	if (b->kind == TAS_K_LISTENER)
		n_listeners--;
	b->id = UINT32_MAX;
	b->b = NULL;
	b->set->n_socks--;
	tas__set_put(b->set);
	b->set = NULL;
	tas_shared_out();
}

void tas__sock_free(struct tas_sock *s)
{
	tas__timer_del(s);
	tas__output_forget(s);
	tas__wake_forget(s);
	tas__slack_del(s);
	tas__port_del(s);
	tas__flow_del(s);
	tas__sock_unplace(s);
	free(s);
}

struct tas_sock_base *tas__sock(uint32_t id, uint32_t gen)
{
	struct tas_sock *s = id < TAS_SOCK_MAX ? table[id] : NULL;

	return s && (!gen || s->base.gen == gen) ? &s->base : NULL;
}

/* ---- with very many sockets nothing is in the cache: what hints will touch is asked for ahead ---- */
/* It will be written to as well: without asking its last writer a second time. */
static void fetch(const void *from, size_t len)
{
	for (size_t at = 0; at < len; at += 64)
		__asm__ volatile("prefetchw (%0)" : : "r"((const char *)from + at));
}

static void fetch_private(const struct tas_sock *s)
{
	fetch(s, 1);
	fetch(&s->core, offsetof(struct tas_sock, u) + 64 - offsetof(struct tas_sock, core));
}

bool tas__socks_cold(void)
{
	return n_placed > COLD;
}

void tas__sock_ahead(const struct tas_core *c, uint32_t id, unsigned stage)
{
	const struct tas_sock *s, *peer;
	unsigned owner;

	if (id >= TAS_SOCK_MAX || (!tas_alone && !tas__sock_mine(c, id, &owner)))
		return;
	if (!stage) {
		__builtin_prefetch(&table[id]);
		return;
	}
	s = table[id];
	if (!s || s->base.kind == TAS_K_LISTENER)
		return;
	peer = s->base.kind == TAS_K_LOCAL ? s->u.local.peer : NULL;
	switch (stage) {
	case 1:
		fetch_private(s);
		break;
	case 2:
		fetch(&s->base.b->s, 64);
		fetch(&s->base.b->a, 128);
		__builtin_prefetch(&s->base.b->c);
		if (peer)
			fetch_private(peer);
		break;
	case 3:
		if (s->tx[s->tx_cur].gen)
			__builtin_prefetch(tas__mem_ptr(s->base.set, s->tx[s->tx_cur].off));
		if (!peer || !peer->base.b)
			break;
		fetch(&peer->base.b->s, 128);
		fetch(&peer->base.b->x, 64);
		__builtin_prefetch(&peer->base.b->a);
		__builtin_prefetch(&peer->base.b->c);
		if (peer->rx[peer->rx_cur].gen)
			fetch(tas__mem_ptr(peer->base.set, peer->rx[peer->rx_cur].off), 1);
		break;
	}
}

struct tas_sock_base *tas__sock_by_cookie(uint64_t cookie)
{
	struct tas_sock_base *b;

	for (b = *cookie_bucket(cookie); b; b = b->by_cookie)
		if (b->ident.cookie == cookie)
			return b;
	return NULL;
}

void tas__sock_identify(struct tas_sock_base *b, const struct tas_ident *i)
{
	struct tas_sock_base **head, *old;

	if (b->ident.cookie == i->cookie)
		return;
	forget_cookie(b);
	/* a descriptor names one socket: a listener that registers again replaces what it was */
	old = tas__sock_by_cookie(i->cookie);
	if (old)
		forget_cookie(old);
	b->ident = *i;
	head = cookie_bucket(i->cookie);
	b->by_cookie = *head;
	*head = b;
}

/* ---- ports ---- */
struct tas_sock *tas__port_first(uint16_t port)
{
	return by_port[port];
}

/* Listeners first: who looks for one does not pass by the connections, of which a server's port may have thousands. */
void tas__port_add(struct tas_sock *s)
{
	struct tas_sock **at = &by_port[tas__port(&s->base.local)];

	tas_shared_in();
	if (!*at)
		n_ports++;
	while (s->base.kind != TAS_K_LISTENER && *at && (*at)->base.kind == TAS_K_LISTENER)
		at = &(*at)->port_next;
	s->port_next = *at;
	if (*at)
		(*at)->port_pprev = &s->port_next;
	s->port_pprev = at;
	*at = s;
	tas_shared_out();
}

void tas__port_del(struct tas_sock *s)
{
	tas_shared_in(); /* neighbours in the list may be other cores' */
	if (s->port_pprev) {
		*s->port_pprev = s->port_next;
		if (s->port_next)
			s->port_next->port_pprev = s->port_pprev;
		if (!by_port[tas__port(&s->base.local)])
			n_ports--;
		s->port_pprev = NULL;
	}
	tas_shared_out();
}

/* ---- what the application is told ---- */
void tas__sock_state(struct tas_sock *s, enum tas_sock_state st)
{
	if (s->base.b)
		atomic_store_explicit(&s->base.b->s.state, st, memory_order_release);
}

void tas__sock_error(struct tas_sock *s, int error)
{
	uint32_t seq;

	if (!s->base.b)
		return;
	seq = (atomic_load_explicit(&s->base.b->s.error, memory_order_relaxed) >> 16) + 1;
	atomic_store_explicit(&s->base.b->s.error, (seq & 0xffff) << 16 | (uint32_t)error, memory_order_release);
}

void tas__sock_flags(struct tas_sock *s, uint32_t set)
{
	if (s->base.b)
		atomic_fetch_or_explicit(&s->base.b->s.flags, set, memory_order_release);
}

void tas__sock_publish(struct tas_sock *s, enum tas_sock_state st)
{
	struct tas_service_line *a = &s->base.b->s;
	int family = s->base.ident.domain;

	a->id = s->base.id;
	atomic_store_explicit(&a->core, (uint16_t)s->core->index, memory_order_relaxed);
	a->family = (uint16_t)family;
	a->local = tas__addr_as(&s->base.local, family);
	a->peer = tas__addr_as(&s->base.peer, family);
	atomic_store_explicit(&a->state, st, memory_order_relaxed);
	atomic_store_explicit(&a->gen, s->base.gen, memory_order_release);
}

uint32_t tas__app_opts(const struct tas_sock *s)
{
	return s->base.b ? atomic_load_explicit(&s->base.b->a.opts, memory_order_relaxed) : s->opts_seen;
}

/* ---- claims and closing ---- */
void tas__sock_unclaimed(struct tas_sock_base *b)
{
	if (b->closed || b->watched || tas__claimed(b))
		return;
	/* a connection that waits in an accept queue belongs to its listener (an acceptor may have died with its claim on
	 * it set, before it took it out) */
	if (tas__of(b)->listener || tas__accept_waiting(tas__of(b)))
		return;
	tas__sock_last_close(b);
}

void tas__socks_check(struct tas_set *set)
{
	for (uint32_t i = 0; i < next_id && (set->n_socks || set->n_shared); i++)
		if (table[i] && tas__set_reaches(set, table[i]->base.set))
			tas__sock_unclaimed(&table[i]->base);
}

void tas__moved_drop_all(struct tas_set *set)
{
	for (uint32_t i = 0; i < next_id && set->n_moved; i++)
		if (table[i] && table[i]->base.moved)
			tas__moved_drop(&table[i]->base, set);
}

void tas__socks_reset(const struct tas_set *set)
{
	for (uint32_t i = 0; i < next_id; i++) {
		struct tas_sock *s = table[i];

		if (!s || s->base.set != set || s->dead || s->base.closed)
			continue;
		if (tas__is_direct(s)) {
			s->u.local.nonsense = true;
			if (!tas__direct_ended(s))
				continue; /* its timer goes on */
		}
		tas__sock_nonsense(s);
	}
}

void tas__sock_last_close(struct tas_sock_base *b)
{
	struct tas_sock *s = tas__of(b);

	if (b->closed)
		return;
	b->closed = true;
	tas__sock_flags(s, TAS_F_CLOSED);
	tas__wake_watchers(s); /* epoll sets that have it as a member forget it */
	tas__watch_del(b);
	forget_cookie(b);
	if (b->kind == TAS_K_LISTENER) {
		tas_alone_in(); /* its embryos, and what waits in its queue, are of all cores */
		tas__listener_close(s);
		tas_alone_out();
		return;
	}
	tas__sock_close_now(s);
}

void tas__sock_close_now(struct tas_sock *s)
{
	struct tas_sock_base *b = &s->base;
	uint32_t shut;

	if (b->kind == TAS_K_LOCAL && !tas__direct_ended(s))
		return; /* it comes here again */
	if (!s->dead && (tas__local_nonsense(s) || tas__app_read(s) < 0)) {
		tas__sock_nonsense(s);
		return;
	}
	shut = atomic_load_explicit(&b->b->a.shut, memory_order_relaxed);
	/* Linux: close with unread data answers with RST (tcp_close, RFC 2525 §2.17) */
	bool unread = s->delivered != s->consumed;

	if (b->kind == TAS_K_LINK)
		tas__wire_close(s, (shut & TAS_ABORT) || unread);
	else
		tas__local_close(s, (shut & TAS_ABORT) || (unread && !(shut & TAS_ALL_READ)));
}

static uint32_t sub_slot(uint32_t sub)
{
	return (sub & ~(uint32_t)TAS_SUB_EXCLUSIVE) >> 16;
}

void tas__sock_forget_proc(struct tas_sock_base *b, const struct tas_proc *p)
{
	struct tas_lock_line *c = &b->b->c;
	_Atomic uint32_t *locks[] = { &c->lock_rx, &c->lock_tx };
	bool exclusive = false;

	for (int i = 0; i < 2; i++) {
		uint32_t v = atomic_load_explicit(locks[i], memory_order_relaxed);

		if (((v >> 20) & 0x7ff) == p->slot + 1 && atomic_compare_exchange_strong(locks[i], &v, 0)) {
			tas__futex_wake(locks[i]);
			tas__direct_forget_proc(tas__of(b), true);
		}
	}
	tas__direct_forget_proc(tas__of(b), false);
	for (int i = 0; i < TAS_SUBS; i++) {
		uint32_t v = atomic_load_explicit(&c->subs[i], memory_order_relaxed);

		if (v && sub_slot(v) == p->slot && atomic_compare_exchange_strong(&c->subs[i], &v, 0))
			exclusive |= v & TAS_SUB_EXCLUSIVE;
	}
	for (uint32_t i = 0; i < b->n_more_subs;) {
		if (sub_slot(b->more_subs[i]) == p->slot) {
			exclusive |= b->more_subs[i] & TAS_SUB_EXCLUSIVE;
			b->more_subs[i] = b->more_subs[--b->n_more_subs];
		} else {
			i++;
		}
	}
	if (exclusive && b->kind == TAS_K_LISTENER && !b->closed)
		tas__listener_hint(tas__of(b)); /* it may be the one who was woken for what is queued */
}

int tas__sock_subscribe(struct tas_sock_base *b, const struct tas_proc *p, uint32_t ws, uint32_t flags)
{
	uint32_t v = (flags & TAS_SUB_EPOLL ? TAS_EP_SLOT : p->slot) << 16 | (ws + 1);
	uint32_t *more;

	for (uint32_t i = 0; i < b->n_more_subs; i++)
		if ((b->more_subs[i] & ~(uint32_t)TAS_SUB_EXCLUSIVE) == v) {
			b->more_subs[i] &= v | (flags & TAS_SUB_EXCLUSIVE);
			return 0;
		}
	more = realloc(b->more_subs, (b->n_more_subs + 1) * sizeof *more);
	if (!more)
		return -ENOMEM;
	b->more_subs = more;
	more[b->n_more_subs++] = v | (flags & TAS_SUB_EXCLUSIVE);
	return 0;
}

void tas__sock_unsubscribe(struct tas_sock_base *b, const struct tas_proc *p, uint32_t ws, uint32_t flags)
{
	uint32_t v = (flags & TAS_SUB_EPOLL ? TAS_EP_SLOT : p->slot) << 16 | (ws + 1);

	for (uint32_t i = 0; i < b->n_more_subs; i++) {
		if ((b->more_subs[i] & ~(uint32_t)TAS_SUB_EXCLUSIVE) == v) {
			b->more_subs[i] = b->more_subs[--b->n_more_subs];
			return;
		}
	}
}

void tas__sock_nonsense(struct tas_sock *s)
{
	tas_count(s->core, TAS_CTR_app_bad_counters, 1);
	if (s->base.kind == TAS_K_LINK)
		tas__wire_close(s, true);
	else if (s->base.kind == TAS_K_LOCAL)
		tas__local_close(s, true);
}

void tas__sock_gauges(struct tas_sock_gauges *g)
{
	*g = (struct tas_sock_gauges){
		.sockets = n_placed,
		.listeners = n_listeners,
		.ports = n_ports,
	};
	for (uint32_t i = 0; i < next_id; i++) /* counters are up to date after that */
		if (table[i] && tas__is_direct(table[i]))
			tas__direct_sync(table[i]);
	for (unsigned i = 0; i < tas_n_cores; i++) {
		g->embryos += tas_cores[i].stack->n_embryos;
		g->time_waits += tas_cores[i].stack->n_time_wait;
	}
}
