#include "vmm/net/saved_network.hpp"

namespace masu {

Result<std::vector<RestoredFirewall>> restore_firewalls(
    const std::vector<SavedInterface>& interfaces, Nanoseconds now) {
    std::vector<RestoredFirewall> restored;
    for (const auto& interface : interfaces) {
        if (!interface.firewall)
            continue;
        // The MAC at once: a firewall forgets what it learned of another.
        auto firewall = TRY(net::Firewall::create({.mac = interface.mac}, net::FirewallLimits()));
        if (auto loaded = firewall->load(*interface.firewall, now); !loaded)
            return in_context(fmt::format("the snapshot's interface {}", interface.id),
                              std::move(loaded).error());
        restored.push_back({.interface_id = interface.id, .firewall = std::move(firewall)});
    }
    return restored;
}

}  // namespace masu
