/* SPDX-License-Identifier: MIT */
/*
 * Requests through shared memory (tas_abi.h, struct tas_mail).  The service answers within a round of its loop; who waits yields a
 * little, then sleeps on the slot.  Nothing here depends on signals: handlers that run meanwhile find other slots.
 */
#include <string.h>

#include "lowlevel/low.h"

enum { NAP_NS = 50000000 };
static const uint64_t patience = 15000000000; /* as for the control socket */

static struct tas_mail *slot_take(struct tas_session *ss, uint32_t *index)
{
	static __thread uint32_t mine __attribute__((tls_model("initial-exec")));

	for (uint32_t n = 0; n < TAS_MAILS; n++, mine++) {
		struct tas_mail *m = &ss->r->mail[mine % TAS_MAILS];
		uint32_t is_free = TAS_MAIL_FREE;

		*index = mine % TAS_MAILS;
		if (atomic_compare_exchange_strong_explicit(&m->state, &is_free, TAS_MAIL_TAKEN, memory_order_acquire,
							    memory_order_relaxed))
			return m;
	}
	return NULL;
}

static bool answered(struct tas_mail *m)
{
	return atomic_load_explicit(&m->state, memory_order_seq_cst) == TAS_MAIL_ANSWERED;
}

/* False: the service has gone. */
static bool wait_answer(struct tas_session *ss, struct tas_mail *m)
{
	const struct timespec nap = {0, NAP_NS};
	struct tas_spin spin = {0};
	uint64_t end = 0;

	while (!answered(m)) {
		if (!tas__alive(ss))
			return answered(m);
		if (tas__spin(ss, &spin, tas__tsc()))
			continue;
		if (!end) {
			end = tas__now() + patience;
		} else if (tas__now() > end) {
			tas__session_died(ss);
			return false;
		}
		/* pairs with the service's look at sleeping after its store of state */
		atomic_store_explicit(&m->sleeping, 1, memory_order_seq_cst);
		if (!answered(m))
			sys_futex(&m->state, FUTEX_WAIT, TAS_MAIL_POSTED, &nap);
	}
	return true;
}

int tas__mail_connect(struct tas_session *ss, const struct tas_mail *request, struct tas_msg_sock *sock)
{
	struct tas_core_hints *h = &ss->r->core[0];
	struct tas_mail *m;
	uint32_t index;
	int r;

	if (!tas__may(TAS_MAY_ASK) || !tas__alive(ss))
		return -ESTALE;
	m = slot_take(ss, &index);
	if (!m)
		return -ESTALE;
	m->ident = request->ident;
	m->flags = request->flags;
	m->peer = request->peer;
	m->opts = request->opts;
	m->rcvbuf = request->rcvbuf;
	m->sndbuf = request->sndbuf;
	m->ip = request->ip;
	m->maxseg = request->maxseg;
	m->syncnt = request->syncnt;
	m->n_ports = request->n_ports;
	memcpy(m->port, request->port, sizeof m->port);
	atomic_store_explicit(&m->sleeping, 0, memory_order_relaxed);
	atomic_store_explicit(&m->state, TAS_MAIL_POSTED, memory_order_release);
	atomic_fetch_or_explicit(&h->mail, 1ull << index, memory_order_seq_cst);
	/* as in tas__hint() */
	if (atomic_load_explicit(&h->need_wakeup, memory_order_seq_cst))
		tas__doorbell(ss, 0);
	if (!wait_answer(ss, m))
		return -ECONNRESET;
	r = m->err;
	*sock = (struct tas_msg_sock){.id = m->id, .gen = m->gen, .block = m->block, .ident = request->ident};
	atomic_store_explicit(&m->state, TAS_MAIL_FREE, memory_order_release);
	return r;
}
