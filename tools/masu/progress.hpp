// How far long work has come: a bar on a terminal, plain lines elsewhere; and its interruption.
#pragma once

#include <csignal>
#include <cstdint>
#include <string>

#include "base/clock.hpp"
#include "base/result.hpp"

namespace masu::cli {

// On standard error. Stages come one after the other; each has its own count.
class Progress {
  public:
    explicit Progress(std::string subject);
    Progress(const Progress&) = delete;
    Progress& operator=(const Progress&) = delete;
    ~Progress();  // leaves no half-drawn bar

    // `what`: "converting qcow2"; `total`: in bytes, 0 when nobody knows.
    void stage(std::string what, std::uint64_t total);
    void update(std::uint64_t done);
    // A line of its own, as it is on both.
    void line(const std::string& text);

  private:
    void draw(std::uint64_t done);
    void clear();

    std::string subject_;
    std::string what_;
    std::uint64_t total_ = 0;
    bool terminal_;
    bool drawn_ = false;
    SystemClock clock_;
    Nanoseconds begun_ = 0;
    Nanoseconds last_ = 0;
};

// Holds back the signals that end a command, so that it can clear up first; they take effect when
// this is destroyed. One at a time; before any thread is started.
class Interruptions {
  public:
    Interruptions();
    Interruptions(const Interruptions&) = delete;
    Interruptions& operator=(const Interruptions&) = delete;
    ~Interruptions();

    // An error once one of them has come.
    [[nodiscard]] Result<> check() const;
    // In a child, before it becomes another program.
    void let_through() const;

  private:
    sigset_t held_{};
    sigset_t before_{};
};

}  // namespace masu::cli
