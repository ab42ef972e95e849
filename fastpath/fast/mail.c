/* SPDX-License-Identifier: MIT */
/*
 * Requests to connect that come through shared memory (tas_abi.h, struct tas_mail): no descriptor, no system call on either side
 * while both are awake.
 *
 * What a descriptor proves, and what stands for it here: at the first connect of a backing socket the service reads cookie, inode,
 * network namespace and family from the descriptor and keeps them for the process under a name.  A request names them.  Names are
 * of one process and are not taken over by its children; who confines itself, or goes to another namespace, has them forgotten
 * (TAS_MSG_MAIL_END).  So a process can say by mail what it could have said by keeping the descriptor, and nothing else; one
 * name has one connection at a time, as one descriptor has.  The other words (addresses, options) are as much the
 * application's own in a message.
 *
 * A slot is read once, into words of our own.  A process has few slots, and what it has posted is answered in one round: that
 * is the bound of what it can ask for in a row.
 */
#include <errno.h>
#include <string.h>

#include "fast/sock.h"

uint64_t tas__mail_take(struct tas_core *c, struct tas_proc *p)
{
	struct tas_core_hints *h = &p->region->core[c->index];

	if (c->index || !atomic_load_explicit(&h->mail, memory_order_relaxed))
		return 0;
	/* pairs with the sender's fetch-or: what it did and hinted before is in dirty by now */
	return atomic_exchange_explicit(&h->mail, 0, memory_order_seq_cst);
}

static int connect(struct tas_proc *p, const struct tas_mail *m, struct tas_msg *rep)
{
	const uint32_t name = m->ident;
	struct tas_msg req = { .op = TAS_MSG_CONNECT };

	if (!name || p->ident[name % TAS_IDENTS].name != name)
		return -ESTALE;
	req.u.connect.peer = m->peer;
	req.u.connect.local.family = m->peer.family;
	req.u.connect.flags = m->flags & (TAS_BIND_REUSEADDR | TAS_BIND_REUSEPORT | TAS_BIND_V6ONLY);
	req.u.connect.opts = m->opts;
	req.u.connect.rcvbuf = m->rcvbuf;
	req.u.connect.sndbuf = m->sndbuf;
	req.u.connect.ip = m->ip;
	req.u.connect.maxseg = m->maxseg;
	req.u.connect.syncnt = m->syncnt;
	req.u.connect.n_ports = m->n_ports < TAS_MAIL_RANGES ? m->n_ports : TAS_MAIL_RANGES;
	memcpy(req.u.connect.port, m->port, sizeof m->port);
	return tas__op_connect(p, &p->ident[name % TAS_IDENTS].is, &req, rep);
}

static void answer(struct tas_core *c, struct tas_proc *p, struct tas_mail *slot)
{
	struct tas_msg rep = { .err = 0 };
	struct tas_mail m;

	/* pairs with the sender's release store, after the request */
	if (atomic_load_explicit(&slot->state, memory_order_acquire) != TAS_MAIL_POSTED) {
		tas_count(c, TAS_CTR_app_bad_hints, 1);
		return;
	}
	m.ident = slot->ident;
	m.flags = slot->flags;
	m.peer = slot->peer;
	m.opts = slot->opts;
	m.rcvbuf = slot->rcvbuf;
	m.sndbuf = slot->sndbuf;
	m.ip = slot->ip;
	m.maxseg = slot->maxseg;
	m.syncnt = slot->syncnt;
	m.n_ports = slot->n_ports;
	memcpy(m.port, slot->port, sizeof m.port);
	atomic_signal_fence(memory_order_seq_cst); /* from here on only m: the slot may change at any time */
	slot->err = connect(p, &m, &rep);
	slot->id = rep.u.sock.id;
	slot->gen = rep.u.sock.gen;
	slot->block = rep.u.sock.block;
	tas_count(c, TAS_CTR_mails, 1);
	atomic_store_explicit(&slot->state, TAS_MAIL_ANSWERED, memory_order_seq_cst);
	if (atomic_load_explicit(&slot->sleeping, memory_order_seq_cst) &&
	    atomic_exchange_explicit(&slot->sleeping, 0, memory_order_seq_cst)) {
		tas_count(c, TAS_CTR_app_wakeups, 1);
		tas__futex_wake(&slot->state);
	}
}

void tas__mail_answer(struct tas_core *c, struct tas_proc *p, uint64_t slots)
{
	for (; slots; slots &= slots - 1)
		answer(c, p, &p->region->mail[__builtin_ctzll(slots)]);
}
