// SPDX-License-Identifier: MIT
/*
 * Cancellation.  The client library wakes a thread that sleeps in a call of ours (lowlevel/cancel.c); libc does the rest.
 *
 * A thread of type PTHREAD_CANCEL_ASYNCHRONOUS may be cancelled at any instruction, with our locks held.  POSIX lets it
 * call nothing of ours, but programs block in accept() like this; so our calls run deferred.
 */
#include "preload.h"

int tas__w_pthread_cancel(pthread_t thread)
{
	return tas__passive() ? tas__real.pthread_cancel(thread) : tas_cancel(thread, tas__real.pthread_cancel);
}

int tas__w_pthread_setcanceltype(int type, int *old)
{
	/* first: setting it may end the thread */
	if (type == PTHREAD_CANCEL_ASYNCHRONOUS)
		atomic_fetch_or(&tas__sigs.cancel, TAS_CANCEL_ANY_TIME);
	else if (type == PTHREAD_CANCEL_DEFERRED)
		atomic_fetch_and(&tas__sigs.cancel, (uint8_t)~TAS_CANCEL_ANY_TIME);
	return tas__real.pthread_setcanceltype(type, old);
}

void tas__cancel_enter(void)
{
	int old;

	pthread_testcancel();
	if (atomic_load(&tas__sigs.cancel) & TAS_CANCEL_ANY_TIME)
		tas__real.pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &old);
}

void tas__cancel_leave(void)
{
	int old;

	if (atomic_load(&tas__sigs.cancel) & TAS_CANCEL_ANY_TIME)
		tas__real.pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
}
