/* What every payload needs: where it talks to the test, and interrupts in long mode.
 *
 * A payload is one flat .text, loaded and entered at 1 MiB in long mode with the low 4 GiB mapped 1:1,
 * interrupts off, and a stack below 0x9000. Only simple integer instructions: a KVM that interprets
 * guest code must manage them. Port writes of 32 bits to REPORT_PORT are recorded by the test; a byte
 * to DONE_PORT ends the run. */
#define REPORT_PORT 0xe0
#define DONE_PORT 0xe4

#define LAPIC_ID 0xfee00020
#define LAPIC_EOI 0xfee000b0
#define LAPIC_SPURIOUS 0xfee000f0
#define LAPIC_ICR_LOW 0xfee00300
#define LAPIC_ICR_HIGH 0xfee00310
#define LAPIC_LVT_TIMER 0xfee00320
#define LAPIC_TIMER_INITIAL 0xfee00380
#define LAPIC_TIMER_DIVIDE 0xfee003e0

#define CODE_SELECTOR 0x10
#define IDT 0x30000 /* 256 gates of 16 bytes, built at run time */

/* The boot page tables map everything write-back; LAPIC and IOAPIC addresses lie above 2 GiB, so they
 * go through a register. */
.macro mmio_write32 address, value
    movl $\address, %edi
    movl \value, %eax
    movl %eax, (%rdi)
.endm

.macro report value
    movl \value, %eax
    outl %eax, $REPORT_PORT
.endm

.macro done
    xorl %eax, %eax
    outb %al, $DONE_PORT
1:  hlt
    jmp 1b
.endm

/* An interrupt gate for `vector` (Intel SDM vol. 3, 6.14.1). */
.macro set_gate vector, handler
    leaq \handler(%rip), %rax
    movl $(IDT + \vector * 16), %edi
    movw %ax, (%rdi)
    movw $CODE_SELECTOR, 2(%rdi)
    movw $0x8e00, 4(%rdi)
    shrq $16, %rax
    movw %ax, 6(%rdi)
    shrq $16, %rax
    movl %eax, 8(%rdi)
    movl $0, 12(%rdi)
.endm

.macro load_idt
    movw $0xfff, -16(%rsp)
    movq $IDT, -14(%rsp)
    lidt -16(%rsp)
.endm

.macro enable_lapic
    mmio_write32 LAPIC_SPURIOUS, $0x1ff
.endm
