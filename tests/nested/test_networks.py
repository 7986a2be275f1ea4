"""Networks of several VMs on one host, made and used without root."""

import json
import shlex

from guests import Cpio, Vm
from suite import check, test
from test_net import DHCP

# An address by DHCP, the other by router advertisement; then a shell on the console.
JOB = DHCP + """
ready() { ip -6 addr show dev eth0 scope global | grep -v tentative | grep -q fd00; }
for i in $(seq 60); do ! ready || break; sleep 1; done
echo ADDRESS6=$(ip -6 addr show dev eth0 scope global | grep -o 'fd00[^ ]*')
echo READY=1
sh
"""


class Person:
    """Runs masu as somebody without privileges, where the host can spare them."""

    def __init__(self, host):
        self.host = host
        self.state = f"/tmp/person-{host.next_number()}"
        self.prefix = ["env", f"MASU_STATE_DIR={self.state}"]
        if host.nested:
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
        return PersonsVm(self, "--kernel", self.host.path("debian/vmlinux"), "--initrd", initrd,
                         "--append", "quiet", "--memory", "192M", "--net", "network=lab", *arguments,
                         name=name)  # fmt: skip

    def leave(self):
        names = self.run("ps", "-a", "--names").output.split()
        if names:
            self.run("rm", "-f", *names)
        if self.host.nested:
            self.host.shell(f"chmod {self.mode} /dev/kvm")
        self.host.shell(f"rm -rf {self.state}")


class PersonsVm(Vm):
    def __init__(self, person, *arguments, name):
        self.host = person.host
        self.name = name
        self.program = self.host.start(
            *person.prefix, self.host.path("bin/masu"), "run", "--name", name, *arguments, terminal=True
        )


@test(cost=45)
def vms_on_a_network_have_their_leases_and_reach_each_other(host):
    person = Person(host)
    try:
        talk(person)
    finally:
        person.leave()


def talk(person):
    person.masu("net", "create", "lab", "--subnet", "10.1.0.0/24", "--subnet6", "fd00:1::/64")
    for group in ("web", "db"):
        person.masu("sg", "create", group, "--description", group)
    person.masu("sg", "authorize", "db", "--protocol", "icmp", "--source-group", "web")
    db = person.start("db", "--security-group", "db")
    web = person.start("web", "--security-group", "web")
    other = person.start("other")
    for vm in (db, web, other):
        vm.expect("^READY=1", 240)

    # Each guest has what its lease says, in both families.
    leases = {m["vm"]: m for m in person.network()["vms"]}
    for vm in (db, web, other):
        lease = leases[vm.name]
        check(vm.value("LEASE").startswith(lease["address"] + "/24 router= "), vm.value("LEASE"))
        check(vm.value("ADDRESS6") == lease["address6"] + "/64", vm.value("ADDRESS6"))
    check(len({m["address"] for m in leases.values()}) == 3, str(leases))
    to = leases["db"]["address"]

    # A member of the group that the rule names gets in.
    check("bytes from" in web.command(f"ping -c 1 -W 5 {to}"), "no answer to the member's ping")
