// SPDX-License-Identifier: MIT
/*
 * Programs that confine themselves with seccomp after they have their sockets.  The lists are those of docs/interposer.md
 * ("Confined programs"): what using sockets takes, and what making more takes.  Anything else kills.
 */
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>
#include <sys/prctl.h>
#include <sys/resource.h>
#include <sys/syscall.h>

#include "say.h"

/* What the library itself makes of calls on sockets that are there. */
#define USING \
	SYS_futex, SYS_futex_waitv, SYS_ppoll, SYS_read, SYS_write, SYS_sched_yield, SYS_clock_gettime, SYS_nanosleep, \
		SYS_gettid, SYS_getpid, SYS_tgkill, SYS_rt_sigprocmask, SYS_getsockopt, SYS_fcntl, SYS_sendmsg, \
		SYS_recvmsg, SYS_eventfd2, SYS_prlimit64, SYS_mmap, SYS_munmap, SYS_fstat, SYS_close
/* Besides: sockets are made, listen, connect; sets are made. */
#define MAKING \
	SYS_socket, SYS_bind, SYS_listen, SYS_accept4, SYS_connect, SYS_getsockname, SYS_setsockopt, SYS_dup, SYS_dup3, \
		SYS_epoll_create1, SYS_epoll_ctl, SYS_epoll_pwait, SYS_epoll_pwait2, SYS_openat
/* What a program of one connection needs, as sshd has it: the library has to do with that. */
#define LEAST \
	SYS_futex, SYS_ppoll, SYS_read, SYS_write, SYS_clock_gettime, SYS_nanosleep, SYS_gettid, SYS_getpid, \
		SYS_rt_sigprocmask, SYS_mmap, SYS_munmap, SYS_close
/* Of the program and of libc. */
#define PROGRAM SYS_exit_group, SYS_newfstatat, SYS_brk, SYS_rt_sigreturn, SYS_rt_sigaction, SYS_clock_nanosleep, SYS_getrandom
/* The same calls on the kernel's sockets. */
#define KERNEL \
	SYS_poll, SYS_recvfrom, SYS_sendto, SYS_readv, SYS_writev, SYS_shutdown, SYS_accept, SYS_getpeername, SYS_epoll_wait, \
		SYS_ioctl, SYS_select, SYS_pselect6

static void confine(const int *list, size_t n)
{
	struct sock_filter f[128];
	struct sock_fprog prog = {.filter = f};
	unsigned short k = 0;

	f[k++] = (struct sock_filter)BPF_STMT(BPF_LD | BPF_W | BPF_ABS, offsetof(struct seccomp_data, nr));
	for (size_t i = 0; i < n; i++) {
		f[k++] = (struct sock_filter)BPF_JUMP(BPF_JMP | BPF_JEQ | BPF_K, (unsigned)list[i], 0, 1);
		f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW);
	}
	f[k++] = (struct sock_filter)BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_KILL_PROCESS);
	prog.len = k;
	if (prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) || prctl(PR_SET_SECCOMP, SECCOMP_MODE_FILTER, &prog))
		perror("seccomp");
}

/* Echoes until the far end closes. */
static pid_t echo_process(int fd, int other)
{
	char buf[4096];
	ssize_t n;
	pid_t pid = fork();

	if (pid)
		return pid;
	close(other);
	while ((n = read(fd, buf, sizeof buf)) > 0) {
		usleep(20000);
		if (write(fd, buf, (size_t)n) != n)
			break;
	}
	_exit(0);
}

static int count_to(int fd, int total)
{
	static char buf[65536];
	int n = 0;

	while (n < total) {
		ssize_t r = read(fd, buf, sizeof buf);

		if (r <= 0)
			break;
		n += (int)r;
	}
	return n;
}

static char big[200000];

/* There and back, and every way to wait. */
static void exchange(int fd, int flags)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};
	fd_set r;
	int n = 0;

	for (int i = 0; i < 20; i++)
		n += write(fd, big, 2000) == 2000 && count_to(fd, 2000) == 2000;
	SAY(n);
	SAY(poll(&p, 1, 10));
	SAY(write(fd, "x", 1));
	SAY(poll(&p, 1, -1));
	if (flags)
		SAY(recv(fd, big, 1, flags));
	FD_ZERO(&r);
	FD_SET(fd, &r);
	SAY(select(fd + 1, &r, NULL, NULL, NULL));
	SAY(count_to(fd, 1));
}

static void use(int fd)
{
	exchange(fd, MSG_PEEK);
	SAY(fcntl(fd, F_SETFL, O_NONBLOCK));
	SAY(read(fd, big, 1));
	SAY(fcntl(fd, F_SETFL, 0));
	SAY(shutdown(fd, SHUT_WR));
	SAY(count_to(fd, 1));
	SAY(close(fd));
}

static void use_with_least(int fd)
{
	struct pollfd p = {.fd = fd, .events = POLLIN};

	exchange(fd, 0);
	SAY(write(fd, big, 100000));
	SAY(count_to(fd, 100000));
	SAY(shutdown(fd, SHUT_WR));
	SAY(poll(&p, 1, -1));
	SAY(count_to(fd, 1));
	SAY(close(fd));
}

static void make(struct sockaddr_in *sin, int lfd)
{
	struct epoll_event ev = {.events = EPOLLIN};
	int a = SAY(socket(AF_INET, SOCK_STREAM, 0)) >= 0 ? socket(AF_INET, SOCK_STREAM, 0) : -1, b, ep, on = 1;

	SAY(setsockopt(a, IPPROTO_TCP, TCP_NODELAY, &on, sizeof on));
	SAY(connect(a, (struct sockaddr *)sin, sizeof *sin));
	b = accept(lfd, NULL, NULL);
	SAY(write(a, "hello", 5));
	ep = epoll_create1(0);
	SAY(epoll_ctl(ep, EPOLL_CTL_ADD, b, &ev));
	SAY(epoll_wait(ep, &ev, 1, -1));
	SAY(count_to(b, 5));
	SAY(epoll_wait(ep, &ev, 1, 1));
	SAY(close(a));
	SAY(epoll_wait(ep, &ev, 1, -1));
	SAY(count_to(b, 1));
	SAY(close(b));
	b = listener(sin);
	a = socket(AF_INET, SOCK_STREAM, 0);
	SAY(connect(a, (struct sockaddr *)sin, sizeof *sin));
	SAY(close(a));
	SAY(close(b));
}

int main(void)
{
	static const int using[] = {USING, PROGRAM, KERNEL}, making[] = {USING, MAKING, PROGRAM, KERNEL};
	static const int least[] = {LEAST, PROGRAM, KERNEL};
	static const struct rlimit one = {1, 1};
	struct sockaddr_in sin;
	int lfd = listener(&sin), s[2];
	pid_t pid, echo;

	for (int level = 0; level < 3; level++) {
		tcp_pair(s);
		echo = echo_process(s[1], s[0]);
		close(s[1]);
		pid = fork();
		if (!pid) {
			if (level == 2) {
				SAY(setrlimit(RLIMIT_NOFILE, &one)); /* poll with one number more is EINVAL */
				confine(least, sizeof least / sizeof least[0]);
			} else if (level) {
				confine(making, sizeof making / sizeof making[0]);
			} else {
				confine(using, sizeof using / sizeof using[0]);
			}
			if (level == 2)
				use_with_least(s[0]);
			else
				use(s[0]);
			if (level == 1)
				make(&sin, lfd);
			fflush(stdout);
			_exit(0);
		}
		close(s[0]);
		SAY(wait_status(pid));
		SAY(wait_status(echo));
	}
	return 0;
}
