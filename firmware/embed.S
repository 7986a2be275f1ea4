# The firmware's flat image as read-only data.
    .section .rodata.masu_firmware, "a"
    .globl masu_firmware_image
    .globl masu_firmware_image_end
    .balign 4096
masu_firmware_image:
    .incbin FIRMWARE_IMAGE
masu_firmware_image_end:
    .section .note.GNU-stack, "", @progbits
