/* SPDX-License-Identifier: MIT */
/* Sockets as text, for `tasctl conns`. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>

#include "fast/sock.h"

static const char *state_name(uint32_t st)
{
	static const char *const names[] = { "FREE",      "ESTABLISHED", "SYN_SENT", "SYN_RECV", "FIN_WAIT1",  "FIN_WAIT2",
					     "TIME_WAIT", "CLOSE",       "CLOSE_WAIT", "LAST_ACK", "LISTEN", "CLOSING" };

	return st < sizeof names / sizeof *names ? names[st] : "?";
}

static void addr_text(const struct tas_addr *a, char *to, size_t room)
{
	char ip[INET6_ADDRSTRLEN] = "";

	if (a->family)
		inet_ntop(a->family, a->ip, ip, sizeof ip);
	snprintf(to, room, a->family == AF_INET6 ? "[%s]:%u" : "%s:%u", ip, tas__port(a));
}

int tas__sock_json(uint32_t *id, char *buf, size_t room)
{
	static const char *const kinds[] = { "free", "listener", "link", "local" };
	struct tas_sock_base *b = NULL;
	char local[80], peer[80], pids[200] = "";
	struct tas_sock *s;
	size_t at = 0;
	int n;

	for (; *id < TAS_SOCK_MAX && !b; (*id)++)
		b = tas__sock(*id, 0);
	if (!b)
		return 0;
	s = tas__of(b);
	addr_text(&b->local, local, sizeof local);
	addr_text(&b->peer, peer, sizeof peer);
	for (uint32_t i = 0; i < tas__n_procs && at < sizeof pids - 16; i++) {
		const struct tas_proc *p = tas__procs[i];

		if (p && tas__set_reaches(p->set, b->set) && p->region && tas_claim_test(p->region->claims, b->id))
			at += (size_t)snprintf(pids + at, sizeof pids - at, "%s%d", at ? "," : "", (int)p->pid);
	}
	n = snprintf(buf, room,
		     "{\"id\":%u,\"gen\":%u,\"kind\":\"%s\",\"state\":\"%s\",\"local\":\"%s\",\"peer\":\"%s\",\"set\":%u,"
		     "\"pids\":[%s],\"rx_queue\":%llu,\"tx_queue\":%llu,\"rcv_buf\":%u,\"watched\":%s,\"closed\":%s}",
		     b->id, b->gen, kinds[b->kind],
		     state_name(atomic_load_explicit(&b->b->s.state, memory_order_relaxed)), local, peer, b->set->id, pids,
		     (unsigned long long)(b->kind == TAS_K_LISTENER ? tas__accept_queued(s) : s->delivered - s->consumed),
		     (unsigned long long)(s->written - s->acked), s->rcv_buf, b->watched ? "true" : "false",
		     b->closed ? "true" : "false");
	if (n < 0 || (size_t)n >= room) {
		(*id)--;
		return -ENOSPC;
	}
	return n;
}
