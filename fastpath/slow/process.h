/* SPDX-License-Identifier: MIT */
/* Attached processes: life and death.  Private to slow/. */
#ifndef TAS_PROCESS_H
#define TAS_PROCESS_H

#include <sys/socket.h>

#include "slow/stack.h"

int tas__procs_init(void); /* by the loop's thread: its death is what applications see */
void tas__procs_exit(void);

/* A new process in set (NULL: a set of its own), with no pid yet.  *region: memfd to be sent and closed by the caller.
 * 0; -EAGAIN: no slot, or too many of this user; -ENOMEM, -EMFILE. */
int tas__proc_new(struct tas_set *set, uid_t uid, gid_t gid, const char *comm, struct tas_proc **out, int *region);
/* Its pid becomes known.  session: the socket that the credentials came from.  -ESRCH: it is gone already. */
int tas__proc_identify(struct tas_proc *p, pid_t pid, int session);
/* Nothing of it remains: claims dropped, region unmapped, session ended, slot free. */
void tas__proc_end(struct tas_proc *p);
/* Its control socket hung up: dead, between two images, or neither. */
void tas__proc_hangup(struct tas_proc *p);
/* The process that an image of this pid attached as before; ends those that are dead.  NULL: none. */
struct tas_proc *tas__proc_by_pid(pid_t pid, uid_t uid, gid_t gid);
/* p is the next image of old: it gets what old claims, old ends. */
void tas__proc_succeed(struct tas_proc *old, struct tas_proc *p);
/* What the parent holds, the child holds. */
void tas__proc_copy_claims(struct tas_proc *child, const struct tas_proc *parent);
/* May p, whose set has no sockets, continue in set?  Moves it there: 0 or -EACCES (shared.c). */
int tas__proc_move(struct tas_proc *p, struct tas_set *set);
void tas__proc_set(struct tas_proc *p, struct tas_set *set);
/* The set `with` will hold s, too: moves it where both reach it (shared.c).  0; -EAGAIN: ask again in a moment; -ENOBUFS;
 * -EACCES. */
int tas__sock_share(struct tas_sock_base *s, struct tas_set *with);
uint32_t tas__proc_claims(const struct tas_proc *p); /* how many */
uint32_t tas__proc_count(void);
uint64_t tas__instance(void); /* random number of this run */
/* Async-signal-safe.  The process in whose region addr lies. */
struct tas_proc *tas__proc_find(const void *addr);

#endif
