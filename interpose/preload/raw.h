/* SPDX-License-Identifier: MIT */
/*
 * System calls that pass libc by; raw.c has the theory.  Private to preload/.
 */
#ifndef TAS_RAW_H
#define TAS_RAW_H

#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

enum tas_raw_mode { TAS_RAW_OFF, TAS_RAW_REPORT, TAS_RAW_CATCH };

extern enum tas_raw_mode tas__raw_mode;

/* Reads TAS_RAW; last in the constructor. */
void tas__raw_start(void);
/* The calling thread's raw system calls are caught from now on: the kernel forgets that at fork and for new threads. */
void tas__raw_arm(void);
/* Around vfork, whose one system call stands in our own code. */
void tas__raw_pause(void);
void tas__raw_resume(void);

/* A set of signals to block in which SIGSYS, by which raw calls come, is not.  room: for a copy. */
const sigset_t *tas__raw_mask(const sigset_t *set, sigset_t *room);
static inline const sigset_t *tas__mask(const sigset_t *set, sigset_t *room)
{
	return __builtin_expect(tas__raw_mode == TAS_RAW_OFF, 1) ? set : tas__raw_mask(set, room);
}

/* The program's own handler for SIGSYS, which ours stands before. */
int tas__raw_sigaction(const struct sigaction *act, struct sigaction *old);

/* raw_rewrite.c */
struct tas_raw_call {
	long nr, a, b, c, d, e, f;
};
/* Another stack for calls of rewritten sites: its upper end; 1: it is there, and not in use. */
struct tas_raw_stack {
	uintptr_t top;
	uintptr_t free;
};
extern __thread struct tas_raw_stack tas__raw_stack __attribute__((tls_model("initial-exec"), visibility("hidden")));
extern size_t tas__raw_xsave; /* bytes; 0: sites are not rewritten */
void tas__raw_entry(void); /* raw_entry.S */
/* Makes the call of a rewritten site; its result is in nr.  0: it has to be caught. */
long tas__raw_made(struct tas_raw_call *call);
void tas__raw_rewrite_start(void);
void tas__raw_stack_make(void);
void tas__raw_often(uintptr_t after); /* a call from there was caught */
void tas__raw_restore(void); /* sites are what they were, and stay so */
uintptr_t tas__raw_origin(uintptr_t after); /* the site for which a stub made the call */

/* What an address of the program lies in. */
struct tas_raw_object {
	uintptr_t from, to;
	const void *unwind; /* .eh_frame_hdr, or NULL */
};
bool tas__raw_object_of(uintptr_t at, struct tas_raw_object *o);

/* raw_sites.c: a raw call nr on a TAS number came from the instruction before `after`. */
void tas__raw_seen(uintptr_t after, long nr);
void tas__raw_sites_start(void);

/* syscall.c: what a system call does on TAS, or TAS_NATIVE: nothing, make it. */
#define TAS_NATIVE (-4097l)
long tas__by_number(long nr, long a, long b, long c, long d, long e, long f);
/* fork by system call: as _Fork does it. */
long tas__seccomp(long op, long flags, long prog);
long tas__fork_by(long nr, long a, long b, long c, long d, long e);

#endif
