/* SPDX-License-Identifier: MIT */
/*
 * The table of link connections by 4-tuple, and what happens to segments that meet none.
 *
 * Chained hash keyed with a random number (a flood of chosen ports cannot build one long chain).
 */
#include <errno.h>
#include <stdlib.h>
#include <string.h>
#include <sys/random.h>

#include "fast/wire.h"

enum { BUCKETS = 1 << 16, EMBRYOS_MAX = 4096, TIME_WAITS_MAX = 65536 };

static uint64_t flow_key;

static uint32_t hash(const struct tas_addr *local, const struct tas_addr *peer)
{
	uint64_t a, b, h;

	memcpy(&a, local->ip, 8);
	memcpy(&b, peer->ip, 8);
	h = flow_key ^ (a * 0x9e3779b97f4a7c15ull) ^ (b * 0xc2b2ae3d27d4eb4full);
	h ^= ((uint64_t)local->port << 16 | peer->port) * 0x165667b19e3779f9ull;
	h ^= h >> 32;
	h *= 0xd6e8feb86659fd93ull;
	return (uint32_t)(h >> 32);
}

uint32_t tas__flow_hash(const struct tas_addr *local, const struct tas_addr *peer)
{
	return hash(local, peer);
}

int tas__flows_init(struct tas_stack *k)
{
	if (!flow_key && getrandom(&flow_key, sizeof flow_key, GRND_NONBLOCK) != sizeof flow_key)
		flow_key = (uintptr_t)&flow_key | 1;
	k->flows = calloc(BUCKETS, sizeof *k->flows);
	return k->flows ? 0 : -ENOMEM;
}

struct tas_sock *tas__flow_find(const struct tas_core *c, const struct tas_addr *local, const struct tas_addr *peer)
{
	struct tas_sock *s;

	for (s = c->stack->flows[hash(local, peer) % BUCKETS]; s; s = s->flow_next)
		if (s->base.local.port == local->port && s->base.peer.port == peer->port &&
		    tas__addr_same_ip(&s->base.local, local) && tas__addr_same_ip(&s->base.peer, peer))
			return s;
	return NULL;
}

void tas__flow_add(struct tas_sock *s)
{
	struct tas_sock **head = &s->core->stack->flows[hash(&s->base.local, &s->base.peer) % BUCKETS];

	s->flow_next = *head;
	if (*head)
		(*head)->flow_pprev = &s->flow_next;
	s->flow_pprev = head;
	*head = s;
	s->core->stack->n_flows++;
}

void tas__flow_del(struct tas_sock *s)
{
	if (!s->flow_pprev)
		return;
	*s->flow_pprev = s->flow_next;
	if (s->flow_next)
		s->flow_next->flow_pprev = s->flow_pprev;
	s->flow_pprev = NULL;
	s->core->stack->n_flows--;
}

/* ---- several cores ---- */
struct tas_core *tas__flow_core(const struct tas_addr *local, const struct tas_addr *peer)
{
	uint32_t l, p;

	if (tas_n_cores == 1)
		return &tas_cores[0];
	memcpy(&l, local->ip, 4);
	memcpy(&p, peer->ip, 4);
	return &tas_cores[tas_steer[tas_steer_bucket(l, p, local->port, peer->port)]];
}

unsigned tas_core_flows(const struct tas_core *c)
{
	return c->stack ? c->stack->n_flows - c->stack->n_time_wait : 0;
}

/* All that a core has of a connection goes to another; nobody is inside a round, and wakes have been made. */
void tas__flow_move(struct tas_sock *s, struct tas_core *to)
{
	uint64_t timer = s->heap_at ? s->heap_key : UINT64_MAX;
	bool out = s->out_queued, slack = s->slack_pprev != NULL, flow = s->flow_pprev != NULL;
	struct tas_stack *from = s->core->stack;

	tas__timer_del(s);
	tas__output_forget(s);
	tas__slack_del(s);
	tas__flow_del(s);
	from->n_embryos -= s->listener != NULL;
	from->n_time_wait -= s->in_time_wait;
	tas__sock_core(s, to);
	to->stack->n_embryos += s->listener != NULL;
	to->stack->n_time_wait += s->in_time_wait;
	if (flow)
		tas__flow_add(s);
	tas__timer_set(s, timer);
	if (slack)
		tas__slack_add(s);
	if (out)
		tas__output_soon(s);
}

