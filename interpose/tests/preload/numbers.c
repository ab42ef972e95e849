// SPDX-License-Identifier: MIT
/* Copies of descriptors, the lowest free number, close in every spelling, descriptors in messages. */
#include "say.h"

static void send_fd(int via, int fd)
{
	char control[CMSG_SPACE(sizeof fd)];
	struct iovec iov = {(void *)"f", 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	struct cmsghdr *c = CMSG_FIRSTHDR(&msg);

	c->cmsg_level = SOL_SOCKET;
	c->cmsg_type = SCM_RIGHTS;
	c->cmsg_len = CMSG_LEN(sizeof fd);
	memcpy(CMSG_DATA(c), &fd, sizeof fd);
	SAY(sendmsg(via, &msg, 0));
}

static int recv_fd(int via)
{
	char control[CMSG_SPACE(sizeof(int))], byte;
	struct iovec iov = {&byte, 1};
	struct msghdr msg = {
		.msg_iov = &iov, .msg_iovlen = 1, .msg_control = control, .msg_controllen = sizeof control};
	int fd = -1;

	SAY(recvmsg(via, &msg, MSG_CMSG_CLOEXEC));
	if (CMSG_FIRSTHDR(&msg))
		memcpy(&fd, CMSG_DATA(CMSG_FIRSTHDR(&msg)), sizeof fd);
	return fd;
}

static void copies(void)
{
	char buf[16];
	int s[2], d;

	tcp_pair(s);
	d = (int)SAY(dup(s[0]));
	SAY(close(s[0]));
	SAY(write(d, "dup", 3));
	SAY(read(s[1], buf, 16));
	SAY(dup2(d, 50));
	SAY(dup2(d, d));
	SAY(dup2(d, -1));
	SAY(dup2(999, 50));
	SAY(dup3(d, d, 0));
	SAY(dup3(d, 51, O_CLOEXEC));
	SAY(dup3(d, 51, 1));
	SAY(fcntl(51, F_GETFD));
	SAY(fcntl(d, F_DUPFD, 40));
	SAY(fcntl(d, F_DUPFD_CLOEXEC, 40));
	SAY(fcntl(41, F_GETFD));
	SAY(fcntl(41, F_SETFD, 0));
	SAY(fcntl(41, F_GETFD));
	SAY(close(d));
	SAY(close(50));
	SAY(close(51));
	SAY(close(40));
	SAY(write(41, "last", 4));
	SAY(read(s[1], buf, 16));
	SAY(dup2(s[1], 41)); /* closes the last of the other end */
	SAY(read(41, buf, 16));
	SAY(close(41));
	SAY(close(s[1]));
	SAY(dup(2)); /* lowest free number */
	SAY(close(3));
}

static void ranges(void)
{
	int s[2];
	char b;

	tcp_pair(s);
	SAY(dup2(s[0], 60));
	SAY(dup2(s[0], 61));
	SAY(close_range(60, 60, 0));
	SAY(write(60, "x", 1));
	SAY(write(61, "x", 1));
	SAY(close_range(61, 61, 1 << 2)); /* CLOSE_RANGE_CLOEXEC */
	SAY(fcntl(61, F_GETFD));
	SAY(close_range(9, 8, 0));
	SAY(close_range(3, 70, 0x100));
	closefrom(60);
	SAY(write(61, "x", 1));
	SAY(read(s[1], &b, 1));
	closefrom(3);
	SAY(read(s[1], &b, 1));
	SAY(open("/dev/null", O_RDWR));
	SAY(close(3));
}

static void passed(void)
{
	char buf[16];
	int u[2], s[2], r, f;

	SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, u));
	tcp_pair(s);
	send_fd(u[0], s[0]);
	r = recv_fd(u[1]);
	printf("received %d\n", r);
	SAY(fcntl(r, F_GETFD));
	SAY(close(s[0]));
	SAY(write(r, "passed", 6));
	SAY(read(s[1], buf, 16));
	send_fd(u[0], r);
	SAY(close(r)); /* alive in the message only */
	SAY(recv(s[1], buf, 16, MSG_DONTWAIT));
	r = recv_fd(u[1]);
	printf("received %d\n", r);
	SAY(write(r, "again", 5));
	SAY(read(s[1], buf, 16));
	SAY(close(r));
	SAY(read(s[1], buf, 16));
	f = (int)SAY(open("/dev/zero", O_RDONLY)); /* the number was the socket's */
	SAY(read(f, buf, 4));
	send_fd(u[0], f);
	SAY(recv_fd(u[1]));
	closefrom(3);
}

static void in_epoll(void)
{
	struct epoll_event ev = {.events = EPOLLIN, .data.u64 = 7}, got[4];
	int s[2], e = (int)SAY(epoll_create1(EPOLL_CLOEXEC)), d;

	tcp_pair(s);
	SAY(epoll_ctl(e, EPOLL_CTL_ADD, s[1], &ev));
	d = (int)SAY(dup(s[1]));
	SAY(close(s[1])); /* the set keeps the socket: d still holds it */
	SAY(write(s[0], "x", 1));
	SAY(epoll_wait(e, got, 4, 1000));
	printf("data %lu\n", got[0].data.u64);
	SAY(close(d));
	SAY(epoll_wait(e, got, 4, 0));
	SAY(close(e));
	SAY(close(s[0]));
}

int main(void)
{
	alarm(30);
	copies();
	ranges();
	passed();
	in_epoll();
	return 0;
}
