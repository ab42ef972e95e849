// SPDX-License-Identifier: MIT
/* Socket calls on a loopback connection: data in every spelling, options, addresses, shutdown, errors. */
#include <limits.h>
#include <sys/sendfile.h>

#include "say.h"

static void addresses(void)
{
	struct sockaddr_in lsin, sin, peer;
	socklen_t len = sizeof sin;
	int l = listener(&lsin), c, a;

	c = (int)SAY(socket(AF_INET, SOCK_STREAM, 0));
	SAY(getpeername(c, (struct sockaddr *)&sin, &len));
	SAY(connect(c, (struct sockaddr *)&lsin, sizeof lsin));
	len = sizeof peer;
	a = (int)SAY(accept4(l, (struct sockaddr *)&peer, &len, SOCK_NONBLOCK | SOCK_CLOEXEC));
	printf("peer length %u family %d\n", len, peer.sin_family);
	len = sizeof sin;
	SAY(getsockname(c, (struct sockaddr *)&sin, &len));
	printf("own port seen by peer: %d\n", sin.sin_port == peer.sin_port);
	len = sizeof sin;
	SAY(getpeername(c, (struct sockaddr *)&sin, &len));
	printf("peer is listener: %d\n", sin.sin_port == lsin.sin_port);
	SAY(fcntl(a, F_GETFD));
	SAY(fcntl(a, F_GETFL) & O_NONBLOCK);
	SAY(fcntl(c, F_GETFL) & O_NONBLOCK);
	SAY(connect(c, (struct sockaddr *)&lsin, sizeof lsin));
	SAY(listen(c, 1));
	SAY(accept(c, NULL, NULL));
	SAY(bind(c, (struct sockaddr *)&lsin, sizeof lsin));
	SAY(close(a));
	SAY(close(c));
	SAY(close(l));
	SAY(close(l));
	c = (int)SAY(socket(AF_INET, SOCK_STREAM | SOCK_NONBLOCK, IPPROTO_TCP));
	SAY(connect(c, (struct sockaddr *)&lsin, 3));
	SAY(close(c));
	SAY(socket(AF_INET, SOCK_STREAM, IPPROTO_UDP));
	SAY(socket(AF_INET, 77, 0));
	SAY(socket(123, SOCK_STREAM, 0));
}

static void refused(void)
{
	struct sockaddr_in sin;
	int l = listener(&sin), c = socket(AF_INET, SOCK_STREAM, 0);

	close(l);
	SAY(connect(c, (struct sockaddr *)&sin, sizeof sin));
	SAY(recv(c, &sin, 1, 0));
	SAY(send(c, &sin, 1, MSG_NOSIGNAL));
	close(c);
}

static void bytes(void)
{
	char buf[64];
	struct iovec two[2] = {{buf, 3}, {buf + 8, 20}};
	struct iovec out[2] = {{(void *)"abc", 3}, {(void *)"defg", 4}};
	struct msghdr msg = {.msg_iov = two, .msg_iovlen = 2};
	struct mmsghdr many[2] = {{.msg_hdr = {.msg_iov = out, .msg_iovlen = 1}},
				  {.msg_hdr = {.msg_iov = out + 1, .msg_iovlen = 1}}};
	volatile int minus_one = -1; /* the compiler need not know */
	int s[2];

	tcp_pair(s);
	SAY(write(s[0], "one", 3));
	SAY(read(s[1], buf, sizeof buf));
	SAY_TEXT(buf, 3);
	SAY(writev(s[0], out, 2));
	SAY(readv(s[1], two, 2));
	SAY_TEXT(buf, 3);
	SAY_TEXT(buf + 8, 4);
	SAY(send(s[0], "peek", 4, 0));
	SAY(recv(s[1], buf, 2, MSG_PEEK));
	SAY(recv(s[1], buf, 4, MSG_WAITALL));
	SAY_TEXT(buf, 4);
	SAY(recv(s[1], buf, 4, MSG_DONTWAIT));
	SAY(sendto(s[0], "to", 2, MSG_NOSIGNAL, NULL, 0));
	SAY(recvfrom(s[1], buf, 9, 0, NULL, NULL));
	SAY(sendmsg(s[0], &(struct msghdr){.msg_iov = out, .msg_iovlen = 2}, 0));
	SAY(recvmsg(s[1], &msg, 0));
	SAY_TEXT(buf, 3);
	SAY(sendmmsg(s[0], many, 2, 0));
	printf("lengths %u %u\n", many[0].msg_len, many[1].msg_len);
	many[0].msg_hdr = (struct msghdr){.msg_iov = two, .msg_iovlen = 2};
	SAY(recvmmsg(s[1], many, 1, 0, NULL));
	printf("length %u\n", many[0].msg_len);
	SAY(pwritev2(s[0], out, 2, -1, 0));
	SAY(preadv2(s[1], two, 2, -1, 0));
	SAY(preadv2(s[1], two, 2, -1, RWF_NOWAIT));
	SAY(preadv2(s[1], two, 2, 7, 0));
	SAY(pwritev2(s[1], two, 2, -1, 0x1000));
	SAY(readv(s[1], two, minus_one));
	SAY(pread(s[1], buf, 1, 0));
	SAY(lseek(s[1], 0, SEEK_CUR));
	SAY(isatty(s[1]));
	SAY(read(s[1], buf, 0));
	SAY(write(s[0], buf, 0));
	SAY(shutdown(s[0], SHUT_WR));
	SAY(read(s[1], buf, sizeof buf));
	SAY(send(s[0], "x", 1, MSG_NOSIGNAL));
	SAY(write(s[1], "back", 4));
	SAY(read(s[0], buf, sizeof buf));
	SAY(shutdown(s[0], 9));
	SAY(close(s[0]));
	SAY(close(s[1]));
}

