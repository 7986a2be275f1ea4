"""Tests of `masu snapshot` end to end, of snapshots made by hand."""
import json
import os
import stat
import unittest

from cli_fixture import CliTest


class SnapshotTest(CliTest):
    def test_a_snapshot_stays_while_disks_of_another_lie_over_its_own(self):
        self.run_detached("web", "echo")
        self.snapshot_of("web", "first", [{"drive_id": "disk0", "kind": "raw", "path_on_host": "/d", "file": "disk-disk0.raw"}])
        base = os.path.join(self.folder, "state/snapshots/first/disk-disk0.raw")
        self.snapshot_of("web", "second", [{"drive_id": "disk0", "kind": "overlay", "path_on_host": base, "file": "o"}])
        self.assertEqual(self.masu("kill", "web").returncode, 0)
        shown = json.loads(self.masu("snapshot", "inspect", "first", "--output", "json").stdout)
        self.assertEqual(shown["needed_by"], ["second"])
        refused = self.masu("snapshot", "rm", "first")
        self.assertEqual(refused.returncode, 1)
        self.assertIn(b"needed by second, whose disks", refused.stderr)
        self.assertEqual(self.masu("snapshot", "rm", "second", "first").returncode, 0)

    def test_a_snapshot_is_compressed_and_unpacked_again(self):
        self.run_detached("web", "echo")
        self.snapshot_of("web", "warm")
        folder = os.path.join(self.folder, "state/snapshots/warm")
        memory = (b"guest memory " * 400_000)[:4 << 20] + bytes(1 << 20) + os.urandom(300_000) + bytes(20_480 - 1568)
        memory = memory[:len(memory) // 4096 * 4096]
        for name, content in (("memory", memory), ("state", b"state")):
            with open(os.path.join(folder, name), "wb") as file:
                file.write(content)

        def files():
            return sorted(name for name in os.listdir(folder) if name.startswith("memory"))

        def inspect():
            return json.loads(self.masu("snapshot", "inspect", "warm", "--output", "json").stdout)

        self.assertEqual(self.masu("snapshot", "compress", "warm").returncode, 0)
        self.assertEqual(files(), ["memory.zst"])
        self.assertEqual(inspect()["memory_file"], "compressed")
        self.assertLess(inspect()["memory_stored_bytes"], len(memory) // 2)
        self.assertEqual(self.masu("snapshot", "compress", "warm").returncode, 0)  # it is already
        self.assertEqual(self.masu("snapshot", "decompress", "warm").returncode, 0)
        self.assertEqual(files(), ["memory"])
        self.assertEqual(inspect()["memory_file"], "plain")
        with open(os.path.join(folder, "memory"), "rb") as file:
            self.assertEqual(file.read(), memory)

        # Restored as it is, with a page server that ends with its VM.
        self.assertEqual(self.masu("snapshot", "compress", "warm").returncode, 0)
        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d")
        self.assertEqual(result.returncode, 0, result.stderr)
        backend = self.config("again")["snapshot/load"]["mem_backend"]
        if backend["backend_type"] == "Uffd":
            self.assertTrue(stat.S_ISSOCK(os.stat(backend["backend_path"]).st_mode))
            socket_folder = os.path.dirname(backend["backend_path"])
            self.assertEqual(self.masu("kill", "again").returncode, 0)
            self.assertEqual(self.masu("rm", "again").returncode, 0)
            self.assertFalse(os.path.exists(socket_folder))
        else:  # this user's page faults cannot be handled
            self.assertIn("unpacked into", result.stderr.decode())
            self.assertEqual(self.masu("kill", "again").returncode, 0)
        self.assertEqual(self.masu("snapshot", "decompress", "warm").returncode, 0)

        # Of another snapshot, damaged, in use: refused, and nothing is changed.
        self.assertEqual(self.masu("snapshot", "compress", "warm").returncode, 0)
        with open(os.path.join(folder, "state"), "wb") as file:
            file.write(b"another")
        result = self.masu("snapshot", "decompress", "warm")
        self.assertEqual(result.returncode, 1)
        self.assertIn("of another snapshot", result.stderr.decode())
        with open(os.path.join(folder, "memory.zst"), "r+b") as file:
            file.truncate(1000)
        result = self.masu("snapshot", "decompress", "warm")
        self.assertEqual(result.returncode, 1)
        self.assertIn("damaged", result.stderr.decode())
        self.assertEqual(files(), ["memory.zst"])

    def test_clones_have_networks_and_names_of_their_own(self):
        self.passt(f'echo "$@" >>{self.folder}/arguments\n')
        self.run_detached("web", "echo", options=("-p", "8080:80"))
        self.snapshot_of("web", "warm")
        result = self.masu("snapshot", "clone", "warm", "--count", "3", "-p", "9000:80")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertEqual(sorted(result.stdout.decode().split()), ["warm-1", "warm-2", "warm-3"])
        instances = set()
        for number in (1, 2, 3):
            config = self.config(f"warm-{number}")
            load = config["snapshot/load"]
            self.assertFalse(load["resume_vm"])  # rules first
            self.assertEqual(config["ruled_while"], "Paused")
            self.assertEqual(self.state(f"warm-{number}"), "running")
            self.assertEqual(load["identity"]["hostname"], f"warm-{number}")
            self.assertEqual(load["network_overrides"][0]["guest_network"]["hostname"],
                             f"warm-{number}")
            rules = config["network-interfaces/net0/security-groups"]["rules"]
            self.assertIn("published-80", [rule["id"] for rule in rules])
            instances.add(load["identity"]["instance_id"])
        self.assertEqual(len(instances), 3)
        with open(f"{self.folder}/arguments", encoding="utf-8") as file:
            arguments = file.read()
        for port in (8080, 9000, 9001, 9002):
            self.assertEqual(arguments.count(f"-t 127.0.0.1/{port}:80"), 1)

        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d", "--paused")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        load = self.config("again")["snapshot/load"]
        self.assertNotIn("identity", load)
        self.assertEqual(load["network_overrides"][0]["guest_network"]["hostname"], "web")
        self.assertEqual(self.state("again"), "paused")

    def test_a_restore_that_cannot_have_its_network_leaves_nothing(self):
        self.passt("exit 0\n")
        self.run_detached("web", "echo", options=("-p", "8080:80"))
        self.snapshot_of("web", "warm")
        before = self.leftovers()
        self.passt("echo Failed to bind port 8080; exit 1\n".replace(";", " >&2;"))
        result = self.masu("snapshot", "restore", "warm", "--name", "again", "-d")
        self.assertEqual(result.returncode, 1)
        self.assertIn("Failed to bind port 8080", result.stderr.decode())
        self.assertIn("-p", result.stderr.decode())
        for wrong, text in ((("--net", "none"), "cannot be taken away"),
                            (("--net", "tap=a"), "TAP of its own"),
                            (("--security-group", "x"), "NotFound"),
                            (("-p", "65535:80"), "65536")):
            result = self.masu("snapshot", "clone", "warm", "--count", "2", *wrong)
            self.assertEqual(result.returncode, 1)
            self.assertIn(text, result.stderr.decode())
            self.assertEqual(result.stderr.count(b"\n"), 1, result.stderr)
        self.assertEqual(self.leftovers(), before)


if __name__ == "__main__":
    unittest.main(verbosity=2)
