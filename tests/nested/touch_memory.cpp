// Runs in the small guest: touches every 2 MiB of the memory it can get as huge pages, checks that
// each page keeps its own stamp, and prints how high in physical memory it came.
#include <fcntl.h>
#include <sys/mman.h>
#include <unistd.h>

#include <algorithm>
#include <cstdint>
#include <cstdio>
#include <fstream>

namespace {

constexpr std::size_t huge = 2 << 20;

std::uint64_t physical_address(int pagemap, const void* address) {
    // Documentation/admin-guide/mm/pagemap.rst: 8 bytes a 4 KiB page, bits 0-54 its frame.
    std::uint64_t entry = 0;
    const auto offset = static_cast<off_t>(reinterpret_cast<std::uintptr_t>(address) / 4096 * 8);
    if (pread(pagemap, &entry, sizeof entry, offset) != sizeof entry)
        return 0;
    return (entry & ((1ull << 55) - 1)) * 4096;
}

}  // namespace

int main() {
    const char* pool = "/proc/sys/vm/nr_hugepages";
    std::ofstream(pool) << 1'000'000;  // the kernel stops at what there is
    std::size_t count = 0;
    std::ifstream(pool) >> count;
    count -= count / 20;  // leaves the kernel some air
    std::ofstream(pool) << count;
    void* const memory = mmap(nullptr, count * huge, PROT_READ | PROT_WRITE,
                              MAP_PRIVATE | MAP_ANONYMOUS | MAP_HUGETLB, -1, 0);
    if (memory == MAP_FAILED) {
        std::perror("mmap");
        return 1;
    }
    auto* const words = static_cast<volatile std::uint64_t*>(memory);
    constexpr std::size_t step = huge / sizeof(std::uint64_t);
    for (std::size_t i = 0; i < count; ++i) {
        words[i * step] = i;
        words[(i + 1) * step - 1] = ~i;
    }
    const int pagemap = open("/proc/self/pagemap", O_RDONLY);
    std::size_t bad = 0;
    std::uint64_t lowest = ~0ull;
    std::uint64_t highest = 0;
    for (std::size_t i = 0; i < count; ++i) {
        if (words[i * step] != i || words[(i + 1) * step - 1] != ~i)
            ++bad;
        const auto* page = static_cast<const char*>(memory) + i * huge;
        const std::uint64_t at = physical_address(pagemap, page);
        lowest = std::min(lowest, at);
        highest = std::max(highest, at + huge);
    }
    std::printf("TOUCHED_MIB=%zu\nBAD=%zu\nLOWEST_MIB=%llu\nHIGHEST_MIB=%llu\n", count * 2, bad,
                static_cast<unsigned long long>(lowest >> 20),
                static_cast<unsigned long long>(highest >> 20));
    return 0;
}
