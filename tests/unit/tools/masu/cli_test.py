"""Tests of `masu` end to end, with fake_vmm.py as the monitor.

Needs MASU_EXE (the program) and MASU_VMM (the fake).
"""
import base64
import fcntl
import json
import os
import pty
import shutil
import signal
import socket
import stat
import subprocess
import tempfile
import termios
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

    def test_networks_and_metadata_are_asked_for(self):
        key, data = os.path.join(self.folder, "key.pub"), os.path.join(self.folder, "data")
        with open(key, "w", encoding="utf-8") as file:
            file.write("# mine\nssh-ed25519 AAAA me\n")
        with open(data, "wb") as file:
            file.write(b"#cloud-config\n\xff")
        self.run_detached("a", "echo", options=(
            "--net", "tap=t0,address=10.0.0.2/24,gateway=10.0.0.1,bw=1M", "--net", "tap=t1",
            "--user-data", data, "--ssh-key", key, "--imds", "v1"))
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        first, second = config["network-interfaces/net0"], config["network-interfaces/net1"]
        self.assertEqual(first["host_dev_name"], "t0")
        self.assertEqual(first["guest_network"]["address"], "10.0.0.2/24")
        self.assertEqual(first["guest_network"]["hostname"], "a")
        self.assertEqual(first["rx_rate_limiter"]["bandwidth"]["size"], 1 << 20)
        self.assertNotIn("guest_network", second)
        metadata = config["instance-metadata"]
        self.assertEqual(metadata["network_interfaces"], ["net0"])
        self.assertEqual(metadata["http_tokens"], "optional")
        self.assertEqual(base64.b64decode(metadata["user_data"]), b"#cloud-config\n\xff")
        self.assertEqual([k["key"] for k in metadata["public_keys"]], ["ssh-ed25519 AAAA me"])
        self.assertRegex(metadata["instance_id"], "^i-0[0-9a-f]{16}$")

    def passt(self, script):
        path = os.path.join(self.folder, "passt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\n" + script)
        os.chmod(path, 0o755)
        self.environment["MASU_PASST"] = path

    def test_passt_is_started_and_its_socket_handed_on(self):
        self.passt(f'echo "$@" >{self.folder}/arguments\n')
        self.run_detached("a", "echo", options=("-p", "2222:22", "-p", "127.0.0.1:53:5353/udp"))
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        interface = config["network-interfaces/net0"]
        with open(f"/proc/{self.vm('a')['pid']}/fdinfo/{interface['passt_fd']}", encoding="utf-8"):
            pass  # the monitor has it
        self.assertEqual(interface["guest_network"]["address"], "172.31.0.10/20")
        with open(f"{self.folder}/arguments", encoding="utf-8") as file:
            arguments = file.read()
        self.assertIn("-t 127.0.0.1/2222:22", arguments)
        self.assertIn("-u 127.0.0.1/53:5353", arguments)
        self.assertIn("--no-map-gw", arguments)

    def test_a_snapshot_stays_while_disks_of_another_lie_over_its_own(self):
        self.run_detached("web", "echo")
        self.snapshot_of("web", "first", [{"drive_id": "disk0", "kind": "raw", "path_on_host": "/d", "file": "disk-disk0.raw"}])
        base = os.path.join(self.folder, "state/snapshots/first/disk-disk0.raw")
        self.snapshot_of("web", "second", [{"drive_id": "disk0", "kind": "overlay", "path_on_host": base, "file": "o"}])
        self.assertEqual(self.masu("kill", "web").returncode, 0)
        shown = json.loads(self.masu("snapshot", "inspect", "first", "--output", "json").stdout)
        self.assertEqual(shown["needed_by"], ["second"])
        refused = self.masu("snapshot", "rm", "first")
        self.assertEqual(refused.returncode, 1)
        self.assertIn(b"needed by second, whose disks", refused.stderr)
        self.assertEqual(self.masu("snapshot", "rm", "second", "first").returncode, 0)

    def test_a_snapshot_is_compressed_and_unpacked_again(self):
        self.run_detached("web", "echo")
        self.snapshot_of("web", "warm")
        folder = os.path.join(self.folder, "state/snapshots/warm")
        memory = (b"guest memory " * 400_000)[:4 << 20] + bytes(1 << 20) + os.urandom(300_000) + bytes(20_480 - 1568)
        memory = memory[:len(memory) // 4096 * 4096]
        for name, content in (("memory", memory), ("state", b"state")):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)

        def files():
            return sorted(name for name in os.listdir(folder) if name.startswith("memory"))

        def inspect():
            return json.loads(self.masu("snapshot", "inspect", "warm", "--output", "json").stdout)

        self.assertEqual(self.masu("snapshot", "compress", "warm").returncode, 0)
        self.assertEqual(files(), ["memory.zst"])
        self.assertEqual(inspect()["memory_file"], "compressed")
        self.assertLess(inspect()["memory_stored_bytes"], len(memory) // 2)
        self.assertEqual(self.masu("snapshot", "compress", "warm").returncode, 0)  # it is already
        self.assertEqual(self.masu("snapshot", "decompress", "warm").returncode, 0)
        self.assertEqual(files(), ["memory"])
        self.assertEqual(inspect()["memory_file"], "plain")
        with open(os.path.join(folder, "memory"), "rb") as file:
            self.assertEqual(file.read(), memory)

        # Restored as it is, with a page server that ends with its VM.
        self.assertEqual(self.masu("snapshot", "compress", "warm").returncode, 0)
        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d")
        self.assertEqual(result.returncode, 0, result.stderr)
        backend = self.config("again")["snapshot/load"]["mem_backend"]
        if backend["backend_type"] == "Uffd":
            self.assertTrue(stat.S_ISSOCK(os.stat(backend["backend_path"]).st_mode))
            socket_folder = os.path.dirname(backend["backend_path"])
            self.assertEqual(self.masu("kill", "again").returncode, 0)
            self.assertEqual(self.masu("rm", "again").returncode, 0)
            self.assertFalse(os.path.exists(socket_folder))
        else:  # this user's page faults cannot be handled
            self.assertIn("unpacked into", result.stderr.decode())
            self.assertEqual(self.masu("kill", "again").returncode, 0)
        self.assertEqual(self.masu("snapshot", "decompress", "warm").returncode, 0)

        # Of another snapshot, damaged, in use: refused, and nothing is changed.
        self.assertEqual(self.masu("snapshot", "compress", "warm").returncode, 0)
        with open(os.path.join(folder, "state"), "wb") as file:
            file.write(b"another")
        result = self.masu("snapshot", "decompress", "warm")
        self.assertEqual(result.returncode, 1)
        self.assertIn("of another snapshot", result.stderr.decode())
        with open(os.path.join(folder, "memory.zst"), "r+b") as file:
            file.truncate(1000)
        result = self.masu("snapshot", "decompress", "warm")
        self.assertEqual(result.returncode, 1)
        self.assertIn("damaged", result.stderr.decode())
        self.assertEqual(files(), ["memory.zst"])

    def inspect(self, name):
        return json.loads(self.masu("inspect", name, "--output", "json").stdout)

    def config(self, name):
        return self.inspect(name)["config"]

    def test_clones_have_networks_and_names_of_their_own(self):
        self.passt(f'echo "$@" >>{self.folder}/arguments\n')
        self.run_detached("web", "echo", options=("-p", "8080:80"))
        self.snapshot_of("web", "warm")
        result = self.masu("snapshot", "clone", "warm", "--count", "3", "-p", "9000:80")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertEqual(sorted(result.stdout.decode().split()), ["warm-1", "warm-2", "warm-3"])
        instances = set()
        for number in (1, 2, 3):
            config = self.config(f"warm-{number}")
            load = config["snapshot/load"]
            self.assertFalse(load["resume_vm"])  # rules first
            self.assertEqual(config["ruled_while"], "Paused")
            self.assertEqual(self.state(f"warm-{number}"), "running")
            self.assertEqual(load["identity"]["hostname"], f"warm-{number}")
            self.assertEqual(load["network_overrides"][0]["guest_network"]["hostname"],
                             f"warm-{number}")
            rules = config["network-interfaces/net0/security-groups"]["rules"]
            self.assertIn("published-80", [rule["id"] for rule in rules])
            instances.add(load["identity"]["instance_id"])
        self.assertEqual(len(instances), 3)
        with open(f"{self.folder}/arguments", encoding="utf-8") as file:
            arguments = file.read()
        for port in (8080, 9000, 9001, 9002):
            self.assertEqual(arguments.count(f"-t 127.0.0.1/{port}:80"), 1)

        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d", "--paused")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        load = self.config("again")["snapshot/load"]
        self.assertNotIn("identity", load)
        self.assertEqual(load["network_overrides"][0]["guest_network"]["hostname"], "web")
        self.assertEqual(self.state("again"), "paused")

    def test_a_vsock_is_in_the_folder_of_each_vm_or_where_it_is_wanted(self):
        self.run_detached("a", "echo", options=("--vsock", "auto"))
        vm = self.inspect("a")
        path = vm["vsock"]["uds_path"]
        self.assertEqual(vm["config"]["vsock"], {"guest_cid": 3, "uds_path": path})
        self.assertEqual(path, vm["socket_folder"] + "/vsock")
        self.run_detached("b", "echo", options=("--vsock", "7,uds=" + self.folder + "/x,,y"))
        self.assertEqual(self.config("b")["vsock"], {"guest_cid": 7, "uds_path": self.folder + "/x,y"})
        self.snapshot_of("b", "warm")
        result = self.masu("snapshot", "clone", "warm", "--count", "2")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        paths = [self.config(f"warm-{n}")["snapshot/load"]["vsock_override"]["uds_path"] for n in (1, 2)]
        self.assertEqual(paths, [self.inspect(f"warm-{n}")["socket_folder"] + "/vsock" for n in (1, 2)])
        result = self.masu("snapshot", "clone", "warm", "--count", "2", "--name", "c",
                           "--vsock-path", self.folder + "/v{n}")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertEqual(self.config("c-2")["snapshot/load"]["vsock_override"]["uds_path"], self.folder + "/v2")
        for wrong, text in ((("clone", "warm", "--count", "2", "--vsock-path", "/v"), "/v{n}"),
                            (("restore", "none", "--name", "d", "--vsock-path", "/v"), "has no vsock")):
            if "none" in wrong:
                self.run_detached("e", "echo")
                self.snapshot_of("e", "none")
            result = self.masu("snapshot", *wrong)
            self.assertEqual(result.returncode, 1)
            self.assertIn(text, result.stderr.decode())

    def test_a_jailed_monitor_is_told_its_files_and_saves_among_them(self):
        state = os.path.join(self.folder, "state")
        kernel, disk, base = self.kernel("echo"), self.disk("disk"), self.disk("base")
        result = self.masu("run", "--name", "a", "-d", "--jail-read", kernel + "-later",
                           "--kernel", kernel, "--disk", disk,
                           "--disk", f"{base},overlay={self.folder}/o")  # fmt: skip
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        jail = {kind: sorted(map(os.path.normpath, paths))
                for kind, paths in self.config("a")["jail"].items()}
        self.assertEqual(jail["read"], sorted([kernel, kernel + "-later", base]))
        sockets = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["socket_folder"]
        self.assertEqual(jail["write"], sorted([f"{state}/vms/a", sockets, disk, self.folder]))
        result = self.masu("snapshot", "create", "a", "warm")
        self.assertEqual((result.returncode, result.stdout), (0, b"warm\n"), result.stderr)
        self.assertEqual(self.config("a")["snapshot/create"]["directory"], f"{state}/vms/a/snapshot-warm")
        self.assertEqual(os.listdir(f"{state}/snapshots/warm"), ["manifest.json"])
        self.assertFalse(os.path.exists(f"{state}/vms/a/snapshot-warm"))

        # Who restores it says so again.
        warning = b"masu: there is no jail (--no-jail): a guest that breaks out of its VM can do what this user can\n"
        for name, options, said in (("b", (), b""), ("c", ("--no-jail",), warning)):
            result = self.masu("snapshot", "restore", "warm", "--name", name, "-d", *options)
            self.assertEqual((result.returncode, result.stderr), (0, said))
        self.assertIn(f"{state}/snapshots/warm", self.config("b")["jail"]["read"])
        self.assertNotIn(kernel + "-later", self.config("b")["jail"]["read"])
        self.assertNotIn("jail", self.config("c"))
        result = self.masu("snapshot", "create", "c", "cold")
        self.assertEqual((result.returncode, result.stdout), (0, b"cold\n"), result.stderr)
        self.assertEqual(self.config("c")["snapshot/create"]["directory"], f"{state}/snapshots/cold")

    def test_a_jailed_monitor_makes_its_vsock_where_that_was_asked_for(self):
        self.run_detached("a", "echo", options=("--vsock", "auto"))
        self.assertEqual(self.config("a")["jail"]["socket"], [])  # it lies among the VM's own
        path = os.path.join(self.folder, "elsewhere")
        self.run_detached("b", "echo", options=("--vsock", f"auto,uds={path}"))
        self.assertEqual(self.config("b")["jail"]["socket"], [path])
        result = self.masu("run", "--kernel", self.kernel("echo"), "--no-jail", "--jail-read", "/srv")
        self.assertEqual(result.returncode, 2)
        self.assertIn("--no-jail", result.stderr.decode())

    def test_what_listens_beside_a_vsock_goes_with_the_vm(self):
        self.run_detached("a", "echo", options=("--vsock", "auto"))
        folder = self.inspect("a")["socket_folder"]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(folder + "/vsock_5000")
        self.assertEqual(self.masu("rm", "-f", "a").returncode, 0)
        self.assertFalse(os.path.exists(folder))

    def test_a_restore_that_cannot_have_its_network_leaves_nothing(self):
        self.passt("exit 0\n")
        self.run_detached("web", "echo", options=("-p", "8080:80"))
        self.snapshot_of("web", "warm")
        before = self.leftovers()
        self.passt("echo Failed to bind port 8080; exit 1\n".replace(";", " >&2;"))
        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d")
        self.assertEqual(result.returncode, 1)
        self.assertIn("Failed to bind port 8080", result.stderr.decode())
        self.assertIn("-p", result.stderr.decode())
        for wrong, text in ((("--net", "none"), "cannot be taken away"),
                            (("--net", "tap=a"), "TAP of its own"),
                            (("--security-group", "x"), "NotFound"),
                            (("-p", "65535:80"), "65536")):
            result = self.masu("snapshot", "clone", "warm", "--count", "2", *wrong)
            self.assertEqual(result.returncode, 1)
            self.assertIn(text, result.stderr.decode())
            self.assertEqual(result.stderr.count(b"\n"), 1, result.stderr)
        self.assertEqual(self.leftovers(), before)

    def test_without_passt_a_vm_has_no_network_and_ports_are_refused(self):
        self.run_detached("a", "echo")
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        self.assertNotIn("network-interfaces/net0", config)
        for wrong in (("--net", "user"), ("-p", "8080:80")):
            result = self.masu("run", "--kernel", self.kernel(), *wrong)
            self.assertEqual(result.returncode, 1)
            self.assertIn("passt", result.stderr.decode())

    def test_a_passt_that_gives_up_is_told(self):
        self.passt("echo No external routable interface >&2; exit 1\n")
        result = self.masu("run", "--name", "a", "--net", "user", "--kernel", self.kernel())
        self.assertEqual(result.returncode, 1)
        self.assertIn("No external routable interface", result.stderr.decode())
        self.assertEqual(self.leftovers(), [])
        # Nobody asked for a network: the VM runs without, and says so.
        result = self.masu("run", "--name", "b", "--kernel", self.kernel("exit power_off"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("b has no network", result.stderr.decode())

    def test_bad_keys_and_user_data_are_refused(self):
        private = os.path.join(self.folder, "private")
        with open(private, "w", encoding="utf-8") as file:
            file.write("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        large = os.path.join(self.folder, "large")
        with open(large, "wb") as file:
            file.write(b"x" * 16385)
        for options, text in ((("--ssh-key", private), "private key"),
                              (("--user-data", large), "16384"),
                              (("--imds", "off", "--user-data", private), "--imds off")):
            result = self.masu("run", "--kernel", self.kernel(), "--net", "tap=t,address=10.0.0.2/24",
                               *options)
            self.assertEqual(result.returncode, 1)
            self.assertIn(text, result.stderr.decode())
            self.assertEqual(self.leftovers(), [])

    def test_ssh_goes_where_the_port_is_published(self):
        tools = os.path.join(self.folder, "tools")
        os.mkdir(tools)
        with open(os.path.join(tools, "ssh"), "w", encoding="utf-8") as file:
            file.write('#!/bin/sh\necho "$@"\n')
        os.chmod(os.path.join(tools, "ssh"), 0o755)
        self.environment["PATH"] = tools + ":" + self.environment["PATH"]
        self.passt("exit 0\n")
        self.run_detached("a", "echo", options=("-p", "2222:22"))
        result = self.masu("ssh", "debian@a", "uptime")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout.decode(), "^-p 2222 .* -l debian 127.0.0.1 uptime$")
        self.run_detached("b", "echo", options=("--net", "none"))
        result = self.masu("ssh", "b")
        self.assertEqual(result.returncode, 1)
        self.assertIn("-p 2222:22", result.stderr.decode())

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


class SecurityGroups(CliTest):
    def sg(self, *arguments, error=None):
        result = self.masu("sg", *arguments)
        if error is None:
            self.assertEqual((result.returncode, result.stderr), (0, b""))
        else:
            self.assertEqual(result.returncode, 1)
            self.assertTrue(result.stderr.decode().startswith(f"masu: {error}: "), result.stderr)
            self.assertEqual(result.stderr.count(b"\n"), 1)
        return result.stdout.decode()

    def group(self, name):
        return json.loads(self.sg("inspect", name, "--output", "json"))

    def run_in(self, name, address, *groups):
        options = [word for group in groups for word in ("--security-group", group)]
        self.run_detached(name, f"interface net0 {address}/20", "echo", options=options)

    def rules_of(self, vm):
        config = json.loads(self.masu("inspect", vm, "--output", "json").stdout)["config"]
        return config["network-interfaces/net0/security-groups"]

    def test_groups_and_rules_as_ec2_has_them(self):
        default = self.group("default")
        self.assertEqual([r["direction"] for r in default["rules"]],
                         ["ingress", "egress", "egress"])
        self.assertEqual(default["rules"][0]["group"], default["id"])
        group_id = self.sg("create", "web", "--description", "web servers").strip()
        self.assertTrue(group_id.startswith("sg-"))
        self.sg("create", "web", "--description", "x", error="InvalidGroup.Duplicate")
        ssh = ("web", "--protocol", "tcp", "--port", "22", "--cidr", "100.68.0.18/18")
        rule_id = self.sg("authorize", *ssh, "--description", "from the office").strip()
        self.sg("authorize", *ssh[:-1], "100.68.0.0/18", error="InvalidPermission.Duplicate")
        self.sg("authorize", "web", "--protocol", "icmp", "--icmp-type", "8", "--cidr", "0.0.0.0/0")
        self.sg("authorize", "web", "--protocol", "tcp", "--port", "1-2", "--source-group", "web")
        self.sg("authorize", "web", "--egress", "--protocol", "tcp", "--port", "443",
                "--dns-name", "*.Example.org", "--dns-name", "a.example.com")
        rules = {r["id"]: r for r in self.group("web")["rules"]}
        self.assertEqual(rules[rule_id], {
            "id": rule_id, "direction": "ingress", "protocol": "tcp", "from_port": 22,
            "to_port": 22, "cidr": "100.68.0.0/18", "description": "from the office"})
        self.assertEqual(len(rules), 7)
        self.assertIn("tcp 443 to *.example.org", self.sg("inspect", "web"))
        self.sg("revoke", *ssh)
        self.sg("revoke", *ssh, error="InvalidPermission.NotFound")
        self.sg("revoke", "web", "--rule-id", rule_id,
                error="InvalidSecurityGroupRuleId.NotFound")
        self.assertEqual([g["name"] for g in json.loads(self.sg("ls", "--output", "json"))],
                         ["default", "web"])
        self.assertEqual(self.sg("ls", "--names"), "default\nweb\n")
        self.sg("rm", "web")
        self.sg("rm", "web", error="InvalidGroup.NotFound")
        self.sg("rm", "default", error="CannotDelete")

    def test_what_is_wrong_with_a_rule_is_said(self):
        self.sg("create", "web", "--description", "d")
        for arguments, error in (
            (("--protocol", "tcp", "--cidr", "0.0.0.0/0"), "InvalidParameterValue"),
            (("--protocol", "tcp", "--port", "22"), "MissingParameter"),
            (("--protocol", "tcp", "--port", "9-2", "--cidr", "::/0"), "InvalidParameterValue"),
            (("--protocol", "tcp", "--port", "22", "--cidr", "10.0.0.0"), "InvalidParameterValue"),
            (("--protocol", "-1", "--source-group", "db"), "InvalidGroup.NotFound"),
            (("--protocol", "-1", "--dns-name", "a.org"), "InvalidParameterValue"),
        ):
            self.sg("authorize", "web", *arguments, error=error)
        self.sg("revoke", "web", error="MissingParameter")
        self.assertEqual(self.masu("sg", "authorize", "web").returncode, 2)
        self.assertEqual(self.masu("sg").returncode, 2)
        self.assertIn(b"see `masu sg create --help`", self.masu("sg", "create", "x").stderr)

    def test_running_vms_get_rules_at_once(self):
        self.sg("create", "web", "--description", "d")
        self.sg("create", "db", "--description", "d")
        self.run_in("w", "10.0.0.5", "web")
        self.run_in("d", "10.0.0.6", "db")
        self.run_in("other", "10.0.0.7")
        before = self.rules_of("d")
        self.assertEqual({r["direction"] for r in before["rules"]}, {"egress"})
        self.sg("authorize", "db", "--protocol", "tcp", "--port", "5432", "--source-group", "web")
        web = self.group("web")["id"]
        after = self.rules_of("d")
        self.assertEqual(after["rules"][-1]["group"], web)
        self.assertEqual(after["members"], [{"group": web, "addresses": ["10.0.0.5"]}])
        # Who joins the group is a peer at once, and who leaves it no longer one.
        self.run_in("w2", "10.0.0.8", "web", "default")
        self.assertEqual(sorted(self.rules_of("d")["members"][0]["addresses"]),
                         ["10.0.0.5", "10.0.0.8"])
        self.sg("detach", "w2", "web")
        self.assertEqual(self.rules_of("d")["members"][0]["addresses"], ["10.0.0.5"])
        self.sg("attach", "other", "web")
        self.assertEqual(sorted(self.rules_of("d")["members"][0]["addresses"]),
                         ["10.0.0.5", "10.0.0.7"])
        self.sg("revoke", "db", "--protocol", "tcp", "--port", "5432", "--source-group", "web")
        self.assertEqual(self.rules_of("d")["rules"], before["rules"])
        self.assertEqual(self.group("web")["vms"], ["other", "w"])

    def test_groups_in_use_stay_and_a_vm_is_in_one_at_least(self):
        self.sg("create", "web", "--description", "d")
        self.run_in("w", "10.0.0.5", "web")
        self.sg("rm", "web", error="DependencyViolation")
        self.sg("detach", "w", "web", error="InvalidParameterValue")
        self.sg("attach", "w", "default")
        self.sg("detach", "w", "web")
        self.sg("rm", "web")
        result = self.masu("run", "--kernel", self.kernel("echo"), "--security-group", "web", "-d")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"InvalidGroup.NotFound", result.stderr)

    def prefix_list(self, *arguments, error=None):
        result = self.masu("prefix-list", *arguments)
        self.assertEqual(result.returncode, 0 if error is None else 1, result.stderr)
        if error is not None:
            self.assertTrue(result.stderr.decode().startswith(f"masu: {error}: "), result.stderr)
        return result.stdout.decode()

    def test_prefix_lists_are_peers_and_their_changes_reach_running_vms(self):
        list_id = self.prefix_list("create", "offices", "--cidr", "203.0.113.9/24",
                                   "--max-entries", "5", "--description", "Lyon").strip()
        self.prefix_list("create", "none", error="MissingParameter")
        self.sg("create", "web", "--description", "d")
        ssh = ("web", "--protocol", "tcp", "--port", "22", "--prefix-list")
        self.sg("authorize", *ssh, "nothing", error="InvalidPrefixListId.NotFound")
        self.sg("authorize", *ssh, "offices")
        self.run_in("w", "10.0.0.5", "web")
        held = lambda: self.rules_of("w")["prefix_lists"]
        self.assertEqual(self.rules_of("w")["rules"][-1]["prefix_list"], list_id)
        self.assertEqual(held(), [{"id": list_id, "cidrs": ["203.0.113.0/24"]}])
        self.prefix_list("add", "offices", "--cidr", "2001:db8::/32")
        self.prefix_list("add", list_id, "--cidr", "2001:db8::/32", error="InvalidParameterValue")
        self.assertEqual(held()[0]["cidrs"], ["203.0.113.0/24", "2001:db8::/32"])
        self.prefix_list("remove", "offices", "--cidr", "203.0.113.0/24")
        self.assertEqual(held()[0]["cidrs"], ["2001:db8::/32"])
        shown = json.loads(self.prefix_list("inspect", "offices", "--output", "json"))
        self.assertEqual((shown["id"], shown["max_entries"], len(shown["entries"])), (list_id, 5, 1))
        self.assertIn("2001:db8::/32", self.prefix_list("inspect", "offices"))
        self.assertEqual(self.prefix_list("ls", "--names"), "offices\n")
        self.assertEqual(len(json.loads(self.prefix_list("ls", "--output", "json"))), 1)
        self.prefix_list("rm", "offices", error="DependencyViolation")
        self.sg("revoke", *ssh, "offices")
        self.prefix_list("rm", "offices")
        self.assertEqual(self.prefix_list("ls", "--names"), "")

    def test_settings_of_the_firewall(self):
        self.run_detached("w", "interface net0 10.0.0.5/20", "echo",
                          options=("--udp-timeout", "45", "--icmp-errors", "strict"))
        rules = self.rules_of("w")
        self.assertEqual(rules["connection_tracking"]["udp_timeout"], 45)
        self.assertEqual(rules["icmp_errors"], "strict")
        self.sg("modify", "w", "--tcp-established-timeout", "350", "--udp-stream-timeout", "60",
                "--icmp-errors", "related", "--private-name-answers", "on")
        rules = self.rules_of("w")
        self.assertEqual(rules["connection_tracking"], {
            "tcp_established_timeout": 350, "udp_stream_timeout": 60, "udp_timeout": 45})
        self.assertEqual((rules["icmp_errors"], rules["private_name_answers"]), ("related", True))
        self.sg("modify", "w", error="MissingParameter")
        for wrong in ("--udp-timeout", "61"), ("--icmp-errors", "x"), ("--udp-stream-timeout", "9"):
            self.assertEqual(self.masu("sg", "modify", "w", *wrong).returncode, 2)

    def test_counters(self):
        self.run_in("w", "10.0.0.5")
        text = self.sg("counters", "w")
        self.assertRegex(text, r"(?m)^no_rule +5 +300$")
        self.assertRegex(text, r"(?m)^sgr-1 +4 +240$")
        self.assertNotIn("source_mac", text)
        self.assertIn("3 flows, room for 7 more; 2 packets found none", text)
        self.assertEqual(json.loads(self.sg("counters", "w", "--output", "json"))["flows"], 3)
        self.assertEqual(self.masu("sg", "counters", "w", "--interface", "net1").returncode, 1)
        self.masu("kill", "w")
        self.assertIn(b"w is not running", self.masu("sg", "counters", "w").stderr)

    def test_the_format_of_flow_logs(self):
        self.run_detached("w", "interface net0 10.0.0.5/20", "echo",
                          options=("--log-format", "${srcaddr} ${action}",
                                   "--max-aggregation-interval", "10"))
        config = json.loads(self.masu("inspect", "w", "--output", "json").stdout)["config"]
        log = config["network-interfaces/net0/flow-log"]
        self.assertEqual((log["format"], log["interval"]), ("${srcaddr} ${action}", 10))
        self.assertNotIn("account_id", log)
        result = self.masu("run", "--kernel", self.kernel("echo"), "--log-format", "${colour}", "-d")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b'--log-format: flow log format: "${colour}" is no field', result.stderr)

    def test_the_account_is_told_to_metadata_and_flow_logs(self):
        self.run_detached("w", "interface net0 10.0.0.5/20", "echo",
                          options=("--net", "tap=t0,address=10.0.0.5/20", "--flow-logs",
                                   "--account-id", "123456789012"))
        report = json.loads(self.masu("inspect", "w", "--output", "json").stdout)
        for path in ("network-interfaces/net0/flow-log", "instance-metadata"):
            self.assertEqual(report["config"][path]["account_id"], "123456789012")
        result = self.masu("run", "--kernel", self.kernel("echo"), "--account-id", "12 4", "-d")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"--account-id 12 4: an account's id is 12 digits", result.stderr)

    def test_flow_logs(self):
        self.run_detached("w", "interface net0 10.0.0.5/20", "echo", options=("--flow-logs",))
        config = json.loads(self.masu("inspect", "w", "--output", "json").stdout)["config"]
        path = config["network-interfaces/net0/flow-log"]["path"]
        self.assertIn(b"keeps no flow log of net1",
                      self.masu("flow-logs", "w", "--interface", "net1").stderr)
        with open(path + ".1", "w") as before, open(path, "w") as now:
            before.write("old\n")
            now.write("new\n")
        self.assertEqual(self.masu("flow-logs", "w").stdout, b"old\nnew\n")
        follower = self.start("flow-logs", "-f", "w")
        os.rename(path, path + ".1")
        with open(path, "w") as now:
            now.write("newest\n")
        self.masu("kill", "w")
        self.assertTrue(follower.communicate(timeout=PATIENCE)[0].endswith(b"newest\n"))
        result = self.masu("run", "--kernel", self.kernel("echo"), "--flow-logs", "-d")
        self.assertIn(b"no network interface", result.stderr)

    def test_a_vm_that_could_not_be_told_is_named(self):
        for number, name in enumerate(("dead", "good", "stuck")):
            self.run_in(name, f"10.0.0.{number + 5}")
        os.kill(self.vm("dead")["pid"], signal.SIGKILL)
        os.kill(self.vm("stuck")["pid"], signal.SIGSTOP)
        result = self.masu("sg", "authorize", "default", "--protocol", "tcp", "--port", "2",
                           "--cidr", "::/0")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"these running VMs keep their old rules: stuck (", result.stderr)
        self.assertEqual(self.rules_of("good")["rules"][-1]["from_port"], 2)
        self.assertEqual(len(self.group("default")["rules"]), 4)


