"""Networks of several VMs on one host: of a switch, made and used without root, and of a bridge."""

import json
import shlex

from guests import SPARED, Cpio, Vm
from suite import Skip, check, test
from test_net import DHCP

# An address by DHCP, the other by router advertisement; then a shell on the console.
JOB = DHCP + """
httpd -p 7000 -h /tmp
echo hello >/tmp/x
dd if=/dev/zero of=/tmp/large bs=1M count=8 2>/dev/null
ready() { ip -6 addr show dev eth0 scope global | grep -v tentative | grep -q fd00; }
for i in $(seq 60); do ! ready || break; sleep 1; done
echo ADDRESS6=$(ip -6 addr show dev eth0 scope global | grep -o 'fd00[^ ]*')
echo READY=1
sh
"""


class Person:
    """Runs masu as somebody without privileges, where the host can spare them, or as who the tests are."""

    def __init__(self, host, privileged=False):
        self.host = host
        self.state = f"/tmp/person-{host.next_number()}"
        self.prefix = ["env", f"MASU_STATE_DIR={self.state}"]
        self.mode = None
        if host.nested and not privileged:
            host.shell(f"mkdir -m 700 {self.state} && chown 65534 {self.state}")
            self.mode = host.shell("stat -c %a /dev/kvm").strip()
            host.shell("chmod 666 /dev/kvm")
            self.prefix = ["setpriv", "--reuid=65534", "--clear-groups", *self.prefix]

    def run(self, *arguments):
        return self.host.run(*self.prefix, self.host.path("bin/masu"), *arguments)

    def masu(self, *arguments):
        result = self.run(*arguments)
        check(result.status == 0, f"masu {shlex.join(arguments)}: {result.errors}")
        return result.output

    def network(self):
        return json.loads(self.masu("net", "inspect", "lab", "--output", "json"))

    def start(self, name, *arguments):
        archive = Cpio()
        archive.file("job", JOB.encode())
        initrd = f"{self.host.scratch}/{name}-{self.host.next_number()}.initrd"
        self.host.shell(f"cat {shlex.quote(self.host.path('small/initramfs'))} - >{initrd}", data=archive.bytes())
        return self.start_program(
            name, "run", "--kernel", self.host.path("debian/vmlinux"), "--initrd", initrd,
            "--append", f"quiet {SPARED}", "--memory", "192M", "--net", "network=lab", *arguments,
        )  # fmt: skip

    def start_program(self, name, *command):
        return PersonsVm(self, *command, name=name)

    def attach(self, name):
        return PersonsVm(self, "console", name=name)

    def leave(self):
        names = self.run("ps", "-a", "--names").output.split()
        if names:
            self.run("rm", "-f", *names)
        if self.mode:
            self.host.shell(f"chmod {self.mode} /dev/kvm")
        self.host.shell(f"rm -rf {self.state}")


class PersonsVm(Vm):
    def __init__(self, person, *command, name):
        self.host = person.host
        self.person = person
        self.name = name
        words = (*command, name) if command == ("console",) else (*command, "--name", name)
        self.program = self.host.start(*person.prefix, self.host.path("bin/masu"), *words, terminal=True)

    def ask(self, address, seconds):
        request = r"printf 'GET /x HTTP/1.0\r\n\r\n'"
        return self.command(f"{request} | nc -w {seconds} {address} 7000 2>&1 || echo NOT-'REACHED'")

    def must_reach(self, *addresses):
        for address in addresses:
            text = self.ask(address, 60)
            check("hello" in text, f"{self.name} does not reach {address}: {text}\n" + self.counters())

    def must_not_reach(self, *addresses):
        for address in addresses:
            text = self.ask(address, 4)
            check("NOT-REACHED" in text and "timed out" in text, f"{self.name} reaches {address}: {text}")

    def counters(self):
        return self.person.masu("net", "inspect", "lab")


@test(cost=110)
def vms_on_a_network_reach_each_other_as_their_groups_admit(host):
    person = Person(host)
    try:
        talk(host, person)
    finally:
        person.leave()


