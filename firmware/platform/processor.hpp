// The processor as UEFI 2.3.4 wants it: FPU and SSE usable, all memory mapped 1:1, exceptions told.
#pragma once

namespace masu::firmware {

// Once, with the memory map complete. False when there is no memory for page tables.
[[nodiscard]] bool set_up_processor() noexcept;

}  // namespace masu::firmware
