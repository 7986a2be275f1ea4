// Machines whose memory lies compressed and is brought in by a process of its own, or, where none
// may do that, unpacked before.
#include <doctest/doctest.h>
#include <fcntl.h>
#include <linux/filter.h>
#include <linux/seccomp.h>
#include <sys/ioctl.h>
#include <sys/prctl.h>
#include <sys/socket.h>
#include <sys/syscall.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <unistd.h>

#include <algorithm>
#include <chrono>
#include <csignal>
#include <cstddef>
#include <optional>
#include <random>
#include <thread>

#include "base/atomic_file.hpp"
#include "base/bytes.hpp"
#include "tests/kvm/snapshot_steps.hpp"
#include "tests/map_memory.hpp"
#include "tools/masu/compressed_memory.hpp"
#include "tools/masu/page_server.hpp"
#include "tools/masu/restored_memory.hpp"
#include "vmm/layout.hpp"
#include "vmm/snapshot/memory_file.hpp"
#include "vmm/snapshot/save.hpp"
#include "vmm/snapshot/served_memory.hpp"

using namespace masu;
using namespace masu::test;

namespace {

bool faults_can_be_handled() {
    const auto faults = snapshot::open_userfaultfd();
    if (!faults)
        MESSAGE("not tested here: ", faults.error().message);
    return faults.has_value();
}

// The exit status of a child that is about to end; one that does not is killed.
int status_of(pid_t child) {
    const auto deadline = std::chrono::steady_clock::now() + std::chrono::seconds(60);
    int status = 0;
    while (::waitpid(child, &status, WNOHANG) == 0) {
        if (std::chrono::steady_clock::now() > deadline)
            ::kill(child, SIGKILL);
        std::this_thread::sleep_for(std::chrono::milliseconds(5));
    }
    return status;
}

// The page server as a process; killed at the end, if it still runs.
class HandlerProcess {
  public:
    HandlerProcess(const std::string& directory, std::string socket)
        : socket_(std::move(socket)), listener_(::socket(AF_UNIX, SOCK_STREAM, 0)) {
        sockaddr_un address{};
        address.sun_family = AF_UNIX;
        socket_.copy(address.sun_path, sizeof address.sun_path - 1);
        REQUIRE(::bind(listener_.get(), reinterpret_cast<const sockaddr*>(&address),
                       sizeof address) == 0);
        REQUIRE(::listen(listener_.get(), 1) == 0);
        pid_ = ::fork();
        REQUIRE(pid_ >= 0);
        if (pid_ == 0) {
            const auto served = cli::serve_pages(directory, std::move(listener_), true);
            ::_exit(served ? 0 : 1);
        }
        listener_.reset();
    }
    ~HandlerProcess() {
        if (pid_ <= 0)
            return;
        kill();
        wait();
    }
    HandlerProcess(const HandlerProcess&) = delete;
    HandlerProcess& operator=(const HandlerProcess&) = delete;

    [[nodiscard]] const std::string& socket() const { return socket_; }
    void kill() const { ::kill(pid_, SIGKILL); }
    // Its exit status.
    int wait() { return status_of(std::exchange(pid_, 0)); }

  private:
    std::string socket_;
    Fd listener_;
    pid_t pid_ = 0;
};

// A snapshot of a payload that has run, compressed; and its memory, to compare with.
struct CompressedSnapshot {
    PayloadFiles files;
    std::string path = files.folder() / "snapshot";
    std::string plain = files.folder() / "memory";  // the file as it was saved