void tas_core_resteer(struct tas_core *c)
{
	tas__wakes_run(c);
	for (uint32_t i = 0; i < BUCKETS; i++) {
		struct tas_sock *s, *next;

		for (s = c->stack->flows[i]; s; s = next) {
			struct tas_core *to = tas__flow_core(&s->base.local, &s->base.peer);

			next = s->flow_next;
			if (to != c)
				tas__flow_move(s, to);
		}
	}
}

/* A SYN for a listener begins an embryo: a connection without id and memory.  isn: ours, NULL: by RFC 6528. */
static void passive_open(struct tas_core *c, struct tas_sock *l, const struct tcp_seg *seg, const struct tas_addr *local,
			 const struct tas_addr *peer, const uint32_t *isn)
{
	struct tas_sock *s;

	if (!tas__accept_room(l) || l->u.lis.embryos >= EMBRYOS_MAX) {
		tas_count(c, TAS_CTR_tcp_listen_overflow, 1);
		return;
	}
	s = tas__sock_new(c, TAS_K_LINK);
	if (!s)
		return;
	s->base.local = *local;
	s->base.peer = *peer;
	s->base.netns = l->base.netns;
	s->reuse = l->reuse;
	s->reuseport = l->reuseport;
	s->listener = l;
	l->u.lis.embryos++;
	c->stack->n_embryos++;
	tas__wire_passive(s, seg, isn);
	tas__flow_add(s);
	tas__port_add(s);
	tas__output_soon(s);
	tas__timer_set(s, tcp_deadline(&s->u.tcp));
}

static void meets_none(struct tas_core *c, const struct tcp_seg *seg, const struct tas_addr *local,
		       const struct tas_addr *peer, const uint32_t *isn)
{
	struct tas_sock *l;

	if (!(seg->flags & (TCP_F_ACK | TCP_F_RST))) {
		l = tas__listener_find(local, 0, true, hash(local, peer));
		if (l) {
			/* Linux: a listener passes over what is no SYN, and a SYN with a FIN */
			if ((seg->flags & (TCP_F_SYN | TCP_F_FIN)) == TCP_F_SYN)
				passive_open(c, l, seg, local, peer, isn);
			return;
		}
		if (seg->flags & TCP_F_SYN)
			tas_count(c, TAS_CTR_tcp_no_listener, 1);
	}
	tas__wire_reset(c, seg, local, peer);
}

static void no_connection(struct tas_core *c, const struct tcp_seg *seg, const struct tas_addr *local,
			  const struct tas_addr *peer, const uint32_t *isn)
{
	tas_shared_in(); /* listeners are looked for, and counted at */
	meets_none(c, seg, local, peer, isn);
	tas_shared_out();
}

bool tas__flow_segment(struct tas_core *c, const struct tcp_seg *seg, const uint8_t *payload, const struct tas_addr *local,
		       const struct tas_addr *peer)
{
	struct tas_sock *s = tas__flow_find(c, local, peer);
	uint32_t isn, *reuse = NULL;

	if (s && tcp_state(&s->u.tcp) == TCP_S_TIME_WAIT && s->base.id == UINT32_MAX &&
	    tcp_time_wait_reusable(&s->u.tcp, seg)) {
		/* RFC 6191: a new connection may take its place, with sequence numbers behind all of the old one's */
		isn = tcp_time_wait_isn(&s->u.tcp);
		reuse = &isn;
		tas__wire_forget(s);
		s = NULL;
	}
	if (!s) {
		no_connection(c, seg, local, peer, reuse);
		return true;
	}
	if (__builtin_expect(s->listener != NULL, 0) && tas_last_aside() && tas__wire_takes_last(s, seg))
		return false;
	tas__wire_input(s, seg, payload);
	return true;
}
