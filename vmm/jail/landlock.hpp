// Which files the process may reach (Landlock), for those who are not root as well.
#pragma once

#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"

namespace masu::jail {

// A file, or a folder with all below it.
struct FileRules {
    std::vector<std::string> read;
    std::vector<std::string> write;  // to read, change, make and delete
    // Where a Unix socket is made: its folder, in which nothing is read or changed, though whatever
    // this user may delete there can be deleted.
    std::vector<std::string> sockets = {};

    [[nodiscard]] bool given() const noexcept {
        return !read.empty() || !write.empty() || !sockets.empty();
    }
};

struct FileView {
    int abi = 0;  // of the kernel's Landlock; 0: it has none, and nothing is restricted
    // Keeps /proc/self the folder that the rules name.
    Fd own_process;
};

// Of the kernel's Landlock; 0: it has none.
[[nodiscard]] int landlock_abi() noexcept;

// Confines the calling thread, and the threads it makes later, to `rules`, the devices a monitor
// opens, and what /proc tells of this very process. Nothing may be executed, no device node made,
// and, where the kernel can (Linux 6.7, 6.12), no TCP port bound or connected to, no process
// outside signalled, no abstract Unix socket outside reached. Without rules: the folders of the
// operating system are read-only, other processes are out of sight, and all other files are as for
// this user. An error names the path that is not there. The process must have no_new_privs.
[[nodiscard]] Result<FileView> confine_files(const FileRules& rules);

}  // namespace masu::jail
