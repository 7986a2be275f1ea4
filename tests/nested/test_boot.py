"""Stock kernels boot: Debian to multi-user from its disk, and every way in that masu offers."""

import re

from guests import Vm, debian_arguments, run_small
from suite import check, test


def debian_to_multi_user(host, cpus):
    overlay = f"{host.scratch}/boot-{host.next_number()}.overlay"
    disk = f"{host.path('debian/debian.raw')},overlay={overlay}"
    vm = Vm(host, "--cpus", str(cpus), "--memory", "768M",
            *debian_arguments(host, disk))  # fmt: skip
    vm.log_in(timeout=300 if cpus > 2 else 200)
    check(vm.command("nproc").strip() == str(cpus), "the guest does not see its CPUs")
    state = vm.command("systemctl is-system-running --wait || true", timeout=200).strip()
    failed = vm.command("systemctl --failed --no-legend --plain")
    check(state == "running", f"systemd says {state}: {failed}")
    check(not vm.command("dmesg --level=emerg,alert,crit,err").strip(), "the kernel logged errors")
    vm.type("poweroff\n")
    status = vm.wait(120)
    check(status == 0, f"status {status} after power-off:\n{vm.program.tail()}")


@test(cost=70)
def debian_on_1_vcpu(host):
    debian_to_multi_user(host, 1)


@test(cost=80)
def debian_on_2_vcpus(host):
    debian_to_multi_user(host, 2)


@test(cost=120)
def debian_on_4_vcpus(host):
    debian_to_multi_user(host, 4)


@test(cost=60)
def debian_from_a_raw_disk_it_writes(host):
    """No overlay: the raw file itself, written by Debian, and read by another guest later."""
    disk = f"{host.scratch}/debian-{host.next_number()}.raw"
    host.shell(f"cp {host.path('debian/debian.raw')} {disk}", timeout=120)
    vm = Vm(host, "--memory", "512M",
            *debian_arguments(host, disk))  # fmt: skip
    vm.log_in()
    expected = vm.command("head -c 3000000 /dev/urandom | tee /root/kept | sha256sum").split()[0]
    vm.type("poweroff\n")
    check(vm.wait(120) == 0, f"status {vm.program.status}")
    reader = run_small(host, "use_debian; echo SUM=$(sha256sum </mnt/root/kept)", "--disk", disk)
    check(reader.wait() == 0, reader.program.tail())
    check(reader.value("SUM").split()[0] == expected, "the raw disk lost what Debian wrote")
    host.shell(f"rm {disk}")


def kernel_boots(host, kernel, initramfs="small/initramfs", *arguments):
    vm = run_small(host, "echo RELEASE=$(uname -r)", *arguments, kernel=kernel, initramfs=initramfs)
    status = vm.wait(120)
    check(status == 0, f"status {status}:\n{vm.program.tail()}")
    check(vm.value("GUEST-DONE") == "0", vm.program.tail())
    return vm.value("RELEASE")


@test(cost=15)
def bzimage_6_1_cloud(host):
    check(kernel_boots(host, "debian/vmlinuz").startswith("6.1."), "another kernel")


@test(cost=10)
def elf_pvh_6_1_cloud(host):
    check(kernel_boots(host, "debian/vmlinux").startswith("6.1."), "another kernel")


@test(cost=15, needs=["kernel-6.12-cloud"])
def bzimage_6_12_cloud(host):
    place = "kernel-6.12-cloud"
    release = kernel_boots(host, f"{place}/vmlinuz", f"small/initramfs-{place}")
    check(release.startswith("6.12."), release)


@test(cost=10, needs=["kernel-6.12-cloud"])
def elf_pvh_6_12_cloud(host):
    place = "kernel-6.12-cloud"
    release = kernel_boots(host, f"{place}/vmlinux", f"small/initramfs-{place}")
    check(release.startswith("6.12."), release)


@test(cost=20, needs=["kernel-6.1-generic"])
def bzimage_6_1_generic(host):
    place = "kernel-6.1-generic"
    release = kernel_boots(host, f"{place}/vmlinuz", f"small/initramfs-{place}")
    check("cloud" not in release, release)


