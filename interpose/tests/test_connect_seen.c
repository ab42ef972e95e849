/* SPDX-License-Identifier: MIT */
/* Who learns from the peer that a connection stands finds it standing, even before connect() has returned. */
#include "oracle.h"

enum { ROUNDS = 3000 };

static _Atomic int connecting; /* the number that is being connected */
static int hung_up, unconnected;

/* The server: accepts, and looks at the client's end at once. */
static void *accepts(void *arg)
{
	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		int a = k->accept4(ls, NULL, NULL, 0), fd = connecting;

		hung_up += poll_(fd, POLLIN | POLLOUT, 0) != POLLOUT;
		unconnected += recv_(fd, 1, MSG_PEEK | MSG_DONTWAIT) != -EAGAIN;
		k->close(a);
	}
	return NULL;
}

SCENARIO(a_connection_that_was_accepted_is_connected_for_every_thread)
{
	pthread_t t;

	pthread_create(&t, NULL, accepts, NULL);
	for (int i = 0; i < ROUNDS; i++) {
		char b;

		connecting = k->socket(AF_INET, SOCK_STREAM, 0);
		if (k->connect(connecting, (void *)&addr, addr_len) < 0)
			say("cannot connect", -1);
		k->read(connecting, &b, 1); /* until the other thread is done with it */
		k->close(connecting);
	}
	pthread_join(t, NULL);
	SAY(hung_up);
	SAY(unconnected);
}

/* Two threads connect one socket: one of them does, the other is told so or waits with it (then both succeed). */
static void *connects(void *fd)
{
	return (void *)(long)k->connect((int)(long)fd, (void *)&addr, addr_len);
}

SCENARIO(two_threads_connect_one_socket)
{
	int strange = 0;

	for (int i = 0; i < 300; i++) {
		pthread_t t;
		void *r;
		long own;

		c = k->socket(AF_INET, SOCK_STREAM, 0);
		pthread_create(&t, NULL, connects, (void *)(long)c);
		own = (long)connects((void *)(long)c);
		pthread_join(t, &r);
		strange += (own && own != -EISCONN) || ((long)r && (long)r != -EISCONN) || (own && r);
		s = k->accept4(ls, NULL, NULL, 0);
		unpair();
	}
	SAY(strange);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_connection_that_was_accepted_is_connected_for_every_thread),
		cmocka_unit_test(two_threads_connect_one_socket),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
