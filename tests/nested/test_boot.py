"""Stock kernels boot: Debian to multi-user from its disk, and every way in that masu offers."""

import re

from guests import Vm, debian_arguments, run_small
from suite import check, test


def check_running(vm, cpus):
    """Debian, logged in to, is up and has nothing to complain of."""
    check(vm.command("nproc").strip() == str(cpus), "the guest does not see its CPUs")
    state = vm.command("systemctl is-system-running --wait || true", timeout=200).strip()
    failed = vm.command("systemctl --failed --no-legend --plain")
    check(state == "running", f"systemd says {state}: {failed}")
    errors = vm.command("dmesg --facility=kern --level=emerg,alert,crit,err").strip()
    check(not errors, f"the kernel logged errors: {errors}")


def debian_on(host, place, cpus):
    """The distribution's bzImage and initrd find the disk and hand over to systemd; its release."""
    overlay = f"{host.scratch}/stock-{host.next_number()}.overlay"
    vm = Vm(host, "--cpus", str(cpus), "--memory", "768M",
            *debian_arguments(host, f"{host.path('debian/debian.raw')},overlay={overlay}",
                              kernel=f"{place}/vmlinuz", initrd=f"{place}/initrd.img"))  # fmt: skip
    vm.log_in(timeout=300)
    check_running(vm, cpus)
    release = vm.command("uname -r").strip()
    vm.type("poweroff\n")
    status = vm.wait(120)
    check(status == 0, f"status {status} after power-off:\n{vm.program.tail()}")
    return release


@test(cost=110, needs=["kernel-6.12-cloud"])
def debian_on_kernel_6_12_cloud_and_4_vcpus(host):
    check("6.12" in debian_on(host, "kernel-6.12-cloud", 4), "another kernel")


@test(cost=110, needs=["kernel-6.1-generic"])
def debian_on_kernel_6_1_generic_and_2_vcpus(host):
    check("cloud" not in debian_on(host, "kernel-6.1-generic", 2), "another kernel")


@test(cost=170)
def debian_on_1_vcpu_outlives_a_power_cut(host):
    """Killed while it writes, it boots again: what was synced is there and its root is clean. The
    power button (masu stop) shuts it down, and another guest reads what it wrote."""
    disk = f"{host.path('debian/debian.raw')},overlay={host.scratch}/cut-{host.next_number()}.overlay"
    arguments = ("--memory", "512M", *debian_arguments(host, disk))
    vm = Vm(host, *arguments)
    vm.log_in()
    check_running(vm, 1)
    expected = vm.command("head -c 3000000 /dev/urandom | tee /root/kept | sha256sum; sync").split()[0]
    vm.type("while true; do dd if=/dev/urandom of=/root/x bs=64k count=20 conv=fsync 2>&1; done\n")
    host.shell("sleep 3")
    vm.kill_monitor()
    vm.wait(60)
    again = Vm(host, *arguments)
    again.log_in()
    state = again.command("dumpe2fs -h /dev/vda1 2>/dev/null | grep -i 'filesystem state'")
    check("error" not in state, state)
    stop = host.run(host.path("bin/masu"), "stop", "--time", "900", again.name, timeout=1000)
    check(stop.status == 0, f"masu stop: {stop.errors}")
    check(again.wait(60) == 0, f"status {again.program.status}:\n{again.program.tail()}")
    check("Power down" in again.output or "powering down" in again.output.lower()
          or "Reached target" in again.output, again.program.tail())  # fmt: skip
    reader = run_small(host, "use_debian; echo SUM=$(sha256sum </mnt/root/kept)", "--disk", disk)
    check(reader.wait() == 0, reader.program.tail())
    check(reader.value("SUM").split()[0] == expected, "the disk lost what Debian had synced")


def kernel_boots(host, kernel, initramfs):
    vm = run_small(host, "echo RELEASE=$(uname -r)", kernel=kernel, initramfs=initramfs)
    status = vm.wait(120)
    check(status == 0, f"status {status}:\n{vm.program.tail()}")
    check(vm.value("GUEST-DONE") == "0", vm.program.tail())
    return vm.value("RELEASE")


@test(cost=15, needs=["kernel-6.12-cloud"])
def elf_pvh_6_12_cloud(host):
    place = "kernel-6.12-cloud"
    release = kernel_boots(host, f"{place}/vmlinux", f"small/initramfs-{place}")
    check(release.startswith("6.12."), release)


@test(cost=20, needs=["kernel-6.1-generic"])
def elf_pvh_6_1_generic(host):
    place = "kernel-6.1-generic"
    release = kernel_boots(host, f"{place}/vmlinux", f"small/initramfs-{place}")
    check("cloud" not in release, release)


@test(cost=10)
def what_the_guest_sees(host):
    """An ELF kernel of Debian's in the smallest memory: hypervisor leaves, clock, command line, random
    numbers, and no error in the kernel log."""
    vm = run_small(
        host,
        """echo RELEASE=$(uname -r)
        echo TOTAL=$(awk '/MemTotal/ { print $2 }' /proc/meminfo)
        echo HYPERVISOR=$(grep -o hypervisor /proc/cpuinfo | head -n 1)
        echo CLOCK=$(cat /sys/devices/system/clocksource/clocksource0/available_clocksource)
        echo CMDLINE=$(cat /proc/cmdline)
        echo RNG=$(cat /sys/class/misc/hw_random/rng_current)
        echo BYTES=$(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c)
        echo YEAR=$(date +%Y)
        dmesg | grep -Ei 'ACPI (BIOS )?(Error|Warning)|Firmware Bug' | sed 's/^/COMPLAINT=/'""",
        append="masu.example=1", memory="128M",
    )  # fmt: skip
    check(vm.wait() == 0, vm.program.tail())
    check(vm.value("RELEASE").startswith("6.1."), vm.value("RELEASE"))
    check(int(vm.value("TOTAL")) < 128 * 1024, vm.value("TOTAL"))
    check(vm.value("HYPERVISOR") == "hypervisor", "no hypervisor flag")
    check("kvm-clock" in vm.value("CLOCK"), vm.value("CLOCK"))
    check("masu.example=1" in vm.value("CMDLINE"), vm.value("CMDLINE"))
    check("virtio" in vm.value("RNG"), vm.value("RNG"))
    check(vm.value("BYTES") == "256", "the random device gave too little")
    check(int(vm.value("YEAR")) >= 2024, f"the guest's clock says {vm.value('YEAR')}")
    complaints = re.findall(r"^COMPLAINT=.*", vm.output, re.M)
    check(not complaints, "\n".join(complaints))
