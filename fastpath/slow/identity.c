/* SPDX-License-Identifier: MIT */
/*
 * A descriptor that an application sends is the proof that it holds the socket.  The service reads the identity itself:
 * the cookie names the kernel's socket for as long as the machine runs, the inode guards against a cookie from nowhere.
 */
#include <errno.h>
#include <netinet/in.h>
#include <sys/socket.h>
#include <sys/stat.h>

#include "slow/identity.h"

#ifndef SO_NETNS_COOKIE
#define SO_NETNS_COOKIE 71
#endif

static int option(int fd, int name, void *val, socklen_t want)
{
	socklen_t len = want;

	if (getsockopt(fd, SOL_SOCKET, name, val, &len))
		return -errno;
	return len == want ? 0 : -EINVAL;
}

int tas__ident_read(int fd, struct tas_ident *i)
{
	int type, protocol, err;
	struct stat st;

	if (fstat(fd, &st))
		return -errno;
	if (!S_ISSOCK(st.st_mode))
		return -ENOTSOCK;
	i->ino = st.st_ino;
	err = option(fd, SO_DOMAIN, &i->domain, sizeof i->domain);
	err = err ? err : option(fd, SO_TYPE, &type, sizeof type);
	err = err ? err : option(fd, SO_PROTOCOL, &protocol, sizeof protocol);
	err = err ? err : option(fd, SO_COOKIE, &i->cookie, sizeof i->cookie);
	err = err ? err : option(fd, SO_NETNS_COOKIE, &i->netns, sizeof i->netns);
	if (err)
		return err;
	if ((i->domain != AF_INET && i->domain != AF_INET6) || type != SOCK_STREAM || protocol != IPPROTO_TCP)
		return -EOPNOTSUPP;
	return 0;
}

uint32_t tas__ident_keep(struct tas_proc *p, const struct tas_ident *i)
{
	uint32_t name;

	if (p->mail_ended)
		return 0;
	for (unsigned k = 0; k < TAS_IDENTS; k++)
		if (p->ident[k].name && p->ident[k].is.cookie == i->cookie)
			return p->ident[k].name;
	name = ++p->last_ident;
	if (!name)
		name = ++p->last_ident;
	p->ident[name % TAS_IDENTS].name = name;
	p->ident[name % TAS_IDENTS].is = *i;
	return name;
}
