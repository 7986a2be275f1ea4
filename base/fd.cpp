// Fd, Mapping and EventFd.
#include "base/fd.hpp"

#include <fcntl.h>
#include <sys/eventfd.h>
#include <sys/mman.h>
#include <unistd.h>

namespace masu {

void Fd::reset(int fd) noexcept {
    if (fd_ >= 0)
        ::close(fd_);
    fd_ = fd;
}

Result<Fd> Fd::duplicate() const {
    const int copy = ::fcntl(fd_, F_DUPFD_CLOEXEC, 0);
    if (copy < 0)
        return fail_errno(errno, "cannot duplicate a file descriptor");
    return Fd(copy);
}

Mapping& Mapping::operator=(Mapping&& other) noexcept {
    std::swap(address_, other.address_);
    std::swap(size_, other.size_);
    return *this;
}

Mapping::~Mapping() {
    if (address_ != nullptr)
        ::munmap(address_, size_);
}

Result<Mapping> Mapping::create(const char* what, std::size_t size, int protection, int flags,
                                int fd, std::uint64_t offset) {
    void* address = ::mmap(nullptr, size, protection, flags, fd, static_cast<off_t>(offset));
    if (address == MAP_FAILED)
        return fail_errno(errno, "cannot map {} ({} bytes)", what, size);
    return Mapping(static_cast<std::byte*>(address), size);
}

Result<EventFd> EventFd::create() {
    const int fd = ::eventfd(0, EFD_CLOEXEC | EFD_NONBLOCK);
    if (fd < 0)
        return fail_errno(errno, "cannot create an eventfd");
    return EventFd(Fd(fd));
}

void EventFd::signal() const noexcept {
    const std::uint64_t one = 1;
    // The only failure is a counter at its maximum, and then the other side is already woken.
    [[maybe_unused]] const auto written = ::write(fd_.get(), &one, sizeof one);
}

std::uint64_t EventFd::take() const noexcept {
    std::uint64_t count = 0;
    if (::read(fd_.get(), &count, sizeof count) != static_cast<ssize_t>(sizeof count))
        return 0;
    return count;
}

}  // namespace masu
