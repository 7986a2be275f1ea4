// masu net: networks of several VMs on this host.
#include <CLI/App.hpp>
#include <cstdio>
#include <map>
#include <memory>

#include <boost/json.hpp>

#include "tools/masu/bridge.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/json_output.hpp"
#include "tools/masu/network_store.hpp"
#include "tools/masu/switch_client.hpp"
#include "tools/masu/switch_process.hpp"
#include "tools/masu/vm_status.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

// What passt's framing carries as one frame: without segmentation offload, larger is faster.
constexpr std::uint64_t largest_mtu = 65520;
// With segmentation offload it is what others have.
constexpr std::uint64_t bridge_mtu = 1500;

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

Result<NetworkStore> open_networks() {
    return NetworkStore(TRY(open_store()));
}

std::string text_of(const std::optional<net::Prefix>& subnet) {
    return subnet ? net::to_string(*subnet) : "-";
}

// What people and programs are shown: the record without what only masu needs.
json::object shown(const NetworkRecord& network) {
    auto object = to_json(network);
    for (const auto* key : {"version", "mac_byte", "last_given", "leases"})
        object.erase(key);
    json::array vms;
    for (const auto& lease : network.leases)
        vms.emplace_back(lease.vm);
    object["vms"] = std::move(vms);
    return object;
}

Result<int> create(NetworkRequest request, const std::string& driver) {
    if (driver == to_string(NetworkRecord::Driver::Bridge)) {
        request.driver = NetworkRecord::Driver::Bridge;
        if (const auto possible = Bridge::probe(); !possible)
            return in_context("--driver bridge", possible.error());
    }
    if (request.mtu == 0)
        request.mtu = request.driver == NetworkRecord::Driver::Bridge ? bridge_mtu : largest_mtu;
    const auto networks = TRY(open_networks());
    const auto network = TRY(networks.create(request));
    print(network.id + "\n");
    return 0;
}

Result<int> list(OutputFormat format, bool names) {
    const auto store = TRY(open_networks());
    const auto networks = TRY(store.all());
    json::array array;
    auto table = fmt::format("{:<16} {:<6} {:<18} {:<24} {:>4}  {}\n", "NAME", "DRIVER", "SUBNET",
                             "SUBNET6", "VMS", "CREATED");
    std::string all_names;
    for (const auto& network : networks) {
        all_names += network.name + "\n";
        table += fmt::format("{:<16} {:<6} {:<18} {:<24} {:>4}  {} ago\n", network.name,
                             to_string(network.driver), net::to_string(network.subnet),
                             text_of(network.subnet6), network.leases.size(),
                             format_age(network.created));
        array.push_back(shown(network));
    }
    if (names)
        print(all_names);
    else if (format == OutputFormat::Json)
        print_json(array);
    else
        print(table);
    return 0;
}

std::uint64_t number_at(const json::object& object, std::string_view key) {
    const auto* value = object.if_contains(key);
    return value != nullptr && value->is_number() ? value->to_number<std::uint64_t>() : 0;
}

std::string dropped_text(const json::object& port) {
    std::string text;
    if (const auto* dropped = port.if_contains("dropped");
        dropped != nullptr && dropped->is_object())
        for (const auto& [reason, count] : dropped->get_object())
            text += fmt::format("{}{} {}", text.empty() ? "" : ", ", plain_text(count),
                                std::string_view(reason));
    return text.empty() ? "0" : text;
}

// Each VM with its addresses and what runs through its port.
json::array members_of(const NetworkStore& networks, const NetworkRecord& network) {
    std::map<std::string, json::object> ports;
    for (const auto& port : switch_ports(networks, network))
        if (port.is_object() && port.get_object().contains("mac"))
            ports[plain_text(port.get_object().at("mac"))] = port.get_object();
    json::array members;
    const auto leases = to_json(network).at("leases").as_array();
    for (const auto& lease : leases) {
        auto member = lease.as_object();
        for (const auto& [key, value] : ports[plain_text(member.at("mac"))])
            member[key] = value;
        members.push_back(std::move(member));
    }
    return members;
}

Result<int> inspect(const std::string& name, OutputFormat format) {
    const auto networks = TRY(open_networks());
    const auto network = TRY(networks.find(name));
    auto members = members_of(networks, network);
    if (format == OutputFormat::Json) {
        auto object = shown(network);
        object["vms"] = std::move(members);
        print_json(object);
        return 0;
    }
    print(fmt::format("{} ({})\ndriver   {}\nsubnet   {}\nsubnet6  {}\nmtu      {}\nvms:\n",
                      network.name, network.id, to_string(network.driver),
                      net::to_string(network.subnet), text_of(network.subnet6), network.mtu));
    for (const auto& value : members) {
        const auto& member = value.as_object();
        print(fmt::format("  {:<16} {:<15} {} {}\n", plain_text(member.at("vm")),
                          plain_text(member.at("address")), plain_text(member.at("mac")),
                          member.contains("address6") ? plain_text(member.at("address6")) : ""));
        print(fmt::format("  {:<16} sent {} frames, received {}, dropped {}\n", "",
                          number_at(member, "sent_frames"), number_at(member, "received_frames"),
                          dropped_text(member)));
    }
    return 0;
}

