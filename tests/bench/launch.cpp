// launch [--no-jail] [--output text|json] [--level LEVEL] [--floor PROGRAM] [--masu-vmm PROGRAM]
// [--folder FOLDER] [N]...: how long a copy of a snapshot takes from the trigger to the guest's
// first exit and to its first reply over the network, and then to its end, beside the bare ioctls
// that any monitor must make, measured in turn. On any /dev/kvm.
//
// Levels: "fresh" starts a program at the trigger; "forked" has its process, has read the state,
// and has made what needs no memory; "loaded" has all but the vCPU's state. Masu's copies have a
// disk with an overlay, a network interface, a vsock and a jail; the floor's have one memory slot
// and one vCPU.
//
// Two floors: the bare one has no jail when it is fresh, and makes its VM after the trigger when it
// is forked. The like one does the same work as Masu before the trigger and after it: in a jail
// when fresh ("fresh-jailed"), with VM and vCPU made ahead when forked ("forked-vm"). Loaded, the
// two are one.
#include <unistd.h>

#include <algorithm>
#include <array>
#include <cstdio>
#include <cstdlib>
#include <exception>
#include <optional>
#include <string>
#include <thread>
#include <tuple>

#include "tests/bench/launch_sides.hpp"
#include "vmm/api/json_writer.hpp"

