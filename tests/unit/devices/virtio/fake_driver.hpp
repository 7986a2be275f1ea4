// The driver's side of a split virtqueue in ordinary memory, for tests: it can be polite or rude.
#pragma once

#include <cstddef>
#include <cstdint>
#include <cstring>
#include <memory>
#include <new>
#include <optional>
#include <span>
#include <stdexcept>
#include <string_view>
#include <utility>
#include <vector>

#include "base/bytes.hpp"
#include "devices/guest_memory.hpp"
#include "devices/virtio/queue.hpp"

namespace masu::virtio::fake {

// Guest RAM of a test: one region that starts at `base` (so that address 0 is no RAM), with a
// trivial allocator. Its host memory is exactly as large, so a sanitizer sees an overrun.
class Memory {
  public:
    static constexpr std::uint64_t base = 0x10000;

    explicit Memory(std::size_t size = 1 * MiB)
        : bytes_(static_cast<std::byte*>(::operator new(size, alignment))),
          size_(size),
          dirty_({bytes_.get(), size}),
          memory_({{.start = {base}, .bytes = {bytes_.get(), size}}}, &dirty_) {
        std::memset(bytes_.get(), 0, size);
    }

    [[nodiscard]] const GuestMemory& guest() const noexcept { return memory_; }
    [[nodiscard]] DirtyPages& dirty() noexcept { return dirty_; }  // off
    [[nodiscard]] std::span<std::byte> bytes() noexcept { return {bytes_.get(), size_}; }
    [[nodiscard]] GuestAddress end() const noexcept { return {base + size_}; }

    [[nodiscard]] GuestAddress allocate(std::size_t size, std::size_t align = 16) {
        const auto start = align_up(next_, align);
        if (start + size > size_)
            throw std::length_error("the fake guest memory is full");
        next_ = start + size;
        return {base + start};
    }
    // Forgets every allocation made so far (long tests); what lies there stays.
    void rewind(std::uint64_t mark) { next_ = mark; }
    [[nodiscard]] std::uint64_t mark() const noexcept { return next_; }

    template <class T>
    [[nodiscard]] T get(GuestAddress address) const {
        const auto value = memory_.load<T>(address);
        if (!value)
            throw std::out_of_range("fake guest memory: read beyond it");
        return *value;
    }
    template <class T>
    void put(GuestAddress address, const T& value) {
        if (!memory_.store(address, value))
            throw std::out_of_range("fake guest memory: write beyond it");
    }
    [[nodiscard]] std::vector<std::byte> copy(GuestAddress address, std::size_t size) const {
        std::vector<std::byte> out(size);
        if (!memory_.read(address, out))
            throw std::out_of_range("fake guest memory: read beyond it");
        return out;
    }

  private:
    static constexpr std::align_val_t alignment{4096};
    struct Free {
        void operator()(std::byte* bytes) const noexcept { ::operator delete(bytes, alignment); }
    };
    std::unique_ptr<std::byte, Free> bytes_;
    std::size_t size_;
    std::uint64_t next_ = 0;
    DirtyPages dirty_;
    GuestMemory memory_;
};

// struct virtq_desc and its flags.
struct Descriptor {
    std::uint64_t address = 0;
    std::uint32_t length = 0;
    std::uint16_t flags = 0;
    std::uint16_t next = 0;
};
inline constexpr std::uint16_t desc_next = 1;
inline constexpr std::uint16_t desc_write = 2;
inline constexpr std::uint16_t desc_indirect = 4;

// struct virtq_used_elem.
struct UsedElement {
    std::uint32_t id = 0;
    std::uint32_t length = 0;
};

// A buffer a test made available: its head, and where its parts lie in guest memory.
struct Built {
    struct Part {
        GuestAddress address;
        std::uint32_t length = 0;
    };
    std::uint16_t head = 0;
    std::vector<Part> readable;
    std::vector<Part> writable;
};

class Ring;

// Gathers the parts of one chain; build() lays the descriptors out and makes them available. Start
// one with Ring::chain(). Nothing is judged here: any order and any address may be asked for.
class ChainBuilder {
  public:
    // A device-readable descriptor with these bytes in it.
    ChainBuilder& append_readable(std::span<const std::byte> bytes);
    ChainBuilder& append_readable(std::string_view text) {
        return append_readable(std::as_bytes(std::span(text)));
    }
    template <class T>
        requires(std::is_trivially_copyable_v<T> && !std::is_convertible_v<T, std::string_view> &&
                 !std::is_convertible_v<T, std::span<const std::byte>>)
    ChainBuilder& append_readable(const T& value) {
        return append_readable(as_bytes_of(value));
    }
    // A device-writable descriptor of fresh zeroed memory.
    ChainBuilder& append_writable(std::uint32_t length);
    // A descriptor as given; `next` and the NEXT flag are set when the chain is laid out.
    ChainBuilder& append_raw(GuestAddress address, std::uint32_t length, std::uint16_t flags);
    // All descriptors go into an indirect table, and one in the ring points at it.
    ChainBuilder& indirect() {
        indirect_ = true;
        return *this;
    }
    // Lays it out in the next free descriptors and makes it available (avail->idx moves on).
    Built build();
    // The same, but the driver has not published it yet: avail->idx stays.
    Built build_unpublished();

