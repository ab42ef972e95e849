/* SPDX-License-Identifier: MIT */
/*
 * Keeping the program's signal handlers away from a thread that holds a mutex of ours: a handler may call any of our
 * functions, and would wait for the thread that it interrupted.
 *
 * Blocking signals takes two system calls, which is more than most of what happens in between.  Where every handler of
 * the program runs behind a trampoline of ours (the interposer), the thread only says that it must not be disturbed.  A
 * trampoline that finds it so puts its signal back: it blocks everything, sends the signal to this thread again, with all
 * it carried, and returns to the interrupted code with everything blocked.  The signal then waits in the kernel, in
 * order, as any blocked one, until the thread leaves and restores the mask.  (A real-time signal stands behind those of its number
 * that were queued already.)
 *
 * A trampoline may itself be interrupted before it has blocked anything.  The mask to restore is the interrupted code's: of
 * several interrupted masks the one with the fewest signals, for each handler only adds to it.
 */
#include <signal.h>
#include <string.h>
#include <ucontext.h>

#include "lowlevel/private.h"

/* Faults are raised by the instruction itself: ILL, TRAP, BUS, FPE, SEGV, SYS.  Blocked, they kill. */
enum { FAULTS = 1 << 3 | 1 << 4 | 1 << 6 | 1 << 7 | 1 << 10 | 1 << 30 };
static const uint64_t everything = ~(uint64_t)FAULTS;
/* No mask of the kernel's contains SIGKILL. */
static const uint64_t deferred = 1ull << (SIGKILL - 1);

static _Atomic bool deferring;
static __thread struct {
	uint32_t depth;
	bool pending;
	uint64_t mask; /* while pending: what the thread had before */
} guard __attribute__((tls_model("initial-exec")));

void tas_signals_deferred(void)
{
	atomic_store(&deferring, true);
}

uint64_t tas__signals_block_hard(void)
{
	uint64_t old = 0;

	sys4(SYS_rt_sigprocmask, SIG_BLOCK, SYS_P(&everything), SYS_P(&old), 8);
	return old;
}

uint64_t tas__signals_block(void)
{
	if (!atomic_load_explicit(&deferring, memory_order_relaxed))
		return tas__signals_block_hard();
	guard.depth++;
	atomic_signal_fence(memory_order_seq_cst);
	return deferred;
}

void tas__signals_restore(uint64_t mask)
{
	if (mask == deferred) {
		atomic_signal_fence(memory_order_seq_cst);
		if (--guard.depth)
			return;
		atomic_signal_fence(memory_order_seq_cst); /* from here on handlers run; pending: everything is blocked */
		if (!guard.pending)
			return;
		guard.pending = false;
		mask = guard.mask;
	}
	sys4(SYS_rt_sigprocmask, SIG_SETMASK, SYS_P(&mask), 0, 8);
}

bool tas_signal_defer(int sig, const siginfo_t *info, void *context)
{
	ucontext_t *uc = context;
	uint64_t interrupted;

	if (!guard.depth || ((FAULTS >> (sig - 1)) & 1 && sig < 32 && info->si_code > 0))
		return false;
	sys4(SYS_rt_sigprocmask, SIG_BLOCK, SYS_P(&everything), 0, 8);
	memcpy(&interrupted, &uc->uc_sigmask, sizeof interrupted);
	guard.mask = guard.pending ? guard.mask & interrupted : interrupted;
	guard.pending = true;
	memcpy(&uc->uc_sigmask, &everything, sizeof everything);
	if (sys4(SYS_rt_tgsigqueueinfo, sys0(SYS_getpid), tas__tid(), sig, SYS_P(info)) < 0)
		sys3(SYS_tgkill, sys0(SYS_getpid), tas__tid(), sig); /* no room in the queue: at least that it came */
	return true;
}
