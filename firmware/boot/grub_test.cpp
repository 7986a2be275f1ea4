#include "firmware/boot/grub_test.hpp"

#include <cstdint>
#include <optional>

#include "firmware/boot/text.hpp"

namespace masu::firmware {

namespace {

constexpr int max_parentheses = 16;

std::optional<std::int64_t> signed_number(std::string_view text) {
    const bool negative = text.starts_with('-');
    const auto value = parse_number(part(text, negative ? 1 : 0));
    if (!value)
        return std::nullopt;
    return negative ? -static_cast<std::int64_t>(*value) : static_cast<std::int64_t>(*value);
}

// Something that is no number counts as 0, as strtol has it.
std::int64_t number(std::string_view text) {
    return signed_number(text).value_or(0);
}

std::optional<bool> compare(std::string_view left, std::string_view op, std::string_view right) {
    if (op == "=" || op == "==")
        return left == right;
    if (op == "!=")
        return left != right;
    if (op == "<")
        return left < right;
    if (op == "<=")
        return left <= right;
    if (op == ">")
        return left > right;
    if (op == ">=")
        return left >= right;
    if (op == "-eq")
        return number(left) == number(right);
    if (op == "-ne")
        return number(left) != number(right);
    if (op == "-lt")
        return number(left) < number(right);
    if (op == "-le")
        return number(left) <= number(right);
    if (op == "-gt")
        return number(left) > number(right);
    if (op == "-ge")
        return number(left) >= number(right);
    return std::nullopt;
}

class Evaluator {
  public:
    Evaluator(std::span<const std::string_view> words, GrubFiles& files) noexcept
        : words_(words), files_(files) {}

    bool either() noexcept {
        bool result = both();
        while (take("-o"))
            result = both() || result;
        return result;
    }
    [[nodiscard]] bool done() const noexcept { return at_ == words_.size(); }

  private:
    bool both() noexcept {
        bool result = primary();
        while (take("-a"))
            result = primary() && result;
        return result;
    }

    bool take(std::string_view word) noexcept {
        if (at_ == words_.size() || words_[at_] != word)
            return false;
        ++at_;
        return true;
    }

    bool primary() noexcept {
        const std::size_t left = words_.size() - at_;
        if (left == 0)
            return false;
        if (left >= 3) {
            const auto found = compare(words_[at_], words_[at_ + 1], words_[at_ + 2]);
            if (found) {
                at_ += 3;
                return *found;
            }
        }
        bool negated = false;
        while (at_ + 1 < words_.size() && take("!"))
            negated = !negated;
        if (negated || at_ == words_.size())
            return primary() != negated;
        if (words_[at_] == "(" && left >= 2 && depth_ < max_parentheses) {
            ++at_;
            ++depth_;
            const bool result = either();
            --depth_;
            return take(")") && result;
        }
        if (left >= 2)
            if (const auto found = unary(words_[at_], words_[at_ + 1])) {
                at_ += 2;
                return *found;
            }
        return !words_[at_++].empty();
    }

    std::optional<bool> unary(std::string_view op, std::string_view word) noexcept {
        if (op == "-n")
            return !word.empty();
        if (op == "-z")
            return word.empty();
        if (op != "-e" && op != "-f" && op != "-d" && op != "-s")
            return std::nullopt;
        const auto kind = files_.kind_of(word);
        if (op == "-d")
            return kind == GrubFiles::Kind::Directory;
        if (op == "-s")
            return kind == GrubFiles::Kind::File;
        if (op == "-f")
            return kind == GrubFiles::Kind::File || kind == GrubFiles::Kind::EmptyFile;
        return kind != GrubFiles::Kind::None;
    }

    std::span<const std::string_view> words_;
    GrubFiles& files_;
    std::size_t at_ = 0;
    int depth_ = 0;
};

}  // namespace

bool evaluate_test(std::span<const std::string_view> words, GrubFiles& files) noexcept {
    Evaluator evaluator(words, files);
    const bool result = evaluator.either();
    return result && evaluator.done();
}

}  // namespace masu::firmware
