/* SPDX-License-Identifier: MIT */
/*
 * For the programs of this folder: each makes calls and prints what came back, nothing that differs from run to run.
 * The test compares what a program prints on the kernel with what it prints under the interposer.
 */
#ifndef SAY_H
#define SAY_H

#include <arpa/inet.h>
#include <errno.h>
#include <fcntl.h>
#include <netinet/in.h>
#include <netinet/tcp.h>
#include <poll.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/epoll.h>
#include <sys/ioctl.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/uio.h>
#include <sys/wait.h>
#include <unistd.h>

static inline void say_result(int line, const char *what, long r, int err)
{
	printf("%d: %s = %ld %s\n", line, what, r, r < 0 ? strerrorname_np(err) : "");
	fflush(stdout);
}

/* Makes a call, prints it with its result, and gives the result. */
#define SAY(call) \
	({ \
		errno = 0; \
		long r_ = (long)(call); \
		say_result(__LINE__, #call, r_, errno); \
		r_; \
	})

#define SAY_TEXT(buf, n) printf("%d: \"%.*s\"\n", __LINE__, (int)(n), (const char *)(buf))

static inline struct sockaddr_in loopback(int port)
{
	struct sockaddr_in sin = {.sin_family = AF_INET, .sin_port = htons((uint16_t)port)};

	sin.sin_addr.s_addr = htonl(INADDR_LOOPBACK);
	return sin;
}

/* A listener on a loopback port of the kernel's choice. */
static inline int listener(struct sockaddr_in *sin)
{
	socklen_t len = sizeof *sin;
	int fd = socket(AF_INET, SOCK_STREAM, 0);

	*sin = loopback(0);
	if (fd < 0 || bind(fd, (struct sockaddr *)sin, len) < 0 || listen(fd, 16) < 0 ||
	    getsockname(fd, (struct sockaddr *)sin, &len) < 0) {
		perror("listener");
		exit(1);
	}
	return fd;
}

/* A connection over loopback: s[0] connected, s[1] accepted. */
static inline void tcp_pair(int s[2])
{
	struct sockaddr_in sin;
	int fd = listener(&sin);

	s[0] = socket(AF_INET, SOCK_STREAM, 0);
	if (s[0] < 0 || connect(s[0], (struct sockaddr *)&sin, sizeof sin) < 0 || (s[1] = accept(fd, NULL, NULL)) < 0) {
		perror("tcp_pair");
		exit(1);
	}
	close(fd);
}

static inline int wait_status(pid_t pid)
{
	int status = -1;

	waitpid(pid, &status, 0);
	return WIFEXITED(status) ? WEXITSTATUS(status) : 1000 + WTERMSIG(status);
}

/* Reads one byte at a time until a line ends, so that nobody's buffer takes more. */
static inline int read_line(int fd, char *buf, int room)
{
	int n = 0;

	while (n < room - 1 && read(fd, buf + n, 1) == 1)
		if (buf[n++] == '\n')
			break;
	buf[n] = 0;
	return n;
}

#endif
