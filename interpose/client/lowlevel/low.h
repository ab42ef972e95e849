/* SPDX-License-Identifier: MIT */
/*
 * What libtas offers to libtas_sockets: sessions, requests, shared memory, hints, locks, wait sets, fork.
 *
 * A session is one attachment to one run of the service.  Sockets refer to the session that they were made in; after
 * the service died its memory stays mapped until the last such socket is gone, so that no pointer into it ever dangles.
 *
 * Locks inside the process are mutexes of this file.  Whoever holds one that a signal handler might want (through read,
 * write or close) has blocked signals.  Order: table (sockets/) → epoll set → session.ws_lock → session.rpc.
 */
#ifndef TAS_LOW_H
#define TAS_LOW_H

#include <pthread.h>
#include <stdbool.h>

#include "abi/tas_abi.h"
#include "abi/tas_bitmap.h"
#include "abi/tas_epoll.h"
#include "abi/tas_msg.h"
#include "lowlevel/sys.h"

#pragma GCC visibility push(default)

/* ---- mutex: 0 free, 1 held, 2 held and waited for ---- */
struct tas_mutex {
	_Atomic uint32_t w;
};
void tas__mutex_wait(struct tas_mutex *m);

static inline bool tas__mutex_try(struct tas_mutex *m)
{
	uint32_t free = 0;

	return atomic_compare_exchange_strong_explicit(&m->w, &free, 1, memory_order_acquire, memory_order_relaxed);
}

static inline void tas__mutex_lock(struct tas_mutex *m)
{
	if (!tas__mutex_try(m))
		tas__mutex_wait(m);
}

static inline void tas__mutex_unlock(struct tas_mutex *m)
{
	if (atomic_exchange_explicit(&m->w, 0, memory_order_release) == 2)
		sys_futex(&m->w, FUTEX_WAKE_PRIVATE, 1, NULL);
}

/* No handler of the program runs on this thread until tas__signals_restore() gets what this returned.  They nest.  The
 * hard kind is for sections that sleep or make calls which a signal would interrupt. */
uint64_t tas__signals_block(void);
uint64_t tas__signals_block_hard(void);
void tas__signals_restore(uint64_t mask);

/* ---- session ---- */
/* Memory of sockets that other memory sets hold, too, as far as this process uses it.  Found without a lock by whoever has a
 * reference (tas__shared_hold), which keeps number and chunks; without references the entry may become another's. */
struct tas_shared {
	_Atomic uint32_t number;
	uint32_t refs; /* under ws_lock */
	_Atomic(uint8_t *) chunk[TAS_CHUNKS_MAX];
};
enum { TAS_SHARED_MAX = 1024, TAS_BELLS_KNOWN = 64 };

/* A bell that we have rung, and its eventfd.  A newer one takes the place of an older, with its number (dup3): a
 * thread that is about to write there finds afterwards that it was not its bell any more, and lets the service ring. */
struct tas_bell_known {
	_Atomic uint64_t key; /* 0: none, or becoming another's */
	_Atomic int fd;	      /* plus 1; 0: none yet; stays until the session ends */
	_Atomic bool refused; /* we do not get the eventfd of this key */
};

struct tas_session {
	_Atomic uint32_t refs; /* current session: 1; each socket, each user; 0: the struct may be taken again */
	_Atomic bool dead; /* the service is gone (or we are a child that could not join) */
	_Atomic int ctl, door; /* internal descriptors */
	struct tas_region *r;
	uint64_t size;
	uint32_t slot; /* proc_slot; changes in a forked child */
	uint32_t set_id;
	uint64_t instance;
	_Atomic uint64_t stuck; /* where the service stood when it was waited for in vain (ready.c) */
	struct tas_mutex rpc;
	uint32_t seq; /* under rpc */
	_Atomic(uint8_t *) chunk[TAS_CHUNKS_MAX];
	_Atomic(struct tas_shared *) shared[TAS_SHARED_MAX]; /* under ws_lock to write; filled from the start */
	struct tas_mutex ws_lock; /* wait sets, shared memory */
	uint64_t ws_open[TAS_WS_MAX / 64], ws_busy[TAS_WS_MAX / 64]; /* under ws_lock */
	int ws_fd[TAS_WS_MAX]; /* valid where ws_open */
	struct tas_bell_known bell[TAS_BELLS_KNOWN]; /* at key % TAS_BELLS_KNOWN; written under ws_lock */
	_Atomic uint32_t bells; /* of our epoll sets, in memory of our own set */
	/* fork in progress (under all locks) */
	struct {
		int ctl, door, region;
		uint64_t size;
	} child;
};

