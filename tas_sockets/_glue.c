// SPDX-License-Identifier: MIT
/* See _glue.h.  A call with a deadline tries first and waits only when there is nothing: most data is there already. */
#include "_glue.h"

#include <errno.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <pthread.h>
#include <signal.h>
#include <string.h>
#include <sys/ioctl.h>

#include "sockets/sock.h"

static int64_t now_ns(void)
{
	struct timespec ts;

	clock_gettime(CLOCK_MONOTONIC, &ts);
	return ts.tv_sec * 1000000000ll + ts.tv_nsec;
}

static struct timespec *span(int64_t ns, struct timespec *ts)
{
	if (ns < 0)
		return NULL;
	ts->tv_sec = ns / 1000000000;
	ts->tv_nsec = ns % 1000000000;
	return ts;
}

/* 0: ready, or in error, which the call will tell. */
static int wait_for(int fd, short events, int64_t deadline)
{
	struct pollfd p = { .fd = fd, .events = events };
	struct timespec ts;
	int64_t left = -1;
	int r;

	if (deadline >= 0) {
		left = deadline - now_ns();
		if (left < 0)
			return GLUE_TIMEOUT;
	}
	r = tas_ppoll(&p, 1, span(left, &ts), NULL);
	if (r < 0)
		return r;
	return r ? 0 : GLUE_TIMEOUT;
}

static int dontwait(int flags, int64_t deadline)
{
	return deadline >= 0 ? flags | MSG_DONTWAIT : flags;
}

/* A number made by the interpreter's own socket(): a new kernel TCP socket. */
int glue_made(int fd)
{
	uint64_t mask = tas__table_lock();
	struct tas_obj *o = tas__obj_new(TAS_OBJ_PLAIN);
	int r;

	tas__table_unlock(mask);
	if (!o)
		return -ENOMEM;
	r = tas__adopt(fd, TAS_FD_PLAIN, o);
	if (r < 0)
		tas__obj_put(o);
	return r;
}

/* A number that came from elsewhere: forget what it was when that is not certain. */
int glue_look(int fd)
{
	struct tas_obj *o;

	if (tas__state(fd) == TAS_FD_KERNEL)
		tas_note_unknown(fd);
	o = tas__obj_get(fd);
	if (o)
		tas__obj_put(o);
	tas__plain_recheck(fd);
	return tas__state(fd);
}

/* recv and send of a socket object, whose number nobody else may close: the number is not verified each time. */
ssize_t glue_recv(int fd, void *buf, size_t n, int flags, int64_t deadline)
{
	for (;;) {
		ssize_t r;

		tas__owned = true;
		r = tas_recvfrom(fd, buf, n, dontwait(flags, deadline), NULL, NULL);
		tas__owned = false;
		if (r != -EAGAIN || deadline < 0)
			return r;
		r = wait_for(fd, POLLIN, deadline);
		if (r < 0)
			return r;
	}
}

ssize_t glue_send(int fd, const char *buf, size_t n, int flags, int64_t deadline)
{
	for (;;) {
		ssize_t r;

		tas__owned = true;
		r = tas_sendto(fd, buf, n, dontwait(flags, deadline), NULL, 0);
		tas__owned = false;
		if (r != -EAGAIN || deadline < 0)
			return r;
		r = wait_for(fd, POLLOUT, deadline);
		if (r < 0)
			return r;
	}
}

static socklen_t addr_out(const struct glue_addr *a, struct sockaddr_storage *ss)
{
	memset(ss, 0, sizeof *ss);
	ss->ss_family = (sa_family_t)a->family;
	if (a->family == AF_INET) {
		struct sockaddr_in *in = (struct sockaddr_in *)ss;

		in->sin_port = htons((uint16_t)a->port);
		memcpy(&in->sin_addr, a->ip, 4);
		return sizeof *in;
	}
	struct sockaddr_in6 *in6 = (struct sockaddr_in6 *)ss;

	in6->sin6_port = htons((uint16_t)a->port);
	in6->sin6_flowinfo = htonl(a->flow);
	in6->sin6_scope_id = a->scope;
	memcpy(&in6->sin6_addr, a->ip, 16);
	return sizeof *in6;
}

static void addr_in(struct glue_addr *a, const struct sockaddr_storage *ss, socklen_t len)
{
	memset(a, 0, sizeof *a);
	if (!len)
		return;
	a->family = ss->ss_family;
	if (a->family == AF_INET) {
		const struct sockaddr_in *in = (const struct sockaddr_in *)ss;

		a->port = ntohs(in->sin_port);
		memcpy(a->ip, &in->sin_addr, 4);
	} else if (a->family == AF_INET6) {
		const struct sockaddr_in6 *in6 = (const struct sockaddr_in6 *)ss;

		a->port = ntohs(in6->sin6_port);
		a->flow = ntohl(in6->sin6_flowinfo);
		a->scope = in6->sin6_scope_id;
		memcpy(a->ip, &in6->sin6_addr, 16);
	}
}

