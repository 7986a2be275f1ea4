// Directories of FAT: short names, long names, and finding one by the other.
#include <algorithm>
#include <array>
#include <cstring>

#include "firmware/bytes.hpp"
#include "firmware/fs/fat.hpp"
#include "firmware/fs/utf16.hpp"

namespace masu::firmware {

namespace {

constexpr std::uint8_t attribute_volume_label = 0x08;
constexpr std::uint8_t attribute_directory = 0x10;
constexpr std::uint8_t attribute_long_name = 0x0f;
constexpr std::size_t units_per_entry = 13;
constexpr std::uint64_t label_scan = 16384;  // bytes of the root directory looked at for the label

// Code page 437, which Linux assumes for short names too, from 0x80 on.
constexpr std::array<std::uint16_t, 128> code_page_437{
    0x00c7, 0x00fc, 0x00e9, 0x00e2, 0x00e4, 0x00e0, 0x00e5, 0x00e7, 0x00ea, 0x00eb, 0x00e8, 0x00ef,
    0x00ee, 0x00ec, 0x00c4, 0x00c5, 0x00c9, 0x00e6, 0x00c6, 0x00f4, 0x00f6, 0x00f2, 0x00fb, 0x00f9,
    0x00ff, 0x00d6, 0x00dc, 0x00a2, 0x00a3, 0x00a5, 0x20a7, 0x0192, 0x00e1, 0x00ed, 0x00f3, 0x00fa,
    0x00f1, 0x00d1, 0x00aa, 0x00ba, 0x00bf, 0x2310, 0x00ac, 0x00bd, 0x00bc, 0x00a1, 0x00ab, 0x00bb,
    0x2591, 0x2592, 0x2593, 0x2502, 0x2524, 0x2561, 0x2562, 0x2556, 0x2555, 0x2563, 0x2551, 0x2557,
    0x255d, 0x255c, 0x255b, 0x2510, 0x2514, 0x2534, 0x252c, 0x251c, 0x2500, 0x253c, 0x255e, 0x255f,
    0x255a, 0x2554, 0x2569, 0x2566, 0x2560, 0x2550, 0x256c, 0x2567, 0x2568, 0x2564, 0x2565, 0x2559,
    0x2558, 0x2552, 0x2553, 0x256b, 0x256a, 0x2518, 0x250c, 0x2588, 0x2584, 0x258c, 0x2590, 0x2580,
    0x03b1, 0x00df, 0x0393, 0x03c0, 0x03a3, 0x03c3, 0x00b5, 0x03c4, 0x03a6, 0x0398, 0x03a9, 0x03b4,
    0x221e, 0x03c6, 0x03b5, 0x2229, 0x2261, 0x00b1, 0x2265, 0x2264, 0x2320, 0x2321, 0x00f7, 0x2248,
    0x00b0, 0x2219, 0x00b7, 0x221a, 0x207f, 0x00b2, 0x25a0, 0x00a0};

char lower(char c) {
    return c >= 'A' && c <= 'Z' ? static_cast<char>(c | 0x20) : c;
}

bool same_name(std::string_view a, std::string_view b) {
    return a.size() == b.size() && std::equal(a.begin(), a.end(), b.begin(),
                                              [](char x, char y) { return lower(x) == lower(y); });
}

std::uint8_t short_name_checksum(std::span<const std::byte> name) {
    std::uint8_t sum = 0;
    for (const std::byte byte : name.first(11))
        sum = static_cast<std::uint8_t>((sum >> 1 | sum << 7) + static_cast<std::uint8_t>(byte));
    return sum;
}

// "NAME.EXT" as UTF-8; a directory's case bits (Windows NT) give lower case.
std::size_t short_name(std::span<const std::byte> raw, std::span<char> to) {
    const auto case_bits = load_le<std::uint8_t>(raw, 12);
    std::size_t used = 0;
    const auto put = [&](std::size_t from, std::size_t count, bool small) {
        while (count != 0 && load_le<char>(raw, from + count - 1) == ' ')
            --count;
        for (std::size_t i = from; i < from + count; ++i) {
            auto byte = load_le<std::uint8_t>(raw, i);
            if (i == 0 && byte == 0x05)
                byte = 0xe5;  // written so because 0xe5 marks a deleted entry
            const std::uint32_t point = byte < 0x80 ? byte : code_page_437[byte - 0x80U];
            const char c = static_cast<char>(byte);
            used += put_utf8(small && byte < 0x80 ? static_cast<std::uint8_t>(lower(c)) : point,
                             to.subspan(used));
        }
    };
    put(0, 8, (case_bits & 0x08) != 0);
    if (load_le<char>(raw, 8) != ' ' && used < to.size()) {
        to[used++] = '.';
        put(8, 3, (case_bits & 0x10) != 0);
    }
    return used;
}

}  // namespace

// Gathers the entries of a long name, which come last part first, in front of the short one.
struct FatFileSystem::LongName {
    std::array<std::byte, 20 * units_per_entry * 2> units;
    std::uint8_t checksum = 0;
    std::uint8_t expected = 0;  // the next part's number; 0 when all are there
    std::size_t size = 0;       // bytes; 0: none