class NetworkTest(CliTest):
    def kill_all(self):
        super().kill_all()
        eventually(lambda: not self.switches(), "the switches' end")

    def net(self, *arguments, error=None):
        result = self.masu("net", *arguments)
        if error is None:
            self.assertEqual((result.returncode, result.stderr), (0, b""))
        else:
            self.assertEqual((result.returncode, result.stderr.decode()), (1, f"masu: {error}\n"))
        return result.stdout.decode()

    def network(self, name="lab"):
        return json.loads(self.net("inspect", name, "--output", "json"))

    def join(self, vm, *options, net="network=lab", command="echo"):
        self.run_detached(vm, command, options=("--net", net, *options))
        config = json.loads(self.masu("inspect", vm, "--output", "json").stdout)["config"]
        return config["network-interfaces/net0"]

    def switches(self):
        """Processes of switches of this test's networks."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                with open(f"/proc/{pid}/environ", "rb") as file:
                    ours = self.folder.encode() in file.read()
            except OSError:
                continue
            if ours and b"net-switch" in words:
                found.append(int(pid))
        return found

    def test_vms_get_addresses_of_their_own_and_a_port_of_the_switch(self):
        self.assertRegex(self.net("create", "lab", "--subnet", "10.1.2.3/28", "--subnet6", "fd00:1::/64"),
                         "^[0-9a-f]{16}\n$")
        self.assertEqual(self.switches(), [])
        one = self.join("one")
        two = self.join("two", net="network=lab,address=10.1.2.9,mtu=1400")
        self.assertEqual(one["guest_network"], {
            "address": "10.1.2.4/28", "hostname": "one", "dns": [], "shared_link": True,
            "address6": one["guest_network"]["address6"], "gateway6": "fe80::401:23ff:fe45:6701",
            "local_gateway6": True})
        self.assertEqual(two["guest_network"]["address"], "10.1.2.9/28")
        self.assertEqual((one["mtu"], two["mtu"]), (65520, 1400))
        self.assertEqual((one["guest_mac"][6:], two["guest_mac"][6:]), ("0a:01:02:04", "0a:01:02:09"))
        for vm, interface in (("one", one), ("two", two)):
            with open(f"/proc/{self.monitor_pid(vm)}/fdinfo/{interface['passt_fd']}", encoding="utf-8"):
                pass  # the monitor has it
        self.assertEqual(len(self.switches()), 1)
        members = {m["vm"]: m for m in self.network()["vms"]}
        self.assertEqual(members["two"]["address"], "10.1.2.9")
        self.assertEqual(members["one"]["address6"] + "/64", one["guest_network"]["address6"])
        self.assertEqual(members["one"]["received_frames"], 0)
        self.assertIn("10.1.2.9", self.net("inspect", "lab"))
        listed = json.loads(self.net("ls", "--output", "json"))
        self.assertEqual([(n["name"], n["subnet"], n["subnet6"], n["vms"]) for n in listed],
                         [("lab", "10.1.2.0/28", "fd00:1::/64", ["one", "two"])])
        self.assertEqual(self.net("ls", "--names"), "lab\n")

    def test_a_clone_has_an_address_of_its_own_and_a_restored_vm_its_old_one(self):
        self.net("create", "lab", "--subnet", "10.1.0.0/24")
        saved = self.join("one")
        self.snapshot_of("one", "warm")
        result = self.masu("snapshot", "clone", "warm", "--count", "2")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        members = {m["vm"]: m for m in self.network()["vms"]}
        self.assertEqual(set(members), {"one", "warm-1", "warm-2"})
        for key in ("mac", "address", "address6"):
            self.assertEqual(len({m[key] for m in members.values()}), 3)

        def interface(vm):
            shown = json.loads(self.masu("inspect", vm, "--output", "json").stdout)
            return shown["config"]["snapshot/load"]["network_overrides"][0]

        for vm in ("warm-1", "warm-2"):
            self.assertEqual(interface(vm)["network_mac"], members[vm]["mac"])
            self.assertEqual(interface(vm)["guest_network"]["address"], members[vm]["address"] + "/24")
            self.assertEqual(interface(vm)["guest_network"]["address6"], members[vm]["address6"] + "/64")

        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d")
        self.assertEqual(result.stderr.decode(),
                         f"masu: again: {members['one']['address']} of network lab is in use by VM one\n")
        self.masu("kill", "one")
        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertEqual(interface("again")["network_mac"], saved["guest_mac"])
        self.assertEqual(interface("again")["guest_network"], {**saved["guest_network"], "hostname": "one"})

    def test_an_address_is_free_when_its_vm_has_ended_however_it_ended(self):
        self.net("create", "lab", "--subnet", "10.1.0.0/24")
        same = "network=lab,address=10.1.0.20"
        self.join("one", net=same)
        result = self.masu("run", "--kernel", self.kernel("echo"), "--name", "two", "-d", "--net", same)
        self.assertEqual(result.stderr.decode(),
                         "masu: two: 10.1.0.20 of network lab is in use by VM one\n")
        self.assertIsNone(self.vm("two"))
        os.kill(self.monitor_pid("one"), signal.SIGKILL)
        eventually(lambda: self.network()["vms"] == [], "the lease's end")
        self.join("two", net=same)
        self.masu("kill", "two")
        self.masu("rm", "two")
        self.join("two", "--rm", net=same)
        self.assertEqual([m["vm"] for m in self.network()["vms"]], ["two"])
        self.net("rm", "lab", error="network lab is in use by VM two; end them first")
        self.masu("stop", "two")
        eventually(lambda: not self.switches(), "the switch's end")
        eventually(lambda: self.vm("two") is None, "the VM's removal")
        self.net("rm", "lab")
        self.assertEqual(self.net("ls", "--names"), "")
        eventually(lambda: not [entry for entry in os.listdir(f"{self.folder}/state/run")
                                if entry.startswith("net-")], "the socket's end")

    def test_a_switch_that_was_killed_is_started_again_for_the_next_vm(self):
        self.net("create", "lab")
        self.join("one")
        killed = self.switches()
        os.kill(killed[0], signal.SIGKILL)
        eventually(lambda: not self.switches(), "the switch's end")
        self.assertNotIn("received_frames", self.network()["vms"][0])
        self.join("two")
        members = {m["vm"]: m for m in self.network()["vms"]}
        self.assertEqual(members["two"]["received_frames"], 0)
        self.assertNotEqual(members["one"]["address"], members["two"]["address"])

    def test_members_of_groups_hear_who_joins_and_who_leaves(self):
        self.net("create", "lab", "--subnet", "10.1.0.0/24", "--subnet6", "none")
        for name in ("web", "db"):
            self.masu("sg", "create", name, "--description", "d")
        self.masu("sg", "authorize", "db", "--protocol", "tcp", "--port", "5432", "--source-group", "web")
        self.join("d", "--security-group", "db")

        def peers():
            config = json.loads(self.masu("inspect", "d", "--output", "json").stdout)["config"]
            members = config["network-interfaces/net0/security-groups"]["members"]
            return sorted(a for m in members for a in m["addresses"])
        self.assertEqual(peers(), [])
        self.join("w1", "--security-group", "web")
        self.join("w2", "--security-group", "web", command="sleep 60")
        self.assertEqual(peers(), ["10.1.0.5", "10.1.0.6"])
        self.masu("stop", "w1")
        eventually(lambda: peers() == ["10.1.0.6"], "w1's leaving")
        os.kill(self.monitor_pid("w2"), signal.SIGKILL)
        eventually(lambda: peers() == [], "w2's leaving")

    def create_bridge(self, *options):
        result = self.masu("net", "create", "lab", "--driver", "bridge", *options)
        if result.returncode != 0 and b"namespace" in result.stderr:
            self.skipTest(result.stderr.decode())
        self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_a_bridge_gives_each_vm_a_tap_with_a_queue_for_each_cpu(self):
        self.create_bridge("--subnet", "10.1.2.0/24", "--subnet6", "none")
        one = self.join("one", "--cpus", "3")
        two = self.join("two", net="network=lab,mtu=9000")
        self.assertEqual([len(i["tap_fds"]) for i in (one, two)], [3, 1])
        self.assertNotIn("passt_fd", one)
        self.assertEqual((one["mtu"], two["mtu"]), (1500, 9000))
        self.assertEqual(one["guest_network"]["address"], "10.1.2.4/24")
        for vm, interface in (("one", one), ("two", two)):
            for fd in interface["tap_fds"]:
                self.assertEqual(os.readlink(f"/proc/{self.monitor_pid(vm)}/fd/{fd}"), "/dev/net/tun")
        network = self.network()
        self.assertEqual((network["driver"], network["mtu"]), ("bridge", 1500))
        self.assertEqual([m["received_frames"] for m in network["vms"]], [0, 0])
        self.assertRegex(self.net("ls"), "lab +bridge +10.1.2.0/24")
        # Only the bridge's process left the namespace that all others are in.
        holder, = self.switches()
        spaces = {os.readlink(f"/proc/{pid}/ns/net")
                  for pid in ("self", self.monitor_pid("one"), holder)}
        self.assertEqual(len(spaces), 2)

    def test_members_hear_who_leaves_a_bridge_and_its_process_ends_with_the_last(self):
        self.create_bridge("--subnet", "10.1.2.0/24", "--subnet6", "none")
        self.masu("sg", "create", "web", "--description", "d")
        self.masu("sg", "authorize", "web", "--protocol", "tcp", "--port", "80", "--source-group", "web")
        self.join("one", "--security-group", "web")
        self.join("two", "--security-group", "web")

        def peers():
            config = json.loads(self.masu("inspect", "one", "--output", "json").stdout)["config"]
            members = config["network-interfaces/net0/security-groups"]["members"]
            return sorted(a for m in members for a in m["addresses"])
        self.assertEqual(peers(), ["10.1.2.4", "10.1.2.5"])
        os.kill(self.monitor_pid("two"), signal.SIGKILL)
        eventually(lambda: peers() == ["10.1.2.4"], "the leaving")
        self.join("three", net="network=lab,address=10.1.2.5")
        self.masu("kill", "one")
        self.masu("kill", "three")
        eventually(lambda: not self.switches(), "the bridge's end")
        self.net("rm", "lab")

    def test_who_may_have_no_bridge_is_told(self):
        # Nobody in particular, where nobody may have more namespaces.
        script = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all \"$@\""
        wrapped = subprocess.run(["unshare", "-Ur", "sh", "-c", script, "sh", MASU, "net", "create", "lab",
                                  "--driver", "bridge"], env=self.environment, capture_output=True)
        if b"masu:" not in wrapped.stderr:
            self.skipTest(wrapped.stderr.decode())
        self.assertEqual(wrapped.returncode, 1)
        self.assertEqual(wrapped.stderr.decode(), "masu: --driver bridge: a bridge of the host's kernel needs root "
                         "here, where users may have no namespaces; run masu as root, or make the network with "
                         "--driver switch\n")
        self.assertEqual(self.net("ls", "--names"), "")

    def test_published_ports_are_open_to_the_outside_only(self):
        self.net("create", "lab")
        path = os.path.join(self.folder, "passt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexit 0\n")
        os.chmod(path, 0o755)
        self.environment["MASU_PASST"] = path
        self.run_detached("a", "interface net0 172.31.0.10/20", "echo",
                          options=("--net", "user", "--net", "network=lab", "-p", "8080:80"))
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        rules = [[r["id"] for r in config[f"network-interfaces/net{i}/security-groups"]["rules"]]
                 for i in (0, 1)]
        self.assertEqual(rules[0][0], "published-80")
        self.assertEqual(rules[0][1:], rules[1])

    def test_what_cannot_be_is_said(self):
        self.net("create", "lab", "--subnet", "10.1.0.0/24")
        self.net("create", "lab", error="there is a network lab already; `masu net inspect lab` shows it")
        self.net("create", "two", "--subnet", "10.1.0.128/25", error="10.1.0.128/25 overlaps "
                 "10.1.0.0/24, the subnet of network lab; choose another --subnet")
        self.net("create", "two", "--subnet", "10.1.0.0/8",
                 error='"10.1.0.0/8" is not an IPv4 subnet of /16 to /28, such as 10.1.0.0/24')
        missing = "there is no network lob; make it with `masu net create lob`, or see `masu net ls`"
        self.net("inspect", "lob", error=missing)
        self.net("rm", "lob", error=missing)
        result = self.masu("run", "--kernel", self.kernel("echo"), "--net", "network=lob")
        self.assertEqual((result.returncode, result.stderr.decode()), (1, f"masu: {missing}\n"))
        self.net("create", "tiny", "--subnet", "10.2.0.0/28")
        path = os.path.join(self.folder, "state/networks/tiny.json")
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        self.join("holder")
        vm_id = self.vm("holder")["id"]
        record["leases"] = [{"vm": "holder", "vm_id": vm_id, "interface": "net1",
                             "mac": f"06:02:0a:02:00:{i:02x}", "address": f"10.2.0.{i}"}
                            for i in range(4, 15)]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(record, file)
        result = self.masu("run", "--kernel", self.kernel("echo"), "--net", "network=tiny", "--name", "a")
        self.assertEqual((result.returncode, result.stderr.decode()),
                         (1, "masu: a: network tiny has no address left: all 11 of 10.2.0.0/28 are in "
                             "use; end a VM, or make a larger network\n"))
        self.assertEqual(self.masu("net").returncode, 2)


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
