/* SPDX-License-Identifier: MIT */
/* Epoll sets with TAS sockets in them give what epoll sets on Linux give. */
#include "oracle.h"

static int ep;

static long ctl(int op, int fd, unsigned events, unsigned long data)
{
	struct epoll_event e = {.events = events, .data.u64 = data};

	return k->epoll_ctl(ep, op, fd, &e);
}

static int by_data(const void *a, const void *b)
{
	const struct epoll_event *x = a, *y = b;

	return x->data.u64 < y->data.u64 ? -1 : x->data.u64 > y->data.u64;
}

/* Says what epoll_wait gives, in the order of data. */
static void wait_(int ms)
{
	struct timespec ts = {.tv_sec = ms / 1000, .tv_nsec = ms % 1000 * 1000000L};
	struct epoll_event e[8];
	int n = k->epoll_pwait2(ep, e, 8, &ts, NULL);

	if (n < 0) {
		say("wait", n);
		return;
	}
	qsort(e, (size_t)n, sizeof *e, by_data);
	fprintf(out, "wait:");
	for (int i = 0; i < n; i++)
		fprintf(out, " %lu/%x", (unsigned long)e[i].data.u64, e[i].events);
	fprintf(out, "\n");
	fflush(out);
}

static void *wait_long(void *arg)
{
	(void)arg;
	wait_(3000);
	return NULL;
}

static void new_set(void)
{
	ep = k->epoll_create1(0);
}

SCENARIO(errors_of_epoll_ctl)
{
	struct epoll_event e = {0}, ev[2];
	struct timespec none = {0, 0};
	int file = open("/etc/passwd", O_RDONLY);

	new_set();
	pair();
	SAY(ctl(EPOLL_CTL_MOD, s, EPOLLIN, 1));
	SAY(ctl(EPOLL_CTL_DEL, s, 0, 0));
	SAY(ctl(EPOLL_CTL_ADD, s, EPOLLIN, 1));
	SAY(ctl(EPOLL_CTL_ADD, s, EPOLLIN, 1));
	SAY(ctl(99, s, 0, 0));
	SAY(k->epoll_ctl(ep, EPOLL_CTL_ADD, c, NULL));
	SAY(k->epoll_ctl(s, EPOLL_CTL_ADD, c, &e));
	SAY(k->epoll_ctl(ep, EPOLL_CTL_ADD, ep, &e));
	SAY(k->epoll_ctl(ep, EPOLL_CTL_ADD, 200, &e));
	SAY(k->epoll_ctl(200, EPOLL_CTL_ADD, s, &e));
	SAY(k->epoll_ctl(ep, EPOLL_CTL_ADD, file, &e));
	SAY(ctl(EPOLL_CTL_MOD, s, EPOLLIN | EPOLLEXCLUSIVE, 1));
	SAY(k->epoll_pwait2(ep, ev, 0, &none, NULL));
	SAY(k->epoll_pwait2(s, ev, 1, &none, NULL));
	SAY(k->epoll_pwait2(200, ev, 1, &none, NULL));
}

SCENARIO(level_triggered_members_stay_until_not_ready)
{
	new_set();
	pair();
	ctl(EPOLL_CTL_ADD, s, EPOLLIN, 1);
	wait_(0);
	send_(c, "ab");
	wait_(1000);
	wait_(0);
	recv_(s, 1, 0);
	wait_(0);
	recv_(s, 1, 0);
	wait_(0);
	SAY(ctl(EPOLL_CTL_MOD, s, EPOLLIN | EPOLLOUT, 2));
	wait_(0);
	SAY(ctl(EPOLL_CTL_MOD, s, 0, 2));
	send_(c, "ab");
	wait_(20);
	SAY(ctl(EPOLL_CTL_MOD, s, EPOLLIN, 3));
	wait_(0);
	SAY(ctl(EPOLL_CTL_DEL, s, 0, 0));
	wait_(0);
	SAY(ctl(EPOLL_CTL_ADD, s, EPOLLIN, 4));
	wait_(0);
	unpair(); /* closing removes */
	wait_(0);
}

