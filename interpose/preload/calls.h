/* SPDX-License-Identifier: MIT */
/* clang-format off */
/*
 * Every symbol that libtas_interpose.so puts in front of libc's, once.  From this list come the wrappers' prototypes,
 * the pointers to the next definition (resolve.c), the simple wrappers themselves (sockets.c), the version script, and
 * `make check-exports`, which compares it with what the library really exports.
 *
 *   FD(ret, name, params, args, goes)   first parameter is `int fd`.  The wrapper is generated: a number that is
 *                                       certainly the kernel's takes libc's own function, everything else takes `goes`,
 *                                       which gives a result or -errno.  CP() marks a cancellation point.
 *   OWN(ret, name, params, args, file)  wrapper written by hand in `file`; it uses the next definition.
 *   NEW(ret, name, params, file)        written by hand, and complete without the next definition.
 *   SAME(name, target)                  another name of target, which libc exports as well.
 *
 * What is not here needs no wrapper, because the kernel's answer on the backing socket is the right one: fstat, lseek,
 * pread, pwrite, isatty, mmap, fsync, ftruncate, tee, vmsplice, copy_file_range.  fork needs none either
 * (pthread_atfork).
 */
#ifndef TAS_PRELOAD_CALLS_H
#define TAS_PRELOAD_CALLS_H

