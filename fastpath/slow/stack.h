/* SPDX-License-Identifier: MIT */
/*
 * Inside the stack: processes, memory sets and sockets as the service knows them.  Private to fast/ and slow/.
 *
 * Ownership: a process belongs to one memory set; a set owns chunks; a socket (listener or connection) belongs to one set, in
 * whose memory its block and extents lie.  A set lives while it has processes, or sockets that still need its memory
 * (lingering closes).  A shared set has no processes but members: other sets, which hold its sockets together.  Everything here
 * is touched by core 0's thread only.
 */
#ifndef TAS_STACK_H
#define TAS_STACK_H

#include <sys/types.h>

#include "abi/tas_abi.h"
#include "abi/tas_bitmap.h"
#include "abi/tas_msg.h"
#include "fast/core.h"

struct tas_sock_base;

/* ---- memory sets: slow/memory.c ---- */
struct tas_chunk {
	int fd;        /* sealed memfd */
	uint8_t *map;  /* service's mapping */
	void *buddy;   /* private bookkeeping */
	uint32_t used; /* bytes allocated */
};

enum { TAS_SET_MEMBERS_MAX = 16 };

struct tas_set {
	uint32_t id;
	uint32_t number; /* 0; of a shared set: upper bits of its chunks' indices */
	uid_t uid;
	gid_t gid;
	uint32_t n_procs; /* attached processes, those between two images included */
	uint32_t n_socks; /* sockets with memory in this set, blocks that moved away included */
	uint32_t n_moved;  /* of these, blocks that moved away */
	uint32_t n_shared; /* shared sets that this is a member of */
	uint32_t n_members;
	struct tas_set *member[TAS_SET_MEMBERS_MAX];
	uint32_t n_chunks;
	struct tas_chunk *chunk[TAS_CHUNKS_MAX];
	struct tas_set *next;
};

struct tas_set *tas__set_new(uid_t uid, gid_t gid); /* NULL: no memory */
/* A set whose sockets all of these hold.  The one there is, or a new one; NULL: no memory. */
struct tas_set *tas__set_shared(struct tas_set *const *member, uint32_t n);
struct tas_set *tas__set_numbered(uint32_t number); /* NULL: none */
/* May processes of set p hold sockets of s? */
static inline bool tas__set_reaches(const struct tas_set *p, const struct tas_set *s)
{
	if (__builtin_expect(p == s, 1))
		return p != NULL;
	for (uint32_t i = 0; i < s->n_members; i++)
		if (s->member[i] == p)
			return p != NULL;
	return false;
}
/* Call when n_procs or n_socks fell: frees the set when both are 0, as soon as core 0 is alone. */
void tas__set_put(struct tas_set *s);
bool tas__sets_due(void);
void tas__sets_put(void); /* alone: those that were left for later */
/* Memory of a power-of-two length between 256 bytes (aligned to its size) and 8 MiB.  0: none (limits, no memory); offset 0
 * is never given out.  Contents are undefined. */
tas_off_t tas__mem_alloc(struct tas_set *s, uint32_t len);
void tas__mem_free(struct tas_set *s, tas_off_t off, uint32_t len);
static inline void *tas__mem_ptr(const struct tas_set *s, tas_off_t off)
{
	return s->chunk[TAS_CHUNK_INDEX(TAS_OFF_CHUNK(off))]->map + TAS_OFF_BYTE(off);
}
bool tas__mem_scarce(const struct tas_set *s); /* more than half of what it may have is in use */
uint64_t tas__mem_used(void); /* bytes, all sets */
uint32_t tas__mem_chunks(void);
uint32_t tas__mem_sets(void);

/* ---- processes: slow/process.c ---- */
/* Where a process made system calls on TAS numbers that its library did not see, as it says itself. */
struct tas_raw_site {
	char object[64];
	uint64_t offset, count;
	uint32_t nr;
	bool caught;
};
enum { TAS_RAW_SITES = 32, TAS_IDENTS = 64 };

/* Identity of a backing socket, read by the service from a descriptor that an application sent. */
struct tas_ident {
	uint64_t cookie; /* SO_COOKIE */
	uint64_t ino;
	uint64_t netns; /* SO_NETNS_COOKIE */
	int domain;     /* AF_INET or AF_INET6 */
};

