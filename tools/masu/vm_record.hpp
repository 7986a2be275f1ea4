// What a VM was asked to be, and where its monitor is: the content of vm.json and exit.json.
#pragma once

#include <sys/types.h>

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "base/result.hpp"
#include "tools/masu/disk_option.hpp"
#include "tools/masu/firewall_settings.hpp"
#include "tools/masu/net_option.hpp"
#include "tools/masu/passt_process.hpp"
#include "tools/masu/vsock_option.hpp"

namespace masu::cli {

struct VmRecord {
    std::string name;
    std::string id;            // 16 hex digits; tells two VMs apart that had one name in turn
    std::int64_t created = 0;  // Unix time, seconds
    pid_t pid = 0;        // the monitor; 0 until it was started. Means nothing without the lock
    std::string monitor;  // path of masu-vmm
    std::string socket_folder;  // holds the VM's sockets, and nothing else
    std::string type;           // instance type, or empty
    unsigned cpus = 1;
    std::uint64_t memory_mib = 512;
    std::string kernel;
    std::optional<std::string> initrd;
    std::string boot_args;
    std::string image;  // the imported image under the first disk's overlay, or empty
    std::vector<DiskOption> disks;
    std::vector<NetOption> nets;
    std::vector<PublishedPort> ports;
    std::vector<std::string> security_groups;  // ids
    FirewallSettings firewall;
    std::string account_id;  // in metadata and flow logs; empty: none was given
    std::optional<VsockOption> vsock;
    std::string transport = "pci";
    bool reboot = true;   // a guest's reboot starts it again
    bool remove = false;  // --rm
    bool boot_timer = false;
    bool jail = false;  // its monitor is confined
    // What it may use beyond what the VM is made of; absolute.
    std::vector<std::string> jail_read;
    std::vector<std::string> jail_write;
    std::string snapshot;        // it was restored or cloned from this one; or empty
    unsigned stop_timeout = 30;  // seconds between power button and kill

    [[nodiscard]] std::string api_socket() const { return socket_folder + "/api"; }
    [[nodiscard]] std::string console_socket() const { return socket_folder + "/console"; }
    // Where its page server waits for the monitor; gone once they have met.
    [[nodiscard]] std::string pages_socket() const { return socket_folder + "/pages"; }
};

// What the VM is called in its metadata.
[[nodiscard]] std::string instance_id_of(const VmRecord& record);

[[nodiscard]] boost::json::object to_json(const VmRecord& record);
[[nodiscard]] Result<VmRecord> parse_vm_record(const std::string& text);

// How a monitor ended, in its own words (exit.json).
struct ExitRecord {
    int status = 0;
    std::string kind;
    std::string reason;
    std::string wall_time;
};

[[nodiscard]] Result<ExitRecord> parse_exit_record(const std::string& text);

}  // namespace masu::cli
