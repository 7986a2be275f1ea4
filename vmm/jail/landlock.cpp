// landlock_create_ruleset(2), landlock_add_rule(2), landlock_restrict_self(2).
#include "vmm/jail/landlock.hpp"

#include <dirent.h>
#include <fcntl.h>
#include <linux/landlock.h>
#include <sys/stat.h>
#include <sys/syscall.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cerrno>
#include <memory>
#include <string_view>

#include "base/atomic_file.hpp"

namespace masu::jail {
namespace {

// Newer than Debian 12's kernel headers.
constexpr std::uint64_t truncate_file = 1U << 14;      // ABI 3
constexpr std::uint64_t ioctl_device = 1U << 15;       // ABI 5
constexpr std::uint64_t tcp_bind_connect = 0b11;       // ABI 4
constexpr std::uint64_t scope_sockets_signals = 0b11;  // ABI 6

struct RulesetAttributes {
    std::uint64_t handled_access_fs = 0;
    std::uint64_t handled_access_net = 0;
    std::uint64_t scoped = 0;
};

constexpr std::uint64_t read_access = LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_READ_DIR;
constexpr std::uint64_t make_and_remove =
    LANDLOCK_ACCESS_FS_MAKE_REG | LANDLOCK_ACCESS_FS_MAKE_DIR | LANDLOCK_ACCESS_FS_MAKE_SOCK |
    LANDLOCK_ACCESS_FS_REMOVE_FILE | LANDLOCK_ACCESS_FS_REMOVE_DIR;
constexpr std::uint64_t write_access =
    read_access | LANDLOCK_ACCESS_FS_WRITE_FILE | truncate_file | make_and_remove | ioctl_device;
constexpr std::uint64_t make_sockets =
    LANDLOCK_ACCESS_FS_MAKE_SOCK | LANDLOCK_ACCESS_FS_REMOVE_FILE;
// Of these a rule for what is no folder may speak.
constexpr std::uint64_t file_access =
    LANDLOCK_ACCESS_FS_READ_FILE | LANDLOCK_ACCESS_FS_WRITE_FILE | truncate_file | ioctl_device;
// Never allowed anywhere, and therefore only handled.
constexpr std::uint64_t never = LANDLOCK_ACCESS_FS_EXECUTE | LANDLOCK_ACCESS_FS_MAKE_CHAR |
                                LANDLOCK_ACCESS_FS_MAKE_BLOCK | LANDLOCK_ACCESS_FS_MAKE_FIFO |
                                LANDLOCK_ACCESS_FS_MAKE_SYM;

// The operating system's own, at the root of the file system.
constexpr std::array<std::string_view, 9> system_folders{"bin",   "boot",   "etc",  "lib", "lib32",
                                                         "lib64", "libx32", "sbin", "usr"};

std::uint64_t known_to(int abi) noexcept {
    auto access = write_access | never;
    if (abi < 3)
        access &= ~truncate_file;
    if (abi < 5)
        access &= ~ioctl_device;
    return access;
}

class Ruleset {
  public:
    static Result<Ruleset> create(int abi) {
        Ruleset ruleset;
        ruleset.handled_ = known_to(abi);
        const RulesetAttributes attributes{.handled_access_fs = ruleset.handled_,
                                           .handled_access_net = abi >= 4 ? tcp_bind_connect : 0,
                                           .scoped = abi >= 6 ? scope_sockets_signals : 0};
        ruleset.fd_.reset(static_cast<int>(
            ::syscall(SYS_landlock_create_ruleset, &attributes, sizeof attributes, 0U)));
        if (!ruleset.fd_)
            return fail_errno(errno, "the kernel makes no Landlock rules");
        return ruleset;
    }

