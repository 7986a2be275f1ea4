// The state file: what goes in comes out, and nothing damaged is taken for good.
#include <doctest/doctest.h>
#include <xxhash.h>

#include <cstring>

#include "base/bytes.hpp"
#include "tests/unit/vmm/snapshot/made_state.hpp"
#include "vmm/kvm/cpu_features.hpp"
#include "vmm/snapshot/state_file.hpp"

using namespace masu;
using namespace masu::snapshot;
using namespace masu::snapshot::test;

namespace {

using File = std::vector<std::byte>;

std::string refusal(std::span<const std::byte> file) {
    const auto state = decode(file);
    return state ? "" : state.error().message;
}

FileHeader header_of(const File& file) {
    return load_unaligned<FileHeader>(file.data());
}

SectionEntry entry_of(const File& file, std::size_t index) {
    return load_unaligned<SectionEntry>(file.data() + sizeof(FileHeader) +
                                        index * sizeof(SectionEntry));
}

// Makes every checksum right again, as somebody who means harm would.
void mend(File& file) {
    auto header = header_of(file);
    for (std::size_t i = 0; i < header.section_count; ++i) {
        auto entry = entry_of(file, i);
        if (entry.offset > file.size() || entry.size > file.size() - entry.offset)
            continue;
        entry.checksum = ::XXH3_64bits(file.data() + entry.offset, entry.size);
        store_unaligned(file.data() + sizeof(FileHeader) + i * sizeof(SectionEntry), entry);
    }
    header.checksum = 0;
    store_unaligned(file.data(), header);
    header.checksum = ::XXH3_64bits(
        file.data(), sizeof(FileHeader) + header.section_count * sizeof(SectionEntry));
    store_unaligned(file.data(), header);
}

}  // namespace

TEST_CASE("a state comes out of its file as it went in") {
    for (const auto transport : {Transport::Pci, Transport::Mmio}) {
        const auto file = encode(made_state(transport));
        const auto state = decode(file);
        REQUIRE_MESSAGE(state, state.error().message);
        CHECK(encode(*state) == file);
        CHECK(state->vcpus.size() == 2);
        CHECK(state->vcpus[1].registers.msrs[1].index == 0x6e0);
        CHECK(state->memory_bytes == 128 << 20);
        CHECK(state->platform.rtc.offset_seconds == -7);
        CHECK(state->panicked);
        REQUIRE(state->interfaces.size() == 2);
        CHECK(state->interfaces[0].mac == net::fake::guest_mac);
        CHECK_FALSE(state->interfaces[1].firewall);
        CHECK(state->metadata.contains("user-data"));
        CHECK(state->host == "a host/1.2.3");
        const auto firewalls = restore_firewalls(state->interfaces, 7);
        REQUIRE_MESSAGE(firewalls, firewalls.error().message);
        REQUIRE(firewalls->size() == 1);
        CHECK(firewalls->front().interface_id == "net0");
        CHECK(firewalls->front().firewall->flow_count() == 1);
        // Saved again, at another time by the clock, it is the same.
        CHECK(firewalls->front().firewall->save(7) == *state->interfaces[0].firewall);
    }
}

TEST_CASE("a file that ends early, anywhere, is refused with a sentence") {
    const auto file = encode(made_state(Transport::Pci));
    for (std::size_t size = 0; size < file.size(); ++size) {
        const auto why = refusal(std::span(file).first(size));
        REQUIRE_MESSAGE(why.size() > 20, "at ", size);
    }
    auto longer = file;
    longer.push_back(std::byte{0});
    CHECK(refusal(longer).contains("should have"));
}

TEST_CASE("one flipped bit, anywhere, is found") {
    for (const auto transport : {Transport::Pci, Transport::Mmio}) {
        auto file = encode(made_state(transport));
        std::mt19937 random(3);
        // The header and the table bit by bit, a sample of the rest: all sections are in it.
        const auto table =
            sizeof(FileHeader) + header_of(file).section_count * sizeof(SectionEntry);
        std::size_t step = 1;
        for (std::size_t bit = 0; bit < file.size() * 8; bit += step) {
            if (bit / 8 >= table)
                step = 1 + random() % 40;
            file[bit / 8] ^= std::byte(1U << bit % 8);
            REQUIRE_MESSAGE(refusal(file).size() > 20, "bit ", bit);
            file[bit / 8] ^= std::byte(1U << bit % 8);
        }
        CHECK(refusal(file).empty());
    }
}

TEST_CASE("whatever a section holds under a right checksum, reading it ends well") {
    const auto good = encode(made_state(Transport::Pci));
    std::mt19937 random(9);
    int refused = 0;
    for (int round = 0; round < 4000; ++round) {
        auto file = good;
        const auto entry = entry_of(file, random() % header_of(file).section_count);
        for (unsigned i = 0; i < 1 + random() % 3; ++i) {
            // Near the front, where counts and sizes are, more often than not.
            const auto reach =
                random() % 2 == 0 ? std::min<std::uint64_t>(entry.size, 64) : entry.size;
            if (reach == 0)
                continue;
            const auto place = entry.offset + random() % reach;
            const std::uint32_t odd[] = {0, 0xff, 0x7f,
                                         static_cast<std::uint32_t>(random() & 0xff)};
            file[place] = std::byte(odd[random() % 4]);
        }
        mend(file);
        refused += refusal(file).empty() ? 0 : 1;
    }
    CHECK(refused > 100);
    CHECK(refused < 4000);
}

