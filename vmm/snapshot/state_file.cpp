#include "vmm/snapshot/state_file.hpp"

#include <xxhash.h>

#include <cstring>

namespace masu::snapshot {

namespace {

std::uint64_t checksum_of(std::span<const std::byte> bytes) {
    return ::XXH3_64bits(bytes.data(), bytes.size());
}

std::uint64_t table_checksum(FileHeader header, std::span<const SectionEntry> table) {
    header.checksum = 0;
    PlainWriter writer;
    writer.put(header);
    writer.put_raw(std::as_bytes(table));
    return checksum_of(std::move(writer).take());
}

const char* word_for(SectionKind kind) {
    switch (kind) {
        case SectionKind::Config:
            return "configuration";
        case SectionKind::Machine:
            return "machine";
        case SectionKind::Cpuid:
            return "CPUID";
        case SectionKind::Vcpu:
            return "vCPU";
        case SectionKind::Platform:
            return "platform";
        case SectionKind::PciRoot:
            return "PCI root";
        case SectionKind::PciFunction:
            return "PCI function";
        case SectionKind::MmioWindow:
            return "virtio-mmio device";
        case SectionKind::Interface:
            return "network interface";
        case SectionKind::Metadata:
            return "metadata";
        case SectionKind::Host:
            return "host";
    }
    return nullptr;
}

constexpr std::string_view damaged = "the snapshot's state file is damaged";

Result<FileHeader> read_header(std::span<const std::byte> file) {
    if (file.size() > max_state_size)
        return fail("the snapshot's state file has {} bytes, more than the {} it can have",
                    file.size(), max_state_size);
    FileHeader header;
    if (file.size() < sizeof header.magic ||
        std::memcmp(file.data(), format_magic.data(), sizeof header.magic) != 0)
        return fail("this is no snapshot state file: it does not start with '{}'",
                    std::string_view(format_magic.data(), format_magic.size()));
    if (file.size() < sizeof header)
        return fail("{}: it ends within its header", damaged);
    std::memcpy(&header, file.data(), sizeof header);
    if (header.major != format_major || header.minor > format_minor)
        return fail(
            "the snapshot has format version {}.{}, and this version of Masu reads {}.0 to "
            "{}.{}: restore it with the version that saved it",
            header.major, header.minor, format_major, format_major, format_minor);
    if (header.file_size != file.size())
        return fail("{}: it has {} bytes and should have {}", damaged, file.size(),
                    header.file_size);
    if (header.section_count > max_sections ||
        header.section_count * sizeof(SectionEntry) > file.size() - sizeof header)
        return fail("{}: it lists {} sections", damaged, header.section_count);
    return header;
}

}  // namespace

std::string Section::name() const {
    const auto* word = word_for(kind);
    return fmt::format("the {} section {} of the snapshot", word != nullptr ? word : "unknown",
                       index);
}

void StateWriter::add(SectionKind kind, std::uint32_t index, std::vector<std::byte> bytes) {
    sections_.push_back({kind, index, std::move(bytes)});
}

std::vector<std::byte> StateWriter::file() const {
    std::vector<SectionEntry> table;
    std::uint64_t offset = sizeof(FileHeader) + sections_.size() * sizeof(SectionEntry);
    for (const auto& section : sections_) {
        table.push_back({.kind = std::to_underlying(section.kind),
                         .index = section.index,
                         .offset = offset,
                         .size = section.bytes.size(),
                         .checksum = checksum_of(section.bytes)});
        offset += section.bytes.size();
    }
    FileHeader header{.section_count = static_cast<std::uint32_t>(sections_.size()),
                      .file_size = offset};
    header.checksum = table_checksum(header, table);
    PlainWriter writer;
    writer.put(header);
    writer.put_raw(std::as_bytes(std::span(table)));
    for (const auto& section : sections_)
        writer.put_raw(section.bytes);
    return std::move(writer).take();
}

Result<std::vector<Section>> read_state_file(std::span<const std::byte> file) {
    const auto header = TRY(read_header(file));
    std::vector<SectionEntry> table(header.section_count);
    std::uint64_t place = sizeof header;
    if (!table.empty())
        std::memcpy(table.data(), file.data() + place, table.size() * sizeof(SectionEntry));
    place += table.size() * sizeof(SectionEntry);
    if (header.checksum != table_checksum(header, table))
        return fail("{}: the checksum of its table of sections is wrong", damaged);
    std::vector<Section> sections;
    for (const auto& entry : table) {
        if (word_for(SectionKind{entry.kind}) == nullptr)
            return fail("{}: it has a section of kind {}, which does not exist", damaged,
                        entry.kind);
        Section section{.kind = SectionKind{entry.kind}, .index = entry.index, .bytes = {}};
        if (entry.offset != place || entry.size > file.size() - place)
            return fail("{}: {} lies outside of it", damaged, section.name());
        section.bytes = file.subspan(place, entry.size);
        if (checksum_of(section.bytes) != entry.checksum)
            return fail("{}: the checksum of {} is wrong", damaged, section.name());
        sections.push_back(section);
        place += entry.size;
    }
    if (place != file.size())
        return fail("{}: {} bytes follow its last section", damaged, file.size() - place);
    return sections;
}

}  // namespace masu::snapshot
