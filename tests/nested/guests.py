"""The guests that tests boot: a small one (BusyBox in an initramfs, up in seconds) that runs a
test's own script, and Debian from its disk."""

import json
import pathlib
import re
import shlex
import subprocess

# What a small guest's kernel is spared, as the nested host's is: self-tests, security modules.
SPARED = "cryptomgr.notests apparmor=0 selinux=0 audit=0 init_on_alloc=0 mitigations=off"

# In the order they must be loaded; those built into a kernel are absent.
MODULES = (
    "virtio_ring virtio virtio_pci_legacy_dev virtio_pci_modern_dev virtio_pci virtio_mmio "
    "virtio_blk virtio-rng failover net_failover virtio_net pvpanic pvpanic-mmio"
).split()

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/bin:/sbin HOME=/
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm; mount -t tmpfs shm /dev/shm; mount -t tmpfs tmp /tmp
dmesg -n 1
for module in %s; do [ ! -e /modules/$module.ko ] || insmod /modules/$module.ko; done
# use_debian [PARTITION]: Debian's root read-only at /mnt, to run its programs by chroot.
use_debian() {
  mount -t ext4 -o ro,noload ${1:-/dev/vda1} /mnt
  for d in dev proc sys tmp; do mount --bind /$d /mnt/$d; done
}
echo "GUEST-READY=$(cut -d' ' -f1 /proc/uptime)"
( trap '[ $? = 0 ] || echo "GUEST-FAILED-AT=$LINENO: $(sed -n ${LINENO}p /job)"' EXIT; . /job )
echo "GUEST-DONE=$?"
sync
poweroff -f
"""


# Escape sequences that shells and terminals exchange, and carriage returns.
TERMINAL_CONTROL = re.compile(r"\x1b\[[0-9;?]*[A-Za-z]|\r")


class Cpio:
    """A newc archive in memory, as the kernel unpacks it."""

    def __init__(self):
        self._parts = []
        self._inode = 0

    def _add(self, name, mode, data=b"", device=(0, 0)):
        self._inode += 1
        encoded = name.encode() + b"\0"
        fields = (self._inode, mode, 0, 0, 1, 0, len(data), 0, 0, *device, len(encoded), 0)
        header = b"070701" + b"".join(b"%08X" % f for f in fields)
        for part in (header + encoded, data):
            self._parts.append(part + b"\0" * (-len(part) % 4))

    def directory(self, name):
        self._add(name, 0o40755)

    def file(self, name, data, mode=0o644):
        self._add(name, 0o100000 | mode, data)

    def character_device(self, name, major, minor):
        self._add(name, 0o20600, device=(major, minor))

    def bytes(self):
        self._add("TRAILER!!!", 0)
        return b"".join(self._parts)


def small_initramfs(module_directory):
    """As little as will do: each boot copies it three times over."""
    archive = Cpio()
    for name in "bin sbin dev proc sys tmp mnt modules".split():
        archive.directory(name)
    archive.character_device("dev/console", 5, 1)
    archive.file("bin/busybox", pathlib.Path("/bin/busybox").read_bytes(), 0o755)
    archive.file("init", (INIT % " ".join(MODULES)).encode(), 0o755)
    for module in MODULES:
        path = pathlib.Path(module_directory) / f"{module}.ko"
        if path.exists():
            archive.file(f"modules/{path.name}", path.read_bytes())
    return archive.bytes()


def libraries_of(program):
    """What the loader maps for a program; nothing for a static one."""
    text = subprocess.run(["ldd", program], capture_output=True, text=True).stdout
    return re.findall(r"(/\S+) \(0x", text)


def programs_archive(programs):
    """Programs with their libraries, to come after a small guest's initramfs."""
    files = {f"bin/{pathlib.Path(program).name}": program for program in programs}
    for program in programs:
        files.update({library.lstrip("/"): library for library in libraries_of(program)})
    archive = Cpio()
    folders = {folder for name in files for folder in pathlib.PurePath(name).parents}
    for folder in sorted(folders - {pathlib.PurePath(".")}):
        archive.directory(str(folder))
    for name, source in files.items():
        archive.file(name, pathlib.Path(source).read_bytes(), 0o755)
    return archive.bytes()


