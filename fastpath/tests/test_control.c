/* SPDX-License-Identifier: MIT */
/*
 * The control half against real sockets, processes and kernels, with a fake stack behind it.  The test's own process is the
 * service; it plays simple clients as well, the others are forked.
 */
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

static int dial(void)
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

static void post(int fd, const void *data, size_t len, const int *fds, unsigned n)
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
static int take(struct client *c)
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

static void drop_got(struct client *c)
{
	while (c->n_got > 0)
		close(c->got[--c->n_got]);
}

/* Request and reply, where the service is this very thread. */
static int ask(struct client *c, struct tas_msg *m, const int *fds, unsigned n)
{
	struct pollfd p = { .fd = c->fd, .events = POLLIN };

	m->magic = TAS_ABI_MAGIC;
	m->n_fds = (uint16_t)n;
	post(c->fd, m, sizeof *m, fds, n);
	pump();
	return poll(&p, 1, 0) == 1 ? take(c) : -ETIMEDOUT;
}

static int ask_op(struct client *c, int op, const int *fds, unsigned n)
{
	struct tas_msg m = { .op = (uint16_t)op, .seq = 5 };

	return ask(c, &m, fds, n);
}

static struct tas_msg hello_msg(void)
{
	struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_HELLO };

	m.u.hello.abi_min = TAS_ABI_MIN;
	m.u.hello.abi_max = TAS_ABI_MAX;
	memcpy(m.u.hello.comm, "te\"st\x01", 7);
	return m;
}

static struct client *attach_here(void)
{
	struct client *c = calloc(1, sizeof *c);
	struct tas_msg m = hello_msg();

	c->fd = dial();
	assert_true(c->fd >= 0);
	assert_int_equal(ask(c, &m, NULL, 0), 0);
	assert_int_equal(c->n_got, 2);
	return c;
}

static void leave(struct client *c)
{
	drop_got(c);
	close(c->fd);
	free(c);
	pump();
}

static struct tas_proc *proc_of(const struct client *c)
{
	return tas__procs[c->rep.u.attached.proc_slot];
}

/* In a forked process, where the service is another one: HELLO, waiting for the answer. */
static int attach_there(struct client *c)
{
	struct tas_msg m = hello_msg();

	c->fd = dial();
	post(c->fd, &m, sizeof m, NULL, 0);
	return take(c);
}

static int tcp_socket(void)
{
	return socket(AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);
}

/* The test's process never dies, so its processes go when it says so. */
static void end_all(void)
{
	pump();
	while (tas__n_procs)
		tas__proc_end(tas__procs[tas__n_procs - 1]);
	pump();
}

static unsigned descriptors(void)
{
	unsigned n = 0;

	for (int fd = 0; fd < 1024; fd++)
		n += fcntl(fd, F_GETFD) >= 0;
	return n;
}

static void kill_and_wait(pid_t pid)
{
	kill(pid, SIGKILL);
	waitpid(pid, NULL, 0);
}

static bool exited_with(pid_t pid, int code)
{
	int status;

	return waitpid(pid, &status, 0) == pid && WIFEXITED(status) && WEXITSTATUS(status) == code;
}

/* ---- tests ---- */
static void attach_gives_a_region_and_a_doorbell(void **state)
{
	struct client *c = attach_here();
	struct tas_region *r;
	const uint64_t one = 1;
	unsigned rang = fake.polls;

	(void)state;
	assert_int_equal(c->rep.u.attached.abi, TAS_ABI_MAX);
	assert_int_equal(c->rep.u.attached.region_size, (sizeof *r + 4095) / 4096 * 4096);
	r = mmap(NULL, c->rep.u.attached.region_size, PROT_READ | PROT_WRITE, MAP_SHARED, c->got[0], 0);
	assert_ptr_not_equal(r, MAP_FAILED);
	assert_int_equal(r->h.magic, TAS_ABI_MAGIC);
	assert_int_equal(r->h.proc_slot, c->rep.u.attached.proc_slot);
	assert_int_equal(r->h.instance, c->rep.u.attached.instance);
	assert_int_equal(r->h.set_id, c->rep.u.attached.set_id);
	assert_int_equal(atomic_load(&r->alive), (uint32_t)gettid() | FUTEX_WAITERS);
	assert_int_equal(atomic_load(&r->core[0].need_wakeup), 1);
	assert_int_equal(ftruncate(c->got[0], 0), -1);
	assert_string_equal(proc_of(c)->comm, "te\"st?");
	assert_int_equal(proc_of(c)->pid, getpid());
	for (int i = 0; i < 3; i++) { /* every ring is heard, though nobody reads the eventfd */
		assert_int_equal(write(c->got[1], &one, sizeof one), sizeof one);
		pump();
	}
	assert_int_equal(fake.polls - rang, 3);
	end_all();
	assert_int_equal(atomic_load(&r->alive), FUTEX_OWNER_DIED | FUTEX_WAITERS);
	munmap(r, sizeof *r);
	leave(c);
}

static void another_abi_is_refused_in_words(void **state)
{
	struct client c = { .fd = dial() };
	struct tas_msg m = hello_msg();

	(void)state;
	m.u.hello.abi_min = TAS_ABI_MAX + 1;
	m.u.hello.abi_max = TAS_ABI_MAX + 3;
	assert_int_equal(ask(&c, &m, NULL, 0), -EPROTO);
	assert_non_null(strstr(fake.warning, "speaks ABI"));
	m.op = TAS_MSG_HELLO;
	post(c.fd, &m, 80, NULL, 0); /* a shorter message of another age */
	pump();
	assert_int_equal(take(&c), -EPROTO);
	close(c.fd);
	pump();
}

