"""Tests of `masu sg`, `prefix-list` and `flow-logs` end to end."""
import json
import os
import signal
import unittest

from cli_fixture import PATIENCE, CliTest


class SecurityGroups(CliTest):
    def sg(self, *arguments, error=None):
        result = self.masu("sg", *arguments)
        if error is None:
            self.assertEqual((result.returncode, result.stderr), (0, b""))
        else:
            self.assertEqual(result.returncode, 1)
            self.assertTrue(result.stderr.decode().startswith(f"masu: {error}: "), result.stderr)
            self.assertEqual(result.stderr.count(b"\n"), 1)
        return result.stdout.decode()

    def group(self, name):
        return json.loads(self.sg("inspect", name, "--output", "json"))

    def run_in(self, name, address, *groups):
        options = [word for group in groups for word in ("--security-group", group)]
        self.run_detached(name, f"interface net0 {address}/20", "echo", options=options)

    def rules_of(self, vm):
        config = json.loads(self.masu("inspect", vm, "--output", "json").stdout)["config"]
        return config["network-interfaces/net0/security-groups"]

    def test_groups_and_rules_as_ec2_has_them(self):
        default = self.group("default")
        self.assertEqual([r["direction"] for r in default["rules"]],
                         ["ingress", "egress", "egress"])
        self.assertEqual(default["rules"][0]["group"], default["id"])
        group_id = self.sg("create", "web", "--description", "web servers").strip()
        self.assertTrue(group_id.startswith("sg-"))
        self.sg("create", "web", "--description", "x", error="InvalidGroup.Duplicate")
        ssh = ("web", "--protocol", "tcp", "--port", "22", "--cidr", "100.68.0.18/18")
        rule_id = self.sg("authorize", *ssh, "--description", "from the office").strip()
        self.sg("authorize", *ssh[:-1], "100.68.0.0/18", error="InvalidPermission.Duplicate")
        self.sg("authorize", "web", "--protocol", "icmp", "--icmp-type", "8", "--cidr", "0.0.0.0/0")
        self.sg("authorize", "web", "--protocol", "tcp", "--port", "1-2", "--source-group", "web")
        self.sg("authorize", "web", "--egress", "--protocol", "tcp", "--port", "443",
                "--dns-name", "*.Example.org", "--dns-name", "a.example.com")
        rules = {r["id"]: r for r in self.group("web")["rules"]}
        self.assertEqual(rules[rule_id], {
            "id": rule_id, "direction": "ingress", "protocol": "tcp", "from_port": 22,
            "to_port": 22, "cidr": "100.68.0.0/18", "description": "from the office"})
        self.assertEqual(len(rules), 7)
        self.assertIn("tcp 443 to *.example.org", self.sg("inspect", "web"))
        self.sg("revoke", *ssh)
        self.sg("revoke", *ssh, error="InvalidPermission.NotFound")
        self.sg("revoke", "web", "--rule-id", rule_id,
                error="InvalidSecurityGroupRuleId.NotFound")
        self.assertEqual([g["name"] for g in json.loads(self.sg("ls", "--output", "json"))],
                         ["default", "web"])
        self.assertEqual(self.sg("ls", "--names"), "default\nweb\n")
        self.sg("rm", "web")
        self.sg("rm", "web", error="InvalidGroup.NotFound")
        self.sg("rm", "default", error="CannotDelete")

    def test_what_is_wrong_with_a_rule_is_said(self):
        self.sg("create", "web", "--description", "d")
        for arguments, error in (
            (("--protocol", "tcp", "--cidr", "0.0.0.0/0"), "InvalidParameterValue"),
            (("--protocol", "tcp", "--port", "22"), "MissingParameter"),
            (("--protocol", "tcp", "--port", "9-2", "--cidr", "::/0"), "InvalidParameterValue"),
            (("--protocol", "tcp", "--port", "22", "--cidr", "10.0.0.0"), "InvalidParameterValue"),
            (("--protocol", "-1", "--source-group", "db"), "InvalidGroup.NotFound"),
            (("--protocol", "-1", "--dns-name", "a.org"), "InvalidParameterValue"),
        ):
            self.sg("authorize", "web", *arguments, error=error)
        self.sg("revoke", "web", error="MissingParameter")
        self.assertEqual(self.masu("sg", "authorize", "web").returncode, 2)
        self.assertEqual(self.masu("sg").returncode, 2)
        self.assertIn(b"see `masu sg create --help`", self.masu("sg", "create", "x").stderr)

    def test_running_vms_get_rules_at_once(self):
        self.sg("create", "web", "--description", "d")
        self.sg("create", "db", "--description", "d")
        self.run_in("w", "10.0.0.5", "web")
        self.run_in("d", "10.0.0.6", "db")
        self.run_in("other", "10.0.0.7")
        before = self.rules_of("d")
        self.assertEqual({r["direction"] for r in before["rules"]}, {"egress"})
        self.sg("authorize", "db", "--protocol", "tcp", "--port", "5432", "--source-group", "web")
        web = self.group("web")["id"]
        after = self.rules_of("d")
        self.assertEqual(after["rules"][-1]["group"], web)
        self.assertEqual(after["members"], [{"group": web, "addresses": ["10.0.0.5"]}])
        # Who joins the group is a peer at once, and who leaves it no longer one.
        self.run_in("w2", "10.0.0.8", "web", "default")
        self.assertEqual(sorted(self.rules_of("d")["members"][0]["addresses"]),
                         ["10.0.0.5", "10.0.0.8"])
        self.sg("detach", "w2", "web")
        self.assertEqual(self.rules_of("d")["members"][0]["addresses"], ["10.0.0.5"])
        self.sg("attach", "other", "web")
        self.assertEqual(sorted(self.rules_of("d")["members"][0]["addresses"]),
                         ["10.0.0.5", "10.0.0.7"])
        self.sg("revoke", "db", "--protocol", "tcp", "--port", "5432", "--source-group", "web")
        self.assertEqual(self.rules_of("d")["rules"], before["rules"])
        self.assertEqual(self.group("web")["vms"], ["other", "w"])

    def test_groups_in_use_stay_and_a_vm_is_in_one_at_least(self):
        self.sg("create", "web", "--description", "d")
        self.run_in("w", "10.0.0.5", "web")
        self.sg("rm", "web", error="DependencyViolation")
        self.sg("detach", "w", "web", error="InvalidParameterValue")
        self.sg("attach", "w", "default")
        self.sg("detach", "w", "web")
        self.sg("rm", "web")
        result = self.masu("run", "--kernel", self.kernel("echo"), "--security-group", "web", "-d")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"InvalidGroup.NotFound", result.stderr)

    def prefix_list(self, *arguments, error=None):
        result = self.masu("prefix-list", *arguments)
        self.assertEqual(result.returncode, 0 if error is None else 1, result.stderr)
        if error is not None:
            self.assertTrue(result.stderr.decode().startswith(f"masu: {error}: "), result.stderr)
        return result.stdout.decode()

    def test_prefix_lists_are_peers_and_their_changes_reach_running_vms(self):
        list_id = self.prefix_list("create", "offices", "--cidr", "203.0.113.9/24",
                                   "--max-entries", "5", "--description", "Lyon").strip()
        self.prefix_list("create", "none", error="MissingParameter")
        self.sg("create", "web", "--description", "d")
        ssh = ("web", "--protocol", "tcp", "--port", "22", "--prefix-list")
        self.sg("authorize", *ssh, "nothing", error="InvalidPrefixListId.NotFound")
        self.sg("authorize", *ssh, "offices")
        self.run_in("w", "10.0.0.5", "web")
        held = lambda: self.rules_of("w")["prefix_lists"]
        self.assertEqual(self.rules_of("w")["rules"][-1]["prefix_list"], list_id)
        self.assertEqual(held(), [{"id": list_id, "cidrs": ["203.0.113.0/24"]}])
        self.prefix_list("add", "offices", "--cidr", "2001:db8::/32")
        self.prefix_list("add", list_id, "--cidr", "2001:db8::/32", error="InvalidParameterValue")
        self.assertEqual(held()[0]["cidrs"], ["203.0.113.0/24", "2001:db8::/32"])
        self.prefix_list("remove", "offices", "--cidr", "203.0.113.0/24")
        self.assertEqual(held()[0]["cidrs"], ["2001:db8::/32"])
        shown = json.loads(self.prefix_list("inspect", "offices", "--output", "json"))
        self.assertEqual((shown["id"], shown["max_entries"], len(shown["entries"])), (list_id, 5, 1))
        self.assertIn("2001:db8::/32", self.prefix_list("inspect", "offices"))
        self.assertEqual(self.prefix_list("ls", "--names"), "offices\n")
        self.assertEqual(len(json.loads(self.prefix_list("ls", "--output", "json"))), 1)
        self.prefix_list("rm", "offices", error="DependencyViolation")
        self.sg("revoke", *ssh, "offices")
        self.prefix_list("rm", "offices")
        self.assertEqual(self.prefix_list("ls", "--names"), "")

    def test_settings_of_the_firewall(self):
        self.run_detached("w", "interface net0 10.0.0.5/20", "echo",
                          options=("--udp-timeout", "45", "--icmp-errors", "strict"))
        rules = self.rules_of("w")
        self.assertEqual(rules["connection_tracking"]["udp_timeout"], 45)
        self.assertEqual(rules["icmp_errors"], "strict")
        self.sg("modify", "w", "--tcp-established-timeout", "350", "--udp-stream-timeout", "60",
                "--icmp-errors", "related", "--private-name-answers", "on")
        rules = self.rules_of("w")
        self.assertEqual(rules["connection_tracking"], {
            "tcp_established_timeout": 350, "udp_stream_timeout": 60, "udp_timeout": 45})
        self.assertEqual((rules["icmp_errors"], rules["private_name_answers"]), ("related", True))
        self.sg("modify", "w", error="MissingParameter")
        for wrong in ("--udp-timeout", "61"), ("--icmp-errors", "x"), ("--udp-stream-timeout", "9"):
            self.assertEqual(self.masu("sg", "modify", "w", *wrong).returncode, 2)

    def test_counters(self):
        self.run_in("w", "10.0.0.5")
        text = self.sg("counters", "w")
        self.assertRegex(text, r"(?m)^no_rule +5 +300$")
        self.assertRegex(text, r"(?m)^sgr-1 +4 +240$")
        self.assertNotIn("source_mac", text)
        self.assertIn("3 flows, room for 7 more; 2 packets found none", text)
        self.assertEqual(json.loads(self.sg("counters", "w", "--output", "json"))["flows"], 3)
        self.assertEqual(self.masu("sg", "counters", "w", "--interface", "net1").returncode, 1)
        self.masu("kill", "w")
        self.assertIn(b"w is not running", self.masu("sg", "counters", "w").stderr)

    def test_the_format_of_flow_logs(self):
        self.run_detached("w", "interface net0 10.0.0.5/20", "echo",
                          options=("--log-format", "${srcaddr} ${action}",
                                   "--max-aggregation-interval", "10"))
        config = json.loads(self.masu("inspect", "w", "--output", "json").stdout)["config"]
        log = config["network-interfaces/net0/flow-log"]
        self.assertEqual((log["format"], log["interval"]), ("${srcaddr} ${action}", 10))
        self.assertNotIn("account_id", log)
        result = self.masu("run", "--kernel", self.kernel("echo"), "--log-format", "${colour}", "-d")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b'--log-format: flow log format: "${colour}" is no field', result.stderr)

    def test_the_account_is_told_to_metadata_and_flow_logs(self):
        self.run_detached("w", "interface net0 10.0.0.5/20", "echo",
                          options=("--net", "tap=t0,address=10.0.0.5/20", "--flow-logs",
                                   "--account-id", "123456789012"))
        report = json.loads(self.masu("inspect", "w", "--output", "json").stdout)
        for path in ("network-interfaces/net0/flow-log", "instance-metadata"):
            self.assertEqual(report["config"][path]["account_id"], "123456789012")
        result = self.masu("run", "--kernel", self.kernel("echo"), "--account-id", "12 4", "-d")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"--account-id 12 4: an account's id is 12 digits", result.stderr)

    def test_flow_logs(self):
        self.run_detached("w", "interface net0 10.0.0.5/20", "echo", options=("--flow-logs",))
        config = json.loads(self.masu("inspect", "w", "--output", "json").stdout)["config"]
        path = config["network-interfaces/net0/flow-log"]["path"]
        self.assertIn(b"keeps no flow log of net1",
                      self.masu("flow-logs", "w", "--interface", "net1").stderr)
        with open(path + ".1", "w") as before, open(path, "w") as now:
            before.write("old\n")
            now.write("new\n")
        self.assertEqual(self.masu("flow-logs", "w").stdout, b"old\nnew\n")
        follower = self.start("flow-logs", "-f", "w")
        os.rename(path, path + ".1")
        with open(path, "w") as now:
            now.write("newest\n")
        self.masu("kill", "w")
        self.assertTrue(follower.communicate(timeout=PATIENCE)[0].endswith(b"newest\n"))
        result = self.masu("run", "--kernel", self.kernel("echo"), "--flow-logs", "-d")
        self.assertIn(b"no network interface", result.stderr)

    def test_a_vm_that_could_not_be_told_is_named(self):
        for number, name in enumerate(("dead", "good", "stuck")):
            self.run_in(name, f"10.0.0.{number + 5}")
        os.kill(self.vm("dead")["pid"], signal.SIGKILL)
        os.kill(self.vm("stuck")["pid"], signal.SIGSTOP)
        result = self.masu("sg", "authorize", "default", "--protocol", "tcp", "--port", "2",
                           "--cidr", "::/0")
        self.assertEqual(result.returncode, 1)
        self.assertIn(b"these running VMs keep their old rules: stuck (", result.stderr)
        self.assertEqual(self.rules_of("good")["rules"][-1]["from_port"], 2)
        self.assertEqual(len(self.group("default")["rules"]), 4)


if __name__ == "__main__":
    unittest.main(verbosity=2)
