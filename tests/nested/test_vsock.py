"""Sockets between a Linux guest and programs on the host."""

from guests import Vm, run_small
from suite import check, test
from test_snapshot import masu

# The driver comes from Debian's disk.
JOB = """
use_debian
for module in vsock vmw_vsock_virtio_transport_common vmw_vsock_virtio_transport; do
  insmod $(find /mnt/lib/modules -name $module.ko)
done
echo-vsock serve 5000 &
echo-vsock guest 6000 1 6
echo-vsock guest 6001 1 1
echo-vsock hold 7000 &
while true; do sleep 1; done
"""


@test(cost=25)
def bytes_cross_both_ways_and_a_copy_begins_anew(host):
    """Megabytes each way at once, begun by either side, whole after one half has closed; nobody's
    ports are refused; a restored guest sees its old connection reset and takes new ones."""
    path = f"{host.scratch}/v{host.next_number()}"
    echo = host.path("bin/echo-vsock")
    listeners = [host.start(echo, "listen", f"{path}_{port}") for port in (6000, 7000)]
    for listener in listeners:
        listener.expect("LISTENING", 30)
    vm = run_small(host, JOB, "--net", "none", "--vsock", f"9,uds={path}",
                   "--disk", f"{host.path('debian/debian.raw')},ro", memory="128M",
                   initramfs="small/initramfs-programs")  # fmt: skip
    vm.expect("SERVING", 90)
    vm.expect(r"EXCHANGED sent=6291456 received=6291459 last=END", 120)
    check(listeners[0].wait(30) == 0 and "SERVED=6291456" in listeners[0].output, listeners[0].tail())
    vm.expect("FAILED connect: Connection reset by peer", 60)  # nobody listens for 6001
    vm.expect("HELD", 60)

    asked = host.run(echo, "host", path, "5000", "2", "6", timeout=180)
    check(asked.status == 0, asked.output + asked.errors)
    vm.expect("SERVED=6291456", 60)
    refused = host.run(echo, "host", path, "5001", "2", "1", timeout=60)
    check(refused.output == "REFUSED\n", refused.output)

    snapshot = f"vsock-{host.next_number()}"
    masu(host, "snapshot", "create", vm.name, snapshot)
    again = Vm(host, snapshot, name=f"{snapshot}-again", command=("snapshot", "restore"))
    again.expect("RELEASED=Connection reset by peer", 90)
    own = again.inspect()["vsock"]["uds_path"]
    check(own != path, own)
    for where, seed in ((own, "3"), (path, "4")):  # the original goes on too
        asked = host.run(echo, "host", where, "5000", seed, "1", timeout=120)
        check(asked.status == 0, asked.output + asked.errors)
    check("RELEASED" not in vm.output, vm.program.tail())
    for one in (vm, again):
        masu(host, "kill", one.name)
        one.wait(30)
    listeners[1].wait(30)  # the host's end of what was held went with the VM
    masu(host, "rm", vm.name, again.name)
    masu(host, "snapshot", "rm", snapshot)
