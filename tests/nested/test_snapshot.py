"""Snapshots of Linux guests: saved, restored, cloned; clocks, identity, disks."""

import json
import time

from guests import Vm, run_small
from suite import check, test
from test_net import DHCP, IMDS, make_tap, passt_and_its_way_out

# Two processes keep both vCPUs and the disk busy: one writes and verifies, one counts. Every line
# tells the time; a gap or a leap shows.
BUSY = """
echo FLAGS=$(grep -m 1 ^flags /proc/cpuinfo | cut -d: -f2)
use_debian /dev/vdb1
check() {
  i=0
  while true; do
    i=$((i + 1))
    dd if=/dev/urandom of=/tmp/block bs=4k count=16 2>/dev/null
    dd if=/tmp/block of=/dev/vda bs=4k seek=$((i % 8 * 16)) conv=fsync 2>/dev/null
    echo 3 >/proc/sys/vm/drop_caches
    dd if=/dev/vda bs=4k skip=$((i % 8 * 16)) count=16 2>/dev/null | cmp - /tmp/block ||
      echo "CORRUPT=$i"
  done
}
check &
chroot /mnt /usr/bin/taskset -c 1 sh -c 'while true; do x=$((x + 1)); done' 2>/dev/null &
n=0
while true; do
  n=$((n + 1))
  echo "BEAT=$n wall=$(date +%s) up=$(cut -d. -f1 /proc/uptime)"
  if [ -n "$(dmesg | grep -iE 'soft lockup|rcu.*stall|I/O error|BUG:')" ]; then
    echo "COMPLAINT=$(dmesg | grep -iE 'soft lockup|rcu.*stall|I/O error|BUG:' | head -n 1)"
  fi
  sleep 1
done
"""

# In the kernel's words, what each template shows beyond the one before it; the last is none of them.
V2 = set("cx16 lahf_lm popcnt sse4_1 sse4_2 ssse3".split())
V3 = set("abm avx avx2 bmi1 bmi2 f16c fma movbe xsave".split())
BESIDE_V3 = set("aes fsgsbase pclmulqdq rdrand smep".split())
BEYOND_V3 = set("adx avx512f invpcid nonstop_tsc rdseed smap svm vmx xsaves".split())
# With QEMU's emulated SVM the size of the XSAVE area that CPUID tells does not follow XCR0, whatever
# the template is; a guest's kernel sees that and does without all of these.
NOT_EMULATED = set("avx avx2 fma xsave".split())
TEMPLATES = {
    "x86-64-v2": (V2, V3 | BESIDE_V3 | BEYOND_V3),
    "x86-64-v3": (V2 | V3, BEYOND_V3),
}

# Answers once a line comes in; what was random before the snapshot is the same in all clones.
ASK = """
echo LISTENING
while true; do
  read -r line
  echo "ANSWER $line random=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \\n') end"
done
"""


def masu(host, *arguments, timeout=300):
    result = host.run(host.path("bin/masu"), *arguments, timeout=timeout)
    check(result.status == 0, f"masu {' '.join(arguments)}: {result.errors}")
    return result


def best_template(host):
    flags = set(host.shell("grep -m 1 ^flags /proc/cpuinfo").split())
    return "x86-64-v3" if V3 <= flags else "x86-64-v2"


def check_template(host, vm, snapshot, template):
    """The guest that wrote FLAGS was shown what the template has, and `masu` says which it was."""
    shown, hidden = TEMPLATES[template]
    if host.nested:
        shown = shown - NOT_EMULATED
    flags = set(vm.value("FLAGS").split())
    check(shown <= flags, f"a guest of {template} lacks {shown - flags}")
    check(not hidden & flags, f"a guest of {template} has {hidden & flags}")
    machine = vm.inspect()["config"]["machine-config"]
    check(machine["cpu_template"] == template, f"masu inspect: {machine}")
    saved = json.loads(masu(host, "snapshot", "inspect", snapshot, "--output", "json").output)
    levels = (saved["cpu_template"], saved["cpu_level"])
    check(levels == (template, template), f"masu snapshot inspect: {levels}")


