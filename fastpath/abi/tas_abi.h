/* SPDX-License-Identifier: MIT */
/*
 * Shared-memory layout between the TAS service and its applications.
 *
 * Theory.  Three kinds of memory are shared, all memfds that the service creates and seals:
 *
 *   region  one per process: header, liveness word, hint bitmaps towards the service, claims on sockets, wait sets.
 *   epoll   one per epoll set with members of TAS: tas_epoll.h
 *   chunk   a few per memory set (the processes descended by fork from one attach): socket blocks and payload extents.
 *           Allocation inside chunks is done by the service alone, with private bookkeeping.
 *
 * A socket is a block of four 128-byte lines.  Progress of both directions is kept in absolute 64-bit stream offsets, each
 * with exactly one writing side.  Where the bytes lie is told by extents: rings of a power-of-two length; the byte at
 * stream offset s lies at off + ((s - base) & (len - 1)).  A direction has two extent slots; an offset belongs to the
 * extent with the largest base that is not beyond it.  See tas_extent.h for the functions, docs/abi.rst for figures.
 *
 * Nothing here is a pointer.  The service trusts nothing that an application can write: it reads a shared counter once,
 * range-checks it, and resets that connection on nonsense.
 *
 * Units: bytes unless named otherwise; times in nanoseconds of CLOCK_MONOTONIC; ports and addresses in network byte order.
 */
#ifndef TAS_ABI_H
#define TAS_ABI_H

#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>

#define TAS_ABI_MAGIC 0x31534154u /* "TAS1", little endian */
/* Range of ABI numbers this header speaks.  Before 1.0 any change of layout or message raises both. */
#define TAS_ABI_MIN 5u
#define TAS_ABI_MAX 5u

#define TAS_LINE 128u /* two cache lines: adjacent-line prefetch shares them */

enum {
	TAS_SOCK_MAX = 1 << 18, /* socket ids of one service; 64 * 64 * 64 so that a hint bitmap has three full levels */
	TAS_CORES_MAX = 8,      /* fast-path cores */
	TAS_WS_MAX = 2048,      /* wait sets of one process */
	TAS_WS_BITMAPS = 1,     /* wait sets below this index have a ready bitmap; the rest only wake (threads).  Epoll: tas_epoll.h */
	TAS_CHUNK_SIZE = 16 << 20,
	TAS_CHUNKS_MAX = 4096, /* chunks of one memory set */
	TAS_BLOCK_SIZE = 4 * 128,
	TAS_SUB_EXCLUSIVE = 1 << 30, /* in a subscription */
	TAS_SUB_EPOLL = 1 << 29,     /* in TAS_MSG_SUBSCRIBE: ws is the index of an epoll set */
	TAS_SUBS = 6, /* wait sets that can watch one socket without asking the service */
	TAS_EXT_SLOTS = 2,
	TAS_MAILS = 64, /* requests through shared memory that a process can have under way */
	TAS_PROC_MAX = 2048, /* attached processes: ROBUST_LIST_LIMIT of Linux */
};

/* ---- Hint bitmaps ------------------------------------------------------------------------------------------------
 * Any number of producers, one consumer per bitmap; functions in tas_bitmap.h. */
struct tas_bitmap {
	_Alignas(TAS_LINE) _Atomic uint64_t top;
	_Alignas(TAS_LINE) _Atomic uint64_t mid[64];
	_Alignas(TAS_LINE) _Atomic uint64_t leaf[64 * 64];
};

/* ---- Extents ---- */
enum tas_extent_kind {
	TAS_EXT_NONE = 0,
	TAS_EXT_SERVICE = 1, /* the service publishes it */
};

/* Position of memory: byte inside the chunk in the lower half, chunk index above it.  The upper 20 bits name the memory: 0 is
 * the process's own set, others are sets that hold sockets which more than one memory set has (passed by SCM_RIGHTS). */
typedef uint64_t tas_off_t;
#define TAS_OFF(chunk, byte) (((uint64_t)(chunk) << 32) | (uint32_t)(byte))
#define TAS_OFF_CHUNK(o) ((uint32_t)((o) >> 32)) /* with the set's number */
#define TAS_OFF_BYTE(o) ((uint32_t)(o))
#define TAS_CHUNK_OF(number, index) ((uint32_t)(number) << 12 | (index))
#define TAS_CHUNK_INDEX(chunk) ((chunk) & (TAS_CHUNKS_MAX - 1))
#define TAS_CHUNK_NUMBER(chunk) ((chunk) >> 12)

