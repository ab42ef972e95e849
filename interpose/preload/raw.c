// SPDX-License-Identifier: MIT
/*
 * System calls that pass libc by: `syscall` instructions of the program's own (Go, assembly, libraries that avoid libc).
 *
 * By default they go to the backing socket, which is not connected and says so (ENOTCONN, EPIPE).  With TAS_RAW=report or
 * TAS_RAW=catch the kernel is asked to send SIGSYS for every system call whose instruction is not in libc's code (Syscall
 * User Dispatch).  libc's calls cost nothing then but the kernel's look at the address; what libc does for the program our
 * wrappers have seen.  The handler counts the call if it names a TAS number (raw_sites.c), and makes it: `report` as it
 * is, `catch` as libc's syscall() would, so that it works.
 *
 * - Our own raw calls jump to a `syscall; ret` of libc's (tas__gate), ld.so's and the vDSO's come by here and are made as
 *   they are.
 * - The kernel arms one thread at a time and disarms the child of a fork: threads.c and the atfork handler arm them.
 *   Threads that were made by a raw clone stay without (their thread pointer may not be libc's).
 * - A signal mask is changed in the handler's frame, from which it comes back.  The alternate stack, calls after which two
 *   go on (vfork, clone with another stack), and sigreturn are left until the handler has returned: it returns into a piece
 *   of code that makes them.
 * - A blocked SIGSYS is death, so it is taken out of every mask; and the program's handler for it stands behind ours.
 */
#include <elf.h>
#include <link.h>
#include <linux/sched.h>
#include <stdlib.h>
#include <string.h>
#include <sys/prctl.h>
#include <sys/syscall.h>
#include <ucontext.h>

#include "lowlevel/sys.h"
#include "preload.h"
#include "raw.h"

enum { DISPATCH_SET = 59, DISPATCH_ON = 1, BY_DISPATCH = 2 /* si_code */, PASS = 0, CATCH = 1 };

enum tas_raw_mode tas__raw_mode;
__attribute__((visibility("hidden"))) const uint8_t *tas__raw_gadget;
long tas__raw_gate(long nr, long a, long b, long c, long d, long e, long f);

__thread struct tas_raw_stack tas__raw_stack __attribute__((tls_model("initial-exec")));
__attribute__((visibility("hidden"))) size_t tas__raw_xsave;
static __thread volatile uint8_t selector __attribute__((tls_model("initial-exec")));
static uintptr_t libc_from, libc_len;
static struct sigaction programs; /* what the program asked for SIGSYS */

/* What the kernel takes for sigaction and sigset_t. */
struct kernel_action {
	uintptr_t handler;
	unsigned long flags;
	uintptr_t restorer;
	uint64_t mask;
};
static const uint64_t sigsys_bit = 1ull << (SIGSYS - 1);

void tas__raw_arm(void)
{
	if (tas__raw_mode == TAS_RAW_OFF)
		return;
	selector = CATCH;
	sys5(SYS_prctl, DISPATCH_SET, DISPATCH_ON, libc_from, libc_len, SYS_P(&selector));
}

void tas__raw_pause(void)
{
	if (tas__raw_mode != TAS_RAW_OFF)
		selector = PASS;
}

void tas__raw_resume(void)
{
	if (tas__raw_mode != TAS_RAW_OFF)
		selector = CATCH;
}

/* ---- calls that must be made again outside of the handler ---- */
enum { AGAIN_ROOM = 4096 };

static struct tas_again {
	struct tas_again *next;
	uintptr_t after;
	bool child;
	uint8_t *code;
} *_Atomic agains;

/*
 * A piece of code that makes the call from its registers and goes on behind `after`: lets the call pass, and catches again,
 * in a call that makes a child only where the result is not 0: the child has another stack, or another thread pointer, and
 * is not caught at all.  Nothing but %rcx is used, which a system call overwrites anyway, and no flags.
 */
static void again_code(uint8_t *p, uintptr_t after, bool child)
{
	uintptr_t fs;
	int32_t at;

	__asm__("mov %%fs:0, %0" : "=r"(fs));
	at = (int32_t)((uintptr_t)&selector - fs);
	const uint8_t pass[] = {0x64, 0xc6, 0x04, 0x25}; /* movb $imm8, %fs:disp32 */
	const uint8_t call[] = {0x0f, 0x05}; /* syscall */
	const uint8_t unless_0[] = {0x48, 0x89, 0xc1, 0xe3, 9}; /* mov %rax, %rcx; jrcxz 1f */
	const uint8_t jump[] = {0xff, 0x25, 0, 0, 0, 0}; /* 1: jmp *(%rip) */

	p = (uint8_t *)mempcpy(p, pass, sizeof pass);
	p = (uint8_t *)mempcpy(p, &at, 4);
	*p++ = PASS;
	p = (uint8_t *)mempcpy(p, call, sizeof call);
	if (child)
		p = (uint8_t *)mempcpy(p, unless_0, sizeof unless_0);
	p = (uint8_t *)mempcpy(p, pass, sizeof pass);
	p = (uint8_t *)mempcpy(p, &at, 4);
	*p++ = CATCH;
	p = (uint8_t *)mempcpy(p, jump, sizeof jump);
	memcpy(p, &after, sizeof after);
}

