// Entry point of the tests that need any /dev/kvm; without one they are skipped (status 77), and
// say why.
#include <doctest/doctest.h>

#include <cstdio>

#include "vmm/kvm/kvm.hpp"

int main(int argc, char** argv) {
    if (const auto kvm = masu::kvm::Kvm::open(); !kvm) {
        std::printf("SKIPPED: %s\n", kvm.error().message.c_str());
        return 77;
    }
    return doctest::Context(argc, argv).run();
}
