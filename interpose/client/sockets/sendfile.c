/* SPDX-License-Identifier: MIT */
/* sendfile and splice: files and pipes are read straight into the transmit ring, and pipes written straight from the receive ring. */
#include <sys/uio.h>

#include "sockets/sock.h"

enum { MAX_RW = 0x7ffff000 };

static int check_input(int in, const off64_t *off, size_t n)
{
	struct stat st;
	int r = sys_fstat(in, &st), fl;

	if (off && tas__wild(off))
		return -EFAULT;
	if (r < 0)
		return r;
	fl = sys_fcntl(in, F_GETFL, 0);
	if (fl < 0 || (fl & O_ACCMODE) == O_WRONLY)
		return -EBADF;
	if ((off && *off < 0) || (ssize_t)n < 0)
		return -EINVAL;
	if (!S_ISREG(st.st_mode) && !S_ISBLK(st.st_mode))
		return off ? -ESPIPE : -EINVAL;
	return 0;
}

ssize_t tas_sendfile(int out, int in, off64_t *off, size_t n)
{
	struct tas_obj *o = tas__conn_get(out);
	struct tas_source src = {.in_fd = in, .off = off};
	ssize_t r;

	if (!o)
		return sys4(SYS_sendfile, tas__raw(out), tas__raw(in), SYS_P(off), n);
	r = check_input(tas__raw(in), off, n);
	if (r == 0)
		r = tas__send(o, out, &src, n > MAX_RW ? MAX_RW : n, 0);
	tas__obj_put(o);
	return r;
}

/* Others may empty or fill the pipe at any time, and the ring's lock is held: so this call never waits. */
ssize_t tas__pipe_io(long nr, int fd, const void *p, size_t n)
{
	const struct iovec v = {.iov_base = (void *)(uintptr_t)p, .iov_len = n};
	long r = tas__may(TAS_MAY_NOWAIT) ? sys6(nr, fd, SYS_P(&v), 1, -1, -1, RWF_NOWAIT) : -EOPNOTSUPP;

	return r == -EAGAIN ? -ENODATA : r == -ENOSYS || r == -EPERM ? -EOPNOTSUPP : r;
}

ssize_t tas_from_pipe(int out, int in, size_t n, int flags)
{
	struct tas_source src = {.in_fd = in, .pipe = true};
	struct tas_obj *o = tas__conn_get(out);
	ssize_t r = -EOPNOTSUPP;

	if (o) {
		r = tas__send(o, out, &src, n < MAX_RW ? n : MAX_RW, flags);
		tas__obj_put(o);
	}
	return r;
}
