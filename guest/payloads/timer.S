/* The LAPIC's timer in periodic mode wakes HLT four times. */
#include "payload.h"
    .code64
    .globl _start
_start:
    set_gate 0x60, on_timer
    load_idt
    enable_lapic
    xorl %ebp, %ebp
    mmio_write32 LAPIC_TIMER_DIVIDE, $0x3
    mmio_write32 LAPIC_LVT_TIMER, $0x20060
    mmio_write32 LAPIC_TIMER_INITIAL, $100000
wait:
    sti
    hlt
    cli
    cmpl $4, %ebp
    jb wait
    done
on_timer:
    pushq %rax
    pushq %rdi
    incl %ebp
    report %ebp
    mmio_write32 LAPIC_EOI, $0
    popq %rdi
    popq %rax
    iretq
