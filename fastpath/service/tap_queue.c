/* SPDX-License-Identifier: MIT */
/*
 * The queue of a tap, read and written by us with the kernel's virtio header in front of each packet.
 *
 * DPDK's net_tap knows neither segmentation nor the checksum state of a packet: 45 system calls and checksums where the kernel
 * would pass 64 KiB and "sound" in one.  With the header both ends leave segments whole (one system call for up to
 * 44 of them) and nobody sums what never leaves the machine; where a packet does leave it, the kernel cuts it and fills in
 * the sums.  Buffers are DPDK's, large enough for whatever one read may give; few, so that they stay in the cache.
 */
#include <errno.h>
#include <fcntl.h>
#include <linux/if_link.h>
#include <linux/if_tun.h>
#include <linux/rtnetlink.h>
#include <linux/virtio_net.h>
#include <net/if.h>
#include <net/if_arp.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <unistd.h>

#include "service/edge.h"

enum {
	BIG = UINT16_MAX,           /* an mbuf's data room counts in 16 bits */
	N_BIG = 128,
	GSO_MAX = 64000,            /* what the kernel leaves whole: fits a buffer with all headers */
	ROUND_PACKETS = 192,
	ROUND_BYTES = 256 * 1024,   /* then acknowledgements should go out */
	ETHER = 14, CSUM_AT = 16, /* TCP's field */
};

/* The kernel's segments are never longer than a buffer, not even forwarded ones. */
static int limit_gso(unsigned index)
{
	struct {
		struct nlmsghdr h;
		struct ifinfomsg i;
		struct rtattr a;
		uint32_t max;
	} req = {
		.h = { .nlmsg_len = sizeof(req), .nlmsg_type = RTM_NEWLINK, .nlmsg_flags = NLM_F_REQUEST | NLM_F_ACK },
		.i = { .ifi_index = (int)index },
		.a = { .rta_len = RTA_LENGTH(4), .rta_type = IFLA_GSO_MAX_SIZE },
		.max = GSO_MAX,
	};
	struct {
		struct nlmsghdr h;
		struct nlmsgerr e;
		char rest[512];
	} rep = { .e.error = -EIO };
	int fd = socket(AF_NETLINK, SOCK_RAW | SOCK_CLOEXEC, NETLINK_ROUTE), r = -EIO;

	if (fd < 0)
		return -errno;
	if (send(fd, &req, sizeof(req), 0) == sizeof(req) &&
	    recv(fd, &rep, sizeof(rep), 0) >= (ssize_t)(sizeof(rep.h) + sizeof(rep.e)) && rep.h.nlmsg_type == NLMSG_ERROR)
		r = rep.e.error;
	close(fd);
	return r;
}

/* Kernel's end: its Ethernet address, up. */
static int bring_up(const char *name)
{
	struct ifreq r = { .ifr_hwaddr.sa_family = ARPHRD_ETHER };
	int fd = socket(AF_INET, SOCK_DGRAM | SOCK_CLOEXEC, 0), err = 0;

	if (fd < 0)
		return -errno;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", name);
	tas__tap_mac((uint8_t *)r.ifr_hwaddr.sa_data, 0);
	if (ioctl(fd, SIOCSIFHWADDR, &r) || ioctl(fd, SIOCGIFFLAGS, &r))
		err = -errno;
	r.ifr_flags |= IFF_UP | IFF_RUNNING;
	if (!err && ioctl(fd, SIOCSIFFLAGS, &r))
		err = -errno;
	close(fd);
	return err;
}

