/* SPDX-License-Identifier: MIT */
/* Data on TAS sockets: flags, limits, urgent bytes, what is there at once, sendfile, select. */
#include "oracle.h"

#include <linux/sockios.h>

SCENARIO(receive_flags)
{
	int v = 0;
	char b[8];
	struct sockaddr_in a;
	socklen_t len = sizeof a;

	pair();
	send_(c, "hello");
	settled(s, POLLIN);
	SAY(k->ioctl(s, FIONREAD, &v));
	SAY(v);
	SAY(recv_(s, 3, MSG_PEEK));
	SAY(recv_(s, 3, 0));
	SAY(k->read(s, b, 0));
	SAY(k->read(s, b, 8));
	SAY(memcmp(b, "lo", 2));
	SAY(recv_(s, 8, MSG_DONTWAIT));
	SAY(recv_(s, 0, MSG_DONTWAIT));
	SAY(k->read(s, b, 0));
	SAY(send_(c, ""));
	send_(c, "abcdef");
	settled(s, POLLIN);
	SAY(k->recvfrom(s, NULL, 4, MSG_TRUNC, NULL, NULL));
	SAY(k->recvfrom(s, b, 1, 0, (void *)&a, &len));
	SAY(len);
	SAY(recv_(s, 4, MSG_OOB));
	SAY(recv_(s, 4, MSG_ERRQUEUE | MSG_DONTWAIT));
	SAY(recv_(s, 4, 0));
	SAY(k->recvfrom(s, NULL, 4, MSG_DONTWAIT, NULL, NULL));
}

SCENARIO(what_one_process_sent_to_itself_is_there_at_once)
{
	int there = 0;

	pair();
	for (int i = 0; i < 100; i++) {
		send_(c, "x");
		there += poll_(s, POLLIN, 0) == POLLIN;
		there += recv_(s, 8, MSG_DONTWAIT) == 1;
		send_(c, "y");
		there += recv_(s, 8, MSG_DONTWAIT) == 1;
	}
	SAY(there);
	k->close(c);
	SAY(recv_(s, 8, MSG_DONTWAIT));
}

SCENARIO(timeouts_and_low_water)
{
	struct timeval tv = {0, 30000};
	int v = 4;

	pair();
	SAY(k->setsockopt(s, SOL_SOCKET, SO_RCVTIMEO, &tv, sizeof tv));
	SAY(recv_(s, 1, 0));
	SAY(k->setsockopt(s, SOL_SOCKET, SO_RCVLOWAT, &v, sizeof v));
	send_(c, "ab");
	SAY(poll_(s, POLLIN, 30));
	SAY(recv_(s, 2, MSG_DONTWAIT));
	send_(c, "abcd");
	SAY(poll_(s, POLLIN, 1000));
	SAY(recv_(s, 8, 0));
}

SCENARIO(full_buffers_and_nonblocking_flags)
{
	static char b[1 << 16];
	long sent = 0, got = 0, r;
	int off = 0;

	pair();
	SAY(k->fcntl(c, F_SETFL, O_NONBLOCK));
	for (int i = 0; i < 20; i++) { /* until nothing moves any more */
		while ((r = k->sendto(c, b, sizeof b, 0, NULL, 0)) > 0)
			sent += r;
		usleep(5000);
	}
	SAY(r);
	SAY(poll_(c, POLLOUT, 0));
	while (got < sent && (r = k->recvfrom(s, b, sizeof b, 0, NULL, NULL)) > 0)
		got += r;
	SAY(got == sent);
	SAY(poll_(c, POLLOUT, 1000));
	SAY(k->fcntl(c, F_GETFL, 0));
	SAY(k->ioctl(c, FIONBIO, &off));
	SAY(k->fcntl(c, F_GETFL, 0));
}

SCENARIO(a_first_nonblocking_send_is_taken_whole)
{
	static char b[300000];
	long got = 0, r;

	for (int i = 0; i < 5; i++) {
		pair();
		k->fcntl(c, F_SETFL, O_NONBLOCK);
		SAY(k->sendto(c, b, sizeof b, 0, NULL, 0));
		for (got = 0; got < (long)sizeof b && (r = recv_(s, 65536, 0)) > 0;)
			got += r;
		SAY(got);
		unpair();
	}
}

static void mark_and_room(void)
{
	int v = -1;

	SAY(k->ioctl(s, SIOCATMARK, &v));
	SAY(v);
	SAY(k->ioctl(s, FIONREAD, &v));
	SAY(v);
	SAY(poll_(s, POLLIN | POLLPRI, 0));
}

