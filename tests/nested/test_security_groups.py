"""Security groups before a real guest: one that lies about who it is."""

import json

from guests import run_small
from suite import check, test
from test_net import finish, make_tap

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


def masu(host, *arguments):
    result = host.run(host.path("bin/masu"), *arguments)
    check(result.status == 0, f"masu {' '.join(arguments)}: {result.errors}")
    return result.output


def verdicts(host, vm):
    report = json.loads(masu(host, "sg", "counters", vm.name, "--output", "json"))
    return {name: count["packets"] for name, count in report["verdicts"].items()}


@test(cost=60)
def a_guest_that_lies_about_itself_is_not_heard(host):
    """Forged addresses, MACs, ARP replies, VLAN tags and EtherTypes reach nobody, and are counted."""
    make_tap(host, "masu3", "10.66.0.1/24")
    masu(host, "sg", "create", "liar", "--description", "may send anything, as itself")
    vm = run_small(host, OBEY, "--net", "tap=masu3,address=10.66.0.10/24", "--security-group", "liar",
                   name="liar")  # fmt: skip
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
    host.shell("tunctl -d masu3 >/dev/null")
