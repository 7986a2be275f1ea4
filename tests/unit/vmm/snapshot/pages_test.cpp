// Sets and lists of pages, and the saves that are made of them.
#include <doctest/doctest.h>
#include <fcntl.h>

#include <cstring>
#include <filesystem>
#include <fstream>
#include <random>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "devices/dirty_pages.hpp"
#include "tests/map_memory.hpp"
#include "tests/unit/vmm/snapshot/made_state.hpp"
#include "vmm/snapshot/collapse.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/page_list.hpp"
#include "vmm/snapshot/save.hpp"
#include "vmm/snapshot/working_set.hpp"

using namespace masu;
using namespace masu::snapshot;
using namespace masu::snapshot::test;
namespace fs = std::filesystem;

namespace {

constexpr std::uint64_t memory_bytes = 16 * MiB;

struct Folder {
    std::string path = "/tmp/masu-pages-test-XXXXXX";
    Folder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
    ~Folder() { fs::remove_all(path); }
    std::string operator/(const std::string& name) const { return path + "/" + name; }
};

MachineState state_number(std::uint64_t number) {
    auto state = made_state(Transport::Pci);
    state.memory_bytes = memory_bytes;
    state.wall_time = number;
    return state;
}

// Changes some pages, some of them to zeros.
PageSet scribble(const kvm::GuestRam& ram, std::mt19937& random) {
    PageSet pages(ram.size() / guest_page);
    for (int i = 0; i < 50; ++i) {
        const auto page = random() % pages.pages();
        std::memset(ram.bytes().data() + page * guest_page, static_cast<int>(random() % 3),
                    guest_page);
        pages.add(page);
    }
    return pages;
}

bool same(const kvm::GuestRam& ram, const std::string& path) {
    const auto file = read_file(path + "/memory", 2 * memory_bytes);
    return file && std::ranges::equal(std::as_bytes(std::span(*file)), ram.bytes());
}

PageList some_list() {
    return {.kind = PageListKind::OwnPages,
            .memory_bytes = memory_bytes,
            .belongs_to = {std::byte{1}, std::byte{2}},
            .runs = {{.first = 0, .count = 3, .use = 1}, {.first = 7, .count = 100, .use = 0}}};
}

}  // namespace

TEST_CASE("a set of pages comes as runs") {
    PageSet pages(200);
    CHECK(pages.runs().empty());
    for (const std::size_t page : {0, 1, 5, 62, 63, 64, 65, 127, 199})
        pages.add(page);
    CHECK(pages.runs() == std::vector<PageRun>{{0, 2}, {5, 1}, {62, 4}, {127, 1}, {199, 1}});
    CHECK(pages.count() == 9);
    PageSet all(130);
    for (std::size_t page = 0; page < 130; ++page)
        all.add(page);
    CHECK(all.runs() == std::vector<PageRun>{{0, 130}});
}

