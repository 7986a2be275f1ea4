/* Port accesses of every width, in and out, and a string of bytes. The test's device is at 0xe8-0xef
 * and keeps what is written. */
#include "payload.h"
    .code64
    .globl _start
_start:
    movb $0x11, %al
    outb %al, $0xe8
    movw $0x2222, %ax
    outw %ax, $0xea
    movl $0x44444444, %eax
    outl %eax, $0xec
    xorl %eax, %eax
    inb $0xe8, %al
    report %eax
    xorl %eax, %eax
    inw $0xea, %ax
    report %eax
    inl $0xec, %eax
    report %eax
    /* A port nobody answers reads as all ones. */
    xorl %eax, %eax
    inw $0xf6, %ax
    report %eax
    /* A string instruction: KVM may deliver several elements in one exit. */
    leaq text(%rip), %rsi
    movl $(text_end - text), %ecx
    movl $0xe9, %edx
    cld
    rep outsb
    done
text:
    .ascii "measured out by the box"
text_end:
