// The file that holds security groups and prefix lists: read, locked, replaced whole.
#include <fcntl.h>
#include <sys/file.h>

#include <cerrno>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tools/masu/lock_file.hpp"
#include "tools/masu/security_groups.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

constexpr std::size_t document_limit = 64 * MiB;

}  // namespace

Result<GroupBook> GroupStore::read() const {
    const auto path = folder_ + "/security-groups.json";
    const auto text = read_file(path, document_limit);
    if (text)
        return GroupBook::parse(*text, path);
    if (text.error().os_errno != ENOENT)
        return std::unexpected(text.error());
    // The first reader makes the group "default", so that its id is the same for all.
    TRY(change([](GroupBook&) -> Result<> { return {}; }));
    return GroupBook::parse(TRY(read_file(path, document_limit)), path);
}

Result<Fd> GroupStore::take_lock() const {
    TRY(make_folder(folder_));
    return lock_file(folder_ + "/security-groups.lock", LOCK_EX);
}

Result<> GroupStore::publish(const std::function<Result<>(const GroupBook&)>& publish) const {
    const auto lock = TRY(take_lock());
    const auto path = folder_ + "/security-groups.json";
    const auto text = TRY(read_file(path, document_limit));
    return publish(TRY(GroupBook::parse(text, path)));
}

Result<> GroupStore::change(const std::function<Result<>(GroupBook&)>& change,
                            const std::function<Result<>(const GroupBook&)>& publish) const {
    const auto lock = TRY(take_lock());
    const auto path = folder_ + "/security-groups.json";
    const auto text = read_file(path, document_limit);
    if (!text && text.error().os_errno != ENOENT)
        return std::unexpected(text.error());
    auto book = TRY(text ? GroupBook::parse(*text, path) : GroupBook::initial());
    TRY(change(book));
    TRY(write_file_atomically(path, json::serialize(book.to_json()) + "\n"));
    return publish ? publish(book) : Result<>();
}

}  // namespace masu::cli
