# Head and entry of the image, the way back from StartImage, and the exception stubs.
    .intel_syntax noprefix

    .section .head.start, "ax"
    .quad 0x4d4957465553414d        # ImageHeader: magic
    .long 1                         # version
    .long 32                        # entry: right behind the head
                                    # firmware.ld puts image_size and memory_size here

    .section .head.entry, "ax"
    .globl _start
# RSI = BootInfo. Memory behind the image is zero.
_start:
    cli
    cld
    lea rsp, [rip + __stack_end]
    xor ebp, ebp
    # The image is linked for address 0: every relocation is "base plus addend".
    lea rax, [rip + __image_start]
    lea rbx, [rip + __rela_start]
    lea rcx, [rip + __rela_end]
1:  cmp rbx, rcx
    jae 2f
    mov rdx, [rbx]
    mov rdi, [rbx + 16]
    add rdi, rax
    mov [rax + rdx], rdi
    add rbx, 24
    jmp 1b
2:  mov rdi, rsi
    call masu_firmware_main
3:  cli
    hlt
    jmp 3b

    .text
    .globl masu_set_jump
# int masu_set_jump(JumpBuffer*): 0 now, 1 when masu_long_jump comes back.
masu_set_jump:
    mov rdx, [rsp]
    mov [rdi], rbx
    mov [rdi + 8], rbp
    mov [rdi + 16], r12
    mov [rdi + 24], r13
    mov [rdi + 32], r14
    mov [rdi + 40], r15
    lea rcx, [rsp + 8]
    mov [rdi + 48], rcx
    mov [rdi + 56], rdx
    xor eax, eax
    ret

    .globl masu_long_jump
masu_long_jump:
    mov rbx, [rdi]
    mov rbp, [rdi + 8]
    mov r12, [rdi + 16]
    mov r13, [rdi + 24]
    mov r14, [rdi + 32]
    mov r15, [rdi + 40]
    mov rsp, [rdi + 48]
    mov eax, 1
    jmp [rdi + 56]

# 16 bytes a vector. Those of the mask come with an error code; the others get a zero.
    .globl masu_exception_stubs
    .balign 16
masu_exception_stubs:
    .set vector, 0
    .rept 32
    .balign 16
    .if !((0x60227d00 >> vector) & 1)
    push 0
    .endif
    push vector
    jmp exception
    .set vector, vector + 1
    .endr

# On the stack: vector, error code, RIP, CS, RFLAGS, RSP, SS.
exception:
    cld
    mov rdi, [rsp]
    mov rsi, [rsp + 8]
    mov rdx, [rsp + 16]
    mov rcx, cr2
    mov r8, [rsp + 40]
    and rsp, -16
    call masu_exception
4:  cli
    hlt
    jmp 4b

    .section .note.GNU-stack, "", @progbits
