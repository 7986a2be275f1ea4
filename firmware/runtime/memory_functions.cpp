// What compilers take for granted: memcpy and its kin. Linked with the runtime services, used by all.
// Eight bytes a step: a KVM that interprets its guests takes as long for each as for one.
#include <cstddef>

extern "C" {

__attribute__((used)) void* memcpy(void* __restrict to, const void* __restrict from, std::size_t count) {
    void* const result = to;
    std::size_t words = count / 8;
    count %= 8;
    asm volatile("rep movsq" : "+D"(to), "+S"(from), "+c"(words) : : "memory");
    asm volatile("rep movsb" : "+D"(to), "+S"(from), "+c"(count) : : "memory");
    return result;
}

__attribute__((used)) void* memmove(void* to, const void* from, std::size_t count) {
    auto* target = static_cast<char*>(to);
    const auto* source = static_cast<const char*>(from);
    if (target <= source || target >= source + count)
        return memcpy(to, from, count);
    target += count - 1;
    source += count - 1;
    asm volatile("std; rep movsb; cld" : "+D"(target), "+S"(source), "+c"(count) : : "memory");
    return to;
}

__attribute__((used)) void* memset(void* to, int value, std::size_t count) {
    void* const result = to;
    const std::size_t pattern = (value & 0xff) * std::size_t{0x0101'0101'0101'0101};
    std::size_t words = count / 8;
    count %= 8;
    asm volatile("rep stosq" : "+D"(to), "+c"(words) : "a"(pattern) : "memory");
    asm volatile("rep stosb" : "+D"(to), "+c"(count) : "a"(pattern) : "memory");
    return result;
}

__attribute__((used)) int memcmp(const void* a, const void* b, std::size_t count) {
    const auto* x = static_cast<const unsigned char*>(a);
    const auto* y = static_cast<const unsigned char*>(b);
    for (std::size_t i = 0; i < count; ++i)
        if (x[i] != y[i])
            return x[i] < y[i] ? -1 : 1;
    return 0;
}

__attribute__((used)) void* memchr(const void* in, int value, std::size_t count) {
    auto* at = static_cast<const unsigned char*>(in);
    for (std::size_t i = 0; i < count; ++i)
        if (at[i] == static_cast<unsigned char>(value))
            return const_cast<unsigned char*>(at + i);
    return nullptr;
}

__attribute__((used)) std::size_t strlen(const char* text) {
    std::size_t length = 0;
    while (text[length] != 0)
        ++length;
    return length;
}

}  // extern "C"
