// A snapshot of the payload clone.S with a disk, a network interface and a vsock, made by a
// monitor, and what a pool needs to have copies of it.
#pragma once

#include <array>
#include <map>
#include <string>

#include "tests/kvm/snapshot_machine.hpp"
#include "vmm/pool/pool.hpp"

namespace masu::test {

class CloneTemplate {
  public:
    // Errors of Masu are thrown.
    CloneTemplate();
    [[nodiscard]] const std::string& path() const noexcept { return path_; }
    [[nodiscard]] const TestFolder& folder() const noexcept { return files_.folder(); }
    // The body of a copy's PUT /snapshot/load, whose network is descriptor `network_fd`, and whose
    // vsock is in the folder of a pool's VM.
    [[nodiscard]] std::string load(int network_fd) const;

  private:
    PayloadFiles files_;
    std::string path_;
};

// The frame of a copy, as it comes over the socket: the new VM generation ID.
using GenerationId = std::array<std::byte, 16>;
inline constexpr std::size_t clone_frame_size = 4 + 60;
[[nodiscard]] GenerationId id_in_frame(std::span<const std::byte, clone_frame_size> frame);

// The other ends of the copies' networks, by VM.
class CloneNetworks {
  public:
    // Descriptors for a new VM.
    [[nodiscard]] pool::WorkerDescriptors maker();
    [[nodiscard]] const Fd& of(const std::string& vm) const { return sockets_.at(vm); }
    void forget(const std::string& vm) { sockets_.erase(vm); }

  private:
    std::map<std::string, Fd> sockets_;
};

}  // namespace masu::test
