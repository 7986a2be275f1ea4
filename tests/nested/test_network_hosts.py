"""Security groups between a guest and hosts of their own: network namespaces that this host routes
to, one of which the rules admit. iperf3, curl, ssh, and changes while their data flows."""

import json
import re
import shlex

from guests import run_small
from suite import Skip, check, test
from test_net import make_tap, need_root
from test_security_groups import PATIENCE, Guest, finish, masu, verdicts

# The guest runs what the test types, a line at a time.
JOB = """stty -echo
mkdir -p /etc/dropbear /root /tmp/www; echo 'root::0:0:root:/root:/bin/sh' >/etc/passwd
ip link set lo up; ip link set eth0 up; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ip addr add 10.66.0.10/24 dev eth0; ip -6 addr add fd66::10/64 dev eth0
ip route add default via 10.66.0.1; ip -6 route add default via fd66::1
mount -t devpts devpts /dev/pts 2>/dev/null || { mkdir /dev/pts; mount -t devpts devpts /dev/pts; }
dd if=/dev/urandom of=/tmp/www/file bs=64k count=16 2>/dev/null
echo FILE=$(sha256sum </tmp/www/file | cut -d' ' -f1)
httpd -p 80 -h /tmp/www; dropbear -R -B
iperf3 -s -D -p 5201; iperf3 -s -D -p 5202
for port in 22 80 5201 5202; do
  until netstat -ltn | grep -q ":$port "; do sleep 0.2; done
done
echo SERVING=1
while read -r line; do [ "$line" != enough ] || break; eval "$line"; echo "RAN=$?"; done
"""
GUEST = {4: "10.66.0.10", 6: "fd66::10"}
# A line a second. A pace leaves the emulated processor time for what else happens.
PACED = ("-R", "-t", "600", "-b", "250K", "-l", "2K", "-i", "1", "-f", "k", "--forceflush")


class Neighbour:
    """A host in a network namespace, behind a veth pair to this host, which routes to it. The way
    to it is narrower than the TAP: what is sent there must learn so from an ICMP error."""

    def __init__(self, host, name, number):
        self.host = host
        self.name = name
        self.address = {4: f"10.66.{number}.2", 6: f"fd66:{number}::2"}
        self.holder = host.start("unshare", "-n", "sh", "-c", "echo PID=$$; exec sleep 99999")
        pid = self.holder.expect(r"PID=(\d+)", PATIENCE)[1]
        self.enter = ("nsenter", "-t", pid, "-n")
        inside = (
            f"ip link set lo up; ip link add eth0 type veth; ip link set veth0 name {name}; "
            f"ip link set {name} netns $0; echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad; "
            f"ip link set eth0 up; ip addr add 10.66.{number}.2/24 dev eth0; "
            f"ip -6 addr add fd66:{number}::2/64 dev eth0; "
            f"ip route add default via 10.66.{number}.1; ip -6 route add default via fd66:{number}::1"
        )
        # $0 is the outer shell, in this host's own namespace. It is not replaced by its last command.
        host.shell(f"{shlex.join(self.enter)} sh -ec {shlex.quote(inside)} $$; true")
        host.shell(
            f"echo 0 >/proc/sys/net/ipv6/conf/{name}/accept_dad; echo 1 >/proc/sys/net/ipv4/conf/{name}/forwarding; "
            f"ip addr add 10.66.{number}.1/24 dev {name}; ip -6 addr add fd66:{number}::1/64 dev {name}; "
            f"ip link set {name} up; ip route add {self.address[4]}/32 dev {name} mtu 1400; "
            f"ip -6 route add {self.address[6]}/128 dev {name} mtu 1400"
        )

    def start(self, *argv):
        return self.host.start(*self.enter, *argv)

    def run(self, *argv, timeout=PATIENCE):
        return self.host.run(*self.enter, *argv, timeout=timeout)

    def close(self):
        self.holder.kill()  # and its namespace and both ends of the pair go with it


def need_network_programs(host):
    need_root(host)
    here = "command -v iperf3 && command -v curl && command -v dbclient && command -v unshare"
    if host.run("sh", "-c", f"{here} && [ -e {host.path('small/initramfs-network')} ]").status:
        raise Skip("iperf3, curl or dropbear-bin is not installed; tools/setup installs them")


def iperf3(neighbour, family, *words):
    """Both ways at once; returns the bytes or packets that arrived, in each direction."""
    result = neighbour.run("iperf3", "-c", GUEST[family], "-t", "1", "--bidir", "-J", *words, timeout=120)
    check(result.status == 0, f"iperf3 {words} over IPv{family}: {result.output}{result.errors}")
    end = json.loads(result.output)["end"]
    if "-u" not in words:
        return end["sum_received"]["bytes"], end["sum_received_bidir_reverse"]["bytes"]
    return tuple(s["packets"] - s["lost_packets"] for s in (end["sum"], end["sum_bidir_reverse"]))