static void nonsense_does_no_harm(void **state)
{
	struct client *c = attach_here();
	unsigned before;
	struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_WS_OPEN };
	int pipes[2], many[100], fd, lone;
	char big[4000];

	(void)state;
	drop_got(c);
	assert_int_equal(pipe(pipes), 0);
	lone = dial();
	pump();
	before = descriptors();
	assert_int_equal(ask_op(c, 0, NULL, 0), -EINVAL);
	assert_int_equal(ask_op(c, 999, NULL, 0), -EINVAL);
	assert_int_equal(ask_op(c, TAS_MSG_HELLO, NULL, 0), -EISCONN);
	assert_int_equal(ask_op(c, TAS_MSG_BIND, NULL, 0), -EINVAL);
	assert_int_equal(ask_op(c, TAS_MSG_BIND, pipes, 1), -ENOTSOCK);
	assert_int_equal(ask_op(c, TAS_MSG_BIND, &lone, 1), -EOPNOTSUPP);
	assert_int_equal(ask_op(c, TAS_MSG_CHUNK, pipes, 2), -EINVAL);
	assert_int_equal(ask_op(c, TAS_MSG_CHUNK, NULL, 0), -ENOENT);
	assert_int_equal(ask_op(c, TAS_MSG_WS_OPEN, &pipes[1], 1), -EINVAL);
	assert_int_equal(ask_op(c, TAS_MSG_FORK_PREPARE, pipes, 1), -ENOTSOCK);
	assert_int_equal(ask_op(c, TAS_MSG_SUBSCRIBE, NULL, 0), -ENOENT);
	for (unsigned i = 0; i < 100; i++)
		many[i] = pipes[0];
	assert_int_equal(ask_op(c, TAS_MSG_WATCH, many, 100), -EINVAL);
	assert_int_equal(ask_op(c, TAS_MSG_WATCH, many, 64), -EINVAL);
	m.u.ws.index = TAS_WS_MAX;
	fd = eventfd(0, 0);
	assert_int_equal(ask(c, &m, &fd, 1), -EINVAL);
	close(fd);
	m.n_fds = 3; /* more than came */
	m.op = TAS_MSG_BIND;
	post(c->fd, &m, sizeof m, pipes, 1);
	pump();
	assert_int_equal(take(c), -EINVAL);
	post(c->fd, &m, sizeof m - 8, NULL, 0);
	pump();
	assert_int_equal(take(c), -EINVAL);
	memset(big, 0, sizeof big);
	memcpy(big, &m, sizeof m);
	post(c->fd, big, sizeof big, NULL, 0);
	pump();
	assert_int_equal(take(c), -EINVAL);
	assert_int_equal(descriptors(), before);
	post(c->fd, "boo", 3, pipes, 2); /* not even a message: the session ends, the living process stays */
	pump();
	assert_int_equal(take(c), -EPIPE);
	assert_int_equal(tas__proc_count(), 1);
	assert_int_equal(descriptors(), before - 1);
	post(lone, "", 0, NULL, 0);
	pump();
	assert_int_equal(descriptors(), before - 2);
	close(lone);
	close(pipes[0]);
	close(pipes[1]);
	end_all();
	leave(c);
}

/* A message that is right in most places, so that it gets far. */
static size_t random_message(struct tas_msg *m)
{
	uint32_t *words = (uint32_t *)m;

	*m = (struct tas_msg){ .magic = TAS_ABI_MAGIC, .op = (uint16_t)(random() % (TAS_MSG_SHUTDOWN + 2)) };
	for (unsigned i = 4; i < 16; i++)
		words[i] = random() % 2 ? (uint32_t)(random() % 4) : (uint32_t)random();
	if (m->op == TAS_MSG_HELLO && random() % 4)
		m->u.hello.abi_min = m->u.hello.abi_max = TAS_ABI_MAX;
	if (m->op == TAS_MSG_SHUTDOWN)
		m->op = TAS_MSG_ADMIN;
	if (random() % 64 == 0)
		words[0] ^= 1u << (random() % 32);
	return random() % 16 ? sizeof *m : (size_t)(random() % (long)sizeof *m);
}

static void random_messages_do_no_harm(void **state)
{
	int kinds[6], pair[2], session[8];
	unsigned before;

	(void)state;
	srandom(11);
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);
	kinds[0] = tcp_socket();
	kinds[1] = pair[0];
	kinds[2] = eventfd(0, 0);
	kinds[3] = open("/dev/null", O_RDONLY);
	kinds[4] = dial();
	kinds[5] = memfd_create("random", 0);
	for (int i = 0; i < 8; i++)
		session[i] = -1;
	pump();
	before = descriptors();
	for (unsigned round = 0; round < 20000; round++) {
		int *fd = &session[random() % 8], fds[80];
		struct tas_msg m;
		size_t len = random_message(&m);
		unsigned n = random() % 2 ? 1 : random() % 8 ? 0 : (unsigned)(random() % 80);

		if (*fd < 0)
			*fd = dial();
		m.n_fds = (uint16_t)(random() % 16 ? n : (unsigned)random());
		for (unsigned i = 0; i < n; i++)
			fds[i] = kinds[random() % 6];
		post(*fd, &m, len, fds, n);
		pump();
		while (recv(*fd, &m, sizeof m, MSG_DONTWAIT) > 0)
			;
		if (random() % 100 == 0) {
			close(*fd);
			*fd = -1;
		}
		if (round % 1000 == 0)
			end_all();
	}
	for (int i = 0; i < 8; i++)
		close(session[i]);
	end_all();
	close(pair[1]);
	assert_in_range(descriptors(), before - 2, before - 1); /* a session may have been made of kinds[4] and ended */
	for (int i = 0; i < 6; i++)
		close(kinds[i]);
	pump();
	assert_int_equal(tas__proc_count(), 0);
	assert_int_equal(tas__mem_sets(), 0);
}

