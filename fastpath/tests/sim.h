/* SPDX-License-Identifier: MIT */
/*
 * Simulator: two engines joined by a virtual link, in virtual time, from one seed.
 *
 * Packets go over the wire format.  Each knows at which 64-bit stream offset its payload really lies, so that every
 * placement that the engine decides can be checked; payload is a pattern that depends on direction and offset, it is
 * written to a ring where the engine says and compared when the application reads it.  In virtual mode no payload is
 * carried and only placements are checked, so that streams beyond 4 GiB take seconds.
 *
 * After every step the invariants of sim_check() hold, or sim.failure says what broke.
 */
#ifndef TAS_SIM_H
#define TAS_SIM_H

#include "tcp/tcp_conn.h"

enum { SIM_MS = 1000000, SIM_SEC = 1000000000 };

enum sim_close {
	SIM_SHUTDOWN, /* shutdown when all is written, close at the peer's FIN */
	SIM_CLOSE,    /* close as soon as all is written and all that is expected is read */
	SIM_ABORT,    /* abort after abort_after bytes were read or written */
};

struct sim_side {
	struct tcp_config tcp;
	struct tcp_opts opts;
	uint32_t isn;
	uint64_t bytes;  /* to write */
	uint32_t sndbuf, rcvbuf;
	uint32_t write_max, read_max; /* bytes per application turn; the turn's length is random below */
	uint64_t turn_max;            /* ns between application turns at most */
	uint32_t max_len;             /* segmentation offload; 0: one segment */
	enum sim_close how;
	uint64_t abort_after;
	bool no_wscale; /* the link removes options from this side's SYN */
};

struct sim_cfg {
	uint64_t seed;
	struct sim_side side[2]; /* 0 opens actively */
	bool simultaneous;       /* 1 as well */
	bool virtual_payload;
	/* link */
	uint32_t loss_ppm, dup_ppm, reorder_ppm, nomem_ppm;
	uint64_t delay, jitter, reorder_delay, ns_per_byte, queue_ns;
	bool trace;            /* every packet to stderr */
	uint64_t shrink_at;    /* when both ends learn of a smaller path; 0: never */
	bool strip_options;  /* all options but MSS vanish from SYNs */
	uint64_t time_limit; /* virtual ns */
	/* Sees every packet before the link does; true: drop it. */
	bool (*filter)(void *arg, int from, const struct tcp_seg *seg, uint64_t off, uint64_t now);
	void *filter_arg;
};

struct sim_end {
	struct tcp_conn c;
	bool open;            /* c is valid */
	bool eof, error, closed, app_closed, reset_sent;
	int error_no;
	uint64_t written, consumed, delivered, acked;
	uint64_t edge;        /* highest right edge that this end ever offered */
	uint64_t turn_at;
	uint8_t *ring; /* ring_mask + 1 bytes */
	uint64_t ring_mask;
	uint64_t sent_segs, sent_bytes;
	uint64_t eof_at;      /* when the peer's FIN came */
};

struct sim_pkt;
struct sim {
	struct sim_cfg cfg;
	struct sim_end end[2];
	uint64_t now, rng, order;
	uint64_t line_free[2]; /* when the line of each direction is free */
	struct sim_pkt **heap;
	unsigned n_heap, cap_heap;
	uint64_t steps, dropped;
	char failure[256]; /* empty: fine */
};

void sim_cfg_default(struct sim_cfg *cfg, uint64_t seed);
/* A mix of link, buffers, options and application behaviour, all from the seed. */
void sim_cfg_random(struct sim_cfg *cfg, uint64_t seed);
void sim_init(struct sim *s, const struct sim_cfg *cfg);
/* Runs until both ends are closed; false: see failure. */
bool sim_run(struct sim *s);
/* One event.  False: nothing left to happen, or failure. */
bool sim_step(struct sim *s);
void sim_free(struct sim *s);
/* Invariants of one engine; returns NULL or what is wrong. */
const char *sim_check(const struct tcp_conn *c);
uint64_t sim_random(struct sim *s, uint64_t below);

#endif