def beats(output):
    """(n, wall, up) of each line of BUSY."""
    found = []
    for line in output.splitlines():
        if line.startswith("BEAT="):
            parts = dict(part.split("=") for part in line.split() if "=" in part)
            if {"BEAT", "wall", "up"} <= parts.keys():
                found.append((int(parts["BEAT"]), int(parts["wall"]), int(parts["up"])))
    return found


@test(cost=90)
def a_busy_guest_is_saved_and_goes_on(host):
    """2 vCPUs of level x86-64-v2, disk work through an overlay, PCI: the original goes on; the
    restored one too, with no corruption, no complaint of its kernel, and its wall clock right."""
    disk = f"{host.scratch}/busy-{host.next_number()}.raw"
    host.shell(f"truncate -s 1M {disk}")
    vm = run_small(
        host, BUSY, "--net", "none", "--cpus", "2", "--cpu-template", "x86-64-v2",
        "--disk", disk, "--disk", f"{host.path('debian/debian.raw')},ro",
    )  # fmt: skip
    snapshot = f"busy-{host.next_number()}"
    vm.expect(r"^BEAT=3 ", 90)
    masu(host, "snapshot", "create", vm.name, snapshot)
    listed = json.loads(masu(host, "snapshot", "ls", "--output", "json").output)
    check([s["vm"] for s in listed if s["name"] == snapshot] == [vm.name], f"ls says {listed}")
    check_template(host, vm, snapshot, "x86-64-v2")
    last = beats(vm.output)[-1][0]
    vm.expect(rf"^BEAT={last + 3} ", 60)
    masu(host, "kill", vm.name)
    vm.wait(30)
    check("CORRUPT" not in vm.output and "COMPLAINT" not in vm.output, vm.program.tail())

    earliest = int(host.shell("date +%s"))
    again = Vm(host, snapshot, name=f"{snapshot}-again", command=("snapshot", "restore"))
    for _ in range(2):  # the first may have asked for the time before the snapshot
        again.expect(r"^BEAT=.*up=\d+", 90)
    latest = int(host.shell("date +%s"))
    first = beats(again.output)[1]
    check(earliest - 1 <= first[1] <= latest + 1,
          f"the guest's clock says {first[1]}, the host's {earliest} to {latest}")  # fmt: skip
    refused = host.run(host.path("bin/masu"), "snapshot", "rm", snapshot)
    again.expect(rf"^BEAT={first[0] + 3} ", 90)
    check("CORRUPT" not in again.output and "COMPLAINT" not in again.output, again.program.tail())
    check(refused.status == 1 and again.name in refused.errors, f"rm: {refused.errors}")
    masu(host, "kill", again.name)
    again.wait(30)
    masu(host, "rm", again.name)
    masu(host, "snapshot", "rm", snapshot)