    CompressedSnapshot() {
        SnapshotMachine original(files.config());
        REQUIRE(original.machine().start());
        REQUIRE(original.run_for(20));
        REQUIRE(original.machine().pause());
        const auto saved = snapshot::save_directory(original.save(), original.machine().ram(),
                                                    files.config(), path);
        REQUIRE_MESSAGE(saved, saved.error().message);
        std::filesystem::rename(path + "/memory", plain);
        const auto to_path = path + "/" + snapshot::compressed_memory_name;
        const Fd from(::open(plain.c_str(), O_RDONLY | O_CLOEXEC));
        const Fd to(::open(to_path.c_str(), O_RDWR | O_CREAT | O_CLOEXEC, 0600));
        const auto size = cli::compress_memory(from.get(), to.get(), to_path, saved->id,
                                               [](std::uint64_t) { return Result<>(); });
        REQUIRE_MESSAGE(size, size.error().message);
        CHECK(*size < 4 * MiB);
    }
    [[nodiscard]] RestoreSource source(const HandlerProcess& handler) const {
        auto source = source_of(path);
        source.memory_path.clear();
        source.memory_handler = handler.socket();
        return source;
    }
    [[nodiscard]] std::string socket(int number) const {
        return files.folder() / ("pages" + std::to_string(number)).c_str();
    }
};

// The VM generation ID apart.
bool same_memory(std::span<const std::byte> a, std::span<const std::byte> b) {
    constexpr std::size_t id = layout::generation_id;
    return std::ranges::equal(a.first(id), b.first(id)) &&
           std::ranges::equal(a.subspan(id + 16), b.subspan(id + 16));
}

kvm::GuestRam map(const std::string& path) {
    return *map_memory(path, 64 * MiB);
}

// From here on this thread gets no userfaultfd, neither by system call nor from its device, as in
// most containers.
bool give_up_userfaultfd() {
    constexpr unsigned from_device = _IO(0xaa, 0);  // USERFAULTFD_IOC_NEW
    constexpr auto load = BPF_LD | BPF_W | BPF_ABS;
    constexpr auto equal = BPF_JMP | BPF_JEQ | BPF_K;
    std::array<sock_filter, 7> filter{
        sock_filter BPF_STMT(load, offsetof(seccomp_data, nr)),
        BPF_JUMP(equal, SYS_userfaultfd, 3, 0),
        BPF_JUMP(equal, SYS_ioctl, 0, 3),
        BPF_STMT(load, offsetof(seccomp_data, args[1])),
        BPF_JUMP(equal, from_device, 0, 1),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ERRNO | EPERM),
        BPF_STMT(BPF_RET | BPF_K, SECCOMP_RET_ALLOW),
    };
    const sock_fprog program{.len = filter.size(), .filter = filter.data()};
    return ::prctl(PR_SET_NO_NEW_PRIVS, 1, 0, 0, 0) == 0 &&
           ::syscall(SYS_seccomp, SECCOMP_SET_MODE_FILTER, 0, &program) == 0;
}

// What a command that gets no userfaultfd does about a snapshot's memory.
Result<cli::RestoredMemory> choose_without_userfaultfd(const cli::Snapshot& snapshot) {
    std::optional<Result<cli::RestoredMemory>> chosen;
    std::thread([&] {
        if (!give_up_userfaultfd())
            chosen = fail_errno(errno, "no filter of system calls");
        else if (snapshot::open_userfaultfd())
            chosen = fail("the filter lets userfaultfd through");
        else
            chosen = cli::choose_memory(snapshot);
    }).join();
    return *std::move(chosen);
}

}  // namespace

TEST_CASE("machines go on from compressed memory that is served as they touch it") {
    if (!faults_can_be_handled())
        return;
    const CompressedSnapshot saved;
    std::vector<std::unique_ptr<HandlerProcess>> handlers;
    for (int i = 0; i < 3; ++i)
        handlers.push_back(std::make_unique<HandlerProcess>(saved.path, saved.socket(i)));
    {
        std::vector<std::unique_ptr<SnapshotMachine>> clones;
        for (const auto& handler : handlers)
            clones.push_back(
                std::make_unique<SnapshotMachine>(saved.files.config(), saved.source(*handler)));
        for (auto& clone : clones)
            check_goes_on(*clone);
        // Most of it was never asked for.
        const auto& ram = clones.front()->machine().ram();
        CHECK(snapshot::touched_pages(ram).count() < ram.size() / guest_page / 2);
    }
    for (auto& handler : handlers)
        CHECK(handler->wait() == 0);  // each ended with its machine
}

TEST_CASE("a machine on served memory is saved whole, also what it never touched") {
    if (!faults_can_be_handled())
        return;
    const CompressedSnapshot saved;
    HandlerProcess handler(saved.path, saved.socket(0));
    SnapshotMachine machine(saved.files.config(), saved.source(handler));
    const auto original = map(saved.plain);
    const auto again = saved.files.folder() / "again";
    REQUIRE(snapshot::save_directory(machine.save(), machine.machine().ram(), saved.files.config(),
                                     again));
    CHECK(same_memory(map(again + "/memory").bytes(), original.bytes()));
    SnapshotMachine copy(saved.files.config(), source_of(again));
    check_goes_on(copy);
}

TEST_CASE("what a machine on served memory wrote is among its touched pages") {
    if (!faults_can_be_handled())
        return;
    const CompressedSnapshot saved;
    HandlerProcess handler(saved.path, saved.socket(0));
    SnapshotMachine machine(saved.files.config(), saved.source(handler));
    check_goes_on(machine);
    const auto& ram = machine.machine().ram();
    const auto touched = snapshot::touched_pages(ram);
    const auto original = map(saved.plain);
    std::size_t unlisted = 0;
    for (std::size_t page = 0; page < touched.pages(); ++page) {
        const auto now = ram.bytes().subspan(page * guest_page, guest_page);
        if (!touched.has(page))
            unlisted +=
                !std::ranges::equal(now, original.bytes().subspan(page * guest_page, guest_page));
    }
    CHECK(unlisted == 0);
    CHECK(touched.count() > 0);
}

