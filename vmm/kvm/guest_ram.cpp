#include "vmm/kvm/guest_ram.hpp"

#include <fcntl.h>
#include <linux/memfd.h>
#include <linux/mman.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>

#include "base/bytes.hpp"
#include "vmm/layout.hpp"

namespace masu::kvm {

namespace {

constexpr std::uint64_t huge_page = 2 * MiB;

std::unexpected<Error> map_failure(int error, std::uint64_t size, HugePages huge_pages) {
    if (huge_pages == HugePages::Explicit2M && (error == ENOMEM || error == EINVAL))
        return std::unexpected(
            Error{fmt::format("the host has not the {} free huge pages of 2 MiB that {} of guest "
                              "memory takes: raise /proc/sys/vm/nr_hugepages, or do without "
                              "explicit huge pages",
                              size / huge_page, format_size(size)),
                  error});
    if (error == ENOMEM)
        return std::unexpected(Error{
            fmt::format("the host does not let this process have {} of guest memory: give the "
                        "VM less, or raise the limit (ulimit -v, the cgroup's memory.max, "
                        "vm.overcommit_memory)",
                        format_size(size)),
            error});
    return fail_errno(error, "cannot map {} of guest memory", format_size(size));
}

Result<Fd> make_memory_file(std::uint64_t size, HugePages huge_pages) {
    unsigned flags = MFD_CLOEXEC | MFD_ALLOW_SEALING;
    if (huge_pages == HugePages::Explicit2M)
        flags |= MFD_HUGETLB | MFD_HUGE_2MB;
    Fd file(::memfd_create("guest-ram", flags));
    if (!file || ::ftruncate(file.get(), static_cast<off_t>(size)) < 0)
        return map_failure(errno, size, huge_pages);
    if (::fcntl(file.get(), F_ADD_SEALS, F_SEAL_SHRINK | F_SEAL_GROW) < 0)
        return fail_errno(errno, "cannot seal the size of guest memory");
    return file;
}

}  // namespace

Result<GuestRam> GuestRam::create(std::uint64_t size, HugePages huge_pages, Backing backing) {
    const bool explicit_huge = huge_pages == HugePages::Explicit2M;
    if (size == 0 || !is_aligned(size, explicit_huge ? huge_page : MiB))
        return fail("guest memory of {} bytes is not a multiple of {} MiB", size,
                    explicit_huge ? 2 : 1);
    Fd file;
    if (backing == Backing::Memfd)
        file = TRY(make_memory_file(size, huge_pages));

    auto ram = TRY(reserve(size));
    std::byte* const start = ram.bytes_.data();
    int flags = MAP_FIXED | (file ? MAP_SHARED : MAP_PRIVATE | MAP_ANONYMOUS);
    if (explicit_huge)
        flags |= file ? 0 : MAP_HUGETLB | MAP_HUGE_2MB;
    else
        flags |= MAP_NORESERVE;  // explicit huge pages are reserved, so that their lack shows here
    if (::mmap(start, size, PROT_READ | PROT_WRITE, flags, file.get(), 0) == MAP_FAILED)
        return map_failure(errno, size, huge_pages);

    if (huge_pages == HugePages::Transparent && ::madvise(start, size, MADV_HUGEPAGE) < 0)
        return fail_errno(errno,
                          "the host does not offer transparent huge pages: set "
                          "/sys/kernel/mm/transparent_hugepage/enabled to madvise, or do without");
    // A core dump of the monitor must not hold the guest's secrets; best effort.
    static_cast<void>(::madvise(start, size, MADV_DONTDUMP));
    ram.file_ = std::move(file);
    return ram;
}

Result<GuestRam> GuestRam::create_served(std::uint64_t size) {
    auto ram = TRY(create(size, HugePages::None));
    ram.served_ = true;
    return ram;
}

// Address space is taken with room to start at a huge page; the memory is put over it.
Result<GuestRam> GuestRam::reserve(std::uint64_t size) {
    auto mapping = Mapping::create("address space for guest memory", size + huge_page, PROT_NONE,
                                   MAP_PRIVATE | MAP_ANONYMOUS | MAP_NORESERVE);
    if (!mapping)
        return map_failure(mapping.error().os_errno, size, HugePages::None);
    const auto address = reinterpret_cast<std::uintptr_t>(mapping->data());
    std::byte* const start = mapping->data() + (align_up(address, huge_page) - address);
    return GuestRam(Fd(), std::move(*mapping), std::span(start, size));
}

Result<> GuestRam::put_file(Fd file) {
    if (::mmap(bytes_.data(), bytes_.size(), PROT_READ | PROT_WRITE,
               MAP_FIXED | MAP_PRIVATE | MAP_NORESERVE, file.get(), 0) == MAP_FAILED)
        return map_failure(errno, bytes_.size(), HugePages::None);
    static_cast<void>(::madvise(bytes_.data(), bytes_.size(), MADV_DONTDUMP));
    file_ = std::move(file);
    return {};
}

std::vector<GuestMemory::Region> GuestRam::regions() const {
    const auto low = std::min<std::uint64_t>(bytes_.size(), layout::low_ram_end);
    std::vector<GuestMemory::Region> regions{{GuestAddress{0}, bytes_.first(low)}};
    if (low < bytes_.size())
        regions.push_back({GuestAddress{layout::high_ram_start}, bytes_.subspan(low)});
    return regions;
}

}  // namespace masu::kvm
