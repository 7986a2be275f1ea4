// The bodies of /snapshot/create and /snapshot/load: the reference API's fields, and ours.
#include <array>
#include <tuple>

#include "base/bytes.hpp"
#include "vmm/api/bodies.hpp"
#include "vmm/api/network_bodies.hpp"
#include "vmm/snapshot/save.hpp"

namespace masu::api {

namespace {

constexpr std::size_t max_metadata = 32 * KiB;
constexpr std::uint64_t max_record_ms = 600'000;

enum class Backend { File, Uffd };
constexpr std::array<std::pair<std::string_view, Backend>, 2> backend_words{
    {{"File", Backend::File}, {"Uffd", Backend::Uffd}}};

// Where the pages of memory come from. With a directory, which has a memory file of its own, it may
// be left out.
void read_memory_backend(JsonObject& body, action::LoadSnapshot& load) {
    auto old_form = body.string("mem_file_path");
    auto backend = body.object("mem_backend");
    if (old_form && backend)
        body.complain("mem_backend", "or mem_file_path may be given, and not both");
    else if (!old_form && !backend && load.directory.empty())
        body.complain("mem_backend", "or mem_file_path must be given");
    if (old_form)
        load.memory_path = *old_form;
    if (!backend)
        return;
    const auto path = backend->required_string("backend_path");
    const auto type = backend->choice<Backend>("backend_type", backend_words);
    if (!type)
        backend->complain("backend_type", "is missing");
    (type == Backend::Uffd ? load.memory_handler : load.memory_path) = path;
    if (const auto read = backend->finish(); !read)
        body.complain("mem_backend", read.error().message);
}

action::LoadSnapshot::Drive read_drive_change(JsonObject& body) {
    return {.drive_id = body.required_string("drive_id"),
            .path_on_host = body.string("path_on_host"),
            .overlay_path = body.string("overlay_path")};
}

constexpr std::uint64_t max_descriptor = 1 << 20;

Result<action::LoadSnapshot::Interface> read_interface_change(JsonObject& body) {
    action::LoadSnapshot::Interface change;
    change.iface_id = body.required_string("iface_id");
    change.host_dev_name = body.string("host_dev_name").value_or("");
    for (const auto number : body.integers("tap_fds", max_descriptor))
        change.tap_fds.push_back(static_cast<int>(number));
    if (const auto number = body.integer("passt_fd", max_descriptor))
        change.passt_fd = static_cast<int>(*number);
    change.network_mac = body.string("network_mac");
    change.guest_network = TRY(read_guest_network(body));
    TRY(body.finish());
    return change;
}

Result<std::optional<action::LoadSnapshot::Identity>> read_identity(JsonObject& owner) {
    auto body = owner.object("identity");
    if (!body)
        return std::optional<action::LoadSnapshot::Identity>();
    action::LoadSnapshot::Identity identity{.instance_id = body->required_string("instance_id"),
                                            .hostname = body->required_string("hostname")};
    TRY(body->finish());
    return std::optional(std::move(identity));
}

}  // namespace

Result<action::CreateSnapshot> read_snapshot_create(JsonObject& body) {
    action::CreateSnapshot create;
    create.directory = body.string("directory");
    if (create.directory) {
        create.metadata = body.string("metadata", max_metadata).value_or("");
    } else {
        create.state_path = body.required_string("snapshot_path");
        create.memory_path = body.required_string("mem_file_path");
    }
    static constexpr std::array<std::pair<std::string_view, bool>, 2> types{
        {{"Full", false}, {"Diff", true}}};
    create.diff = body.choice<bool>("snapshot_type", types).value_or(false);
    create.live = body.boolean("live").value_or(false);
    create.own_pages = body.boolean("own_pages").value_or(false);
    if (create.own_pages && !create.diff)
        body.complain("own_pages", "goes with snapshot_type Diff only");
    for (const auto& [key, given] :
         {std::pair{"live", create.live}, std::pair{"own_pages", create.own_pages}})
        if (given && !create.directory)
            body.complain(key, "needs a directory");
    TRY(body.finish());
    return create;
}

Result<action::LoadSnapshot> read_snapshot_load(JsonObject& body) {
    action::LoadSnapshot load;
    if (const auto directory = body.string("directory")) {
        load.state_path = fmt::format("{}/{}", *directory, snapshot::state_name);
        load.memory_path = fmt::format("{}/{}", *directory, snapshot::memory_name);
        load.directory = *directory;
    } else {
        load.state_path = body.required_string("snapshot_path");
    }
    read_memory_backend(body, load);
    load.resume = body.boolean("resume_vm").value_or(false);
    const auto old_name = body.boolean("enable_diff_snapshots").value_or(false);
    load.track_dirty_pages = body.boolean("track_dirty_pages").value_or(false) || old_name;
    load.clock_realtime = body.boolean("clock_realtime").value_or(false);
    load.use_working_set = body.boolean("working_set").value_or(true);
    load.record_working_set_ms = body.integer("record_working_set_ms", max_record_ms);
    if (load.record_working_set_ms && load.directory.empty())
        body.complain("record_working_set_ms", "needs a directory");
    for (auto& drive : body.objects("drives")) {
        load.drives.push_back(read_drive_change(drive));
        TRY(drive.finish());
    }
    load.overlay_folder = body.string("overlay_folder");
    if (load.overlay_folder && load.directory.empty())
        body.complain("overlay_folder", "needs a directory");
    for (auto& interface : body.objects("network_overrides"))
        load.interfaces.push_back(TRY(read_interface_change(interface)));
    if (auto vsock = body.object("vsock_override")) {
        load.uds_path = vsock->required_string("uds_path");
        TRY(vsock->finish());
    }
    load.identity = TRY(read_identity(body));
    body.expect_nothing("huge_pages", "is not supported by this version of Masu");
    TRY(body.finish());
    return load;
}

void write(JsonWriter& json, const snapshot::SaveProgress& progress) {
    json.begin_object().field("state", to_string(progress.state));
    if (progress.state != snapshot::SaveState::None) {
        json.field("memory_form", to_string(progress.form))
            .field("live", progress.live)
            .field("memory_written_bytes", progress.memory_written);
        if (progress.live)
            json.field("rounds", progress.rounds)
                .field("last_round_pages", progress.last_round_pages);
    }
    if (progress.state == snapshot::SaveState::Done) {
        json.field("memory_stored_bytes", progress.memory_stored)
            .field("took_us", progress.took / 1000);
        if (progress.live)
            json.field("pause_us", progress.pause / 1000);
    }
    if (!progress.error.empty())
        json.field("error", progress.error);
    json.end_object();
}

}  // namespace masu::api
