"""Tests of what `masu` shows, end to end: `ps`, `logs`, `inspect`, `--help`, `doctor` and completion in shells."""
import json
import os
import shutil
import subprocess
import unittest

from cli_fixture import PATIENCE, CliTest, eventually


class LookTest(CliTest):
    def test_ps(self):
        self.assertEqual(self.masu("ps", "--names").stdout, b"")
        self.run_detached("a", "echo")
        self.run_detached("b", "exit power_off")
        eventually(lambda: self.state("b") == "stopped", "stopped")
        text = self.masu("ps").stdout.decode()
        self.assertIn("running", text)
        self.assertNotIn("guest powered off", text)
        self.assertIn("stopped (guest powered off)", self.masu("ps", "-a").stdout.decode())
        self.assertEqual(self.masu("ps", "-aq").stdout, b"a\nb\n")
        self.assertEqual(self.masu("ps", "-q").stdout, b"a\n")

    def test_logs(self):
        self.run_detached("a", "print hello", "echo")
        eventually(lambda: self.masu("logs", "a").stdout == b"hello", "output")
        follower = self.start("logs", "-f", "a")
        self.assertEqual(follower.stdout.read(5), b"hello")
        self.assertIsNone(follower.poll())
        self.masu("stop", "a")
        self.assertEqual(follower.wait(PATIENCE), 0)
        self.assertIn(b"fake: started", self.masu("logs", "--monitor", "a").stdout)
        self.assertEqual(self.masu("logs", "-f", "a").stdout, b"hello")

    def test_a_log_that_is_moved_aside_is_followed(self):
        self.run_detached("a", "print hello", "echo")
        eventually(lambda: self.masu("logs", "a").stdout == b"hello", "output")
        follower = self.start("logs", "-f", "a")
        self.assertEqual(follower.stdout.read(5), b"hello")
        path = os.path.join(self.folder, "state/vms/a/console.log")
        os.rename(path, path + ".1")
        with open(path, "w", encoding="utf-8") as log:
            log.write("again")
        self.assertEqual(follower.stdout.read(5), b"again")

    def test_inspect(self):
        self.run_detached("a", "echo")
        vm = json.loads(self.masu("inspect", "a", "--output", "json").stdout)
        self.assertEqual((vm["name"], vm["state"], vm["cpus"]), ("a", "running", 1))
        self.assertIn("boot_timer", vm)
        self.assertIn("state          running", self.masu("inspect", "a").stdout.decode())
        self.masu("stop", "a")
        vm = json.loads(self.masu("inspect", "a", "--output", "json").stdout)
        self.assertEqual(vm["exit"]["kind"], "power_off")

    def test_a_spoilt_record_is_shown_and_can_be_removed(self):
        self.run_detached("a", "exit power_off")
        eventually(lambda: self.state("a") == "stopped", "stopped")
        with open(os.path.join(self.folder, "state/vms/a/vm.json"), "w", encoding="utf-8") as file:
            file.write("{")
        self.assertIn("not a VM record", self.vm("a")["error"])
        self.assertEqual(self.masu("rm", "a").returncode, 0)

    def test_help_and_version(self):
        text = self.masu("--help")
        self.assertEqual(text.returncode, 0)
        for command in ("run", "ps", "inspect", "logs", "console", "ssh", "stop", "kill", "rm", "doctor", "version",
                        "completion", "sg", "prefix-list", "flow-logs"):
            self.assertIn(command, text.stdout.decode())
            one = self.masu(command, "--help")
            self.assertEqual(one.returncode, 0)
            self.assertIn("Example", one.stdout.decode())
        version = json.loads(self.masu("version", "--output", "json").stdout)
        self.assertTrue(version["version"])
        self.assertEqual(version["monitor"], os.environ["MASU_VMM"])


