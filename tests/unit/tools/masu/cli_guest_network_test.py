"""Tests of the network of a single VM, end to end: TAPs, passt, metadata and `masu ssh`."""
import base64
import json
import os
import unittest

from cli_fixture import CliTest


class GuestNetworkTest(CliTest):
    def test_networks_and_metadata_are_asked_for(self):
        key, data = os.path.join(self.folder, "key.pub"), os.path.join(self.folder, "data")
        with open(key, "w", encoding="utf-8") as file:
            file.write("# mine\nssh-ed25519 AAAA me\n")
        with open(data, "wb") as file:
            file.write(b"#cloud-config\n\xff")
        self.run_detached("a", "echo", options=(
            "--net", "tap=t0,address=10.0.0.2/24,gateway=10.0.0.1,bw=1M", "--net", "tap=t1",
            "--user-data", data, "--ssh-key", key, "--imds", "v1"))
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        first, second = config["network-interfaces/net0"], config["network-interfaces/net1"]
        self.assertEqual(first["host_dev_name"], "t0")
        self.assertEqual(first["guest_network"]["address"], "10.0.0.2/24")
        self.assertEqual(first["guest_network"]["hostname"], "a")
        self.assertEqual(first["rx_rate_limiter"]["bandwidth"]["size"], 1 << 20)
        self.assertNotIn("guest_network", second)
        metadata = config["instance-metadata"]
        self.assertEqual(metadata["network_interfaces"], ["net0"])
        self.assertEqual(metadata["http_tokens"], "optional")
        self.assertEqual(base64.b64decode(metadata["user_data"]), b"#cloud-config\n\xff")
        self.assertEqual([k["key"] for k in metadata["public_keys"]], ["ssh-ed25519 AAAA me"])
        self.assertRegex(metadata["instance_id"], "^i-0[0-9a-f]{16}$")

    def test_passt_is_started_and_its_socket_handed_on(self):
        self.passt(f'echo "$@" >{self.folder}/arguments\n')
        self.run_detached("a", "echo", options=("-p", "2222:22", "-p", "127.0.0.1:53:5353/udp"))
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        interface = config["network-interfaces/net0"]
        with open(f"/proc/{self.vm('a')['pid']}/fdinfo/{interface['passt_fd']}", encoding="utf-8"):
            pass  # the monitor has it
        self.assertEqual(interface["guest_network"]["address"], "172.31.0.10/20")
        with open(f"{self.folder}/arguments", encoding="utf-8") as file:
            arguments = file.read()
        self.assertIn("-t 127.0.0.1/2222:22", arguments)
        self.assertIn("-u 127.0.0.1/53:5353", arguments)
        self.assertIn("--no-map-gw", arguments)

    def test_without_passt_a_vm_has_no_network_and_ports_are_refused(self):
        self.run_detached("a", "echo")
        config = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["config"]
        self.assertNotIn("network-interfaces/net0", config)
        for wrong in (("--net", "user"), ("-p", "8080:80")):
            result = self.masu("run", "--kernel", self.kernel(), *wrong)
            self.assertEqual(result.returncode, 1)
            self.assertIn("passt", result.stderr.decode())

    def test_a_passt_that_gives_up_is_told(self):
        self.passt("echo No external routable interface >&2; exit 1\n")
        result = self.masu("run", "--name", "a", "--net", "user", "--kernel", self.kernel())
        self.assertEqual(result.returncode, 1)
        self.assertIn("No external routable interface", result.stderr.decode())
        self.assertEqual(self.leftovers(), [])
        # Nobody asked for a network: the VM runs without, and says so.
        result = self.masu("run", "--name", "b", "--kernel", self.kernel("exit power_off"))
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertIn("b has no network", result.stderr.decode())

    def test_bad_keys_and_user_data_are_refused(self):
        private = os.path.join(self.folder, "private")
        with open(private, "w", encoding="utf-8") as file:
            file.write("-----BEGIN OPENSSH PRIVATE KEY-----\n")
        large = os.path.join(self.folder, "large")
        with open(large, "wb") as file:
            file.write(b"x" * 16385)
        for options, text in ((("--ssh-key", private), "private key"),
                              (("--user-data", large), "16384"),
                              (("--imds", "off", "--user-data", private), "--imds off")):
            result = self.masu("run", "--kernel", self.kernel(), "--net", "tap=t,address=10.0.0.2/24",
                               *options)
            self.assertEqual(result.returncode, 1)
            self.assertIn(text, result.stderr.decode())
            self.assertEqual(self.leftovers(), [])

    def test_ssh_goes_where_the_port_is_published(self):
        tools = os.path.join(self.folder, "tools")
        os.mkdir(tools)
        with open(os.path.join(tools, "ssh"), "w", encoding="utf-8") as file:
            file.write('#!/bin/sh\necho "$@"\n')
        os.chmod(os.path.join(tools, "ssh"), 0o755)
        self.environment["PATH"] = tools + ":" + self.environment["PATH"]
        self.passt("exit 0\n")
        self.run_detached("a", "echo", options=("-p", "2222:22"))
        result = self.masu("ssh", "debian@a", "uptime")
        self.assertEqual(result.returncode, 0, result.stderr)
        self.assertRegex(result.stdout.decode(), "^-p 2222 .* -l debian 127.0.0.1 uptime$")
        self.run_detached("b", "echo", options=("--net", "none"))
        result = self.masu("ssh", "b")
        self.assertEqual(result.returncode, 1)
        self.assertIn("-p 2222:22", result.stderr.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
