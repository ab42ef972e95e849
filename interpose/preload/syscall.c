// SPDX-License-Identifier: MIT
/*
 * System calls by number: libc's syscall(), and those that are caught (raw.c).  A call whose descriptors are the kernel's
 * stays what it is.
 *
 * SYS_vfork and SYS_clone with shared memory stay raw: libc's syscall() cannot return twice on one stack.
 */
#include <sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/syscall.h>

#include "lowlevel/low.h"
#include "lowlevel/sys.h"
#include "preload.h"
#include "raw.h"

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
long tas__fork_by(long nr, long a, long b, long c, long d, long e)
{
	long r;

	tas_fork_prepare();
	r = sys6(nr, a, b, c, d, e, 0);
	if (r == 0) {
		tas_fork_child();
		tas__raw_arm();
	} else {
		tas_fork_parent();
	}
	return r;
}

/* Back from a wrapper's -1 and errno. */
static long plain(long r)
{
	return r == -1 ? -errno : r;
}

/* More than one descriptor, or none. */
static long by_wrapper(long nr, long a, long b, long c, long d, long e, long f)
{
	switch (nr) {
	case SYS_socket:
		return plain(tas__w_socket(INT(a), INT(b), INT(c)));
	case SYS_recvmsg:
		return plain(tas__w_recvmsg(INT(a), PTR(b), INT(c)));
	case SYS_recvmmsg:
		return plain(tas__w_recvmmsg(INT(a), PTR(b), (unsigned)c, INT(d), PTR(e)));
	case SYS_sendmsg:
		return plain(tas__w_sendmsg(INT(a), PTR(b), INT(c)));
	case SYS_sendmmsg:
		return plain(tas__w_sendmmsg(INT(a), PTR(b), (unsigned)c, INT(d)));
	case SYS_sendfile:
		return plain(tas__w_sendfile(INT(a), INT(b), PTR(c), SIZE(d)));
	case SYS_splice:
		return plain(tas__w_splice(INT(a), PTR(b), INT(c), PTR(d), SIZE(e), (unsigned)f));
	case SYS_close_range:
		return plain(tas__w_close_range((unsigned)a, (unsigned)b, INT(c)));
	case SYS_dup2:
		return plain(tas__w_dup2(INT(a), INT(b)));
	case SYS_dup3:
		return plain(tas__w_dup3(INT(a), INT(b), INT(c)));
	case SYS_pidfd_getfd:
		return plain(tas__w_pidfd_getfd(INT(a), INT(b), (unsigned)c));
	case SYS_poll:
		return plain(tas__w_poll(PTR(a), (nfds_t)b, INT(c)));
	case SYS_ppoll:
		return plain(tas__w_ppoll(PTR(a), (nfds_t)b, PTR(c), PTR(d)));
	case SYS_select:
		return plain(tas__w_select(INT(a), PTR(b), PTR(c), PTR(d), PTR(e)));
	case SYS_pselect6:
		return plain(tas__w_pselect(INT(a), PTR(b), PTR(c), PTR(d), PTR(e), packed_mask(f)));
	case SYS_epoll_create:
		return plain(tas__w_epoll_create(INT(a)));
	case SYS_epoll_create1:
		return plain(tas__w_epoll_create1(INT(a)));
	case SYS_epoll_ctl:
		return plain(tas__w_epoll_ctl(INT(a), INT(b), INT(c), PTR(d)));
	case SYS_execve:
		return plain(tas__w_execve(PTR(a), PTR(b), PTR(c)));
	case SYS_execveat:
		return plain(tas__w_execveat(INT(a), PTR(b), PTR(c), PTR(d), INT(e)));
	}
	return TAS_NATIVE;
}

/*
 * A ring does what it is asked without a call that we could see.  Programs make it before their first socket (libuv, which then
 * fills its epoll set through the ring), so it is refused wherever there is a service, not only after attaching.
 * TAS_IO_URING=allow: the program keeps its TCP off it.
 */
static bool ring_refused(void)
{
	const char *s = secure_getenv("TAS_IO_URING");
	int err = errno;
	bool refused = (!s || strcmp(s, "allow") != 0) && (tas_attached() || tas__service_there());

	errno = err;
	return refused;
}

static long on_tas(long nr, long a, long b, long c, long d, long e, long f)
{
	if (!tas__kernel(INT(a))) {
		long r = by_first(nr, a, b, c, d, e, f);

		if (r != -ENOSYS)
			return r;
	}
	switch (nr) {
	case SYS_fork:
		return tas__fork_by(nr, a, b, c, d, e);
	case SYS_clone:
		return a & CLONE_VM || b ? TAS_NATIVE : tas__fork_by(nr, a, b, c, d, e);
	}
	return by_wrapper(nr, a, b, c, d, e, f);
}

/* A system call is no cancellation point, whoever makes it. */
long tas__by_number(long nr, long a, long b, long c, long d, long e, long f)
{
	int cancel;
	long r;

	if (nr == SYS_io_uring_setup && ring_refused())
		return -ENOSYS;
	if (tas__passive())
		return TAS_NATIVE;
	pthread_setcancelstate(PTHREAD_CANCEL_DISABLE, &cancel);
	r = nr == SYS_seccomp ? tas__seccomp(a, b, c) : on_tas(nr, a, b, c, d, e, f);
	pthread_setcancelstate(cancel, NULL);
	return r;
}

long tas__w_syscall(long nr, long a, long b, long c, long d, long e, long f)
{
	long r = tas__by_number(nr, a, b, c, d, e, f);

	return r == TAS_NATIVE ? tas__real.syscall(nr, a, b, c, d, e, f) : tas__result(r);
}
