/* SPDX-License-Identifier: MIT */
/* Names that programs use: flags, events, options. */
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <string.h>
#include <sys/epoll.h>

#include "fuzz.h"

#define C(name) { #name, (long)(name) }
#define SHORT(prefix, name) { #name, (long)(prefix##name) }
static const struct {
	const char *name;
	long value;
} constants[] = {
	SHORT(EPOLL, IN), SHORT(EPOLL, PRI), SHORT(EPOLL, OUT), SHORT(EPOLL, ERR), SHORT(EPOLL, HUP), SHORT(EPOLL, RDHUP),
	SHORT(EPOLL, ET), SHORT(EPOLL, ONESHOT), SHORT(EPOLL, EXCLUSIVE),
	SHORT(MSG_, OOB), SHORT(MSG_, PEEK), SHORT(MSG_, DONTWAIT), SHORT(MSG_, WAITALL), SHORT(MSG_, TRUNC),
	SHORT(MSG_, NOSIGNAL), SHORT(MSG_, MORE), SHORT(MSG_, DONTROUTE), SHORT(MSG_, ERRQUEUE),
	{ "INET", AF_INET }, { "INET6", AF_INET6 }, { "NONBLOCK", SOCK_NONBLOCK }, { "CLOEXEC", SOCK_CLOEXEC },
	SHORT(EPOLL_CTL_, ADD), SHORT(EPOLL_CTL_, MOD), SHORT(EPOLL_CTL_, DEL),
	SHORT(SHUT_, RD), SHORT(SHUT_, WR), SHORT(SHUT_, RDWR),
	{ "R", 1 }, { "W", 2 }, { "X", 4 },
	{ "USR1", SIGUSR1 }, { "USR2", SIGUSR2 }, { "RESTART", SA_RESTART }, { "IGN", -2 }, { "DFL", -1 },
};

const struct option options[] = {
	{ "SO_REUSEADDR", SOL_SOCKET, SO_REUSEADDR, 4 },     { "SO_REUSEPORT", SOL_SOCKET, SO_REUSEPORT, 4 },
	{ "SO_KEEPALIVE", SOL_SOCKET, SO_KEEPALIVE, 4 },     { "SO_OOBINLINE", SOL_SOCKET, SO_OOBINLINE, 4 },
	{ "SO_RCVLOWAT", SOL_SOCKET, SO_RCVLOWAT, 4 },	     { "SO_LINGER", SOL_SOCKET, SO_LINGER, 8 },
	{ "SO_ERROR", SOL_SOCKET, SO_ERROR, 4 },	     { "SO_ACCEPTCONN", SOL_SOCKET, SO_ACCEPTCONN, 4 },
	{ "SO_TYPE", SOL_SOCKET, SO_TYPE, 4 },		     { "SO_DOMAIN", SOL_SOCKET, SO_DOMAIN, 4 },
	{ "SO_PROTOCOL", SOL_SOCKET, SO_PROTOCOL, 4 },	     { "SO_SNDTIMEO", SOL_SOCKET, SO_SNDTIMEO, 16 },
	{ "SO_RCVTIMEO", SOL_SOCKET, SO_RCVTIMEO, 16 },	     { "SO_PRIORITY", SOL_SOCKET, SO_PRIORITY, 4 },
	{ "SO_DONTROUTE", SOL_SOCKET, SO_DONTROUTE, 4 },     { "SO_BROADCAST", SOL_SOCKET, SO_BROADCAST, 4 },
	{ "TCP_NODELAY", IPPROTO_TCP, TCP_NODELAY, 4 },	     { "TCP_KEEPIDLE", IPPROTO_TCP, TCP_KEEPIDLE, 4 },
	{ "TCP_KEEPINTVL", IPPROTO_TCP, TCP_KEEPINTVL, 4 },  { "TCP_KEEPCNT", IPPROTO_TCP, TCP_KEEPCNT, 4 },
	{ "TCP_SYNCNT", IPPROTO_TCP, TCP_SYNCNT, 4 },	     { "TCP_USER_TIMEOUT", IPPROTO_TCP, TCP_USER_TIMEOUT, 4 },
	{ "TCP_LINGER2", IPPROTO_TCP, TCP_LINGER2, 4 },	     { "IPV6_V6ONLY", IPPROTO_IPV6, IPV6_V6ONLY, 4 },
	{ "IP_TOS", IPPROTO_IP, IP_TOS, 4 },		     { "IP_TTL", IPPROTO_IP, IP_TTL, 4 },
};
const size_t n_options = sizeof(options) / sizeof(*options);

int constant_find(const char *text, size_t len, long *value)
{
	for (size_t i = 0; i < sizeof(constants) / sizeof(*constants); i++)
		if (strlen(constants[i].name) == len && !strncmp(constants[i].name, text, len))
			return *value = constants[i].value, 1;
	for (long i = 0; (size_t)i < n_options; i++)
		if (strlen(options[i].name) == len && !strncmp(options[i].name, text, len))
			return *value = i, 1;
	return 0;
}

void events_text(char *to, size_t room, unsigned int ev)
{
	static const struct {
		unsigned int bit;
		const char *name;
	} names[] = { { EPOLLIN, "IN" },   { EPOLLPRI, "PRI" }, { EPOLLOUT, "OUT" },	 { EPOLLERR, "ERR" },
		      { EPOLLHUP, "HUP" }, { POLLNVAL, "NVAL" }, { EPOLLRDHUP, "RDHUP" } };
	size_t n = 0;

	to[0] = 0;
	for (size_t i = 0; i < sizeof(names) / sizeof(*names); i++) {
		if (!(ev & names[i].bit))
			continue;
		n += (size_t)snprintf(to + n, room - n, "%s%s", n ? "|" : "", names[i].name);
		ev &= ~names[i].bit;
	}
	if (ev || !n)
		snprintf(to + n, room - n, ev ? "%s%#x" : "%s-", n ? "|" : "", ev);
}
