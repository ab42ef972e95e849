/* SPDX-License-Identifier: MIT */
/* Pointers of the program that cannot be right: the lowest page and the kernel's half.  A call given one of these says
 * EFAULT as the kernel would; one that merely points to nothing faults here, where the kernel's copy would say EFAULT. */
#ifndef TAS_WILD_H
#define TAS_WILD_H

#include <stdbool.h>
#include <stdint.h>

static inline bool tas__wild(const void *p)
{
	return (intptr_t)p < 4096;
}

#endif