@test(cost=15, needs=["kernel-6.1-generic"])
def elf_pvh_6_1_generic(host):
    place = "kernel-6.1-generic"
    release = kernel_boots(host, f"{place}/vmlinux", f"small/initramfs-{place}")
    check("cloud" not in release, release)


def stock_initrd_finds_the_disk(host, place):
    """The distribution's own initrd mounts the root and hands over to systemd."""
    overlay = f"{host.scratch}/stock-{host.next_number()}.overlay"
    vm = Vm(host, "--memory", "768M",
            *debian_arguments(host, f"{host.path('debian/debian.raw')},overlay={overlay}",
                              kernel=f"{place}/vmlinuz", initrd=f"{place}/initrd.img"))  # fmt: skip
    vm.log_in()
    release = vm.command("uname -r").strip()
    vm.type("poweroff\n")
    check(vm.wait(120) == 0, f"status {vm.program.status}")
    return release


@test(cost=65, needs=["kernel-6.12-cloud"])
def debian_on_kernel_6_12_cloud(host):
    check("6.12" in stock_initrd_finds_the_disk(host, "kernel-6.12-cloud"), "another kernel")


@test(cost=75, needs=["kernel-6.1-generic"])
def debian_on_kernel_6_1_generic(host):
    check("cloud" not in stock_initrd_finds_the_disk(host, "kernel-6.1-generic"), "another kernel")


@test(cost=10)
def virtio_mmio_transport(host):
    disk = f"{host.scratch}/mmio-{host.next_number()}.raw"
    host.shell(f"dd if=/dev/urandom of={disk} bs=1M count=8 2>&1")
    vm = run_small(
        host,
        """ls /sys/bus/virtio/devices | wc -l
        echo DRIVER=$(basename $(readlink -f /sys/block/vda/device/../driver))
        echo SUM=$(sha256sum </dev/vda | cut -d' ' -f1)""",
        "--transport", "mmio", "--disk", disk,
    )  # fmt: skip
    check(vm.wait() == 0, vm.program.tail())
    expected = host.shell(f"sha256sum <{disk}").split()[0]
    check(vm.value("SUM") == expected, "what the guest read is not what is on the disk")
    check(vm.value("DRIVER") == "virtio-mmio", vm.value("DRIVER"))


@test(cost=10)
def what_the_guest_sees(host):
    """Hypervisor leaves, clock, command line, random numbers, and no error in the kernel log."""
    vm = run_small(
        host,
        """echo HYPERVISOR=$(grep -o hypervisor /proc/cpuinfo | head -n 1)
        echo CLOCK=$(cat /sys/devices/system/clocksource/clocksource0/available_clocksource)
        echo CMDLINE=$(cat /proc/cmdline)
        echo RNG=$(cat /sys/class/misc/hw_random/rng_current)
        echo BYTES=$(dd if=/dev/hwrng bs=64 count=4 2>/dev/null | wc -c)
        echo YEAR=$(date +%Y)
        dmesg | grep -Ei 'ACPI (BIOS )?(Error|Warning)|Firmware Bug' | sed 's/^/COMPLAINT=/'""",
        append="masu.example=1",
    )
    check(vm.wait() == 0, vm.program.tail())
    check(vm.value("HYPERVISOR") == "hypervisor", "no hypervisor flag")
    check("kvm-clock" in vm.value("CLOCK"), vm.value("CLOCK"))
    check("masu.example=1" in vm.value("CMDLINE"), vm.value("CMDLINE"))
    check("virtio" in vm.value("RNG"), vm.value("RNG"))
    check(vm.value("BYTES") == "256", "the random device gave too little")
    check(int(vm.value("YEAR")) >= 2024, f"the guest's clock says {vm.value('YEAR')}")
    complaints = re.findall(r"^COMPLAINT=.*", vm.output, re.M)
    check(not complaints, "\n".join(complaints))


@test(cost=15)
def boot_timer_has_the_milestones(host):
    vm = run_small(host, "echo UP; while true; do sleep 1; done", "--boot-timer")
    vm.expect("^UP", 90)
    timer = vm.inspect()["boot_timer"]
    vm.type("\x01x")
    vm.wait(60)
    times = {name: value for name, value in timer.items() if isinstance(value, (int, float))}
    check(len(times) >= 4, f"the boot timer says {timer}")
    check(all(value >= 0 for value in times.values()), f"a time before the start: {timer}")
