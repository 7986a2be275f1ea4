/* MMIO accesses of every width to the test's device at 0xd0000000 (16 bytes of memory). */
#include "payload.h"
#define DEVICE 0xd0000000
    .code64
    .globl _start
_start:
    movl $DEVICE, %ebx
    movb $0x11, (%rbx)
    movw $0x2222, 2(%rbx)
    movl $0x44444444, 4(%rbx)
    movabsq $0x8877665544332211, %rax
    movq %rax, 8(%rbx)
    xorl %eax, %eax
    movb (%rbx), %al
    report %eax
    xorl %eax, %eax
    movw 2(%rbx), %ax
    report %eax
    movl 4(%rbx), %eax
    report %eax
    movq 8(%rbx), %rax
    outl %eax, $REPORT_PORT
    shrq $32, %rax
    outl %eax, $REPORT_PORT
    /* Nobody is at the next page: all ones. */
    movl 0x1000(%rbx), %eax
    report %eax
    done