namespace masu::bench {
namespace {

constexpr std::size_t launches = 200;  // of a row, about
constexpr std::size_t single_launches = 50;
constexpr auto idle = std::chrono::milliseconds(60);  // before each trigger: arrivals are spaced
constexpr std::size_t clones_for_memory = 100;

struct Row {
    Level level = Level::Fresh;
    std::size_t at_once = 1;
    struct Side {
        Percentiles first_exit;
        Percentiles reply;
        Percentiles end;
    } floor, like, masu;
};

std::string_view to_string(Level level) {
    constexpr std::array<std::string_view, 3> names{"fresh", "forked", "loaded"};
    return names[static_cast<std::size_t>(level)];
}

constexpr std::array all_levels{Level::Fresh, Level::Forked, Level::Loaded};

std::optional<Level> parse_level(std::string_view name) {
    const auto found = std::ranges::find(all_levels, name, to_string);
    return found == all_levels.end() ? std::nullopt : std::optional(*found);
}

std::string like_floor(Level level) {
    constexpr std::array<std::string_view, 3> names{"fresh-jailed", "forked-vm", "loaded"};
    return std::string(names[static_cast<std::size_t>(level)]);
}

Row::Side summary(const std::vector<LaunchTimes>& all) {
    std::vector<double> exits;
    std::vector<double> replies;
    std::vector<double> ends;
    const auto milliseconds = [](Nanoseconds from, Nanoseconds to) {
        return static_cast<double>(to - from) / 1e6;
    };
    for (const auto& one : all) {
        exits.push_back(milliseconds(one.trigger, one.first_exit));
        if (one.reply != 0)
            replies.push_back(milliseconds(one.trigger, one.reply));
        ends.push_back(milliseconds(one.end_asked, one.ended));
    }
    return {percentiles(exits), percentiles(replies), percentiles(ends)};
}

// In turn, so that what else the machine does meets both. The first round of each fills caches.
Row measure(const test::CloneTemplate& from, const Programs& programs, Level level,
            std::size_t count) {
    const std::array sides{make_floor(from, programs, std::string(to_string(level)), count),
                           make_floor(from, programs, like_floor(level), count),
                           make_masu(from, programs, level, count)};
    std::array<std::vector<LaunchTimes>, sides.size()> times;
    const auto rounds =
        1 + (count == 1 ? single_launches : std::max<std::size_t>(3, launches / count));
    for (std::size_t round = 0; round < rounds; ++round)
        for (std::size_t i = 0; i < sides.size(); ++i) {
            sides[i]->prepare();
            std::this_thread::sleep_for(idle);
            const auto some = sides[i]->launch_all();
            if (round > 0)
                times[i].insert(times[i].end(), some.begin(), some.end());
        }
    return {level, count, summary(times[0]), summary(times[1]), summary(times[2])};
}

void print_head() {
    std::printf("%-7s %5s | %8s %8s | %8s %8s | %8s %8s | %6s %6s | %6s %6s | %8s %8s | %8s %8s\n",
                "level", "N", "floor", "p99", "like", "p99", "masu", "p99", "/floor", "p99",
                "/like", "p99", "reply", "p99", "end", "floor's");
}

void print(const Row& row) {
    const auto& [floor, like, masu] =
        std::tie(row.floor.first_exit, row.like.first_exit, row.masu.first_exit);
    std::printf(
        "%-7s %5zu | %8.3f %8.3f | %8.3f %8.3f | %8.3f %8.3f | %6.2f %6.2f | %6.2f %6.2f | %8.3f "
        "%8.3f | %8.3f %8.3f\n",
        std::string(to_string(row.level)).c_str(), row.at_once, floor.p50, floor.p99, like.p50,
        like.p99, masu.p50, masu.p99, masu.p50 / floor.p50, masu.p99 / floor.p99,
        masu.p50 / like.p50, masu.p99 / like.p99, row.masu.reply.p50, row.masu.reply.p99,
        row.masu.end.p50, row.floor.end.p50);
    std::fflush(stdout);
}

std::string in_microseconds(const Percentiles& values) {
    return fmt::format(R"({{"p50_us": {:.0f}, "p99_us": {:.0f}}})", values.p50 * 1000,
                       values.p99 * 1000);
}

std::string as_json(const std::vector<Row>& rows, double memory_kib) {
    api::JsonWriter json;
    json.begin_object().key("launches").begin_array();
    for (const auto& row : rows) {
        json.begin_object()
            .field("level", to_string(row.level))
            .field("at_once", row.at_once)
            .key("floor_first_exit")
            .raw(in_microseconds(row.floor.first_exit))
            .field("like_floor", like_floor(row.level))
            .key("like_floor_first_exit")
            .raw(in_microseconds(row.like.first_exit))
            .key("first_exit")
            .raw(in_microseconds(row.masu.first_exit))
            .key("first_reply")
            .raw(in_microseconds(row.masu.reply))
            .key("floor_end")
            .raw(in_microseconds(row.floor.end))
            .key("end")
            .raw(in_microseconds(row.masu.end))
            .key("p50_ratio")
            .raw(fmt::format("{:.3f}", row.masu.first_exit.p50 / row.floor.first_exit.p50))
            .key("p99_ratio")
            .raw(fmt::format("{:.3f}", row.masu.first_exit.p99 / row.floor.first_exit.p99))
            .key("p50_ratio_to_like")
            .raw(fmt::format("{:.3f}", row.masu.first_exit.p50 / row.like.first_exit.p50))
            .key("p99_ratio_to_like")
            .raw(fmt::format("{:.3f}", row.masu.first_exit.p99 / row.like.first_exit.p99))
            .end_object();
    }
    return json.end_array()
        .key("memory_per_clone_kib")
        .raw(fmt::format("{:.0f}", memory_kib))
        .end_object()
        .text();
}

int run(const Programs& programs, const std::vector<Level>& levels,
        const std::vector<std::size_t>& counts, bool json) {
    const test::CloneTemplate from;
    std::vector<Row> rows;
    if (!json)
        print_head();
    for (const auto level : levels)
        for (const auto count : counts) {
            rows.push_back(measure(from, programs, level, count));
            if (!json)
                print(rows.back());
        }
    // What others on the host take or give back meanwhile counts as well: the middle of three.
    std::array<double, 3> samples{};
    for (auto& sample : samples)
        sample = memory_per_clone(from, programs, clones_for_memory);
    std::ranges::sort(samples);
    const auto memory = samples[1];
    if (json)
        std::puts(as_json(rows, memory).c_str());
    else
        std::printf(
            "times in ms, medians first; like: the floor that does before and after the trigger "
            "what Masu does; memory: %.0f KiB a clone (host total, %zu clones)\n",
            memory, clones_for_memory);
    return 0;
}

std::string beside_this_program(const std::string& path) {
    std::string own(4096, '\0');
    const auto length = ::readlink("/proc/self/exe", own.data(), own.size());
    own.resize(length > 0 ? static_cast<std::size_t>(length) : 0);
    return own.substr(0, own.rfind('/') + 1) + path;
}

// Sockets and short-lived overlays belong in memory, and there is /run/user or this. On ext4 a file
// that takes the place of one deleted in the last five seconds is found in up to a millisecond.
std::string default_folder() {
    return ::access("/dev/shm", W_OK) == 0 ? "/dev/shm" : "/tmp";
}

int usage() {
    std::fprintf(stderr,
                 "usage: launch [--no-jail] [--output text|json] [--level fresh|forked|loaded] "
                 "[--floor PROGRAM] [--masu-vmm PROGRAM] [--folder FOLDER] [N]...\n"
                 "N: launches at once, at least 1 (default 1 8 32 100)\n"
                 "FOLDER: where the copies' overlays and sockets are made (default %s)\n",
                 default_folder().c_str());
    return 2;
}

int main(int count, char** arguments) {
    Programs programs{.floor = beside_this_program("launch-floor"),
                      .masu_vmm = beside_this_program("../../tools/masu-vmm/masu-vmm"),
                      .folder = default_folder()};
    std::vector<Level> levels;
    std::vector<std::size_t> counts;
    bool json = false;
    for (int i = 1; i < count; ++i) {
        const std::string_view word = arguments[i];
        const std::string_view value = i + 1 < count ? arguments[i + 1] : "";
        if (word == "--no-jail") {
            programs.jail.filters = jail::FilterMode::Off;
            continue;
        }
        if (word.starts_with("--")) {
            if (word == "--output" && (value == "text" || value == "json"))
                json = value == "json";
            else if (const auto level = parse_level(value); word == "--level" && level)
                levels.push_back(*level);
            else if (word == "--floor" && !value.empty())
                programs.floor = value;
            else if (word == "--masu-vmm" && !value.empty())
                programs.masu_vmm = value;
            else if (word == "--folder" && !value.empty())
                programs.folder = value;
            else
                return usage();
            ++i;
            continue;
        }
        counts.push_back(std::strtoul(arguments[i], nullptr, 10));
        if (counts.back() == 0)
            return usage();
    }
    if (counts.empty())
        counts = {1, 8, 32, 100};
    if (levels.empty())
        levels.assign(all_levels.begin(), all_levels.end());
    const test::TestFolder folder(programs.folder);
    programs.folder = folder.path();
    return run(programs, levels, counts, json);
}

}  // namespace
}  // namespace masu::bench

int main(int count, char** arguments) {
    try {
        return masu::bench::main(count, arguments);
    } catch (const std::exception& error) {
        std::fprintf(stderr, "launch: %s\n", error.what());
        return 1;
    }
}
