// SPDX-License-Identifier: MIT
/* Seccomp filters of the program: what they forbid, the library must not try (lowlevel/sandbox.c). */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/prctl.h>
#include <sys/syscall.h>

#include "lowlevel/sys.h"
#include "lowlevel/wild.h"
#include "preload.h"
#include "raw.h"

static uint32_t before(const void *prog)
{
	return tas__passive() || !prog || tas__wild(prog) ? 0 : tas_before_filter(prog);
}

int tas__w_prctl(int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d)
{
	uint32_t forbids = op == PR_SET_SECCOMP && a == SECCOMP_MODE_FILTER ? before((const void *)b) : 0;
	int r;

	if (op == PR_SET_SECCOMP && a == SECCOMP_MODE_STRICT && !tas__passive())
		tas_confining();
	r = tas__real.prctl(op, a, b, c, d);

	if (r == 0)
		tas_filter_set(forbids);
	return r;
}

long tas__seccomp(long op, long flags, long prog)
{
	uint32_t forbids = op == SECCOMP_SET_MODE_FILTER ? before((const void *)prog) : 0;
	long r = sys3(SYS_seccomp, op, flags, prog);

	if (r >= 0)
		tas_filter_set(forbids);
	return r;
}
