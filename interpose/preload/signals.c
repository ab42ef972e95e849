// SPDX-License-Identifier: MIT
/*
 * Signal handlers.  The kernel is given a trampoline in place of the program's handler; it tells the client library that
 * a handler runs on this thread (lowlevel/signal.c says why), then calls the program's.  Everything else of the action
 * (flags, mask) is the program's, and what it reads back is its own handler.
 *
 * libc's other names (signal, sigset, siginterrupt) come to sigaction inside of libc, where we do not see it, so they
 * are made here of ours.  In a vfork child, whose memory is the parent's, a handler goes to the kernel as it is.
 */
#include <stdatomic.h>

#include "preload.h"
#include "raw.h"

typedef void (*full_handler)(int, siginfo_t *, void *);

static struct {
	_Atomic(full_handler) handler;
	_Atomic bool restarts;
	_Atomic bool once; /* SA_RESETHAND: the kernel forgets the trampoline when it has come */
	struct sigaction action; /* as the kernel got it */
} table[NSIG];

/* Signals for which siginterrupt() asked that calls be interrupted: signal() obeys. */
static sigset_t interrupts;

/* x86-64 passes all three arguments to every handler. */
static void trampoline(int sig, siginfo_t *info, void *context)
{
	full_handler h = atomic_load_explicit(&table[sig].handler, memory_order_acquire);

	if (unlikely(tas_signal_defer(sig, info, context))) {
		if (atomic_load_explicit(&table[sig].once, memory_order_relaxed))
			tas__real.sigaction(sig, &table[sig].action, NULL);
		return;
	}
	tas_signal_ran(!atomic_load_explicit(&table[sig].restarts, memory_order_relaxed));
	if (atomic_load_explicit(&tas__wants_info[sig], memory_order_relaxed))
		tas_signal_info(sig, info);
	h(sig, info, context);
}

static bool is_handler(const struct sigaction *sa)
{
	return sa->sa_handler != SIG_DFL && sa->sa_handler != SIG_IGN;
}

int tas__w_sigaction(int sig, const struct sigaction *new, struct sigaction *old)
{
	struct sigaction sa, was;
	full_handler before = NULL;
	bool restarted = false, ours;
	int r;

	if (unlikely(sig <= 0 || sig >= NSIG))
		return tas__real.sigaction(sig, new, old);
	if (unlikely(tas__raw_mode != TAS_RAW_OFF) && sig == SIGSYS && !tas__vfork_depth)
		return tas__raw_sigaction(new, old);
	before = atomic_load_explicit(&table[sig].handler, memory_order_acquire);
	restarted = atomic_load_explicit(&table[sig].restarts, memory_order_relaxed);
	ours = new && is_handler(new) && !tas__vfork_depth;
	if (ours) {
		sa = *new;
		sa.sa_sigaction = trampoline;
		if (tas__raw_mode != TAS_RAW_OFF)
			sigdelset(&sa.sa_mask, SIGSYS);
		table[sig].action = sa;
		atomic_store_explicit(&table[sig].once, !!(new->sa_flags & (int)SA_RESETHAND), memory_order_relaxed);
		/* first the table: with a trampoline already there, its next run is the new handler's */
		atomic_store_explicit(&table[sig].restarts, !!(new->sa_flags & SA_RESTART), memory_order_relaxed);
		atomic_store_explicit(&tas__wants_info[sig], !!(new->sa_flags & SA_SIGINFO), memory_order_relaxed);
		atomic_store_explicit(&table[sig].handler, new->sa_sigaction, memory_order_release);
	}
	r = tas__real.sigaction(sig, ours ? &sa : new, &was);
	if (r < 0) {
		if (ours && before) {
			atomic_store_explicit(&table[sig].restarts, restarted, memory_order_relaxed);
			atomic_store_explicit(&table[sig].handler, before, memory_order_release);
		}
		return r;
	}
	if (was.sa_sigaction == trampoline)
		was.sa_sigaction = before;
	if (old)
		*old = was;
	return r;
}
TAS_SAME(__sigaction, sigaction);

/* Handlers that were there before us (a constructor that made the system call itself) get their trampoline as well: after this
 * there is none without. */
void tas__signals_start(void)
{
	struct sigaction sa;

	for (int sig = 1; sig < NSIG; sig++)
		if (!tas__real.sigaction(sig, NULL, &sa) && is_handler(&sa) && sa.sa_sigaction != trampoline)
			tas__w_sigaction(sig, &sa, NULL);
	tas_signals_deferred();
}

static sighandler_t set_handler(int sig, sighandler_t h, int flags)
{
	struct sigaction sa = {.sa_handler = h, .sa_flags = flags}, old;

	if (h == SIG_ERR) {
		errno = EINVAL;
		return SIG_ERR;
	}
	if (!(flags & SA_NODEFER) && sig > 0 && sig < NSIG)
		sigaddset(&sa.sa_mask, sig);
	return tas__w_sigaction(sig, &sa, &old) < 0 ? SIG_ERR : old.sa_handler;
}

sighandler_t tas__w_signal(int sig, sighandler_t h)
{
	return set_handler(sig, h, sig > 0 && sig < NSIG && sigismember(&interrupts, sig) > 0 ? 0 : SA_RESTART);
}
TAS_SAME(bsd_signal, signal);
TAS_SAME(ssignal, signal);

sighandler_t tas__w_sysv_signal(int sig, sighandler_t h)
{
	return set_handler(sig, h, (int)SA_RESETHAND | SA_NODEFER);
}
TAS_SAME(__sysv_signal, sysv_signal);

int tas__w_siginterrupt(int sig, int on)
{
	struct sigaction sa;

	if (tas__w_sigaction(sig, NULL, &sa) < 0)
		return -1;
	if (on) {
		sigaddset(&interrupts, sig);
		sa.sa_flags &= ~SA_RESTART;
	} else {
		sigdelset(&interrupts, sig);
		sa.sa_flags |= SA_RESTART;
	}
	return tas__w_sigaction(sig, &sa, NULL);
}

sighandler_t tas__w_sigset(int sig, sighandler_t h)
{
	struct sigaction old;
	sigset_t one, was;

	sigemptyset(&one);
	if (h == SIG_ERR || sigaddset(&one, sig) < 0) {
		errno = EINVAL;
		return SIG_ERR;
	}
	if (h == SIG_HOLD) {
		if (sigprocmask(SIG_BLOCK, &one, &was) < 0 || (!sigismember(&was, sig) && tas__w_sigaction(sig, NULL, &old) < 0))
			return SIG_ERR;
		return sigismember(&was, sig) ? SIG_HOLD : old.sa_handler;
	}
	struct sigaction sa = {.sa_handler = h};

	if (tas__w_sigaction(sig, &sa, &old) < 0 || sigprocmask(SIG_UNBLOCK, &one, &was) < 0)
		return SIG_ERR;
	return sigismember(&was, sig) ? SIG_HOLD : old.sa_handler;
}
