/* Asks for a reset through the ACPI reset register, then waits for it to happen. */
#include "payload.h"
    .code64
    .globl _start
_start:
    report $1
    movl $0x602, %edx
    movb $1, %al
    outb %al, %dx
1:  pause
    jmp 1b
