// A kernel file of any content, through the whole loader into the smallest VM's memory.
#include <cstdint>

#include "tests/fuzz/input.hpp"
#include "tests/unit/vmm/boot/fake_kernels.hpp"
#include "vmm/boot/loader.hpp"
#include "vmm/layout.hpp"

using namespace masu;
using fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    static const boot::test::TestRam ram(64 * MiB);
    const auto memory = ram.memory();
    const auto bytes = std::as_bytes(std::span(data, size));
    const boot::test::TestFile kernel(boot::test::Bytes(bytes.begin(), bytes.end()));

    const auto entry =
        boot::load({kernel.path(), std::nullopt, "console=ttyS0", layout::acpi_rsdp}, memory);
    if (!entry) {
        require(!entry.error().message.empty());
        return 0;
    }
    // Where the guest starts is above what the monitor itself put below 1 MiB, and is RAM.
    require(entry->instruction_pointer >= layout::high_memory_start);
    require(memory.slice(GuestAddress{entry->instruction_pointer}, 1).has_value());
    require(entry->parameters != 0);
    return 0;
}