struct tas_proc {
	uint32_t slot;
	pid_t pid; /* 0: a forked child that has not said anything yet */
	uid_t uid;
	gid_t gid;
	char comm[20];
	struct tas_set *set;
	struct tas_region *region; /* mapped at a fixed place per slot */
	struct tas_session *session; /* its control socket (slow/control.c); NULL: hung up */
	struct tas_pollable pidfd, doorbell; /* fd -1: none */
	bool exec_pending; /* TAS_MSG_EXEC_BEGIN seen */
	bool between;      /* the old image is gone, the next has not attached */
	struct {
		bool polled;     /* its hints are looked at every round; else it rings its doorbell */
		uint64_t hinted; /* time of its last hint */
		uint64_t hints;  /* how many so far */
		struct tas_proc *next;
	} lane[TAS_CORES_MAX]; /* what each fast-path core knows of it */
	int ws_efd[TAS_WS_MAX]; /* eventfds of open wait sets, -1: closed */
	uint32_t n_ws;
	struct tas_raw_site raw[TAS_RAW_SITES];
	uint32_t n_raw;
	/* backing sockets that this process has shown, by name modulo TAS_IDENTS: for requests by tas_mail */
	struct {
		uint32_t name; /* 0: none */
		struct tas_ident is;
	} ident[TAS_IDENTS];
	uint32_t last_ident;
	uint64_t mails; /* how many so far */
	bool mail_ended; /* TAS_MSG_MAIL_END, by it or by who it was forked from */
};

extern struct tas_proc *tas__procs[TAS_PROC_MAX];
extern uint32_t tas__n_procs; /* upper bound of slots in use: loop [0, tas__n_procs) */

/* Its processes broke the rules: their sessions end in the next round of the loop.  Safe in a signal handler. */
void tas__set_condemn(struct tas_set *s);

/* Does any process (attached or between images) of the socket's set claim it? */
bool tas__claimed(const struct tas_sock_base *s);
/* Nobody can hold s any more, whatever their bitmaps say (a close that the library did not see): its id will be used again. */
void tas__claims_clear(const struct tas_sock_base *s);

/* ---- last-close watch: slow/watch.c.  When the kernel says IN_CLOSE it calls tas__sock_last_close(). ---- */
int tas__watch_add(struct tas_sock_base *s, int fd); /* 0 or -errno; fd stays the caller's */
void tas__watch_del(struct tas_sock_base *s);        /* idempotent */
uint32_t tas__watch_count(void);

/* ---- sockets: fast/sock.c ---- */
enum tas_sock_kind { TAS_K_FREE = 0, TAS_K_LISTENER, TAS_K_LINK, TAS_K_LOCAL };

enum { TAS_SUBS_MORE_MAX = 64 };

struct tas_sock_base { /* first member of every struct tas_sock (which fast/ defines) */
	uint32_t id;
	uint32_t gen;
	uint8_t kind; /* enum tas_sock_kind */
	bool watched; /* the kernel's last close decides, not claims (with wd >= 0 alone: either) */
	bool closed;  /* last close has happened; lingering */
	int wd;       /* inotify watch descriptor, -1: none */
	struct tas_set *set;
	struct tas_block *b;
	tas_off_t block;
	struct tas_ident ident; /* cookie 0: not announced */
	struct tas_addr local, peer;
	uint64_t netns;
	struct tas_sock_base *by_cookie; /* hash chain */
	struct tas_moved *moved;         /* blocks it had before */
	uint32_t *more_subs;             /* wait sets beyond tas_lock_line.subs: slot << 16 | index + 1 */
	uint32_t n_more_subs;
};

/* NULL unless id is in use (and gen matches, gen 0: any). */
struct tas_sock_base *tas__sock(uint32_t id, uint32_t gen);
struct tas_sock_base *tas__sock_by_cookie(uint64_t cookie);
/* Remember the backing object's identity (RESOLVE finds it from then on). */
void tas__sock_identify(struct tas_sock_base *s, const struct tas_ident *i);
/* Puts it, its memory and what waits in its accept queue into another set's memory (fast/move.c).  0; -EAGAIN: somebody is at
 * its bytes at this moment; -ENOBUFS. */
