/* SPDX-License-Identifier: MIT */
/* Client library and service in one process on one mapping: made for ThreadSanitizer, true without it as well. */
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <poll.h>
#include <pthread.h>
#include <setjmp.h>
#include <stdarg.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>
#include <cmocka.h>

#include "fast/counters.h"
#include "service.h"
#include "sockets/sock.h"
#include "tas_sockets.h"

enum { CONNS = 8, MESSAGES = 300, BULK = 4 << 20 };

static struct sockaddr_in addr(uint16_t port)
{
	struct sockaddr_in a = { .sin_family = AF_INET, .sin_port = htons(port) };

	a.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return a;
}

static int listener(uint16_t port)
{
	struct sockaddr_in a = addr(port);
	int one = 1, l = tas_socket(AF_INET, SOCK_STREAM, 0);

	assert_true(l >= 0);
	assert_int_equal(tas_setsockopt(l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one), 0);
	assert_int_equal(tas_bind(l, (struct sockaddr *)&a, sizeof a), 0);
	assert_int_equal(tas_listen(l, 64), 0);
	return l;
}

static int dial(uint16_t port)
{
	struct sockaddr_in a = addr(port);
	int s = tas_socket(AF_INET, SOCK_STREAM, 0);

	if (s < 0 || tas_connect(s, (struct sockaddr *)&a, sizeof a))
		return -1;
	return s;
}

static uint8_t pattern(uint64_t at)
{
	return (uint8_t)(at * 31 ^ at >> 8);
}

/* ---- threads that block ---- */
static void *echo_one(void *p)
{
	int l = *(int *)p, s = tas_accept4(l, NULL, NULL, 0);
	uint8_t buf[3000];
	ssize_t n, m;

	while ((n = tas_read(s, buf, sizeof buf)) > 0)
		for (ssize_t at = 0; at < n; at += m)
			if ((m = tas_write(s, buf + at, (size_t)(n - at))) <= 0)
				return (void *)1;
	return (void *)(intptr_t)(tas_close(s) || n);
}

static void *talk(void *p)
{
	unsigned port = *(unsigned *)p;
	int s = dial((uint16_t)port);
	uint8_t out[2048], in[2048];
	unsigned seed = (unsigned)s;

	if (s < 0)
		return (void *)1;
	for (int i = 0; i < MESSAGES; i++) {
		size_t n = 1 + (size_t)rand_r(&seed) % sizeof out, got = 0;

		memset(out, i, n);
		if (tas_write(s, out, n) != (ssize_t)n)
			return (void *)2;
		while (got < n) {
			ssize_t r = tas_read(s, in + got, n - got);

			if (r <= 0)
				return (void *)3;
			got += (size_t)r;
		}
		if (memcmp(in, out, n))
			return (void *)4;
	}
	return (void *)(intptr_t)tas_close(s);
}

static void threads_block_in_accept_read_and_write(void **state)
{
	pthread_t srv[CONNS], cli[CONNS];
	unsigned port = 18001;
	int l = listener((uint16_t)port);
	uint64_t before = inprocess_counter(TAS_CTR_conn_local);
	void *r;

	(void)state;
	for (int i = 0; i < CONNS; i++)
		assert_int_equal(pthread_create(&srv[i], NULL, echo_one, &l), 0);
	for (int i = 0; i < CONNS; i++)
		assert_int_equal(pthread_create(&cli[i], NULL, talk, &port), 0);
	for (int i = 0; i < CONNS; i++) {
		pthread_join(cli[i], &r);
		assert_null(r);
		pthread_join(srv[i], &r);
		assert_null(r);
	}
	assert_int_equal(tas_close(l), 0);
	assert_int_equal(inprocess_counter(TAS_CTR_conn_local), before + CONNS);
}

/* ---- bulk, half close ---- */
static void *send_bulk(void *p)
{
	int s = *(int *)p;
	static uint8_t buf[100000];
	unsigned seed = 5;

	for (uint64_t at = 0; at < BULK;) {
		size_t n = 1 + (size_t)rand_r(&seed) % sizeof buf;
		ssize_t r;

		if (n > BULK - at)
			n = BULK - at;
		for (size_t i = 0; i < n; i++)
			buf[i] = pattern(at + i);
		r = tas_write(s, buf, n);
		if (r <= 0)
			return (void *)1;
		at += (uint64_t)r;
	}
	return (void *)(intptr_t)tas_shutdown(s, SHUT_WR);
}

