// The floor's side: processes of launch-floor.
#include <sys/socket.h>
#include <sys/wait.h>

#include "tests/bench/launch_sides.hpp"
#include "tests/bench/launch_support.hpp"

namespace masu::bench {
namespace {

class FloorSide final : public Side {
  public:
    FloorSide(const test::CloneTemplate& from, const Programs& programs, std::string level,
              std::size_t count)
        : fresh_(level.starts_with("fresh")),
          command_{programs.floor, from.path() + "/state", from.path() + "/memory",
                   std::move(level), "3"},
          count_(count) {}

    void prepare() override {
        processes_.resize(count_);
        for (auto& process : processes_) {
            std::tie(process.socket, process.other_end) = socket_pair();
            if (!fresh_)
                start(process);
        }
        char byte = 0;
        if (!fresh_)
            for (auto& process : processes_)
                read_whole(process.socket, &byte, 1);
    }

    std::vector<LaunchTimes> launch_all() override {
        std::vector<LaunchTimes> times(count_);
        const auto trigger = clock_.now();
        for (auto& process : processes_) {
            if (fresh_)
                start(process);
            else
                send_byte(process);
        }
        for (std::size_t i = 0; i < count_; ++i) {
            times[i].trigger = trigger;
            read_whole(processes_[i].socket, &times[i].first_exit, sizeof times[i].first_exit);
        }
        for (std::size_t i = 0; i < count_; ++i) {
            times[i].end_asked = clock_.now();
            send_byte(processes_[i]);
            ::waitpid(processes_[i].pid, nullptr, 0);
            times[i].ended = clock_.now();
        }
        processes_.clear();
        return times;
    }

  private:
    struct Process {
        Fd socket;
        Fd other_end;  // until it is started
        pid_t pid = 0;
    };
    void start(Process& process) {
        const int descriptor = process.other_end.get();
        process.pid = spawn(command_, std::span(&descriptor, 1));
        process.other_end.reset();
    }
    static void send_byte(const Process& process) {
        std::ignore = ::send(process.socket.get(), "", 1, MSG_NOSIGNAL);
    }

    SystemClock clock_;
    bool fresh_;
    std::vector<std::string> command_;
    std::size_t count_;
    std::vector<Process> processes_;
};

}  // namespace

std::unique_ptr<Side> make_floor(const test::CloneTemplate& from, const Programs& programs,
                                 std::string level, std::size_t count) {
    return std::make_unique<FloorSide>(from, programs, std::move(level), count);
}

}  // namespace masu::bench
