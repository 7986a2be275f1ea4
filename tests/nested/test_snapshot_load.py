"""A guest under load is saved and restored twenty times over."""

import time

from guests import Vm, run_small
from suite import check, test
from test_net import DHCP, make_tap
from test_snapshot import masu

# Four vCPUs: fio writes and verifies, an archive is packed again and again, numbers stream to the
# host, a counter on each vCPU. Each line tells how far all have come.
LOAD = (
    "echo 60 >/proc/sys/kernel/watchdog_thresh\n" + DHCP + """
use_debian /dev/vdb1
debian() { chroot /mnt "$@"; }
debian fio --name=verify --filename=/dev/vda --rw=randwrite --bs=4k --size=4M --direct=1 --ioengine=libaio \
  --iodepth=8 --verify=crc32c --verify_fatal=1 --rate_iops=50 --loops=1000000 >/tmp/fio 2>&1 &
fio=$!
echo 0 >/tmp/packed
pack() { tar -C /mnt/etc -cf - . | gzip -1 | sha256sum; }
( n=0; first=$(pack)
  while true; do
    n=$((n + 1)); echo $n >/tmp/packed
    [ "$(pack)" = "$first" ] || echo "WRONG-ARCHIVE=$n"
    sleep 1
  done ) &
for cpu in 0 1 2 3; do
  debian /usr/bin/taskset -c $cpu sh -c '
    n=0; while true; do n=$((n + 1)); i=0; while [ $i -lt 200 ]; do i=$((i + 1)); done
      echo $n >/tmp/count'$cpu'; sleep 0.3; done' &
done
( seq 1 1000000000 | nc 10.88.0.1 9000; echo HUNG-UP ) &
n=0
while true; do
  n=$((n + 1))
  echo "BEAT=$n wall=$(date +%s) up=$(cut -d. -f1 /proc/uptime) packed=$(cat /tmp/packed)" \
    "counts=$(cat /tmp/count0 /tmp/count1 /tmp/count2 /tmp/count3 | tr '\\n' ,)" \
    "clock=$(adjtimex | grep -E 'status|frequency|tick' | tr -dc '0-9 ' | tr -s ' ' ,) end"
  kill -0 $fio || { echo FIO-ENDED; cat /tmp/fio; break; }
  dmesg | grep -iE 'soft lockup|hard lockup|rcu.*stall|I/O error|BUG:|clocksource.*unstable' | sed 's/^/COMPLAINT=/'
  sleep 1
done
"""
)
BAD_WORDS = ("COMPLAINT", "WRONG-ARCHIVE", "HUNG-UP", "FIO-ENDED")


def beats(vm):
    """What each whole line of LOAD says."""
    return [
        dict(part.split("=") for part in line.split() if "=" in part)
        for line in vm.output.splitlines()
        if line.startswith("BEAT=") and line.endswith(" end")
    ]


def wait_for_beats(vm, more, past=()):
    """Until so many more lines have come, with each counter and the archives ahead of `past`."""
    have = len(beats(vm))
    while True:
        vm.expect(r"^BEAT=.* end", 120)
        bad = [line for line in vm.output.splitlines() if line.startswith(BAD_WORDS)]
        check(not bad, "\n".join(bad))
        now = beats(vm)
        if len(now) >= have + more and all(a > b for a, b in zip(counts(now[-1]), past)):
            return now


def counts(beat):
    return [int(n) for n in beat["counts"].strip(",").split(",")]


def streamed(host, file):
    """How many numbers have arrived, none missing or twice."""
    last = host.shell(f"tail -n 1 {file}").split()
    check(last[:1] != ["GAP"], f"the stream is broken: {last}")
    return int(last[0]) if last else 0


def host_time(host):
    return int(host.shell("date +%s"))


@test(cost=300)
def a_loaded_guest_is_saved_and_restored_twenty_times(host):
    """4 vCPUs with a verifying disk load, a build's kind of work and a TCP stream; nothing is lost,
    no vCPU stands still, clocks are as the policy says, and the kernel has no complaint."""
    disk = f"{host.scratch}/load-{host.next_number()}.raw"
    stream = f"{host.scratch}/stream-{host.next_number()}"
    host.shell(f"truncate -s 4M {disk}; : >{stream}")
    make_tap(host, "load0", "10.88.0.1/24")
    awk = '$1 != NR { print "GAP", NR, $1; exit } NR % 500 == 0 { print NR; fflush() }'
    listener = host.start("sh", "-c", f"busybox nc -l -p 9000 | awk '{awk}' >{stream}")
    vm = run_small(
        host, LOAD, "--cpus", "4", "--disk", f"{disk},overlay={disk}.overlay", "--disk", f"{host.path('debian/debian.raw')},ro",
        "--net", "tap=load0,address=10.88.0.2/24,bw=20K",
    )  # fmt: skip
    base = f"load-{host.next_number()}"
    try:
        wait_for_beats(vm, 2)
        first = beats(vm)[-1]
        previous = None
        # What `continue` leaves behind stays behind: last.
        for number, policy in enumerate(["realtime"] * 18 + ["continue"] * 2):
            vm, previous = save_and_restore(host, vm, f"{base}-{number}", previous, stream, policy)
        check(int(beats(vm)[-1]["packed"] or 0) > int(first["packed"] or 0), "the archiver stands still")
        masu(host, "kill", vm.name)
        vm.wait(30)
        masu(host, "rm", vm.name)
        masu(host, "snapshot", "rm", previous)
    finally:
        listener.kill()
        host.shell("tunctl -d load0 >/dev/null 2>&1 || true")


def save_and_restore(host, vm, snapshot, previous, stream, policy):
    """The VM that goes on from `snapshot`, which is made here; the last VM and snapshot are gone."""
    masu(host, "snapshot", "create", vm.name, snapshot, "--keep-paused")
    masu(host, "kill", vm.name)
    vm.wait(30)
    before = beats(vm)[-1]
    stood_still = host_time(host)
    numbers = streamed(host, stream)
    masu(host, "rm", vm.name)
    if previous:
        masu(host, "snapshot", "rm", previous)
    if policy == "continue":
        time.sleep(5)  # enough to tell from a slow machine's delays
    earliest = host_time(host)
    again = Vm(
        host, snapshot, "--clock", policy, name=f"{snapshot}-vm", command=("snapshot", "restore")
    )
    # The first line may have been half written before the snapshot.
    after = wait_for_beats(again, 2, past=counts(before))[1:]
    latest = host_time(host)
    wall = int(after[0]["wall"])
    if policy == "realtime":
        check(earliest - 2 <= wall <= latest + 2, f"the guest says {wall}, the host {earliest} to {latest}")
    else:
        behind = latest - int(after[-1]["wall"])
        check(behind >= earliest - stood_still - 2, f"clocks leapt: {behind} s behind")
        leap = int(after[0]["up"]) - int(before["up"])
        check(leap <= latest - earliest + 2, f"CLOCK_MONOTONIC leapt by {leap} s")
    check(after[-1]["clock"] == before["clock"], f"adjtimex: {before} is now {after[-1]}")
    deadline = time.monotonic() + 300
    while streamed(host, stream) <= numbers:
        check(time.monotonic() < deadline, f"the stream stopped at {numbers}")
        time.sleep(0.5)
    return again, snapshot