    void reset() noexcept { size = 0; }
    void add(const RawEntry& raw) noexcept {
        const auto order = load_le<std::uint8_t>(raw, 0);
        const std::uint8_t part = order & 0x3f;
        if ((order & 0x40) != 0 && part != 0 && part <= 20) {
            checksum = load_le<std::uint8_t>(raw, 13);
            expected = part;
            size = std::size_t{part} * units_per_entry * 2;
        }
        if (size == 0 || part != expected || load_le<std::uint8_t>(raw, 13) != checksum)
            return reset();
        --expected;
        std::byte* const to = units.data() + std::size_t{expected} * units_per_entry * 2;
        std::memcpy(to, raw.data() + 1, 10);
        std::memcpy(to + 10, raw.data() + 14, 12);
        std::memcpy(to + 22, raw.data() + 28, 4);
    }
    [[nodiscard]] bool belongs_to(const RawEntry& raw) const noexcept {
        return size != 0 && expected == 0 && checksum == short_name_checksum(raw);
    }
};

// The next entry that names a file, and the long name gathered before it.
Result<bool> FatFileSystem::next_raw(const Node& directory, std::uint64_t& cursor, RawEntry& raw,
                                     LongName& name) noexcept {
    name.reset();
    if ((directory.attributes & attribute_directory) == 0)
        return fail(ErrorCode::NotDirectory, "it is no directory");
    for (cursor = cursor / 32 * 32;;) {
        if (TRY(read_entry(directory, cursor, raw)) == Read::End)
            return false;
        const auto first = load_le<std::uint8_t>(raw, 0);
        const auto attributes = load_le<std::uint8_t>(raw, 11);
        if (first == 0)
            return false;
        cursor += 32;
        if (first == 0xe5) {
            name.reset();
        } else if ((attributes & 0x3f) == attribute_long_name) {
            name.add(raw);
        } else if ((attributes & attribute_volume_label) != 0) {
            name.reset();
        } else {
            return true;
        }
    }
}

Result<bool> FatFileSystem::next(const Node& directory, std::uint64_t& cursor,
                                 DirectoryEntry& entry) noexcept {
    RawEntry raw{};
    LongName name;
    do {
        if (!TRY(next_raw(directory, cursor, raw, name)))
            return false;
    } while (load_le<char>(raw, 0) == '.');  // "." and ".."; no other short name starts so
    entry.node = make_node(raw);
    entry.type = (entry.node.attributes & attribute_directory) != 0 ? FileType::Directory
                                                                    : FileType::Regular;
    entry.name_size = name.belongs_to(raw)
                          ? utf16_to_utf8(std::span(name.units).first(name.size), entry.name_bytes)
                          : short_name(raw, entry.name_bytes);
    return true;
}

Result<Node> FatFileSystem::lookup(const Node& directory, std::string_view wanted) noexcept {
    RawEntry raw{};
    LongName name;
    std::array<char, max_name> text;
    std::uint64_t cursor = 0;
    if (wanted == "." || (wanted == ".." && is_root(directory)))
        return directory;
    while (TRY(next_raw(directory, cursor, raw, name))) {
        const Node node = make_node(raw);
        if (load_le<char>(raw, 0) == '.') {
            if (wanted != ".." || load_le<char>(raw, 1) != '.')
                continue;
            // The root is cluster 0 there, whatever its true one.
            return node.id == 0 ? root() : node;
        }
        const bool found =
            (name.belongs_to(raw) &&
             same_name({text.data(), utf16_to_utf8(std::span(name.units).first(name.size), text)},
                       wanted)) ||
            same_name({text.data(), short_name(raw, text)}, wanted);
        if (found)
            return node;
    }
    return fail(ErrorCode::NotFound, "there is no such file");
}

// The root directory's label counts for more than the boot sector's, which tools forget to change.
void FatFileSystem::find_label(std::span<const std::byte> boot_label) noexcept {
    const auto take = [&](std::span<const std::byte> from) {
        label_size_ = std::min<std::size_t>(from.size(), 11);
        std::ranges::copy(from.first(label_size_),
                          std::as_writable_bytes(std::span(label_)).begin());
        while (label_size_ != 0 && label_[label_size_ - 1] == ' ')
            --label_size_;
    };
    RawEntry raw{};
    for (std::uint64_t at = 0; at < label_scan; at += raw.size()) {
        const auto got = read_entry(root(), at, raw);
        if (!got || *got == Read::End || load_le<std::uint8_t>(raw, 0) == 0)
            break;
        const auto attributes = load_le<std::uint8_t>(raw, 11);
        if (load_le<std::uint8_t>(raw, 0) != 0xe5 && (attributes & 0x3f) != attribute_long_name &&
            (attributes & attribute_volume_label) != 0)
            return take(std::span(raw).first(11));
    }
    take(boot_label);
    if (label() == "NO NAME")
        label_size_ = 0;
}

}  // namespace masu::firmware
