/* SPDX-License-Identifier: MIT */
/*
 * Inside libtas_sockets: numbers, socket objects, epoll sets.
 *
 * Every number that may be ours has an entry with a pointer: PLAIN and TAS numbers to a struct tas_obj, EPOLL numbers
 * to a struct tas_ep.  An object counts references: one per number, one per call in progress.  So close() while another
 * thread is blocked behaves as on Linux: the socket closes when the call returns.  At 0 the claim goes, and the service
 * closes the connection unless another process still holds it.
 *
 * The table lock is taken with signals blocked (close is callable from handlers).  Objects and items are type-stable:
 * memory of these types is never given back, so a stale pointer can be looked at (and refused) without a lock.
 */
#ifndef TAS_SOCK_PRIVATE_H
#define TAS_SOCK_PRIVATE_H

#include "lowlevel/low.h"
#include "lowlevel/wild.h"
#include "tas_sockets.h"

enum tas_obj_kind { TAS_OBJ_PLAIN, TAS_OBJ_LISTEN, TAS_OBJ_CONN };

/* tas_obj.flags */
enum {
	TAS_OF_BOUND = 1u << 0, /* bind() succeeded */
	TAS_OF_WATCHED = 1u << 1, /* the service watches the backing object */
	TAS_OF_SHARED = 1u << 2, /* was there at a fork: another process may act on it */
	TAS_OF_CONNECTED = 1u << 3, /* connect() has reported success */
	TAS_OF_DEAD_TOLD = 1u << 4, /* ECONNRESET for the service's death was reported */
	TAS_OF_ERRQUEUE = 1u << 10, /* may have something on its error queue */
	TAS_OF_LOOKED = 1u << 12, /* is being closed, and whether something was unread has been said */
	TAS_OF_ASYNC = 1u << 9, /* has an owner to be told by signals (async.c) */
	TAS_OF_ANNOUNCED = 1u << 5, /* the service knows the backing object (listen, connect, watch) */
	TAS_OF_MARKED = 1u << 8, /* its backing socket is not as new (pool.c): an unknown option, a member of kernel sets */
	TAS_OF_WATCHED_TOO = 1u << 7, /* without the interposer: the service watches it, besides claims */
	TAS_OF_GHOST = 1u << 11, /* no number and no claim: stands for a member of an epoll set that others hold */
	TAS_OF_SPOILT = 1u << 13, /* its block says that it is closed, though it is not: so wrote who shares that memory */
	TAS_OF_CONNECTING = 1u << 6, /* PLAIN: a thread is asking the service to connect it; others wait for the answer */
};

enum { TAS_LATENT_BLOCKS = 1u << 30 };

struct tas_member;

struct tas_obj {
	/* A request and its answer touch these two lines. */
	_Alignas(64) _Atomic uint32_t refs;
	_Atomic uint32_t kind; /* release; PLAIN → others once, in place */
	_Atomic uint32_t flags;
	_Atomic int so_error; /* pending error that is not the block's (refused connect) */
	uint32_t id, gen;
	_Atomic(struct tas_block *) b; /* changes when the socket moves: tas__block() */
	struct tas_session *ss; /* referenced; NULL while PLAIN */
	_Atomic(struct tas_shared *) shared; /* memory that b lies in, held; NULL: this process's own set */
	/* direct: where the next bytes will lie, most likely, and who is told; only ever fetched into the cache */
	_Atomic(const void *) next_in;
	_Atomic(const void *) next_out;
	_Atomic(const struct tas_block *) peer;
	_Atomic uint32_t number; /* of `shared` */
	_Atomic uint64_t active; /* tsc of the last progress: whether spinning pays */
	_Atomic uint64_t consumed; /* by a direct peer, as far as was looked; lock_tx */
	_Atomic uint64_t waited; /* tsc when the service was told that a direct writer waits */
	_Atomic(struct tas_member *) items; /* memberships in epoll sets; table lock to write */
	_Atomic uint32_t grow_asked; /* ring (~gen; of a direct peer its length) for which a larger one was asked for and waited for */
	/* of the options that are flags (TAS_BIT_* in the order of option.c): values as this process set them */
	_Atomic uint32_t flags_known, flags_on;
	/* flags that are set in the backing socket, left by its last user, though the program has not set them; TAS_LATENT_BLOCKS: its
	 * O_NONBLOCK is not what `blocks` says */
	_Atomic uint32_t latent;
	struct tas_kept *kept; /* pool.c; table lock */
	_Atomic uint64_t touched[2]; /* options that were set: enum tas_option_bit */
	_Atomic uint32_t ident; /* of the backing socket: tas_msg_sock.ident; 0: none */
	int family; /* PLAIN, of tas_socket(): AF_INET or AF_INET6; 0: ask */
	_Atomic int blocks; /* 1 blocking, 0 O_NONBLOCK, and no other flag of the file is set; -1: ask */
	_Atomic uint64_t timeout[2]; /* SO_SNDTIMEO, SO_RCVTIMEO in ns, as a seccomp filter found them that forbids asking */
	_Atomic bool no_space; /* a writer or poll was refused since SIGIO told of room */
	_Atomic uint32_t turn; /* listener: alternates between its halves */
	int backlog; /* listener */
	_Atomic uint64_t retry_at; /* listener: when to try the next service, ns */
	tas_off_t at; /* position of b */
	struct tas_obj *next; /* all objects ever made */
	struct tas_obj *free; /* free list; table lock */
};

