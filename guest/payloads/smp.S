/* Starts all other processors with INIT and SIPI; each reports its APIC id (from CPUID) and counts
 * itself; the boot processor waits until the number the test put at 0x40000 has arrived. Then every
 * processor counts in its own word at 0x41000 + 8 * id until the run is ended from outside, unless the
 * word at 0x40004 is 0: then the boot processor ends it. */
#include "payload.h"
#define TRAMPOLINE 0x10000 /* SIPI vector 0x10 */
    .code64
    .globl _start
_start:
    leaq trampoline(%rip), %rsi
    movl $TRAMPOLINE, %edi
    movl $(trampoline_end - trampoline), %ecx
    cld
    rep movsb
    enable_lapic
    mmio_write32 LAPIC_ICR_LOW, $0xc4500 /* INIT, all but self */
    mmio_write32 LAPIC_ICR_LOW, $0xc4610 /* SIPI */
    mmio_write32 LAPIC_ICR_LOW, $0xc4610
wait:
    pause
    movl 0x40008, %eax
    cmpl %eax, 0x40000
    ja wait
    report $0x100
    cmpl $0, 0x40004
    je finish
count:
    incq 0x41000
    jmp count
finish:
    done

    .code16
trampoline:
    cli
    movw $0x4000, %ax
    movw %ax, %ds
    movl $1, %eax
    cpuid
    shrl $24, %ebx
    movl %ebx, %eax
    outl %eax, $REPORT_PORT
    lock incl 0x8
    cmpl $0, 0x4
    je ap_halt
    shll $3, %ebx
ap_count:
    addl $1, 0x1000(%bx)
    jmp ap_count
ap_halt:
    hlt
    jmp ap_halt
trampoline_end:
