/* SPDX-License-Identifier: MIT */
/* Sockets on TAS give what sockets on Linux give: states, addresses, options, families. */
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

int main(void)
{
	const struct CMUnitTest tests[] = {
		cmocka_unit_test(unconnected_sockets_fail_alike),
		cmocka_unit_test(a_listener_refuses_what_is_for_connections),
		cmocka_unit_test(names_of_both_ends_agree),
		cmocka_unit_test(refused_connections_can_be_tried_again),
		cmocka_unit_test(bad_addresses),
		cmocka_unit_test(af_unspec_resets_and_the_socket_connects_again),
		cmocka_unit_test(duplicates_are_one_socket),
		cmocka_unit_test(options),
		cmocka_unit_test(accept_inherits_options_but_no_file_flags),
		cmocka_unit_test(ipv6_and_dual_stack),
	};

	signal(SIGPIPE, SIG_IGN);
	return cmocka_run_group_tests(tests, service_setup, service_teardown);
}