static void requests_need_an_attached_process(void **state)
{
	struct client c = { .fd = dial() };

	(void)state;
	for (int op = TAS_MSG_FORK_CHILD; op < TAS_MSG_ADMIN; op++) {
		int fd = tcp_socket();
		bool with = op == TAS_MSG_BIND || op == TAS_MSG_LISTEN || op == TAS_MSG_CONNECT ||
			    op == TAS_MSG_RESOLVE || op == TAS_MSG_WS_OPEN;

		assert_int_equal(ask_op(&c, op, &fd, with), -ENOTCONN);
		close(fd);
	}
	close(c.fd);
	pump();
}

static void identity_is_read_from_the_descriptor(void **state)
{
	struct client *c = attach_here();
	struct stat st;
	uint64_t cookie;
	socklen_t len = sizeof cookie;
	int fd = tcp_socket(), udp = socket(AF_INET, SOCK_DGRAM, 0), six = socket(AF_INET6, SOCK_STREAM, 0);

	(void)state;
	drop_got(c);
	fstat(fd, &st);
	getsockopt(fd, SOL_SOCKET, SO_COOKIE, &cookie, &len);
	assert_int_equal(ask_op(c, TAS_MSG_BIND, &fd, 1), 0);
	assert_int_equal(c->rep.seq, 5);
	assert_int_equal(fake.last_ident.ino, st.st_ino);
	assert_int_equal(fake.last_ident.cookie, cookie);
	assert_int_equal(fake.last_ident.domain, AF_INET);
	assert_int_not_equal(fake.last_ident.netns, 0);
	assert_int_equal(ask_op(c, TAS_MSG_BIND, &udp, 1), -EOPNOTSUPP);
	assert_int_equal(ask_op(c, TAS_MSG_RESOLVE, &udp, 1), TAS_FALLBACK);
	if (six >= 0) {
		assert_int_equal(ask_op(c, TAS_MSG_BIND, &six, 1), 0);
		assert_int_equal(fake.last_ident.domain, AF_INET6);
		close(six);
	}
	close(fd);
	close(udp);
	end_all();
	leave(c);
}

static void death_drops_claims_and_everything_returns(void **state)
{
	unsigned fds, closes = fake.closes;
	pid_t pid;

	(void)state;
	pump();
	fds = descriptors();
	pid = fork();
	if (!pid) {
		struct client c;
		struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_CONNECT, .n_fds = 1 };
		int s = tcp_socket(), e = eventfd(0, 0);

		if (attach_there(&c))
			_exit(1);
		post(c.fd, &m, sizeof m, &s, 1);
		if (take(&c))
			_exit(2);
		m = (struct tas_msg){ .magic = TAS_ABI_MAGIC, .op = TAS_MSG_WS_OPEN, .n_fds = 1, .u.ws.index = 3 };
		post(c.fd, &m, sizeof m, &e, 1);
		if (take(&c))
			_exit(3);
		pause();
	}
	assert_true(PUMP_UNTIL(tas__n_procs == 1 && tas__procs[0]->n_ws == 1));
	assert_int_equal(tas__procs[0]->set->n_socks, 1);
	assert_int_equal(tas__proc_claims(tas__procs[0]), 1);
	assert_int_equal(tas__procs[0]->pid, pid);
	kill_and_wait(pid);
	assert_true(PUMP_UNTIL(tas__proc_count() == 0));
	pump();
	assert_int_equal(fake.closes - closes, 1);
	assert_int_equal(tas__mem_sets(), 0);
	assert_int_equal(tas__mem_chunks(), 0);
	assert_int_equal(descriptors(), fds);
}

static void a_closed_session_is_no_death(void **state)
{
	struct client *c = attach_here();
	struct tas_proc *p = proc_of(c);

	(void)state;
	fake_sock(p);
	close(c->fd);
	pump();
	assert_int_equal(tas__proc_count(), 1);
	assert_null(p->session);
	assert_int_equal(p->set->n_socks, 1);
	assert_false(p->between);
	end_all();
	c->fd = -1;
	leave(c);
}

/* FORK_PREPARE on c; returns the child's end. */
static int prepare_fork(struct client *c)
{
	int pair[2];

	assert_int_equal(socketpair(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0, pair), 0);
	assert_int_equal(ask_op(c, TAS_MSG_FORK_PREPARE, &pair[1], 1), 0);
	close(pair[1]);
	return pair[0];
}

