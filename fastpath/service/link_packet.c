/* SPDX-License-Identifier: MIT */
/*
 * The queue of an af_packet link: our own, where the other links have one of DPDK's drivers.
 *
 * A packet socket can carry the kernel's virtio header (vnet.c) in front of each frame, as a tap does: checksums that nobody has filled
 * in yet, and 64 KB in one piece.  A peer on a veth leaves both to hardware that is not there.  DPDK's af_packet driver makes its socket
 * and rings in one go, without that header, and its rings have room for single frames.  So the socket is made here, and is read and
 * written some packets per system call.
 *
 * A packet waits in the receiver's socket buffer and is lost when that is full: nobody is held back by it but by TCP's windows.  The
 * buffer is therefore large; it takes memory only while something is in it.
 */
#include <arpa/inet.h>
#include <errno.h>
#include <linux/filter.h>
#include <linux/if_ether.h>
#include <linux/if_packet.h>
#include <net/if.h>
#include <rte_mbuf.h>
#include <stdio.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <unistd.h>

#include "service/link_drivers.h"

enum { BUFFER = 64 << 20, PIECES = 4 * TAS_TX_BURST };

static struct {
	struct rte_mbuf *m[TAS_RX_BURST]; /* empty buffers: those below `used` were given away */
	struct mmsghdr msg[TAS_RX_BURST];
	struct iovec to[TAS_RX_BURST];
	unsigned used;
} rx = { .used = TAS_RX_BURST };

/* The kernel takes a VLAN's tag off before it shows a frame: what had one is not for us. */
static int refuse_vlans(int fd)
{
	struct sock_filter code[] = {
		BPF_STMT(BPF_LD | BPF_B | BPF_ABS, (unsigned)SKF_AD_OFF + SKF_AD_VLAN_TAG_PRESENT),
		BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, 0, 1, 0),
		BPF_STMT(BPF_RET | BPF_K, 0),
		BPF_STMT(BPF_RET | BPF_K, UINT32_MAX),
	};
	struct sock_fprog p = { .len = sizeof(code) / sizeof(code[0]), .filter = code };

	return setsockopt(fd, SOL_SOCKET, SO_ATTACH_FILTER, &p, sizeof(p));
}

static int set_up(int fd, struct tas_net *n)
{
	struct sockaddr_ll a = { .sll_family = AF_PACKET, .sll_protocol = htons(ETH_P_ALL) };
	struct ifreq r = { .ifr_mtu = 0 };
	int on = 1, size = BUFFER;

	snprintf(r.ifr_name, sizeof(r.ifr_name), "%.15s", tas_config.link_name);
	if (ioctl(fd, SIOCGIFHWADDR, &r))
		return -errno;
	memcpy(n->mac, r.ifr_hwaddr.sa_data, 6);
	if (setsockopt(fd, SOL_PACKET, PACKET_VNET_HDR, &on, sizeof(on)) || refuse_vlans(fd) ||
	    setsockopt(fd, SOL_PACKET, PACKET_IGNORE_OUTGOING, &on, sizeof(on)))
		return -errno;
	if (setsockopt(fd, SOL_SOCKET, SO_RCVBUFFORCE, &size, sizeof(size)))
		setsockopt(fd, SOL_SOCKET, SO_RCVBUF, &size, sizeof(size)); /* as much as may be had */
	a.sll_ifindex = (int)if_nametoindex(tas_config.link_name);
	return bind(fd, (const struct sockaddr *)&a, sizeof(a)) ? -errno : 0;
}

static void packet_close(struct tas_net *n)
{
	if (n->fd >= 0)
		close(n->fd);
	n->fd = -1;
	for (unsigned i = rx.used; i < TAS_RX_BURST; i++)
		rte_pktmbuf_free(rx.m[i]);
	rx.used = TAS_RX_BURST;
}

