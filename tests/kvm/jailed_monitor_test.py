"""masu-vmm in its jail, with bare-metal guests: pause, snapshot, load, another disk, reboots, its end.

Needs MASU_VMM, the program. A system call or a file that the jail lacks ends one of these."""

import ctypes
import fcntl
import http.client
import json
import os
import pathlib
import select
import shutil
import signal
import socket
import struct
import subprocess
import sys
import tempfile
import threading
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


class FaultHandler:
    """Brings in guest memory as Firecracker's handlers do: a page for each fault."""

    PAGE = 4096
    FAULT = 0x12
    COPY = 0xC028AA03  # UFFDIO_COPY

    def __init__(self, path, memory):
        self.path, self.memory, self.pages = path, memory, 0
        self.listener = socket.socket(socket.AF_UNIX)
        self.listener.bind(str(path))
        self.listener.listen(1)
        self.end, self.tell_end = os.pipe()
        self.thread = threading.Thread(target=self.serve, daemon=True)
        self.thread.start()

    def leave(self):
        os.write(self.tell_end, b"x")
        self.thread.join(PATIENCE)

    def serve(self):
        connection, _ = self.listener.accept()
        text, descriptors, _, _ = socket.recv_fds(connection, 65536, 1)
        regions, faults = json.loads(text), descriptors[0]
        while True:
            ready, _, _ = select.select([faults, self.end], [], [])
            if self.end in ready:
                os.close(faults)
                connection.close()
                self.listener.close()
                return
            message = os.read(faults, 32)
            if message[0] == self.FAULT:
                self.bring(regions, faults, struct.unpack_from("<Q", message, 16)[0])

    def bring(self, regions, faults, address):
        address -= address % self.PAGE
        region = next(r for r in regions
                      if 0 <= address - r["base_host_virt_addr"] < r["size"])  # fmt: skip
        offset = address - region["base_host_virt_addr"] + region["offset"]
        page = ctypes.create_string_buffer(self.memory[offset:offset + self.PAGE], self.PAGE)
        copy = struct.pack("<QQQQq", address, ctypes.addressof(page), self.PAGE, 0, 0)
        try:
            fcntl.ioctl(faults, self.COPY, copy)
        except FileExistsError:
            pass  # asked for twice
        self.pages += 1


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

    def monitor(self, name, *arguments):
        self.monitors.append(Monitor(self.folder / name, *arguments))
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

    def test_without_a_jail_it_says_so(self):
        monitor = self.monitor("free", "--no-jail")
        self.assertEqual(monitor.do("GET", "/")["jail"], "none")
        # Where the tests themselves run behind a filter, it is inherited.
        self.assertEqual(self.seccomp_of(monitor.process.pid), self.seccomp_of("self"))
        monitor.process.send_signal(signal.SIGTERM)
        self.assertEqual(monitor.end()[0], 0)
        for name in ("stderr", "log"):
            self.assertIn("there is no jail (--no-jail)", (monitor.folder / name).read_text())

    @staticmethod
    def seccomp_of(process):
        status = pathlib.Path(f"/proc/{process}/status").read_text()
        return [line for line in status.splitlines() if line.startswith("Seccomp")]

    def test_a_vsock_takes_connections(self):
        monitor = self.monitor("vsock")
        path = monitor.folder / "vsock"
        monitor.do("PUT", "/vsock", guest_cid=3, uds_path=str(path))
        self.configure(monitor, SAY_A + HALT)
        self.start_saying_a(monitor)
        self.assert_confined(monitor)
        with socket.socket(socket.AF_UNIX) as client:
            client.settimeout(PATIENCE)
            client.connect(str(path))
            self.assertEqual(client.recv(1), b"", "closed, since no driver is there to answer")
        monitor.do("PUT", "/actions", action_type="Stop")
        self.assertEqual(monitor.end()[0], 0)
        self.assertFalse(path.exists(), "the socket is left behind")

    def test_what_was_prepared_goes_when_it_is_not_loaded(self):
        monitor = self.monitor("first")
        monitor.do("PUT", "/vsock", guest_cid=3, uds_path=str(monitor.folder / "vsock"))
        self.configure(monitor, SAY_A + HALT, disk={"path_on_host": str(self.file("disk.raw"))})
        self.start_saying_a(monitor)
        monitor.do("PATCH", "/vm", state="Paused")
        saved, own = self.folder / "saved", self.folder / "own"
        monitor.do("PUT", "/snapshot/create", directory=str(saved))
        monitor.do("PUT", "/actions", action_type="Stop")
        self.assertEqual(monitor.end()[0], 0)
        own.mkdir()

        def load(vsock):
            return {"directory": str(saved), "overlay_folder": str(own),
                    "vsock_override": {"uds_path": str(own / vsock)}}  # fmt: skip

        waiting = self.monitor("waiting")
        waiting.do("PUT", "/snapshot/prepare", **load("v1"))
        self.assertEqual({path.name for path in own.iterdir()}, {"disk.overlay", "v1"})
        waiting.process.send_signal(signal.SIGTERM)
        self.assertEqual(waiting.end()[0], 0)
        self.assertEqual(list(own.iterdir()), [])
        other = self.monitor("other")
        other.do("PUT", "/snapshot/prepare", **load("v1"))
        other.do("PUT", "/snapshot/load", **load("v2"), resume_vm=True)
        self.assertEqual({path.name for path in own.iterdir()}, {"disk.overlay", "v2"})
        self.assert_confined(other)
        other.do("PUT", "/actions", action_type="Stop")
        self.assertEqual(other.end()[0], 0)
        self.assertEqual([path.name for path in own.iterdir()], ["disk.overlay"])

    def test_a_vsock_elsewhere_needs_a_folder_to_lie_in(self):
        place = self.folder / "sockets"
        place.mkdir()
        for arguments, status in ((("--jail-read", "/usr"), 400),
                                  (("--jail-read", "/usr", "--jail-socket", place / "vsock"), 204)):
            monitor = self.monitor(f"vsock-{status}", *arguments)
            if "landlock" not in monitor.do("GET", "/")["jail"]:
                self.skipTest("this kernel has no Landlock")
            reply = monitor.ask("PUT", "/vsock", guest_cid=3, uds_path=str(place / "vsock"))
            self.assertEqual(reply[0], status, reply)
            # Sockets, and nothing else.
            secret = self.file("sockets/secret")
            refused = monitor.ask("PUT", "/drives/d", drive_id="d", is_root_device=False,
                                  path_on_host=str(secret))  # fmt: skip
            if refused[0] == 204:
                self.configure(monitor, SAY_A + HALT, monitor.folder)
                refused = monitor.ask("PUT", "/actions", action_type="InstanceStart")
            self.assertEqual(refused[0], 400)
            self.assertIn("the jail is why", refused[1]["fault_message"])
            monitor.process.send_signal(signal.SIGTERM)
            self.assertEqual(monitor.end()[0], 0)

    @unittest.skipUnless(os.access("/dev/net/tun", os.R_OK | os.W_OK) and os.geteuid() == 0,
                         "makes a TAP, as root")  # fmt: skip
    def test_root_has_its_tap_made(self):
        name = f"masujail{os.getpid() % 10000}"
        monitor = self.monitor("tap")
        monitor.do("PUT", "/network-interfaces/net0", iface_id="net0", host_dev_name=name)
        self.configure(monitor, SAY_A + HALT)
        self.start_saying_a(monitor)
        self.assert_confined(monitor)
        self.assertTrue(pathlib.Path(f"/sys/class/net/{name}").exists())
        monitor.do("PUT", "/actions", action_type="Stop")
        self.assertEqual(monitor.end()[0], 0)

    def saved(self):
        """A snapshot of a guest that says A, resets, and so on, in two files."""
        monitor = self.monitor("saver")
        self.configure(monitor, SAY_A + HALT)
        self.start_saying_a(monitor)
        monitor.do("PATCH", "/vm", state="Paused")
        state, memory = self.folder / "state", self.folder / "memory"
        monitor.do("PUT", "/snapshot/create", snapshot_path=str(state), mem_file_path=str(memory))
        monitor.do("PUT", "/actions", action_type="Stop")
        monitor.end()
        return state, memory

    def test_memory_that_a_handler_brings_in(self):
        state, memory = self.saved()
        handler = FaultHandler(self.folder / "handler", memory.read_bytes())
        monitor = self.monitor("served")
        status, reply = monitor.ask(
            "PUT", "/snapshot/load", snapshot_path=str(state), resume_vm=True,
            mem_backend={"backend_type": "Uffd", "backend_path": str(handler.path)})  # fmt: skip
        if status == 400 and "userfaultfd" in reply["fault_message"]:
            self.skipTest(reply["fault_message"])
        self.assertEqual(status, 204, reply)
        self.assert_confined(monitor)
        self.wait_for(lambda: handler.pages > 0, "no page was asked for")
        handler.leave()
        status, end = monitor.end()
        self.assertEqual((status, end["kind"]), (1, "memory-lost"))

    def test_options_that_contradict_each_other_are_refused(self):
        socket_path = str(self.folder / "socket")
        for arguments, words in (
                (("--api-sock", socket_path, "--no-jail", "--jail-read", "/usr"), "contradicts"),
                (("--api-sock", socket_path, "--no-jail", "--seccomp", "log"), "contradicts"),
                (("--api-sock", socket_path, "--seccomp", "maybe"), "kill or log")):
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