static void a_forked_child_holds_what_the_parent_holds(void **state)
{
	struct client *c = attach_here();
	struct tas_proc *parent = proc_of(c), *child;
	struct tas_sock_base *s = fake_sock(parent), *later;
	unsigned closes = fake.closes;
	int end;
	pid_t pid;

	(void)state;
	drop_got(c);
	end = prepare_fork(c);
	child = proc_of(c);
	assert_ptr_not_equal(child, parent);
	assert_ptr_equal(child->set, parent->set);
	assert_int_equal(c->rep.u.attached.set_id, parent->set->id);
	assert_int_equal(child->pid, 0);
	drop_got(c);
	later = fake_sock(parent);
	pid = fork();
	if (!pid) {
		struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_FORK_CHILD };
		struct client me = { .fd = end };

		post(end, &m, sizeof m, NULL, 0);
		m.op = TAS_MSG_CHUNK; /* and an ordinary request, which is the first that is answered */
		m.seq = 77;
		post(end, &m, sizeof m, NULL, 0);
		if (take(&me) || me.rep.seq != 77 || me.n_got != 1)
			_exit(1);
		pause();
	}
	close(end);
	assert_true(PUMP_UNTIL(child->pid == pid));
	assert_true(tas_claim_test(child->region->claims, s->id));
	assert_false(tas_claim_test(child->region->claims, later->id));
	/* the parent closes both: the child's claim keeps one open until it dies */
	tas_claim_clear(parent->region->claims, s->id);
	tas__sock_unclaimed(s);
	tas_claim_clear(parent->region->claims, later->id);
	tas__sock_unclaimed(later);
	assert_int_equal(fake.closes - closes, 1);
	kill_and_wait(pid);
	assert_true(PUMP_UNTIL(tas__proc_count() == 1));
	assert_int_equal(fake.closes - closes, 2);
	assert_int_equal(parent->set->n_procs, 1);
	end_all();
	leave(c);
}

static void a_failed_fork_leaves_nothing(void **state)
{
	struct client *c = attach_here();

	(void)state;
	fake_sock(proc_of(c));
	drop_got(c);
	close(prepare_fork(c));
	assert_int_equal(tas__proc_count(), 2);
	drop_got(c);
	pump();
	assert_int_equal(tas__proc_count(), 1);
	assert_int_equal(tas__procs[0]->set->n_socks, 1);
	end_all();
	leave(c);
}

/* A watched TCP socket of the client, whose process is in this one. */
static struct tas_sock_base *watched_sock(struct client *c, struct tas_proc *p, int *fd)
{
	struct tas_sock_base *s = fake_sock(p);
	struct tas_msg m = { .op = TAS_MSG_WATCH };

	*fd = tcp_socket();
	m.u.watch.n = 1;
	m.u.watch.id[0] = s->id;
	assert_int_equal(ask(c, &m, fd, 1), 0);
	assert_true(s->watched);
	assert_int_not_equal(s->ident.cookie, 0);
	return s;
}

static void the_kernels_last_close_decides_for_watched_sockets(void **state)
{
	struct client *c = attach_here();
	struct tas_proc *p = proc_of(c);
	struct tas_sock_base *s;
	struct tas_msg m = { .op = TAS_MSG_WATCH };
	int fd, copy, pair[2];
	unsigned closes = fake.closes;

	(void)state;
	drop_got(c);
	s = watched_sock(c, p, &fd);
	assert_int_equal(tas__watch_count(), 1);
	copy = dup(fd);
	close(fd);
	pump();
	tas_claim_clear(p->region->claims, s->id);
	tas__sock_unclaimed(s);
	assert_int_equal(fake.closes - closes, 0);
	socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair); /* in flight it is still open */
	post(pair[0], "x", 1, &copy, 1);
	close(copy);
	pump();
	assert_int_equal(fake.closes - closes, 0);
	close(pair[0]);
	close(pair[1]);
	assert_true(PUMP_UNTIL(fake.closes - closes == 1));
	assert_int_equal(tas__watch_count(), 0);

	/* a descriptor of another socket is not believed; nor one for a socket that is not held */
	s = watched_sock(c, p, &fd);
	copy = tcp_socket();
	m.u.watch.n = 1;
	m.u.watch.id[0] = s->id;
	assert_int_equal(ask(c, &m, &copy, 1), -EINVAL);
	m.u.watch.id[0] = s->id + 1;
	assert_int_equal(ask(c, &m, &fd, 1), -ENOENT);
	m.u.watch.id[0] = UINT32_MAX;
	assert_int_equal(ask(c, &m, &fd, 1), -ENOENT);
	close(copy);
	close(fd);
	assert_true(PUMP_UNTIL(fake.closes - closes == 2));
	end_all();
	leave(c);
}

static void exec_keeps_what_is_watched(void **state)
{
	struct client *c = attach_here(), *next;
	struct tas_proc *p = proc_of(c);
	struct tas_sock_base *kept, *lost = fake_sock(p);
	uint32_t set = p->set->id;
	unsigned closes = fake.closes;
	int fd;

	(void)state;
	drop_got(c);
	kept = watched_sock(c, p, &fd);
	assert_int_equal(ask_op(c, TAS_MSG_EXEC_BEGIN, NULL, 0), 0);
	close(c->fd);
	pump();
	assert_true(p->between);
	assert_int_equal(lost->kind, TAS_K_FREE);
	assert_int_equal(kept->kind, TAS_K_LINK);
	assert_int_equal(fake.closes - closes, 1);
	next = attach_here(); /* the next image has the same pid */
	assert_int_equal(tas__proc_count(), 1);
	assert_int_equal(next->rep.u.attached.set_id, set);
	assert_true(tas_claim_test(proc_of(next)->region->claims, kept->id));
	drop_got(next);
	assert_int_equal(ask_op(next, TAS_MSG_RESOLVE, &fd, 1), 0);
	assert_int_equal(next->rep.u.sock.id, kept->id);
	assert_int_equal(next->rep.u.sock.gen, kept->gen);
	assert_int_equal(next->rep.u.sock.set_id, set);
	close(fd);
	assert_true(PUMP_UNTIL(fake.closes - closes == 2));
	end_all();
	c->fd = -1;
	leave(c);
	leave(next);
}

