/* SPDX-License-Identifier: MIT */
/*
 * Neighbours on the link (RFC 826, RFC 5227 in part).  Free of DPDK: packets that wait are opaque pointers, and what must be
 * sent goes through functions of the owner.
 *
 * An entry is INCOMPLETE while nobody has answered: requests go out after --arp-timeout, doubling to --arp-timeout-max, then
 * it is forgotten.  Packets wait with it for at most 3 s (Linux gives up then), a few per neighbour and 256 in all.  An
 * answer makes it REACHABLE.  After a minute the next use asks again, by unicast, while the old address stays in use
 * (PROBING); without an answer the entry is forgotten, so that the next packet asks everybody.  Nothing happens, and no
 * timer runs, for neighbours that nobody talks to.  The table has 1,024 entries; the least recently used one makes room.
 */
#ifndef TAS_ARP_H
#define TAS_ARP_H

#include <stdbool.h>
#include <stdint.h>

enum { TAS_ARP_LEN = 28, TAS_ARP_ENTRIES = 1024, TAS_ARP_PENDING = 8, TAS_ARP_PENDING_ALL = 256 };

struct tas_arp;

struct tas_arp_ops {
	/* Send a request for ip, with src as sender; mac NULL: to everybody. */
	void (*request)(void *ctx, uint32_t src, uint32_t ip, const uint8_t *mac);
	/* A packet that waited can go. */
	void (*send)(void *ctx, void *pkt, const uint8_t mac[6]);
	/* A packet that waited is given up.  unreachable: nobody answered (else: too many wait). */
	void (*drop)(void *ctx, void *pkt, bool unreachable);
};

struct tas_arp *tas__arp_new(uint64_t timeout, uint64_t timeout_max, const struct tas_arp_ops *ops, void *ctx);
void tas__arp_free(struct tas_arp *a); /* drops what waits */

/* The neighbour's address, or NULL: not known; then give the packet to tas__arp_wait(), which takes ownership. */
const uint8_t *tas__arp_lookup(struct tas_arp *a, uint32_t ip, uint32_t src, uint64_t now);
void tas__arp_wait(struct tas_arp *a, uint32_t ip, uint32_t src, void *pkt, uint64_t now);
/* Somebody says that ip is at mac.  create: also when we did not ask (it talks to us). */
void tas__arp_learn(struct tas_arp *a, uint32_t ip, const uint8_t mac[6], bool create, uint64_t now);

void tas__arp_timer(struct tas_arp *a, uint64_t now);
uint64_t tas__arp_deadline(const struct tas_arp *a); /* UINT64_MAX: none */
unsigned tas__arp_count(const struct tas_arp *a);

/* ---- the packet ---- */
enum { TAS_ARP_REQUEST = 1, TAS_ARP_REPLY = 2 };
struct tas_arp_pkt {
	uint16_t op; /* host order */
	uint8_t sha[6], tha[6];
	uint32_t spa, tpa; /* network order */
};
/* 0 or -EINVAL: not Ethernet/IPv4, short, or a sender that is no single station. */
int tas__arp_parse(const uint8_t *p, unsigned n, struct tas_arp_pkt *out);
void tas__arp_build(uint8_t p[TAS_ARP_LEN], const struct tas_arp_pkt *in);

#endif
