// SPDX-License-Identifier: MIT
/*
 * libc's syscall() for the numbers that have wrappers.  A call whose descriptors are the kernel's stays the raw system
 * call.
 *
 * SYS_vfork and SYS_clone with shared memory stay raw: libc's syscall() cannot return twice on one stack.
 */
#include <sched.h>
#include <sys/syscall.h>

#include "preload.h"

#define INT(x) ((int)(x))
#define SIZE(x) ((size_t)(x))
#define PTR(x) ((void *)(x))

/* The system calls whose first argument decides; -ENOSYS: none of them. */
static long by_first(long nr, long a, long b, long c, long d, long e, long f)
{
	int fd = INT(a);

	switch (nr) {
	case SYS_read:
		return tas_read(fd, PTR(b), SIZE(c));
	case SYS_write:
		return tas_write(fd, PTR(b), SIZE(c));
	case SYS_readv:
		return tas_readv(fd, PTR(b), INT(c));
	case SYS_writev:
		return tas_writev(fd, PTR(b), INT(c));
	case SYS_preadv2:
		return tas__preadv2(fd, PTR(b), INT(c), d, INT(f));
	case SYS_pwritev2:
		return tas__pwritev2(fd, PTR(b), INT(c), d, INT(f));
	case SYS_recvfrom:
		return tas_recvfrom(fd, PTR(b), SIZE(c), INT(d), PTR(e), PTR(f));
	case SYS_sendto:
		return tas_sendto(fd, PTR(b), SIZE(c), INT(d), PTR(e), (socklen_t)f);
	case SYS_bind:
		return tas_bind(fd, PTR(b), (socklen_t)c);
	case SYS_listen:
		return tas_listen(fd, INT(b));
	case SYS_accept:
		return tas_accept4(fd, PTR(b), PTR(c), 0);
	case SYS_accept4:
		return tas_accept4(fd, PTR(b), PTR(c), INT(d));
	case SYS_connect:
		return tas_connect(fd, PTR(b), (socklen_t)c);
	case SYS_shutdown:
		return tas_shutdown(fd, INT(b));
	case SYS_getsockname:
		return tas_getsockname(fd, PTR(b), PTR(c));
	case SYS_getpeername:
		return tas_getpeername(fd, PTR(b), PTR(c));
	case SYS_getsockopt:
		return tas_getsockopt(fd, INT(b), INT(c), PTR(d), PTR(e));
	case SYS_setsockopt:
		return tas_setsockopt(fd, INT(b), INT(c), PTR(d), (socklen_t)e);
	case SYS_close:
		return tas_close(fd);
	case SYS_dup:
		return tas_dup(fd);
	case SYS_fcntl:
		return tas_fcntl(fd, INT(b), (unsigned long)c);
	case SYS_ioctl:
		return tas_ioctl(fd, (unsigned long)b, PTR(c));
	case SYS_epoll_wait:
		return tas__epoll_pwait(fd, PTR(b), INT(c), INT(d), NULL);
	case SYS_epoll_pwait:
		return tas__epoll_pwait(fd, PTR(b), INT(c), INT(d), PTR(e));
	case SYS_epoll_pwait2:
		return tas_epoll_pwait2(fd, PTR(b), INT(c), PTR(d), PTR(e));
	}
	return -ENOSYS;
}

/* pselect6 takes {mask, size} where pselect takes the mask. */
static const sigset_t *packed_mask(long arg)
{
	const struct {
		const sigset_t *mask;
		size_t size;
	} *packed = PTR(arg);

	return packed ? packed->mask : NULL;
}

/* clone without shared memory and on the same stack, and fork: what _Fork is. */
static long forked_by(long nr, long a, long b, long c, long d, long e)
{
	long r;

	tas_fork_prepare();
	r = tas__real.syscall(nr, a, b, c, d, e, 0);
	if (r == 0)
		tas_fork_child();
	else
		tas_fork_parent();
	return r;
}

long tas__w_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	if (tas__passive())
		goto raw;
	if (!tas__kernel(INT(a))) {
		long r = by_first(nr, a, b, c, d, e, f);

		if (r != -ENOSYS)
			return tas__result(r);
	}
	switch (nr) {
	case SYS_socket:
		return tas__w_socket(INT(a), INT(b), INT(c));
	case SYS_recvmsg:
		return tas__w_recvmsg(INT(a), PTR(b), INT(c));
	case SYS_recvmmsg:
		return tas__w_recvmmsg(INT(a), PTR(b), (unsigned)c, INT(d), PTR(e));
	case SYS_sendmsg:
		return tas__w_sendmsg(INT(a), PTR(b), INT(c));
	case SYS_sendmmsg:
		return tas__w_sendmmsg(INT(a), PTR(b), (unsigned)c, INT(d));
	case SYS_sendfile:
		return tas__w_sendfile(INT(a), INT(b), PTR(c), SIZE(d));
	case SYS_splice:
		return tas__w_splice(INT(a), PTR(b), INT(c), PTR(d), SIZE(e), (unsigned)f);
	case SYS_close_range:
		return tas__w_close_range((unsigned)a, (unsigned)b, INT(c));
	case SYS_dup2:
		return tas__w_dup2(INT(a), INT(b));
	case SYS_dup3:
		return tas__w_dup3(INT(a), INT(b), INT(c));
	case SYS_pidfd_getfd:
		return tas__w_pidfd_getfd(INT(a), INT(b), (unsigned)c);
	case SYS_poll:
		return tas__w_poll(PTR(a), (nfds_t)b, INT(c));
	case SYS_ppoll:
		return tas__w_ppoll(PTR(a), (nfds_t)b, PTR(c), PTR(d));
	case SYS_select:
		return tas__w_select(INT(a), PTR(b), PTR(c), PTR(d), PTR(e));
	case SYS_pselect6:
		return tas__w_pselect(INT(a), PTR(b), PTR(c), PTR(d), PTR(e), packed_mask(f));
	case SYS_epoll_create:
		return tas__w_epoll_create(INT(a));
	case SYS_epoll_create1:
		return tas__w_epoll_create1(INT(a));
	case SYS_epoll_ctl:
		return tas__w_epoll_ctl(INT(a), INT(b), INT(c), PTR(d));
	case SYS_fork:
		return forked_by(nr, a, b, c, d, e);
	case SYS_clone:
		if (a & CLONE_VM || b)
			break;
		return forked_by(nr, a, b, c, d, e);
	case SYS_execve:
		return tas__w_execve(PTR(a), PTR(b), PTR(c));
	case SYS_execveat:
		return tas__w_execveat(INT(a), PTR(b), PTR(c), PTR(d), INT(e));
	}
raw:
	return tas__real.syscall(nr, a, b, c, d, e, f);
}