static void a_failed_exec_changes_nothing(void **state)
{
	struct client *c = attach_here();

	(void)state;
	fake_sock(proc_of(c));
	assert_int_equal(ask_op(c, TAS_MSG_EXEC_BEGIN, NULL, 0), 0);
	assert_int_equal(ask_op(c, TAS_MSG_EXEC_FAILED, NULL, 0), 0);
	close(c->fd);
	pump();
	assert_false(tas__procs[0]->between);
	assert_int_equal(tas__procs[0]->set->n_socks, 1);
	end_all();
	c->fd = -1;
	leave(c);
}

static void two_libraries_in_one_process_share_a_set(void **state)
{
	struct client *a = attach_here(), *b = attach_here();

	(void)state;
	assert_int_equal(tas__proc_count(), 2);
	assert_int_equal(a->rep.u.attached.set_id, b->rep.u.attached.set_id);
	assert_int_not_equal(a->rep.u.attached.proc_slot, b->rep.u.attached.proc_slot);
	end_all();
	leave(a);
	leave(b);
}

/* A child that inherited fd without a word attaches, and asks what it is.  Exits with the answer's size class. */
static pid_t spawned(int fd, uid_t uid)
{
	pid_t pid = fork();

	if (!pid) {
		struct client c;
		struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_RESOLVE, .n_fds = 1 };
		int r;

		if (uid && (setgid(uid) || setuid(uid)))
			_exit(100);
		if (attach_there(&c))
			_exit(101);
		post(c.fd, &m, sizeof m, &fd, 1);
		r = take(&c);
		_exit(r < 0 ? -r : r ? 102 : 0);
	}
	return pid;
}

static int run_spawned(int fd, uid_t uid)
{
	pid_t pid = spawned(fd, uid);
	double end = seconds() + 5;
	int status;

	while (seconds() < end) {
		pump_once(10);
		if (waitpid(pid, &status, WNOHANG) == pid)
			return WIFEXITED(status) ? WEXITSTATUS(status) : -1;
	}
	kill_and_wait(pid);
	return -2;
}

static void a_spawned_program_is_let_into_its_parents_set(void **state)
{
	struct client *c = attach_here();
	struct tas_proc *p = proc_of(c);
	int fd, other = tcp_socket();
	struct tas_sock_base *s;

	(void)state;
	drop_got(c);
	s = watched_sock(c, p, &fd);
	assert_int_equal(run_spawned(fd, 0), 0);
	assert_int_equal(run_spawned(other, 0), 102); /* TAS_FALLBACK */
	if (!geteuid())
		assert_int_equal(run_spawned(fd, 65534), EACCES);
	pump();
	assert_true(PUMP_UNTIL(tas__proc_count() == 1));
	assert_int_equal(s->kind, TAS_K_LINK);
	assert_int_equal(tas__mem_sets(), 1);
	close(fd);
	close(other);
	end_all();
	leave(c);
}

static void running_out_of_descriptors_is_not_a_busy_loop(void **state)
{
	struct rlimit old, few;
	unsigned before;
	int fd[8];

	(void)state;
	pump();
	before = descriptors();
	for (int i = 0; i < 8; i++) {
		fd[i] = socket(AF_UNIX, SOCK_SEQPACKET | SOCK_CLOEXEC, 0);
		assert_true(fd[i] >= 0);
	}
	getrlimit(RLIMIT_NOFILE, &old);
	few = old;
	few.rlim_cur = (rlim_t)fd[7] + 2; /* room for one more */
	setrlimit(RLIMIT_NOFILE, &few);
	for (int i = 0; i < 8; i++) {
		struct sockaddr_un a = { .sun_family = AF_UNIX };

		memcpy(a.sun_path, tas_config.socket_path, sizeof a.sun_path);
		assert_int_equal(connect(fd[i], (struct sockaddr *)&a, sizeof a), 0);
	}
	assert_in_range(pump(), 1, 40);
	assert_int_equal(pump_once(0), 0);
	setrlimit(RLIMIT_NOFILE, &old);
	for (int i = 0; i < 8; i++)
		close(fd[i]);
	pump();
	assert_int_equal(descriptors(), before);
	leave(attach_here());
	end_all();
}

static void a_second_instance_is_refused_and_a_killed_one_replaced(void **state)
{
	char path[108];
	int pipes[2];
	char byte;
	pid_t pid;

	(void)state;
	memcpy(path, tas_config.socket_path, sizeof path);
	tas_stack_exit();
	assert_int_equal(access(path, F_OK), -1);
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (!pid) {
		close(fake.epoll);
		fake.epoll = epoll_create1(EPOLL_CLOEXEC);
		(void)!write(pipes[1], tas_stack_init() ? "n" : "y", 1);
		for (;;)
			pump_once(1000);
	}
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	assert_int_equal(byte, 'y');
	assert_int_equal(tas_stack_init(), -EADDRINUSE);
	assert_non_null(strstr(fake.warning, "another instance, pid"));
	assert_int_equal(access(path, F_OK), 0);
	kill_and_wait(pid);
	assert_int_equal(access(path, F_OK), 0);
	assert_int_equal(tas_stack_init(), 0);
	leave(attach_here());
	end_all();
	close(pipes[0]);
	close(pipes[1]);
}

static void a_path_that_is_no_socket_is_left_alone(void **state)
{
	char path[108];
	int fd;

	(void)state;
	memcpy(path, tas_config.socket_path, sizeof path);
	tas_stack_exit();
	*strrchr(path, '/') = '\0';
	mkdir(path, 0755);
	fd = open(tas_config.socket_path, O_CREAT | O_WRONLY, 0600);
	assert_int_equal(tas_stack_init(), -EEXIST);
	assert_int_equal(access(tas_config.socket_path, F_OK), 0);
	unlink(tas_config.socket_path);
	close(fd);
	assert_int_equal(tas_stack_init(), 0);
}

