// Choosing, starting and configuring a VM's network.
#include "tools/masu/vm_network.hpp"

#include <boost/json.hpp>
#include <ctime>
#include <tuple>

#include "base/atomic_file.hpp"
#include "base/base64.hpp"
#include "base/bytes.hpp"
#include "devices/net/metadata/instance.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/host_file.hpp"
#include "tools/masu/passt_process.hpp"

namespace masu::cli {
namespace {

constexpr std::size_t user_data_limit = 16384;
constexpr std::size_t key_file_limit = 64 * KiB;

bool has_address(const NetOption& net) {
    return net.kind == NetOption::Kind::User || net.address.has_value();
}

boost::json::object user_request(const NetOption& net, std::string_view id,
                                 const std::string& hostname, int socket) {
    auto request = interface_request(net, id, hostname);
    if (!net.mtu)
        request["mtu"] = user_network::mtu;
    request["passt_fd"] = socket;
    request["guest_network"] = user_guest_network(hostname);
    return request;
}

std::string rfc3339(std::int64_t seconds) {
    const auto time = static_cast<std::time_t>(seconds);
    std::tm parts{};
    ::gmtime_r(&time, &parts);
    char text[32];
    const auto size = std::strftime(text, sizeof text, "%Y-%m-%dT%H:%M:%SZ", &parts);
    return {text, size};
}

boost::json::object metadata_request(const VmRecord& record, const GuestMetadata& metadata) {
    boost::json::array interfaces;
    for (std::size_t i = 0; i < record.nets.size(); ++i)
        if (has_address(record.nets[i]))
            interfaces.emplace_back(interface_id(i));
    boost::json::array keys;
    for (std::size_t i = 0; i < metadata.keys.size(); ++i)
        keys.push_back(
            boost::json::object{{"name", fmt::format("masu-{}", i)}, {"key", metadata.keys[i]}});
    boost::json::object request{{"network_interfaces", std::move(interfaces)},
                                {"http_tokens", metadata.tokens_required ? "required" : "optional"},
                                {"instance_id", instance_id_of(record)},
                                {"hostname", record.name},
                                {"public_keys", std::move(keys)},
                                {"pending_time", rfc3339(record.created)}};
    if (!record.type.empty())
        request["instance_type"] = record.type;
    if (!record.account_id.empty())
        request["account_id"] = record.account_id;
    if (!metadata.user_data.empty())
        request["user_data"] = encode_base64(metadata.user_data);
    return request;
}

Result<std::vector<std::string>> read_keys(const std::string& path) {
    const auto absolute = absolute_path(path);
    TRY(check_host_file("ssh key", absolute, FileKind::File));
    const auto text = TRY(read_file(absolute, key_file_limit));
    std::vector<std::string> keys;
    for (std::size_t at = 0; at < text.size();) {
        const auto end = std::min(text.find('\n', at), text.size());
        const auto line = text.substr(at, end - at);
        at = end + 1;
        if (line.starts_with("-----BEGIN"))
            return fail("--ssh-key {}: this is a private key; give the public one ({}.pub)", path,
                        path);
        if (line.contains(' ') && !line.starts_with('#'))
            keys.push_back(line);
    }
    if (keys.empty())
        return fail("--ssh-key {}: holds no public key (a line such as \"ssh-ed25519 AAAA...\")",
                    path);
    return keys;
}

}  // namespace

std::string interface_id(std::size_t index) {
    return fmt::format("net{}", index);
}

boost::json::object user_guest_network(const std::string& hostname) {
    return {{"address", fmt::format("{}/{}", user_network::address, user_network::prefix_length)},
            {"gateway", user_network::gateway},
            {"dns", boost::json::array{user_network::dns}},
            {"hostname", hostname}};
}

Result<> choose_networks(const NetworkOptions& options, VmRecord& record) {
    for (const auto& text : options.nets) {
        auto net = TRY(parse_net_option(text));
        if (net.kind == NetOption::Kind::None && options.nets.size() > 1)
            return fail("--net none and another --net contradict each other");
        if (net.kind == NetOption::Kind::Network) {
            const NetworkStore networks(TRY(open_store()));
            std::ignore = TRY(networks.find(net.network));
        }
        if (net.kind != NetOption::Kind::None)
            record.nets.push_back(std::move(net));
    }
    if (options.nets.empty() && find_passt())
        record.nets.push_back({.kind = NetOption::Kind::User});
    if (!options.account_id.empty() && !net::is_account_id(options.account_id))
        return fail("--account-id {}: an account's id is 12 digits, such as 123456789012",
                    options.account_id);
    record.account_id = options.account_id;
    const auto users = std::ranges::count(record.nets, NetOption::Kind::User, &NetOption::kind);
    if (users > 1)
        return fail("--net user is given twice; a VM can have one of them");
    if (users == 1 && !find_passt())
        return fail(
            "--net user needs the program passt; install it (apt-get install passt), or "
            "use --net none");
    for (const auto& text : options.ports)
        record.ports.push_back(TRY(parse_published_port(text)));
    if (!record.ports.empty() && users == 0)
        return fail("-p publishes ports of --net user, and this VM has none{}",
                    find_passt() ? "" : "; install passt (apt-get install passt)");
    return {};
}

Result<GuestMetadata> read_guest_metadata(const NetworkOptions& options) {
    GuestMetadata metadata{.on = options.imds != "off",
                           .tokens_required = options.imds != "v1",
                           .user_data = {},
                           .keys = {}};
    if (!metadata.on && (!options.user_data.empty() || !options.ssh_keys.empty()))
        return fail("--imds off leaves no way to tell the guest of --user-data and --ssh-key");
    if (!options.user_data.empty()) {
        const auto path = absolute_path(options.user_data);
        TRY(check_host_file("user data", path, FileKind::File));
        auto text = read_file(path, user_data_limit);
        if (!text)
            return fail("--user-data: {}; it may have {} bytes at most", text.error().message,
                        user_data_limit);
        metadata.user_data = *std::move(text);
    }
    for (const auto& path : options.ssh_keys)
        for (auto& key : TRY(read_keys(path)))
            metadata.keys.push_back(std::move(key));
    return metadata;
}

Result<std::vector<NetworkPort>> start_networks(const NetworkOptions& options, VmRecord& record,
                                                const VmFolder& folder) {
    std::vector<NetworkPort> backends(record.nets.size());
    for (std::size_t i = 0; i < record.nets.size(); ++i) {
        if (record.nets[i].kind == NetOption::Kind::Network) {
            const NetworkStore networks(TRY(open_store()));
            backends[i] = TRY(join_network(networks, record, i));
        }
        if (record.nets[i].kind != NetOption::Kind::User)
            continue;
        auto socket = start_passt(*find_passt(), record.ports, folder.file("passt.log"));
        if (socket) {
            backends[i].descriptors.push_back(*std::move(socket));
        } else if (options.nets.empty() && options.ports.empty()) {
            note(fmt::format("{} has no network: {}", record.name, socket.error().message));
            record.nets.clear();
            return std::vector<NetworkPort>();
        } else {
            return std::unexpected(socket.error());
        }
    }
    return backends;
}

Result<> configure_networks(const MonitorClient& client, const VmRecord& record,
                            const std::vector<NetworkPort>& backends,
                            const GuestMetadata& metadata) {
    bool addressed = false;
    for (std::size_t i = 0; i < record.nets.size(); ++i) {
        const auto& net = record.nets[i];
        const auto id = interface_id(i);
        addressed = addressed || has_address(net);
        const auto& backend = backends[i];
        auto request = net.kind == NetOption::Kind::User
                           ? user_request(net, id, record.name, backend.descriptors.front().get())
                           : interface_request(net, id, record.name);
        if (net.kind == NetOption::Kind::Network)
            name_descriptors(backend, request);
        TRY(client.put("/network-interfaces/" + id, request));
    }
    if (metadata.on && addressed)
        TRY(client.put("/instance-metadata", metadata_request(record, metadata)));
    else if (!metadata.user_data.empty() || !metadata.keys.empty())
        return fail(
            "--user-data and --ssh-key reach the guest over its network; use --net user or "
            "--net network=NAME, or give a TAP an address=");
    return {};
}

}  // namespace masu::cli
