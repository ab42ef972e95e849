/* SPDX-License-Identifier: MIT */
/*
 * For the tests of the control half: it runs in the test's own process against real sockets, processes and kernels, with a fake
 * stack behind it; the process plays simple clients as well, the others are forked.
 */
#ifndef TAS_TEST_CONTROL_CLIENT_H
#define TAS_TEST_CONTROL_CLIENT_H

#include <fcntl.h>
#include <linux/futex.h>
#include <netinet/in.h>
#include <setjmp.h>
#include <signal.h>
#include <stdarg.h>
#include <stddef.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>

#include <cmocka.h>

#include "fake_stack.h"
#include "slow/memory.h"
#include "slow/process.h"

static char folder[64];

/* ---- a client ---- */
struct client {
	int fd;
	struct tas_msg rep;
	int got[4]; /* descriptors of the last reply */
	int n_got;
	ssize_t len;
	char text[TAS_MSG_TEXT_MAX];
};

static inline int dial(void)
{
	struct sockaddr_un a = { .sun_family = AF_UNIX };
	int fd = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);

	memcpy(a.sun_path, tas_config.socket_path, sizeof a.sun_path);
	if (connect(fd, (struct sockaddr *)&a, sizeof a)) {
		close(fd);
		return -1;
	}
	return fd;
}

static inline void post(int fd, const void *data, size_t len, const int *fds, unsigned n)
{
	union {
		char buf[CMSG_SPACE(200 * sizeof(int))];
		struct cmsghdr align;
	} c = { { 0 } };
	struct iovec v = { (void *)(uintptr_t)data, len };
	struct msghdr m = { .msg_iov = &v, .msg_iovlen = 1 };

	if (n) {
		m.msg_control = c.buf;
		m.msg_controllen = CMSG_SPACE(n * sizeof(int));
		CMSG_FIRSTHDR(&m)->cmsg_level = SOL_SOCKET;
		CMSG_FIRSTHDR(&m)->cmsg_type = SCM_RIGHTS;
		CMSG_FIRSTHDR(&m)->cmsg_len = CMSG_LEN(n * sizeof(int));
		memcpy(CMSG_DATA(CMSG_FIRSTHDR(&m)), fds, n * sizeof(int));
	}
	(void)!sendmsg(fd, &m, MSG_NOSIGNAL);
}

/* Receives the reply that is there, or that comes (pumping is someone else's business).  Its err, or -EPIPE. */
static inline int take(struct client *c)
{
	union {
		char buf[CMSG_SPACE(4 * sizeof(int))];
		struct cmsghdr align;
	} b;
	struct iovec v[2] = { { &c->rep, sizeof c->rep }, { c->text, sizeof c->text } };
	struct msghdr m = { .msg_iov = v, .msg_iovlen = 2, .msg_control = b.buf, .msg_controllen = sizeof b.buf };

	c->n_got = 0;
	c->len = recvmsg(c->fd, &m, MSG_CMSG_CLOEXEC);
	if (c->len <= 0)
		return -EPIPE;
	for (struct cmsghdr *h = CMSG_FIRSTHDR(&m); h; h = CMSG_NXTHDR(&m, h)) {
		if (h->cmsg_type != SCM_RIGHTS)
			continue;
		c->n_got = (int)((h->cmsg_len - CMSG_LEN(0)) / sizeof(int));
		memcpy(c->got, CMSG_DATA(h), (size_t)c->n_got * sizeof(int));
	}
	return c->rep.err;
}

static inline void drop_got(struct client *c)
{
	while (c->n_got > 0)
		close(c->got[--c->n_got]);
}

/* Request and reply, where the service is this very thread. */
static inline int ask(struct client *c, struct tas_msg *m, const int *fds, unsigned n)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };

	m->magic = TAS_ABI_MAGIC;
	m->n_fds = (uint16_t)n;
	post(c->fd, m, sizeof *m, fds, n);
	pump();
	return poll(&p, 1, 0) == 1 ? take(c) : -ETIMEDOUT;
}

static inline int ask_op(struct client *c, int op, const int *fds, unsigned n)
{
	struct tas_msg m = { .op = (uint16_t)op, .seq = 5 };

	return ask(c, &m, fds, n);
}

static inline struct tas_msg hello_msg(void)
{
	struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_HELLO };

	m.u.hello.abi_min = TAS_ABI_MIN;
	m.u.hello.abi_max = TAS_ABI_MAX;
	memcpy(m.u.hello.comm, "te\"st\x01", 7);
	return m;
}

static inline struct client *attach_here(void)
{
	struct client *c = calloc(1, sizeof *c);
	struct tas_msg m = hello_msg();

	c->fd = dial();
	assert_true(c->fd >= 0);
	assert_int_equal(ask(c, &m, NULL, 0), 0);
	assert_int_equal(c->n_got, 2);
	return c;
}

static inline void leave(struct client *c)
{
	drop_got(c);
	close(c->fd);
	free(c);
	pump();
}

static inline struct tas_proc *proc_of(const struct client *c)
{
	return tas__procs[c->rep.u.attached.proc_slot];
}

/* In a forked process, where the service is another one: HELLO, waiting for the answer. */
static inline int attach_there(struct client *c)
{
	struct tas_msg m = hello_msg();

	c->fd = dial();
	post(c->fd, &m, sizeof m, NULL, 0);
	return take(c);
}

static inline int tcp_socket(void)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* The test's process never dies, so its processes go when it says so. */
static inline void end_all(void)
{
	pump();
	while (tas__n_procs)
		tas__proc_end(tas__procs[tas__n_procs - 1]);
	pump();
}

static inline unsigned descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static inline void kill_and_wait(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static inline bool exited_with(pid_t pid, int code)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == code;
}

/* ---- the service ---- */
static inline int up(void **state)
{
	(void)state;
	signal(SIGPIPE, SIG_IGN);
	snprintf(folder, sizeof folder, "/tmp/tas-control-%d", (int)getpid());
	snprintf(tas_config.socket_path, sizeof tas_config.socket_path, "%s/sub/tas.sock", folder);
	tas_config.socket_mode = 0666;
	tas_config.fp_no_hugepages = true;
	fake.epoll = epoll_create1(EPOLL_CLOEXEC);
	return tas_stack_init();
}

static inline int down(void **state)
{
	char sub[80];

	(void)state;
	tas_stack_exit();
	close(fake.epoll);
	snprintf(sub, sizeof sub, "%s/sub", folder);
	rmdir(sub); /* left where another instance had made it */
	return rmdir(folder);
}

#endif
