/* SPDX-License-Identifier: MIT */
/*
 * Requests to connect: where they go, and from which port.
 */
#include <errno.h>
#include <netinet/in.h>
#include <string.h>
#include <sys/random.h>

#include "fast/wire.h"

struct plan {
	struct tas_sock *listener; /* NULL: over the link */
	bool refused;              /* nobody listens on this address of ours */
	struct tas_addr local, peer;
};

static bool same_tuple(const struct tas_sock *o, const struct tas_addr *local, const struct tas_addr *peer, uint64_t netns)
{
	return o->base.kind != TAS_K_LISTENER && o->base.peer.port == peer->port && tas__addr_same_ip(&o->base.peer, peer) &&
	       tas__addr_same_ip(&o->base.local, local) && (o->base.netns == netns || !tas__addr_loopback(local));
}

/* Is the 4-tuple in use?  choose: or does a listener sit on the port? */
static bool taken(const struct tas_addr *local, const struct tas_addr *peer, uint64_t netns, bool choose)
{
	for (struct tas_sock *o = tas__port_first(tas__port(local)); o; o = o->port_next)
		if (same_tuple(o, local, peer, netns) || (choose && o->base.kind == TAS_K_LISTENER && o->base.netns == netns))
			return true;
	return false;
}

static uint32_t random_of(uint32_t n)
{
	static uint32_t x;

	if (!x && (getrandom(&x, sizeof x, GRND_NONBLOCK) != sizeof x || !x))
		x = (uint32_t)tas_cores[0].now | 1;
	x ^= x << 13;
	x ^= x >> 17;
	x ^= x << 5;
	return x % n;
}

/*
 * A port from the ranges (n > 0, none empty) that the application's namespace has for that.  As Linux: beginning somewhere,
 * first those of the parity of the lowest one; bind() without a port prefers the others.
 */
static int ephemeral(struct tas_addr *local, const struct tas_addr *peer, uint64_t netns, const struct tas_port_range *r,
		     uint32_t n)
{
	static uint32_t at;
	uint32_t total = 0;

	for (uint32_t i = 0; i < n; i++)
		total += r[i].to - r[i].from + 1u;
	at += 2 * random_of(8) + 2;
	for (uint32_t odd = 0; odd < 2; odd++) {
		uint32_t k = 0, skip = at % total;

		while (skip > (uint32_t)(r[k].to - r[k].from)) { /* which range it lies in */
			skip -= r[k].to - r[k].from + 1u;
			k++;
		}
		for (uint32_t i = 0, port = r[k].from + skip; i < total; i++, port++) {
			if (port > r[k].to) {
				k = (k + 1) % n;
				port = r[k].from;
			}
			if (((port ^ r[0].from) & 1) != odd)
				continue;
			local->port = __builtin_bswap16((uint16_t)port);
			if (!taken(local, peer, netns, true))
				return 0;
		}
	}
	return -EADDRNOTAVAIL;
}

/* Of an application that cannot tell its namespace's: outside Linux's default range, so that they do not meet the kernel's. */
static const struct tas_port_range own_ports[] = { { 61000, 65535 }, { 10240, 32767 } };

static int choose_port(struct plan *pl, uint64_t netns, const struct tas_msg *req)
{
	struct tas_port_range r[TAS_PORT_RANGES];
	uint32_t n = req->u.connect.n_ports, used = 0;

	if (pl->local.port)
		return taken(&pl->local, &pl->peer, netns, false) ? -EADDRNOTAVAIL : 0;
	for (uint32_t i = 0; i < n && i < TAS_PORT_RANGES; i++)
		if (req->u.connect.port[i].from && req->u.connect.port[i].from <= req->u.connect.port[i].to)
			r[used++] = req->u.connect.port[i];
	return used ? ephemeral(&pl->local, &pl->peer, netns, r, used)
		    : ephemeral(&pl->local, &pl->peer, netns, own_ports, sizeof own_ports / sizeof *own_ports);
}

static void loopback(struct tas_addr *a)
{
	memset(a->ip, 0, sizeof a->ip);
	if (a->family == AF_INET6)
		a->ip[15] = 1;
	else
		a->ip[0] = 127, a->ip[3] = 1;
}

