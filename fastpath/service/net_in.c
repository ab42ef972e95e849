/* SPDX-License-Identifier: MIT */
/* In from the link: what a packet is, whether it is sound, and whose. */
#include <arpa/inet.h>
#include <rte_mbuf.h>
#include <string.h>
#include <sys/uio.h>

#include "fast/checksum.h"
#include "fast/ip.h"
#include "service/threads.h"
#include "slow/icmp.h"

enum { ETH_HLEN = 14, TCP_HLEN = 20, TCP_CHECKSUM = 16, ICMP_ECHO = 8 };
/* ICMP errors that we send: as Linux, 1,000 a second and bursts of 50. */
enum { ICMP_BURST = 50, ICMP_INTERVAL = 1000000 };
static const uint64_t conflict_every = 10000000000ull;

static void drop(struct tas_core *c, struct rte_mbuf *m, enum tas_counter why)
{
	tas_count(c, why, 1);
	rte_pktmbuf_free(m);
}

/* ---- ARP ---- */
/* Somebody else uses our address: say so, and say to everybody that it is ours (RFC 5227 §2.4 b), not too often. */
static void conflict(struct tas_core *c, const struct tas_arp_pkt *p)
{
	const uint8_t *a = (const uint8_t *)&p->spa;

	if (c->net->conflict_told && c->now - c->net->conflict_told < conflict_every)
		return;
	c->net->conflict_told = c->now;
	tas_warn("%02x:%02x:%02x:%02x:%02x:%02x uses our address %u.%u.%u.%u", p->sha[0], p->sha[1], p->sha[2], p->sha[3],
		 p->sha[4], p->sha[5], a[0], a[1], a[2], a[3]);
	tas__net_announce(c);
}

static void input_arp(struct tas_core *c, struct rte_mbuf *m)
{
	const uint8_t *p = rte_pktmbuf_mtod_offset(m, uint8_t *, ETH_HLEN);
	struct tas_net *n = c->net;
	struct tas_arp_pkt in, out;
	bool for_us;

	if (tas__arp_parse(p, m->data_len - ETH_HLEN, &in)) {
		drop(c, m, TAS_CTR_rx_malformed);
		return;
	}
	for_us = tas__routes_own(&tas__routes, in.tpa);
	if (tas__routes_own(&tas__routes, in.spa)) {
		if (memcmp(in.sha, n->mac, 6))
			conflict(c, &in);
	} else if (tas__routes_onlink(&tas__routes, in.spa)) {
		tas_shared_in();
		tas__arp_learn(n->arp, in.spa, in.sha, for_us && in.op == TAS_ARP_REQUEST, c->now);
		tas_shared_out();
	}
	if (for_us && in.op == TAS_ARP_REQUEST && in.spa != in.tpa) {
		out = (struct tas_arp_pkt){ .op = TAS_ARP_REPLY, .spa = in.tpa, .tpa = in.spa };
		memcpy(out.sha, n->mac, 6);
		memcpy(out.tha, in.sha, 6);
		tas_count(c, TAS_CTR_arp_requests_in, 1);
		tas__net_send_arp(c, &out, in.sha);
	}
	rte_pktmbuf_free(m);
}

/* ---- ICMP ---- */
static bool may_complain(struct tas_core *c)
{
	struct tas_net *n = c->net;
	uint64_t more = (c->now - n->icmp_refill) / ICMP_INTERVAL;

	if (more) {
		n->icmp_refill = c->now;
		n->icmp_tokens = n->icmp_tokens + more < ICMP_BURST ? n->icmp_tokens + more : ICMP_BURST;
	}
	if (!n->icmp_tokens)
		return false;
	n->icmp_tokens--;
	return true;
}

