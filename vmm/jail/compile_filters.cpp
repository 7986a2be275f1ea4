// Prints the filters as arrays of BPF instructions, for seccomp.cpp. Runs while Masu is built.
#include <linux/filter.h>
#include <sys/mman.h>
#include <unistd.h>

#include <array>
#include <cerrno>
#include <cstdio>
#include <cstring>
#include <string>
#include <utility>
#include <vector>

#include "vmm/jail/filter_rules.hpp"

namespace {

using namespace masu::jail;

struct Failed {
    const char* what;
    int error;
};

void require(int result, const char* what) {
    if (result < 0)
        throw Failed{what, -result};
}

class Filter {
  public:
    explicit Filter(FilterMode mode)
        : context_(::seccomp_init(mode == FilterMode::Log ? SCMP_ACT_LOG : SCMP_ACT_KILL_PROCESS)) {
        if (context_ == nullptr)
            throw Failed{"seccomp_init", 0};
        require(::seccomp_attr_set(context_, SCMP_FLTATR_ACT_BADARCH, SCMP_ACT_KILL_PROCESS),
                "another architecture");
    }
    ~Filter() { ::seccomp_release(context_); }
    Filter(const Filter&) = delete;
    Filter& operator=(const Filter&) = delete;

    // Also of a vCPU's, whose one call in the common case could stand first in a list: the kernel
    // asks a new filter about every number there is, and a list takes it twice as long as a tree.
    void make_search_tree() {
        require(::seccomp_attr_set(context_, SCMP_FLTATR_CTL_OPTIMIZE, 2), "search tree");
    }

    void add(const Rule& rule) {
        const auto action = rule.refusal ? SCMP_ACT_ERRNO(*rule.refusal) : SCMP_ACT_ALLOW;
        const int result = ::seccomp_rule_add_array(context_, action, rule.call,
                                                    static_cast<unsigned>(rule.conditions.size()),
                                                    rule.conditions.data());
        if (result != -EEXIST)  // said before by another table
            require(result, "a rule");
    }

    [[nodiscard]] std::vector<sock_filter> program() const {
        const int file = ::memfd_create("filter", MFD_CLOEXEC);
        require(file < 0 ? -errno : 0, "memfd_create");
        require(::seccomp_export_bpf(context_, file), "seccomp_export_bpf");
        const auto size = ::lseek(file, 0, SEEK_END);
        std::vector<sock_filter> program(static_cast<std::size_t>(size) / sizeof(sock_filter));
        if (::pread(file, program.data(), static_cast<std::size_t>(size), 0) != size)
            throw Failed{"pread", errno};
        ::close(file);
        return program;
    }

  private:
    scmp_filter_ctx context_;
};

void print(ThreadKind kind, FilterMode mode, const std::string& name) {
    Filter filter(mode);
    filter.make_search_tree();
    for (const auto& rule : rules_for(kind))
        filter.add(rule);
    std::printf("constexpr sock_filter %s[] = {\n", name.c_str());
    for (const auto& [code, jt, jf, k] : filter.program())
        std::printf("{0x%x,%u,%u,0x%xU},\n", code, jt, jf, k);
    std::printf("};\n");
}

}  // namespace

int main() {
    try {
        for (const auto& [kind, name] :
             std::to_array<std::pair<ThreadKind, std::string>>({{ThreadKind::Loop, "loop"},
                                                                {ThreadKind::Vcpu, "vcpu"},
                                                                {ThreadKind::Copy, "copy"},
                                                                {ThreadKind::Populate, "populate"},
                                                                {ThreadKind::Watch, "watch"}})) {
            print(kind, FilterMode::Enforce, "enforce_" + name);
            print(kind, FilterMode::Log, "log_" + name);
        }
    } catch (const Failed& failed) {
        std::fprintf(stderr, "compile-filters: %s: %s\n", failed.what, std::strerror(failed.error));
        return 1;
    }
    return 0;
}
