// A snapshot's memory file as a restored machine has it.
#pragma once

#include <cstdint>
#include <string>
#include <utility>

#include "vmm/kvm/guest_ram.hpp"
#include "vmm/snapshot/memory_file.hpp"

namespace masu::test {

[[nodiscard]] inline Result<kvm::GuestRam> map_memory(const std::string& path, std::uint64_t size) {
    auto ram = TRY(kvm::GuestRam::reserve(size));
    auto file = TRY(snapshot::open_memory_file(path, size));
    TRY(ram.put_file(std::move(file)));
    return ram;
}

}  // namespace masu::test
