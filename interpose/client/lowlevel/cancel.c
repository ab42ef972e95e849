/* SPDX-License-Identifier: MIT */
/*
 * pthread_cancel of a thread that sleeps in one of our calls.
 *
 * libc ends a thread in a system call by a signal whose handler unwinds the stack.  Our calls hold references, waiters and
 * subscriptions, which nobody would give back.  So a sleep here is an ordinary system call: the canceller (the interposer's
 * pthread_cancel) wakes it, the call gives everything up and returns -ECANCELED, and the wrapper around it, which holds
 * nothing, goes to pthread_testcancel().
 *
 * A futex sleep has a word of ours among those that it compares.  Any other is ended by libc's own signal, whose handler
 * does nothing while cancellation is deferred; sent again and again, because it may come before the sleep has begun.
 * `asleep` is the tid of a thread that may be cancelled and is in such a call or about to be.  The canceller marks it, and
 * a thread whose word is marked stays until the canceller takes it back: after that the thread may end, and its memory
 * with it.
 *
 * Thread and canceller: store asleep, look at cancel | store cancel, look at asleep (both seq_cst): one sees the other.
 */
#include "lowlevel/private.h"

enum { SIGNAL = 32 /* glibc's SIGCANCEL */, NAP_MAX_NS = 5000000, PATIENCE_NS = 1000000000 };
#define MARKED (1u << 31)
#define LEAVES (1u << 30)

static bool enabled(void)
{
	int state = PTHREAD_CANCEL_DISABLE;

	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &state);
	if (state == PTHREAD_CANCEL_ENABLE)
		pthread_setcancelstate(state, NULL);
	return state == PTHREAD_CANCEL_ENABLE;
}

static bool asked(void)
{
	return atomic_load(&tas__sigs.cancel) & TAS_CANCEL_ASKED;
}

bool tas__cancelled(void)
{
	return asked() && enabled();
}

static void leave(void)
{
	uint32_t v = atomic_load(&tas__sigs.asleep);

	while (!(v & MARKED))
		if (atomic_compare_exchange_weak(&tas__sigs.asleep, &v, 0))
			return;
	atomic_store(&tas__sigs.asleep, LEAVES);
	while (atomic_load(&tas__sigs.asleep) == LEAVES)
		sys0(SYS_sched_yield);
}

long tas__sleep6(long nr, long a, long b, long c, long d, long e, long f)
{
	bool inner = atomic_load_explicit(&tas__sigs.asleep, memory_order_relaxed) != 0; /* a handler's, in our sleep */
	long r;

	if (!enabled())
		return sys6(nr, a, b, c, d, e, f);
	if (!inner)
		atomic_store(&tas__sigs.asleep, tas__tid());
	r = asked() ? -EINTR : sys6(nr, a, b, c, d, e, f);
	if (!inner)
		leave();
	return r == -EINTR && asked() ? -ECANCELED : r;
}

/* The thread's copy of a thread-local variable lies at the same distance from its descriptor as ours does. */
static struct tas_sigs *sigs_of(pthread_t thread)
{
	return (struct tas_sigs *)(thread + ((uintptr_t)&tas__sigs - pthread_self()));
}

/* libc's handler is there, and does not restart what it interrupts. */
static bool signal_ready(void)
{
	struct {
		uintptr_t handler;
		unsigned long flags;
		uintptr_t restorer;
		uint64_t mask;
	} sa;

	if (sys4(SYS_rt_sigaction, SIGNAL, 0, SYS_P(&sa), 8) < 0 || sa.handler <= 1)
		return false;
	if (!(sa.flags & SA_RESTART))
		return true;
	sa.flags &= ~(unsigned long)SA_RESTART;
	return sys4(SYS_rt_sigaction, SIGNAL, SYS_P(&sa), 0, 8) == 0;
}

static void wake(struct tas_sigs *t, uint32_t tid)
{
	bool ready = signal_ready();
	struct timespec nap = {0, 50000};
	uint64_t end = tas__now() + PATIENCE_NS;

	while (ready && atomic_load(&t->asleep) == (tid | MARKED) && tas__now() < end) {
		sys3(SYS_tgkill, sys0(SYS_getpid), tid, SIGNAL);
		sys2(SYS_nanosleep, SYS_P(&nap), 0);
		if (nap.tv_nsec < NAP_MAX_NS)
			nap.tv_nsec *= 2;
	}
	atomic_store(&t->asleep, 0);
}

int tas_cancel(pthread_t thread, int (*libc_cancel)(pthread_t))
{
	struct tas_sigs *t = sigs_of(thread);
	uint64_t mask;
	uint32_t v;
	bool marked;
	int r;

	if (pthread_equal(thread, pthread_self())) {
		atomic_fetch_or(&t->cancel, TAS_CANCEL_ASKED);
		return libc_cancel(thread);
	}
	mask = tas__signals_block_hard(); /* a handler must not keep the thread waiting */
	atomic_fetch_or(&t->cancel, TAS_CANCEL_ASKED);
	atomic_fetch_add(&t->news_any, 1);
	atomic_fetch_add(&t->news_intr, 1);
	sys_futex(&t->news_any, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL);
	sys_futex(&t->news_intr, FUTEX_WAKE_PRIVATE, INT32_MAX, NULL);
	v = atomic_load(&t->asleep);
	marked = v && !(v & (MARKED | LEAVES)) && atomic_compare_exchange_strong(&t->asleep, &v, v | MARKED);
	r = libc_cancel(thread);
	if (marked)
		wake(t, v);
	tas__signals_restore(mask);
	return r;
}

/* libc has been told, or is about to be. */
void tas_cancel_point(void)
{
	while (tas__cancelled()) {
		pthread_testcancel();
		sys0(SYS_sched_yield);
	}
}
