/* SPDX-License-Identifier: MIT */
/*
 * Linux as the oracle: a scenario is one function, written against struct api, that says what every call gave.  It runs
 * twice, in two child processes: through libc on the kernel, and through libtas_sockets on a service of its own.  Both
 * must say the same, line by line.
 */
#ifndef TAS_TEST_ORACLE_H
#define TAS_TEST_ORACLE_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/sendfile.h>
#include <sys/wait.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <cmocka.h>

#include "service_child.h"
#include "tas_sockets.h"

/* Every call returns its result or -errno. */
struct api {
	int (*socket)(int, int, int);
	int (*bind)(int, const struct sockaddr *, socklen_t);
	int (*listen)(int, int);
	int (*accept4)(int, struct sockaddr *, socklen_t *, int);
	int (*connect)(int, const struct sockaddr *, socklen_t);
	int (*shutdown)(int, int);
	int (*close)(int);
	int (*getsockname)(int, struct sockaddr *, socklen_t *);
	int (*getpeername)(int, struct sockaddr *, socklen_t *);
	int (*getsockopt)(int, int, int, void *, socklen_t *);
	int (*setsockopt)(int, int, int, const void *, socklen_t);
	ssize_t (*recvfrom)(int, void *, size_t, int, struct sockaddr *, socklen_t *);
	ssize_t (*sendto)(int, const void *, size_t, int, const struct sockaddr *, socklen_t);
	ssize_t (*read)(int, void *, size_t);
	ssize_t (*sendmsg)(int, const struct msghdr *, int);
	ssize_t (*recvmsg)(int, struct msghdr *, int);
	ssize_t (*sendfile)(int, int, off64_t *, size_t);
	int (*dup)(int);
	int (*dup2)(int, int);
	int (*fcntl)(int, int, unsigned long);
	int (*ioctl)(int, unsigned long, void *);
	int (*ppoll)(struct pollfd *, nfds_t, const struct timespec *, const sigset_t *);
	int (*pselect)(int, fd_set *, fd_set *, fd_set *, const struct timespec *, const sigset_t *);
	int (*epoll_create1)(int);
	int (*epoll_ctl)(int, int, int, struct epoll_event *);
	int (*epoll_pwait2)(int, struct epoll_event *, int, const struct timespec *, const sigset_t *);
};

#define WRAP(type, name, params, ...) \
	static type kernel_##name params \
	{ \
		type r = name(__VA_ARGS__); \
		return r < 0 ? -errno : r; \
	}
WRAP(int, socket, (int a, int b, int c), a, b, c)
WRAP(int, bind, (int a, const struct sockaddr *b, socklen_t c), a, b, c)
WRAP(int, listen, (int a, int b), a, b)
WRAP(int, accept4, (int a, struct sockaddr *b, socklen_t *c, int d), a, b, c, d)
WRAP(int, connect, (int a, const struct sockaddr *b, socklen_t c), a, b, c)
WRAP(int, shutdown, (int a, int b), a, b)
/* By number: closing under a blocked call is what a scenario shows, not a race that ThreadSanitizer should report. */
static int kernel_close(int fd)
{
	return syscall(SYS_close, fd) ? -errno : 0;
}
WRAP(int, getsockname, (int a, struct sockaddr *b, socklen_t *c), a, b, c)
WRAP(int, getpeername, (int a, struct sockaddr *b, socklen_t *c), a, b, c)
WRAP(int, getsockopt, (int a, int b, int c, void *d, socklen_t *e), a, b, c, d, e)
WRAP(int, setsockopt, (int a, int b, int c, const void *d, socklen_t e), a, b, c, d, e)
WRAP(ssize_t, recvfrom, (int a, void *b, size_t c, int d, struct sockaddr *e, socklen_t *f), a, b, c, d, e, f)
WRAP(ssize_t, sendto, (int a, const void *b, size_t c, int d, const struct sockaddr *e, socklen_t f), a, b, c, d, e, f)
WRAP(ssize_t, sendmsg, (int a, const struct msghdr *b, int c), a, b, c)
WRAP(ssize_t, recvmsg, (int a, struct msghdr *b, int c), a, b, c)
WRAP(ssize_t, read, (int a, void *b, size_t c), a, b, c)
WRAP(ssize_t, sendfile, (int a, int b, off64_t *c, size_t d), a, b, c, d)
WRAP(int, dup, (int a), a)
WRAP(int, dup2, (int a, int b), a, b)
WRAP(int, fcntl, (int a, int b, unsigned long c), a, b, c)
WRAP(int, ioctl, (int a, unsigned long b, void *c), a, b, c)
WRAP(int, ppoll, (struct pollfd * a, nfds_t b, const struct timespec *c, const sigset_t *d), a, b, c, d)
WRAP(int, pselect, (int a, fd_set *b, fd_set *c, fd_set *d, const struct timespec *e, const sigset_t *f), a, b, c, d, e,
     f)