@test(cost=90)
def a_running_guest_is_saved_and_what_changed(host):
    """Live, then the difference to that, then only the changed pages, made whole; a guest restored
    from the last, twice, has lost nothing, and the second time has its working set ahead. Its CPU is
    of level x86-64-v3 where the host's is."""
    template = best_template(host)
    disk = f"{host.scratch}/live-{host.next_number()}.raw"
    host.shell(f"truncate -s 1M {disk}")
    vm = run_small(
        host, BUSY, "--net", "none", "--cpus", "2", "--cpu-template", template, "--disk", disk,
        "--disk", f"{host.path('debian/debian.raw')},ro", "--track-dirty-pages",
    )  # fmt: skip
    live, diff, own = (f"{kind}-{host.next_number()}" for kind in ("live", "diff", "own"))
    vm.expect(r"^BEAT=3 ", 90)

    def create(name, *options):
        result = masu(host, "snapshot", "create", vm.name, name, "--output", "json", *options)
        vm.expect(rf"^BEAT={beats(vm.output)[-1][0] + 2} ", 60)
        return json.loads(result.output)

    saved = create(live, "--live")
    check(saved["memory_form"] == "whole" and saved["rounds"] >= 2 and saved["pause_us"] > 0,
          f"live: {saved}")  # fmt: skip
    whole = saved["memory_written_bytes"]
    saved = create(diff, "--diff", "--live")
    check(saved["memory_form"] == "on-base" and saved["memory_written_bytes"] < whole, f"diff: {saved}")
    saved = create(own, "--diff", "--own-pages")
    check(saved["memory_form"] == "own-pages" and saved["memory_written_bytes"] < whole, f"own: {saved}")
    check_template(host, vm, own, template)
    masu(host, "kill", vm.name)
    vm.wait(30)
    check("CORRUPT" not in vm.output and "COMPLAINT" not in vm.output, vm.program.tail())

    for arguments, words in ((("restore", own, "--name", "refused", "-d"), "snapshot collapse"), (("rm", diff), own)):
        refused = host.run(host.path("bin/masu"), "snapshot", *arguments)
        check(refused.status == 1 and words in refused.errors, f"{arguments}: {refused.errors}")
    masu(host, "snapshot", "collapse", own)
    masu(host, "snapshot", "rm", diff, live)
    for options in (("--record-working-set=3",), ()):
        again = Vm(host, own, *options, name=f"{own}-{len(options)}", command=("snapshot", "restore"))
        again.expect(r"^BEAT=(\d+) .*up=\d+", 90)
        again.expect(rf"^BEAT={beats(again.output)[0][0] + 5} ", 90)
        check("CORRUPT" not in again.output and "COMPLAINT" not in again.output, again.program.tail())
        masu(host, "kill", again.name)
        again.wait(30)
        masu(host, "rm", again.name)
        shown = json.loads(masu(host, "snapshot", "inspect", own, "--output", "json").output)
        check(shown["working_set_pages"] > 0 and shown["builds_on"] == [], f"inspect: {shown}")
    masu(host, "snapshot", "rm", own)


@test(cost=60)
def clones_answer_and_differ(host):
    """Four clones at once of memory that lies compressed, each with its own random numbers."""
    vm = run_small(host, ASK, "--net", "none", "--detach")
    check(vm.wait(30) == 0, vm.program.tail())
    snapshot = f"ask-{host.next_number()}"
    first = host.start(host.path("bin/masu"), "console", vm.name, terminal=True)
    first.expect("LISTENING", 90)  # what is typed before init reads may be flushed
    first.write("warm\n")
    first.expect(r"ANSWER warm random=(\w+) end", 90)
    masu(host, "snapshot", "create", vm.name, snapshot, "--keep-paused", "--compress")
    masu(host, "kill", vm.name)
    names = masu(host, "snapshot", "clone", snapshot, "--count", "4").output.split()
    check(len(names) == 4, f"clone printed {names}")
    consoles = [host.start(host.path("bin/masu"), "console", n, terminal=True) for n in names]
    numbers = []
    for console in consoles:
        console.write("clone\n")
        numbers.append(console.expect(r"ANSWER clone random=(\w+) end", 90)[1])
    check(len(set(numbers)) == 4, f"clones share random numbers: {numbers}")
    servers = host.shell("ps -o args").count("page-server")
    check(servers in (0, 4), f"{servers} page servers for 4 clones")  # 0: the host has no userfaultfd
    if host.nested:
        names.append(clone_without_userfaultfd(host, snapshot, f"{snapshot}-unpacked"))
    for name in names:
        masu(host, "kill", name)
    for name in (vm.name, *names):
        masu(host, "rm", name)
    masu(host, "snapshot", "rm", snapshot)


def clone_without_userfaultfd(host, snapshot, prefix):
    """A clone of a command that may have no page faults handled, as in most containers."""
    before = host.shell("ps -o args").count("page-server")
    clone = f"{host.path('bin/masu')} snapshot clone {snapshot} --name {prefix}"
    host.shell("mv /dev/userfaultfd /dev/away 2>/dev/null || true; sysctl -w vm.unprivileged_userfaultfd=0")
    made = host.run("setpriv", "--bounding-set=-sys_ptrace", *clone.split(), timeout=300)
    host.shell("mv /dev/away /dev/userfaultfd 2>/dev/null || true")
    check(made.status == 0 and "is unpacked into this host's" in made.errors, made.errors)
    name = made.output.strip()
    check(host.shell("ps -o args").count("page-server") == before, "a page server all the same")
    console = host.start(host.path("bin/masu"), "console", name, terminal=True)
    console.write("clone\n")
    console.expect(r"ANSWER clone random=(\w+) end", 90)
    return name


