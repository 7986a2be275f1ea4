#include <doctest/doctest.h>

#include <memory>

#include "firmware/services/memory_map.hpp"

using namespace masu::firmware;
using efi::AllocateType;
using efi::MemoryType;
using efi::Status;

namespace {

constexpr std::uint64_t mib = 1 << 20;
constexpr std::uint64_t pages_per_mib = mib / efi::page_size;

// 640 KiB, 63 MiB from 1 MiB on, 1 GiB above 4 GiB.
std::unique_ptr<MemoryMap> make_map() {
    auto map = std::make_unique<MemoryMap>();
    REQUIRE(map->add({0, 160, MemoryType::Conventional, efi::memory_wb}));
    REQUIRE(map->add({0xa'0000, 96, MemoryType::Reserved, efi::memory_wb}));
    REQUIRE(map->add({mib, 63 * pages_per_mib, MemoryType::Conventional, efi::memory_wb}));
    REQUIRE(map->add({4096 * mib, 1024 * pages_per_mib, MemoryType::Conventional, efi::memory_wb}));
    return map;
}

Status take(MemoryMap& map, AllocateType kind, std::uint64_t pages, std::uint64_t& at) {
    return map.allocate(kind, MemoryType::LoaderData, pages, at);
}

}  // namespace

TEST_CASE("any pages come from the top below 4 GiB, then from above") {
    auto map = make_map();
    std::uint64_t at = 0;
    CHECK(take(*map, AllocateType::AnyPages, 16, at) == Status::Success);
    CHECK(at == 64 * mib - 16 * efi::page_size);
    CHECK(take(*map, AllocateType::AnyPages, 64 * pages_per_mib, at) == Status::Success);
    CHECK(at == (4096 + 1024 - 64) * mib);
    CHECK(take(*map, AllocateType::AnyPages, 1024 * pages_per_mib, at) == Status::OutOfResources);
}

TEST_CASE("a highest address is kept to, and page 0 is nobody's") {
    auto map = make_map();
    std::uint64_t at = 16 * mib - 1;
    CHECK(take(*map, AllocateType::MaxAddress, 256, at) == Status::Success);
    CHECK(at == 15 * mib);
    at = 0x1fff;
    CHECK(take(*map, AllocateType::MaxAddress, 1, at) == Status::Success);
    CHECK(at == 0x1000);
    at = 0x1fff;
    CHECK(take(*map, AllocateType::MaxAddress, 1, at) == Status::OutOfResources);
    at = 0;
    CHECK(take(*map, AllocateType::Address, 1, at) == Status::NotFound);
}

TEST_CASE("what is freed joins its neighbours") {
    auto map = make_map();
    const auto before = map->regions().size();
    std::uint64_t at = 8 * mib;
    CHECK(take(*map, AllocateType::Address, 8, at) == Status::Success);
    CHECK(map->regions().size() == before + 2);
    CHECK(map->free(at + 2 * efi::page_size, 2) == Status::Success);
    CHECK(map->regions().size() == before + 4);
    CHECK(map->free(at, 2) == Status::Success);
    CHECK(map->free(at + 4 * efi::page_size, 4) == Status::Success);
    CHECK(map->regions().size() == before);
    CHECK(map->free(at, 1) == Status::NotFound);
    CHECK(map->free(at + 1, 1) == Status::InvalidParameter);
    CHECK(map->free(0xa'0000, 1) == Status::NotFound);
}

TEST_CASE("every change changes the key") {
    auto map = make_map();
    const auto first = map->key();
    std::uint64_t at = 0;
    CHECK(take(*map, AllocateType::AnyPages, 1, at) == Status::Success);
    const auto second = map->key();
    CHECK(second != first);
    CHECK(map->free(at, 1) == Status::Success);
    CHECK(map->key() != second);
    CHECK(map->key() != first);
}

TEST_CASE("types that are no one's to ask for are refused, runtime ones are marked") {
    auto map = make_map();
    std::uint64_t at = 0;
    const auto ask = [&](MemoryType type) {
        return map->allocate(AllocateType::AnyPages, type, 1, at);
    };
    CHECK(ask(MemoryType::Conventional) == Status::InvalidParameter);
    CHECK(ask(MemoryType::Persistent) == Status::InvalidParameter);
    CHECK(ask(static_cast<MemoryType>(0x1000)) == Status::InvalidParameter);
    CHECK(ask(static_cast<MemoryType>(0x8000'0000)) == Status::Success);
    CHECK(ask(MemoryType::RuntimeServicesData) == Status::Success);
    REQUIRE(map->find(at) != nullptr);
    CHECK((map->find(at)->attribute & efi::memory_runtime) != 0);
    CHECK(take(*map, AllocateType::AnyPages, 0, at) == Status::InvalidParameter);
    CHECK(take(*map, AllocateType::AnyPages, ~std::uint64_t{0}, at) == Status::OutOfResources);
}

TEST_CASE("overlapping memory is refused") {
    auto map = make_map();
    CHECK_FALSE(map->add({2 * mib, 1, MemoryType::Reserved, 0}));
    CHECK_FALSE(map->add({0, 1, MemoryType::Reserved, 0}));
    CHECK_FALSE(map->add({64 * mib + 1, 1, MemoryType::Reserved, 0}));
    CHECK_FALSE(map->add({64 * mib, ~std::uint64_t{0}, MemoryType::Reserved, 0}));
    CHECK(map->reserve(mib, 1, MemoryType::RuntimeServicesCode));
    CHECK_FALSE(map->reserve(64 * mib, 1, MemoryType::BootServicesCode));
}

TEST_CASE("a map cut into as many pieces as it can name refuses more, and loses nothing") {
    auto map = make_map();
    std::uint64_t taken = 0;
    for (std::uint64_t at = mib;; at += 2 * efi::page_size) {
        auto place = at;
        if (take(*map, AllocateType::Address, 1, place) != Status::Success)
            break;
        ++taken;
    }
    CHECK(taken > 900);
    CHECK(map->regions().size() <= MemoryMap::max_regions);
    std::uint64_t end = 0;
    std::uint64_t pages = 0;
    for (const auto& region : map->regions()) {
        CHECK(region.start >= end);
        end = region.end();
        pages += region.pages;
    }
    CHECK(pages == 160 + 96 + (63 + 1024) * pages_per_mib);
    CHECK(map->pages_of(MemoryType::LoaderData) == taken);
}
