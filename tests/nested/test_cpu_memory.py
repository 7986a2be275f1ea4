"""vCPUs under load, and guest memory from the smallest to beyond the hole below 4 GiB."""

from guests import run_small
from suite import check, test


def finish(vm, timeout=180):
    status = vm.wait(timeout)
    check(status == 0, f"status {status}:\n{vm.program.tail()}")
    check(vm.value("GUEST-DONE") == "0", f"the guest's script failed:\n{vm.program.tail()}")
    return vm


@test(cost=40)
def hot_loops_on_4_vcpus(host):
    """Every vCPU busy with work that can be checked, while interrupts and IPIs go on; one socket."""
    vm = run_small(
        host,
        """echo CPUS=$(nproc)
        echo SOCKETS=$(grep 'physical id' /proc/cpuinfo | sort -u | wc -l)
        echo IDS=$(grep '^apicid' /proc/cpuinfo | sort -u | wc -l)
        for cpu in 0 1 2 3; do
          taskset -c $cpu sh -c 'i=0; while [ $i -lt 20000 ]; do i=$((i+1)); done; echo LOOP-'$cpu'=$i' &
        done
        head -c 4000000 /dev/zero | sha256sum | cut -d' ' -f1 | sed 's/^/SUM=/'
        wait
        for cpu in 1 2 3; do echo 0 >/sys/devices/system/cpu/cpu$cpu/online; done
        echo OFFLINE=$(cat /sys/devices/system/cpu/online)
        for cpu in 1 2 3; do echo 1 >/sys/devices/system/cpu/cpu$cpu/online; done
        echo ONLINE=$(cat /sys/devices/system/cpu/online)""",
        "--cpus", "4",
    )  # fmt: skip
    finish(vm)
    check(vm.value("CPUS") == "4", vm.value("CPUS"))
    check(vm.value("SOCKETS") == "1", "more than one socket")
    check(vm.value("IDS") == "4", "APIC IDs are not unique")
    for cpu in range(4):
        check(vm.value(f"LOOP-{cpu}") == "20000", f"vCPU {cpu} did not finish")
    expected = host.shell("head -c 4000000 /dev/zero | sha256sum").split()[0]
    check(vm.value("SUM") == expected, "a wrong checksum under load")
    check(vm.value("OFFLINE") == "0" and vm.value("ONLINE") == "0-3", vm.program.tail())


@test(cost=40)
def memory_filled_to_the_last_page(host):
    """A tmpfs takes all that is free; what was written is read back whole."""
    vm = finish(run_small(
        host,
        """mkdir /m; mount -t tmpfs -o size=100% t /m
        free=$(awk '/MemFree/ { print int($2 / 1024) - 12 }' /proc/meminfo)
        dd if=/dev/urandom of=/tmp/block bs=1M count=1 2>/dev/null
        want=$(sha256sum </tmp/block | cut -d' ' -f1); i=0
        while [ $i -lt $free ]; do cp /tmp/block /m/$i || break; i=$((i+1)); done
        bad=0; for f in /m/*; do cmp -s /tmp/block $f || bad=$((bad+1)); done
        echo FILLED=$i; echo BAD=$bad; echo TOTAL=$(awk '/MemTotal/ { print $2 }' /proc/meminfo)""",
        memory="160M",
    ))  # fmt: skip
    check(int(vm.value("FILLED")) > 60, f"only {vm.value('FILLED')} MiB could be filled")
    check(vm.value("BAD") == "0", f"{vm.value('BAD')} MiB came back changed")


@test(cost=60)
def memory_on_both_sides_of_the_hole(host):
    """Every 2 MiB of a guest with memory below and above the hole that ends at 4 GiB."""
    vm = finish(run_small(host, "touch-memory", memory="3584M",
                          initramfs="small/initramfs-programs"), timeout=300)
    check(vm.value("BAD") == "0", "memory came back changed")
    check(int(vm.value("TOUCHED_MIB")) > 2900, vm.program.tail())
    check(int(vm.value("HIGHEST_MIB")) > 4096, "nothing lies above the hole")
    check(int(vm.value("LOWEST_MIB")) < 3072, "nothing lies below the hole")
