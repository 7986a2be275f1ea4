"""Snapshots of Linux guests: saved, restored, cloned; clocks, identity, disks."""

import json

from guests import Vm, run_small
from suite import check, test

# Two processes keep both vCPUs and the disk busy: one writes and verifies, one counts. Every line
# tells the time; a gap or a leap shows.
BUSY = """
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
    """2 vCPUs, disk work through an overlay, PCI: the original goes on; the restored one too, with
    no corruption, no complaint of its kernel, and its wall clock right."""
    disk = f"{host.scratch}/busy-{host.next_number()}.raw"
    host.shell(f"truncate -s 1M {disk}")
    vm = run_small(
        host, BUSY, "--net", "none", "--cpus", "2", "--disk", disk,
        "--disk", f"{host.path('debian/debian.raw')},ro",
    )  # fmt: skip
    snapshot = f"busy-{host.next_number()}"
    vm.expect(r"^BEAT=3 ", 90)
    masu(host, "snapshot", "create", vm.name, snapshot)
    listed = json.loads(masu(host, "snapshot", "ls", "--output", "json").output)
    check([s["vm"] for s in listed if s["name"] == snapshot] == [vm.name], f"ls says {listed}")
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
    masu(host, "snapshot", "rm", snapshot)


@test(cost=60)
def clones_answer_and_differ(host):
    """Four clones at once, each with its own random numbers; the originals' disks untouched."""
    vm = run_small(host, ASK, "--net", "none", "--detach")
    check(vm.wait(30) == 0, vm.program.tail())
    snapshot = f"ask-{host.next_number()}"
    first = host.start(host.path("bin/masu"), "console", vm.name, terminal=True)
    first.expect("LISTENING", 90)  # what is typed before init reads may be flushed
    first.write("warm\n")
    first.expect(r"ANSWER warm random=(\w+) end", 90)
    masu(host, "snapshot", "create", vm.name, snapshot, "--keep-paused")
    masu(host, "kill", vm.name)
    names = masu(host, "snapshot", "clone", snapshot, "--count", "4").output.split()
    check(len(names) == 4, f"clone printed {names}")
    consoles = [host.start(host.path("bin/masu"), "console", n, terminal=True) for n in names]
    numbers = []
    for console in consoles:
        console.write("clone\n")
        numbers.append(console.expect(r"ANSWER clone random=(\w+) end", 90)[1])
    check(len(set(numbers)) == 4, f"clones share random numbers: {numbers}")
    for name in names:
        masu(host, "kill", name)
    for name in (vm.name, *names):
        masu(host, "rm", name)
    masu(host, "snapshot", "rm", snapshot)