/* ---- table.c ---- */
struct tas_entry {
	_Atomic(void *) p;
	_Atomic uint64_t ino;
};
extern bool tas__trusted;
extern __thread bool tas__owned; /* the number is an open object's own (Python): no need to verify, as with trust */
extern _Atomic uint32_t tas__high; /* numbers at or above were never noted */

uint64_t tas__table_lock(void);
void tas__table_unlock(uint64_t mask);
static inline uint8_t tas__state(int fd)
{
	return (unsigned)fd < TAS_FD_TABLE_MAX ? __atomic_load_n(&tas_fd_states[fd], __ATOMIC_ACQUIRE) : TAS_FD_KERNEL;
}
/* What the kernel may be given for fd: the program cannot reach internal numbers. */
static inline int tas__raw(int fd)
{
	return tas__state(fd) == TAS_FD_INTERNAL ? -1 : fd;
}
enum { TAS_ENTRY_BITS = 9 };
struct tas_entries { /* a page of them */
	struct tas_entry e[1 << TAS_ENTRY_BITS];
};
extern _Atomic(struct tas_entries *) tas__entries[TAS_FD_TABLE_MAX >> TAS_ENTRY_BITS];
static inline struct tas_entry *tas__entry(int fd) /* NULL: never used */
{
	struct tas_entries *p;

	if ((unsigned)fd >= TAS_FD_TABLE_MAX)
		return NULL;
	p = atomic_load_explicit(&tas__entries[fd >> TAS_ENTRY_BITS], memory_order_acquire);
	return p ? &p->e[fd & ((1 << TAS_ENTRY_BITS) - 1)] : NULL;
}
void tas__set_state(int fd, enum tas_fd_state st);

/* What a number held, taken out of the table: give to tas__drop_done() without the lock. */
struct tas_dropped {
	struct tas_obj *o;
	struct tas_ep *ep;
};
/* Under the lock.  Makes fd refer to p (one reference is handed over).  On -ENOMEM nothing changed. */
int tas__number_set(int fd, enum tas_fd_state st, void *p, struct tas_dropped *old);
struct tas_dropped tas__number_drop(int fd, enum tas_fd_state st);
void tas__drop_done(struct tas_dropped d);
/* The same with the lock taken inside. */
int tas__adopt(int fd, enum tas_fd_state st, void *p);
void tas__forget(int fd, enum tas_fd_state st);
/* All numbers that refer to o (fd is one, and the caller holds a reference) get state st; if to is given they refer to
 * it afterwards (its references are raised).  Under the lock.  Returns how many references of o are to be put
 * afterwards. */
unsigned tas__renumber(struct tas_obj *o, enum tas_fd_state st, struct tas_obj *to, int fd);

/* How many numbers refer to o. */
unsigned tas__numbers(const struct tas_obj *o);

