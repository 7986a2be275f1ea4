// Writes completion scripts: the facts are read off CLI11's tree once, each shell has its own form.
#include "tools/masu/completion.hpp"

#include <cstdio>
#include <memory>
#include <sstream>
#include <vector>

#include "tools/masu/commands.hpp"

namespace masu::cli {
namespace {

// What comes after an option, or where a command's plain argument stands.
enum class ValueKind { None, Anything, File, Vm, Words };

struct Value {
    ValueKind kind = ValueKind::None;
    std::vector<std::string> words;
};

struct OptionFacts {
    std::vector<std::string> spellings;  // "-d", "--detach"
    std::string description;
    Value value;
};

struct CommandFacts {
    std::string name;
    std::string description;
    std::vector<OptionFacts> options;
    Value argument;
};

Value value_of(const CLI::Option& option) {
    if (option.get_items_expected_max() == 0)
        return {};
    const auto type = option.get_type_name();
    if (type == vm_value)
        return {ValueKind::Vm, {}};
    if (type.starts_with(file_value))
        return {ValueKind::File, {}};
    if (type.find('|') == std::string::npos)
        return {ValueKind::Anything, {}};
    Value value{ValueKind::Words, {}};
    std::istringstream words(type);
    for (std::string word; std::getline(words, word, '|');)
        value.words.push_back(word);
    return value;
}

std::string first_sentence(const std::string& text) {
    const auto end = text.find_first_of(":;(");
    auto first = text.substr(0, end);
    while (first.ends_with(' '))
        first.pop_back();
    return first;
}

CommandFacts facts_of(const CLI::App& command) {
    CommandFacts facts{command.get_name(), command.get_description(), {}, {}};
    for (const auto* option : command.get_options()) {
        if (option->get_positional()) {
            facts.argument = value_of(*option);
            continue;
        }
        OptionFacts one{{}, first_sentence(option->get_description()), value_of(*option)};
        for (const auto& name : option->get_snames())
            one.spellings.push_back("-" + name);
        for (const auto& name : option->get_lnames())
            one.spellings.push_back("--" + name);
        facts.options.push_back(std::move(one));
    }
    return facts;
}

std::vector<CommandFacts> commands_of(const CLI::App& program) {
    std::vector<CommandFacts> all;
    for (const auto* command : program.get_subcommands([](const CLI::App*) { return true; }))
        all.push_back(facts_of(*command));
    return all;
}

std::string join(const std::vector<std::string>& words, const std::string& separator) {
    std::string joined;
    for (const auto& word : words)
        joined += (joined.empty() ? "" : separator) + word;
    return joined;
}

std::string quoted(const std::string& text) {
    std::string safe = "'";
    for (const char c : text)
        safe += c == '\'' ? std::string("'\\''") : std::string(1, c);
    return safe + "'";
}

constexpr const char* names_command = "masu ps -a --names 2>/dev/null";

// --- bash ---------------------------------------------------------------------------------------

std::string bash_reply(const Value& value) {
    switch (value.kind) {
        case ValueKind::File:
            return "COMPREPLY=($(compgen -f -- \"$current\")); compopt -o filenames";
        case ValueKind::Vm:
            return fmt::format("COMPREPLY=($(compgen -W \"$({})\" -- \"$current\"))",
                               names_command);
        case ValueKind::Words:
            return fmt::format("COMPREPLY=($(compgen -W {} -- \"$current\"))",
                               quoted(join(value.words, " ")));
        case ValueKind::None:
        case ValueKind::Anything:
            break;
    }
    return "COMPREPLY=()";
}

std::string bash_command(const CommandFacts& command) {
    std::string text = fmt::format("    {})\n      case $previous in\n", command.name);
    std::vector<std::string> spellings;
    for (const auto& option : command.options) {
        spellings.insert(spellings.end(), option.spellings.begin(), option.spellings.end());
        if (option.value.kind != ValueKind::None)
            text += fmt::format("        {}) {}; return ;;\n", join(option.spellings, "|"),
                                bash_reply(option.value));
    }
    text += fmt::format(
        "      esac\n"
        "      if [[ $current == -* ]]; then\n"
        "        COMPREPLY=($(compgen -W {} -- \"$current\"))\n"
        "      else\n"
        "        {}\n"
        "      fi\n"
        "      ;;\n",
        quoted(join(spellings, " ")), bash_reply(command.argument));
    return text;
}

std::string bash_script(const std::vector<CommandFacts>& commands) {
    std::vector<std::string> names;
    for (const auto& command : commands)
        names.push_back(command.name);
    std::string text = fmt::format(
        "# bash completion for masu\n"
        "_masu() {{\n"
        "  local current=${{COMP_WORDS[COMP_CWORD]}} previous=${{COMP_WORDS[COMP_CWORD-1]}}\n"
        "  if ((COMP_CWORD == 1)); then\n"
        "    COMPREPLY=($(compgen -W {} -- \"$current\"))\n"
        "    return\n"
        "  fi\n"
        "  case ${{COMP_WORDS[1]}} in\n",
        quoted(join(names, " ") + " --help --version"));
    for (const auto& command : commands)
        text += bash_command(command);
    return text + "  esac\n}\ncomplete -F _masu masu\n";
}

// --- zsh ----------------------------------------------------------------------------------------

std::string zsh_escaped(const std::string& text) {
    std::string safe;
    for (const char c : text)
        safe += c == '[' || c == ']' || c == ':' || c == '\\' ? std::string("\\") + c
                                                              : std::string(1, c);
    return safe;
}

std::string zsh_value(const Value& value) {
    switch (value.kind) {
        case ValueKind::File:
            return ":file:_files";
        case ValueKind::Vm:
            return ":vm:_masu_vms";
        case ValueKind::Words:
            return ":value:(" + join(value.words, " ") + ")";
        case ValueKind::Anything:
            return ":value: ";
        case ValueKind::None:
            break;
    }
    return "";
}

std::string zsh_command(const CommandFacts& command) {
    std::string text = fmt::format("    {})\n      _arguments", command.name);
    for (const auto& option : command.options)
        for (const auto& spelling : option.spellings)
            text +=
                " \\\n        " + quoted("*" + spelling + "[" + zsh_escaped(option.description) +
                                         "]" + zsh_value(option.value));
    if (command.argument.kind != ValueKind::None)
        text += " \\\n        " + quoted("*" + zsh_value(command.argument));
    return text + "\n      ;;\n";
}

std::string zsh_script(const std::vector<CommandFacts>& commands) {
    std::string text = fmt::format(
        "#compdef masu\n"
        "_masu_vms() {{\n"
        "  local -a names\n"
        "  names=(${{(f)\"$({})\"}})\n"
        "  compadd -a names\n"
        "}}\n"
        "_masu() {{\n"
        "  if ((CURRENT == 2)); then\n"
        "    local -a commands\n"
        "    commands=(\n",
        names_command);
    for (const auto& command : commands)
        text += "      " + quoted(command.name + ":" + zsh_escaped(command.description)) + "\n";
    text +=
        "    )\n"
        "    _describe command commands\n"
        "    return\n"
        "  fi\n"
        "  local chosen=$words[2]\n"
        "  shift words\n"
        "  ((CURRENT--))\n"
        "  case $chosen in\n";
    for (const auto& command : commands)
        text += zsh_command(command);
    // Autoloaded, the file is the function's body; sourced, it registers itself.
    return text +
           "  esac\n"
           "}\n"
           "if [[ $funcstack[1] == _masu ]]; then\n"
           "  _masu \"$@\"\n"
           "else\n"
           "  compdef _masu masu\n"
           "fi\n";
}

// --- fish ---------------------------------------------------------------------------------------

std::string fish_quoted(const std::string& text) {
    std::string safe = "'";
    for (const char c : text)
        safe += c == '\'' || c == '\\' ? std::string("\\") + c : std::string(1, c);
    return safe + "'";
}

std::string fish_value(const Value& value) {
    switch (value.kind) {
        case ValueKind::File:
            return " -r -F";
        case ValueKind::Vm:
            return fmt::format(" -x -a '({})'", names_command);
        case ValueKind::Words:
            return " -x -a " + fish_quoted(join(value.words, " "));
        case ValueKind::Anything:
            return " -x";
        case ValueKind::None:
            break;
    }
    return "";
}

std::string fish_command(const CommandFacts& command) {
    const auto here =
        fmt::format("complete -c masu -n '__fish_seen_subcommand_from {}'", command.name);
    auto text = fmt::format("complete -c masu -n __fish_use_subcommand -a {} -d {}\n", command.name,
                            fish_quoted(command.description));
    for (const auto& option : command.options) {
        text += here;
        for (const auto& spelling : option.spellings)
            text += spelling.starts_with("--") ? " -l " + spelling.substr(2)
                                               : " -s " + spelling.substr(1);
        text += " -d " + fish_quoted(option.description) + fish_value(option.value) + "\n";
    }
    if (command.argument.kind != ValueKind::None)
        text += here + fish_value(command.argument) + "\n";
    return text;
}

std::string fish_script(const std::vector<CommandFacts>& commands) {
    std::string text = "# fish completion for masu\ncomplete -c masu -f\n";
    for (const auto& command : commands)
        text += fish_command(command);
    return text;
}

}  // namespace

std::string completion_script(const CLI::App& program, Shell shell) {
    const auto commands = commands_of(program);
    switch (shell) {
        case Shell::Bash:
            return bash_script(commands);
        case Shell::Zsh:
            return zsh_script(commands);
        case Shell::Fish:
            return fish_script(commands);
    }
    return {};
}

void add_completion_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("completion", "Print a shell's completion script");
    auto shell = std::make_shared<std::string>();
    add_choice(*command, "shell", *shell, {"bash", "zsh", "fish"}, "The shell")->required();
    command->footer(
        "Packages install these scripts; without one:\n"
        "\n"
        "Examples:\n"
        "  source <(masu completion bash)                                       in ~/.bashrc\n"
        "  masu completion zsh > ~/.zsh/functions/_masu                         a folder of "
        "$fpath\n"
        "  masu completion fish > ~/.config/fish/completions/masu.fish");
    command->callback([shell, &program, &invocation] {
        invocation.run = [shell, &program]() -> Result<int> {
            const auto kind = *shell == "bash"  ? Shell::Bash
                              : *shell == "zsh" ? Shell::Zsh
                                                : Shell::Fish;
            const auto script = completion_script(program, kind);
            std::fwrite(script.data(), 1, script.size(), stdout);
            return 0;
        };
    });
}

}  // namespace masu::cli
