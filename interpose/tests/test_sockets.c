/* SPDX-License-Identifier: MIT */
/* Sockets on TAS give what sockets on Linux give. */
#include "oracle.h"

#include <linux/sockios.h>

SCENARIO(unconnected_sockets_fail_alike)
{
	struct sockaddr_in a;
	socklen_t len = sizeof a;

	c = k->socket(AF_INET, SOCK_STREAM, 0);
	SAY(recv_(c, 1, 0));
	SAY(send_(c, "x"));
	SAY(poll_(c, POLLIN | POLLOUT, 0));
	SAY(k->getpeername(c, (void *)&a, &len));
	SAY(k->shutdown(c, SHUT_RDWR));
	SAY(k->accept4(c, NULL, NULL, 0));
	SAY(so_error(c));
	SAY(k->close(c));
	SAY(k->close(c));
	SAY(recv_(c, 1, 0));
	SAY(recv_(-1, 1, 0));
}

SCENARIO(a_listener_refuses_what_is_for_connections)
{
	struct sockaddr_in a;
	socklen_t len = sizeof a;
	int v = 0;

	SAY(poll_(ls, POLLIN | POLLOUT, 0));
	SAY(recv_(ls, 1, 0));
	SAY(send_(ls, "x"));
	SAY(k->connect(ls, (void *)&addr, addr_len));
	SAY(k->bind(ls, (void *)&addr, addr_len));
	SAY(k->listen(ls, 5));
	SAY(k->getpeername(ls, (void *)&a, &len));
	SAY(k->shutdown(ls, SHUT_WR));
	SAY(k->accept4(ls, NULL, NULL, 0x40));
	SAY(k->ioctl(ls, FIONREAD, &v));
	k->fcntl(ls, F_SETFL, O_NONBLOCK);
	SAY(k->accept4(ls, NULL, NULL, 0));
	SAY(k->fcntl(ls, F_GETFL, 0));
	len = sizeof v;
	k->getsockopt(ls, SOL_SOCKET, SO_ACCEPTCONN, &v, &len);
	SAY(v);
	c = k->socket(AF_INET, SOCK_STREAM, 0);
	SAY(k->bind(c, (void *)&addr, addr_len));
}

SCENARIO(names_of_both_ends_agree)
{
	struct sockaddr_in a, b;
	socklen_t len = sizeof a;

	pair();
	SAY(k->getpeername(c, (void *)&a, &len));
	SAY(a.sin_port == addr.sin_port);
	SAY(k->getsockname(c, (void *)&a, &len));
	SAY(k->getpeername(s, (void *)&b, &len));
	SAY(a.sin_port == b.sin_port && a.sin_addr.s_addr == b.sin_addr.s_addr);
	len = 2;
	SAY(k->getpeername(c, (void *)&a, &len));
	SAY(len);
	SAY(k->connect(c, (void *)&addr, addr_len));
	SAY(k->bind(c, (void *)&addr, addr_len));
	SAY(k->listen(c, 1));
	SAY(k->accept4(c, NULL, NULL, 0));
}

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

SCENARIO(refused_connections_can_be_tried_again)
{
	struct sockaddr_in nobody = addr;

	nobody.sin_port = htons(1);
	c = k->socket(AF_INET, SOCK_STREAM, 0);
	SAY(k->connect(c, (void *)&nobody, sizeof nobody));
	SAY(so_error(c));
	SAY(k->connect(c, (void *)&addr, addr_len));
	k->close(c);
	c = k->socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, 0);
	SAY(k->connect(c, (void *)&nobody, sizeof nobody));
	SAY(poll_(c, POLLIN | POLLOUT, 1000) & ~POLLERR);
	SAY(so_error(c));
	SAY(so_error(c));
	SAY(k->connect(c, (void *)&addr, addr_len));
	SAY(poll_(c, POLLOUT, 1000));
	SAY(so_error(c));
	SAY(k->connect(c, (void *)&addr, addr_len));
	SAY(k->connect(c, (void *)&addr, addr_len));
}