TEST_CASE("device writes are marked where they are, once the log is on") {
    std::vector<std::byte> ram(20 * 4096);
    DirtyPages dirty(ram);
    PageSet found(20);
    dirty.mark(ram.data(), 100);
    dirty.start();
    dirty.take(found.words());
    CHECK(found.count() == 0);
    dirty.mark(ram.data() + 4095, 2);
    dirty.mark(ram.data() + 5 * 4096, 0);
    dirty.mark(ram.data() + 19 * 4096, 100'000);
    dirty.mark(ram.data() + ram.size(), 1);
    dirty.take(found.words());
    CHECK(found.runs() == std::vector<PageRun>{{0, 2}, {19, 1}});
    found.clear();
    dirty.take(found.words());
    CHECK(found.count() == 0);
}

TEST_CASE("a list of pages is what was written, or is refused") {
    const auto list = some_list();
    const auto file = encode(list);
    const auto back = decode_page_list(file, PageListKind::OwnPages, memory_bytes);
    REQUIRE_MESSAGE(back, back.error().message);
    CHECK(back->runs == list.runs);
    CHECK(back->belongs_to == list.belongs_to);
    CHECK(back->pages() == 103);
    CHECK_FALSE(decode_page_list(file, PageListKind::WorkingSet, memory_bytes));
    CHECK_FALSE(decode_page_list(file, PageListKind::OwnPages, memory_bytes / 2));
    for (std::size_t size = 0; size < file.size(); ++size)
        CHECK_FALSE(
            decode_page_list(std::span(file).first(size), PageListKind::OwnPages, memory_bytes));
    for (std::size_t bit = 0; bit < file.size() * 8; ++bit) {
        auto changed = file;
        changed[bit / 8] ^= std::byte(1U << (bit % 8));
        CHECK_FALSE(decode_page_list(changed, PageListKind::OwnPages, memory_bytes));
    }
    auto wrong = list;
    wrong.runs[1].first = 2;
    CHECK_FALSE(decode_page_list(encode(wrong), PageListKind::OwnPages, memory_bytes));
    wrong.runs[1] = {.first = 4095, .count = 2, .use = 0};
    CHECK_FALSE(decode_page_list(encode(wrong), PageListKind::OwnPages, memory_bytes));
    wrong.runs[1] = {.first = 4095, .count = 1, .use = 2};
    CHECK_FALSE(decode_page_list(encode(wrong), PageListKind::OwnPages, memory_bytes));
}

TEST_CASE("differences over a base, and a chain made whole, are the memory they were taken of") {
    const Folder folder;
    std::mt19937 random(3);
    const auto ram = std::move(*kvm::GuestRam::create(memory_bytes, HugePages::None));
    scribble(ram, random);
    const auto base = save_directory(state_number(0), ram, {}, folder / "base");
    REQUIRE_MESSAGE(base, base.error().message);
    CHECK(same(ram, folder / "base"));
    PageSet since_base(ram.size() / guest_page);
    std::vector<std::string> chain{folder / "base"};
    auto parent = base->id;
    for (unsigned number = 1; number < 4; ++number) {
        const auto written = scribble(ram, random);
        since_base.merge(written);
        const auto over = folder / fmt::format("over-{}", number);
        const auto saved = save_directory(
            state_number(number), ram, {}, over, {},
            {.form = MemoryForm::OnBase, .base = base->memory.get(), .pages = &since_base});
        REQUIRE_MESSAGE(saved, saved.error().message);
        CHECK(same(ram, over));
        CHECK(saved->memory_written <= since_base.count() * guest_page);
        const auto own = folder / fmt::format("own-{}", number);
        const auto kept =
            save_directory(state_number(number), ram, {}, own, {},
                           {.form = MemoryForm::OwnPages, .pages = &written, .parent = parent});
        REQUIRE_MESSAGE(kept, kept.error().message);
        CHECK_FALSE(fs::exists(own + "/memory"));
        parent = kept->id;
        chain.push_back(own);
    }
    // Not on another than its parent, and not with a link left out.
    const auto last = chain.back();
    chain.pop_back();
    CHECK_FALSE(collapse(last, std::vector{chain[0], chain[1]}, [](auto, auto) {}));
    CHECK_FALSE(collapse(last, std::vector{chain[1]}, [](auto, auto) {}));
    CHECK_FALSE(collapse(last, {}, [](auto, auto) {}));
    CHECK_FALSE(fs::exists(last + "/memory"));
    CHECK(fs::exists(last + "/own-pages"));
    std::uint64_t done = 0;
    const auto stored = collapse(last, chain, [&](std::uint64_t now, std::uint64_t total) {
        CHECK(now > done);
        CHECK(now <= total);
        done = now;
    });
    REQUIRE_MESSAGE(stored, stored.error().message);
    CHECK(same(ram, last));
    CHECK_FALSE(fs::exists(last + "/own-pages"));
    CHECK_FALSE(fs::exists(last + "/memory.own"));
}

TEST_CASE("the working set is what was touched, and is brought in ahead") {
    const Folder folder;
    std::mt19937 random(4);
    const auto made = std::move(*kvm::GuestRam::create(memory_bytes, HugePages::None));
    std::memset(made.bytes().data(), 9, made.size());
    REQUIRE(save_directory(state_number(0), made, {}, folder / "base"));
    const auto memory = folder / "base" + "/memory";
    PageList list;
    {
        const auto ram = std::move(*masu::test::map_memory(memory, memory_bytes));
        for (const std::size_t page : {3, 4, 1000})
            ram.bytes()[page * guest_page] = std::byte{1};
        CHECK(static_cast<volatile std::byte&>(ram.bytes()[2000 * guest_page]) == std::byte{9});
        const auto found = look_at_working_set(ram, {});
        REQUIRE_MESSAGE(found, found.error().message);
        list = *found;
        PageSet written(memory_bytes / guest_page);
        PageSet read(memory_bytes / guest_page);
        for (const auto& run : list.runs)
            for (std::uint64_t page = run.first; page < run.first + run.count; ++page)
                (run.use == 1 ? written : read).add(page);
        CHECK(written.runs() == std::vector<PageRun>{{3, 2}, {1000, 1}});
        CHECK(read.has(2000));
        CHECK(written.runs() == touched_pages(ram).runs());
    }
    CHECK(decode_page_list(encode(list), PageListKind::WorkingSet, memory_bytes));
    const auto ram = std::move(*masu::test::map_memory(memory, memory_bytes));
    WorkingSetPopulation population(ram, list);
    population.wait();
    CHECK(population.error() == 0);
    CHECK(population.pages() == list.pages());
    CHECK(touched_pages(ram).runs() == std::vector<PageRun>{{3, 2}, {1000, 1}});
    CHECK(present_pages(ram)->shared.has(2000));
    CHECK(std::ranges::equal(ram.bytes(), made.bytes()));
}

TEST_CASE("a memory file of two-file differences has those pages and holes") {
    const Folder folder;
    const auto ram = std::move(*kvm::GuestRam::create(memory_bytes, HugePages::None));
    std::memset(ram.bytes().data(), 7, 8 * guest_page);
    PageSet pages(ram.size() / guest_page);
    pages.add(2);
    pages.add(100);  // of zeros, which is content all the same
    const auto saved =
        save_files(state_number(1), ram, folder / "state", folder / "memory", &pages);
    REQUIRE_MESSAGE(saved, saved.error().message);
    CHECK(saved->memory_written == 2 * guest_page);
    const Fd file(::open((folder / "memory").c_str(), O_RDONLY));
    CHECK(::lseek(file.get(), 0, SEEK_DATA) == 2 * 4096);
    CHECK(::lseek(file.get(), 2 * 4096, SEEK_HOLE) == 3 * 4096);
    CHECK(::lseek(file.get(), 3 * 4096, SEEK_DATA) == 100 * 4096);
}
