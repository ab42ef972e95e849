/* SPDX-License-Identifier: MIT */
/*
 * TCP as a sans-I/O engine: (connection, segment or application event, now) → state, result, segments to send.
 *
 * The engine never includes DPDK, never allocates, never reads a clock or a random number, never touches payload.  Its
 * caller does: it parses and checksums packets, copies payload between packets and stream memory, keeps the timers, and
 * decides memory.  A connection is a plain struct; zero it and open it.
 *
 * Streams are 64-bit offsets from 0 (the first payload byte), apart from 32-bit sequence numbers.
 *
 *   receive   caller asks tcp_rx_want() where the payload of a segment would go; makes sure that there is memory (or drops
 *             the segment); calls tcp_input(); copies [res.rx_off, +res.rx_len) from payload + res.rx_skip; then publishes
 *             res.delivered.  Out-of-order bytes land in place as well.
 *   send      caller tells the end of written bytes with tcp_app_written(); loops tcp_output() until it returns 0; each
 *             call describes one segment (headers, and payload as a stream range that the caller copies).
 *   timers    tcp_deadline() is when tcp_timer() must be called; it may change with every call above.
 *
 * After any call: loop tcp_output() (acknowledgements are coalesced by calling it once per batch of input), re-read
 * tcp_deadline(), look at tcp_result.events, or at tcp_state() after an application call.
 *
 * Times: nanoseconds, monotonic, 64-bit.  Lengths: bytes.  Sequence numbers: host order in these structs.
 * Rules implemented are named at their predicates (RFC 9293, 6298, 7323, 5681, 6582, 6675, 5961, 1122, 6528).
 */
#ifndef TAS_TCP_H
#define TAS_TCP_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum { TCP_F_FIN = 1, TCP_F_SYN = 2, TCP_F_RST = 4, TCP_F_PSH = 8, TCP_F_ACK = 16, TCP_F_URG = 32, TCP_F_ECE = 64, TCP_F_CWR = 128 };

/* State numbers are Linux's (enum tas_sock_state in the ABI has the same). */
enum tcp_state {
	TCP_S_NONE = 0,
	TCP_S_ESTABLISHED = 1,
	TCP_S_SYN_SENT = 2,
	TCP_S_SYN_RECV = 3,
	TCP_S_FIN_WAIT1 = 4,
	TCP_S_FIN_WAIT2 = 5,
	TCP_S_TIME_WAIT = 6,
	TCP_S_CLOSE = 7,
	TCP_S_CLOSE_WAIT = 8,
	TCP_S_LAST_ACK = 9,
	TCP_S_CLOSING = 11,
};

#define TCP_SACK_MAX 4
#define TCP_HDR_MAX 60

/* A TCP header in host order, with the options that we know. */
struct tcp_seg {
	uint32_t seq, ack;
	uint32_t len;     /* payload bytes (not counting SYN and FIN) */
	uint16_t sport, dport;
	uint16_t wnd;     /* as on the wire, unscaled */
	uint16_t urg;
	uint8_t flags;    /* TCP_F_* */
	uint8_t hdr_len;  /* header with options */
	uint8_t tos;      /* of the IP header: in, all of it; out, the two bits of ECN */
	bool has_ts, has_wscale, sack_ok;
	uint8_t wscale;
	uint8_t n_sack;
	uint16_t mss;     /* 0: no option */
	uint32_t tsval, tsecr;
	struct {
		uint32_t left, right;
	} sack[TCP_SACK_MAX];
};

/* Header at p with room for n bytes; total is the length of TCP header and payload.  Checksum is the caller's business.
 * Returns 0, or -1 if the header is malformed (data offset, option lengths). */
int tcp_parse(const uint8_t *p, size_t total, struct tcp_seg *seg);
/* Writes header and options (checksum 0) to p, at most TCP_HDR_MAX bytes; sets and returns seg->hdr_len. */
unsigned tcp_build(uint8_t *p, struct tcp_seg *seg);
/* The RST that answers seg when there is no connection (RFC 9293 §3.10.7.1).  False: none is due (seg was a RST). */
bool tcp_reset_for(const struct tcp_seg *seg, struct tcp_seg *out);
/* Initial sequence number, RFC 6528: siphash of the 4-tuple under key, plus a 4 µs clock. */
uint32_t tcp_isn(const uint8_t key[16], const void *tuple, size_t tuple_len, uint64_t now);
uint64_t tcp_siphash(const uint8_t key[16], const void *data, size_t len); /* SipHash-2-4 */

