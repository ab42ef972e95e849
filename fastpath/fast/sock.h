/* SPDX-License-Identifier: MIT */
/*
 * Sockets as fast/ keeps them.  A socket is service-private and trusted; its block in shared memory is only what the
 * application is told and what it tells.
 *
 * Life of a connection over the link:  embryo (no id, no memory) → queued (id, block) → claimed by an acceptor → last close →
 * lingering without id once all bytes are acknowledged → TIME_WAIT → freed.
 */
#ifndef TAS_SOCK_H
#define TAS_SOCK_H

#include "slow/stack.h"
#include "tcp/tcp.h"
#include "tcp/tcp_conn.h"

/* What one fast-path core owns; touched by its thread only.  (Ids, ports and identities in sock.c are the control work's: they
 * change on core 0 only.) */
struct tas_stack {
	struct tas_proc *polled; /* processes whose hints are looked at every round */
	uint64_t last_retire;
	struct tas_sock *out_head, **out_tail; /* output is due */
	uint32_t n_out;
	struct tas_sock *held_head, **held_tail; /* as soon as the port takes packets again */
	struct tas_sock *wake_head;            /* to be told at the end of the batch */
	struct tas_sock **flows;               /* link connections by 4-tuple */
	uint32_t n_flows;
	struct {                               /* binary heap by deadline */
		struct tas_sock **at;
		uint32_t n, room;
	} timers;
	struct { /* sockets with rings that they may not need (slack.c) */
		struct tas_sock *head, **tail;
		uint32_t n, pass; /* on the list; of them still to be looked at in this pass */
		uint64_t at;	  /* when to look */
	} slack;
	uint32_t n_time_wait, n_embryos;
};

/* One direction's ring as the service trusts it. */
struct tas_ring {
	uint64_t base; /* stream offset of its first byte */
	tas_off_t off;
	uint32_t len;
	uint32_t gen;   /* 0: no memory */
	uint32_t epoch; /* transmit: last rebase adopted */
	bool active;    /* transmit: the writer answered; receive: always with gen != 0 */
};

enum { TAS_LISTEN_PENDING_MAX = 4096, TAS_LOCAL_MSS = 65483 /* Linux: of a loopback device, less time stamps */ };

struct tas_sock {
	struct tas_sock_base base; /* first */
	struct tas_core *core;

	/* lists */
	struct tas_sock *port_next, **port_pprev; /* by local port; NULL pprev: not listed */
	struct tas_sock *flow_next, **flow_pprev; /* by 4-tuple (link only) */
	struct tas_sock *out_next;                /* output due this round */
	bool out_queued, out_held;
	uint8_t wake_due;                         /* TAS_WAKE_*: to be told at the end of this batch */
	struct tas_sock *wake_next;
	struct tas_sock *slack_next, **slack_pprev; /* may have rings that it does not need; NULL pprev: not */
	uint64_t slack_mark;                        /* progress at the last look */
	bool reuse;     /* SO_REUSEADDR at bind, inherited by accept */
	bool reuseport;
	uint32_t heap_at;  /* position in the timer heap + 1; 0: none */
	uint64_t heap_key; /* when it will fire */

