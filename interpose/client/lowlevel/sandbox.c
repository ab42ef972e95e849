/* SPDX-License-Identifier: MIT */
/*
 * A seccomp filter may kill for a call that the program never makes and this library does.  So the filter is asked
 * first: its program is run here, once for each call that the library could do without, before the kernel gets it.
 * What it forbids is not tried again in this process; waiting, then, looks every now and then.
 *
 * Filters that came with the program image are not known.
 */
#include <linux/audit.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <stddef.h>

#include "lowlevel/low.h"

enum { STEPS_MAX = 1 << 16 };

static const struct {
	uint16_t nr;
	uint8_t may;
} calls[] = {
	{SYS_sched_yield, TAS_MAY_YIELD},   {SYS_futex_waitv, TAS_MAY_WAITV}, {SYS_prlimit64, TAS_MAY_PRLIMIT},
	{SYS_getsockopt, TAS_MAY_RECOGNISE}, {SYS_sendmsg, TAS_MAY_ASK},       {SYS_recvmsg, TAS_MAY_ASK},
	{SYS_openat, TAS_MAY_FILES},         {SYS_eventfd2, TAS_MAY_OPEN},        {SYS_fcntl, TAS_MAY_OPEN},
	{SYS_epoll_pwait2, TAS_MAY_EPOLL},   {SYS_preadv2, TAS_MAY_NOWAIT},    {SYS_pwritev2, TAS_MAY_NOWAIT},
};

_Atomic uint32_t tas__forbidden;

/* The words of the data that a filter can load. */
static uint32_t load(const struct seccomp_data *d, uint32_t off)
{
	return off + 4 <= sizeof *d ? ((const uint32_t *)d)[off / 4] : 0;
}

static uint32_t alu(uint16_t code, uint32_t a, uint32_t b)
{
	switch (BPF_OP(code)) {
	case BPF_ADD:
		return a + b;
	case BPF_SUB:
		return a - b;
	case BPF_MUL:
		return a * b;
	case BPF_DIV:
		return b ? a / b : 0;
	case BPF_OR:
		return a | b;
	case BPF_AND:
		return a & b;
	case BPF_LSH:
		return b < 32 ? a << b : 0;
	case BPF_RSH:
		return b < 32 ? a >> b : 0;
	case BPF_XOR:
		return a ^ b;
	default:
		return -a;
	}
}

static bool jumps(uint16_t code, uint32_t a, uint32_t b)
{
	switch (BPF_OP(code)) {
	case BPF_JEQ:
		return a == b;
	case BPF_JGT:
		return a > b;
	case BPF_JGE:
		return a >= b;
	default:
		return a & b;
	}
}

static uint32_t run(const struct sock_filter *f, unsigned n, const struct seccomp_data *d)
{
	uint32_t a = 0, x = 0, mem[BPF_MEMWORDS] = {0};

	for (unsigned pc = 0, steps = 0; pc < n && steps < STEPS_MAX; pc++, steps++) {
		uint16_t code = f[pc].code;
		uint32_t k = f[pc].k, operand = BPF_SRC(code) == BPF_X ? x : k;

		switch (BPF_CLASS(code)) {
		case BPF_LD:
		case BPF_LDX: {
			uint32_t v = BPF_MODE(code) == BPF_ABS ? load(d, k)
				     : BPF_MODE(code) == BPF_MEM ? mem[k % BPF_MEMWORDS]
				     : BPF_MODE(code) == BPF_LEN ? (uint32_t)sizeof *d
								 : k;

			*(BPF_CLASS(code) == BPF_LD ? &a : &x) = v;
			break;
		}
		case BPF_ST:
			mem[k % BPF_MEMWORDS] = a;
			break;
		case BPF_STX:
			mem[k % BPF_MEMWORDS] = x;
			break;
		case BPF_ALU:
			a = alu(code, a, operand);
			break;
		case BPF_JMP:
			pc += BPF_OP(code) == BPF_JA ? k : jumps(code, a, operand) ? f[pc].jt : f[pc].jf;
			break;
		case BPF_RET:
			return BPF_RVAL(code) == BPF_A ? a : k;
		case BPF_MISC:
			*(BPF_MISCOP(code) == BPF_TAX ? &x : &a) = BPF_MISCOP(code) == BPF_TAX ? a : x;
			break;
		}
	}
	return SECCOMP_RET_ALLOW; /* the kernel will refuse such a program */
}

static bool allowed(const struct sock_fprog *prog, long nr)
{
	struct seccomp_data d = {.nr = (int)nr, .arch = AUDIT_ARCH_X86_64};

	switch (run(prog->filter, prog->len, &d) & SECCOMP_RET_ACTION_FULL) {
	case SECCOMP_RET_KILL_PROCESS:
	case SECCOMP_RET_KILL_THREAD:
	case SECCOMP_RET_TRAP:
	case SECCOMP_RET_ERRNO:
		return false;
	default:
		return true;
	}
}

uint32_t tas__filter_forbids(const struct sock_fprog *prog)
{
	uint32_t forbidden = 0;

	for (size_t i = 0; i < sizeof calls / sizeof *calls; i++)
		if (!allowed(prog, calls[i].nr))
			forbidden |= 1u << calls[i].may;
	if (forbidden & 1u << TAS_MAY_ASK)
		forbidden |= 1u << TAS_MAY_OPEN;
	return forbidden;
}

void tas__forbid(uint32_t forbidden)
{
	atomic_fetch_or(&tas__forbidden, forbidden);
}
