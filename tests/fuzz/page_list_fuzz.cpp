// A list of pages from anyone: as it comes, and with a right checksum over any content.
#include <cstddef>
#include <cstdint>
#include <span>

#include "vmm/snapshot/page_list.hpp"

using namespace masu;
using namespace masu::snapshot;

namespace {

constexpr std::uint64_t memory_bytes = 64 << 20;

void check(std::span<const std::byte> file) {
    for (const auto kind : {PageListKind::OwnPages, PageListKind::WorkingSet}) {
        const auto list = decode_page_list(file, kind, memory_bytes);
        if (!list)
            continue;
        // What is taken fits the memory and is written the same again.
        std::uint64_t free_from = 0;
        for (const auto& run : list->runs) {
            if (run.first < free_from || run.first + run.count > memory_bytes / guest_page)
                __builtin_trap();
            free_from = run.first + run.count;
        }
        if (!decode_page_list(encode(*list), kind, memory_bytes))
            __builtin_trap();
    }
}

}  // namespace

// The input: a file; and again, from its second byte on, runs of a list of the kind that the first
// byte says, under a right checksum.
extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    const auto input = std::as_bytes(std::span(data, size));
    check(input);
    if (size < 1)
        return 0;
    PageList list{.kind = static_cast<PageListKind>(data[0] % 3),
                  .memory_bytes = memory_bytes,
                  .belongs_to = {},
                  .runs = {}};
    for (auto rest = input.subspan(1); rest.size() >= sizeof(ListedRun);
         rest = rest.subspan(sizeof(ListedRun))) {
        ListedRun run;
        __builtin_memcpy(&run, rest.data(), sizeof run);
        list.runs.push_back(run);
    }
    check(encode(list));
    return 0;
}
