// SPDX-License-Identifier: MIT
/* libc's syscall() for socket calls. */
#include <sys/syscall.h>
#include <time.h>

#include "say.h"

int main(void)
{
	struct sockaddr_in sin = loopback(0);
	socklen_t len = sizeof sin;
	struct epoll_event ev = {.events = EPOLLIN}, got[2];
	struct timespec ts = {1, 0};
	struct iovec iov = {(void *)"vector", 6};
	struct msghdr msg = {.msg_iov = &iov, .msg_iovlen = 1};
	struct pollfd p;
	char buf[32];
	fd_set set;
	int l, c, a, e, one = 1;

	alarm(30);
	l = (int)SAY(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
	SAY(syscall(SYS_setsockopt, l, SOL_SOCKET, SO_REUSEADDR, &one, sizeof one));
	SAY(syscall(SYS_bind, l, &sin, len));
	SAY(syscall(SYS_listen, l, 5));
	SAY(syscall(SYS_getsockname, l, &sin, &len));
	c = (int)SAY(syscall(SYS_socket, AF_INET, SOCK_STREAM, 0));
	SAY(syscall(SYS_connect, c, &sin, len));
	a = (int)SAY(syscall(SYS_accept4, l, NULL, NULL, SOCK_CLOEXEC));
	SAY(syscall(SYS_getpeername, a, &sin, &len));
	SAY(syscall(SYS_write, c, "abc", 3));
	SAY(syscall(SYS_read, a, buf, 32));
	SAY(syscall(SYS_sendto, a, "defg", 4, 0, NULL, 0));
	SAY(syscall(SYS_recvfrom, c, buf, 32, 0, NULL, NULL));
	SAY(syscall(SYS_writev, c, &iov, 1));
	SAY(syscall(SYS_sendmsg, c, &msg, 0));
	SAY(syscall(SYS_recvfrom, a, buf, 12, MSG_WAITALL, NULL, NULL));
	SAY_TEXT(buf, 12);
	p = (struct pollfd){a, POLLOUT, 0};
	SAY(syscall(SYS_poll, &p, 1, 1000));
	SAY(syscall(SYS_ppoll, &p, 1, &ts, NULL, 8));
	FD_ZERO(&set);
	FD_SET(a, &set);
	SAY(syscall(SYS_pselect6, a + 1, NULL, &set, NULL, &ts, NULL));
	e = (int)SAY(syscall(SYS_epoll_create1, 0));
	SAY(syscall(SYS_epoll_ctl, e, EPOLL_CTL_ADD, a, &ev));
	SAY(syscall(SYS_epoll_pwait, e, got, 2, 0, NULL, 8));
	SAY(syscall(SYS_write, c, "x", 1));
	SAY(syscall(SYS_epoll_wait, e, got, 2, 1000));
	SAY(syscall(SYS_dup2, c, 30));
	SAY(syscall(SYS_dup3, c, 31, O_CLOEXEC));
	SAY(syscall(SYS_fcntl, 31, F_GETFD));
	SAY(syscall(SYS_close, c));
	SAY(syscall(SYS_close_range, 31, 31, 0));
	SAY(syscall(SYS_write, 30, "y", 1));
	SAY(syscall(SYS_shutdown, 30, SHUT_WR));
	SAY(syscall(SYS_recvfrom, a, buf, 32, MSG_WAITALL, NULL, NULL));
	SAY(syscall(SYS_close, a));
	SAY(syscall(SYS_read, 30, buf, 32));
	SAY(syscall(SYS_gettid) == getpid());
	SAY(syscall(SYS_futex, buf, 1, 1, NULL, NULL, 0));
	SAY(syscall(100000));
	return 0;
}