# A web server that says who it is, over passt; a connection kept open, over a TAP; and, as
# systemd-networkd does it, another question for an address whenever the carrier has been away. Who
# waits starts no process for it: twenty clones do so on one emulated processor.
NETWORKED = (
    DHCP + IMDS + """
mkfifo /tmp/never; exec 9<>/tmp/never
pause() { read -r -t 1 nothing <&9; }
ip link set eth1 up; udhcpc -i eth1 -s /tmp/lease -n -q -t 60 -T 1 2>/dev/null
mkdir -p /tmp/w/cgi-bin; echo hello >/tmp/w/index.html
cat >/tmp/w/cgi-bin/who <<'CGI'
#!/bin/busybox sh
""" + IMDS + """
echo "Content-type: text/plain"; echo
token
echo "id=$(imds meta-data/instance-id) name=$(imds meta-data/hostname)" \
  "random=$(head -c 16 /dev/urandom | od -An -tx1 | tr -d ' \n')" \
  "forks=$(dmesg | grep -c 'virtual machine fork')" \
  "eth1=$(ip -o -4 addr show eth1 | tr -s ' ' | cut -d' ' -f4) end"
CGI
chmod +x /tmp/w/cgi-bin/who; httpd -p 80 -h /tmp/w
( n=0; while true; do n=$((n + 1)); echo "TICK=$n"; pause; done | nc 10.77.0.1 9000; echo HUNG-UP ) &
echo SERVING=1
read -r seen </sys/class/net/eth1/carrier_down_count
while true; do
  read -r now </sys/class/net/eth1/carrier_down_count
  if [ "$now" != "$seen" ]; then
    seen=$now
    until [ "$(cat /sys/class/net/eth1/carrier)" = 1 ]; do sleep 0.2; done
    ip addr flush dev eth1
    udhcpc -i eth1 -s /tmp/lease -n -q -t 60 -T 1 2>/dev/null
  fi
  pause
done
"""
)


def who(host, port, timeout=120):
    """What the guest behind a published port says of itself."""
    deadline = time.monotonic() + timeout
    while True:
        page = host.shell(
            f"busybox timeout 30 busybox wget -q -O - http://127.0.0.1:{port}/cgi-bin/who || true"
        ).strip()
        if page.endswith(" end") and "eth1=10." in page:
            return dict(part.split("=") for part in page.split() if "=" in part)
        check(time.monotonic() < deadline, f"port {port} answers {page!r}")
        time.sleep(1)


def snapshot_folder(host):
    return host.shell('echo "${MASU_STATE_DIR:-/var/lib/masu}/snapshots"').strip()


def last_tick(host, file):
    return int(host.shell(f"tail -n 1 {file} | cut -d= -f2").strip() or 0)


@test(cost=250, needs=["kernel-6.12-cloud"])
def networks_are_restored_and_clones_have_their_own(host):
    """Two interfaces: through a TAP an open connection goes on, through passt a published port
    answers again; twenty clones at once, each with its own name, port, address and random numbers.
    A full disk and a killed monitor leave no snapshot. (Debian 12's own cloud kernel lacks
    CONFIG_VMGENID.)"""
    ticks = f"{host.scratch}/ticks"
    with passt_and_its_way_out(host):
        make_tap(host, "old0", "10.77.0.1/24")
        listener = host.start("sh", "-c", f"busybox nc -l -p 9000 >{ticks}")
        try:
            save_restore_and_clone(host, f"net-{host.next_number()}", ticks)
        finally:
            listener.kill()


def save_restore_and_clone(host, snapshot, ticks):
    vm = run_small(
        host, NETWORKED, "--net", "user", "--net", "tap=old0,address=10.77.0.2/24",
        "-p", "8090:80", memory="192M", kernel="kernel-6.12-cloud/vmlinux",
        initramfs="small/initramfs-kernel-6.12-cloud",
    )  # fmt: skip
    vm.expect("SERVING=1", 240)
    before = who(host, 8090)
    no_snapshot_without_room(host, vm)
    restored_networks(host, vm, snapshot, before, ticks)
    cloned_networks(host, snapshot, before)
    masu(host, "snapshot", "rm", snapshot)


