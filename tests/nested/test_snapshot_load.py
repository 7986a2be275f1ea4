"""A guest under load is saved and restored twenty times over."""

import pathlib
import re
import time

from guests import Vm, run_small
from suite import check, test
from test_net import DHCP, make_tap
from test_snapshot import masu

# What make and tcc build in the guest.
SOURCES = pathlib.Path(__file__).parent / "picture"
# Four vCPUs: fio writes and verifies, a program's parts are compiled in turn, iperf3 streams to
# the host, a counter on each vCPU. Each line tells how far all have come. What iperf3 sends are
# numbers, so that a byte too many or too few shows.
LOAD = (
    "echo 60 >/proc/sys/kernel/watchdog_thresh\n" + DHCP + """
use_debian /dev/vdb1
debian() { chroot /mnt "$@"; }
build() { debian make -s -C /tmp/picture "$@" >/tmp/make 2>&1 || cat /tmp/make; }
draw() { debian /tmp/picture/picture >/tmp/png || echo FAILED; }
whole='main.o draw.o encode.o picture'
same() { ( cd /tmp/picture; sha256sum -s -c /tmp/$1.sums ) || echo "WRONG-BUILD=$1"; }
cp -r /picture /tmp
build; draw
for part in $whole ../png; do ( cd /tmp/picture; sha256sum $part >/tmp/${part#../}.sums ); done
echo "BUILT=$(cat /tmp/*.sums | wc -l) $(head -c 4 /tmp/png | tail -c 3)"
echo 0 >/tmp/builds
blocks() { read -r reads _ _ _ writes _ </sys/block/vda/stat; blocks=$((reads + writes - at_first)); }
at_first=0; blocks; at_first=$blocks
debian fio --name=verify --filename=/dev/vda --rw=randwrite --bs=4k --size=4M --direct=1 --ioengine=libaio \
  --iodepth=8 --verify=crc32c --verify_fatal=1 --rate_iops=30 --loops=1000000 >/tmp/fio 2>&1 &
fio=$!
fio_lives() { kill -0 $fio || { echo FIO-ENDED; cat /tmp/fio; false; }; }
# fio gives its job 5 s to start, by a clock that goes on while the guest is saved: start it alone.
while blocks; [ $blocks = 0 ]; do fio_lives || break; sleep 0.2; done
( n=0
  while true; do
    for part in $whole; do
      rm /tmp/picture/$part; build $part; same $part
      n=$((n + 1)); echo $n >/tmp/builds
    done
    draw; same png
  done ) &
for cpu in 0 1 2 3; do
  debian /usr/bin/taskset -c $cpu sh -c '
    n=0; while true; do n=$((n + 1)); i=0; while [ $i -lt 200 ]; do i=$((i + 1)); done
      echo $n >/tmp/count'$cpu'; sleep 1; done' &
done
mkfifo /tmp/numbers
seq 1 1000000000 >/tmp/numbers &
( debian iperf3 --client 10.88.0.1 --port 9000 --time 86400 --bitrate 40K --pacing-timer 200000 \
    --length 1K --file /tmp/numbers --interval 1 --forceflush >/tmp/iperf 2>&1
  echo "IPERF-ENDED=$(tail -n 3 /tmp/iperf)" ) &
# As few processes as will do: each is a good part of a second's work here.
n=0
while true; do
  n=$((n + 1))
  counts=
  for cpu in 0 1 2 3; do count=; read -r count </tmp/count$cpu; counts=$counts$count,; done
  read -r builds </tmp/builds
  read -r up idle </proc/uptime
  clock=$(adjtimex | awk '/status|freq|tick/ && match($0, /[0-9]+/) { printf "%s,", substr($0, RSTART, RLENGTH) }')
  blocks
  echo "BEAT=$n wall=$(date +%s) up=${up%.*} builds=$builds blocks=$blocks counts=$counts" \
    "intervals=$(grep -c ' sec ' /tmp/iperf) clock=$clock end"
  fio_lives || break
  dmesg | grep -iE 'soft lockup|hard lockup|rcu.*stall|I/O error|BUG:|clocksource.*unstable' >/tmp/complaints &&
    sed 's/^/COMPLAINT=/' /tmp/complaints
  sleep 1
done
"""
)
BAD_WORDS = ("COMPLAINT", "WRONG-BUILD", "IPERF-ENDED", "FIO-ENDED")
# The server waits as long as it takes; its bytes go where they are counted.
SERVER = """
mkfifo {bytes}
awk '$1 != NR {{ print "GAP", NR, $1; exit }} NR % 250 == 0 {{ print NR; fflush() }}' <{bytes} >{numbers} &
exec iperf3 --server --one-off --port 9000 --file {bytes} --rcv-timeout 86400000 --forceflush >{report} 2>&1
"""


