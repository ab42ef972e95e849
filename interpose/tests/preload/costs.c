// SPDX-License-Identifier: MIT
/* costs CALL N: makes a call N times on descriptors of the kernel, for whoever counts instructions. */
#include "say.h"

enum { MANY = 64 };

static void repeat(const char *call, long n)
{
	struct pollfd p[MANY];
	struct timeval none = {0, 0};
	int s[2], nl;
	char b[8] = "x";
	struct iovec v = {b, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
	fd_set set;

	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s) < 0)
		exit(1);
	/* with a socket of TCP about, as in every program that matters */
	if (socket(AF_INET, SOCK_STREAM, 0) < 0)
		exit(1);
	for (int i = 0; i < MANY; i++)
		p[i] = (struct pollfd){.fd = s[0], .events = POLLIN};
	for (int k = 0; k < 33; k++)
		dup2(s[0], MANY + k);
	for (long i = 0; i < n; i++) {
		if (!strcmp(call, "write"))
			(void)!write(-1, b, 1);
		else if (!strcmp(call, "read"))
			(void)!read(-1, b, 1);
		else if (!strcmp(call, "send"))
			send(s[0], b, 0, MSG_DONTWAIT);
		else if (!strcmp(call, "recv"))
			recv(s[0], b, 1, MSG_DONTWAIT);
		else if (!strcmp(call, "sendmsg"))
			sendmsg(-1, &m, MSG_DONTWAIT);
		else if (!strcmp(call, "recvmsg"))
			recvmsg(s[0], &m, MSG_DONTWAIT);
		else if (!strcmp(call, "readv"))
			(void)!readv(-1, &v, 1);
		else if (!strcmp(call, "fcntl"))
			fcntl(s[0], F_GETFL, 0);
		else if (!strcmp(call, "ioctl"))
			ioctl(s[0], FIONREAD, &nl);
		else if (!strcmp(call, "getsockopt"))
			getsockopt(s[0], SOL_SOCKET, SO_TYPE, &nl, &(socklen_t){sizeof nl});
		else if (!strcmp(call, "poll"))
			poll(p, 1, 0);
		else if (!strcmp(call, "poll64"))
			poll(p, MANY, 0);
		else if (!strcmp(call, "select")) {
			FD_ZERO(&set);
			FD_SET(s[0], &set);
			select(s[0] + 1, &set, NULL, NULL, &none);
		} else if (!strcmp(call, "select33")) {
			FD_ZERO(&set);
			for (int k = 0; k < 33; k++)
				FD_SET(MANY + k, &set);
			select(MANY + 33, &set, NULL, NULL, &none);
		} else
			exit(2);
	}
}

int main(int argc, char **argv)
{
	if (argc > 2)
		repeat(argv[1], atol(argv[2]));
	return 0;
}