static void the_services_death_is_seen_by_all(void **state)
{
	struct futex_waitv w = { .flags = FUTEX_32 };
	struct timespec end;
	struct client c[3];
	struct tas_region *r[3];
	pid_t pid;
	int pipes[2];
	char byte;

	(void)state;
	tas_stack_exit();
	assert_int_equal(pipe(pipes), 0);
	pid = fork();
	if (!pid) {
		close(fake.epoll);
		fake.epoll = epoll_create1(EPOLL_CLOEXEC);
		(void)!write(pipes[1], tas_stack_init() ? "n" : "y", 1);
		for (;;)
			pump_once(1000);
	}
	assert_int_equal(read(pipes[0], &byte, 1), 1);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(attach_there(&c[i]), 0);
		r[i] = mmap(NULL, sizeof *r[i], PROT_READ | PROT_WRITE, MAP_SHARED, c[i].got[0], 0);
		assert_int_equal(atomic_load(&r[i]->alive), (uint32_t)pid | FUTEX_WAITERS);
	}
	w.uaddr = (uintptr_t)&r[1]->alive;
	w.val = atomic_load(&r[1]->alive);
	kill(pid, SIGKILL);
	clock_gettime(CLOCK_MONOTONIC, &end);
	end.tv_sec += 5;
	syscall(SYS_futex_waitv, &w, 1, 0, &end, CLOCK_MONOTONIC);
	waitpid(pid, NULL, 0);
	for (int i = 0; i < 3; i++) {
		assert_int_equal(atomic_load(&r[i]->alive), FUTEX_OWNER_DIED | FUTEX_WAITERS);
		assert_int_equal(take(&c[i]), -EPIPE);
		munmap(r[i], sizeof *r[i]);
		close(c[i].got[0]);
		close(c[i].got[1]);
		close(c[i].fd);
	}
	close(pipes[0]);
	close(pipes[1]);
	assert_int_equal(tas_stack_init(), 0);
}

/* Makes the page at addr one that cannot be touched: beyond the end of its file. */
static void break_page(void *addr)
{
	int fd = memfd_create("gone", MFD_CLOEXEC);
	uintptr_t at = (uintptr_t)addr & ~(uintptr_t)4095;

	assert_ptr_equal(mmap((void *)at, 4096, PROT_READ | PROT_WRITE, MAP_SHARED | MAP_FIXED, fd, 0), (void *)at);
	close(fd);
}

static void memory_that_fails_ends_only_its_own_set(void **state)
{
	struct client *c;
	struct tas_proc *p, *other;
	struct tas_set *set;
	tas_off_t off;
	int region;

	(void)state;
	tas_stack_exit(); /* cmocka has its own handler for SIGBUS during a test: ours goes on top */
	assert_int_equal(tas_stack_init(), 0);
	c = attach_here();
	p = proc_of(c);
	set = tas__set_new(0, 0);
	assert_int_equal(tas__proc_new(NULL, 0, 0, "other", &other, &region), 0);
	close(region);
	break_page(&p->region->ws[100]);
	atomic_store(&p->region->ws[100].sleeping, 7); /* would be SIGBUS */
	assert_int_equal(atomic_load(&p->region->ws[100].sleeping), 7);
	off = tas__mem_alloc(set, 8192);
	break_page(tas__mem_ptr(set, off));
	memset(tas__mem_ptr(set, off), 'x', 8192);
	assert_int_equal(tas__mem_alloc(set, 8192), 0);
	pump();
	assert_int_equal(tas__proc_count(), 1);
	assert_ptr_equal(tas__procs[other->slot], other);
	assert_int_equal(take(c), -EPIPE);
	tas__set_put(set);
	end_all();
	leave(c);
}

static unsigned long free_huge_pages(void)
{
	FILE *f = fopen("/sys/kernel/mm/hugepages/hugepages-2048kB/free_hugepages", "r");
	unsigned long n = 0;

	if (f && fscanf(f, "%lu", &n) != 1)
		n = 0;
	if (f)
		fclose(f);
	return n;
}

/* An application gives a huge page of its chunk back, and somebody else takes the last ones. */
static void a_hole_in_huge_pages_ends_only_its_own_set(void **state)
{
	struct client *c;
	unsigned long n = free_huge_pages();
	tas_off_t off;
	struct tas_set *set;
	int thief;

	(void)state;
	if (n < TAS_CHUNK_SIZE >> 21)
		skip();
	tas_config.fp_no_hugepages = false;
	tas_stack_exit();
	assert_int_equal(tas_stack_init(), 0);
	assert_true(tas__mem_hugepages());
	c = attach_here();
	set = proc_of(c)->set;
	off = tas__mem_alloc(set, 4 << 20);
	memset(tas__mem_ptr(set, off), 'x', 4 << 20);
	assert_int_equal(fallocate(set->chunk[0]->fd, FALLOC_FL_PUNCH_HOLE | FALLOC_FL_KEEP_SIZE,
				   TAS_OFF_BYTE(off), 4 << 20), 0);
	thief = memfd_create("thief", MFD_CLOEXEC | MFD_HUGETLB);
	for (off_t at = 0; !fallocate(thief, 0, at, 2 << 20); at += 2 << 20)
		;
	memset(tas__mem_ptr(set, off), 'y', 4 << 20);
	pump();
	assert_int_equal(tas__proc_count(), 0);
	close(thief);
	leave(c);
	assert_int_equal(free_huge_pages(), n);
	tas_config.fp_no_hugepages = true;
}