/* One page per such site; there are one or two in a program.  0: no memory. */
static uintptr_t again_at(uintptr_t after, bool child)
{
	struct tas_again *a = atomic_load(&agains);
	uint8_t *page;

	for (; a; a = a->next)
		if (a->after == after && a->child == child)
			return (uintptr_t)a->code;
	page = sys_mmap(NULL, AGAIN_ROOM, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1);
	if (!page)
		return 0;
	a = (struct tas_again *)page;
	a->after = after;
	a->child = child;
	a->code = page + sizeof *a;
	a->next = atomic_load(&agains);
	again_code(a->code, after, child);
	if (sys3(SYS_mprotect, SYS_P(page), AGAIN_ROOM, PROT_READ | PROT_EXEC) < 0) {
		sys_munmap(page, AGAIN_ROOM);
		return 0;
	}
	/* of two threads that add a site at once one is not found again: a page lost, no harm */
	struct tas_again *next = a->next;

	atomic_compare_exchange_strong(&agains, &next, a);
	return (uintptr_t)a->code;
}

static long make_again(greg_t *g, long nr, bool child)
{
	uintptr_t code = again_at((uintptr_t)g[REG_RIP], child);

	if (!code)
		return -ENOMEM;
	g[REG_RIP] = (greg_t)code;
	return nr;
}

/* ---- calls on the state of the handler's own frame ---- */
static long frame_mask(ucontext_t *uc, long how, const uint64_t *set, uint64_t *old, size_t size)
{
	uint64_t *mask = (uint64_t *)&uc->uc_sigmask, was = *mask;
	const uint64_t never = 1ull << (SIGKILL - 1) | 1ull << (SIGSTOP - 1) | sigsys_bit;

	if (size != sizeof *mask)
		return -EINVAL;
	if (set) {
		if (tas__wild(set))
			return -EFAULT;
		switch (how) {
		case SIG_BLOCK:
			*mask |= *set;
			break;
		case SIG_UNBLOCK:
			*mask &= ~*set;
			break;
		case SIG_SETMASK:
			*mask = *set;
			break;
		default:
			return -EINVAL;
		}
		*mask &= ~never;
	}
	if (old && tas__wild(old))
		return -EFAULT;
	if (old)
		*old = was;
	return 0;
}

int tas__raw_sigaction(const struct sigaction *act, struct sigaction *old)
{
	if (old)
		*old = programs;
	if (act)
		programs = *act;
	return 0;
}

static long action(long sig, const struct kernel_action *act, struct kernel_action *old, size_t size)
{
	struct kernel_action copy;
	struct sigaction sa = {.sa_flags = 0}, was;

	if (sig != SIGSYS) {
		if (act && !tas__wild(act)) {
			copy = *act;
			copy.mask &= ~sigsys_bit;
			act = &copy;
		}
		return sys4(SYS_rt_sigaction, sig, SYS_P(act), SYS_P(old), size);
	}
	if ((act && tas__wild(act)) || (old && tas__wild(old)))
		return -EFAULT;
	if (act) {
		sa.sa_handler = (sighandler_t)act->handler;
		sa.sa_flags = (int)act->flags;
		memcpy(&sa.sa_mask, &act->mask, sizeof act->mask);
	}
	tas__raw_sigaction(act ? &sa : NULL, &was);
	if (old) {
		*old = (struct kernel_action){.handler = (uintptr_t)was.sa_handler, .flags = (unsigned long)was.sa_flags};
		memcpy(&old->mask, &was.sa_mask, sizeof old->mask);
	}
	return 0;
}

/* ---- processes ---- */
static long clone_by(greg_t *g, long nr, uint64_t flags, uint64_t stack)
{
	if ((flags & CLONE_VM) && !(flags & CLONE_VFORK))
		tas__raw_restore(); /* its thread pointer may not be libc's */
	if (!(flags & CLONE_VM) && !stack)
		return tas__fork_by(nr, g[REG_RDI], g[REG_RSI], g[REG_RDX], g[REG_R10], g[REG_R8]);
	if (!(flags & CLONE_THREAD) && !tas__passive())
		tas_before_spawn();
	return make_again(g, nr, true);
}