TEST_CASE("a machine whose handler dies ends with that reason, and does not hang") {
    if (!faults_can_be_handled())
        return;
    const CompressedSnapshot saved;
    constexpr int lost_status = 42;
    HandlerProcess handler(saved.path, saved.socket(0));
    int ends[2];
    REQUIRE(::pipe(ends) == 0);
    const Fd reading(ends[0]);
    Fd writing(ends[1]);
    // In a process of its own, as the monitor is: nothing but its end helps those who wait.
    const auto monitor = ::fork();
    REQUIRE(monitor >= 0);
    if (monitor == 0) {
        try {
            const auto lost = [&](const std::string& reason) {
                [[maybe_unused]] const auto told =
                    ::write(writing.get(), reason.data(), reason.size());
                ::_exit(lost_status);
            };
            SnapshotMachine machine(saved.files.config(), saved.source(handler), lost);
            if (!machine.machine().start() || !machine.run_for(2))
                ::_exit(1);
            if (::write(writing.get(), "runs\n", 5) != 5)
                ::_exit(2);
            for (;;)
                machine.loop().run_once(1);
        } catch (...) {
            ::_exit(3);
        }
    }
    writing.reset();
    char word[5];
    REQUIRE(::read(reading.get(), word, sizeof word) == sizeof word);
    handler.kill();
    const auto status = status_of(monitor);
    CHECK(WIFEXITED(status));
    CHECK(WEXITSTATUS(status) == lost_status);
    std::string reason(256, '\0');
    const auto length = ::read(reading.get(), reason.data(), reason.size());
    REQUIRE(length > 0);
    reason.resize(static_cast<std::size_t>(length));
    CHECK(reason.starts_with("the handler of guest memory's page faults ended"));
}

TEST_CASE("where no process may handle page faults, clones share memory that is unpacked once") {
    const CompressedSnapshot saved;
    cli::Snapshot snapshot;
    snapshot.name = "warm";
    snapshot.path = saved.path;
    snapshot.memory_file = cli::MemoryFile::Compressed;
    const auto chosen = choose_without_userfaultfd(snapshot);
    REQUIRE_MESSAGE(chosen, chosen.error().message);
    REQUIRE(chosen->way == cli::RestoredMemory::Way::Unpacked);

    const auto original = map(saved.plain);
    const cli::VmFolder folder(saved.files.folder() / "vm", "warm-1");
    std::vector<cli::MemoryBackend> backends;
    std::vector<std::unique_ptr<SnapshotMachine>> clones;
    for (int i = 0; i < 2; ++i) {
        auto backend = cli::prepare_memory(*chosen, snapshot, {}, folder, true);
        REQUIRE_MESSAGE(backend, backend.error().message);
        CHECK(backend->field.at("backend_type") == "File");
        auto source = source_of(saved.path);
        source.memory_path = backend->field.at("backend_path").as_string();
        clones.push_back(
            std::make_unique<SnapshotMachine>(saved.files.config(), std::move(source)));
        backends.push_back(*std::move(backend));
    }
    for (auto& clone : clones)
        check_goes_on(*clone);
    // What they wrote is their own.
    const auto unpacked = map(fmt::format("/proc/self/fd/{}", chosen->unpacked.get()));
    CHECK(std::ranges::equal(unpacked.bytes(), original.bytes()));
}

TEST_CASE("compressed memory that is damaged is not unpacked") {
    const CompressedSnapshot saved;
    const auto path = saved.path + "/" + snapshot::compressed_memory_name;
    const Fd file(::open(path.c_str(), O_RDWR | O_CLOEXEC));
    std::byte first_frame_byte{};
    constexpr off_t inside = cli::compressed_memory_magic.size() + 8;
    REQUIRE(::pread(file.get(), &first_frame_byte, 1, inside) == 1);
    first_frame_byte ^= std::byte{1};
    REQUIRE(::pwrite(file.get(), &first_frame_byte, 1, inside) == 1);
    cli::Snapshot snapshot;
    snapshot.path = saved.path;
    snapshot.memory_file = cli::MemoryFile::Compressed;
    const auto chosen = choose_without_userfaultfd(snapshot);
    REQUIRE_FALSE(chosen);
    CHECK(chosen.error().message.contains("checksum"));
}
