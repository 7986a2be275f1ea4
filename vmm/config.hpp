// What a VM is made of, as the API and the config file state it. Plain data; validated on entry.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

#include "devices/net/metadata/instance.hpp"

namespace masu {

inline constexpr unsigned max_vcpus = 32;

// size tokens are added over each refill_time_ms; one_time_burst is spent first and never refills.
// size 0 or refill_time_ms 0: no limit.
struct TokenBucketConfig {
    std::uint64_t size = 0;
    std::uint64_t refill_time_ms = 0;
    std::uint64_t one_time_burst = 0;
    bool operator==(const TokenBucketConfig&) const = default;
};

struct RateLimiterConfig {
    std::optional<TokenBucketConfig> bandwidth;  // bytes
    std::optional<TokenBucketConfig> ops;        // requests
    bool operator==(const RateLimiterConfig&) const = default;
};

// Which CPU the guest is shown: what the host has, or what every CPU of a psABI level has. In
// ascending order.
enum class CpuTemplate { Host, X86_64_v2, X86_64_v3, X86_64_v4 };

enum class HugePages { None, Transparent, Explicit2M };

struct MachineConfig {
    unsigned vcpu_count = 1;
    std::uint64_t mem_size_mib = 128;
    bool smt = false;
    bool track_dirty_pages = false;
    HugePages huge_pages = HugePages::None;
    CpuTemplate cpu_template = CpuTemplate::Host;
};

// A kernel of the host's, or (ours, beyond the reference API) Masu's firmware, which boots what the
// drives hold.
struct BootSource {
    std::string kernel_image_path;  // empty: with firmware only
    std::optional<std::string> initrd_path;
    std::optional<std::string> boot_args;  // absent: default_boot_args; none with firmware, where
                                           // they are the boot loader's command line
    bool firmware = false;
    bool boot_menu = false;    // the firmware waits a moment for a key
    unsigned boot_device = 0;  // the only drive to boot from, counting from 1; 0: each in turn
};

inline constexpr const char* default_boot_args = "console=ttyS0 reboot=k panic=-1 8250.nr_uarts=1";

enum class CacheType { Unsafe, Writeback };
enum class IoEngine { Sync, Async };

struct DriveConfig {
    std::string drive_id;
    bool is_root_device = false;
    std::optional<std::string> partuuid;
    std::string path_on_host;
    bool is_read_only = false;
    CacheType cache_type = CacheType::Writeback;
    IoEngine io_engine = IoEngine::Async;
    RateLimiterConfig rate_limiter;
    // Ours, beyond the reference API:
    std::optional<std::string> overlay_path;    // copy-on-write overlay; path_on_host is its base
    std::optional<std::uint64_t> overlay_size;  // of the disk a new overlay makes, bytes
    bool overlay_dies_with_vm = false;          // a new one need not survive a crash of the host
    std::optional<std::string> serial;          // VIRTIO_BLK_T_GET_ID, up to 20 bytes
    bool direct = false;                        // O_DIRECT
};

struct EntropyConfig {
    RateLimiterConfig rate_limiter;
};

// A socket device: its host side are Unix sockets at uds_path (see vmm/vsock_host.hpp).
struct VsockConfig {
    std::uint32_t guest_cid = 3;
    std::string uds_path;
};

// What the monitor tells the guest about its network (DHCP, router advertisements), and answers
// for.
struct GuestNetworkConfig {
    std::string address;                  // "172.31.0.10/20"
    std::optional<std::string> gateway;   // in the same subnet
    bool local_gateway = false;           // the monitor answers ARP and ping for the gateway
    std::vector<std::string> dns;         // up to 3 addresses
    std::optional<std::string> address6;  // "fd00:6d61:7375::10/64"
    std::optional<std::string> gateway6;  // link-local, as routers are
    bool local_gateway6 = false;
    // Other VMs are on the link. The guest may use `address6` only, not its whole prefix, and
    // router advertisements name no default router.
    bool shared_link = false;
    std::optional<std::string> hostname;
    bool operator==(const GuestNetworkConfig&) const = default;
};

struct NetworkInterfaceConfig {
    std::string iface_id;
    std::string host_dev_name;             // a TAP; empty where a descriptor is given
    std::optional<std::string> guest_mac;  // absent: one is made up
    std::optional<std::uint16_t> mtu;
    RateLimiterConfig rx_rate_limiter;
    RateLimiterConfig tx_rate_limiter;
    // Ours, beyond the reference API. Descriptors are inherited by the monitor's process.
    std::vector<int> tap_fds;     // one per queue
    std::optional<int> passt_fd;  // a connected stream socket that speaks passt's framing
    // What the network knows the interface by, where that is not the guest's own MAC: of a guest
    // that was copied, and has the MAC it booted with in its memory.
    std::optional<std::string> network_mac;
    std::optional<GuestNetworkConfig> guest_network;
    // Nothing passes before security groups are set. Without, all passes until then.
    bool firewall = false;
};

// The reference API's metadata service: a JSON document, served as it is.
struct MmdsConfig {
    std::vector<std::string> network_interfaces;
    bool version2 = false;
    std::string ipv4_address = "169.254.169.254";
    bool imds_compat = false;
};

// Our own metadata service, which looks like EC2's.
struct InstanceMetadataConfig {
    std::vector<std::string> network_interfaces;
    bool tokens_required = true;
    unsigned hop_limit = 2;          // 1 to 64
    net::InstanceMetadata instance;  // its interfaces are filled in by the monitor
};

enum class Transport { Pci, Mmio };

// One VM. Drives and interfaces in attach order (root device first).
struct VmConfig {
    std::string id = "anonymous-instance";
    MachineConfig machine;
    std::optional<BootSource> boot_source;
    std::vector<DriveConfig> drives;
    std::vector<NetworkInterfaceConfig> network_interfaces;
    std::optional<MmdsConfig> mmds;
    std::optional<InstanceMetadataConfig> metadata;
    std::optional<EntropyConfig> entropy;
    std::optional<VsockConfig> vsock;
    Transport transport = Transport::Pci;
};

}  // namespace masu