static void launches_and_kills_leave_nothing_behind(void **state)
{
	unsigned fds = 0;
	long pages = 0;

	(void)state;
	srandom(3);
	for (int round = 0; round < 330; round++) {
		pid_t pid;

		if (round == 30) { /* warm */
			FILE *f = fopen("/proc/self/statm", "r");

			assert_int_equal(fscanf(f, "%*s %ld", &pages), 1);
			fclose(f);
			pump(); /* a session that had not said HELLO may still be there */
			fds = descriptors();
		}
		pid = fork();
		if (!pid) {
			struct client c;
			struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_CONNECT, .n_fds = 1 };
			int s = tcp_socket();

			attach_there(&c);
			for (;;) {
				post(c.fd, &m, sizeof m, &s, 1);
				take(&c);
				usleep(100);
			}
		}
		for (double end = seconds() + (double)(random() % 4000) / 1e6; seconds() < end;)
			pump_once(1);
		kill_and_wait(pid);
		assert_true(PUMP_UNTIL(tas__proc_count() == 0));
	}
	pump();
	assert_int_equal(descriptors(), fds);
	assert_int_equal(tas__mem_sets(), 0);
	assert_int_equal(tas__mem_used(), 0);
	assert_int_equal(tas__watch_count(), 0);
	{
		FILE *f = fopen("/proc/self/statm", "r");
		long now;

		assert_int_equal(fscanf(f, "%*s %ld", &now), 1);
		fclose(f);
		assert_in_range(now, 0, pages + 64);
	}
}

/* An application gives the service both ends of a pair, so that replies come back to it as requests of its own. */
static void the_service_does_not_talk_to_itself(void **state)
{
	pid_t pid = fork();
	unsigned events = 0;
	int status;

	(void)state;
	if (!pid) {
		struct client c;
		struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_FORK_PREPARE, .n_fds = 1 };
		int pair[2];

		if (attach_there(&c))
			_exit(1);
		post(c.fd, &m, sizeof m, &c.fd, 1);
		if (take(&c) != -ENOTSOCK)
			_exit(2);
		socketpair(AF_UNIX, SOCK_SEQPACKET, 0, pair);
		for (int i = 0; i < 2; i++) {
			post(c.fd, &m, sizeof m, &pair[i], 1);
			if (take(&c))
				_exit(3);
		}
		m = (struct tas_msg){ .magic = TAS_ABI_MAGIC, .op = TAS_MSG_SHUTDOWN };
		post(pair[0], &m, sizeof m, NULL, 0);
		usleep(200000);
		_exit(0);
	}
	fake.stopped = false;
	for (double end = seconds() + 0.5; seconds() < end;)
		events += (unsigned)pump_once(10);
	assert_int_equal(waitpid(pid, &status, 0), pid);
	assert_int_equal(status, 0);
	assert_in_range(events, 1, 100);
	if (geteuid()) /* root may end it anyway */
		assert_false(fake.stopped);
	fake.stopped = false;
	pump();
	assert_int_equal(tas__proc_count(), 0);
}

/* A connected socket with a linger time, unsent bytes and a peer that does not read: closing it would wait. */
static int lingering(int *peer)
{
	struct linger l = { 1, 5 };
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK) };
	socklen_t len = sizeof a;
	int fd = tcp_socket(), listener = tcp_socket();
	static char bytes[1 << 20];

	assert_int_equal(bind(listener, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(listen(listener, 1), 0);
	getsockname(listener, (struct sockaddr *)&a, &len);
	assert_int_equal(connect(fd, (struct sockaddr *)&a, sizeof a), 0);
	*peer = accept(listener, NULL, NULL);
	while (send(fd, bytes, sizeof bytes, MSG_DONTWAIT) > 0)
		;
	setsockopt(fd, SOL_SOCKET, SO_LINGER, &l, sizeof l);
	close(listener);
	return fd;
}

static void descriptors_that_linger_hold_nobody_up(void **state)
{
	struct client *c = attach_here();
	struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_CHUNK };
	int fd, peer[2];
	double start;

	(void)state;
	fd = lingering(&peer[0]);
	m.n_fds = 1;
	post(c->fd, &m, sizeof m, &fd, 1); /* nobody expects it */
	close(fd);
	start = seconds();
	pump();
	fd = lingering(&peer[1]);
	post(c->fd, "boo", 3, NULL, 0); /* ends the session with this in the queue */
	post(c->fd, "", 0, NULL, 0);
	post(c->fd, &m, sizeof m, &fd, 1);
	close(fd);
	pump();
	assert_true(seconds() - start < 2);
	close(peer[0]);
	close(peer[1]);
	end_all();
	leave(c);
}