SCENARIO(bad_addresses)
{
	struct sockaddr_in a = addr;

	c = k->socket(AF_INET, SOCK_STREAM, 0);
	SAY(k->connect(c, NULL, 16));
	SAY(k->connect(c, (void *)&addr, 4));
	a.sin_family = AF_INET6;
	SAY(k->connect(c, (void *)&a, sizeof a));
	a.sin_family = AF_UNSPEC;
	SAY(k->connect(c, (void *)&a, sizeof a));
}

SCENARIO(af_unspec_resets_and_the_socket_connects_again)
{
	struct sockaddr_in a = addr;

	pair();
	a.sin_family = AF_UNSPEC;
	SAY(k->connect(c, (void *)&a, sizeof a));
	settled(s, POLLRDHUP);
	SAY(recv_(s, 1, 0));
	k->close(s);
	SAY(k->connect(c, (void *)&addr, addr_len));
	s = k->accept4(ls, NULL, NULL, 0);
	SAY(send_(s, "u"));
	SAY(recv_(c, 1, 0));
}

SCENARIO(duplicates_are_one_socket)
{
	int d;

	pair();
	d = k->dup(s);
	k->close(s);
	send_(c, "dd");
	SAY(recv_(d, 9, 0));
	SAY(k->dup2(d, s) == s);
	k->close(d);
	send_(c, "ee");
	SAY(recv_(s, 9, 0));
	SAY(k->fcntl(s, F_DUPFD_CLOEXEC, 100));
	SAY(k->fcntl(100, F_GETFD, 0));
	k->close(s);
	send_(c, "f");
	SAY(recv_(100, 9, 0));
	k->close(100);
	SAY(recv_(c, 1, 0));
}

static long int_of(int fd, int level, int name)
{
	int v = -1;
	socklen_t len = sizeof v;
	int r = k->getsockopt(fd, level, name, &v, &len);

	return r < 0 ? r : v;
}

static long set_int(int fd, int level, int name, int v, socklen_t len)
{
	return k->setsockopt(fd, level, name, &v, len);
}

SCENARIO(options)
{
	struct tcp_info ti;
	socklen_t len = sizeof ti;
	int v;

	pair();
	SAY(set_int(c, IPPROTO_TCP, TCP_NODELAY, 1, 4));
	SAY(int_of(c, IPPROTO_TCP, TCP_NODELAY));
	SAY(set_int(c, SOL_SOCKET, SO_KEEPALIVE, 1, 2));
	SAY(set_int(c, SOL_SOCKET, 9999, 1, 4));
	SAY(int_of(c, SOL_SOCKET, SO_TYPE));
	SAY(k->getsockopt(c, IPPROTO_TCP, TCP_INFO, &ti, &len));
	SAY(ti.tcpi_state);
	len = 4;
	SAY(k->getsockopt(c, IPPROTO_TCP, TCP_INFO, &ti, &len));
	SAY(len);
	len = 2;
	SAY(k->getsockopt(c, SOL_SOCKET, SO_ERROR, &v, &len));
	SAY(len);
	SAY(set_int(c, SOL_SOCKET, SO_RCVBUF, 30000, 4));
	SAY(int_of(c, SOL_SOCKET, SO_RCVBUF));
	SAY(int_of(c, IPPROTO_TCP, TCP_MAXSEG) > 500);
}