/* Takes a reference to the current session; NULL: none.  Never attaches. */
struct tas_session *tas__session_get(void);
/* Takes a reference, attaching first if need be. */
int tas__session_attach(struct tas_session **ss);
void tas__session_ref(struct tas_session *ss);
void tas__session_put(struct tas_session *ss);
/* True once this process attached to some service. */
bool tas__ever_attached(void);

/* Is the service of this session alive?  The first who sees it dead wakes every sleeper of this process. */
static inline bool tas__alive(struct tas_session *ss);
void tas__session_died(struct tas_session *ss);

/* One request and its reply (both in *m).  fds go with the request; *n_in descriptors at most come into in, CLOEXEC;
 * *n_in becomes their number.  Returns 0 when a reply came (its m->err may say anything), or -errno: session is dead.
 */
int tas__rpc(struct tas_session *ss, struct tas_msg *m, const int *fds, unsigned n_fds, int *in, unsigned *n_in);
/* The same, with rep.err folded into the result. */
int tas__ask(struct tas_session *ss, struct tas_msg *m, uint16_t op, const int *fds, unsigned n_fds);
/* TAS_MSG_CONNECT by mail, of a backing socket whose name is in request->ident.  As tas__ask(); -ESTALE: ask by message. */
int tas__mail_connect(struct tas_session *ss, const struct tas_mail *request, struct tas_msg_sock *sock);
/* Message without reply. */
int tas__tell(int ctl, struct tas_msg *m, uint16_t op);
int tas__tell_fd(int ctl, struct tas_msg *m, uint16_t op, int fd);

/* Address of off (n bytes inside one chunk), mapping the chunk when needed.  NULL: not ours, or no memory. */
void *tas__mem(struct tas_session *ss, tas_off_t off, uint32_t n);
/* The same, NULL where it would have to be mapped first. */
void *tas__mem_known(struct tas_session *ss, tas_off_t off, uint32_t n);

/* A reference to the memory that off lies in, when it is shared memory: 0 or -ENOMEM. */
int tas__shared_hold(struct tas_session *ss, uint32_t number); /* under ws_lock */
struct tas_shared *tas__shared_held(struct tas_session *ss, uint32_t number); /* by the caller; NULL for 0 */
void tas__shared_release(struct tas_session *ss, uint32_t number);
void tas__shared_free(struct tas_session *ss); /* the session ends */

/* The service put this process, which held no socket, into another memory set: chunks mapped so far are of no use. */
void tas__session_moved(struct tas_session *ss, uint32_t set_id);

void tas__doorbell(struct tas_session *ss, unsigned core);

/* Regions and chunks.  The hook is for a test that runs the service in the same process: it answers with the service's
 * own mapping, so that ThreadSanitizer can see both sides. */
extern void *(*tas__map_hook)(int fd, uint64_t size);
void *tas__shared_map(int fd, uint64_t size); /* NULL: no memory */
void tas__shared_unmap(void *p, uint64_t size);

/* "Look at socket id": after the state was published. */
static inline void tas__hint(struct tas_session *ss, struct tas_block *b, uint32_t id)
{
	unsigned owner = atomic_load_explicit(&b->s.core, memory_order_relaxed), core = owner < TAS_CORES_MAX ? owner : 0;
	struct tas_core_hints *h = &ss->r->core[core];

	tas_bitmap_set(&h->dirty, id);
	/* pairs: the set above is seq_cst; the service stores need_wakeup, then looks at dirty */
	if (atomic_load_explicit(&h->need_wakeup, memory_order_seq_cst))
		tas__doorbell(ss, core);
}

static inline bool tas__alive(struct tas_session *ss)
{
	uint32_t v = atomic_load_explicit(&ss->r->alive, memory_order_acquire);

	if (__builtin_expect(!(v & FUTEX_OWNER_DIED) && (v & FUTEX_TID_MASK) &&
				     !atomic_load_explicit(&ss->dead, memory_order_relaxed),
			     1))
		return true;
	if (!atomic_load_explicit(&ss->dead, memory_order_relaxed))
		tas__session_died(ss);
	return false;
}

/* ---- internal descriptors ---- */
/* Moves fd to a high number, close-on-exec, and marks it.  Returns the new number, or fd itself marked. */
int tas__internal_fd(int fd);
void tas__internal_close(int fd);
/* Told about internal numbers: set by libtas_sockets, which owns the table. */
extern void (*tas__internal_mark)(int fd, bool internal);

