"""Tests of where a VM has its vsock and of what its jail leaves open, end to end."""
import json
import os
import socket
import unittest

from cli_fixture import CliTest


class VsockTest(CliTest):
    def test_a_vsock_is_in_the_folder_of_each_vm_or_where_it_is_wanted(self):
        self.run_detached("a", "echo", options=("--vsock", "auto"))
        vm = self.inspect("a")
        path = vm["vsock"]["uds_path"]
        self.assertEqual(vm["config"]["vsock"], {"guest_cid": 3, "uds_path": path})
        self.assertEqual(path, vm["socket_folder"] + "/vsock")
        self.run_detached("b", "echo", options=("--vsock", "7,uds=" + self.folder + "/x,,y"))
        self.assertEqual(self.config("b")["vsock"], {"guest_cid": 7, "uds_path": self.folder + "/x,y"})
        self.snapshot_of("b", "warm")
        result = self.masu("snapshot", "clone", "warm", "--count", "2")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        paths = [self.config(f"warm-{n}")["snapshot/load"]["vsock_override"]["uds_path"] for n in (1, 2)]
        self.assertEqual(paths, [self.inspect(f"warm-{n}")["socket_folder"] + "/vsock" for n in (1, 2)])
        result = self.masu("snapshot", "clone", "warm", "--count", "2", "--name", "c",
                           "--vsock-path", self.folder + "/v{n}")
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        self.assertEqual(self.config("c-2")["snapshot/load"]["vsock_override"]["uds_path"], self.folder + "/v2")
        for wrong, text in ((("clone", "warm", "--count", "2", "--vsock-path", "/v"), "/v{n}"),
                            (("restore", "none", "--name", "d", "--vsock-path", "/v"), "has no vsock")):
            if "none" in wrong:
                self.run_detached("e", "echo")
                self.snapshot_of("e", "none")
            result = self.masu("snapshot", *wrong)
            self.assertEqual(result.returncode, 1)
            self.assertIn(text, result.stderr.decode())

    def test_what_listens_beside_a_vsock_goes_with_the_vm(self):
        self.run_detached("a", "echo", options=("--vsock", "auto"))
        folder = self.inspect("a")["socket_folder"]
        with socket.socket(socket.AF_UNIX) as listener:
            listener.bind(folder + "/vsock_5000")
        self.assertEqual(self.masu("rm", "-f", "a").returncode, 0)
        self.assertFalse(os.path.exists(folder))


class JailTest(CliTest):
    def test_a_jailed_monitor_is_told_its_files_and_saves_among_them(self):
        state = os.path.join(self.folder, "state")
        kernel, disk, base = self.kernel("echo"), self.disk("disk"), self.disk("base")
        result = self.masu("run", "--name", "a", "-d", "--jail-read", kernel + "-later",
                           "--kernel", kernel, "--disk", disk,
                           "--disk", f"{base},overlay={self.folder}/o")  # fmt: skip
        self.assertEqual((result.returncode, result.stderr), (0, b""))
        jail = {kind: sorted(map(os.path.normpath, paths))
                for kind, paths in self.config("a")["jail"].items()}
        self.assertEqual(jail["read"], sorted([kernel, kernel + "-later", base]))
        sockets = json.loads(self.masu("inspect", "a", "--output", "json").stdout)["socket_folder"]
        self.assertEqual(jail["write"], sorted([f"{state}/vms/a", sockets, disk, self.folder]))
        result = self.masu("snapshot", "create", "a", "warm")
        self.assertEqual((result.returncode, result.stdout), (0, b"warm\n"), result.stderr)
        self.assertEqual(self.config("a")["snapshot/create"]["directory"], f"{state}/vms/a/snapshot-warm")
        self.assertEqual(os.listdir(f"{state}/snapshots/warm"), ["manifest.json"])
        self.assertFalse(os.path.exists(f"{state}/vms/a/snapshot-warm"))

        # Who restores it says so again.
        warning = b"masu: there is no jail (--no-jail): a guest that breaks out of its VM can do what this user can\n"
        for name, options, said in (("b", (), b""), ("c", ("--no-jail",), warning)):
            result = self.masu("snapshot", "restore", "warm", "--name", name, "-d", *options)
            self.assertEqual((result.returncode, result.stderr), (0, said))
        self.assertIn(f"{state}/snapshots/warm", self.config("b")["jail"]["read"])
        self.assertNotIn(kernel + "-later", self.config("b")["jail"]["read"])
        self.assertNotIn("jail", self.config("c"))
        result = self.masu("snapshot", "create", "c", "cold")
        self.assertEqual((result.returncode, result.stdout), (0, b"cold\n"), result.stderr)
        self.assertEqual(self.config("c")["snapshot/create"]["directory"], f"{state}/snapshots/cold")

    def test_a_jailed_monitor_makes_its_vsock_where_that_was_asked_for(self):
        self.run_detached("a", "echo", options=("--vsock", "auto"))
        self.assertEqual(self.config("a")["jail"]["socket"], [])  # it lies among the VM's own
        path = os.path.join(self.folder, "elsewhere")
        self.run_detached("b", "echo", options=("--vsock", f"auto,uds={path}"))
        self.assertEqual(self.config("b")["jail"]["socket"], [path])
        result = self.masu("run", "--kernel", self.kernel("echo"), "--no-jail", "--jail-read", "/srv")
        self.assertEqual(result.returncode, 2)
        self.assertIn("--no-jail", result.stderr.decode())


if __name__ == "__main__":
    unittest.main(verbosity=2)