SCENARIO(accept_inherits_options_but_no_file_flags)
{
	set_int(ls, IPPROTO_TCP, TCP_NODELAY, 1, 4);
	set_int(ls, SOL_SOCKET, SO_KEEPALIVE, 1, 4);
	set_int(ls, SOL_SOCKET, SO_SNDBUF, 60000, 4);
	k->fcntl(ls, F_SETFL, O_NONBLOCK);
	c = k->socket(AF_INET, SOCK_STREAM, 0);
	k->connect(c, (void *)&addr, addr_len);
	settled(ls, POLLIN);
	s = k->accept4(ls, NULL, NULL, SOCK_CLOEXEC);
	SAY(k->fcntl(s, F_GETFL, 0));
	SAY(k->fcntl(s, F_GETFD, 0));
	SAY(int_of(s, IPPROTO_TCP, TCP_NODELAY));
	SAY(int_of(s, SOL_SOCKET, SO_KEEPALIVE));
	SAY(int_of(s, SOL_SOCKET, SO_SNDBUF));
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

SCENARIO(ipv6_and_dual_stack)
{
	struct sockaddr_in6 a = {.sin6_family = AF_INET6, .sin6_addr = IN6ADDR_LOOPBACK_INIT}, b;
	socklen_t len = sizeof a;
	char text[64] = "";
	int l6 = k->socket(AF_INET6, SOCK_STREAM, 0);

	SAY(k->bind(l6, (void *)&a, len));
	SAY(k->listen(l6, 3));
	k->getsockname(l6, (void *)&a, &len);
	c = k->socket(AF_INET6, SOCK_STREAM, 0);
	SAY(k->connect(c, (void *)&a, len));
	s = k->accept4(l6, (void *)&b, &len, 0);
	SAY(b.sin6_family);
	SAY(send_(c, "6"));
	SAY(recv_(s, 1, 0));
	unpair();
	k->close(l6);
	a = (struct sockaddr_in6){.sin6_family = AF_INET6};
	l6 = k->socket(AF_INET6, SOCK_STREAM, 0);
	k->bind(l6, (void *)&a, sizeof a);
	SAY(k->listen(l6, 3));
	k->getsockname(l6, (void *)&a, &len);
	addr.sin_port = a.sin6_port;
	c = k->socket(AF_INET, SOCK_STREAM, 0);
	SAY(k->connect(c, (void *)&addr, sizeof addr));
	s = k->accept4(l6, (void *)&b, &len, 0);
	inet_ntop(AF_INET6, &b.sin6_addr, text, sizeof text);
	fprintf(out, "peer %s\n", text);
	SAY(send_(c, "6"));
	SAY(recv_(s, 1, 0));
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
		cmocka_unit_test(unconnected_sockets_fail_alike),
		cmocka_unit_test(a_listener_refuses_what_is_for_connections),
		cmocka_unit_test(names_of_both_ends_agree),
		cmocka_unit_test(receive_flags),
		cmocka_unit_test(what_one_process_sent_to_itself_is_there_at_once),
		cmocka_unit_test(timeouts_and_low_water),
		cmocka_unit_test(half_closes_in_order),
		cmocka_unit_test(a_reset_is_reported_once_by_so_error),
		cmocka_unit_test(a_reset_is_reported_once_by_recv),
		cmocka_unit_test(close_with_unread_data_resets),
		cmocka_unit_test(writing_to_a_closed_peer),
		cmocka_unit_test(full_buffers_and_nonblocking_flags),
		cmocka_unit_test(a_first_nonblocking_send_is_taken_whole),
		cmocka_unit_test(urgent_data_is_read_apart),
		cmocka_unit_test(urgent_data_in_line),
		cmocka_unit_test(more_is_sent_with_what_follows),
		cmocka_unit_test(shutdown_wakes_who_is_blocked),
		cmocka_unit_test(close_does_not_wake_a_blocked_recv),
		cmocka_unit_test(a_listener_listens_again_after_shutdown),
		cmocka_unit_test(refused_connections_can_be_tried_again),
		cmocka_unit_test(bad_addresses),
		cmocka_unit_test(af_unspec_resets_and_the_socket_connects_again),
		cmocka_unit_test(duplicates_are_one_socket),
		cmocka_unit_test(options),
		cmocka_unit_test(accept_inherits_options_but_no_file_flags),
		cmocka_unit_test(select_sets_bits_like_the_kernel),
		cmocka_unit_test(signals_interrupt_and_restart_alike),
		cmocka_unit_test(ipv6_and_dual_stack),
		cmocka_unit_test(sendfile_counts_and_moves_offsets),
		cmocka_unit_test(a_forked_child_holds_the_connection),
		cmocka_unit_test(a_child_is_passed_a_connection),
		cmocka_unit_test(a_parent_is_passed_a_connection),
		cmocka_unit_test(a_connection_abandoned_in_flight_is_closed),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