def check_what_is_admitted(near, digest):
    for family in (4, 6):
        url = f"http://{GUEST[family] if family == 4 else f'[{GUEST[family]}]'}/file"
        sum_ = near.run("sh", "-c", f"curl -s -m 200 {url} | sha256sum", timeout=240).output.split()[0]
        check(sum_ == digest, f"curl over IPv{family} got another file")
        ping = near.run("ping", f"-{family}", "-c", "2", "-W", "10", "-s", "3000", GUEST[family])
        check(ping.status == 0, ping.output + ping.errors)
        for words in (["-b", "5M"], ["-u", "-b", "500K", "-l", "3000"]):  # the second: in fragments
            there, back = iperf3(near, family, *words)
            check(there > 0 and back > 0, f"iperf3 {words}, IPv{family}: {there} arrived there, {back} back")
    ssh = near.run("dbclient", "-y", "-y", f"root@{GUEST[4]}", "cat /proc/version; exit 7", timeout=120)
    check(ssh.status == 7 and ssh.output.startswith("Linux version"), ssh.output + ssh.errors)


def check_what_is_not(far, open_port):
    """Every way in at once: each waits for an answer that does not come."""
    tries = {
        "curl": f"curl -s -m 6 http://{GUEST[4]}/file",
        "curl over IPv6": f"curl -s -m 6 http://[{GUEST[6]}]/file",
        "ping": f"ping -c 2 -W 5 {GUEST[4]}",
        "ping of fragments": f"ping -c 2 -W 5 -s 3000 {GUEST[4]}",
        "ping over IPv6": f"ping -6 -c 2 -W 5 {GUEST[6]}",
        "iperf3": f"iperf3 -c {GUEST[4]} --connect-timeout 6000 -t 1",
        "ssh": f"timeout 6 dbclient -y -y root@{GUEST[4]} true </dev/null",
    }
    running = {what: far.start("sh", "-c", line) for what, line in tries.items()}
    ports = (21, 22, 79, 80, 443, 5200, 5201, open_port)
    scan = {port: far.start("busybox", "nc", "-w", "6", GUEST[4], str(port)) for port in ports}
    for program in scan.values():
        program.close_input()
    for what, program in running.items():
        check(program.wait(PATIENCE) != 0, f"{what} came in from a host that no rule names: {program.output}")
    answered = [port for port, program in scan.items()
                if program.wait(PATIENCE) == 0 or "refused" in program.errors]  # fmt: skip
    check(answered == [open_port], f"a scan from a host that no rule names finds {answered}")


def check_the_way_out(guest, near, far):
    """The guest may begin anything; answers and errors of the routers on the way belong to it."""
    for neighbour in (near, far):
        neighbour.start("busybox", "httpd", "-f", "-p", "[::]:8000", "-h", neighbour.host.scratch)
        for family, url in ((4, neighbour.address[4]), (6, f"[{neighbour.address[6]}]")):
            guest.do(f"curl -s -m 100 --retry 9 --retry-connrefused http://{url}:8000/word | grep -q heard", 120)
        guest.do(f"traceroute -n -q 1 -w 20 -m 3 {neighbour.address[4]} >/tmp/trace 2>&1; "
                 f"grep -q '^ 1 .*10.66.0.1 ' /tmp/trace && grep -q '^ 2 .*{neighbour.address[4]} ' /tmp/trace")  # fmt: skip
    # The first large packets on this way: larger than it takes, as an ICMP error says.
    too_big = {4: "awk '/^Icmp:/ { n = $5 } END { print n }' /proc/net/snmp",
               6: "awk '/^Icmp6InPktTooBigs/ { print $2 }' /proc/net/snmp6"}  # fmt: skip
    for family, count in too_big.items():
        server = near.start("iperf3", "-s", "-1", "-p", "5209", "--forceflush")
        server.expect("listening", PATIENCE)
        guest.do(f"before=$({count}); iperf3 -c {near.address[family]} -p 5209 -n 1M >/tmp/iperf 2>&1 || "
                 "{ cat /tmp/iperf; false; }", 200)  # fmt: skip
        guest.do(f"[ $({count}) -gt $before ]")
        server.wait(PATIENCE)


def flows_on(flow):
    """Waits for data that arrives from now on: the first of two lines may tell of an earlier moment."""
    flow._seen = len(flow.output)
    for _ in range(2):
        flow.expect(r"sec +[1-9][\d.]* [KM]Bytes", PATIENCE)


def stops(flow):
    flow.expect(r"sec +0\.00 Bytes", PATIENCE)
    flow.expect(r"sec +0\.00 Bytes", PATIENCE)


