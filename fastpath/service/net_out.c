/* SPDX-License-Identifier: MIT */
/* Out to the link: routes, headers, checksums, neighbours. */
#include <arpa/inet.h>
#include <errno.h>
#include <rte_ethdev.h>
#include <rte_mbuf.h>
#include <string.h>

#include "fast/checksum.h"
#include "fast/ip.h"
#include "service/edge.h"

enum { ETH_HLEN = 14, TCP_CHECKSUM = 16 };
enum { LEND_MIN = 4096 }; /* below, another buffer costs as much as the copy */

static const uint64_t near_ns = 50000000;

struct tas_routes tas__routes;

static uint32_t ip_of(const struct tas_addr *a)
{
	uint32_t v;

	memcpy(&v, a->ip, 4);
	return v;
}

void tas_net_route(const struct tas_addr *dst, struct tas_route *r)
{
	struct tas_next n;

	memset(r, 0, sizeof(*r));
	if (dst->family != AF_INET)
		return;
	n = tas__routes_find(&tas__routes, ip_of(dst));
	r->kind = n.kind;
	r->mtu = n.kind == TAS_ROUTE_LINK ? tas_cores[0].net->mtu : UINT16_MAX;
	if (n.kind == TAS_ROUTE_NONE)
		return;
	r->src.family = AF_INET;
	memcpy(r->src.ip, &n.src, 4);
}

struct rte_mbuf *tas_net_alloc(struct tas_core *c)
{
	return c->net->pool ? rte_pktmbuf_alloc(c->net->pool) : NULL;
}

uint32_t tas_net_tso_max(void)
{
	return tas_cores[0].net->tso_max;
}

bool tas_net_lends(uint32_t len)
{
	return len >= LEND_MIN && tas_cores[0].net->lends;
}

static void give_up(struct tas_core *c, struct rte_mbuf *m)
{
	tas_count(c, TAS_CTR_tx_dropped, 1);
	rte_pktmbuf_free(m);
}

static void send_ether(struct tas_core *c, struct rte_mbuf *m, uint16_t type, const uint8_t dst[6])
{
	uint8_t *h = (uint8_t *)rte_pktmbuf_prepend(m, ETH_HLEN);

	if (!h) { /* cannot be: tas_net_alloc() leaves room, and what we answer came with these headers */
		give_up(c, m);
		return;
	}
	memcpy(h, dst, 6);
	memcpy(h + 6, c->net->mac, 6);
	h[12] = (uint8_t)(type >> 8);
	h[13] = (uint8_t)type;
	if (c->net->vnet && !tas__vnet_give(m)) {
		give_up(c, m);
		return;
	}
	tas__net_queue(c, m);
}

/* The table is everybody's; what it said is good for a moment. */
static bool find_near(struct tas_core *c, const struct tas_next *next, uint8_t mac[6])
{
	struct tas_near *k = &c->net->near[__builtin_bswap32(next->nexthop) % TAS_NEAR];
	const uint8_t *found;

	if (k->ip == next->nexthop && c->now < k->until) {
		memcpy(mac, k->mac, 6);
		return true;
	}
	tas_shared_in();
	found = tas__arp_lookup(c->net->arp, next->nexthop, next->src, c->now);
	if (found)
		memcpy(mac, found, 6);
	tas_shared_out();
	if (!found)
		return false;
	k->ip = next->nexthop;
	k->until = c->now + near_ns;
	memcpy(k->mac, mac, 6);
	return true;
}

static void wait_for_neighbour(struct tas_core *c, struct rte_mbuf *m, const struct tas_next *next)
{
	tas_shared_in();
	tas__arp_wait(c->net->arp, next->nexthop, next->src, m, c->now);
	tas_shared_out();
	if (!tas_alone)
		tas_kick(&tas_cores[0]); /* it has the timers */
}

static void to_neighbour(struct tas_core *c, struct rte_mbuf *m, const struct tas_next *next)
{
	const uint8_t *mac;
	uint8_t own[6];

	if (__builtin_expect(tas_alone, 1))
		mac = tas__arp_lookup(c->net->arp, next->nexthop, next->src, c->now);
	else
		mac = find_near(c, next, own) ? own : NULL;
	if (mac) {
		send_ether(c, m, 0x0800, mac);
		return;
	}
	if (m->nb_segs > 1) { /* may be lent, and has to wait */
		struct rte_mbuf *copy = rte_pktmbuf_copy(m, c->net->pool, 0, UINT32_MAX);

		rte_pktmbuf_free(m);
		m = copy;
	}
	if (m)
		wait_for_neighbour(c, m, next);
}

void tas__net_send_ip(struct tas_core *c, struct rte_mbuf *m, uint32_t dst)
{
	struct tas_next next = tas__routes_find(&tas__routes, dst);

	if (next.kind == TAS_ROUTE_LINK)
		to_neighbour(c, m, &next);
	else
		give_up(c, m);
}

/* Over a chain, whose pieces may be odd: what begins at an odd byte counts with its bytes swapped (RFC 1071 §2 (B)). */
static uint16_t sum_chain(const struct rte_mbuf *m, uint64_t sum)
{
	bool odd = false;

	for (; m; m = m->next) {
		uint16_t part = tas__sum_fold(tas__sum(rte_pktmbuf_mtod(m, const uint8_t *), m->data_len, 0));

		sum += odd ? __builtin_bswap16(part) : part;
		odd ^= m->data_len & 1;
	}
	return (uint16_t)~tas__sum_fold(sum);
}

