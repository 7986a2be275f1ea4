"""Images: imported once, run by several VMs at a time, never changed, and grown by cloud-init."""

from guests import Vm, run_small
from suite import check, test
from test_net import make_tap


def masu(host, *arguments):
    result = host.run(host.path("bin/masu"), *arguments)
    check(result.status == 0, f"masu {' '.join(arguments)}: {result.errors}")
    return result.output


@test(cost=40)
def two_vms_run_one_image_and_leave_it_as_it_was(host):
    """Each sees the image, larger than it is, and its own writes; what they wrote goes with them."""
    name = f"image-{host.next_number()}"
    raw = f"{host.scratch}/{name}.raw"
    host.shell(f"dd if=/dev/urandom of={raw} bs=1M count=2 2>/dev/null; gzip -k {raw}")
    masu(host, "image", "import", f"{raw}.gz", name)
    content = host.shell(f"sha256sum <{raw}").split()[0]
    job = """set -e
        echo IMAGE=$(head -c 2097152 /dev/vda | sha256sum | cut -d' ' -f1)
        echo SECTORS=$(cat /sys/block/vda/size)
        for at in 5 3000; do echo "this is $NAME" | dd of=/dev/vda bs=4k seek=$at conv=fsync 2>/dev/null; done
        echo WRITTEN; sleep 5
        echo 3 >/proc/sys/vm/drop_caches
        for at in 5 3000; do echo AT-$at=$(dd if=/dev/vda bs=4k skip=$at count=1 2>/dev/null | head -n 1); done
        echo BEYOND=$(dd if=/dev/vda bs=1M skip=15 2>/dev/null | tr -d '\\000' | wc -c)"""
    vms = {
        vm: run_small(host, f"NAME={vm}\n{job}", name, "--disk-size", "16M", "--rm") for vm in ("one", "two")
    }
    for vm in vms.values():
        vm.expect("^WRITTEN", 90)
    refused = host.run(host.path("bin/masu"), "image", "rm", name)
    check(refused.status == 1 and "in use by the VM" in refused.errors, refused.errors)
    for vm_name, vm in vms.items():
        check(vm.wait(120) == 0, vm.program.tail())
        check(vm.value("IMAGE") == content, "a guest does not see the image")
        check(vm.value("SECTORS") == "32768", vm.value("SECTORS"))
        check(vm.value("BEYOND") == "0", "what lies beyond the image is not zeros")
        for at in (5, 3000):
            check(vm.value(f"AT-{at}") == f"this is {vm_name}", vm.program.tail())
    record = masu(host, "image", "inspect", name)
    check(f"sha256         {content}" in record, record)
    disk = next(line.split()[1] for line in record.splitlines() if line.startswith("disk "))
    check(host.shell(f"sha256sum <{disk}").split()[0] == content, "the image changed")
    folder = disk.partition("/images/")[0]
    left = host.shell(f"for vm in one two; do [ ! -e {folder}/vms/$vm ] || ls {folder}/vms/$vm; done")
    check(left.strip() == "", f"of VMs with --rm stayed: {left}")
    masu(host, "image", "rm", name)


@test(cost=290, needs=("debian-cloud",))
def a_cloud_image_comes_up_as_an_instance(host):
    """Nothing but the image: the firmware starts its GRUB; cloud-init finds the metadata service by
    itself, applies name, key and user data, and grows the root file system to the disk asked for."""
    make_tap(host, "masu2", "172.31.0.1/20")
    key, data = f"{host.scratch}/cloud.pub", f"{host.scratch}/cloud.yaml"
    host.shell(
        f"echo 'ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIJ0me test@host' >{key}\n"
        f"cat >{data} <<'CONFIG'\n"
        "#cloud-config\n"
        "runcmd:\n"
        "  - 'echo NAME=$(hostname) >/dev/ttyS0'\n"
        "  - 'echo KEYS=$(cat /home/*/.ssh/authorized_keys) >/dev/ttyS0'\n"
        "  - 'echo SOURCE=$(cloud-id) >/dev/ttyS0'\n"
        "  - 'echo PARTITION=$(cat /sys/class/block/vda1/size) >/dev/ttyS0'\n"
        "  - 'echo ROOT=$(df --output=size -k / | tail -n 1) >/dev/ttyS0'\n"
        "  - 'sfdisk --verify /dev/vda >/dev/ttyS0 2>&1 && echo TABLE=good >/dev/ttyS0'\n"
        "  - 'dmesg | grep -q \"efi: EFI.*by Masu\" && echo EFI=ours >/dev/ttyS0'\n"
        # What takes an emulated processor long and shows nothing.
        "ssh_genkeytypes: [ed25519]\n"
        "no_ssh_fingerprints: true\n"
        "ssh: {emit_keys_to_console: false}\n"
        "grub_dpkg: {enabled: false}\n"
        "locale: false\n"
        "power_state: {mode: poweroff}\n"
        "CONFIG"
    )
    image = host.path("debian-cloud/disk.raw")
    state = f"stat -c '%s %b %Y %Z' {image}"  # any write would show; reading it all takes minutes
    before = host.shell(state)
    vm = Vm(
        host, image, "--disk-size", "20G", "--memory", "1G", "--rm", "--ssh-key", key, "--user-data", data,
        "--net", "tap=masu2,address=172.31.0.10/20,gateway=172.31.0.1", name="cloudy",
    )  # fmt: skip
    status = vm.wait(1500)
    check(status == 0, f"status {status}:\n{vm.program.tail(60)}")
    check(vm.value("NAME") == "cloudy", vm.value("NAME"))
    check("AAAAC3NzaC1lZDI1NTE5AAAAIJ0me" in vm.value("KEYS"), vm.value("KEYS"))
    check(vm.value("SOURCE") == "aws", vm.value("SOURCE"))
    check(int(vm.value("PARTITION")) * 512 > 19 << 30, f"partition: {vm.value('PARTITION')} sectors")
    check(int(vm.value("ROOT")) > 18 << 20, f"root: {vm.value('ROOT')} KiB")
    check(vm.value("TABLE") == "good", "sfdisk finds faults in the partition table")
    check(vm.value("EFI") == "ours", "the kernel was not started through UEFI")
    check(host.shell(state) == before, "the image changed")
