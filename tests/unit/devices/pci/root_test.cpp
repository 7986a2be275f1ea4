// Both ways to configuration space, and BARs that are sized, moved and put in the way.
#include "devices/pci/root.hpp"

#include <doctest/doctest.h>

#include <optional>
#include <random>
#include <thread>
#include <vector>

namespace masu::pci {
namespace {

constexpr MemoryWindow window{.start = 0xd000'0000, .end = 0xd010'0000};
constexpr std::uint64_t size = 0x8000;

// Answers with its own byte everywhere, and records where it is told to be.
class TestFunction final : public Function, public BusDevice {
  public:
    explicit TestFunction(std::uint8_t mark, std::uint64_t bar_size = size,
                          BarKind kind = BarKind::Memory32)
        : mark_(mark), config_({.vendor = 0x1af4, .device = mark}) {
        REQUIRE(config_.add_bar(0, kind, bar_size));
    }
    ConfigSpace& config() override { return config_; }
    BusDevice* bar_device(unsigned) override { return this; }
    void bar_moved(unsigned bar, std::optional<std::uint64_t> address) override {
        CHECK(bar == 0);
        moves.push_back(address);
    }
    void read(std::uint64_t, std::span<std::byte> data) override {
        for (auto& byte : data)
            byte = std::byte{mark_};
    }
    void write(std::uint64_t offset, std::span<const std::byte>) override { last_offset = offset; }

    std::vector<std::optional<std::uint64_t>> moves;
    std::optional<std::uint64_t> last_offset;

  private:
    std::uint8_t mark_;
    ConfigSpace config_;
};

struct Fixture {
    Bus mmio;
    Metrics metrics;
    TestFunction a{0xaa};
    TestFunction b{0xbb};
    Root root{mmio, window, metrics, Log{}};

