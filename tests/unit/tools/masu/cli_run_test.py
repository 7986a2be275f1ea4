"""Tests of `masu run` end to end: what it asks of the monitor, prints, refuses and leaves, and the names of VMs."""
import json
import os
import signal
import subprocess
import unittest

from cli_fixture import MASU, PATIENCE, CliTest


class RunTest(CliTest):
    def test_output_is_what_the_guest_printed_and_status_0(self):
        result = self.masu("run", "--kernel", self.kernel("print one\\r\\n\\x00\\xff", "exit power_off"))
        self.assertEqual(result.stdout, b"one\r\n\x00\xff")
        self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_everything_printed_before_the_end_arrives(self):
        result = self.masu("run", "--kernel", self.kernel("flood 50000", "exit power_off"))
        self.assertEqual(result.stdout, b"".join(b"%07d\r\n" % i for i in range(50000)))

    def test_other_ends_are_status_1_with_one_line(self):
        for kind, reason in (("panic", "the guest's kernel panicked"), ("triple_fault", "triple"),
                             ("error", "KVM failed")):
            result = self.masu("run", "--name", "a", "--rm", "--kernel",
                               self.kernel("print x", f"exit {kind} {reason}"))
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stderr.decode(), f"masu: a: {reason}\n")
            self.assertEqual(result.stdout, b"x")

    def test_the_boot_timer_is_shown_at_the_end(self):
        result = self.masu("run", "--boot-timer", "--rm", "--kernel",
                           self.kernel("print x", "exit power_off"))
        self.assertEqual((result.returncode, result.stdout), (0, b"x"))
        self.assertIn(b"process_start  0.000 ms\n", result.stderr)

    def test_a_monitor_that_dies_is_told(self):
        result = self.masu("run", "--name", "a", "--kernel", self.kernel("crash"))
        self.assertEqual(result.returncode, 1)
        self.assertIn("masu: a: dead (its monitor was killed)", result.stderr.decode())
        self.assertEqual(self.state("a"), "dead")

    def test_input_reaches_the_guest_and_its_end_ends_nothing(self):
        process = self.start("run", "--name", "a", "--kernel", self.kernel("echo"))
        process.stdin.write(b"hello \x01x")
        process.stdin.close()
        process.stdin = None
        self.assertEqual(os.read(process.stdout.fileno(), 1), b"h")
        self.assertEqual(self.state("a"), "running")
        self.assertEqual(self.masu("stop", "a").returncode, 0)
        self.assertEqual(process.wait(PATIENCE), 0)
        self.assertEqual(process.stdout.read(), b"ello \x01x")

    def test_the_monitor_is_asked_for_what_was_asked_for(self):
        self.run_detached("a", "echo", options=(
            "--cpus", "3", "--memory", "1.5G", "--initrd", self.kernel("x"), "--append", "quiet",
            "--disk", self.disk("a,b").replace(",", ",,") + ",ro,serial=s1",
            "--disk", self.disk("c") + ",overlay=" + self.folder + "/o,iops=10,bw=1M"))
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        self.assertEqual(config["machine-config"]["vcpu_count"], 3)
        self.assertEqual(config["machine-config"]["mem_size_mib"], 1536)
        drives = config["drives"]
        self.assertEqual([d["path_on_host"] for d in drives],
                         [self.folder + "/a,b", self.folder + "/c"])
        self.assertTrue(drives[0]["is_read_only"])
        self.assertEqual(drives[1]["overlay_path"], self.folder + "/o")
        self.assertTrue(config["boot-source"]["boot_args"].endswith(" root=/dev/vda ro quiet"))

    def test_an_image_is_booted_by_the_firmware(self):
        self.run_image("a", self.disk("a"), "--boot-device", "2", "--disk", self.disk("b"),
                       "--append", "quiet")
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        self.assertEqual([d["path_on_host"] for d in config["drives"]],
                         [self.folder + "/a", self.folder + "/b"])
        self.assertEqual(config["boot-source"], {"firmware": True, "boot_menu": False,
                                                 "boot_device": 2, "boot_args": "quiet"})
        for wrong, what in ((("--boot-device", "3"), "there are 1 disks"),
                            (("--initrd", self.kernel()), "--initrd belongs to --kernel")):
            result = self.masu("run", self.disk("a"), *wrong)
            self.assertEqual(result.returncode, 1)
            self.assertIn(what, result.stderr.decode())

    def test_instance_types(self):
        self.run_detached("a", "echo", options=("--type", "t3.micro"))
        vm = self.vm("a")
        self.assertEqual((vm["cpus"], vm["memory_mib"]), (2, 1024))
        for wrong in (("--type", "t9.huge"), ("--type", "t3.micro", "--cpus", "2")):
            self.assertNotEqual(self.masu("run", "--kernel", self.kernel(), *wrong).returncode, 0)

    def test_a_refusal_of_the_monitor_is_passed_on_and_nothing_stays(self):
        for path in ("/boot-source", "/machine-config", "InstanceStart"):
            kernel = self.kernel(f"refuse {path} kernel x: not a kernel")
            if path == "/machine-config":
                continue  # comes before the script is read
            result = self.masu("run", "--name", "a", "--kernel", kernel)
            self.assertEqual(result.returncode, 1)
            self.assertEqual(result.stderr.decode(), "masu: a: kernel x: not a kernel\n")
            self.assertEqual(self.leftovers(), [])

    def test_a_monitor_that_gives_up_early_says_why(self):
        result = self.masu("run", "--name", "a", "--kernel", self.kernel(),
                           environment={"FAKE_VMM": "fail-early"})
        self.assertEqual(result.returncode, 1)
        self.assertIn("/dev/kvm: there is none; load the kvm module", result.stderr.decode())
        self.assertEqual(self.leftovers(), [])

    def test_bad_files_are_told_at_once(self):
        empty = os.path.join(self.folder, "empty")
        open(empty, "w").close()
        good = self.kernel()
        for arguments, words in (
                (("--kernel", "/no/such"), "there is no such file"),
                (("--kernel", self.folder), "is a directory"),
                (("--kernel", empty), "is empty"),
                (("--kernel", good, "--initrd", "/no/such"), "initrd /no/such"),
                (("--kernel", good, "--disk", self.folder), "is a directory"),
                (("--kernel", good, "--disk", "/no/such"), "disk /no/such"),
                (("--kernel", good, "--memory", "lots"), "--memory lots"),
                (("--kernel", good, "--memory", "1000"), "multiple of 1M"),
                (("--kernel", good, "--name", "a/b"), "is not a VM name")):
            result = self.masu("run", *arguments)
            self.assertEqual(result.returncode, 1, arguments)
            self.assertIn(words, result.stderr.decode())
            self.assertEqual(result.stderr.count(b"\n"), 1)
            self.assertEqual(self.leftovers(), [])

    def test_bad_usage_is_status_2(self):
        for arguments in ((), ("run",), ("run", "--kernel"),
                          ("run", "x", "--kernel", "y", "--boot-menu"), ("nonsense",), ("run", "--bogus"),
                          ("run", "--kernel", "x", "--cpus", "33"),
                          ("run", "--kernel", "x", "--cpus", "0"),
                          ("run", "--kernel", "x", "--transport", "isa"), ("stop",), ("inspect",),
                          ("ps", "--output", "yaml"), ("completion", "csh")):
            result = self.masu(*arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertEqual(result.stdout, b"")
            self.assertTrue(result.stderr)

    def test_sigint_without_a_terminal_stops_the_vm(self):
        process = self.start("run", "--name", "a", "--kernel", self.kernel("print x", "echo"))
        self.assertEqual(process.stdout.read(1), b"x")
        process.send_signal(signal.SIGINT)
        self.assertEqual(process.wait(PATIENCE), 130)
        self.assertEqual(self.state("a"), "stopped")

    def test_a_killed_command_leaves_the_vm_running(self):
        for number in (signal.SIGTERM, signal.SIGHUP, signal.SIGKILL):
            process = self.start("run", "--name", "a", "--kernel", self.kernel("print x", "echo"))
            self.assertEqual(process.stdout.read(1), b"x")
            process.send_signal(number)
            status = process.wait(PATIENCE)
            self.assertEqual(status, -9 if number == signal.SIGKILL else 128 + number)
            self.assertEqual(self.state("a"), "running")
            console = self.start("console", "a")
            self.assertEqual(console.stdout.read(1), b"x")
            self.assertEqual(self.masu("stop", "a").returncode, 0)
            self.assertEqual(console.wait(PATIENCE), 0)
            self.assertEqual(self.masu("rm", "a").returncode, 0)

    def test_a_reader_of_stdout_that_goes_away_leaves_the_vm_running(self):
        process = self.start("run", "--name", "a", "--kernel",
                             self.kernel("print x", "sleep 0.2", "flood 1000", "echo"))
        process.stdout.read(1)
        process.stdout.close()
        process.stdout = None
        self.assertEqual(process.wait(PATIENCE), 1)
        self.assertEqual(self.state("a"), "running")

    def test_nothing_of_the_caller_is_kept_open(self):
        reading, writing = os.pipe()
        result = subprocess.run([MASU, "run", "--kernel", self.kernel("echo"), "-d", "--rm"],
                                env=self.environment, pass_fds=[writing], check=True,
                                capture_output=True, timeout=PATIENCE)
        os.close(writing)
        self.assertEqual(os.read(reading, 1), b"", "monitor and reaper hold no descriptor")
        os.close(reading)
        self.assertTrue(result.stdout)


class NamesTest(CliTest):
    def test_a_name_is_refused_while_it_runs_and_until_it_is_removed(self):
        self.run_detached("a", "echo")
        again = self.masu("run", "--name", "a", "--kernel", self.kernel(), "-d")
        self.assertEqual(again.returncode, 1)
        self.assertIn("running already", again.stderr.decode())
        self.assertEqual(self.state("a"), "running")
        self.masu("stop", "a")
        again = self.masu("run", "--name", "a", "--kernel", self.kernel(), "-d")
        self.assertIn("masu rm a", again.stderr.decode())
        self.assertEqual(self.masu("rm", "a").returncode, 0)
        self.run_detached("a", "echo")

    def test_of_two_started_at_one_moment_one_runs(self):
        kernel = self.kernel("echo")
        rivals = [self.start("run", "--name", "a", "--kernel", kernel, "-d") for _ in range(4)]
        self.assertEqual(sorted(rival.wait(PATIENCE) for rival in rivals), [0, 1, 1, 1])
        self.assertEqual(self.state("a"), "running")

    def test_vms_without_a_name_get_different_ones(self):
        kernel = self.kernel("echo")
        names = {self.masu("run", "--kernel", kernel, "-d").stdout for _ in range(3)}
        self.assertEqual(len(names), 3)


if __name__ == "__main__":
    unittest.main(verbosity=2)
