"""The network of a guest: through a TAP of this host, through passt, and what the monitor itself
answers (DHCP, the metadata service)."""

import contextlib
import time

from guests import Vm, run_small
from suite import Skip, check, test

# The guest's side: an address from DHCP, put in place as udhcpc's script does it everywhere.
DHCP = """
cat >/tmp/lease <<'SCRIPT'
#!/bin/busybox sh
[ "$1" = bound ] || exit 0
ip addr add $ip/$mask dev $interface
[ -z "$router" ] || ip route add default via $router dev $interface
[ -z "$mtu" ] || ip link set $interface mtu $mtu
echo "LEASE=$ip/$mask router=$router dns=$dns name=$hostname mtu=$mtu"
SCRIPT
chmod +x /tmp/lease; ip link set lo up; ip link set eth0 up
udhcpc -i eth0 -s /tmp/lease -n -q -t 60 -T 1 2>/dev/null
"""

# token: a session token in $TOKEN; imds PATH: what the metadata service answers.
IMDS = """
token() {
  TOKEN=$(printf 'PUT /latest/api/token HTTP/1.0\\r\\nX-aws-ec2-metadata-token-ttl-seconds: 60\\r\\n\\r\\n' |
    nc -w 60 169.254.169.254 80 | tail -n 1)
}
imds() { wget -q -O - --header "X-aws-ec2-metadata-token: $TOKEN" http://169.254.169.254/latest/$1; }
"""


def need_root(host):
    if host.shell("id -u").strip() != "0":
        raise Skip("making a TAP interface needs root")


def make_tap(host, name, address):
    """For the time of the test: two with the same network would have answers go out by the first."""
    need_root(host)
    host.shell(
        f"tunctl -t {name} >/dev/null && ip addr add {address} dev {name} && ip link set {name} up"
    )
    host.after_test.callback(host.shell, f"ip link del {name}")


def serve_files(host, address):
    """A web server on this host, listening, with a file of 3 MiB; returns the file's digest."""
    folder = f"{host.scratch}/www-{host.next_number()}"
    host.shell(f"mkdir {folder}; dd if=/dev/urandom of={folder}/file bs=64k count=48 2>/dev/null")
    server = host.start("busybox", "httpd", "-f", "-p", f"{address}:8000", "-h", folder)
    host.after_test.callback(server.kill)
    host.shell("until grep -q ':1F40 .* 0A ' /proc/net/tcp; do sleep 0.1; done")  # port 8000, LISTEN
    return host.shell(f"sha256sum <{folder}/file").split()[0]


@contextlib.contextmanager
def passt_and_its_way_out(host):
    """passt where it is looked for, and the default route that it wants, by way of 192.0.2.1."""
    need_root(host)
    if "no" in host.shell("[ -e /opt/passt ] && ln -sf /opt/passt /usr/bin/passt; which passt || echo no"):
        raise Skip("passt is not installed")
    host.shell(
        "tunctl -t up0 >/dev/null; ip addr add 192.0.2.1/24 dev up0; ip link set up0 up; "
        "ip route add default via 192.0.2.2 dev up0"
    )
    try:
        yield
    finally:
        host.shell(
            "(ip route del default; tunctl -d up0) >/dev/null 2>&1 || true; "
            "[ ! -L /usr/bin/passt ] || rm /usr/bin/passt"
        )


def finish(vm, timeout=180):
    status = vm.wait(timeout)
    check(status == 0, f"status {status}:\n{vm.program.tail(60)}")
    check(vm.value("GUEST-DONE") == "0", f"the guest's script failed:\n{vm.program.tail(60)}")
    return vm


