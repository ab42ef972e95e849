/* SPDX-License-Identifier: MIT */
/* Pointers of the program that cannot be right: the lowest page and the kernel's half.  A call given one of these says
 * EFAULT as the kernel would; one that merely points to nothing faults here, where the kernel's copy would say EFAULT. */
#ifndef TAS_WILD_H
#define TAS_WILD_H

#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>

static inline bool tas__wild(const void *p)
{
	return (intptr_t)p < 4096;
}

/* Does a buffer end where no program has memory?  The kernel's access_ok(): said before anything is copied. */
static inline bool tas__beyond(const void *p, size_t n)
{
	uintptr_t at = (uintptr_t)p, most = (uintptr_t)1 << (at >> 47 ? 56 : 47);

	return at > most || n > most - at;
}

#endif
