// Hidden folders, locks and renames.
#include "tools/masu/image_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/stat.h>
#include <unistd.h>

#include <algorithm>
#include <cerrno>
#include <cstdlib>
#include <ctime>
#include <filesystem>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tools/masu/lock_file.hpp"
#include "tools/masu/snapshot_store.hpp"

namespace masu::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t record_limit = 1 * MiB;
constexpr std::size_t name_max = 63;
constexpr std::string_view making = ".new-";
constexpr std::string_view deleting = ".old-";

bool alphanumeric(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z') || (c >= '0' && c <= '9');
}

std::unexpected<Error> taken(const std::string& name) {
    return fail(
        "an image named {} exists already; choose another name, or delete it with `masu image rm "
        "{}`",
        name, name);
}

}  // namespace

Result<> check_image_name(std::string_view name) {
    const bool good = !name.empty() && name.size() <= name_max && alphanumeric(name.front()) &&
                      std::ranges::all_of(name, [](char c) {
                          return alphanumeric(c) || c == '-' || c == '_' || c == '.';
                      });
    if (!good)
        return fail(
            "\"{}\" is not an image name: use 1 to {} letters, digits, '-', '_' and '.', beginning "
            "with a letter or digit",
            name, name_max);
    return {};
}

std::string image_name_from(std::string_view path) {
    auto name = path.substr(path.rfind('/') + 1);
    for (bool cut = true; cut;) {
        cut = false;
        for (const std::string_view ending :
             {".xz", ".gz", ".zst", ".raw", ".img", ".qcow2", ".vmdk", ".vhd", ".vhdx", ".vdi"})
            if (name.size() > ending.size() && name.ends_with(ending)) {
                name.remove_suffix(ending.size());
                cut = true;
            }
    }
    return std::string(name);
}

NewImage::NewImage(NewImage&& other) noexcept
    : folder_(std::exchange(other.folder_, {})), lock_(std::move(other.lock_)) {}

NewImage::~NewImage() {
    std::error_code ignored;
    if (!folder_.empty())
        fs::remove_all(folder_, ignored);
}

std::string NewImage::file(std::string_view entry) const {
    return folder_ + "/" + std::string(entry);
}

std::string ImageStore::folder_of(const std::string& name) const {
    return folder() + "/" + name;
}

Result<Fd> ImageStore::lock(int operation) const {
    return lock_file(folder() + "/.lock", operation);
}

Result<Fd> ImageStore::hold() const {
    if (::access(folder().c_str(), F_OK) < 0)
        return Fd();
    return lock(LOCK_SH);
}

void ImageStore::sweep() const {
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder(), error)) {
        const auto name = entry.path().filename().string();
        std::error_code ignored;
        if (name.starts_with(deleting))
            fs::remove_all(entry.path(), ignored);
        if (!name.starts_with(making))
            continue;
        const Fd held(::open((entry.path() / "lock").c_str(), O_RDWR | O_CLOEXEC));
        // Without a lock it is a maker's that has only just begun, and holds the store.
        if (held && ::flock(held.get(), LOCK_EX | LOCK_NB) == 0)
            fs::remove_all(entry.path(), ignored);
    }
}

Result<> ImageStore::check_free(const std::string& name) const {
    TRY(check_image_name(name));
    if (exists(name))
        return taken(name);
    return {};
}

Result<NewImage> ImageStore::begin() {
    std::error_code error;
    fs::create_directories(folder(), error);
    if (error)
        return fail(
            "cannot make the folder {}: {}; set MASU_STATE_DIR to a folder this user may write",
            folder(), error.message());
    const auto held = TRY(lock(LOCK_EX));
    sweep();
    auto path = folder() + "/" + std::string(making) + "XXXXXX";
    if (::mkdtemp(path.data()) == nullptr)
        return fail_errno(errno, "cannot make a folder in {}", folder());
    NewImage image(path, Fd(::open((path + "/lock").c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600)));
    if (!image.lock_ || ::flock(image.lock_.get(), LOCK_EX | LOCK_NB) < 0)
        return fail_errno(errno, "cannot lock {}", path);
    return image;
}

