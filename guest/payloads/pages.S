/* Writes to 1024 pages from 16 MiB on, one after the other, and counts how often it has done so, at
 * STATE. For measuring what first touches cost. Runs wherever it is loaded. */
#include "payload.h"
#define PAGES 1024
#define FIRST 0x1000000
#define STATE 0x60000
    .code64
    .globl _start
_start:
again:
    movl $FIRST, %edi
    movl $PAGES, %ecx
1:  incq (%rdi)
    addq $4096, %rdi
    decl %ecx
    jnz 1b
    incq STATE
    outb %al, $0x80
    jmp again
