/* SPDX-License-Identifier: MIT */
/*
 * The port: one DPDK device, or queues of our own (link_tap.c, link_packet.c).  See docs/links.md for the drivers' quirks that shape
 * this file; what is done before EAL starts, per kind of link, is in link_drivers.c.
 */
#include <errno.h>
#include <net/if.h>
#include <rte_alarm.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <rte_mbuf_pool_ops.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/edge.h"
#include "service/link_drivers.h"

enum { MTU_MIN = 576, POOL_CACHE = 256, SPARE = 2048, LINK_LOOK_MS = 500, PER_THREAD = 1536 /* on the way to it, in its cache */ };
enum {
	TSO_MAX = 62264, /* 43 segments of 1,448: with headers below the 65,535 of an IP packet */
	N_WHOLE = 128,   /* buffers for received segments of any length; none is held beyond its burst */
	WHOLE_CACHE = 16, /* the last one freed is the next one used: few of them are touched, and they stay in the processor's cache */
};

/* MTU of the interface; its IFF_UP flag in *up.  A tap's receive queue is the kernel's transmit queue before it. */
static int look_at_interface(bool *up)
{
	struct ifreq r = { .ifr_mtu = 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), mtu = -1;

	if (fd < 0)
		return -1;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", tas_config.link_name);
	r.ifr_qlen = (int)tas_config.nic_rx_len;
	if (tas_config.link == TAS_LINK_TAP && ioctl(fd, SIOCSIFTXQLEN, &r))
		tas_info("link %s: --nic-rx-len: %s", tas_config.link_name, strerror(errno));
	if (!ioctl(fd, SIOCGIFFLAGS, &r))
		*up = r.ifr_flags & IFF_UP;
	if (!ioctl(fd, SIOCGIFMTU, &r))
		mtu = r.ifr_mtu;
	close(fd);
	return mtu;
}

/* The MTU that we use; a kind without an interface says its own. */
static uint16_t find_mtu(const struct tas_net *n, bool *up)
{
	uint16_t own = TAS_MTU_USUAL;
	int mtu;

	*up = true;
	if (n->driver->interface) {
		mtu = look_at_interface(up);
	} else {
		if (!tas_config.link_mtu)
			rte_eth_dev_get_mtu(n->port, &own);
		mtu = tas_config.link_mtu ? tas_config.link_mtu : own;
	}
	if (mtu < MTU_MIN && mtu >= 0)
		tas_warn("link %s: its MTU of %d is below %d", tas_config.link_name, mtu, MTU_MIN);
	if (mtu < MTU_MIN)
		return TAS_MTU_USUAL;
	return (uint16_t)(mtu > n->driver->mtu_max ? n->driver->mtu_max : mtu);
}

/* ---- the port ---- */
static int configure(struct tas_net *n, const struct rte_eth_dev_info *info)
{
	const uint64_t tx_sums = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
	const uint64_t cuts = RTE_ETH_TX_OFFLOAD_TCP_TSO | RTE_ETH_TX_OFFLOAD_MULTI_SEGS;
	const uint64_t rx_sums = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
	struct rte_eth_conf conf = { .rxmode.offloads = 0 };
	int r;

	n->rx_burst = TAS_RX_BURST;
	n->no_checksums = tas_config.link_no_checksums;
	n->lends = n->driver->copies && !tas_config.memif_zero_copy;
	n->hw_tx_checksum = !tas_config.fp_no_xsumoffload && (info->tx_offload_capa & tx_sums) == tx_sums;
	n->hw_rx_checksum = (info->rx_offload_capa & rx_sums) == rx_sums;
	if (n->hw_tx_checksum && (info->tx_offload_capa & cuts) == cuts) {
		n->tso_max = TSO_MAX;
		conf.txmode.offloads |= cuts;
	}
	if (n->hw_tx_checksum)
		conf.txmode.offloads |= tx_sums;
	if (n->hw_rx_checksum)
		conf.rxmode.offloads |= rx_sums;
	n->interrupts = n->driver->interrupts && !tas_config.fp_no_ints;
	conf.intr_conf.rxq = n->interrupts;
	n->n_queues = tas__queues_choose(n, info, &conf);
	r = rte_eth_dev_configure(n->port, n->n_queues, n->n_queues, &conf);
	if (r && n->interrupts) { /* the driver, or what the device is bound to, has none for packets */
		n->interrupts = false;
		conf.intr_conf.rxq = 0;
		r = rte_eth_dev_configure(n->port, n->n_queues, n->n_queues, &conf);
	}
	if (r && n->n_queues > 1) {
		n->n_queues = 1;
		tas__queues_none(&conf);
		r = rte_eth_dev_configure(n->port, 1, 1, &conf);
	}
	tas__queues_opened(n);
	return r;
}

