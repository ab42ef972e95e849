/* SPDX-License-Identifier: MIT */
/* A program without the interposer closes and replaces descriptors by itself: the service watches, and says so. */
#include "oracle.h"

SCENARIO(a_close_behind_our_back_is_a_close)
{
	int d;

	pair();
	send_(s, "last");
	SAY(close(s));
	SAY(recv_(c, 4, MSG_WAITALL));
	SAY(recv_(c, 4, 0));
	k->close(c);
	pair(); /* the number is used again */
	send_(s, "new");
	SAY(recv_(c, 3, MSG_WAITALL));
	SAY(close(c));
	SAY(recv_(s, 3, 0));
	k->close(s);
	pair();
	d = k->dup(s);
	SAY(close(s));
	SAY(recv_(c, 1, MSG_DONTWAIT));
	SAY(send_(d, "x"));
	SAY(recv_(c, 1, 0));
	SAY(dup2(ls, d) == d); /* no less */
	SAY(recv_(c, 1, 0));
	k->close(c);
	SAY(close(ls) + close(d));
	settled(c, POLLHUP);
	c = k->socket(AF_INET, SOCK_STREAM, 0);
	SAY(k->connect(c, (void *)&addr, addr_len));
}

static void *closes_soon(void *arg)
{
	usleep(50000);
	return (void *)(long)k->close((int)(long)arg);
}

/* And one that it does see, while a thread is inside a call. */
SCENARIO(a_call_in_progress_holds_the_socket_beyond_its_last_number)
{
	pthread_t t;

	pair();
	pthread_create(&t, NULL, closes_soon, (void *)(long)c);
	usleep(100);
	SAY(poll_(s, POLLIN, 0));
	if (fork() == 0) { /* who answers */
		usleep(200000);
		send_(s, "y");
		_exit(0);
	}
	SAY(recv_(c, 1, 0));
	pthread_join(t, NULL);
	k->close(s);
	wait(NULL);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_close_behind_our_back_is_a_close),
		cmocka_unit_test(a_call_in_progress_holds_the_socket_beyond_its_last_number),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
