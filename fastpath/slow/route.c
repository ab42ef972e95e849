/* SPDX-License-Identifier: MIT */
#include "slow/route.h"

#include <arpa/inet.h>
#include <errno.h>
#include <string.h>

#include "fast/ip.h"

static uint32_t mask_of(unsigned bits)
{
	return bits ? htonl(~0u << (32 - bits)) : 0;
}

static uint32_t ip_of(const struct tas_addr *a)
{
	uint32_t v;

	memcpy(&v, a->ip, 4);
	return v;
}

bool tas__routes_own(const struct tas_routes *t, uint32_t addr)
{
	unsigned i;

	for (i = 0; i < t->n_own; i++)
		if (t->own[i] == addr)
			return true;
	return false;
}

/* Insertion keeps the longest prefix first; of equal ones the earlier wins, as on the command line. */
static void add_row(struct tas_routes *t, const struct tas_prefix *dst, uint32_t nexthop, uint32_t src)
{
	struct tas_route_row r = { .mask = mask_of(dst->bits), .nexthop = nexthop, .src = src };
	unsigned i;

	r.net = ip_of(&dst->addr) & r.mask;
	for (i = t->n++; i > 0 && ntohl(t->row[i - 1].mask) < ntohl(r.mask); i--)
		t->row[i] = t->row[i - 1];
	t->row[i] = r;
}

/* Our address whose prefix holds addr, longest first; 0: none. */
static uint32_t src_towards(const struct tas_routes *t, uint32_t addr)
{
	unsigned i;

	for (i = 0; i < t->n; i++)
		if (!t->row[i].nexthop && (addr & t->row[i].mask) == t->row[i].net)
			return t->row[i].src;
	return 0;
}

int tas__routes_init(struct tas_routes *t, const struct tas_config *c, unsigned *bad)
{
	unsigned i;

	memset(t, 0, sizeof(*t));
	t->link = c->link != TAS_LINK_NONE;
	for (i = 0; i < c->n_addr; i++) {
		t->own[t->n_own++] = ip_of(&c->addr[i].addr);
		add_row(t, &c->addr[i], 0, ip_of(&c->addr[i].addr));
	}
	for (i = 0; i < c->n_route; i++) {
		uint32_t hop = ip_of(&c->route[i].nexthop), src = src_towards(t, hop);

		if (!src || tas__routes_own(t, hop)) {
			*bad = i;
			return -EHOSTUNREACH;
		}
		add_row(t, &c->route[i].dst, hop, src);
	}
	return 0;
}

/* All-ones (and all-zeros) host part of a prefix with room for hosts: a broadcast, RFC 3021 excepted. */
static bool is_broadcast(const struct tas_route_row *r, uint32_t dst)
{
	return ~ntohl(r->mask) > 1 && (dst == r->net || dst == (r->net | ~r->mask));
}

struct tas_next tas__routes_find(const struct tas_routes *t, uint32_t dst)
{
	struct tas_next none = { .kind = TAS_ROUTE_NONE };
	unsigned i;

	if (tas__routes_own(t, dst))
		return (struct tas_next){ .kind = TAS_ROUTE_OWN, .src = dst };
	if (!t->link || !tas__ip_is_host(dst))
		return none;
	for (i = 0; i < t->n; i++) {
		const struct tas_route_row *r = &t->row[i];

		if ((dst & r->mask) != r->net)
			continue;
		if (!r->nexthop && is_broadcast(r, dst))
			return none;
		return (struct tas_next){ .kind = TAS_ROUTE_LINK, .src = r->src, .nexthop = r->nexthop ? r->nexthop : dst };
	}
	return none;
}

bool tas__routes_onlink(const struct tas_routes *t, uint32_t addr)
{
	return tas__ip_is_host(addr) && src_towards(t, addr) != 0;
}