ssize_t glue_sendto(int fd, const char *buf, size_t n, int flags, const struct glue_addr *to, int64_t deadline)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_out(to, &ss);

	for (;;) {
		ssize_t r = tas_sendto(fd, buf, n, dontwait(flags, deadline), (struct sockaddr *)&ss, len);

		if (r != -EAGAIN || deadline < 0)
			return r;
		r = wait_for(fd, POLLOUT, deadline);
		if (r < 0)
			return r;
	}
}

ssize_t glue_recvmsg(int fd, struct msghdr *m, int flags, int64_t deadline)
{
	for (;;) {
		ssize_t r;

		tas__owned = true;
		r = tas_recvmsg(fd, m, dontwait(flags, deadline));
		tas__owned = false;
		if (r != -EAGAIN || deadline < 0)
			return r;
		r = wait_for(fd, POLLIN, deadline);
		if (r < 0)
			return r;
	}
}

ssize_t glue_sendmsg(int fd, const struct msghdr *m, int flags, int64_t deadline)
{
	for (;;) {
		ssize_t r;

		tas__owned = true;
		r = tas_sendmsg(fd, m, dontwait(flags, deadline));
		tas__owned = false;
		if (r != -EAGAIN || deadline < 0)
			return r;
		r = wait_for(fd, POLLOUT, deadline);
		if (r < 0)
			return r;
	}
}

/* With an address; a connection looks at it only with MSG_FASTOPEN. */
ssize_t glue_sendmsg_to(int fd, const struct msghdr *m, int flags, const struct glue_addr *to, int64_t deadline)
{
	struct sockaddr_storage ss;
	struct msghdr named = *m;

	named.msg_name = &ss;
	named.msg_namelen = addr_out(to, &ss);
	return glue_sendmsg(fd, &named, flags, deadline);
}

ssize_t glue_sendfile(int fd, int in, int64_t off, size_t n, int64_t deadline)
{
	off64_t at = off;

	for (;;) {
		/* a timeout made the descriptor non-blocking */
		ssize_t r = tas_sendfile(fd, in, off < 0 ? NULL : &at, n);

		if (r != -EAGAIN || deadline < 0)
			return r;
		r = wait_for(fd, POLLOUT, deadline);
		if (r < 0)
			return r;
	}
}

int glue_accept(int fd, struct glue_addr *from, int64_t deadline)
{
	for (;;) {
		struct sockaddr_storage ss = { 0 };
		socklen_t len = sizeof ss;
		int r = tas_accept4(fd, (struct sockaddr *)&ss, &len, SOCK_CLOEXEC);

		if (r >= 0)
			addr_in(from, &ss, len);
		if (r != -EAGAIN || deadline < 0)
			return r;
		r = wait_for(fd, POLLIN, deadline);
		if (r < 0)
			return r;
	}
}

int glue_bind(int fd, const struct glue_addr *a)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_out(a, &ss);

	return tas_bind(fd, (struct sockaddr *)&ss, len);
}

int glue_connect(int fd, const struct glue_addr *a)
{
	struct sockaddr_storage ss;
	socklen_t len = addr_out(a, &ss);

	return tas_connect(fd, (struct sockaddr *)&ss, len);
}

/* The end of a connect() that is under way. */
int glue_connected(int fd, int64_t deadline)
{
	int e = 0, r = wait_for(fd, POLLOUT, deadline);
	socklen_t len = sizeof e;

	if (r < 0)
		return r;
	r = tas_getsockopt(fd, SOL_SOCKET, SO_ERROR, &e, &len);
	if (r < 0)
		return r;
	return e == EISCONN ? 0 : -e;
}

int glue_getname(int fd, int peer, struct glue_addr *a)
{
	struct sockaddr_storage ss = { 0 };
	socklen_t len = sizeof ss;
	int r = (peer ? tas_getpeername : tas_getsockname)(fd, (struct sockaddr *)&ss, &len);

	if (r == 0)
		addr_in(a, &ss, len);
	return r;
}

/* close; where this process may hold the other end, that has seen it when the call returns, as over loopback. */
int glue_close(int fd)
{
	struct tas_obj *o = tas__state(fd) == TAS_FD_TAS ? tas__conn_get(fd) : NULL;
	struct tas_session *ss = NULL;
	int r;

	if (o && tas__obj_near(o)) {
		ss = o->ss;
		tas__session_ref(ss);
	}
	if (o)
		tas__obj_put(o);
	r = tas_close(fd);
	if (ss) {
		tas__settle(ss);
		tas__session_put(ss);
	}
	return r;
}

/* ---- signals ---- */
enum { SIGNALS = 65 };

static void (*_Atomic behind[SIGNALS])(int, siginfo_t *, void *);
static struct tas_sigs *_Atomic of_main; /* the thread in which Python's handlers run */

