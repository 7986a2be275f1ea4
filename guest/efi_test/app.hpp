// What the parts of the EFI test application share.
#pragma once

#include "firmware/efi/device_path_nodes.hpp"
#include "firmware/efi/protocols.hpp"

namespace efi_test {

namespace efi = masu::firmware::efi;
using efi::Status;

extern efi::SystemTable* st;
extern efi::BootServices* bs;
extern efi::RuntimeServices* rt;
extern efi::Handle self;

void print(const char16_t* text);
void print(std::uint64_t number);
// Counts; prints the place when it does not hold.
void check(bool holds, const char16_t* part, unsigned line);
[[nodiscard]] unsigned checks();
[[nodiscard]] unsigned failures();

void test_memory();
void test_events();
void test_handles();
void test_images();
void test_files();
void test_blocks();
void test_console();
void test_variables();
void test_tables();
void test_exit_boot_services();

}  // namespace efi_test

#define CHECK(condition) check((condition), u"" __FILE_NAME__, __LINE__)
