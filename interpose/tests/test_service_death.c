/* SPDX-License-Identifier: MIT */
/* A service that is killed: nobody hangs, connections are reset, listeners go on in the kernel and with the next
 * service. */
#include "oracle.h"

enum { N = 7 };
static int cs[N], ss[N], ep;

static void setup_pairs(void)
{
	k = &tas_api;
	out = stderr;
	listen_();
	assert_int_equal(tas_fd_states[ls], TAS_FD_TAS);
	for (int i = 0; i < N; i++) {
		pair();
		cs[i] = c;
		ss[i] = s;
	}
}

static void *in_recv(void *fd)
{
	return (void *)recv_((int)(long)fd, 8, 0);
}

static void *in_recv_with_timeout(void *fd)
{
	struct timeval tv = {20, 0};

	k->setsockopt((int)(long)fd, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	return in_recv(fd);
}

static void *in_send(void *fd)
{
	static char b[32 << 20];

	return (void *)k->sendto((int)(long)fd, b, sizeof b, MSG_NOSIGNAL, NULL, 0);
}

static void *in_poll(void *fd)
{
	return (void *)poll_((int)(long)fd, POLLIN, 20000);
}

static void *in_epoll(void *arg)
{
	struct epoll_event e = {0};

	(void)arg;
	return k->epoll_pwait2(ep, &e, 1, NULL, NULL) == 1 ? (void *)(long)e.events : NULL;
}

static void *in_accept(void *fd)
{
	return (void *)(long)k->accept4((int)(long)fd, NULL, NULL, 0);
}

static long result(pthread_t t)
{
	void *r;

	pthread_join(t, &r);
	return (long)r;
}

static int kernel_client(void)
{
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	assert_int_equal(connect(fd, (void *)&addr, addr_len), 0);
	return fd;
}

static void blocked_threads_and_listeners_survive_the_service(void **state)
{
	struct epoll_event e = {.events = EPOLLIN | EPOLLET};
	struct timespec ts = {2, 0};
	pthread_t recving, timed, sending, polling, epolling, accepting;
	int fd;

	(void)state;
	if (!service_path())
		skip();
	setup_pairs();
	ep = k->epoll_create1(0);
	assert_int_equal(k->epoll_ctl(ep, EPOLL_CTL_ADD, ss[3], &e), 0);
	pthread_create(&recving, NULL, in_recv, (void *)(long)ss[0]);
	pthread_create(&sending, NULL, in_send, (void *)(long)ss[1]);
	pthread_create(&polling, NULL, in_poll, (void *)(long)ss[2]);
	pthread_create(&epolling, NULL, in_epoll, NULL);
	pthread_create(&timed, NULL, in_recv_with_timeout, (void *)(long)ss[5]);
	pthread_create(&accepting, NULL, in_accept, (void *)(long)ls);
	usleep(100000); /* they sleep */
	service_kill(SIGKILL);

	assert_int_equal(result(recving), -ECONNRESET);
	assert_true(result(sending) > 0);
	assert_int_equal(result(polling), POLLIN | POLLERR | POLLHUP);
	assert_int_equal(result(epolling), EPOLLIN | EPOLLERR | EPOLLHUP);
	assert_int_equal(result(timed), -ECONNRESET);
	assert_int_equal(poll_(ss[4], POLLIN | POLLOUT | POLLRDHUP, 0),
			 POLLIN | POLLOUT | POLLRDHUP | POLLERR | POLLHUP);
	assert_int_equal(so_error(ss[4]), ECONNRESET);
	assert_int_equal(recv_(ss[4], 1, 0), 0);
	assert_int_equal(send_(ss[4], "x"), -EPIPE);
	assert_int_equal(k->epoll_pwait2(ep, &e, 1, &(struct timespec){0}, NULL), 0); /* an edge, reported above */

	/* the kernel's half goes on */
	fd = kernel_client();
	close(fd);
	fd = (int)result(accepting);
	assert_true(fd >= 0);
	assert_int_equal(tas_fd_states[fd], TAS_FD_KERNEL);
	k->close(fd);

	/* and a thread that waits finds the next service by itself */
	pthread_create(&accepting, NULL, in_accept, (void *)(long)ls);
	e.events = EPOLLIN;
	assert_int_equal(k->epoll_ctl(ep, EPOLL_CTL_ADD, ls, &e), 0);
	assert_int_equal(service_start(), 0);
	for (int i = 0; i < 50; i++) {
		usleep(100000);
		c = k->socket(AF_INET, SOCK_STREAM, 0);
		assert_int_equal(k->connect(c, (void *)&addr, addr_len), 0);
		if (tas_fd_states[c] == TAS_FD_TAS)
			break;
		s = (int)result(accepting); /* by the kernel still */
		unpair();
		pthread_create(&accepting, NULL, in_accept, (void *)(long)ls);
	}
	s = (int)result(accepting);
	assert_int_equal(tas_fd_states[s], TAS_FD_TAS);
	assert_int_equal(send_(c, "x"), 1);
	assert_int_equal(recv_(s, 1, 0), 1);

	/* both halves again, through the set as well */
	unpair();
	c = k->socket(AF_INET, SOCK_STREAM, 0);
	assert_int_equal(k->connect(c, (void *)&addr, addr_len), 0);
	assert_int_equal(k->epoll_pwait2(ep, &e, 1, &ts, NULL), 1);
	s = k->accept4(ls, NULL, NULL, 0);
	assert_int_equal(tas_fd_states[s], TAS_FD_TAS);
	fd = kernel_client();
	assert_int_equal(k->epoll_pwait2(ep, &e, 1, &ts, NULL), 1);
	s = k->accept4(ls, NULL, NULL, 0);
	assert_int_equal(tas_fd_states[s], TAS_FD_KERNEL);
	close(fd);
}

static void without_a_service_everything_is_the_kernels(void **state)
{
	char b[4];

	(void)state;
	if (!service_path())
		skip();
	service_kill(SIGTERM);
	k = &tas_api;
	out = stderr;
	listen_();
	pair();
	assert_int_equal(tas_fd_states[ls], TAS_FD_KERNEL);
	assert_int_equal(tas_fd_states[c], TAS_FD_KERNEL);
	assert_int_equal(send_(c, "abc"), 3);
	assert_int_equal(k->read(s, b, sizeof b), 3);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(blocked_threads_and_listeners_survive_the_service),
		cmocka_unit_test(without_a_service_everything_is_the_kernels),
	};

	alarm(60);
	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
