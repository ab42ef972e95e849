/* SPDX-License-Identifier: MIT */
/*
 * The border between the stack (fast/ and slow/: connections, applications, control) and the edge (service/: DPDK, the
 * kernel, the main loop).  Everything is indexed by fast-path core; a connection, its timers and its memory belong to one.
 * All functions are called by the thread of that core.  The control work is folded into the loop of core 0.
 */
#ifndef TAS_CORE_H
#define TAS_CORE_H

#include <stdbool.h>
#include <stdint.h>

#include "abi/tas_abi.h"
#include "fast/config.h"
#include "fast/counters.h"

struct rte_mbuf;

/* The parts of a round, in their order (--fp-cycles); each has a counter. */
enum tas_stage {
	TAS_ST_receive, TAS_ST_hints, TAS_ST_timers, TAS_ST_output, TAS_ST_wake, TAS_ST_transmit, TAS_ST_control, TAS_ST_N
};

struct tas_core {
	_Alignas(128) unsigned index;
	uint64_t now; /* ns, CLOCK_MONOTONIC; the loop refreshes it once per round */
	uint64_t counters[TAS_CTR_N];
	struct tas_stack *stack; /* private to fast/ and slow/ */
	struct tas_net *net;     /* private to the edge */
	uint64_t stage_end, stage[TAS_ST_N]; /* TSC; this round */
};

extern struct tas_core tas_cores[TAS_CORES_MAX];
extern unsigned tas_n_cores;

static inline void tas_count(struct tas_core *c, enum tas_counter n, uint64_t by)
{
	c->counters[n] += by;
}

/* A part of the round is over: --fp-cycles counts what it took. */
static inline void tas__stage(struct tas_core *c, enum tas_stage s)
{
	uint64_t t;

	if (__builtin_expect(!tas_config.fp_cycles, 1))
		return;
	t = __builtin_ia32_rdtsc();
	c->stage[s] += t - c->stage_end;
	c->stage_end = t;
}

/* ---- Implemented by the stack, called by the edge ---- */
/* A TCP segment for one of our addresses: IP header checked and stripped, TCP checksum verified; m's data starts at the
 * TCP header, pkt_len is header + payload.  Takes ownership of m. */
struct tas_rx_meta {
	struct tas_addr src, dst; /* ports unset */
	uint8_t tos;
};
void tas_core_tcp(struct tas_core *c, struct rte_mbuf *m, const struct tas_rx_meta *meta);
/* ICMP error about a segment that we sent: first 8 bytes of its TCP header at tcp8.  error: errno; mtu: 0 or next-hop MTU. */
void tas_core_icmp_error(struct tas_core *c, const struct tas_addr *src, const struct tas_addr *dst, const uint8_t *tcp8,
			 int error, bool hard, unsigned mtu);
/* One round: hints of polled applications, timers that are due, output.  Returns how much was done (0: idle). */
unsigned tas_core_poll(struct tas_core *c);
/* When the next timer is due, ns; UINT64_MAX: none. */
uint64_t tas_core_deadline(const struct tas_core *c);
/* Ask every application to ring its doorbell.  False: something came meanwhile, do not sleep. */
bool tas_core_sleep_begin(struct tas_core *c);
void tas_core_sleep_end(struct tas_core *c);
/* Set-up and end.  0 or -errno, the reason printed.  tas_stack_init opens the control socket last. */
int tas_stack_init(void);
void tas_stack_exit(void); /* applications see the service gone; socket path and memory are removed */

/* ---- Implemented by the edge, called by the stack ---- */
enum tas_route_kind {
	TAS_ROUTE_NONE,    /* the kernel's business */
	TAS_ROUTE_OWN,     /* one of our link addresses */
	TAS_ROUTE_LINK,    /* reachable over the link */
};
struct tas_route {
	enum tas_route_kind kind;
	struct tas_addr src;     /* our address towards dst */
	uint16_t mtu;            /* of the IP packet */
};
void tas_net_route(const struct tas_addr *dst, struct tas_route *r);
/* An mbuf with room for Ethernet, IP and TCP headers in front; NULL: none left. */
struct rte_mbuf *tas_net_alloc(struct tas_core *c);
/* Sends a TCP segment: m's data is TCP header (ports filled, checksum 0) and payload.  Adds IP and Ethernet, checksums in
 * hardware or software, ARP (a few packets wait for it).  ip: TAS_PKT_*.  Takes ownership.  Buffered until the end of the
 * round. */
void tas_net_send_tcp(struct tas_core *c, struct rte_mbuf *m, const struct tas_addr *src, const struct tas_addr *dst,
		      uint32_t ip);
/* The port takes no more packets now: what is sent nevertheless may be dropped.  Not for long: a port that is stuck is not full. */
bool tas_net_full(struct tas_core *c);
/* May a segment of len bytes refer to the stream's memory?  The port is then done with it when tas_net_send_tcp() returns. */
bool tas_net_lends(uint32_t len);
/* Largest TCP payload that one tas_net_send_tcp() may carry: 0: one MSS; larger where the port segments (TSO). */
uint32_t tas_net_tso_max(void);

/* Descriptors in the loop of core 0.  fn runs in the loop's thread when fd is ready; p stays the caller's.  After
 * tas_loop_del(p) fn is not called for p again, not even for an event of the same round: the caller may free p. */
struct tas_pollable {
	int fd;
	void (*fn)(struct tas_pollable *p, uint32_t epoll_events);
};
int tas_loop_add(struct tas_pollable *p, uint32_t epoll_events);
int tas_loop_mod(struct tas_pollable *p, uint32_t epoll_events);
void tas_loop_del(struct tas_pollable *p);
/* End the loop soon (SIGTERM, TAS_MSG_SHUTDOWN). */
void tas_loop_stop(void);

/* Messages for the operator on stderr: "tas: ...".  Info is silent with --quiet. */
void tas_info(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void tas_warn(const char *fmt, ...) __attribute__((format(printf, 1, 2)));

#endif