/* The object of a PLAIN or TAS number, referenced; NULL: anything else.  Asks when the number is UNKNOWN. */
struct tas_obj *tas__obj_get(int fd);
/* The same for a connection; NULL otherwise (its backing socket gives the right answer for everything else). */
static inline struct tas_obj *tas__conn_get(int fd);

/* ---- pool.c: backing sockets that are used again; under the table lock ---- */
struct tas_kept {
	int fd; /* the high number; 0: this place is empty */
	bool v6, nonblock;
	uint32_t emptied;
	uint32_t ident; /* tas_obj.ident */
	uint32_t on;    /* flags that are set in it: tas_obj.latent of who gets it */
	uint64_t ino;   /* a program that closes numbers by raw system calls may have put something else there */
	struct tas_obj *owner; /* NULL: nobody uses it */
};
/* A number for a new socket (flags: SOCK_NONBLOCK, SOCK_CLOEXEC), to be given to its object by tas__pool_lend(); -ENOENT: none is
 * kept, make one. */
int tas__pool_take(int domain, int flags, struct tas_kept **k);
void tas__pool_lend(struct tas_kept *k, struct tas_obj *o, bool nonblock); /* under the lock, too */
/* fd, just taken out of the table, was the only number of o, whose only reference is the caller's.  Not NULL: the socket is
 * kept and fd is free: give o up, then call tas__pool_add(), which takes the lock.  NULL: close fd. */
struct tas_kept *tas__pool_return(struct tas_obj *o, int fd);
void tas__pool_add(struct tas_kept *k);
void tas__pool_part(struct tas_obj *o); /* o's backing socket has its own numbers only, from now on */
void tas__pool_empty(void);
void tas__pool_fork(void); /* before fork: nothing is kept */
void tas__pool_fork_child(void);

/* ---- object.c ---- */
struct tas_obj *tas__obj_new(enum tas_obj_kind kind); /* under the lock; refs 1 */
void tas__obj_put(struct tas_obj *o);
bool tas__obj_try_ref(struct tas_obj *o);
struct tas_obj *tas__obj_all(void);
/* Under the lock: an object of this process that stands for socket id. */
struct tas_obj *tas__obj_find(struct tas_session *ss, uint32_t id, uint32_t gen);
/* Under the lock: the object that has a number for it, without a reference. */
struct tas_obj *tas__obj_numbered(struct tas_session *ss, uint32_t id, uint32_t gen);
/* Under the lock: an object without claim, of a member of epoll set `index`. */
struct tas_obj *tas__ghost_new(struct tas_session *ss, const struct tas_msg_sock *s, uint32_t index);
void tas__ghost_put(struct tas_obj *o);
/* Asks with fd (-1: none) for a socket that lies in another memory set, and so moves; not while somebody copies its bytes (a stopped program
 * may do so for long). */
int tas__ask_until_moved(struct tas_session *ss, struct tas_msg *m, uint16_t op, int fd);
/* Gives o its block.  0 or -errno. */
int tas__obj_bind_block(struct tas_obj *o, struct tas_session *ss, const struct tas_msg_sock *s);
/* The block moved (the socket was passed to a process of another memory set): the new one. */
struct tas_block *tas__follow(struct tas_obj *o);
static inline bool tas__moved(const struct tas_block *b)
{
	/* seq_cst: after this thread stored a word of the block without a lock (tas_abi.h) */
	return atomic_load_explicit(&b->s.moved, memory_order_seq_cst) != 0;
}
static inline struct tas_block *tas__block(struct tas_obj *o)
{
	struct tas_block *b = atomic_load_explicit(&o->b, memory_order_acquire);

	return __builtin_expect(tas__moved(b), 0) ? tas__follow(o) : b;
}
/* Stores a word of the application's line without a lock, where it counts. */
#define tas__app_store(o, field, v) \
	do { \
		struct tas_block *b_; \
		do { \
			b_ = tas__block(o); \
			atomic_store(&b_->field, v); \
		} while (tas__moved(b_)); \
	} while (0)
