#include "firmware/boot/grub_script.hpp"

#include <algorithm>

namespace masu::firmware {

namespace {

constexpr std::size_t max_variables = 256;
constexpr std::size_t max_functions = 64;
constexpr std::size_t scratch_size = 192 * 1024;
constexpr std::uint32_t max_steps = 100'000;
constexpr std::uint32_t bytes_per_step = 64;  // of a loop's or a function's text, run again
constexpr int max_depth = 40;
constexpr std::size_t max_word = 16384;

constexpr std::array<std::string_view, 6> list_ends{"then", "elif", "else", "fi", "do", "done"};

bool ends_word(char c) {
    return is_blank(c) || c == '\n' || c == ';' || c == '{' || c == '}' || c == '&' || c == '|';
}

}  // namespace

// One word being put together; an unquoted variable with blanks in it makes several of it.
class GrubScript::WordBuilder {
  public:
    WordBuilder(GrubScript& script, Words& words) noexcept
        : script_(script), words_(words), text_(script.scratch_) {}
    void put(char c) noexcept { put(std::string_view(&c, 1)); }
    void put(std::string_view text) noexcept {
        present_ = true;
        if (text_.view().size() + text.size() > max_word)
            return script_.fail("a word is longer than 16 KiB");
        text_.put(text);
        if (!text_.ok())
            script_.fail("the commands need more memory than they are given");
    }
    void put_split(std::string_view text) noexcept {
        for (const char c : text) {
            if (is_blank(c) || c == '\n')
                finish();
            else
                put(c);
        }
    }
    void mark_present() noexcept { present_ = true; }
    void finish() noexcept {
        if (!present_)
            return;
        if (words_.count < words_.list.size())
            words_.list[words_.count++] = text_.view();
        else
            script_.fail("a command has more than 96 words");
        text_ = TextBuilder(script_.scratch_);
        present_ = false;
    }