def beats(vm):
    """What each whole line of LOAD says."""
    return [
        dict(part.split("=") for part in line.split() if "=" in part)
        for line in vm.output.splitlines()
        if line.startswith("BEAT=") and line.endswith(" end")
    ]


def wait_for_beats(vm, more, past=()):
    """Until so many more lines have come, with each part of the load ahead of `past`."""
    have = len(beats(vm))
    while True:
        vm.expect(r"^BEAT=.* end", 120)
        bad = [line for line in vm.output.splitlines() if line.startswith(BAD_WORDS)]
        check(not bad, "\n".join(bad))
        now = beats(vm)
        if len(now) >= have + more and all(a > b for a, b in zip(counts(now[-1]), past)):
            return now


def counts(beat):
    """Of builds, of fio's reads and writes, of intervals that iperf3 reported, of each vCPU's counter."""
    parts = (beat["builds"], beat["blocks"], beat["intervals"], *beat["counts"].strip(",").split(","))
    return [int(n or 0) for n in parts]


def streamed(host, stream):
    """How many intervals the server saw bytes in, and how many numbers have arrived, none missing or
    twice, all over one connection."""
    connections, errors, intervals, *last = host.shell(
        "awk '/ connected to / { c++ } /iperf3:/ { e++ } / sec / && !/ 0.00 Bytes/ { n++ }"
        f" END {{ print c + 0, e + 0, n + 0 }}' {stream}.report; tail -n 1 {stream}.numbers"
    ).split()
    check(last[:1] != ["GAP"], f"the stream is broken: {last}")
    check(int(connections) <= 1 and errors == "0", host.shell(f"tail -n 20 {stream}.report"))
    return int(intervals), int(last[0]) if last else 0


def host_time(host):
    return int(host.shell("date +%s"))


@test(cost=400)
def a_loaded_guest_is_saved_and_restored_twenty_times(host):
    """4 vCPUs with fio verifying, a compiler whose output stays the same, and an iperf3 stream over
    one connection; nothing is lost, no vCPU stands still, clocks are as the policy says, and the
    kernel has no complaint."""
    disk = f"{host.scratch}/load-{host.next_number()}.raw"
    stream = f"{host.scratch}/stream-{host.next_number()}"
    host.shell(f"truncate -s 4M {disk}")
    make_tap(host, "load0", "10.88.0.1/24")
    server = SERVER.format(bytes=f"{stream}.bytes", numbers=f"{stream}.numbers", report=f"{stream}.report")
    server = host.start("sh", "-ec", server)
    vm = run_small(
        host, LOAD, "--cpus", "4", "--disk", f"{disk},overlay={disk}.overlay", "--disk", f"{host.path('debian/debian.raw')},ro",
        "--net", "tap=load0,address=10.88.0.2/24,bw=20K",
        files={f"picture/{file.name}": file.read_bytes() for file in SOURCES.iterdir()},
    )  # fmt: skip
    base = f"load-{host.next_number()}"
    try:
        vm.expect(r"^BUILT=5 PNG\r?$", 240)
        wait_for_beats(vm, 2)
        previous = None
        # What `continue` leaves behind stays behind: last.
        for number, policy in enumerate(["realtime"] * 18 + ["continue"] * 2):
            vm, previous = save_and_restore(host, vm, f"{base}-{number}", previous, stream, policy)
        check(server.status is None, f"iperf3 has ended with status {server.status}")
        masu(host, "kill", vm.name)
        vm.wait(30)
        masu(host, "rm", vm.name)
        masu(host, "snapshot", "rm", previous)
    finally:
        server.kill()


def save_and_restore(host, vm, snapshot, previous, stream, policy):
    """The VM that goes on from `snapshot`, which is made here; the last VM and snapshot are gone."""
    masu(host, "snapshot", "create", vm.name, snapshot, "--keep-paused")
    masu(host, "kill", vm.name)
    vm.wait(30)
    before = beats(vm)[-1]
    stood_still = host_time(host)
    sent = streamed(host, stream)
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
    while not all(now > then for now, then in zip(streamed(host, stream), sent)):
        check(time.monotonic() < deadline, f"the stream stopped at {sent}")
        time.sleep(0.5)
    return again, snapshot
