// SPDX-License-Identifier: MIT
/*
 * A whole echo server and its clients whose socket calls are `syscall` instructions of this program: plain, with epoll, in
 * threads, in forked children, around signal masks and alternate stacks.  Prints as the others do; under the interposer it
 * is run with TAS_RAW=catch.
 */
#include <dlfcn.h>
#include <pthread.h>
#include <sched.h>
#include <signal.h>
#include <sys/mman.h>
#include <sys/syscall.h>
#include <sys/time.h>
#include <sys/uio.h>

#include "say.h"

static __attribute__((noinline)) long raw(long nr, long a, long b, long c, long d, long e, long f)
{
	long r;
	register long r10 __asm__("r10") = d;
	register long r8 __asm__("r8") = e;
	register long r9 __asm__("r9") = f;

	__asm__ volatile("syscall"
			 : "=a"(r)
			 : "a"(nr), "D"(a), "S"(b), "d"(c), "r"(r10), "r"(r8), "r"(r9)
			 : "rcx", "r11", "memory");
	return r;
}
#define RAW(nr, ...) RAW_(nr, ##__VA_ARGS__, 0, 0, 0, 0, 0, 0)
#define RAW_(nr, a, b, c, d, e, f, ...) raw(SYS_##nr, (long)(a), (long)(b), (long)(c), (long)(d), (long)(e), (long)(f))
/* the same, printed as a call of libc's is */
#define SAYR(...) \
	({ \
		long v_ = (__VA_ARGS__); \
		say_result(__LINE__, #__VA_ARGS__, v_ < 0 ? -1 : v_, (int)-v_); \
		v_; \
	})

static int raw_listener(struct sockaddr_in *sin)
{
	int fd = (int)RAW(socket, AF_INET, SOCK_STREAM, 0), on = 1;
	socklen_t len = sizeof *sin;

	*sin = loopback(0);
	SAYR(RAW(setsockopt, fd, SOL_SOCKET, SO_REUSEADDR, &on, sizeof on));
	SAYR(RAW(bind, fd, sin, sizeof *sin));
	SAYR(RAW(listen, fd, 16));
	SAYR(RAW(getsockname, fd, sin, &len));
	return fd;
}

static int raw_connect(const struct sockaddr_in *to)
{
	int fd = (int)RAW(socket, AF_INET, SOCK_STREAM | SOCK_CLOEXEC, 0);

	if (RAW(connect, fd, to, sizeof *to) < 0)
		return -1;
	return fd;
}

/* ---- one connection, both ends ---- */
static void plain(void)
{
	struct sockaddr_in sin, peer;
	socklen_t len = sizeof peer;
	char buf[64] = "";
	int srv = raw_listener(&sin), c = raw_connect(&sin), s, type = 0;
	struct iovec iov[2] = {{"abc", 3}, {"def", 3}};
	struct msghdr msg = {.msg_iov = iov, .msg_iovlen = 2};

	s = (int)RAW(accept4, srv, &peer, &len, SOCK_CLOEXEC);
	SAYR(s >= 0);
	SAYR(RAW(write, c, "hello", 5));
	SAYR(RAW(read, s, buf, sizeof buf));
	SAY_TEXT(buf, 5);
	SAYR(RAW(sendmsg, s, &msg, 0));
	SAYR(RAW(recvfrom, c, buf, sizeof buf, MSG_PEEK, 0, 0));
	SAYR(RAW(readv, c, iov, 0));
	SAYR(RAW(recvfrom, c, buf, sizeof buf, 0, 0, 0));
	SAY_TEXT(buf, 6);
	SAYR(RAW(recvfrom, c, buf, sizeof buf, MSG_DONTWAIT, 0, 0));
	len = sizeof type;
	SAYR(RAW(getsockopt, c, SOL_SOCKET, SO_TYPE, &type, &len));
	SAYR(RAW(fcntl, c, F_GETFL));
	/* libc's calls and raw ones on the same socket */
	SAY(send(c, "mixed", 5, 0));
	SAYR(RAW(read, s, buf, sizeof buf));
	SAYR(RAW(shutdown, c, SHUT_WR));
	SAYR(RAW(read, s, buf, sizeof buf));
	SAYR(RAW(close, s));
	SAYR(RAW(read, c, buf, sizeof buf));
	SAYR(RAW(write, c, "x", 1));
	SAYR(RAW(close, c));
	SAYR(RAW(read, c, buf, sizeof buf));
	SAYR(RAW(close, srv));
	SAYR(RAW(read, 12345, buf, sizeof buf));
}

/* ---- epoll server in a thread, clients in threads ---- */
enum { CLIENTS = 8, ROUNDS = 200 };
static struct sockaddr_in where;
static volatile int stop;

static void *server(void *arg)
{
	int srv = *(int *)arg, ep = (int)RAW(epoll_create1, 0);
	struct epoll_event ev = {.events = EPOLLIN, .data.fd = srv}, evs[8];
	long handled = 0;

	RAW(fcntl, srv, F_SETFL, O_NONBLOCK);
	RAW(epoll_ctl, ep, EPOLL_CTL_ADD, srv, &ev);
	for (int open = 0, seen = 0; seen < CLIENTS || open;) {
		long n = RAW(epoll_pwait, ep, evs, 8, -1, 0, 8);

		for (long i = 0; i < n; i++) {
			char buf[512];
			long fd = evs[i].data.fd, r;

			if (fd == srv) {
				fd = RAW(accept4, srv, 0, 0, SOCK_NONBLOCK);
				if (fd < 0)
					continue;
				ev = (struct epoll_event){.events = EPOLLIN, .data.fd = (int)fd};
				RAW(epoll_ctl, ep, EPOLL_CTL_ADD, fd, &ev);
				seen++;
				open++;
				continue;
			}
			r = RAW(read, fd, buf, sizeof buf);
			if (r > 0) {
				RAW(write, fd, buf, r);
				handled += r;
			} else if (r == 0) {
				RAW(close, fd);
				open--;
			}
		}
	}
	RAW(close, ep);
	return (void *)handled;
}

static void *client(void *arg)
{
	int fd = raw_connect(&where);
	char line[32], back[32];
	long good = 0;

	(void)arg;
	for (int i = 0; i < ROUNDS; i++) {
		int n = snprintf(line, sizeof line, "line %d\n", i);
		long got = 0, r = 1;

		RAW(write, fd, line, n);
		while (got < n && (r = RAW(read, fd, back + got, n - got)) > 0)
			got += r;
		good += got == n && !memcmp(line, back, (size_t)n);
	}
	RAW(close, fd);
	return (void *)good;
}

static void threads(void)
{
	pthread_t t[CLIENTS], st;
	int srv = raw_listener(&where);
	void *r;
	long sum = 0;

	pthread_create(&st, NULL, server, &srv);
	for (int i = 0; i < CLIENTS; i++)
		pthread_create(&t[i], NULL, client, NULL);
	for (int i = 0; i < CLIENTS; i++) {
		pthread_join(t[i], &r);
		sum += (long)r;
	}
	SAYR(sum);
	pthread_join(st, &r);
	SAYR((long)r);
	RAW(close, srv);
}

/* ---- processes: fork of libc and by system call, vfork, clone with a stack ---- */
static void child_talks(int srv, const char *how)
{
	char buf[32] = "";
	int s = (int)RAW(accept, srv, 0, 0);
	long n = RAW(read, s, buf, sizeof buf);

	printf("%s: %ld \"%s\"\n", how, n, buf);
	fflush(stdout);
	RAW(write, s, "from parent", 11);
	RAW(close, s);
}

static int child(void *arg)
{
	char buf[32] = "";
	int c = raw_connect(&where);
	long n;

	(void)arg;
	RAW(write, c, "from child", 10);
	n = RAW(read, c, buf, sizeof buf);
	return n == 11 && !memcmp(buf, "from parent", 11) ? 7 : 1;
}

static int shared;
static int shares(void *arg)
{
	shared = *(int *)arg;
	RAW(exit, 3);
	return 0;
}

static void processes(void)
{
	int srv = raw_listener(&where), status, value = 11;
	long pid;

	pid = fork();
	if (!pid)
		_exit(child(NULL));
	child_talks(srv, "fork");
	waitpid((pid_t)pid, &status, 0);
	SAYR(WEXITSTATUS(status));
	pid = RAW(fork);
	if (!pid)
		RAW(exit_group, child(NULL));
	child_talks(srv, "raw fork");
	RAW(wait4, pid, &status, 0, 0);
	SAYR(WEXITSTATUS(status));
	pid = RAW(clone, SIGCHLD, 0, 0, 0, 0);
	if (!pid)
		RAW(exit_group, child(NULL));
	child_talks(srv, "raw clone");
	RAW(wait4, pid, &status, 0, 0);
	SAYR(WEXITSTATUS(status));
	pid = clone(shares, (char *)mmap(NULL, 65536, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0) + 65536,
		    CLONE_VM | SIGCHLD, &value);
	RAW(wait4, pid, &status, 0, 0);
	SAYR(shared);
	SAYR(WEXITSTATUS(status));
	pid = vfork();
	if (!pid)
		_exit(5);
	RAW(wait4, pid, &status, 0, 0);
	SAYR(WEXITSTATUS(status));
	SAY(system("exit 6") >> 8);
	RAW(close, srv);
}

/* A vfork by system call: the child's exit must not disturb our stack, so it is all assembly. */
static __attribute__((noinline)) long raw_vfork_exits(void)
{
	long pid;

	__asm__ volatile("mov $58, %%eax\n\tsyscall\n\ttest %%rax, %%rax\n\tjnz 1f\n\t"
			 "mov $9, %%edi\n\tmov $231, %%eax\n\tsyscall\n1:"
			 : "=a"(pid)
			 :
			 : "rcx", "r11", "rdi", "memory", "cc");
	return pid;
}

/* ---- signals ---- */
static volatile int handled;
static void on_usr1(int sig)
{
	char b[8];

	/* raw calls work in a handler, whatever it blocks */
	handled += sig == SIGUSR1 && RAW(read, 12345, b, 8) == -EBADF;
}

static void signals(void)
{
	struct sigaction sa = {.sa_handler = on_usr1};
	uint64_t all = ~0ull, old = 0;
	static char stack[65536];
	stack_t ss = {.ss_sp = stack, .ss_size = sizeof stack}, was = {0};
	struct sockaddr_in sin;
	int srv, c, s, status;
	char b[8];
	long pid;

	sigfillset(&sa.sa_mask);
	SAY(sigaction(SIGUSR1, &sa, NULL));
	SAYR(RAW(kill, getpid(), SIGUSR1));
	SAYR(handled);
	sigset_t every;

	sigfillset(&every);
	SAY(sigprocmask(SIG_BLOCK, &every, NULL));
	SAYR(RAW(kill, getpid(), SIGUSR1));
	SAYR(handled);
	SAYR(RAW(rt_sigprocmask, SIG_UNBLOCK, &all, &old, 8));
	SAYR(handled);
	SAYR((old >> (SIGUSR1 - 1)) & 1);
	SAYR(RAW(rt_sigprocmask, SIG_BLOCK, &all, 0, 8));
	SAYR(RAW(getppid) > 0);
	SAYR(RAW(rt_sigprocmask, SIG_SETMASK, &(uint64_t){0}, &old, 8));
	SAYR((old >> (SIGUSR1 - 1)) & 1);
	SAYR(RAW(rt_sigprocmask, SIG_SETMASK, 0, &old, 8));
	SAYR((long)old);
	SAYR(RAW(rt_sigprocmask, 77, &all, &old, 8));
	SAYR(RAW(rt_sigprocmask, SIG_BLOCK, &all, &old, 16));
	SAYR(RAW(sigaltstack, &ss, &was));
	SAYR(was.ss_flags);
	sa.sa_flags = SA_ONSTACK;
	SAY(sigaction(SIGUSR1, &sa, NULL));
	SAYR(RAW(kill, getpid(), SIGUSR1));
	SAYR(handled);
	SAY(sigaltstack(NULL, &was));
	SAYR(was.ss_sp == stack && was.ss_size == sizeof stack);
	ss.ss_flags = SS_DISABLE;
	SAYR(RAW(sigaltstack, &ss, 0));
	SAY(sigaltstack(NULL, &was));
	SAYR(was.ss_flags);
	/* a handler interrupts a raw read that waits */
	srv = raw_listener(&sin);
	c = raw_connect(&sin);
	s = (int)RAW(accept, srv, 0, 0);
	pid = fork();
	if (!pid) {
		for (int i = 0; i < 200; i++) { /* the first may come before the read waits */
			usleep(50000);
			RAW(kill, getppid(), SIGUSR1);
		}
		RAW(exit_group, 0);
	}
	SAYR(RAW(read, s, b, sizeof b));
	RAW(kill, pid, SIGKILL);
	RAW(wait4, pid, &status, 0, 0);
	SAYR(handled > 3);
	RAW(close, c);
	SAYR(RAW(read, s, b, sizeof b));
	RAW(close, s);
	RAW(close, srv);
	pid = raw_vfork_exits();
	RAW(wait4, pid, &status, 0, 0);
	SAYR(WEXITSTATUS(status));
}

/* For the report: raw calls on sockets that libc's calls connected, then wait to be looked at. */
static int hold(void)
{
	char b[8];
	int s[2];

	tcp_pair(s);
	for (int i = 0; i < 5; i++)
		printf("write %ld\n", RAW(write, s[0], "x", 1));
	printf("recvfrom %ld\n", RAW(recvfrom, s[1], b, 8, MSG_DONTWAIT, 0, 0));
	fflush(stdout);
	return read(0, b, 1) < 0;
}

/* A library that asks for its own libc's names first still gets ours: its connection is the caller's to see. */
static int deep(const char *path)
{
	int (*pair)(int *), s[2];
	void *lib = dlopen(path, RTLD_NOW | RTLD_DEEPBIND);

	if (!lib) {
		puts(dlerror());
		return 1;
	}
	pair = (int (*)(int *))dlsym(lib, "early_pair");
	return !pair || pair(s) || send(s[0], "x", 1, 0) != 1 || recv(s[1], s, 1, 0) != 1;
}

static int ring(void)
{
	char params[256] = "";
	int s[2], fd;

	fd = (int)syscall(SYS_io_uring_setup, 2, params);
	printf("before %d\n", fd < 0 ? errno : 0);
	tcp_pair(s);
	memset(params, 0, sizeof params);
	fd = (int)syscall(SYS_io_uring_setup, 2, params);
	printf("after %d\n", fd < 0 ? errno : 0);
	return 0;
}

long bare(void);
__asm__(".text\n\t.p2align 4\n\t.type bare, @function\nbare:\n\t.cfi_startproc\n\tsyscall\n\tret\n\t.cfi_endproc\n\t"
	".size bare, . - bare\n\t.p2align 4");

/* A call site that is busy is rewritten: it is no `syscall` any more, and nothing but %rax, %rcx and %r11 differs after it. */
static __attribute__((noinline)) long kept_by(long nr, long a, uint64_t *differs)
{
	uint64_t before[12] = {1, 2, 3, 4, 5, 6, 7, 8, 9, 10, 11, 12}, after[12] = {0};
	long r;

	register uint64_t *in __asm__("r14") = before, *out __asm__("r15") = after;

	__asm__ volatile("sub $256, %%rsp\n\t"
			 "movdqu (%%r14), %%xmm0\n\tmovdqu 16(%%r14), %%xmm7\n\tmovdqu 32(%%r14), %%xmm15\n\t"
			 "mov $21, %%esi\n\tmov $22, %%edx\n\tmov $23, %%r8d\n\tmov $24, %%r9d\n\tmov $25, %%r10d\n\t"
			 "mov $26, %%r12d\n\tmov $27, %%r13d\n\tmovq $28, -8(%%rsp)\n\tmovq $29, -128(%%rsp)\n\t"
			 "std\n\tstc\n\t"
			 "call bare\n\t"
			 "setc 80(%%r15)\n\tpushf\n\tcld\n\tpop %%rcx\n\tmov %%rcx, 88(%%r15)\n\t"
			 "mov %%rsi, 48(%%r15)\n\tadd %%rdx, 48(%%r15)\n\tadd %%r8, 48(%%r15)\n\tadd %%r9, 48(%%r15)\n\t"
			 "add %%r10, 48(%%r15)\n\tmov %%r12, 56(%%r15)\n\tmov %%r13, 64(%%r15)\n\t"
			 "mov -128(%%rsp), %%rcx\n\tmov %%rcx, 72(%%r15)\n\t"
			 "movdqu %%xmm0, (%%r15)\n\tmovdqu %%xmm7, 16(%%r15)\n\tmovdqu %%xmm15, 32(%%r15)\n\t"
			 "add $256, %%rsp"
			 : "=a"(r), "+D"(a), "+r"(in), "+r"(out)
			 : "a"(nr)
			 : "rcx", "r11", "rsi", "rdx", "r8", "r9", "r10", "r12", "r13", "xmm0", "xmm7", "xmm15", "memory", "cc");
	*differs = 0;
	for (int i = 0; i < 6; i++)
		*differs |= after[i] ^ before[i];
	*differs |= after[6] ^ (21 + 22 + 23 + 24 + 25);
	*differs |= after[7] ^ 26;
	*differs |= after[8] ^ 27;
	*differs |= after[9] ^ 29; /* what the program keeps below its stack pointer */
	*differs |= after[10] ^ 1;
	*differs |= (after[11] & 0x400) ^ 0x400; /* the direction flag */
	return r;
}

static volatile int ticks;
static void on_tick(int sig)
{
	/* between any two instructions of the way that a rewritten site takes */
	ticks += sig == SIGALRM && raw(SYS_getpid, 0, 0, 0, 0, 0, 0) == getpid();
}

static const uint8_t *site_in(const void *function)
{
	for (const uint8_t *p = function; p < (const uint8_t *)function + 64; p++)
		if (p[0] == 0x0f && p[1] == 0x05)
			return p;
	return NULL;
}

static int rewritten(void)
{
	const uint8_t *const site = site_in((void *)raw), *const second = site_in((void *)bare);
	struct itimerval every = {{0, 200}, {0, 200}}, never = {{0, 0}, {0, 0}};
	uint64_t differs, any = 0;
	long good = 0;
	int s[2];
	char c;

	tcp_pair(s);
	signal(SIGALRM, on_tick);
	setitimer(ITIMER_REAL, &every, NULL);
	for (int i = 0; i < 20000; i++) {
		good += RAW(write, s[0], "x", 1) == 1 && RAW(read, s[1], &c, 1) == 1;
		good += kept_by(SYS_close, 12345, &differs) == -EBADF;
		any |= differs;
	}
	setitimer(ITIMER_REAL, &never, NULL);
	printf("good %ld differs %lx ticks %d\n", good, (long)any, ticks > 10);
	printf("sites %02x%02x %02x%02x\n", site[0], site[1], second[0], second[1]);
	threads();
	return 0;
}

int main(int argc, char **argv)
{
	signal(SIGPIPE, SIG_IGN);
	if (argc > 1 && !strcmp(argv[1], "rewritten"))
		return rewritten();
	if (argc > 1 && !strcmp(argv[1], "hold"))
		return hold();
	if (argc > 1 && !strcmp(argv[1], "ring"))
		return ring();
	if (argc > 2)
		return deep(argv[2]);
	plain();
	threads();
	processes();
	signals();
	return 0;
}
