#include "firmware/fs/file_system.hpp"

#include <algorithm>
#include <array>

namespace masu::firmware {

namespace {

constexpr int max_links = 40;
constexpr std::size_t max_path = 4096;
constexpr int max_components = 4096;

// What is left of a path, where a symbolic link's target can be put in front.
class PendingPath {
  public:
    explicit PendingPath(std::string_view path) noexcept { fits_ = put_in_front(path); }
    [[nodiscard]] bool fits() const noexcept { return fits_; }
    [[nodiscard]] bool absolute() const noexcept {
        return start_ < bytes_.size() && bytes_[start_] == '/';
    }

    // Empty at the end. Valid until put_in_front().
    [[nodiscard]] std::string_view next() noexcept {
        skip_slashes();
        const std::size_t from = start_;
        while (start_ < bytes_.size() && bytes_[start_] != '/')
            ++start_;
        const std::string_view name(bytes_.data() + from, start_ - from);
        skip_slashes();
        return name;
    }
    [[nodiscard]] bool done() const noexcept { return start_ == bytes_.size(); }

    bool put_in_front(std::string_view text) noexcept {
        const std::size_t needed = text.size() + (done() ? 0 : 1);
        if (needed > start_)
            return false;
        if (!done())
            bytes_[--start_] = '/';
        start_ -= text.size();
        std::ranges::copy(text, bytes_.data() + start_);
        return true;
    }

  private:
    void skip_slashes() noexcept {
        while (start_ < bytes_.size() && bytes_[start_] == '/')
            ++start_;
    }
    std::array<char, max_path> bytes_;
    std::size_t start_ = max_path;
    bool fits_ = false;
};

}  // namespace

Result<Node> FileSystem::walk(std::string_view path, Node at, bool follow_last) noexcept {
    PendingPath pending(path);
    if (!pending.fits())
        return fail(ErrorCode::TooLarge, "the path is longer than 4096 bytes");
    if (pending.absolute())
        at = root();
    int links = 0;
    std::array<char, max_path> target;
    for (int i = 0; i < max_components; ++i) {
        const auto name = pending.next();
        if (name.empty())
            return at;
        if (name == ".")
            continue;
        const bool last = pending.done();
        if (name == ".." && at.id == root().id)
            continue;
        const Node found = TRY(lookup(at, name));
        const FileInfo info = TRY(stat(found));
        if (info.type != FileType::SymbolicLink || (last && !follow_last)) {
            if (!last && info.type != FileType::Directory)
                return fail(ErrorCode::NotDirectory, "the path goes through a file");
            at = found;
            continue;
        }
        if (++links > max_links)
            return fail(ErrorCode::Loop, "the path has more than 40 symbolic links");
        const std::size_t size = TRY(read_link(found, target));
        if (!pending.put_in_front({target.data(), size}))
            return fail(ErrorCode::TooLarge, "symbolic links make the path longer than 4096 bytes");
        if (pending.absolute())
            at = root();
    }
    return fail(ErrorCode::Loop, "the path has more than 4096 names");
}

Result<Node> FileSystem::open(std::string_view path, const Node& from) noexcept {
    return walk(path, from, true);
}

Result<Node> FileSystem::open_no_follow(std::string_view path) noexcept {
    return walk(path, root(), false);
}

Result<FileSystem*> mount(BlockReader& reader, Arena& arena) noexcept {
    // FAT last: its superblock has the least to know it by.
    for (auto* const one : {mount_ext4, mount_xfs, mount_fat}) {
        auto mounted = one(reader, arena);
        if (mounted || mounted.error().code != ErrorCode::NotFound)
            return mounted;
    }
    return fail(ErrorCode::NotFound, "no FAT, ext2/3/4 or xfs file system");
}

}  // namespace masu::firmware
