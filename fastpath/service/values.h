/* SPDX-License-Identifier: MIT */
/* Values of command-line options: text to number, address, link.  Pure functions: 0, or -EINVAL / -EAFNOSUPPORT (IPv6). */
#ifndef TAS_VALUES_H
#define TAS_VALUES_H

#include <stdbool.h>
#include <stdint.h>

#include "fast/config.h"

/* Decimal; with suffixes k, M, G (powers of 1024) when asked.  -ERANGE beyond [min, max]. */
int tas__value_number(const char *s, bool suffixes, uint64_t min, uint64_t max, uint64_t *out);
/* Octal file mode. */
int tas__value_mode(const char *s, unsigned *out);
/* ADDR or ADDR/PREFIX; without PREFIX bits is set to dflt. */
int tas__value_prefix(const char *s, unsigned dflt, struct tas_prefix *out);
/* DEST[/PREFIX],NEXTHOP */
int tas__value_route(const char *s, struct tas_prefix *dst, struct tas_addr *nexthop);
/* Name of a network interface as the kernel accepts it. */
bool tas__value_ifname(const char *s);
uint32_t tas__value_pow2_up(uint32_t n);

#endif
