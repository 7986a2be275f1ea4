"""Tests of images that are there, end to end: listed, removed, run by VMs; and of `masu image build`.

Needs qemu-img.
"""
import json
import lzma
import os
import subprocess
import unittest

from cli_fixture import MASU, PATIENCE
from image_fixture import MIB, ImageTest


class ListTest(ImageTest):
    def test_ls_inspect_and_rm(self):
        self.assertEqual(self.images(), [])
        self.imported(self.raw(), "b")
        self.imported(self.raw(), "a")
        self.assertEqual([image["name"] for image in self.images()], ["a", "b"])
        table = self.masu("image", "ls").stdout.decode().splitlines()
        self.assertEqual(table[0].split(), ["NAME", "SIZE", "STORED", "FORMAT", "BOOT", "AGE"])
        self.assertTrue(table[1].startswith("a "))
        text = self.masu("image", "inspect", "a").stdout.decode()
        self.assertIn("sha256", text)
        self.assertIn("(3 MiB)", text)
        result = self.masu("image", "rm", "a", "nothing", "b")
        self.assertEqual(result.returncode, 1)
        self.assertIn("no image named nothing", result.stderr.decode())
        self.assertEqual((self.images(), self.image_folder()), ([], [".lock"]))

    def test_a_record_that_cannot_be_read_is_told_and_can_be_removed(self):
        self.imported(self.raw(), "a")
        self.imported(self.raw(), "b")
        record = os.path.join(self.folder, "state", "images", "a", "image.json")
        with open(record, "w") as file:
            file.write("{}")
        result = self.masu("image", "ls", "--output", "json")
        self.assertEqual([image["name"] for image in json.loads(result.stdout)], ["b"])
        self.assertIn("image.json", result.stderr.decode())
        self.assertEqual(self.masu("image", "rm", "a").returncode, 0)

    def test_usage(self):
        for arguments in (("image",), ("image", "nonsense"), ("image", "import"), ("image", "rm"),
                          ("image", "ls", "--output", "yaml")):
            result = self.masu(*arguments)
            self.assertEqual(result.returncode, 2, arguments)
            self.assertIn("masu image", result.stderr.decode())