  private:
    friend class Ring;
    explicit ChainBuilder(Ring& ring) : ring_(ring) {}
    Ring& ring_;
    bool indirect_ = false;
    std::vector<Descriptor> descriptors_;
    Built built_;
};

// A split virtqueue as its driver sees it. Descriptors are handed out in a circle, so at most
// size() of them are in use between a build() and its take_used().
class Ring {
  public:
    explicit Ring(Memory& memory, std::uint16_t size, std::uint64_t features = 0)
        : memory_(&memory),
          size_(size),
          features_(features),
          desc_table_(memory.allocate(std::size_t{16} * size, 16)),
          avail_(memory.allocate(6 + std::size_t{2} * size, 2)),
          used_(memory.allocate(6 + std::size_t{8} * size, 4)) {}

    [[nodiscard]] QueueConfig config() const {
        return {.size = size_,
                .enabled = true,
                .desc_table = desc_table_,
                .avail = avail_,
                .used = used_};
    }
    [[nodiscard]] std::uint64_t features() const { return features_; }
    [[nodiscard]] std::uint16_t size() const { return size_; }
    [[nodiscard]] Memory& memory() { return *memory_; }
    // The device's side of this ring; throws when the queue refuses the set-up.
    [[nodiscard]] Queue make_queue() const {
        auto queue = Queue::create(memory_->guest(), config(), features_);
        if (!queue)
            throw std::runtime_error(to_string(queue.error()));
        return std::move(*queue);
    }

    [[nodiscard]] ChainBuilder chain() { return ChainBuilder(*this); }

    // The next element of the used ring, once the device has put one there.
    [[nodiscard]] std::optional<UsedElement> take_used() {
        if (used_index() == last_used_)
            return std::nullopt;
        const auto slot = static_cast<std::uint64_t>(last_used_++ % size_);
        return memory_->get<UsedElement>(used_ + (4 + 8 * slot));
    }

    // What the device wrote into the writable parts of a chain, one after the other.
    [[nodiscard]] std::vector<std::byte> written(const Built& built) const {
        std::vector<std::byte> out;
        for (const auto& part : built.writable) {
            const auto bytes = memory_->copy(part.address, part.length);
            out.insert(out.end(), bytes.begin(), bytes.end());
        }
        return out;
    }