  private:
    GrubScript& script_;
    Words& words_;
    TextBuilder text_;
    bool present_ = false;
};

GrubScript::GrubScript(Arena& keep, GrubCommands& commands) noexcept
    : keep_(&keep),
      scratch_(keep.make_array<std::byte>(scratch_size)),
      commands_(&commands),
      variables_(keep.make_array<GrubVariable>(max_variables)),
      functions_(keep.make_array<Function>(max_functions)) {
    if (scratch_.left() == 0 || variables_.empty() || functions_.empty())
        fail("no memory left");
}

// Not on the stack, which deep nesting would use up. nullptr, and a failure, without memory.
GrubScript::Words* GrubScript::make_words() noexcept {
    auto* const made = scratch_.make<Words>();
    if (made == nullptr)
        fail("the commands need more memory than they are given");
    return made;
}

bool GrubScript::step(std::uint64_t bytes) noexcept {
    charge(1 + static_cast<std::uint32_t>(bytes / bytes_per_step));
    return failure_ == nullptr;
}

void GrubScript::charge(std::uint32_t steps) noexcept {
    steps_ += std::min(steps, max_steps);
    if (steps_ > max_steps) {
        steps_ = max_steps;
        fail("it runs more than 100000 commands");
    }
}

bool GrubScript::run(std::string_view source) noexcept {
    Source whole{source};
    while (failure_ == nullptr && !returning_) {
        run_list(whole, true);
        if (peek(whole) == Token::End)
            break;
        fail("\"}\", \"then\", \"fi\" or \"done\" stands where no block is open");
    }
    returning_ = false;
    return failure_ == nullptr;
}

std::string_view GrubScript::keep(std::string_view text) noexcept {
    const auto kept = copy_text(*keep_, text);
    if (!kept)
        fail("no memory left");
    return kept.value_or(std::string_view{});
}

std::optional<std::string_view> GrubScript::find(std::string_view name) const noexcept {
    for (const auto& variable : variables_.first(variable_count_))
        if (variable.name == name)
            return variable.value;
    return std::nullopt;
}

void GrubScript::set(std::string_view name, std::string_view value) noexcept {
    for (auto& variable : variables_.first(variable_count_)) {
        if (variable.name != name)
            continue;
        if (variable.value != value)
            variable.value = keep(value);
        return;
    }
    if (variable_count_ == variables_.size())
        return fail("it sets more than 256 variables");
    variables_[variable_count_++] = {keep(name), keep(value)};
}

void GrubScript::unset(std::string_view name) noexcept {
    for (std::size_t i = 0; i < variable_count_; ++i) {
        if (variables_[i].name != name)
            continue;
        variables_[i] = variables_[--variable_count_];
        return;
    }
}

std::span<const GrubVariable> GrubScript::snapshot() noexcept {
    const auto copy = keep_->make_array<GrubVariable>(variable_count_);
    if (copy.size() != variable_count_)
        fail("no memory left");
    else
        std::copy_n(variables_.begin(), variable_count_, copy.begin());
    return copy;
}

void GrubScript::restore(std::span<const GrubVariable> variables) noexcept {
    variable_count_ = std::min(variables.size(), variables_.size());
    std::copy_n(variables.begin(), variable_count_, variables_.begin());
}

void GrubScript::set_parameters(std::span<const std::string_view> parameters) noexcept {
    parameters_ = parameters;
}

// Skips blanks, comments and continued lines.
GrubScript::Token GrubScript::peek(Source& source) noexcept {
    const auto text = source.text;
    while (source.at < text.size()) {
        const char c = text[source.at];
        if (is_blank(c)) {
            ++source.at;
        } else if (c == '\\' && source.at + 1 < text.size() && text[source.at + 1] == '\n') {
            source.at += 2;
        } else if (c == '#') {
            while (source.at < text.size() && text[source.at] != '\n')
                ++source.at;
        } else {
            break;
        }
    }
    if (source.at == text.size())
        return Token::End;
    switch (text[source.at]) {
        case '\n':
        case ';':
        case '&':
        case '|':
            return Token::Separator;
        case '{':
            return Token::OpenBrace;
        case '}':
            return Token::CloseBrace;
        default:
            return Token::Word;
    }
}

bool GrubScript::at_keyword(const Source& source, std::string_view keyword) noexcept {
    const auto rest = part(source.text, source.at);
    return rest.starts_with(keyword) &&
           (rest.size() == keyword.size() || ends_word(rest[keyword.size()]));
}

void GrubScript::skip_keyword(Source& source, std::string_view keyword) noexcept {
    while (peek(source) == Token::Separator)
        ++source.at;
    if (peek(source) != Token::Word || !at_keyword(source, keyword))
        return fail(keyword == "then" ? "\"then\" is missing"
                    : keyword == "fi" ? "\"fi\" is missing"
                    : keyword == "do" ? "\"do\" is missing"
                                      : "\"done\" is missing");
    source.at += keyword.size();
}

// Behind the "$".
void GrubScript::read_variable(Source& source, WordBuilder& word, bool quoted,
                               bool execute) noexcept {
    const auto rest = part(source.text, source.at);
    std::string_view name;
    if (rest.starts_with('{')) {
        const std::size_t end = rest.find('}');
        if (end == std::string_view::npos)
            return fail("\"${\" has no end");
        name = part(rest, 1, end - 1);
        source.at += end + 1;
    } else {
        std::size_t size = 0;
        if (!rest.empty() && (is_digit(rest[0]) || rest[0] == '?' || rest[0] == '#' ||
                              rest[0] == '*' || rest[0] == '@'))
            size = 1;
        while (size < rest.size() && is_name(rest[size]) && (size == 0 || !is_digit(rest[0])))
            ++size;
        name = part(rest, 0, size);
        source.at += size;
        if (size == 0)
            return word.put('$');
    }
    if (!execute)
        return;
    const auto put = [&](std::string_view text) {
        if (quoted)
            word.put(text);
        else
            word.put_split(text);
    };
    if (name == "?")
        return put(status_ ? "0" : "1");
    if (name == "*" || name == "@") {
        for (std::size_t i = 0; i < parameters_.size(); ++i) {
            if (i != 0)
                put(" ");
            put(parameters_[i]);
        }
        return;
    }
    if (const auto index = parse_number(name); index && *index != 0) {
        if (*index <= parameters_.size())
            put(parameters_[*index - 1]);
        return;
    }
    put(value(name));
}

// Behind the double quote.
void GrubScript::read_quoted(Source& source, WordBuilder& word, bool execute) noexcept {
    word.mark_present();
    const auto text = source.text;
    while (source.at < text.size() && failure_ == nullptr) {
        const char c = text[source.at++];
        if (c == '"')
            return;
        if (c == '$') {
            read_variable(source, word, true, execute);
        } else if (c == '\\' && source.at < text.size() &&
                   (text[source.at] == '"' || text[source.at] == '$' || text[source.at] == '\\' ||
                    text[source.at] == '\n')) {
            if (text[source.at] != '\n')
                word.put(text[source.at]);
            ++source.at;
        } else {
            word.put(c);
        }
    }
    fail("a quotation mark has no partner");
}

void GrubScript::read_word(Source& source, Words& words, bool execute) noexcept {
    const auto text = source.text;
    const std::size_t first = source.at;
    bool plain = true;
    WordBuilder word(*this, words);
    while (source.at < text.size() && failure_ == nullptr && !ends_word(text[source.at])) {
        const char c = text[source.at++];
        if (c == '\'') {
            plain = false;
            word.mark_present();
            const std::size_t end = text.find('\'', source.at);
            if (end == std::string_view::npos)
                return fail("a quotation mark has no partner");
            word.put(part(text, source.at, end - source.at));
            source.at = end + 1;
        } else if (c == '"') {
            plain = false;
            read_quoted(source, word, execute);
        } else if (c == '$') {
            plain = false;
            read_variable(source, word, false, execute);
        } else if (c == '\\' && source.at < text.size()) {
            plain = false;
            if (text[source.at] != '\n')
                word.put(text[source.at]);
            ++source.at;
        } else {
            word.put(c);
        }
    }
    if (words.count == 0 && plain)
        words.keyword = part(text, first, source.at - first);
    word.finish();
}

// Past the matching "}"; what is between as it stands. Braces count only where a word could begin,
// or end it, and not inside quotes.
std::string_view GrubScript::skip_block(Source& source) noexcept {
    const auto text = source.text;
    const std::size_t first = ++source.at;
    int open = 1;
    while (failure_ == nullptr) {
        switch (peek(source)) {
            case Token::End:
                fail("\"{\" has no partner");
                return {};
            case Token::OpenBrace:
                ++open;
                ++source.at;
                break;
            case Token::CloseBrace:
                ++source.at;
                if (--open == 0)
                    return part(text, first, source.at - 1 - first);
                break;
            case Token::Separator:
                ++source.at;
                break;
            case Token::Word: {
                const std::size_t mark = scratch_.mark();
                if (Words* const ignored = make_words())
                    read_word(source, *ignored, false);
                scratch_.rewind(mark);
                break;
            }
        }
    }
    return {};
}

bool GrubScript::run_list(Source& source, bool execute) noexcept {
    if (++depth_ > max_depth)
        fail("it is nested more than 40 deep");
    bool result = true;
    while (failure_ == nullptr) {
        const Token token = peek(source);
        if (token == Token::Separator) {
            ++source.at;
            continue;
        }
        if (token == Token::End || token == Token::CloseBrace)
            break;
        if (std::ranges::any_of(list_ends, [&](auto word) { return at_keyword(source, word); }))
            break;
        const bool live = execute && !returning_ && !stopped_ && breaking_ == 0 && !continuing_;
        const bool one = run_command(source, live);
        if (live)
            result = one;
    }
    --depth_;
    return result;
}

bool GrubScript::run_command(Source& source, bool execute) noexcept {
    if (!step())
        return false;
    const std::size_t mark = scratch_.mark();
    bool result = true;
    if (peek(source) == Token::OpenBrace) {
        Source inner{skip_block(source)};
        result = run_list(inner, execute);
    } else if (at_keyword(source, "if")) {
        source.at += 2;
        result = run_if(source, execute);
    } else if (at_keyword(source, "while") || at_keyword(source, "until")) {
        const bool until = at_keyword(source, "until");
        source.at += 5;
        result = run_loop(source, execute, until);
    } else if (at_keyword(source, "for")) {
        source.at += 3;
        result = run_for(source, execute);
    } else if (at_keyword(source, "function")) {
        source.at += 8;
        result = run_function(source, execute);
    } else {
        Words* const words = make_words();
        std::optional<std::string_view> block;
        while (failure_ == nullptr && peek(source) == Token::Word)
            read_word(source, *words, execute);
        if (failure_ == nullptr && peek(source) == Token::OpenBrace)
            block = skip_block(source);
        if (execute && failure_ == nullptr)
            result = status_ = run_words(*words, block);
    }
    scratch_.rewind(mark);
    return result;
}

bool GrubScript::run_if(Source& source, bool execute) noexcept {
    bool taken = false;
    bool result = true;
    for (;;) {
        const bool decide = execute && !taken;
        const bool truth = run_list(source, decide);
        skip_keyword(source, "then");
        const bool body = decide && truth;
        const bool value = run_list(source, body);
        if (body)
            result = value;
        taken = taken || body;
        if (failure_ != nullptr)
            return false;
        if (at_keyword(source, "elif")) {
            source.at += 4;
            continue;
        }
        if (at_keyword(source, "else")) {
            source.at += 4;
            const bool last = run_list(source, execute && !taken);
            if (execute && !taken)
                result = last;
        }
        skip_keyword(source, "fi");
        return result;
    }
}

bool GrubScript::run_loop(Source& source, bool execute, bool until) noexcept {
    const Source start = source;
    for (bool live = execute; failure_ == nullptr;) {
        source = start;
        const bool truth = run_list(source, live);
        skip_keyword(source, "do");
        live = live && truth != until && !returning_ && !stopped_;
        run_list(source, live);
        skip_keyword(source, "done");
        continuing_ = false;
        if (live && breaking_ != 0) {
            --breaking_;
            live = false;
        }
        if (!live || !step(source.at - start.at))
            break;
    }
    return true;
}

bool GrubScript::run_for(Source& source, bool execute) noexcept {
    Words* const made = make_words();
    while (failure_ == nullptr && peek(source) == Token::Word)
        read_word(source, *made, execute);
    if (failure_ != nullptr)
        return false;
    const Words& words = *made;
    if (execute && (words.count < 2 || words.list[1] != "in"))
        fail("\"for\" is not followed by a name and \"in\"");
    skip_keyword(source, "do");
    const Source start = source;
    bool live = execute && failure_ == nullptr && words.count > 2;
    std::size_t next = 2;
    do {
        source = start;
        if (live)
            set(words.list[0], words.list[next++]);
        run_list(source, live);
        skip_keyword(source, "done");
        continuing_ = false;
        if (live && breaking_ != 0) {
            --breaking_;
            live = false;
        }
        live = live && next < words.count && !returning_ && !stopped_ && step(source.at - start.at);
    } while (live && failure_ == nullptr);
    return true;
}

bool GrubScript::run_function(Source& source, bool execute) noexcept {
    Words* const made = make_words();
    if (made == nullptr)
        return false;
    const Words& words = *made;
    if (peek(source) == Token::Word)
        read_word(source, *made, execute);
    while (peek(source) == Token::Separator && source.text[source.at] == '\n')
        ++source.at;
    if (peek(source) != Token::OpenBrace) {
        fail("\"function\" is not followed by a name and a block");
        return false;
    }
    const auto body = skip_block(source);
    if (!execute || words.count == 0)
        return true;
    for (auto& function : functions_.first(function_count_)) {
        if (function.name != words.list[0])
            continue;
        function.body = body;
        return true;
    }
    if (function_count_ == functions_.size()) {
        fail("it defines more than 64 functions");
        return false;
    }
    functions_[function_count_++] = {keep(words.list[0]), body};
    return true;
}

bool GrubScript::call(const Function& function, std::span<const std::string_view> words) noexcept {
    if (!step(function.body.size()))
        return false;
    const auto outer = parameters_;
    parameters_ = words.subspan(1);
    Source body{function.body};
    const bool result = run_list(body, true);
    parameters_ = outer;
    returning_ = false;
    return result;
}

bool GrubScript::run_words(Words& words, std::optional<std::string_view> block) noexcept {
    auto list = std::span<const std::string_view>(words.list).first(words.count);
    bool negated = false;
    while (!list.empty() && words.keyword == "!" && list[0] == "!") {
        negated = !negated;
        list = list.subspan(1);
    }
    if (list.empty())
        return !negated;
    const auto name = list[0];
    // NAME=value
    const std::size_t equals = name.find('=');
    if (equals != std::string_view::npos && equals != 0 && name != "[" &&
        std::ranges::all_of(part(name, 0, equals), is_name)) {
        set(part(name, 0, equals), part(name, equals + 1));
        return true;
    }
    for (const auto& function : functions_.first(function_count_))
        if (function.name == name)
            return call(function, list) != negated;
    if (name == "return") {
        returning_ = true;
        return list.size() < 2 || list[1] == "0";
    }
    if (name == "break" || name == "continue") {
        if (name == "break")
            breaking_ = 1;
        else
            continuing_ = true;
        return true;
    }
    return commands_->run(list, block) != negated;
}

}  // namespace masu::firmware