/* The port wants the pseudo header's sum, folded and not inverted, in the field: DPDK's without the length where it cuts, the
 * kernel's always with it. */
static void tcp_checksum(struct tas_net *n, struct rte_mbuf *m, uint32_t src, uint32_t dst)
{
	uint8_t *tcp = rte_pktmbuf_mtod(m, uint8_t *);
	uint64_t pseudo = tas__sum_pseudo4(src, dst, TAS_IP_TCP, m->tso_segsz && !n->vnet ? 0 : m->pkt_len);
	uint16_t sum;

	if (n->hw_tx_checksum) {
		sum = tas__sum_fold(pseudo);
		m->l2_len = ETH_HLEN;
		m->l3_len = TAS_IP_HLEN;
		m->l4_len = (tcp[12] >> 4) * 4u;
		m->ol_flags |= RTE_MBUF_F_TX_IPV4 | RTE_MBUF_F_TX_IP_CKSUM | RTE_MBUF_F_TX_TCP_CKSUM;
		if (m->tso_segsz)
			m->ol_flags |= RTE_MBUF_F_TX_TCP_SEG;
	} else if (n->no_checksums) {
		sum = tas__sum_fold(pseudo); /* what Linux leaves there: an end that wants more can tell (tell_partial()) */
	} else {
		sum = m->nb_segs > 1 ? sum_chain(m, pseudo) : tas__checksum(tcp, m->data_len, pseudo);
	}
	memcpy(tcp + TCP_CHECKSUM, &sum, 2);
}

void tas_net_send_tcp(struct tas_core *c, struct rte_mbuf *m, const struct tas_addr *src, const struct tas_addr *dst,
		      uint32_t options)
{
	uint32_t s = ip_of(src), d = ip_of(dst);
	struct tas_next next = tas__routes_find(&tas__routes, d);
	unsigned len = m->pkt_len;
	struct tas_ip_hdr *ip;

	if (next.kind != TAS_ROUTE_LINK || (len + TAS_IP_HLEN > c->net->mtu && !m->tso_segsz)) {
		give_up(c, m);
		return;
	}
	tcp_checksum(c->net, m, s, d);
	ip = (struct tas_ip_hdr *)rte_pktmbuf_prepend(m, TAS_IP_HLEN);
	if (!ip) {
		give_up(c, m);
		return;
	}
	/* Atomic datagrams need no identification (RFC 6864). */
	tas__ip_build(ip, s, d, TAS_IP_TCP, len, 0, true, false);
	if (options)
		tas__ip_options(ip, options, c->net->ip_id++);
	if (c->net->vnet || !c->net->hw_tx_checksum)
		tas__ip_seal(ip);
	to_neighbour(c, m, &next);
}

/* ---- neighbours ---- */
void tas__net_send_arp(struct tas_core *c, const struct tas_arp_pkt *p, const uint8_t dst[6])
{
	struct rte_mbuf *m = tas_net_alloc(c);

	if (!m)
		return;
	tas__arp_build((uint8_t *)rte_pktmbuf_append(m, TAS_ARP_LEN), p);
	send_ether(c, m, 0x0806, dst);
}

static const uint8_t everybody[6] = { 255, 255, 255, 255, 255, 255 };

static void arp_request(void *ctx, uint32_t src, uint32_t ip, const uint8_t *mac)
{
	struct tas_core *c = tas_this; /* whoever asks, sends */
	struct tas_arp_pkt p = { .op = TAS_ARP_REQUEST, .spa = src, .tpa = ip };

	memcpy(p.sha, c->net->mac, 6);
	(void)ctx;
	tas_count(c, TAS_CTR_arp_requests_out, 1);
	tas__net_send_arp(c, &p, mac ? mac : everybody);
}

static void arp_send(void *ctx, void *pkt, const uint8_t mac[6])
{
	(void)ctx;
	send_ether(tas_this, pkt, 0x0800, mac);
}

static struct tas_core *whose(const struct tas_ip_hdr *ip)
{
	uint16_t port[2];

	memcpy(port, (const uint8_t *)ip + TAS_IP_HLEN, sizeof port);
	return &tas_cores[tas_steer[tas_steer_bucket(ip->src, ip->dst, port[0], port[1])]];
}

/* Nobody answered: a connection hears of it as it would on Linux. */
static void arp_drop(void *ctx, void *pkt, bool unreachable)
{
	struct rte_mbuf *m = pkt;
	const struct tas_ip_hdr *ip = rte_pktmbuf_mtod(m, struct tas_ip_hdr *);
	struct tas_addr src = { .family = AF_INET }, dst = { .family = AF_INET };

	(void)ctx;
	tas_count(tas_this, TAS_CTR_arp_failed, 1);
	if (unreachable && ip->proto == TAS_IP_TCP) {
		memcpy(src.ip, &ip->src, 4);
		memcpy(dst.ip, &ip->dst, 4);
		tas_core_icmp_error(whose(ip), &src, &dst, (const uint8_t *)ip + TAS_IP_HLEN, EHOSTUNREACH, false, 0);
	}
	rte_pktmbuf_free(m);
}

const struct tas_arp_ops tas__net_arp_ops = { arp_request, arp_send, arp_drop };

void tas__net_announce(struct tas_core *c)
{
	unsigned i;

	for (i = 0; i < tas__routes.n_own; i++)
		arp_request(c, tas__routes.own[i], tas__routes.own[i], NULL);
}
