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

struct iovec;
struct rte_mbuf;

/* The parts of a round, in their order (--fp-cycles); each has a counter. */
enum tas_stage {
	TAS_ST_receive, TAS_ST_hints, TAS_ST_timers, TAS_ST_output, TAS_ST_wake, TAS_ST_transmit, TAS_ST_control, TAS_ST_N
};

struct tas_core {
	_Alignas(128) unsigned index;
	bool running; /* a thread is at work for it; changed alone only */
	uint64_t now; /* ns, CLOCK_MONOTONIC; the loop refreshes it once per round */
	uint64_t counters[TAS_CTR_N];
	struct tas_stack *stack; /* private to fast/ and slow/ */
	struct tas_net *net;     /* private to the edge */
	uint64_t stage_end, stage[TAS_ST_N]; /* TSC; this round */
	unsigned burst; /* packets that this round received, if its loop calls tas_core_ring() */
	struct {	/* sleepers of epoll sets who are woken when the burst is over (wake.c) */
		uint64_t since;
		uint32_t n, set[8];
	} rings;
};

extern struct tas_core tas_cores[TAS_CORES_MAX];
extern unsigned tas_n_cores; /* at most so many threads; not all of them need to be at work */

/*
 * ---- Several threads (docs/internals.md) ----
 * A round of a core runs beside those of the others, and touches what the core owns.  What belongs to all (tables, allocators,
 * listeners) it touches between tas_shared_in() and tas_shared_out(), which nest.  What belongs to the control work core 0 alone
 * touches, between tas_alone_in() and tas_alone_out(), which nest as well: meanwhile nobody else is inside a round, everything may be
 * read and written as if there were one thread.  Never ask to be alone between tas_shared_in() and tas_shared_out().
 */
extern bool tas_alone; /* no other thread is inside a round; changed by core 0 only, while that is so */
extern _Thread_local struct tas_core *tas_this; /* of this thread */
void tas__shared_lock(void);
void tas__shared_unlock(void);
static inline void tas_shared_in(void)
{
	if (!tas_alone)
		tas__shared_lock();
}
static inline void tas_shared_out(void)
{
	if (!tas_alone)
		tas__shared_unlock();
}
void tas_alone_in(void);
void tas_alone_out(void);
void tas_kick(struct tas_core *c); /* there is something for it: it shall not sleep */
/* Threads at work shall hear when fd becomes readable, which belongs to process slot.  0 or -errno. */
int tas_threads_hear(int fd, uint32_t slot);
void tas_threads_deaf(int fd, unsigned first); /* those from core `first` on */

/* Connections over the link belong to threads by the hash of their addresses. */
enum { TAS_STEER_BUCKETS = 256 };
extern uint8_t tas_steer[TAS_STEER_BUCKETS]; /* changed alone only */
/* A card's hash of connections, modulo a power of two; NULL: one of our own. */
extern uint32_t (*tas_steer_hash)(uint32_t local, uint32_t peer, uint16_t local_port, uint16_t peer_port);
static inline unsigned tas_steer_bucket(uint32_t local, uint32_t peer, uint16_t local_port, uint16_t peer_port)
{
	uint32_t h;

	if (tas_steer_hash)
		return tas_steer_hash(local, peer, local_port, peer_port) % TAS_STEER_BUCKETS;
	h = local * 0x9e3779b1u ^ peer * 0x85ebca6bu ^ ((uint32_t)local_port << 16 | peer_port) * 0xc2b2ae35u;
	h ^= h >> 15;
	h *= 0x2c1b3c6du;
	return h >> 24;
}

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
 * TCP header, pkt_len is header + payload.  True: takes ownership of m.  False (never without tas_last_aside()): it would take the last
 * place of an accept queue, and is still the caller's. */
struct tas_rx_meta {
	struct tas_addr src, dst; /* ports unset */
	uint8_t tos;
};
bool tas_core_tcp(struct tas_core *c, struct rte_mbuf *m, const struct tas_rx_meta *meta);
/* The same for a segment of which the port has shown the header so far, checksum vouched for: where its payload belongs, in how many
 * pieces; 0: it has no place.  Then either tas_core_placed(), when it is there, or nothing. */
enum { TAS_PLACE_PIECES = 4 };
unsigned tas_core_place(struct tas_core *c, const uint8_t *tcp, unsigned len, const struct tas_rx_meta *meta, struct iovec *to);
void tas_core_placed(struct tas_core *c);
/* ICMP error about a segment that we sent: first 8 bytes of its TCP header at tcp8.  error: errno; mtu: 0 or next-hop MTU. */
void tas_core_icmp_error(struct tas_core *c, const struct tas_addr *src, const struct tas_addr *dst, const uint8_t *tcp8,
			 int error, bool hard, unsigned mtu);
/* One round: hints of polled applications, timers that are due, output.  Returns how much was done (0: idle). */
unsigned tas_core_poll(struct tas_core *c);
/* Once in each round, after tas_core_poll(), by a loop that says how large the burst was: wakes who was not woken in the middle of it. */
void tas_core_ring(struct tas_core *c);
/* Process slot has rung: its hints for c. */
unsigned tas_core_rang(struct tas_core *c, uint32_t slot);
/* Something was said to c, nobody knows by whom: all processes. */
unsigned tas_core_listen(struct tas_core *c);
void tas_core_recruit(struct tas_core *c); /* alone: its thread hears all doorbells from now on */
void tas_core_dismiss(struct tas_core *c); /* alone: no more */
/* Alone, after tas_core_resteer(): nobody works for c from now on; what was said to it goes to the owners. */
void tas_core_retire(struct tas_core *c);
/* Alone: c has work that was given to it by others since it slept until `until`. */
bool tas_core_has_work(const struct tas_core *c, uint64_t until);
void tas_core_wakes(struct tas_core *c); /* alone: tells applications what they are to be told */
/* Alone: connections over the link go where tas_steer says by now. */
void tas_core_resteer(struct tas_core *c);
unsigned tas_core_flows(const struct tas_core *c);
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
/* Who takes the last place of an accept queue is decided later: others may have come first (service/late.c). */
bool tas_last_aside(void);
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
	bool calm; /* fn touches only what core 0 owns: other threads go on meanwhile */
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
