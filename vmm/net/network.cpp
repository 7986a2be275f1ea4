// Interfaces of a VM: opened when configured, handed to a device at each boot.
#include "vmm/net/network.hpp"

#include <fcntl.h>
#include <sys/random.h>

#include <algorithm>
#include <tuple>

#include "devices/net/mac_translation.hpp"
#include "devices/net/metadata/ec2_tree.hpp"
#include "devices/net/passt.hpp"
#include "vmm/net/guest_network.hpp"

namespace masu {
namespace {

std::optional<TokenBucketLimit> to_limit(const std::optional<TokenBucketConfig>& bucket) {
    if (!bucket)
        return std::nullopt;
    return TokenBucketLimit{.size = bucket->size,
                            .refill_time = bucket->refill_time_ms * 1'000'000U,
                            .one_time_burst = bucket->one_time_burst};
}

// What the monitor itself opens is close-on-exec; so a descriptor that is not was inherited, and
// nobody has taken it yet.
bool was_inherited(int number) noexcept {
    const int flags = ::fcntl(number, F_GETFD);
    return flags >= 0 && (flags & FD_CLOEXEC) == 0;
}

Result<Fd> take_inherited(int number) {
    if (!was_inherited(number))
        return fail("descriptor {} was not handed to the monitor, or is in use already", number);
    ::fcntl(number, F_SETFD, FD_CLOEXEC);
    return Fd(number);
}

template <class T>
Result<T> random_value() {
    T value{};
    if (::getrandom(&value, sizeof value, 0) != static_cast<ssize_t>(sizeof value))
        return fail_errno(errno, "the host gives no random bytes");
    return value;
}

Result<net::MacAddress> own_mac(const std::string& iface_id, const std::string& text) {
    const auto mac = TRY(net::parse_mac(text));
    // The lowest bit of the first byte: a group address.
    if ((mac[0] & 1) != 0 || mac == net::MacAddress())
        return fail(
            "interface {}: MAC address {} is a group's, or all zeros; an interface "
            "needs one of its own",
            iface_id, text);
    return mac;
}

bool names(const std::vector<std::string>& ids, const std::string& id) {
    return std::ranges::find(ids, id) != ids.end();
}

}  // namespace

RateLimiter::Limits to_limits(const RateLimiterConfig& config) {
    return {.bytes = to_limit(config.bandwidth), .ops = to_limit(config.ops)};
}

Result<std::unique_ptr<NetworkInterface>> NetworkInterface::open(
    const NetworkInterfaceConfig& config) {
    std::unique_ptr<NetworkInterface> interface(new NetworkInterface(config));
    interface->mac_ = TRY(net::parse_mac(config.guest_mac.value_or("")));
    interface->network_mac_ = interface->mac_;
    if (config.network_mac)
        interface->network_mac_ = TRY(net::parse_mac(*config.network_mac));
    TRY(interface->open_backend());
    if (interface->network_mac_ != interface->mac_)
        interface->backend_ = std::make_unique<net::TranslatingBackend>(
            std::move(interface->backend_),
            net::MacTranslation(interface->mac_, interface->network_mac_));
    // What is known so far; the metadata addresses come with the first device.
    interface->firewall_config_ = firewall_config(TRY(service_config(config, interface->mac_)));
    // Without rules, nothing passes it yet.
    if (config.firewall)
        TRY(interface->set_rules(nullptr));
    return interface;
}

Result<> NetworkInterface::open_backend() {
    if (config_.passt_fd) {
        auto socket = TRY(take_inherited(*config_.passt_fd));
        backend_ = TRY(net::Passt::adopt(std::move(socket)));
        return {};
    }
    std::unique_ptr<net::Tap> tap;
    if (config_.tap_fds.empty()) {
        tap = TRY(net::Tap::open(config_.host_dev_name));
    } else {
        std::vector<Fd> descriptors;
        for (const int number : config_.tap_fds)
            descriptors.push_back(TRY(take_inherited(number)));
        tap = TRY(net::Tap::adopt(std::move(descriptors)));
    }
    tap_ = tap.get();
    backend_ = std::move(tap);
    return {};
}

Result<> NetworkInterface::make_services(const VmConfig& vm, const net::MetadataStore& store) {
    const bool ec2 = vm.metadata && names(vm.metadata->network_interfaces, config_.iface_id);
    const bool mmds = vm.mmds && names(vm.mmds->network_interfaces, config_.iface_id);
    services_.reset();
    metadata_.reset();
    auto services = TRY(service_config(config_, mac_));
    if (ec2)
        services.metadata = ec2_metadata_addresses();
    else if (mmds)
        services.metadata = {TRY(net::parse_address(vm.mmds->ipv4_address))};
    firewall_config_ = firewall_config(services);
    if (auto* firewall = filter_.firewall())
        firewall->replace_config(firewall_config_);
    if (!ec2 && !mmds && !config_.guest_network)
        return {};
    if (ec2)
        metadata_ = std::make_unique<net::MetadataService>(
            store, net::MetadataServiceOptions{
                       .ec2 = true,
                       .tokens_required = vm.metadata->tokens_required,
                       .token_hop_limit = static_cast<std::uint8_t>(vm.metadata->hop_limit)});
    else if (mmds)
        metadata_ = std::make_unique<net::MetadataService>(
            store, net::MetadataServiceOptions{.tokens_required = vm.mmds->version2,
                                               .text_only = vm.mmds->imds_compat});
    services_ = std::make_unique<net::Services>(std::move(services), metadata_.get(),
                                                TRY(random_value<std::uint64_t>()));
    return {};
}

Result<std::unique_ptr<net::VirtioNet>> NetworkInterface::make_device(
    const VmConfig& vm, const net::MetadataStore& store, const NetworkHost& host) {
    if (tap_ != nullptr)
        TRY(tap_->add_queues(vm.machine.vcpu_count));
    TRY(make_services(vm, store));
    TRY(start_expiry(host));
    const net::VirtioNet::Options options{.mac = mac_,
                                          .mtu = config_.mtu,
                                          .queue_pairs = vm.machine.vcpu_count,
                                          .rx_limits = to_limits(config_.rx_rate_limiter),
                                          .tx_limits = to_limits(config_.tx_rate_limiter)};
    return net::VirtioNet::create(config_.iface_id, *backend_, filter_, services_.get(), options,
                                  host.loop, host.log.with_component("net"), host.metrics,
                                  host.clock);
}

Result<> NetworkInterface::set_rules(std::shared_ptr<const net::CompiledRules> rules) {
    if (filter_.firewall() == nullptr)
        filter_.set(TRY(net::Firewall::create(firewall_config_, net::FirewallLimits())));
    filter_.firewall()->replace_rules(std::move(rules));
    return {};
}

Nanoseconds NetworkInterface::expire_flows(Nanoseconds now) noexcept {
    constexpr Nanoseconds second = 1'000'000'000;
    // No flow ends sooner than this after its last packet, so an idle VM need not wake more often.
    constexpr Nanoseconds shortest_idle_time = 10 * second;
    auto* firewall = filter_.firewall();
    if (firewall == nullptr)
        return shortest_idle_time;
    firewall->expire(now);
    return firewall->flow_count() == 0 ? shortest_idle_time : second;
}

Result<> NetworkInterface::start_expiry(const NetworkHost& host) {
    if (expiry_)
        return {};
    constexpr Nanoseconds first_look = 1'000'000'000;
    expiry_ = TRY(
        host.loop.timer([this, &clock = host.clock] { expiry_->arm(expire_flows(clock.now())); }));
    expiry_->arm(first_look);
    return {};
}

void NetworkInterface::adopt_firewall(std::unique_ptr<net::Firewall> firewall) {
    firewall->replace_config(firewall_config_);
    filter_.set(std::move(firewall));
}

Result<> NetworkInterface::set_flow_log(const FlowLogConfig& config, const NetworkHost& host) {
    if (filter_.firewall() == nullptr)
        return fail("interface {}: a flow log needs security groups; set them first",
                    config_.iface_id);
    net::FlowLogIdentity identity;
    identity.interface_id = config_.iface_id;
    identity.account_id = config.account_id.value_or("");
    identity.instance_id = config.instance_id.value_or("");
    if (!firewall_config_.addresses.empty())
        identity.primary = firewall_config_.addresses.front();
    // The old one writes its rest before the new one opens the file.
    filter_.firewall()->set_flow_log(nullptr);
    flow_log_.reset();
    flow_log_ = TRY(FlowLogWriter::create(config, std::move(identity), host.loop, host.clock,
                                          host.log.with_component("flow-log")));
    filter_.firewall()->set_flow_log(&flow_log_->flow_log());
    return {};
}

void NetworkInterface::set_limits(const RateLimiterConfig& rx, const RateLimiterConfig& tx) {
    config_.rx_rate_limiter = rx;
    config_.tx_rate_limiter = tx;
}

void LentDescriptors::lend(int number) {
    if (was_inherited(number))
        duplicates_.emplace_back(number, Fd(::fcntl(number, F_DUPFD_CLOEXEC, 0)));
}

// One that nobody took is there still, and its place is not free.
LentDescriptors::~LentDescriptors() {
    for (const auto& [number, duplicate] : duplicates_) {
        Fd again(::fcntl(duplicate.get(), F_DUPFD_CLOEXEC, number));
        if (again.get() != number)
            continue;
        ::fcntl(number, F_SETFD, 0);
        std::ignore = again.release();
    }
}

// Makes the configuration name the MACs as they are from now on.
Result<> Network::settle_macs(NetworkInterfaceConfig& config) const {
    auto mac = net::MacAddress();
    if (config.guest_mac) {
        mac = TRY(own_mac(config.iface_id, *config.guest_mac));
    } else {
        mac = TRY(random_value<net::MacAddress>());
        mac[0] = own_mac_prefix;
    }
    config.guest_mac = net::to_string(mac);
    auto network_mac = mac;
    if (config.network_mac)
        network_mac = TRY(own_mac(config.iface_id, *config.network_mac));
    config.network_mac.reset();
    if (network_mac != mac)
        config.network_mac = net::to_string(network_mac);
    for (const auto& [id, other] : interfaces_) {
        if (id == config.iface_id)
            continue;
        if (other->mac() == mac || other->network_mac() == network_mac)
            return fail("interface {}: MAC address {} is interface {}'s already", config.iface_id,
                        net::to_string(other->mac() == mac ? mac : network_mac), id);
    }
    return {};
}

Result<> Network::set_interface(NetworkInterfaceConfig& config) {
    TRY(settle_macs(config));
    const auto* present = find(config.iface_id);
    const auto old_config = present != nullptr ? present->config() : NetworkInterfaceConfig();
    if (present != nullptr && config.host_dev_name.empty() &&
        config.passt_fd == old_config.passt_fd && config.tap_fds == old_config.tap_fds)
        return fail("interface {}: its descriptors are in use by it already", config.iface_id);
    // The old one goes first: it may hold the very TAP that the new one asks for.
    const bool had = interfaces_.erase(config.iface_id) != 0;
    auto opened = NetworkInterface::open(config);
    if (!opened && had && !old_config.host_dev_name.empty())
        if (auto again = NetworkInterface::open(old_config))
            interfaces_.emplace(config.iface_id, *std::move(again));
    if (!opened)
        return in_context(fmt::format("interface {}", config.iface_id), std::move(opened.error()));
    interfaces_.emplace(config.iface_id, *std::move(opened));
    return {};
}

NetworkInterface* Network::find(const std::string& id) noexcept {
    const auto found = interfaces_.find(id);
    return found == interfaces_.end() ? nullptr : found->second.get();
}

Result<NetworkInterface*> Network::require(const std::string& id) {
    auto* interface = find(id);
    if (interface == nullptr)
        return fail("there is no network interface {}", id);
    return interface;
}

std::vector<SavedInterface> Network::save(Nanoseconds now) {
    std::vector<SavedInterface> saved;
    for (const auto& [id, interface] : interfaces_) {
        saved.push_back({.id = id, .mac = interface->mac(), .firewall = std::nullopt});
        if (auto* firewall = interface->firewall())
            saved.back().firewall = firewall->save(now);
    }
    return saved;
}

void Network::show_instance(const InstanceMetadataConfig& metadata, const VmConfig& vm) {
    auto instance = metadata.instance;
    instance.interfaces.clear();
    for (const auto& config : vm.network_interfaces)
        if (const auto* interface = find(config.iface_id))
            instance.interfaces.push_back(metadata_interface(config, interface->mac()));
    store_.set(net::make_ec2_tree(instance));
}

}  // namespace masu
