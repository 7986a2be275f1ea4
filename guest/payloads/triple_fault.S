/* An exception without a descriptor table: the processor shuts down. */
#include "payload.h"
    .code64
    .globl _start
_start:
    movw $0, -16(%rsp)
    movq $0, -14(%rsp)
    lidt -16(%rsp)
    ud2
    done