/* ---- shared locks (tas_lock_line.lock_rx, lock_tx) ---- */
/* 0; -EDEADLK: this thread holds it (we are in a signal handler); -EPIPE: service dead, owner maybe too; -ETIMEDOUT. */
int tas__lock(struct tas_session *ss, _Atomic uint32_t *w, int64_t timeout_ns);
void tas__unlock_wake(_Atomic uint32_t *w);
/* What this thread holds, or is about to take: lock.c. */
extern __thread _Atomic uint32_t *tas__held[2] __attribute__((tls_model("initial-exec")));
extern __thread uint32_t tas__my_tid __attribute__((tls_model("initial-exec"))); /* 0: not asked yet */

/* Not if that takes more than one look. */
static inline bool tas__lock_try(struct tas_session *ss, _Atomic uint32_t *w)
{
	uint32_t tid = tas__my_tid, none = 0;

	if (!tid || tas__held[0])
		return false;
	tas__held[0] = w;
	atomic_signal_fence(memory_order_seq_cst);
	if (__builtin_expect(atomic_compare_exchange_strong_explicit(w, &none, (ss->slot + 1) << 20 | (tid & 0xfffff),
								     memory_order_acquire, memory_order_relaxed), 1))
		return true;
	tas__held[0] = NULL;
	return false;
}

static inline void tas__unlock(_Atomic uint32_t *w)
{
	uint32_t v = atomic_exchange_explicit(w, 0, memory_order_release);

	atomic_signal_fence(memory_order_seq_cst);
	if (tas__held[1] == w)
		tas__held[1] = NULL;
	else if (tas__held[0] == w)
		tas__held[0] = NULL;
	if (__builtin_expect(v >> 31, 0))
		tas__unlock_wake(w);
}

/* ---- waiting ---- */
uint64_t tas__now(void); /* ns, CLOCK_MONOTONIC, by system call */

static inline uint64_t tas__tsc(void)
{
	return __builtin_ia32_rdtsc();
}

/* A short wait before sleeping: timed yields, about 20 µs in all.  Zero it; call until it says false. */
struct tas_spin {
	uint64_t start, rounds;
	bool gives_way; /* looks twice only beside the service: for who waits for many small things, not for a stream */
};
/* active: tsc of the last event seen by the caller; long ago means: do not spin at all */
/* What a seccomp filter of the program's has left us (sandbox.c). */
enum tas_may { TAS_MAY_YIELD, TAS_MAY_WAITV, TAS_MAY_PRLIMIT, TAS_MAY_RECOGNISE, TAS_MAY_ASK, TAS_MAY_OPEN, TAS_MAY_FILES,
	       TAS_MAY_EPOLL, TAS_MAY_NOWAIT };
struct sock_fprog;

extern _Atomic uint32_t tas__forbidden;

static inline bool tas__may(enum tas_may what)
{
	return !(atomic_load_explicit(&tas__forbidden, memory_order_relaxed) >> what & 1);
}

uint32_t tas__filter_forbids(const struct sock_fprog *prog); /* bits of enum tas_may */
void tas__forbid(uint32_t forbidden);

uint64_t tas__per_us(void); /* cycles */
bool tas__spin(struct tas_session *ss, struct tas_spin *s, uint64_t active);

/* Handlers that ran on this thread, and the eventfd of a sleep that is about to begin (signal.c). */
struct tas_sigs {
	_Atomic uint32_t any, intr; /* all; those that were installed without SA_RESTART */
	/* what a futex sleep compares: rises with `any` or with `intr`, and with every pthread_cancel */
	_Atomic uint32_t news_any, news_intr;
	_Atomic int wake;
	_Atomic uint8_t cancel; /* TAS_CANCEL_* */
	_Atomic uint32_t asleep; /* cancel.c */
};
void tas_signal_ran(bool interrupts);
void tas_signals_deferred(void);
bool tas_signal_defer(int sig, const siginfo_t *info, void *context);
/* somebody called pthread_cancel for this thread; its type is PTHREAD_CANCEL_ASYNCHRONOUS */
enum { TAS_CANCEL_ASKED = 1, TAS_CANCEL_ANY_TIME = 2 };
extern __thread struct tas_sigs tas__sigs __attribute__((tls_model("initial-exec")));

