/* SPDX-License-Identifier: MIT */
/*
 * struct tcp_conn, and what the engine's files share.
 *
 * Positions.  Both streams are counted in 64 bits: 0 is the first payload byte, the SYN is at -1, and a FIN takes the position
 * behind the last byte.  The sequence number of position p is (initial sequence number + 1) + the lower half of p, so nothing
 * here ever wraps; only numbers from the wire are widened (seq_widen).
 *
 *   receive   ... delivered ... | rcv_nxt ... [ooo ranges] ... | rcv_adv: right edge of the window that the peer knows
 *   send      ... acknowledged ... | snd_una ... [sacked ranges] ... | snd_nxt ... | written        snd_wnd_end: right edge
 *
 * snd_nxt is always the highest position ever sent.  Retransmission has its own pointers (recover.c): what lies unsacked in
 * [rtx_next, lost_end) is believed lost and still to be repaired.
 *
 * The first two cache lines hold what an in-order segment and its acknowledgement touch.
 */
#ifndef TAS_TCP_CONN_H
#define TAS_TCP_CONN_H

#include "tcp/ranges.h"
#include "tcp/seq.h"
#include "tcp/tcp.h"

enum {
	TCP__OOO_MAX = 32,  /* out-of-order ranges at the receiver */
	TCP__SACKED_MAX = 16, /* ranges on the sender's scoreboard */
	TCP__DUP_THRESH = 3, /* RFC 5681 §3.2, RFC 6675 §2 */
	TCP__QUICK_ACKS = 16, /* Linux: the first acknowledgements are not delayed */
};

#define TCP__NEVER UINT64_MAX
#define TCP__MS 1000000ull
#define TCP__SEC 1000000000ull
#define TCP__RTO_MAX (120 * TCP__SEC) /* Linux: TCP_RTO_MAX */

/* tcp_conn.flags */
enum {
	TCP__TS = 1u << 0,     /* timestamps negotiated */
	TCP__WSCALE = 1u << 1, /* window scaling negotiated */
	TCP__SACK = 1u << 2,   /* SACK negotiated */
	TCP__PASSIVE = 1u << 3,
	TCP__ORPHAN = 1u << 4, /* tcp_app_close(): nobody reads */
	TCP__NODELAY = 1u << 5,
	TCP__CORK = 1u << 6,
	TCP__KEEPALIVE = 1u << 7,
	TCP__QUICKACK = 1u << 8,
	TCP__FIN_QUEUED = 1u << 9, /* a FIN follows `written` */
	TCP__FIN_RCVD = 1u << 10,  /* rcv_nxt is behind the peer's FIN */
	TCP__FIN_SEEN = 1u << 11,  /* the peer's FIN will be at rcv_fin */
	TCP__URG_SND = 1u << 12,
	TCP__URG_RCV = 1u << 13,
	TCP__RTT_TIMING = 1u << 14, /* the round trip of rtt_end is being measured */
	TCP__SYN_RTX = 1u << 15,    /* our SYN was sent more than once */
	TCP__PINGPONG = 1u << 16,   /* Linux: interactive, acknowledgements ride on data */
	TCP__DSACK = 1u << 17,      /* dsack_* is to be reported */
	TCP__HAD_RTO = 1u << 18,    /* recover was set by a timeout */
	TCP__ACK_NOW = 1u << 19,
	/* Things that tcp_output() does before new data. */
	TCP__RST_DUE = 1u << 20,
	TCP__SYN_DUE = 1u << 21,
	TCP__HEAD_DUE = 1u << 22,  /* retransmit what is at snd_una, whatever the congestion window says */
	TCP__PROBE_DUE = 1u << 23, /* zero-window or keep-alive probe */
	TCP__PUSH = 1u << 24,      /* override of SWS avoidance, Nagle and cork: send what fits once */
	TCP__TAIL_DUE = 1u << 25,  /* send a tail loss probe */
	TCP__TAIL = 1u << 26,      /* a tail loss probe is in flight: tail_end */
	TCP__TAIL_RTX = 1u << 27,  /* it was a retransmission */
	TCP__NO_TAIL = 1u << 28,   /* configured */
	TCP__DEAF = 1u << 30,      /* tcp_app_deaf(): shut for reading */
	TCP__HOLE = 1u << 29,      /* what is at snd_una was found lost by time and sent again */
	TCP__MORE = 1u << 31,      /* tcp_app_more(): no segment has come from the peer since */
	TCP__RARE_OUTPUT = TCP__RST_DUE | TCP__SYN_DUE | TCP__HEAD_DUE | TCP__PROBE_DUE | TCP__TAIL_DUE,
};

