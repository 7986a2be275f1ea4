"""Registering tests, choosing the host they run on, and running them with several hosts at once."""

import fnmatch
import json
import os
import pathlib
import queue
import subprocess
import sys
import tempfile
import threading
import time
import traceback

import guests
from hosts import DirectHost, HostLost
from nested_host import NestedHost, NestedImage

ROOT = pathlib.Path(__file__).resolve().parents[2]
# What a guest of `needs="network-programs"` has beside BusyBox: traffic, a client and an SSH server.
NETWORK_PROGRAMS = ("/usr/bin/iperf3", "/usr/bin/curl", "/usr/sbin/dropbear")


class Skip(Exception):
    """Raised by a test that cannot run here; its text says why."""


class Test:
    def __init__(self, function, cost, needs):
        self.function = function
        self.cost = cost
        self.needs = needs
        area = function.__module__.removeprefix("test_")
        self.name = f"nested/{area}/{function.__name__}"


TESTS = []


def test(cost=10, needs=()):
    """Registers a test: a function of a Host, which fails by raising. `cost` is about how many
    seconds it takes nested, to begin the long ones first; `needs` names places it reads besides
    the Debian image: kernel-6.12-cloud, kernel-6.1-generic, debian-cloud, debian-xfs, loader-shim,
    loader-systemd-boot, loader-uki, loader-efi-stub; network-programs is small/initramfs-network. Guests that
    run the suite's own programs take small/initramfs-programs."""

    def register(function):
        TESTS.append(Test(function, cost, needs))
        return function

    return register


def check(condition, text):
    if not condition:
        raise AssertionError(text)


def progress(text):
    print(text, flush=True)


def make_image(*what):
    """The directory of something guest/image/make builds, in its words."""
    command = [ROOT / "guest/image/make", *what]
    return subprocess.run(command, check=True, stdout=subprocess.PIPE, text=True).stdout.strip()


def make_place(name):
    """The directory of a place that a test needs, and whether it is a kernel's."""
    for kind in ("kernel", "loader"):
        if name.startswith(f"{kind}-"):
            return make_image(kind, name.removeprefix(f"{kind}-")), kind == "kernel"
    return make_image(name), False


# The ground


def machine_runs_stock_guests(masu):
    """Whether this machine's KVM runs an unmodified Linux, and why it was so decided."""
    forced = os.environ.get("MASU_GROUND")
    if forced in ("direct", "nested"):
        return forced == "direct", f"MASU_GROUND={forced}"
    result = subprocess.run([masu, "doctor", "--output", "json"], capture_output=True, text=True)
    try:
        report = json.loads(result.stdout)
    except json.JSONDecodeError:
        return False, f"masu doctor failed: {(result.stderr or result.stdout).strip()}"
    if report["runs_directly"]:
        return True, "masu doctor finds a KVM that runs stock guests"
    problems = [c["finding"] for c in report["checks"] if c["verdict"] == "problem"]
    return False, "masu doctor says: " + "; ".join(problems)


class Ground:
    """Builds what the hosts need, once, and starts hosts."""

    def __init__(self, build, directory, needs=(), programs=(), extra_places=None):
        self.directory = pathlib.Path(directory)
        self.directory.mkdir(parents=True, exist_ok=True)
        self.masu = build / "tools/masu/masu"
        forge = build / "tests/nested/forge-frames"
        echo = build / "tests/nested/echo-vsock"
        programs = [self.masu, build / "tools/masu-vmm/masu-vmm", forge, echo, *programs]
        self.direct, self.reason = machine_runs_stock_guests(self.masu)
        debian = make_image("debian")
        small = self.directory / "small"
        small.mkdir(exist_ok=True)
        initramfs = guests.small_initramfs(f"{debian}/modules")
        (small / "initramfs").write_bytes(initramfs)
        own = guests.programs_archive([build / "tests/nested/touch-memory", forge, echo])
        (small / "initramfs-programs").write_bytes(initramfs + own)
        places = {"debian": debian, "small": small, **(extra_places or {})}
        for need in needs:
            if need == "network-programs":
                # Where one is not installed, the test finds no such file and says so.
                if all(os.path.exists(program) for program in NETWORK_PROGRAMS):
                    theirs = guests.programs_archive(NETWORK_PROGRAMS)
                    (small / "initramfs-network").write_bytes(initramfs + theirs)
                continue
            places[need], is_kernel = make_place(need)
            if not is_kernel:
                continue
            small_of = small / f"initramfs-{need}"
            small_of.write_bytes(guests.small_initramfs(f"{places[need]}/modules"))
        agent = build / "tests/nested/nested-agent"
        if self.direct:
            bin_directory = self.directory / "bin"
            bin_directory.mkdir(exist_ok=True)
            for program in programs:
                link = bin_directory / program.name
                link.unlink(missing_ok=True)
                link.symlink_to(program)
            self.places = {**places, "agent": agent, "bin": bin_directory}
        else:
            self.image = NestedImage(
                self.directory / "host", make_image("host-kernel"), agent, programs, places
            )

    def start_host(self, name, **options):
        if self.direct:
            scratch = tempfile.mkdtemp(prefix=f"masu-{name}-", dir=self.directory)
            return DirectHost(self.places, scratch)
        return NestedHost.boot(self.image, name, **options)