void tas__app_or(struct tas_obj *o, uint32_t shut); /* a.shut */
int tas__obj_sub_add(struct tas_obj *o, uint32_t sub, bool exclusive); /* sub: tas__waiter_sub(), tas__ep_sub() */
void tas__obj_sub_del(struct tas_obj *o, uint32_t sub);
int tas__obj_subscribe(struct tas_waiter *w, struct tas_obj *o, bool exclusive);
void tas__obj_unsubscribe(struct tas_waiter *w, struct tas_obj *o);
/* Takes lock_rx, or lock_tx, of the block that o has at that moment: *b.  As tas__lock(). */
int tas__obj_lock(struct tas_obj *o, bool tx, struct tas_block **b);
/* Memory that belongs to o.  A socket's shared memory names nothing but itself: who else has it could point anywhere. */
static inline void *tas__obj_mem(struct tas_obj *o, tas_off_t off, uint32_t n)
{
	struct tas_shared *s = atomic_load_explicit(&o->shared, memory_order_acquire);
	uint32_t chunk = TAS_OFF_CHUNK(off), at = TAS_OFF_BYTE(off);
	uint8_t *p;

	if (TAS_CHUNK_NUMBER(chunk) != (s ? atomic_load_explicit(&s->number, memory_order_relaxed) : 0))
		return NULL;
	p = atomic_load_explicit((s ? s->chunk : o->ss->chunk) + TAS_CHUNK_INDEX(chunk), memory_order_acquire);
	if (__builtin_expect(!p, 0))
		return tas__mem(o->ss, off, n);
	return at <= TAS_CHUNK_SIZE && n <= TAS_CHUNK_SIZE - at ? p + at : NULL;
}
/* A new object for a socket that the service named (claim set); NULL: no memory, claim given back. */
struct tas_obj *tas__obj_from(struct tas_session *ss, const struct tas_msg_sock *s, enum tas_obj_kind kind);
void tas__claim_drop(struct tas_session *ss, struct tas_block *b, uint32_t id);
int tas__recognise(int fd); /* UNKNOWN number → its state */
int tas__plain_recheck(int fd);
/* r, or the pending error of a PLAIN number that the kernel's ENOTCONN or EPIPE stands before. */
ssize_t tas__plain_result(int fd, ssize_t r);
/* A PLAIN socket with a pending error exists, or did: poll has to look. */
extern _Atomic bool tas__plain_errors;
void tas__plain_error(struct tas_obj *o, int err);
/* Another object takes over all numbers and memberships of o (listener registered again, failed connect begun anew). */
void tas__obj_replace(struct tas_obj *o, struct tas_obj *by, enum tas_fd_state st, int fd);
void tas__fork_setup(void);

/* Pending error of the connection, or 0; take: it counts as reported. */
int tas__obj_error(struct tas_obj *o, bool take);
/* Service alive and block still ours? */
static inline bool tas__obj_live(struct tas_obj *o)
{
	return tas__alive(o->ss) && atomic_load_explicit(&o->b->s.gen, memory_order_acquire) == o->gen;
}

/* Does nobody hold it any more?  (While its service lives.)  A listener's block goes when it is shut, too: there the kernel's half
 * knows. */
static inline bool tas__obj_closed(struct tas_obj *o)
{
	const struct tas_service_line *s = &tas__block(o)->s;

	return atomic_load_explicit(&o->kind, memory_order_relaxed) != TAS_OBJ_LISTEN &&
	       (atomic_load_explicit(&s->gen, memory_order_acquire) != o->gen ||
		(atomic_load_explicit(&s->flags, memory_order_relaxed) & TAS_F_CLOSED)) &&
	       tas__alive(o->ss) && !(atomic_load_explicit(&o->flags, memory_order_relaxed) & TAS_OF_SPOILT);
}
/* Its block says so, but where another program can write to it the service is asked. */
bool tas__obj_gone(struct tas_obj *o);

static inline struct tas_obj *tas__conn_get(int fd)
{
	struct tas_obj *o = tas__obj_get(fd);

	if (!o || atomic_load_explicit(&o->kind, memory_order_acquire) == TAS_OBJ_CONN)
		return o;
	tas__obj_put(o);
	return NULL;
}

static inline bool tas__nonblock(const struct tas_obj *o)
{
	return atomic_load_explicit(&o->b->c.nonblock, memory_order_relaxed) != 0;
}

