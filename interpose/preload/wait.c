// SPDX-License-Identifier: MIT
/*
 * poll and select.  A call whose descriptors are all the kernel's is libc's; one other descriptor sends the whole
 * call to the client library.  The scan costs a few instructions per descriptor.
 */
#include <limits.h>
#include <time.h>

#include "preload.h"
#include "raw.h"

/* What the kernel refuses before it reads the array is the kernel's, too. */
static bool poll_is_kernel(const struct pollfd *fds, nfds_t n)
{
	if (unlikely(tas__wild(fds) || n > TAS_FD_TABLE_MAX))
		return true;
	for (nfds_t i = 0; i < n; i++)
		if (unlikely(!tas__kernel(fds[i].fd)))
			return false;
	return true;
}

static __attribute__((noinline)) int slow_poll(struct pollfd *fds, nfds_t n, int ms)
{
	struct timespec ts;

	if (tas__passive())
		return tas__real.poll(fds, n, ms);
	return (int)tas__result(CP(tas_ppoll(fds, n, tas__from_ms(ms, &ts), NULL)));
}

int tas__w_poll(struct pollfd *fds, nfds_t n, int ms)
{
	if (likely(poll_is_kernel(fds, n)))
		return tas__real.poll(fds, n, ms);
	return slow_poll(fds, n, ms);
}
TAS_SAME(__poll, poll);

int tas__w___poll_chk(struct pollfd *fds, nfds_t n, int ms, size_t room)
{
	if (room / sizeof *fds < n || poll_is_kernel(fds, n))
		return tas__real.__poll_chk(fds, n, ms, room);
	return slow_poll(fds, n, ms);
}

static __attribute__((noinline)) int slow_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout,
						const sigset_t *mask)
{
	sigset_t room;

	mask = tas__mask(mask, &room);
	if (poll_is_kernel(fds, n) || tas__passive())
		return tas__real.ppoll(fds, n, timeout, mask);
	return (int)tas__result(CP(tas_ppoll(fds, n, timeout, mask)));
}

int tas__w_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask)
{
	if (likely(!mask || tas__raw_mode == TAS_RAW_OFF) && likely(poll_is_kernel(fds, n)))
		return tas__real.ppoll(fds, n, timeout, mask);
	return slow_ppoll(fds, n, timeout, mask);
}

int tas__w___ppoll_chk(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room)
{
	sigset_t set;

	mask = tas__mask(mask, &set);
	if (room / sizeof *fds < n || poll_is_kernel(fds, n) || tas__passive())
		return tas__real.__ppoll_chk(fds, n, timeout, mask, room);
	return (int)tas__result(CP(tas_ppoll(fds, n, timeout, mask)));
}

/* ---- select: by words of the sets, as the kernel does; programs may pass sets larger than fd_set ---- */
static inline unsigned long word(const fd_set *set, int i)
{
	return unlikely(tas__wild(set)) ? 0 : ((const unsigned long *)set)[i];
}

static inline __attribute__((always_inline)) bool word_is_kernel(int i, int n, const fd_set *r, const fd_set *w,
								 const fd_set *e)
{
	unsigned long bits = (word(r, i) | word(w, i) | word(e, i)) & ~0ul >> (-n & (NFDBITS - 1));
	const uint8_t *states = tas_fd_states + (size_t)i * NFDBITS;

	for (; bits; bits &= bits - 1)
		if (unlikely(__atomic_load_n(&states[__builtin_ctzl(bits)], __ATOMIC_RELAXED) != TAS_FD_KERNEL))
			return false;
	return true;
}

/* What the kernel refuses before it reads the sets is the kernel's. */
static __attribute__((noinline)) bool words_are_kernel(int n, const fd_set *r, const fd_set *w, const fd_set *e)
{
	if ((r && tas__wild(r)) || (w && tas__wild(w)) || (e && tas__wild(e)))
		return true;
	if (n > (int)TAS_FD_TABLE_MAX)
		n = TAS_FD_TABLE_MAX;
	for (int i = 0; n > 0; i++, n -= NFDBITS)
		if (!word_is_kernel(i, n < NFDBITS ? n : 0, r, w, e))
			return false;
	return true;
}

/* Numbers below 64 only, and all of them the kernel's. */
static inline __attribute__((always_inline)) bool quickly_kernel(int n, const fd_set *r, const fd_set *w, const fd_set *e)
{
	return likely((unsigned)n - 1 < NFDBITS) && likely(word_is_kernel(0, n, r, w, e));
}

/* Linux leaves the time that remains in select's timeout, whatever the result. */
static void remaining(struct timeval *timeout, const struct timespec *limit, const struct timespec *start)
{
	struct timespec now;
	int64_t left;

	clock_gettime(CLOCK_MONOTONIC, &now);
	left = (limit->tv_sec - (now.tv_sec - start->tv_sec)) * 1000000000ll + limit->tv_nsec -
	       (now.tv_nsec - start->tv_nsec);
	left = left < 0 ? 0 : left / 1000;
	timeout->tv_sec = left / 1000000;
	timeout->tv_usec = left % 1000000;
}

static __attribute__((noinline)) int slow_select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
	struct timespec limit, start;
	int ret;

	if (words_are_kernel(n, r, w, e) || tas__passive() || (timeout && (timeout->tv_sec < 0 || timeout->tv_usec < 0)))
		return tas__real.select(n, r, w, e, timeout);
	if (!timeout)
		return (int)tas__result(CP(tas_pselect(n, r, w, e, NULL, NULL)));
	limit.tv_sec = timeout->tv_sec + timeout->tv_usec / 1000000;
	if (limit.tv_sec < timeout->tv_sec)
		limit.tv_sec = LONG_MAX;
	limit.tv_nsec = timeout->tv_usec % 1000000 * 1000;
	clock_gettime(CLOCK_MONOTONIC, &start);
	ret = (int)tas__result(CP(tas_pselect(n, r, w, e, &limit, NULL)));
	if (limit.tv_sec < LONG_MAX / 2 && (limit.tv_sec || limit.tv_nsec))
		remaining(timeout, &limit, &start);
	return ret;
}

int tas__w_select(int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout)
{
	if (likely(quickly_kernel(n, r, w, e)))
		return tas__real.select(n, r, w, e, timeout);
	return slow_select(n, r, w, e, timeout);
}
TAS_SAME(__select, select);

static __attribute__((noinline)) int slow_pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout,
						  const sigset_t *mask)
{
	sigset_t room;

	mask = tas__mask(mask, &room);
	if (words_are_kernel(n, r, w, e) || tas__passive())
		return tas__real.pselect(n, r, w, e, timeout, mask);
	return (int)tas__result(CP(tas_pselect(n, r, w, e, timeout, mask)));
}

int tas__w_pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask)
{
	if (likely(!mask || tas__raw_mode == TAS_RAW_OFF) && likely(quickly_kernel(n, r, w, e)))
		return tas__real.pselect(n, r, w, e, timeout, mask);
	return slow_pselect(n, r, w, e, timeout, mask);
}
