"""Tests of imports of images that are refused or interrupted, end to end.

Needs qemu-img, xz, zstd and tar.
"""
import gzip
import lzma
import os
import signal
import subprocess
import unittest

from cli_fixture import PATIENCE, eventually
from image_fixture import MIB, ImageTest, run


class RefusalTest(ImageTest):
    def assert_refused(self, path, *words):
        text = self.refusal("image", "import", path, "web")
        for word in words:
            self.assertIn(word, text)
        self.assertEqual(self.image_folder(), [".lock"])

    def test_images_that_name_other_files(self):
        raw = self.raw()
        secret = self.raw("secret.raw")
        run("qemu-img", "create", "-f", "qcow2", "-b", secret, "-F", "raw", self.path("backed"))
        self.assert_refused(self.path("backed"), "with a backing file")
        run("qemu-img", "create", "-f", "qcow2", "-o", f"data_file={self.path('data')}",
            self.path("external"), "1M")
        self.assert_refused(self.path("external"), "external data file")
        base = self.convert(raw, "base.vmdk", "vmdk")
        run("qemu-img", "create", "-f", "vmdk", "-b", base, "-F", "vmdk", self.path("child.vmdk"))
        self.assert_refused(self.path("child.vmdk"), "parent image")
        flat = self.convert(raw, "flat.vmdk", "vmdk", "-o", "subformat=monolithicFlat")
        self.assert_refused(flat, "data lie in other files")
        # The same in the sparse kind's own header: a capacity of 0 sends readers to its description.
        hollow = bytearray(self.content(base))
        hollow[12:20] = bytes(8)
        with open(self.path("hollow"), "wb") as file:
            file.write(hollow)
        self.assert_refused(self.path("hollow"), "data lie in other files")
        # Packed, it is the same image.
        packed = run("xz", "-c", self.path("backed"))
        with open(self.path("packed"), "wb") as file:
            file.write(packed)
        self.assert_refused(self.path("packed"), "with a backing file")

    def test_encrypted_images(self):
        run("qemu-img", "create", "-f", "qcow2", "--object", "secret,id=s,data=x", "-o",
            "encrypt.format=luks,encrypt.key-secret=s,encrypt.iter-time=10", self.path("e"), "1M")
        self.assert_refused(self.path("e"), "encrypted")

    def test_what_is_no_disk(self):
        raw = self.raw()
        for name, content, words in (
                ("tar", run("tar", "-C", self.folder, "-cf-", os.path.basename(raw)), "tar archive"),
                ("zip", b"PK\x03\x04" + bytes(2000), "zip archive"),
                ("bz2", b"BZh9" + bytes(2000), "bunzip2"),
                ("web", b"<!DOCTYPE html><p>404", "web page"),
                ("kernel", b"\x7fELF" + bytes(2000), "masu run --kernel"),
                ("twice", gzip.compress(gzip.compress(bytes(5000))), "compressed twice"),
                ("empty-inside", gzip.compress(b""), "empty disk")):
            with self.subTest(name):
                with open(self.path(name), "wb") as file:
                    file.write(content)
                self.assert_refused(self.path(name), words)
        for path, words in ((self.folder, "is a directory"), ("/no/such", "no such file")):
            self.assertIn(words, self.refusal("image", "import", path, "web"))

    def test_damaged_and_cut_short(self):
        raw = self.raw()
        for word, packed in (("gzip", gzip.compress(self.content(raw))), ("xz", run("xz", "-c", raw)),
                             ("zstd", run("zstd", "-c", "--check", raw))):
            with self.subTest(word):
                path = self.path("packed")
                with open(path, "wb") as file:
                    file.write(packed[:len(packed) // 2])
                self.assert_refused(path, "cut short", word)
                broken = bytearray(packed)
                broken[len(packed) - 40 if word == "xz" else len(packed) - 3] ^= 0x55
                with open(path, "wb") as file:
                    file.write(broken)
                self.assert_refused(path, "damaged", word)
                with open(path, "wb") as file:
                    file.write(packed + b"something else")
                self.assert_refused(path, word)

    def test_formats_that_are_cut_short(self):
        """qemu-img by itself takes what is missing for zeros."""
        raw = self.raw()
        with open(raw, "r+b") as file:
            file.seek(MIB)
            file.write(os.urandom(MIB))
        for driver, options in (("qcow2", ()), ("vmdk", ()),
                                ("vmdk", ("-o", "subformat=streamOptimized")),
                                ("vpc", ("-o", "subformat=dynamic,force_size=on")),
                                ("vhdx", ("-o", "block_size=1M")), ("vdi", ())):
            with self.subTest(driver + str(options)):
                path = self.convert(raw, "short", driver, *options)
                os.truncate(path, os.path.getsize(path) - 300 * 1024)
                text = self.refusal("image", "import", path, "web")
                self.assertTrue("cut short" in text or "qemu-img says" in text, text)
                self.assertNotIn("json:", text)
                self.assertEqual(self.image_folder(), [".lock"])

    def test_a_qcow2_larger_than_any_disk(self):
        qcow2 = self.path("huge.qcow2")
        run("qemu-img", "create", "-f", "qcow2", "-o", "cluster_size=2M", qcow2, "65T")
        self.assert_refused(qcow2, "64 TiB is the most")

    def test_without_qemu_img(self):
        qcow2 = self.convert(self.raw(), "q", "qcow2")
        text = self.refusal("image", "import", qcow2, "web", environment={"PATH": self.folder})
        self.assertIn("install the package qemu-utils", text)
        self.assertEqual(self.masu("image", "import", self.raw(), "web",
                                   environment={"PATH": self.folder}).returncode, 0)

    def test_a_full_disk(self):
        small = self.path("small")
        os.mkdir(small)
        if subprocess.run(["mount", "-t", "tmpfs", "-o", "size=2M", "masu", small], check=False,
                          capture_output=True).returncode != 0:
            self.skipTest("mounting a small tmpfs needs root")
        try:
            raw = self.path("random.raw")
            with open(raw, "wb") as file:
                file.write(os.urandom(4 * MIB))
            packed = self.path("packed")
            with open(packed, "wb") as file:
                file.write(lzma.compress(self.content(raw), preset=0))
            for path in (raw, packed, self.convert(raw, "q", "qcow2")):
                text = self.refusal("image", "import", path, "web",
                                    environment={"MASU_STATE_DIR": small})
                self.assertIn("no room left", text)
                self.assertIn("MASU_STATE_DIR", text)
                self.assertEqual(os.listdir(small + "/images"), [".lock"])
        finally:
            subprocess.run(["umount", small], check=True)


class InterruptionTest(ImageTest):
    def begin(self):
        """An import that cannot end: its source is a pipe behind a name."""
        raw = self.path("endless.raw")
        with open(raw, "wb") as file:
            file.truncate(4 << 40)
        process = self.start("image", "import", raw, "web")
        eventually(lambda: any(name.startswith(".new-") for name in self.image_folder()), "the import")
        self.assertEqual(self.masu("image", "ls", "-q").stdout, b"")
        return process

    def test_a_killed_import_leaves_nothing_visible_and_the_next_one_sweeps(self):
        process = self.begin()
        process.kill()
        process.wait(PATIENCE)
        self.assertEqual(self.images(), [])
        self.imported(self.raw())
        self.assertEqual(self.image_folder(), [".lock", "web"])

    def test_a_signal_clears_up_before_it_ends_the_import(self):
        for number in (signal.SIGINT, signal.SIGTERM):
            process = self.begin()
            process.send_signal(number)
            self.assertEqual(process.wait(PATIENCE), -number)
            self.assertEqual(self.image_folder(), [".lock"])

    def test_an_import_that_goes_on_is_not_swept(self):
        process = self.begin()
        self.imported(self.raw(), "other")
        self.assertEqual(len([n for n in self.image_folder() if n.startswith(".new-")]), 1)
        process.kill()

    def test_a_signal_ends_qemu_img_too(self):
        tool = self.path("bin")
        os.mkdir(tool)
        with open(tool + "/qemu-img", "w") as file:
            file.write("#!/bin/sh\n[ $1 != check ] || exit 0\n[ $1 = convert ] || { echo '{\"virtual-size\": 1048576}'; exit; }\n"
                       f"echo $$ >{self.path('pid')}; exec sleep 600\n")
        os.chmod(tool + "/qemu-img", 0o755)
        qcow2 = self.convert(self.raw(), "q", "qcow2")
        self.environment["PATH"] = tool + ":" + self.environment["PATH"]
        process = self.start("image", "import", qcow2, "web")
        eventually(lambda: os.path.exists(self.path("pid")) and self.content(self.path("pid")), "it")
        process.send_signal(signal.SIGTERM)
        self.assertEqual(process.wait(PATIENCE), -signal.SIGTERM)
        pid = int(self.content(self.path("pid")))
        self.assertFalse(os.path.exists(f"/proc/{pid}/exe"))
        self.assertEqual(self.image_folder(), [".lock"])


if __name__ == "__main__":
    unittest.main(verbosity=2)
