"""What tests/bench/network does without a guest: its arguments, its rules, its commands and its table."""

import contextlib
import importlib.machinery
import importlib.util
import io
import pathlib
import subprocess
import sys
import unittest

SCRIPT = pathlib.Path(__file__).with_name("network")
# What iperf3 3.12 prints at the end with -f k.
IPERF3_END = """[ ID] Interval           Transfer     Bitrate         Retr
[  5]   0.00-2.00   sec   368 KBytes  1505 Kbits/sec    0             sender
[  5]   0.00-2.00   sec   368 KBytes  1500 Kbits/sec                  receiver
"""


def load():
    sys.dont_write_bytecode = True
    loader = importlib.machinery.SourceFileLoader("network", str(SCRIPT))
    module = importlib.util.module_from_spec(importlib.util.spec_from_loader("network", loader))
    loader.exec_module(module)
    return module


class Network(unittest.TestCase):
    def run_script(self, *arguments):
        return subprocess.run([sys.executable, "-B", SCRIPT, *arguments], capture_output=True, text=True)

    def test_arguments(self):
        help_ = self.run_script("--help")
        self.assertEqual(help_.returncode, 0)
        self.assertIn("--rounds", help_.stdout)
        for arguments, text in ((("--rounds", "0"), "0 is not 1 or more"), (("--seconds", "x"), "--seconds"),
                                (("--output", "xml"), "--output"), (("--build", "/nowhere"), "is missing")):  # fmt: skip
            result = self.run_script(*arguments)
            self.assertEqual(result.returncode, 2, result.stderr)
            self.assertIn(text, result.stderr)

    def test_rules(self):
        rules = load().rules()["rules"]
        self.assertEqual(len(rules), 1000)
        self.assertEqual(len({rule["id"] for rule in rules}), 1000)
        everyone = [rule for rule in rules if rule["cidr"] == "0.0.0.0/0"]
        self.assertEqual([rule["direction"] for rule in everyone], ["egress"])

    def test_the_rate_is_the_receivers(self):
        line = load().MEASURES["TCP into the guest"][1] % {"host": "192.0.2.1", "seconds": 2}
        command = line[line.index("|") + 1 :]
        result = subprocess.run(["sh", "-c", command], input=IPERF3_END, capture_output=True, text=True)
        self.assertEqual(result.stdout, "VALUE=1.5\n", result.stderr)

    def test_table(self):
        network = load()
        results = {what: {"first": 50.0, "second": 100.0} for what in network.MEASURES}
        with contextlib.redirect_stdout(io.StringIO()) as text:
            network.print_table(results)
        self.assertIn("first / second: TCP out of the guest 0.50", text.getvalue())


if __name__ == "__main__":
    unittest.main()