/* ---- readiness: ready.c ---- */
/* EPOLL* (= POLL*) bits that hold now; for a listener only its TAS half. */
uint32_t tas__obj_ready_of(struct tas_obj *o, uint32_t want); /* of others than `want` some may be left out */
static inline uint32_t tas__obj_ready(struct tas_obj *o)
{
	return tas__obj_ready_of(o, UINT32_MAX);
}
/* May this process hold both ends? */
static inline bool tas__obj_near(struct tas_obj *o)
{
	return atomic_load_explicit(&o->kind, memory_order_acquire) == TAS_OBJ_CONN &&
	       (atomic_load_explicit(&o->b->s.flags, memory_order_relaxed) & TAS_F_NEAR);
}
/*
 * On Linux a byte sent over loopback is there when send() returns; programs with both ends count on it.  Before such a
 * socket says "would block", wait until the service has acted on what this process did.  True: look once more.
 */
bool tas__settle(struct tas_session *ss);
/* Has the service acted on all that, without waiting for it? */
bool tas__settled(struct tas_session *ss);
static inline bool tas__urg_inline(const struct tas_block *b)
{
	return atomic_load_explicit(&b->a.opts, memory_order_relaxed) & TAS_O_OOBINLINE;
}
/*
 * Stream state as recv and poll see it.  Where reading goes on: Linux leaves an urgent byte out for ever if it is next when
 * another one comes, taken by MSG_OOB or not (the service notes the latter in urg_read).
 */
static inline uint64_t tas__rx_from(const struct tas_block *b)
{
	uint64_t c = atomic_load_explicit(&b->a.rx_consumed, memory_order_relaxed);
	uint64_t u = atomic_load_explicit(&b->s.rx_urg, memory_order_acquire);

	if (__builtin_expect(u > c + 1, 0) && atomic_load_explicit(&b->a.urg_read, memory_order_relaxed) == c + 1 && !tas__urg_inline(b))
		c++;
	return c;
}
static inline uint64_t tas__rx_avail(const struct tas_block *b)
{
	uint64_t d = atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire);
	uint64_t c = tas__rx_from(b);

	return d > c ? d - c : 0;
}
/* Stream offset of the urgent byte that is not read past yet (Linux: urg_data != 0); UINT64_MAX: none. */
static inline uint64_t tas__urg_mark(const struct tas_block *b)
{
	uint64_t u = atomic_load_explicit(&b->s.rx_urg, memory_order_acquire);

	return u && u > atomic_load_explicit(&b->a.rx_consumed, memory_order_relaxed) ? u - 1 : UINT64_MAX;
}
/* Can MSG_OOB take it? */
static inline bool tas__urg_there(const struct tas_block *b)
{
	uint64_t u = tas__urg_mark(b);

	return u != UINT64_MAX && u < atomic_load_explicit(&b->s.rx_delivered, memory_order_acquire) &&
	       atomic_load_explicit(&b->a.urg_read, memory_order_relaxed) != u + 1;
}
/* Wakes threads of this process that wait for o: a change that we made ourselves (shutdown). */
void tas__obj_kick(struct tas_obj *o);
void tas__obj_lowat(struct tas_obj *o); /* SO_RCVLOWAT was set */

/* Sleep until something happens on o (in: ev_in, else ev_out).  seen: the event word before the caller looked; shut:
 * a.shut before.  Spins first.  fd: for SO_RCVTIMEO/SO_SNDTIMEO; *deadline 0 at first.  0: look again; -EAGAIN:
 * timeout; -EINTR; -ECANCELED. */
struct tas_wait {
	struct tas_spin spin;
	uint64_t deadline; /* ns; 0: not known yet; UINT64_MAX: none */
	struct tas_sig_mark sig; /* at the entry of the call */
	bool partial; /* some bytes were moved: any handler ends the call, with or without SA_RESTART */
};
void tas__obj_before_filter(struct tas_obj *o, int fd);
int tas__obj_wait(struct tas_obj *o, int fd, bool in, uint32_t seen, uint32_t shut, struct tas_wait *w);