static long clone3_by(greg_t *g, long nr)
{
	const struct clone_args *args = (const void *)g[REG_RDI];

	if (tas__wild(args) || (size_t)g[REG_RSI] < CLONE_ARGS_SIZE_VER0)
		return tas__raw_gate(nr, g[REG_RDI], g[REG_RSI], 0, 0, 0, 0);
	return clone_by(g, nr, args->flags, args->stack);
}

/* ---- the handler ---- */
/* The descriptor that a call is about. */
static int subject(const struct tas_raw_call *c)
{
	switch (c->nr) {
	case SYS_epoll_ctl:
		return (int)c->c;
	case SYS_read:
	case SYS_write:
	case SYS_close:
	case SYS_ioctl:
	case SYS_readv:
	case SYS_writev:
	case SYS_sendfile:
	case SYS_connect ... SYS_getsockopt:
	case SYS_fcntl:
	case SYS_dup:
	case SYS_dup2:
	case SYS_dup3:
	case SYS_splice:
	case SYS_accept4:
	case SYS_recvmmsg:
	case SYS_sendmmsg:
	case SYS_preadv2:
	case SYS_pwritev2:
		return (int)c->a;
	}
	return -1;
}

/* Calls that are what they are wherever they are made: without a mask, a frame, a child, an end. */
static bool is_simple(const struct tas_raw_call *c)
{
	switch (c->nr) {
	case SYS_read:
	case SYS_write:
	case SYS_close:
	case SYS_poll:
	case SYS_ioctl:
	case SYS_readv:
	case SYS_writev:
	case SYS_select:
	case SYS_sched_yield:
	case SYS_nanosleep:
	case SYS_getpid:
	case SYS_gettid:
	case SYS_sendfile:
	case SYS_socket ... SYS_getsockopt:
	case SYS_fcntl:
	case SYS_futex:
	case SYS_epoll_wait:
	case SYS_epoll_ctl:
	case SYS_clock_gettime:
	case SYS_clock_nanosleep:
	case SYS_splice:
	case SYS_accept4:
	case SYS_epoll_create1:
	case SYS_recvmmsg:
	case SYS_sendmmsg:
		return true;
	case SYS_epoll_pwait:
		return !c->e;
	case SYS_ppoll:
		return !c->d;
	}
	return false;
}

/* Waits with a mask: SIGSYS is not in it while they last. */
static long masked(greg_t *g, long nr)
{
	long a[6] = {g[REG_RDI], g[REG_RSI], g[REG_RDX], g[REG_R10], g[REG_R8], g[REG_R9]};
	int at = nr == SYS_rt_sigsuspend ? 0 : nr == SYS_ppoll ? 3 : 4;
	uint64_t room;
	struct {
		const uint64_t *mask;
		size_t size;
	} packed;

	if (nr == SYS_pselect6 && !tas__wild((void *)a[5])) {
		memcpy(&packed, (void *)a[5], sizeof packed);
		if (!tas__wild(packed.mask)) {
			room = *packed.mask & ~sigsys_bit;
			packed.mask = &room;
		}
		a[5] = SYS_P(&packed);
	} else if (nr != SYS_pselect6 && !tas__wild((void *)a[at])) {
		room = *(uint64_t *)a[at] & ~sigsys_bit;
		a[at] = SYS_P(&room);
	}
	return tas__raw_gate(nr, a[0], a[1], a[2], a[3], a[4], a[5]);
}

static long native(ucontext_t *uc, greg_t *g, long nr)
{
	switch (nr) {
	case SYS_rt_sigprocmask:
		return frame_mask(uc, g[REG_RDI], (void *)g[REG_RSI], (void *)g[REG_RDX], (size_t)g[REG_R10]);
	case SYS_sigaltstack:
		return make_again(g, nr, false); /* the frame would bring the old one back, and the handler may run on it */
	case SYS_rt_sigaction:
		return action(g[REG_RDI], (void *)g[REG_RSI], (void *)g[REG_RDX], (size_t)g[REG_R10]);
	case SYS_rt_sigreturn: /* the frame to return through lies at the stack pointer */
		g[REG_RIP] = (greg_t)(uintptr_t)tas__raw_gadget;
		return nr;
	case SYS_clone:
		return clone_by(g, nr, (uint64_t)g[REG_RDI], (uint64_t)g[REG_RSI]);
	case SYS_clone3:
		return clone3_by(g, nr);
	case SYS_vfork:
		return clone_by(g, nr, CLONE_VFORK | CLONE_VM, 0);
	case SYS_ppoll:
	case SYS_pselect6:
	case SYS_epoll_pwait:
	case SYS_epoll_pwait2:
	case SYS_rt_sigsuspend:
		return masked(g, nr);
	}
	return tas__raw_gate(nr, g[REG_RDI], g[REG_RSI], g[REG_RDX], g[REG_R10], g[REG_R8], g[REG_R9]);
}

