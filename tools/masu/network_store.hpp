// The networks of this user: one file each in the state folder, changed by one command at a time.
//
// An address is a VM's for as long as its monitor lives: whoever reads a network sees the leases of
// living VMs only, since a dead one never comes back, and the next change drops the others.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/network_record.hpp"
#include "tools/masu/state.hpp"

namespace masu::cli {

struct NetworkRequest {
    std::string name;
    std::string subnet;   // empty: one that is free
    std::string subnet6;  // empty: a random one (RFC 4193); "none"
    std::uint64_t mtu = 0;
    NetworkRecord::Driver driver = NetworkRecord::Driver::Switch;
};

class NetworkStore {
  public:
    explicit NetworkStore(Store store)
        : store_(std::move(store)), folder_(store_.places().state + "/networks") {}

    [[nodiscard]] const Store& store() const { return store_; }

    [[nodiscard]] Result<NetworkRecord> create(const NetworkRequest& request) const;
    [[nodiscard]] Result<std::vector<NetworkRecord>> all() const;  // by name
    [[nodiscard]] Result<NetworkRecord> find(const std::string& name) const;

    // Under the lock: `change` gets the network without the leases of the dead, and what it made of
    // it replaces the file. When it fails, nothing is written.
    [[nodiscard]] Result<> change(const std::string& name,
                                  const std::function<Result<>(NetworkRecord&)>& change) const;
    // Deletes a network that no living VM is on, and calls `removed` while the lock is still held.
    [[nodiscard]] Result<> remove(const std::string& name,
                                  const std::function<void(const NetworkRecord&)>& removed) const;

    // What the switch of the network writes when something is wrong.
    [[nodiscard]] std::string log_of(const std::string& name) const {
        return folder_ + "/" + name + ".log";
    }

  private:
    [[nodiscard]] std::string path_of(const std::string& name) const {
        return folder_ + "/" + name + ".json";
    }
    [[nodiscard]] Result<Fd> take_lock() const;
    [[nodiscard]] bool is_alive(const Lease& lease) const;
    [[nodiscard]] Result<> write(const NetworkRecord& network) const;

    Store store_;
    std::string folder_;
};

}  // namespace masu::cli
