/* SPDX-License-Identifier: MIT */
/* Connections on TAS that several processes hold: forked, passed, abandoned in a message. */
#include "oracle.h"

#include <linux/sockios.h>

SCENARIO(a_forked_child_holds_the_connection)
{
	pid_t pid;

	pair();
	pid = fork();
	if (!pid) {
		k->close(s);
		for (int i = 0; i < 10; i++)
			k->sendto(c, "0123456789", 10, 0, NULL, 0);
		_exit(0);
	}
	k->close(c);
	SAY(recv_(s, 100, MSG_WAITALL));
	SAY(recv_(s, 100, MSG_WAITALL)); /* the child's exit was the last close */
	waitpid(pid, NULL, 0);
}

/* Passes fd through a unix socket. */
static long pass(int via, int fd)
{
	char room[CMSG_SPACE(sizeof fd)] = {0}, byte = 'p';
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	struct cmsghdr *h = CMSG_FIRSTHDR(&m);

	h->cmsg_level = SOL_SOCKET;
	h->cmsg_type = SCM_RIGHTS;
	h->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(h), &fd, sizeof fd);
	return k->sendmsg(via, &m, 0);
}

static int passed(int via)
{
	char room[CMSG_SPACE(sizeof(int))] = {0}, byte;
	struct iovec v = {&byte, 1};
	struct msghdr m = {.msg_iov = &v, .msg_iovlen = 1, .msg_control = room, .msg_controllen = sizeof room};
	struct cmsghdr *h;
	int fd = -1;

	if (k->recvmsg(via, &m, 0) == 1 && (h = CMSG_FIRSTHDR(&m)))
		memcpy(&fd, CMSG_DATA(h), sizeof fd);
	return fd;
}

/* A worker that was forked before there was a connection serves the one that it is given. */
SCENARIO(a_child_is_passed_a_connection)
{
	int u[2], got;
	pid_t pid;

	socketpair(AF_UNIX, SOCK_STREAM, 0, u);
	pid = fork();
	if (!pid) {
		k->close(u[0]);
		got = passed(u[1]);
		send_(got, "from the child");
		recv_(got, 4, MSG_WAITALL);
		_exit(0);
	}
	k->close(u[1]);
	pair();
	SAY(pass(u[0], s));
	k->close(s); /* the child's is the last */
	SAY(recv_(c, 14, MSG_WAITALL));
	SAY(poll_(c, POLLIN, 50));
	send_(c, "done");
	SAY(recv_(c, 9, 0)); /* the child's exit is the last close */
	waitpid(pid, NULL, 0);
}

SCENARIO(a_parent_is_passed_a_connection)
{
	int u[2], got;
	pid_t pid;

	socketpair(AF_UNIX, SOCK_STREAM, 0, u);
	pid = fork();
	if (!pid) {
		k->close(u[0]);
		pair();
		send_(s, "early");
		pass(u[1], c);
		recv_(s, 4, MSG_WAITALL);
		_exit(0);
	}
	k->close(u[1]);
	got = passed(u[0]);
	SAY(recv_(got, 5, MSG_WAITALL));
	SAY(send_(got, "done"));
	SAY(recv_(got, 5, 0));
	waitpid(pid, NULL, 0);
}

/* In flight, then nobody's: the receiver closes without looking. */
SCENARIO(a_connection_abandoned_in_flight_is_closed)
{
	int u[2];

	socketpair(AF_UNIX, SOCK_STREAM, 0, u);
	pair();
	SAY(pass(u[0], s));
	k->close(s);
	SAY(poll_(c, POLLIN, 50));
	close(u[0]);
	close(u[1]);
	SAY(recv_(c, 5, 0));
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(a_forked_child_holds_the_connection),
		cmocka_unit_test(a_child_is_passed_a_connection),
		cmocka_unit_test(a_parent_is_passed_a_connection),
		cmocka_unit_test(a_connection_abandoned_in_flight_is_closed),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