/* Written by the service only.  Publish: fields, then gen (release); a slot with gen 0 is empty.
 * For receive extents the service sets base.  For transmit extents base is 0 and the application says in
 * tas_app_line.tx_base at which stream offset it began to use the extent. */
struct tas_extent {
	_Atomic uint64_t base;
	_Atomic tas_off_t off;
	_Atomic uint32_t len; /* power of two, at least 256 */
	_Atomic uint32_t gen; /* pairs: release by publisher, acquire by reader */
	uint16_t kind;        /* enum tas_extent_kind */
	uint16_t reserved0;
	uint32_t reserved1;
};

/* ---- Sockets ---- */
/* Values are those of Linux's enum tcp states, so that TCP_INFO can copy them. */
enum tas_sock_state {
	TAS_S_FREE = 0,
	TAS_S_ESTABLISHED = 1,
	TAS_S_SYN_SENT = 2,
	TAS_S_SYN_RECV = 3,
	TAS_S_FIN_WAIT1 = 4,
	TAS_S_FIN_WAIT2 = 5,
	TAS_S_TIME_WAIT = 6,
	TAS_S_CLOSE = 7,
	TAS_S_CLOSE_WAIT = 8,
	TAS_S_LAST_ACK = 9,
	TAS_S_LISTEN = 10,
	TAS_S_CLOSING = 11,
};

/* tas_service_line.flags */
enum {
	TAS_F_RX_EOF = 1u << 0,  /* FIN arrived: the stream ends at rx_delivered */
	TAS_F_TX_EOF = 1u << 1,  /* our FIN is queued or sent, or the connection is gone: writing is EPIPE */
	TAS_F_RESET = 1u << 2,   /* connection is gone by RST, timeout or error: HUP + ERR */
	TAS_F_LOCAL = 1u << 3,   /* the peer is another application of this service */
	TAS_F_URG = 1u << 4,     /* rx_urg is meaningful */
	TAS_F_CLOSED = 1u << 6,  /* nobody holds it any more: the last close was seen */
	TAS_F_NEAR = 1u << 5,    /* local, and the peer is of the same memory set: one process may hold both ends */
	TAS_F_ERROR = 1u << 7,   /* error may be pending though the connection lives (IP_RECVERR) */
};

struct tas_addr {
	uint16_t family; /* AF_INET, AF_INET6, 0: none */
	uint16_t port;   /* network order */
	uint32_t scope;  /* IPv6 scope id */
	uint8_t ip[16];  /* network order; IPv4 in the first four */
};

/* Line A: written by the service only; but while the peer is direct (below), its writer advances rx_delivered and rx_urg here
 * and the base of the receive extent in use, and both its sides advance the event sequences. */
struct tas_service_line {
	_Atomic uint32_t gen;   /* generation of the socket in this block; 0: free.  Checked by clients at each operation */
	_Atomic uint32_t state; /* enum tas_sock_state */
	/* Last asynchronous error: sequence in the upper 16 bits, errno in the lower.  Pending while the sequence differs
	 * from tas_app_line.err_seen (which a reader of SO_ERROR, or an operation that reports it, moves up). */
	_Atomic uint32_t error;
	_Atomic uint32_t flags;        /* TAS_F_* */
	_Atomic uint64_t rx_delivered; /* stream offset up to which bytes can be read (release; readers acquire).  On a
	                                  listener: number of connections ever queued */
	_Atomic uint64_t tx_acked;     /* stream offset up to which transmit memory is free again */
	/* Event sequences: advance by one with every arrival (data, FIN, error, connection queued / space freed, connect
	 * done, error).  Edge-triggered readiness compares them; blocked threads futex-wait on them. */
	_Atomic uint32_t ev_in;
	_Atomic uint32_t ev_out;
	uint32_t id;
	_Atomic uint16_t core; /* fast-path core that owns the connection: whose dirty bitmap to hint.  It may change */
	uint16_t family; /* AF_INET or AF_INET6: family of the socket as created */
	struct tas_addr local;
	struct tas_addr peer;
	_Atomic uint32_t aq_limit; /* listener: accept entries in use at most (backlog + 1 on Linux) */
	_Atomic uint32_t mss;
	_Atomic uint64_t rx_urg; /* stream offset behind the newest urgent byte, 0: there never was one.  Before rx_delivered */
	/* Not 0: the socket has moved, its block lies there now; nothing that is written here counts any more.  Set once, while the
	 * service holds lock_rx and lock_tx; a writer of a word without lock stores it (seq_cst), then looks here, and repeats it
	 * there; the service stores this (seq_cst), then reads those words again. */
	_Atomic tas_off_t moved;
	/* Not 0: a direct connection; the block of the peer.  Who holds lock_tx writes into the peer's receive extent and says so
	 * in the peer's line A; who holds lock_rx tells the peer of room.  The service stores it while it holds lock_rx and lock_tx of both
	 * sides (docs/internals.md, "Direct connections"). */
	_Atomic tas_off_t direct;
};