class DoctorTest(CliTest):
    def test_status_and_json_agree(self):
        result = self.masu("doctor", "--output", "json")
        answer = json.loads(result.stdout)
        self.assertEqual(result.returncode, 0 if answer["runs_directly"] else 1)
        names = [check["name"] for check in answer["checks"]]
        self.assertEqual(names, ["kvm", "monitor", "io_uring", "memory", "limits", "qemu"])
        problems = [check for check in answer["checks"] if check["verdict"] == "problem"]
        self.assertEqual(bool(problems), not answer["runs_directly"])

    def test_no_colours_in_a_pipe(self):
        text = self.masu("doctor", "-v").stdout
        self.assertIn(b"kvm", text)
        self.assertNotIn(b"\x1b", text)

    def test_a_missing_monitor_is_a_problem_with_a_remedy(self):
        result = self.masu("doctor", environment={"MASU_VMM": "/no/such"})
        self.assertEqual(result.returncode, 1)
        self.assertIn("correct or unset it", result.stdout.decode())


class CompletionTest(CliTest):
    def test_each_shell_accepts_its_script(self):
        for shell in ("bash", "zsh", "fish"):
            script = self.masu("completion", shell)
            self.assertEqual(script.returncode, 0)
            self.assertIn(b"console", script.stdout)
            if shutil.which(shell):
                checked = subprocess.run([shell, "-n"], input=script.stdout, check=False,
                                         capture_output=True, timeout=PATIENCE)
                self.assertEqual((checked.returncode, checked.stderr), (0, b""), shell)

    def complete(self, *words):
        script = ("source <(\"$MASU_EXE\" completion bash); masu() { \"$MASU_EXE\" \"$@\"; }\n"
                  "COMP_WORDS=(\"$@\"); COMP_CWORD=$(($# - 1)); compopt() { :; }\n"
                  "_masu; printf '%s\\n' \"${COMPREPLY[@]}\"")
        result = subprocess.run(["bash", "-c", script, "bash", *words], env=self.environment,
                                capture_output=True, check=True, timeout=PATIENCE)
        return result.stdout.decode().split()

    def test_bash_completes_commands_options_words_and_vms(self):
        self.assertEqual(self.complete("masu", "con"), ["console"])
        self.assertIn("--kernel", self.complete("masu", "run", "--k"))
        self.assertEqual(self.complete("masu", "ps", "--output", "j"), ["json"])
        self.assertEqual(self.complete("masu", "completion", "z"), ["zsh"])
        self.run_detached("web", "exit power_off")
        self.assertEqual(self.complete("masu", "rm", "w"), ["web"])
        self.assertEqual(self.complete("masu", "inspect", "-"), ["-h", "--help", "--output"])

    def test_bash_completes_groups_and_prefix_lists(self):
        self.assertEqual(self.complete("masu", "sg", "c"), ["create", "counters"])
        self.masu("prefix-list", "create", "offices", "--max-entries", "3")
        self.assertEqual(self.complete("masu", "sg", "authorize", "--prefix-list", "o"), ["offices"])
        self.assertEqual(self.complete("masu", "prefix-list", "rm", ""), ["offices"])
        self.assertEqual(self.complete("masu", "sg", "authorize", "d"), ["default"])

    def test_bash_completes_commands_of_commands_and_images(self):
        self.assertEqual(self.complete("masu", "image", "im"), ["import"])
        self.assertIn("--size", self.complete("masu", "image", "build", "--s"))
        self.assertEqual(self.masu("image", "import", self.disk(), "debian").returncode, 0)
        self.assertEqual(self.complete("masu", "image", "rm", "deb"), ["debian"])
        self.assertEqual(self.complete("masu", "run", "deb"), ["debian"])
        self.masu("net", "create", "lab")
        self.assertEqual(self.complete("masu", "net", "rm", "l"), ["lab"])
        self.assertEqual(self.complete("masu", "net-"), [])


if __name__ == "__main__":
    unittest.main(verbosity=2)