static void files(void)
{
	char name[] = "/tmp/tas-calls-XXXXXX", buf[32];
	off_t off = 2;
	int s[2], f, p[2];

	tcp_pair(s);
	f = mkstemp(name);
	unlink(name);
	SAY(write(f, "0123456789", 10));
	SAY(sendfile(s[0], f, &off, 5));
	printf("offset %ld\n", (long)off);
	SAY(lseek(f, 7, SEEK_SET));
	SAY(sendfile(s[0], f, NULL, 100));
	SAY(recv(s[1], buf, 8, MSG_WAITALL));
	SAY_TEXT(buf, 8);
	SAY(sendfile(f, s[1], NULL, 8));
	SAY(pipe(p));
	SAY(write(s[0], "spliced", 7));
	SAY(splice(s[1], NULL, p[1], NULL, 100, 0));
	SAY(splice(p[0], NULL, s[1], NULL, 100, 0));
	SAY(recv(s[0], buf, 7, MSG_WAITALL));
	SAY_TEXT(buf, 7);
	SAY(splice(s[1], &off, p[1], NULL, 100, 0));
	SAY(splice(s[1], NULL, s[0], NULL, 100, 0));
	SAY(splice(f, NULL, s[0], NULL, 100, 0));
	SAY(splice(p[0], NULL, s[0], NULL, 100, SPLICE_F_NONBLOCK));
	SAY(fcntl(s[1], F_SETFL, O_NONBLOCK));
	SAY(splice(s[1], NULL, p[1], NULL, 100, 0));
	SAY(tee(s[1], p[1], 10, 0));
	SAY(copy_file_range(s[1], NULL, f, NULL, 10, 0));
	SAY(write(s[0], "to the pipe", 11));
	fcntl(s[1], F_SETFL, 0);
	recv(s[1], buf, 1, MSG_PEEK);
	SAY(sendfile(p[1], s[1], NULL, 100));
	SAY(read(p[0], buf, sizeof buf));
	close(s[0]);
	SAY(splice(s[1], NULL, p[1], NULL, 100, 0));
	close(s[1]);
	close(f);
	close(p[0]);
	close(p[1]);
}

static void options(void)
{
	int s[2], v = -1, n;
	socklen_t len = sizeof v;
	struct linger linger = {1, 5};

	tcp_pair(s);
	SAY(getsockopt(s[0], SOL_SOCKET, SO_TYPE, &v, &len));
	printf("type %d\n", v);
	SAY(getsockopt(s[1], SOL_SOCKET, SO_DOMAIN, &v, &len));
	printf("domain %d\n", v);
	SAY(getsockopt(s[1], SOL_SOCKET, SO_ERROR, &v, &len));
	printf("error %d\n", v);
	v = 1;
	SAY(setsockopt(s[0], IPPROTO_TCP, TCP_NODELAY, &v, sizeof v));
	v = -1;
	SAY(getsockopt(s[0], IPPROTO_TCP, TCP_NODELAY, &v, &len));
	printf("nodelay %d\n", v);
	SAY(setsockopt(s[0], SOL_SOCKET, SO_LINGER, &linger, sizeof linger));
	SAY(setsockopt(s[0], SOL_SOCKET, SO_LINGER, &linger, 3));
	SAY(getsockopt(s[0], SOL_SOCKET, SO_ACCEPTCONN, &v, &len));
	printf("listens %d\n", v);
	SAY(setsockopt(s[0], SOL_SOCKET, 9999, &v, sizeof v));
	SAY(getsockopt(s[0], 77, 1, &v, &len));
	SAY(write(s[0], "12345", 5));
	recv(s[1], &n, 1, MSG_PEEK);
	n = -1;
	SAY(ioctl(s[1], FIONREAD, &n));
	printf("readable %d\n", n);
	SAY(sockatmark(s[1]));
	n = 1;
	SAY(ioctl(s[0], FIONBIO, &n));
	SAY(recv(s[0], &n, 1, 0));
	SAY(ioctl(s[0], 0x1234, &n));
	close(s[0]);
	close(s[1]);
}

static void others(void)
{
	char buf[8];
	int u[2], d;
	struct sockaddr_in sin = loopback(9);

	SAY(socketpair(AF_UNIX, SOCK_STREAM, 0, u));
	SAY(send(u[0], "u", 1, 0));
	SAY(recv(u[1], buf, 8, 0));
	d = (int)SAY(socket(AF_INET, SOCK_DGRAM, 0));
	SAY(connect(d, (struct sockaddr *)&sin, sizeof sin));
	SAY(recv(d, buf, 1, MSG_DONTWAIT));
	SAY(read(-1, buf, 1));
	SAY(write(9999, buf, 1));
	SAY(close(-1));
	SAY(close(1 << 21));
	SAY(recv(0, buf, 1, 0));
	SAY(accept(u[0], NULL, NULL));
	close(u[0]);
	close(u[1]);
	close(d);
}

int main(void)
{
	alarm(30);
	addresses();
	refused();
	bytes();
	files();
	options();
	others();
	return 0;
}