static void tasctl_gets_json(void **state)
{
	struct client *c = attach_here();
	struct tas_msg m = { .op = TAS_MSG_ADMIN };
	unsigned objects = 0, pages = 0;

	(void)state;
	drop_got(c);
	m.u.admin.what = TAS_ADMIN_STATUS;
	assert_int_equal(ask(c, &m, NULL, 0), 0);
	c->text[c->rep.u.admin.text_len] = '\0';
	assert_int_equal(c->len, sizeof c->rep + c->rep.u.admin.text_len);
	assert_non_null(strstr(c->text, "\"version\":\"" TAS_VERSION "\""));
	assert_non_null(strstr(c->text, "\"link\":\"none\""));
	m.u.admin.what = TAS_ADMIN_STATS;
	assert_int_equal(ask(c, &m, NULL, 0), 0);
	c->text[c->rep.u.admin.text_len] = '\0';
	assert_non_null(strstr(c->text, "\"gauges\":{\"processes\":1,\"memory_sets\":1,"));
	m.u.admin.what = TAS_ADMIN_PROCS;
	assert_int_equal(ask(c, &m, NULL, 0), 0);
	c->text[c->rep.u.admin.text_len] = '\0';
	assert_non_null(strstr(c->text, "\"comm\":\"te\\\"st?\""));
	m.u.admin.what = 99;
	assert_int_equal(ask(c, &m, NULL, 0), -EINVAL);
	m.u.admin.what = TAS_ADMIN_CONNS;
	assert_int_equal(ask(c, &m, NULL, 0), 0);
	assert_memory_equal(c->text, "[]", 2);
	fake.listing = 5000;
	do {
		assert_int_equal(ask(c, &m, NULL, 0), 0);
		c->text[c->rep.u.admin.text_len] = '\0';
		assert_int_equal(c->text[0], '[');
		assert_int_equal(c->text[c->rep.u.admin.text_len - 1], ']');
		for (char *p = c->text; (p = strstr(p, "{\"id\"")); p++)
			objects++;
		m.u.admin.cursor = c->rep.u.admin.more;
		pages++;
	} while (c->rep.u.admin.more && pages < 100);
	assert_int_equal(objects, 5000);
	assert_in_range(pages, 5, 8);
	fake.listing = 0;
	end_all();
	leave(c);
}

static void it_ends_with_its_last_user_if_told_to(void **state)
{
	struct client *c;

	(void)state;
	end_all();
	tas_config.exit_idle = true;
	fake.stopped = false;
	c = attach_here();
	close(c->fd);
	pump();
	assert_false(fake.stopped);
	end_all();
	assert_true(fake.stopped);
	tas_config.exit_idle = fake.stopped = false;
	c->fd = -1;
	leave(c);
}

static void shutdown_is_for_the_owner(void **state)
{
	struct client c = { .fd = dial() };

	(void)state;
	fake.stopped = false;
	if (!geteuid()) {
		pid_t pid = fork();

		if (!pid) {
			struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_SHUTDOWN };
			struct client me;

			if (setgid(65534) || setuid(65534))
				_exit(100);
			me.fd = dial();
			post(me.fd, &m, sizeof m, NULL, 0);
			_exit(-take(&me));
		}
		for (double end = seconds() + 0.3; seconds() < end;)
			pump_once(10);
		assert_true(exited_with(pid, EPERM));
		assert_false(fake.stopped);
	}
	assert_int_equal(ask_op(&c, TAS_MSG_SHUTDOWN, NULL, 0), 0);
	assert_true(fake.stopped);
	fake.stopped = false;
	close(c.fd);
	pump();
}

static void a_session_that_takes_no_replies_is_ended(void **state)
{
	struct client *c = attach_here();
	struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_ADMIN };
	struct pollfd p = { .fd = c->fd, .events = POLLOUT };

	(void)state;
	fake.listing = 5000;
	m.u.admin.what = TAS_ADMIN_CONNS;
	for (int i = 0; i < 100; i++) {
		post(c->fd, &m, sizeof m, NULL, 0);
		pump();
	}
	poll(&p, 1, 0);
	assert_true(p.revents & POLLHUP);
	fake.listing = 0;
	end_all();
	leave(c);
}

static int up(void **state)
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

static int down(void **state)
{
	char sub[80];

	(void)state;
	tas_stack_exit();
	close(fake.epoll);
	snprintf(sub, sizeof sub, "%s/sub", folder);
	rmdir(sub); /* left where another instance had made it */
	return rmdir(folder);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attach_gives_a_region_and_a_doorbell),
		cmocka_unit_test(another_abi_is_refused_in_words),
		cmocka_unit_test(nonsense_does_no_harm),
		cmocka_unit_test(random_messages_do_no_harm),
		cmocka_unit_test(requests_need_an_attached_process),
		cmocka_unit_test(identity_is_read_from_the_descriptor),
		cmocka_unit_test(death_drops_claims_and_everything_returns),
		cmocka_unit_test(a_closed_session_is_no_death),
		cmocka_unit_test(a_forked_child_holds_what_the_parent_holds),
		cmocka_unit_test(a_failed_fork_leaves_nothing),
		cmocka_unit_test(the_kernels_last_close_decides_for_watched_sockets),
		cmocka_unit_test(exec_keeps_what_is_watched),
		cmocka_unit_test(a_failed_exec_changes_nothing),
		cmocka_unit_test(two_libraries_in_one_process_share_a_set),
		cmocka_unit_test(a_spawned_program_is_let_into_its_parents_set),
		cmocka_unit_test(running_out_of_descriptors_is_not_a_busy_loop),
		cmocka_unit_test(a_second_instance_is_refused_and_a_killed_one_replaced),
		cmocka_unit_test(a_path_that_is_no_socket_is_left_alone),
		cmocka_unit_test(the_services_death_is_seen_by_all),
		cmocka_unit_test(memory_that_fails_ends_only_its_own_set),
		cmocka_unit_test(a_hole_in_huge_pages_ends_only_its_own_set),
		cmocka_unit_test(launches_and_kills_leave_nothing_behind),
		cmocka_unit_test(the_service_does_not_talk_to_itself),
		cmocka_unit_test(descriptors_that_linger_hold_nobody_up),
		cmocka_unit_test(tasctl_gets_json),
		cmocka_unit_test(it_ends_with_its_last_user_if_told_to),
		cmocka_unit_test(shutdown_is_for_the_owner),
		cmocka_unit_test(a_session_that_takes_no_replies_is_ended),
	};

	return cmocka_run_group_tests(tests, up, down);
}
