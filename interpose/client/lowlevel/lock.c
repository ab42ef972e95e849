/* SPDX-License-Identifier: MIT */
/*
 * Locks.  Mutexes live inside the process; shared locks (lock_rx, lock_tx of a socket) may be wanted by any process of
 * the memory set and are freed by the service when their owner dies.  A shared lock is held for a copy and a counter
 * only.
 *
 * A signal handler may read or write the very socket whose lock the interrupted thread holds.  It can never get it, so
 * the lock says -EDEADLK to a thread that holds it already: `tas__held` names the word before it is taken and until it is
 * free.
 */
#include "lowlevel/private.h"

enum { WAITED = 1u << 31, SLICE_NS = 100000000 };

__thread _Atomic uint32_t *tas__held[2];
__thread uint32_t tas__my_tid;

void tas__mutex_wait(struct tas_mutex *m)
{
	for (int i = 0; i < 50; i++) {
		if (tas__mutex_try(m))
			return;
		__builtin_ia32_pause();
	}
	while (atomic_exchange_explicit(&m->w, 2, memory_order_acquire))
		sys_futex(&m->w, FUTEX_WAIT_PRIVATE, 2, NULL);
}

uint32_t tas__tid_ask(void)
{
	return tas__my_tid = (uint32_t)sys0(SYS_gettid);
}

void tas__tid_changed(void)
{
	tas__my_tid = 0;
	atomic_store(&tas__sigs.asleep, 0); /* a canceller is no thread of ours */
	tas__held[0] = tas__held[1] = NULL;
}

static uint32_t my_tag(const struct tas_session *ss)
{
	return (ss->slot + 1) << 20 | (tas__tid() & 0xfffff);
}

/* Sleeps on a word that was seen as v (with WAITED set). */
static void lock_sleep(struct tas_session *ss, _Atomic uint32_t *w, uint32_t v, uint64_t end)
{
	uint64_t until = tas__now() + SLICE_NS;
	struct futex_waitv f[2] = {
		{.val = v, .uaddr = (uintptr_t)w, .flags = FUTEX_32},
		{.val = atomic_load(&ss->r->alive), .uaddr = (uintptr_t)&ss->r->alive, .flags = FUTEX_32},
	};

	long r;

	if (end < until)
		until = end;
	struct timespec ts = {.tv_sec = (time_t)(until / 1000000000), .tv_nsec = (long)(until % 1000000000)};

	r = tas__may(TAS_MAY_WAITV) ? sys5(SYS_futex_waitv, SYS_P(f), 2, 0, SYS_P(&ts), CLOCK_MONOTONIC) : -EPERM;
	if (r == -ENOSYS || r == -EPERM) { /* a sandbox that does not know the call */
		ts = (struct timespec){.tv_nsec = 1000000};
		sys_futex(w, FUTEX_WAIT, v, &ts);
	}
}

static int lock_slow(struct tas_session *ss, _Atomic uint32_t *w, uint32_t tag, int64_t timeout_ns)
{
	uint64_t end = timeout_ns < 0 ? UINT64_MAX : tas__now() + (uint64_t)timeout_ns;
	uint32_t v;

	for (int i = 0;; i++) {
		v = atomic_load_explicit(w, memory_order_relaxed);
		if (!v) {
			/* others may sleep: keep the mark, so that our unlock wakes one of them */
			if (atomic_compare_exchange_weak_explicit(w, &v, tag | (i < 64 ? 0 : WAITED),
								  memory_order_acquire, memory_order_relaxed))
				return 0;
			continue;
		}
		if (i < 64) {
			__builtin_ia32_pause();
			continue;
		}
		if (timeout_ns >= 0 && tas__now() >= end)
			return -ETIMEDOUT;
		if (!tas__alive(ss) && timeout_ns < 0)
			return -EPIPE;
		if (!(v & WAITED) && !atomic_compare_exchange_weak_explicit(w, &v, v | WAITED, memory_order_relaxed,
									    memory_order_relaxed))
			continue;
		lock_sleep(ss, w, v | WAITED, end);
	}
}

int tas__lock(struct tas_session *ss, _Atomic uint32_t *w, int64_t timeout_ns)
{
	uint32_t tag = my_tag(ss), v = 0;
	int i, r;

	for (i = 0; i < 2; i++)
		if (tas__held[i] == w && (atomic_load_explicit(w, memory_order_relaxed) & ~WAITED) == tag)
			return -EDEADLK;
	i = tas__held[0] ? 1 : 0;
	_Atomic uint32_t *was = tas__held[i]; /* an interrupted thread may hold two locks of other sockets */

	tas__held[i] = w;
	atomic_signal_fence(memory_order_seq_cst);
	if (atomic_compare_exchange_strong_explicit(w, &v, tag, memory_order_acquire, memory_order_relaxed))
		return 0;
	r = lock_slow(ss, w, tag, timeout_ns);
	if (r)
		tas__held[i] = was;
	return r;
}

void tas__unlock_wake(_Atomic uint32_t *w)
{
	sys_futex(w, FUTEX_WAKE, 1, NULL);
}
