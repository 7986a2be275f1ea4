// Files, locks, and who is alive.
#include "tools/masu/network_store.hpp"

#include <fcntl.h>
#include <sys/file.h>
#include <sys/random.h>
#include <unistd.h>

#include <algorithm>
#include <ctime>
#include <filesystem>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tools/masu/lock_file.hpp"

namespace masu::cli {
namespace {

namespace fs = std::filesystem;
constexpr std::size_t record_limit = 1 * MiB;

Result<std::uint64_t> random_bits() {
    std::uint64_t value = 0;
    if (::getrandom(&value, sizeof value, 0) != sizeof value)
        return fail_errno(errno, "cannot get random bytes");
    return value;
}

Result<> check_network_name(const std::string& name) {
    if (!check_vm_name(name))
        return fail(
            "\"{}\" is not a network's name: use 1 to 63 letters, digits and '-', beginning with "
            "a letter or digit",
            name);
    return {};
}

Result<NetworkRecord> new_network(const NetworkRequest& request,
                                  const std::vector<NetworkRecord>& others) {
    NetworkRecord network;
    network.name = request.name;
    network.id = TRY(random_id());
    network.created = std::time(nullptr);
    network.mtu = request.mtu;
    network.driver = request.driver;
    network.subnet =
        TRY(request.subnet.empty() ? free_subnet(others) : parse_subnet(request.subnet));
    const auto random = TRY(random_bits());
    // RFC 4193, 3.1: fd, 40 random bits, and subnet 0.
    if (request.subnet6.empty())
        network.subnet6 = net::Prefix{
            net::Address::v6(0xfd00'0000'0000'0000U | (random & 0xff'ffff'ffffU) << 16, 0), 64};
    else if (request.subnet6 != "none")
        network.subnet6 = TRY(parse_subnet6(request.subnet6));
    // 00 and 01 begin others' MACs: those of the monitor's services.
    network.mac_byte = static_cast<std::uint8_t>(2 + (random >> 40) % 254);
    return network;
}

}  // namespace

Result<Fd> NetworkStore::take_lock() const {
    TRY(make_folder(folder_));
    return lock_file(folder_ + "/.lock", LOCK_EX);
}

// In doubt it is: an address is better unused than used twice.
bool NetworkStore::is_alive(const Lease& lease) const {
    const auto folder = store_.find(lease.vm);
    if (!folder)
        return false;
    const auto record = folder->record();
    if (record && record->id != lease.vm_id)
        return false;
    const auto alive = folder->alive();
    return !alive || *alive;
}

Result<> NetworkStore::write(const NetworkRecord& network) const {
    return write_file_atomically(path_of(network.name),
                                 boost::json::serialize(to_json(network)) + "\n");
}

Result<NetworkRecord> NetworkStore::find(const std::string& name) const {
    TRY(check_network_name(name));
    const auto path = path_of(name);
    const auto text = read_file(path, record_limit);
    if (!text && text.error().os_errno == ENOENT)
        return fail(
            "there is no network {}; make it with `masu net create {}`, or see `masu net ls`", name,
            name);
    if (!text)
        return std::unexpected(text.error());
    auto network = TRY(parse_network_record(*text, path));
    std::erase_if(network.leases, [&](const Lease& lease) { return !is_alive(lease); });
    return network;
}

Result<std::vector<NetworkRecord>> NetworkStore::all() const {
    std::vector<NetworkRecord> networks;
    std::error_code error;
    for (const auto& entry : fs::directory_iterator(folder_, error)) {
        const auto& path = entry.path();
        if (path.extension() != ".json" || !check_network_name(path.stem().string()))
            continue;
        networks.push_back(TRY(find(path.stem().string())));
    }
    if (error && error != std::errc::no_such_file_or_directory)
        return fail("cannot read the folder {}: {}", folder_, error.message());
    std::ranges::sort(networks, {}, &NetworkRecord::name);
    return networks;
}

Result<NetworkRecord> NetworkStore::create(const NetworkRequest& request) const {
    TRY(check_network_name(request.name));
    const auto lock = TRY(take_lock());
    const auto others = TRY(all());
    if (std::ranges::find(others, request.name, &NetworkRecord::name) != others.end())
        return fail("there is a network {} already; `masu net inspect {}` shows it", request.name,
                    request.name);
    auto network = TRY(new_network(request, others));
    TRY(check_overlap(network, others));
    TRY(write(network));
    return network;
}

Result<> NetworkStore::change(const std::string& name,
                              const std::function<Result<>(NetworkRecord&)>& change) const {
    const auto lock = TRY(take_lock());
    auto network = TRY(find(name));
    TRY(change(network));
    return write(network);
}

Result<> NetworkStore::remove(const std::string& name,
                              const std::function<void(const NetworkRecord&)>& removed) const {
    const auto lock = TRY(take_lock());
    const auto network = TRY(find(name));
    if (!network.leases.empty())
        return fail(
            "network {} is in use by VM {}{}; end them first", name, network.leases.front().vm,
            network.leases.size() == 1 ? ""
                                       : fmt::format(" and {} more", network.leases.size() - 1));
    if (::unlink(path_of(name).c_str()) < 0)
        return fail_errno(errno, "cannot delete {}", path_of(name));
    ::unlink(log_of(name).c_str());
    removed(network);
    return {};
}

}  // namespace masu::cli
