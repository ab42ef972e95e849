/* SPDX-License-Identifier: MIT */
/*
 * Where a rewritten call site arrives (raw_rewrite.c): with the registers of a system call, and in %r11 the address of
 * {where the program goes on, where the call is made after all}.  %rcx and %r11 are free, as a system call overwrites them;
 * everything else, flags and vector registers included, is as it was when the program goes on.
 *
 * The program may use what lies below its stack pointer, and its stack may be small: the thread has another for this
 * (struct tas_raw_stack).  It is marked as in use before anything is on it and as free when nothing is any more; a signal
 * handler that comes in between makes its calls as if its sites were not rewritten.
 */
#ifndef __x86_64__
#error "raw_entry.S is written for x86-64"
#endif
#define TOP(reg) %fs:(reg)
#define FREE(reg) %fs:8(reg)
	.text
	.globl	tas__raw_entry
	.hidden	tas__raw_entry
	.type	tas__raw_entry, @function
3:	jmp	*8(%r11)
tas__raw_entry:
	.cfi_startproc
	.cfi_undefined %rip
	movq	tas__raw_stack@gottpoff(%rip), %rcx
	movq	FREE(%rcx), %rcx
	jrcxz	3b
	movq	tas__raw_stack@gottpoff(%rip), %rcx
	movq	$0, FREE(%rcx)
	movq	TOP(%rcx), %rcx
	movq	%rsp, -8(%rcx)
	leaq	-8(%rcx), %rsp
	pushfq
	pushq	%r11
	pushq	%rbp
	movq	%rsp, %rbp
	pushq	%r9		/* struct tas_raw_call, from its end */
	pushq	%r8
	pushq	%r10
	pushq	%rdx
	pushq	%rsi
	pushq	%rdi
	pushq	%rax
	cld
	movq	%rsp, %rdi
	subq	tas__raw_xsave(%rip), %rsp
	andq	$-64, %rsp
	xorl	%eax, %eax
	.irp	at, 512, 520, 528, 536, 544, 552, 560, 568
	movq	%rax, \at(%rsp)	/* xsave leaves most of its header alone, xrstor wants it zero */
	.endr
	movl	$-1, %eax
	movl	$-1, %edx
	xsave	(%rsp)
	call	tas__raw_made
	movq	%rax, %rcx
	movl	$-1, %eax
	movl	$-1, %edx
	xrstor	(%rsp)
	leaq	-56(%rbp), %rsp
	popq	%rax
	popq	%rdi
	popq	%rsi
	popq	%rdx
	popq	%r10
	popq	%r8
	popq	%r9
	popq	%rbp
	popq	%r11
	jrcxz	1f
	movq	(%r11), %r11
	jmp	2f
1:	movq	8(%r11), %r11
2:	popfq
	popq	%rsp
	movq	tas__raw_stack@gottpoff(%rip), %rcx
	movq	$1, FREE(%rcx)
	jmp	*%r11
	.cfi_endproc
	.size	tas__raw_entry, . - tas__raw_entry
	.section .note.GNU-stack, "", @progbits