	/* streams: absolute offsets, trusted */
	uint64_t consumed, delivered; /* receive: taken by the application, published */
	uint64_t acked, written;      /* transmit: acknowledged, written by the application */
	uint64_t room_told;           /* written when the writer was last told of room */
	uint64_t urg_written;         /* transmit: end of urgent data; 0: none yet */
	uint64_t rcv_limit;           /* bytes below this are accepted */
	uint64_t grow_mark;           /* consumed at the last growth of rcv_buf */
	uint32_t rcv_buf;             /* offered beyond consumed */
	uint32_t ext_gen;             /* last extent generation given */
	struct tas_ring rx[TAS_EXT_SLOTS], tx[TAS_EXT_SLOTS];
	uint8_t rx_cur, tx_cur;       /* newest slot */
	uint32_t rcvbuf_seen, sndbuf_seen; /* as the application set them; 0: automatic */
	bool tx_full;                 /* the writer saw little room: tell it when there is some */
	uint64_t stall_at, stall_acked; /* the writer waits for room: when to look whether nothing moves, 0: not; acked when it began */
	bool app_fin;                 /* the application has shut its sending side */
	bool app_deaf;                /* the application has shut its receiving side */
	bool rx_eof;                  /* stream ended at delivered */
	bool in_time_wait;
	uint64_t sent_high;           /* link: end of what was ever sent */
	bool active;                  /* we connected */
	bool dead;                    /* reset or timed out; nothing moves any more */
	uint32_t opts_seen;
	uint32_t keep_seen[4];
	uint32_t ip;      /* TAS_PKT_* */
	uint32_t maxseg, syncnt, linger2;
	bool soft_told;   /* link: the block has a soft error */

	struct tas_bridge *bridge; /* NULL: none */
	struct tas_sock *listener; /* embryo or pending local connect: who will accept it */
	/* in an accept queue: entry number aq_at, linked in order of entries; NULL pprev: in none */
	struct tas_sock *aq_of, *aq_next, **aq_pprev;
	uint64_t aq_at;

	union {
		struct tcp_conn tcp; /* TAS_K_LINK */
		struct {             /* TAS_K_LOCAL */
			struct tas_sock *peer; /* NULL: gone */
			struct tas_sock *wait_next; /* SYN_SENT: accept queue of listener was full */
			uint32_t segs_in, segs_out; /* as a loopback device would have carried them, for TCP_INFO */
			uint64_t got_at, sent_at;
			bool direct;       /* the peer, too */
			bool never;        /* somebody who holds it could not map what it would need, or may not */
			bool moved;        /* into a set of two, to become direct */
			bool ends;         /* and waits for a lock for that */
			bool nonsense;     /* its counters made none while it was */
			uint32_t passed;   /* messages or their worth since it was thought of last */
			uint32_t counted;  /* events that went into segs_in */
			uint32_t told_in, told_out; /* event sequences that its wait sets were told of */
			uint64_t retry_ns; /* somebody has a lock */
		} local;
		struct { /* TAS_K_LISTENER */
			uint64_t queued;    /* connections ever queued = block's rx_delivered */
			struct tas_sock *aq_head, **aq_tail; /* those not popped, as far as the service knows */
			uint32_t limit;     /* entries in use at most */
			uint32_t embryos;
			uint32_t opts;
			bool v6only;
			bool owns_link;     /* receives from the link (first binder of the port) */
			struct tas_sock *pending; /* local connects that wait for room */
			uint32_t n_pending;
			uint32_t news;      /* connections queued since acceptors were woken */
		} lis;
	} u;
};

static inline struct tas_sock *tas__of(struct tas_sock_base *b)
{
	return (struct tas_sock *)b;
}

static inline uint16_t tas__port(const struct tas_addr *a)
{
	return __builtin_bswap16(a->port);
}

/* ---- addresses: sock.c ---- */
struct tas_addr tas__addr_unmap(const struct tas_addr *a); /* ::ffff:a.b.c.d → IPv4; others unchanged */
bool tas__addr_any(const struct tas_addr *a);
bool tas__addr_loopback(const struct tas_addr *a);
bool tas__addr_same_ip(const struct tas_addr *a, const struct tas_addr *b);
/* As a socket of this family sees it: an IPv4 address becomes v4-mapped for AF_INET6. */
struct tas_addr tas__addr_as(const struct tas_addr *a, int family);

