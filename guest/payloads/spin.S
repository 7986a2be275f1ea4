/* Counts at 0x41000 for ever; every 4096 counts it leaves the guest with a port write. */
#include "payload.h"
    .code64
    .globl _start
_start:
    report $1
count:
    incq 0x41000
    testl $0xfff, 0x41000
    jnz count
    outb %al, $0xe8
    jmp count