#define TAS_CALLS(FD, OWN, NEW, SAME) \
	/* sockets */ \
	OWN(int, socket, (int domain, int type, int protocol), (domain, type, protocol), sockets.c) \
	FD(int, bind, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len), tas_bind(fd, addr, len)) \
	FD(int, listen, (int fd, int backlog), (fd, backlog), tas_listen(fd, backlog)) \
	FD(int, accept, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len), CP(tas_accept4(fd, addr, len, 0))) \
	FD(int, accept4, (int fd, struct sockaddr *addr, socklen_t *len, int flags), (fd, addr, len, flags), \
	   CP(tas_accept4(fd, addr, len, flags))) \
	FD(int, connect, (int fd, const struct sockaddr *addr, socklen_t len), (fd, addr, len), CP(tas_connect(fd, addr, len))) \
	SAME(__connect, connect) \
	FD(int, shutdown, (int fd, int how), (fd, how), tas_shutdown(fd, how)) \
	FD(int, getsockname, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len), tas_getsockname(fd, addr, len)) \
	FD(int, getpeername, (int fd, struct sockaddr *addr, socklen_t *len), (fd, addr, len), tas_getpeername(fd, addr, len)) \
	FD(int, getsockopt, (int fd, int level, int name, void *val, socklen_t *len), (fd, level, name, val, len), \
	   tas_getsockopt(fd, level, name, val, len)) \
	FD(int, setsockopt, (int fd, int level, int name, const void *val, socklen_t len), (fd, level, name, val, len), \
	   tas_setsockopt(fd, level, name, val, len)) \
	OWN(int, sockatmark, (int fd), (fd), sockets.c) \
	/* bytes in */ \
	FD(ssize_t, read, (int fd, void *buf, size_t n), (fd, buf, n), CP(tas_read(fd, buf, n))) \
	SAME(__read, read) \
	FD(ssize_t, __read_chk, (int fd, void *buf, size_t n, size_t room), (fd, buf, n, room), \
	   n > room ? tas__real.__read_chk(fd, buf, n, room) : CP(tas_read(fd, buf, n))) \
	FD(ssize_t, readv, (int fd, const struct iovec *iov, int n), (fd, iov, n), CP(tas_readv(fd, iov, n))) \
	FD(ssize_t, preadv2, (int fd, const struct iovec *iov, int n, off64_t off, int flags), (fd, iov, n, off, flags), \
	   CP(tas__preadv2(fd, iov, n, off, flags))) \
	SAME(preadv64v2, preadv2) \
	FD(ssize_t, recv, (int fd, void *buf, size_t n, int flags), (fd, buf, n, flags), \
	   CP(tas_recvfrom(fd, buf, n, flags, NULL, NULL))) \
	FD(ssize_t, __recv_chk, (int fd, void *buf, size_t n, size_t room, int flags), (fd, buf, n, room, flags), \
	   n > room ? tas__real.__recv_chk(fd, buf, n, room, flags) : CP(tas_recvfrom(fd, buf, n, flags, NULL, NULL))) \
	FD(ssize_t, recvfrom, (int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len), \
	   (fd, buf, n, flags, addr, len), CP(tas_recvfrom(fd, buf, n, flags, addr, len))) \
	FD(ssize_t, __recvfrom_chk, \
	   (int fd, void *buf, size_t n, size_t room, int flags, struct sockaddr *addr, socklen_t *len), \
	   (fd, buf, n, room, flags, addr, len), \
	   n > room ? tas__real.__recvfrom_chk(fd, buf, n, room, flags, addr, len) \
		    : CP(tas_recvfrom(fd, buf, n, flags, addr, len))) \
	OWN(ssize_t, recvmsg, (int fd, struct msghdr *msg, int flags), (fd, msg, flags), messages.c) \
	OWN(int, recvmmsg, (int fd, struct mmsghdr *vec, unsigned n, int flags, struct timespec *timeout), \
	    (fd, vec, n, flags, timeout), messages.c) \
	/* bytes out */ \
	FD(ssize_t, write, (int fd, const void *buf, size_t n), (fd, buf, n), CP(tas_write(fd, buf, n))) \
	SAME(__write, write) \
	FD(ssize_t, writev, (int fd, const struct iovec *iov, int n), (fd, iov, n), CP(tas_writev(fd, iov, n))) \
	FD(ssize_t, pwritev2, (int fd, const struct iovec *iov, int n, off64_t off, int flags), (fd, iov, n, off, flags), \
	   CP(tas__pwritev2(fd, iov, n, off, flags))) \
	SAME(pwritev64v2, pwritev2) \
	FD(ssize_t, send, (int fd, const void *buf, size_t n, int flags), (fd, buf, n, flags), \
	   CP(tas_sendto(fd, buf, n, flags, NULL, 0))) \
	SAME(__send, send) \
	FD(ssize_t, sendto, (int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len), \
	   (fd, buf, n, flags, addr, len), CP(tas_sendto(fd, buf, n, flags, addr, len))) \
	OWN(ssize_t, sendmsg, (int fd, const struct msghdr *msg, int flags), (fd, msg, flags), messages.c) \
	OWN(int, sendmmsg, (int fd, struct mmsghdr *vec, unsigned n, int flags), (fd, vec, n, flags), messages.c) \
	OWN(ssize_t, sendfile, (int out, int in, off64_t *off, size_t n), (out, in, off, n), splice.c) \
	SAME(sendfile64, sendfile) \
	OWN(ssize_t, splice, (int in, off64_t *off_in, int out, off64_t *off_out, size_t n, unsigned flags), \
	    (in, off_in, out, off_out, n, flags), splice.c) \
	/* numbers */ \
	FD(int, close, (int fd), (fd), CP(tas_close(fd))) \
	SAME(__close, close) \
	OWN(int, close_range, (unsigned first, unsigned last, int flags), (first, last, flags), numbers.c) \
	OWN(void, closefrom, (int first), (first), numbers.c) \
	FD(int, dup, (int fd), (fd), tas_dup(fd)) \
	OWN(int, dup2, (int fd, int to), (fd, to), numbers.c) \
	SAME(__dup2, dup2) \
	OWN(int, dup3, (int fd, int to, int flags), (fd, to, flags), numbers.c) \
	OWN(int, fcntl, (int fd, int cmd, unsigned long arg), (fd, cmd, arg), async.c) \
	SAME(__fcntl, fcntl) \
	SAME(fcntl64, fcntl) \
	FD(int, ioctl, (int fd, unsigned long request, void *arg), (fd, request, arg), tas_ioctl(fd, request, arg)) \
	OWN(int, pidfd_getfd, (int pidfd, int fd, unsigned flags), (pidfd, fd, flags), numbers.c) \
	OWN(int, login_tty, (int fd), (fd), numbers.c) \
	/* built of others inside of libc */ \
	OWN(int, eventfd_read, (int fd, eventfd_t *value), (fd, value), built.c) \
	OWN(int, eventfd_write, (int fd, eventfd_t value), (fd, value), built.c) \
	OWN(int, bindresvport, (int fd, struct sockaddr_in *sin), (fd, sin), built.c) \
	/* waiting */ \
	OWN(int, poll, (struct pollfd *fds, nfds_t n, int ms), (fds, n, ms), wait.c) \
	SAME(__poll, poll) \
	OWN(int, __poll_chk, (struct pollfd *fds, nfds_t n, int ms, size_t room), (fds, n, ms, room), wait.c) \
	OWN(int, ppoll, (struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask), \
	    (fds, n, timeout, mask), wait.c) \
	OWN(int, __ppoll_chk, \
	    (struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask, size_t room), \
	    (fds, n, timeout, mask, room), wait.c) \
	OWN(int, select, (int n, fd_set *r, fd_set *w, fd_set *e, struct timeval *timeout), (n, r, w, e, timeout), wait.c) \
	SAME(__select, select) \
	OWN(int, pselect, (int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask), \
	    (n, r, w, e, timeout, mask), wait.c) \
	OWN(int, epoll_create, (int size), (size), epoll.c) \
	OWN(int, epoll_create1, (int flags), (flags), epoll.c) \
	OWN(int, epoll_ctl, (int ep, int op, int fd, struct epoll_event *ev), (ep, op, fd, ev), epoll.c) \
	OWN(int, epoll_wait, (int ep, struct epoll_event *ev, int max, int ms), (ep, ev, max, ms), epoll.c) \
	OWN(int, epoll_pwait, (int ep, struct epoll_event *ev, int max, int ms, const sigset_t *mask), \
	    (ep, ev, max, ms, mask), epoll.c) \
	OWN(int, epoll_pwait2, \
	    (int ep, struct epoll_event *ev, int max, const struct timespec *timeout, const sigset_t *mask), \
	    (ep, ev, max, timeout, mask), epoll.c) \
	/* signals */ \
	OWN(int, sigaction, (int sig, const struct sigaction *new, struct sigaction *old), (sig, new, old), signals.c) \
	SAME(__sigaction, sigaction) \
	NEW(sighandler_t, signal, (int sig, sighandler_t h), signals.c) \
	SAME(bsd_signal, signal) \
	SAME(ssignal, signal) \
	NEW(sighandler_t, sysv_signal, (int sig, sighandler_t h), signals.c) \
	SAME(__sysv_signal, sysv_signal) \
	NEW(int, siginterrupt, (int sig, int on), signals.c) \
	NEW(sighandler_t, sigset, (int sig, sighandler_t h), signals.c) \
	OWN(int, sigprocmask, (int how, const sigset_t *set, sigset_t *old), (how, set, old), masks.c) \
	OWN(int, pthread_sigmask, (int how, const sigset_t *set, sigset_t *old), (how, set, old), masks.c) \
	OWN(int, sigsuspend, (const sigset_t *mask), (mask), masks.c) \
	SAME(__sigsuspend, sigsuspend) \
	/* threads and libraries */ \
	OWN(int, pthread_create, (pthread_t *t, const pthread_attr_t *attr, void *(*fn)(void *), void *arg), \
	    (t, attr, fn, arg), threads.c) \
	OWN(int, thrd_create, (thrd_t *t, thrd_start_t fn, void *arg), (t, fn, arg), threads.c) \
	NEW(void *, dlopen, (const char *file, int flags), library.S) \
	NEW(void *, dlmopen, (Lmid_t space, const char *file, int flags), library.S) \
	/* stdio */ \
	OWN(FILE *, fdopen, (int fd, const char *mode), (fd, mode), stdio.c) \
	SAME(_IO_fdopen, fdopen) \
	OWN(int, fclose, (FILE *f), (f), stdio.c) \
	SAME(_IO_fclose, fclose) \
	OWN(FILE *, freopen, (const char *path, const char *mode, FILE *f), (path, mode, f), stdio.c) \
	OWN(FILE *, freopen64, (const char *path, const char *mode, FILE *f), (path, mode, f), stdio.c) \
	OWN(int, vdprintf, (int fd, const char *format, va_list ap), (fd, format, ap), stdio.c) \
	OWN(int, __vdprintf_chk, (int fd, int flag, const char *format, va_list ap), (fd, flag, format, ap), stdio.c) \
	NEW(int, dprintf, (int fd, const char *format, ...), stdio.c) \
	NEW(int, __dprintf_chk, (int fd, int flag, const char *format, ...), stdio.c) \
	OWN(int, sigtimedwait, (const sigset_t *set, siginfo_t *info, const struct timespec *timeout), \
	    (set, info, timeout), async.c) \
	OWN(int, sigwaitinfo, (const sigset_t *set, siginfo_t *info), (set, info), async.c) \
	/* cancellation */ \
	OWN(int, pthread_cancel, (pthread_t thread), (thread), cancel.c) \
	OWN(int, pthread_setcanceltype, (int type, int *old), (type, old), cancel.c) \
	/* processes */ \
	NEW(pid_t, vfork, (void), vfork.S) \
	SAME(__vfork, vfork) \
	OWN(pid_t, _Fork, (void), (), process.c) \
	OWN(int, clone, (int (*fn)(void *), void *stack, int flags, void *arg, pid_t *ptid, void *tls, pid_t *ctid), \
	    (fn, stack, flags, arg, ptid, tls, ctid), process.c) \
	SAME(__clone, clone) \
	NEW(int, daemon, (int nochdir, int noclose), process.c) \
	OWN(int, prctl, (int op, unsigned long a, unsigned long b, unsigned long c, unsigned long d), (op, a, b, c, d), \
	    sandbox.c) \
	OWN(int, setns, (int fd, int type), (fd, type), process.c) \
	OWN(int, unshare, (int flags), (flags), process.c) \
	OWN(int, setuid, (uid_t u), (u), process.c) \
	OWN(int, seteuid, (uid_t e), (e), process.c) \
	OWN(int, setreuid, (uid_t r, uid_t e), (r, e), process.c) \
	OWN(int, setresuid, (uid_t r, uid_t e, uid_t s), (r, e, s), process.c) \
	OWN(int, forkpty, (int *master, char *name, const struct termios *tio, const struct winsize *ws), \
	    (master, name, tio, ws), process.c) \
	OWN(int, posix_spawn, \
	    (pid_t *pid, const char *path, const posix_spawn_file_actions_t *acts, const posix_spawnattr_t *attr, \
	     char *const argv[], char *const envp[]), (pid, path, acts, attr, argv, envp), process.c) \
	OWN(int, posix_spawnp, \
	    (pid_t *pid, const char *file, const posix_spawn_file_actions_t *acts, const posix_spawnattr_t *attr, \
	     char *const argv[], char *const envp[]), (pid, file, acts, attr, argv, envp), process.c) \
	OWN(int, system, (const char *command), (command), shell.c) \
	OWN(FILE *, popen, (const char *command, const char *mode), (command, mode), shell.c) \
	SAME(_IO_popen, popen) \
	OWN(int, pclose, (FILE *f), (f), shell.c) \
	OWN(int, execve, (const char *path, char *const argv[], char *const envp[]), (path, argv, envp), exec.c) \
	OWN(int, execvpe, (const char *file, char *const argv[], char *const envp[]), (file, argv, envp), exec.c) \
	OWN(int, fexecve, (int fd, char *const argv[], char *const envp[]), (fd, argv, envp), exec.c) \
	OWN(int, execveat, (int dir, const char *path, char *const argv[], char *const envp[], int flags), \
	    (dir, path, argv, envp, flags), exec.c) \
	NEW(int, execv, (const char *path, char *const argv[]), exec.c) \
	NEW(int, execvp, (const char *file, char *const argv[]), exec.c) \
	NEW(int, execl, (const char *path, const char *arg, ...), exec.c) \
	NEW(int, execle, (const char *path, const char *arg, ...), exec.c) \
	NEW(int, execlp, (const char *file, const char *arg, ...), exec.c) \
	/* all of them again, by number */ \
	OWN(long, syscall, (long nr, long a, long b, long c, long d, long e, long f), (nr, a, b, c, d, e, f), syscall.c)
/* clang-format on */

#endif
