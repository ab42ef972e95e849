/* SPDX-License-Identifier: MIT */
#include "slow/arp.h"

#include <errno.h>
#include <stdatomic.h>
#include <stdlib.h>
#include <string.h>

#define SECOND 1000000000ull

enum { HASH = 1024, NONE = 0xffff, PROBES = 3 };
static const uint64_t reachable_time = 60 * SECOND;
static const uint64_t probe_time = SECOND;
static const uint64_t pending_time = 3 * SECOND;

enum state { FREE, INCOMPLETE, REACHABLE, PROBING };

struct entry {
	uint32_t ip;
	uint8_t mac[6];
	uint8_t state;
	uint8_t n_pending;
	uint8_t probes;
	uint16_t next;      /* in its hash chain, or in the free list */
	uint32_t src;       /* our address to ask with */
	uint64_t used;
	uint64_t due;       /* INCOMPLETE, PROBING: next request; REACHABLE: until then */
	uint64_t interval;  /* INCOMPLETE */
	uint64_t since;     /* INCOMPLETE: the oldest packet waits since then */
	void *pending[TAS_ARP_PENDING];
};

struct tas_arp {
	struct entry e[TAS_ARP_ENTRIES];
	uint16_t hash[HASH];
	uint16_t free;
	unsigned n, n_pending;
	uint64_t timeout, timeout_max;
	_Atomic uint64_t deadline; /* read by the loop without a lock; not later than the first due of INCOMPLETE and PROBING entries */
	struct tas_arp_ops ops;
	void *ctx;
};

struct tas_arp *tas__arp_new(uint64_t timeout, uint64_t timeout_max, const struct tas_arp_ops *ops, void *ctx)
{
	struct tas_arp *a = calloc(1, sizeof(*a));
	unsigned i;

	if (!a)
		return NULL;
	for (i = 0; i < HASH; i++)
		a->hash[i] = NONE;
	for (i = 0; i < TAS_ARP_ENTRIES; i++)
		a->e[i].next = i + 1 < TAS_ARP_ENTRIES ? (uint16_t)(i + 1) : (uint16_t)NONE;
	a->timeout = timeout;
	a->timeout_max = timeout_max;
	atomic_store_explicit(&a->deadline, UINT64_MAX, memory_order_relaxed);
	a->ops = *ops;
	a->ctx = ctx;
	return a;
}

static uint16_t *bucket(struct tas_arp *a, uint32_t ip)
{
	return &a->hash[(ip * 2654435769u) >> 22];
}

static struct entry *find(struct tas_arp *a, uint32_t ip)
{
	uint16_t i;

	for (i = *bucket(a, ip); i != NONE; i = a->e[i].next)
		if (a->e[i].ip == ip)
			return &a->e[i];
	return NULL;
}

/* Takes the packets off the entry before it calls anybody: the owner may send again while it hears of the failure. */
static void drop_pending(struct tas_arp *a, struct entry *e, bool unreachable)
{
	unsigned i, n = e->n_pending;
	void *pkt[TAS_ARP_PENDING];

	memcpy(pkt, e->pending, n * sizeof(pkt[0]));
	e->n_pending = 0;
	a->n_pending -= n;
	for (i = 0; i < n; i++)
		a->ops.drop(a->ctx, pkt[i], unreachable);
}

static void forget(struct tas_arp *a, struct entry *e, bool unreachable)
{
	uint16_t me = (uint16_t)(e - a->e), *at = bucket(a, e->ip);
	struct entry gone = *e;

	while (*at != me)
		at = &a->e[*at].next;
	*at = e->next;
	e->state = FREE;
	e->n_pending = 0;
	e->next = a->free;
	a->free = me;
	a->n--;
	drop_pending(a, &gone, unreachable);
}

void tas__arp_free(struct tas_arp *a)
{
	unsigned i;

	if (!a)
		return;
	for (i = 0; i < TAS_ARP_ENTRIES; i++)
		if (a->e[i].state != FREE)
			drop_pending(a, &a->e[i], false);
	free(a);
}

/* Least recently used; one that nobody has answered for goes before one that works. */
static void make_room(struct tas_arp *a)
{
	struct entry *worst = &a->e[0];
	unsigned i;

	for (i = 1; i < TAS_ARP_ENTRIES; i++) {
		struct entry *e = &a->e[i];
		bool e_bad = e->state == INCOMPLETE, worst_bad = worst->state == INCOMPLETE;

		if (e_bad != worst_bad ? e_bad : e->used < worst->used)
			worst = e;
	}
	forget(a, worst, false);
}

static struct entry *create(struct tas_arp *a, uint32_t ip, uint64_t now)
{
	uint16_t i, *at = bucket(a, ip);
	struct entry *e;

	if (a->free == NONE)
		make_room(a);
	i = a->free;
	e = &a->e[i];
	a->free = e->next;
	a->n++;
	memset(e, 0, sizeof(*e));
	e->ip = ip;
	e->used = now;
	e->next = *at;
	*at = i;
	return e;
}

static void set_due(struct tas_arp *a, struct entry *e, uint64_t due)
{
	e->due = due;
	if (due < tas__arp_deadline(a))
		atomic_store_explicit(&a->deadline, due, memory_order_relaxed);
}