static void complain(struct tas_core *c, struct rte_mbuf *m, const struct tas_ip_info *info, uint8_t code)
{
	const uint8_t *ip = rte_pktmbuf_mtod(m, uint8_t *);
	struct rte_mbuf *e;
	unsigned len;

	if (!tas__icmp_may_complain(ip, info) || !may_complain(c))
		return;
	e = tas_net_alloc(c);
	if (!e)
		return;
	len = tas__icmp_unreach(rte_pktmbuf_mtod(e, uint8_t *), ip, info, code, c->net->ip_id++);
	rte_pktmbuf_append(e, (uint16_t)len);
	tas_count(c, TAS_CTR_icmp_unreach_out, 1);
	tas__net_send_ip(c, e, ((const struct tas_ip_hdr *)ip)->src);
}

static void input_icmp_error(struct tas_core *c, const struct tas_icmp_error *e)
{
	struct tas_addr src = { .family = AF_INET }, dst = { .family = AF_INET };

	tas_count(c, TAS_CTR_icmp_unreach_in, 1);
	if (!tas__routes_own(&tas__routes, e->src))
		return;
	memcpy(src.ip, &e->src, 4);
	memcpy(dst.ip, &e->dst, 4);
	tas_core_icmp_error(c, &src, &dst, e->tcp8, e->error, e->hard, e->mtu);
}

/* m begins at the IP header. */
static void input_icmp(struct tas_core *c, struct rte_mbuf *m, const struct tas_ip_info *info)
{
	uint8_t *ip = rte_pktmbuf_mtod(m, uint8_t *);
	struct tas_icmp_error e;
	struct rte_mbuf *reply;

	switch (tas__icmp_parse(ip, info, &e)) {
	case TAS_ICMP_ECHO:
		tas_count(c, TAS_CTR_icmp_echo, 1);
		tas__icmp_echo_reply(ip, info, c->net->ip_id++);
		if (c->net->rx_pool == c->net->pool) {
			tas__net_send_ip(c, m, ((const struct tas_ip_hdr *)ip)->dst);
			return;
		}
		reply = rte_pktmbuf_copy(m, c->net->pool, 0, UINT32_MAX); /* m may not wait for a neighbour: there are few */
		if (reply)
			tas__net_send_ip(c, reply, ((const struct tas_ip_hdr *)ip)->dst);
		break;
	case TAS_ICMP_ERROR:
		input_icmp_error(c, &e);
		break;
	case TAS_ICMP_BAD_CHECKSUM:
		tas_count(c, TAS_CTR_rx_bad_checksum, 1);
		break;
	case TAS_ICMP_MALFORMED:
		tas_count(c, TAS_CTR_rx_malformed, 1);
		break;
	case TAS_ICMP_IGNORE:
		tas_count(c, TAS_CTR_rx_not_ours, 1);
		break;
	}
	rte_pktmbuf_free(m);
}

/* ---- TCP ---- */
/*
 * A sender on this machine may leave the checksum to its "hardware": the field then holds the pseudo header's sum only.  The
 * drivers here do not pass on the kernel's word that such a packet is sound, so it cannot be told from a broken one.
 */
static void tell_partial(struct tas_core *c, uint16_t field, uint64_t pseudo)
{
	if (c->net->partial_told || field != tas__sum_fold(pseudo))
		return;
	c->net->partial_told = true;
	if (tas_config.link == TAS_LINK_MEMIF)
		tas_warn("the other end of memif:%s leaves TCP checksums out; its packets are dropped "
			 "(no-checksums belongs to both ends or to none)", tas_config.link_name);
	else
		tas_warn("a peer on %s leaves TCP checksums to hardware that is not there; its packets are dropped "
			 "(on the peer's interface: ethtool -K IF tx off)", tas_config.link_name);
}

