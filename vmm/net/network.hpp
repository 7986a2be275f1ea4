// The network interfaces of a VM as its monitor holds them: what outlives a reboot of the guest.
#pragma once

#include <map>
#include <memory>
#include <optional>
#include <string>
#include <vector>

#include "base/clock.hpp"
#include "base/event_loop.hpp"
#include "base/log.hpp"
#include "base/metrics.hpp"
#include "base/result.hpp"
#include "devices/net/backend.hpp"
#include "devices/net/frame_filter.hpp"
#include "devices/net/metadata/service.hpp"
#include "devices/net/metadata/store.hpp"
#include "devices/net/services/services.hpp"
#include "devices/net/tap.hpp"
#include "devices/net/virtio_net.hpp"
#include "vmm/config.hpp"
#include "vmm/net/flow_log_writer.hpp"
#include "vmm/net/saved_network.hpp"

namespace masu {

// What an interface's devices work with; all of it outlives them.
struct NetworkHost {
    EventLoop& loop;
    const Log& log;
    Metrics& metrics;
    const Clock& clock;
};

// One interface: backend, filter and services, which the devices of successive boots use in turn.
// Loop thread.
class NetworkInterface {
  public:
    // Opens the backend. `config` has been checked and names a MAC.
    [[nodiscard]] static Result<std::unique_ptr<NetworkInterface>> open(
        const NetworkInterfaceConfig& config);

    // The device for one boot, which borrows from this interface; the one before is gone. `vm`
    // says what the guest is told, `store` what the metadata service shows.
    [[nodiscard]] Result<std::unique_ptr<net::VirtioNet>> make_device(
        const VmConfig& vm, const net::MetadataStore& store, const NetworkHost& host);

    // The rules from the next frame on; from the first call on nothing passes without a rule. The
    // addresses the firewall takes for the guest's own are those of the last make_device().
    [[nodiscard]] Result<> set_rules(std::shared_ptr<const net::CompiledRules> rules);
    // Null before set_rules(), unless the configuration asks for a firewall.
    [[nodiscard]] net::Firewall* firewall() noexcept { return filter_.firewall(); }
    // In place of the firewall there is: flows of a snapshot, without rules, so that nothing passes
    // before set_rules().
    void adopt_firewall(std::unique_ptr<net::Firewall> firewall);
    // Ids of the groups whose rules these are, for people to see.
    void set_groups(std::vector<std::string> groups) { groups_ = std::move(groups); }
    [[nodiscard]] const std::vector<std::string>& groups() const noexcept { return groups_; }
    // Once a second while there are flows; make_device() sees to that. Returns when again.
    Nanoseconds expire_flows(Nanoseconds now) noexcept;
    // Replaces the flow log. There must be a firewall; `host` outlives the interface.
    [[nodiscard]] Result<> set_flow_log(const FlowLogConfig& config, const NetworkHost& host);

    // For the next device; a running one is told by itself.
    void set_limits(const RateLimiterConfig& rx, const RateLimiterConfig& tx);

    [[nodiscard]] const NetworkInterfaceConfig& config() const noexcept { return config_; }
    // The guest's; and what the network knows it by, which mostly is the same.
    [[nodiscard]] const net::MacAddress& mac() const noexcept { return mac_; }
    [[nodiscard]] const net::MacAddress& network_mac() const noexcept { return network_mac_; }

  private:
    explicit NetworkInterface(NetworkInterfaceConfig config) : config_(std::move(config)) {}
    [[nodiscard]] Result<> open_backend();
    [[nodiscard]] Result<> make_services(const VmConfig& vm, const net::MetadataStore& store);
    [[nodiscard]] Result<> start_expiry(const NetworkHost& host);

    NetworkInterfaceConfig config_;
    net::MacAddress mac_{};
    net::MacAddress network_mac_{};
    net::Tap* tap_ = nullptr;  // backend_ or what it translates for, where that is one
    std::unique_ptr<net::Backend> backend_;
    std::vector<std::string> groups_;
    std::unique_ptr<FlowLogWriter> flow_log_;  // outlives filter_, whose firewall tells it
    net::SecurityFilter filter_;
    net::InterfaceConfig firewall_config_;
    std::unique_ptr<net::MetadataService> metadata_;
    std::unique_ptr<net::Services> services_;
    std::optional<EventLoop::Timer> expiry_;
};

// Descriptors that were handed to the monitor and that an interface may take: unless it keeps them,
// they are there again afterwards, to be taken by another.
class LentDescriptors {
  public:
    LentDescriptors() = default;
    LentDescriptors(LentDescriptors&&) = default;
    LentDescriptors& operator=(LentDescriptors&&) = delete;
    ~LentDescriptors();
    // None, where no such descriptor may be taken: taking it will say so.
    void lend(int number);
    void keep() noexcept { duplicates_.clear(); }

  private:
    std::vector<std::pair<int, Fd>> duplicates_;
};

// All interfaces of a VM, by id, and the document that the metadata service shows. Loop thread.
class Network {
  public:
    // `metadata_limit`: the largest metadata document, in bytes.
    explicit Network(std::size_t metadata_limit) : store_(metadata_limit) {}

    // Adds an interface, or replaces the one of that id. Fills in the MAC where none is given.
    [[nodiscard]] Result<> set_interface(NetworkInterfaceConfig& config);
    [[nodiscard]] NetworkInterface* find(const std::string& id) noexcept;
    // The same, but its absence is an error.
    [[nodiscard]] Result<NetworkInterface*> require(const std::string& id);

    // The document that PUT /mmds sets, or the tree made from the instance metadata.
    [[nodiscard]] net::MetadataStore& store() noexcept { return store_; }
    void show_instance(const InstanceMetadataConfig& metadata, const VmConfig& vm);

    // In the order of ids. Flows with the time they have left, as of `now`.
    [[nodiscard]] std::vector<SavedInterface> save(Nanoseconds now);

  private:
    [[nodiscard]] Result<> settle_macs(NetworkInterfaceConfig& config) const;

    net::MetadataStore store_;
    std::map<std::string, std::unique_ptr<NetworkInterface>> interfaces_;
};

// Rate limits as the API states them.
[[nodiscard]] RateLimiter::Limits to_limits(const RateLimiterConfig& config);

}  // namespace masu
