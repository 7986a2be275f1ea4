// A snapshot's state file from anyone: the container as it comes, and sections with any content
// under right checksums.
#include <cstddef>
#include <cstdint>
#include <span>
#include <tuple>

#include "vmm/snapshot/machine_state.hpp"
#include "vmm/snapshot/state_file.hpp"

using namespace masu::snapshot;

namespace {

// Replaces one section of a good file by the rest of the input, which no checksum then protects.
void with_right_checksums(std::span<const std::byte> file, std::span<const std::byte> content,
                          std::size_t which) {
    const auto sections = read_state_file(file);
    if (!sections || sections->empty())
        return;
    StateWriter writer;
    for (std::size_t i = 0; i < sections->size(); ++i) {
        const auto& section = (*sections)[i];
        const auto bytes = i == which % sections->size() ? content : section.bytes;
        writer.add(section.kind, section.index, {bytes.begin(), bytes.end()});
    }
    const auto changed = writer.file();
    if (const auto state = decode(changed)) {
        if (encode(*state).empty())
            __builtin_trap();
        // What is behind the sections' own structure, flows of firewalls.
        std::ignore = masu::restore_firewalls(state->interfaces, 1);
    }
}

}  // namespace

// The input: a 32-bit length, that many bytes as a state file, and the content for a section whose
// number is the first of them.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto input = std::as_bytes(std::span(data, size));
    if (const auto state = decode(input)) {
        // What is taken is written the same again.
        const auto again = encode(*state);
        if (!decode(again))
            __builtin_trap();
    }
    if (size < 5)
        return 0;
    std::uint32_t length = 0;
    __builtin_memcpy(&length, data, sizeof length);
    const auto rest = input.subspan(sizeof length);
    if (length >= rest.size())
        return 0;
    with_right_checksums(rest.first(length), rest.subspan(length + 1),
                         std::to_integer<std::size_t>(rest[length]));
    return 0;
}