TEST_CASE("versions: other majors and newer minors are refused by name") {
    auto file = encode(made_state(Transport::Pci));
    auto header = header_of(file);
    header.minor = format_minor + 1;
    store_unaligned(file.data(), header);
    mend(file);
    CHECK(refusal(file).contains(fmt::format("version {}.{}", format_major, format_minor + 1)));
    header.minor = 0;
    header.major = format_major + 1;
    store_unaligned(file.data(), header);
    mend(file);
    CHECK(refusal(file).contains(fmt::format("version {}.0", format_major + 1)));
    header.major = format_major;
    store_unaligned(file.data(), header);
    mend(file);
    CHECK(refusal(file).empty());
    header.minor = 1;
    store_unaligned(file.data(), header);
    mend(file);
    CHECK(refusal(file).empty());
    CHECK(refusal(std::as_bytes(std::span("{\"json\": true}"))).contains("MASUSNAP"));
}

TEST_CASE("parts that do not belong together are refused") {
    auto state = made_state(Transport::Pci);
    state.memory_bytes += 4096;
    CHECK(refusal(encode(state)).contains("memory"));
    state = made_state(Transport::Pci);
    state.vcpus.clear();
    CHECK(refusal(encode(state)).contains("vCPUs"));
    state = made_state(Transport::Pci);
    state.vcpus[0].registers.xcrs.nr_xcrs = 1000;
    CHECK(refusal(encode(state)).contains("vCPU section 0"));
    state = made_state(Transport::Pci);
    state.vcpus[0].registers.msrs.resize(5000);
    CHECK(refusal(encode(state)).contains("at most 4096"));
    state = made_state(Transport::Mmio);
    state.transport = Transport::Pci;
    CHECK(refusal(encode(state)).contains("devices"));
    state = made_state(Transport::Pci);
    state.interfaces[1].id = "net0";
    CHECK(refusal(encode(state)).contains("twice"));
    state.interfaces[1].id = "../net";
    CHECK(refusal(encode(state)).contains("interface id"));
    state.interfaces.assign(9, {.id = "net0", .mac = {}, .firewall = std::nullopt});
    CHECK(refusal(encode(state)).contains("9 network interfaces"));
    state = made_state(Transport::Pci);
    state.interfaces[0].firewall->resize(max_saved_firewall + 1);
    CHECK(refusal(encode(state)).contains("network interface section 0"));
    state = made_state(Transport::Pci);
    state.metadata.resize((16 << 20) + 1, ' ');
    CHECK(refusal(encode(state)).contains("metadata section"));
    state = made_state(Transport::Pci);
    state.host.resize(1000, 'x');
    CHECK(refusal(encode(state)).contains("host section"));
}

TEST_CASE("a file of version 1.0, without network sections, is one of a machine without flows") {
    auto state = made_state(Transport::Pci);
    state.interfaces.clear();
    state.metadata.clear();
    state.host.clear();
    auto file = encode(state);
    auto header = header_of(file);
    header.minor = 0;
    store_unaligned(file.data(), header);
    mend(file);
    const auto old = decode(file);
    REQUIRE_MESSAGE(old, old.error().message);
    CHECK(old->interfaces.empty());
    CHECK(old->host.empty());
}

TEST_CASE("flows of any content are loaded or refused with a sentence") {
    const auto good = made_firewall();
    std::mt19937 random(4);
    int refused = 0;
    for (int round = 0; round < 2000; ++round) {
        SavedInterface interface{.id = "net0", .mac = net::fake::guest_mac, .firewall = good};
        auto& bytes = *interface.firewall;
        for (unsigned i = 0; i < 1 + random() % 3; ++i)
            bytes[random() % bytes.size()] = static_cast<std::byte>(random());
        if (random() % 4 == 0)
            bytes.resize(random() % (bytes.size() + 8));
        const auto firewalls = restore_firewalls({interface}, 1);
        if (!firewalls) {
            ++refused;
            REQUIRE(firewalls.error().message.contains("interface net0"));
        }
    }
    CHECK(refused > 500);
}

TEST_CASE("MSRs are put in the order they must be set in") {
    const auto order = kvm::in_restore_order(
        {0x6e0, 0x12, 0x1b, 0xc000'0080, 0x10, 0x4b56'4d01, 0x3b, 0x10, 0x174});
    CHECK(order ==
          std::vector<std::uint32_t>{0x3b, 0x10, 0x174, 0xc000'0080, 0x12, 0x4b56'4d01, 0x6e0});
}

TEST_CASE("a CPU that lacks what the guest was shown is told by name") {
    kvm::CpuidLeaves saved{{.function = 0, .ebx = 1, .ecx = 2, .edx = 3},
                           {.function = 1, .ecx = 1U << 28 | 1U << 27},
                           {.function = 7, .ebx = 1U << 16 | 1U << 12}};
    auto host = saved;
    CHECK(kvm::missing_features(saved, host).empty());
    host[1].ecx = 0;
    host[2].ebx = 0;
    const auto missing = kvm::missing_features(saved, host);
    CHECK(missing == std::vector<std::string>{"avx", "CPUID 0x7.0 EBX bit 12", "avx512f"});
    host[0].ebx = 9;
    CHECK(kvm::missing_features(saved, host).front().contains("a CPU made by"));
}
