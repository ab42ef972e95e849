// SPDX-License-Identifier: MIT
/* New threads: the kernel catches raw system calls per thread, and a new one begins without.  When none are caught these are
 * libc's. */
#include <stdlib.h>

#include "preload.h"
#include "raw.h"

struct start {
	void *(*fn)(void *);
	thrd_start_t c11;
	void *arg;
};

static struct start *start_of(struct start s)
{
	struct start *copy = malloc(sizeof *copy);

	if (copy)
		*copy = s;
	return copy;
}

static struct start begin(void *arg)
{
	struct start s = *(struct start *)arg;

	free(arg);
	tas__raw_arm();
	return s;
}

static void *run(void *arg)
{
	struct start s = begin(arg);

	return s.fn(s.arg);
}

static int run_c11(void *arg)
{
	struct start s = begin(arg);

	return s.c11(s.arg);
}

int tas__w_pthread_create(pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg)
{
	struct start *s;
	int r;

	if (likely(tas__raw_mode == TAS_RAW_OFF))
		return tas__real.pthread_create(t, attr, fn, arg);
	s = start_of((struct start){.fn = fn, .arg = arg});
	if (!s)
		return EAGAIN;
	r = tas__real.pthread_create(t, attr, run, s);
	if (r)
		free(s);
	return r;
}

int tas__w_thrd_create(thrd_t *t, thrd_start_t fn, void *arg)
{
	struct start *s;
	int r;

	if (likely(tas__raw_mode == TAS_RAW_OFF))
		return tas__real.thrd_create(t, fn, arg);
	s = start_of((struct start){.c11 = fn, .arg = arg});
	if (!s)
		return thrd_nomem;
	r = tas__real.thrd_create(t, run_c11, s);
	if (r != thrd_success)
		free(s);
	return r;
}
