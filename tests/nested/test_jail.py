"""The monitor's jail, seen from outside."""

import json

from guests import Vm, run_small
from suite import check, test
from test_net import DHCP, make_tap

# It says that it lives and reaches its host, and keeps the disk busy.
COUNT = DHCP + """
n=0
while ping -c 1 -W 5 10.79.0.1 >/dev/null; do
  n=$((n + 1))
  echo "COUNT=$n"
  dd if=/dev/urandom of=/dev/vda bs=4k count=4 conv=fsync 2>/dev/null
  sleep 1
done
echo "the host is out of reach"
"""


def check_confined(host, vm):
    """By the kernel's account of each of its threads."""
    facts = vm.inspect()
    check("seccomp" in facts["jail"] and "landlock" in facts["jail"], facts["jail"])
    threads = host.shell(f"cat /proc/{facts['pid']}/task/*/status")
    count = threads.count("\nPid:")
    check(count >= 2, f"a loop and a vCPU are two threads, not {count}")
    for line in ("Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000",
                 "CapPrm:\t0000000000000000", "CapInh:\t0000000000000000"):  # fmt: skip
        check(threads.count(f"\n{line}\n") == count, f"not all have {line}:\n{threads}")


def swap_in(host, vm, path):
    body = json.dumps({"drive_id": "disk0", "path_on_host": path})
    api = f"{vm.inspect()['socket_folder']}/api"
    return host.run("curl", "-sS", "--unix-socket", api, "-X", "PATCH",
                    "http://localhost/drives/disk0", "-d", body).output  # fmt: skip


def masu(host, *arguments):
    result = host.run(host.path("bin/masu"), *arguments, timeout=120)
    check(result.status == 0, f"masu {' '.join(arguments)}: {result.errors}")


@test(cost=50)
def the_monitor_is_jailed_unless_told_otherwise(host):
    """It runs, swaps disks, is saved, and restored; and refuses what lies outside of its files."""
    number = host.next_number()
    inside, outside = f"{host.scratch}/in-{number}.raw", f"{host.scratch}/out-{number}.raw"
    host.shell(f"truncate -s 1M {inside} {outside}")
    make_tap(host, "jail0", "10.79.0.1/24")
    net = "tap=jail0,address=10.79.0.2/24"
    vm = run_small(host, COUNT, "--disk", inside, "--net", net)
    vm.expect("^COUNT=2", 60)
    check_confined(host, vm)
    refusal = swap_in(host, vm, outside)
    check("the jail is why" in refusal and "--jail-write" in refusal, refusal)
    check(swap_in(host, vm, inside) == "", "its own disk is refused")
    saved = f"jailed-{number}"
    masu(host, "snapshot", "create", vm.name, saved)
    masu(host, "snapshot", "create", vm.name, f"{saved}-live", "--live")
    host.run(host.path("bin/masu"), "kill", vm.name)
    vm.wait(30)
    host.run(host.path("bin/masu"), "rm", vm.name)
    again = Vm(host, saved, command=("snapshot", "restore"))
    seen = again.expect(r"^COUNT=(\d+)", 60)
    check(int(seen[1]) >= 2, f"it began anew: {seen[0]}")
    check_confined(host, again)
    host.run(host.path("bin/masu"), "kill", again.name)
    again.wait(30)
    masu(host, "snapshot", "rm", saved, f"{saved}-live")
    free = run_small(host, "sleep 5", "--net", "none", "--no-jail")
    free.expect("GUEST-READY", 60)
    check(free.inspect()["jail"] == "none", free.inspect()["jail"])
    check("there is no jail (--no-jail)" in free.program.output + free.program.errors, free.program.tail())
    check(free.wait(90) == 0, free.program.tail())
