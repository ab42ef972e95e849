/* SPDX-License-Identifier: MIT */
/*
 * libtas_sockets: POSIX sockets, poll, select and epoll over TAS.
 *
 * Every function takes the arguments of the libc function of its name and returns its result, or -errno (it never touches
 * errno).  Descriptors are real kernel descriptors; a function may be called with any descriptor of the process: what is
 * not a TAS socket goes to the kernel by a raw system call.  (The interposer calls these only for numbers that
 * tas_fd_is_kernel() does not rule out, so that kernel descriptors take libc's own path.)
 *
 * A TAS socket begins as a kernel TCP socket and becomes one of TAS at connect() or listen(), when the address is TAS's.
 * Environment: TAS_SOCKET (path of the control socket), TAS_REQUIRE=1 (an error instead of falling back to the kernel),
 * TAS_LOG=1 (say on stderr why a socket fell back).
 */
#ifndef TAS_SOCKETS_H
#define TAS_SOCKETS_H

#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <stdbool.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/select.h>
#include <sys/socket.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <time.h>

#define TAS_PUBLIC __attribute__((visibility("default")))

#ifdef __cplusplus
extern "C" {
#endif

/* ---- number table ----
 * One byte of knowledge per descriptor number.  In a process without the interposer numbers can change behind the table's
 * back, so tas_table_trust(false) (the default) makes every lookup verify the socket's identity. */
enum tas_fd_state {
	TAS_FD_UNKNOWN = 0,  /* not looked at yet (inherited, received): the first use asks */
	TAS_FD_KERNEL = 1,   /* none of ours */
	TAS_FD_PLAIN = 2,    /* kernel TCP socket that may become TAS (not connected, not listening) */
	TAS_FD_TAS = 3,      /* TAS listener or connection */
	TAS_FD_EPOLL = 4,    /* epoll set that may have TAS members */
	TAS_FD_INTERNAL = 5, /* the library's own: the program may not close or use it */
};
#define TAS_FD_TABLE_MAX (1u << 20)
extern TAS_PUBLIC uint8_t *tas_fd_states; /* TAS_FD_TABLE_MAX entries; numbers beyond are kernel's */

/* True: fd is certainly not TAS's business, for read, write, poll and the like.  The hot check: two instructions and a load. */
static inline bool tas_fd_is_kernel(int fd)
{
	return (unsigned)fd >= TAS_FD_TABLE_MAX || __atomic_load_n(&tas_fd_states[fd], __ATOMIC_RELAXED) == TAS_FD_KERNEL;
}

/* Called once, early; safe to call again.  The interposer passes trust = true: it sees every close, and calls the
 * tas_note_* functions. */
TAS_PUBLIC void tas_init(bool trust);

/* ---- sockets ---- */
TAS_PUBLIC int tas_socket(int domain, int type, int protocol);
TAS_PUBLIC int tas_bind(int fd, const struct sockaddr *addr, socklen_t len);
TAS_PUBLIC int tas_listen(int fd, int backlog);
TAS_PUBLIC int tas_accept4(int fd, struct sockaddr *addr, socklen_t *len, int flags);
TAS_PUBLIC int tas_connect(int fd, const struct sockaddr *addr, socklen_t len);
TAS_PUBLIC int tas_shutdown(int fd, int how);
TAS_PUBLIC int tas_close(int fd);
TAS_PUBLIC int tas_close_range(unsigned first, unsigned last, int flags);
TAS_PUBLIC int tas_getsockname(int fd, struct sockaddr *addr, socklen_t *len);
TAS_PUBLIC int tas_getpeername(int fd, struct sockaddr *addr, socklen_t *len);
TAS_PUBLIC int tas_getsockopt(int fd, int level, int name, void *val, socklen_t *len);
TAS_PUBLIC int tas_setsockopt(int fd, int level, int name, const void *val, socklen_t len);

TAS_PUBLIC ssize_t tas_recvfrom(int fd, void *buf, size_t n, int flags, struct sockaddr *addr, socklen_t *len);
TAS_PUBLIC ssize_t tas_sendto(int fd, const void *buf, size_t n, int flags, const struct sockaddr *addr, socklen_t len);
TAS_PUBLIC ssize_t tas_recvmsg(int fd, struct msghdr *msg, int flags);
TAS_PUBLIC ssize_t tas_sendmsg(int fd, const struct msghdr *msg, int flags);
TAS_PUBLIC int tas_recvmmsg(int fd, struct mmsghdr *vec, unsigned n, int flags, struct timespec *timeout);
TAS_PUBLIC int tas_sendmmsg(int fd, struct mmsghdr *vec, unsigned n, int flags);
/* read, write and relatives: flags as for recvmsg, but a socket write (SIGPIPE included) */
TAS_PUBLIC ssize_t tas_read(int fd, void *buf, size_t n);
TAS_PUBLIC ssize_t tas_write(int fd, const void *buf, size_t n);
TAS_PUBLIC ssize_t tas_readv(int fd, const struct iovec *iov, int n);
TAS_PUBLIC ssize_t tas_writev(int fd, const struct iovec *iov, int n);
TAS_PUBLIC ssize_t tas_sendfile(int out, int in, off64_t *off, size_t n);
/* What is in a pipe to a socket, and what is in a socket to a pipe, without a buffer in between.  -ENODATA: the pipe has nothing, or no
 * room; -EOPNOTSUPP: not with this pipe, this kernel or this number. */
TAS_PUBLIC ssize_t tas_from_pipe(int out, int in, size_t n, int flags);
TAS_PUBLIC ssize_t tas_to_pipe(int in, int out, size_t n, int flags);

TAS_PUBLIC int tas_dup(int fd);
TAS_PUBLIC int tas_dup2(int fd, int to);
TAS_PUBLIC int tas_dup3(int fd, int to, int flags);
TAS_PUBLIC int tas_fcntl(int fd, int cmd, unsigned long arg);
TAS_PUBLIC int tas_ioctl(int fd, unsigned long request, void *arg);

/* ---- waiting ---- */
TAS_PUBLIC int tas_ppoll(struct pollfd *fds, nfds_t n, const struct timespec *timeout, const sigset_t *mask);
TAS_PUBLIC int tas_pselect(int n, fd_set *r, fd_set *w, fd_set *e, const struct timespec *timeout, const sigset_t *mask);
TAS_PUBLIC int tas_epoll_create1(int flags);
TAS_PUBLIC int tas_epoll_ctl(int ep, int op, int fd, struct epoll_event *ev);
TAS_PUBLIC int tas_epoll_pwait2(int ep, struct epoll_event *ev, int max, const struct timespec *timeout, const sigset_t *mask);

/* ---- for the interposer ---- */
/* A descriptor that fd holds was dropped without tas_close (libc's own close in fclose, freopen, daemon …): call before. */
TAS_PUBLIC void tas_note_close(int fd);
/* Number fd may now be anything (received, made by a call we do not know). */
TAS_PUBLIC void tas_note_unknown(int fd);
/* The set of number ep if the kernel, asked alone, knows all of it: no member of TAS has been in it, and no other process can have
 * put one in.  It may change at any time, so events that the kernel gave go through tas_epoll_programs(): how many of n remain. */
struct tas_ep;
TAS_PUBLIC struct tas_ep *tas_epoll_kernels_own(int ep);
TAS_PUBLIC int tas_epoll_programs(struct tas_ep *set, int ep, struct epoll_event *ev, int n);
/* True: another kernel member is no news for the set. */
TAS_PUBLIC bool tas_epoll_has_kernel(int ep);
/* fork is handled by pthread_atfork.  These are what its handlers do, for processes made without them (clone, _Fork). */
TAS_PUBLIC void tas_fork_prepare(void);
TAS_PUBLIC void tas_fork_parent(void);
TAS_PUBLIC void tas_fork_child(void);
/* Before vfork, posix_spawn, system, popen: every TAS socket of this process may reach
 * another program; tells the service to watch their last close.  Cheap when there are none. */
TAS_PUBLIC void tas_before_spawn(void);
/* Around execve in a process of our own (never in a vfork child).  After a failed exec call tas_exec_failed(). */
TAS_PUBLIC void tas_before_exec(void);
TAS_PUBLIC void tas_exec_failed(void);
/* Before an exec of a program that cannot have the library (static, set-user-ID): the connections of TAS among the numbers that
 * survive are replaced by streams that the service carries.  May be called in a vfork child.  If the exec fails, cancel. */
struct tas_bridges {
	int ctl; /* -1: there was nothing to do */
	unsigned n;
	int fd[64], saved[64];
};
TAS_PUBLIC void tas_bridge(struct tas_bridges *b);
TAS_PUBLIC void tas_bridge_cancel(struct tas_bridges *b);
/* True if the process holds a TAS socket that would survive an exec; or any TAS socket. */
TAS_PUBLIC bool tas_exec_keeps_sockets(void);
TAS_PUBLIC bool tas_has_sockets(void);
/* The same, asked of the kernel: for a vfork child.  An unconnected socket of the kernel's counts as well. */
TAS_PUBLIC bool tas_may_hold_sockets(void);
/* Before a seccomp filter: what could not be asked or made under it is asked and made; gives what to hand to
 * tas_filter_set() once the filter is in force.  The library does not try what it forbids. */
struct sock_fprog;
TAS_PUBLIC uint32_t tas_before_filter(const struct sock_fprog *prog);
TAS_PUBLIC void tas_filter_set(uint32_t forbidden);
/* Before the process confines itself: it asks the service for nothing more through shared memory. */
TAS_PUBLIC void tas_confining(void);
/* A thread went to another network namespace (setns, unshare), or the process to another user. */
TAS_PUBLIC void tas_identity_changed(bool netns);
/* A handler of the program is about to run on this thread; interrupts: it was installed without SA_RESTART.
 * Async-signal-safe. */
TAS_PUBLIC void tas_signal_ran(bool interrupts);
/* Every handler of the program runs behind a trampoline that asks tas_signal_defer() first: from now on calls do not block
 * signals.  True: the handler must not run now; the signal will come again, and the trampoline returns.  Async-signal-safe. */
TAS_PUBLIC void tas_signals_deferred(void);
TAS_PUBLIC bool tas_signal_defer(int sig, const siginfo_t *info, void *context);
/* pthread_cancel, given libc's: wakes the thread where it sleeps in one of our calls, which then returns -ECANCELED and has
 * given up what it held.  The wrapper that sees this goes to tas_cancel_point(), which returns only where there is nothing to
 * act on.  The thread's cancellation type must be PTHREAD_CANCEL_DEFERRED during our calls. */
/* What the library's own sender had to write otherwise in the information of a signal (SIGIO), put right. */
TAS_PUBLIC void tas_signal_info(int sig, siginfo_t *info);
TAS_PUBLIC int tas_cancel(pthread_t thread, int (*libc_cancel)(pthread_t));
TAS_PUBLIC void tas_cancel_point(void);
/* True once the process has attached to a service. */
TAS_PUBLIC bool tas_attached(void);

#ifdef __cplusplus
}
#endif
#endif
