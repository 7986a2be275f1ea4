"""Masu's firmware starts the boot loaders that Debian ships, from disks nobody has touched: Debian's
own kernel and initrd mount the root, and with two of them all of Debian comes up."""

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


def check_efi(vm, command_line, power_off="poweroff -ff"):
    """In a shell of root's: what the loader handed over."""
    efi = vm.command("dmesg | grep 'efi: EFI'")
    check("by Masu" in efi, f"the kernel was not started through UEFI: {efi}")
    check(command_line in vm.command("cat /proc/cmdline"), f"no {command_line} on the command line")
    # The runtime services, called by the kernel through its own mapping.
    vm.command("mount -t efivarfs efivarfs /sys/firmware/efi/efivars 2>/dev/null || true")
    variables = vm.command("ls /sys/firmware/efi/efivars")
    check("SecureBoot-8be4df61" in variables, f"no EFI variables: {variables}")
    vm.type(f"{power_off}\n")
    status = vm.wait(120)
    check(status == 0, f"status {status} from a power-off:\n{vm.program.tail()}")
    for milestone in ("firmware_entry", "loader_started", "kernel_handover"):
        check(re.search(rf"{milestone} +[\d.]+ ms", vm.output), f"{milestone} was not reached")


def boot_to_shell(host, loader, *arguments):
    vm = boot(host, loader, *arguments)
    vm.find_shell()
    check(" / ext4 " in vm.command("cat /proc/mounts"), "the root file system is another")
    return vm


@test(cost=35, needs=("loader-systemd-boot",))
def systemd_boot_starts_a_boot_loader_specification_entry(host):
    check_efi(boot_to_shell(host, "systemd-boot"), "root=LABEL=masu-root")


@test(cost=35, needs=("loader-uki",))
def a_unified_kernel_image_boots(host):
    check_efi(boot_to_shell(host, "uki"), "root=LABEL=masu-root")


@test(cost=35, needs=("loader-efi-stub",))
def a_kernels_own_stub_boots_with_the_command_line_it_is_given(host):
    append = "initrd=\\initrd.img root=LABEL=masu-root rw console=ttyS0 quiet init=/bin/bash masu.stub"
    check_efi(boot_to_shell(host, "efi-stub", "--append", append), "masu.stub")


@test(cost=90, needs=("loader-shim",))
def grub_behind_shim_is_driven_by_its_menu(host):
    """Up to the login prompt, and down again."""
    vm = boot(host, "shim")
    vm.expect("Debian GNU/Linux, marked", 120)
    vm.type("\x1b[B")
    vm.type("\r")
    vm.log_in()
    check_efi(vm, "masu.marked", "poweroff")


@test(cost=35, needs=("debian-xfs",))
def an_image_on_xfs_without_an_efi_partition_boots(host):
    overlay = f"overlay={host.scratch}/xfs-{host.next_number()}.overlay"
    vm = Vm(host, "--disk", f"{host.path('debian-xfs/disk.raw')},{overlay}", "--memory", "768M")
    vm.find_shell()
    check("masu: booting 'Debian GNU/Linux" in vm.output, vm.program.tail())
    check(" / xfs " in vm.command("cat /proc/mounts"), "the root file system is not xfs")
    vm.type("poweroff -ff\n")
    check(vm.wait(120) == 0, vm.program.tail())


@test(cost=300, needs=("new-kernel",))
def an_image_without_an_efi_partition_boots_its_kernel_and_the_one_installed_inside(host):
    """What its grub.cfg says; then dpkg, update-initramfs and update-grub as they are, and a reboot,
    by the VM's own firmware."""
    release = host.shell(f"cat {host.path('new-kernel/release')}").strip()
    overlay = f"overlay={host.scratch}/upgrade-{host.next_number()}.overlay"
    vm = Vm(host, "--disk", f"{host.path('debian/debian.raw')},{overlay}", "--disk",
            f"{host.path('new-kernel/disk.raw')},ro", "--memory", "1G", "--boot-timer")  # fmt: skip
    vm.log_in()
    check("masu: booting 'Debian GNU/Linux" in vm.output, vm.program.tail())
    check("root=UUID=" in vm.command("cat /proc/cmdline"), "not the command line of grub.cfg")
    before = vm.command("uname -r").strip()
    check(before != release, f"the image has kernel {release} already")
    vm.command("mount -o ro LABEL=new-kernel /mnt")
    vm.command("export DEBIAN_FRONTEND=noninteractive;"
               " dpkg --force-unsafe-io -i /mnt/*.deb >/tmp/dpkg.log 2>&1 || { tail -n 20 /tmp/dpkg.log; false; }", timeout=2400)  # fmt: skip
    vm.command(f"grep -q vmlinuz-{release} /boot/grub/grub.cfg")
    vm.type("sync; reboot\n")
    vm.log_in(timeout=900)
    check(vm.command("uname -r").strip() == release, "the new kernel was not booted")
    vm.type("poweroff\n")
    check(vm.wait(120) == 0, vm.program.tail())
    check(re.search(r"kernel_handover +[\d.]+ ms", vm.output), "kernel_handover was not reached")