/* ---- table and lifetimes: sock.c ---- */
struct tas_sock *tas__sock_new(struct tas_core *c, enum tas_sock_kind kind); /* no id, no block; NULL: no memory */
/* Gives s an id and a block in set's memory (published by the caller through tas__sock_publish).  0 or -errno. */
int tas__sock_place(struct tas_sock *s, struct tas_set *set, int family);
void tas__sock_unplace(struct tas_sock *s); /* frees id, block, extents, watch; idempotent */
void tas__sock_free(struct tas_sock *s);
/* A hint of id is to come: fetches what it will touch into the cache.  Each stage needs what the one before has brought. */
enum { TAS_AHEAD = 4 };
bool tas__socks_cold(void); /* so many that it is worth it */
void tas__sock_close_now(struct tas_sock *s); /* what is left of the last close */
static inline bool tas__local_nonsense(const struct tas_sock *s)
{
	return s->base.kind == TAS_K_LOCAL && s->u.local.nonsense;
}
void tas__sock_ahead(const struct tas_core *c, uint32_t id, unsigned stage);
/* May the thread that does c's work touch the socket of this id?  Else *owner is the core that may, or TAS_NOBODY. */
enum { TAS_NOBODY = 0xff };
bool tas__sock_mine(const struct tas_core *c, uint32_t id, unsigned *owner);
void tas__sock_core(struct tas_sock *s, struct tas_core *c); /* alone: it belongs to c from now on */
void tas__socks_leave(const struct tas_core *c, struct tas_core *to); /* alone: what has an id, and is still c's */
void tas__flow_move(struct tas_sock *s, struct tas_core *to); /* alone, its wakes made: with all that its core has of it */
void tas__port_add(struct tas_sock *s); /* by base.local.port */
void tas__port_del(struct tas_sock *s);
struct tas_sock *tas__port_first(uint16_t port); /* host order; listeners first */
void tas__sock_state(struct tas_sock *s, enum tas_sock_state st);
void tas__sock_error(struct tas_sock *s, int error); /* pending SO_ERROR */
void tas__sock_flags(struct tas_sock *s, uint32_t set);
/* Writes line A of a fresh block. */
void tas__sock_publish(struct tas_sock *s, enum tas_sock_state st);

/* ---- events: wake.c ---- */
enum { TAS_WAKE_IN = 1, TAS_WAKE_OUT = 2 };
void tas__wake(struct tas_sock *s, unsigned what); /* now */
void tas__wake_soon(struct tas_sock *s, unsigned what); /* with the batch of packets or hints that is being handled */
void tas__wakes_run(struct tas_core *c);
void tas__wake_forget(struct tas_sock *s);
void tas__wake_watchers(struct tas_sock *s); /* look again, though nothing happened */
void tas__wake_news(struct tas_sock *s); /* wait sets only: of an event whose sequence is up already */
/* Writes to an eventfd of a process of this user.  False: it made that wait (ring.c). */
bool tas__ring(uid_t uid, int efd);
void tas__futex_wake(_Atomic uint32_t *word); /* everybody who waits on it */

