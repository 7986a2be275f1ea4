"""Tests of `masu net` and of VMs in its networks, end to end."""
import json
import os
import signal
import subprocess
import unittest

from cli_fixture import MASU, CliTest, eventually


class NetworkTest(CliTest):
    def kill_all(self):
        super().kill_all()
        eventually(lambda: not self.switches(), "the switches' end")

    def net(self, *arguments, error=None):
        result = self.masu("net", *arguments)
        if error is None:
            self.assertEqual((result.returncode, result.stderr), (0, b""))
        else:
            self.assertEqual((result.returncode, result.stderr.decode()), (1, f"masu: {error}\n"))
        return result.stdout.decode()

    def network(self, name="lab"):
        return json.loads(self.net("inspect", name, "--output", "json"))

    def join(self, vm, *options, net="network=lab", command="echo"):
        self.run_detached(vm, command, options=("--net", net, *options))
        config = json.loads(self.masu("inspect", vm, "--output", "json").stdout)["config"]
        return config["network-interfaces/net0"]

    def switches(self):
        """Processes of switches of this test's networks."""
        found = []
        for pid in filter(str.isdigit, os.listdir("/proc")):
            try:
                with open(f"/proc/{pid}/cmdline", "rb") as file:
                    words = file.read().split(b"\0")
                with open(f"/proc/{pid}/environ", "rb") as file:
                    ours = self.folder.encode() in file.read()
            except OSError:
                continue
            if ours and b"net-switch" in words:
                found.append(int(pid))
        return found

    def test_vms_get_addresses_of_their_own_and_a_port_of_the_switch(self):
        self.assertRegex(self.net("create", "lab", "--subnet", "10.1.2.3/28", "--subnet6", "fd00:1::/64"),
                         "^[0-9a-f]{16}\n$")
        self.assertEqual(self.switches(), [])
        one = self.join("one")
        two = self.join("two", net="network=lab,address=10.1.2.9,mtu=1400")
        self.assertEqual(one["guest_network"], {
            "address": "10.1.2.4/28", "hostname": "one", "dns": [], "shared_link": True,
            "address6": one["guest_network"]["address6"], "gateway6": "fe80::401:23ff:fe45:6701",
            "local_gateway6": True})
        self.assertEqual(two["guest_network"]["address"], "10.1.2.9/28")
        self.assertEqual((one["mtu"], two["mtu"]), (65520, 1400))
        self.assertEqual((one["guest_mac"][6:], two["guest_mac"][6:]), ("0a:01:02:04", "0a:01:02:09"))
        for vm, interface in (("one", one), ("two", two)):
            with open(f"/proc/{self.monitor_pid(vm)}/fdinfo/{interface['passt_fd']}", encoding="utf-8"):
                pass  # the monitor has it
        self.assertEqual(len(self.switches()), 1)
        members = {m["vm"]: m for m in self.network()["vms"]}
        self.assertEqual(members["two"]["address"], "10.1.2.9")
        self.assertEqual(members["one"]["address6"] + "/64", one["guest_network"]["address6"])
        self.assertEqual(members["one"]["received_frames"], 0)
        self.assertIn("10.1.2.9", self.net("inspect", "lab"))
        listed = json.loads(self.net("ls", "--output", "json"))
        self.assertEqual([(n["name"], n["subnet"], n["subnet6"], n["vms"]) for n in listed],
                         [("lab", "10.1.2.0/28", "fd00:1::/64", ["one", "two"])])
        self.assertEqual(self.net("ls", "--names"), "lab\n")

    def test_a_clone_has_an_address_of_its_own_and_a_restored_vm_its_old_one(self):
        self.net("create", "lab", "--subnet", "10.1.0.0/24")
        saved = self.join("one")
        self.snapshot_of("one", "warm")
        result = self.masu("snapshot", "clone", "warm", "--count", "2")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        members = {m["vm"]: m for m in self.network()["vms"]}
        self.assertEqual(set(members), {"one", "warm-1", "warm-2"})
        for key in ("mac", "address", "address6"):
            self.assertEqual(len({m[key] for m in members.values()}), 3)

        def interface(vm):
            shown = json.loads(self.masu("inspect", vm, "--output", "json").stdout)
            return shown["config"]["snapshot/load"]["network_overrides"][0]

        for vm in ("warm-1", "warm-2"):
            self.assertEqual(interface(vm)["network_mac"], members[vm]["mac"])
            self.assertEqual(interface(vm)["guest_network"]["address"], members[vm]["address"] + "/24")
            self.assertEqual(interface(vm)["guest_network"]["address6"], members[vm]["address6"] + "/64")

        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d")
        self.assertEqual(result.stderr.decode(),
                         f"masu: again: {members['one']['address']} of network lab is in use by VM one\n")
        self.masu("kill", "one")
        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertEqual(interface("again")["network_mac"], saved["guest_mac"])
        self.assertEqual(interface("again")["guest_network"], {**saved["guest_network"], "hostname": "one"})

    def test_an_address_is_free_when_its_vm_has_ended_however_it_ended(self):
        self.net("create", "lab", "--subnet", "10.1.0.0/24")
        same = "network=lab,address=10.1.0.20"
        self.join("one", net=same)
        result = self.masu("run", "--kernel", self.kernel("echo"), "--name", "two", "-d", "--net", same)
        self.assertEqual(result.stderr.decode(),
                         "masu: two: 10.1.0.20 of network lab is in use by VM one\n")
        self.assertIsNone(self.vm("two"))
        os.kill(self.monitor_pid("one"), signal.SIGKILL)
        eventually(lambda: self.network()["vms"] == [], "the lease's end")
        self.join("two", net=same)
        self.masu("kill", "two")
        self.masu("rm", "two")
        self.join("two", "--rm", net=same)
        self.assertEqual([m["vm"] for m in self.network()["vms"]], ["two"])
        self.net("rm", "lab", error="network lab is in use by VM two; end them first")
        self.masu("stop", "two")
        eventually(lambda: not self.switches(), "the switch's end")
        eventually(lambda: self.vm("two") is None, "the VM's removal")
        self.net("rm", "lab")
        self.assertEqual(self.net("ls", "--names"), "")
        eventually(lambda: not [entry for entry in os.listdir(f"{self.folder}/state/run")
                                if entry.startswith("net-")], "the socket's end")

    def test_a_switch_that_was_killed_is_started_again_for_the_next_vm(self):
        self.net("create", "lab")
        self.join("one")
        killed = self.switches()
        os.kill(killed[0], signal.SIGKILL)
        eventually(lambda: not self.switches(), "the switch's end")
        self.assertNotIn("received_frames", self.network()["vms"][0])
        self.join("two")
        members = {m["vm"]: m for m in self.network()["vms"]}
        self.assertEqual(members["two"]["received_frames"], 0)
        self.assertNotEqual(members["one"]["address"], members["two"]["address"])

    def test_members_of_groups_hear_who_joins_and_who_leaves(self):
        self.net("create", "lab", "--subnet", "10.1.0.0/24", "--subnet6", "none")
        for name in ("web", "db"):
            self.masu("sg", "create", name, "--description", "d")
        self.masu("sg", "authorize", "db", "--protocol", "tcp", "--port", "5432", "--source-group", "web")
        self.join("d", "--security-group", "db")

        def peers():
            config = json.loads(self.masu("inspect", "d", "--output", "json").stdout)["config"]
            members = config["network-interfaces/net0/security-groups"]["members"]
            return sorted(a for m in members for a in m["addresses"])
        self.assertEqual(peers(), [])
        self.join("w1", "--security-group", "web")
        self.join("w2", "--security-group", "web", command="sleep 60")
        self.assertEqual(peers(), ["10.1.0.5", "10.1.0.6"])
        self.masu("stop", "w1")
        eventually(lambda: peers() == ["10.1.0.6"], "w1's leaving")
        os.kill(self.monitor_pid("w2"), signal.SIGKILL)
        eventually(lambda: peers() == [], "w2's leaving")

    def create_bridge(self, *options):
        result = self.masu("net", "create", "lab", "--driver", "bridge", *options)
        if result.returncode != 0 and b"namespace" in result.stderr:
            self.skipTest(result.stderr.decode())
        self.assertEqual((result.returncode, result.stderr), (0, b""))

    def test_a_bridge_gives_each_vm_a_tap_with_a_queue_for_each_cpu(self):
        self.create_bridge("--subnet", "10.1.2.0/24", "--subnet6", "none")
        one = self.join("one", "--cpus", "3")
        two = self.join("two", net="network=lab,mtu=9000")
        self.assertEqual([len(i["tap_fds"]) for i in (one, two)], [3, 1])
        self.assertNotIn("passt_fd", one)
        self.assertEqual((one["mtu"], two["mtu"]), (1500, 9000))
        self.assertEqual(one["guest_network"]["address"], "10.1.2.4/24")
        for vm, interface in (("one", one), ("two", two)):
            for fd in interface["tap_fds"]:
                self.assertEqual(os.readlink(f"/proc/{self.monitor_pid(vm)}/fd/{fd}"), "/dev/net/tun")
        network = self.network()
        self.assertEqual((network["driver"], network["mtu"]), ("bridge", 1500))
        self.assertEqual([m["received_frames"] for m in network["vms"]], [0, 0])
        self.assertRegex(self.net("ls"), "lab +bridge +10.1.2.0/24")
        # Only the bridge's process left the namespace that all others are in.
        holder, = self.switches()
        spaces = {os.readlink(f"/proc/{pid}/ns/net")
                  for pid in ("self", self.monitor_pid("one"), holder)}
        self.assertEqual(len(spaces), 2)

    def test_members_hear_who_leaves_a_bridge_and_its_process_ends_with_the_last(self):
        self.create_bridge("--subnet", "10.1.2.0/24", "--subnet6", "none")
        self.masu("sg", "create", "web", "--description", "d")
        self.masu("sg", "authorize", "web", "--protocol", "tcp", "--port", "80", "--source-group", "web")
        self.join("one", "--security-group", "web")
        self.join("two", "--security-group", "web")

        def peers():
            config = json.loads(self.masu("inspect", "one", "--output", "json").stdout)["config"]
            members = config["network-interfaces/net0/security-groups"]["members"]
            return sorted(a for m in members for a in m["addresses"])
        self.assertEqual(peers(), ["10.1.2.4", "10.1.2.5"])
        os.kill(self.monitor_pid("two"), signal.SIGKILL)
        eventually(lambda: peers() == ["10.1.2.4"], "the leaving")
        self.join("three", net="network=lab,address=10.1.2.5")
        self.masu("kill", "one")
        self.masu("kill", "three")
        eventually(lambda: not self.switches(), "the bridge's end")
        self.net("rm", "lab")

    def test_who_may_have_no_bridge_is_told(self):
        # Nobody in particular, where nobody may have more namespaces.
        script = "echo 0 >/proc/sys/user/max_user_namespaces && exec setpriv --bounding-set -all \"$@\""
        wrapped = subprocess.run(["unshare", "-Ur", "sh", "-c", script, "sh", MASU, "net", "create", "lab",
                                  "--driver", "bridge"], env=self.environment, capture_output=True)
        if b"masu:" not in wrapped.stderr:
            self.skipTest(wrapped.stderr.decode())
        self.assertEqual(wrapped.returncode, 1)
        self.assertEqual(wrapped.stderr.decode(), "masu: --driver bridge: a bridge of the host's kernel needs root "
                         "here, where users may have no namespaces; run masu as root, or make the network with "
                         "--driver switch\n")
        self.assertEqual(self.net("ls", "--names"), "")

    def test_published_ports_are_open_to_the_outside_only(self):
        self.net("create", "lab")
        path = os.path.join(self.folder, "passt")
        with open(path, "w", encoding="utf-8") as file:
            file.write("#!/bin/sh\nexit 0\n")
        os.chmod(path, 0o755)
        self.environment["MASU_PASST"] = path
        self.run_detached("a", "interface net0 172.31.0.10/20", "echo",
                          options=("--net", "user", "--net", "network=lab", "-p", "8080:80"))
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        rules = [[r["id"] for r in config[f"network-interfaces/net{i}/security-groups"]["rules"]]
                 for i in (0, 1)]
        self.assertEqual(rules[0][0], "published-80")
        self.assertEqual(rules[0][1:], rules[1])

    def test_what_cannot_be_is_said(self):
        self.net("create", "lab", "--subnet", "10.1.0.0/24")
        self.net("create", "lab", error="there is a network lab already; `masu net inspect lab` shows it")
        self.net("create", "two", "--subnet", "10.1.0.128/25", error="10.1.0.128/25 overlaps "
                 "10.1.0.0/24, the subnet of network lab; choose another --subnet")
        self.net("create", "two", "--subnet", "10.1.0.0/8",
                 error='"10.1.0.0/8" is not an IPv4 subnet of /16 to /28, such as 10.1.0.0/24')
        missing = "there is no network lob; make it with `masu net create lob`, or see `masu net ls`"
        self.net("inspect", "lob", error=missing)
        self.net("rm", "lob", error=missing)
        result = self.masu("run", "--kernel", self.kernel("echo"), "--net", "network=lob")
        self.assertEqual((result.returncode, result.stderr.decode()), (1, f"masu: {missing}\n"))
        self.net("create", "tiny", "--subnet", "10.2.0.0/28")
        path = os.path.join(self.folder, "state/networks/tiny.json")
        with open(path, encoding="utf-8") as file:
            record = json.load(file)
        self.join("holder")
        vm_id = self.vm("holder")["id"]
        record["leases"] = [{"vm": "holder", "vm_id": vm_id, "interface": "net1",
                             "mac": f"06:02:0a:02:00:{i:02x}", "address": f"10.2.0.{i}"}
                            for i in range(4, 15)]
        with open(path, "w", encoding="utf-8") as file:
            json.dump(record, file)
        result = self.masu("run", "--kernel", self.kernel("echo"), "--net", "network=tiny", "--name", "a")
        self.assertEqual((result.returncode, result.stderr.decode()),
                         (1, "masu: a: network tiny has no address left: all 11 of 10.2.0.0/28 are in "
                             "use; end a VM, or make a larger network\n"))
        self.assertEqual(self.masu("net").returncode, 2)


if __name__ == "__main__":
    unittest.main(verbosity=2)