# Running


class Run:
    def __init__(self, ground, tests):
        self.ground = ground
        self.waiting = queue.Queue()
        for one in sorted(tests, key=lambda t: -t.cost):
            self.waiting.put(one)
        self.counts = {"passed": 0, "failed": 0, "skipped": 0}
        self.failures = []
        self._lock = threading.Lock()

    def report(self, test_, outcome, seconds, text="", cpu_seconds=None):
        with self._lock:
            self.counts[outcome] += 1
            word = {"passed": "ok", "failed": "FAILED", "skipped": "skipped"}[outcome]
            first = f": {text.splitlines()[0]}" if text and outcome == "skipped" else ""
            cpu = "" if cpu_seconds is None else f", {cpu_seconds:.0f} s of CPU"
            progress(f"{word:8}{test_.name} ({seconds:.1f} s{cpu}){first}")
            if outcome == "failed":
                progress("    " + text.replace("\n", "\n    "))
                self.failures.append(test_.name)

    def worker(self, number):
        host = None
        while True:
            try:
                test_ = self.waiting.get_nowait()
            except queue.Empty:
                break
            # Losing the nested host is the emulator's failure as likely as masu's: once more, on a
            # fresh one. A second loss is a failure of the test.
            for attempt in (1, 2):
                begin = time.monotonic()
                try:
                    host = host or self.ground.start_host(f"host{number}")
                    before = host.cpu_seconds()
                    test_.function(host)
                    cpu = None if before is None else host.cpu_seconds() - before
                    self.report(test_, "passed", time.monotonic() - begin, cpu_seconds=cpu)
                except Skip as e:
                    self.report(test_, "skipped", time.monotonic() - begin, str(e))
                except HostLost as e:
                    if host:
                        host.close()
                    host = None
                    if attempt == 1:
                        progress(f"        {test_.name}: {e}; trying again on a fresh host")
                        continue
                    self.report(test_, "failed", time.monotonic() - begin, str(e))
                except Exception as e:  # whatever a test raises is its failure
                    where = traceback.extract_tb(e.__traceback__)
                    lines = [f"{f.name}:{f.lineno}" for f in where if "test_" in f.filename]
                    text = f"{type(e).__name__} at {', '.join(lines)}: {e}"
                    self.report(test_, "failed", time.monotonic() - begin, text)
                    self.kill_vms(host)
                if host:
                    self.undo(host)
                break
        if host:
            host.close()

    @staticmethod
    def undo(host):
        """What a test leaves on its host must not change the next one."""
        try:
            host.after_test.close()
        except Exception as e:
            progress(f"        could not clean up: {e}")

    @staticmethod
    def kill_vms(host):
        """No VM of a failed test may slow the next one."""
        try:
            masu = host.path("bin/masu")
            host.shell(
                f"for n in $({masu} ps -q 2>/dev/null || true); do {masu} kill $n || true; done",
                timeout=60,
            )
        except Exception as e:
            progress(f"        could not clean up: {e}")

    def all(self, workers):
        threads = [threading.Thread(target=self.worker, args=(n,)) for n in range(workers)]
        for thread in threads:
            thread.start()
        for thread in threads:
            thread.join()


def select(pattern):
    if not pattern:
        return TESTS
    return [t for t in TESTS if fnmatch.fnmatch(t.name, f"*{pattern}*")]


def main(build, pattern, workers, directory):
    tests = select(pattern)
    begin = time.monotonic()
    needs = sorted({need for t in tests for need in t.needs})
    if not tests:
        progress(f"nested: no test matches {pattern!r}")
        return 1
    ground = Ground(build, directory, needs)
    how = "directly on this machine's KVM" if ground.direct else "inside QEMU (nested)"
    progress(f"nested: {len(tests)} tests, {how}, because {ground.reason}")
    run = Run(ground, tests)
    run.all(min(workers, len(tests)))
    progress(f"nested: {time.monotonic() - begin:.0f} s")
    c = run.counts
    print(f"{c['passed']} passed, {c['failed']} failed, {c['skipped']} skipped")
    sys.stdout.flush()
    return 1 if c["failed"] else 0
