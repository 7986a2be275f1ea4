// masu prefix-list: making sets of address blocks that rules name, and changing them.
#include <CLI/App.hpp>
#include <algorithm>
#include <cstdio>
#include <memory>

#include <boost/json.hpp>

#include "tools/masu/commands.hpp"
#include "tools/masu/group_rules.hpp"
#include "tools/masu/json_output.hpp"
#include "tools/masu/security_groups.hpp"

namespace masu::cli {
namespace {

struct Options {
    std::string list;
    std::vector<std::string> cidrs;
    std::string description;
    std::size_t max_entries = 0;  // 0: as many as are given
    bool names = false;
    OutputFormat format = OutputFormat::Text;
};

void print(const std::string& text) {
    std::fwrite(text.data(), 1, text.size(), stdout);
}

Result<std::vector<net::Prefix>> prefixes_of(const Options& options) {
    std::vector<net::Prefix> prefixes;
    for (const auto& cidr : options.cidrs) {
        auto prefix = net::parse_cidr(cidr);
        if (!prefix)
            return in_context("InvalidParameterValue", std::move(prefix.error()));
        prefixes.push_back(*prefix);
    }
    return prefixes;
}

Result<std::vector<PrefixListEntry>> entries_of(const Options& options) {
    std::vector<PrefixListEntry> entries;
    for (const auto& prefix : TRY(prefixes_of(options)))
        entries.push_back({prefix, options.description});
    return entries;
}

Result<int> create(const Options& options) {
    auto entries = TRY(entries_of(options));
    const auto room = options.max_entries != 0 ? options.max_entries : entries.size();
    if (room == 0)
        return fail("MissingParameter: an empty prefix list needs --max-entries");
    const GroupStore groups(TRY(open_store()).places().state);
    std::string id;
    const auto add = [&](GroupBook& book) -> Result<> {
        id = TRY(book.create_list(options.list, room, std::move(entries)));
        return {};
    };
    TRY(groups.change(add));
    print(id + "\n");
    return 0;
}

Result<int> list(const Options& options) {
    const GroupStore groups(TRY(open_store()).places().state);
    const auto book = TRY(groups.read());
    boost::json::array array;
    auto table = fmt::format("{:<22} {:<24} {:>7} {:>4}\n", "ID", "NAME", "ENTRIES", "MAX");
    std::string names;
    for (const auto& one : book.lists()) {
        names += one.name + "\n";
        table += fmt::format("{:<22} {:<24} {:>7} {:>4}\n", one.id, one.name, one.entries.size(),
                             one.max_entries);
        array.push_back(to_json(one));
    }
    if (options.format == OutputFormat::Json)
        print_json(array);
    else
        print(options.names ? names : table);
    return 0;
}

Result<int> inspect(const Options& options) {
    const GroupStore groups(TRY(open_store()).places().state);
    const auto book = TRY(groups.read());
    const auto* found = TRY(book.find_list(options.list));
    if (options.format == OutputFormat::Json) {
        print_json(to_json(*found));
        return 0;
    }
    auto text =
        fmt::format("{} ({})\nentries ({} at most):\n", found->name, found->id, found->max_entries);
    for (const auto& [prefix, description] : found->entries)
        text += fmt::format("  {}{}\n", to_string(prefix),
                            description.empty() ? "" : "  # " + description);
    print(text);
    return 0;
}

// --- options ------------------------------------------------------------------------------------

CLI::App* add(CLI::App& parent, const char* name, const char* what,
              const std::shared_ptr<Options>& options) {
    auto* command = parent.add_subcommand(name, what);
    command->add_option("list", options->list, "The list's name or id")
        ->type_name(prefix_list_value)
        ->required();
    return command;
}

CLI::Option* add_cidrs(CLI::App& command, const std::shared_ptr<Options>& options) {
    return command
        .add_option("--cidr", options->cidrs,
                    "A block of addresses: 203.0.113.0/24, 2001:db8::/32. Repeat for more")
        ->type_name("CIDR")
        ->allow_extra_args(false)
        ->take_all();
}

void add_changes(CLI::App& parent, Invocation& invocation) {
    auto adding = std::make_shared<Options>();
    auto* command =
        add(parent, "add", "Put blocks into a list; running VMs have them at once", adding);
    add_cidrs(*command, adding)->required();
    command->add_option("--description", adding->description, "What the blocks are")
        ->type_name("TEXT");
    command->footer("Example:\n  masu prefix-list add offices --cidr 203.0.113.0/24");
    command->callback([adding, &invocation] {
        invocation.run = [adding] {
            return change_and_push([&](GroupBook& book) -> Result<> {
                return book.add_entries(adding->list, TRY(entries_of(*adding)));
            });
        };
    });

    auto removing = std::make_shared<Options>();
    command =
        add(parent, "remove", "Take blocks out of a list; running VMs lose them at once", removing);
    add_cidrs(*command, removing)->required();
    command->footer("Example:\n  masu prefix-list remove offices --cidr 203.0.113.0/24");
    command->callback([removing, &invocation] {
        invocation.run = [removing] {
            return change_and_push([&](GroupBook& book) -> Result<> {
                return book.remove_entries(removing->list, TRY(prefixes_of(*removing)));
            });
        };
    });

    auto gone = std::make_shared<Options>();
    command = add(parent, "rm", "Delete a list that no rule names", gone);
    command->callback([gone, &invocation] {
        invocation.run = [gone]() -> Result<int> {
            const GroupStore groups(TRY(open_store()).places().state);
            TRY(groups.change([&](GroupBook& book) { return book.remove_list(gone->list); }));
            return 0;
        };
    });
}

}  // namespace

void add_prefix_list_command(CLI::App& program, Invocation& invocation) {
    auto* parent = program.add_subcommand(
        "prefix-list", "Sets of address blocks that rules of security groups name");
    parent->require_subcommand(1);
    parent->footer(
        "Examples:\n"
        "  masu prefix-list create offices --cidr 203.0.113.0/24 --cidr 2001:db8:1::/48 "
        "--max-entries 10\n"
        "  masu sg authorize web --protocol tcp --port 22 --prefix-list offices\n"
        "  masu prefix-list add offices --cidr 198.51.100.0/24 --description Lyon");
    auto making = std::make_shared<Options>();
    auto* command = parent->add_subcommand("create", "Make a list, and print its id");
    command->add_option("name", making->list, "The list's name")->type_name("NAME")->required();
    add_cidrs(*command, making);
    command
        ->add_option("--max-entries", making->max_entries,
                     "How many blocks it has room for, and how many rules one that names it "
                     "counts as (default: as many as are given)")
        ->type_name("N")
        ->check(CLI::Range(std::size_t{1}, GroupBook::max_list_entries));
    command->add_option("--description", making->description, "What the blocks are")
        ->type_name("TEXT");
    command->footer(
        "Example:\n  masu prefix-list create offices --cidr 203.0.113.0/24 --max-entries 10");
    command->callback(
        [making, &invocation] { invocation.run = [making] { return create(*making); }; });
    add_changes(*parent, invocation);

    auto listing = std::make_shared<Options>();
    command = parent->add_subcommand("ls", "List the lists");
    command->add_flag("--names", listing->names, "Names only, one a line");
    add_output_option(*command, listing->format);
    command->callback(
        [listing, &invocation] { invocation.run = [listing] { return list(*listing); }; });
    auto showing = std::make_shared<Options>();
    command = add(*parent, "inspect", "Show a list's blocks", showing);
    add_output_option(*command, showing->format);
    command->callback(
        [showing, &invocation] { invocation.run = [showing] { return inspect(*showing); }; });
}

}  // namespace masu::cli
