#include "tools/masu/page_server.hpp"

#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <poll.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstring>
#include <deque>
#include <optional>
#include <tuple>

#include <boost/json.hpp>

#include "base/atomic_file.hpp"
#include "base/passed_descriptors.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/compressed_memory.hpp"
#include "vmm/page_set.hpp"
#include "vmm/snapshot/page_list.hpp"
#include "vmm/snapshot/save.hpp"
#include "vmm/snapshot/state_file.hpp"

namespace masu::cli {
namespace {

namespace json = boost::json;

constexpr std::size_t max_message = 64 * 1024;
constexpr std::size_t max_regions = 64;
constexpr std::size_t events_at_once = 64;

// What became of an attempt to put pages into the monitor's memory.
enum class Placed { Done, Later, Gone };

// The monitor's memory, through its userfaultfd.
class RemoteMemory {
  public:
    explicit RemoteMemory(Fd faults) : faults_(std::move(faults)) {}
    [[nodiscard]] int fd() const { return faults_.get(); }

    [[nodiscard]] Result<Placed> copy(std::uint64_t to, std::span<const std::byte> bytes) const {
        const auto start = reinterpret_cast<std::uintptr_t>(bytes.data());
        return place(to, bytes.size(), [&](std::uint64_t done, std::int64_t& moved) {
            uffdio_copy request{.dst = to + done,
                                .src = start + done,
                                .len = bytes.size() - done,
                                .mode = 0,
                                .copy = 0};
            const int result = ::ioctl(fd(), UFFDIO_COPY, &request);
            moved = request.copy;
            return result;
        });
    }
    [[nodiscard]] Result<Placed> zero(std::uint64_t to, std::uint64_t size) const {
        return place(to, size, [&](std::uint64_t done, std::int64_t& moved) {
            uffdio_zeropage request{
                .range = {.start = to + done, .len = size - done}, .mode = 0, .zeropage = 0};
            const int result = ::ioctl(fd(), UFFDIO_ZEROPAGE, &request);
            moved = request.zeropage;
            return result;
        });
    }

  private:
    // Pages that are there already are passed over: whoever waits for them is woken. The kernel
    // places as many as it can and tells how many; EAGAIN with none means that memory is just being
    // given back, which it wants to tell of first.
    template <class Move>
    Result<Placed> place(std::uint64_t to, std::uint64_t size, Move move) const {
        for (std::uint64_t done = 0; done < size;) {
            std::int64_t moved = 0;
            if (move(done, moved) == 0)
                return Placed::Done;
            if (moved > 0) {
                done += static_cast<std::uint64_t>(moved);
            } else if (errno == EEXIST) {
                uffdio_range page{.start = to + done, .len = guest_page};
                static_cast<void>(::ioctl(fd(), UFFDIO_WAKE, &page));
                done += guest_page;
            } else if (errno == EAGAIN) {
                return Placed::Later;
            } else if (errno == ESRCH || errno == ENOENT) {
                return Placed::Gone;
            } else if (errno != EINTR) {
                return fail_errno(errno, "the monitor's memory does not take pages");
            }
        }
        return Placed::Done;
    }

    Fd faults_;
};

class PageServer {
  public:
    PageServer(CompressedMemory memory, RemoteMemory remote, std::vector<ServedRegion> regions,
               std::vector<std::size_t> ahead)
        : memory_(std::move(memory)),
          remote_(std::move(remote)),
          regions_(std::move(regions)),
          ahead_(ahead.begin(), ahead.end()),
          removed_(memory_.index.memory_bytes / guest_page),
          loaded_(memory_.index.chunks.size()),
          buffer_(memory_.index.chunk_size) {}

    // Until the other end of `monitor` closes. Faults go before what is brought in ahead of them.
    [[nodiscard]] Result<> run(int monitor) {
        while (!gone_) {
            constexpr int retry_ms = 1;
            const bool idle = ahead_.empty() && waiting_.empty();
            std::array<pollfd, 2> waits{pollfd{remote_.fd(), POLLIN, 0},
                                        pollfd{monitor, POLLIN | POLLRDHUP, 0}};
            const int wait_ms = idle ? -1 : deferred_ ? retry_ms : 0;
            if (::poll(waits.data(), waits.size(), wait_ms) < 0 && errno != EINTR)
                return fail_errno(errno, "cannot wait for page faults");
            if (waits[1].revents != 0 || (waits[0].revents & (POLLERR | POLLHUP)) != 0)
                return {};
            deferred_ = false;
            if ((waits[0].revents & POLLIN) != 0)
                TRY(take_events());
            else if (!waiting_.empty())
                TRY(answer_one());
            else if (!ahead_.empty())
                TRY(bring_one_ahead());
        }
        return {};
    }