static long oob(const char *text)
{
	return k->sendto(c, text, strlen(text), MSG_OOB, NULL, 0);
}

SCENARIO(urgent_data_is_read_apart)
{
	pair();
	mark_and_room();
	send_(c, "ab");
	SAY(oob("cd"));
	settled(s, POLLPRI);
	send_(c, "ef");
	usleep(20000);
	mark_and_room();
	SAY(recv_(s, 1, 0));
	SAY(recv_(s, 9, MSG_OOB | MSG_PEEK));
	SAY(recv_(s, 9, MSG_OOB));
	SAY(recv_(s, 9, MSG_OOB));
	mark_and_room();
	SAY(recv_(s, 9, MSG_WAITALL));
	mark_and_room();
	SAY(recv_(s, 9, MSG_PEEK));
	SAY(recv_(s, 9, 0));
	mark_and_room();
	SAY(recv_(s, 9, MSG_DONTWAIT));
	SAY(oob("x"));
	settled(s, POLLPRI);
	mark_and_room();
	SAY(recv_(s, 9, MSG_DONTWAIT));
	SAY(recv_(s, 9, MSG_OOB));
	mark_and_room();
}

SCENARIO(urgent_data_in_line)
{
	int on = 1;

	pair();
	SAY(k->setsockopt(s, SOL_SOCKET, SO_OOBINLINE, &on, sizeof on));
	send_(c, "ab");
	SAY(oob("cd"));
	settled(s, POLLPRI);
	mark_and_room();
	SAY(recv_(s, 9, MSG_OOB));
	SAY(recv_(s, 9, 0));
	mark_and_room();
	SAY(recv_(s, 9, 0));
	mark_and_room();
	SAY(recv_(s, 9, MSG_OOB));
}

SCENARIO(more_is_sent_with_what_follows)
{
	pair();
	SAY(k->sendto(c, "ab", 2, MSG_MORE, NULL, 0));
	SAY(k->sendto(c, "cd", 2, 0, NULL, 0));
	SAY(recv_(s, 4, MSG_WAITALL));
}

SCENARIO(select_sets_bits_like_the_kernel)
{
	struct timespec none = {0, 0}, soon = {0, 20000000};
	fd_set r, w, e;

	pair();
	FD_ZERO(&r);
	FD_ZERO(&w);
	FD_ZERO(&e);
	FD_SET(s, &r);
	FD_SET(s, &w);
	FD_SET(s, &e);
	SAY(k->pselect(s + 1, &r, &w, &e, &none, NULL));
	SAY(!!FD_ISSET(s, &r) + 2 * !!FD_ISSET(s, &w) + 4 * !!FD_ISSET(s, &e));
	send_(c, "1");
	FD_SET(s, &r);
	SAY(k->pselect(s + 1, &r, NULL, NULL, NULL, NULL));
	SAY(!!FD_ISSET(s, &r));
	recv_(s, 1, 0);
	SAY(k->pselect(s + 1, &r, NULL, NULL, &soon, NULL));
	SAY(!!FD_ISSET(s, &r));
}

SCENARIO(sendfile_counts_and_moves_offsets)
{
	static char b[5000];
	FILE *f = tmpfile();
	off64_t at = 1000;
	long got = 0, r;

	pair();
	fwrite(b, 1, sizeof b, f);
	fflush(f);
	SAY(k->sendfile(c, fileno(f), &at, 10000));
	SAY(at);
	while (got < 4000 && (r = recv_(s, 5000, 0)) > 0)
		got += r;
	SAY(got);
	lseek(fileno(f), 4990, SEEK_SET);
	SAY(k->sendfile(c, fileno(f), NULL, 100));
	SAY(recv_(s, 50, 0));
	SAY(k->sendfile(c, fileno(f), NULL, 100));
	SAY(k->sendfile(c, 99, NULL, 100));
	fclose(f);
}

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(receive_flags),
		cmocka_unit_test(what_one_process_sent_to_itself_is_there_at_once),
		cmocka_unit_test(timeouts_and_low_water),
		cmocka_unit_test(full_buffers_and_nonblocking_flags),
		cmocka_unit_test(a_first_nonblocking_send_is_taken_whole),
		cmocka_unit_test(urgent_data_is_read_apart),
		cmocka_unit_test(urgent_data_in_line),
		cmocka_unit_test(more_is_sent_with_what_follows),
		cmocka_unit_test(select_sets_bits_like_the_kernel),
		cmocka_unit_test(sendfile_counts_and_moves_offsets),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
