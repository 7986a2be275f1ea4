// GRUB's script language: words, blocks, conditions, functions, variables. What commands mean is
// the caller's affair.
#pragma once

#include <array>
#include <cstddef>
#include <cstdint>
#include <optional>
#include <span>
#include <string_view>

#include "firmware/arena.hpp"
#include "firmware/boot/text.hpp"

namespace masu::firmware {

struct GrubVariable {
    std::string_view name;
    std::string_view value;
};

// Runs commands other than the language's own.
class GrubCommands {
  public:
    // `words` is the command and its arguments, already expanded; they live until it returns.
    // `block` is what stood in braces behind them ("menuentry … { … }"), as source. The result is
    // the command's truth.
    [[nodiscard]] virtual bool run(std::span<const std::string_view> words,
                                   std::optional<std::string_view> block) noexcept = 0;

  protected:
    ~GrubCommands() = default;
};

// An interpreter with bounds on everything: nesting, variables, functions, steps. A script that
// goes beyond one stops; failure() then says which.
class GrubScript {
  public:
    // Variables' values live in `keep`; words of the command being run in a part of it.
    GrubScript(Arena& keep, GrubCommands& commands) noexcept;

    // False once failure() is set.
    bool run(std::string_view source) noexcept;

    void set(std::string_view name, std::string_view value) noexcept;
    void unset(std::string_view name) noexcept;
    [[nodiscard]] std::optional<std::string_view> find(std::string_view name) const noexcept;
    [[nodiscard]] std::string_view value(std::string_view name) const noexcept {
        return find(name).value_or(std::string_view{});
    }
    // A copy of `text` that stays.
    [[nodiscard]] std::string_view keep(std::string_view text) noexcept;

    // All variables as they are now, to come back to.
    [[nodiscard]] std::span<const GrubVariable> snapshot() noexcept;
    void restore(std::span<const GrubVariable> variables) noexcept;

    // $1, $2, … of the menu entry about to be run.
    void set_parameters(std::span<const std::string_view> parameters) noexcept;

    // Nothing more is run, until resume().
    void stop() noexcept { stopped_ = true; }
    void resume() noexcept { stopped_ = false; }

    // Counts a command's work, in steps, against the bound on all of it.
    void charge(std::uint32_t steps) noexcept;

    [[nodiscard]] const char* failure() const noexcept { return failure_; }
    void fail(const char* reason) noexcept {
        if (failure_ == nullptr)
            failure_ = reason;
    }

  private:
    struct Function {
        std::string_view name;
        std::string_view body;
    };
    enum class Token : std::uint8_t { Word, Separator, OpenBrace, CloseBrace, End };
    struct Source {
        std::string_view text;
        std::size_t at = 0;
    };
    static constexpr std::size_t max_words = 96;
    struct Words {
        std::array<std::string_view, max_words> list;
        std::size_t count = 0;
        std::string_view keyword;  // the first word as written, if nothing in it was quoted
    };
    class WordBuilder;

    [[nodiscard]] Words* make_words() noexcept;
    // `bytes`: of text that is gone through once more.
    [[nodiscard]] bool step(std::uint64_t bytes = 0) noexcept;
    static Token peek(Source& source) noexcept;
    void read_word(Source& source, Words& words, bool execute) noexcept;
    void read_quoted(Source& source, WordBuilder& word, bool execute) noexcept;
    void read_variable(Source& source, WordBuilder& word, bool quoted, bool execute) noexcept;
    [[nodiscard]] std::string_view skip_block(Source& source) noexcept;
    [[nodiscard]] static bool at_keyword(const Source& source, std::string_view keyword) noexcept;
    void skip_keyword(Source& source, std::string_view keyword) noexcept;

    // Until "}" or the end, or one of "then", "elif", "else", "fi", "do", "done".
    bool run_list(Source& source, bool execute) noexcept;
    bool run_command(Source& source, bool execute) noexcept;
    bool run_if(Source& source, bool execute) noexcept;
    bool run_loop(Source& source, bool execute, bool until) noexcept;
    bool run_for(Source& source, bool execute) noexcept;
    bool run_function(Source& source, bool execute) noexcept;
    bool run_words(Words& words, std::optional<std::string_view> block) noexcept;
    bool call(const Function& function, std::span<const std::string_view> words) noexcept;

    Arena* keep_;
    Arena scratch_;
    GrubCommands* commands_;
    std::span<GrubVariable> variables_;
    std::size_t variable_count_ = 0;
    std::span<Function> functions_;
    std::size_t function_count_ = 0;
    std::span<const std::string_view> parameters_;
    std::uint32_t steps_ = 0;
    int depth_ = 0;
    bool returning_ = false;
    int breaking_ = 0;
    bool continuing_ = false;
    bool stopped_ = false;
    bool status_ = true;
    const char* failure_ = nullptr;
};

}  // namespace masu::firmware
