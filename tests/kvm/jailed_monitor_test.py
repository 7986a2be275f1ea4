"""masu-vmm in its jail, with bare-metal guests: pause, snapshot, load, another disk, reboots, its end.

Needs MASU_VMM, the program. A system call or a file that the jail lacks ends one of these."""

import http.client
import json
import os
import pathlib
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import time
import unittest

MASU_VMM = os.environ["MASU_VMM"]
PATIENCE = 60
LOAD_AT = 0x100000
SAY_A = b"\xb0\x41\x66\xba\xf8\x03\xee"  # mov al, 'A'; mov dx, 0x3f8; out dx, al
HALT = b"\xf4\xeb\xfd"  # hlt; jmp to it
RESET = b"\xb0\xfe\xe6\x64"  # mov al, 0xfe; out 0x64, al


def kernel(code):
    """An ELF file that starts in 32-bit mode: code, and the PVH note that says where."""
    note = struct.pack("<III4sI", 4, 4, 18, b"Xen\0", LOAD_AT)
    header = 64 + 2 * 56
    segments = struct.pack("<IIQQQQQQ", 1, 5, header, LOAD_AT, LOAD_AT, len(code), len(code), 1)
    segments += struct.pack("<IIQQQQQQ", 4, 4, header + len(code), 0, 0, len(note), len(note), 1)
    elf = struct.pack("<16sHHIQQQIHHHHHH", b"\x7fELF\2\1\1" + bytes(9), 2, 62, 1, LOAD_AT, 64, 0, 0,
                      64, 56, 2, 0, 0, 0)  # fmt: skip
    return elf + segments + code + note


class Connection(http.client.HTTPConnection):
    def __init__(self, path):
        super().__init__("localhost", timeout=PATIENCE)
        self.path = path

    def connect(self):
        self.sock = socket.socket(socket.AF_UNIX)
        self.sock.connect(str(self.path))


class Monitor:
    """One masu-vmm in a folder of its own."""

    def __init__(self, folder, *arguments):
        self.folder = folder
        folder.mkdir(exist_ok=True)
        self.api = folder / "api"
        ready, signal_ready = os.pipe()
        with open(folder / "stderr", "wb") as errors:
            self.process = subprocess.Popen(
                [MASU_VMM, "--api-sock", self.api, "--console", folder / "console",
                 "--console-log", folder / "console.log", "--exit-file", folder / "exit.json",
                 "--log-path", folder / "log", "--metrics-path", folder / "metrics",
                 "--ready-fd", str(signal_ready), *arguments],
                pass_fds=[signal_ready], stderr=errors, stdin=subprocess.DEVNULL,
            )  # fmt: skip
        os.close(signal_ready)
        with os.fdopen(ready, "rb") as pipe:
            if pipe.read(1) != b"\n":
                raise AssertionError(self.last_words())

    def last_words(self):
        return (self.folder / "stderr").read_text() + (self.folder / "log").read_text()

    def ask(self, method, path, **body):
        connection = Connection(self.api)
        connection.request(method, path, None if method == "GET" else json.dumps(body))
        reply = connection.getresponse()
        text = reply.read().decode()
        connection.close()
        return reply.status, json.loads(text) if text else {}

    def do(self, method, path, **body):
        status, reply = self.ask(method, path, **body)
        if status >= 400:
            raise AssertionError(f"{method} {path}: {reply}\n{self.last_words()}")
        return reply

    def end(self):
        """The exit status, and what the exit file says."""
        status = self.process.wait(PATIENCE)
        if status == -signal.SIGSYS:
            raise AssertionError("killed by its filter; the kernel's log names the call")
        return status, json.loads((self.folder / "exit.json").read_text())