class RunImageTest(ImageTest):
    def run_on_image(self, name, *arguments):
        self.run_detached(name, "echo", options=arguments)
        return json.loads(self.masu("inspect", name, "--output", "json").stdout)["config"]["drives"]

    def overlay(self, name):
        return os.path.join(self.folder, "state", "vms", name, "disk.overlay")

    def test_each_vm_gets_an_overlay_of_its_own(self):
        image = self.imported(self.raw())
        data = self.disk("data.raw")
        for name in ("a", "b"):
            drives = self.run_on_image(name, "web", "--disk", data + ",ro")
            self.assertEqual([d["path_on_host"] for d in drives], [image["disk"], data])
            self.assertEqual(drives[0]["overlay_path"], self.overlay(name))
            self.assertNotIn("overlay_size", drives[0])
            self.assertFalse(drives[0]["is_read_only"])
        self.assertEqual(self.image("web")["used_by"], ["a", "b"])

    def test_the_overlay_goes_with_the_vm(self):
        self.imported(self.raw())
        self.run_on_image("a", "web")
        with open(self.overlay("a"), "w") as file:  # the fake monitor makes none
            file.write("x")
        self.masu("stop", "a")
        self.assertTrue(os.path.exists(self.overlay("a")))
        self.masu("rm", "a")
        self.assertFalse(os.path.exists(os.path.dirname(self.overlay("a"))))

    def test_an_image_in_use_is_kept(self):
        self.imported(self.raw())
        self.run_on_image("a", "web")
        self.assertIn("in use by the VM a", self.refusal("image", "rm", "web"))
        self.masu("stop", "a")
        self.assertIn("masu rm a", self.refusal("image", "rm", "web"))
        with open(os.path.join(self.folder, "state/vms/a/vm.json"), encoding="utf-8") as file:
            record = file.read()
        self.masu("rm", "a")
        saved = os.path.join(self.folder, "state/snapshots/warm")
        os.makedirs(saved)
        with open(os.path.join(saved, "manifest.json"), "w", encoding="utf-8") as file:
            json.dump({"saved_ms": 1, "memory_bytes": 1, "memory_stored_bytes": 1, "drives": [],
                       "metadata": record}, file)
        self.assertIn("in use by the snapshot warm", self.refusal("image", "rm", "web"))
        self.assertEqual(self.masu("snapshot", "rm", "warm").returncode, 0)
        self.assertEqual(self.masu("image", "rm", "web").returncode, 0)

    def test_sizes(self):
        self.imported(self.raw())
        drives = self.run_on_image("a", "web", "--disk-size", "20G")
        self.assertEqual(drives[0]["overlay_size"], 20 << 30)
        kernel = self.kernel()
        for size, words in (("1M", "can only grow"), ("0", "multiple of 1M"), ("x", "--disk-size x"),
                            ("1000", "multiple of 1M"), ("65T", "at most 64 TiB")):
            self.assertIn(words, self.refusal("run", "web", "--kernel", kernel, "--disk-size", size))
        result = self.masu("run", "--kernel", kernel, "--disk-size", "1G")
        self.assertEqual(result.returncode, 2)

    def test_a_path_is_a_base_too(self):
        raw = self.raw("plain.raw")
        drives = self.run_on_image("a", raw, "--disk-size", "1G")
        self.assertEqual(drives[0]["path_on_host"], raw)
        self.assertEqual(drives[0]["overlay_path"], self.overlay("a"))
        self.assertNotIn("image", json.loads(self.masu("inspect", "a", "--output", "json").stdout))

    def test_names_and_paths(self):
        image = self.imported(self.raw(), "web")
        self.raw("web")
        process = subprocess.run([MASU, "run", "web", "--kernel", self.kernel("echo"), "-d", "--name",
                                  "a"], cwd=self.folder, env=self.environment, check=True,
                                 capture_output=True, timeout=PATIENCE)
        self.assertEqual(process.stdout, b"a\n")
        self.assertEqual(self.image("web")["used_by"], ["a"])
        subprocess.run([MASU, "run", "./web", "--kernel", self.kernel("echo"), "-d", "--name", "b"],
                       cwd=self.folder, env=self.environment, check=True, capture_output=True,
                       timeout=PATIENCE)
        drives = json.loads(self.masu("inspect", "b", "--output", "json").stdout)["config"]["drives"]
        self.assertEqual(drives[0]["path_on_host"], self.path("web"))
        self.assertEqual(self.image("web")["used_by"], ["a"])
        self.assertNotEqual(image["disk"], self.path("web"))

    def test_what_cannot_be_a_first_disk(self):
        kernel = self.kernel()
        qcow2 = self.convert(self.raw(), "q.qcow2", "qcow2")
        packed = self.path("p.raw.xz")
        with open(packed, "wb") as file:
            file.write(lzma.compress(bytes(10000)))
        for word, words in ((qcow2, f"masu image import {qcow2}"), (packed, "compressed with xz"),
                            ("nothing", "no image and no file named nothing"),
                            (self.folder, "is a directory")):
            self.assertIn(words, self.refusal("run", word, "--kernel", kernel))
            self.assertEqual(self.masu("ps", "-aq").stdout, b"")


class BuildTest(ImageTest):
    """With a recipe that takes no minutes; the real one is `guest/image/make debian-cloud`."""

    def recipe(self, *lines):
        folder = self.path("recipes-of-test")
        os.makedirs(folder + "/recipes", exist_ok=True)
        path = folder + "/recipes/debian-cloud"
        with open(path, "w") as file:
            file.write("#!/bin/sh\n" + "\n".join(lines) + "\n")
        os.chmod(path, 0o755)
        self.environment["MASU_IMAGE_RECIPES"] = folder

    def test_the_disk_of_the_recipe_becomes_the_image(self):
        self.recipe('echo "image: step one" >&2', "mkdir $2/root", "echo x >$1/disk.raw",
                    "truncate -s ${MASU_IMAGE_SIZE_MIB}M $1/disk.raw", "echo y >$1/vmlinuz")
        result = self.masu("image", "build", "--size", "5M")
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        self.assertIn("debian-12: step one\n", result.stderr.decode())
        image = self.image("debian-12")
        self.assertEqual((image["size"], image["source"]), (5 * MIB, "masu image build"))
        self.assertEqual(os.listdir(os.path.dirname(image["disk"])).__len__(), 2)

    def test_a_recipe_that_fails(self):
        self.recipe('echo "image: no mkfs.fat; install dosfstools" >&2', "exit 1")
        self.assertIn("was not built: no mkfs.fat", self.refusal("image", "build"))
        self.recipe("exit 3")
        self.assertIn("status 3", self.refusal("image", "build"))
        self.recipe("exit 0")
        self.assertIn("made no disk", self.refusal("image", "build"))
        self.assertEqual(self.image_folder(), [".lock"])

    def test_the_recipe_of_this_build_is_found(self):
        self.recipe("exit 1")
        del self.environment["MASU_IMAGE_RECIPES"]
        folder = os.path.join(os.path.dirname(MASU), "../../guest/image/recipes")
        self.assertTrue(os.access(folder + "/debian-cloud", os.X_OK))
        self.assertTrue(os.access(folder + "/../packages", os.R_OK))


if __name__ == "__main__":
    unittest.main(verbosity=2)