class Vm:
    """One `masu run` (or `masu snapshot restore`) in the foreground, on a terminal of its own."""

    def __init__(self, host, *arguments, name=None, echo=None, command=("run",)):
        self.host = host
        self.name = name or f"test-{host.next_number()}"
        self.program = host.start(
            host.path("bin/masu"), *command, "--name", self.name, *arguments, terminal=True, echo=echo
        )

    @property
    def output(self):
        return self.program.output.replace("\r", "")

    def expect(self, pattern, timeout=120):
        return self.program.expect(pattern, timeout)

    def type(self, text):
        self.program.write(text)

    def wait(self, timeout=120):
        return self.program.wait(timeout)

    def inspect(self):
        """What `masu inspect` says of it."""
        result = self.host.run(self.host.path("bin/masu"), "inspect", self.name, "--output", "json")
        if result.status != 0:
            raise AssertionError(f"masu inspect: {result.errors}")
        report = json.loads(result.output)
        return report[0] if isinstance(report, list) else report

    def kill_monitor(self):
        self.host.shell(f"kill -9 {self.inspect()['pid']}")

    def value(self, name):
        """What the guest printed as NAME=VALUE."""
        match = re.search(rf"^{re.escape(name)}=(.*)$", self.output, re.M)
        if not match:
            raise AssertionError(f"the guest printed no {name}=:\n{self.program.tail(60)}")
        return match[1].strip()

    def log_in(self, timeout=240):
        """Waits for Debian's login prompt, and logs in as root."""
        self.expect(r"login: ", timeout)
        self.type("root\n")
        self.expect(r"[Pp]assword: ", 60)
        self.type("masu\n")
        self.expect(r"root@debian:~# ", 60)
        # What a slow machine makes the kernel complain of stays out of what commands print.
        self.command("dmesg -n 1")

    def find_shell(self, timeout=240):
        """Waits for the shell of a guest that was started with init=/bin/bash."""
        self.expect(r"root@\(none\):/# ", timeout)
        self.command("dmesg -n 1")

    def command(self, line, timeout=120):
        """Runs a command in a shell that has prompted; returns what it printed."""
        # The marks are typed in pieces, so that the echo of the line does not hold them.
        self.type(f"echo 'BE''GIN'; {line}; echo 'EN''D'-\"$?\"\n")
        self.expect(r"BEGIN\r?\n", timeout)
        begin = self.program._seen
        match = self.expect(r"END-(\d+)\r?$", timeout)
        text = TERMINAL_CONTROL.sub("", self.program.output[begin : match.start()])
        if match[1] != "0":
            raise AssertionError(f"status {match[1]} in the guest from: {line}\n{text}")
        return text


def run_small(host, job, *arguments, kernel="debian/vmlinux", append="", name=None, memory="256M",
              initramfs="small/initramfs", files=None):  # fmt: skip
    """Starts the small guest with a script; it powers off when the script ends. `files`: what else
    lies in it, by path."""
    unique = name or f"small-{host.next_number()}"
    archive = Cpio()
    archive.file("job", job.encode())
    for folder in sorted({str(pathlib.PurePath(path).parent) for path in files or {}}):
        archive.directory(folder)
    for path, data in (files or {}).items():
        archive.file(path, data)
    initrd = f"{host.scratch}/{unique}.initrd"
    base = shlex.quote(host.path(initramfs))
    host.shell(f"cat {base} - >{shlex.quote(initrd)}", data=archive.bytes())
    command_line = f"quiet {SPARED} {append}".strip()
    return Vm(host, "--kernel", host.path(kernel), "--initrd", initrd,
              "--append", command_line, "--memory", memory, *arguments,
              name=unique)  # fmt: skip


def debian_arguments(host, disk, kernel="debian/vmlinuz", initrd="debian/initrd.img", append=""):
    # systemd's moving status lines cost a port exit a byte, which nested is most of the boot.
    command_line = f"root=/dev/vda1 rw quiet systemd.show_status=false {append}".strip()
    return ("--kernel", host.path(kernel), "--initrd", host.path(initrd), "--append", command_line,
            "--disk", disk)  # fmt: skip
