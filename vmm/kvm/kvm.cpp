#include "vmm/kvm/kvm.hpp"

#include <fcntl.h>
#include <sys/ioctl.h>

#include <algorithm>
#include <array>
#include <fstream>

#include "vmm/kvm/counted_list.hpp"

namespace masu::kvm {

namespace {

struct Need {
    long capability;
    const char* name;
};

// By age: KVM on x86 has each of them whatever the CPU, since the Linux that brought it.
constexpr std::array needs{
    Need{KVM_CAP_USER_MEMORY, "KVM_CAP_USER_MEMORY"},
    Need{KVM_CAP_EXT_CPUID, "KVM_CAP_EXT_CPUID"},
    Need{KVM_CAP_IRQ_ROUTING, "KVM_CAP_IRQ_ROUTING"},
    Need{KVM_CAP_SPLIT_IRQCHIP, "KVM_CAP_SPLIT_IRQCHIP"},
    Need{KVM_CAP_IRQFD, "KVM_CAP_IRQFD"},
    Need{KVM_CAP_IOEVENTFD, "KVM_CAP_IOEVENTFD"},
    Need{KVM_CAP_IOEVENTFD_ANY_LENGTH, "KVM_CAP_IOEVENTFD_ANY_LENGTH"},
    Need{KVM_CAP_SIGNAL_MSI, "KVM_CAP_SIGNAL_MSI"},
    Need{KVM_CAP_MP_STATE, "KVM_CAP_MP_STATE"},
    Need{KVM_CAP_SET_TSS_ADDR, "KVM_CAP_SET_TSS_ADDR"},
    Need{KVM_CAP_SET_IDENTITY_MAP_ADDR, "KVM_CAP_SET_IDENTITY_MAP_ADDR"},
    Need{KVM_CAP_IMMEDIATE_EXIT, "KVM_CAP_IMMEDIATE_EXIT"},  // Linux 4.12
};

std::unexpected<Error> open_failure(const std::string& path, int error) {
    switch (error) {
        case ENOENT:
        case ENXIO:
        case ENODEV:
            return std::unexpected(
                Error{fmt::format("{} is missing: {}", path, remedy_for_absent_kvm(read_cpuinfo())),
                      error});
        case EACCES:
        case EPERM:
            return std::unexpected(Error{
                fmt::format("no permission to open {}: add yourself to the group that owns it "
                            "(usermod -aG kvm $USER, then log in again) or run as root",
                            path),
                error});
        default:
            return fail_errno(error, "cannot open {}", path);
    }
}

// Where the newest is, all are.
Result<> check_needs(const Fd& kvm, const std::string& path) {
    const auto has = [&](const Need& need) {
        return ::ioctl(kvm.get(), KVM_CHECK_EXTENSION, need.capability) > 0;
    };
    if (has(needs.back()))
        return {};
    const auto& oldest = *std::ranges::find_if_not(needs, has);
    return fail("{} lacks {}: use a Linux kernel of 4.20 or later", path, oldest.name);
}

}  // namespace

std::string read_cpuinfo() {
    std::ifstream file("/proc/cpuinfo");
    // The first CPU speaks for all; its block is far shorter than this.
    std::string text(16384, '\0');
    file.read(text.data(), static_cast<std::streamsize>(text.size()));
    text.resize(static_cast<std::size_t>(file.gcount()));
    return text;
}

bool has_cpu_flag(std::string_view cpuinfo, std::string_view flag) {
    const auto start = cpuinfo.find("\nflags");
    if (start == std::string_view::npos)
        return false;
    auto line = cpuinfo.substr(start + 1);
    line = line.substr(0, line.find('\n'));
    for (std::size_t at = line.find(flag); at != std::string_view::npos;
         at = line.find(flag, at + 1)) {
        const bool begins = at > 0 && line[at - 1] == ' ';
        const auto end = at + flag.size();
        if (begins && (end == line.size() || line[end] == ' '))
            return true;
    }
    return false;
}

std::string remedy_for_absent_kvm(std::string_view cpuinfo) {
    if (has_cpu_flag(cpuinfo, "vmx"))
        return "this CPU has VT-x; load the module with 'modprobe kvm_intel'";
    if (has_cpu_flag(cpuinfo, "svm"))
        return "this CPU has AMD-V; load the module with 'modprobe kvm_amd'";
    if (has_cpu_flag(cpuinfo, "hypervisor"))
        return "this machine is itself a virtual machine without nested virtualization; switch "
               "that "
               "on at its host, or use a bare-metal machine";
    return "the CPU shows neither vmx nor svm; enable VT-x or AMD-V in the firmware set-up";
}

Result<Kvm> Kvm::open(const std::string& path) {
    Fd fd(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    if (!fd)
        return open_failure(path, errno);
    const int version = ::ioctl(fd.get(), KVM_GET_API_VERSION, 0);
    if (version < 0)
        return fail("{} is not a KVM device: it does not know KVM_GET_API_VERSION", path);
    if (version != KVM_API_VERSION)
        return fail(
            "{} speaks KVM API version {}, Masu needs {}: use a Linux kernel of 4.20 or later",
            path, version, KVM_API_VERSION);
    TRY(check_needs(fd, path));
    const int run_size = ::ioctl(fd.get(), KVM_GET_VCPU_MMAP_SIZE, 0);
    if (run_size < static_cast<int>(sizeof(kvm_run)))
        return fail("{} gives {} as the size of a vCPU's state, less than {}", path, run_size,
                    sizeof(kvm_run));
    return Kvm(std::move(fd), static_cast<std::size_t>(run_size));
}

int Kvm::capability(long which) const noexcept {
    const int answer = ::ioctl(fd_.get(), KVM_CHECK_EXTENSION, which);
    return answer < 0 ? 0 : answer;
}

Result<std::vector<kvm_cpuid_entry2>> Kvm::supported_cpuid() const {
    // KVM_MAX_CPUID_ENTRIES, which no header gives to user space.
    constexpr std::size_t max_entries = 256;
    using List = CountedList<kvm_cpuid_entry2>;
    List list(max_entries);
    if (::ioctl(fd_.get(), KVM_GET_SUPPORTED_CPUID, list.data()) < 0)
        return fail_errno(errno, "KVM does not say which CPU features it supports");
    return list.entries();
}

}  // namespace masu::kvm
