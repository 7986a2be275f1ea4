// What a VM is made of, as the API and the config file state it. Plain data; validated on entry.
#pragma once

#include <cstdint>
#include <optional>
#include <string>
#include <vector>

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

enum class HugePages { None, Transparent, Explicit2M };

struct MachineConfig {
    unsigned vcpu_count = 1;
    std::uint64_t mem_size_mib = 128;
    bool smt = false;
    bool track_dirty_pages = false;
    HugePages huge_pages = HugePages::None;
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
    std::optional<std::string> serial;          // VIRTIO_BLK_T_GET_ID, up to 20 bytes
    bool direct = false;                        // O_DIRECT
};

struct EntropyConfig {
    RateLimiterConfig rate_limiter;
};

enum class Transport { Pci, Mmio };

// One VM. Drives in attach order (root device first).
struct VmConfig {
    std::string id = "anonymous-instance";
    MachineConfig machine;
    std::optional<BootSource> boot_source;
    std::vector<DriveConfig> drives;
    std::optional<EntropyConfig> entropy;
    Transport transport = Transport::Pci;
};

}  // namespace masu
