/* SPDX-License-Identifier: BSD-3-Clause */
/*
 * The switch between two stacks (x86-64, System V ABI).
 *
 * void fiber_switch(void **save, void *load): pushes the callee-saved registers, stores the stack pointer in *save,
 * takes @load as the stack pointer and pops. A stack that is not running therefore looks like this, from stack_pointer
 * up:
 *
 *     r15  r14  r13  r12  rbx  rbp  return address
 *
 * It ends in "pop, jmp" because a "ret" would be mispredicted every time. The FP control words are not switched: nobody
 * in lanefs changes them. The unwind rules hold on both sides of the switch since both stacks have the same shape.
 *
 * fiber_entry is where a new fiber begins: fiber_prepare (fiber.c) builds the same shape with the fiber in rbx. "rip is
 * undefined" ends every backtrace there.
 */
	.text
	.globl	fiber_switch
	.type	fiber_switch, @function
	.p2align 4
fiber_switch:
	.cfi_startproc
	pushq	%rbp
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbp, 0
	pushq	%rbx
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset rbx, 0
	pushq	%r12
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r12, 0
	pushq	%r13
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r13, 0
	pushq	%r14
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r14, 0
	pushq	%r15
	.cfi_adjust_cfa_offset 8
	.cfi_rel_offset r15, 0
	movq	%rsp, (%rdi)
	movq	%rsi, %rsp
	popq	%r15
	.cfi_adjust_cfa_offset -8
	.cfi_restore r15
	popq	%r14
	.cfi_adjust_cfa_offset -8
	.cfi_restore r14
	popq	%r13
	.cfi_adjust_cfa_offset -8
	.cfi_restore r13
	popq	%r12
	.cfi_adjust_cfa_offset -8
	.cfi_restore r12
	popq	%rbx
	.cfi_adjust_cfa_offset -8
	.cfi_restore rbx
	popq	%rbp
	.cfi_adjust_cfa_offset -8
	.cfi_restore rbp
	popq	%rcx
	.cfi_adjust_cfa_offset -8
	.cfi_register rip, rcx
	jmp	*%rcx
	.cfi_endproc
	.size	fiber_switch, . - fiber_switch

	.globl	fiber_entry
	.type	fiber_entry, @function
	.p2align 4
fiber_entry:
	.cfi_startproc
	.cfi_undefined rip
	movq	%rbx, %rdi
	xorl	%ebp, %ebp
	call	fiber_main
	ud2
	.cfi_endproc
	.size	fiber_entry, . - fiber_entry

	.section .note.GNU-stack, "", @progbits