Result<Image> ImageStore::publish(NewImage image, ImageRecord record) {
    std::error_code ignored;
    record.id = TRY(random_id());
    record.created = std::time(nullptr);
    for (const auto& entry : fs::directory_iterator(image.folder_, ignored))
        if (entry.path().filename() != "disk.raw" && entry.path().filename() != "lock")
            fs::remove_all(entry.path(), ignored);
    // Read by VMs, written by nobody.
    if (::chmod(image.disk().c_str(), 0444) < 0)
        return fail_errno(errno, "cannot set the mode of {}", image.disk());
    TRY(write_file_atomically(image.file("image.json"),
                              boost::json::serialize(to_json(record)) + "\n"));
    if (::chmod(image.folder_.c_str(), 0755) < 0)
        return fail_errno(errno, "cannot set the mode of {}", image.folder_);
    const auto held = TRY(lock(LOCK_EX));
    ::unlink(image.file("lock").c_str());
    // Takes the place of nothing: renaming over a folder that is not empty fails.
    if (::rename(image.folder_.c_str(), folder_of(record.name).c_str()) < 0) {
        if (errno == ENOTEMPTY || errno == EEXIST)
            return taken(record.name);
        return fail_errno(errno, "cannot make {}", folder_of(record.name));
    }
    image.folder_.clear();
    TRY(sync_folder(folder()));
    auto disk = folder_of(record.name) + "/disk.raw";
    return Image{std::move(record), std::move(disk)};
}

bool ImageStore::exists(const std::string& name) const {
    return check_image_name(name) && ::access(folder_of(name).c_str(), F_OK) == 0;
}

Result<Image> ImageStore::find(const std::string& name) const {
    TRY(check_image_name(name));
    if (!exists(name))
        return fail("there is no image named {}; `masu image ls` lists those there are", name);
    const auto path = folder_of(name) + "/image.json";
    auto record = parse_image_record(TRY(read_file(path, record_limit)));
    if (!record)
        return in_context(path, record.error());
    record->name = name;
    return Image{*std::move(record), folder_of(name) + "/disk.raw"};
}

Result<std::vector<std::string>> ImageStore::names() const {
    std::vector<std::string> found;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder(), error)) {
        const auto name = entry.path().filename().string();
        std::error_code ignored;
        if (check_image_name(name) && entry.is_directory(ignored))
            found.push_back(name);
    }
    if (error && error != std::errc::no_such_file_or_directory)
        return fail("cannot read the folder {}: {}", folder(), error.message());
    std::ranges::sort(found);
    return found;
}

Result<std::vector<std::string>> ImageStore::users(const std::string& name) const {
    std::vector<std::string> found;
    for (const auto& vm : TRY(Store(places_).all())) {
        const auto record = vm.record();
        if (record && record->image == name)
            found.push_back(vm.name());
    }
    return found;
}

Result<> ImageStore::remove(const std::string& name) {
    TRY(check_image_name(name));
    if (!exists(name))
        return fail("there is no image named {}; `masu image ls` lists those there are", name);
    const auto held = TRY(lock(LOCK_EX));
    if (const auto vms = TRY(users(name)); !vms.empty())
        return fail("image {} is in use by the VM {}{}; remove that first with `masu rm {}`", name,
                    vms.front(), vms.size() == 1 ? "" : fmt::format(" and {} more", vms.size() - 1),
                    vms.front());
    if (const auto saved = TRY(SnapshotStore(places_).of_image(name)); !saved.empty())
        return fail(
            "image {} is in use by the snapshot {}{}; remove that first with `masu snapshot rm {}`",
            name, saved.front(),
            saved.size() == 1 ? "" : fmt::format(" and {} more", saved.size() - 1), saved.front());
    auto hidden = folder() + "/" + std::string(deleting) + "XXXXXX";
    if (::mkdtemp(hidden.data()) == nullptr ||
        ::rename(folder_of(name).c_str(), hidden.c_str()) < 0)
        return fail_errno(errno, "cannot delete {}", folder_of(name));
    sweep();
    return {};
}

}  // namespace masu::cli
