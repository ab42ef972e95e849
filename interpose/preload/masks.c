// SPDX-License-Identifier: MIT
/* Signal masks.  While raw system calls are caught SIGSYS may not be blocked: the kernel kills a process that it cannot tell. */
#include "preload.h"
#include "raw.h"

const sigset_t *tas__raw_mask(const sigset_t *set, sigset_t *room)
{
	if (tas__wild(set) || sigismember(set, SIGSYS) <= 0)
		return set;
	*room = *set;
	sigdelset(room, SIGSYS);
	return room;
}

int tas__w_sigprocmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t room;

	return tas__real.sigprocmask(how, how == SIG_UNBLOCK ? set : tas__mask(set, &room), old);
}

int tas__w_pthread_sigmask(int how, const sigset_t *set, sigset_t *old)
{
	sigset_t room;

	return tas__real.pthread_sigmask(how, how == SIG_UNBLOCK ? set : tas__mask(set, &room), old);
}

int tas__w_sigsuspend(const sigset_t *mask)
{
	sigset_t room;

	return tas__real.sigsuspend(tas__mask(mask, &room));
}
TAS_SAME(__sigsuspend, sigsuspend);
