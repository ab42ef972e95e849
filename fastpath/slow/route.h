/* SPDX-License-Identifier: MIT */
/* Which addresses are ours, which are behind the link, and through which neighbour.  Made once from the settings. */
#ifndef TAS_ROUTE_H
#define TAS_ROUTE_H

#include <stdbool.h>
#include <stdint.h>

#include "fast/config.h"
#include "fast/core.h"

struct tas_next {
	enum tas_route_kind kind;
	uint32_t src;     /* our address towards it, network order */
	uint32_t nexthop; /* neighbour to give the packet to */
};

/* Largest number of rows: one per address, one per route. */
struct tas_routes {
	struct tas_route_row {
		uint32_t net, mask; /* network order */
		uint32_t nexthop;   /* 0: on the link */
		uint32_t src;
	} row[TAS_ADDRS_MAX + TAS_ROUTES_MAX]; /* longest prefix first */
	unsigned n;
	uint32_t own[TAS_ADDRS_MAX];
	unsigned n_own;
	bool link; /* there is a port */
};

/* 0, or -EHOSTUNREACH with *bad: index of the route whose next hop is on no prefix of our addresses. */
int tas__routes_init(struct tas_routes *t, const struct tas_config *c, unsigned *bad);
struct tas_next tas__routes_find(const struct tas_routes *t, uint32_t dst);
bool tas__routes_own(const struct tas_routes *t, uint32_t addr);
/* A neighbour whose address lies in one of our prefixes. */
bool tas__routes_onlink(const struct tas_routes *t, uint32_t addr);

#endif
