/* SPDX-License-Identifier: MIT */
/*
 * Packets on their way to the thread that owns their connection.
 *
 * They come to core 0 from a port with one queue, else to each thread from a queue of its own; whoever gets them hands them on over
 * a ring for each pair of threads.  Every thread sends for itself; the queue of a port that has one is locked for that, once for up
 * to 64 packets (net.c).
 */
#include <errno.h>
#include <rte_mbuf.h>
#include <stdlib.h>
#include <string.h>

#include "service/threads.h"

enum {
	RING = 1024,
	COPY_MAX = 1900, /* what is shorter leaves a buffer for whole segments, of which there are few */
	BURSTS = 6,
};

/* Packets from one thread to another, or from or to core 0 while it is alone. */
struct ring {
	_Alignas(128) _Atomic uint32_t put; /* release: the packet lies there */
	uint32_t taken_seen;		    /* the producer's: taken, as it was last known */
	_Alignas(128) _Atomic uint32_t taken;
	_Alignas(128) struct rte_mbuf *m[RING];
};

uint8_t tas_steer[TAS_STEER_BUCKETS];

static struct ring *in[TAS_CORES_MAX][TAS_CORES_MAX]; /* to, from; from core 0 only, while the port has one queue */

static bool ring_put(struct ring *r, struct rte_mbuf *m)
{
	uint32_t put = atomic_load_explicit(&r->put, memory_order_relaxed);

	if (put - r->taken_seen == RING) {
		r->taken_seen = atomic_load_explicit(&r->taken, memory_order_acquire);
		if (put - r->taken_seen == RING)
			return false;
	}
	r->m[put % RING] = m;
	atomic_store_explicit(&r->put, put + 1, memory_order_release);
	return true;
}

static unsigned ring_take(struct ring *r, struct rte_mbuf **m, unsigned max)
{
	uint32_t taken = atomic_load_explicit(&r->taken, memory_order_relaxed);
	uint32_t there = atomic_load_explicit(&r->put, memory_order_acquire) - taken, n = there < max ? there : max;

	for (uint32_t i = 0; i < n; i++)
		m[i] = r->m[(taken + i) % RING];
	if (n)
		atomic_store_explicit(&r->taken, taken + n, memory_order_release);
	return n;
}

static void give(struct tas_core *c, unsigned owner, struct rte_mbuf *m)
{
	const struct tas_net *n = c->net;

	if (n->rx_pool != n->pool && m->pkt_len <= COPY_MAX) {
		struct rte_mbuf *copy = rte_pktmbuf_copy(m, n->pool, 0, UINT32_MAX);

		rte_pktmbuf_free(m);
		m = copy;
	}
	if (m && ring_put(in[owner][c->index], m))
		return;
	tas_count(c, TAS_CTR_rx_steer_dropped, 1);
	rte_pktmbuf_free(m);
}

void tas__steer(struct tas_core *c, struct rte_mbuf **m, unsigned n)
{
	bool given[TAS_CORES_MAX] = { false };

	for (unsigned i = 0; i < n; i++) {
		unsigned owner = tas__net_owner(c, m[i]);

		if (owner == c->index || tas_alone) {
			tas__net_input(&tas_cores[owner], m[i]);
			continue;
		}
		tas_count(c, TAS_CTR_rx_steered, 1);
		give(c, owner, m[i]);
		given[owner] = true;
	}
	for (unsigned i = 0; i < tas_n_cores; i++)
		if (given[i])
			tas__kick_packets(i);
}

static unsigned from_ring(struct tas_core *c, struct ring *r)
{
	struct rte_mbuf *m[TAS_RX_BURST];
	unsigned n, all = 0;

	for (unsigned b = 0; b < BURSTS; b++) {
		n = ring_take(r, m, TAS_RX_BURST);
		for (unsigned i = 0; i < n; i++)
			__builtin_prefetch(rte_pktmbuf_mtod(m[i], void *));
		for (unsigned i = 0; i < n; i++)
			tas__net_input(c, m[i]);
		all += n;
		if (n < TAS_RX_BURST)
			break;
	}
	return all;
}

unsigned tas__steered(struct tas_core *c)
{
	unsigned n = 0;

	for (unsigned i = 0; i < tas_n_cores; i++)
		if (in[c->index][i])
			n += from_ring(c, in[c->index][i]);
	return n;
}

int tas__steer_init(const struct tas_net *n)
{
	for (unsigned to = 0; to < tas_n_cores; to++) {
		for (unsigned from = 0; from < (n->n_queues > 1 ? tas_n_cores : 1); from++) {
			struct ring *r = from == to ? NULL : aligned_alloc(128, sizeof *r);

			if (from == to)
				continue;
			if (!r)
				return -ENOMEM;
			memset(r, 0, sizeof *r);
			in[to][from] = r;
		}
	}
	return 0;
}

void tas__steer_exit(void)
{
	for (unsigned to = 0; to < tas_n_cores; to++) {
		for (unsigned from = 0; from < tas_n_cores; from++) {
			struct ring *r = in[to][from];

			for (struct rte_mbuf *m; r && ring_take(r, &m, 1);)
				rte_pktmbuf_free(m);
			free(r);
			in[to][from] = NULL;
		}
	}
}