def connects(neighbour, port):
    return neighbour.run("sh", "-c", f"busybox nc -w 5 {GUEST[4]} {port} </dev/null").status == 0


def check_changes_in_mid_flow(host, near, far):
    """A tracked flow outlives its rule and its group, an untracked one stops and comes back."""
    tracked = near.start("iperf3", "-c", GUEST[4], "-p", "5201", *PACED)
    untracked = far.start("iperf3", "-c", GUEST[4], "-p", "5202", *PACED)
    both = (tracked, untracked)
    changes = (
        (("sg", "revoke", "hosts-near", "--protocol", "tcp", "--port", "5200-5201", "--cidr", "10.66.1.0/24"),
         ("sg", "authorize", "hosts-near", "--protocol", "tcp", "--port", "5200-5201", "--cidr", "10.66.1.0/24"),
         ("sg", "revoke", "hosts-all", "--protocol", "tcp", "--port", "5202", "--cidr", "0.0.0.0/0"),
         ("sg", "authorize", "hosts-all", "--protocol", "tcp", "--port", "5202", "--cidr", "0.0.0.0/0")),
        (("sg", "detach", "hosts", "hosts-near"), ("sg", "attach", "hosts", "hosts-near"),
         ("sg", "detach", "hosts", "hosts-all"), ("sg", "attach", "hosts", "hosts-all")),
    )  # fmt: skip
    for close_near, open_near, close_all, open_all in changes:
        for flow in both:
            flows_on(flow)
        masu(host, *close_near)
        flows_on(tracked)
        check(not connects(near, 5201), f"a connection came about after {close_near}")
        masu(host, *open_near)
        check(connects(near, 5201), f"no connection came about after {open_near}")
        masu(host, *close_all)
        stops(untracked)
        check(not connects(far, 5202), f"a connection came about after {close_all}")
        masu(host, *open_all)
        flows_on(untracked)
        flows_on(tracked)
    for flow in both:
        flow.kill()


@test(cost=150, needs=["network-programs"])
def hosts_beyond_a_router_are_judged_by_their_addresses(host):
    """iperf3, curl, ssh, scans and pings from two hosts; rules and groups changed in mid-flow."""
    need_network_programs(host)
    make_tap(host, "masu4", "10.66.0.1/24")
    forwarding = host.shell("cat /proc/sys/net/ipv6/conf/all/forwarding").strip()
    host.shell(
        "echo 0 >/proc/sys/net/ipv6/conf/masu4/accept_dad; ip -6 addr add fd66::1/64 dev masu4; "
        "echo 1 >/proc/sys/net/ipv4/conf/masu4/forwarding; echo 1 >/proc/sys/net/ipv6/conf/all/forwarding; "
        f"echo heard >{host.scratch}/word"
    )
    near, far = Neighbour(host, "near0", 1), Neighbour(host, "far0", 2)
    for group in ("hosts-near", "hosts-all"):
        masu(host, "sg", "create", group, "--description", "of a test")
    for network, ping in (("10.66.1.0/24", ("icmp", "8")), ("fd66:1::/64", ("icmpv6", "128"))):
        for protocol, port in (("tcp", "22"), ("tcp", "80"), ("tcp", "5200-5201"), ("udp", "5201")):
            masu(host, "sg", "authorize", "hosts-near", "--protocol", protocol, "--port", port, "--cidr", network)
        masu(host, "sg", "authorize", "hosts-near", "--protocol", ping[0], "--icmp-type", ping[1], "--cidr", network)
    masu(host, "sg", "authorize", "hosts-all", "--protocol", "tcp", "--port", "5202", "--cidr", "0.0.0.0/0")
    vm = run_small(host, JOB, "--net", "tap=masu4,address=10.66.0.10/24,gateway=10.66.0.1,address6=fd66::10/64",
                   "--security-group", "hosts-near", "--security-group", "hosts-all", name="hosts",
                   initramfs="small/initramfs-network")  # fmt: skip
    vm.expect("SERVING=1", 240)
    guest = Guest(vm)

    check_the_way_out(guest, near, far)
    check_what_is_admitted(near, vm.value("FILE"))
    before = verdicts(host, vm)["no_rule"]
    check_what_is_not(far, 5202)
    refused = verdicts(host, vm)["no_rule"] - before
    check(refused >= 14, f"{refused} packets were counted as refused")
    check_changes_in_mid_flow(host, near, far)

    vm.type("enough\n")
    finish(vm)
    masu(host, "rm", "hosts")
    for group in ("hosts-near", "hosts-all"):
        masu(host, "sg", "rm", group)
    near.close()
    far.close()
    host.shell(f"echo {forwarding} >/proc/sys/net/ipv6/conf/all/forwarding")
