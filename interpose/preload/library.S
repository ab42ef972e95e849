/* SPDX-License-Identifier: MIT */
/*
 * dlopen and dlmopen without RTLD_DEEPBIND: such a library would find libc's calls before ours.  The next definition is jumped
 * to, since it looks at its return address: the caller's own search path and namespace count.
 * TAS_DEEPBIND=keep leaves the flag (a library that brings names of its own that the program has, too).
 */
#ifndef __x86_64__
#error "library.S is written for x86-64"
#endif
#define RTLD_DEEPBIND 8
	.text
	.macro	wrap name, flags
	.globl	\name
	.type	\name, @function
\name:
	.cfi_startproc
	cmpq	$0, tas__next_\name(%rip)
	jne	1f
	pushq	%rdi
	.cfi_adjust_cfa_offset 8
	pushq	%rsi
	.cfi_adjust_cfa_offset 8
	pushq	%rdx
	.cfi_adjust_cfa_offset 8
	call	tas__next_find
	popq	%rdx
	.cfi_adjust_cfa_offset -8
	popq	%rsi
	.cfi_adjust_cfa_offset -8
	popq	%rdi
	.cfi_adjust_cfa_offset -8
1:	cmpb	$0, tas__keep_deepbind(%rip)
	jne	2f
	andl	$~RTLD_DEEPBIND, \flags
2:	jmp	*tas__next_\name(%rip)
	.cfi_endproc
	.size	\name, . - \name
	.endm
	wrap	dlopen, %esi
	wrap	dlmopen, %edx
	.section .note.GNU-stack, "", @progbits
