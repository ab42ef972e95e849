// SPDX-License-Identifier: MIT
/* Signals that are taken, not handled: what the client library's sender had to write in another way is put right.  And
 * fcntl, of whose results one is negative: the owner of a file that is a process group. */
#include <time.h>

#include "preload.h"

_Atomic bool tas__wants_info[NSIG];

int tas__w_sigtimedwait(const sigset_t *set, siginfo_t *info, const struct timespec *timeout)
{
	int sig = tas__real.sigtimedwait(set, info, timeout);

	if (sig > 0 && info)
		tas_signal_info(sig, info);
	return sig;
}

int tas__w_sigwaitinfo(const sigset_t *set, siginfo_t *info)
{
	int sig = tas__real.sigwaitinfo(set, info);

	if (sig > 0 && info)
		tas_signal_info(sig, info);
	return sig;
}

static __attribute__((noinline)) int slow_fcntl(int fd, int cmd, unsigned long arg)
{
	if (tas__passive() || cmd == F_GETOWN)
		return tas__real.fcntl(fd, cmd, arg);
	return (int)tas__result(tas_fcntl(fd, cmd, arg));
}

int tas__w_fcntl(int fd, int cmd, unsigned long arg)
{
	if (likely(tas__kernel(fd)))
		return tas__real.fcntl(fd, cmd, arg);
	return slow_fcntl(fd, cmd, arg);
}
TAS_SAME(__fcntl, fcntl);
TAS_SAME(fcntl64, fcntl);
