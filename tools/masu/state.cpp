// Locks, folders and names of the state folder.
#include "tools/masu/state.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <sys/stat.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <cstdlib>
#include <ctime>
#include <filesystem>
#include <tuple>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tools/masu/lock_file.hpp"

namespace masu::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t record_limit = 1 * MiB;
constexpr std::size_t name_max = 63;

// flock() that is not disturbed by signals. False: somebody else holds it (LOCK_NB only).
Result<bool> take_lock(int fd, int operation, const std::string& path) {
    while (::flock(fd, operation) < 0) {
        if (errno == EWOULDBLOCK)
            return false;
        if (errno != EINTR)
            return fail_errno(errno, "cannot lock {}", path);
    }
    return true;
}

Result<Fd> open_lock(const std::string& path, int flags) {
    Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC | flags, 0600));
    if (!fd)
        return fail_errno(errno, "cannot open {}", path);
    return fd;
}

// Only what a monitor and its page server put there, whatever vm.json says the folder is.
void remove_socket_folder(const std::string& folder) {
    if (folder.empty())
        return;
    ::unlink((folder + "/api").c_str());
    ::unlink((folder + "/console").c_str());
    ::unlink((folder + "/pages").c_str());
    // Its own, and those of whom the guest reaches by a port.
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder, error))
        if (entry.path().filename().string().starts_with("vsock") && entry.is_socket(error))
            ::unlink(entry.path().c_str());
    ::rmdir(folder.c_str());
}

}  // namespace

Result<std::string> random_id() {
    std::uint64_t value = 0;
    if (::getrandom(&value, sizeof value, 0) != sizeof value)
        return fail_errno(errno, "cannot get random bytes");
    return fmt::format("{:016x}", value);
}

Environment process_environment() {
    return [](const char* name) -> std::optional<std::string> {
        const char* value = std::getenv(name);
        return value == nullptr || *value == '\0' ? std::nullopt
                                                  : std::optional<std::string>(value);
    };
}

Result<Places> find_places(const Environment& environment, bool root) {
    Places places;
    const auto chosen_state = environment("MASU_STATE_DIR");
    if (chosen_state)
        places.state = *chosen_state;
    else if (const auto home = environment("XDG_STATE_HOME"))
        places.state = *home + "/masu";
    else if (root)
        places.state = "/var/lib/masu";
    else if (const auto user = environment("HOME"))
        places.state = *user + "/.local/state/masu";
    else
        return fail(
            "no place for state: neither HOME nor XDG_STATE_HOME is set; set one of them "
            "or MASU_STATE_DIR");
    const auto runtime = environment("XDG_RUNTIME_DIR");
    if (const auto chosen = environment("MASU_RUNTIME_DIR"))
        places.runtime = *chosen;
    else if (!chosen_state && runtime)
        places.runtime = *runtime + "/masu";
    else if (!chosen_state && root)
        places.runtime = "/run/masu";
    else
        places.runtime = places.state + "/run";
    places.state = fs::absolute(places.state).lexically_normal().string();
    places.runtime = fs::absolute(places.runtime).lexically_normal().string();
    return places;
}

Result<> make_folder(const std::string& path) {
    std::error_code error;
    fs::create_directories(path, error);
    if (error)
        return fail(
            "cannot make the folder {}: {}; set MASU_STATE_DIR or MASU_RUNTIME_DIR to a "
            "folder this user may write",
            path, error.message());
    return {};
}

Result<> check_vm_name(std::string_view name) {
    const auto alphanumeric = [](char c) {
        return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
    };
    const bool good =
        !name.empty() && name.size() <= name_max && alphanumeric(name.front()) &&
        std::ranges::all_of(name, [&](char c) { return alphanumeric(c) || c == '-'; });
    if (!good)
        return fail(
            "\"{}\" is not a VM name: use 1 to {} letters, digits and '-', beginning with "
            "a letter or digit",
            name, name_max);
    return {};
}

std::string VmFolder::file(std::string_view entry) const {
    return path_ + "/" + std::string(entry);
}

Result<VmRecord> VmFolder::record() const {
    const auto path = file("vm.json");
    const auto text = TRY(read_file(path, record_limit));
    auto record = parse_vm_record(text);
    if (!record)
        return in_context(path, record.error());
    return record;
}

Result<> VmFolder::write(const VmRecord& record) const {
    return write_file_atomically(file("vm.json"), boost::json::serialize(to_json(record)) + "\n");
}

bool VmFolder::has_exit_record() const {
    return ::access(exit_file().c_str(), F_OK) == 0;
}

Result<ExitRecord> VmFolder::exit_record() const {
    const auto text = TRY(read_file(exit_file(), record_limit));
    auto record = parse_exit_record(text);
    if (!record)
        return in_context(exit_file(), record.error());
    return record;
}

Result<bool> VmFolder::alive() const {
    const auto path = file("lock");
    const auto fd = TRY(open_lock(path, 0));
    // Shared, so that two who ask at once do not take each other for a monitor.
    return !TRY(take_lock(fd.get(), LOCK_SH | LOCK_NB, path));
}

Result<> VmFolder::wait_until_dead() const {
    const auto path = file("lock");
    const auto fd = TRY(open_lock(path, 0));
    std::ignore = TRY(take_lock(fd.get(), LOCK_SH, path));
    return {};
}

Result<Fd> VmFolder::watch() const {
    return lock_file(file("watched"), LOCK_SH);
}

std::string Store::folder_of(const std::string& name) const {
    return places_.state + "/vms/" + name;
}

Result<Fd> Store::take_store_lock() const {
    return lock_file(places_.state + "/vms/.lock", LOCK_EX);
}

