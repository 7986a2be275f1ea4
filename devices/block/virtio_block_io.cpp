// virtio-blk: the data path, from a notification to the interrupt. Allocates nothing once slots and
// their buffers have grown to what the driver uses.
#include <algorithm>

#include "base/bytes.hpp"
#include "devices/block/virtio_block.hpp"

namespace masu::block {

using Kind = BlockRequest::Kind;

void VirtioBlock::notify(std::uint16_t index) {
    if (index >= queues_.size() || !queues_[index].queue)
        return;
    queues_[index].pending = true;
    serve_all();
}

// Takes what the queues have, in turn, and starts it with one kick.
void VirtioBlock::serve_all() {
    if (queues_.empty() || faulted_)
        return;
    int budget = chains_per_turn;
    wait_.reset();
    for (std::size_t i = 0; i < queues_.size() && !faulted_; ++i)
        serve(static_cast<std::uint16_t>((first_queue_ + i) % queues_.size()), budget);
    first_queue_ = (first_queue_ + 1) % queues_.size();
    disk_->kick();
    if (budget <= 0)
        wait_ = 0;
    if (wait_)
        timer_->arm(*wait_);
    interrupt();
}

void VirtioBlock::serve(std::uint16_t index, int& budget) {
    auto& state = queues_[index];
    if (!state.pending || !state.queue)
        return;
    state.queue->disable_notifications();
    for (; budget > 0; --budget) {
        // No room: collect() comes back here.
        if (free_slots_.empty() && slots_.size() == max_in_flight)
            return;
        auto parked = next(index);
        if (!parked)
            return;
        if (!admit(*parked)) {
            state.parked = std::move(parked);
            return;
        }
        start(index, std::move(*parked));
    }
}

// The request that waited, else the next of the queue; none ends the turn.
std::optional<VirtioBlock::Parked> VirtioBlock::next(std::uint16_t index) {
    auto& state = queues_[index];
    if (state.parked)
        return std::exchange(state.parked, std::nullopt);
    // The second look is for a buffer that came in before the driver saw our wish.
    for (int look = 0; look < 2; ++look) {
        auto popped = state.queue->pop();
        if (!popped) {
            fault(virtio::to_string(popped.error()));
            return std::nullopt;
        }
        if (*popped) {
            auto request = BlockRequest::parse(**popped, {.capacity = disk_->size(),
                                                          .read_only = options_.read_only,
                                                          .features = negotiated_});
            if (request)
                return Parked{std::move(**popped), *request};
            fault(to_string(request.error()));
            return std::nullopt;
        }
        if (!state.queue->enable_notifications())
            break;
    }
    state.pending = false;
    return std::nullopt;
}

bool VirtioBlock::admit(Parked& parked) {
    if (!limiter_.limited())
        return true;
    const auto& request = parked.request;
    const auto bytes =
        request.kind == Kind::Read || request.kind == Kind::Write ? request.data_size : 0;
    const auto now = clock_.now();
    if (limiter_.try_take(bytes, 1, now))
        return true;
    if (!std::exchange(parked.throttled, true))
        counters_.throttled.add();
    const auto wait = limiter_.ready_in(bytes, 1, now);
    wait_ = wait_ ? std::min(*wait_, wait) : wait;
    return false;
}

void VirtioBlock::start(std::uint16_t index, Parked&& parked) {
    auto& chain = parked.chain;
    const auto& request = parked.request;
    const bool nothing_to_do =
        request.kind == Kind::Bad ||
        (request.kind == Kind::Flush && options_.cache == Cache::Unsafe) ||
        ((request.kind == Kind::Read || request.kind == Kind::Write) && request.data_size == 0) ||
        ((request.kind == Kind::Discard || request.kind == Kind::WriteZeroes) &&
         request.range_count == 0);
    if (request.kind == Kind::GetId) {
        std::array<char, id_size> text{};
        options_.serial.copy(text.data(), text.size());
        chain.write(0, std::as_bytes(std::span(text)).first(request.data_size));
        answer(index, std::move(chain), request.status_offset, request.data_size, Status::Ok);
        return;
    }
    if (nothing_to_do) {
        if (request.kind == Kind::Bad)
            counters_.bad_requests.add();
        answer(index, std::move(chain), request.status_offset, 0, request.status);
        return;
    }
    if (free_slots_.empty()) {
        free_slots_.push_back(static_cast<std::uint32_t>(slots_.size()));
        slots_.emplace_back();
    }
    const auto number = free_slots_.back();
    free_slots_.pop_back();
    auto& slot = slots_[number];
    slot.chain.emplace(std::move(chain));
    slot.queue = index;
    slot.kind = request.kind;
    slot.data_size = request.data_size;
    slot.status_offset = request.status_offset;
    slot.error = 0;
    // Write-through: without FLUSH the driver takes a completed write for durable (5.2.6.2).
    slot.flush_after = request.modifies() && options_.cache == Cache::Writeback &&
                       (negotiated_ & feature::flush) == 0;
    submit(number, request);
}

void VirtioBlock::submit(std::uint32_t number, const BlockRequest& request) {
    auto& slot = slots_[number];
    slot.buffers.clear();
    slot.in_flight = std::max(request.range_count, 1U);
    switch (request.kind) {
        case Kind::Read:
        case Kind::Write: {
            const bool read = request.kind == Kind::Read;
            // Judged when parsed: the chain is long enough.
            (void)virtio::slice_iovecs(read ? slot.chain->writable() : slot.chain->readable(),
                                       read ? 0 : request_header_size, request.data_size,
                                       slot.buffers);
            disk_->submit({.op = read ? Op::Read : Op::Write,
                           .offset = request.offset,
                           .size = request.data_size,
                           .buffers = slot.buffers,
                           .token = number});
            break;
        }
        case Kind::Discard:
        case Kind::WriteZeroes:
            for (const auto& range : std::span(request.ranges).first(request.range_count))
                disk_->submit({.op = request.kind == Kind::Discard ? Op::Discard : Op::WriteZeroes,
                               .offset = range.offset,
                               .size = range.size,
                               .token = number,
                               .may_unmap = range.may_unmap});
            break;
        case Kind::Flush:
        case Kind::GetId:
        case Kind::Bad:
            disk_->submit({.op = Op::Flush, .token = number});
            break;
    }
}

void VirtioBlock::collect() {
    disk_->reap(done_);
    for (const auto& completion : done_)
        part_done(static_cast<std::uint32_t>(completion.token), completion.error);
    done_.clear();
    disk_->kick();
    interrupt();
}

void VirtioBlock::part_done(std::uint32_t number, int error) {
    auto& slot = slots_[number];
    if (error != 0 && slot.error == 0) {
        slot.error = error;
        counters_.failures.add();
        log_.guest_fault("disk I/O failed", {{"drive", id_}, {"cause", std::strerror(error)}});
    }
    if (--slot.in_flight != 0)
        return;
    if (slot.flush_after && slot.error == 0) {
        slot.flush_after = false;
        slot.in_flight = 1;
        disk_->submit({.op = Op::Flush, .token = number});
        return;
    }
    count(slot);
    const bool good = slot.error == 0;
    answer(slot.queue, std::move(*slot.chain), slot.status_offset,
           slot.kind == Kind::Read && good ? slot.data_size : 0,
           good ? Status::Ok : Status::IoError);
    slot.chain.reset();
    free_slots_.push_back(number);
}

void VirtioBlock::count(const Slot& slot) noexcept {
    switch (slot.kind) {
        case Kind::Read:
            counters_.read_count.add();
            counters_.read_bytes.add(slot.data_size);
            break;
        case Kind::Write:
            counters_.write_count.add();
            counters_.write_bytes.add(slot.data_size);
            break;
        case Kind::Flush:
            counters_.flush_count.add();
            break;
        case Kind::Discard:
            counters_.discard_count.add();
            break;
        case Kind::WriteZeroes:
            counters_.write_zeroes_count.add();
            break;
        case Kind::GetId:
        case Kind::Bad:
            break;
    }
}

// `written` counts the data; the status byte comes on top.
void VirtioBlock::answer(std::uint16_t index, virtio::Chain&& chain, std::uint64_t status_offset,
                         std::uint64_t written, Status status) {
    if (faulted_)
        return;  // the queue is out of bounds until reset; the chain is dropped
    chain.write(status_offset, as_bytes_of(status));
    queues_[index].queue->complete(std::move(chain), static_cast<std::uint32_t>(written + 1));
    queues_[index].completed = true;
}

void VirtioBlock::interrupt() {
    if (faulted_)
        return;
    for (std::size_t i = 0; i < queues_.size(); ++i) {
        auto& state = queues_[i];
        if (!std::exchange(state.completed, false))
            continue;
        if (state.queue->needs_interrupt())
            driver_->interrupt_queue(static_cast<std::uint16_t>(i));
    }
}

void VirtioBlock::fault(const char* why) {
    faulted_ = true;
    driver_->fault(why);
}

}  // namespace masu::block