/* Line X: written by the service only. */
struct tas_extent_line {
	struct tas_extent rx[TAS_EXT_SLOTS];
	struct tas_extent tx[TAS_EXT_SLOTS];
};

/* tas_app_line.shut */
enum {
	TAS_SHUT_RD = 1u << 0,
	TAS_SHUT_WR = 1u << 1,
	TAS_ABORT = 1u << 2, /* close with RST: SO_LINGER {1, 0}, or unread data at the last close */
	TAS_ALL_READ = 1u << 3, /* nothing was unread at the last close: what the service finds has come after it */
};

/* tas_app_line.opts */
enum {
	TAS_O_NODELAY = 1u << 0,
	TAS_O_CORK = 1u << 1,
	TAS_O_KEEPALIVE = 1u << 2,
	TAS_O_QUICKACK = 1u << 3,
	TAS_O_OOBINLINE = 1u << 4, /* for applications only */
	TAS_O_MORE = 1u << 5,	   /* MSG_MORE: what lies behind `more` may wait */
	TAS_O_NEWS = 1u << 6,	   /* turned over when the options in tas_lock_line have changed (release) */
};

/* tas_lock_line.ip: what packets say, and what becomes of errors that the network reports. */
enum {
	TAS_PKT_TOS = 0xff,	    /* IP_TOS */
	TAS_PKT_TTL_SHIFT = 8,	    /* eight bits, IP_TTL; 0: the default */
	TAS_PKT_FRAGMENTS = 1 << 16, /* IP_MTU_DISCOVER: neither WANT nor DO */
	TAS_PKT_RECVERR = 1 << 17,   /* IP_RECVERR */
};

/* The application's answer to a transmit extent: from which offset it is in use. */
struct tas_tx_base {
	_Atomic uint64_t base;
	_Atomic uint32_t gen;   /* generation of the extent that this answers (release, after base) */
	_Atomic uint32_t epoch; /* advances when an idle writer (tx_acked == tx_written) moves base to tx_written */
};

/* Line B: written by applications only, under lock_rx or lock_tx of line C as said. */
struct tas_app_line {
	_Atomic uint64_t rx_consumed; /* lock_rx; on a listener: connections ever popped (compare-and-swap, no lock) */
	_Atomic uint64_t tx_written;  /* lock_tx; release, after the bytes */
	struct tas_tx_base tx_base[TAS_EXT_SLOTS]; /* lock_tx */
	_Atomic uint32_t tx_want;                  /* lock_tx: a writer found no room; length it would like, 0: content */
	_Atomic uint32_t shut;                     /* TAS_SHUT_*, set by fetch-or */
	_Atomic uint32_t err_seen;                 /* sequence of the last error reported (upper 16 bits, as in error) */
	_Atomic uint32_t opts;                     /* TAS_O_* */
	_Atomic uint32_t keep_idle, keep_intvl, keep_cnt; /* seconds, seconds, probes; 0: system default */
	_Atomic uint32_t user_timeout;                    /* TCP_USER_TIMEOUT, milliseconds; 0: default */
	_Atomic uint32_t rcvlowat;                        /* bytes; 0 and 1 are the same */
	_Atomic uint32_t rcvbuf;                          /* SO_RCVBUF as the program set it, 0: automatic */
	_Atomic uint32_t sndbuf;
	_Atomic uint32_t more; /* lock_tx; with TAS_O_MORE: lower half of the offset at which bytes of MSG_MORE began */
	_Atomic uint64_t tx_urg;   /* lock_tx; stream offset behind the last urgent byte; before tx_written */
	_Atomic uint64_t urg_read; /* lock_rx; rx_urg whose byte MSG_OOB has taken */
	_Atomic uint64_t unacted[2]; /* options set that TAS does not act on: enum tas_option_bit */
};

