"""The nested host: a small Linux with a working /dev/kvm inside QEMU's emulated CPU (TCG, nested
SVM), for machines whose own KVM is missing or runs no stock guest. It is up in 2-3 seconds."""

import os
import pathlib
import shutil
import subprocess

from guests import libraries_of
from hosts import Host, HostLost, TimedOut

# An uncompressed kernel entered by PVH, no self-tests and no security modules: 2.3 s instead of 4.
# One CPU: kernels patch their own code, and QEMU's translator can catch another emulated CPU in code
# that is half patched; that kills the host, or a guest of several vCPUs, every few boots. (With more
# CPUs, maxcpus=1 and an init that brings up the others spares at least the host's boot.)
KERNEL_ARGUMENTS = (
    "console=ttyS0 panic=-1 quiet mitigations=off tsc=reliable no_timer_check "
    "random.trust_cpu=on nokaslr lpj=10000000 audit=0 apparmor=0 selinux=0 cryptomgr.notests "
    "init_on_alloc=0 "
    "maxcpus=1 root=/dev/nvme0n1 rw init=/init"
)

# Page tables of four levels, as most machines have them: an emulated walk of guest and nested tables
# of five each takes half as long again.
CPU = "max,-la57"

INIT = """#!/bin/busybox sh
/bin/busybox --install -s /bin
export PATH=/usr/sbin:/usr/bin:/sbin:/bin HOME=/root TERM=dumb
mount -t proc proc /proc; mount -t sysfs sysfs /sys; mount -t devtmpfs dev /dev
mkdir -p /dev/shm /dev/pts /dev/net; mount -t tmpfs shm /dev/shm; mount -t devpts devpts /dev/pts
mount -t tmpfs tmp /tmp; mount -t tmpfs run /run; ip link set lo up
for m in irqbypass ccp kvm kvm-amd loop tun llc stp bridge veth; do
  [ ! -e /modules/$m.ko ] || insmod /modules/$m.ko
done
# A halted guest's processor is somebody else's here.
echo 0 >/sys/module/kvm/parameters/halt_poll_ns
# Before the other CPUs run: see park() in agent.cpp.
mkfifo /run/parked; /bin/nested-agent --park >/run/parked 2>/dev/console </dev/null &
read -r parked </run/parked
for cpu in /sys/devices/system/cpu/cpu[1-9]*/online; do [ ! -e $cpu ] || echo 1 >$cpu; done
cd /root
/bin/nested-agent </dev/ttyS1 >/dev/ttyS1
poweroff -f
"""

# Programs of this machine that tests use on a host, copied with their libraries.
TOOLS = ("/usr/sbin/mke2fs", "/usr/sbin/e2fsck", "/usr/bin/curl", "/usr/bin/setpriv",
         "/usr/bin/iperf3", "/usr/bin/dbclient")  # fmt: skip
# Not on PATH, where masu would use it in every test.
PASST = "/usr/bin/passt"


def copy(source, target):
    """A copy that keeps holes, and shares blocks where the file system can."""
    pathlib.Path(target).parent.mkdir(parents=True, exist_ok=True)
    subprocess.run(["cp", "-L", "--sparse=always", "--reflink=auto", source, target], check=True)


def install(root, program, target=None):
    copy(program, f"{root}/{target or program}")
    for library in libraries_of(program):
        if not os.path.exists(f"{root}/{library}"):
            copy(library, f"{root}/{library}")


class NestedImage:
    """The nested host's root file system, made once a run. `places` maps a name to a directory
    of this machine that appears as /NAME; `programs` are put into /usr/bin."""

    def __init__(self, directory, kernel_directory, agent, programs, places):
        self.directory = pathlib.Path(directory)
        self.kernel = f"{kernel_directory}/vmlinux"
        root = self.directory / "root"
        shutil.rmtree(root, ignore_errors=True)
        for name in "bin sbin dev proc sys tmp run root lib64 scratch var/lib etc usr/bin".split():
            (root / name).mkdir(parents=True, exist_ok=True)
        copy("/bin/busybox", root / "bin/busybox")
        copy(agent, root / "bin/nested-agent")
        (root / "init").write_text(INIT)
        (root / "init").chmod(0o755)
        (root / "etc/passwd").write_text("root:x:0:0:root:/root:/bin/sh\nnobody:x:65534:65534::/:\n")
        (root / "etc/group").write_text("root:x:0:\n")
        copy("/etc/mke2fs.conf", root / "etc/mke2fs.conf")
        shutil.copytree(f"{kernel_directory}/modules", root / "modules")
        for tool in TOOLS:
            if os.path.exists(tool):
                install(root, tool, f"usr/bin/{os.path.basename(tool)}")
        if os.path.exists(PASST):
            install(root, PASST, "opt/passt")
        for program in programs:
            install(root, program, f"usr/bin/{os.path.basename(program)}")
        for name, place in places.items():
            for file in pathlib.Path(place).rglob("*"):
                if file.is_file():
                    copy(file, root / name / file.relative_to(place))

    def write(self, path, size=24 << 30):
        path.unlink(missing_ok=True)
        path.touch()
        os.truncate(path, size)
        subprocess.run(
            ["mke2fs", "-q", "-F", "-t", "ext4", "-O", "^has_journal", "-E", "lazy_itable_init=1",
             "-i", "262144", "-d", self.directory / "root", path],
            check=True,
        )  # fmt: skip
        return path


class NestedHost(Host):
    nested = True
    # Timeouts are written for an emulated machine with nothing else to do, which is not always so.
    patience = 6

    def __init__(self, image, name, cpus=1, memory_mib=9216):
        self.image = image
        self.console_log = image.directory / f"{name}-console.log"
        disk = image.write(image.directory / f"{name}.ext4")
        errors = open(image.directory / f"{name}-qemu.log", "wb")
        super().__init__(
            ["qemu-system-x86_64", "-M", "q35", "-cpu", CPU, "-accel", "tcg,thread=multi",
             "-smp", str(cpus), "-m", str(memory_mib), "-nodefaults", "-display", "none",
             "-no-reboot", "-serial", f"file:{self.console_log}", "-serial", "stdio",
             "-kernel", image.kernel, "-append", KERNEL_ARGUMENTS,
             "-drive", f"file={disk},format=raw,if=none,id=root,cache=unsafe",
             "-device", "nvme,drive=root,serial=root"],
            "/scratch",
            errors,
        )  # fmt: skip

    @staticmethod
    def boot(image, name, attempts=3, **options):
        """Starts a nested host; a start that fails (the emulator, not masu) is tried again."""
        for attempt in range(attempts):
            host = NestedHost(image, name, **options)
            try:
                host.wait_ready(60)
                return host
            except (HostLost, TimedOut):
                host.close()
                if attempt == attempts - 1:
                    log = host.console_log.read_text(errors="replace")[-2000:]
                    raise HostLost(f"the nested host does not start:\n{log}") from None
        return None

    def path(self, name):
        return f"/usr/{name}" if name.startswith("bin/") else f"/{name}"

    def cpu_seconds(self):
        # The 14th and 15th field; the second may hold blanks.
        fields = pathlib.Path(f"/proc/{self._process.pid}/stat").read_text().rpartition(")")[2].split()
        return (int(fields[11]) + int(fields[12])) / os.sysconf("SC_CLK_TCK")

    def close(self):
        super().close()
        (self.image.directory / f"{self.console_log.name[:-12]}.ext4").unlink(missing_ok=True)