SCENARIO(edge_triggered_members_report_arrivals)
{
	new_set();
	pair();
	ctl(EPOLL_CTL_ADD, s, EPOLLIN | EPOLLOUT | EPOLLET | EPOLLRDHUP, 5);
	wait_(0);
	wait_(0);
	send_(c, "ab");
	wait_(1000);
	wait_(0);
	recv_(s, 1, 0);
	wait_(0); /* something is left, but nothing arrived */
	send_(c, "c");
	wait_(1000);
	recv_(s, 9, 0);
	wait_(0);
	SAY(ctl(EPOLL_CTL_MOD, s, EPOLLIN | EPOLLET, 6));
	wait_(0);
	send_(c, "d");
	wait_(1000);
	SAY(ctl(EPOLL_CTL_MOD, s, EPOLLIN | EPOLLET | EPOLLRDHUP, 7)); /* arms again */
	wait_(0);
	wait_(0);
	k->shutdown(c, SHUT_WR);
	wait_(1000);
	wait_(0);
}

SCENARIO(edge_triggered_output_reports_room)
{
	static char b[1 << 16];
	long sent = 0, got = 0, r;

	new_set();
	pair();
	k->fcntl(s, F_SETFL, O_NONBLOCK);
	ctl(EPOLL_CTL_ADD, s, EPOLLOUT | EPOLLET, 8);
	wait_(0);
	wait_(0);
	for (int i = 0; i < 20; i++) {
		while ((r = k->sendto(s, b, sizeof b, 0, NULL, 0)) > 0)
			sent += r;
		usleep(5000);
	}
	wait_(0);
	while (got < sent && (r = k->recvfrom(c, b, sizeof b, 0, NULL, NULL)) > 0)
		got += r;
	SAY(got == sent);
	wait_(1000);
	wait_(0);
}

SCENARIO(oneshot_members_rest_until_modified)
{
	new_set();
	pair();
	ctl(EPOLL_CTL_ADD, s, EPOLLIN | EPOLLONESHOT, 9);
	send_(c, "a");
	wait_(1000);
	wait_(0);
	send_(c, "a");
	wait_(20);
	SAY(ctl(EPOLL_CTL_MOD, s, EPOLLIN | EPOLLONESHOT, 10));
	wait_(0);
	k->close(c);
	wait_(20);
	SAY(ctl(EPOLL_CTL_MOD, s, EPOLLIN | EPOLLONESHOT | EPOLLRDHUP, 10));
	wait_(1000);
}

SCENARIO(hang_up_and_error_need_no_asking)
{
	new_set();
	pair();
	ctl(EPOLL_CTL_ADD, s, 0, 11);
	reset_by(c);
	wait_(1000);
	SAY(so_error(s));
	wait_(0);
}

static int connect_one(void)
{
	int fd = k->socket(AF_INET, SOCK_STREAM, 0);

	k->connect(fd, (void *)&addr, addr_len);
	return fd;
}

SCENARIO(listeners_level_edge_and_oneshot)
{
	int second;

	new_set();
	ctl(EPOLL_CTL_ADD, ls, EPOLLIN, 12);
	wait_(0);
	c = connect_one();
	wait_(1000);
	wait_(0);
	s = k->accept4(ls, NULL, NULL, 0);
	wait_(0);
	unpair();
	SAY(ctl(EPOLL_CTL_MOD, ls, EPOLLIN | EPOLLET, 13));
	c = connect_one();
	wait_(1000);
	wait_(0);
	second = connect_one();
	wait_(1000);
	s = k->accept4(ls, NULL, NULL, 0);
	wait_(0);
	unpair();
	s = k->accept4(ls, NULL, NULL, 0);
	k->close(second);
	SAY(ctl(EPOLL_CTL_MOD, ls, EPOLLIN | EPOLLONESHOT, 14));
	c = connect_one();
	wait_(1000);
	wait_(0);
	SAY(ctl(EPOLL_CTL_DEL, ls, 0, 0));
	SAY(ctl(EPOLL_CTL_ADD, ls, EPOLLIN | EPOLLEXCLUSIVE, 15));
	SAY(ctl(EPOLL_CTL_MOD, ls, EPOLLIN, 15));
	wait_(0);
}

