/* SPDX-License-Identifier: MIT */
#include "service/values.h"

#include <arpa/inet.h>
#include <ctype.h>
#include <errno.h>
#include <stdlib.h>
#include <string.h>

static unsigned suffix_shift(char c)
{
	switch (c) {
	case 'k':
	case 'K':
		return 10;
	case 'm':
	case 'M':
		return 20;
	case 'g':
	case 'G':
		return 30;
	default:
		return 0;
	}
}

int tas__value_number(const char *s, bool suffixes, uint64_t min, uint64_t max, uint64_t *out)
{
	unsigned long long v;
	unsigned shift;
	char *end;

	if (!isdigit((unsigned char)*s)) /* strtoull would take blanks and signs */
		return -EINVAL;
	errno = 0;
	v = strtoull(s, &end, 10);
	if (errno)
		return -ERANGE;
	if (*end) {
		shift = suffixes ? suffix_shift(*end) : 0;
		if (!shift || end[1])
			return -EINVAL;
		if (v > UINT64_MAX >> shift)
			return -ERANGE;
		v <<= shift;
	}
	if (v < min || v > max)
		return -ERANGE;
	*out = v;
	return 0;
}

int tas__value_mode(const char *s, unsigned *out)
{
	unsigned v = 0;

	if (!*s || strlen(s) > 5)
		return -EINVAL;
	for (; *s; s++) {
		if (*s < '0' || *s > '7')
			return -EINVAL;
		v = v << 3 | (unsigned)(*s - '0');
	}
	if (v > 0777)
		return -ERANGE;
	*out = v;
	return 0;
}

static int parse_addr(const char *s, struct tas_addr *a)
{
	struct in6_addr six;

	memset(a, 0, sizeof(*a));
	if (inet_pton(AF_INET6, s, &six) == 1)
		return -EAFNOSUPPORT;
	if (inet_pton(AF_INET, s, a->ip) != 1)
		return -EINVAL;
	a->family = AF_INET;
	return 0;
}

int tas__value_prefix(const char *s, unsigned dflt, struct tas_prefix *out)
{
	const char *slash = strchr(s, '/');
	size_t n = slash ? (size_t)(slash - s) : strlen(s);
	uint64_t bits = dflt;
	char addr[64];
	int r;

	if (n >= sizeof(addr))
		return -EINVAL;
	memcpy(addr, s, n);
	addr[n] = 0;
	r = parse_addr(addr, &out->addr);
	if (r)
		return r;
	if (slash && tas__value_number(slash + 1, false, 0, 32, &bits))
		return -EINVAL;
	out->bits = (uint8_t)bits;
	return 0;
}

int tas__value_route(const char *s, struct tas_prefix *dst, struct tas_addr *nexthop)
{
	const char *comma = strchr(s, ',');
	char left[64];
	int r;

	if (!comma || (size_t)(comma - s) >= sizeof(left))
		return -EINVAL;
	memcpy(left, s, (size_t)(comma - s));
	left[comma - s] = 0;
	r = tas__value_prefix(left, 32, dst);
	return r ? r : parse_addr(comma + 1, nexthop);
}

bool tas__value_ifname(const char *s)
{
	size_t n = strlen(s);

	if (!n || n > 15 || !strcmp(s, ".") || !strcmp(s, ".."))
		return false;
	for (; *s; s++) /* comma and equals would end the value in a device argument of EAL */
		if (isspace((unsigned char)*s) || strchr("/:,=%", *s))
			return false;
	return true;
}

uint32_t tas__value_pow2_up(uint32_t n)
{
	uint32_t p = 1;

	while (p < n && p < 1u << 31)
		p <<= 1;
	return p;
}
