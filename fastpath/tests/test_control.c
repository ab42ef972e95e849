/* SPDX-License-Identifier: MIT */
/* The control socket: who attaches, how identity is read, what tasctl gets, instances and their paths. */
#include "control_client.h"

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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(attach_gives_a_region_and_a_doorbell),
		cmocka_unit_test(another_abi_is_refused_in_words),
		cmocka_unit_test(requests_need_an_attached_process),
		cmocka_unit_test(identity_is_read_from_the_descriptor),
		cmocka_unit_test(a_second_instance_is_refused_and_a_killed_one_replaced),
		cmocka_unit_test(a_path_that_is_no_socket_is_left_alone),
		cmocka_unit_test(tasctl_gets_json),
		cmocka_unit_test(it_ends_with_its_last_user_if_told_to),
		cmocka_unit_test(shutdown_is_for_the_owner),
	};

	return cmocka_run_group_tests(tests, up, down);
}