/* Line C: read and written by applications; the service reads waiters and subs as hints, and frees the locks of
 * processes that died.  Its first half, which a direct peer reads at each message, changes rarely. */
struct tas_lock_line {
	_Atomic uint32_t wait_in;  /* threads in futex-wait on ev_in (a hint: a killed one stays counted) */
	_Atomic uint32_t wait_out; /* the same on ev_out */
	_Atomic uint32_t nonblock; /* O_NONBLOCK of the open file description, kept by the fcntl and ioctl wrappers */
	_Atomic uint32_t subs_lost; /* != 0: some subscription did not fit; the service keeps those (TAS_MSG_SUBSCRIBE) */
	/* Wait sets to mark and wake at events: 0 free, else process slot << 16 | wait-set index + 1 (slot TAS_EP_SLOT: index of
	 * an epoll set), with TAS_SUB_EXCLUSIVE: of these an event goes on to the next until one was found asleep and woken.  Taken by
	 * compare-and-swap, given back by store 0 (or by the service at the process's death). */
	_Atomic uint32_t subs[TAS_SUBS];
	_Atomic uint32_t want_room; /* direct: a writer or poll found no room; the reader that makes some takes it back */
	/* The epoll set of subs that has a bell (tas_epoll.h), and where: written by the service, bell first.  Others need the service. */
	_Atomic uint32_t bell_sub;
	_Atomic tas_off_t bell;
	uint32_t reserved0[2];
	/* Own futex words: 0 free, else process slot + 1 in bits 20..30, thread tag in bits 0..19, bit 31: there are waiters.
	 * Held for copy + counter (and, on a direct connection, the wake-up) only.  The service never waits for one; at the death of
	 * the owner it frees the word, and it takes a free one (slot 0, tag 1) for the moment in which it moves the socket, or makes it
	 * direct or ordinary. */
	_Alignas(64) _Atomic uint32_t lock_rx;
	_Atomic uint32_t lock_tx;
	_Atomic uint64_t zerocopy; /* MSG_ZEROCOPY: sends numbered so far; in the upper half those told of on the error queue */
	_Atomic uint64_t peek_off; /* lock_rx; SO_PEEK_OFF, where the next peek begins behind rx_consumed, + 1; 0: not set */
	/* Options that the service reads when it opens, sends or ends; written without a lock; 0: not set. */
	_Atomic uint32_t ip;		/* TAS_PKT_* */
	_Atomic uint32_t maxseg;	/* TCP_MAXSEG */
	_Atomic uint32_t defer;		/* TCP_DEFER_ACCEPT of a listener, seconds */
	_Atomic uint32_t syncnt;	/* TCP_SYNCNT */
	_Atomic uint32_t linger2;	/* TCP_LINGER2: seconds + 1; UINT32_MAX: no FIN_WAIT2 */
	_Atomic uint32_t notsent_lowat; /* TCP_NOTSENT_LOWAT, for applications */
	_Atomic uint32_t soft_error;	/* errno that the network reported of a living connection: the service stores it, SO_ERROR takes
					   it (exchange with 0), an acknowledgement ends it */
	uint32_t reserved[3];
};

struct tas_block {
	_Alignas(TAS_LINE) struct tas_service_line s;
	_Alignas(TAS_LINE) struct tas_extent_line x;
	_Alignas(TAS_LINE) struct tas_app_line a;
	_Alignas(TAS_LINE) struct tas_lock_line c;
};

/* Entry of an accept queue: a listener's rx extent 0 is an array of these; entry number n (0-based count of connections
 * ever queued) lies at index n & (len / sizeof - 1).  Pop: read entry at rx_consumed, set the claim bit of id, compare-
 * and-swap rx_consumed; who loses takes the claim back and hints the id. */
struct tas_accept_entry {
	_Atomic uint32_t id;
	_Atomic uint32_t gen;
	_Atomic tas_off_t block;
};

/* ---- Wait sets: what a thread in poll or epoll_wait sleeps on ---- */
struct tas_ws {
	/* 1: a thread sleeps in the kernel on this wait set's eventfd.  The waiter stores 1 (seq_cst exchange), looks at
	 * readiness again, then sleeps; the service publishes, marks the bitmap (seq_cst), then exchanges this to 0 and
	 * writes the eventfd if it was 1. */
	_Alignas(TAS_LINE) _Atomic uint32_t sleeping;
	_Atomic uint32_t open; /* the application uses this wait set */
	uint32_t reserved[30];
};