static void note_main(void)
{
	if (sys0(SYS_gettid) == sys0(SYS_getpid))
		atomic_store(&of_main, &tas__sigs);
}

/*
 * While the main thread holds a lock of the library it blocks signals, and the kernel gives them to another thread:
 * what the main thread is about to sleep on has to end all the same.
 */
static void tell_main(void)
{
	struct tas_sigs *s = atomic_load(&of_main);
	const uint64_t one = 1;
	int fd;

	if (!s || s == &tas__sigs)
		return;
	atomic_fetch_add(&s->any, 1);
	atomic_fetch_add(&s->intr, 1);
	atomic_fetch_add(&s->news_any, 1);
	atomic_fetch_add(&s->news_intr, 1);
	sys_futex(&s->news_any, FUTEX_WAKE_PRIVATE, 1, NULL);
	sys_futex(&s->news_intr, FUTEX_WAKE_PRIVATE, 1, NULL);
	fd = atomic_load(&s->wake);
	if (fd >= 0)
		sys_write(fd, &one, sizeof one);
}

static void counted(int sig, siginfo_t *info, void *context)
{
	void (*next)(int, siginfo_t *, void *) = atomic_load(&behind[sig]);

	tas_signal_ran(true); /* PEP 475: whatever it is, the interpreter has to hear of it */
	if (next)
		next(sig, info, context); /* of one parameter or of three: the caller's registers hold all of them */
	tell_main(); /* after the interpreter noted it */
}

/* Puts our handler before the interpreter's, which has just been installed for sig. */
void glue_signal(int sig)
{
	struct sigaction a;

	if (!atomic_load(&of_main)) {
		note_main();
		pthread_atfork(NULL, NULL, note_main); /* whoever forks is the child's main thread */
	}
	if (sig <= 0 || sig >= SIGNALS || sigaction(sig, NULL, &a) < 0 || a.sa_handler == SIG_DFL ||
	    a.sa_handler == SIG_IGN || a.sa_sigaction == counted)
		return;
	atomic_store(&behind[sig], a.sa_sigaction);
	a.sa_sigaction = counted;
	a.sa_flags |= SA_SIGINFO;
	sigaction(sig, &a, NULL);
}

/* The interpreter changed O_NONBLOCK by a raw call: the mirror follows. */
int glue_nonblock(int fd)
{
	int on;

	if (tas__state(fd) != TAS_FD_TAS)
		return 0;
	on = sys_fcntl(fd, F_GETFL, 0);
	if (on < 0)
		return on;
	on = on & O_NONBLOCK ? 1 : 0;
	return tas_ioctl(fd, FIONBIO, &on);
}

/* Number fd is about to be given to another process. */
void glue_announce(int fd)
{
	union {
		struct cmsghdr c;
		char room[CMSG_SPACE(sizeof fd)];
	} u;
	struct msghdr m = { .msg_control = u.room, .msg_controllen = sizeof u.room };

	u.c.cmsg_level = SOL_SOCKET;
	u.c.cmsg_type = SCM_RIGHTS;
	u.c.cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(&u.c), &fd, sizeof fd);
	tas__watch_passed(&m);
}

static int fill(fd_set *set, const int *fd, int n, int high)
{
	FD_ZERO(set);
	for (int i = 0; i < n; i++) {
		FD_SET(fd[i], set);
		if (fd[i] >= high)
			high = fd[i] + 1;
	}
	return high;
}

static void spill(fd_set *set, int *fd, int n)
{
	for (int i = 0; i < n; i++)
		fd[i] = FD_ISSET(fd[i], set) != 0;
}

int glue_select(int *r, int nr, int *w, int nw, int *x, int nx, int64_t timeout_ns)
{
	fd_set sr, sw, sx;
	struct timespec ts;
	int high = 0, n;

	high = fill(&sr, r, nr, high);
	high = fill(&sw, w, nw, high);
	high = fill(&sx, x, nx, high);
	n = tas_pselect(high, nr ? &sr : NULL, nw ? &sw : NULL, nx ? &sx : NULL, span(timeout_ns, &ts), NULL);
	if (n < 0)
		return n;
	spill(&sr, r, nr);
	spill(&sw, w, nw);
	spill(&sx, x, nx);
	return n;
}

int glue_poll(struct pollfd *p, int n, int64_t timeout_ns)
{
	struct timespec ts;

	return tas_ppoll(p, (nfds_t)n, span(timeout_ns, &ts), NULL);
}

int glue_epoll_wait(int ep, struct epoll_event *ev, int max, int64_t timeout_ns)
{
	struct timespec ts;

	return tas_epoll_pwait2(ep, ev, max, span(timeout_ns, &ts), NULL);
}

int glue_epoll_ctl(int ep, int op, int fd, uint32_t events)
{
	struct epoll_event ev = { .events = events, .data.fd = fd };

	return tas_epoll_ctl(ep, op, fd, &ev);
}
