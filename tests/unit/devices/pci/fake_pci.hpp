// The machine's side of PCI devices, in memory: interrupts and ioeventfds that are recorded.
#pragma once

#include <algorithm>
#include <cstdint>
#include <map>
#include <optional>
#include <vector>

#include "devices/interrupt.hpp"
#include "devices/io_event.hpp"

namespace masu::pci::fake {

// Keeps what each row sends, and what was sent. A signal without a route is a broken promise.
class RecordingBank final : public MsiBank {
  public:
    void route(unsigned index, std::optional<MsiMessage> message) override {
        ++route_calls;
        routes[index] = message;
    }
    void signal(unsigned index) override {
        if (routes[index])
            sent.push_back(*routes[index]);
        else
            ++unrouted_signals;
    }
    // Whether this message was sent since the last look at it.
    bool take(std::uint32_t data) {
        return std::erase_if(sent, [&](const MsiMessage& m) { return m.data == data; }) != 0;
    }

    std::map<unsigned, std::optional<MsiMessage>> routes;
    std::vector<MsiMessage> sent;
    int route_calls = 0;
    int unrouted_signals = 0;
};

// Refuses an address twice, as KVM does, and can be told to refuse everything.
class RecordingRegistrar final : public IoEventRegistrar {
  public:
    Result<> add(std::uint64_t address, const EventFd& event) override {
        ++calls;
        if (refuse || !events.emplace(address, &event).second)
            return fail("no ioeventfd at {:#x}", address);
        return {};
    }
    void remove(std::uint64_t address, const EventFd& event) override {
        ++calls;
        const auto found = events.find(address);
        if (found != events.end() && found->second == &event)
            events.erase(found);
        else
            ++broken_removes;
    }

    std::map<std::uint64_t, const EventFd*> events;
    bool refuse = false;
    int calls = 0;
    int broken_removes = 0;
};

}  // namespace masu::pci::fake