    // What `path` leads to, and, of a folder, all below.
    Result<> allow(const Fd& target, const std::string& path, std::uint64_t access) const {
        struct stat status{};
        if (::fstat(target.get(), &status) < 0)
            return fail_errno(errno, "cannot look at {}", path);
        if (S_ISBLK(status.st_mode))
            access |= ioctl_device;  // a disk is asked for its size so
        if (!S_ISDIR(status.st_mode))
            access &= file_access;
        const landlock_path_beneath_attr rule{.allowed_access = access & handled_,
                                              .parent_fd = target.get()};
        if (::syscall(SYS_landlock_add_rule, fd_.get(), LANDLOCK_RULE_PATH_BENEATH, &rule, 0U) < 0)
            return fail_errno(errno, "the kernel takes no Landlock rule for {}", path);
        return {};
    }

    Result<> allow(const std::string& path, std::uint64_t access) const {
        const Fd target(::open(path.c_str(), O_PATH | O_CLOEXEC));
        if (!target)
            return fail_errno(errno, "cannot let the monitor use {}", path);
        return allow(target, path, access);
    }

    Result<> allow_if_there(const std::string& path, std::uint64_t access) const {
        const Fd target(::open(path.c_str(), O_PATH | O_CLOEXEC));
        return target ? allow(target, path, access) : Result<>();
    }

    Result<> enter() const {
        if (::syscall(SYS_landlock_restrict_self, fd_.get(), 0U) < 0)
            return fail_errno(errno, "the Landlock rules cannot be put into force");
        return {};
    }

  private:
    Fd fd_;
    std::uint64_t handled_ = 0;
};

Result<> allow_devices(const Ruleset& ruleset) {
    for (const auto* device : {"/dev/kvm", "/dev/net/tun", "/dev/null"})
        TRY(ruleset.allow_if_there(device, write_access));
    return ruleset.allow_if_there("/proc/cpuinfo", read_access);  // why there is no KVM
}

// All that stands at the root, but for other processes. Symbolic links lead to what has a rule of
// its own.
Result<> allow_like_any_program(const Ruleset& ruleset) {
    const std::unique_ptr<DIR, int (*)(DIR*)> root(::opendir("/"), &::closedir);
    if (root == nullptr)
        return fail_errno(errno, "cannot look into the root folder");
    while (const auto* entry = ::readdir(root.get())) {
        const std::string_view name = entry->d_name;
        if (name == "." || name == ".." || name == "proc" || entry->d_type == DT_LNK)
            continue;
        const bool read_only =
            name == "sys" || std::ranges::find(system_folders, name) != system_folders.end();
        TRY(ruleset.allow_if_there(fmt::format("/{}", name),
                                   read_only ? read_access : write_access));
    }
    return {};
}

}  // namespace

int landlock_abi() noexcept {
    const auto abi =
        ::syscall(SYS_landlock_create_ruleset, nullptr, 0U, LANDLOCK_CREATE_RULESET_VERSION);
    return abi > 0 ? static_cast<int>(abi) : 0;
}

Result<FileView> confine_files(const FileRules& rules) {
    FileView view{.abi = landlock_abi(), .own_process = {}};
    if (view.abi == 0)
        return view;
    const auto ruleset = TRY(Ruleset::create(view.abi));
    TRY(allow_devices(ruleset));
    // The kernel makes the folder of a process anew once nobody has it open, and the rule would be
    // for one that is not there any more.
    view.own_process.reset(::open("/proc/self", O_PATH | O_DIRECTORY | O_CLOEXEC));
    if (view.own_process)
        TRY(ruleset.allow(view.own_process, "/proc/self", read_access));
    if (rules.given()) {
        for (const auto& path : rules.read)
            TRY(ruleset.allow(path, read_access));
        for (const auto& path : rules.write)
            TRY(ruleset.allow(path, write_access));
        for (const auto& path : rules.sockets)
            TRY(ruleset.allow(folder_of(path), make_sockets));
    } else {
        TRY(allow_like_any_program(ruleset));
    }
    TRY(ruleset.enter());
    return view;
}

}  // namespace masu::jail
