// The page server and a monitor's side of it, in one process; without KVM.
#include "tools/masu/page_server.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/userfaultfd.h>
#include <sys/ioctl.h>
#include <sys/mman.h>
#include <sys/socket.h>
#include <sys/un.h>
#include <unistd.h>

#include <array>
#include <atomic>
#include <cstring>
#include <filesystem>
#include <fstream>
#include <future>
#include <random>
#include <thread>

#include "base/bytes.hpp"
#include "tools/masu/compressed_memory.hpp"
#include "vmm/page_set.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/page_list.hpp"
#include "vmm/snapshot/save.hpp"
#include "vmm/snapshot/served_memory.hpp"

using namespace masu;
using namespace masu::cli;
namespace fs = std::filesystem;

namespace {

using Bytes = std::vector<std::byte>;
constexpr std::uint64_t memory_bytes = 3 * MiB;

bool faults_can_be_handled() {
    const auto faults = snapshot::open_userfaultfd();
    if (!faults)
        MESSAGE("not tested here: ", faults.error().message);
    return faults.has_value();
}

Result<std::unique_ptr<snapshot::ServedMemory>> serve(const kvm::GuestRam& ram,
                                                      const std::string& socket,
                                                      snapshot::ServedMemory::Lost lost) {
    return snapshot::ServedMemory::connect(ram, TRY(snapshot::open_userfaultfd()), socket,
                                           jail::FilterMode::Off, std::move(lost));
}

void write_file(const std::string& path, std::span<const std::byte> bytes) {
    std::ofstream file(path, std::ios::binary);
    file.write(reinterpret_cast<const char*>(bytes.data()),
               static_cast<std::streamsize>(bytes.size()));
}

// A directory with a state file, compressed memory, and a socket.
class ServedFolder {
  public:
    ServedFolder() : memory(memory_bytes) {
        REQUIRE(::mkdtemp(path.data()) != nullptr);
        std::mt19937 random(3);
        // The second and third MiB; of those every fifth page.
        for (std::size_t page = 256; page < memory.size() / guest_page; page += 5)
            for (std::size_t i = 0; i < guest_page; ++i)
                memory[page * guest_page + i] = static_cast<std::byte>(random());
        const Bytes state(100, std::byte{1});
        id = snapshot::id_of(state);
        write_file(path + "/state", state);
        write_file(path + "/memory", memory);
        const Fd from(::open((path + "/memory").c_str(), O_RDONLY | O_CLOEXEC));
        const auto to_path = path + "/" + snapshot::compressed_memory_name;
        const Fd to(::open(to_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        REQUIRE(compress_memory(from.get(), to.get(), to_path, id,
                                [](std::uint64_t) { return Result<>(); }));
    }
    ~ServedFolder() { fs::remove_all(path); }
    ServedFolder(const ServedFolder&) = delete;
    ServedFolder& operator=(const ServedFolder&) = delete;

    [[nodiscard]] std::string socket() const { return path + "/pages"; }
    [[nodiscard]] Fd listen() const {
        Fd listener(::socket(AF_UNIX, SOCK_STREAM | SOCK_CLOEXEC, 0));
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        socket().copy(address.sun_path, sizeof address.sun_path - 1);
        REQUIRE(::bind(listener.get(), reinterpret_cast<const sockaddr*>(&address),
                       sizeof address) == 0);
        REQUIRE(::listen(listener.get(), 1) == 0);
        return listener;
    }
    // The server on a thread of its own.
    [[nodiscard]] std::future<Result<>> serve(bool working_set = true) const {
        return std::async(std::launch::async,
                          [directory = path, working_set, listener = listen()]() mutable {
                              return serve_pages(directory, std::move(listener), working_set);
                          });
    }

    std::string path = "/tmp/masu-pages-test-XXXXXX";
    Bytes memory;
    snapshot::SnapshotId id{};
};

// What became of the connection, from the monitor's side.
struct Ending {
    std::promise<std::string> reason;
    snapshot::ServedMemory::Lost lost() {
        return [this](std::string why) { reason.set_value(std::move(why)); };
    }
};

// Receives what a monitor sends: the text, and the descriptor.
std::pair<std::string, Fd> receive_handover(const Fd& connection) {
    std::string text(4096, '\0');
    iovec piece{.iov_base = text.data(), .iov_len = text.size()};
    alignas(cmsghdr) std::array<char, CMSG_SPACE(sizeof(int))> control{};
    msghdr message{};
    message.msg_iov = &piece;
    message.msg_iovlen = 1;
    message.msg_control = control.data();
    message.msg_controllen = control.size();
    const auto size = ::recvmsg(connection.get(), &message, 0);
    REQUIRE(size > 0);
    text.resize(static_cast<std::size_t>(size));
    const auto* header = CMSG_FIRSTHDR(&message);
    REQUIRE(header != nullptr);
    int number = -1;
    std::memcpy(&number, CMSG_DATA(header), sizeof number);
    return {text, Fd(number)};
}

void fill(const Fd& faults, const kvm::GuestRam& ram, std::uint64_t bytes) {
    const Bytes content(bytes, std::byte{0x42});
    uffdio_copy copy{.dst = reinterpret_cast<std::uintptr_t>(ram.bytes().data()),
                     .src = reinterpret_cast<std::uintptr_t>(content.data()),
                     .len = bytes,
                     .mode = 0,
                     .copy = 0};
    REQUIRE(::ioctl(faults.get(), UFFDIO_COPY, &copy) == 0);
}

}  // namespace

TEST_CASE("a monitor's message is parsed, and what cannot be is refused") {
    const auto parsed = parse_served_regions(
        R"([{"base_host_virt_addr": 1048576, "size": 8192, "offset": 0, "page_size": 4096,
             "page_size_kib": 4096},
            {"base_host_virt_addr": 65536, "size": 4096, "offset": 8192}])",
        memory_bytes);
    REQUIRE(parsed);
    CHECK(*parsed == std::vector<ServedRegion>{{1048576, 8192, 0}, {65536, 4096, 8192}});
    const std::pair<const char*, const char*> bad[]{
        {"", "no JSON array"},
        {"{}", "no JSON array"},
        {"[]", "no JSON array"},
        {"[1]", "without base_host_virt_addr"},
        {R"([{"base_host_virt_addr": 0, "size": 4096}])", "without base_host_virt_addr"},
        {R"([{"base_host_virt_addr": -1, "size": 4096, "offset": 0}])", "without"},
        {R"([{"base_host_virt_addr": 0, "size": 0, "offset": 0}])", "not in the memory file"},
        {R"([{"base_host_virt_addr": 1, "size": 4096, "offset": 0}])", "not in the memory file"},
        {R"([{"base_host_virt_addr": 0, "size": 4194304, "offset": 0}])", "not in the memory file"},
        {R"([{"base_host_virt_addr": 0, "size": 4096, "offset": 3145728}])", "not in the memory"},
        {R"([{"base_host_virt_addr": 18446744073709547520, "size": 8192, "offset": 0}])",
         "not in the memory file"},
        {R"([{"base_host_virt_addr": 0, "size": 4096, "offset": 0, "page_size": 2097152}])",
         "other pages"},
        {R"([{"base_host_virt_addr": 0, "size": 8192, "offset": 0},
             {"base_host_virt_addr": 4096, "size": 4096, "offset": 8192}])",
         "overlap"},
        {R"([{"base_host_virt_addr": 0, "size": 8192, "offset": 0},
             {"base_host_virt_addr": 8192, "size": 4096, "offset": 4096}])",
         "overlap"}};
    for (const auto& [text, why] : bad) {
        CAPTURE(text);
        const auto refused = parse_served_regions(text, memory_bytes);
        REQUIRE_FALSE(refused);
        CHECK(refused.error().message.contains(why));
    }
}