/* ---- stream memory: stream.c ---- */
int tas__tx_first(struct tas_sock *s); /* offers the first transmit extent; 0 or -ENOMEM */
/* Memory for receive bytes [off, off + len).  high: end of the highest byte present.  false: none, drop. */
/* The receive window and the sender's limit as the application's line says: its own, or its listener's. */
void tas__buffers(struct tas_sock *s, const struct tas_app_line *a);
uint32_t tas__window_of(uint32_t rcvbuf); /* what is offered for SO_RCVBUF, 0: not set */
bool tas__rx_reserve(struct tas_sock *s, uint64_t off, uint32_t len, uint64_t high);
void tas__rx_write(struct tas_sock *s, uint64_t off, const uint8_t *from, uint32_t len);
struct tas_span tas__rx_space(struct tas_sock *s, uint64_t off, uint64_t end);
struct tas_span tas__tx_data(const struct tas_sock *s, uint64_t off, uint64_t end);
void tas__tx_read(const struct tas_sock *s, uint64_t off, uint8_t *to, uint32_t len);
/* Time to look at a writer that waits (s->stall_at). */
void tas__tx_stalled(struct tas_sock *s);
void tas__tx_acked(struct tas_sock *s, uint64_t acked); /* publishes, frees an emptied extent, wakes a waiting writer */
/* Options of packets and of opening, as the application has set them: its own, or its listener's. */
void tas__wire_options(struct tas_sock *s, const struct tas_lock_line *from);
void tas__wire_inherit(struct tas_sock *s); /* ... in a block of s's own */
/* A lock word of a block, for the service, if it is free (move.c). */
bool tas__block_lock(_Atomic uint32_t *word);
void tas__block_unlock(_Atomic uint32_t *word);
/* Reads the application's counters once.  Returns bits of what changed, or -EPROTO when they make no sense. */
enum { TAS_CH_WRITTEN = 1, TAS_CH_CONSUMED = 2, TAS_CH_SHUT = 4, TAS_CH_OPTS = 8, TAS_CH_URG = 16, TAS_CH_DEAF = 32 };
int tas__app_read(struct tas_sock *s);
/* Urgent data ends at stream offset end: for the reader.  Before the bytes are published. */
void tas__rx_urgent(struct tas_sock *s, uint64_t end);
void tas__streams_free(struct tas_sock *s);
/* The newest receive ring has at least len bytes, from here on.  False: no memory, or two rings are in use. */
bool tas__rx_ring(struct tas_sock *s, uint32_t len);
/* A larger one, for a writer that wants so much.  False: none. */
bool tas__rx_larger(struct tas_sock *s, uint32_t want);
/* A direct writer has delivered up to w, and may have begun the ring anew.  False: that or rx_consumed makes no sense. */
bool tas__rx_adopt(struct tas_sock *s, uint64_t w);
/* Under lock_tx: a ring that was offered, and that the writer has not begun to use, goes. */
void tas__tx_unoffer(struct tas_sock *s);
/* The same, all that was written having gone: a small ring becomes another, of which the writer can ask for a larger one anew. */
void tas__tx_renew(struct tas_sock *s);
/* An idle connection gives its rings back, but for a small one to write to.  False: something is in them, or in use. */
bool tas__rx_give(struct tas_sock *s);
bool tas__tx_give(struct tas_sock *s);
void tas__tx_stays(struct tas_sock *s); /* what was written could not go on at once */

/* ---- memory of idle connections: slack.c ---- */
void tas__slack_add(struct tas_sock *s); /* it got a ring */
void tas__slack_del(struct tas_sock *s);
void tas__slack_run(struct tas_core *c);
extern uint64_t tas__slack_pass_ns;
uint64_t tas__slack_next(const struct tas_core *c); /* when it has to run; UINT64_MAX: never */

/* ---- listeners and the accept queue: listen.c ---- */
struct tas_sock *tas__listener_find(const struct tas_addr *dst, uint64_t netns, bool link, uint32_t hash);
bool tas__accept_room(struct tas_sock *l);
void tas__accept_push(struct tas_sock *l, struct tas_sock *conn); /* conn is placed and published */
void tas__listener_hint(struct tas_sock *l);
void tas__listener_close(struct tas_sock *l);
void tas__listener_timer(struct tas_sock *l);
void tas__listener_pend(struct tas_sock *l, struct tas_sock *conn);
void tas__listener_unpend(struct tas_sock *l, struct tas_sock *conn);
uint32_t tas__accept_queued(struct tas_sock *l);
uint32_t tas__accept_news(struct tas_sock *l); /* connections to wake acceptors for */
bool tas__accept_waiting(const struct tas_sock *conn); /* still in an accept queue */
void tas__accept_forget(struct tas_sock *s); /* a connection or a listener goes away */

