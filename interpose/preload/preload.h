/* SPDX-License-Identifier: MIT */
/*
 * Inside of libtas_interpose.so.
 *
 * A wrapper `tas__w_NAME` has the assembler name NAME, so libc's headers (attributes, redirections, transparent unions)
 * do not meet our definitions.  `tas__real.NAME` is the next definition, nearly always libc's; before it is looked up
 * it is a stub that looks it up, so a wrapper can be called at any time: from malloc's initialisation, from
 * constructors before ours.
 *
 * Nothing here prints or aborts, and nothing but stdio allocates.  Wrappers are passive (they only make the real call)
 * while the library is not started and in a vfork child, which shares our memory and must not change it.
 */
#ifndef TAS_PRELOAD_H
#define TAS_PRELOAD_H

#include "calls.h"

#include <dlfcn.h>
#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <pthread.h>
#include <signal.h>
#include <netinet/in.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <termios.h>
#include <threads.h>

#include "lowlevel/low.h"
#include "lowlevel/wild.h"
#include "tas_sockets.h"

#define likely(x) __builtin_expect(!!(x), 1)
#define unlikely(x) __builtin_expect(!!(x), 0)

#define FD(ret, name, params, args, goes) ret(*name) params;
#define OWN(ret, name, params, args, file) ret(*name) params;
#define NEW(ret, name, params, file)
#define SAME(name, target)
struct tas__real {
	TAS_CALLS(FD, OWN, NEW, SAME)
};
#undef FD
#undef OWN
#undef NEW
extern struct tas__real tas__real;

#define FD(ret, name, params, args, goes) TAS_PUBLIC ret tas__w_##name params __asm__(#name);
#define OWN(ret, name, params, args, file) FD(ret, name, params, args, file)
#define NEW(ret, name, params, file) FD(ret, name, params, , file)
TAS_CALLS(FD, OWN, NEW, SAME)
#undef FD
#undef OWN
#undef NEW
#undef SAME

/* In the file that defines target: its other name. */
#define TAS_SAME(name, target) \
	extern TAS_PUBLIC __typeof__(tas__w_##target) tas__w_##name __asm__(#name) __attribute__((alias(#target)))

/* True once tas_init() has run. */
extern bool tas__ready;
/* Depth of vfork children that this thread's memory is lent to; see vfork.S. */
extern __thread int tas__vfork_depth __attribute__((tls_model("initial-exec")));

/* Starts the library if that has not happened: for calls that make TAS sockets in constructors that run before ours. */
void tas__start(void);
void tas__signals_start(void); /* signals.c */

static inline bool tas__passive(void)
{
	return unlikely(!tas__ready) || unlikely(tas__vfork_depth != 0);
}

/* tas_fd_is_kernel(), also right before tas_init() has made the table. */
static inline bool tas__kernel(int fd)
{
	const uint8_t *states = tas_fd_states;

	return (unsigned)fd >= TAS_FD_TABLE_MAX ||
	       (likely(states != NULL) && __atomic_load_n(&states[fd], __ATOMIC_RELAXED) == TAS_FD_KERNEL);
}

/* The place where -errno becomes errno. */
static inline long tas__result(long r)
{
	if (likely(r >= 0))
		return r;
	errno = (int)-r;
	return -1;
}

/* A cancellation point: a call that gives -ECANCELED holds nothing any more.  In a thread that may be cancelled at any
 * instruction, not in this one. */
void tas__cancel_enter(void);
void tas__cancel_leave(void);
#define CP(call) \
	({ \
		long r_; \
\
		if (unlikely(atomic_load_explicit(&tas__sigs.cancel, memory_order_relaxed))) \
			tas__cancel_enter(); \
		r_ = (call); \
		if (unlikely(r_ < 0) && r_ == -ECANCELED) \
			tas_cancel_point(); \
		if (unlikely(atomic_load_explicit(&tas__sigs.cancel, memory_order_relaxed))) \
			tas__cancel_leave(); \
		r_; \
	})

ssize_t tas__preadv2(int fd, const struct iovec *iov, int n, off64_t off, int flags);
ssize_t tas__pwritev2(int fd, const struct iovec *iov, int n, off64_t off, int flags);
static inline const struct timespec *tas__from_ms(int ms, struct timespec *ts)
{
	if (ms < 0)
		return NULL;
	ts->tv_sec = ms / 1000;
	ts->tv_nsec = ms % 1000 * 1000000L;
	return ts;
}

int tas__epoll_pwait(int ep, struct epoll_event *ev, int max, int ms, const sigset_t *mask);

/* Is fd (looked up if need be) a socket that is or may become one of TAS? */
bool tas__is_ours(int fd);
extern _Atomic bool tas__wants_info[NSIG]; /* the signal's handler was installed with SA_SIGINFO */
/* Number fd (0, 1, 2) may have become a socket of TAS: its standard stream follows. */
void tas__standard_stream(int fd);
/* Descriptors that a kernel socket brought may be anything. */
void tas__note_rights(struct msghdr *msg);

/* Memory of its own for lists of an exec, which tas__mem_free() returns. */
struct tas__mem {
	void *at;
	size_t len;
};
void tas__mem_free(struct tas__mem *mem);
/* What an exec in a vfork child left for its parent to free. */
extern __thread struct tas__mem tas__vfork_mem __attribute__((tls_model("initial-exec")));

/* An environment for a program that must run on TAS although the one it is given lacks us: envp itself, or a copy with
 * LD_PRELOAD in mem. */
char *const *tas__env_with_us(char *const *envp, struct tas__mem *mem);
bool tas__env_has_us(char *const *envp);
/* How tas__self_path is started so that it becomes the program (program.c): argv in mem, and *envp.  NULL: no memory. */
char *const *tas__program_start(const char *path, char *const *argv, char *const **envp, struct tas__mem *mem);
/* Is the program one into which the dynamic linker will not load us?  dir: as for openat; path NULL: dir is the program. */
bool tas__deaf(int dir, const char *path);
/* What execvp would find: its path in room, or file itself. */
const char *tas__search(const char *file, char room[PATH_MAX]);
extern char tas__self_path[4096];

#endif