/* What does not change while a connection lives, chosen by the caller at open.  0 where "default" is said. */
struct tcp_config {
	uint16_t mss;           /* largest segment that the path takes to the peer and from it (MTU - headers) */
	uint32_t rcv_wnd_max;   /* largest receive window that will ever be offered: chooses the window scale */
	bool timestamps, sack;  /* offer them */
	uint32_t ts_offset;     /* not to be guessed: added to our timestamp clock (milliseconds) */
	uint64_t syn_timeout;   /* first SYN or SYN+ACK retransmission; default 1 s, doubling */
	uint8_t syn_retries;    /* default 6; of SYN+ACK 5 */
	uint8_t data_retries;   /* default 15 */
	uint64_t time_wait;     /* default 60 s */
	uint64_t fin_timeout;   /* orphan in FIN_WAIT2; default 60 s */
	uint64_t rto_min;       /* default 200 ms, as Linux */
	uint64_t delack;        /* longest delayed ACK; default 40 ms */
	uint64_t ack_wait;      /* an ACK that Linux would send at once waits so long for something to ride on; default: not */
	uint8_t cc;             /* enum tcp_cc */
	bool no_tail_probe;     /* leave lost tails to the retransmission timer */
	bool ecn;               /* passive: agree to explicit congestion notification if asked */
	uint8_t defer;          /* passive: so many timeouts of the SYN+ACK without data may pass before it is accepted (TCP_DEFER_ACCEPT) */
};

enum tcp_cc { TCP_CC_RENO = 0, TCP_CC_CUBIC = 1 };

enum {                                /* tcp_result.events */
	TCP_EV_CONNECTED = 1u << 0,   /* reached ESTABLISHED (or CLOSE_WAIT at once) */
	TCP_EV_READABLE = 1u << 1,    /* delivered advanced */
	TCP_EV_WRITABLE = 1u << 2,    /* acked advanced */
	TCP_EV_FIN = 1u << 3,         /* peer's FIN accepted: stream ends at delivered */
	TCP_EV_ERROR = 1u << 4,       /* connection is gone; result.error says why (errno) */
	TCP_EV_CLOSED = 1u << 5,      /* nothing left to do: state CLOSE, the caller may forget it */
	TCP_EV_URG = 1u << 6,         /* a new urgent mark */
};

struct tcp_result {
	uint32_t events;
	int error;           /* ECONNREFUSED, ECONNRESET, EPIPE, ETIMEDOUT, EHOSTUNREACH; valid with TCP_EV_ERROR */
	uint32_t rx_skip;    /* leading payload bytes that are old */
	uint32_t rx_len;     /* payload bytes to place */
	uint64_t rx_off;     /* at this stream offset */
	uint64_t delivered;  /* in-order end of the receive stream */
	uint64_t acked;      /* acknowledged end of the send stream */
	bool reset_reply;    /* send tcp_reset_for(seg): segment was unacceptable in a way that asks for RST */
};

struct tcp_conn; /* defined in tcp_conn.h, plain struct without pointers, under 1 KiB, hot part first */

/* Opens. isn: ours. rcv_limit: stream offset up to which the caller will accept bytes (window).
 * Passive: syn is a valid SYN for a listener; connection starts in SYN_RECV. */
void tcp_open_active(struct tcp_conn *c, const struct tcp_config *cfg, uint32_t isn, uint64_t rcv_limit, uint64_t now);
void tcp_open_passive(struct tcp_conn *c, const struct tcp_config *cfg, uint32_t isn, const struct tcp_seg *syn,
		      uint64_t rcv_limit, uint64_t now);

/* Will tcp_input() take seg for no more than a sign of life, because a passive connection waits for data (tcp_config.defer)? */
bool tcp_defers(const struct tcp_conn *c, const struct tcp_seg *seg);

/* Where would the payload of seg go?  len 0: nowhere (not acceptable, or old, or outside the window).  Pure. */
struct tcp_rx_want {
	uint64_t off;  /* stream offset */
	uint32_t skip; /* payload bytes to leave out in front */
	uint32_t len;
};
struct tcp_rx_want tcp_rx_want(const struct tcp_conn *c, const struct tcp_seg *seg);
/* End of the highest byte that lies out of order in stream memory (= delivered when there is none): a new receive extent
 * may not start below this. */
uint64_t tcp_rx_high(const struct tcp_conn *c);
/* Stream offset of the newest urgent byte, as Linux counts it; UINT64_MAX: there never was one. */
uint64_t tcp_rx_urgent(const struct tcp_conn *c);

