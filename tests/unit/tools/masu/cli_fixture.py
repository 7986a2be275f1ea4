"""What tests of `masu` end to end share: a state folder of their own, and fake_vmm.py as the monitor.

Needs MASU_EXE (the program) and MASU_VMM (the fake).
"""
import json
import os
import shutil
import subprocess
import tempfile
import time
import unittest

MASU = os.environ["MASU_EXE"]
PATIENCE = 30


def eventually(condition, what):
    end = time.monotonic() + PATIENCE
    while time.monotonic() < end:
        value = condition()
        if value:
            return value
        time.sleep(0.02)
    raise AssertionError("never came: " + what)


class CliTest(unittest.TestCase):
    def setUp(self):
        self.folder = tempfile.mkdtemp(prefix="masu-cli-")
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.environment = dict(os.environ, MASU_PASST="", MASU_STATE_DIR=os.path.join(self.folder, "state"))
        for name in ("MASU_RUNTIME_DIR", "XDG_RUNTIME_DIR", "XDG_STATE_HOME", "FAKE_VMM"):
            self.environment.pop(name, None)
        self.addCleanup(self.kill_all)

    def kill_all(self):
        names = self.masu("ps", "-a", "--names").stdout.decode().split()
        if names:
            self.masu("rm", "-f", *names)

    def kernel(self, *lines):
        handle, path = tempfile.mkstemp(dir=self.folder, prefix="kernel-")
        with os.fdopen(handle, "w") as file:
            file.write("".join(line + "\n" for line in lines) or "\n")
        return path

    def disk(self, name="disk.raw"):
        path = os.path.join(self.folder, name)
        with open(path, "wb") as file:
            file.truncate(1 << 20)
        return path

    def masu(self, *arguments, stdin=b"", environment=None):
        return subprocess.run([MASU, *arguments], input=stdin, capture_output=True, check=False,
                              timeout=PATIENCE, env={**self.environment, **(environment or {})})

    def start(self, *arguments, **keywords):
        process = subprocess.Popen([MASU, *arguments], env=self.environment,
                                   stdin=keywords.pop("stdin", subprocess.PIPE),
                                   stdout=keywords.pop("stdout", subprocess.PIPE),
                                   stderr=keywords.pop("stderr", subprocess.PIPE), **keywords)
        self.addCleanup(self.reap, process)
        return process

    @staticmethod
    def reap(process):
        process.kill()
        process.wait()
        for stream in (process.stdin, process.stdout, process.stderr):
            if stream:
                stream.close()

    def run_image(self, name, image, *options):
        result = self.masu("run", image, "--name", name, "-d", *options)
        self.assertEqual(result.returncode, 0, result.stderr)

    def run_detached(self, name, *lines, options=()):
        result = self.masu("run", "--kernel", self.kernel(*lines), "--name", name, "-d", *options)
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertEqual(result.stdout.decode(), name + "\n")

    def vm(self, name):
        found = [vm for vm in json.loads(self.masu("ps", "-a", "--output", "json").stdout)
                 if vm["name"] == name]
        return found[0] if found else None

    def state(self, name):
        vm = self.vm(name)
        return vm and vm["state"]

    def monitor_pid(self, name):
        return self.vm(name)["pid"]

    def leftovers(self):
        """What lies in the state folder of a VM, beside the security groups, which are nobody's."""
        ours = ("vms", "run", ".lock", "security-groups.json", "security-groups.lock")
        folder = os.path.join(self.folder, "state")
        return [os.path.join(path, entry) for path, folders, files in os.walk(folder)
                for entry in folders + files if entry not in ours]

    def snapshot_of(self, name, snapshot, drives=()):
        """A snapshot as the monitor would have made it of a VM, as far as the command line looks."""
        folder = os.path.join(self.folder, "state/snapshots", snapshot)
        os.makedirs(folder)
        with open(os.path.join(self.folder, "state/vms", name, "vm.json"), encoding="utf-8") as file:
            metadata = file.read()
        with open(os.path.join(folder, "manifest.json"), "w", encoding="utf-8") as file:
            json.dump({"saved_ms": 1, "memory_bytes": 1, "memory_stored_bytes": 1,
                       "drives": list(drives), "metadata": metadata}, file)

    def inspect(self, name):
        return json.loads(self.masu("inspect", name, "--output", "json").stdout)

    def config(self, name):
        return self.inspect(name)["config"]

    def passt(self, script):
        path = os.path.join(self.folder, "passt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)
        self.environment["MASU_PASST"] = path
