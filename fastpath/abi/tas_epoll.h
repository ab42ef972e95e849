/* SPDX-License-Identifier: MIT */
/*
 * Epoll sets in shared memory.
 *
 * On Linux an epoll set is an open file: whoever holds a descriptor of it (after fork, exec, in a message) has the same members
 * and takes the same events.  So the members of TAS of a set lie in a memfd of the set's own, which the service makes, and
 * which every process that has a descriptor of the set maps.  A random token names it; the kernel's epoll set carries the
 * token as the data of a member (the set's eventfd), where any holder finds it in /proc/self/fdinfo.
 *
 *   head     marks and the sleepers' word, which the service uses; what applications need among themselves
 *   bucket   first item of each hash chain, by the lower 14 bits of the socket's id
 *   item     one per member; item 0 is the head of the ready list
 *
 * The service believes nothing of it and reads nothing but `sleeping`, and whether a socket is a member, which concerns who has the
 * set alone.  Applications that share a set may scribble over it, so
 * each range-checks what it follows.  Everything from `lock` on is used under it.  Whoever dies with the lock leaves `busy`
 * raised: the service frees the lock, and the next holder makes chains, lists and counts anew from the items, of which each
 * is whole while TAS_IT_USED is set.
 */
#ifndef TAS_EPOLL_H
#define TAS_EPOLL_H

#include "tas_abi.h"

enum {
	TAS_EP_MAX = 1 << 15,            /* sets of one service */
	TAS_EP_SLOT = TAS_PROC_MAX - 1,  /* stands in a subscription for the process slot: the index is a set's */
	TAS_EP_WORDS = 256,
	TAS_EP_TOP = TAS_EP_WORDS / 64, /* words that a bit of top stands for */
	TAS_EP_BUCKETS = TAS_EP_WORDS * 64,
	TAS_EP_ITEMS = 1 << 18,
	TAS_EP_BELLS = 64,
};

/* Data of our own members in the kernel's epoll set.  Upper 24 bits: what it is (no address of a program looks like that).  The
 * eventfd: the rest is random, and with it the set's token.  The kernel half of a listener: 16 bits of the token, and the item. */
#define TAS_EP_TOKEN 0xd1a5e70000000000ull
#define TAS_EP_TOKEN_BITS 0x000000ffffffffffull
#define TAS_EP_HALF 0xd1a5e80000000000ull

/* tas_ep_item.flags */
enum {
	TAS_IT_USED = 1u << 0,
	TAS_IT_READY = 1u << 1,  /* on the ready list */
	TAS_IT_FORCE = 1u << 2,  /* report if ready, whatever the event sequences say (added, modified, service died) */
	TAS_IT_OFF = 1u << 3,    /* EPOLLONESHOT has fired */
	TAS_IT_KHALF = 1u << 4,  /* listener: its backing socket is in the kernel's set under our marker */
	TAS_IT_UNSURE = 1u << 5, /* a process closed the socket: ask the service whether anybody has it before reporting */
	TAS_IT_ODD = 1u << 6,    /* met by a look that could not tell whose it is, and not reported by it */
};

/* What an edge-triggered member compares.  The event sequences say that something happened; the service may raise them a moment
 * after the state is visible (once for a batch), so an input edge also needs state that differs. */
struct tas_ep_seen {
	uint32_t in, out; /* event sequences */
	uint64_t rx;      /* rx_delivered */
	uint32_t flags, error, state, shut;
};

struct tas_ep_item {
	_Alignas(TAS_LINE) uint32_t flags; /* USED last when it begins, first when it ends */
	uint32_t id, gen;                  /* the socket */
	uint32_t run;                      /* of which service (lower half of instance) */
	tas_off_t block;
	int32_t fd; /* number under which it was added: with the socket, the key */
	uint32_t events;
	uint64_t data;
	struct tas_ep_seen seen; /* at the last report */
	uint64_t stamp;          /* wait call that reported it */
	uint32_t hash_next;      /* also: next free item */
	uint32_t ready_next, ready_prev;
	uint32_t reserved[5];
};

