/* SPDX-License-Identifier: MIT */
/* Packets of one core: a burst in, the round's packets out, neighbours' timers. */
#include <errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_prefetch.h>
#include <stdlib.h>

#include "service/edge.h"

enum { TX_TRIES = 8, RX_BURSTS = 6 };
/* Whole segments: few at a time, while they are in the cache, and not long until they are acknowledged. */
enum { WHOLE = 8192, WHOLE_BURST = 4, ROUND_BYTES = 256 * 1024 };

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
	if (c->net->up)
		tas__net_flush(c);
}

static unsigned receive_burst(struct tas_core *c, uint64_t *bytes)
{
	struct rte_mbuf *m[TAS_RX_BURST];
	unsigned i, n = rte_eth_rx_burst(c->net->port, 0, m, c->net->rx_burst);
	uint64_t got = 0;

	for (i = 0; i < n; i++)
		rte_prefetch0(rte_pktmbuf_mtod(m[i], void *));
	for (i = 0; i < n; i++) {
		got += m[i]->pkt_len;
		tas__net_input(c, m[i]);
	}
	c->net->rx_burst = got > n * (uint64_t)WHOLE ? WHOLE_BURST : TAS_RX_BURST;
	*bytes += got;
	return n;
}

/* More than a round sends (fast/poll.c): the port's queue does not grow while we are busy sending. */
unsigned tas__net_receive(struct tas_core *c)
{
	unsigned i, n = 0, asked, got;
	uint64_t bytes = 0;

	if (!c->net->carrier)
		return 0;
	for (i = 0; i < RX_BURSTS && bytes < ROUND_BYTES; i++) {
		asked = c->net->rx_burst;
		got = receive_burst(c, &bytes);
		n += got;
		if (got < asked)
			break;
	}
	tas_count(c, TAS_CTR_rx_packets, n);
	tas_count(c, TAS_CTR_rx_bytes, bytes);
	return n;
}

/* A full port is asked a few times, then the rest is dropped: TCP sends again, and a round must end. */
void tas__net_flush(struct tas_core *c)
{
	struct tas_net *net = c->net;
	uint32_t len[TAS_TX_BURST];
	unsigned sent = 0, tries = 0, k;
	uint64_t bytes = 0;

	if (!net->n_tx)
		return;
	for (k = 0; k < net->n_tx; k++) {
		len[k] = net->tx[k]->pkt_len;
		bytes += len[k];
		if (net->vnet)
			tas__vnet_hide_length(net->tx[k]);
	}
	while (net->carrier && sent < net->n_tx && tries < TX_TRIES) {
		k = rte_eth_tx_burst(net->port, 0, net->tx + sent, (uint16_t)(net->n_tx - sent));
		sent += k;
		tries += !k;
	}
	tas_count(c, TAS_CTR_tx_packets, sent);
	for (k = sent; k < net->n_tx; k++) {
		bytes -= len[k];
		rte_pktmbuf_free(net->tx[k]);
	}
	tas_count(c, TAS_CTR_tx_bytes, bytes);
	tas_count(c, TAS_CTR_tx_dropped, net->n_tx - sent);
	net->n_tx = 0;
}

void tas__net_timer(struct tas_core *c)
{
	if (c->now >= tas__arp_deadline(c->net->arp))
		tas__arp_timer(c->net->arp, c->now);
}

uint64_t tas__net_deadline(const struct tas_core *c)
{
	return c->net->arp ? tas__arp_deadline(c->net->arp) : UINT64_MAX;
}