  private:
    [[nodiscard]] Result<> take_events() {
        std::array<uffd_msg, events_at_once> events;
        const auto size = ::read(remote_.fd(), events.data(), sizeof events);
        if (size < 0 && errno != EAGAIN && errno != EINTR)
            return fail_errno(errno, "cannot read page faults");
        const auto count = size < 0 ? 0 : static_cast<std::size_t>(size) / sizeof(uffd_msg);
        for (const auto& event : std::span(events).first(count)) {
            if (event.event == UFFD_EVENT_PAGEFAULT)
                waiting_.push_back(event.arg.pagefault.address & ~(guest_page - 1));
            else if (event.event == UFFD_EVENT_REMOVE)
                forget(event.arg.remove.start, event.arg.remove.end);
        }
        return {};
    }

    // Given back to the host: from now on these read as zeros.
    void forget(std::uint64_t start, std::uint64_t end) {
        for (const auto& region : regions_) {
            const auto from = std::max(start, region.address);
            const auto to = std::min(end, region.address + region.size);
            for (auto address = from; address < to; address += guest_page)
                removed_.add((region.offset + (address - region.address)) / guest_page);
        }
    }

    [[nodiscard]] Result<> answer_one() {
        const auto address = waiting_.front();
        const auto region = std::ranges::find_if(regions_, [&](const auto& one) {
            return address >= one.address && address - one.address < one.size;
        });
        if (region == regions_.end())
            return fail("a page fault at {:#x}, outside of the memory to be served", address);
        const auto offset = region->offset + (address - region->address);
        const auto placed = removed_.has(offset / guest_page)
                                ? TRY(remote_.zero(address, guest_page))
                                : TRY(bring_in(offset / memory_.index.chunk_size));
        heed(placed);
        if (placed == Placed::Done)
            waiting_.pop_front();
        return {};
    }

    [[nodiscard]] Result<> bring_one_ahead() {
        const auto chunk = ahead_.front();
        const auto placed = loaded_[chunk] ? Placed::Done : TRY(bring_in(chunk));
        heed(placed);
        if (placed == Placed::Done)
            ahead_.pop_front();
        return {};
    }

    void heed(Placed placed) {
        gone_ = gone_ || placed == Placed::Gone;
        deferred_ = placed == Placed::Later;
    }

    // All of a chunk that lies in a region and was not given back.
    [[nodiscard]] Result<Placed> bring_in(std::size_t chunk) {
        const auto start = chunk * memory_.index.chunk_size;
        const auto size = memory_.index.size_of(chunk);
        const bool zeros = memory_.index.chunks[chunk].size == 0;
        if (!zeros && buffered_ != chunk) {
            buffered_.reset();
            if (auto read = reader_.read(memory_.file.get(), memory_.index, chunk,
                                         std::span(buffer_).first(size));
                !read)
                return fail("the compressed memory file {} is damaged: {}", memory_.path,
                            read.error().message);
            buffered_ = chunk;
        }
        for (const auto& region : regions_) {
            const auto from = std::max<std::uint64_t>(start, region.offset);
            const auto to = std::min(start + size, region.offset + region.size);
            if (from >= to)
                continue;
            const auto placed =
                TRY(place_kept(region.address + (from - region.offset), from, to, start, zeros));
            if (placed != Placed::Done)
                return placed;
        }
        loaded_[chunk] = true;
        return Placed::Done;
    }

