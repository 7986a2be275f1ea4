// The host kernel's links, by rtnetlink: what a bridge and its ports need, without a program `ip`.
#pragma once

#include <cstddef>
#include <cstdint>
#include <span>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "devices/net/firewall/address.hpp"

namespace masu::cli {

// A request under construction: a header, a fixed part, attributes.
class NetlinkMessage {
  public:
    NetlinkMessage(std::uint16_t type, std::uint16_t flags);

    template <class T>
    NetlinkMessage& fixed(const T& part) {
        append(std::as_bytes(std::span(&part, 1)));
        return *this;
    }
    template <class T>
    NetlinkMessage& value(std::uint16_t attribute, const T& value) {
        return bytes(attribute, std::as_bytes(std::span(&value, 1)));
    }
    NetlinkMessage& text(std::uint16_t attribute, const std::string& text);  // with its zero
    NetlinkMessage& bytes(std::uint16_t attribute, std::span<const std::byte> value);
    // What follows until the end() is in this attribute.
    NetlinkMessage& begin(std::uint16_t attribute);
    NetlinkMessage& end();

  private:
    friend class RtNetlink;
    void append(std::span<const std::byte> bytes);  // padded to 4 bytes

    std::vector<std::byte> bytes_;
    std::vector<std::size_t> open_;  // where nested attributes begin
};

struct LinkCounters {
    std::uint64_t received_packets = 0;  // by the host
    std::uint64_t received_bytes = 0;
    std::uint64_t received_dropped = 0;
    std::uint64_t sent_packets = 0;
    std::uint64_t sent_bytes = 0;
    std::uint64_t sent_dropped = 0;
};

struct Link {
    int index = 0;
    std::string name;
    LinkCounters counters;
};

// Of the network namespace that the thread was in at open(). One thread.
class RtNetlink {
  public:
    [[nodiscard]] static Result<RtNetlink> open();

    // Sends, and waits for the kernel's word. The error has its errno; `what` names what was to be
    // done.
    [[nodiscard]] Result<> request(NetlinkMessage message, std::string_view what);
    [[nodiscard]] Result<std::vector<Link>> links();

  private:
    explicit RtNetlink(Fd socket) : socket_(std::move(socket)) {}
    [[nodiscard]] Result<> send(NetlinkMessage& message, std::string_view what);
    [[nodiscard]] Result<std::span<const std::byte>> receive(std::string_view what);

    Fd socket_;
    std::uint32_t sequence_ = 0;
    std::vector<std::byte> buffer_;
};

// Readable whenever a link of this namespace changes or goes; drain_link_events() makes it
// unreadable again.
[[nodiscard]] Result<Fd> watch_links();
void drain_link_events(const Fd& socket) noexcept;

}  // namespace masu::cli