def talk(host, person):
    person.masu("net", "create", "lab", "--subnet", "10.1.0.0/24", "--subnet6", "fd00:1::/64")
    for group in ("web", "db"):
        person.masu("sg", "create", group, "--description", group)
    rule = ("db", "--protocol", "tcp", "--port", "7000", "--source-group", "web")
    person.masu("sg", "authorize", *rule)
    person.masu("sg", "authorize", "db", "--protocol", "icmp", "--source-group", "web")
    # One after the other: a monitor that loads a kernel on a slow host takes its time for new rules.
    db = person.start("db", "--security-group", "db")
    db.expect("^READY=1", 240)
    web = person.start("web", "--security-group", "web")
    web.expect("^READY=1", 240)
    other = person.start("other")
    other.expect("^READY=1", 240)

    # Each guest has what its lease says, in both families.
    leases = {m["vm"]: m for m in person.network()["vms"]}
    for vm in (db, web, other):
        lease = leases[vm.name]
        check(vm.value("LEASE").startswith(lease["address"] + "/24 router= "), vm.value("LEASE"))
        check(vm.value("ADDRESS6") == lease["address6"] + "/64", vm.value("ADDRESS6"))
    check(len({m["address"] for m in leases.values()}) == 3, str(leases))
    to, to6 = leases["db"]["address"], leases["db"]["address6"]

    # A member of the group that the rule names gets in; another does not, nor in its name.
    check("bytes from" in web.command(f"ping -c 1 -W 30 {to}"), "no answer to the member's ping")
    web.must_reach(to, to6)
    other.must_not_reach(to, to6)
    db.must_not_reach(leases["web"]["address"])
    web_address = leases["web"]["address"]
    forged = other.command(
        f"ip addr add {web_address}/32 dev eth0; ping -c 1 -W 3 -I {web_address} {to} | grep -c 'bytes from' || true"
    )
    check(forged.strip().endswith("0"), f"a forged address was answered: {forged}")

    person.masu("sg", "revoke", *rule)
    web.must_not_reach(to, to6)
    person.masu("sg", "authorize", *rule)
    web.must_reach(to)

    # Saved and restored, it is back at its address, a member, and its neighbours know no difference.
    person.masu("snapshot", "create", "web", "warm", "--keep-paused")
    person.masu("kill", "web")
    web.wait(60)
    person.masu("rm", "web")
    web = person.start_program("web", "snapshot", "restore", "warm")
    web.must_reach(to, to6)
    db.must_not_reach(web_address)
    taken = person.run("snapshot", "restore", "warm", "--name", "second", "-d")
    check(taken.status == 1 and web_address in taken.errors, f"{taken.status}: {taken.errors}")

    copies_beside_the_original(person, web, leases)

    # Who leaves is no member any more; its address is nobody's; the rest goes on.
    refused = person.run("net", "rm", "lab")
    check(refused.status == 1 and "network lab is in use by VM" in refused.errors, refused.errors)
    web.type("exit\n")
    check(web.wait(120) == 0, web.program.tail())
    check({m["vm"] for m in person.network()["vms"]} == {"db", "other"}, str(person.network()))
    person.masu("sg", "attach", "other", "web")
    other.must_reach(to)
    for vm in (db, other):
        vm.type("exit\n")
        check(vm.wait(120) == 0, vm.program.tail())
    person.masu("net", "rm", "lab")
    processes = host.shell("ps -o pid,comm,args")
    check("net-switch" not in processes, f"the switch outlived its VMs:\n{processes}")


