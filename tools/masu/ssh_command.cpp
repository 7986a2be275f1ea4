// masu ssh: logs into a VM with this machine's own ssh.
#include <CLI/App.hpp>
#include <boost/json.hpp>
#include <memory>

#include <unistd.h>

#include "tools/masu/child_program.hpp"
#include "tools/masu/commands.hpp"
#include "tools/masu/monitor_process.hpp"

namespace masu::cli {
namespace {

constexpr std::uint16_t ssh_port = 22;

struct SshOptions {
    std::string target;
    std::string identity;
    std::vector<std::string> command;
};

struct Endpoint {
    std::string address;
    std::uint16_t port = ssh_port;
};

// Through a published port, or straight to the address on a TAP.
Result<Endpoint> endpoint_of(const VmRecord& record) {
    for (const auto& port : record.ports)
        if (!port.udp && port.guest == ssh_port)
            return Endpoint{port.host_address.empty() || port.host_address == "0.0.0.0"
                                ? "127.0.0.1"
                                : port.host_address,
                            port.host};
    for (const auto& net : record.nets)
        if (net.kind == NetOption::Kind::Tap && net.address)
            return Endpoint{net.address->substr(0, net.address->find('/'))};
    return fail(
        "{} cannot be reached by ssh: publish its port 22 (masu run -p 2222:22), or give "
        "its TAP an address=",
        record.name);
}

Result<int> run(const SshOptions& options) {
    const auto at = options.target.rfind('@');
    const auto name = at == std::string::npos ? options.target : options.target.substr(at + 1);
    const auto user = at == std::string::npos ? std::string() : options.target.substr(0, at);
    const auto store = TRY(open_store());
    const auto folder = TRY(store.find(name));
    const auto record = TRY(folder.record());
    if (!TRY(running_monitor(folder, record)))
        return fail("{} is not running", name);
    const auto endpoint = TRY(endpoint_of(record));

    // A VM's host key is its own, and new with each VM: known by the VM, not by the address.
    std::vector<std::string> arguments{"ssh",
                                       "-p",
                                       std::to_string(endpoint.port),
                                       "-o",
                                       "HostKeyAlias=masu-" + record.id,
                                       "-o",
                                       "UserKnownHostsFile=" + folder.file("known_hosts"),
                                       "-o",
                                       "StrictHostKeyChecking=accept-new"};
    if (!options.identity.empty()) {
        arguments.emplace_back("-i");
        arguments.push_back(options.identity);
    }
    if (!user.empty()) {
        arguments.emplace_back("-l");
        arguments.push_back(user);
    }
    arguments.push_back(endpoint.address);
    arguments.insert(arguments.end(), options.command.begin(), options.command.end());
    const auto pointers = exec_arguments(arguments);
    ::execvp(pointers[0], pointers.data());
    return fail_errno(errno, "cannot start ssh (apt-get install openssh-client)");
}

}  // namespace

void add_ssh_command(CLI::App& program, Invocation& invocation) {
    auto* command = program.add_subcommand("ssh", "Log into a VM over its network");
    auto options = std::make_shared<SshOptions>();
    command->add_option("vm", options->target, "The VM, perhaps with a user: debian@web")
        ->type_name(vm_value)
        ->required();
    command->add_option("command", options->command, "What to run there instead of a shell")
        ->type_name("COMMAND");
    command->add_option("-i,--identity", options->identity, "The private key to log in with")
        ->type_name(file_value);
    command->positionals_at_end();
    command->footer(
        "Goes through the published port of the guest's port 22, or to the address of a TAP. The\n"
        "guest's host key is remembered with the VM, and forgotten with it.\n"
        "\n"
        "Examples:\n"
        "  masu run --name web -p 2222:22 --ssh-key ~/.ssh/id_ed25519.pub ... -d\n"
        "  masu ssh debian@web\n"
        "  masu ssh debian@web uptime");
    command->callback(
        [options, &invocation] { invocation.run = [options] { return run(*options); }; });
}

}  // namespace masu::cli