def no_snapshot_without_room(host, vm):
    """On a disk that fills up, `create` says so, and the VM goes on."""
    folder = snapshot_folder(host)
    host.shell(f"mkdir -p {folder}; mount -t tmpfs -o size=8m tmpfs {folder}")
    full = host.run(host.path("bin/masu"), "snapshot", "create", vm.name, "full", timeout=300)
    left = host.shell(f"ls -A {folder}").split()
    host.shell(f"umount {folder}")
    check(full.status == 1 and "No space left" in full.errors, f"{full.status}: {full.errors}")
    check(left == [], f"a save that failed left {left}")


def restored_networks(host, vm, snapshot, before, ticks):
    masu(host, "snapshot", "create", vm.name, snapshot, "--keep-paused")
    masu(host, "kill", vm.name)
    vm.wait(30)
    saved = last_tick(host, ticks)
    again = Vm(host, snapshot, name=f"{snapshot}-again", command=("snapshot", "restore"))
    after = who(host, 8090)
    check((after["id"], after["name"]) == (before["id"], before["name"]), f"{before} is now {after}")
    check(after["random"] != before["random"], "the random numbers are the same")
    check(int(after["forks"]) == 1, f"the kernel was told {after['forks']} times of its copy")
    deadline = time.monotonic() + 120
    while last_tick(host, ticks) < saved + 3:
        check(time.monotonic() < deadline, f"the connection stopped at tick {saved}")
        time.sleep(1)
    counted = [int(line[5:]) for line in host.shell(f"cat {ticks}").split()]
    check(counted == list(range(1, len(counted) + 1)), f"the stream has a gap: {counted}")
    check("HUNG-UP" not in again.output, again.program.tail())
    taken = host.run(host.path("bin/masu"), "snapshot", "restore", snapshot, "--name", "taken", "-d")
    check(taken.status == 1 and "-p" in taken.errors, f"{taken.status}: {taken.errors}")
    monitor_dies_while_saving(host, again)


def monitor_dies_while_saving(host, vm):
    folder = snapshot_folder(host)
    saving = host.start(host.path("bin/masu"), "snapshot", "create", vm.name, "killed")
    host.shell(f"until ls -d {folder}/killed*; do usleep 1000; done >/dev/null 2>&1")
    vm.kill_monitor()
    status = saving.wait(60)
    vm.wait(30)
    whole = host.shell(f"ls -A {folder}").split()
    if "killed" in whole:  # it was faster than the signal
        masu(host, "snapshot", "rm", "killed")
        return
    check(status == 1 and saving.errors, f"status {status}: {saving.errors}")
    names = masu(host, "snapshot", "ls", "-q").output.split()
    check("killed" not in names, f"ls shows {names}")


def cloned_networks(host, snapshot, before, count=20):
    names = masu(
        host, "snapshot", "clone", snapshot, "--count", str(count), "--net", "user",
        "--net", "tap=new{n},address=10.77.{n}.2/24", "-p", "8100:80", timeout=600,
    ).output.split()  # fmt: skip
    check(len(names) == count, f"clone printed {names}")
    answers = []
    for number in range(1, count + 1):
        deadline = time.monotonic() + 600
        answer = who(host, 8099 + number, 600)
        while answer["eth1"] == "10.77.0.2/24":  # its link is about to go, or down
            check(time.monotonic() < deadline, f"clone {number} keeps its address: {answer}")
            time.sleep(2)
            answer = who(host, 8099 + number, 600)
        answers.append(answer)
    for number, answer in enumerate(answers, 1):
        check(answer["name"] == f"{snapshot}-{number}", f"clone {number} is {answer}")
        check(answer["eth1"] == f"10.77.{number}.2/24", f"clone {number} is {answer}")
        check(int(answer["forks"]) == 1, f"clone {number} is {answer}")
    for fact in ("id", "random"):
        values = {answer[fact] for answer in (*answers, before)}
        check(len(values) == count + 1, f"{fact} is the same in two of {answers}")
    for name in names:
        masu(host, "kill", name)
    for name in names:
        masu(host, "rm", name)
