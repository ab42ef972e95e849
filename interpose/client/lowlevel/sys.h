/* SPDX-License-Identifier: MIT */
/*
 * Raw system calls.
 *
 * The client libraries never go through libc's socket and file calls: those may be the interposer's own wrappers, they
 * may be somebody else's preload, and they touch errno.  Everything here returns the result or -errno, is
 * async-signal-safe, and is no cancellation point.
 *
 * Where the kernel is asked to catch system calls (the interposer's TAS_RAW), ours have to be made from code that it
 * lets through: tas__gate is that code, NULL otherwise.
 */
#ifndef TAS_SYS_H
#define TAS_SYS_H

#include <errno.h>
#include <fcntl.h>
#include <linux/futex.h>
#include <poll.h>
#include <signal.h>
#include <stdatomic.h>
#include <stddef.h>
#include <stdint.h>
#include <sys/epoll.h>
#include <sys/mman.h>
#include <sys/resource.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <sys/uio.h>
#include <time.h>

#ifndef __x86_64__
#error "raw system calls are written for x86-64"
#endif

extern __attribute__((visibility("default"))) long (*tas__gate)(long nr, long a, long b, long c, long d, long e, long f);

static inline long sys6(long nr, long a, long b, long c, long d, long e, long f)
{
	if (__builtin_expect(tas__gate != NULL, 0))
		return tas__gate(nr, a, b, c, d, e, f);

	long ret;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(ret)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return ret;
}

#define SYS_P(p) ((long)(uintptr_t)(p))
#define sys0(nr) sys6(nr, 0, 0, 0, 0, 0, 0)
#define sys1(nr, a) sys6(nr, (long)(a), 0, 0, 0, 0, 0)
#define sys2(nr, a, b) sys6(nr, (long)(a), (long)(b), 0, 0, 0, 0)
#define sys3(nr, a, b, c) sys6(nr, (long)(a), (long)(b), (long)(c), 0, 0, 0)
#define sys4(nr, a, b, c, d) sys6(nr, (long)(a), (long)(b), (long)(c), (long)(d), 0, 0)
#define sys5(nr, a, b, c, d, e) sys6(nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), 0)

static inline int sys_close(int fd)
{
	return (int)sys1(SYS_close, fd);
}

static inline ssize_t sys_read(int fd, void *p, size_t n)
{
	return sys3(SYS_read, fd, SYS_P(p), n);
}

static inline ssize_t sys_write(int fd, const void *p, size_t n)
{
	return sys3(SYS_write, fd, SYS_P(p), n);
}

static inline int sys_fcntl(int fd, int cmd, unsigned long arg)
{
	return (int)sys3(SYS_fcntl, fd, cmd, arg);
}

static inline int sys_ioctl(int fd, unsigned long req, void *arg)
{
	return (int)sys3(SYS_ioctl, fd, req, SYS_P(arg));
}

static inline int sys_socket(int domain, int type, int protocol)
{
	return (int)sys3(SYS_socket, domain, type, protocol);
}

static inline int sys_getsockopt(int fd, int level, int name, void *val, socklen_t *len)
{
	return (int)sys5(SYS_getsockopt, fd, level, name, SYS_P(val), SYS_P(len));
}

static inline int sys_setsockopt(int fd, int level, int name, const void *val, socklen_t len)
{
	return (int)sys5(SYS_setsockopt, fd, level, name, SYS_P(val), len);
}

static inline int sys_getsockname(int fd, void *addr, socklen_t *len)
{
	return (int)sys3(SYS_getsockname, fd, SYS_P(addr), SYS_P(len));
}

static inline int sys_fstat(int fd, struct stat *st)
{
	return (int)sys2(SYS_fstat, fd, SYS_P(st));
}

static inline int sys_ppoll(struct pollfd *p, unsigned long n, struct timespec *ts, const sigset_t *mask)
{
	/* the kernel's signal set is 8 bytes; it writes the remaining time back into ts */
	return (int)sys5(SYS_ppoll, SYS_P(p), n, SYS_P(ts), SYS_P(mask), 8);
}

static inline int sys_futex(_Atomic uint32_t *w, int op, uint32_t val, const struct timespec *ts)
{
	return (int)sys4(SYS_futex, SYS_P(w), op, val, SYS_P(ts));
}

/* NULL on failure: every caller falls back, none needs the reason */
static inline void *sys_mmap(void *at, size_t n, int prot, int flags, int fd)
{
	long r = sys6(SYS_mmap, SYS_P(at), (long)n, prot, flags, fd, 0);

	return r < 0 && r > -4096 ? NULL : (void *)r;
}

static inline void sys_munmap(void *p, size_t n)
{
	sys2(SYS_munmap, SYS_P(p), n);
}

#endif
