"""Disks keep what guests write: under file systems, checksums, discards, overlays and a monitor
killed in the middle."""

import re

from guests import run_small
from suite import check, test


def new_disk(host, mib):
    path = f"{host.scratch}/disk-{host.next_number()}.raw"
    host.shell(f"truncate -s {mib}M {path}")
    return path


def debian_base(host):
    return f"{host.path('debian/debian.raw')},ro"


def run_job(host, job, *arguments, timeout=180, **options):
    vm = run_small(host, job, *arguments, **options)
    status = vm.wait(timeout)
    check(status == 0, f"status {status}:\n{vm.program.tail()}")
    check(vm.value("GUEST-DONE") == "0", f"the guest's script failed:\n{vm.program.tail()}")
    return vm


@test(cost=15)
def what_dd_writes_sha256sum_reads(host):
    """Sizes and offsets that are no multiple of anything; the host reads the same bytes."""
    disk = new_disk(host, 48)
    vm = run_job(
        host,
        """set -e
        dd if=/dev/urandom of=/tmp/data bs=1000 count=4321 2>/dev/null
        dd if=/tmp/data of=/dev/vda bs=4k seek=7 conv=notrunc,fsync 2>/dev/null
        echo 3 >/proc/sys/vm/drop_caches
        echo WROTE=$(sha256sum </tmp/data | cut -d' ' -f1)
        echo READ=$(dd if=/dev/vda bs=4k skip=7 2>/dev/null | head -c 4321000 | sha256sum | cut -d' ' -f1)
        echo SECTORS=$(cat /sys/block/vda/size)""",
        "--disk", disk,
    )  # fmt: skip
    on_host = host.shell(f"dd if={disk} bs=4k skip=7 2>/dev/null | head -c 4321000 | sha256sum")
    check(vm.value("READ") == vm.value("WROTE"), "the guest read back something else")
    check(on_host.split()[0] == vm.value("WROTE"), "the host's file holds something else")
    check(vm.value("SECTORS") == str(48 * 2048), vm.value("SECTORS"))


def fio_verify(host, file_system):
    disk = new_disk(host, 400)
    make = {"ext4": "mkfs.ext4 -q /dev/vdb", "xfs": "mkfs.xfs -q /dev/vdb"}[file_system]
    modules = ("libcrc32c", "xfs") if file_system == "xfs" else ()
    load = "\n".join(f"insmod $(find /mnt/lib/modules -name {name}.ko)" for name in modules)
    vm = run_job(
        host,
        f"""use_debian
        {load}
        set -e
        chroot /mnt {make}
        mount -t {file_system} /dev/vdb /mnt/mnt
        chroot /mnt fio --name=verify --directory=/mnt --size=8M --rw=randrw --bsrange=512-64k \\
          --ioengine=libaio --direct=1 --iodepth=16 --verify=crc32c --verify_fatal=1 \\
          --do_verify=1 --norandommap=0 --group_reporting >/tmp/fio 2>&1 || {{ tail -n 20 /tmp/fio; exit 1; }}
        grep -q 'err= 0' /tmp/fio && echo FIO=ok
        sha256sum /mnt/mnt/verify* | cut -d' ' -f1 >/tmp/before
        umount /mnt/mnt
        mount -t {file_system} /dev/vdb /mnt/mnt
        sha256sum /mnt/mnt/verify* | cut -d' ' -f1 | cmp - /tmp/before && echo REMOUNT=same
        umount /mnt/mnt""",
        "--disk", debian_base(host), "--disk", disk, "--cpus", "2",
    )  # fmt: skip
    check(vm.value("FIO") == "ok", vm.program.tail())
    check(vm.value("REMOUNT") == "same", "files differ after a new mount")
    if file_system == "ext4":
        check(host.run("e2fsck", "-fn", disk).status == 0, "e2fsck finds errors")
    host.shell(f"rm {disk}")


@test(cost=40)
def fio_verify_on_ext4(host):
    fio_verify(host, "ext4")


@test(cost=45)
def fio_verify_on_xfs(host):
    fio_verify(host, "xfs")