@test(cost=25)
def a_tap_carries_traffic_and_the_monitor_answers(host):
    """DHCP and IMDS from the monitor; ping and TCP, both ways, with the host behind the TAP."""
    make_tap(host, "masu0", "172.31.0.1/20")
    digest = serve_files(host, "172.31.0.1")
    key = f"{host.scratch}/key.pub"
    host.shell(
        f"echo 'ssh-ed25519 AAAAC3 me@here' >{key}; printf '#!/bin/sh\\n' >{host.scratch}/data"
    )
    vm = finish(
        run_small(
            host,
            DHCP + IMDS + """set -e
            ping -c 3 -W 30 172.31.0.1 >/tmp/ping; echo PING=$(grep -c 'bytes from' /tmp/ping)
            echo SHA=$(wget -q -O - http://172.31.0.1:8000/file | sha256sum | cut -d' ' -f1)
            wget -O - http://169.254.169.254/latest/ 2>/tmp/refused || echo V1=$(grep -o 401 /tmp/refused)
            token
            echo ID=$(imds meta-data/instance-id)
            echo NAME=$(imds meta-data/hostname)
            echo MAC=$(imds meta-data/mac) $(cat /sys/class/net/eth0/address)
            echo IP=$(imds meta-data/local-ipv4)
            echo KEY=$(imds meta-data/public-keys/0/openssh-key)
            echo DATA=$(imds user-data)
            echo VENDOR=$(cat /sys/class/dmi/id/sys_vendor)
            echo UUID=$(cut -c1-3 /sys/class/dmi/id/product_uuid)
            """,
            "--net", "tap=masu0,address=172.31.0.10/20,gateway=172.31.0.1,dns=172.31.0.2",
            "--ssh-key", key, "--user-data", f"{host.scratch}/data", name="web",
        )
    )  # fmt: skip
    check(vm.value("LEASE").startswith("172.31.0.10/20 router=172.31.0.1 dns=172.31.0.2"
                                       " name=web"), vm.value("LEASE"))  # fmt: skip
    check(vm.value("PING") == "3", vm.value("PING"))
    check(vm.value("SHA") == digest, "the file came through changed")
    check(vm.value("V1") == "401", "the metadata service answered without a token")
    check(vm.value("ID").startswith("i-0"), vm.value("ID"))
    check(vm.value("NAME") == "web", vm.value("NAME"))
    mine, own = vm.value("MAC").split()
    check(mine == own, f"metadata says {mine}, the interface has {own}")
    check(vm.value("IP") == "172.31.0.10", vm.value("IP"))
    check(vm.value("KEY") == "ssh-ed25519 AAAAC3 me@here", vm.value("KEY"))
    check(vm.value("DATA") == "#!/bin/sh", vm.value("DATA"))
    check(vm.value("VENDOR") == "Amazon EC2", vm.value("VENDOR"))
    check(vm.value("UUID") == "ec2", vm.value("UUID"))


@test(cost=25)
def two_cpus_have_a_queue_each_over_mmio(host):
    """A TAP that masu makes; offloads and both queues, with the virtio-mmio transport, and a disk."""
    need_root(host)
    disk = f"{host.scratch}/mmio-{host.next_number()}.raw"
    host.shell(f"dd if=/dev/urandom of={disk} bs=1M count=8 2>&1")
    vm = run_small(
        host,
        """ip link set eth0 up; ip addr add 10.9.0.2/24 dev eth0
        echo QUEUES=$(ls -d /sys/class/net/eth0/queues/rx-* | wc -l)
        echo DRIVER=$(basename $(readlink -f /sys/block/vda/device/../driver))
        echo DISK=$(sha256sum </dev/vda | cut -d' ' -f1)
        echo WAITING=1
        until wget -q -O /dev/null http://10.9.0.1:8000/file; do sleep 1; done
        for i in 1 2 3 4; do
          wget -q -O - http://10.9.0.1:8000/file | sha256sum | cut -d' ' -f1 >/tmp/$i &
        done
        wait
        echo SHA=$(cat /tmp/1 /tmp/2 /tmp/3 /tmp/4 | sort -u | tr '\\n' ' ')""",
        "--net", "tap=masu1", "--transport", "mmio", "--cpus", "2", "--disk", disk,
    )  # fmt: skip
    vm.expect("WAITING=1")
    host.shell("ip addr add 10.9.0.1/24 dev masu1 && ip link set masu1 up")
    digest = serve_files(host, "10.9.0.1")
    finish(vm, 240)
    check(vm.value("QUEUES") == "2", vm.value("QUEUES"))
    check(vm.value("DRIVER") == "virtio-mmio", vm.value("DRIVER"))
    expected = host.shell(f"sha256sum <{disk}").split()[0]
    check(vm.value("DISK") == expected, "what the guest read is not what is on the disk")
    check(vm.value("SHA") == digest, vm.value("SHA"))
    check("masu1" not in host.shell("ip link"), "the TAP outlived its VM")


@test(cost=20)
def passt_carries_traffic_without_privileges(host):
    """--net user: out to a server on this host, in through a published port."""
    with passt_and_its_way_out(host):
        digest = serve_files(host, "192.0.2.1")
        vm = run_small(
            host,
            DHCP + """set -e
            echo SHA=$(wget -q -O - http://192.0.2.1:8000/file | sha256sum | cut -d' ' -f1)
            mkdir /tmp/w; echo hello-from-guest >/tmp/w/index.html; httpd -p 80 -h /tmp/w
            echo SERVING=1
            until [ -s /tmp/stop ]; do nc -l -p 81 >/tmp/stop; done""",
            "--net", "user", "-p", "8088:80", "-p", "8089:81",
        )  # fmt: skip
        vm.expect("SERVING=1", 240)
        page = host.shell("until busybox wget -q -O - http://127.0.0.1:8088/; do sleep 1; done")
        check(page.strip() == "hello-from-guest", page)
        # The guest may not listen yet.
        host.start("sh", "-c", "for i in $(seq 60); do echo x | busybox nc -w 3 127.0.0.1 8089; sleep 1; done")
        finish(vm)
        check(vm.value("SHA") == digest, vm.value("SHA"))
        for _ in range(50):
            if "passt" not in host.shell("ps -o comm"):
                break
            time.sleep(0.2)
        check("passt" not in host.shell("ps -o comm"), "passt outlived its VM")