    // Single words of the rings, for a driver that knows what it does, or does not.
    void make_available(std::uint16_t head) {
        put_avail_entry(avail_index_, head);
        set_avail_index(static_cast<std::uint16_t>(avail_index_ + 1));
    }
    void put_avail_entry(std::uint16_t position, std::uint16_t head) {
        memory_->put(avail_ + (4 + 2 * static_cast<std::uint64_t>(position % size_)), head);
    }
    void set_avail_index(std::uint16_t index) {
        avail_index_ = index;
        memory_->put(avail_ + 2, index);
    }
    [[nodiscard]] std::uint16_t avail_index() const { return avail_index_; }
    void set_avail_flags(std::uint16_t flags) { memory_->put(avail_, flags); }
    void set_used_event(std::uint16_t index) {
        memory_->put(avail_ + (4 + std::uint64_t{2} * size_), index);
    }
    [[nodiscard]] std::uint16_t avail_event() const {
        return memory_->get<std::uint16_t>(used_ + (4 + std::uint64_t{8} * size_));
    }
    [[nodiscard]] std::uint16_t used_flags() const { return memory_->get<std::uint16_t>(used_); }
    [[nodiscard]] std::uint16_t used_index() const {
        return memory_->get<std::uint16_t>(used_ + 2);
    }
    void put_descriptor(std::uint16_t index, const Descriptor& descriptor) {
        memory_->put(desc_table_ + std::uint64_t{16} * index, descriptor);
    }
    [[nodiscard]] Descriptor descriptor(std::uint16_t index) const {
        return memory_->get<Descriptor>(desc_table_ + std::uint64_t{16} * index);
    }
    // The index build() will use next.
    [[nodiscard]] std::uint16_t next_free() const { return next_free_; }

  private:
    friend class ChainBuilder;
    std::uint16_t take_descriptor() {
        return std::exchange(next_free_, static_cast<std::uint16_t>((next_free_ + 1) % size_));
    }

    Memory* memory_;
    std::uint16_t size_;
    std::uint64_t features_;
    GuestAddress desc_table_;
    GuestAddress avail_;
    GuestAddress used_;
    std::uint16_t next_free_ = 0;
    std::uint16_t avail_index_ = 0;
    std::uint16_t last_used_ = 0;
};

inline ChainBuilder& ChainBuilder::append_readable(std::span<const std::byte> bytes) {
    const auto address = ring_.memory().allocate(bytes.size(), 1);
    if (!ring_.memory().guest().write(address, bytes) && !bytes.empty())
        throw std::out_of_range("fake guest memory: write beyond it");
    return append_raw(address, static_cast<std::uint32_t>(bytes.size()), 0);
}

inline ChainBuilder& ChainBuilder::append_writable(std::uint32_t length) {
    const auto address = ring_.memory().allocate(length, 1);
    const std::vector<std::byte> zeros(length);
    if (!ring_.memory().guest().write(address, zeros) && length != 0)
        throw std::out_of_range("fake guest memory: write beyond it");
    return append_raw(address, length, desc_write);
}

inline ChainBuilder& ChainBuilder::append_raw(GuestAddress address, std::uint32_t length,
                                              std::uint16_t flags) {
    descriptors_.push_back({.address = address.value, .length = length, .flags = flags});
    auto& parts = (flags & desc_write) != 0 ? built_.writable : built_.readable;
    parts.push_back({.address = address, .length = length});
    return *this;
}

inline Built ChainBuilder::build_unpublished() {
    const auto count = descriptors_.size();
    if (indirect_) {
        const auto table = ring_.memory().allocate(16 * count, 16);
        for (std::size_t i = 0; i < count; ++i) {
            if (i + 1 < count) {
                descriptors_[i].flags =
                    static_cast<std::uint16_t>(descriptors_[i].flags | desc_next);
                descriptors_[i].next = static_cast<std::uint16_t>(i + 1);
            }
            ring_.memory().put(table + 16 * i, descriptors_[i]);
        }
        built_.head = ring_.take_descriptor();
        ring_.put_descriptor(built_.head, {.address = table.value,
                                           .length = static_cast<std::uint32_t>(16 * count),
                                           .flags = desc_indirect});
    } else {
        built_.head = ring_.next_free();
        for (std::size_t i = 0; i < count; ++i) {
            const auto index = ring_.take_descriptor();
            if (i + 1 < count) {
                descriptors_[i].flags =
                    static_cast<std::uint16_t>(descriptors_[i].flags | desc_next);
                descriptors_[i].next = ring_.next_free();
            }
            ring_.put_descriptor(index, descriptors_[i]);
        }
    }
    ring_.put_avail_entry(ring_.avail_index(), built_.head);
    return std::move(built_);
}

inline Built ChainBuilder::build() {
    auto built = build_unpublished();
    ring_.set_avail_index(static_cast<std::uint16_t>(ring_.avail_index() + 1));
    return built;
}

}  // namespace masu::virtio::fake
