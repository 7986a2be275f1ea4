// firewall-bench [--output json]: what it costs to judge a packet, beside an allow-all firewall and
// beside plain random access to memory of the same size, measured in turn in one run.
#include <sys/mman.h>

#include <algorithm>
#include <cstdio>
#include <cstring>
#include <ctime>
#include <functional>
#include <string>
#include <vector>

#include "devices/net/firewall/firewall.hpp"
#include "devices/net/firewall/wire.hpp"

namespace masu::net {
namespace {

constexpr std::uint32_t flow_target = 1'000'000;
constexpr std::size_t packet_count = 1 << 12;  // of one round, each of a flow chosen at random
constexpr int rounds = 201;
constexpr Nanoseconds second = 1'000'000'000;
constexpr std::size_t frame_size = 74;
constexpr MacAddress guest_mac{6, 0, 0, 0, 0, 1};
constexpr MacAddress other_mac{6, 0, 0, 0, 0, 2};

using FrameBytes = std::array<std::byte, frame_size>;

// A small, fast generator (xorshift64*): the choice of packets must not cost what is measured.
class Random {
  public:
    std::uint64_t next() {
        state_ ^= state_ >> 12;
        state_ ^= state_ << 25;
        state_ ^= state_ >> 27;
        return state_ * 0x2545f4914f6cdd1dU;
    }

