/* Keeps counters in registers and in memory that must agree, a periodic timer, and a virtio-blk driver
 * (virtio-mmio at 0xc0001000) that reads sectors 0 to 7 in turn; each sector is full of 0x10 + its
 * number. For tests that stop it anywhere and go on elsewhere.
 *
 * STATE: 64-bit words: iterations, the first mismatch found (0: none), timer ticks, requests done.
 * Each request done also sends a dot to COM1. Runs wherever it is loaded, entered in long mode. */
#include "payload.h"
#define DEVICE 0xc0001000
#define DESC 0x50000
#define AVAIL 0x51000
#define USED 0x52000
#define HEADER 0x53000 /* 16 bytes, then the status byte */
#define DATA 0x54000
#define STATE 0x60000
#define COM1 0x3f8

.macro set_register offset, value
    mmio_write32 (DEVICE + \offset), \value
.endm

.macro expect_equal number
    je 1f
    movl $\number, %ecx
    jmp mismatch
1:
.endm

    .code64
    .globl _start
_start:
    set_gate 0x60, on_timer
    load_idt
    enable_lapic
    set_register 0x70, $0
    set_register 0x70, $1
    set_register 0x70, $3
    set_register 0x24, $1
    set_register 0x20, $1 /* VERSION_1 */
    set_register 0x24, $0
    set_register 0x20, $0
    set_register 0x70, $11
    set_register 0x30, $0
    set_register 0x38, $8
    set_register 0x80, $DESC
    set_register 0x84, $0
    set_register 0x90, $AVAIL
    set_register 0x94, $0
    set_register 0xa0, $USED
    set_register 0xa4, $0
    set_register 0x44, $1
    set_register 0x70, $15
    movl $HEADER, DESC
    movl $16, DESC + 8
    movw $1, DESC + 12
    movw $1, DESC + 14
    movl $DATA, DESC + 16
    movl $512, DESC + 24
    movw $3, DESC + 28
    movw $2, DESC + 30
    movl $(HEADER + 16), DESC + 32
    movl $1, DESC + 40
    movw $2, DESC + 44

    xorl %r8d, %r8d  /* n */
    xorl %r9d, %r9d  /* 3n */
    xorl %r10d, %r10d /* -n */
    xorl %r11d, %r11d /* n squared */
    xorl %r12d, %r12d /* the sector read last */
    mmio_write32 LAPIC_TIMER_DIVIDE, $0x3
    mmio_write32 LAPIC_LVT_TIMER, $0x20060
    mmio_write32 LAPIC_TIMER_INITIAL, $100000
    sti

again:
    leaq 1(%r11, %r8, 2), %r11
    incq %r8
    addq $3, %r9
    decq %r10
    incq STATE
    leaq (%r8, %r8, 2), %rax
    cmpq %rax, %r9
    expect_equal 1
    movq %r10, %rax
    negq %rax
    cmpq %rax, %r8
    expect_equal 2
    movq %r8, %rax
    imulq %r8, %rax
    cmpq %rax, %r11
    expect_equal 3
    cmpq %r8, STATE
    expect_equal 4
    testl $0xf, %r8d
    jnz again

    incl %r12d
    andl $7, %r12d
    movl $0, HEADER
    movl $0, HEADER + 4
    movl %r12d, HEADER + 8
    movl $0, HEADER + 12
    movb $0xff, HEADER + 16
    movl $0, DATA
    movl $0, DATA + 508
    movzwl AVAIL + 2, %ecx
    incl %ecx
    movw %cx, AVAIL + 2 /* every entry of the ring is head 0 */
    set_register 0x50, $0
1:  pause
    cmpw %cx, USED + 2
    jne 1b
    cmpb $0, HEADER + 16
    expect_equal 5
    leal 0x10(%r12), %eax
    imull $0x01010101, %eax
    cmpl %eax, DATA
    expect_equal 6
    cmpl %eax, DATA + 508
    expect_equal 7
    incq STATE + 24
    movw $COM1, %dx
    movb $'.', %al
    outb %al, %dx
    jmp again

mismatch:
    movl %ecx, STATE + 8
1:  hlt
    jmp 1b

on_timer:
    pushq %rax
    pushq %rdi
    incq STATE + 16
    mmio_write32 LAPIC_EOI, $0
    popq %rdi
    popq %rax
    iretq
