/* SPDX-License-Identifier: MIT */
/* Packets of one core: a burst in, the round's packets out, neighbours' timers. */
#include <errno.h>
#include <pthread.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>
#include <stdlib.h>
#include <string.h>
#include <sys/uio.h>

#include "fast/sock.h"
#include "service/link_drivers.h"
#include "service/threads.h"

enum { RX_BURSTS = 6, LAST_TRIES = 8, STUCK_NS = 100 * 1000 * 1000 };
/*
 * Whole segments: few at a time, while they are in the cache, and not long until they are acknowledged.  Readers are woken and
 * acknowledgements sent once a round: where the port cuts and joins, each connection that is owed an answer has ROUND_BYTES of its own,
 * or eight flows would be told of every segment.
 */
enum { WHOLE = 8192, WHOLE_BURST = 4, WHOLE_BURST_MANY = 16, WHOLE_BURSTS = 24, ROUND_BYTES = 256 * 1024, ROUND_MAX = 1024 * 1024 };

int tas__net_routes(void)
{
	unsigned bad;
	int r = tas__routes_init(&tas__routes, &tas_config, &bad);

	if (r) {
		const uint8_t *hop = tas_config.route[bad].nexthop.ip;

		tas_warn("--ip-route: its next hop %u.%u.%u.%u is not a neighbour: on no prefix of --ip-addr, or our own", hop[0],
			 hop[1], hop[2], hop[3]);
	}
	return r;
}

int tas__net_init(struct tas_core *c)
{
	tas_this = c;
	if (!c->net->up)
		return 0;
	c->net->arp = tas__arp_new(tas_config.arp_timeout, tas_config.arp_timeout_max, &tas__net_arp_ops, c);
	if (!c->net->arp)
		return -ENOMEM;
	tas__net_announce(c);
	tas__net_flush(c);
	return 0;
}

void tas__net_exit(struct tas_core *c)
{
	tas__arp_free(c->net->arp);
	c->net->arp = NULL;
	for (unsigned i = 0; c->net->up && i < tas_n_cores; i++)
		tas__net_flush_last(&tas_cores[i]);
}

static unsigned take(struct tas_net *n, uint16_t queue, struct rte_mbuf **m)
{
	return n->driver->own ? n->driver->own->receive(n, queue, m, n->rx_burst) : rte_eth_rx_burst(n->port, queue, m, n->rx_burst);
}

/* Of a port with one queue. */
static pthread_mutex_t tx = PTHREAD_MUTEX_INITIALIZER;

static void tx_lock(const struct tas_net *n)
{
	if (!tas_alone && n->n_queues == 1)
		pthread_mutex_lock(&tx);
}

static void tx_unlock(const struct tas_net *n)
{
	if (!tas_alone && n->n_queues == 1)
		pthread_mutex_unlock(&tx);
}

/* How many are done with; those that will never go are lost. */
static unsigned give(struct tas_net *n, unsigned *lost)
{
	unsigned done;

	*lost = 0;
	if (!tas_cores[0].net->carrier)
		return 0;
	tx_lock(n);
	done = n->driver->own ? n->driver->own->send(n, n->tx, n->n_tx, lost) : rte_eth_tx_burst(n->port, n->queue, n->tx, n->n_tx);
	tx_unlock(n);
	return done;
}

/* How many connections are owed an answer; packets of other threads wait in buffers of which there are few. */
static unsigned n_owed(const struct tas_core *c)
{
	return c->net->vnet && tas_alone ? c->stack->n_out : 1;
}

static unsigned whole_burst(const struct tas_core *c, bool whole)
{
	if (!whole)
		return TAS_RX_BURST;
	return n_owed(c) > 1 ? WHOLE_BURST_MANY : WHOLE_BURST;
}

static unsigned receive_burst(struct tas_core *c, uint16_t queue, uint64_t *bytes)
{
	struct rte_mbuf *m[TAS_RX_BURST];
	unsigned i, n = take(c->net, queue, m);
	uint64_t got = 0;

	for (i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(m[i], void *));
	for (i = 0; i < n; i++)
		got += m[i]->pkt_len;
	if (__builtin_expect(tas__threads_running() == 1, 1))
		for (i = 0; i < n; i++)
			tas__net_input(c, m[i]);
	else
		tas__steer(c, m, n);
	c->net->rx_burst = whole_burst(c, got > n * (uint64_t)WHOLE);
	*bytes += got;
	return n;
}

/*
 * A packet socket shows what it would give: a whole segment goes straight into its stream (fast/place.c).  One at a time, for
 * where one belongs is known when those before it were taken.
 */
static unsigned receive_placed(struct tas_core *c, uint64_t *bytes)
{
	const struct tas_own_queue *own = c->net->driver->own;
	struct iovec to[1 + TAS_PLACE_PIECES];
	_Alignas(8) uint8_t head[TAS_HEAD];
	unsigned n, big = 0, pieces;
	struct rte_mbuf *m;
	int len;

	for (n = 0; n < c->net->rx_burst; n++) {
		len = own->peek(c->net, head);
		pieces = len > WHOLE ? tas__net_foresee(c, head, (unsigned)len, to) : 0;
		if (pieces && own->scatter(c->net, to, pieces) == len) {
			tas_core_placed(c);
		} else if (!pieces && own->receive(c->net, c->net->queue, &m, 1)) { /* it says what is wrong, if anything is */
			len = (int)m->pkt_len;
			tas__net_input(c, m);
		} else {
			break;
		}
		big += len > WHOLE;
		*bytes += (unsigned)len;
	}
	if (n)
		c->net->rx_burst = whole_burst(c, 2 * big > n);
	return n;
}

