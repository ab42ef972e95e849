/* SPDX-License-Identifier: MIT */
/*
 * Signals that come while a call waits.
 *
 * On Linux a signal that finds recv() anywhere between its entry and its return interrupts it (or restarts it, with
 * SA_RESTART).  Here such a call spins, looks, and sleeps by turns, and the handler may run in any of the gaps.  So
 * whoever runs the program's handlers (the interposer's trampolines) counts them per thread, before the handler proper;
 * a call remembers the counts at its entry and compares after each look.  What remains is the gap between the last
 * comparison and the sleep: a futex sleep has the count among the words that it compares; a ppoll sleep has named its
 * eventfd, which is written then.
 *
 * Without trampolines the counts stand still, and only a signal that finds the thread asleep is noticed.
 */
#include "lowlevel/low.h"

__thread struct tas_sigs tas__sigs __attribute__((tls_model("initial-exec"))) = {.wake = -1};

void tas_signal_ran(bool interrupts)
{
	uint64_t one = 1;
	int fd;

	atomic_fetch_add_explicit(&tas__sigs.any, 1, memory_order_relaxed);
	atomic_fetch_add_explicit(&tas__sigs.news_any, 1, memory_order_relaxed);
	if (interrupts) {
		atomic_fetch_add_explicit(&tas__sigs.intr, 1, memory_order_relaxed);
		atomic_fetch_add_explicit(&tas__sigs.news_intr, 1, memory_order_relaxed);
	}
	fd = atomic_load_explicit(&tas__sigs.wake, memory_order_relaxed);
	if (fd >= 0)
		sys_write(fd, &one, sizeof one);
}

int tas__ppoll(struct pollfd *p, unsigned long n, struct timespec *ts, const sigset_t *mask, struct tas_sig_mark m,
	       bool restarts, int wake)
{
	uint64_t count;
	int r;

	/* before the comparison: a handler that comes after it writes */
	atomic_store_explicit(&tas__sigs.wake, wake, memory_order_relaxed);
	atomic_signal_fence(memory_order_seq_cst);
	if (tas__sig_came(m, restarts)) {
		r = -EINTR;
		if (wake >= 0)
			sys_read(wake, &count, sizeof count);
	} else {
		r = (int)tas__sleep5(SYS_ppoll, SYS_P(p), n, SYS_P(ts), SYS_P(mask), 8);
	}
	atomic_store_explicit(&tas__sigs.wake, -1, memory_order_relaxed);
	return r;
}
