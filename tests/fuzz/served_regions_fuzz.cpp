// What a monitor, or whoever connects in its place, tells a page server of its memory.
#include <cstddef>
#include <cstdint>
#include <string_view>

#include "tools/masu/page_server.hpp"
#include "vmm/page_set.hpp"

using namespace masu;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    constexpr std::uint64_t memory_bytes = 64 << 20;
    const std::string_view text(reinterpret_cast<const char*>(data), size);
    const auto regions = cli::parse_served_regions(text, memory_bytes);
    if (!regions)
        return 0;
    std::uint64_t total = 0;
    for (const auto& [address, bytes, offset] : *regions) {
        if (bytes == 0 || (address | bytes | offset) % guest_page != 0 || offset > memory_bytes ||
            bytes > memory_bytes - offset || address + bytes < address)
            __builtin_trap();
        total += bytes;
    }
    if (total > memory_bytes)  // then some overlap
        __builtin_trap();
    return 0;
}