/* May this SYN take the place of a connection in TIME_WAIT (RFC 6191, as Linux)?  Then forget c and treat the SYN as for the
 * listener, with tcp_time_wait_isn() as initial sequence number: it lies behind everything that c sent. */
bool tcp_time_wait_reusable(const struct tcp_conn *c, const struct tcp_seg *syn);
uint32_t tcp_time_wait_isn(const struct tcp_conn *c);

void tcp_input(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res);
void tcp_timer(struct tcp_conn *c, uint64_t now, struct tcp_result *res);
/* Earliest time at which tcp_timer() wants to be called; UINT64_MAX: none. */
uint64_t tcp_deadline(const struct tcp_conn *c);

/* One segment that is due now.  max_len: payload bytes at most (≥ mss; larger with TSO).  Returns false: nothing due.
 * seg gets everything but ports; payload is stream range [off, off + seg->len). */
bool tcp_output(struct tcp_conn *c, uint64_t now, uint32_t max_len, struct tcp_seg *seg, uint64_t *off);

/* Application side. */
void tcp_app_written(struct tcp_conn *c, uint64_t written);        /* end of the send stream so far; never shrinks */
void tcp_app_window(struct tcp_conn *c, uint64_t rcv_limit);       /* consumed + buffer; never shrinks */
void tcp_app_shutdown(struct tcp_conn *c, uint64_t now);           /* FIN after what is written */
void tcp_app_deaf(struct tcp_conn *c);                             /* shut for reading: data after our FIN is answered by RST */
void tcp_app_close(struct tcp_conn *c, uint64_t now);              /* shutdown, and nobody will read: orphan timeouts; later data is answered by RST */
void tcp_app_abort(struct tcp_conn *c, uint64_t now);              /* RST if one is due (tcp_output gives it), then CLOSE */
void tcp_app_urgent(struct tcp_conn *c, uint64_t off);             /* urgent data ends at this send-stream offset */
void tcp_app_more(struct tcp_conn *c, uint64_t from);              /* less than a segment behind it may wait; UINT64_MAX: no more */
/* It has not looked yet at what came (others have the processor): what waits for it since ack_wait may wait on, ten times in all. */
void tcp_app_slow(struct tcp_conn *c, uint64_t now);
struct tcp_opts {
	bool nodelay, cork, keepalive, quickack;
	uint32_t keep_idle, keep_intvl, keep_cnt; /* seconds, seconds, probes; 0: 7200, 75, 9 */
	uint32_t user_timeout;                    /* milliseconds, 0: none */
	uint32_t linger2;                         /* orphan in FIN_WAIT2: seconds + 1; 0: as configured; UINT32_MAX: not at all */
};
void tcp_app_options(struct tcp_conn *c, const struct tcp_opts *o, uint64_t now);
/* ICMP: soft (unreachable while connecting is hard: RFC 1122 §4.2.3.9 as Linux does it), or a new path MTU. */
void tcp_icmp_error(struct tcp_conn *c, uint32_t seq, int error, bool hard, uint64_t now, struct tcp_result *res);
int tcp_soft_error(const struct tcp_conn *c); /* the last one that did not end the connection, until something is acknowledged */
void tcp_path_mtu(struct tcp_conn *c, uint32_t seq, uint16_t mss, uint64_t now);

/* Read-only views. */
enum tcp_state tcp_state(const struct tcp_conn *c);
uint16_t tcp_mss(const struct tcp_conn *c); /* payload bytes per full segment now */
struct tcp_stats { /* for TCP_INFO and listings */
	uint64_t srtt_ns, rttvar_ns, rto_ns, min_rtt_ns;
	uint32_t cwnd, ssthresh, snd_wnd, rcv_wnd; /* bytes */
	uint32_t retransmits, total_retrans, unacked_bytes;
	uint16_t snd_mss, rcv_mss;
	uint8_t snd_wscale, rcv_wscale;
	bool timestamps, sack, wscale_ok;
	uint64_t segs_in, segs_out, bytes_retrans;
	uint64_t last_data_in, last_data_out, last_ack_in; /* times */
	uint32_t data_segs_in, data_segs_out, notsent_bytes, sacked_segs, lost_segs, rtx_segs, ooo_segs, dsack_dups, delivered_segs;
	uint16_t adv_mss, path_mss; /* what we offered; the most that the path takes, options included */
	bool fin_acked;
	uint8_t backoff, probes, recovery; /* recovery: enum tcp__recovery, open, recovery, loss */
	bool ecn, ecn_seen;
	uint32_t ato_us;
};
void tcp_get_stats(const struct tcp_conn *c, struct tcp_stats *s);
const char *tcp_state_name(enum tcp_state s);

#endif