static int attach(const char *name)
{
	struct ifreq r = { .ifr_flags = IFF_TAP | IFF_NO_PI | IFF_VNET_HDR | IFF_MULTI_QUEUE };
	int fd = open("/dev/net/tun", O_RDWR | O_NONBLOCK | O_CLOEXEC), header = sizeof(struct virtio_net_hdr), err;

	if (fd < 0)
		return -errno;
	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", name);
	/* TSO of the kernel's end; a limit that cannot be set would let too large packets in */
	if (ioctl(fd, TUNSETIFF, &r) || ioctl(fd, TUNSETVNETHDRSZ, &header)) {
		err = -errno;
		close(fd);
		return err;
	}
	if (ioctl(fd, TUNSETOFFLOAD, limit_gso(if_nametoindex(name)) ? TUN_F_CSUM : TUN_F_CSUM | TUN_F_TSO4))
		tas_info("link %s: no segmentation offload: %s", name, strerror(errno));
	return fd;
}

int tas__tap_open(struct tas_net *n)
{
	int r = attach(tas_config.link_name);

	if (r < 0)
		return r;
	n->fd = r;
	r = bring_up(tas_config.link_name);
	if (r)
		return r;
	n->big = rte_pktmbuf_pool_create("tas-big", N_BIG - 1, 0, 0, BIG, SOCKET_ID_ANY);
	if (!n->big)
		return -ENOMEM;
	n->hw_rx_checksum = true;
	n->hw_tx_checksum = !tas_config.fp_no_xsumoffload;
	n->tso = n->hw_tx_checksum;
	return 0;
}

void tas__tap_close(struct tas_net *n)
{
	rte_pktmbuf_free(n->spare);
	n->spare = NULL;
	rte_mempool_free(n->big);
	n->big = NULL;
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
}

/* One packet: its length, 0: none waits or there is no buffer. */
static unsigned read_one(struct tas_core *c)
{
	struct tas_net *n = c->net;
	struct virtio_net_hdr v;
	struct iovec io[2] = { { .iov_base = &v, .iov_len = sizeof(v) } };
	struct rte_mbuf *m = n->spare ? n->spare : rte_pktmbuf_alloc(n->big);
	ssize_t len;

	n->spare = m;
	if (!m)
		return 0;
	io[1].iov_base = rte_pktmbuf_mtod(m, void *);
	io[1].iov_len = rte_pktmbuf_tailroom(m);
	len = readv(n->fd, io, 2) - (ssize_t)sizeof(v);
	if (len <= 0)
		return 0;
	n->spare = NULL;
	m->data_len = (uint16_t)len;
	m->pkt_len = (uint32_t)len;
	/* sums that the kernel left out because the packet never was on a wire, and those it has verified */
	if (v.flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID))
		m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
	tas__net_input(c, m);
	return (unsigned)len;
}

unsigned tas__tap_receive(struct tas_core *c)
{
	unsigned n = 0, len;
	uint64_t bytes = 0;

	while (n < ROUND_PACKETS && bytes < ROUND_BYTES) {
		len = read_one(c);
		if (!len)
			break;
		n++;
		bytes += len;
	}
	tas_count(c, TAS_CTR_rx_packets, n);
	tas_count(c, TAS_CTR_rx_bytes, bytes);
	return n;
}

static bool write_one(struct tas_net *n, struct rte_mbuf *m)
{
	struct virtio_net_hdr v = { .gso_type = VIRTIO_NET_HDR_GSO_NONE };
	struct iovec io[2] = { { .iov_base = &v, .iov_len = sizeof(v) },
			       { .iov_base = rte_pktmbuf_mtod(m, void *), .iov_len = m->data_len } };

	if (m->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) {
		v.flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		v.csum_start = (uint16_t)(ETHER + m->l3_len);
		v.csum_offset = CSUM_AT;
	}
	if (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) {
		v.gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		v.gso_size = m->tso_segsz;
		v.hdr_len = (uint16_t)(ETHER + m->l3_len + m->l4_len);
	}
	return writev(n->fd, io, 2) >= 0;
}

/* As rte_eth_tx_burst(): how many were taken (and freed). */
unsigned tas__tap_send(struct tas_net *n, struct rte_mbuf **m, unsigned count)
{
	unsigned i;

	for (i = 0; i < count && write_one(n, m[i]); i++)
		rte_pktmbuf_free(m[i]);
	return i;
}
