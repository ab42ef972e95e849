// SPDX-License-Identifier: MIT
/*
 * Cancellation.  The client library wakes a thread that sleeps in a call of ours (lowlevel/cancel.c); libc does the rest.
 *
 * A thread of type PTHREAD_CANCEL_ASYNCHRONOUS may be cancelled at any instruction, with our locks held.  POSIX lets it
 * call nothing of ours, but programs block in accept() like this; so our calls run deferred.
 */
#include "preload.h"

__thread bool tas__cancel_any_time __attribute__((tls_model("initial-exec")));

int tas__w_pthread_cancel(pthread_t thread)
{
	return tas__passive() ? tas__real.pthread_cancel(thread) : tas_cancel(thread, tas__real.pthread_cancel);
}

int tas__w_pthread_setcanceltype(int type, int *old)
{
	if (type == PTHREAD_CANCEL_DEFERRED || type == PTHREAD_CANCEL_ASYNCHRONOUS)
		tas__cancel_any_time = type == PTHREAD_CANCEL_ASYNCHRONOUS; /* first: setting it may end the thread */
	return tas__real.pthread_setcanceltype(type, old);
}

void tas__cancel_enter(void)
{
	int old;

	tas__real.pthread_setcanceltype(PTHREAD_CANCEL_DEFERRED, &old);
}

void tas__cancel_leave(void)
{
	int old;

	tas__real.pthread_setcanceltype(PTHREAD_CANCEL_ASYNCHRONOUS, &old);
}
