"""Security groups before a real guest: real traffic of every kind through a TAP, rules that change
under it, and a guest that lies about who it is."""

import json
import time

from guests import run_small
from suite import check, test
from test_net import finish, make_tap, serve_files

# The guest runs what the test types, a line at a time.
OBEY = """stty -echo
ip link set lo up; ip link set eth0 up
echo 0 >/proc/sys/net/ipv6/conf/eth0/accept_dad
ip addr add 10.66.0.10/24 dev eth0; ip -6 addr add fd66::10/64 dev eth0
ip route add default via 10.66.0.1
echo OBEYING=1
while read -r line; do [ "$line" != enough ] || break; eval "$line"; echo "RAN=$?"; done
"""

PATIENCE = 60


class Guest:
    def __init__(self, vm):
        self.vm = vm

    def status(self, line, timeout=PATIENCE):
        self.vm.type(line + "\n")
        return int(self.vm.expect(r"^RAN=(\d+)\r?$", timeout)[1])

    def do(self, line, timeout=PATIENCE):
        status = self.status(line, timeout)
        check(status == 0, f"status {status} in the guest from: {line}\n{self.vm.program.tail(20)}")

    def waits_for(self, text, file):
        """Whether the file holds the text, at the latest when patience ends."""
        return self.status(f"for i in $(seq {PATIENCE}); do grep -q {text} {file} && break; sleep 1; done; "
                           f"grep -q {text} {file}", 2 * PATIENCE) == 0  # fmt: skip


def masu(host, *arguments):
    result = host.run(host.path("bin/masu"), *arguments)
    check(result.status == 0, f"masu {' '.join(arguments)}: {result.errors}")
    return result.output


def verdicts(host, vm):
    report = json.loads(masu(host, "sg", "counters", vm.name, "--output", "json"))
    return {name: count["packets"] for name, count in report["verdicts"].items()}


def answers(host, port):
    """Whether a TCP connection to the guest's port comes about; a refusal comes at once."""
    begin = time.monotonic()
    status = host.run("busybox", "nc", "-w", "3", "10.66.0.10", str(port)).status
    return status == 0, time.monotonic() - begin


