// The guest's RAM as host memory, laid around the hole below 4 GiB.
#pragma once

#include <cstdint>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "devices/guest_memory.hpp"
#include "vmm/config.hpp"

namespace masu::kvm {

// Owns one host mapping for all of a VM's RAM: what lies below 3 GiB first, the rest (from 4 GiB up
// in the guest) after it. Zeroed and not yet backed by pages when made. The mapping starts at a
// 2 MiB boundary, so that huge pages fit on both sides.
class GuestRam {
  public:
    enum class Backing {
        Anonymous,  // private to this process
        Memfd,      // a sealed-size memory file, mapped shared: can be handed to another process
    };

    // `size` in bytes, a multiple of 1 MiB (of 2 MiB with HugePages::Explicit2M). Fails with a
    // sentence when the host has not that much memory or too few huge pages.
    [[nodiscard]] static Result<GuestRam> create(std::uint64_t size, HugePages huge_pages,
                                                 Backing backing = Backing::Anonymous);

    // Where `size` bytes will be. Not to be touched before put_file().
    [[nodiscard]] static Result<GuestRam> reserve(std::uint64_t size);
    // Once, of what was reserved: a file of that size, private to this process: pages are the
    // file's until written. The file must not change from now on.
    [[nodiscard]] Result<> put_file(Fd file);

    // `size` bytes that are not there before somebody else has brought them in
    // (snapshot::ServedMemory). As create() makes them, without huge pages.
    [[nodiscard]] static Result<GuestRam> create_served(std::uint64_t size);

    // Pages never touched are zero (and neither those of a file nor somebody else's).
    [[nodiscard]] bool anonymous() const noexcept { return !file_ && !served_; }
    [[nodiscard]] std::uint64_t size() const noexcept { return bytes_.size(); }
    [[nodiscard]] std::span<std::byte> bytes() const noexcept { return bytes_; }
    // One or two regions in guest-physical order.
    [[nodiscard]] std::vector<GuestMemory::Region> regions() const;
    // Borrows the mapping: the GuestRam must outlive it.
    [[nodiscard]] GuestMemory memory() const { return GuestMemory(regions()); }
    // The file behind it, or -1 with Backing::Anonymous.
    [[nodiscard]] int memfd() const noexcept { return file_.get(); }

  private:
    GuestRam(Fd file, Mapping mapping, std::span<std::byte> bytes) noexcept
        : file_(std::move(file)), mapping_(std::move(mapping)), bytes_(bytes) {}
    Fd file_;
    Mapping mapping_;
    std::span<std::byte> bytes_;  // the aligned part of mapping_
    bool served_ = false;
};

}  // namespace masu::kvm
