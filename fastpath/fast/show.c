/* SPDX-License-Identifier: MIT */
/* Sockets as text, for `tasctl conns`. */
#include <arpa/inet.h>
#include <errno.h>
#include <stdio.h>
#include <string.h>

#include "abi/tas_options.h"
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

/* Names of the options that its program set and TAS does not act on. */
static void unacted_text(const struct tas_block *b, char *buf, size_t room)
{
	static const char *const names[] = {
#define NAME(level, name, length, effect, accept, text) #name,
		TAS_OPTIONS_MARKED(NAME)
#undef NAME
	};
	size_t at = 0;

	buf[0] = 0;
	for (unsigned i = 0; i < TAS_OPTION_BITS; i++)
		if (atomic_load_explicit(&b->a.unacted[i / 64], memory_order_relaxed) >> i % 64 & 1 &&
		    at + strlen(names[i]) + 4 < room)
			at += (size_t)sprintf(buf + at, "%s\"%s\"", at ? "," : "", names[i]);
}

int tas__sock_json(uint32_t *id, char *buf, size_t room)
{
	static const char *const kinds[] = { "free", "listener", "link", "local" };
	struct tas_sock_base *b = NULL;
	char local[80], peer[80], pids[200] = "", unacted[600];
	struct tas_sock *s;
	size_t at = 0;
	int n;

	for (; *id < TAS_SOCK_MAX && !b; (*id)++)
		b = tas__sock(*id, 0);
	if (!b)
		return 0;
	s = tas__of(b);
	if (tas__is_direct(s))
		tas__direct_sync(s);
	addr_text(&b->local, local, sizeof local);
	addr_text(&b->peer, peer, sizeof peer);
	for (uint32_t i = 0; i < tas__n_procs && at < sizeof pids - 16; i++) {
		const struct tas_proc *p = tas__procs[i];

		if (p && tas__set_reaches(p->set, b->set) && p->region && tas_claim_test(p->region->claims, b->id))
			at += (size_t)snprintf(pids + at, sizeof pids - at, "%s%d", at ? "," : "", (int)p->pid);
	}
	unacted_text(b->b, unacted, sizeof unacted);
	n = snprintf(buf, room,
		     "{\"id\":%u,\"gen\":%u,\"kind\":\"%s\",\"state\":\"%s\",\"local\":\"%s\",\"peer\":\"%s\",\"set\":%u,"
		     "\"pids\":[%s],\"rx_queue\":%llu,\"tx_queue\":%llu,\"direct\":%s,\"rcv_buf\":%u,\"watched\":%s,\"closed\":%s,"
		     "\"unacted\":[%s]}",
		     b->id, b->gen, kinds[b->kind],
		     state_name(atomic_load_explicit(&b->b->s.state, memory_order_relaxed)), local, peer, b->set->id, pids,
		     (unsigned long long)(b->kind == TAS_K_LISTENER ? tas__accept_queued(s) : s->delivered - s->consumed),
		     (unsigned long long)(s->written - s->acked), tas__is_direct(s) ? "true" : "false", s->rcv_buf, b->watched ? "true" : "false",
		     b->closed ? "true" : "false", unacted);
	if (n < 0 || (size_t)n >= room) {
		(*id)--;
		return -ENOSPC;
	}
	return n;
}