SCENARIO(membership_survives_connect_and_listen)
{
	struct sockaddr_in a = {.sin_family = AF_INET, .sin_addr.s_addr = htonl(INADDR_LOOPBACK)};
	socklen_t len = sizeof a;
	int l;

	new_set();
	c = k->socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	ctl(EPOLL_CTL_ADD, c, EPOLLIN | EPOLLOUT, 16);
	wait_(0);
	SAY(k->connect(c, (void *)&addr, addr_len));
	s = k->accept4(ls, NULL, NULL, 0);
	settled(c, POLLOUT);
	wait_(1000);
	SAY(ctl(EPOLL_CTL_MOD, c, EPOLLIN, 17));
	wait_(0);
	send_(s, "q");
	wait_(1000);
	SAY(ctl(EPOLL_CTL_DEL, c, 0, 0));
	unpair();
	l = k->socket(AF_INET, SOCK_STREAM, 0);
	ctl(EPOLL_CTL_ADD, l, EPOLLIN, 18);
	wait_(0);
	k->bind(l, (void *)&a, len);
	k->listen(l, 4);
	k->getsockname(l, (void *)&addr, &addr_len);
	wait_(0);
	c = connect_one();
	wait_(1000);
	k->close(l);
	wait_(0);
}

SCENARIO(kernel_members_beside_tas_members)
{
	int e = eventfd(0, EFD_NONBLOCK);
	uint64_t one = 1;
	pthread_t t;

	new_set();
	pair();
	ctl(EPOLL_CTL_ADD, e, EPOLLIN, 19);
	ctl(EPOLL_CTL_ADD, s, EPOLLIN, 20);
	wait_(0);
	send_(c, "a");
	settled(s, POLLIN);
	SAY(write(e, &one, sizeof one));
	wait_(0);
	recv_(s, 1, 0);
	wait_(0);
	SAY(read(e, &one, sizeof one));
	wait_(10);
	pthread_create(&t, NULL, wait_long, NULL);
	usleep(20000);
	one = 1;
	if (write(e, &one, sizeof one) < 0) /* the thread speaks now */
		say("write", -errno);
	pthread_join(t, NULL);
	SAY(read(e, &one, sizeof one));
	pthread_create(&t, NULL, wait_long, NULL);
	usleep(20000);
	send_(c, "b");
	pthread_join(t, NULL);
}

SCENARIO(a_first_member_wakes_who_waits_for_the_empty_set)
{
	pthread_t t;

	new_set();
	pair();
	send_(c, "b");
	settled(s, POLLIN);
	pthread_create(&t, NULL, wait_long, NULL);
	usleep(20000);
	ctl(EPOLL_CTL_ADD, s, EPOLLIN, 21);
	pthread_join(t, NULL);
}

SCENARIO(numbers_are_members_of_their_own)
{
	int d, first;

	new_set();
	pair();
	d = k->dup(s);
	ctl(EPOLL_CTL_ADD, s, EPOLLIN, 22);
	ctl(EPOLL_CTL_ADD, d, EPOLLIN, 23);
	first = ep;
	new_set();
	ctl(EPOLL_CTL_ADD, s, EPOLLIN, 24);
	send_(c, "z");
	wait_(1000);
	k->close(ep);
	ep = first;
	wait_(1000);
	SAY(ctl(EPOLL_CTL_DEL, d, 0, 0));
	wait_(0);
	SAY(ctl(EPOLL_CTL_DEL, s, 0, 0));
	wait_(0);
}

SCENARIO(sets_inside_sets_and_in_poll)
{
	int inner, outer;
	pthread_t t;

	new_set();
	inner = ep;
	pair();
	ctl(EPOLL_CTL_ADD, s, EPOLLIN, 25);
	new_set();
	outer = ep;
	SAY(ctl(EPOLL_CTL_ADD, inner, EPOLLIN, 26));
	wait_(0);
	send_(c, "n");
	wait_(1000);
	SAY(poll_(inner, POLLIN, 100));
	ep = inner;
	wait_(0);
	recv_(s, 1, 0);
	wait_(0);
	SAY(poll_(inner, POLLIN, 20));
	ep = outer;
	wait_(0);
	pthread_create(&t, NULL, wait_long, NULL);
	usleep(20000);
	send_(c, "m");
	pthread_join(t, NULL);
	ep = inner;
	wait_(0);
}