/* ---- Region ---- */
struct tas_region_header { /* written by the service before the application maps it */
	uint32_t magic;
	uint32_t abi;
	uint64_t size; /* of the region */
	uint32_t proc_slot;
	uint32_t set_id;
	uint32_t n_cores;
	uint32_t sock_max;
	uint32_t ws_max;
	uint32_t block_size;
	uint64_t chunk_size;
	uint64_t instance; /* random number of this service run */
	uint32_t poll_us;  /* --fp-poll-interval-app: polling before an application's thread sleeps */
	uint32_t reserved[17];
};

/*
 * A request that needs no descriptor: TAS_MSG_CONNECT of a backing socket that the service has seen before (tas_msg_sock.ident),
 * on whatever the control socket could carry.  A thread takes a slot (FREE to TAKEN by compare-and-swap), fills in the request,
 * stores POSTED, sets the slot's bit in tas_core_hints.mail, and waits until the service has stored ANSWERED.
 */
struct tas_port_range {
	uint16_t from, to; /* host order, both included */
};
enum { TAS_MAIL_RANGES = 10 };

enum tas_mail_state { TAS_MAIL_FREE = 0, TAS_MAIL_TAKEN, TAS_MAIL_POSTED, TAS_MAIL_ANSWERED };

struct tas_mail {
	_Alignas(TAS_LINE) _Atomic uint32_t state; /* release by who hands over, acquire by the other */
	/* 1: the thread sleeps on state.  It stores 1 (seq_cst) and looks at state again; the service stores state (seq_cst) and
	 * exchanges this to 0. */
	_Atomic uint32_t sleeping;
	uint32_t ident;
	uint32_t flags; /* TAS_BIND_* */
	struct tas_addr peer;
	uint32_t opts, rcvbuf, sndbuf; /* as in tas_app_line */
	int32_t err;                   /* reply: as tas_msg.err */
	uint32_t id, gen;
	tas_off_t block;
	uint32_t ip, maxseg, syncnt;   /* as in tas_lock_line */
	uint32_t n_ports;	       /* as in TAS_MSG_CONNECT */
	struct tas_port_range port[TAS_MAIL_RANGES];
};

struct tas_core_hints { /* application → one fast-path core */
	/* 1: the service sleeps or does not poll this process: after hinting, exchange to 0 and write the doorbell eventfd.
	 * Pairs: producer's seq_cst fetch-or on dirty before its load of this; service's seq_cst store before it looks at
	 * dirty a last time. */
	_Alignas(TAS_LINE) _Atomic uint32_t need_wakeup;
	/* Rounds of the service over dirty.  Odd: it has taken hints out and is still acting on them.  While this is odd or dirty
	 * says so, what this process did may not be visible yet; all of it is once a round was completed that began after the
	 * hint.  Pairs: made odd (seq_cst) before dirty is taken, even (release) after all effects. */
	_Atomic uint32_t busy;
	_Atomic uint64_t mail; /* core 0: tas_region.mail by index, posted and not yet looked at; set as dirty is */
	struct tas_bitmap dirty; /* by socket id: counters, shutdown, claim or options changed */
};

struct tas_region {
	struct tas_region_header h;
	/* Robust futex word of the service: its thread id while alive; FUTEX_OWNER_DIED set by the kernel when it dies. */
	_Alignas(TAS_LINE) _Atomic uint32_t alive;
	_Atomic uint32_t cpu; /* a hint: the processor on which core 0's thread was last seen while it polled this process */
	struct tas_core_hints core[TAS_CORES_MAX];
	_Alignas(4096) _Atomic uint64_t claims[TAS_SOCK_MAX / 64]; /* sockets this process holds a number for */
	_Alignas(4096) struct tas_ws ws[TAS_WS_MAX];
	struct tas_bitmap ready[TAS_WS_BITMAPS];
	struct tas_mail mail[TAS_MAILS];
};