TEST_CASE("memory is served page by page, as it was, to several threads") {
    if (!faults_can_be_handled())
        return;
    const ServedFolder folder;
    auto server = folder.serve();
    const auto ram = *kvm::GuestRam::create_served(memory_bytes);
    CHECK_FALSE(ram.anonymous());
    {
        Ending ending;
        const auto served = serve(ram, folder.socket(), ending.lost());
        REQUIRE_MESSAGE(served, served.error().message);
        std::atomic<int> wrong{0};
        {
            std::vector<std::jthread> readers;
            for (unsigned seed = 0; seed < 4; ++seed)
                readers.emplace_back([&, seed] {
                    std::mt19937 random(seed);
                    for (int i = 0; i < 300; ++i) {
                        const auto place = random() % memory_bytes;
                        wrong += ram.bytes()[place] != folder.memory[place];
                    }
                });
        }
        CHECK(wrong == 0);
        CHECK(std::ranges::equal(ram.bytes(), folder.memory));
        CHECK_FALSE(fs::exists(folder.socket()));  // nobody else finds it
    }
    CHECK(server.get());  // it ended with the monitor
}

TEST_CASE("only what was touched is brought in; then it is told as this process's own") {
    if (!faults_can_be_handled())
        return;
    const ServedFolder folder;
    auto server = folder.serve();
    const auto ram = *kvm::GuestRam::create_served(memory_bytes);
    Ending ending;
    const auto served = *serve(ram, folder.socket(), ending.lost());
    CHECK(snapshot::touched_pages(ram).count() == 0);
    ram.bytes()[2 * MiB] = std::byte{7};
    const auto touched = snapshot::touched_pages(ram);
    CHECK(touched.has(2 * MiB / guest_page));
    CHECK(touched.count() == default_chunk_size / guest_page);
    // A save reads what nobody has touched through the server.
    const auto path = folder.path + "/again";
    const Fd file(::open(path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
    REQUIRE(snapshot::write_memory(ram, file.get(), path));
    Bytes saved(memory_bytes);
    REQUIRE(::pread(file.get(), saved.data(), saved.size(), 0) ==
            static_cast<ssize_t>(saved.size()));
    auto expected = folder.memory;
    expected[2 * MiB] = std::byte{7};
    CHECK(saved == expected);
}

TEST_CASE("the working set comes without being asked for") {
    if (!faults_can_be_handled())
        return;
    const ServedFolder folder;
    const auto list = encode(snapshot::PageList{
        .kind = snapshot::PageListKind::WorkingSet,
        .memory_bytes = memory_bytes,
        .belongs_to = folder.id,
        .runs = {{.first = 300, .count = 2, .use = 0}, {.first = 600, .count = 40, .use = 1}}});
    write_file(folder.path + "/" + snapshot::working_set_name, list);
    auto server = folder.serve();
    const auto ram = *kvm::GuestRam::create_served(memory_bytes);
    Ending ending;
    const auto served = *serve(ram, folder.socket(), ending.lost());
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(20);
    const auto here = [&](std::size_t page) { return snapshot::touched_pages(ram).has(page); };
    while (!(here(300) && here(301) && here(600) && here(639)) &&
           std::chrono::steady_clock::now() < deadline)
        std::this_thread::yield();
    const auto touched = snapshot::touched_pages(ram);
    for (const std::size_t page : {300, 301, 600, 639})
        CHECK(touched.has(page));
    CHECK_FALSE(touched.has(0));
    CHECK_FALSE(touched.has(memory_bytes / guest_page - 1));
}

TEST_CASE("pages that were given back are zeros from then on") {
    if (!faults_can_be_handled())
        return;
    const ServedFolder folder;
    auto server = folder.serve();
    const auto ram = *kvm::GuestRam::create_served(memory_bytes);
    Ending ending;
    const auto served = *serve(ram, folder.socket(), ending.lost());
    // One that is there, one that is not; the rest of their chunks as it was.
    const auto first = 256 * guest_page;
    const auto second = 2 * MiB + guest_page * 3;
    CHECK(ram.bytes()[first] == folder.memory[first]);
    for (const auto place : {first, second})
        REQUIRE(::madvise(ram.bytes().data() + place, guest_page, MADV_DONTNEED) == 0);
    auto expected = folder.memory;
    for (const auto place : {first, second})
        std::memset(expected.data() + place, 0, guest_page);
    CHECK(std::ranges::equal(ram.bytes(), expected));
}

TEST_CASE("memory that is damaged, or of another snapshot, ends the server with the reason") {
    if (!faults_can_be_handled())
        return;
    const ServedFolder folder;
    const auto compressed = folder.path + "/" + snapshot::compressed_memory_name;
    std::string expected;
    SUBCASE("damaged") {
        const auto open = *open_compressed_memory(compressed);
        const auto& chunk = open.index.chunks[2 * MiB / default_chunk_size];
        REQUIRE(chunk.size > 0);
        const Fd file(::open(compressed.c_str(), O_RDWR | O_CLOEXEC));
        REQUIRE(::pwrite(file.get(), "x", 1, static_cast<off_t>(chunk.offset + 10)) == 1);
        expected = "checksum";
    }
    SUBCASE("of another") {
        write_file(folder.path + "/state", Bytes(3));
        expected = "another snapshot";
    }
    SUBCASE("gone") {
        fs::remove(compressed);
        expected = "cannot open the compressed memory file";
    }
    auto server = folder.serve();
    const auto ram = *kvm::GuestRam::create_served(memory_bytes);
    Ending ending;
    auto reason = ending.reason.get_future();
    auto served = *serve(ram, folder.socket(), ending.lost());
    // This one waits for a page that does not come, until nobody handles faults any more.
    std::thread reader([&] { static_cast<void>(std::atomic_ref(ram.bytes()[2 * MiB]).load()); });
    REQUIRE(reason.wait_for(std::chrono::seconds(20)) == std::future_status::ready);
    const auto text = reason.get();
    CHECK(text.starts_with("the handler of guest memory's page faults gave up: "));
    CHECK(text.contains(expected));
    CHECK_FALSE(server.get());
    served.reset();
    reader.join();
}

TEST_CASE(
    "a handler hears of the regions as Firecracker tells them, and may leave when all is there") {
    if (!faults_can_be_handled())
        return;
    const ServedFolder folder;
    for (const bool all : {true, false}) {
        CAPTURE(all);
        const auto listener = folder.listen();
        const auto ram = *kvm::GuestRam::create_served(memory_bytes);
        Ending ending;
        auto reason = ending.reason.get_future();
        auto served = *serve(ram, folder.socket(), ending.lost());
        {
            const Fd connection(::accept(listener.get(), nullptr, nullptr));
            const auto [text, faults] = receive_handover(connection);
            CHECK(text == fmt::format(R"([{{"base_host_virt_addr":{},"size":{},"offset":0,)"
                                      R"("page_size":4096,"page_size_kib":4096}}])",
                                      reinterpret_cast<std::uintptr_t>(ram.bytes().data()),
                                      memory_bytes));
            fill(faults, ram, all ? memory_bytes : memory_bytes - guest_page);
        }
        if (all) {
            CHECK(reason.wait_for(std::chrono::milliseconds(200)) == std::future_status::timeout);
            served.reset();
            CHECK(ram.bytes()[memory_bytes - 1] == std::byte{0x42});
        } else {
            REQUIRE(reason.wait_for(std::chrono::seconds(20)) == std::future_status::ready);
            CHECK(reason.get().contains("page faults ended"));
        }
        fs::remove(folder.socket());
    }
}

TEST_CASE("a socket where nobody listens is told") {
    if (!faults_can_be_handled())
        return;
    const auto ram = *kvm::GuestRam::create_served(memory_bytes);
    const auto served = serve(ram, "/nonexistent/pages", [](const std::string&) {});
    REQUIRE_FALSE(served);
    CHECK(
        served.error().message.starts_with("no page fault handler listens at /nonexistent/pages"));
}
