#include <doctest/doctest.h>

#include <map>
#include <numeric>
#include <string>

#include "base/bytes.hpp"
#include "vmm/acpi/tables.hpp"
#include "vmm/layout.hpp"

using namespace masu;
using namespace masu::acpi;

namespace {

using View = std::span<const std::byte>;

unsigned sum(View bytes) {
    return std::accumulate(bytes.begin(), bytes.end(), 0U, [](unsigned total, std::byte byte) {
        return (total + std::to_integer<unsigned>(byte)) & 0xff;
    });
}

template <class T>
T at(View bytes, std::size_t offset) {
    REQUIRE(offset + sizeof(T) <= bytes.size());
    return load_unaligned<T>(bytes.data() + offset);
}

std::string text(View bytes, std::size_t offset, std::size_t size) {
    REQUIRE(offset + size <= bytes.size());
    std::string out(size, '\0');
    std::memcpy(out.data(), bytes.data() + offset, size);
    return out;
}

// A guest's walk from the RSDP, checking what it would check.
struct Found {
    explicit Found(const Description& description) : built(build_tables(description).value()) {
        const View rsdp = built.rsdp;
        REQUIRE(text(rsdp, 0, 8) == "RSD PTR ");
        CHECK(sum(rsdp.first(20)) == 0);
        CHECK(rsdp.size() == 36);
        CHECK(sum(rsdp) == 0);
        CHECK(at<std::uint8_t>(rsdp, 15) == 2);
        CHECK(at<std::uint32_t>(rsdp, 20) == rsdp.size());
        const auto xsdt = table_at(at<std::uint64_t>(rsdp, 24));
        REQUIRE(text(xsdt, 0, 4) == "XSDT");
        for (std::size_t offset = 36; offset < xsdt.size(); offset += 8) {
            const auto table = table_at(at<std::uint64_t>(xsdt, offset));
            tables[text(table, 0, 4)] = table;
        }
        const auto dsdt = at<std::uint64_t>(tables.at("FACP"), 140);
        CHECK(dsdt == at<std::uint32_t>(tables.at("FACP"), 40));
        tables["DSDT"] = table_at(dsdt);
    }
    Found(const Found&) = delete;

    View table_at(std::uint64_t address) const {
        REQUIRE(address >= layout::acpi_tables);
        const auto offset = address - layout::acpi_tables;
        REQUIRE(offset + 36 <= built.tables.size());
        CHECK(address % 16 == 0);
        const auto size = at<std::uint32_t>(built.tables, offset + 4);
        REQUIRE(offset + size <= built.tables.size());
        const auto table = View(built.tables).subspan(offset, size);
        CHECK(sum(table) == 0);
        return table;
    }

    Tables built;
    std::map<std::string, View> tables;
};

}  // namespace

TEST_CASE("acpi: every table is reachable and sums to zero") {
    const Found machine({.vcpus = 2, .pci = true, .virtio_mmio = {{layout::virtio_mmio, 10}}});
    CHECK(machine.tables.size() == 4);
    CHECK(machine.tables.contains("DSDT"));
    CHECK(machine.tables.contains("APIC"));
    CHECK(machine.tables.contains("MCFG"));
    CHECK_FALSE(Found({.vcpus = 1, .pci = false, .virtio_mmio = {}}).tables.contains("MCFG"));
}

TEST_CASE("acpi: the FADT describes a hardware-reduced machine") {
    const Found machine(Description{});
    const auto fadt = machine.tables.at("FACP");
    REQUIRE(fadt.size() == 276);
    CHECK(at<std::uint8_t>(fadt, 8) == 6);
    const auto flags = at<std::uint32_t>(fadt, 112);
    CHECK((flags & 1U << 20) != 0);  // hardware-reduced
    CHECK((flags & 1U << 10) != 0);  // reset register
    CHECK((flags & 1U << 4) != 0);   // no fixed power button
    const auto boot = at<std::uint16_t>(fadt, 109);
    CHECK((boot & 1U << 1) != 0);  // i8042
    CHECK((boot & 1U << 2) != 0);  // no VGA
    CHECK((boot & 1U << 5) == 0);  // the CMOS clock is there
    CHECK(at<std::uint8_t>(fadt, 108) == 0x32);
    CHECK(at<std::uint8_t>(fadt, 116) == 1);
    CHECK(at<std::uint64_t>(fadt, 120) == layout::acpi_reset_port);
    CHECK(at<std::uint8_t>(fadt, 128) == layout::acpi_reset_value);
    CHECK(at<std::uint8_t>(fadt, 244) == 1);
    CHECK(at<std::uint64_t>(fadt, 248) == layout::acpi_sleep_port);
    CHECK(at<std::uint64_t>(fadt, 260) == layout::acpi_sleep_port + 1);
}