const uint8_t *tas__arp_lookup(struct tas_arp *a, uint32_t ip, uint32_t src, uint64_t now)
{
	struct entry *e = find(a, ip);

	if (!e || e->state == INCOMPLETE)
		return NULL;
	e->used = now;
	if (e->state == REACHABLE && now >= e->due) {
		e->state = PROBING;
		e->src = src;
		e->probes = 1;
		set_due(a, e, now + probe_time);
		a->ops.request(a->ctx, src, ip, e->mac);
	}
	return e->mac;
}

void tas__arp_wait(struct tas_arp *a, uint32_t ip, uint32_t src, void *pkt, uint64_t now)
{
	struct entry *e = find(a, ip);

	if (!e) {
		e = create(a, ip, now);
		e->state = INCOMPLETE;
		e->src = src;
		e->interval = a->timeout;
		set_due(a, e, now + e->interval);
		a->ops.request(a->ctx, src, ip, NULL);
	}
	e->used = now;
	if (a->n_pending >= TAS_ARP_PENDING_ALL && !e->n_pending) {
		a->ops.drop(a->ctx, pkt, false);
		return;
	}
	if (e->n_pending == TAS_ARP_PENDING || a->n_pending >= TAS_ARP_PENDING_ALL) { /* the oldest goes, as in Linux */
		void *oldest = e->pending[0];

		memmove(e->pending, e->pending + 1, (--e->n_pending) * sizeof(e->pending[0]));
		a->n_pending--;
		a->ops.drop(a->ctx, oldest, false);
	}
	if (!e->n_pending)
		e->since = now;
	e->pending[e->n_pending++] = pkt;
	a->n_pending++;
}

void tas__arp_learn(struct tas_arp *a, uint32_t ip, const uint8_t mac[6], bool may_create, uint64_t now)
{
	struct entry *e = find(a, ip);
	unsigned i, n;

	if (!e && !may_create)
		return;
	if (!e)
		e = create(a, ip, now);
	memcpy(e->mac, mac, 6);
	e->state = REACHABLE;
	e->due = now + reachable_time;
	n = e->n_pending;
	e->n_pending = 0;
	a->n_pending -= n;
	for (i = 0; i < n; i++)
		a->ops.send(a->ctx, e->pending[i], e->mac);
}

static void timer_incomplete(struct tas_arp *a, struct entry *e, uint64_t now)
{
	if (e->n_pending && now - e->since >= pending_time)
		drop_pending(a, e, true);
	if (e->interval >= a->timeout_max) {
		forget(a, e, true);
		return;
	}
	e->interval = e->interval * 2 < a->timeout_max ? e->interval * 2 : a->timeout_max;
	set_due(a, e, now + e->interval);
	a->ops.request(a->ctx, e->src, e->ip, NULL);
}

static void timer_probing(struct tas_arp *a, struct entry *e, uint64_t now)
{
	if (e->probes == PROBES) {
		forget(a, e, true);
		return;
	}
	e->probes++;
	set_due(a, e, now + probe_time);
	a->ops.request(a->ctx, e->src, e->ip, e->mac);
}

void tas__arp_timer(struct tas_arp *a, uint64_t now)
{
	unsigned i;

	if (now < tas__arp_deadline(a))
		return;
	atomic_store_explicit(&a->deadline, UINT64_MAX, memory_order_relaxed);
	for (i = 0; i < TAS_ARP_ENTRIES; i++) {
		struct entry *e = &a->e[i];

		if (e->state != INCOMPLETE && e->state != PROBING)
			continue;
		if (now < e->due)
			set_due(a, e, e->due);
		else if (e->state == INCOMPLETE)
			timer_incomplete(a, e, now);
		else
			timer_probing(a, e, now);
	}
}

uint64_t tas__arp_deadline(const struct tas_arp *a)
{
	return atomic_load_explicit(&a->deadline, memory_order_relaxed);
}

unsigned tas__arp_count(const struct tas_arp *a)
{
	return a->n;
}

/* ---- the packet ---- */
static const uint8_t fixed[6] = { 0, 1, 8, 0, 6, 4 }; /* Ethernet, IPv4, lengths */

int tas__arp_parse(const uint8_t *p, unsigned n, struct tas_arp_pkt *out)
{
	static const uint8_t zero[6];

	if (n < TAS_ARP_LEN || memcmp(p, fixed, sizeof(fixed)))
		return -EINVAL;
	out->op = (uint16_t)(p[6] << 8 | p[7]);
	memcpy(out->sha, p + 8, 6);
	memcpy(&out->spa, p + 14, 4);
	memcpy(out->tha, p + 18, 6);
	memcpy(&out->tpa, p + 24, 4);
	if (out->sha[0] & 1 || !memcmp(out->sha, zero, 6))
		return -EINVAL;
	return out->op == TAS_ARP_REQUEST || out->op == TAS_ARP_REPLY ? 0 : -EINVAL;
}

void tas__arp_build(uint8_t p[TAS_ARP_LEN], const struct tas_arp_pkt *in)
{
	memcpy(p, fixed, sizeof(fixed));
	p[6] = (uint8_t)(in->op >> 8);
	p[7] = (uint8_t)in->op;
	memcpy(p + 8, in->sha, 6);
	memcpy(p + 14, &in->spa, 4);
	memcpy(p + 18, in->tha, 6);
	memcpy(p + 24, &in->tpa, 4);
}
