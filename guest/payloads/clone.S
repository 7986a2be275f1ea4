/* For snapshots whose copies are to answer at once. Has a virtio-blk device at 0xc0001000 and a
 * virtio-net device at 0xc0002000, reads sector 0, says that it has come up (the init milestone), and
 * looks at its VM generation ID until that is another: then it is a copy, sends one frame that holds
 * the new ID, and halts. Runs wherever it is loaded, entered in long mode. */
#include "payload.h"
#define BLOCK 0xc0001000
#define NET 0xc0002000
#define GENERATION_ID 0xef000
#define DESC 0x50000
#define AVAIL 0x51000
#define USED 0x52000
#define HEADER 0x53000 /* 16 bytes, then the status byte */
#define DATA 0x54000
#define NET_DESC 0x55000
#define NET_AVAIL 0x56000
#define NET_USED 0x57000
#define FRAME 0x58000 /* the virtio-net header of 12 bytes, then 60 of Ethernet */

.macro set_register device, offset, value
    mmio_write32 (\device + \offset), \value
.endm

.macro start_device device
    set_register \device, 0x70, $0
    set_register \device, 0x70, $1
    set_register \device, 0x70, $3
    set_register \device, 0x24, $1
    set_register \device, 0x20, $1 /* VERSION_1 */
    set_register \device, 0x24, $0
    set_register \device, 0x20, $0
    set_register \device, 0x70, $11
.endm

.macro start_queue device, queue, desc, avail, used
    set_register \device, 0x30, $\queue
    set_register \device, 0x38, $8
    set_register \device, 0x80, $\desc
    set_register \device, 0x84, $0
    set_register \device, 0x90, $\avail
    set_register \device, 0x94, $0
    set_register \device, 0xa0, $\used
    set_register \device, 0xa4, $0
    set_register \device, 0x44, $1
.endm

    .code64
    .globl _start
_start:
    start_device BLOCK
    start_queue BLOCK, 0, DESC, AVAIL, USED
    set_register BLOCK, 0x70, $15
    start_device NET
    start_queue NET, 1, NET_DESC, NET_AVAIL, NET_USED
    set_register NET, 0x70, $15

    movl $HEADER, DESC
    movl $16, DESC + 8
    movw $1, DESC + 12
    movw $1, DESC + 14
    movl $DATA, DESC + 16
    movl $512, DESC + 24
    movw $3, DESC + 28
    movw $2, DESC + 30
    movl $(HEADER + 16), DESC + 32
    movl $1, DESC + 40
    movw $2, DESC + 44
    movl $0, HEADER
    movl $0, HEADER + 8
    movb $0xff, HEADER + 16
    movw $1, AVAIL + 2
    set_register BLOCK, 0x50, $0
1:  pause
    cmpw $1, USED + 2
    jne 1b

    movl $FRAME, NET_DESC
    movl $72, NET_DESC + 8
    movl $0xffffffff, FRAME + 12
    movl $0x0002ffff, FRAME + 16
    movl $0x01000000, FRAME + 20
    movw $0xb588, FRAME + 24 /* EtherType 0x88b5: for experiments */
    movl GENERATION_ID, %r8d
    movl GENERATION_ID + 4, %r9d

    movw $0x50a, %dx
    movb $123, %al
    outb %al, %dx
again:
    outb %al, $0x80
    cmpl GENERATION_ID, %r8d
    jne copied
    cmpl GENERATION_ID + 4, %r9d
    je again
copied:
    outb %al, $0x80 /* the first exit comes before the frame, wherever it stood */
    movl GENERATION_ID, %eax
    movl %eax, FRAME + 26
    movl GENERATION_ID + 4, %eax
    movl %eax, FRAME + 30
    movl GENERATION_ID + 8, %eax
    movl %eax, FRAME + 34
    movl GENERATION_ID + 12, %eax
    movl %eax, FRAME + 38
    movw $1, NET_AVAIL + 2
    set_register NET, 0x50, $1
    outb %al, $0x80
2:  hlt
    jmp 2b