WRAP(int, epoll_create1, (int a), a)
WRAP(int, epoll_ctl, (int a, int b, int c, struct epoll_event *d), a, b, c, d)
WRAP(int, epoll_pwait2, (int a, struct epoll_event *b, int c, const struct timespec *d, const sigset_t *e), a, b, c, d,
     e)

#define ALL(X) \
	X(socket) \
	X(bind) X(listen) X(accept4) X(connect) X(shutdown) X(close) X(getsockname) X(getpeername) X(getsockopt) \
		X(setsockopt) X(recvfrom) X(sendto) X(sendmsg) X(recvmsg) X(read) X(sendfile) X(dup) X(dup2) X(fcntl) X(ioctl) X(ppoll) \
			X(pselect) X(epoll_create1) X(epoll_ctl) X(epoll_pwait2)
#define KERNEL_CALL(name) .name = kernel_##name,
#define TAS_CALL(name) .name = tas_##name,
static const struct api kernel_api = {ALL(KERNEL_CALL)};
static const struct api tas_api = {ALL(TAS_CALL)};

/* ---- inside a scenario ---- */
static const struct api *k; /* the calls to use */
static FILE *out;
static int ls, c, s; /* listener; both ends of the connection that pair() made */
static struct sockaddr_in addr;
static socklen_t addr_len;

static void say(const char *what, long r)
{
	if (r < 0)
		fprintf(out, "%s: %s\n", what, strerrorname_np((int)-r));
	else
		fprintf(out, "%s: %ld\n", what, r);
	fflush(out);
}
#define SAY(x) say(#x, (long)(x))

__attribute__((unused)) static long send_(int fd, const char *text)
{
	return k->sendto(fd, text, strlen(text), MSG_NOSIGNAL, NULL, 0);
}

__attribute__((unused)) static long recv_(int fd, size_t n, int flags)
{
	static char buf[1 << 16];

	return k->recvfrom(fd, buf, n, flags, NULL, NULL);
}

__attribute__((unused)) static long poll_(int fd, int events, int ms)
{
	struct pollfd p = {.fd = fd, .events = (short)events};
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	int r = k->ppoll(&p, 1, &ts, NULL);

	return r > 0 ? p.revents : r;
}

__attribute__((unused)) static long so_error(int fd)
{
	int e = -1;
	socklen_t len = sizeof e;
	int r = k->getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);

	return r < 0 ? r : e;
}

/* What the other side did has arrived here when this bit shows, at the latest after a second. */
__attribute__((unused)) static void settled(int fd, int events)
{
	poll_(fd, events, 1000);
}

static void listen_(void)
{
	addr = (struct sockaddr_in){.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	addr_len = sizeof addr;
	ls = k->socket(AF_INET, SOCK_STREAM, 0);
	if (k->bind(ls, (void *)&addr, addr_len) < 0 || k->listen(ls, 16) < 0 ||
	    k->getsockname(ls, (void *)&addr, &addr_len) < 0)
		say("cannot listen", -1);
}

__attribute__((unused)) static void pair(void)
{
	c = k->socket(AF_INET, SOCK_STREAM, 0);
	if (k->connect(c, (void *)&addr, addr_len) < 0)
		say("cannot connect", -1);
	s = k->accept4(ls, NULL, NULL, 0);
	if (s < 0)
		say("cannot accept", s);
}

__attribute__((unused)) static void unpair(void)
{
	k->close(c);
	k->close(s);
}

__attribute__((unused)) static void reset_by(int fd)
{
	struct linger l = {1, 0};

	k->setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	k->close(fd);
}

/* ---- running it ---- */
static char *run_in_child(const struct api *api, void (*scenario)(void))
{
	int p[2];
	char *text = calloc(1, 1 << 16);
	size_t at = 0;
	ssize_t n;
	pid_t pid;

	assert_non_null(text);
	assert_int_equal(pipe(p), 0);
	pid = fork();
	assert_true(pid >= 0);
	if (pid == 0) {
		alarm(30);
		close(p[0]);
		k = api;
		out = fdopen(p[1], "w");
		listen_();
		if (api == &tas_api && tas_fd_states[ls] != TAS_FD_TAS)
			say("the listener is not one of TAS", -1);
		scenario();
		fflush(out);
		_exit(0);
	}
	close(p[1]);
	while (at < (1 << 16) - 1 && (n = read(p[0], text + at, (1 << 16) - 1 - at)) > 0)
		at += (size_t)n;
	close(p[0]);
	waitpid(pid, NULL, 0);
	return text;
}

__attribute__((unused)) static void same_as_linux(void (*scenario)(void))
{
	char *want, *got;

	if (!service_path())
		skip();
	want = run_in_child(&kernel_api, scenario);
	got = run_in_child(&tas_api, scenario);
	assert_string_equal(got, want);
	free(want);
	free(got);
}

/* A test of the scenario with this name. */
#define SCENARIO(name) \
	static void name##_scenario(void); \
	static void name(void **state) \
	{ \
		(void)state; \
		same_as_linux(name##_scenario); \
	} \
	static void name##_scenario(void)

#endif
