"""Tests of how VMs end, end to end: `masu stop`, `kill` and `rm`, and monitors that others kill."""
import json
import os
import signal
import subprocess
import unittest

from cli_fixture import CliTest, eventually


class EndTest(CliTest):
    def test_stop_presses_the_power_button(self):
        self.run_detached("a", "echo")
        result = self.masu("stop", "a")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        vm = self.vm("a")
        self.assertEqual((vm["state"], vm["reason"]), ("stopped", "guest powered off"))
        self.assertEqual(self.masu("stop", "a").returncode, 0)

    def test_stop_insists(self):
        self.run_detached("a", "on-button ignore", "echo")
        result = self.masu("stop", "--time", "0", "a")
        self.assertEqual(result.returncode, 0)
        self.assertIn("stopping it hard", result.stderr.decode())
        self.assertEqual(self.vm("a")["reason"], "stopped on request")

    def test_kill(self):
        self.run_detached("a", "echo")
        pid = self.monitor_pid("a")
        self.assertEqual(self.masu("kill", "a").returncode, 0)
        self.assertEqual(self.vm("a")["reason"], "killed by `masu kill`")
        self.assertFalse(os.path.exists(f"/proc/{pid}/exe"))

    def test_a_monitor_killed_by_somebody_is_dead_never_running(self):
        self.run_detached("a", "echo")
        os.kill(self.monitor_pid("a"), signal.SIGKILL)
        eventually(lambda: self.state("a") == "dead", "dead")
        self.assertEqual(self.vm("a")["reason"], "its monitor was killed")
        console = self.masu("console", "a")
        self.assertEqual(console.returncode, 1)
        self.assertIn("a is not running: dead", console.stderr.decode())

    def test_a_recycled_pid_is_never_hit(self):
        self.run_detached("a", "echo")
        os.kill(self.monitor_pid("a"), signal.SIGKILL)
        eventually(lambda: self.state("a") == "dead", "dead")
        bystander = subprocess.Popen(["sleep", "60"])
        self.addCleanup(self.reap, bystander)
        path = os.path.join(self.folder, "state/vms/a/vm.json")
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        record["pid"] = bystander.pid
        with open(path, "w", encoding="utf-8") as file:
            json.dump(record, file)
        for command in (("kill", "a"), ("stop", "a"), ("rm", "-f", "a")):
            self.assertEqual(self.masu(*command).returncode, 0)
        self.assertIsNone(bystander.poll())

    def test_a_stopped_monitor_is_unresponsive_and_can_be_killed(self):
        self.run_detached("a", "echo")
        os.kill(self.monitor_pid("a"), signal.SIGSTOP)
        self.assertEqual(self.state("a"), "unresponsive")
        self.assertEqual(self.masu("kill", "a").returncode, 0)
        self.assertEqual(self.state("a"), "stopped")

    def test_rm(self):
        self.run_detached("a", "echo")
        refused = self.masu("rm", "a")
        self.assertEqual(refused.returncode, 1)
        self.assertIn("a is running", refused.stderr.decode())
        self.assertEqual(self.state("a"), "running")
        self.assertEqual(self.masu("rm", "-f", "a").returncode, 0)
        self.assertEqual(self.leftovers(), [])

    def test_rm_option_deletes_when_attached(self):
        result = self.masu("run", "--rm", "--kernel", self.kernel("print x", "exit panic y"))
        self.assertEqual(result.returncode, 1)
        self.assertEqual(self.leftovers(), [])

    def test_rm_option_deletes_when_detached(self):
        self.run_detached("a", "echo", options=("--rm",))
        self.assertEqual(self.state("a"), "running")
        self.assertEqual(self.masu("stop", "a").returncode, 0)
        eventually(lambda: not self.leftovers(), "deletion")

    def test_rm_option_is_honoured_after_the_command_was_killed(self):
        process = self.start("run", "--rm", "--name", "a", "--kernel", self.kernel("print x", "echo"))
        process.stdout.read(1)
        process.kill()
        process.wait()
        self.assertEqual(self.state("a"), "running")
        self.masu("kill", "a")
        eventually(lambda: not self.leftovers(), "deletion")

    def test_several_at_once_and_names_that_are_not_there(self):
        self.run_detached("a", "echo")
        self.run_detached("b", "echo")
        result = self.masu("stop", "a", "nobody", "b")
        self.assertEqual(result.returncode, 1)
        self.assertIn("there is no VM named nobody", result.stderr.decode())
        self.assertEqual((self.state("a"), self.state("b")), ("stopped", "stopped"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
