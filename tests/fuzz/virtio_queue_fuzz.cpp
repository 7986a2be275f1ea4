// A driver that writes anything into a virtqueue's rings between the device's calls.
//
// Input: log2 of the size, feature bits, then operations of one byte and their operands.
#include <algorithm>
#include <cstdint>
#include <optional>
#include <vector>

#include "devices/virtio/queue.hpp"
#include "tests/fuzz/input.hpp"
#include "tests/unit/devices/virtio/fake_driver.hpp"

namespace masu::virtio {
namespace {

using fuzz::Input;
using fuzz::require;

constexpr std::size_t memory_size = 64 * 1024;

// Mostly near the RAM, at times anywhere.
std::uint64_t take_address(Input& input) {
    const auto kind = input.take<std::uint8_t>();
    if (kind < 0xf0)
        return fake::Memory::base + input.take<std::uint16_t>();
    return input.take<std::uint64_t>();
}

void check_segments(fake::Memory& memory, std::span<const iovec> segments, std::uint64_t size) {
    const auto* begin = memory.bytes().data();
    const auto* end = begin + memory.bytes().size();
    std::uint64_t total = 0;
    for (const auto& segment : segments) {
        const auto* base = static_cast<const std::byte*>(segment.iov_base);
        require(base >= begin && base < end && segment.iov_len != 0);
        require(segment.iov_len <= static_cast<std::size_t>(end - base));
        total += segment.iov_len;
    }
    require(total == size);
}

// A chain lies in RAM, is bounded, and can be read and written to its ends.
void check_chain(fake::Memory& memory, const Chain& chain, std::uint16_t queue_size) {
    require(chain.head() < queue_size);
    require(chain.readable().size() + chain.writable().size() <= max_chain_length);
    require(chain.readable_size() + chain.writable_size() <= 4 * GiB);
    check_segments(memory, chain.readable(), chain.readable_size());
    check_segments(memory, chain.writable(), chain.writable_size());

    std::array<std::byte, 96> buffer{};
    const auto expected = std::min<std::uint64_t>(chain.readable_size(), buffer.size());
    require(chain.read(0, buffer) == expected);
    const auto offset = chain.writable_size() / 2;
    const auto room = std::min<std::uint64_t>(chain.writable_size() - offset, buffer.size());
    require(chain.write(offset, buffer) == room);
    std::vector<iovec> part;
    require(slice_iovecs(chain.writable(), offset, chain.writable_size() - offset, part));
    require(!slice_iovecs(chain.writable(), offset, chain.writable_size() - offset + 1, part));
}

struct State {
    State(Input& in, std::uint16_t size, std::uint64_t features)
        : input(in), ring(memory, size, features), queue(ring.make_queue()) {}

    void driver_step(std::uint8_t operation) {
        switch (operation % 6) {
            case 0: {
                const auto index =
                    static_cast<std::uint16_t>(input.take<std::uint16_t>() % ring.size());
                return ring.put_descriptor(index, {.address = take_address(input),
                                                   .length = input.take<std::uint32_t>(),
                                                   .flags = input.take<std::uint8_t>(),
                                                   .next = input.take<std::uint8_t>()});
            }
            case 1: {
                const auto position = input.take<std::uint16_t>();
                return ring.put_avail_entry(position, input.take<std::uint16_t>());
            }
            case 2:
                return ring.set_avail_index(static_cast<std::uint16_t>(
                    ring.avail_index() + input.take<std::uint8_t>() % 5));
            case 3:
                return ring.set_avail_index(input.take<std::uint16_t>());
            case 4:
                ring.set_used_event(input.take<std::uint16_t>());
                return ring.set_avail_flags(input.take<std::uint8_t>());
            default: {
                const auto address = take_address(input);
                const auto bytes = input.take_bytes(input.take<std::uint8_t>());
                (void)memory.guest().write({address}, bytes);
                return;
            }
        }
    }

    void device_step(std::uint8_t operation) {
        switch (operation % 5) {
            case 0:
                return pop();
            case 1:
                if (!out.empty()) {
                    const auto which = input.take<std::uint8_t>() % out.size();
                    queue.complete(std::move(out[which]), input.take<std::uint32_t>());
                    out.erase(out.begin() + static_cast<std::ptrdiff_t>(which));
                }
                return;
            case 2:
                (void)queue.needs_interrupt();
                return;
            case 3:
                return queue.disable_notifications();
            default:
                require(!(queue.enable_notifications() && fault));
                return;
        }
    }

    void pop() {
        auto popped = queue.pop();
        if (!popped) {
            require(!fault || *fault == popped.error());
            fault = popped.error();
            return;
        }
        require(!fault);
        if (!*popped)
            return;
        check_chain(memory, **popped, ring.size());
        for (const auto& other : out)
            require(other.head() != (*popped)->head());
        out.push_back(std::move(**popped));
        require(out.size() <= ring.size());
    }

    Input& input;
    fake::Memory memory{memory_size};
    fake::Ring ring;
    Queue queue;
    std::vector<Chain> out;
    std::optional<QueueFault> fault;
};

}  // namespace
}  // namespace masu::virtio

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    using namespace masu::virtio;
    masu::fuzz::Input input(data, size);
    const auto queue_size = static_cast<std::uint16_t>(1U << (input.take<std::uint8_t>() % 9));
    const auto features = std::uint64_t{input.take<std::uint8_t>()} << 28;
    State state(input, queue_size, features);
    while (!input.done()) {
        const auto operation = input.take<std::uint8_t>();
        if ((operation & 0x80) == 0)
            state.driver_step(operation);
        else
            state.device_step(static_cast<std::uint8_t>(operation & 0x7f));
    }
    return 0;
}