class JailTest(unittest.TestCase):
    def setUp(self):
        self.folder = pathlib.Path(tempfile.mkdtemp(prefix="masu-monitor-"))
        self.addCleanup(shutil.rmtree, self.folder, ignore_errors=True)
        self.monitors = []
        self.addCleanup(lambda: [m.process.kill() or m.process.wait() for m in self.monitors])

    def file(self, name, content=bytes(1 << 20)):
        path = self.folder / name
        path.write_bytes(content)
        return path

    def monitor(self, name, *arguments, jail=("--jail",)):
        self.monitors.append(Monitor(self.folder / name, *jail, *arguments))
        return self.monitors[-1]

    def configure(self, monitor, code, folder=None, **drives):
        path = (folder or self.folder) / "kernel"
        path.write_bytes(kernel(code))
        monitor.do("PUT", "/machine-config", vcpu_count=2, mem_size_mib=64)
        monitor.do("PUT", "/boot-source", kernel_image_path=str(path), boot_args="")
        for name, disk in drives.items():
            monitor.do("PUT", f"/drives/{name}", drive_id=name, is_root_device=False, **disk)
        monitor.do("PUT", "/entropy")

    def wait_for(self, condition, what):
        end = time.monotonic() + PATIENCE
        while not condition():
            self.assertLess(time.monotonic(), end, what)
            time.sleep(0.01)

    def start_saying_a(self, monitor):
        monitor.do("PUT", "/actions", action_type="InstanceStart")
        log = monitor.folder / "console.log"
        self.wait_for(lambda: log.read_bytes().endswith(b"A"), "the guest says nothing")

    def assert_confined(self, monitor):
        def confined():
            """A thread that has not run yet still has what its maker had."""
            folder = pathlib.Path(f"/proc/{monitor.process.pid}/task")
            threads = [(thread / "status").read_text() for thread in folder.iterdir()]
            return len(threads) >= 3 and all(
                f"\n{line}\n" in status for status in threads
                for line in ("Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000",
                             "CapPrm:\t0000000000000000", "CapAmb:\t0000000000000000")
            )  # fmt: skip

        self.wait_for(confined, "a thread is not confined")

    def test_the_life_of_a_vm(self):
        disk, other = self.file("disk.raw"), self.file("other.raw", bytes(2 << 20))
        monitor = self.monitor("first")
        self.configure(monitor, SAY_A + HALT, disk={"path_on_host": str(disk)},
                       top={"path_on_host": str(other),
                            "overlay_path": str(self.folder / "new.overlay")})  # fmt: skip
        self.start_saying_a(monitor)
        self.assert_confined(monitor)
        self.assertIn("seccomp", monitor.do("GET", "/")["jail"])
        third = self.file("third.raw", bytes(3 << 20))
        monitor.do("PATCH", "/drives/disk", drive_id="disk", path_on_host=str(third))
        live = self.folder / "live"
        monitor.do("PUT", "/snapshot/create", directory=str(live), live=True)
        self.wait_for(lambda: monitor.do("GET", "/snapshot/create")["state"] != "running", "no end")
        self.assertEqual(monitor.do("GET", "/snapshot/create")["state"], "done")
        monitor.do("PATCH", "/vm", state="Paused")
        saved = self.folder / "saved"
        monitor.do("PUT", "/snapshot/create", directory=str(saved))
        monitor.do("PUT", "/actions", action_type="Stop")
        self.assertEqual(monitor.end()[0], 0)
        self.assertFalse(monitor.api.exists(), "the socket is left behind")
        restored = self.monitor("second")
        restored.do("PUT", "/snapshot/load", directory=str(saved), resume_vm=True,
                    record_working_set_ms=1000)  # fmt: skip
        self.assert_confined(restored)
        self.wait_for(lambda: (saved / "working-set").exists(), "no working set")
        restored.process.send_signal(signal.SIGTERM)
        status, end = restored.end()
        self.assertEqual((status, end["kind"]), (0, "stopped"))
        third_one = self.monitor("third")
        third_one.do("PUT", "/snapshot/load", directory=str(saved), resume_vm=True)
        third_one.do("PUT", "/actions", action_type="Stop")
        self.assertEqual(third_one.end()[0], 0)

    def test_reboots(self):
        monitor = self.monitor("resets")
        self.configure(monitor, SAY_A + RESET + HALT,
                       disk={"path_on_host": str(self.file("disk.raw"))})  # fmt: skip
        monitor.do("PUT", "/actions", action_type="InstanceStart")
        status, end = monitor.end()
        self.assertEqual((status, end["kind"]), (1, "reset-loop"))
        self.assertEqual((monitor.folder / "console.log").read_bytes(), b"AAA")

    def test_only_the_paths_given(self):
        inside = self.file("disk.raw")
        outside = self.file("outside.raw")
        kernels = self.folder / "kernels"
        kernels.mkdir()
        monitor = self.monitor("narrow", "--jail-read", kernels, "--jail-write", inside)
        self.configure(monitor, SAY_A + HALT, kernels, disk={"path_on_host": str(inside)})
        self.start_saying_a(monitor)
        status, reply = monitor.ask("PATCH", "/drives/disk", drive_id="disk",
                                    path_on_host=str(outside))  # fmt: skip
        self.assertEqual(status, 400)
        if "landlock" in monitor.do("GET", "/")["jail"]:
            self.assertIn("the jail is why", reply["fault_message"])
            self.assertIn("--jail-write", reply["fault_message"])
        monitor.do("PUT", "/actions", action_type="Stop")
        self.assertEqual(monitor.end()[0], 0)

    def test_without_the_option_there_is_none_and_no_word_of_it(self):
        monitor = self.monitor("free", jail=())
        self.assertNotIn("jail", monitor.do("GET", "/"))
        # Where the tests themselves run behind a filter, it is inherited.
        self.assertEqual(self.seccomp_of(monitor.process.pid), self.seccomp_of("self"))
        monitor.do("PUT", "/vsock", guest_cid=3, uds_path=str(monitor.folder / "vsock"))
        monitor.process.send_signal(signal.SIGTERM)
        self.assertEqual(monitor.end()[0], 0)
        self.assertEqual((monitor.folder / "stderr").read_text(), "")
        self.assertNotIn("jail", (monitor.folder / "log").read_text())

    @staticmethod
    def seccomp_of(process):
        status = pathlib.Path(f"/proc/{process}/status").read_text()
        return [line for line in status.splitlines() if line.startswith("Seccomp")]

    def test_what_is_not_proven_in_there_is_refused(self):
        monitor = self.monitor("careful")
        for path, body, words in (
                ("/vsock", {"guest_cid": 3, "uds_path": str(monitor.folder / "vsock")}, "vsock"),
                ("/network-interfaces/net0", {"iface_id": "net0", "host_dev_name": "masu-none0"},
                 "there is no TAP masu-none0"),
                ("/snapshot/load", {"snapshot_path": str(monitor.folder / "state"),
                                    "mem_backend": {"backend_type": "Uffd",
                                                    "backend_path": str(monitor.folder / "handler")}},
                 "page fault handler")):  # fmt: skip
            status, reply = monitor.ask("PUT", path, **body)
            self.assertEqual(status, 400)
            self.assertIn(words, reply["fault_message"])
            self.assertIn("--jail", reply["fault_message"])
        self.assertFalse((monitor.folder / "vsock").exists())
        # It goes on as if nothing had been asked.
        self.configure(monitor, SAY_A + HALT)
        self.start_saying_a(monitor)
        monitor.do("PUT", "/actions", action_type="Stop")
        self.assertEqual(monitor.end()[0], 0)

    def test_options_that_contradict_each_other_are_refused(self):
        socket_path = str(self.folder / "socket")
        for arguments, words in (
                (("--jail", "--pool-sock", socket_path), "pool"),
                (("--jail", "--api-fd", "3"), "--api-fd"),
                (("--jail", "--fork-server-fd", "3"), "--fork-server-fd"),
                (("--api-sock", socket_path, "--jail-read", "/usr"), "need --jail"),
                (("--api-sock", socket_path, "--seccomp", "log"), "need --jail"),
                (("--api-sock", socket_path, "--jail", "--seccomp", "maybe"), "kill or log")):
            result = subprocess.run([MASU_VMM, *arguments], capture_output=True, text=True,
                                    check=False, timeout=PATIENCE)  # fmt: skip
            self.assertEqual(result.returncode, 153, arguments)
            self.assertIn(words, result.stderr)
            self.assertEqual(result.stderr.count("\n"), 1)

    def test_a_missing_path_is_told(self):
        with self.assertRaises(AssertionError) as refusal:
            self.monitor("absent", "--jail-read", "/nowhere/at/all")
        if "no Landlock" not in str(refusal.exception):
            self.assertIn("/nowhere/at/all", str(refusal.exception))


if not os.access("/dev/kvm", os.R_OK | os.W_OK):
    print("SKIP jailed monitor: /dev/kvm cannot be opened")
    sys.exit(77)
unittest.main()