def copies_beside_the_original(person, web, before):
    """Three guests with one MAC in memory, each known to the others by an address and a MAC of its own."""
    person.masu("sg", "authorize", "web", "--protocol", "tcp", "--port", "7000", "--source-group", "web")
    person.masu("snapshot", "clone", "warm", "--count", "2", "--name", "copy")
    leases = {m["vm"]: m for m in person.network()["vms"]}
    check(len({m["mac"] for m in leases.values()}) == 5, str(leases))
    copies = [person.attach(f"copy-{number}") for number in (1, 2)]
    for copy in copies:
        text = copy.command(
            "ip -4 addr flush dev eth0; udhcpc -i eth0 -s /tmp/lease -n -q -t 60 -T 1 2>/dev/null; ip link show eth0"
        )
        check(f"LEASE={leases[copy.name]['address']}/24" in text, f"{leases[copy.name]}: {text}")
        check(f"link/ether {before['web']['mac']} " in text, f"the guest's MAC changed: {text}")
    one, two = copies
    one.must_reach(leases["copy-2"]["address"], leases["web"]["address"], leases["db"]["address"])
    two.must_reach(leases["copy-1"]["address"])
    web.must_reach(leases["copy-2"]["address"])
    neighbors = one.command("ip neigh")
    for vm, mac in (("copy-2", leases["copy-2"]["mac"]), ("web", leases["copy-1"]["mac"])):
        entry = f"{leases[vm]['address']} dev eth0 lladdr {mac} "
        check(entry in neighbors, f"no \"{entry}\" in: {neighbors}")
    names = [copy.name for copy in copies]
    person.masu("kill", *names)
    for copy in copies:
        copy.program.wait(60)
    person.masu("rm", *names)


@test(cost=70)
def vms_on_a_bridge_send_large_segments_as_their_groups_admit(host):
    person = Person(host, privileged=True)
    try:
        talk_over_a_bridge(host, person)
    finally:
        person.leave()


def talk_over_a_bridge(host, person):
    made = person.run("net", "create", "lab", "--driver", "bridge", "--subnet", "10.1.0.0/24", "--subnet6", "fd00:1::/64")
    if made.status != 0 and not host.nested:
        raise Skip(made.errors.strip())
    check(made.status == 0, made.errors)
    for group in ("one", "two"):
        person.masu("sg", "create", group, "--description", group)
    for group, peer in (("one", "two"), ("two", "one")):
        person.masu("sg", "authorize", group, "--protocol", "tcp", "--port", "7000", "--source-group", peer)
    person.masu("sg", "authorize", "one", "--protocol", "icmp", "--source-group", "two")
    vms = {}
    for name in ("one", "two"):
        vms[name] = person.start(name, "--security-group", name)
        vms[name].expect("^READY=1", 240)
    leases = {m["vm"]: m for m in person.network()["vms"]}
    one, two = vms["one"], vms["two"]
    one.must_reach(leases["two"]["address6"])

    # Much data, both ways, in fewer and larger pieces than the MTU of 1500 has room for.
    for vm, other in ((one, "two"), (two, "one")):
        request = r"printf 'GET /large HTTP/1.0\r\n\r\n'"
        got = vm.command(f"{request} | nc {leases[other]['address']} 7000 | wc -c", 240)
        check(int(got.split()[-1]) > 8 << 20, f"{vm.name} got {got}")
    for member in person.network()["vms"]:
        check(member["received_bytes"] / member["received_frames"] > 2000, f"no large segments: {member}")

    # Nobody is answered in another's name.
    ping = f"ping -c 1 -W 20 {leases['one']['address']}"
    check("bytes from" in two.command(ping), "no answer to the member's ping")
    forged = two.command(f"ip addr add 10.1.0.77/32 dev eth0; {ping} -I 10.1.0.77 | grep -c 'bytes from' || true")
    check(forged.strip().endswith("0"), f"a forged address was answered: {forged}")
    person.masu("sg", "revoke", "one", "--protocol", "tcp", "--port", "7000", "--source-group", "two")
    two.must_not_reach(leases["one"]["address"])

    # The kernel carries on without the process that made the bridge.
    if host.nested:
        host.shell("kill -9 $(ps -o pid,args | awk '/[n]et-switch/ { print $1 }')")
        one.must_reach(leases["two"]["address"])
    for vm in (one, two):
        vm.type("exit\n")
        check(vm.wait(120) == 0, vm.program.tail())
    person.masu("net", "rm", "lab")
    processes = host.shell("ps -o pid,comm,args")
    check("net-switch" not in processes, f"the bridge's process outlived its VMs:\n{processes}")
