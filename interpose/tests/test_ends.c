/* SPDX-License-Identifier: MIT */
/* The ends of connections on TAS sockets: half closes, resets, who is woken by them, signals. */
#include "oracle.h"

#include <linux/sockios.h>

SCENARIO(half_closes_in_order)
{
	pair();
	send_(c, "tail");
	SAY(k->shutdown(c, SHUT_WR));
	settled(s, POLLRDHUP);
	SAY(poll_(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	SAY(recv_(s, 10, 0));
	SAY(recv_(s, 10, 0));
	SAY(recv_(s, 10, 0));
	SAY(send_(c, "x"));
	SAY(poll_(c, POLLIN | POLLOUT | POLLRDHUP, 0));
	SAY(send_(s, "back"));
	settled(c, POLLIN);
	SAY(recv_(c, 10, 0));
	SAY(k->shutdown(s, SHUT_WR));
	settled(c, POLLRDHUP);
	SAY(poll_(c, POLLIN | POLLOUT | POLLRDHUP, 0));
	SAY(poll_(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	SAY(recv_(c, 10, 0));
	SAY(so_error(c));
}

SCENARIO(a_reset_is_reported_once_by_so_error)
{
	pair();
	reset_by(c);
	settled(s, POLLRDHUP);
	SAY(poll_(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	SAY(so_error(s));
	SAY(so_error(s));
	SAY(poll_(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	SAY(recv_(s, 1, 0));
	SAY(send_(s, "x"));
	SAY(k->shutdown(s, SHUT_RDWR));
	SAY(k->getpeername(s, (void *)&addr, &addr_len));
}

SCENARIO(a_reset_is_reported_once_by_recv)
{
	pair();
	reset_by(c);
	settled(s, POLLRDHUP);
	SAY(recv_(s, 1, 0));
	SAY(recv_(s, 1, 0));
	SAY(send_(s, "x"));
}

SCENARIO(close_with_unread_data_resets)
{
	pair();
	send_(c, "zz");
	settled(s, POLLIN);
	k->close(s);
	settled(c, POLLRDHUP);
	SAY(recv_(c, 1, 0));
	SAY(recv_(c, 1, 0));
}

SCENARIO(writing_to_a_closed_peer)
{
	pair();
	k->close(s);
	settled(c, POLLRDHUP);
	SAY(send_(c, "a"));
	settled(c, 0); /* HUP: the answer to that was a reset */
	SAY(send_(c, "a"));
	SAY(so_error(c));
	SAY(recv_(c, 1, 0));
	SAY(poll_(c, POLLIN | POLLOUT | POLLRDHUP, 0));
}

static void *blocked_recv(void *fd)
{
	return (void *)recv_((int)(long)fd, 8, 0);
}

static void *blocked_poll(void *fd)
{
	return (void *)poll_((int)(long)fd, POLLIN, 5000);
}

static void *blocked_accept(void *fd)
{
	return (void *)(long)k->accept4((int)(long)fd, NULL, NULL, 0);
}

/* What a thread that was blocked in fn(fd) returned, after act() was done by another. */
static long meanwhile(void *(*fn)(void *), int fd, void (*act)(void))
{
	pthread_t t;
	void *r;

	pthread_create(&t, NULL, fn, (void *)(long)fd);
	usleep(30000); /* it has gone to sleep; if not, the result is the same */
	act();
	pthread_join(t, &r);
	return (long)r;
}

static void shut_s(void)
{
	SAY(k->shutdown(s, SHUT_RD));
}

static void shut_listener(void)
{
	SAY(k->shutdown(ls, SHUT_RD));
}

static void close_then_send(void)
{
	k->close(s);
	usleep(20000);
	send_(c, "ab");
}

SCENARIO(shutdown_wakes_who_is_blocked)
{
	pair();
	SAY(meanwhile(blocked_recv, s, shut_s));
	SAY(poll_(s, POLLIN | POLLOUT | POLLRDHUP, 0));
	send_(c, "late");
	usleep(20000);
	SAY(recv_(s, 9, 0));
	SAY(recv_(s, 9, 0));
	unpair();
	pair();
	SAY(meanwhile(blocked_poll, s, shut_s));
	SAY(meanwhile(blocked_accept, ls, shut_listener));
	SAY(poll_(ls, POLLIN, 0));
	SAY(k->accept4(ls, NULL, NULL, 0));
}

SCENARIO(close_does_not_wake_a_blocked_recv)
{
	pair();
	SAY(meanwhile(blocked_recv, s, close_then_send));
	settled(c, POLLRDHUP);
	SAY(recv_(c, 1, 0)); /* the connection closed when the call returned */
}

SCENARIO(a_listener_listens_again_after_shutdown)
{
	k->shutdown(ls, SHUT_RD);
	c = k->socket(AF_INET, SOCK_STREAM, 0);
	SAY(k->connect(c, (void *)&addr, addr_len));
	k->close(c);
	SAY(k->listen(ls, 4));
	k->getsockname(ls, (void *)&addr, &addr_len);
	pair();
	SAY(send_(c, "1"));
	SAY(recv_(s, 1, 0));
}

static void on_signal(int sig)
{
	(void)sig;
}

/* A child that sends us SIGUSR1 in a moment, and then perhaps a byte through the connection. */
static pid_t disturb(bool byte)
{
	pid_t pid = fork();

	if (pid)
		return pid;
	usleep(40000);
	kill(getppid(), SIGUSR1);
	usleep(40000);
	if (byte)
		send_(c, "r");
	_exit(0);
}

SCENARIO(signals_interrupt_and_restart_alike)
{
	struct sigaction sa = {.sa_handler = on_signal};
	struct timeval tv = {2, 0};
	pid_t pid;

	pair();
	sigaction(SIGUSR1, &sa, NULL);
	pid = disturb(false);
	SAY(recv_(s, 1, 0));
	waitpid(pid, NULL, 0);
	sa.sa_flags = SA_RESTART;
	sigaction(SIGUSR1, &sa, NULL);
	pid = disturb(true);
	SAY(recv_(s, 1, 0));
	waitpid(pid, NULL, 0);
	pid = disturb(false);
	SAY(poll_(s, POLLIN, 2000));
	waitpid(pid, NULL, 0);
	k->setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv);
	pid = disturb(false);
	SAY(recv_(s, 1, 0));
	waitpid(pid, NULL, 0);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(half_closes_in_order),
		cmocka_unit_test(a_reset_is_reported_once_by_so_error),
		cmocka_unit_test(a_reset_is_reported_once_by_recv),
		cmocka_unit_test(close_with_unread_data_resets),
		cmocka_unit_test(writing_to_a_closed_peer),
		cmocka_unit_test(shutdown_wakes_who_is_blocked),
		cmocka_unit_test(close_does_not_wake_a_blocked_recv),
		cmocka_unit_test(a_listener_listens_again_after_shutdown),
		cmocka_unit_test(signals_interrupt_and_restart_alike),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