enum tcp__timer { TCP__T_NONE, TCP__T_RTO, TCP__T_PTO, TCP__T_PERSIST, TCP__T_FIN_WAIT2, TCP__T_TIME_WAIT };
/* tcp_conn.ecn */
enum {
	TCP__ECN_OK = 1,   /* agreed to */
	TCP__ECN_ECHO = 2, /* a mark came: tell it until the peer has slowed down */
	TCP__ECN_CWR = 4,  /* we slowed down: say so with the next new data */
	TCP__ECN_SEEN = 8, /* the peer's packets say that they may be marked */
};
enum tcp__recovery { TCP__OPEN, TCP__RECOVERY, TCP__LOSS };

struct tcp_conn {
	uint64_t rcv_nxt;     /* next position expected */
	uint64_t rcv_adv;     /* right edge ever advertised */
	uint64_t snd_una;     /* first position not acknowledged */
	uint64_t snd_nxt;     /* next position to send for the first time */
	uint64_t snd_wnd_end; /* right edge of the peer's window */
	uint64_t written;     /* end of the application's bytes */
	uint32_t rcv_seq0;    /* sequence number of receive position 0 */
	uint32_t snd_seq0;    /* sequence number of send position 0 */
	uint32_t flags;
	uint16_t mss;         /* payload of a full segment: options subtracted */
	uint8_t state;        /* enum tcp_state */
	uint8_t snd_wscale;
	/* second line */
	uint64_t rcv_acked; /* rcv_nxt of the last acknowledgement sent: RFC 7323's Last.ACK.sent */
	uint64_t rcv_limit; /* the caller accepts bytes up to here */
	uint64_t rtx_at;    /* deadline of `timer` */
	uint64_t delack_at;
	uint64_t last_rcv; /* when the last acceptable segment came */
	uint32_t ts_recent;
	uint32_t snd_wl1; /* sequence number of the segment of the last window update */
	uint32_t cwnd, ssthresh;
	uint16_t rcv_mss;  /* largest segment seen: estimate of the peer's segment size */
	uint8_t rcv_wscale;
	uint8_t timer;     /* enum tcp__timer */
	uint8_t n_ooo, n_sacked, recovery, dupacks; /* all 0: nothing lost in either direction */

	/* Round trip: srtt in 1/8 µs, rttvar in 1/4 µs (RFC 6298's factors become shifts), rto and minimum in µs. */
	uint64_t rtt_end, rtt_at;
	uint32_t srtt8, rttvar4, rto, min_rtt;
	/* Loss recovery */
	uint64_t recover;  /* RFC 6582, 6675: snd_nxt when recovery began */
	uint64_t rtx_next; /* HighRxt + 1 */
	uint64_t lost_end; /* holes below this are lost */
	uint64_t rtx_mark; /* snd_nxt when the segment at snd_una was last sent again */
	uint64_t tail_end; /* RFC 8985 §7.4: TLP.end_seq */
	/* Send side, rare */
	uint64_t last_snd;
	uint64_t stall_at; /* since when the oldest byte in flight, or a closed window, makes no progress */
	uint64_t snd_small; /* end of the last small segment sent (Minshall's Nagle, as Linux) */
	uint64_t snd_urg;  /* end of urgent data */
	uint64_t cwnd_full; /* snd_nxt when the congestion window was last in use: what lies below may let it grow */
	uint64_t more_from; /* tcp_app_more() */
	uint64_t ecn_end;  /* an echoed mark counts when this is acknowledged */
	uint32_t max_wnd;  /* largest window the peer ever offered */
	/* Receive side, rare */
	uint32_t rcv_big; /* largest window that we could ever offer */
	uint64_t rcv_fin, rcv_urg;
	uint32_t dsack_left, dsack_right;
	uint32_t ooo_recent; /* left edge of the range that grew last */
	uint32_t ts_offset;
	uint32_t ts_recent_age; /* seconds, when ts_recent was taken */
	/* Timers and limits */
	uint64_t keep_at;
	uint64_t oow_at; /* last answer to an unacceptable segment */
	uint32_t keep_idle, keep_intvl, user_timeout /* ms */;
	uint32_t syn_timeout, rto_min, delack, ack_wait /* µs */;
	uint32_t time_wait, fin_timeout /* ms */, linger2;
	uint8_t keep_cnt, keep_probes, syn_retries, data_retries;
	uint8_t retransmits, backoff, probes, quick;
	uint8_t soft_error, dupacks_due, cc, sack_turn;
	uint8_t defer, ecn; /* timeouts to wait for data; TCP__ECN_* */
	bool acked;         /* passive: the SYN+ACK was acknowledged, without data */
	uint8_t ack_waits;  /* delack_at ends an ack_wait: which one in a row; 0: it does not */
	uint16_t mss_base; /* without subtracting options */
	uint16_t mss_adv;  /* what we offered */
	/* Congestion control: cubic.  cc_acc also serves Reno. */
	uint64_t cc_epoch;
	uint32_t cc_wmax, cc_origin, cc_k, cc_west, cc_acc, cc_acc_west;
	/* Statistics */
	uint32_t total_retrans;
	uint64_t segs_in, segs_out, bytes_retrans, last_data;
	uint32_t data_in, data_out;