SCENARIO(parent_and_child_both_have_the_set)
{
	pid_t pid;

	new_set();
	pair();
	ctl(EPOLL_CTL_ADD, s, EPOLLIN, 28);
	pid = fork();
	if (!pid) {
		wait_(0);
		send_(c, "f");
		wait_(1000);
		_exit(0);
	}
	waitpid(pid, NULL, 0);
	wait_(1000);
	recv_(s, 1, 0);
	wait_(0);
	pid = fork();
	if (!pid) {
		usleep(20000);
		send_(c, "g");
		_exit(0);
	}
	wait_(2000);
	waitpid(pid, NULL, 0);
}

SCENARIO(every_one_of_many_is_reported)
{
	enum { N = 60 };
	int cs[N], ss[N], seen = 0;
	bool got[N] = {false};
	struct timespec ts = {0, 100000000};
	struct epoll_event e[16];

	new_set();
	for (int i = 0; i < N; i++) {
		pair();
		cs[i] = c;
		ss[i] = s;
		ctl(EPOLL_CTL_ADD, s, EPOLLIN, (unsigned long)i);
	}
	for (int i = 0; i < N; i++)
		send_(cs[i], "x");
	for (int round = 0; seen < N && round < 10 * N; round++) {
		int n = k->epoll_pwait2(ep, e, 16, &ts, NULL);

		for (int i = 0; i < n; i++) {
			if (!got[e[i].data.u64])
				seen++;
			got[e[i].data.u64] = true;
			recv_(ss[e[i].data.u64], 9, 0);
		}
	}
	SAY(seen);
	wait_(0);
	SAY(k->close(ep));
	SAY(k->epoll_pwait2(ep, e, 1, &ts, NULL));
}

SCENARIO(urgent_data_is_an_event)
{
	new_set();
	pair();
	ctl(EPOLL_CTL_ADD, s, EPOLLIN | EPOLLPRI, 1);
	wait_(0);
	k->sendto(c, "u", 1, MSG_OOB, NULL, 0);
	wait_(1000);
	SAY(recv_(s, 1, MSG_OOB));
	wait_(0);
	ctl(EPOLL_CTL_MOD, s, EPOLLPRI | EPOLLET, 2);
	wait_(0);
	k->sendto(c, "v", 1, MSG_OOB, NULL, 0);
	wait_(1000);
	wait_(0);
}

static _Atomic bool receiving;

static void *recv_of(void *fd)
{
	receiving = true;
	return (void *)recv_((int)(long)fd, 8, 0);
}

SCENARIO(a_number_that_was_closed_while_a_thread_is_blocked_with_it)
{
	pthread_t t;
	void *r;

	new_set();
	pair();
	ctl(EPOLL_CTL_ADD, s, EPOLLOUT, 7);
	wait_(0);
	pthread_create(&t, NULL, recv_of, (void *)(long)s);
	while (!receiving)
		usleep(1000);
	usleep(100000); /* it has gone to sleep, or the machine is very busy */
	SAY(k->close(s));
	wait_(0);
	send_(c, "ab");
	pthread_join(t, &r);
	SAY((long)r);
	wait_(0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(errors_of_epoll_ctl),
		cmocka_unit_test(level_triggered_members_stay_until_not_ready),
		cmocka_unit_test(edge_triggered_members_report_arrivals),
		cmocka_unit_test(edge_triggered_output_reports_room),
		cmocka_unit_test(oneshot_members_rest_until_modified),
		cmocka_unit_test(hang_up_and_error_need_no_asking),
		cmocka_unit_test(listeners_level_edge_and_oneshot),
		cmocka_unit_test(membership_survives_connect_and_listen),
		cmocka_unit_test(kernel_members_beside_tas_members),
		cmocka_unit_test(a_first_member_wakes_who_waits_for_the_empty_set),
		cmocka_unit_test(numbers_are_members_of_their_own),
		cmocka_unit_test(sets_inside_sets_and_in_poll),
		cmocka_unit_test(parent_and_child_both_have_the_set),
		cmocka_unit_test(every_one_of_many_is_reported),
		cmocka_unit_test(urgent_data_is_an_event),
		cmocka_unit_test(a_number_that_was_closed_while_a_thread_is_blocked_with_it),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
