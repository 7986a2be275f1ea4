"""Masu's firmware starts the boot loaders that Debian ships, from disks nobody has touched, and a real
Debian comes up to its login prompt."""

import re

from guests import Vm
from suite import check, test


def boot(host, loader, *arguments, memory="768M"):
    """Starts a loader's disk; Debian's root file system is on a second one, changed in an overlay."""
    number = host.next_number()
    return Vm(
        host,
        "--disk", f"{host.path(f'loader-{loader}/disk.raw')},ro",
        "--disk", f"{host.path('debian/debian.raw')},overlay={host.scratch}/root-{number}.overlay",
        "--memory", memory, "--boot-timer", *arguments,
        name=f"{loader}-{number}",
    )  # fmt: skip


def check_efi(vm, command_line=""):
    vm.log_in()
    efi = vm.command("dmesg | grep 'efi: EFI'")
    check("by Masu" in efi, f"the kernel was not started through UEFI: {efi}")
    check(command_line in vm.command("cat /proc/cmdline"), f"no {command_line} on the command line")
    # The runtime services, called by the kernel through its own mapping.
    vm.command("mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null || true")
    variables = vm.command("ls /sys/firmware/efi/efivars")
    check("SecureBoot-8be4df61" in variables, f"no EFI variables: {variables}")
    vm.type("poweroff\n")
    status = vm.wait(120)
    check(status == 0, f"status {status} from a power-off:\n{vm.program.tail()}")
    for milestone in ("firmware_entry", "loader_started", "kernel_handover"):
        check(re.search(rf"{milestone} +[\d.]+ ms", vm.output), f"{milestone} was not reached")


@test(cost=60, needs=("loader-systemd-boot",))
def systemd_boot_starts_a_boot_loader_specification_entry(host):
    vm = boot(host, "systemd-boot")
    check_efi(vm, "root=LABEL=masu-root")


@test(cost=60, needs=("loader-uki",))
def a_unified_kernel_image_boots(host):
    check_efi(boot(host, "uki"), "root=LABEL=masu-root")


@test(cost=60, needs=("loader-efi-stub",))
def a_kernels_own_stub_boots_with_the_command_line_it_is_given(host):
    append = "initrd=\\initrd.img root=LABEL=masu-root rw console=ttyS0 quiet masu.stub"
    check_efi(boot(host, "efi-stub", "--append", append), "masu.stub")


@test(cost=70, needs=("loader-shim",))
def grub_behind_shim_is_driven_by_its_menu(host):
    vm = boot(host, "shim")
    vm.expect("Debian GNU/Linux, marked", 120)
    vm.type("\x1b[B")
    vm.type("\r")
    check_efi(vm, "masu.marked")


@test(cost=60)
def an_image_without_an_efi_partition_boots_what_its_grub_cfg_says(host):
    overlay = f"overlay={host.scratch}/legacy-{host.next_number()}.overlay"
    vm = Vm(host, "--disk", f"{host.path('debian/debian.raw')},{overlay}", "--memory", "768M",
            "--boot-timer")  # fmt: skip
    vm.log_in()
    check("masu: booting 'Debian GNU/Linux" in vm.output, vm.program.tail())
    check("root=UUID=" in vm.command("cat /proc/cmdline"), "not the command line of grub.cfg")
    vm.type("poweroff\n")
    check(vm.wait(120) == 0, vm.program.tail())
    check(re.search(r"kernel_handover +[\d.]+ ms", vm.output), "kernel_handover was not reached")


@test(cost=60, needs=("debian-xfs",))
def an_image_on_xfs_without_an_efi_partition_boots_too(host):
    overlay = f"overlay={host.scratch}/xfs-{host.next_number()}.overlay"
    vm = Vm(host, "--disk", f"{host.path('debian-xfs/disk.raw')},{overlay}", "--memory", "768M")
    vm.log_in()
    check("masu: booting 'Debian GNU/Linux" in vm.output, vm.program.tail())
    check(" / xfs " in vm.command("cat /proc/mounts"), "the root file system is not xfs")
    vm.type("poweroff\n")
    check(vm.wait(120) == 0, vm.program.tail())


@test(cost=300, needs=("new-kernel",))
def a_kernel_installed_inside_the_guest_is_booted_next(host):
    """dpkg, update-initramfs and update-grub as they are; then a reboot, by the VM's own firmware."""
    release = host.shell(f"cat {host.path('new-kernel/release')}").strip()
    overlay = f"overlay={host.scratch}/upgrade-{host.next_number()}.overlay"
    vm = Vm(host, "--disk", f"{host.path('debian/debian.raw')},{overlay}", "--disk",
            f"{host.path('new-kernel/disk.raw')},ro", "--memory", "1G")  # fmt: skip
    vm.log_in()
    before = vm.command("uname -r").strip()
    check(before != release, f"the image has kernel {release} already")
    # An initramfs of what this machine needs: one for every machine takes ten minutes to pack here.
    vm.command("sed -i 's/^MODULES=.*/MODULES=dep/' /etc/initramfs-tools/initramfs.conf")
    vm.command("mount -o ro LABEL=new-kernel /mnt")
    vm.command("export DEBIAN_FRONTEND=noninteractive;"
               " dpkg --force-unsafe-io -i /mnt/*.deb >/tmp/dpkg.log 2>&1 || { tail -n 20 /tmp/dpkg.log; false; }", timeout=2400)  # fmt: skip
    vm.command(f"grep -q vmlinuz-{release} /boot/grub/grub.cfg")
    vm.type("sync; reboot\n")
    vm.log_in(timeout=900)
    check(vm.command("uname -r").strip() == release, "the new kernel was not booted")
    vm.type("poweroff\n")
    check(vm.wait(120) == 0, vm.program.tail())
