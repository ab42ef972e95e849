/* SPDX-License-Identifier: MIT */
/*
 * Who takes the last place of an accept queue, with several threads.
 *
 * A listener answers SYNs while its queue has room, and whoever completes a handshake takes a place.  One thread judges both as they
 * came.  Of several, one may be about to wake with a SYN in its queue while another does the whole handshake of a client that came
 * later, and gives away the last place: the first client is refused then, for a second or for good, though it was there in time.
 *
 * So the segment that would take the last place is put aside.  Core 0, alone, first takes in all that has come for any thread by
 * then, and goes on with what was put aside in the order in which that came.  Everything but such segments goes its way as ever.
 */
#include <rte_mbuf.h>
#include <stdatomic.h>

#include "service/threads.h"

enum { ASIDE = 64 };

/* Between tas_shared_in() and tas_shared_out(), or alone. */
static struct {
	struct rte_mbuf *m; /* data begins at the TCP header */
	struct tas_rx_meta meta;
} aside[ASIDE];
static _Atomic unsigned n_aside;
static bool deciding; /* changed alone */

bool tas_last_aside(void)
{
	return tas__threads_running() > 1 && !deciding;
}

bool tas__late_put(struct rte_mbuf *m, const struct tas_rx_meta *meta)
{
	unsigned n;

	tas_shared_in();
	n = atomic_load_explicit(&n_aside, memory_order_relaxed);
	if (n < ASIDE) {
		aside[n].m = m;
		aside[n].meta = *meta;
		atomic_store_explicit(&n_aside, n + 1, memory_order_relaxed); /* who is to see it is kicked */
	}
	tas_shared_out();
	tas__kick_packets(0);
	return n < ASIDE;
}

static struct tas_core *owner(const struct rte_mbuf *m, const struct tas_rx_meta *meta)
{
	const uint8_t *ports = rte_pktmbuf_mtod(m, const uint8_t *);

	return &tas_cores[tas__net_owner_of(meta->dst.ip, meta->src.ip, ports + 2, ports)];
}

unsigned tas__late_run(void)
{
	unsigned n;

	if (__builtin_expect(!atomic_load_explicit(&n_aside, memory_order_relaxed), 1))
		return 0;
	tas_alone_in();
	tas__threads_take_in();
	deciding = true;
	n = atomic_load_explicit(&n_aside, memory_order_relaxed);
	for (unsigned i = 0; i < n; i++)
		tas_core_tcp(owner(aside[i].m, &aside[i].meta), aside[i].m, &aside[i].meta);
	atomic_store_explicit(&n_aside, 0, memory_order_relaxed);
	deciding = false;
	tas_alone_out(); /* others' wake-ups and packets go out with that, ours with this round */
	return n;
}

void tas__late_exit(void)
{
	for (unsigned i = 0; i < n_aside; i++)
		rte_pktmbuf_free(aside[i].m);
	n_aside = 0;
}
