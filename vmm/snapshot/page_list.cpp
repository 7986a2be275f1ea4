#include "vmm/snapshot/page_list.hpp"

#include <xxhash.h>

#include <cstring>

#include "base/atomic_file.hpp"

namespace masu::snapshot {

namespace {

struct PageListHeader {
    std::array<char, 8> magic = page_list_magic;
    std::uint16_t version = page_list_version;
    std::uint16_t kind = 0;
    std::uint32_t run_count = 0;
    std::uint64_t memory_bytes = 0;
    SnapshotId belongs_to{};
    std::uint64_t checksum = 0;  // XXH3, 64 bits, of this header with zero here, and the runs
};
static_assert(PlainData<PageListHeader> && sizeof(PageListHeader) == 48);
static_assert(offsetof(PageListHeader, belongs_to) == 24);

constexpr std::size_t max_file = sizeof(PageListHeader) + max_page_runs * sizeof(ListedRun);

std::uint64_t checksum_of(PageListHeader header, std::span<const ListedRun> runs) {
    header.checksum = 0;
    PlainWriter writer;
    writer.put(header);
    writer.put_raw(std::as_bytes(runs));
    const auto bytes = std::move(writer).take();
    return ::XXH3_64bits(bytes.data(), bytes.size());
}

Result<> check_runs(std::span<const ListedRun> runs, std::uint64_t memory_pages) {
    std::uint64_t free_from = 0;
    for (const auto& run : runs) {
        if (run.count == 0 || run.first < free_from || run.first >= memory_pages ||
            run.count > memory_pages - run.first ||
            run.use > static_cast<std::uint32_t>(PageUse::Written))
            return fail("it lists {} pages from page {} on, which cannot be", run.count, run.first);
        free_from = run.first + run.count;
    }
    return {};
}

}  // namespace

SnapshotId id_of(std::span<const std::byte> state_file) {
    const auto hash = ::XXH3_128bits(state_file.data(), state_file.size());
    XXH128_canonical_t bytes;
    ::XXH128_canonicalFromHash(&bytes, hash);
    SnapshotId id;
    static_assert(sizeof id == sizeof bytes.digest);
    std::memcpy(id.data(), bytes.digest, id.size());
    return id;
}

std::string to_hex(const SnapshotId& id) {
    std::string text;
    for (const auto byte : id)
        text += fmt::format("{:02x}", std::to_integer<unsigned>(byte));
    return text;
}

std::uint64_t PageList::pages() const noexcept {
    std::uint64_t total = 0;
    for (const auto& run : runs)
        total += run.count;
    return total;
}

void add_runs(std::vector<ListedRun>& to, const PageSet& pages, PageUse use) {
    for (const auto& run : pages.runs())
        to.push_back({.first = run.first,
                      .count = static_cast<std::uint32_t>(run.count),
                      .use = static_cast<std::uint32_t>(use)});
}

std::vector<std::byte> encode(const PageList& list) {
    PageListHeader header{.kind = static_cast<std::uint16_t>(list.kind),
                          .run_count = static_cast<std::uint32_t>(list.runs.size()),
                          .memory_bytes = list.memory_bytes,
                          .belongs_to = list.belongs_to};
    header.checksum = checksum_of(header, list.runs);
    PlainWriter writer;
    writer.put(header);
    writer.put_raw(std::as_bytes(std::span(list.runs)));
    return std::move(writer).take();
}

Result<PageList> decode_page_list(std::span<const std::byte> file, PageListKind wanted,
                                  std::uint64_t memory_bytes) {
    PageListHeader header;
    if (file.size() < sizeof header.magic ||
        std::memcmp(file.data(), page_list_magic.data(), sizeof header.magic) != 0)
        return fail("it does not start with '{}'",
                    std::string_view(page_list_magic.data(), page_list_magic.size()));
    if (file.size() < sizeof header)
        return fail("it ends within its header");
    std::memcpy(&header, file.data(), sizeof header);
    if (header.version != page_list_version)
        return fail("it has format version {}, and this version of Masu reads {}", header.version,
                    page_list_version);
    if (header.run_count > max_page_runs ||
        file.size() != sizeof header + header.run_count * sizeof(ListedRun))
        return fail("it has {} bytes, which do not fit the {} entries it claims", file.size(),
                    header.run_count);
    PageList list{.kind = static_cast<PageListKind>(header.kind),
                  .memory_bytes = header.memory_bytes,
                  .belongs_to = header.belongs_to,
                  .runs = std::vector<ListedRun>(header.run_count)};
    if (!list.runs.empty())
        std::memcpy(list.runs.data(), file.data() + sizeof header,
                    list.runs.size() * sizeof(ListedRun));
    if (header.checksum != checksum_of(header, list.runs))
        return fail("its checksum is wrong");
    if (list.kind != wanted)
        return fail("it is a list of another kind");
    if (list.memory_bytes != memory_bytes)
        return fail("it is of a machine with {} bytes of memory, not {}", list.memory_bytes,
                    memory_bytes);
    TRY(check_runs(list.runs, memory_bytes / guest_page));
    return list;
}

Result<PageList> load_page_list(const std::string& path, PageListKind wanted,
                                std::uint64_t memory_bytes) {
    const auto text = TRY(read_file(path, max_file));
    auto list = decode_page_list(std::as_bytes(std::span(text)), wanted, memory_bytes);
    if (!list)
        return fail("the list of pages {} cannot be used: {}", path, list.error().message);
    return list;
}

}  // namespace masu::snapshot
