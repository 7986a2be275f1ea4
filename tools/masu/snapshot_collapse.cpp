// masu snapshot collapse: a snapshot of own pages made whole.
#include <CLI/App.hpp>
#include <cstdio>
#include <memory>

#include "tools/masu/progress.hpp"
#include "tools/masu/snapshot_commands.hpp"
#include "tools/masu/snapshot_store.hpp"
#include "vmm/snapshot/collapse.hpp"

namespace masu::cli {
namespace {

Result<int> collapse(const std::string& name) {
    const auto snapshots = TRY(open_snapshot_store());
    const auto held = TRY(snapshots.hold(name, true));
    const auto snapshot = TRY(snapshots.find(name));
    if (snapshot.whole()) {
        note(fmt::format("{} is whole already", name));
        return 0;
    }
    std::vector<std::string> below;
    std::vector<Fd> others;
    for (const auto& other : TRY(snapshots.chain_of(snapshot))) {
        others.push_back(TRY(snapshots.hold(other.name)));
        if (other.memory_file == MemoryFile::Compressed)
            return fail(
                "the memory of {}, which {} builds on, is compressed: unpack it first, "
                "with `masu snapshot decompress {}`",
                other.name, name, other.name);
        below.push_back(other.path);
    }
    Progress progress("collapsing " + name);
    bool staged = false;
    const auto stored =
        TRY(snapshot::collapse(snapshot.path, below, [&](std::uint64_t done, std::uint64_t total) {
            if (!staged)
                progress.stage("pages", total);
            staged = true;
            progress.update(done);
        }));
    TRY(snapshots.note_whole(snapshot, stored));
    std::puts(name.c_str());
    return 0;
}

}  // namespace

void add_collapse(CLI::App& group, Invocation& invocation) {
    auto* command = group.add_subcommand("collapse", "Make a snapshot of own pages whole");
    auto name = std::make_shared<std::string>();
    command->add_option("snapshot", *name, "Name of the snapshot")
        ->type_name(snapshot_value)
        ->required();
    command->footer(
        "For one made with `masu snapshot create --diff --own-pages`: it gets a memory file of\n"
        "its own, and needs the snapshots it builds on no longer.\n"
        "\n"
        "Example:\n"
        "  masu snapshot collapse web-tuesday");
    command->callback([name, &invocation] { invocation.run = [name] { return collapse(*name); }; });
}

}  // namespace masu::cli
