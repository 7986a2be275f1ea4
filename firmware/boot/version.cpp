#include "firmware/boot/version.hpp"

#include "firmware/boot/text.hpp"

namespace masu::firmware {

namespace {

bool is_alpha(char c) {
    return (c >= 'a' && c <= 'z') || (c >= 'A' && c <= 'Z');
}

bool counts(char c) {
    return is_digit(c) || is_alpha(c) || c == '~' || c == '-' || c == '^' || c == '.';
}

void skip_others(std::string_view& text) {
    while (!text.empty() && !counts(text.front()))
        text.remove_prefix(1);
}

template <class Belongs>
std::string_view take_run(std::string_view& text, Belongs belongs) {
    std::size_t size = 0;
    while (size < text.size() && belongs(text[size]))
        ++size;
    const auto run = part(text, 0, size);
    text = part(text, size);
    return run;
}

int compare_numbers(std::string_view a, std::string_view b) {
    while (a.starts_with('0'))
        a.remove_prefix(1);
    while (b.starts_with('0'))
        b.remove_prefix(1);
    if (a.size() != b.size())
        return a.size() < b.size() ? -1 : 1;
    return a.compare(b);
}

// Both begin with `mark`: it is taken off. One does: that one is older or newer (`one`). None: 0.
int compare_mark(std::string_view& a, std::string_view& b, char mark, int one) {
    const bool in_a = a.starts_with(mark);
    const bool in_b = b.starts_with(mark);
    if (in_a && in_b) {
        a.remove_prefix(1);
        b.remove_prefix(1);
        return 0;
    }
    return in_a ? one : in_b ? -one : 0;
}

}  // namespace

int compare_versions(std::string_view a, std::string_view b) noexcept {
    // Each round takes at least a character off both, or decides.
    for (;;) {
        skip_others(a);
        skip_others(b);
        if (const int order = compare_mark(a, b, '~', -1); order != 0)
            return order;
        if (a.empty() || b.empty())
            return a.empty() && b.empty() ? 0 : a.empty() ? -1 : 1;
        // "-", "^" and "." begin what is older than any further letters or digits.
        for (const char mark : {'-', '^', '.'})
            if (const int order = compare_mark(a, b, mark, -1); order != 0)
                return order;
        if (a.empty() || b.empty())
            continue;
        int order = 0;
        if (is_digit(a.front()) || is_digit(b.front())) {
            order = compare_numbers(take_run(a, is_digit), take_run(b, is_digit));
        } else {
            order = take_run(a, is_alpha).compare(take_run(b, is_alpha));
        }
        if (order != 0)
            return order;
    }
}

}  // namespace masu::firmware
