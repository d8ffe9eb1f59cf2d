// Entry of the test kernel by PVH (32-bit, paging off, EBX = start info), the way
// into 64-bit mode for all CPUs, and the interrupt stubs.

#include "layout.h"

	.section .note.pvh, "a", @note
	.long	4, 4, 18		// XEN_ELFNOTE_PHYS32_ENTRY
	.asciz	"Xen"
	.long	entry

	.section .text
	.code32
	.globl	entry
entry:
	cld
	mov	$first_stack, %esp
	mov	%ebx, start_info

	// The first 4 GiB one to one, in pages of 2 MiB.
	mov	$pdpt, %eax
	or	$3, %eax
	mov	%eax, pml4
	mov	$pds, %eax
	or	$3, %eax
	xor	%ecx, %ecx
1:	mov	%eax, pdpt(,%ecx,8)
	add	$0x1000, %eax
	inc	%ecx
	cmp	$4, %ecx
	jb	1b
	mov	$0x83, %eax		// present, writable, 2 MiB
	xor	%ecx, %ecx
2:	mov	%eax, pds(,%ecx,8)
	add	$0x200000, %eax
	inc	%ecx
	cmp	$2048, %ecx
	jb	2b

	call	go_long
	ljmp	$0x08, $first64

// go_long switches paging and 64-bit mode on; the caller jumps to a 64-bit segment.
go_long:
	mov	$0x620, %eax		// PAE, FXSR, SIMD exceptions
	mov	%eax, %cr4
	mov	$pml4, %eax
	mov	%eax, %cr3
	mov	$0xc0000080, %ecx	// EFER: long mode
	rdmsr
	or	$0x100, %eax
	wrmsr
	mov	%cr0, %eax
	and	$0x9fffffff, %eax	// caches on: an AP starts without
	or	$0x80000001, %eax
	mov	%eax, %cr0
	lgdt	gdt_pointer
	ret

	.code64
first64:
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	$first_stack, %rsp
	call	kernel_main
	hlt

// The code of trampoline is copied to TRAMPOLINE, where start-up messages send APs.
	.code16
	.globl	trampoline, trampoline_end
trampoline:
	cli
	xor	%ax, %ax
	mov	%ax, %ds
	lgdtl	TRAMPOLINE + trampoline_gdt - trampoline
	mov	%cr0, %eax
	or	$1, %eax
	mov	%eax, %cr0
	ljmpl	$0x18, $ap32
	.balign	8
trampoline_gdt:
	.word	gdt_end - gdt - 1
	.long	gdt
trampoline_end:

	.code32
ap32:
	mov	$0x10, %ax
	mov	%ax, %ds
	mov	%ax, %es
	mov	%ax, %ss
	mov	ap_stack, %esp
	call	go_long
	ljmp	$0x08, $ap64
	.code64
ap64:
	xor	%eax, %eax
	mov	%eax, %ds
	mov	%eax, %es
	mov	%eax, %ss
	mov	ap_stack, %rsp
	call	ap_main
	hlt

// Stubs of 16 bytes: vector n is at stubs + 16n. All make the same frame, with an
// error code of 0 where the CPU pushes none.
	.balign	16
	.globl	stubs
stubs:
	.set	n, 0
	.rept	256
	.balign	16
	.if	!(n == 8 || (n >= 10 && n <= 14) || n == 17 || n == 21 || n == 29 || n == 30)
	push	$0
	.endif
	push	$n
	jmp	common
	.set	n, n + 1
	.endr

common:
	push	%rax
	push	%rbx
	push	%rcx
	push	%rdx
	push	%rsi
	push	%rdi
	push	%rbp
	push	%r8
	push	%r9
	push	%r10
	push	%r11
	push	%r12
	push	%r13
	push	%r14
	push	%r15
	mov	%rsp, %rdi
	cld
	call	interrupt
	pop	%r15
	pop	%r14
	pop	%r13
	pop	%r12
	pop	%r11
	pop	%r10
	pop	%r9
	pop	%r8
	pop	%rbp
	pop	%rdi
	pop	%rsi
	pop	%rdx
	pop	%rcx
	pop	%rbx
	pop	%rax
	add	$16, %rsp
	iretq

	.section .data
	.balign	8
gdt:	.quad	0
	.quad	0x00af9b000000ffff	// 08: 64-bit code
	.quad	0x00cf93000000ffff	// 10: data
	.quad	0x00cf9b000000ffff	// 18: 32-bit code
gdt_end:
gdt_pointer:
	.word	gdt_end - gdt - 1
	.quad	gdt
	.globl	start_info, ap_stack
start_info: .quad 0
ap_stack:   .quad 0			// of the AP being started

	.section .bss
	.balign	4096
	.globl	pml4, pdpt
pml4:	.skip	4096
pdpt:	.skip	4096
pds:	.skip	4 * 4096
	.skip	16384
first_stack:

	.section .note.GNU-stack, "", @progbits
