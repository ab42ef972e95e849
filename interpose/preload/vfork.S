/* SPDX-License-Identifier: MIT */
/*
 * vfork.  The child runs on the parent's stack and returns from here first, so our return address may not stay on the stack:
 * the child's next calls would overwrite it.  It waits in %rdi, which the system call preserves and each process has of its
 * own.  tas__vfork_begin() raises this thread's tas__vfork_depth, which the child inherits (it shares our memory and our
 * thread pointer): its wrappers only make the raw calls.  Only the parent comes to tas__vfork_end(), which lowers it again.
 */
#ifndef __x86_64__
#error "vfork.S is written for x86-64"
#endif
	.text
	.globl	vfork, __vfork
	.type	vfork, @function
	.type	__vfork, @function
vfork:
__vfork:
	.cfi_startproc
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	tas__vfork_begin
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	popq	%rdi
	.cfi_adjust_cfa_offset -8
	.cfi_register %rip, %rdi
	movl	$58, %eax		/* SYS_vfork */
	syscall
	pushq	%rdi
	.cfi_adjust_cfa_offset 8
	.cfi_offset %rip, -8
	testq	%rax, %rax
	jnz	1f
	ret
1:	movq	%rax, %rdi
	subq	$8, %rsp
	.cfi_adjust_cfa_offset 8
	call	tas__vfork_end
	addq	$8, %rsp
	.cfi_adjust_cfa_offset -8
	ret
	.cfi_endproc
	.size	vfork, . - vfork
	.size	__vfork, . - __vfork
	.section .note.GNU-stack, "", @progbits