/* Where does it go?  0, -errno or TAS_FALLBACK. */
static int plan_route(struct plan *pl, const struct tas_ident *i)
{
	bool own, loop;
	struct tas_route r;

	if (tas__addr_any(&pl->peer))
		loopback(&pl->peer); /* Linux: connecting to the wildcard address means this host */
	loop = tas__addr_loopback(&pl->peer);
	tas_net_route(&pl->peer, &r);
	own = !loop && r.kind == TAS_ROUTE_OWN;
	if (!loop && r.kind == TAS_ROUTE_NONE)
		return TAS_FALLBACK;
	if (loop || own) {
		uint32_t mix = pl->local.port ^ (uint32_t)tas_cores[0].now;

		pl->listener = tas__listener_find(&pl->peer, i->netns, own, mix);
		if (!pl->listener && loop)
			return TAS_FALLBACK; /* a kernel server may be there; on our own addresses nobody else is */
		pl->refused = !pl->listener;
	}
	if (pl->local.family != pl->peer.family || tas__addr_any(&pl->local)) {
		uint16_t port = pl->local.port;

		pl->local = pl->peer;
		if (loop)
			loopback(&pl->local);
		else if (!own)
			pl->local = r.src;
		pl->local.port = port;
		pl->local.scope = 0;
	} else if (!pl->listener && !pl->refused) {
		struct tas_route mine;

		tas_net_route(&pl->local, &mine);
		if (mine.kind != TAS_ROUTE_OWN)
			return TAS_FALLBACK; /* bound to an address of the kernel's */
	}
	return 0;
}

int tas__op_connect(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep)
{
	struct plan pl = { .local = tas__addr_unmap(&req->u.connect.local), .peer = tas__addr_unmap(&req->u.connect.peer) };
	struct tas_core *c = &tas_cores[0];
	struct tas_sock_base *old;
	struct tas_sock *s;
	int err;

	if (!pl.peer.port || (pl.peer.family != AF_INET && pl.peer.family != AF_INET6))
		return TAS_FALLBACK; /* the kernel knows the right error */
	if (pl.local.family == AF_INET6 && pl.peer.family == AF_INET && !tas__addr_any(&pl.local))
		return TAS_FALLBACK;
	err = plan_route(&pl, i);
	if (err) {
		if (err == TAS_FALLBACK)
			tas_count(c, TAS_CTR_fallbacks, 1);
		return err;
	}
	err = choose_port(&pl, i->netns, req);
	if (err)
		return err;
	/* an earlier, failed connect of the same backing socket */
	old = tas__sock_by_cookie(i->cookie);
	if (old && (!tas__set_reaches(p->set, old->set) || !tas__of(old)->dead))
		return -EISCONN;
	if (old) {
		tas_claim_clear(p->region->claims, old->id);
		tas__sock_last_close(old);
	}
	if (!pl.listener && !pl.refused)
		c = tas__flow_core(&pl.local, &pl.peer);
	s = tas__sock_new(c, pl.listener || pl.refused ? TAS_K_LOCAL : TAS_K_LINK);
	if (!s)
		return -ENOBUFS;
	s->base.local = pl.local;
	s->base.peer = pl.peer;
	s->base.netns = i->netns;
	s->active = true;
	s->reuse = req->u.connect.flags & TAS_BIND_REUSEADDR;
	s->reuseport = req->u.connect.flags & TAS_BIND_REUSEPORT;
	err = tas__sock_place(s, p->set, i->domain);
	if (err) {
		tas__sock_free(s);
		return err;
	}
	atomic_store_explicit(&s->base.b->a.opts, req->u.connect.opts, memory_order_relaxed);
	atomic_store_explicit(&s->base.b->a.rcvbuf, req->u.connect.rcvbuf, memory_order_relaxed);
	atomic_store_explicit(&s->base.b->a.sndbuf, req->u.connect.sndbuf, memory_order_relaxed);
	tas__buffers(s, &s->base.b->a);
	atomic_store_explicit(&s->base.b->c.ip, req->u.connect.ip, memory_order_relaxed);
	atomic_store_explicit(&s->base.b->c.maxseg, req->u.connect.maxseg, memory_order_relaxed);
	atomic_store_explicit(&s->base.b->c.syncnt, req->u.connect.syncnt, memory_order_relaxed);
	tas__wire_options(s, &s->base.b->c);
	tas__sock_publish(s, TAS_S_SYN_SENT);
	tas__sock_identify(&s->base, i);
	tas__port_add(s);
	if (pl.refused) /* Linux: the attempt is made, and its answer is a RST */
		tas__local_abandon(s, ECONNREFUSED);
	else
		err = pl.listener ? tas__local_connect(s, pl.listener) : tas__wire_connect(s, req->u.connect.opts);
	if (err) {
		tas__sock_free(s);
		return err;
	}
	tas_claim_set(p->region->claims, s->base.id);
	rep->u.sock = (struct tas_msg_sock){ .id = s->base.id, .gen = s->base.gen, .block = s->base.block };
	return 0;
}
