/* Waits in HLT for interrupts of vector 0x40, reports each, and ends after the number the test put at
 * 0x40000. Reports 0 when it is ready. */
#include "payload.h"
    .code64
    .globl _start
_start:
    set_gate 0x40, on_interrupt
    load_idt
    enable_lapic
    xorl %ebp, %ebp
    report $0
wait:
    sti
    hlt
    cli
    cmpl %ebp, 0x40000
    ja wait
    done
on_interrupt:
    pushq %rax
    pushq %rdi
    incl %ebp
    report %ebp
    mmio_write32 LAPIC_EOI, $0
    popq %rdi
    popq %rax
    iretq