  private:
    std::uint64_t state_ = 0x9e3779b97f4a7c15U;
};

FrameBytes tcp_frame(Direction direction, std::uint32_t remote, std::uint16_t local_port,
                     std::uint16_t remote_port, std::uint8_t flags) {
    FrameBytes frame{};
    const bool out = direction == Direction::Egress;
    std::memcpy(&frame[0], (out ? other_mac : guest_mac).data(), 6);
    std::memcpy(&frame[6], (out ? guest_mac : other_mac).data(), 6);
    put16(&frame[12], 0x0800);
    auto* ip = &frame[14];
    put8(ip, 0x45);
    put16(ip + 2, frame_size - 14);
    put8(ip + 8, 64);
    put8(ip + 9, protocol::tcp);
    constexpr std::uint32_t local = 0x0a000001;
    put32(ip + 12, out ? local : remote);
    put32(ip + 16, out ? remote : local);
    auto* tcp = ip + 20;
    put16(tcp, out ? local_port : remote_port);
    put16(tcp + 2, out ? remote_port : local_port);
    put8(tcp + 12, 5 << 4);
    put8(tcp + 13, flags);
    return frame;
}

// Flow n of the guest's connections: to 16 ports of many hosts.
struct FlowEnds {
    std::uint32_t remote;
    std::uint16_t local_port;
    std::uint16_t remote_port;
};
FlowEnds ends_of(std::uint32_t flow) {
    return {0x2d000000U + flow / 16, static_cast<std::uint16_t>(32768 + flow % 28000),
            static_cast<std::uint16_t>(8000 + flow % 16)};
}

RuleSet rules(std::size_t count) {
    RuleSet set;
    for (std::size_t i = 0; i + 1 < count; ++i) {
        // Half of them ports of everyone, half of them ports of one network.
        Rule rule{.id = "sgr-" + std::to_string(i),
                  .direction = i % 2 == 0 ? Direction::Ingress : Direction::Egress,
                  .protocol = protocol::tcp};
        rule.from = static_cast<int>(10'000 + 20 * i);
        rule.to = rule.from + 25;
        rule.peer = i % 4 < 2
                        ? Prefix{Address::v4(0), 0}
                        : Prefix::canonical(Address::v4(static_cast<std::uint32_t>(i << 16)), 16);
        set.rules.push_back(rule);
    }
    set.rules.push_back({.id = "sgr-out",
                         .direction = Direction::Egress,
                         .protocol = protocol::tcp,
                         .from = 8000,
                         .to = 8015,
                         .peer = Prefix::canonical(Address::v4(0x2d000000), 8)});
    return set;
}

RuleSet allow_all() {
    RuleSet set;
    for (const auto direction : {Direction::Ingress, Direction::Egress})
        set.rules.push_back(
            {.id = "all", .direction = direction, .peer = Prefix{Address::v4(0), 0}});
    return set;
}

std::unique_ptr<Firewall> firewall_with(const RuleSet& set) {
    InterfaceConfig config;
    config.mac = guest_mac;
    config.addresses = {Address::v4(0x0a000001)};
    auto made = Firewall::create(config, {.max_flows = flow_target + flow_target / 16});
    auto compiled = compile(set, {});
    if (!made || !compiled) {
        std::fprintf(stderr, "%s\n", (made ? compiled.error() : made.error()).message.c_str());
        std::exit(1);
    }
    (*made)->replace_rules(*compiled);
    return std::move(*made);
}

// Of this thread's time on a processor: what others run meanwhile does not count.
double thread_nanoseconds() {
    timespec time{};
    ::clock_gettime(CLOCK_THREAD_CPUTIME_ID, &time);
    return 1e9 * static_cast<double>(time.tv_sec) + static_cast<double>(time.tv_nsec);
}

double nanoseconds_each(std::size_t count, const std::function<void()>& work) {
    const auto begin = thread_nanoseconds();
    work();
    return (thread_nanoseconds() - begin) / static_cast<double>(count);
}

// Every packet of a round is judged; all of them must pass, or the figure would be of another path.
void judge_all(Firewall& firewall, Direction direction, const std::vector<FrameBytes>& packets) {
    constexpr auto burst = Firewall::max_burst;
    for (std::size_t i = 0; i < packets.size(); i += burst) {
        const auto batch = std::span(packets).subspan(i, std::min(burst, packets.size() - i));
        for (std::size_t j = 0; j < batch.size(); ++j)
            firewall.prepare(j, direction, {batch[j], frame_size});
        for (std::size_t j = 0; j < batch.size(); ++j)
            if (!firewall.judge_prepared(j, direction, {batch[j], frame_size}, second).passes()) {
                std::fprintf(stderr, "a packet did not pass\n");
                std::exit(1);
            }
    }
}
void judge_one_by_one(Firewall& firewall, Direction direction,
                      const std::vector<FrameBytes>& packets) {
    for (const auto& packet : packets)
        if (!firewall.judge(direction, {packet, frame_size}, second).passes()) {
            std::fprintf(stderr, "a packet did not pass\n");
            std::exit(1);
        }
}

std::vector<FrameBytes> random_packets(Random& random, std::uint32_t flows, std::uint8_t flags) {
    std::vector<FrameBytes> packets(packet_count);
    for (auto& packet : packets) {
        const auto ends = ends_of(static_cast<std::uint32_t>(random.next() % flows));
        packet =
            tcp_frame(Direction::Egress, ends.remote, ends.local_port, ends.remote_port, flags);
    }
    return packets;
}

// 64 MiB of 64-byte lines, visited at random: the same misses with nothing else to do.
class MemoryFloor {
  public:
    explicit MemoryFloor(std::size_t bytes) : lines_(bytes / 64) {
        void* memory =
            ::mmap(nullptr, bytes, PROT_READ | PROT_WRITE, MAP_PRIVATE | MAP_ANONYMOUS, -1, 0);
        if (memory == MAP_FAILED)
            std::exit(1);
        ::madvise(memory, bytes, MADV_HUGEPAGE);
        memory_ = static_cast<std::byte*>(memory);
        std::memset(memory_, 1, bytes);
    }
    // One after the other: the address of each depends on what the last one held.
    void dependent(Random& random, std::size_t count) {
        std::uint64_t carry = 0;
        for (std::size_t i = 0; i < count; ++i)
            carry += static_cast<std::uint64_t>(memory_[((random.next() + carry) % lines_) * 64]);
        sink = carry;
    }
    std::uint64_t sink = 0;

  private:
    std::size_t lines_;
    std::byte* memory_ = nullptr;
};

struct Measurement {
    const char* what;
    std::function<double()> run;
    std::vector<double> samples;
    [[nodiscard]] double median() const {
        auto sorted = samples;
        std::ranges::sort(sorted);
        return sorted[sorted.size() / 2];
    }
};

double new_flows(Firewall& firewall) {
    std::vector<FrameBytes> packets(flow_target);
    for (std::uint32_t i = 0; i < flow_target; ++i) {
        const auto ends = ends_of(i);
        packets[i] = tcp_frame(Direction::Egress, ends.remote, ends.local_port, ends.remote_port,
                               tcp_flag::syn);
    }
    return nanoseconds_each(flow_target, [&] { judge_all(firewall, Direction::Egress, packets); });
}

int run(bool json) {
    Random random;
    auto many = firewall_with(rules(1000));
    const double creation = new_flows(*many);
    auto few = firewall_with(rules(1000));
    judge_one_by_one(*few, Direction::Egress, [] {
        std::vector<FrameBytes> syns;
        for (std::uint32_t i = 0; i < 1000; ++i) {
            const auto ends = ends_of(i);
            syns.push_back(tcp_frame(Direction::Egress, ends.remote, ends.local_port,
                                     ends.remote_port, tcp_flag::syn));
        }
        return syns;
    }());
    auto open = firewall_with(allow_all());
    // Everyone may come to port 8000, so these are judged by the rules alone.
    auto untracked_rules = rules(1000);
    untracked_rules.rules.push_back(
        {.id = "in", .direction = Direction::Ingress, .peer = Prefix{Address::v4(0), 0}});
    for (auto& rule : untracked_rules.rules)
        if (rule.id == "sgr-out")
            rule.peer = Prefix{Address::v4(0), 0};
    untracked_rules.rules.erase(untracked_rules.rules.begin());
    auto by_rules = firewall_with(untracked_rules);
    MemoryFloor floor(std::size_t{64} << 20);

    std::vector<Measurement> all{
        {"1M flows, 1000 rules",
         [&] {
             const auto packets = random_packets(random, flow_target, tcp_flag::ack);
             return nanoseconds_each(packet_count,
                                     [&] { judge_all(*many, Direction::Egress, packets); });
         },
         {}},
        {"the same, one by one",
         [&] {
             const auto packets = random_packets(random, flow_target, tcp_flag::ack);
             return nanoseconds_each(packet_count,
                                     [&] { judge_one_by_one(*many, Direction::Egress, packets); });
         },
         {}},
        {"1000 flows, 1000 rules",
         [&] {
             const auto packets = random_packets(random, 1000, tcp_flag::ack);
             return nanoseconds_each(packet_count,
                                     [&] { judge_all(*few, Direction::Egress, packets); });
         },
         {}},
        {"untracked, 1000 rules",
         [&] {
             const auto packets = random_packets(random, flow_target, tcp_flag::ack);
             return nanoseconds_each(packet_count,
                                     [&] { judge_all(*by_rules, Direction::Egress, packets); });
         },
         {}},
        {"allow-all",
         [&] {
             const auto packets = random_packets(random, flow_target, tcp_flag::ack);
             return nanoseconds_each(packet_count,
                                     [&] { judge_all(*open, Direction::Egress, packets); });
         },
         {}},
        {"one dependent cache miss",
         [&] {
             return nanoseconds_each(packet_count, [&] { floor.dependent(random, packet_count); });
         },
         {}},
    };
    for (int round = 0; round < rounds; ++round)
        for (auto& measurement : all)
            measurement.samples.push_back(measurement.run());

    const double allow = all[4].median();
    const double miss = all[5].median();
    const double flow_bytes =
        static_cast<double>(many->flow_memory()) / static_cast<double>(many->flow_count());
    if (json) {
        std::printf("{");
        for (const auto& m : all)
            std::printf("\"%s\": %.1f, ", m.what, m.median());
        std::printf("\"new flows a second\": %.0f, \"bytes a flow\": %.0f}\n", 1e9 / creation,
                    flow_bytes);
        return 0;
    }
    std::printf("%-28s %10s %12s %12s\n", "", "ns/packet", "x allow-all", "x cache miss");
    for (const auto& m : all)
        std::printf("%-28s %10.1f %12.2f %12.2f\n", m.what, m.median(), m.median() / allow,
                    m.median() / miss);
    std::printf("%-28s %10.2f million/s (growing from nothing to 1M)\n", "new flows",
                1e3 / creation);
    std::printf("%-28s %10.0f bytes of table a flow, %zu flows\n", "memory", flow_bytes,
                many->flow_count());
    return 0;
}

}  // namespace
}  // namespace masu::net

int main(int argc, char** argv) {
    const bool json =
        argc == 3 && std::string(argv[1]) == "--output" && std::string(argv[2]) == "json";
    if (argc != 1 && !json) {
        std::fprintf(stderr, "usage: firewall-bench [--output json]\n");
        return 2;
    }
    return masu::net::run(json);
}
