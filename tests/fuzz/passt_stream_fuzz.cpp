// The framing on passt's socket: any bytes in any pieces. Frames that come out are of possible
// sizes, and a stream that lost its step is closed, once.
#include <sys/socket.h>

#include <cstdint>
#include <cstdlib>

#include "devices/net/passt.hpp"
#include "tests/fuzz/input.hpp"

using namespace masu;
using namespace masu::net;
using fuzz::Input;
using fuzz::require;

extern "C" int LLVMFuzzerTestOneInput(const std::uint8_t* data, std::size_t size) {
    int ends[2];
    if (::socketpair(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC | SOCK_NONBLOCK, 0, ends) < 0)
        std::abort();
    const Fd other(ends[1]);
    auto passt = Passt::adopt(Fd(ends[0]));
    if (!passt)
        std::abort();
    Input input(data, size);
    std::vector<std::byte> buffer(sizeof(NetHeader) + max_frame_size);
    bool closed = false;
    while (!input.done()) {
        const auto piece = input.take_bytes(input.take<std::uint16_t>());
        std::size_t sent = 0;
        while (sent < piece.size()) {
            const auto got = ::send(other.get(), piece.data() + sent, piece.size() - sent,
                                    MSG_NOSIGNAL | MSG_DONTWAIT);
            if (got > 0)
                sent += static_cast<std::size_t>(got);
            for (;;) {
                const auto received = (*passt)->receive(0, buffer);
                closed = closed || received.status == IoStatus::Closed;
                require(!closed || received.status == IoStatus::Closed);
                if (received.status != IoStatus::Done)
                    break;
                require(received.size >= sizeof(NetHeader) + ethernet_header_size &&
                        received.size <= buffer.size());
            }
            if (got < 0 && closed)
                return 0;
        }
    }
    return 0;
}
