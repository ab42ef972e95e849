/* SPDX-License-Identifier: MIT */
/* What applications do to the service: nonsense, exhaustion, memory that fails, sockets that lead back to it. */
#include "control_client.h"
#include "slow/identity.h"

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

static void who_confines_itself_has_no_mail_any_more(void **state)
{
	struct client *c = attach_here();
	struct tas_proc *p = tas__procs[0];
	struct tas_ident one = { .cookie = 11, .ino = 12, .netns = 13, .domain = AF_INET }, i = one;
	uint32_t name = tas__ident_keep(p, &one);

	(void)state;
	assert_int_not_equal(name, 0);
	assert_int_equal(tas__ident_keep(p, &one), name);
	for (i.cookie = 20; i.cookie < 20 + 3 * TAS_IDENTS; i.cookie++) { /* the oldest are forgotten, none has another's name */
		uint32_t other = tas__ident_keep(p, &i);

		assert_int_not_equal(other, name);
		assert_int_equal(p->ident[other % TAS_IDENTS].is.cookie, i.cookie);
	}
	assert_int_not_equal(tas__ident_keep(p, &one), name);
	assert_int_equal(ask_op(c, TAS_MSG_MAIL_END, NULL, 0), 0);
	for (unsigned k = 0; k < TAS_IDENTS; k++)
		assert_int_equal(p->ident[k].name, 0);
	assert_int_equal(tas__ident_keep(p, &one), 0);
	end_all();
	leave(c);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(nonsense_does_no_harm),
		cmocka_unit_test(random_messages_do_no_harm),
		cmocka_unit_test(running_out_of_descriptors_is_not_a_busy_loop),
		cmocka_unit_test(memory_that_fails_ends_only_its_own_set),
		cmocka_unit_test(a_hole_in_huge_pages_ends_only_its_own_set),
		cmocka_unit_test(the_service_does_not_talk_to_itself),
		cmocka_unit_test(descriptors_that_linger_hold_nobody_up),
		cmocka_unit_test(a_session_that_takes_no_replies_is_ended),
		cmocka_unit_test(who_confines_itself_has_no_mail_any_more),
	};

	return cmocka_run_group_tests(tests, up, down);
}