	struct tcp_range ooo[TCP__OOO_MAX];
	struct tcp_range sacked[TCP__SACKED_MAX];
};

_Static_assert(offsetof(struct tcp_conn, rcv_acked) == 64, "first line of struct tcp_conn");
_Static_assert(offsetof(struct tcp_conn, rtt_end) == 128, "second line of struct tcp_conn");
_Static_assert(sizeof(struct tcp_conn) <= 880, "struct tcp_conn grew");

/* ---- positions ---- */
static inline uint32_t tcp__rcv_seq(const struct tcp_conn *c, uint64_t pos)
{
	return c->rcv_seq0 + (uint32_t)pos;
}

static inline uint32_t tcp__snd_seq(const struct tcp_conn *c, uint64_t pos)
{
	return c->snd_seq0 + (uint32_t)pos;
}

static inline uint64_t tcp__delivered(const struct tcp_conn *c)
{
	return c->rcv_nxt - !!(c->flags & TCP__FIN_RCVD);
}

static inline uint64_t tcp__acked(const struct tcp_conn *c)
{
	return c->snd_una - (c->snd_una > c->written);
}

static inline uint64_t tcp__in_flight(const struct tcp_conn *c)
{
	return c->snd_nxt - c->snd_una;
}

/* Our FIN takes the position behind the last byte. */
static inline bool tcp__fin_sent(const struct tcp_conn *c)
{
	return c->snd_nxt > c->written;
}

static inline bool tcp__fin_acked(const struct tcp_conn *c)
{
	return c->snd_una > c->written;
}

static inline uint32_t tcp__rcv_wnd(const struct tcp_conn *c)
{
	return c->rcv_adv > c->rcv_nxt ? (uint32_t)(c->rcv_adv - c->rcv_nxt) : 0;
}

/* States by what they allow. */
static inline bool tcp__state_in(const struct tcp_conn *c, unsigned mask)
{
	return 1u << c->state & mask;
}

enum {
	TCP__M_MAY_RECEIVE = 1u << TCP_S_ESTABLISHED | 1u << TCP_S_FIN_WAIT1 | 1u << TCP_S_FIN_WAIT2,
	TCP__M_MAY_SEND = 1u << TCP_S_ESTABLISHED | 1u << TCP_S_CLOSE_WAIT | 1u << TCP_S_FIN_WAIT1 |
			  1u << TCP_S_CLOSING | 1u << TCP_S_LAST_ACK,
	TCP__M_SYNCHRONIZED = TCP__M_MAY_RECEIVE | TCP__M_MAY_SEND | 1u << TCP_S_TIME_WAIT,
};

static inline uint32_t tcp__ts_clock(const struct tcp_conn *c, uint64_t now)
{
	return (uint32_t)(now / TCP__MS) + c->ts_offset;
}