static bool shows(const struct tas_net *n)
{
	return n->driver->own && n->driver->own->peek;
}

static uint64_t round_bytes(const struct tas_core *c)
{
	uint64_t bytes = (uint64_t)ROUND_BYTES * n_owed(c);

	return bytes < ROUND_BYTES ? ROUND_BYTES : bytes < ROUND_MAX ? bytes : ROUND_MAX;
}

/* More than a round sends (fast/output.c): the port's queue does not grow while we are busy sending. */
static unsigned receive(struct tas_core *c, uint16_t queue)
{
	unsigned i, n = 0, asked, got;
	uint64_t bytes = 0;
	bool whole;

	for (i = 0; i < (c->net->rx_burst == TAS_RX_BURST ? RX_BURSTS : WHOLE_BURSTS) && bytes < round_bytes(c); i++) {
		asked = c->net->rx_burst;
		whole = asked != TAS_RX_BURST && tas_alone;
		got = whole && shows(c->net) ? receive_placed(c, &bytes) : receive_burst(c, queue, &bytes);
		n += got;
		if (got < asked)
			break;
	}
	tas_count(c, TAS_CTR_rx_packets, n);
	tas_count(c, TAS_CTR_rx_bytes, bytes);
	return n;
}

unsigned tas__net_receive(struct tas_core *c)
{
	unsigned n;

	if (!c->net->carrier)
		return 0;
	n = receive(c, c->net->queue);
	/* those without a thread, which nobody could switch off */
	for (unsigned q = tas__threads_running(); !c->index && !c->net->switched && q < c->net->n_queues; q++)
		n += receive(c, (uint16_t)q);
	return n;
}

/* ---- out ---- */
static void drop(struct tas_core *c)
{
	struct tas_net *net = c->net;

	for (unsigned i = 0; i < net->n_tx; i++)
		rte_pktmbuf_free(net->tx[i]);
	tas_count(c, TAS_CTR_tx_dropped, net->n_tx);
	net->n_tx = 0;
	net->full = false;
}

/* What refers to memory of applications (segment.c) cannot wait: it is copied. */
static void keep(struct tas_core *c, unsigned sent)
{
	struct tas_net *net = c->net;
	unsigned n = 0;

	for (unsigned i = sent; i < net->n_tx; i++) {
		struct rte_mbuf *m = net->tx[i];

		if (net->lends && m->nb_segs > 1) {
			m = rte_pktmbuf_copy(m, net->pool, 0, UINT32_MAX);
			rte_pktmbuf_free(net->tx[i]);
			if (!m) {
				tas_count(c, TAS_CTR_tx_dropped, 1);
				continue;
			}
		}
		net->tx[n] = m;
		net->tx_len[n++] = net->tx_len[i];
	}
	net->n_tx = (uint16_t)n;
	net->full = n > 0;
}

/*
 * What a full port does not take waits, and with it everybody's output (fast/output.c).  One that has taken nothing for STUCK_NS, or whose
 * other end is gone, loses it instead: TCP sends again.
 */
void tas__net_flush(struct tas_core *c)
{
	struct tas_net *net = c->net;
	unsigned sent, lost;
	uint64_t bytes = 0;

	if (!net->n_tx)
		return;
	sent = give(net, &lost);
	for (unsigned i = 0; i < sent; i++)
		bytes += net->tx_len[i];
	tas_count(c, TAS_CTR_tx_packets, sent - lost);
	tas_count(c, TAS_CTR_tx_bytes, bytes);
	tas_count(c, TAS_CTR_tx_dropped, lost);
	if (sent == net->n_tx) {
		net->n_tx = 0;
		net->full = false;
		net->stuck_since = 0;
		return;
	}
	if (sent || !net->stuck_since)
		net->stuck_since = c->now;
	if (tas_cores[0].net->carrier && c->now - net->stuck_since < STUCK_NS) {
		keep(c, sent);
		return;
	}
	memmove(net->tx, net->tx + sent, (net->n_tx - sent) * sizeof(net->tx[0]));
	net->n_tx = (uint16_t)(net->n_tx - sent);
	drop(c);
}

void tas__net_flush_last(struct tas_core *c)
{
	for (unsigned i = 0; i < LAST_TRIES; i++)
		tas__net_flush(c);
	drop(c);
}

void tas__net_queue(struct tas_core *c, struct rte_mbuf *m)
{
	struct tas_net *n = c->net;

	if (n->n_tx == TAS_TX_BURST)
		tas__net_flush(c);
	if (n->n_tx == TAS_TX_BURST) {
		tas_count(c, TAS_CTR_tx_dropped, 1);
		rte_pktmbuf_free(m);
		return;
	}
	n->tx_len[n->n_tx] = m->pkt_len;
	n->tx[n->n_tx++] = m;
	/* a long one at once, while it is in the cache; a lent one, while its memory is there */
	if (n->n_tx == TAS_TX_BURST || m->nb_segs > 1)
		tas__net_flush(c);
}

bool tas_net_full(struct tas_core *c)
{
	return c->net->full;
}

void tas__net_timer(struct tas_core *c)
{
	if (c->now < tas__arp_deadline(c->net->arp))
		return;
	tas_alone_in(); /* whom nobody answers may have connections on any core */
	tas__arp_timer(c->net->arp, c->now);
	tas_alone_out();
}

uint64_t tas__net_deadline(const struct tas_core *c)
{
	return c->net->arp ? tas__arp_deadline(c->net->arp) : UINT64_MAX;
}