@test(cost=20)
def discard_gives_space_back(host):
    """blkdiscard on the raw disk: the file shrinks on the host, and the guest reads zeroes."""
    disk = new_disk(host, 64)
    vm = run_job(
        host,
        """set -e
        dd if=/dev/urandom of=/dev/vda bs=1M count=32 conv=fsync 2>/dev/null
        echo GRANULARITY=$(cat /sys/block/vda/queue/discard_granularity)
        blkdiscard -o 4194304 -l 16777216 /dev/vda
        echo 3 >/proc/sys/vm/drop_caches
        echo ZEROES=$(dd if=/dev/vda bs=1M skip=4 count=16 2>/dev/null | tr -d '\\000' | wc -c)
        echo KEPT=$(dd if=/dev/vda bs=1M count=4 2>/dev/null | tr -d '\\000' | wc -c)""",
        "--disk", disk,
    )  # fmt: skip
    used = int(host.shell(f"du -k {disk}").split()[0])
    check(int(vm.value("GRANULARITY")) > 0, "no discard offered")
    check(vm.value("ZEROES") == "0", "discarded space does not read as zeroes")
    check(int(vm.value("KEPT")) > 4_000_000, "discard reached data outside its range")
    check(14 * 1024 < used < 20 * 1024, f"the host's file still takes {used} KiB")


@test(cost=15)
def disks_keep_their_order_size_serial_number_and_rights(host):
    """Of four: the second may not be written, the third has a name, the last's size is odd."""
    disks = [new_disk(host, size) for size in (3, 5, 7, 1)]
    host.shell(f"dd if=/dev/urandom of={disks[1]} bs=64k count=2 conv=notrunc 2>/dev/null; truncate -s 1000000 {disks[3]}")
    before = host.shell(f"sha256sum <{disks[1]}")
    options = ("", ",ro", ",serial=box-7", "")
    vm = run_job(
        host,
        """for d in vda vdb vdc vdd; do echo $d=$(cat /sys/block/$d/size) $(cat /sys/block/$d/ro); done
        echo SERIAL=$(cat /sys/block/vdc/serial)
        dd if=/dev/urandom of=/dev/vdb bs=4k count=1 2>/dev/null && echo WROTE=yes || echo WROTE=no""",
        *(a for disk, option in zip(disks, options) for a in ("--disk", disk + option)),
    )  # fmt: skip
    told = [vm.value(d) for d in ("vda", "vdb", "vdc", "vdd")]
    check(told == ["6144 0", "10240 1", "14336 0", f"{1000000 // 512} 0"], f"sizes and read-only: {told}")
    check(vm.value("SERIAL") == "box-7", vm.value("SERIAL"))
    check(vm.value("WROTE") == "no", "a write went through")
    check(host.shell(f"sha256sum <{disks[1]}") == before, "the file changed")


@test(cost=40)
def two_vms_share_one_base(host):
    """Overlays over one base at the same time: each sees its own writes, the base stays. One that
    changed is refused."""
    base = new_disk(host, 16)
    host.shell(f"dd if=/dev/urandom of={base} bs=1M count=16 2>/dev/null")
    before = host.shell(f"sha256sum <{base}").split()[0]
    job = """set -e
        echo BASE=$(sha256sum </dev/vda | cut -d' ' -f1)
        for at in 0 100 2047; do echo "this is $NAME" | dd of=/dev/vda bs=4k seek=$at conv=fsync 2>/dev/null; done
        echo WRITTEN; sleep 5
        echo 3 >/proc/sys/vm/drop_caches
        for at in 0 100 2047; do echo AT-$at=$(dd if=/dev/vda bs=4k skip=$at count=1 2>/dev/null | head -n 1); done
        """
    vms = {}
    for name in ("one", "two"):
        overlay = f"{host.scratch}/{name}-{host.next_number()}.overlay"
        vms[name] = run_small(host, f"NAME={name}\n{job}", "--disk", f"{base},overlay={overlay}")
        vms[name].overlay = overlay
    for name, vm in vms.items():
        check(vm.wait(120) == 0, vm.program.tail())
        check(vm.value("BASE") == before, "a guest does not see the base")
        for at in (0, 100, 2047):
            check(vm.value(f"AT-{at}") == f"this is {name}", vm.program.tail())
    check(host.shell(f"sha256sum <{base}").split()[0] == before, "the base changed")
    again = run_job(host, "echo FIRST=$(head -n 1 /dev/vda)", "--disk",
                    f"{base},overlay={vms['two'].overlay}")  # fmt: skip
    check(again.value("FIRST") == "this is two", "an overlay forgot its writes")
    host.shell(f"sleep 1; echo changed | dd of={base} bs=4k seek=9 conv=notrunc 2>/dev/null")
    vm = run_small(host, "true", "--disk", f"{base},overlay={vms['two'].overlay}")
    check(vm.wait() != 0, "an overlay came up on another base")
    check(re.search(r"base", vm.output) and re.search(r"chang|differ|modif", vm.output), vm.output)