struct tas_ep_head {
	/* Marks: look at the members of these buckets.  Producer: the service's loop; consumer: whoever holds the lock.  Word, then
	 * top if the word was 0 (both seq_cst); the consumer takes top, then the words. */
	_Alignas(TAS_LINE) _Atomic uint64_t top;
	_Alignas(TAS_LINE) _Atomic uint64_t word[TAS_EP_WORDS];
	_Alignas(TAS_LINE) _Atomic uint32_t sleeping; /* as tas_ws.sleeping */
	_Atomic uint32_t holders;                     /* written by the service: processes that have the set, 1 more if it was passed */
	_Atomic uint32_t bell_seq;                    /* written by the service: raised (release) after a change of bell */
	_Atomic tas_off_t bell[TAS_EP_BELLS];         /* written by the service: bells of this set, 0: none */
	/* Applications only. */
	_Alignas(TAS_LINE) _Atomic uint32_t lock; /* as tas_lock_line.lock_rx */
	uint32_t busy;
	_Atomic uint32_t n_items, n_listen;
	_Atomic uint32_t sleepers; /* threads asleep on the set (a hint: a killed one stays counted) */
	_Atomic uint32_t kernel;   /* has or had members in the kernel's set */
	_Atomic uint32_t exposed;  /* something else waits for the set's descriptor */
	_Atomic uint32_t rung;     /* the eventfd was written by us, and not read since */
	uint32_t near;             /* has had a member whose other end may be its holder's as well */
	uint32_t death_seen;       /* everything was forced since the service died */
	uint32_t used, free;       /* items ever used; first free one */
	uint64_t stamp;
	_Atomic uint64_t active; /* tsc of the last event taken */
	uint32_t turn;
};

/*
 * A bell: marks and a sleepers' word like those in the head, for direct peers (docs/internals.md), which do not have the set's
 * memory.  It lies in the memory set of their connections.  Producers are of several processes, any of which can stop or die
 * between two instructions: so each marks word and top, and none relies on another.
 */
enum {
	TAS_BELL_AWAKE = 0,
	TAS_BELL_SERVICE = 1, /* somebody sleeps whom the service has to wake */
	TAS_BELL_OPEN = 2,    /* whoever has the eventfd (TAS_MSG_BELL) can, after he has made this TAS_BELL_AWAKE (compare-and-swap) */
};

struct tas_bell {
	_Alignas(TAS_LINE) _Atomic uint64_t top;
	_Atomic uint64_t key;      /* written by the service; never the same of two; 0: nobody hears this one (look after marking) */
	_Atomic uint32_t sleeping; /* TAS_BELL_*; the sleeper exchanges it before its last look */
	_Atomic uint32_t sub;      /* whose it is, as in a subscription; written by the service, before the key */
	_Alignas(TAS_LINE) _Atomic uint64_t word[TAS_EP_WORDS];
};

static inline void tas_bell_mark(struct tas_bell *b, uint32_t id)
{
	uint32_t bucket = id & (TAS_EP_BUCKETS - 1), w = bucket / 64;
	uint64_t top = 1ull << (w / TAS_EP_TOP);

	/* pairs with the consumer's exchanges: it empties top first.  While top says so, whoever said it, it will come to the words */
	atomic_fetch_or_explicit(&b->word[w], 1ull << (bucket % 64), memory_order_seq_cst);
	if (!(atomic_load_explicit(&b->top, memory_order_seq_cst) & top))
		atomic_fetch_or_explicit(&b->top, top, memory_order_seq_cst);
}

struct tas_ep_memory {
	_Alignas(4096) struct tas_ep_head head;
	_Alignas(4096) uint32_t bucket[TAS_EP_BUCKETS];
	_Alignas(4096) struct tas_ep_item item[TAS_EP_ITEMS];
};

TAS_ASSERT_SIZE(tas_ep_seen, 32);
TAS_ASSERT_SIZE(tas_ep_item, 128);
TAS_ASSERT_AT(tas_ep_item, seen, 40);
TAS_ASSERT_AT(tas_ep_head, sleeping, 128 + 2048);
TAS_ASSERT_AT(tas_ep_head, bell, 128 + 2048 + 16);
TAS_ASSERT_AT(tas_ep_head, lock, 128 + 2048 + 640);
TAS_ASSERT_SIZE(tas_bell, 128 + 2048);
TAS_ASSERT_AT(tas_ep_memory, item, 4096 + 4 * TAS_EP_BUCKETS);

#endif