static inline void tcp__arm(struct tcp_conn *c, enum tcp__timer t, uint64_t at)
{
	c->timer = (uint8_t)t;
	c->rtx_at = at;
}

static inline void tcp__disarm(struct tcp_conn *c)
{
	c->timer = TCP__T_NONE;
	c->rtx_at = TCP__NEVER;
}

/* ---- between files ---- */
/* timer.c */
uint64_t tcp__rto(const struct tcp_conn *c); /* ns, with backoff */
void tcp__arm_rto(struct tcp_conn *c, enum tcp__timer t, uint64_t now);
void tcp__arm_rtx(struct tcp_conn *c, uint64_t now);
void tcp__rtt_init(struct tcp_conn *c);
void tcp__rtt_sample(struct tcp_conn *c, uint64_t ns);
void tcp__keepalive_restart(struct tcp_conn *c, uint64_t now);
/* open.c */
void tcp__established(struct tcp_conn *c, uint64_t now, struct tcp_result *res);
void tcp__input_syn_sent(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res);
void tcp__set_mss(struct tcp_conn *c, unsigned mss);
/* input.c */
void tcp__input_general(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res);
/* rcv.c */
struct tcp_rx_want tcp__rcv_place(const struct tcp_conn *c, const struct tcp_seg *seg);
void tcp__rcv_segment(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res);
void tcp__rcv_ack_policy(struct tcp_conn *c, uint32_t len, uint64_t now);
uint16_t tcp__rcv_select_window(struct tcp_conn *c);
bool tcp__rcv_update_due(const struct tcp_conn *c);
unsigned tcp__rcv_sack_blocks(struct tcp_conn *c, struct tcp_seg *seg, unsigned max);
/* ack.c */
void tcp__ack_advance(struct tcp_conn *c, uint64_t to, const struct tcp_seg *seg, uint64_t now);
void tcp__ack_timer(struct tcp_conn *c, uint64_t now);
bool tcp__ack(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t now, struct tcp_result *res);
bool tcp__window_newer(const struct tcp_conn *c, const struct tcp_seg *seg, bool advances);
void tcp__window_set(struct tcp_conn *c, const struct tcp_seg *seg);
/* recover.c */
void tcp__recover_ack(struct tcp_conn *c, const struct tcp_seg *seg, uint64_t acked, bool dup);
void tcp__recover_timeout(struct tcp_conn *c);
void tcp__recover_hole(struct tcp_conn *c);
uint64_t tcp__sacked(const struct tcp_conn *c); /* bytes */
uint64_t tcp__lost(const struct tcp_conn *c);
uint64_t tcp__pipe(const struct tcp_conn *c);
bool tcp__recover_next(const struct tcp_conn *c, bool any, uint64_t *from, uint64_t *to);
/* ecn.c */
void tcp__ecn_open(struct tcp_conn *c, const struct tcp_seg *syn);
void tcp__ecn_data(struct tcp_conn *c, const struct tcp_seg *seg);
void tcp__ecn_ack(struct tcp_conn *c, const struct tcp_seg *seg);
void tcp__ecn_send(struct tcp_conn *c, struct tcp_seg *seg, bool fresh);
/* close.c */
void tcp__enter_time_wait(struct tcp_conn *c, uint64_t now);
void tcp__enter_fin_wait2(struct tcp_conn *c, uint64_t now, struct tcp_result *res);
void tcp__closed(struct tcp_conn *c, struct tcp_result *res);
void tcp__fail(struct tcp_conn *c, int error, struct tcp_result *res);
/* cc.c, cc_cubic.c */
void tcp__cc_init(struct tcp_conn *c);
void tcp__cc_acked(struct tcp_conn *c, uint64_t acked, uint64_t now);
void tcp__cc_sent(struct tcp_conn *c);
uint32_t tcp__cc_on_loss(struct tcp_conn *c); /* returns the new ssthresh */
void tcp__cc_idle(struct tcp_conn *c, uint64_t now);
uint32_t tcp__initial_window(const struct tcp_conn *c);
void tcp__cubic_acked(struct tcp_conn *c, uint64_t acked, uint64_t now);
uint32_t tcp__cubic_on_loss(struct tcp_conn *c);

#endif
