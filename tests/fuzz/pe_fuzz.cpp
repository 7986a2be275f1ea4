// PE images: whatever parses also loads without touching anything outside of its memory.
#include <cstdint>
#include <cstdlib>
#include <span>
#include <vector>

#include "firmware/pe.hpp"

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace masu::firmware;
    constexpr std::uint32_t largest = 1 << 20;
    const auto file = std::as_bytes(std::span(data, size));
    const auto image = pe::parse(file);
    if (!image || image->size > largest)
        return 0;
    std::vector<std::byte> memory(image->size);
    const auto loaded = pe::load(*image, file, memory, 0x1234'5000);
    if (!loaded && loaded.error().reason == nullptr)
        std::abort();
    return 0;
}