/* ---- link connections: wire.c, flow.c ---- */
struct tas_sock *tas__flow_find(const struct tas_core *c, const struct tas_addr *local, const struct tas_addr *peer);
int tas__wire_connect(struct tas_sock *s, uint32_t opts);
void tas__wire_hint(struct tas_sock *s, int changed);
void tas__wire_close(struct tas_sock *s, bool abort_it);
void tas__wire_timer(struct tas_sock *s);
unsigned tas__wire_output(struct tas_sock *s, unsigned budget);
void tas__wire_goodbye(struct tas_sock *s); /* the service ends */
void tas__wire_reset_embryos(struct tas_sock *l);
void tas__flow_del(struct tas_sock *s);
int tas__flows_init(struct tas_stack *k); /* 0 or -ENOMEM */

/* ---- local connections: local.c ---- */
int tas__local_connect(struct tas_sock *a, struct tas_sock *l);
void tas__local_hint(struct tas_sock *s, int changed);
void tas__local_close(struct tas_sock *s, bool abort_it);
void tas__local_abandon(struct tas_sock *s, int error); /* a pending connect whose listener went away */
void tas__local_timer(struct tas_sock *s);
unsigned tas__local_output(struct tas_sock *s); /* what it cost, in segments */
/* A pending connect to a listener that has room now. */
int tas__local_establish(struct tas_sock *a, struct tas_sock *l);

/* Under lock_tx of s and lock_rx of its peer: all that s has written is delivered, whatever the window.  False: no memory. */
bool tas__local_drain(struct tas_sock *s);

/* ---- direct connections: direct.c ---- */
static inline bool tas__is_direct(const struct tas_sock *s)
{
	return s->base.kind == TAS_K_LOCAL && s->u.local.direct;
}
/* s has delivered so many bytes through the service: is it worth to do without? */
void tas__direct_consider(struct tas_sock *s, uint32_t bytes);
/* A hint on a direct connection.  False: it is ordinary now, and to be handled as such. */
bool tas__direct_hint(struct tas_sock *s);
void tas__direct_timer(struct tas_sock *s);
/* Makes it ordinary.  0, also if it was; -EAGAIN: somebody has a lock of it. */
int tas__direct_end(struct tas_sock *s);
/* The same; false: a timer will come for it. */
bool tas__direct_ended(struct tas_sock *s);
/* The counters of both sides become known.  False: they make no sense. */
bool tas__direct_sync(struct tas_sock *s);
/* ---- bells: bell.c ---- */
void tas__bell_hang(struct tas_sock *s); /* for a wait set of another process that watches s, if there is one without */
/* A process died that had s; locked: at work, with one of its locks. */
void tas__direct_forget_proc(struct tas_sock *s, bool locked);

/* ---- moves: move.c ---- */
/* Both ends move, whose four locks the caller holds.  The new blocks are locked, too; the old ones remain so. */
bool tas__sock_move_pair(struct tas_sock *a, struct tas_sock *b, struct tas_set *to);

/* ---- timers: timer.c ---- */
void tas__timer_set(struct tas_sock *s, uint64_t when); /* UINT64_MAX: none */
void tas__timer_del(struct tas_sock *s);
void tas__timers_run(struct tas_core *c, unsigned *work);
uint64_t tas__timer_next(const struct tas_core *c);
/* ---- output.c ---- */
void tas__output_soon(struct tas_sock *s);
unsigned tas__output_run(struct tas_core *c); /* a round's worth; what it cost, in segments */
void tas__output_forget(struct tas_sock *s);

/* What an application says by a hint.  False: it is gone. */
bool tas__sock_hint(struct tas_sock *s);

/* ---- bridges: bridge.c ---- */
void tas__bridge_wake(struct tas_bridge *b);
void tas__bridge_orphan(struct tas_sock *s);
void tas__bridges_run(void);
bool tas__bridges_due(void);

/* A shared counter made no sense: reset this connection. */
void tas__sock_nonsense(struct tas_sock *s);
/* Opts and keep-alive values as the application set them. */
uint32_t tas__app_opts(const struct tas_sock *s);

#endif
