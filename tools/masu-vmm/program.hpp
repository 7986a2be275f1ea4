// One run of masu-vmm: puts loop, console, monitor and control socket together, and takes them
// down.
#pragma once

#include <memory>
#include <optional>
#include <string>

#include "base/clock.hpp"
#include "tools/masu-vmm/options.hpp"
#include "vmm/api/http_server.hpp"
#include "vmm/monitor.hpp"

namespace masu {

// That this process has no jail: in the log and, `to_caller`, on standard error.
void warn_of_no_jail(const Log& log, bool to_caller);

// Thread: the one that called run(), which is also the event loop's.
class Program {
  public:
    // SIGTERM, SIGINT and SIGHUP are blocked already, in every thread to come.
    Program(Options options, const Clock& clock, Nanoseconds process_start, MachineFactory factory,
            MachineRestorer restorer);

    // Runs the VM to its end. Everything a person is to know has been written by then: the reason
    // of a failure to standard error, the exit file, the boot timer's table.
    [[nodiscard]] ExitStatus run();

  private:
    [[nodiscard]] Result<> set_up();
    [[nodiscard]] Result<> set_up_console();
    [[nodiscard]] Result<> enter_jail();
    [[nodiscard]] Error explain(Error error) const;
    [[nodiscard]] Result<> watch_signals();
    [[nodiscard]] Result<> set_up_monitor();
    [[nodiscard]] Result<> apply_config_file();
    [[nodiscard]] Result<> serve_api();
    [[nodiscard]] Result<> serve_owner();
    [[nodiscard]] Result<> tell_ready() const;
    [[nodiscard]] Result<> watch_boot_timer();
    [[nodiscard]] api::HttpReply handle(const api::HttpRequest& request);
    void print_boot_timer();
    void write_exit_file(const MonitorExit& exit) const;
    // Without taking anything apart, since that would wait for memory. Any thread.
    [[noreturn]] void end_at_once(std::string reason) const;

    const Options options_;
    const Clock& clock_;
    MachineFactory factory_;
    MachineRestorer restorer_;
    Metrics metrics_;
    BootTimer boot_timer_;
    Log log_;
    jail::Jail jail_;
    Result<Fd> page_faults_ = Fd();  // until the monitor has it
    std::optional<MonitorExit> exit_;
    bool boot_timer_printed_ = false;
    // Destroyed from the bottom: clients and guest before the loop they run on.
    std::unique_ptr<EventLoop> loop_;
    std::unique_ptr<Console> console_;
    std::unique_ptr<Monitor> monitor_;
    std::unique_ptr<api::HttpServer> server_;
    Fd owner_;  // a second descriptor of --api-fd's socket, to see its end
    EventLoop::Watch owner_watch_;
    Fd signals_;
    EventLoop::Watch signal_watch_;
    std::optional<EventLoop::Timer> boot_timer_check_;
};

}  // namespace masu