static bool tcp_sound(struct tas_core *c, const struct rte_mbuf *m, const uint8_t *tcp, unsigned len,
		      const struct tas_ip_hdr *ip)
{
	uint64_t flag = m->ol_flags & RTE_MBUF_F_RX_L4_CKSUM_MASK, pseudo;
	uint16_t field;

	if (c->net->no_checksums)
		return true;
	/* NONE (both bits): the field is not filled in, but the port vouches for the data */
	if (c->net->hw_rx_checksum && (flag == RTE_MBUF_F_RX_L4_CKSUM_GOOD || flag == RTE_MBUF_F_RX_L4_CKSUM_NONE))
		return true;
	pseudo = tas__sum_pseudo4(ip->src, ip->dst, TAS_IP_TCP, len);
	if (!tas__checksum(tcp, len, pseudo))
		return true;
	memcpy(&field, tcp + TCP_CHECKSUM, 2);
	tell_partial(c, field, pseudo);
	return false;
}

static void input_tcp(struct tas_core *c, struct rte_mbuf *m, const struct tas_ip_info *info)
{
	const struct tas_ip_hdr *ip = rte_pktmbuf_mtod(m, struct tas_ip_hdr *);
	unsigned len = info->len - info->hlen;
	struct tas_rx_meta meta = { .src.family = AF_INET, .dst.family = AF_INET };

	if (len < TCP_HLEN) {
		drop(c, m, TAS_CTR_rx_malformed);
		return;
	}
	if (!tcp_sound(c, m, (const uint8_t *)ip + info->hlen, len, ip)) {
		drop(c, m, TAS_CTR_rx_bad_checksum);
		return;
	}
	memcpy(meta.src.ip, &ip->src, 4);
	memcpy(meta.dst.ip, &ip->dst, 4);
	meta.tos = ip->tos;
	rte_pktmbuf_adj(m, (uint16_t)info->hlen);
	if (!tas_core_tcp(c, m, &meta) && !tas__late_put(m, &meta))
		drop(c, m, TAS_CTR_tcp_listen_overflow);
}

/* ---- IP and Ethernet ---- */
static void input_ip(struct tas_core *c, struct rte_mbuf *m)
{
	bool sum_ok = c->net->hw_rx_checksum &&
		      (m->ol_flags & RTE_MBUF_F_RX_IP_CKSUM_MASK) == RTE_MBUF_F_RX_IP_CKSUM_GOOD;
	const struct tas_ip_hdr *ip;
	struct tas_ip_info info;

	ip = (const struct tas_ip_hdr *)rte_pktmbuf_adj(m, ETH_HLEN);
	switch (tas__ip_parse(ip, m->data_len, sum_ok, &info)) {
	case TAS_IP_OK:
		break;
	case TAS_IP_MALFORMED:
		drop(c, m, TAS_CTR_rx_malformed);
		return;
	case TAS_IP_BAD_CHECKSUM:
		drop(c, m, TAS_CTR_rx_bad_checksum);
		return;
	case TAS_IP_FRAGMENT:
		drop(c, m, TAS_CTR_rx_fragments);
		return;
	case TAS_IP_MARTIAN:
		drop(c, m, TAS_CTR_rx_not_ours);
		return;
	}
	if (!tas__routes_own(&tas__routes, ip->dst) || tas__routes_own(&tas__routes, ip->src)) {
		drop(c, m, TAS_CTR_rx_not_ours);
		return;
	}
	rte_pktmbuf_trim(m, (uint16_t)(m->data_len - info.len)); /* Ethernet's padding */
	switch (ip->proto) {
	case TAS_IP_TCP:
		input_tcp(c, m, &info);
		return;
	case TAS_IP_ICMP:
		input_icmp(c, m, &info);
		return;
	case TAS_IP_UDP:
		complain(c, m, &info, TAS_ICMP_UNREACH_PORT);
		break;
	default:
		complain(c, m, &info, TAS_ICMP_UNREACH_PROTO);
		break;
	}
	drop(c, m, TAS_CTR_rx_not_ours);
}

/* ---- whose is it ---- */
/* A TCP header of at least so many bytes names the ports. */
enum { PORTS = 4 };

