// SPDX-License-Identifier: MIT
/* costs CALL N: makes a call N times on descriptors of the kernel, for whoever counts instructions. */
#include "say.h"

#include <sys/sendfile.h>

enum { MANY = 64, SET = 33 };

static int s[2], ls, ep, pp[2], file;
static struct pollfd p[MANY];
static char b[8] = "x";
static struct iovec v = {b, 1};
static struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1};
static struct mmsghdr mm = {.msg_hdr = {.msg_iov = &v, .msg_iovlen = 1}};
static struct sockaddr_storage addr;
static struct epoll_event ev;
static const struct timespec none;

static void begin(void)
{
	if (socketpair(AF_UNIX, SOCK_STREAM, 0, s) < 0 || pipe2(pp, O_NONBLOCK) < 0)
		exit(1);
	/* with a socket of TCP about, as in every program that matters */
	if (socket(AF_INET, SOCK_STREAM, 0) < 0)
		exit(1);
	ls = socket(AF_UNIX, SOCK_STREAM | SOCK_NONBLOCK, 0);
	file = open("/dev/null", O_RDWR);
	ep = epoll_create1(0);
	epoll_ctl(ep, EPOLL_CTL_ADD, s[0], &ev);
	for (int i = 0; i < MANY; i++)
		p[i] = (struct pollfd){.fd = s[0], .events = POLLIN};
	for (int k = 0; k < SET; k++)
		dup2(s[0], MANY + k);
}

static fd_set *one(fd_set *set)
{
	FD_ZERO(set);
	FD_SET(s[0], set);
	return set;
}

static fd_set *many(fd_set *set)
{
	FD_ZERO(set);
	for (int k = 0; k < SET; k++)
		FD_SET(MANY + k, set);
	return set;
}

#define LEN (&(socklen_t){sizeof addr})
#define ADDR ((struct sockaddr *)&addr)
#define MS(ms) (&(struct timeval){0, (ms) * 1000})
#define CALLS(X) \
	X(read, read(-1, b, 1)) \
	X(write, write(-1, b, 1)) \
	X(readv, readv(-1, &v, 1)) \
	X(writev, writev(-1, &v, 1)) \
	X(preadv2, preadv2(pp[0], &v, 1, -1, 0)) \
	X(pwritev2, pwritev2(-1, &v, 1, -1, 0)) \
	X(send, send(s[0], b, 0, MSG_DONTWAIT)) \
	X(recv, recv(s[0], b, 1, MSG_DONTWAIT)) \
	X(sendto, sendto(s[0], b, 0, MSG_DONTWAIT, NULL, 0)) \
	X(recvfrom, recvfrom(s[0], b, 1, MSG_DONTWAIT, NULL, NULL)) \
	X(sendmsg, sendmsg(-1, &m, MSG_DONTWAIT)) \
	X(recvmsg, recvmsg(s[0], &m, MSG_DONTWAIT)) \
	X(sendmmsg, sendmmsg(-1, &mm, 1, MSG_DONTWAIT)) \
	X(recvmmsg, recvmmsg(s[0], &mm, 1, MSG_DONTWAIT, NULL)) \
	X(sendfile, sendfile(s[0], file, NULL, 1)) \
	X(splice, splice(pp[0], NULL, file, NULL, 1, SPLICE_F_NONBLOCK)) \
	X(accept, accept(ls, NULL, NULL)) \
	X(accept4, accept4(ls, NULL, NULL, 0)) \
	X(connect, connect(s[0], ADDR, sizeof addr)) \
	X(bind, bind(s[0], ADDR, 1)) \
	X(listen, listen(s[0], 1)) \
	X(shutdown, shutdown(ls, SHUT_RD)) \
	X(getsockname, getsockname(s[0], ADDR, LEN)) \
	X(getpeername, getpeername(s[0], ADDR, LEN)) \
	X(getsockopt, getsockopt(s[0], SOL_SOCKET, SO_TYPE, b, &(socklen_t){4})) \
	X(setsockopt, setsockopt(s[0], SOL_SOCKET, SO_TYPE, b, 4)) \
	X(fcntl, fcntl(s[0], F_GETFL, 0)) \
	X(ioctl, ioctl(s[0], FIONREAD, b)) \
	X(dup2, dup2(s[0], MANY)) \
	X(dup3, dup3(s[0], MANY, 0)) \
	X(dup_and_close, close(dup(s[0]))) \
	X(epoll_ctl, epoll_ctl(ep, EPOLL_CTL_MOD, s[0], &ev)) \
	X(epoll_wait, epoll_wait(ep, &ev, 1, 0)) \
	X(epoll_wait_ms, epoll_wait(ep, &ev, 1, 1)) \
	X(epoll_pwait, epoll_pwait(ep, &ev, 1, 0, NULL)) \
	X(epoll_pwait2, epoll_pwait2(ep, &ev, 1, &none, NULL)) \
	X(poll, poll(p, 1, 0)) \
	X(poll64, poll(p, MANY, 0)) \
	X(ppoll, ppoll(p, 1, &none, NULL)) \
	X(ppoll64, ppoll(p, MANY, &none, NULL)) \
	X(select, select(s[0] + 1, one(&set), NULL, NULL, MS(0))) \
	X(select33, select(MANY + SET, many(&set), NULL, NULL, MS(0))) \
	X(pselect, pselect(s[0] + 1, one(&set), NULL, NULL, &none, NULL)) \
	X(pselect33, pselect(MANY + SET, many(&set), NULL, NULL, &none, NULL))

static void repeat(const char *call, long n)
{
	fd_set set;

	begin();
#define X(name, what) \
	if (!strcmp(call, #name)) \
		for (long i = 0; i < n; i++) \
			(void)!(what);
	CALLS(X)
#undef X
}

int main(int argc, char **argv)
{
	if (argc > 2)
		repeat(argv[1], atol(argv[2]));
#define X(name, what) puts(#name);
	else
		CALLS(X)
#undef X
	return 0;
}
