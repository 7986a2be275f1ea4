/* Programs pin 5 of the IOAPIC as level-triggered, vector 0x50; the test raises the line when 1 is
 * reported and lowers it at the third interrupt: until then each end of interrupt brings the next. */
#include "payload.h"
#define IOAPIC_SELECT 0xfec00000
#define IOAPIC_WINDOW 0xfec00010
#define LINE_PORT 0xe8 /* a byte: the level of the line */
    .code64
    .globl _start
_start:
    set_gate 0x50, on_interrupt
    load_idt
    enable_lapic
    xorl %ebp, %ebp
    mmio_write32 IOAPIC_SELECT, $0x1b /* pin 5, upper half: destination 0 */
    mmio_write32 IOAPIC_WINDOW, $0
    mmio_write32 IOAPIC_SELECT, $0x1a
    mmio_write32 IOAPIC_WINDOW, $0x8050 /* level, unmasked, physical */
    movb $1, %al
    outb %al, $LINE_PORT
wait:
    sti
    hlt
    cli
    cmpl $3, %ebp
    jb wait
    done
on_interrupt:
    pushq %rax
    pushq %rdi
    incl %ebp
    report %ebp
    cmpl $3, %ebp
    jb 1f
    xorl %eax, %eax
    outb %al, $LINE_PORT
1:  mmio_write32 LAPIC_EOI, $0
    popq %rdi
    popq %rax
    iretq
