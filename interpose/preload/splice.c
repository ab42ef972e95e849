// SPDX-License-Identifier: MIT
/*
 * splice and sendfile with a TAS socket at one end.
 *
 * Nothing may be lost in between, and a call may not block where Linux's would not.  So bytes go from the ring to the pipe, and from the
 * pipe to the ring, by calls that do not wait (preadv2, pwritev2).  Pipes and kernels that do not know them: from a socket to a pipe, one
 * that polls writable takes at least 4,096 bytes, so the copy goes in pieces of that size, peeked first and consumed once
 * written; from a pipe to a socket, tee() shows the bytes in a pipe of our own, and what the socket took is then read from
 * the real one.  That way waits for the pipe, too, since a signal restarts it as it should.
 *
 * All errors of arguments are the kernel's, told by the backing socket.
 */
#include <poll.h>
#include <sys/sendfile.h>
#include <sys/stat.h>
#include <unistd.h>

#include "preload.h"

enum { PIECE = 4096, WINDOW = 65536 };

static bool is_tas(int fd)
{
	return tas__is_ours(fd) && tas_fd_states[fd] == TAS_FD_TAS;
}

/* A pipe that is open for what is wanted of it; the kernel says what is wrong with any other. */
static bool is_pipe(int fd, int mode)
{
	struct stat st;
	int fl;

	if (fstat(fd, &st) < 0 || !S_ISFIFO(st.st_mode))
		return false;
	fl = tas__real.fcntl(fd, F_GETFL, 0) & O_ACCMODE;
	return fl == mode || fl == O_RDWR;
}

static long pipe_writable(int fd, bool wait)
{
	struct pollfd p = {.fd = fd, .events = POLLOUT};

	switch (tas__real.poll(&p, 1, wait ? -1 : 0)) {
	case -1:
		return -errno;
	case 0:
		return -EAGAIN;
	}
	if (p.revents & POLLERR) { /* no reader */
		pthread_kill(pthread_self(), SIGPIPE);
		return -EPIPE;
	}
	return 0;
}

/* At most PIECE bytes by way of a buffer. */
static long copy_piece(int sock, int out, size_t n, int flags)
{
	char buf[PIECE];
	int at_mark = 0;
	long r;

	if (tas_ioctl(sock, SIOCATMARK, &at_mark) == 0 && at_mark)
		return 0; /* as tas_to_pipe() */
	r = tas_recvfrom(sock, buf, n < PIECE ? n : PIECE, MSG_PEEK | flags, NULL, NULL);
	if (r > 0)
		r = tas__real.write(out, buf, (size_t)r) < 0 ? -errno : r;
	if (r > 0)
		tas_recvfrom(sock, NULL, (size_t)r, MSG_DONTWAIT | MSG_TRUNC, NULL, NULL);
	return r;
}

static long socket_to_pipe(int sock, int out, size_t n, unsigned flags)
{
	bool wait = !(flags & SPLICE_F_NONBLOCK) && !(tas__real.fcntl(out, F_GETFL, 0) & O_NONBLOCK);
	size_t done = 0;
	long r;

	while (done < n) {
		int how = done ? MSG_DONTWAIT : 0, there = 0;

		if (done && (tas_ioctl(sock, FIONREAD, &there) < 0 || !there)) /* a pending error is for the next call */
			return (long)done;
		r = pipe_writable(out, wait && !done);
		if (r < 0)
			return done ? (long)done : r;
		r = tas_to_pipe(sock, out, n - done, how);
		if (r == -EOPNOTSUPP)
			r = copy_piece(sock, out, n - done, how);
		if (r == -ENODATA) /* another writer was faster */
			continue;
		if (r <= 0)
			return done ? (long)done : r;
		done += (size_t)r;
	}
	return (long)done;
}

/* Sends what the pipe of our own holds; the bytes taken, or the error if there were none. */
static long send_window(int from, int sock, unsigned flags)
{
	char buf[PIECE * 4];
	long sent = 0, r, n;

	while ((n = tas__real.read(from, buf, sizeof buf)) > 0) {
		r = tas_sendto(sock, buf, (size_t)n, flags & SPLICE_F_MORE ? MSG_MORE : 0, NULL, 0);
		if (r < 0)
			return sent ? sent : r;
		sent += r;
		if (r < n)
			break;
	}
	return sent;
}

static void drop(int from, size_t n)
{
	char buf[PIECE * 4];

	while (n) {
		long r = tas__real.read(from, buf, n < sizeof buf ? n : sizeof buf);

		if (r <= 0)
			return;
		n -= (size_t)r;
	}
}

static long pipe_to_socket(int in, int sock, size_t n, unsigned flags)
{
	int window[2], there = 0;
	long r = -ENODATA;

	/* an empty pipe comes before anything that is wrong with the socket */
	if (tas__real.ioctl(in, FIONREAD, &there) == 0 && there > 0)
		r = tas_from_pipe(sock, in, n < (size_t)there ? n : (size_t)there, flags & SPLICE_F_MORE ? MSG_MORE : 0);
	if (r != -ENODATA && r != -EOPNOTSUPP)
		return r;
	if (pipe2(window, O_CLOEXEC) < 0)
		return -errno;
	r = tee(in, window[1], n < WINDOW ? n : WINDOW, flags & SPLICE_F_NONBLOCK);
	tas__real.close(window[1]);
	if (r < 0)
		r = -errno;
	if (r > 0)
		r = send_window(window[0], sock, flags);
	if (r > 0)
		drop(in, (size_t)r);
	tas__real.close(window[0]);
	return r;
}

static __attribute__((noinline)) ssize_t slow_splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t n,
						     unsigned flags)
{
	const unsigned known = SPLICE_F_MOVE | SPLICE_F_NONBLOCK | SPLICE_F_MORE | SPLICE_F_GIFT;

	if (tas__passive() || off_in || off_out || !n || (flags & ~known))
		return tas__real.splice(in, off_in, out, off_out, n, flags);
	if (is_tas(in) && is_pipe(out, O_WRONLY))
		return tas__result(CP(socket_to_pipe(in, out, n, flags)));
	if (is_tas(out) && is_pipe(in, O_RDONLY))
		return tas__result(CP(pipe_to_socket(in, out, n, flags)));
	return tas__real.splice(in, off_in, out, off_out, n, flags);
}

ssize_t tas__w_splice(int in, off64_t *off_in, int out, off64_t *off_out, size_t n, unsigned flags)
{
	if (likely(tas__kernel(in) && tas__kernel(out)))
		return tas__real.splice(in, off_in, out, off_out, n, flags);
	return slow_splice(in, off_in, out, off_out, n, flags);
}

static __attribute__((noinline)) ssize_t slow_sendfile(int out, int in, off64_t *off, size_t n)
{
	if (tas__passive())
		return tas__real.sendfile(out, in, off, n);
	if (n && !off && is_tas(in) && is_pipe(out, O_WRONLY))
		return tas__result(CP(socket_to_pipe(in, out, n, 0)));
	return tas__result(CP(tas_sendfile(out, in, off, n)));
}

ssize_t tas__w_sendfile(int out, int in, off64_t *off, size_t n)
{
	if (likely(tas__kernel(out) && tas__kernel(in)))
		return tas__real.sendfile(out, in, off, n);
	return slow_sendfile(out, in, off, n);
}
TAS_SAME(sendfile64, sendfile);