unsigned tas__net_owner_of(const uint8_t *local_ip, const uint8_t *peer_ip, const uint8_t *local_port,
			   const uint8_t *peer_port)
{
	uint32_t l, p;
	uint16_t lp, pp;

	memcpy(&l, local_ip, 4);
	memcpy(&p, peer_ip, 4);
	memcpy(&lp, local_port, 2);
	memcpy(&pp, peer_port, 2);
	return tas_steer[tas_steer_bucket(l, p, lp, pp)];
}

/* Nothing is verified here; whatever is no segment of a connection is core 0's.  An error goes where the segment came from. */
unsigned tas__net_owner(const struct tas_core *c, const struct rte_mbuf *m)
{
	unsigned at = (c->net->vnet ? TAS_VNET_HEADER : 0) + ETH_HLEN, n = m->data_len, hlen;
	const uint8_t *p = rte_pktmbuf_mtod(m, const uint8_t *);

	if (n < at + TAS_IP_HLEN || p[at - 2] != 8 || p[at - 1] != 0)
		return 0;
	hlen = (p[at] & 15) * 4u;
	if (p[at + 9] == TAS_IP_TCP && n >= at + hlen + PORTS && !(p[at + 6] & 0x3f) && !p[at + 7])
		return tas__net_owner_of(p + at + 16, p + at + 12, p + at + hlen + 2, p + at + hlen);
	if (p[at + 9] != TAS_IP_ICMP || n < at + hlen + TAS_ICMP_HLEN + TAS_IP_HLEN || p[at + hlen] == ICMP_ECHO)
		return 0;
	at += hlen + TAS_ICMP_HLEN;
	hlen = (p[at] & 15) * 4u;
	if (p[at + 9] != TAS_IP_TCP || n < at + hlen + PORTS)
		return 0;
	return tas__net_owner_of(p + at + 12, p + at + 16, p + at + hlen, p + at + hlen + 2);
}

void tas__net_input(struct tas_core *c, struct rte_mbuf *m)
{
	const uint8_t *eth;
	unsigned type;

	if ((c->net->vnet && !tas__vnet_take(m)) || m->data_len < ETH_HLEN || m->nb_segs != 1) {
		drop(c, m, TAS_CTR_rx_malformed);
		return;
	}
	eth = rte_pktmbuf_mtod(m, uint8_t *);
	type = (unsigned)eth[12] << 8 | eth[13];
	if (type == 0x0800 && !memcmp(eth, c->net->mac, 6))
		input_ip(c, m);
	else if (type == 0x0806 && (eth[0] & 1 || !memcmp(eth, c->net->mac, 6)))
		input_arp(c, m);
	else
		drop(c, m, TAS_CTR_rx_not_ours);
}

unsigned tas__net_foresee(struct tas_core *c, const uint8_t head[TAS_HEAD], unsigned len, struct iovec *to)
{
	const uint8_t *eth = head + TAS_VNET_HEADER, *p = eth + ETH_HLEN;
	const struct tas_ip_hdr *ip = (const struct tas_ip_hdr *)p;
	struct tas_rx_meta meta = { .src.family = AF_INET, .dst.family = AF_INET, .tos = ip->tos };
	unsigned n = len - TAS_VNET_HEADER - ETH_HLEN;
	struct tas_ip_info info;

	if (!tas__vnet_vouched(head) || memcmp(eth, c->net->mac, 6) || eth[12] != 8 || eth[13] != 0 ||
	    tas__ip_parse(ip, n, false, &info) != TAS_IP_OK || info.len != n || ip->proto != TAS_IP_TCP ||
	    !tas__routes_own(&tas__routes, ip->dst) || tas__routes_own(&tas__routes, ip->src))
		return 0;
	memcpy(meta.src.ip, &ip->src, 4);
	memcpy(meta.dst.ip, &ip->dst, 4);
	n = tas_core_place(c, p + info.hlen, n - info.hlen, &meta, to + 1);
	if (!n)
		return 0;
	to[0] = (struct iovec){ (void *)(uintptr_t)head, TAS_VNET_HEADER + ETH_HLEN + info.hlen + (p[info.hlen + 12] >> 4) * 4u };
	return n + 1;
}
