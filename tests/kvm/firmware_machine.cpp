#include "tests/kvm/firmware_machine.hpp"

#include <doctest/doctest.h>

#include <unistd.h>
#include <algorithm>
#include <cstdlib>
#include <filesystem>
#include <fstream>

namespace masu::test {

DiskFile::DiskFile(const std::string& from, std::size_t size) {
    const Fd fd(::mkstemp(path_.data()));
    REQUIRE(fd);
    if (!from.empty())
        std::filesystem::copy_file(from, path_, std::filesystem::copy_options::overwrite_existing);
    else
        resize(size);
}

DiskFile::~DiskFile() {
    ::unlink(path_.c_str());
}

std::vector<std::byte> DiskFile::read() const {
    std::vector<std::byte> all(std::filesystem::file_size(path_));
    std::ifstream in(path_, std::ios::binary);
    in.read(reinterpret_cast<char*>(all.data()), static_cast<std::streamsize>(all.size()));
    REQUIRE(in);
    return all;
}

void DiskFile::write(std::span<const std::byte> all) const {
    std::ofstream out(path_, std::ios::binary);
    out.write(reinterpret_cast<const char*>(all.data()), static_cast<std::streamsize>(all.size()));
    REQUIRE(out.flush());
}

void DiskFile::overwrite(std::string_view what, std::string_view with) const {
    auto all = read();
    const std::string_view text(reinterpret_cast<const char*>(all.data()), all.size());
    const auto at = text.find(what);
    REQUIRE(at != std::string_view::npos);
    std::ranges::copy(std::as_bytes(std::span(with)),
                      all.begin() + static_cast<std::ptrdiff_t>(at));
    write(all);
}

void DiskFile::resize(std::size_t size) const {
    std::filesystem::resize_file(path_, size);
}

namespace {

VmConfig config_of(const Input& input) {
    VmConfig config;
    config.machine.mem_size_mib = input.memory_mib;
    BootSource source;
    source.firmware = true;
    source.boot_menu = input.boot_menu;
    source.boot_device = input.boot_device;
    if (!input.load_options.empty())
        source.boot_args = input.load_options;
    config.boot_source = source;
    for (const auto& path : input.disks) {
        DriveConfig drive;
        drive.drive_id = "disk" + std::to_string(config.drives.size());
        drive.path_on_host = path;
        config.drives.push_back(drive);
    }
    config.entropy = EntropyConfig{};
    return config;
}

}  // namespace

Ended run_guest(const Input& input) {
    auto loop = std::move(*EventLoop::create());
    const SystemClock clock;
    Metrics metrics;
    BootTimer timer(clock, clock.now());
    Network network(0);
    Ended result;
    Machine* machine = nullptr;
    std::string to_type = input.type;
    auto made = Machine::create(
        config_of(input),
        {.loop = *loop,
         .log = Log::to_stderr(LogLevel::Warn),
         .metrics = metrics,
         .boot_timer = timer,
         .network = network,
         .console_output =
             [&](std::span<const std::byte> bytes) {
                 for (const auto byte : bytes)
                     result.console += static_cast<char>(byte);
                 if (!to_type.empty() && result.console.find(input.wait_for) != std::string::npos) {
                     (void)machine->console_input(std::as_bytes(std::span(to_type)));
                     to_type.clear();
                 }
             },
         .stopped =
             [&](StopEvent event) {
                 result.stop = std::move(event);
                 loop->stop();
             }});
    const std::string error = made ? "" : made.error().message;
    CAPTURE(error);
    REQUIRE(made);
    machine = made->get();
    auto patience = loop->timer([&] { loop->stop(); });
    REQUIRE(patience);
    patience->arm(180'000'000'000);
    REQUIRE((*made)->start());
    loop->run();
    result.entry = timer.since_start(Milestone::FirmwareEntry).has_value();
    result.loader = timer.since_start(Milestone::LoaderStarted).has_value();
    result.handover = timer.since_start(Milestone::KernelHandover).has_value();
    return result;
}

}  // namespace masu::test
