/* SPDX-License-Identifier: MIT */
/*
 * The port: one DPDK device with one queue each way.  See docs/links.md for the drivers' quirks that shape this file.
 */
#include <errno.h>
#include <fcntl.h>
#include <net/if.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/edge.h"

enum { FRAME_ROOM = 2048, MTU_MAX = 1500, MTU_MIN = 576, POOL_CACHE = 256, SPARE = 2048 };

/* ---- before EAL ---- */
static int packet_prepare(char *vdev, size_t size)
{
	const char *name = tas_config.link_name;
	int fd;

	if (!if_nametoindex(name)) {
		tas_warn("--link=af_packet:%s: there is no interface of that name", name);
		return -ENODEV;
	}
	fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC, 0);
	if (fd < 0) {
		tas_warn("--link=af_packet:%s: %s (needs root or CAP_NET_RAW)", name, strerror(errno));
		return -EPERM;
	}
	close(fd);
	snprintf(vdev, size, "net_af_packet0,iface=%s,blocksz=%d,framesz=%d,framecnt=%u,qdisc_bypass=1", name, 2 * FRAME_ROOM,
		 FRAME_ROOM, tas_config.nic_rx_len & ~1u);
	return 0;
}

/* MTU of the interface; its IFF_UP flag in *up.  A tap's receive queue is the kernel's transmit queue before it. */
static int look_at_interface(bool *up)
{
	struct ifreq r = { .ifr_mtu = 0 };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), mtu = -1;

	*up = true;
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

/* ---- the port ---- */
static int configure(struct tas_net *n, const struct rte_eth_dev_info *info)
{
	const uint64_t tx_sums = RTE_ETH_TX_OFFLOAD_IPV4_CKSUM | RTE_ETH_TX_OFFLOAD_TCP_CKSUM;
	const uint64_t rx_sums = RTE_ETH_RX_OFFLOAD_IPV4_CKSUM | RTE_ETH_RX_OFFLOAD_TCP_CKSUM;
	/* net_tap computes and verifies checksums in software as well, slower than we do. */
	bool soft = !strcmp(info->driver_name, "net_tap");
	struct rte_eth_conf conf = { .rxmode.offloads = 0 };

	n->hw_tx_checksum = !soft && !tas_config.fp_no_xsumoffload && (info->tx_offload_capa & tx_sums) == tx_sums;
	n->hw_rx_checksum = !soft && (info->rx_offload_capa & rx_sums) == rx_sums;
	if (n->hw_tx_checksum)
		conf.txmode.offloads |= tx_sums;
	if (n->hw_rx_checksum)
		conf.rxmode.offloads |= rx_sums;
	return rte_eth_dev_configure(n->port, 1, 1, &conf);
}

static int make_pool(struct tas_net *n, unsigned rx, unsigned tx)
{
	unsigned count = rx + tx + SPARE + TAS_ARP_PENDING_ALL;

	n->pool = rte_pktmbuf_pool_create("tas", count, POOL_CACHE, 0, RTE_PKTMBUF_HEADROOM + FRAME_ROOM, SOCKET_ID_ANY);
	return n->pool ? 0 : -ENOMEM;
}

/*
 * net_tap arms a signal for every packet (O_ASYNC with SIGIO or a real-time signal) and does not look at its queue unless one
 * came since.  A signal per packet costs 90 % of its receive rate.  While no signal has ever come it looks always; once one
 * has come and the flag is cleared afterwards, it never looks again.  So these signals are blocked in all threads before
 * EAL starts (main.c: no race is left, not even on a tap that is up already), and the flag is cleared to save their cost.
 */
static int set_up_queues(struct tas_net *n, const struct tas_fdset *before)
{
	bool tap = tas_config.link == TAS_LINK_TAP;
	/* net_tap chains a buffer per descriptor and fills one; af_packet's ring is sized by its device argument */
	uint16_t rx = tap ? 1 : (uint16_t)tas_config.nic_rx_len, tx = (uint16_t)tas_config.nic_tx_len;
	struct tas_fdset between;
	int r = rte_eth_dev_adjust_nb_rx_tx_desc(n->port, &rx, &tx);

	if (r)
		return r;
	r = make_pool(n, rx, tx);
	if (r)
		return r;
	tas__fds_snapshot(&between);
	r = rte_eth_rx_queue_setup(n->port, 0, rx, rte_eth_dev_socket_id(n->port), NULL, n->pool);
	if (r)
		return r;
	n->fd = tas__fds_find_port(tap ? &between : before);
	r = rte_eth_tx_queue_setup(n->port, 0, tx, rte_eth_dev_socket_id(n->port), NULL);
	if (r)
		return r;
	tas__fds_clear_async();
	return 0;
}

static int open_port(struct tas_net *n, const struct tas_fdset *before)
{
	struct rte_eth_dev_info info;
	struct rte_ether_addr mac;
	int r, mtu;
	bool up;

	if (!rte_eth_dev_count_avail())
		return -ENODEV;
	n->port = (uint16_t)rte_eth_find_next(0);
	r = rte_eth_dev_info_get(n->port, &info);
	if (!r)
		r = configure(n, &info);
	if (!r)
		r = set_up_queues(n, before);
	if (!r)
		r = rte_eth_dev_start(n->port);
	if (r)
		return r;
	n->up = true;
	r = rte_eth_macaddr_get(n->port, &mac);
	if (r)
		return r;
	memcpy(n->mac, mac.addr_bytes, 6);
	if (tas_config.link == TAS_LINK_TAP)
		tas__tap_mac(n->mac, 1); /* the driver's is that of the kernel's end */
	mtu = look_at_interface(&up);
	if (mtu < MTU_MIN && mtu >= 0)
		tas_warn("link %s: its MTU of %d is below %d", tas_config.link_name, mtu, MTU_MIN);
	n->mtu = (uint16_t)(mtu < MTU_MIN || mtu > MTU_MAX ? MTU_MAX : mtu);
	if (!up)
		tas_warn("link %s is down (ip link set %s up)", tas_config.link_name, tas_config.link_name);
	return 0;
}

int tas__link_open(struct tas_net *n)
{
	static struct tas_fdset before;
	char vdev[160];
	int r;

	n->fd = -1;
	if (tas_config.link == TAS_LINK_NONE)
		return 0;
	r = tas_config.link == TAS_LINK_TAP ? tas__tap_prepare(vdev, sizeof(vdev)) : packet_prepare(vdev, sizeof(vdev));
	if (r)
		return r;
	tas__fds_snapshot(&before);
	r = tas__eal_init(vdev);
	if (!r)
		r = open_port(n, &before);
	if (!r)
		return 0;
	if (tas_config.link == TAS_LINK_TAP)
		tas__tap_explain();
	else
		tas_warn("cannot open link af_packet:%s: %s (--dpdk-extra=--log-level=debug says more)", tas_config.link_name,
			 strerror(-r));
	tas__link_close(n);
	return r;
}

void tas__link_close(struct tas_net *n)
{
	if (n->up)
		rte_eth_dev_stop(n->port);
	if (n->pool) { /* queues were set up */
		rte_eth_dev_close(n->port);
		rte_mempool_free(n->pool);
	}
	n->up = false;
	n->pool = NULL;
	tas__eal_exit();
}

const char *tas__link_describe(void)
{
	static char text[96];
	const struct tas_net *n = tas_cores[0].net;

	if (!n->up)
		return "local connections only";
	snprintf(text, sizeof(text), "link %s:%s, MTU %u", tas_config.link == TAS_LINK_TAP ? "tap" : "af_packet",
		 tas_config.link_name, n->mtu);
	return text;
}
