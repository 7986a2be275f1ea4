// Starting the page server, which is this program itself as a process of its own.
#include <fcntl.h>
#include <unistd.h>

#include <array>
#include <memory>

// What CLI::App only declares: this file is linked without the other commands too.
#include <CLI/Config.hpp>
#include <CLI/Formatter.hpp>

#include "tools/masu/child_program.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/page_server.hpp"
#include "tools/masu/unix_socket.hpp"

namespace masu::cli {
Result<Fd> start_page_server(const std::string& directory, const std::string& socket,
                             const std::string& log_path, bool working_set) {
    const auto listener = TRY(listen_unix(socket));
    int ends[2];
    if (::pipe2(ends, O_CLOEXEC) < 0)
        return fail_errno(errno, "cannot make a pipe");
    const Fd hope(ends[0]);
    Fd hoping(ends[1]);
    std::vector<std::string> arguments{"masu", "page-server", directory,
                                       std::to_string(listener.get()), std::to_string(hope.get())};
    if (!working_set)
        arguments.emplace_back("--no-working-set");
    const std::array kept{listener.get(), hope.get()};
    TRY(start_in_background(std::move(arguments), log_path, kept, "the page server"));
    return hoping;
}

// For masu itself: what start_page_server() runs.
void add_page_server(CLI::App& program, Invocation& invocation) {
    struct Options {
        std::string directory;
        int listener = -1;
        int hope = -1;
        bool no_working_set = false;
    };
    auto* command = program.add_subcommand("page-server", "Brings in a VM's compressed memory");
    command->group("");
    auto options = std::make_shared<Options>();
    command->add_option("directory", options->directory)->required();
    command->add_option("listener", options->listener)->required();
    command->add_option("hope", options->hope)->required();
    command->add_flag("--no-working-set", options->no_working_set);
    command->callback([&invocation, options] {
        invocation.run = [options]() -> Result<int> {
            TRY(serve_pages(options->directory, Fd(options->listener), !options->no_working_set,
                            Fd(options->hope)));
            return 0;
        };
    });
}

}  // namespace masu::cli