static void bulk_data_arrives_intact_and_ends_with_the_shutdown(void **state)
{
	int l = listener(18002), c = dial(18002), s = tas_accept4(l, NULL, NULL, 0);
	static uint8_t buf[70000];
	uint64_t at = 0;
	pthread_t t;
	ssize_t n;
	void *r;

	(void)state;
	assert_true(c >= 0 && s >= 0);
	assert_int_equal(pthread_create(&t, NULL, send_bulk, &c), 0);
	while ((n = tas_read(s, buf, sizeof buf)) > 0) {
		for (ssize_t i = 0; i < n; i++)
			assert_int_equal(buf[i], pattern(at + (uint64_t)i));
		at += (uint64_t)n;
	}
	assert_int_equal(n, 0);
	assert_int_equal(at, BULK);
	pthread_join(t, &r);
	assert_null(r);
	assert_int_equal(tas_write(s, "x", 1), 1); /* the other direction still works */
	assert_int_equal(tas_read(c, buf, 8), 1);
	assert_int_equal(tas_close(s), 0);
	assert_int_equal(tas_read(c, buf, 8), 0);
	assert_int_equal(tas_close(c), 0);
	assert_int_equal(tas_close(l), 0);
}

/* ---- epoll server, many clients ---- */

static void *epoll_server(void *p)
{
	int l = *(int *)p, ep = tas_epoll_create1(0), open_conns = 0, ever = 0;
	struct epoll_event e = { .events = EPOLLIN, .data.fd = l }, ev[16];
	uint8_t buf[4096];

	if (ep < 0 || tas_epoll_ctl(ep, EPOLL_CTL_ADD, l, &e))
		return (void *)1;
	while (open_conns || ever < CONNS) {
		int n = tas_epoll_pwait2(ep, ev, 16, NULL, NULL);

		if (n < 0)
			return (void *)2;
		for (int i = 0; i < n; i++) {
			int fd = ev[i].data.fd;

			if (fd == l) {
				int s = tas_accept4(l, NULL, NULL, SOCK_NONBLOCK);

				e = (struct epoll_event){ .events = EPOLLIN | EPOLLET, .data.fd = s };
				if (s < 0 || tas_epoll_ctl(ep, EPOLL_CTL_ADD, s, &e))
					return (void *)3;
				open_conns++;
				ever++;
				continue;
			}
			ssize_t r;

			while ((r = tas_read(fd, buf, sizeof buf)) > 0)
				if (tas_write(fd, buf, (size_t)r) != r)
					return (void *)4;
			if (r == -EAGAIN)
				continue;
			if (r || tas_close(fd))
				return (void *)5;
			open_conns--;
		}
	}
	return (void *)(intptr_t)tas_close(ep);
}

static void an_edge_triggered_server_serves_all(void **state)
{
	pthread_t srv, cli[CONNS];
	unsigned port = 18003;
	int l = listener((uint16_t)port);
	void *r;

	(void)state;
	assert_int_equal(pthread_create(&srv, NULL, epoll_server, &l), 0);
	for (int i = 0; i < CONNS; i++)
		assert_int_equal(pthread_create(&cli[i], NULL, talk, &port), 0);
	for (int i = 0; i < CONNS; i++) {
		pthread_join(cli[i], &r);
		assert_null(r);
	}
	pthread_join(srv, &r);
	assert_null(r);
	assert_int_equal(tas_close(l), 0);
}

/* ---- several writers and readers on one connection ---- */
struct share {
	int fd;
	_Atomic uint64_t bytes;
};

static void *writer(void *p)
{
	struct share *s = p;
	char buf[777] = { 0 };

	for (int i = 0; i < 500; i++)
		if (tas_write(s->fd, buf, sizeof buf) != sizeof buf)
			return (void *)1;
	return NULL;
}

static void *reader(void *p)
{
	struct share *s = p;
	char buf[500];
	ssize_t n;

	while ((n = tas_read(s->fd, buf, sizeof buf)) > 0)
		s->bytes += (uint64_t)n;
	return (void *)(intptr_t)n;
}

static void threads_share_a_connection_without_losing_a_byte(void **state)
{
	int l = listener(18004), c = dial(18004), s = tas_accept4(l, NULL, NULL, 0);
	struct share out = { .fd = c }, in = { .fd = s };
	pthread_t w[4], r[3];
	void *res;

	(void)state;
	for (int i = 0; i < 3; i++)
		assert_int_equal(pthread_create(&r[i], NULL, reader, &in), 0);
	for (int i = 0; i < 4; i++)
		assert_int_equal(pthread_create(&w[i], NULL, writer, &out), 0);
	for (int i = 0; i < 4; i++) {
		pthread_join(w[i], &res);
		assert_null(res);
	}
	assert_int_equal(tas_close(c), 0);
	for (int i = 0; i < 3; i++) {
		pthread_join(r[i], &res);
		assert_null(res);
	}
	assert_int_equal(in.bytes, 4 * 500 * 777);
	assert_int_equal(tas_close(s), 0);
	assert_int_equal(tas_close(l), 0);
}

/* ---- idle connections ---- */
enum { IDLE_PAIRS = 50 };

/* Memory that is in use once nothing changes any more. */
static uint64_t memory_at_rest(void)
{
	const struct timespec nap = { 0, 20 * 1000 * 1000 };
	uint64_t was = 0, now = inprocess_memory();

	for (int same = 0, i = 0; same < 15 && i < 500; i++) {
		nanosleep(&nap, NULL);
		was = now;
		now = inprocess_memory();
		same = now == was ? same + 1 : 0;
	}
	return now;
}