@test(cost=120)
def rules_hold_against_real_traffic(host):
    """ICMP, fragments, IPv6, traceroute, port scans, bulk data, rules revoked in mid-flow."""
    make_tap(host, "masu2", "10.66.0.1/24")
    host.shell("echo 0 >/proc/sys/net/ipv6/conf/masu2/accept_dad; ip -6 addr add fd66::1/64 dev masu2; echo 1 >/proc/sys/net/ipv4/conf/masu2/forwarding; "
               "ip route add 192.0.2.0/24 dev masu2")  # fmt: skip
    digest = serve_files(host, "10.66.0.1")
    masu(host, "sg", "create", "traffic", "--description", "what a test lets in")

    def rule(verb, *words):
        masu(host, "sg", verb, "traffic", *words)

    everyone = ("--protocol", "tcp", "--port", "5000", "--cidr", "0.0.0.0/0")
    neighbours = ("--protocol", "tcp", "--port", "5001", "--cidr", "10.66.0.0/24")
    rule("authorize", *everyone)
    rule("authorize", *neighbours)
    vm = run_small(host, OBEY, "--net", "tap=masu2,address=10.66.0.10/24,gateway=10.66.0.1,address6=fd66::10/64",
                   "--security-group", "traffic", "--flow-logs", name="traffic")  # fmt: skip
    vm.expect("OBEYING=1", 240)
    guest = Guest(vm)

    # Out goes everything, and its answers come in: whole, in fragments, and over IPv6.
    guest.do("ping -c 2 -W 10 10.66.0.1 && ping -c 2 -W 10 -s 4000 10.66.0.1", 120)
    guest.do("ping6 -c 2 -W 10 fd66::1 && ping6 -c 2 -W 10 -s 4000 fd66::1", 120)
    guest.do(f"wget -q -O - http://10.66.0.1:8000/file | sha256sum | grep -q {digest}", 240)
    host.start("busybox", "httpd", "-f", "-p", "[fd66::1]:8006", "-h", host.scratch)
    host.shell(f"echo over-six >{host.scratch}/six")
    guest.do("wget -q -O - http://[fd66::1]:8006/six | grep -q over-six")
    # In come no pings but for a rule, of each family.
    ping = "ping -c 1 -W 2 -s 4000 10.66.0.10 >/dev/null"
    ping6 = "ping6 -c 1 -W 2 -s 4000 fd66::10 >/dev/null"
    check(host.run("sh", "-c", ping).status != 0, "a ping came in without a rule")
    rule("authorize", "--protocol", "icmp", "--icmp-type", "8", "--cidr", "0.0.0.0/0")
    host.shell(ping.replace("-W 2", "-W 10"))
    check(host.run("sh", "-c", ping6).status != 0, "a rule of IPv4 let a ping of IPv6 in")
    rule("authorize", "--protocol", "icmpv6", "--icmp-type", "128", "--cidr", "::/0")
    host.shell(ping6.replace("-W 2", "-W 10"))
    # An error about a flow of the guest's belongs to it, until that is forbidden.
    trace = "traceroute -n -m 1 -q 1 -w {} 192.0.2.9 2>&1 | grep -q ' 10.66.0.1 '"
    guest.do(trace.format(20))
    masu(host, "sg", "modify", "traffic", "--icmp-errors", "strict")
    check(guest.status(trace.format(3)) != 0, "an ICMP error passed although a rule was needed")
    masu(host, "sg", "modify", "traffic", "--icmp-errors", "related")

    # A scan finds the open port and the refusal of a closed one; of others it hears nothing.
    guest.do("nc -ll -p 6000 -e true >/dev/null 2>&1 & nc -ll -p 5000 -e true >/dev/null 2>&1 &")
    guest.do("for i in $(seq 60); do netstat -ltn | grep -q :6000 && netstat -ltn | grep -q :5000 && break; sleep 1; done")
    check(answers(host, 5000)[0], "the open port does not answer")
    check(host.run("busybox", "nc", "-w", "20", "10.66.0.10", "5001").errors.find("refused") >= 0,
          "a closed port with a rule does not refuse")  # fmt: skip
    for port in (22, 6000):
        status, seconds = answers(host, port)
        check(not status and seconds > 2.5, f"port {port} answered after {seconds:.1f} s")

    # Revoked in mid-flow: the tracked flow goes on, the untracked one stops at its next packet.
    guest.do("killall nc; sleep 1; sleep 999 | nc -l -p 5000 >/tmp/5000 & sleep 999 | nc -l -p 5001 >/tmp/5001 &")
    guest.do("for i in $(seq 60); do netstat -ltn | grep -q :5001 && netstat -ltn | grep -q :5000 && break; sleep 1; done")
    flows = {port: host.start("busybox", "nc", "10.66.0.10", str(port)) for port in (5000, 5001)}
    for port, flow in flows.items():
        flow.write("before\n")
        check(guest.waits_for("before", f"/tmp/{port}"), f"port {port} got nothing")
    rule("revoke", *everyone)
    rule("revoke", *neighbours)
    flows[5000].write("after\n")
    flows[5001].write("after\n")
    check(guest.waits_for("after", "/tmp/5001"), "the tracked flow did not survive its rule")
    check(guest.status("grep -q after /tmp/5000") != 0, "the untracked flow survived its rule")
    check(not answers(host, 5001)[0], "a new flow began without a rule")
    rule("authorize", *everyone)
    check(guest.waits_for("after", "/tmp/5000"), "the untracked flow did not come back with its rule")

    # Bulk data, from the guest to this host; the other way went above.
    sink = host.start("sh", "-c", "busybox nc -l -p 7000 | sha256sum")
    host.shell("for i in $(seq 60); do busybox netstat -ltn | grep -q :7000 && break; sleep 1; done")
    guest.do("dd if=/dev/urandom of=/tmp/bulk bs=64k count=48 2>/dev/null; sha256sum </tmp/bulk >/tmp/sum")
    guest.do("echo BULK=$(cut -d' ' -f1 /tmp/sum)")
    guest.do("nc 10.66.0.1 7000 </tmp/bulk", 240)
    sink.wait(PATIENCE)
    check(sink.output.split()[0] == vm.value("BULK"), "what the guest sent came through changed")

    vm.type("enough\n")
    finish(vm)
    log = masu(host, "flow-logs", "traffic")
    check(" 6000 6 " in log and "REJECT OK" in log and "ACCEPT OK" in log, log)
    masu(host, "rm", "traffic")
    masu(host, "sg", "rm", "traffic")


@test(cost=60)
def a_guest_that_lies_about_itself_is_not_heard(host):
    """Forged addresses, MACs, ARP replies, VLAN tags and EtherTypes reach nobody, and are counted."""
    make_tap(host, "masu3", "10.66.0.1/24")
    masu(host, "sg", "create", "liar", "--description", "may send anything, as itself")
    vm = run_small(host, OBEY, "--net", "tap=masu3,address=10.66.0.10/24", "--security-group", "liar",
                   name="liar", initramfs="small/initramfs-programs")  # fmt: skip
    vm.expect("OBEYING=1", 240)
    guest = Guest(vm)
    watch = host.start(host.path("bin/forge-frames"), "watch", "masu3")
    watch.expect("watching", PATIENCE)
    before = verdicts(host, vm)
    guest.do("forge-frames send eth0 $(cat /sys/class/net/eth0/address) 10.66.0.10 10.66.0.1")
    watch.expect("saw honest-last", PATIENCE)
    seen = [line.removeprefix("saw ") for line in watch.output.split("\n") if line.startswith("saw ")]
    check(seen == ["honest-first", "honest-arp", "honest-last"], f"frames that came out: {seen}")
    after = verdicts(host, vm)
    grown = {name: after[name] - before[name] for name in after}
    check(grown["source_check"] >= 2 and grown["source_mac"] >= 1 and grown["neighbor_spoof"] >= 2
          and grown["unsupported_frame"] >= 2, f"counted: {grown}")  # fmt: skip
    watch.kill()
    vm.type("enough\n")
    finish(vm)
    masu(host, "rm", "liar")
    masu(host, "sg", "rm", "liar")
