// masu sg: making security groups, changing their rules, and putting running VMs into them.
#include <CLI/App.hpp>
#include <algorithm>
#include <cstdio>
#include <functional>
#include <memory>

#include <boost/json.hpp>

#include "tools/masu/commands.hpp"
#include "tools/masu/group_rules.hpp"
#include "tools/masu/json_output.hpp"
#include "tools/masu/rule_text.hpp"
#include "tools/masu/security_groups.hpp"
#include "vmm/api/rule_set_body.hpp"

namespace masu::cli {
namespace {

struct RuleOptions {
    std::string group;
    RuleText text;
    bool ingress = false;
    std::vector<std::string> cidrs;
    std::vector<std::string> groups;
    std::vector<std::string> lists;
    std::vector<std::string> names;
    std::string description;
    std::string rule_id;
};

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

Result<GroupStore> open_groups() {
    return GroupStore(TRY(open_store()).places().state);
}

Result<std::vector<net::Peer>> peers_of(const RuleOptions& options, const GroupBook& book) {
    std::vector<net::Peer> peers;
    for (const auto& cidr : options.cidrs) {
        auto prefix = net::parse_cidr(cidr);
        if (!prefix)
            return in_context("InvalidParameterValue", std::move(prefix.error()));
        peers.emplace_back(*prefix);
    }
    for (const auto& group : options.groups)
        peers.emplace_back(net::GroupReference{TRY(book.find(group))->id});
    for (const auto& list : options.lists)
        peers.emplace_back(net::PrefixListReference{TRY(book.find_list(list))->id});
    for (const auto& name : options.names) {
        auto pattern = api::parse_dns_pattern(name);
        if (!pattern)
            return in_context("InvalidParameterValue", std::move(pattern.error()));
        peers.emplace_back(net::DnsName{*std::move(pattern)});
    }
    if (peers.empty())
        return fail(
            "MissingParameter: a rule needs a peer; give --cidr, --source-group, --prefix-list or "
            "--dns-name");
    return peers;
}

Result<int> create(const std::string& name, const std::string& description) {
    const auto groups = TRY(open_groups());
    std::string id;
    const auto add = [&](GroupBook& book) -> Result<> {
        id = TRY(book.create(name, description));
        return {};
    };
    TRY(groups.change(add));
    print(id + "\n");
    return 0;
}

Result<int> authorize(const RuleOptions& options) {
    std::string ids;
    const auto done = change_and_push([&](GroupBook& book) -> Result<> {
        for (auto& peer : TRY(peers_of(options, book))) {
            auto rule = TRY(parse_rule(options.text, std::move(peer)));
            ids +=
                TRY(book.authorize(options.group, {std::move(rule), options.description})) + "\n";
        }
        return {};
    });
    print(ids);
    return done;
}

Result<int> revoke(const RuleOptions& options) {
    return change_and_push([&](GroupBook& book) -> Result<> {
        if (!options.rule_id.empty())
            return book.revoke_id(options.group, options.rule_id);
        for (auto& peer : TRY(peers_of(options, book))) {
            const auto rule = TRY(parse_rule(options.text, std::move(peer)));
            TRY(book.revoke(options.group, rule));
        }
        return {};
    });
}

Result<int> list(OutputFormat format, bool names) {
    const auto groups = TRY(open_groups());
    const auto book = TRY(groups.read());
    boost::json::array array;
    std::string table = fmt::format("{:<22} {:<20} {:>7} {:>6}  {}\n", "ID", "NAME", "INGRESS",
                                    "EGRESS", "DESCRIPTION");
    for (const auto& group : book.groups()) {
        if (names) {
            print(group.name + "\n");
            continue;
        }
        const auto ingress = std::ranges::count_if(group.rules, [](const GroupRule& entry) {
            return entry.rule.direction == net::Direction::Ingress;
        });
        table +=
            fmt::format("{:<22} {:<20} {:>7} {:>6}  {}\n", group.id, group.name, ingress,
                        group.rules.size() - static_cast<std::size_t>(ingress), group.description);
        array.push_back(to_json(group));
    }
    if (names)
        return 0;
    if (format == OutputFormat::Json)
        print_json(array);
    else
        print(table);
    return 0;
}

Result<int> inspect(const std::string& name, OutputFormat format) {
    const auto groups = TRY(open_groups());
    const auto book = TRY(groups.read());
    const auto* group = TRY(book.find(name));
    const auto store = TRY(open_store());
    const auto members = TRY(members_of(store, group->id));
    if (format == OutputFormat::Json) {
        auto object = to_json(*group);
        object["vms"] = boost::json::array(members.begin(), members.end());
        print_json(object);
        return 0;
    }
    print(fmt::format("{} ({})\n{}\n", group->name, group->id, group->description));
    for (const auto direction : {net::Direction::Ingress, net::Direction::Egress}) {
        print(direction == net::Direction::Ingress ? "ingress:\n" : "egress:\n");
        for (const auto& [rule, description] : group->rules)
            if (rule.direction == direction)
                print(fmt::format("  {:<23} {}{}\n", rule.id, describe(rule),
                                  description.empty() ? "" : "  # " + description));
    }
    print("vms:\n");
    for (const auto& vm : members)
        print("  " + vm + "\n");
    return 0;
}

Result<int> remove(const std::vector<std::string>& names) {
    const auto groups = TRY(open_groups());
    const auto store = TRY(open_store());
    const auto take_out = [&](GroupBook& book) -> Result<> {
        for (const auto& name : names) {
            const auto* group = TRY(book.find(name));
            const auto members = TRY(members_of(store, group->id));
            if (!members.empty())
                return fail(
                    "DependencyViolation: VM {} is in group {}; take it out with `masu sg "
                    "detach {} {}`, or remove it",
                    members.front(), group->name, members.front(), group->name);
            TRY(book.remove(name));
        }
        return {};
    };
    TRY(groups.change(take_out));
    return 0;
}

// --- options ------------------------------------------------------------------------------------

template <class Body>
void run_as(CLI::App* command, Invocation& invocation, Body body) {
    command->callback([&invocation, body] { invocation.run = body; });
}

void add_list(CLI::App& command, const char* names, std::vector<std::string>& values,
              const char* type, const char* description) {
    command.add_option(names, values, description)
        ->type_name(type)
        ->allow_extra_args(false)
        ->take_all();
}

void add_rule_options(CLI::App& command, RuleOptions& options) {
    command.add_option("group", options.group, "The group's name or id")
        ->type_name(group_value)
        ->required();
    auto* egress =
        command.add_flag("--egress", options.text.egress, "The rule is for what VMs send");
    command
        .add_flag("--ingress", options.ingress, "The rule is for what VMs receive (the default)")
        ->excludes(egress);
    command
        .add_option("--protocol", options.text.protocol,
                    "tcp, udp, icmp, icmpv6, -1 (all) or a number")
        ->type_name("PROTOCOL");
    command
        .add_option("--port", options.text.port,
                    "Port or range of ports of TCP or UDP: 22, 7000-8000, all")
        ->type_name("PORTS");
    command.add_option("--icmp-type", options.text.icmp_type, "Type of ICMP (default all)")
        ->type_name("TYPE");
    command.add_option("--icmp-code", options.text.icmp_code, "Code of ICMP (default all)")
        ->type_name("CODE");
    add_list(command, "--cidr", options.cidrs, "CIDR",
             "Peers by address: 203.0.113.0/24, ::/0. Repeat for more");
    add_list(command, "--source-group,--destination-group", options.groups, "GROUP",
             "Peers that are members of a group. Repeat for more");
    add_list(command, "--prefix-list", options.lists, prefix_list_value,
             "Peers by a prefix list, which masu prefix-list makes. Repeat for more");
    add_list(command, "--dns-name", options.names, "NAME",
             "Egress to what the guest's resolver says of a name: api.example.com, *.example.org. "
             "Repeat for more");
}

void add_create(CLI::App& sg, Invocation& invocation) {
    struct Options {
        std::string name;
        std::string description;
    };
    auto* command =
        sg.add_subcommand("create", "Make a group: nothing comes in, everything may go out");
    auto options = std::make_shared<Options>();
    command->add_option("name", options->name, "The group's name")->type_name("NAME")->required();
    command->add_option("--description", options->description, "What the group is for")
        ->type_name("TEXT")
        ->required();
    command->footer("Examples:\n  masu sg create web --description \"web servers\"");
    run_as(command, invocation, [options] { return create(options->name, options->description); });
}

void add_authorize(CLI::App& sg, Invocation& invocation) {
    auto* command =
        sg.add_subcommand("authorize", "Add rules to a group; running VMs get them at once");
    auto options = std::make_shared<RuleOptions>();
    add_rule_options(*command, *options);
    command->get_option("--protocol")->required();
    command->add_option("--description", options->description, "What the rules are for")
        ->type_name("TEXT");
    command->footer(
        "Examples:\n"
        "  masu sg authorize web --protocol tcp --port 22 --cidr 203.0.113.0/24\n"
        "  masu sg authorize db --protocol tcp --port 5432 --source-group web\n"
        "  masu sg authorize web --protocol icmp --icmp-type 8 --cidr 0.0.0.0/0\n"
        "  masu sg authorize web --protocol tcp --port 22 --prefix-list offices\n"
        "  masu sg authorize agent --egress --protocol tcp --port 443 --dns-name '*.example.org'");
    run_as(command, invocation, [options] { return authorize(*options); });
}

void add_revoke(CLI::App& sg, Invocation& invocation) {
    auto* command =
        sg.add_subcommand("revoke", "Take rules out of a group; running VMs lose them at once");
    auto options = std::make_shared<RuleOptions>();
    add_rule_options(*command, *options);
    auto* id =
        command
            ->add_option("--rule-id", options->rule_id, "The rule, as `masu sg inspect` shows it")
            ->type_name("ID");
    command->footer(
        "Examples:\n"
        "  masu sg revoke web --protocol tcp --port 22 --cidr 203.0.113.0/24\n"
        "  masu sg revoke web --rule-id sgr-0123456789abcdef0\n"
        "  masu sg revoke agent --egress --protocol -1 --cidr 0.0.0.0/0");
    run_as(command, invocation, [options, id]() -> Result<int> {
        if (id->empty() && options->text.protocol.empty())
            return fail("MissingParameter: which rule? Give --rule-id, or --protocol and a peer");
        return revoke(*options);
    });
}

void add_list_commands(CLI::App& sg, Invocation& invocation) {
    struct Options {
        std::string name;
        bool names = false;
        OutputFormat format = OutputFormat::Text;
    };
    auto* ls = sg.add_subcommand("ls", "List the groups");
    auto options = std::make_shared<Options>();
    ls->add_flag("--names", options->names, "Names only, one a line");
    add_output_option(*ls, options->format);
    run_as(ls, invocation, [options] { return list(options->format, options->names); });

    auto* show = sg.add_subcommand("inspect", "Show a group's rules and the VMs in it");
    auto shown = std::make_shared<Options>();
    show->add_option("group", shown->name, "The group's name or id")
        ->type_name(group_value)
        ->required();
    add_output_option(*show, shown->format);
    run_as(show, invocation, [shown] { return inspect(shown->name, shown->format); });
}

void add_rm(CLI::App& sg, Invocation& invocation) {
    auto* command = sg.add_subcommand("rm", "Delete groups that no VM is in");
    auto names = std::make_shared<std::vector<std::string>>();
    command->add_option("groups", *names, "Names or ids")->type_name(group_value)->required();
    run_as(command, invocation, [names] { return remove(*names); });
}

void add_modify(CLI::App& sg, Invocation& invocation) {
    struct Options {
        std::string vm;
        FirewallOptions firewall;
    };
    auto* command = sg.add_subcommand(
        "modify", "Change what a VM's firewall does beside its rules, running or not");
    auto options = std::make_shared<Options>();
    command->add_option("vm", options->vm, "Name of the VM")->type_name(vm_value)->required();
    add_firewall_options(*command, options->firewall);
    command->footer(
        "Timeouts hold for a flow from its next packet on.\n"
        "\n"
        "Examples:\n"
        "  masu sg modify web --tcp-established-timeout 350\n"
        "  masu sg modify web --icmp-errors strict");
    run_as(command, invocation, [options]() -> Result<int> {
        if (!options->firewall.any())
            return fail(
                "MissingParameter: what is to change? Give an option such as "
                "--tcp-established-timeout");
        return change_and_push([&](GroupBook& /*book*/) -> Result<> {
            const auto store = TRY(open_store());
            const auto folder = TRY(store.find(options->vm));
            auto record = TRY(folder.record());
            apply(options->firewall, record.firewall);
            return folder.write(record);
        });
    });
}

void add_membership(CLI::App& sg, Invocation& invocation) {
    struct Options {
        std::string vm;
        std::vector<std::string> groups;
    };
    for (const bool attach : {true, false}) {
        auto* command =
            attach ? sg.add_subcommand("attach", "Put a VM into groups, running or not")
                   : sg.add_subcommand("detach", "Take a VM out of groups, running or not");
        auto options = std::make_shared<Options>();
        command->add_option("vm", options->vm, "Name of the VM")->type_name(vm_value)->required();
        command->add_option("groups", options->groups, "Names or ids")
            ->type_name(group_value)
            ->required();
        run_as(command, invocation, [options, attach]() -> Result<int> {
            return change_and_push([&](GroupBook& book) -> Result<> {
                return change_membership(TRY(open_store()), book, options->vm, options->groups,
                                         attach);
            });
        });
    }
}

}  // namespace

void add_sg_command(CLI::App& program, Invocation& invocation) {
    auto* sg =
        program.add_subcommand("sg", "Security groups: which packets reach VMs and leave them");
    sg->require_subcommand(1);
    sg->footer(
        "Examples:\n"
        "  masu sg create web --description \"web servers\"\n"
        "  masu sg authorize web --protocol tcp --port 80 --cidr 0.0.0.0/0\n"
        "  masu run --kernel vmlinuz --disk debian.raw --security-group web\n"
        "  masu sg revoke web --protocol tcp --port 80 --cidr 0.0.0.0/0");
    add_create(*sg, invocation);
    add_authorize(*sg, invocation);
    add_revoke(*sg, invocation);
    add_list_commands(*sg, invocation);
    add_rm(*sg, invocation);
    add_membership(*sg, invocation);
    add_modify(*sg, invocation);
    add_sg_counters_command(*sg, invocation);
}

}  // namespace masu::cli