/* ---- direct connections: direct.c ---- */
/* The block of the peer while the connection is direct, else NULL.  It changes under the locks only. */
static inline struct tas_block *tas__direct(struct tas_obj *o, const struct tas_block *b)
{
	/* seq_cst: after a store to rx_consumed.  Pairs with the service's store before its look at rx_consumed */
	tas_off_t at = atomic_load_explicit(&b->s.direct, memory_order_seq_cst);

	return at ? tas__obj_mem(o, at, sizeof *b) : NULL;
}
/* It is direct, but this process cannot map what it needs for that (no descriptor to be had). */
static inline bool tas__direct_blind(struct tas_block *b, const struct tas_block *peer)
{
	return __builtin_expect(!peer && atomic_load_explicit(&b->s.direct, memory_order_relaxed), 0);
}
/* So the service makes it ordinary, for good.  Without locks.  True: done. */
bool tas__ordinary(struct tas_obj *o);
enum { TAS_ORDINARY_MAX = 3 /* times for one call */ };
/* A ring to write to. */
struct tas_target {
	tas_off_t off;
	uint64_t base;
	uint32_t len; /* 0: none */
	uint64_t room;
};
/* In the peer's memory, for at least so many bytes if it can; under lock_tx. */
struct tas_target tas__direct_target(struct tas_obj *o, struct tas_block *peer, uint64_t written, uint64_t need);
/* A guess, without the lock. */
struct tas_target tas__direct_guess(const struct tas_block *peer, uint64_t written);
/* Bytes up to `to` are in its ring: says so and wakes who waits for them.  True: the service is to be told, for others.  *learn: give
 * it to tas__direct_told() without the lock. */
bool tas__direct_delivered(struct tas_obj *o, struct tas_block *peer, uint64_t to, uint64_t urgent, tas_off_t *learn);
/* Something was consumed: wakes a writer that waits for room if there is some.  Under lock_rx.  True and *learn: as above. */
bool tas__direct_room(struct tas_obj *o, const struct tas_block *b, struct tas_block *peer, tas_off_t *learn);
/* A recv, or send, of the plain kind (flags that say nothing here) on a direct connection, whose bytes lie in one piece.  How many;
 * 0: it is not that simple, and nothing was done. */
ssize_t tas__direct_recv(int fd, void *buf, size_t n);
ssize_t tas__direct_send(int fd, const void *buf, size_t n);
static inline bool tas__direct_plain(int flags)
{
	return !(flags & ~(MSG_DONTWAIT | MSG_NOSIGNAL));
}
static inline void tas__direct_told(struct tas_obj *o, tas_off_t learn)
{
	if (__builtin_expect(learn != 0, 0))
		tas__bell_learn(o->ss, learn);
}

/* ---- data: send.c, recv.c ---- */
/* Where bytes to send come from. */
struct tas_source {
	const struct iovec *iov;
	int n_iov;
	size_t at; /* inside iov[0] */
	int in_fd; /* sendfile; -1: iov */
	bool pipe; /* in_fd is one: -ENODATA when nothing is in it */
	off64_t *off;
};
ssize_t tas__send(struct tas_obj *o, int fd, struct tas_source *src, size_t n, int flags);
/* SYS_preadv2 or SYS_pwritev2 that does not wait.  -ENODATA: the pipe is empty, or full; -EOPNOTSUPP: not with this pipe, or kernel. */
ssize_t tas__pipe_io(long nr, int fd, const void *p, size_t n);
uint64_t tas__tx_room(struct tas_obj *o, uint32_t *len);
/* 0, -EFAULT, -EINVAL, -EMSGSIZE; *total is the sum of lengths. */
int tas__iov_check(const struct iovec *iov, size_t n, size_t *total);

/* ---- connect.c ---- */
/* How many connects are at TAS_OF_CONNECTING. */
extern _Atomic uint32_t tas__connecting;
void tas__connect_await(struct tas_obj *o);
int tas__disconnect(struct tas_obj *o, int fd);
int tas__connect(int fd, const struct sockaddr *addr, socklen_t len, bool dontwait);
int tas__fastopen(int fd, const struct sockaddr *addr, socklen_t len, int flags); /* MSG_FASTOPEN on a number of ours */
int tas__peer_name(struct tas_obj *o, struct sockaddr *addr, socklen_t *len);