    // The runs of pages of the file's [from, to) that were not given back. `start`: of the buffer.
    [[nodiscard]] Result<Placed> place_kept(std::uint64_t address, std::uint64_t from,
                                            std::uint64_t to, std::uint64_t start, bool zeros) {
        for (auto place = from; place < to;) {
            auto end = place;
            while (end < to && !removed_.has(end / guest_page))
                end += guest_page;
            if (end > place) {
                const auto target = address + (place - from);
                const auto placed =
                    zeros ? TRY(remote_.zero(target, end - place))
                          : TRY(remote_.copy(target, std::span<const std::byte>(buffer_).subspan(
                                                         place - start, end - place)));
                if (placed != Placed::Done)
                    return placed;
            }
            place = std::max(end, place + guest_page);
        }
        return Placed::Done;
    }

    CompressedMemory memory_;
    RemoteMemory remote_;
    std::vector<ServedRegion> regions_;
    std::deque<std::size_t> ahead_;      // chunks to bring in unasked
    std::deque<std::uint64_t> waiting_;  // addresses of pages that somebody waits for
    PageSet removed_;                    // by place in the file
    std::vector<bool> loaded_;           // by chunk
    ChunkReader reader_;
    std::vector<std::byte> buffer_;
    std::optional<std::size_t> buffered_;  // the chunk in the buffer
    bool deferred_ = false;                // the kernel wants to tell of something first
    bool gone_ = false;
};

Result<CompressedMemory> open_memory(const std::string& directory, snapshot::SnapshotId& id) {
    const auto state = TRY(
        read_file(fmt::format("{}/{}", directory, snapshot::state_name), snapshot::max_state_size));
    id = snapshot::id_of(std::as_bytes(std::span(state)));
    auto memory = TRY(
        open_compressed_memory(fmt::format("{}/{}", directory, snapshot::compressed_memory_name)));
    if (memory.index.belongs_to != id)
        return fail("{} is the memory of another snapshot", memory.path);
    return memory;
}

// The chunks with pages of the working set, those that will be written to first.
std::vector<std::size_t> chunks_ahead(const std::string& directory, const ChunkIndex& index) {
    const auto path = fmt::format("{}/{}", directory, snapshot::working_set_name);
    std::vector<std::size_t> chunks;
    if (::access(path.c_str(), F_OK) < 0)
        return chunks;
    const auto list =
        snapshot::load_page_list(path, snapshot::PageListKind::WorkingSet, index.memory_bytes);
    if (!list || list->belongs_to != index.belongs_to) {
        note(list ? fmt::format("the working set {} is of another snapshot", path)
                  : list.error().message);
        return chunks;
    }
    std::vector<bool> listed(index.chunks.size());
    for (const auto use : {snapshot::PageUse::Written, snapshot::PageUse::Read})
        for (const auto& run : list->runs) {
            if (run.use != static_cast<std::uint32_t>(use))
                continue;
            const auto last = (run.first + run.count) * guest_page - 1;
            for (auto chunk = run.first * guest_page / index.chunk_size;
                 chunk <= last / index.chunk_size; ++chunk)
                if (!listed[chunk]) {
                    listed[chunk] = true;
                    chunks.push_back(chunk);
                }
        }
    return chunks;
}

// One connection; nobody else finds the socket afterwards.
Result<Fd> accept_monitor(const Fd& listener, const Fd& hope) {
    std::array<pollfd, 2> waits{pollfd{listener.get(), POLLIN, 0}, pollfd{hope.get(), 0, 0}};
    while (::poll(waits.data(), waits.size(), -1) < 0 && errno == EINTR) {
    }
    sockaddr_un address{};
    socklen_t size = sizeof address;
    // NOLINTNEXTLINE: the sockets API takes every address as sockaddr
    if (::getsockname(listener.get(), reinterpret_cast<sockaddr*>(&address), &size) == 0)
        ::unlink(address.sun_path);
    if ((waits[0].revents & POLLIN) == 0)
        return fail("no monitor came for its memory");
    Fd monitor(::accept4(listener.get(), nullptr, nullptr, SOCK_CLOEXEC));
    if (!monitor)
        return fail_errno(errno, "cannot accept the monitor");
    return monitor;
}

struct Handover {
    std::string regions;
    Fd faults;
};
Result<Handover> receive(const Fd& monitor) {
    std::string regions(max_message, '\0');
    auto message =
        receive_with_descriptors(monitor.get(), std::as_writable_bytes(std::span(regions)));
    if (message.size <= 0)
        return fail_errno(message.size < 0 ? errno : ECONNRESET, "the monitor hands nothing over");
    regions.resize(static_cast<std::size_t>(message.size));
    if (message.passed.size() != 1)
        return fail("the monitor hands over no userfaultfd");
    auto& faults = message.passed.front();
    // Reading it must not block.
    ::fcntl(faults.get(), F_SETFL, ::fcntl(faults.get(), F_GETFL) | O_NONBLOCK);
    return Handover{.regions = std::move(regions), .faults = std::move(faults)};
}

Result<> serve(const std::string& directory, const Fd& monitor, bool working_set) {
    auto handover = TRY(receive(monitor));
    snapshot::SnapshotId id;
    auto memory = TRY(open_memory(directory, id));
    auto regions = TRY(parse_served_regions(handover.regions, memory.index.memory_bytes));
    auto ahead = working_set ? chunks_ahead(directory, memory.index) : std::vector<std::size_t>();
    PageServer server(std::move(memory), RemoteMemory(std::move(handover.faults)),
                      std::move(regions), std::move(ahead));
    return server.run(monitor.get());
}

// Of [start, start + size) pairs.
bool overlap(std::vector<std::pair<std::uint64_t, std::uint64_t>> ranges) {
    std::ranges::sort(ranges);
    for (std::size_t i = 1; i < ranges.size(); ++i)
        if (ranges[i].first - ranges[i - 1].first < ranges[i - 1].second)
            return true;
    return false;
}

Result<ServedRegion> parse_region(const json::value& value, std::uint64_t memory_bytes) {
    const auto* object = value.if_object();
    const auto number = [&](std::string_view key) -> std::optional<std::uint64_t> {
        const auto* member = object == nullptr ? nullptr : object->if_contains(key);
        boost::system::error_code error;
        const auto read = member == nullptr ? 0 : member->to_number<std::uint64_t>(error);
        return member == nullptr || error ? std::nullopt : std::optional(read);
    };
    const auto address = number("base_host_virt_addr");
    const auto size = number("size");
    const auto offset = number("offset");
    if (!address || !size || !offset)
        return fail("a region of memory without base_host_virt_addr, size or offset");
    if (number("page_size").value_or(guest_page) != guest_page)
        return fail("a region of memory of other pages than 4 KiB");
    if (*size == 0 || (*address | *size | *offset) % guest_page != 0 || *offset > memory_bytes ||
        *size > memory_bytes - *offset || *address > ~0ULL - *size)
        return fail("a region of memory that is not in the memory file: {} bytes from {} on", *size,
                    *offset);
    return ServedRegion{.address = *address, .size = *size, .offset = *offset};
}

}  // namespace

Result<std::vector<ServedRegion>> parse_served_regions(std::string_view text,
                                                       std::uint64_t memory_bytes) {
    boost::system::error_code error;
    const auto value = json::parse(text, error);
    if (error || !value.is_array() || value.get_array().empty() ||
        value.get_array().size() > max_regions)
        return fail("the monitor's message is no JSON array of 1 to {} regions", max_regions);
    std::vector<ServedRegion> regions;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> in_memory;
    std::vector<std::pair<std::uint64_t, std::uint64_t>> in_file;
    for (const auto& element : value.get_array()) {
        regions.push_back(TRY(parse_region(element, memory_bytes)));
        in_memory.emplace_back(regions.back().address, regions.back().size);
        in_file.emplace_back(regions.back().offset, regions.back().size);
    }
    if (overlap(std::move(in_memory)) || overlap(std::move(in_file)))
        return fail("regions of memory that overlap");
    return regions;
}

Result<> serve_pages(const std::string& directory, Fd listener, bool working_set, Fd hope) {
    ::prctl(PR_SET_NAME, "masu-pages");
    ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0);
    const auto monitor = TRY(accept_monitor(listener, hope));
    listener.reset();
    hope.reset();
    auto served = serve(directory, monitor, working_set);
    if (!served) {
        const auto& why = served.error().message;
        std::ignore = ::send(monitor.get(), why.data(), why.size(), MSG_NOSIGNAL | MSG_DONTWAIT);
    }
    return served;
}

}  // namespace masu::cli
