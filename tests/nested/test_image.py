"""Images: imported once, run by several VMs at a time, never changed, and grown by cloud-init."""

import pathlib
import subprocess
import tempfile

from guests import Vm, run_small
from suite import check, test


def masu(host, *arguments):
    result = host.run(host.path("bin/masu"), *arguments)
    check(result.status == 0, f"masu {' '.join(arguments)}: {result.errors}")
    return result.output


def cidata(user_data):
    """A disk that cloud-init's NoCloud takes for its own."""
    with tempfile.TemporaryDirectory() as folder:
        seed = pathlib.Path(folder) / "seed.img"
        (pathlib.Path(folder) / "user-data").write_text(user_data)
        (pathlib.Path(folder) / "meta-data").write_text("instance-id: nested-1\n")
        seed.write_bytes(bytes(1 << 17))
        subprocess.run(["mformat", "-i", seed, "-T", "256", "-v", "cidata", "::"], check=True)
        subprocess.run(["mcopy", "-i", seed, f"{folder}/user-data", f"{folder}/meta-data", "::"], check=True)
        return seed.read_bytes()


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
    left = host.shell(f"find {folder}/vms -name '*.overlay'")
    check(left.strip() == "", f"overlays stayed: {left}")
    masu(host, "image", "rm", name)


@test(cost=150, needs=("debian-cloud",))
def a_cloud_image_grows_to_the_size_asked_for(host):
    """Booted by the firmware and the image's own GRUB. cloud-init's growpart and resize2fs take a
    20 GiB disk; the user data is from a cidata disk."""
    seed = f"{host.scratch}/seed-{host.next_number()}.img"
    host.shell(
        f"cat >{seed}",
        data=cidata(
            "#cloud-config\n"
            "runcmd:\n"
            "  - 'echo PARTITION=$(cat /sys/class/block/vda1/size) >/dev/ttyS0'\n"
            "  - 'echo ROOT=$(df --output=size -k / | tail -n 1) >/dev/ttyS0'\n"
            "  - 'sfdisk --verify /dev/vda >/dev/ttyS0 2>&1 && echo TABLE=good >/dev/ttyS0'\n"
            "  - poweroff\n"
        ),
    )
    image = host.path("debian-cloud/disk.raw")
    before = host.shell(f"sha256sum <{image}")
    vm = Vm(host, image, "--disk-size", "20G", "--disk", f"{seed},ro", "--memory", "768M", "--rm")
    check(vm.wait(400) == 0, vm.program.tail(60))
    check(int(vm.value("PARTITION")) * 512 > 19 << 30, f"partition: {vm.value('PARTITION')} sectors")
    check(int(vm.value("ROOT")) > 18 << 20, f"root: {vm.value('ROOT')} KiB")
    check(vm.value("TABLE") == "good", "sfdisk finds faults in the partition table")
    check(host.shell(f"sha256sum <{image}") == before, "the image changed")
