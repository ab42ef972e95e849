/* SPDX-License-Identifier: MIT */
/* Predicates on addresses. */
#include <arpa/inet.h>
#include <netinet/in.h>
#include <string.h>

#include "fast/sock.h"

static const uint8_t v4mapped[12] = { 0, 0, 0, 0, 0, 0, 0, 0, 0, 0, 0xff, 0xff };

struct tas_addr tas__addr_unmap(const struct tas_addr *a)
{
	struct tas_addr r = *a;

	if (a->family != AF_INET6 || memcmp(a->ip, v4mapped, sizeof v4mapped))
		return r;
	r.family = AF_INET;
	r.scope = 0;
	memset(r.ip, 0, sizeof r.ip);
	memcpy(r.ip, a->ip + 12, 4);
	return r;
}

struct tas_addr tas__addr_as(const struct tas_addr *a, int family)
{
	struct tas_addr r = *a;

	if (family != AF_INET6 || a->family != AF_INET)
		return r;
	r.family = AF_INET6;
	memcpy(r.ip, v4mapped, sizeof v4mapped);
	memcpy(r.ip + 12, a->ip, 4);
	return r;
}

bool tas__addr_any(const struct tas_addr *a)
{
	static const uint8_t zero[16];

	return !memcmp(a->ip, zero, a->family == AF_INET6 ? 16 : 4);
}

bool tas__addr_loopback(const struct tas_addr *a)
{
	static const uint8_t one[16] = { [15] = 1 };

	return a->family == AF_INET6 ? !memcmp(a->ip, one, 16) : a->ip[0] == 127;
}

bool tas__addr_same_ip(const struct tas_addr *a, const struct tas_addr *b)
{
	return a->family == b->family && !memcmp(a->ip, b->ip, a->family == AF_INET6 ? 16 : 4);
}
