// A TAP interface of the host as the backend of a network device.
#pragma once

#include <memory>
#include <string>
#include <vector>

#include "base/fd.hpp"
#include "base/result.hpp"
#include "devices/net/backend.hpp"

namespace masu::net {

// Threads: see Backend. The interface itself (its addresses, its bridge, whether it is up) is the
// business of whoever made it.
class Tap final : public Backend {
  public:
    // Attaches to the TAP called `name`, which is made if it is missing and the process may do so;
    // it then goes away with the last descriptor.
    [[nodiscard]] static Result<std::unique_ptr<Tap>> open(const std::string& name);
    // Takes over descriptors that are attached already, one per queue of one interface.
    [[nodiscard]] static Result<std::unique_ptr<Tap>> adopt(std::vector<Fd> descriptors);

    // Attaches more queues, up to `count` in all. An interface that was made for one queue, and one
    // whose descriptors were handed over, stays as it is.
    [[nodiscard]] Result<> add_queues(unsigned count);

    [[nodiscard]] const std::string& name() const noexcept { return name_; }

    [[nodiscard]] unsigned queues() const noexcept override {
        return static_cast<unsigned>(descriptors_.size());
    }
    [[nodiscard]] int fd(unsigned queue) const noexcept override {
        return descriptors_[queue].get();
    }
    [[nodiscard]] Offloads offloads() const noexcept override { return offloads_; }
    void set_receive_offloads(Offloads wanted) noexcept override;
    void set_active_queues(unsigned count) noexcept override;
    [[nodiscard]] Received receive(unsigned queue, std::span<std::byte> buffer) noexcept override;
    [[nodiscard]] bool can_send(unsigned /*queue*/) noexcept override { return true; }
    [[nodiscard]] IoStatus send(unsigned queue, std::span<const iovec> packet) noexcept override;
    [[nodiscard]] bool flush(unsigned /*queue*/) noexcept override { return true; }

  private:
    Tap(std::string name, std::vector<Fd> descriptors);
    [[nodiscard]] static Result<std::unique_ptr<Tap>> prepare(std::string name,
                                                              std::vector<Fd> descriptors);

    std::string name_;
    std::vector<Fd> descriptors_;
    std::vector<bool> attached_;
    bool can_grow_ = false;
    Offloads offloads_ = 0;
};

}  // namespace masu::net