#define TAS_ASSERT_AT(type, field, at) \
	_Static_assert(offsetof(struct type, field) == (at), #type "." #field " moved: raise TAS_ABI_MAX")
#define TAS_ASSERT_SIZE(type, size) \
	_Static_assert(sizeof(struct type) == (size), "struct " #type " changed size: raise TAS_ABI_MAX")

TAS_ASSERT_SIZE(tas_extent, 32);
TAS_ASSERT_AT(tas_extent, base, 0);
TAS_ASSERT_AT(tas_extent, off, 8);
TAS_ASSERT_AT(tas_extent, len, 16);
TAS_ASSERT_AT(tas_extent, gen, 20);
TAS_ASSERT_AT(tas_extent, kind, 24);
TAS_ASSERT_SIZE(tas_addr, 24);
TAS_ASSERT_AT(tas_addr, port, 2);
TAS_ASSERT_AT(tas_addr, scope, 4);
TAS_ASSERT_AT(tas_addr, ip, 8);
TAS_ASSERT_SIZE(tas_service_line, 128);
TAS_ASSERT_AT(tas_service_line, state, 4);
TAS_ASSERT_AT(tas_service_line, error, 8);
TAS_ASSERT_AT(tas_service_line, flags, 12);
TAS_ASSERT_AT(tas_service_line, rx_delivered, 16);
TAS_ASSERT_AT(tas_service_line, tx_acked, 24);
TAS_ASSERT_AT(tas_service_line, ev_in, 32);
TAS_ASSERT_AT(tas_service_line, ev_out, 36);
TAS_ASSERT_AT(tas_service_line, id, 40);
TAS_ASSERT_AT(tas_service_line, core, 44);
TAS_ASSERT_AT(tas_service_line, local, 48);
TAS_ASSERT_AT(tas_service_line, peer, 72);
TAS_ASSERT_AT(tas_service_line, aq_limit, 96);
TAS_ASSERT_AT(tas_service_line, rx_urg, 104);
TAS_ASSERT_AT(tas_service_line, moved, 112);
TAS_ASSERT_AT(tas_service_line, direct, 120);
TAS_ASSERT_SIZE(tas_extent_line, 128);
TAS_ASSERT_SIZE(tas_tx_base, 16);
TAS_ASSERT_SIZE(tas_app_line, 128);
TAS_ASSERT_AT(tas_app_line, tx_written, 8);
TAS_ASSERT_AT(tas_app_line, tx_base, 16);
TAS_ASSERT_AT(tas_app_line, tx_want, 48);
TAS_ASSERT_AT(tas_app_line, shut, 52);
TAS_ASSERT_AT(tas_app_line, err_seen, 56);
TAS_ASSERT_AT(tas_app_line, opts, 60);
TAS_ASSERT_AT(tas_app_line, keep_idle, 64);
TAS_ASSERT_AT(tas_app_line, user_timeout, 76);
TAS_ASSERT_AT(tas_app_line, rcvlowat, 80);
TAS_ASSERT_AT(tas_app_line, tx_urg, 96);
TAS_ASSERT_AT(tas_app_line, urg_read, 104);
TAS_ASSERT_SIZE(tas_lock_line, 128);
TAS_ASSERT_AT(tas_lock_line, wait_in, 0);
TAS_ASSERT_AT(tas_lock_line, nonblock, 8);
TAS_ASSERT_AT(tas_lock_line, subs, 16);
TAS_ASSERT_AT(tas_lock_line, want_room, 40);
TAS_ASSERT_AT(tas_lock_line, bell, 48);
TAS_ASSERT_AT(tas_lock_line, lock_rx, 64);
TAS_ASSERT_AT(tas_lock_line, ip, 88);
TAS_ASSERT_SIZE(tas_block, TAS_BLOCK_SIZE);
TAS_ASSERT_AT(tas_block, x, 128);
TAS_ASSERT_AT(tas_block, a, 256);
TAS_ASSERT_AT(tas_block, c, 384);
TAS_ASSERT_SIZE(tas_accept_entry, 16);
TAS_ASSERT_SIZE(tas_ws, 128);
TAS_ASSERT_SIZE(tas_mail, 128);
TAS_ASSERT_AT(tas_mail, peer, 16);
TAS_ASSERT_AT(tas_mail, block, 64);
TAS_ASSERT_SIZE(tas_region_header, 128);
TAS_ASSERT_AT(tas_region, alive, 128);
TAS_ASSERT_AT(tas_region, cpu, 132);
_Static_assert(sizeof(struct tas_bitmap) == 128 + 512 + 32768, "bitmap levels");
_Static_assert(TAS_SOCK_MAX == 64 * 64 * 64, "three levels of 64");

#endif
