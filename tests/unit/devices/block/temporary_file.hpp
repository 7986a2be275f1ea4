// A file that goes away with the test.
#pragma once

#include <fcntl.h>
#include <stdlib.h>
#include <unistd.h>

#include <cstdint>
#include <string>

namespace masu::test {

// A folder of its own, removed with all files made through file().
class TemporaryFolder {
  public:
    TemporaryFolder() {
        if (::mkdtemp(path_.data()) == nullptr)
            std::abort();
    }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    ~TemporaryFolder() {
        const std::string command = "rm -rf " + path_;
        if (std::system(command.c_str()) != 0)
            std::abort();
    }

    [[nodiscard]] std::string path(const std::string& name) const { return path_ + "/" + name; }
    // A sparse file of `size` bytes.
    [[nodiscard]] std::string file(const std::string& name, std::uint64_t size) const {
        const int fd = ::open(path(name).c_str(), O_CREAT | O_RDWR | O_CLOEXEC, 0600);
        if (fd < 0 || ::ftruncate(fd, static_cast<off_t>(size)) < 0)
            std::abort();
        ::close(fd);
        return path(name);
    }

  private:
    std::string path_ = "/tmp/masu-block-XXXXXX";
};

}  // namespace masu::test
