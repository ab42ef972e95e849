/* SPDX-License-Identifier: MIT */
/* The table of operations, and what they have in common: how a result is noted. */
#include <arpa/inet.h>
#include <errno.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <stdio.h>
#include <string.h>

#include "ops.h"

void say(struct slot *s, const char *format, ...)
{
	size_t n = strlen(s->text);
	va_list ap;

	va_start(ap, format);
	vsnprintf(s->text + n, sizeof(s->text) - n, format, ap);
	va_end(ap);
}

/* ---- results ---- */
void result(struct slot *s, long ret)
{
	int error = errno;

	s->ret = ret;
	s->error = ret < 0 ? error : 0;
}

void made(struct slot *s, long ret) /* a descriptor, perhaps a stream socket */
{
	int one = 1;

	result(s, ret);
	if (ret >= 0)
		setsockopt((int)ret, IPPROTO_TCP, TCP_NODELAY, &one, sizeof(one));
	errno = s->error;
}

void say_address(struct slot *s, const struct sockaddr_storage *a, socklen_t len)
{
	char text[64] = "?";
	int port = 0;

	if (len == 0) {
		say(s, " none");
		return;
	}
	if (a->ss_family == AF_INET) {
		const struct sockaddr_in *in = (const void *)a;

		inet_ntop(AF_INET, &in->sin_addr, text, sizeof(text));
		port = ntohs(in->sin_port);
	} else if (a->ss_family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const void *)a;

		inet_ntop(AF_INET6, &in6->sin6_addr, text, sizeof(text));
		port = ntohs(in6->sin6_port);
	}
	say(s, " %s len %u port <%d>", text, len, port); /* the conductor names what is between < and > */
}

const struct op ops[] = {
#define ENTRY(name, n_args) { #name, op_##name, n_args },
	OPS(ENTRY)
#undef ENTRY
	{ "kill", NULL, 2 }, /* the conductor's */
	{ "join", NULL, 1 },
	{ NULL, NULL, 0 },
};

int op_find(const char *name)
{
	for (int i = 0; ops[i].name; i++)
		if (!strcmp(ops[i].name, name))
			return i;
	return -1;
}
