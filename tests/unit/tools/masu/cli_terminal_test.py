"""Tests of `masu run` and `masu console` on a terminal, end to end."""
import fcntl
import os
import pty
import signal
import subprocess
import termios
import time
import unittest

from cli_fixture import PATIENCE, CliTest, eventually


class TerminalTest(CliTest):
    def open_terminal(self, *arguments):
        controller, terminal = pty.openpty()
        self.addCleanup(os.close, controller)
        self.before = termios.tcgetattr(terminal)
        self.terminal = terminal
        self.addCleanup(os.close, terminal)

        def own_the_terminal():
            os.setsid()
            fcntl.ioctl(terminal, termios.TIOCSCTTY, 0)

        process = self.start(*arguments, stdin=terminal, stdout=terminal, stderr=subprocess.PIPE,
                             preexec_fn=own_the_terminal)
        return controller, process

    def expect(self, controller, wanted):
        seen = b""
        end = time.monotonic() + PATIENCE
        os.set_blocking(controller, False)
        while wanted not in seen and time.monotonic() < end:
            try:
                seen += os.read(controller, 4096)
            except BlockingIOError:
                time.sleep(0.01)
        self.assertIn(wanted, seen)
        return seen

    def is_raw(self):
        return not termios.tcgetattr(self.terminal)[3] & (termios.ICANON | termios.ECHO | termios.ISIG)

    def assert_restored(self):
        self.assertEqual(termios.tcgetattr(self.terminal), self.before)

    def session(self, *lines, name="a"):
        controller, process = self.open_terminal("run", "--name", name, "--kernel",
                                                 self.kernel("print ready", *lines))
        self.expect(controller, b"ready")
        self.assertTrue(self.is_raw())
        return controller, process

    def test_keys_go_to_the_guest_raw(self):
        controller, process = self.session("echo")
        os.write(controller, b"a\x03\x1a\x01\x01z")  # Ctrl-C and Ctrl-Z are the guest's
        self.expect(controller, b"a\x03\x1a\x01z")
        os.write(controller, b"\x01x")
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertIn(b"masu: a: stopped on request", process.stderr.read())
        self.assert_restored()
        self.assertEqual(self.state("a"), "stopped")

    def test_detach_and_come_back(self):
        controller, process = self.session("echo")
        os.write(controller, b"\x01d")
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertIn(b"masu console a", process.stderr.read())
        self.assert_restored()
        self.assertEqual(self.state("a"), "running")
        controller, process = self.open_terminal("console", "a")
        self.expect(controller, b"ready")
        os.write(controller, b"\x01x")
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assert_restored()

    def test_help_is_for_the_person_only(self):
        controller, process = self.session("echo")
        os.write(controller, b"\x01hq")
        self.expect(controller, b"q")
        os.write(controller, b"\x01x")
        process.wait(PATIENCE)
        self.assertIn(b"Ctrl-A X", process.stderr.read())

    def test_the_terminal_is_restored_when_the_guest_ends(self):
        for lines, status in ((["sleep 0.3", "exit power_off"], 0), (["sleep 0.3", "exit panic x"], 1)):
            _, process = self.session(*lines, name="vm%d" % status)
            self.assertEqual(process.wait(PATIENCE), status)
            self.assert_restored()

    def test_the_terminal_is_restored_on_signals(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGQUIT, signal.SIGSEGV, signal.SIGABRT):
            _, process = self.session("echo", name="vm%d" % number)
            process.send_signal(number)
            self.assertNotEqual(process.wait(PATIENCE), 0)
            self.assert_restored()
            self.assertEqual(self.state("vm%d" % number), "running")

    def test_suspended_and_resumed(self):
        controller, process = self.session("echo")
        process.send_signal(signal.SIGTSTP)
        eventually(lambda: not self.is_raw(), "cooked terminal")
        self.assert_restored()
        process.send_signal(signal.SIGCONT)
        eventually(self.is_raw, "raw terminal")
        os.write(controller, b"\x01x")
        self.assertEqual(process.wait(PATIENCE), 0)


if __name__ == "__main__":
    unittest.main(verbosity=2)