/* What is written at once arrives at once: the ring of an idle connection is not seen. */
static void whole_messages(int from, int to, size_t n)
{
	static uint8_t out[60000], in[sizeof out];

	memset(out, (int)n, sizeof out);
	assert_int_equal(tas_sendto(from, out, n, MSG_DONTWAIT, NULL, 0), n);
	assert_int_equal(tas_recvfrom(to, in, sizeof in, 0, NULL, NULL), n);
	assert_memory_equal(in, out, n);
}

static void idle_connections_hold_a_kilobyte(void **state)
{
	static const size_t len[] = { 1, 64, 512, 513, 600, 4096, 5000, 16384, 30000, 60000 };
	int l = listener(18005), c[IDLE_PAIRS], s[IDLE_PAIRS];
	uint64_t before = memory_at_rest();

	(void)state;
	for (int i = 0; i < IDLE_PAIRS; i++) {
		c[i] = dial(18005);
		s[i] = tas_accept4(l, NULL, NULL, 0);
		assert_true(c[i] >= 0 && s[i] >= 0);
	}
	for (unsigned round = 0; round < sizeof len / sizeof *len; round++) {
		for (int i = 0; i < IDLE_PAIRS; i++) {
			whole_messages(c[i], s[i], len[round]);
			whole_messages(s[i], c[i], len[round]);
		}
		assert_in_range(memory_at_rest() - before, 1, 2 * IDLE_PAIRS * 1024);
	}
	for (int i = 0; i < IDLE_PAIRS; i++) {
		assert_int_equal(tas_close(c[i]), 0);
		assert_int_equal(tas_close(s[i]), 0);
	}
	assert_int_equal(tas_close(l), 0);
	assert_in_range(memory_at_rest(), 0, before);
}

/* ---- direct connections ---- */
static void direct_pair(uint16_t port, int fd[2])
{
	int l = listener(port);

	fd[0] = dial(port);
	fd[1] = tas_accept4(l, NULL, NULL, 0);
	assert_true(fd[0] >= 0 && fd[1] >= 0);
	assert_int_equal(tas_close(l), 0);
	for (int i = 0; i < 8; i++) {
		whole_messages(fd[0], fd[1], 64);
		whole_messages(fd[1], fd[0], 64);
	}
}

static bool is_direct(int fd)
{
	struct tas_obj *o = tas__obj_get(fd);
	bool is = atomic_load(&tas__block(o)->s.direct) != 0;

	tas__obj_put(o);
	return is;
}

static short polled(int fd, short events)
{
	struct pollfd p = { .fd = fd, .events = events };

	tas_ppoll(&p, 1, &(struct timespec){ .tv_sec = 5 }, NULL);
	return p.revents;
}

/* Somebody is at the bytes of one end when the other is closed, and the connection becomes ordinary for another reason. */
static void a_last_close_that_waits_for_a_lock_is_heard_of(void **state)
{
	uint32_t held;
	struct tas_obj *o;
	struct tas_block *b;
	char byte;
	int fd[2];

	(void)state;
	direct_pair(18006, fd);
	assert_true(is_direct(fd[1]));
	for (int i = 0; i < 100; i++) /* so much that the reader is offered more when the service comes to it */
		whole_messages(fd[0], fd[1], 1000);
	o = tas__obj_get(fd[1]);
	b = tas__block(o);
	held = (o->ss->slot + 1) << 20 | 1;
	atomic_store(&b->c.lock_rx, held);
	assert_int_equal(tas_close(fd[0]), 0);
	usleep(60000); /* the service comes ever less often */
	atomic_store(&b->c.lock_rx, 0);
	assert_int_equal(tas_shutdown(fd[1], SHUT_WR), 0);
	assert_true(polled(fd[1], POLLIN) & POLLIN);
	assert_int_equal(tas_read(fd[1], &byte, 1), 0);
	tas__obj_put(o);
	assert_int_equal(tas_close(fd[1]), 0);
}

static int start(void **state)
{
	(void)state;
	if (inprocess_start())
		return -1;
	tas_init(true);
	return 0;
}

static int stop(void **state)
{
	(void)state;
	inprocess_stop();
	return 0;
}

int main(int argc, char **argv)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(threads_block_in_accept_read_and_write),
		cmocka_unit_test(bulk_data_arrives_intact_and_ends_with_the_shutdown),
		cmocka_unit_test(an_edge_triggered_server_serves_all),
		cmocka_unit_test(threads_share_a_connection_without_losing_a_byte),
		cmocka_unit_test(idle_connections_hold_a_kilobyte),
		cmocka_unit_test(a_last_close_that_waits_for_a_lock_is_heard_of),
	};

	(void)argc;
	if (inprocess_environment(argv))
		return 1;
	return cmocka_run_group_tests_name("service and client in one process", tests, start, stop);
}