/*
 * net_af_xdp shows the kernel as much memory as the buffers take without gaps.  A pool of ordinary pages puts one into each page, so
 * that what lies in the last two fifths of them would not be sent (tx_invalid_descs).
 */
static struct rte_mempool *make_packed_pool(unsigned count, uint16_t room)
{
	struct rte_pktmbuf_pool_private priv = { .mbuf_data_room_size = room };
	struct rte_mempool *p = rte_mempool_create_empty("tas", count, (unsigned)sizeof(struct rte_mbuf) + room, POOL_CACHE,
							 sizeof(priv), SOCKET_ID_ANY, RTE_MEMPOOL_F_NO_IOVA_CONTIG);

	if (!p)
		return NULL;
	rte_pktmbuf_pool_init(p, &priv);
	if (rte_mempool_set_ops_byname(p, rte_mbuf_best_mempool_ops(), NULL) || rte_mempool_populate_default(p) < 0) {
		rte_mempool_free(p);
		return NULL;
	}
	rte_mempool_obj_iter(p, rte_pktmbuf_init, NULL);
	return p;
}

static int make_pool(struct tas_net *n, unsigned rx, unsigned tx)
{
	bool keep = tas_config.link == TAS_LINK_AF_XDP || tas_config.link == TAS_LINK_PCI; /* others' queues copy */
	unsigned holders = keep ? n->n_queues : 1;
	unsigned count = holders * (rx + tx + SPARE) + TAS_ARP_PENDING_ALL + (tas_n_cores - 1) * PER_THREAD;
	uint16_t room = (uint16_t)(RTE_PKTMBUF_HEADROOM + tas__link_frame_room(n->mtu));

	if (tas_config.link == TAS_LINK_AF_XDP)
		n->pool = make_packed_pool(count, room);
	else
		n->pool = rte_pktmbuf_pool_create("tas", count, POOL_CACHE, 0, room, SOCKET_ID_ANY);
	n->rx_pool = n->pool;
	if (n->vnet)
		n->rx_pool = rte_pktmbuf_pool_create("tas-whole", N_WHOLE * tas_n_cores - 1, WHOLE_CACHE, 0, UINT16_MAX, SOCKET_ID_ANY);
	return n->pool && n->rx_pool ? 0 : -ENOMEM;
}

static int set_up_queues(struct tas_net *n, const struct tas_fdset *before)
{
	uint16_t rx = (uint16_t)tas_config.nic_rx_len, tx = (uint16_t)tas_config.nic_tx_len;
	struct tas_fdset seen = *before; /* a queue's descriptor is known before the next one's is looked for */
	int r = rte_eth_dev_adjust_nb_rx_tx_desc(n->port, &rx, &tx);

	if (!r)
		r = make_pool(n, rx, tx);
	if (r)
		return r;
	for (uint16_t q = 0; q < n->n_queues; q++) {
		if (n->driver->descriptor == TAS_FD_OPENED_BY_QUEUE)
			tas__fds_snapshot(&seen);
		r = rte_eth_rx_queue_setup(n->port, q, rx, (unsigned)rte_eth_dev_socket_id(n->port), NULL, n->rx_pool);
		if (r)
			return r;
		r = rte_eth_tx_queue_setup(n->port, q, tx, (unsigned)rte_eth_dev_socket_id(n->port), NULL);
		if (r)
			return r;
		n->queue_fd[q] = -1;
		if (n->driver->descriptor)
			n->queue_fd[q] = tas__fds_find_port(&seen);
	}
	n->fd = n->queue_fd[0];
	return 0;
}

/* A device with interrupts: its descriptors are known once it runs. */
static void find_interrupts(struct tas_net *n)
{
	for (uint16_t q = 0; n->interrupts && q < n->n_queues; q++) {
		n->queue_fd[q] = rte_eth_dev_rx_intr_ctl_q_get_fd(n->port, q);
		n->interrupts = n->queue_fd[q] >= 0 && !rte_eth_dev_rx_intr_enable(n->port, q);
	}
	for (uint16_t q = 0; n->driver->interrupts && !n->interrupts && q < n->n_queues; q++)
		n->queue_fd[q] = -1;
}

static void tell_if_down(bool up)
{
	if (!up)
		tas_warn("link %s is down (ip link set %s up)", tas_config.link_name, tas_config.link_name);
}

static int open_own(struct tas_net *n)
{
	bool up;
	int r;

	n->switched = n->driver->queues == TAS_QUEUE_SWITCHED;
	n->n_queues = n->switched ? (uint16_t)tas_n_cores : 1;
	n->rx_burst = TAS_RX_BURST;
	n->vnet = n->hw_rx_checksum = n->driver->vnet;
	n->lends = n->driver->copies;
	n->hw_tx_checksum = n->vnet && !tas_config.fp_no_xsumoffload;
	n->tso_max = n->hw_tx_checksum ? TSO_MAX : 0;
	r = n->driver->own->open(n);
	if (r)
		return r;
	n->mtu = find_mtu(n, &up);
	r = make_pool(n, 0, 0);
	if (r) {
		n->driver->own->close(n);
		return r;
	}
	n->up = true;
	n->carrier = true;
	tell_if_down(up);
	return 0;
}

