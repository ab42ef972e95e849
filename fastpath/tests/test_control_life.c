/* SPDX-License-Identifier: MIT */
/* Processes as the service sees them: death, fork, exec, spawn; claims, and the last close of watched sockets. */
#include "control_client.h"

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

/* A process of another user: no chunk of a set before it holds something there; then both sockets.  0, or where it failed. */
static int run_as_stranger(int fd, int second, uint32_t chunk)
{
	pid_t pid = fork();
	int status;

	if (!pid) {
		struct client c;
		struct tas_msg m = { .magic = TAS_ABI_MAGIC, .op = TAS_MSG_CHUNK };

		if (setgid(65533) || setuid(65533) || attach_there(&c))
			_exit(1);
		m.u.chunk.index = chunk;
		post(c.fd, &m, sizeof m, NULL, 0);
		if (take(&c) != -ENOENT)
			_exit(2);
		m = (struct tas_msg){ .magic = TAS_ABI_MAGIC, .op = TAS_MSG_RESOLVE, .n_fds = 1 };
		post(c.fd, &m, sizeof m, &fd, 1);
		if (take(&c))
			_exit(3);
		m.u.chunk.index = TAS_OFF_CHUNK(c.rep.u.sock.block);
		post(c.fd, &m, sizeof m, &second, 1);
		if (take(&c))
			_exit(4);
		m = (struct tas_msg){ .magic = TAS_ABI_MAGIC, .op = TAS_MSG_CHUNK, .u.chunk.index = TAS_OFF_CHUNK(c.rep.u.sock.block) };
		post(c.fd, &m, sizeof m, NULL, 0);
		_exit(take(&c) ? 5 : 0);
	}
	for (double end = seconds() + 5; seconds() < end;) {
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
	pump();
	assert_true(PUMP_UNTIL(tas__proc_count() == 1));
	assert_int_equal(s->kind, TAS_K_LINK);
	assert_int_equal(tas__mem_sets(), 1);
	close(fd);
	close(other);
	end_all();
	leave(c);
}

/* A process of another user, or one that has nothing to do with the set: the socket moves to where both reach it. */
static void a_socket_that_two_sets_hold_lies_in_a_set_of_theirs(void **state)
{
	struct client *c = attach_here();
	struct tas_proc *p = proc_of(c);
	struct tas_set *own = p->set, *shared;
	struct tas_msg m = { .op = TAS_MSG_CHUNK };
	int fd, second;
	struct tas_sock_base *s, *t;

	(void)state;
	if (geteuid())
		skip();
	drop_got(c);
	s = watched_sock(c, p, &fd);
	t = watched_sock(c, p, &second);
	fake.busy = true; /* somebody copies */
	assert_int_equal(run_spawned(fd, 65534), EAGAIN);
	fake.busy = false;
	assert_ptr_equal(s->set, own);
	assert_int_equal(run_spawned(fd, 65534), 0);
	shared = s->set;
	assert_ptr_not_equal(shared, own);
	assert_int_not_equal(shared->number, 0);
	assert_true(tas__set_reaches(own, shared));
	assert_int_equal(TAS_CHUNK_NUMBER(TAS_OFF_CHUNK(s->block)), shared->number);
	pump();
	assert_int_equal(shared->n_members, 1); /* the other has gone */

	/* chunks are given to members only */
	m.u.chunk.index = TAS_CHUNK_OF(shared->number, 0);
	assert_int_equal(ask(c, &m, NULL, 0), 0);
	drop_got(c);
	m.u.chunk.index = TAS_CHUNK_OF(shared->number + 1, 0);
	assert_int_equal(ask(c, &m, NULL, 0), -ENOENT);
	assert_int_equal(run_as_stranger(fd, second, TAS_OFF_CHUNK(s->block)), 0);
	assert_ptr_not_equal(s->set, shared);
	assert_ptr_equal(s->set, t->set); /* the same two sets hold both */
	close(fd);
	close(second);
	pump();
	assert_int_equal(tas__mem_sets(), 1);
	end_all();
	leave(c);
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(death_drops_claims_and_everything_returns),
		cmocka_unit_test(a_closed_session_is_no_death),
		cmocka_unit_test(a_forked_child_holds_what_the_parent_holds),
		cmocka_unit_test(a_failed_fork_leaves_nothing),
		cmocka_unit_test(the_kernels_last_close_decides_for_watched_sockets),
		cmocka_unit_test(exec_keeps_what_is_watched),
		cmocka_unit_test(a_failed_exec_changes_nothing),
		cmocka_unit_test(two_libraries_in_one_process_share_a_set),
		cmocka_unit_test(a_spawned_program_is_let_into_its_parents_set),
		cmocka_unit_test(a_socket_that_two_sets_hold_lies_in_a_set_of_theirs),
		cmocka_unit_test(the_services_death_is_seen_by_all),
		cmocka_unit_test(launches_and_kills_leave_nothing_behind),
	};

	return cmocka_run_group_tests(tests, up, down);
}
