// Guest memory whose pages another process brings in when they are first touched: userfaultfd(2),
// handed over as Firecracker does.
#pragma once

#include <functional>
#include <memory>
#include <string>
#include <thread>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "vmm/jail/thread_kind.hpp"
#include "vmm/kvm/guest_ram.hpp"

namespace masu::snapshot {

// For as long as it lives a fault on a page that is not there waits for the handler. The memory
// outlives it, and what touches memory (vCPUs, devices) ends before.
class ServedMemory {
  public:
    // The handler has gone and has not brought in every page. Called on a thread of this object's
    // own, once; whoever waits for a page then waits for ever, also the loop: only the end of the
    // process helps.
    using Lost = std::function<void(std::string reason)>;

    // Registers all of `ram` and connects to the Unix stream socket `path`, where the handler
    // listens. One message goes there: a JSON array of the regions (base_host_virt_addr, size,
    // offset in the memory file, page_size; bytes) with the userfaultfd beside it. The connection
    // stays open; what the handler writes to it before it closes it is why it did.
    // `faults` is open_userfaultfd()'s.
    [[nodiscard]] static Result<std::unique_ptr<ServedMemory>> connect(const kvm::GuestRam& ram,
                                                                       Fd faults,
                                                                       const std::string& path,
                                                                       jail::FilterMode filters,
                                                                       Lost lost);
    ~ServedMemory();
    ServedMemory(const ServedMemory&) = delete;
    ServedMemory& operator=(const ServedMemory&) = delete;

  private:
    ServedMemory(const kvm::GuestRam& ram, Fd faults, Fd socket, Fd stop, jail::FilterMode filters,
                 Lost lost);
    void watch(jail::FilterMode filters);
    [[nodiscard]] std::string last_words() const;

    const kvm::GuestRam& ram_;
    // Kept open: were the handler's the last, the kernel would give zeros to all who wait for pages
    // when it dies.
    Fd faults_;
    Fd socket_;
    Fd stop_;  // an eventfd
    Lost lost_;
    std::thread watcher_;
};

// Whether this process can be served: a userfaultfd, ready for memory to be registered, that also
// takes the kernel's own accesses (KVM and io_uring touch guest memory there). Fails with a
// sentence that says what is in the way.
[[nodiscard]] Result<Fd> open_userfaultfd();

}  // namespace masu::snapshot