static int open_port(struct tas_net *n, const struct tas_fdset *before)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	bool up;
	int r;

	if (!rte_eth_dev_count_avail())
		return -ENODEV;
	n->port = (uint16_t)rte_eth_find_next(0);
	n->mtu = find_mtu(n, &up);
	r = rte_eth_dev_info_get(n->port, &info);
	if (!r)
		r = configure(n, &info);
	if (!r)
		r = set_up_queues(n, before);
	if (!r)
		r = rte_eth_dev_start(n->port);
	if (r && tas_config.link != TAS_LINK_MEMIF)
		return r;
	n->up = true;
	atomic_store(&n->started, !r);
	n->carrier = tas_config.link != TAS_LINK_MEMIF;
	find_interrupts(n);
	n->fd = n->queue_fd[0];
	r = rte_eth_macaddr_get(n->port, &mac);
	if (r)
		return r;
	memcpy(n->mac, mac.addr_bytes, 6);
	tell_if_down(up);
	return 0;
}

void tas__link_arm(const struct tas_net *n, unsigned queue, bool on)
{
	if (on)
		rte_eth_dev_rx_intr_enable(n->port, (uint16_t)queue);
	else
		rte_eth_dev_rx_intr_disable(n->port, (uint16_t)queue);
}

/* In EAL's thread, where memif handles the end of a connection as well: never both at once. */
static void connect_again(void *arg)
{
	struct tas_net *n = arg;

	if (atomic_load(&n->started))
		rte_eth_dev_stop(n->port);
	atomic_store(&n->started, !rte_eth_dev_start(n->port));
}

/*
 * memif's other end comes and goes.  A client connects when its port is started and never again by itself; the state of
 * the port tells whether it is connected.  A port without its other end must not be sent to or received from.
 */
void tas__link_timer(struct tas_core *c)
{
	struct tas_net *n = c->net;
	struct rte_eth_link l = { .link_status = RTE_ETH_LINK_DOWN };

	if (tas_config.link != TAS_LINK_MEMIF || c->now < n->next_link_look)
		return;
	n->next_link_look = c->now + LINK_LOOK_MS * 1000000ull;
	if (n->started && rte_eth_link_get_nowait(n->port, &l))
		return;
	if (l.link_status == RTE_ETH_LINK_DOWN && !tas_config.memif_server)
		rte_eal_alarm_set(1, connect_again, n);
	if (n->carrier == (l.link_status == RTE_ETH_LINK_UP))
		return;
	n->carrier = !n->carrier;
	tas_info("link memif:%s: the other end %s", tas_config.link_name, n->carrier ? "is there" : "has gone");
	if (n->carrier)
		tas__net_announce(c);
}

int tas__link_open(struct tas_net *n)
{
	struct tas_eal_device device = { .arg = "" };
	static struct tas_fdset before;
	int r;

	n->fd = -1;
	if (tas_config.link == TAS_LINK_NONE)
		return 0;
	n->driver = &tas__link_drivers[tas_config.link];
	r = n->driver->prepare(&device);
	if (r)
		return r;
	tas__fds_snapshot(&before);
	r = tas__eal_init(&device);
	if (!r)
		r = n->driver->own ? open_own(n) : open_port(n, &before);
	if (!r)
		return 0;
	if (!tas__eal_lacked_huge())
		n->driver->explain(-r);
	tas__link_close(n);
	return r;
}

void tas__link_close(struct tas_net *n)
{
	if (n->driver && tas_config.link == TAS_LINK_MEMIF && n->up) {
		/* its thread may be giving up the connection at this moment; the process ends, which the other end sees */
		n->up = false;
		if (tas_config.memif_server)
			unlink(tas_config.link_name);
		tas__eal_exit(false);
		return;
	}
	if (n->started)
		rte_eth_dev_stop(n->port);
	if (n->driver && n->driver->own)
		n->driver->own->close(n);
	if (n->pool) { /* queues were set up */
		if (!n->driver->own)
			rte_eth_dev_close(n->port);
		if (n->rx_pool != n->pool)
			rte_mempool_free(n->rx_pool);
		rte_mempool_free(n->pool);
	}
	n->up = false;
	atomic_store(&n->started, false);
	n->pool = NULL;
	tas__eal_exit(true);
}

const char *tas__link_describe(void)
{
	static char text[192];
	const struct tas_net *n = tas_cores[0].net;

	if (!n->up)
		return "local connections only";
	snprintf(text, sizeof(text), "link %s:%s, MTU %u", n->driver->name, tas_config.link_name, n->mtu);
	return text;
}
