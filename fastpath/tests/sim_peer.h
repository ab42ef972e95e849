/* SPDX-License-Identifier: MIT */
/*
 * A scripted peer for unit tests: one engine, segments given by hand, what it sends collected.
 *
 * Numbers are relative: our first byte is at sequence number PEER_OUR, the peer's first at PEER_THEIR, and tests speak of
 * positions from there (the SYNs are at -1).  Every call runs the output loop.
 */
#ifndef TAS_SIM_PEER_H
#define TAS_SIM_PEER_H

#include "tcp/tcp_conn.h"

#define PEER_OUR 0xfffffff0u /* wraps early in every test */
#define PEER_THEIR 0x7ffffff0u

struct peer {
	struct tcp_conn c;
	struct tcp_config cfg;
	uint64_t now;
	struct tcp_result res; /* of the last input or timer; events collect until peer_clear() */
	uint32_t events;
	int error;
	struct tcp_seg out[512]; /* what the last call sent, sequence numbers relative */
	uint64_t off[512];
	unsigned n;
	uint32_t max_len; /* 0: one segment */
	/* the peer's side of the next segments */
	uint16_t wnd;
	bool ts;
	uint32_t tsval;
	uint32_t syn_mss;
	bool syn_sack, syn_wscale;
	uint8_t wscale;
};

/* Peer with all options (full) or none; 1460-byte segments, 64 KiB of receive buffer. */
void peer_init(struct peer *p, bool full);
void peer_connect(struct peer *p); /* active open: SYN is out */
void peer_listen(struct peer *p);  /* the peer's SYN came: SYN+ACK is out */
void peer_established(struct peer *p);      /* peer_connect and the peer's SYN+ACK */
void peer_established_plain(struct peer *p); /* the same with a peer that knows no option */

/* A segment from the peer. */
void peer_in(struct peer *p, uint8_t flags, int64_t seq, int64_t ack, uint32_t len);
void peer_in_sack(struct peer *p, int64_t seq, int64_t ack, unsigned n, const int64_t *edges); /* pure ACK with 2n edges */
void peer_seg(struct peer *p, const struct tcp_seg *seg);                        /* absolute numbers */
struct tcp_seg peer_make(const struct peer *p, uint8_t flags, int64_t seq, int64_t ack, uint32_t len);
/* Time passes; timers run at their deadlines; everything sent is collected. */
void peer_wait(struct peer *p, uint64_t ms);
/* Only until the next deadline, plus nothing.  Returns the milliseconds that passed (rounded down). */
uint64_t peer_next(struct peer *p);
void peer_write(struct peer *p, uint64_t more); /* the application writes */
void peer_flush(struct peer *p);                /* run output after a direct call of the engine */

/* cmocka assertions with readable failures. */
void peer_expect(struct peer *p, unsigned i, uint8_t flags, int64_t seq, int64_t ack, uint32_t len);
void peer_expect_n(struct peer *p, unsigned n);

#endif
