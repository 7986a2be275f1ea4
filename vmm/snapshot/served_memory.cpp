#include "vmm/snapshot/served_memory.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <pthread.h>
#include <sys/eventfd.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <csignal>
#include <cstring>

#include "base/passed_descriptors.hpp"
#include "vmm/api/json_writer.hpp"
#include "vmm/jail/jail.hpp"
#include "vmm/snapshot/memory_file.hpp"

namespace masu::snapshot {

namespace {

constexpr time_t send_seconds = 10;

Result<Fd> begin_session(Fd faults) {
    uffdio_api api{.api = UFFD_API, .features = UFFD_FEATURE_EVENT_REMOVE, .ioctls = 0};
    if (::ioctl(faults.get(), UFFDIO_API, &api) < 0)
        return fail_errno(errno,
                          "the host's kernel does not tell a handler of memory that is given back "
                          "(UFFD_FEATURE_EVENT_REMOVE)");
    return faults;
}

Result<> register_memory(const Fd& faults, std::span<const std::byte> bytes) {
    uffdio_register request{
        .range = {.start = reinterpret_cast<std::uintptr_t>(bytes.data()), .len = bytes.size()},
        .mode = UFFDIO_REGISTER_MODE_MISSING,
        .ioctls = 0};
    if (::ioctl(faults.get(), UFFDIO_REGISTER, &request) < 0)
        return fail_errno(errno, "the kernel does not let page faults of guest memory be handled");
    return {};
}

Result<Fd> connect_handler(const std::string& path) {
    sockaddr_un address{};
    address.sun_family = AF_UNIX;
    if (path.size() >= sizeof address.sun_path)
        return fail("the path {} of the page fault handler's socket is longer than {} bytes", path,
                    sizeof address.sun_path - 1);
    path.copy(address.sun_path, path.size());
    Fd socket(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
    if (!socket)
        return fail_errno(errno, "cannot make a socket");
    const timeval limit{.tv_sec = send_seconds, .tv_usec = 0};
    ::setsockopt(socket.get(), SOL_SOCKET, SO_SNDTIMEO, &limit, sizeof limit);
    // NOLINTNEXTLINE: the sockets API takes every address as sockaddr
    if (::connect(socket.get(), reinterpret_cast<const sockaddr*>(&address), sizeof address) < 0)
        return fail_errno(errno, "no page fault handler listens at {}", path);
    return socket;
}

// page_size_kib is the reference's old name for the same number of bytes.
std::string describe_regions(const kvm::GuestRam& ram) {
    api::JsonWriter json;
    json.begin_array();
    for (const auto& region : ram.regions()) {
        const auto* start = region.bytes.data();
        json.begin_object()
            .field("base_host_virt_addr", reinterpret_cast<std::uintptr_t>(start))
            .field("size", region.bytes.size())
            .field("offset", static_cast<std::uint64_t>(start - ram.bytes().data()))
            .field("page_size", guest_page)
            .field("page_size_kib", guest_page)
            .end_object();
    }
    json.end_array();
    return json.text();
}

Result<> hand_over(const Fd& socket, const Fd& faults, const std::string& regions) {
    const auto sent = send_with_descriptors(socket.get(), std::as_bytes(std::span(regions)),
                                            std::span(&faults, 1));
    if (sent != static_cast<ssize_t>(regions.size()))
        return fail_errno(sent < 0 ? errno : EIO,
                          "the page fault handler does not take guest memory");
    return {};
}

bool all_present(const kvm::GuestRam& ram) {
    const auto pages = present_pages(ram);
    return pages && pages->own.count() + pages->shared.count() == ram.size() / guest_page;
}

}  // namespace

Result<Fd> open_userfaultfd() {
    constexpr int flags = O_CLOEXEC | O_NONBLOCK;
#ifdef USERFAULTFD_IOC_NEW
    const Fd device(::open("/dev/userfaultfd", O_RDWR | O_CLOEXEC));
    if (device)
        if (Fd faults(::ioctl(device.get(), USERFAULTFD_IOC_NEW, flags)); faults)
            return begin_session(std::move(faults));
#endif
    Fd faults(static_cast<int>(::syscall(SYS_userfaultfd, flags)));
    if (faults)
        return begin_session(std::move(faults));
    if (errno == ENOSYS)
        return fail("the host's kernel has no userfaultfd (CONFIG_USERFAULTFD)");
    return fail_errno(errno,
                      "this process may not have its page faults handled by another: give it "
                      "access to /dev/userfaultfd, or set vm.unprivileged_userfaultfd to 1");
}

ServedMemory::ServedMemory(const kvm::GuestRam& ram, Fd faults, Fd socket, Fd stop,
                           jail::FilterMode filters, Lost lost)
    : ram_(ram),
      faults_(std::move(faults)),
      socket_(std::move(socket)),
      stop_(std::move(stop)),
      lost_(std::move(lost)),
      watcher_([this, filters] { watch(filters); }) {}

Result<std::unique_ptr<ServedMemory>> ServedMemory::connect(const kvm::GuestRam& ram, Fd faults,
                                                            const std::string& path,
                                                            jail::FilterMode filters, Lost lost) {
    auto socket = TRY(connect_handler(path));
    TRY(register_memory(faults, ram.bytes()));
    TRY(hand_over(socket, faults, describe_regions(ram)));
    Fd stop(::eventfd(0, EFD_CLOEXEC));
    if (!stop)
        return fail_errno(errno, "cannot make an eventfd");
    return std::unique_ptr<ServedMemory>(new ServedMemory(
        ram, std::move(faults), std::move(socket), std::move(stop), filters, std::move(lost)));
}

ServedMemory::~ServedMemory() {
    const std::uint64_t one = 1;
    [[maybe_unused]] const auto written = ::write(stop_.get(), &one, sizeof one);
    watcher_.join();
}

// Up to the end of the connection, printable characters only.
std::string ServedMemory::last_words() const {
    constexpr std::size_t limit = 512;
    std::string words;
    std::array<char, limit> buffer{};
    for (;;) {
        const auto count = ::recv(socket_.get(), buffer.data(), buffer.size(), MSG_DONTWAIT);
        if (count <= 0)
            return words;
        for (const char c : std::string_view(buffer.data(), static_cast<std::size_t>(count)))
            if (words.size() < limit && c >= 0x20 && c < 0x7f)
                words += c;
    }
}

void ServedMemory::watch(jail::FilterMode filters) {
    sigset_t all;
    ::sigfillset(&all);
    ::pthread_sigmask(SIG_SETMASK, &all, nullptr);
    ::pthread_setname_np(::pthread_self(), "memory-watch");
    if (const auto jailed = jail::enter_thread(jail::ThreadKind::Watch, filters); !jailed) {
        if (lost_)
            lost_(jailed.error().message);
        return;
    }
    // No input event: POLLRDHUP comes when the other end has closed, whatever it wrote before.
    std::array<pollfd, 2> waits{pollfd{socket_.get(), POLLRDHUP, 0},
                                pollfd{stop_.get(), POLLIN, 0}};
    while (::poll(waits.data(), waits.size(), -1) < 0 && errno == EINTR) {
    }
    if (waits[1].revents != 0)
        return;
    // A handler that has brought in all there is may leave.
    if (all_present(ram_)) {
        uffdio_range range{.start = reinterpret_cast<std::uintptr_t>(ram_.bytes().data()),
                           .len = ram_.size()};
        static_cast<void>(::ioctl(faults_.get(), UFFDIO_UNREGISTER, &range));
        return;
    }
    const auto words = last_words();
    if (!lost_)
        return;
    lost_(words.empty() ? "the handler of guest memory's page faults ended, and what it had not "
                          "brought in yet is lost"
                        : "the handler of guest memory's page faults gave up: " + words);
}

}  // namespace masu::snapshot
