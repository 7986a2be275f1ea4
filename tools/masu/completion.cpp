// Writes completion scripts: the facts are read off CLI11's tree once, each shell has its own form.
#include "tools/masu/completion.hpp"

#include <CLI/App.hpp>
#include <cstdio>
#include <memory>
#include <sstream>
#include <vector>

#include "tools/masu/commands.hpp"

namespace masu::cli {
namespace {

// What comes after an option, or where a command's plain argument stands.
enum class ValueKind { None, Anything, File, Name, Words };

// Names that a command of ours lists.
struct NameSource {
    const char* type;      // as options and arguments call their value
    const char* label;     // what zsh calls one
    const char* function;  // zsh's, that offers them
    const char* command;
    bool or_file = false;  // a file will do as well
};
constexpr NameSource name_sources[] = {
    {vm_value, "vm", "_masu_vms", "masu ps -a --names 2>/dev/null"},
    {image_value, "image", "_masu_images", "masu image ls --names 2>/dev/null", true},
    {group_value, "group", "_masu_groups", "masu sg ls --names 2>/dev/null"},
    {network_value, "network", "_masu_networks", "masu net ls --names 2>/dev/null"},
    {prefix_list_value, "list", "_masu_prefix_lists", "masu prefix-list ls --names 2>/dev/null"},
    {snapshot_value, "snapshot", "_masu_snapshots", "masu snapshot ls --names 2>/dev/null"},
};

struct Value {
    ValueKind kind = ValueKind::None;
    std::vector<std::string> words;
    const NameSource* names = nullptr;  // of kind Name
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
    Value argument;                      // the first one, where there are several
    std::vector<CommandFacts> commands;  // "image" has "import", "ls", ...
};

Value value_of(const CLI::Option& option) {
    if (option.get_items_expected_max() == 0)
        return {};
    const auto type = option.get_type_name();
    for (const auto& source : name_sources)
        if (type == source.type)
            return {ValueKind::Name, {}, &source};
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

std::vector<CommandFacts> commands_of(const CLI::App& program);

CommandFacts facts_of(const CLI::App& command) {
    CommandFacts facts{command.get_name(), command.get_description(), {}, {}, commands_of(command)};
    for (const auto* option : command.get_options()) {
        if (option->get_positional()) {
            if (facts.argument.kind == ValueKind::None)
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
    // Those without a group are for masu itself; help does not show them either.
    for (const auto* command :
         program.get_subcommands([](const CLI::App* one) { return !one->get_group().empty(); }))
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

std::string names_of(const std::vector<CommandFacts>& commands) {
    std::vector<std::string> names;
    for (const auto& command : commands)
        names.push_back(command.name);
    return join(names, " ");
}

// --- bash ---------------------------------------------------------------------------------------

std::string bash_reply(const Value& value) {
    switch (value.kind) {
        case ValueKind::File:
            return "COMPREPLY=($(compgen -f -- \"$current\")); compopt -o filenames";
        case ValueKind::Name:
            return fmt::format("COMPREPLY=($(compgen -W \"$({})\" -- \"$current\"){})",
                               value.names->command,
                               value.names->or_file ? " $(compgen -f -- \"$current\")" : "");
        case ValueKind::Words:
            return fmt::format("COMPREPLY=($(compgen -W {} -- \"$current\"))",
                               quoted(join(value.words, " ")));
        case ValueKind::None:
        case ValueKind::Anything:
            break;
    }
    return "COMPREPLY=()";
}

std::string bash_commands(const std::vector<CommandFacts>& commands, int depth);

std::string bash_command(const CommandFacts& command, int depth) {
    std::string text = fmt::format("    {})\n", command.name);
    if (!command.commands.empty())
        return text + bash_commands(command.commands, depth + 1) + "      ;;\n";
    text += "      case $previous in\n";
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

// The word at `depth` chooses among `commands`.
std::string bash_commands(const std::vector<CommandFacts>& commands, int depth) {
    auto text = fmt::format(
        "  if ((COMP_CWORD == {})); then\n"
        "    COMPREPLY=($(compgen -W {} -- \"$current\"))\n"
        "    return\n"
        "  fi\n"
        "  case ${{COMP_WORDS[{}]}} in\n",
        depth, quoted(names_of(commands) + (depth == 1 ? " --help --version" : " --help")), depth);
    for (const auto& command : commands)
        text += bash_command(command, depth);
    return text + "  esac\n";
}

std::string bash_script(const std::vector<CommandFacts>& commands) {
    return "# bash completion for masu\n"
           "_masu() {\n"
           "  local current=${COMP_WORDS[COMP_CWORD]} previous=${COMP_WORDS[COMP_CWORD-1]}\n" +
           bash_commands(commands, 1) + "}\ncomplete -F _masu masu\n";
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
        case ValueKind::Name:
            return fmt::format(":{}:{}", value.names->label, value.names->function);
        case ValueKind::Words:
            return ":value:(" + join(value.words, " ") + ")";
        case ValueKind::Anything:
            return ":value: ";
        case ValueKind::None:
            break;
    }
    return "";
}

std::string zsh_commands(const std::vector<CommandFacts>& commands);

std::string zsh_command(const CommandFacts& command) {
    if (!command.commands.empty())
        return fmt::format("    {})\n{}      ;;\n", command.name, zsh_commands(command.commands));
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

// $words[2] chooses among `commands`.
std::string zsh_commands(const std::vector<CommandFacts>& commands) {
    std::string text =
        "  if ((CURRENT == 2)); then\n"
        "    commands=(\n";
    for (const auto& command : commands)
        text += "      " + quoted(command.name + ":" + zsh_escaped(command.description)) + "\n";
    text +=
        "    )\n"
        "    _describe command commands\n"
        "    return\n"
        "  fi\n"
        "  chosen=$words[2]\n"
        "  shift words\n"
        "  ((CURRENT--))\n"
        "  case $chosen in\n";
    for (const auto& command : commands)
        text += zsh_command(command);
    return text + "  esac\n";
}

std::string zsh_script(const std::vector<CommandFacts>& commands) {
    std::string names = "#compdef masu\n";
    for (const auto& source : name_sources)
        names += fmt::format(
            "{}() {{\n"
            "  local -a names\n"
            "  names=(${{(f)\"$({})\"}})\n"
            "  compadd -a names\n"
            "{}}}\n",
            source.function, source.command, source.or_file ? "  _files\n" : "");
    // Autoloaded, the file is the function's body; sourced, it registers itself.
    return names +
           "_masu() {\n"
           "  local chosen\n"
           "  local -a commands\n" +
           zsh_commands(commands) +
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
        case ValueKind::Name:
            return fmt::format(" {} -a '({})'", value.names->or_file ? "-r -F" : "-x",
                               value.names->command);
        case ValueKind::Words:
            return " -x -a " + fish_quoted(join(value.words, " "));
        case ValueKind::Anything:
            return " -x";
        case ValueKind::None:
            break;
    }
    return "";
}

// `path`: the words before the command, "" or "image ".
std::string fish_commands(const std::vector<CommandFacts>& commands, const std::string& path) {
    std::string text;
    for (const auto& command : commands) {
        text += fmt::format("complete -c masu -n '__masu_next {}' -a {} -d {}\n", path,
                            command.name, fish_quoted(command.description));
        const auto words = path + command.name;
        text += fish_commands(command.commands, words + " ");
        const auto here = fmt::format("complete -c masu -n '__masu_in {}'", words);
        for (const auto& option : command.options) {
            text += here;
            for (const auto& spelling : option.spellings)
                text += spelling.starts_with("--") ? " -l " + spelling.substr(2)
                                                   : " -s " + spelling.substr(1);
            text += " -d " + fish_quoted(option.description) + fish_value(option.value) + "\n";
        }
        if (command.argument.kind != ValueKind::None)
            text += here + fish_value(command.argument) + "\n";
    }
    return text;
}

std::string fish_script(const std::vector<CommandFacts>& commands) {
    // Whether the command line begins with these words, and whether they are all of it so far.
    return "# fish completion for masu\n"
           "function __masu_in\n"
           "  set -l words (commandline -opc)\n"
           "  test (count $words) -gt (count $argv)\n"
           "  and test \"$words[2..(math (count $argv) + 1)]\" = \"$argv\"\n"
           "end\n"
           "function __masu_next\n"
           "  set -l words (commandline -opc)\n"
           "  test \"$words[2..-1]\" = \"$argv\"\n"
           "end\n"
           "complete -c masu -f\n" +
           fish_commands(commands, "");
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
