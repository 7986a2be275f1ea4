// What the legacy devices are attached to in tests, and short ways to do port accesses.
#pragma once

#include <array>
#include <cstdint>
#include <map>
#include <optional>
#include <span>
#include <vector>

#include "base/clock.hpp"
#include "devices/bus.hpp"
#include "devices/interrupt.hpp"

namespace masu::legacy::test {

struct FakeLine final : InterruptLine {
    void set(bool asserted) override {
        if (asserted && !level)
            ++edges;
        level = asserted;
    }
    bool level = false;
    unsigned edges = 0;
};

struct FakeBank final : MsiBank {
    void route(unsigned index, std::optional<MsiMessage> message) override {
        routes[index] = message;
        ++route_calls;
    }
    void signal(unsigned index) override {
        if (const auto message = routes[index])
            sent.push_back(*message);
    }
    std::map<unsigned, std::optional<MsiMessage>> routes;
    std::vector<MsiMessage> sent;
    unsigned route_calls = 0;
};

struct FakeClock final : Clock {
    [[nodiscard]] Nanoseconds now() const noexcept override { return 0; }
    [[nodiscard]] std::uint64_t wall() const noexcept override { return seconds * 1'000'000'000; }
    std::uint64_t seconds = 0;
};

inline std::uint8_t in(BusDevice& device, std::uint64_t offset) {
    std::array<std::byte, 1> data{std::byte{0xff}};
    device.read(offset, data);
    return std::to_integer<std::uint8_t>(data[0]);
}

inline void out(BusDevice& device, std::uint64_t offset, std::uint8_t value) {
    const std::array<std::byte, 1> data{std::byte{value}};
    device.write(offset, data);
}

// Every offset and size a guest can form, reads and writes of all ones.
inline void trample(BusDevice& device, std::uint64_t size) {
    std::array<std::byte, 8> data{};
    for (std::uint64_t offset = 0; offset < size; ++offset)
        for (std::size_t width = 1; width <= 8 && offset + width <= size; ++width) {
            device.read(offset, std::span(data).first(width));
            data.fill(std::byte{0xff});
            device.write(offset, std::span(data).first(width));
        }
}

}  // namespace masu::legacy::test