Result<int> remove(const std::vector<std::string>& names) {
    const auto networks = TRY(open_networks());
    int status = 0;
    for (const auto& name : names) {
        const auto done = networks.remove(
            name, [&](const NetworkRecord& network) { stop_switch(networks, network); });
        if (!done) {
            note(done.error().message);
            status = 1;
        }
    }
    return status;
}

// --- options ------------------------------------------------------------------------------------

void add_create(CLI::App& net, Invocation& invocation) {
    auto* command = net.add_subcommand("create", "Make a network");
    auto request = std::make_shared<NetworkRequest>();
    auto driver = std::make_shared<std::string>("switch");
    command->add_option("name", request->name, "The network's name")->type_name("NAME")->required();
    command
        ->add_option("--subnet", request->subnet,
                     "Its IPv4 subnet, of /16 to /28 (default: a free one of 10.201.0.0/16)")
        ->type_name("CIDR");
    command
        ->add_option("--subnet6", request->subnet6,
                     "Its IPv6 subnet, of /64, or none (default: a random one that is unique "
                     "local)")
        ->type_name("CIDR");
    command
        ->add_option("--mtu", request->mtu,
                     fmt::format("Largest packet, in bytes (default {}; of a bridge {})",
                                 largest_mtu, bridge_mtu))
        ->type_name("N")
        ->check(CLI::Range(std::uint64_t{1280}, largest_mtu));
    add_choice(*command, "--driver", *driver, {"switch", "bridge"},
               "What carries frames from VM to VM: a process of masu's (switch, the default), or a "
               "bridge of this machine's kernel, with segmentation offload, for root and where "
               "users may have namespaces");
    command->footer(
        "Prints the network's id. Nothing runs until a VM joins.\n"
        "\n"
        "Examples:\n"
        "  masu net create lab\n"
        "  masu net create lab --subnet 10.1.0.0/24 --subnet6 fd12:3456:789a:1::/64\n"
        "  masu net create fast --driver bridge --mtu 9001\n"
        "  masu run debian --net network=lab --security-group db --name db -d");
    command->callback([&invocation, request, driver] {
        invocation.run = [request, driver] { return create(*request, *driver); };
    });
}

void add_look(CLI::App& net, Invocation& invocation) {
    struct Options {
        std::string name;
        bool names = false;
        OutputFormat format = OutputFormat::Text;
    };
    auto* ls = net.add_subcommand("ls", "List the networks");
    auto options = std::make_shared<Options>();
    ls->add_flag("-q,--names", options->names, "Names only, one a line");
    add_output_option(*ls, options->format);
    ls->callback([&invocation, options] {
        invocation.run = [options] { return list(options->format, options->names); };
    });

    auto* show = net.add_subcommand(
        "inspect", "Show a network's subnets, its VMs' addresses and what they sent");
    auto shown = std::make_shared<Options>();
    show->add_option("network", shown->name, "The network's name")
        ->type_name(network_value)
        ->required();
    add_output_option(*show, shown->format);
    show->footer(
        "Examples:\n"
        "  masu net inspect lab\n"
        "  masu net inspect lab --output json");
    show->callback([&invocation, shown] {
        invocation.run = [shown] { return inspect(shown->name, shown->format); };
    });
}

void add_rm(CLI::App& net, Invocation& invocation) {
    auto* command = net.add_subcommand("rm", "Delete networks that no running VM is on");
    auto names = std::make_shared<std::vector<std::string>>();
    command->add_option("networks", *names, "Names")->type_name(network_value)->required();
    command->footer("Example:\n  masu net rm lab");
    command->callback(
        [&invocation, names] { invocation.run = [names] { return remove(*names); }; });
}

// For masu itself: what start_switch() runs.
void add_switch(CLI::App& program, Invocation& invocation) {
    struct Options {
        std::string network;
        int listener = -1;
    };
    auto* command = program.add_subcommand("net-switch", "The switch of a network");
    command->group("");
    auto options = std::make_shared<Options>();
    command->add_option("network", options->network)->required();
    command->add_option("listener", options->listener)->required();
    command->callback([&invocation, options] {
        invocation.run = [options]() -> Result<int> {
            const auto store = TRY(open_store());
            TRY(run_switch(store, options->network, Fd(options->listener)));
            return 0;
        };
    });
}

}  // namespace

void add_net_command(CLI::App& program, Invocation& invocation) {
    auto* net = program.add_subcommand("net", "Networks of several VMs on this host");
    net->require_subcommand(1);
    net->footer(
        "Examples:\n"
        "  masu net create lab\n"
        "  masu run debian --net network=lab --name one -d\n"
        "  masu run debian --net network=lab --name two -d\n"
        "  masu net inspect lab");
    add_create(*net, invocation);
    add_look(*net, invocation);
    add_rm(*net, invocation);
    add_switch(program, invocation);
}

}  // namespace masu::cli
