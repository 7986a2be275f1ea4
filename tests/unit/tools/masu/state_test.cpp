// The state folder: places, names, locks, and who may delete what.
#include "tools/masu/state.hpp"

#include <doctest/doctest.h>
#include <fcntl.h>
#include <unistd.h>

#include <filesystem>
#include <fstream>
#include <map>
#include <thread>

namespace masu::cli {
namespace {

namespace fs = std::filesystem;

struct TemporaryFolder {
    std::string path = "/tmp/masu-state-test-XXXXXX";
    TemporaryFolder() { REQUIRE(::mkdtemp(path.data()) != nullptr); }
    ~TemporaryFolder() { fs::remove_all(path); }
    TemporaryFolder(const TemporaryFolder&) = delete;
    TemporaryFolder& operator=(const TemporaryFolder&) = delete;
    [[nodiscard]] Store store() const { return Store({path, path + "/run"}); }
};

Places places_with(std::map<std::string, std::string> variables, bool root) {
    const auto places = find_places(
        [&](const char* name) -> std::optional<std::string> {
            const auto found = variables.find(name);
            return found == variables.end() ? std::nullopt : std::optional(found->second);
        },
        root);
    REQUIRE(places);
    return *places;
}

VmRecord named(const char* name) {
    VmRecord record;
    record.name = name;
    return record;
}

}  // namespace

TEST_CASE("state lies where the user's variables say") {
    const auto root = places_with({{"HOME", "/root"}}, true);
    CHECK(root.state == "/var/lib/masu");
    CHECK(root.runtime == "/run/masu");
    const auto user = places_with({{"HOME", "/home/u"}, {"XDG_RUNTIME_DIR", "/run/user/7"}}, false);
    CHECK(user.state == "/home/u/.local/state/masu");
    CHECK(user.runtime == "/run/user/7/masu");
    CHECK(places_with({{"HOME", "/h"}, {"XDG_STATE_HOME", "/s"}}, false).state == "/s/masu");
    CHECK(places_with({{"HOME", "/h"}}, false).runtime == "/h/.local/state/masu/run");
    const auto chosen = places_with({{"MASU_STATE_DIR", "/t"}, {"XDG_RUNTIME_DIR", "/r"}}, true);
    CHECK(chosen.state == "/t");
    CHECK(chosen.runtime == "/t/run");
    CHECK_FALSE(find_places([](const char*) { return std::nullopt; }, false));
}

TEST_CASE("names that could leave the folder or confuse a shell are refused") {
    for (const auto* good : {"a", "web-1", "0", "A-"})
        CHECK(check_vm_name(good));
    CHECK(check_vm_name(std::string(63, 'a')));
    for (const auto* bad : {"", ".", "..", "a/b", ".lock", "-a", "a b", "a\n", "ä"})
        CHECK_FALSE(check_vm_name(bad));
    CHECK_FALSE(check_vm_name(std::string(64, 'a')));
}

TEST_CASE("a VM lives as long as its lock is held") {
    const TemporaryFolder folder;
    auto store = folder.store();
    auto record = named("web");
    auto created = store.create(record);
    REQUIRE(created);
    CHECK(record.id.size() == 16);
    CHECK(created->folder.alive() == true);
    CHECK(created->folder.record()->id == record.id);
    CHECK(fs::is_directory(record.socket_folder));

    CHECK_FALSE(store.remove("web"));
    created->lock.reset();
    CHECK(created->folder.alive() == false);
    CHECK(store.remove("web"));
    CHECK_FALSE(store.find("web"));
    CHECK_FALSE(fs::exists(record.socket_folder));
    CHECK(store.remove("web"));
}

TEST_CASE("a name is taken until the VM is removed") {
    const TemporaryFolder folder;
    auto store = folder.store();
    auto record = named("web");
    auto created = store.create(record);
    REQUIRE(created);
    auto again = named("web");
    const auto while_alive = store.create(again);
    REQUIRE_FALSE(while_alive);
    CHECK(while_alive.error().message.find("running already") != std::string::npos);
    created->lock.reset();
    const auto while_stopped = store.create(again);
    REQUIRE_FALSE(while_stopped);
    CHECK(while_stopped.error().message.find("masu rm web") != std::string::npos);
    REQUIRE(store.remove("web"));
    CHECK(store.create(again));
    // Nothing half-made stays behind.
    CHECK(std::distance(fs::directory_iterator(folder.path + "/vms"), {}) == 2);  // web, .lock
}

TEST_CASE("a removal meant for an earlier VM spares the later one") {
    const TemporaryFolder folder;
    auto store = folder.store();
    auto first = named("web");
    REQUIRE(store.create(first));
    REQUIRE(store.remove("web"));
    auto second = named("web");
    REQUIRE(store.create(second));
    CHECK(store.remove("web", first.id));
    CHECK(store.find("web"));
    CHECK(store.remove("web", second.id));
    CHECK_FALSE(store.find("web"));
}

TEST_CASE("of many who want one name at once, one gets it") {
    const TemporaryFolder folder;
    std::atomic<int> winners{0};
    std::atomic<int> alive_seen{0};
    {
        std::vector<std::jthread> rivals;
        for (int i = 0; i < 8; ++i)
            rivals.emplace_back([&] {
                auto store = folder.store();
                auto record = named("web");
                static thread_local Fd keep;
                if (auto created = store.create(record)) {
                    ++winners;
                    keep = std::move(created->lock);
                    alive_seen += created->folder.alive() == true ? 1 : 0;
                }
            });
    }
    CHECK(winners == 1);
    CHECK(alive_seen == 1);
}

TEST_CASE("a runtime folder too long for sockets is replaced by a short one") {
    const TemporaryFolder folder;
    Store store({folder.path, folder.path + "/" + std::string(100, 'r')});
    auto record = named("web");
    REQUIRE(store.create(record));
    CHECK(record.console_socket().size() <= 107);
    CHECK(fs::is_directory(record.socket_folder));
    REQUIRE(store.remove("web"));
    CHECK_FALSE(fs::exists(record.socket_folder));
}

TEST_CASE("a record survives vm.json, and a spoilt one is an error") {
    const TemporaryFolder folder;
    auto store = folder.store();
    auto record = named("web");
    record.kernel = "/k";
    record.initrd = "/i";
    record.disks.push_back({.path = "/d", .read_only = true});
    record.reboot = false;
    const auto created = store.create(record);
    REQUIRE(created);
    const auto read = created->folder.record();
    REQUIRE(read);
    CHECK(read->kernel == "/k");
    CHECK(read->initrd == "/i");
    CHECK(read->disks == record.disks);
    CHECK_FALSE(read->reboot);
    for (const auto* text : {"", "{}", "[1]", "{\"name\":1}", "not JSON"}) {
        std::ofstream(created->folder.file("vm.json")) << text;
        CHECK_FALSE(created->folder.record());
    }
}

TEST_CASE("exit records") {
    const auto record =
        parse_exit_record(R"({"status":3,"kind":"panic","reason":"x","wall_time":5})");
    REQUIRE(record);
    CHECK(record->status == 3);
    CHECK(record->reason == "x");
    CHECK(record->wall_time == "5");
    CHECK_FALSE(parse_exit_record("{}"));
    CHECK_FALSE(parse_exit_record("{\"status\":\"0\"}"));
}

}  // namespace masu::cli