/* ---- address.c ---- */
/* What the kernel says of a struct sockaddr before any protocol sees it. */
int tas__addr_check(const struct sockaddr *sa, socklen_t len);
int tas__addr_in(const struct sockaddr *sa, socklen_t len, struct tas_addr *out);
int tas__addr_out(const struct tas_addr *a, int family, struct sockaddr *sa, socklen_t *len);
int tas__addr_local(int fd, struct tas_addr *out); /* of the backing socket */

/* ---- open.c ---- */
/* The current session, attaching if need be: referenced, or NULL (the kernel it is; the one warning is printed here).
 * *err: -errno when TAS_REQUIRE=1 forbids the kernel. */
struct tas_session *tas__service(int *err);
int tas__listener_register(struct tas_obj *o, int fd, struct tas_session *ss, struct tas_msg_sock *sock);
/* A listener whose service died: registers with the next one, at most four times a second.  True: done, look up again.
 */
bool tas__listener_revive(struct tas_obj *o, int fd);
uint32_t tas__bind_flags(int fd);
/* Nobody but this process, whose calls all pass by here, has had its hands on the backing socket. */
static inline bool tas__obj_own(const struct tas_obj *o)
{
	return tas__trusted && !(atomic_load_explicit(&o->flags, memory_order_relaxed) & TAS_OF_SHARED);
}

/* ---- ports.c ---- */
/* Which ports a connection may take; own: IP_LOCAL_PORT_RANGE.  How many ranges; 0: nobody knows. */
uint32_t tas__ports(struct tas_port_range to[TAS_PORT_RANGES], uint32_t own);
uint32_t tas__somaxconn(void);
uint32_t tas__fastopen_setting(void); /* net.ipv4.tcp_fastopen */

/* ---- option.c ---- */
uint32_t tas__opts_of(int fd);
uint32_t tas__opts_now(const struct tas_obj *o, int fd); /* the same, of a PLAIN socket, with as few questions as possible */
bool tas__opts_flag(const struct tas_obj *o, int fd, int bit);
void tas__opts_mirror(struct tas_obj *o, int fd);
/* SO_RCVBUF and SO_SNDBUF where the program set them, else 0. */
void tas__opts_buffers(const struct tas_obj *o, int fd, uint32_t *rcv, uint32_t *snd);
/* A value of n bytes, for getsockopt. */
int tas__opt_give(void *val, socklen_t *len, const void *from, size_t n);
int tas__info_give(struct tas_obj *o, int fd, void *val, socklen_t *len); /* info.c: TCP_INFO */
/* What a connection needs to know before it begins: as in tas_lock_line. */
void tas__opts_opening(const struct tas_obj *o, int fd, uint32_t *ip, uint32_t *maxseg, uint32_t *syncnt);
uint32_t tas__opt_ports(const struct tas_obj *o, int fd); /* IP_LOCAL_PORT_RANGE */
void tas__opts_inherit(struct tas_obj *listener, int from, struct tas_obj *o, int to);
bool tas__opt_touched_linger(const struct tas_obj *o);
bool tas__opts_touched(const struct tas_obj *o); /* any */
/* Nothing was set but what may be left to the next user as latent, and its value is known. */
bool tas__opts_can_undo(const struct tas_obj *o);
/* Makes the backing socket such as the program knows it: before anybody else looks at its options.  The second: all of them,
 * under the table lock. */
void tas__opts_settle(struct tas_obj *o, int fd);
void tas__opts_settle_all(void);
void tas__opts_touch(struct tas_obj *o, const struct tas_obj *as); /* NULL: none */
void tas__opt_touch_v6only(struct tas_obj *o); /* bind to an IPv6 address sets it */
void tas__opts_touch_all(struct tas_obj *o); /* nobody knows what was set */
bool tas__opt_device(const struct tas_obj *o, int fd); /* bound to a device: TAS has none */