Result<std::string> Store::make_socket_folder(const std::string& id) const {
    constexpr std::size_t longest_entry = sizeof("/vsock_4294967295");
    auto folder = places_.runtime + "/" + id;
    if (folder.size() + longest_entry <= sizeof(sockaddr_un::sun_path)) {
        TRY(make_folder(places_.runtime));
        if (::mkdir(folder.c_str(), 0700) < 0)
            return fail_errno(errno, "cannot make the folder {}", folder);
        return folder;
    }
    // A socket's path is limited to 107 bytes.
    std::string shorter = "/tmp/masu-XXXXXX";
    if (::mkdtemp(shorter.data()) == nullptr)
        return fail_errno(errno, "{} is too long for sockets, and /tmp cannot be used", folder);
    return shorter;
}

// Takes the place of nothing: renaming over a folder that is not empty fails, and ours never are.
Result<> Store::publish(const std::string& temporary, const std::string& name) const {
    const auto lock = TRY(take_store_lock());
    if (::rename(temporary.c_str(), folder_of(name).c_str()) == 0)
        return {};
    if (errno != ENOTEMPTY && errno != EEXIST)
        return fail_errno(errno, "cannot make the folder {}", folder_of(name));
    const auto alive = VmFolder(folder_of(name), name).alive();
    if (alive && *alive)
        return fail(
            "a VM named {} is running already; choose another --name, or end it with "
            "`masu stop {}`",
            name, name);
    return fail(
        "a VM named {} exists already (it is stopped); choose another --name, or delete it "
        "with `masu rm {}`",
        name, name);
}

// Everything a VM's folder holds before anybody else may see it.
Result<Fd> Store::fill(const std::string& temporary, VmRecord& record) const {
    const auto path = temporary + "/lock";
    auto lock = TRY(open_lock(path, O_CREAT | O_EXCL));
    std::ignore = TRY(take_lock(lock.get(), LOCK_EX, path));
    record.id = TRY(random_id());
    record.created = std::time(nullptr);
    record.socket_folder = TRY(make_socket_folder(record.id));
    if (record.vsock && record.vsock->path.empty())
        record.vsock->path = record.socket_folder + "/vsock";
    TRY(VmFolder(temporary, record.name).write(record));
    return lock;
}

Result<Store::Created> Store::create(VmRecord& record) {
    TRY(check_vm_name(record.name));
    TRY(make_folder(places_.state + "/vms"));
    sweep();
    auto temporary = places_.state + "/vms/.new-XXXXXX";
    if (::mkdtemp(temporary.data()) == nullptr)
        return fail_errno(errno, "cannot make a folder in {}/vms", places_.state);
    auto lock = fill(temporary, record);
    auto published = lock ? publish(temporary, record.name) : std::unexpected(lock.error());
    if (!published) {
        std::error_code ignored;
        fs::remove_all(temporary, ignored);
        remove_socket_folder(record.socket_folder);
        return std::unexpected(published.error());
    }
    return Created{VmFolder(folder_of(record.name), record.name), *std::move(lock)};
}

// Clears up after commands that were killed between making and publishing a folder, or between
// hiding and deleting one.
void Store::sweep() const {
    std::error_code error;
    const auto long_ago = fs::file_time_type::clock::now() - std::chrono::minutes(1);
    for (const auto& entry : fs::directory_iterator(places_.state + "/vms", error)) {
        const auto name = entry.path().filename().string();
        std::error_code gone;
        if (!name.starts_with(".new-") && !name.starts_with(".old-"))
            continue;
        if (entry.last_write_time(gone) > long_ago || gone)
            continue;
        const auto alive = VmFolder(entry.path().string(), name).alive();
        if (!alive || !*alive)
            fs::remove_all(entry.path(), gone);
    }
}

Result<VmFolder> Store::find(const std::string& name) const {
    TRY(check_vm_name(name));
    VmFolder folder(folder_of(name), name);
    if (::access(folder.file("lock").c_str(), F_OK) < 0)
        return fail("there is no VM named {}; `masu ps -a` lists those there are", name);
    return folder;
}

Result<std::vector<VmFolder>> Store::all() const {
    std::vector<VmFolder> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(places_.state + "/vms", error)) {
        const auto name = entry.path().filename().string();
        std::error_code ignored;
        if (check_vm_name(name) && entry.is_directory(ignored))
            found.emplace_back(entry.path().string(), name);
    }
    if (error && error != std::errc::no_such_file_or_directory)
        return fail("cannot read the folder {}/vms: {}", places_.state, error.message());
    std::ranges::sort(found, {}, &VmFolder::name);
    return found;
}

Result<> Store::remove(const std::string& name, const std::string& id) {
    const VmFolder folder(folder_of(name), name);
    const auto lock = TRY(take_store_lock());
    if (::access(folder_of(name).c_str(), F_OK) < 0)
        return {};
    const auto record = folder.record();
    if (!id.empty() && (!record || record->id != id))
        return {};
    const auto alive = folder.alive();
    if (alive && *alive)
        return fail("{} is running; stop it first with `masu stop {}`, or use `masu rm -f {}`",
                    name, name, name);
    auto hidden = places_.state + "/vms/.old-XXXXXX";
    if (::mkdtemp(hidden.data()) == nullptr ||
        ::rename(folder_of(name).c_str(), hidden.c_str()) < 0)
        return fail_errno(errno, "cannot delete {}", folder_of(name));
    std::error_code error;
    if (record)
        remove_socket_folder(record->socket_folder);
    fs::remove_all(hidden, error);
    if (error)
        return fail("cannot delete {}: {}", hidden, error.message());
    return {};
}

}  // namespace masu::cli