TEST_CASE("acpi: the MADT lists each vCPU, the IOAPIC and LINT1") {
    for (const unsigned vcpus : {1U, 4U, 32U}) {
        CAPTURE(vcpus);
        const Found machine({.vcpus = vcpus, .pci = true, .virtio_mmio = {}});
        const auto madt = machine.tables.at("APIC");
        CHECK(at<std::uint32_t>(madt, 36) == layout::lapic);
        CHECK(at<std::uint32_t>(madt, 40) == 0);
        unsigned processors = 0;
        unsigned ioapics = 0;
        unsigned nmis = 0;
        std::size_t offset = 44;
        while (offset < madt.size()) {
            const auto entry = madt.subspan(offset);
            const auto size = at<std::uint8_t>(entry, 1);
            REQUIRE(size >= 2);
            switch (at<std::uint8_t>(entry, 0)) {
                case 0:
                    CHECK(at<std::uint8_t>(entry, 2) == processors);
                    CHECK(at<std::uint8_t>(entry, 3) == processors);
                    CHECK(at<std::uint32_t>(entry, 4) == 1);
                    ++processors;
                    break;
                case 1:
                    CHECK(at<std::uint32_t>(entry, 4) == layout::ioapic);
                    CHECK(at<std::uint32_t>(entry, 8) == 0);
                    ++ioapics;
                    break;
                case 4:
                    CHECK(at<std::uint8_t>(entry, 2) == 0xff);
                    CHECK(at<std::uint8_t>(entry, 5) == 1);
                    ++nmis;
                    break;
                default:
                    FAIL("unexpected entry");
            }
            offset += size;
        }
        CHECK(offset == madt.size());
        CHECK(processors == vcpus);
        CHECK(ioapics == 1);
        CHECK(nmis == 1);
    }
}

TEST_CASE("acpi: the MCFG names the ECAM window") {
    const Found machine(Description{});
    const auto mcfg = machine.tables.at("MCFG");
    REQUIRE(mcfg.size() == 60);
    CHECK(at<std::uint64_t>(mcfg, 44) == layout::pci_ecam);
    CHECK(at<std::uint8_t>(mcfg, 54) == 0);
    CHECK(at<std::uint8_t>(mcfg, 55) == 0);
}

TEST_CASE("acpi: the largest machine fits its place") {
    Description description{.vcpus = max_vcpus, .pci = true, .virtio_mmio = {}};
    for (unsigned n = 0; n < layout::virtio_mmio_slots; ++n)
        description.virtio_mmio.push_back(
            {layout::virtio_mmio + n * layout::virtio_mmio_size, 10 + n % 14});
    const Found machine(description);
    CHECK(machine.built.tables.size() < layout::acpi_tables_end - layout::acpi_tables);
}

TEST_CASE("acpi: descriptions out of bounds are refused") {
    CHECK_FALSE(build_tables({.vcpus = 0, .pci = true, .virtio_mmio = {}}));
    CHECK_FALSE(build_tables({.vcpus = max_vcpus + 1, .pci = true, .virtio_mmio = {}}));
    CHECK_FALSE(build_tables({.vcpus = 1, .pci = true, .virtio_mmio = {{0xc000'1000, 24}}}));
    CHECK_FALSE(build_tables({.vcpus = 1, .pci = true, .virtio_mmio = {{0x1'0000'0000, 10}}}));
    Description crowded;
    crowded.virtio_mmio.resize(layout::virtio_mmio_slots + 1, {layout::virtio_mmio, 10});
    CHECK_FALSE(build_tables(crowded));
}

TEST_CASE("acpi: tables are written to low RAM, or refused where there is none") {
    std::vector<std::byte> ram(1 * MiB);
    const GuestMemory memory({{{0}, ram}});
    REQUIRE(install_tables({}, memory));
    CHECK(text(ram, layout::acpi_rsdp, 8) == "RSD PTR ");
    CHECK(text(ram, layout::acpi_tables, 4) == "DSDT");
    const GuestMemory small({{{0}, std::span(ram).first(512 * KiB)}});
    CHECK_FALSE(install_tables({}, small));
}