/* ---- cancellation: cancel.c ---- */
/* A system call that may sleep and moves nothing when it is interrupted: its result, or -ECANCELED. */
long tas__sleep6(long nr, long a, long b, long c, long d, long e, long f);
#define tas__sleep3(nr, a, b, c) tas__sleep6(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define tas__sleep5(nr, a, b, c, d, e) tas__sleep6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)
/* Was this thread cancelled, and does it allow that? */
bool tas__cancelled(void);
int tas_cancel(pthread_t thread, int (*libc_cancel)(pthread_t));
void tas_cancel_point(void);

struct tas_sig_mark {
	uint32_t any, intr;
};
static inline struct tas_sig_mark tas__sig_mark(void)
{
	return (struct tas_sig_mark){atomic_load_explicit(&tas__sigs.any, memory_order_relaxed),
				     atomic_load_explicit(&tas__sigs.intr, memory_order_relaxed)};
}
/* Has a handler run since the mark that interrupts a call?  restarts: the call restarts after SA_RESTART. */
static inline bool tas__sig_came(struct tas_sig_mark m, bool restarts)
{
	struct tas_sig_mark now = tas__sig_mark();

	return restarts ? now.intr != m.intr : now.any != m.any;
}
/* ppoll that also returns (0 or more, or -EINTR) when a handler that counts has run since the mark; wake: an eventfd
 * among p, or -1.  -ECANCELED. */
int tas__ppoll(struct pollfd *p, unsigned long n, struct timespec *ts, const sigset_t *mask, struct tas_sig_mark m,
	       bool restarts, int wake);

/* Sleeps while *w1 == v1, *w2 == v2 and *news == v (one of tas__sigs, loaded before the caller looked at its mark), and
 * the service lives.  0: look again (at the mark, too); -EINTR; -ECANCELED. */
int tas__park(struct tas_session *ss, _Atomic uint32_t *w1, uint32_t v1, _Atomic uint32_t *w2, uint32_t v2,
	      _Atomic uint32_t *news, uint32_t v);

/* A wait set in use: taken for the time of one call, or for the thread of async.c (bitmap). */
struct tas_waiter {
	struct tas_session *ss; /* referenced; NULL: none */
	uint32_t index;
	int fd; /* eventfd, non-blocking */
};
int tas__waiter_get(struct tas_session *ss, bool bitmap, struct tas_waiter *w);
void tas__waiter_put(struct tas_waiter *w);
/* Announce sleep; afterwards the caller looks at state again and sleeps in the kernel with w->fd among its descriptors.
 */
void tas__waiter_arm(struct tas_waiter *w);
void tas__waiter_disarm(struct tas_waiter *w);
/* Empties the eventfd. */
void tas__waiter_drain(struct tas_waiter *w);
void tas__waiter_signal(struct tas_waiter *w);
/* exclusive: an event wakes one of those who say so.  Said once with false, the wait set is not. */
uint32_t tas__waiter_sub(const struct tas_waiter *w); /* who it is in subscriptions */
int tas__subscribe(struct tas_session *ss, uint32_t sub, struct tas_block *b, uint32_t id, uint32_t gen, bool exclusive);
void tas__unsubscribe(struct tas_session *ss, uint32_t sub, struct tas_block *b, uint32_t id, uint32_t gen);
/* Something happened on socket id, which the wait sets in b->c.subs watch: marks and wakes those of this process and the one
 * that has a bell.  True: there are others, whom the service has to tell.  *learn: a bell to be learnt without locks, or 0. */
bool tas__tell_subscribers(struct tas_session *ss, struct tas_block *b, uint32_t id, struct tas_bell *bell, tas_off_t *learn);
void tas__bell_learn(struct tas_session *ss, tas_off_t at); /* asks the service for its eventfd */
/* Wakes the threads of this process that watch the block through wait sets other than epoll's. */
void tas__wake_subscribers(struct tas_session *ss, struct tas_block *b);

/* ---- fork: called by libtas_sockets inside its own handlers, locks of its own held ---- */
void tas__fork_prepare(void);
void tas__fork_parent(void);
void tas__fork_child(
	void); /* the session, if it survives, has a new region, slot and descriptors; wait sets are gone */

/* ---- talk ---- */
bool tas__env_require(void);
/* Is there a control socket that this process could attach to?  A look at the file only. */
bool tas__service_there(void);
/* TAS_LOG=1: reasons on stderr */
void tas__log(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
void tas__warn_once(const char *fmt, ...) __attribute__((format(printf, 1, 2)));
uint32_t tas__tid_ask(void);
static inline uint32_t tas__tid(void)
{
	uint32_t t = tas__my_tid;

	return t ? t : tas__tid_ask();
}

#pragma GCC visibility pop

#endif