/* ---- close.c ---- */
/* Whoever drops number fd of connection o says first what close has to do (SO_LINGER). */
void tas__before_close(struct tas_obj *o, int fd);
/* Tells the service whether something is unread; only the first call at a close looks. */
void tas__note_unread(struct tas_obj *o);

/* ---- epoll*.c ---- */
struct tas_ep;
struct tas_ep *tas__ep_get(int fd);
void tas__ep_put(struct tas_ep *ep);
bool tas__ep_try_ref(struct tas_ep *ep);
bool tas__ep_recognise(int fd); /* an unknown number is a set: it is known now */
void tas__ep_passed(int fd); /* it leaves this process's sight: exec, a message */
bool tas__ep_has_members(int fd); /* of TAS */
/* Under the table lock. */
/* o is gone: its memberships end, or others go on with them.  True: ask the service (tas__settle()) when the claim is gone. */
bool tas__ep_forget(struct tas_obj *o);
void tas__ep_became_tas(struct tas_obj *o, int fd); /* PLAIN members move to the user level */
void tas__ep_became_kernel(struct tas_obj *o); /* memberships stay the kernel's for good */
void tas__ep_moved(struct tas_obj *o, struct tas_obj *to);
void tas__ep_kick(struct tas_obj *o, uint32_t events); /* of members that ask for these; 0: all */
void tas__ep_expose(int fd); /* something outside waits for this set */
/* Without the table lock: the kernel's view of a set that something outside waits for follows its TAS members. */
void tas__ep_refresh(int fd);
void tas__ep_recall(int fd); /* the kernel calls it readable: did another process make its memory? */
void tas__ep_refresh_all(void);
void tas__ep_fork_prepare(void);
void tas__ep_fork_parent(void);
void tas__ep_fork_child(void);

void tas__peek_set(struct tas_obj *o, int fd); /* recv.c: SO_PEEK_OFF as the backing socket has it */

void tas__opts_peek(struct tas_obj *o, int fd); /* option.c: the same, if it was set */

/* ---- errqueue.c ---- */
bool tas__errqueue_any(struct tas_obj *o);
ssize_t tas__errqueue_recv(struct tas_obj *o, struct msghdr *msg);
void tas__zerocopy_sent(struct tas_obj *o, int fd); /* a send with MSG_ZEROCOPY took something */

/* ---- async.c ---- */
void tas__async_update(struct tas_obj *o, int fd); /* after fcntl or ioctl on fd, and when a PLAIN socket became TAS's */
static inline void tas__async_began(struct tas_obj *o, int fd)
{
	if (atomic_load_explicit(&o->flags, memory_order_relaxed) & TAS_OF_ASYNC)
		tas__async_update(o, fd);
}
void tas__async_forget(struct tas_obj *o); /* under the table lock */
void tas__async_fork_child(void);

/* ---- spawn.c ---- */
int tas__watch_passed(const struct msghdr *m); /* 0, -ENOBUFS */
/* Without the interposer the program may close fd behind our back: the service watches what was accepted, too. */
void tas__watch_too(struct tas_obj *o, int fd);
void tas__watch_not(struct tas_obj *o);
void tas__note_received(const struct msghdr *m);

/* ---- time ---- */
static inline uint64_t tas__deadline(const struct timespec *ts)
{
	uint64_t ns;

	if (!ts)
		return UINT64_MAX;
	ns = (uint64_t)ts->tv_sec > UINT64_MAX / 4000000000u
		     ? UINT64_MAX / 4
		     : (uint64_t)ts->tv_sec * 1000000000u + (uint64_t)ts->tv_nsec;
	return tas__now() + ns;
}
/* Time left until end, at most cap ns, as the argument of a sleep; NULL: forever. */
static inline struct timespec *tas__left(uint64_t end, uint64_t cap, struct timespec *ts)
{
	uint64_t now, ns;

	if (end == UINT64_MAX && cap == UINT64_MAX)
		return NULL;
	now = tas__now();
	ns = end <= now ? 0 : end - now;
	if (ns > cap)
		ns = cap;
	ts->tv_sec = (time_t)(ns / 1000000000u);
	ts->tv_nsec = (long)(ns % 1000000000u);
	return ts;
}
enum { TAS_REVIVE_MS = 250 };

#endif
