/* A polling virtio-blk driver on virtio-mmio at 0xc0001000: reads sector 0 and reports its first word;
 * writes sector 3, reads it back elsewhere and reports the first and last word. Each request's status
 * byte is reported first. */
#include "payload.h"
#define DEVICE 0xc0001000
#define DESC 0x50000
#define AVAIL 0x51000
#define USED 0x52000
#define HEADER 0x53000 /* 16 bytes, then the status byte */
#define DATA_OUT 0x54000
#define DATA_IN 0x55000

.macro set_register offset, value
    mmio_write32 (DEVICE + \offset), \value
.endm

/* Sends one request of `type` for `sector` with 512 bytes at `buffer`; `flags` of its descriptor. */
.macro request type, sector, buffer, flags
    movl $\type, HEADER
    movl $0, HEADER + 4
    movl $\sector, HEADER + 8
    movl $0, HEADER + 12
    movb $0xff, HEADER + 16
    movl $\buffer, DESC + 16
    movl $512, DESC + 24
    movw $\flags, DESC + 28
    movw $2, DESC + 30
    movzwl AVAIL + 2, %ecx
    incl %ecx
    movw %cx, AVAIL + 2 /* every entry of the ring is head 0 */
    set_register 0x50, $0
1:  pause
    cmpw %cx, USED + 2
    jne 1b
    movzbl HEADER + 16, %eax
    outl %eax, $REPORT_PORT
.endm

    .code64
    .globl _start
_start:
    set_register 0x70, $0
    set_register 0x70, $1
    set_register 0x70, $3
    set_register 0x24, $1
    set_register 0x20, $1 /* VERSION_1 */
    set_register 0x24, $0
    set_register 0x20, $0
    set_register 0x70, $11
    movl $(DEVICE + 0x70), %edi
    movl (%rdi), %eax
    outl %eax, $REPORT_PORT
    set_register 0x30, $0
    set_register 0x38, $8
    set_register 0x80, $DESC
    set_register 0x84, $0
    set_register 0x90, $AVAIL
    set_register 0x94, $0
    set_register 0xa0, $USED
    set_register 0xa4, $0
    set_register 0x44, $1
    set_register 0x70, $15
    /* Descriptors 0 (header) and 2 (status) stay; 1 is each request's. */
    movl $HEADER, DESC
    movl $16, DESC + 8
    movw $1, DESC + 12
    movw $1, DESC + 14
    movl $(HEADER + 16), DESC + 32
    movl $1, DESC + 40
    movw $2, DESC + 44

    request 0, 0, DATA_IN, 3
    report DATA_IN
    movl $DATA_OUT, %edi
    movl $512, %ecx
    movb $0x5a, %al
    cld
    rep stosb
    movl $0x12345678, DATA_OUT + 508
    request 1, 3, DATA_OUT, 1
    request 0, 3, DATA_IN, 3
    report DATA_IN
    report (DATA_IN + 508)
    done