static void note(uintptr_t after, const struct tas_raw_call *c)
{
	int fd = subject(c);

	if (fd >= 0 && !tas__kernel(fd) && tas_fd_states[fd] == TAS_FD_TAS)
		tas__raw_seen(after, c->nr);
}

static long dispatch(ucontext_t *uc, greg_t *g)
{
	const struct tas_raw_call c = {g[REG_RAX], g[REG_RDI], g[REG_RSI], g[REG_RDX], g[REG_R10], g[REG_R8], g[REG_R9]};
	uintptr_t after = (uintptr_t)g[REG_RIP], site = tas__raw_origin(after);
	long r = TAS_NATIVE;

	note(site, &c);
	if (tas__raw_mode == TAS_RAW_CATCH) {
		tas__raw_stack_make();
		if (site == after && is_simple(&c))
			tas__raw_often(after);
		r = tas__by_number(c.nr, c.a, c.b, c.c, c.d, c.e, c.f);
	}
	return r == TAS_NATIVE ? native(uc, g, c.nr) : r;
}

/* A rewritten site: no frame, so only calls that need none. */
long tas__raw_made(struct tas_raw_call *c)
{
	int err = errno;
	long r;

	if (!is_simple(c) || selector != CATCH)
		return 0;
	r = tas__by_number(c->nr, c->a, c->b, c->c, c->d, c->e, c->f);
	if (r == TAS_NATIVE)
		r = tas__raw_gate(c->nr, c->a, c->b, c->c, c->d, c->e, c->f);
	c->nr = r;
	errno = err;
	return 1;
}

static void programs_own(int sig, siginfo_t *si, void *context)
{
	if (programs.sa_handler == SIG_IGN)
		return;
	if (programs.sa_handler != SIG_DFL) {
		programs.sa_sigaction(sig, si, context);
		return;
	}
	/* as it would have ended without us */
	struct sigaction dfl = {.sa_handler = SIG_DFL};

	tas__real.sigaction(sig, &dfl, NULL);
	sys3(SYS_tgkill, sys0(SYS_getpid), sys0(SYS_gettid), sig);
}

static void on_sigsys(int sig, siginfo_t *si, void *context)
{
	ucontext_t *uc = context;
	greg_t *g = uc->uc_mcontext.gregs;
	int err = errno;

	if (si->si_code == BY_DISPATCH)
		g[REG_RAX] = dispatch(uc, g);
	else
		programs_own(sig, si, context);
	errno = err;
}

/* ---- start ---- */
static int find_libc(struct dl_phdr_info *info, size_t size, void *arg)
{
	uintptr_t in = (uintptr_t)arg;

	(void)size;
	for (int i = 0; i < info->dlpi_phnum; i++) {
		const ElfW(Phdr) *p = &info->dlpi_phdr[i];
		uintptr_t from = info->dlpi_addr + p->p_vaddr;

		if (p->p_type != PT_LOAD || !(p->p_flags & PF_X) || in - from >= p->p_memsz)
			continue;
		libc_from = from;
		libc_len = p->p_memsz;
		return 1;
	}
	return 0;
}

static bool find_gadget(void)
{
	static const uint8_t code[] = {0x0f, 0x05, 0xc3}; /* syscall; ret */
	void *in = dlsym(RTLD_NEXT, "getpid");

	if (!in || !dl_iterate_phdr(find_libc, in))
		return false;
	tas__raw_gadget = memmem((void *)libc_from, libc_len, code, sizeof code);
	return tas__raw_gadget != NULL;
}

static enum tas_raw_mode wanted(void)
{
	const char *s = secure_getenv("TAS_RAW");

	if (s && !strcmp(s, "catch"))
		return TAS_RAW_CATCH;
	return s && !strcmp(s, "report") ? TAS_RAW_REPORT : TAS_RAW_OFF;
}

void tas__raw_start(void)
{
	struct sigaction sa = {.sa_sigaction = on_sigsys, .sa_flags = SA_SIGINFO | SA_ONSTACK | SA_NODEFER | SA_RESTART};
	enum tas_raw_mode mode = wanted();

	if (mode == TAS_RAW_OFF || !find_gadget())
		return;
	/* the kernel may know nothing of it: then nothing is caught */
	if (sys5(SYS_prctl, DISPATCH_SET, DISPATCH_ON, libc_from, libc_len, SYS_P(&selector)) < 0)
		return;
	tas__raw_sites_start();
	if (mode == TAS_RAW_CATCH)
		tas__raw_rewrite_start();
	tas__real.sigaction(SIGSYS, &sa, &programs);
	tas__gate = tas__raw_gate;
	tas__raw_mode = mode;
	pthread_atfork(NULL, NULL, tas__raw_arm);
	tas__raw_arm();
}