    std::uint64_t conflicts() { return metrics.counter("pci", "bar_conflicts").value(); }
    std::uint8_t at(std::uint64_t address) {
        std::uint8_t value = 0;
        mmio.read(address, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    template <class T>
    T ecam(unsigned device, std::uint16_t offset) {
        T value{};
        root.ecam().read(device << 15 | offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    template <class T>
    void ecam(unsigned device, std::uint16_t offset, T value) {
        root.ecam().write(device << 15 | offset, as_bytes_of(value));
    }
    void port_address(std::uint32_t value) { root.ports().write(0, as_bytes_of(value)); }
    template <class T>
    T port(std::uint64_t offset) {
        T value{};
        root.ports().read(offset, std::as_writable_bytes(std::span(&value, 1)));
        return value;
    }
    void set_decoding(unsigned device, bool on) {
        ecam<std::uint16_t>(device, reg::command, on ? command::memory_space : 0);
    }
    std::uint32_t bar(unsigned device) { return ecam<std::uint32_t>(device, reg::bar0); }
};

}  // namespace

TEST_CASE_FIXTURE(Fixture, "the host bridge is there, and nobody else") {
    CHECK(ecam<std::uint32_t>(0, 0) == 0x00081b36);
    CHECK((ecam<std::uint32_t>(0, 8) >> 8) == 0x060000);
    for (unsigned device = 1; device < 32; ++device)
        CHECK(ecam<std::uint32_t>(device, 0) == ~0U);
    for (unsigned function = 1; function < 8; ++function)
        CHECK(ecam<std::uint32_t>(0, static_cast<std::uint16_t>(function << 12)) == ~0U);
}

TEST_CASE_FIXTURE(Fixture, "ports and ECAM show the same space") {
    REQUIRE(root.add(a) == 1U);
    for (unsigned device = 0; device < 32; ++device) {
        for (std::uint32_t offset = 0; offset < 256; offset += 4) {
            port_address(0x8000'0000 | device << 11 | offset);
            const auto value = ecam<std::uint32_t>(device, static_cast<std::uint16_t>(offset));
            CHECK(port<std::uint32_t>(4) == value);
            CHECK(port<std::uint16_t>(6) == (value >> 16));
            CHECK(port<std::uint8_t>(5) == (value >> 8 & 0xff));
        }
    }
    port_address(0x8000'0000 | 1 << 11 | 0x3c);
    root.ports().write(4, as_bytes_of(std::uint8_t{0x5a}));
    CHECK(ecam<std::uint8_t>(1, 0x3c) == 0x5a);
}

TEST_CASE_FIXTURE(Fixture, "CONFIG_ADDRESS is a doubleword with an enable bit") {
    CHECK(port<std::uint32_t>(0) == 0);
    port_address(0xffff'ffff);
    CHECK(port<std::uint32_t>(0) == 0x80ff'fffc);
    port_address(0x8000'0000);
    root.ports().write(3, as_bytes_of(std::uint8_t{1}));  // Linux probes so
    CHECK(port<std::uint32_t>(0) == 0x8000'0000);
    CHECK(port<std::uint16_t>(0) == 0xffff);
    CHECK(port<std::uint32_t>(4) == 0x00081b36);
    CHECK(port<std::uint32_t>(2) == ~0U);  // across both registers
    CHECK(port<std::uint64_t>(0) == ~std::uint64_t{0});
    CHECK(port<std::uint32_t>(6) == ~0U);
    port_address(0x0000'0000);
    CHECK(port<std::uint32_t>(4) == ~0U);
    port_address(0x8001'0000);  // bus 1
    CHECK(port<std::uint32_t>(4) == ~0U);
    port_address(0x8000'0100);  // function 1
    CHECK(port<std::uint32_t>(4) == ~0U);
}

TEST_CASE_FIXTURE(Fixture, "BARs get addresses, decode at once and are told once") {
    REQUIRE(root.add(a) == 1U);
    REQUIRE(root.add(b) == 2U);
    CHECK(bar(1) == window.start);
    CHECK(bar(2) == window.start + size);
    CHECK(at(bar(1)) == 0xaa);
    CHECK(at(bar(2) + size - 1) == 0xbb);
    CHECK(at(bar(2) + size) == 0xff);
    CHECK(a.moves == std::vector<std::optional<std::uint64_t>>{window.start});
    const std::uint8_t byte = 0;
    mmio.write(bar(2) + 0x123, as_bytes_of(byte));
    CHECK(b.last_offset == 0x123U);
}

TEST_CASE_FIXTURE(Fixture, "sizing with decoding off tells the function nothing") {
    REQUIRE(root.add(a) == 1U);
    const auto address = bar(1);
    set_decoding(1, false);
    CHECK(at(address) == 0xff);
    ecam(1, reg::bar0, ~0U);
    CHECK(bar(1) == 0xffff'8000);
    ecam(1, reg::bar0, address);
    set_decoding(1, true);
    CHECK(at(address) == 0xaa);
    CHECK(a.moves.size() == 1);
    CHECK(conflicts() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a BAR moves") {
    REQUIRE(root.add(a) == 1U);
    ecam(1, reg::bar0, 0xd004'0000U);
    CHECK(at(window.start) == 0xff);
    CHECK(at(0xd004'0000) == 0xaa);
    CHECK(a.moves.back() == 0xd004'0000U);
    ecam<std::uint8_t>(1, reg::bar0 + 2, 0x08);  // a byte of the register
    CHECK(at(0xd008'0000) == 0xaa);
    CHECK(conflicts() == 0);
}

TEST_CASE_FIXTURE(Fixture, "a BAR put where it cannot be does not answer, and harms nobody") {
    REQUIRE(root.add(a) == 1U);
    TestFunction other(0x11);
    REQUIRE(mmio.insert(0xd00f'0000, 0x1000, other, "other"));
    for (const std::uint32_t address : {0U, 0x0010'0000U, 0xcfff'8000U, 0xd00f'0000U, 0xd010'0000U,
                                        0xfec0'0000U, 0xfee0'0000U, 0xffff'8000U}) {
        CAPTURE(address);
        const auto before = conflicts();
        ecam(1, reg::bar0, address);
        CHECK(conflicts() == before + 1);
        CHECK(at(address) == (address == 0xd00f'0000 ? 0x11 : 0xff));
        CHECK_FALSE(a.moves.back());
        CHECK(bar(1) == address);  // the register is the guest's all the same
        ecam(1, reg::bar0, 0xd002'0000U);
        CHECK(at(0xd002'0000) == 0xaa);
        CHECK(a.moves.back() == 0xd002'0000U);
    }
}

TEST_CASE_FIXTURE(Fixture, "a BAR answers as soon as whatever lay there has gone") {
    REQUIRE(root.add(a) == 1U);
    REQUIRE(root.add(b) == 2U);
    const auto home_a = bar(1);
    const auto home_b = bar(2);
    ecam(1, reg::bar0, home_b);
    CHECK(at(home_a) == 0xff);
    CHECK(at(home_b) == 0xbb);
    CHECK(conflicts() == 1);
    ecam<std::uint8_t>(1, reg::cache_line_size, 1);
    ecam(2, reg::bar0, home_a);
    CHECK(at(home_a) == 0xbb);
    CHECK(at(home_b) == 0xaa);
    CHECK(a.moves.back() == home_b);
    CHECK(conflicts() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a BAR that sleeps gives way to one that decodes") {
    REQUIRE(root.add(a) == 1U);
    REQUIRE(root.add(b) == 2U);
    const auto home = bar(1);
    set_decoding(1, false);
    CHECK(a.moves.size() == 1);
    ecam(2, reg::bar0, home);
    CHECK(at(home) == 0xbb);
    CHECK_FALSE(a.moves.back());  // before b is told, so that one address is never two's
    set_decoding(1, true);
    CHECK(at(home) == 0xbb);
    CHECK(conflicts() == 1);
}

TEST_CASE_FIXTURE(Fixture, "a 64-bit BAR may lie anywhere in the registers") {
    TestFunction wide(0xcc, size, BarKind::Memory64);
    REQUIRE(root.add(wide) == 1U);
    CHECK(bar(1) == (window.start | 4));
    CHECK(at(window.start) == 0xcc);
    ecam(1, reg::bar0 + 4, ~0U);
    ecam(1, reg::bar0, ~0U);
    CHECK(at(window.start) == 0xff);
    CHECK(root.add(a) == 2U);  // the window is free again
    CHECK(bar(2) == window.start);
    root.remove(1);
}

TEST_CASE_FIXTURE(Fixture, "functions come and go") {
    REQUIRE(root.add(a, 5) == 5U);
    CHECK_FALSE(root.add(b, 5));
    CHECK_FALSE(root.add(b, 0));
    CHECK_FALSE(root.add(b, 32));
    REQUIRE(root.add(b) == 1U);
    const auto address = bar(5);
    root.remove(5);
    CHECK(ecam<std::uint32_t>(5, 0) == ~0U);
    CHECK(at(address) == 0xff);
    CHECK_FALSE(a.moves.back());
    root.remove(5);
    root.remove(0);
    root.remove(99);
    CHECK(ecam<std::uint32_t>(0, 0) == 0x00081b36);
    REQUIRE(root.add(a) == 2U);
    CHECK(bar(2) == address);
}

TEST_CASE_FIXTURE(Fixture, "a full window and a full bus are errors that change nothing") {
    TestFunction large(1, 0x20'0000);
    CHECK_FALSE(root.add(large));
    CHECK(ecam<std::uint32_t>(1, 0) == ~0U);
    std::vector<std::unique_ptr<TestFunction>> many;
    for (unsigned i = 1; i < 32; ++i) {
        many.push_back(std::make_unique<TestFunction>(static_cast<std::uint8_t>(i)));
        CHECK(root.add(*many.back()) == i);
    }
    CHECK_FALSE(root.add(a));
    for (unsigned i = 1; i < 32; ++i)
        root.remove(i);
}

TEST_CASE_FIXTURE(Fixture, "a saved state maps BARs where they were") {
    REQUIRE(root.add(a) == 1U);
    ecam(1, reg::bar0, 0xd004'0000U);
    port_address(0x8000'0810);
    const auto config = a.config().save();
    const auto saved = root.save();
    ecam(1, reg::bar0, 0xd005'0000U);
    port_address(0);
    a.config().restore(config);
    root.restore(saved);
    CHECK(at(0xd004'0000) == 0xaa);
    CHECK(at(0xd005'0000) == 0xff);
    CHECK(port<std::uint32_t>(4) == 0xd004'0000);
}

TEST_CASE_FIXTURE(Fixture, "any access of any width is safe, from several vCPUs") {
    REQUIRE(root.add(a));
    REQUIRE(root.add(b));
    const auto vcpu = [this](unsigned seed) {
        std::mt19937_64 random(seed);
        for (int i = 0; i < 20000; ++i) {
            auto data = random();
            const auto bytes = std::as_writable_bytes(std::span(&data, 1)).first(1 + random() % 8);
            const auto offset = random() % 3 << 15 | random() % 0x48;
            switch (random() % 6) {
                case 0:
                    root.ecam().write(offset, bytes);
                    break;
                case 1:
                    root.ecam().write(random() % (ecam_bus_size + 16), bytes);
                    break;
                case 2:
                    root.ports().write(random() % 10, bytes);
                    break;
                case 3:
                    root.ports().read(random() % 10, bytes);
                    break;
                case 4:
                    root.ecam().read(random() % (ecam_bus_size + 16), bytes);
                    break;
                default:
                    mmio.read(window.start + random() % 0x10'0000, bytes);
            }
        }
    };
    {
        const std::jthread first(vcpu, 1);
        const std::jthread second(vcpu, 2);
    }
    CHECK(ecam<std::uint32_t>(0, 0) == 0x00081b36);
    CHECK(ecam<std::uint16_t>(1, 0) == 0x1af4);
    set_decoding(2, false);
    ecam(1, reg::bar0, 0xd000'0000U);
    set_decoding(1, true);
    CHECK(at(0xd000'0000) == 0xaa);
}

}  // namespace masu::pci
