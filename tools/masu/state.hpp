// The state folder: one folder a VM, and who of them is alive.
//
// A VM's folder holds vm.json, console.log, monitor.log, exit.json (written by the monitor when it
// ends), `lock` and `watched`. The monitor inherits an flock on `lock` and so holds it exactly as
// long as it lives: whoever can take it knows that the monitor is gone. No pid is ever trusted
// without that. Folders come and go by one rename under the store's own lock, so nobody sees half
// a VM, and of two VMs started under one name at one moment one is refused.
#pragma once

#include <functional>
#include <optional>
#include <string>
#include <string_view>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "tools/masu/vm_record.hpp"

namespace masu::cli {

struct Places {
    std::string state;    // absolute
    std::string runtime;  // absolute; sockets
};

using Environment = std::function<std::optional<std::string>(const char* name)>;
[[nodiscard]] Environment process_environment();

// MASU_STATE_DIR, or $XDG_STATE_HOME/masu, ~/.local/state/masu, /var/lib/masu for root; and
// MASU_RUNTIME_DIR, or $XDG_RUNTIME_DIR/masu, /run/masu for root, else `run` in the state folder.
[[nodiscard]] Result<Places> find_places(const Environment& environment, bool root);

// Makes the folder and those above it, where they are not there yet.
[[nodiscard]] Result<> make_folder(const std::string& path);

// 1 to 63 letters, digits and '-', beginning with a letter or digit.
[[nodiscard]] Result<> check_vm_name(std::string_view name);

// 16 random hex digits.
[[nodiscard]] Result<std::string> random_id();

// One VM's folder. Cheap to copy; every question is answered from the disk.
class VmFolder {
  public:
    VmFolder(std::string path, std::string name) : path_(std::move(path)), name_(std::move(name)) {}

    [[nodiscard]] const std::string& name() const { return name_; }
    [[nodiscard]] std::string file(std::string_view entry) const;
    [[nodiscard]] std::string console_log() const { return file("console.log"); }
    [[nodiscard]] std::string monitor_log() const { return file("monitor.log"); }
    [[nodiscard]] std::string flow_log(const std::string& interface) const {
        return file("flow-" + interface + ".log");
    }
    [[nodiscard]] std::string exit_file() const { return file("exit.json"); }

    [[nodiscard]] Result<VmRecord> record() const;
    [[nodiscard]] Result<> write(const VmRecord& record) const;
    [[nodiscard]] bool has_exit_record() const;
    [[nodiscard]] Result<ExitRecord> exit_record() const;

    // Whether somebody holds `lock`: the monitor, or the command that is starting it.
    [[nodiscard]] Result<bool> alive() const;
    // Returns once nobody holds `lock`.
    [[nodiscard]] Result<> wait_until_dead() const;
    // A shared hold on `watched`: while somebody has one, --rm waits, so that the reader of the
    // exit record still finds it.
    [[nodiscard]] Result<Fd> watch() const;

  private:
    std::string path_;
    std::string name_;
};

class Store {
  public:
    explicit Store(Places places) : places_(std::move(places)) {}
    [[nodiscard]] const Places& places() const { return places_; }

    struct Created {
        VmFolder folder;
        Fd lock;  // exclusive; for the monitor to inherit
    };
    // Makes the VM's folder and socket folder, fills in id, created, socket_folder and the
    // vsock's path, and writes vm.json. Refused when a VM of that name exists, alive or not.
    [[nodiscard]] Result<Created> create(VmRecord& record);

    // Where the folder of a VM of that name is, or would be.
    [[nodiscard]] std::string folder_of(const std::string& name) const;
    [[nodiscard]] Result<VmFolder> find(const std::string& name) const;
    [[nodiscard]] Result<std::vector<VmFolder>> all() const;  // by name

    // Deletes the folder and the sockets of a VM whose monitor is dead; refused while it lives.
    // With `id`, only if the VM of that name is still that one. No error when it is gone already.
    [[nodiscard]] Result<> remove(const std::string& name, const std::string& id = {});

  private:
    [[nodiscard]] Result<Fd> take_store_lock() const;
    [[nodiscard]] Result<std::string> make_socket_folder(const std::string& id) const;
    [[nodiscard]] Result<> publish(const std::string& temporary, const std::string& name) const;
    [[nodiscard]] Result<Fd> fill(const std::string& temporary, VmRecord& record) const;
    void sweep() const;

    Places places_;
};

}  // namespace masu::cli
