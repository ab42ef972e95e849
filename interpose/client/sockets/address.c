/* SPDX-License-Identifier: MIT */
/* Addresses between struct sockaddr and the ABI's.  A v4-mapped IPv6 address is told to the service as the IPv4 address
 * that it means; towards the program the family of the socket decides. */
#include <netinet/in.h>
#include <string.h>

#include "sockets/sock.h"

static const uint8_t mapped[12] = {[10] = 0xff, [11] = 0xff};

int tas__addr_check(const struct sockaddr *sa, socklen_t len)
{
	if ((int)len < 0 || len > sizeof(struct sockaddr_storage))
		return -EINVAL;
	return len && tas__wild(sa) ? -EFAULT : 0;
}

int tas__addr_in(const struct sockaddr *sa, socklen_t len, struct tas_addr *out)
{
	memset(out, 0, sizeof *out);
	if (!sa || len < sizeof(sa->sa_family))
		return -EINVAL;
	if (sa->sa_family == AF_INET && len >= sizeof(struct sockaddr_in)) {
		const struct sockaddr_in *a = (const void *)sa;

		out->family = AF_INET;
		out->port = a->sin_port;
		memcpy(out->ip, &a->sin_addr, 4);
		return 0;
	}
	if (sa->sa_family == AF_INET6 && len >= offsetof(struct sockaddr_in6, sin6_scope_id)) {
		const struct sockaddr_in6 *a = (const void *)sa;

		out->port = a->sin6_port;
		if (!memcmp(&a->sin6_addr, mapped, 12)) {
			out->family = AF_INET;
			memcpy(out->ip, (const uint8_t *)&a->sin6_addr + 12, 4);
			return 0;
		}
		out->family = AF_INET6;
		memcpy(out->ip, &a->sin6_addr, 16);
		if (len >= sizeof *a)
			out->scope = a->sin6_scope_id;
		return 0;
	}
	return -EINVAL;
}

/* As the kernel does: copies what fits, says the full length. */
int tas__addr_out(const struct tas_addr *a, int family, struct sockaddr *sa, socklen_t *len)
{
	union {
		struct sockaddr_in v4;
		struct sockaddr_in6 v6;
	} u;
	socklen_t n, room;

	memset(&u, 0, sizeof u);
	if (family == AF_INET6) {
		u.v6.sin6_family = AF_INET6;
		u.v6.sin6_port = a->port;
		if (a->family == AF_INET) {
			memcpy(&u.v6.sin6_addr, mapped, 12);
			memcpy((uint8_t *)&u.v6.sin6_addr + 12, a->ip, 4);
		} else {
			memcpy(&u.v6.sin6_addr, a->ip, 16);
			u.v6.sin6_scope_id = a->scope;
		}
		n = sizeof u.v6;
	} else {
		u.v4.sin_family = AF_INET;
		u.v4.sin_port = a->port;
		memcpy(&u.v4.sin_addr, a->ip, 4);
		n = sizeof u.v4;
	}
	if (tas__wild(len))
		return -EFAULT;
	if ((int)*len < 0)
		return -EINVAL;
	room = *len < n ? *len : n;
	*len = n; /* even if there is nothing to copy to */
	if (room && tas__wild(sa))
		return -EFAULT;
	if (room)
		memcpy(sa, &u, room);
	return 0;
}

int tas__addr_local(int fd, struct tas_addr *out)
{
	struct sockaddr_storage a;
	socklen_t len = sizeof a;
	int r = sys_getsockname(fd, &a, &len);

	return r < 0 ? r : tas__addr_in((struct sockaddr *)&a, len, out);
}
