/* Writes to port 0x80 for ever: every few instructions a VM exit. For measuring how long it takes to
 * get there. Runs wherever it is loaded. */
#include "payload.h"
    .code64
    .globl _start
_start:
    outb %al, $0x80
    jmp _start
