// The code at F000:FFF0.
#include "vmm/boot/reset_vector.hpp"

#include <array>

#include "vmm/layout.hpp"

namespace masu::boot {

Result<> install_reset_vector(const GuestMemory& memory) {
    constexpr auto port = layout::acpi_reset_port;
    constexpr std::array<std::uint8_t, 9> code{
        0xba,      port & 0xff,
        port >> 8,                            // mov dx, acpi_reset_port
        0xb0,      layout::acpi_reset_value,  // mov al, acpi_reset_value
        0xee,                                 // out dx, al
        0xf4,                                 // hlt
        0xeb,      0xfd,                      // jmp to the hlt
    };
    static_assert(code.size() <= layout::high_memory_start - layout::reset_vector);
    if (!memory.write(GuestAddress{layout::reset_vector}, std::as_bytes(std::span(code))))
        return fail("guest memory ends below the reset vector at {:#x}", layout::reset_vector);
    return {};
}

}  // namespace masu::boot
