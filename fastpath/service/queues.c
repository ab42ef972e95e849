/* SPDX-License-Identifier: MIT */
/*
 * Queues of a port that has one for each thread.
 *
 * Who chooses the queue of a packet?  For a tap the kernel does, among those that are switched on (link_tap.c), for af_xdp the
 * interface.  A card that spreads (RSS) does it by Toeplitz' hash with a key and a
 * table that it gets from us: there connections belong to threads by the same hash and table, so that packets come to the owner
 * straight away.  Wherever they come to another, steer.c hands them on.
 *
 * Queues that cannot be switched off are core 0's while they have no thread.
 */
#include <errno.h>
#include <rte_ethdev.h>
#include <rte_thash.h>
#include <string.h>
#include <sys/random.h>

#include "service/link_drivers.h"
#include "service/threads.h"

enum { KEY_MIN = 40, KEY_MAX = 64, TABLE_MAX = RTE_ETH_RSS_RETA_SIZE_512 };

uint32_t (*tas_steer_hash)(uint32_t local, uint32_t peer, uint16_t local_port, uint16_t peer_port);

static struct {
	uint8_t key[KEY_MAX];
	uint32_t mask;  /* of buckets */
	uint16_t table; /* entries of the card's; 0: it has none that we can write */
} rss;

static uint32_t toeplitz(uint32_t local, uint32_t peer, uint16_t local_port, uint16_t peer_port)
{
	uint32_t tuple[] = { __builtin_bswap32(peer), __builtin_bswap32(local),
			     (uint32_t)__builtin_bswap16(peer_port) << 16 | __builtin_bswap16(local_port) };

	return rte_softrss(tuple, 3, rss.key) & rss.mask;
}

/* How many queues each way, and how the card shall spread over them. */
uint16_t tas__queues_choose(const struct tas_net *n, const struct rte_eth_dev_info *info, struct rte_eth_conf *conf)
{
	bool spreads = info->flow_type_rss_offloads & RTE_ETH_RSS_NONFRAG_IPV4_TCP;
	uint16_t table = info->reta_size;

	rss.table = 0;
	if (tas_n_cores == 1 || n->driver->queues == TAS_QUEUE_ONE || info->max_rx_queues < tas_n_cores ||
	    info->max_tx_queues < tas_n_cores)
		return 1;
	if (n->driver->queues != TAS_QUEUE_SPREAD || !spreads)
		return (uint16_t)tas_n_cores;
	conf->rxmode.mq_mode = RTE_ETH_MQ_RX_RSS;
	conf->rx_adv_conf.rss_conf.rss_hf = RTE_ETH_RSS_NONFRAG_IPV4_TCP;
	if (info->hash_key_size < KEY_MIN || info->hash_key_size > KEY_MAX || table < tas_n_cores || table > TABLE_MAX ||
	    (table & (table - 1)) || getrandom(rss.key, sizeof rss.key, 0) != sizeof rss.key)
		return (uint16_t)tas_n_cores;
	conf->rx_adv_conf.rss_conf.rss_key = rss.key;
	conf->rx_adv_conf.rss_conf.rss_key_len = info->hash_key_size;
	rss.table = table;
	rss.mask = (table < TAS_STEER_BUCKETS ? table : TAS_STEER_BUCKETS) - 1u;
	return (uint16_t)tas_n_cores;
}

void tas__queues_none(struct rte_eth_conf *conf)
{
	memset(&conf->rx_adv_conf, 0, sizeof conf->rx_adv_conf);
	conf->rxmode.mq_mode = RTE_ETH_MQ_RX_NONE;
	rss.table = 0;
}

/* The port is configured. */
void tas__queues_opened(const struct tas_net *n)
{
	if (n->n_queues > 1 && rss.table)
		tas_steer_hash = toeplitz;
}

/* The card's table follows tas_steer.  Alone. */
void tas__queues_spread(const struct tas_net *n)
{
	struct rte_eth_rss_reta_entry64 e[TABLE_MAX / RTE_ETH_RETA_GROUP_SIZE] = { { .mask = 0 } };
	int r;

	if (!rss.table)
		return;
	for (uint16_t i = 0; i < rss.table; i++) {
		e[i / RTE_ETH_RETA_GROUP_SIZE].mask |= 1ull << (i % RTE_ETH_RETA_GROUP_SIZE);
		e[i / RTE_ETH_RETA_GROUP_SIZE].reta[i % RTE_ETH_RETA_GROUP_SIZE] = tas_steer[i & rss.mask];
	}
	r = rte_eth_dev_rss_reta_update(n->port, e, rss.table);
	if (!r)
		return;
	tas_warn("link %s: its table of queues cannot be written: %s", tas_config.link_name, strerror(-r));
	rss.table = 0; /* the hash stays: connections keep their owners */
}
