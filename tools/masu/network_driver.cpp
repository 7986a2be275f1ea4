// The two drivers, behind one face.
#include "tools/masu/network_driver.hpp"

#include <sys/epoll.h>

#include <algorithm>
#include <cerrno>
#include <utility>

#include <boost/json.hpp>

#include "devices/net/switch/frame_switch.hpp"
#include "tools/masu/bridge.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

class SwitchDriver final : public NetworkDriver {
  public:
    SwitchDriver(EventLoop& loop, const Left& left)
        : switch_(loop, [left](const net::FrameSwitch::Port& port) {
              left(port.name, port.addresses.mac);
          }) {}

    Result<std::vector<Fd>> join(Joining joining) override {
        if (!joining.socket)
            return fail("the request to join brings no socket");
        const auto added =
            switch_.add(std::move(joining.socket), std::move(joining.vm), joining.addresses);
        if (!added)
            return std::unexpected(Error{added.error().message, EADDRINUSE});
        return {};
    }

    std::size_t size() const noexcept override { return switch_.size(); }

    json::array ports() override {
        json::array ports;
        for (const auto& [name, addresses, counters] : switch_.ports()) {
            json::object dropped;
            for (std::size_t i = 1; i < net::switch_drop_count; ++i)
                if (counters.dropped[i] != 0)
                    dropped[net::to_string(static_cast<net::SwitchDrop>(i))] = counters.dropped[i];
            ports.push_back(json::object{{"mac", net::to_string(addresses.mac)},
                                         {"sent_frames", counters.received_frames},
                                         {"sent_bytes", counters.received_bytes},
                                         {"received_frames", counters.sent_frames},
                                         {"received_bytes", counters.sent_bytes},
                                         {"dropped", std::move(dropped)}});
        }
        return ports;
    }

  private:
    net::FrameSwitch switch_;
};

// The kernel forwards; here is only known whose each TAP is, and noticed when one has gone.
class BridgeDriver final : public NetworkDriver {
  public:
    static Result<std::unique_ptr<NetworkDriver>> create(std::uint64_t mtu, EventLoop& loop,
                                                         Left left) {
        auto bridge = TRY(Bridge::create(mtu));
        auto events = TRY(watch_links());
        auto driver =
            std::make_unique<BridgeDriver>(std::move(bridge), std::move(events), std::move(left));
        driver->watch_ = TRY(loop.watch(driver->events_.get(), EPOLLIN, [raw = driver.get()](auto) {
            drain_link_events(raw->events_);
            raw->drop_ended();
        }));
        return std::unique_ptr<NetworkDriver>(std::move(driver));
    }
    BridgeDriver(Bridge bridge, Fd events, Left left)
        : bridge_(std::move(bridge)), events_(std::move(events)), left_(std::move(left)) {}

    Result<std::vector<Fd>> join(Joining joining) override {
        drop_ended();
        const auto& mac = joining.addresses.mac;
        if (std::ranges::find(ports_, mac, &Port::mac) != ports_.end())
            return std::unexpected(
                Error{fmt::format("{} is in use", net::to_string(mac)), EADDRINUSE});
        auto added = TRY(bridge_.add_port(mac, joining.queues));
        ports_.push_back({added.index, std::move(joining.vm), mac});
        return std::move(added.queues);
    }

    std::size_t size() const noexcept override { return ports_.size(); }

    json::array ports() override {
        json::array shown;
        for (const auto& link : bridge_.links().value_or(std::vector<Link>())) {
            const auto port = std::ranges::find(ports_, link.index, &Port::index);
            if (port == ports_.end())
                continue;
            const auto& counters = link.counters;
            json::object dropped;
            if (counters.received_dropped != 0)
                dropped["sent"] = counters.received_dropped;
            if (counters.sent_dropped != 0)
                dropped["received"] = counters.sent_dropped;
            shown.push_back(json::object{{"mac", net::to_string(port->mac)},
                                         {"sent_frames", counters.received_packets},
                                         {"sent_bytes", counters.received_bytes},
                                         {"received_frames", counters.sent_packets},
                                         {"received_bytes", counters.sent_bytes},
                                         {"dropped", std::move(dropped)}});
        }
        return shown;
    }

  private:
    struct Port {
        int index;
        std::string vm;
        net::MacAddress mac;
    };

    void drop_ended() {
        const auto links = bridge_.links();
        if (!links)
            return;
        const auto ended = std::ranges::partition(ports_, [&](const Port& port) {
            return std::ranges::find(*links, port.index, &Link::index) != links->end();
        });
        const std::vector<Port> gone(ended.begin(), ended.end());
        ports_.erase(ended.begin(), ended.end());
        for (const auto& port : gone)
            left_(port.vm, port.mac);
    }

    Bridge bridge_;
    Fd events_;
    Left left_;
    std::vector<Port> ports_;
    EventLoop::Watch watch_;
};

}  // namespace

Result<std::unique_ptr<NetworkDriver>> NetworkDriver::create(const NetworkRecord& network,
                                                             EventLoop& loop, Left left) {
    if (network.driver == NetworkRecord::Driver::Bridge)
        return BridgeDriver::create(network.mtu, loop, std::move(left));
    return std::make_unique<SwitchDriver>(loop, left);
}

}  // namespace masu::cli
