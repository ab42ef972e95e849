/* SPDX-License-Identifier: MIT */
/*
 * The kernel's virtio header in front of the frames of a tap or a packet socket.
 *
 * It says of each packet whether its TCP checksum is filled in and into segments of which size it is to be cut, so
 * that both ends leave 64 KiB whole and nobody sums what never leaves the machine.
 */
#include <linux/virtio_net.h>
#include <rte_mbuf.h>
#include <string.h>

#include "service/edge.h"

enum { HEADER = sizeof(struct virtio_net_hdr), ETHERNET = 14, TCP_CHECKSUM = 16, TCP_FLAGS = 13, TCP_CWR = 0x80 };

_Static_assert((int)HEADER == (int)TAS_VNET_HEADER, "the tap is told this size");

/* The checksum was never computed because it was never on a wire, or was verified already. */
bool tas__vnet_vouched(const uint8_t *frame)
{
	const struct virtio_net_hdr *v = (const struct virtio_net_hdr *)frame;

	return v->flags & (VIRTIO_NET_HDR_F_NEEDS_CSUM | VIRTIO_NET_HDR_F_DATA_VALID);
}

bool tas__vnet_take(struct rte_mbuf *m)
{
	if (m->data_len < HEADER)
		return false;
	if (tas__vnet_vouched(rte_pktmbuf_mtod(m, const uint8_t *)))
		m->ol_flags |= RTE_MBUF_F_RX_L4_CKSUM_GOOD;
	rte_pktmbuf_adj(m, HEADER);
	return true;
}

bool tas__vnet_give(struct rte_mbuf *m)
{
	struct virtio_net_hdr *v = (struct virtio_net_hdr *)rte_pktmbuf_prepend(m, HEADER);
	unsigned l4 = ETHERNET + m->l3_len;

	if (!v)
		return false;
	memset(v, 0, HEADER);
	if (m->ol_flags & RTE_MBUF_F_TX_TCP_CKSUM) {
		v->flags = VIRTIO_NET_HDR_F_NEEDS_CSUM;
		v->csum_start = (uint16_t)l4;
		v->csum_offset = TCP_CHECKSUM;
	}
	if (m->ol_flags & RTE_MBUF_F_TX_TCP_SEG) {
		v->gso_type = VIRTIO_NET_HDR_GSO_TCPV4;
		if (rte_pktmbuf_mtod_offset(m, const uint8_t *, HEADER + l4)[TCP_FLAGS] & TCP_CWR)
			v->gso_type |= VIRTIO_NET_HDR_GSO_ECN;
		v->gso_size = m->tso_segsz;
		v->hdr_len = (uint16_t)(l4 + m->l4_len);
	}
	m->ol_flags &= ~(RTE_MBUF_F_TX_TCP_SEG | RTE_MBUF_F_TX_TCP_CKSUM | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_IPV4);
	return true;
}