@test(cost=75)
def a_killed_monitor_leaves_a_mountable_disk(host):
    """kill -9 in the middle of writes to ext4 on an overlay and on a raw disk: what was synced is
    there, the journal recovers, and fsck finds nothing."""
    raw = new_disk(host, 128)
    base = new_disk(host, 128)
    overlay = f"{host.scratch}/killed-{host.next_number()}.overlay"
    for disk in (raw, base):
        made = host.run("mke2fs", "-q", "-F", "-t", "ext4", disk)
        check(made.status == 0, f"mke2fs: {made.errors}")
    disks = ("--disk", raw, "--disk", f"{base},overlay={overlay}")
    vm = run_small(
        host,
        """for d in vda vdb; do
          mkdir -p /$d; mount -t ext4 /dev/$d /$d
          seq 1 20000 >/$d/synced; sync -f /$d/synced || sync
        done
        echo WRITING
        while true; do for d in vda vdb; do
          i=$((i+1)); dd if=/dev/urandom of=/$d/f$((i%40)) bs=16k count=8 2>/dev/null; rm -f /$d/f$(((i+20)%40))
        done; done""",
        *disks,
    )  # fmt: skip
    vm.expect("^WRITING", 90)
    host.shell("sleep 3")
    vm.kill_monitor()
    check(vm.wait(60) != 0, "a killed monitor counts as a clean end")
    job = """set -e
        for d in vda vdb; do
          mkdir -p /$d; mount -t ext4 /dev/$d /$d
          echo SUM-$d=$(sha256sum </$d/synced | cut -d' ' -f1); umount /$d
        done
        dmesg | grep -c 'recovery complete' | sed 's/^/RECOVERED=/'
        use_debian /dev/vdc1
        for d in vda vdb; do chroot /mnt e2fsck -fn /dev/$d >/tmp/$d 2>&1; echo FSCK-$d=$?; done"""
    again = run_job(host, job, *disks, "--disk", debian_base(host))
    expected = host.shell("seq 1 20000 | sha256sum").split()[0]
    for disk in ("vda", "vdb"):
        check(again.value(f"SUM-{disk}") == expected, f"{disk} lost synced data")
        check(again.value(f"FSCK-{disk}") == "0", f"fsck complains about {disk}")
    check(again.value("RECOVERED") == "2", f"journals recovered: {again.value('RECOVERED')}, not 2")


@test(cost=15)
def limits_slow_a_disk_down(host):
    """512 writes at 64 IOPS cannot end before the bucket allows it."""
    disk = new_disk(host, 8)
    vm = run_job(
        host,
        """a=$(cut -d. -f1 /proc/uptime)
        dd if=/dev/zero of=/dev/vda bs=4k count=512 oflag=direct 2>/dev/null
        echo TOOK=$(($(cut -d. -f1 /proc/uptime) - a))""",
        "--disk", f"{disk},iops=64",
    )  # fmt: skip
    check(int(vm.value("TOOK")) >= 5, f"512 requests at 64 a second took {vm.value('TOOK')} s")