int tas__sock_move(struct tas_sock_base *s, struct tas_set *to);
/* A process has it now, which may have the other end as well. */
void tas__sock_taken(const struct tas_proc *by, struct tas_sock_base *s);
/* Has it left a block there? */
bool tas__sock_was_in(const struct tas_sock_base *s, const struct tas_set *set);
/* Frees the blocks that s had in set (NULL: any). */
void tas__moved_drop(struct tas_sock_base *s, const struct tas_set *set);
/* The same for all sockets: the last process of set has ended, nobody looks at them any more. */
void tas__moved_drop_all(struct tas_set *set);
/* The memory of a shared set failed: its sockets are reset, its members live on. */
void tas__socks_reset(const struct tas_set *set);
/* A claim on it went away (hint, death, exec): closes it when nobody claims it and it is not watched. */
void tas__sock_unclaimed(struct tas_sock_base *s);
/* The same for every socket of a set, when a process of it may have died without a word. */
void tas__socks_check(struct tas_set *set);
/* The last close is certain. */
void tas__sock_last_close(struct tas_sock_base *s);
/* The process will do nothing more: give back locks and subscriptions that it may hold in s (whose claim it had). */
void tas__sock_forget_proc(struct tas_sock_base *s, const struct tas_proc *p);
/* Extra subscriptions (TAS_MSG_SUBSCRIBE).  0 or -errno. */
int tas__sock_subscribe(struct tas_sock_base *s, const struct tas_proc *p, uint32_t ws, uint32_t flags);
void tas__sock_unsubscribe(struct tas_sock_base *s, const struct tas_proc *p, uint32_t ws, uint32_t flags);

/* Requests of applications; ident describes the backing descriptor that came along.  Return 0, -errno or TAS_FALLBACK and
 * fill the reply's union.  They set the caller's claim bit where a number now refers to the socket. */
int tas__op_bind(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep);
int tas__op_listen(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep);
int tas__op_unlisten(struct tas_proc *p, const struct tas_msg *req);
int tas__op_connect(struct tas_proc *p, const struct tas_ident *i, const struct tas_msg *req, struct tas_msg *rep);
int tas__op_info(struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep);

/* ---- direct connections: fast/direct.c ---- */
int tas__op_ordinary(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep);
int tas__op_locks(const struct tas_proc *p, const struct tas_msg *req);
void tas__direct_shut_in(const struct tas_proc *p); /* TAS_MSG_MAIL_END: what it has becomes ordinary, for good */

/* ---- bells of epoll sets: fast/bell.c ---- */
struct tas_epset;
void tas__bells_forget(struct tas_epset *e); /* it goes */
void tas__bells_revoke(struct tas_epset *e); /* processes of another memory set have it now */
void tas__bells_forget_set(const struct tas_set *s); /* its memory goes */
/* The eventfd of a bell that p may ring, or -ENOENT. */
int tas__op_bell(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep);
int tas__op_bells_hear(const struct tas_proc *p, const struct tas_msg *req, struct tas_msg *rep);

/* ---- telling applications: fast/ring.c ---- */
void tas__ring_init(void);
void tas__ring_exit(void);
void tas__ring_thread_exit(void); /* a thread other than core 0's ends */

/* ---- bridges: fast/bridge.c ---- */
struct tas_bridge;
/* A stream for a program that will have the socket without the library; *program is its end.  The bridge owns fd (the backing
 * socket), and does nothing before it is started.  0, -errno, TAS_FALLBACK. */
int tas__bridge_new(struct tas_sock_base *s, int fd, int *program, struct tas_bridge **b);
void tas__bridge_start(struct tas_bridge *b);
void tas__bridge_end(struct tas_bridge *b);
uint32_t tas__bridges_count(void);
void tas__bridges_exit(void);

/* Hints of process p: called by tas_core_poll() for polled processes, by control.c when a doorbell rings (after which the
 * process is polled again). */
unsigned tas__proc_hints(struct tas_core *c, struct tas_proc *p);
unsigned tas__proc_hints_all(struct tas_proc *p); /* alone: to whichever core they were said, until there are no more */
void tas__proc_poll_start(struct tas_core *c, struct tas_proc *p); /* it rang: look at its hints every round for a while */
void tas__proc_poll_stop(struct tas_proc *p);  /* it is going away */

/* Keeps the identity of a backing socket that p has shown.  Its name, 0: p gets none. */
uint32_t tas__ident_keep(struct tas_proc *p, const struct tas_ident *i);
/* Requests in p's memory (fast/mail.c).  Takes out what is there now; answers it. */
uint64_t tas__mail_take(struct tas_core *c, struct tas_proc *p);
void tas__mail_answer(struct tas_core *c, struct tas_proc *p, uint64_t slots);

/* Gauges and listing for admin.c. */
struct tas_sock_gauges {
	uint32_t sockets, listeners, embryos, time_waits, ports;
};
void tas__sock_gauges(struct tas_sock_gauges *g);
/* Describes the first socket with id ≥ *id as a JSON object (no newline) into buf; sets *id to the next to ask for.  Returns
 * length, 0 at the end, -ENOSPC if it does not fit. */
int tas__sock_json(uint32_t *id, char *buf, size_t room);

/* Set-up and end of fast/'s part: called by tas_stack_init() and tas_stack_exit() in slow/control.c. */
int tas__socks_init(void);
void tas__socks_exit(void);

#endif
