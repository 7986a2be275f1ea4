// The socket of a VM's vsock, from its PUT to the end of the VM, and in loaded VMs.
#include "vmm/monitor.hpp"

#include <doctest/doctest.h>

#include <filesystem>
#include <string>

#include "tests/unit/vmm/monitor_bench.hpp"

using namespace masu;
using namespace masu::fake;

TEST_CASE("a vsock's socket is there from its PUT on, over a reboot, and no longer than the VM") {
    const SavedVm folder;  // for its folder
    const auto path = folder.folder + "/v";
    {
        Bench bench;
        CHECK(bench.refusal(action::SetVsock{{.guest_cid = 2, .uds_path = path}})
                  .contains("guest_cid is 2"));
        CHECK(bench.refusal(action::SetVsock{{.guest_cid = 0xffff'ffff, .uds_path = path}})
                  .contains("guest_cid"));
        CHECK(bench.refusal(action::SetVsock{{.uds_path = std::string(97, 'a')}})
                  .contains("97 bytes"));
        CHECK(bench.refusal(action::SetVsock{{.uds_path = folder.folder + "/no/v"}})
                  .contains("vsock"));
        REQUIRE(bench.refusal(action::SetVsock{{.guest_cid = 5, .uds_path = path}}).empty());
        CHECK(listens(path));
        // Again, at another path and back.
        REQUIRE(bench.refusal(action::SetVsock{{.uds_path = path + "2"}}).empty());
        CHECK_FALSE(listens(path));
        REQUIRE(bench.refusal(action::SetVsock{{.guest_cid = 6, .uds_path = path}}).empty());
        REQUIRE(bench.refusal(action::SetVsock{{.guest_cid = 7, .uds_path = path}}).empty());
        CHECK_FALSE(listens(path + "2"));
        Bench other;
        CHECK(
            other.refusal(action::SetVsock{{.uds_path = path}}).contains("another process serves"));
        bench.start();
        CHECK(bench.record.config.vsock->guest_cid == 7);
        CHECK(bench.record.context->vsock != nullptr);
        bench.pass(60);
        bench.stop(StopKind::Reset);
        CHECK(bench.record.count("create") == 2);
        CHECK(listens(path));
        CHECK_FALSE(bench.apply(action::SetVsock{{.uds_path = path}}));
    }
    CHECK_FALSE(std::filesystem::exists(path));
}

TEST_CASE("a restored VM's vsock is at its own path") {
    const SavedVm saved;
    const auto path = saved.folder + "/v";
    Bench first;
    make_savable(first.record);
    REQUIRE(first.refusal(action::SetVsock{{.guest_cid = 5, .uds_path = path}}).empty());
    first.start();
    pause_and_save(first, saved);
    auto load = saved.load();
    {
        Bench bench;
        CHECK(bench.refusal(load).contains("another process serves"));
        load.uds_path = saved.folder + "/copy";
        bench.record.refuse_creation = true;
        CHECK_FALSE(bench.refusal(load).empty());
        CHECK_FALSE(listens(saved.folder + "/copy"));
        bench.record.refuse_creation = false;
        REQUIRE(bench.refusal(load).empty());
        CHECK(bench.record.config.vsock->guest_cid == 5);
        CHECK(bench.record.config.vsock->uds_path == saved.folder + "/copy");
        CHECK(listens(saved.folder + "/copy"));
    }
    CHECK(listens(path));
    Bench busy;
    REQUIRE(busy.apply(action::SetVsock{{.uds_path = saved.folder + "/other"}}));
    CHECK(busy.refusal(load).contains("into a monitor that has none"));
}

TEST_CASE("a vsock is moved only where there is one") {
    const SavedVm saved;
    Bench first;
    make_savable(first.record);
    first.start();
    pause_and_save(first, saved);
    auto load = saved.load();
    load.uds_path = saved.folder + "/v";
    Bench bench;
    CHECK(bench.refusal(load).contains("has no vsock"));
}
