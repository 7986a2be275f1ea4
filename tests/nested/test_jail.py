"""The monitor's jail, seen from outside."""

import json

from guests import run_small
from suite import check, test


@test(cost=25)
def the_monitor_is_jailed(host):
    """By the kernel's account of each of its threads, and by what its API refuses; without a jail it
    says so."""
    number = host.next_number()
    inside, outside = f"{host.scratch}/in-{number}.raw", f"{host.scratch}/out-{number}.raw"
    host.shell(f"truncate -s 1M {inside} {outside}")
    vm = run_small(host, "echo UP; while true; do sleep 1; done", "--disk", inside)
    vm.expect("^UP", 60)
    facts = vm.inspect()
    check("seccomp" in facts["jail"] and "landlock" in facts["jail"], facts["jail"])
    threads = host.shell(f"cat /proc/{facts['pid']}/task/*/status")
    count = threads.count("\nPid:")
    check(count >= 2, f"a loop and a vCPU are two threads, not {count}")
    for line in ("Seccomp:\t2", "NoNewPrivs:\t1", "CapEff:\t0000000000000000",
                 "CapBnd:\t0000000000000000"):  # fmt: skip
        check(threads.count(f"\n{line}\n") == count, f"not all have {line}:\n{threads}")

    def swap_in(path):
        body = json.dumps({"drive_id": "disk0", "path_on_host": path})
        api = f"{facts['socket_folder']}/api"
        return host.run("curl", "-sS", "--unix-socket", api, "-X", "PATCH",
                        "http://localhost/drives/disk0", "-d", body).output  # fmt: skip

    refusal = swap_in(outside)
    check("the jail is why" in refusal and "--jail-write" in refusal, refusal)
    check(swap_in(inside) == "", "its own disk is refused")
    host.run(host.path("bin/masu"), "kill", vm.name)
    vm.wait(30)
    free = run_small(host, "true", "--no-jail")
    check(free.wait(90) == 0, free.program.tail())
    check("runs without a jail" in free.output, free.program.tail())