static int packet_open(struct tas_net *n)
{
	int r;

	n->fd = socket(AF_PACKET, SOCK_RAW | SOCK_CLOEXEC | SOCK_NONBLOCK, 0); /* deaf until it is bound */
	if (n->fd < 0)
		return -errno;
	n->queue_fd[0] = n->fd;
	r = set_up(n->fd, n);
	if (r)
		packet_close(n);
	return r;
}

/* ---- in ---- */
static bool refill(struct tas_net *n)
{
	if (!rx.used)
		return true;
	if (rte_pktmbuf_alloc_bulk(n->rx_pool, rx.m, rx.used))
		return false;
	for (unsigned i = 0; i < rx.used; i++) {
		rx.to[i] = (struct iovec){ rx.m[i]->buf_addr, rx.m[i]->buf_len };
		rx.msg[i].msg_hdr = (struct msghdr){ .msg_iov = &rx.to[i], .msg_iovlen = 1 };
	}
	rx.used = 0;
	return true;
}

static unsigned packet_receive(struct tas_net *n, unsigned queue, struct rte_mbuf **m, unsigned max)
{
	int got;

	(void)queue; /* there is one */
	if (!refill(n))
		return 0;
	got = recvmmsg(n->fd, rx.msg, max, MSG_DONTWAIT, NULL);
	if (got < 0 && errno != EAGAIN && errno != EINTR)
		tas_warn("link %s: %s", tas_config.link_name, strerror(errno)); /* ENETDOWN, told once: it works again when it is up */
	if (got <= 0)
		return 0;
	for (int i = 0; i < got; i++) {
		m[i] = rx.m[i];
		m[i]->data_off = 0; /* what a frame can be fills the buffer */
		m[i]->data_len = (uint16_t)(rx.msg[i].msg_hdr.msg_flags & MSG_TRUNC ? 0 : rx.msg[i].msg_len);
		m[i]->pkt_len = m[i]->data_len;
	}
	rx.used = (unsigned)got;
	return (unsigned)got;
}

static int packet_peek(const struct tas_net *n, uint8_t *head)
{
	return (int)recv(n->fd, head, TAS_HEAD, MSG_PEEK | MSG_TRUNC | MSG_DONTWAIT);
}

static int packet_scatter(const struct tas_net *n, struct iovec *to, unsigned pieces)
{
	struct msghdr m = { .msg_iov = to, .msg_iovlen = pieces };

	return (int)recvmsg(n->fd, &m, MSG_TRUNC | MSG_DONTWAIT);
}

/* ---- out ---- */
/* Frames [0, n) as messages, as many as there are pieces for. */
static unsigned describe(struct rte_mbuf **m, unsigned n, struct mmsghdr *msg, struct iovec *piece)
{
	unsigned used = 0, i;

	for (i = 0; i < n && used + m[i]->nb_segs <= PIECES; i++) {
		msg[i].msg_hdr = (struct msghdr){ .msg_iov = piece + used, .msg_iovlen = m[i]->nb_segs };
		for (struct rte_mbuf *s = m[i]; s; s = s->next)
			piece[used++] = (struct iovec){ rte_pktmbuf_mtod(s, void *), s->data_len };
	}
	return i;
}

static unsigned packet_send(struct tas_net *n, struct rte_mbuf **m, unsigned count, unsigned *lost)
{
	struct iovec piece[PIECES];
	struct mmsghdr msg[TAS_TX_BURST];
	unsigned done = 0, some;
	int sent;

	*lost = 0;
	while (done < count) {
		some = describe(m + done, count - done, msg, piece);
		sent = some ? sendmmsg(n->fd, msg, some, MSG_DONTWAIT) : 0;
		if (sent < 0 && (errno == EAGAIN || errno == ENOBUFS || errno == EINTR))
			break;
		if (sent <= 0) { /* this one never goes: too many pieces, too long, or the interface is down */
			sent = 1;
			++*lost;
		}
		rte_pktmbuf_free_bulk(m + done, (unsigned)sent);
		done += (unsigned)sent;
	}
	return done;
}

const struct tas_own_queue tas__packet_own = { packet_open, packet_close, packet_receive, packet_send, packet_peek, packet_scatter };
