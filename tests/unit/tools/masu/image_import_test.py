"""Tests of `masu image import`, end to end: formats, compression, names, and how the image is booted.

Needs qemu-img, xz, zstd, sfdisk, mtools, mke2fs and mkfs.xfs.
"""
import gzip
import hashlib
import lzma
import os
import pty
import subprocess
import unittest

from cli_fixture import MASU, PATIENCE
from image_fixture import MIB, ImageTest, run


class ImportTest(ImageTest):
    def check(self, path, raw, form, compression=""):
        name = "web-" + os.path.basename(path).replace(".", "-")
        image = self.imported(path, name)
        with open(raw, "rb") as file:
            expected = file.read()
        self.assertEqual(self.content(image["disk"]), expected, path)
        self.assertEqual(image["sha256"], hashlib.sha256(expected).hexdigest())
        self.assertEqual((image["size"], image["format"], image["compression"]),
                         (len(expected), form, compression), path)
        self.assertEqual(image["source"], path)
        return image

    def test_raw_stays_sparse(self):
        raw = self.raw(size=64 * MIB)
        image = self.check(raw, raw, "raw")
        self.assertLess(image["stored"], MIB)
        self.assertEqual(self.image_folder(), [".lock", "web-disk-raw"])

    def test_every_format(self):
        raw = self.raw()
        for driver, name, form, options in (
                ("qcow2", "a.qcow2", "qcow2", ()), ("qcow2", "b.img", "qcow2", ("-c",)),
                ("qcow2", "c.raw", "qcow2", ("-o", "compat=0.10")),
                ("vmdk", "d.vmdk", "vmdk", ()),
                ("vmdk", "e.vmdk", "vmdk", ("-o", "subformat=streamOptimized")),
                ("vpc", "f.vhd", "vhd", ("-o", "subformat=dynamic,force_size=on")),
                ("vpc", "g", "vhd", ("-o", "subformat=fixed,force_size=on")),
                ("vhdx", "h.vhdx", "vhdx", ()), ("vdi", "i.vdi", "vdi", ())):
            with self.subTest(name):
                self.check(self.convert(raw, name, driver, *options), raw, form)

    def test_every_compression_also_of_formats(self):
        raw = self.raw()
        qcow2 = self.convert(raw, "disk.qcow2", "qcow2")
        for source, form in ((raw, "raw"), (qcow2, "qcow2")):
            for command, ending, word in ((["xz", "-1"], ".xz", "xz"), (["gzip"], ".gz", "gzip"),
                                          (["zstd", "-q"], ".zst", "zstd")):
                packed = source + ending
                with open(packed, "wb") as file:
                    subprocess.run([*command, "-c", source], stdout=file, check=True)
                # The name says nothing.
                os.rename(packed, packed + ".iso")
                with self.subTest(packed):
                    self.check(packed + ".iso", raw, form, word)

    def test_several_streams_are_one_content(self):
        raw = self.raw()
        halves = self.content(raw)[:MIB + 1000], self.content(raw)[MIB + 1000:]
        zstd = [run("zstd", "-c", input=half) for half in halves]
        for word, parts, rest in (("gzip", [gzip.compress(half) for half in halves], b"\0" * 700),
                                  ("xz", [lzma.compress(half) for half in halves], b"\0" * 512),
                                  ("zstd", zstd, b"")):
            with self.subTest(word):
                path = self.path("packed-" + word)
                with open(path, "wb") as file:
                    file.write(b"".join(parts) + rest)
                self.check(path, raw, "raw", word)

    def test_a_size_that_is_no_multiple_of_a_sector_is_padded(self):
        path = self.path("odd")
        with open(path, "wb") as file:
            file.write(b"x" * 1000)
        image = self.imported(path)
        self.assertEqual(image["size"], 1024)
        self.assertEqual(self.content(image["disk"]), b"x" * 1000 + b"\0" * 24)

    def test_the_name_comes_from_the_file(self):
        raw = self.raw("debian-12.5_amd64.qcow2.raw")
        packed = run("xz", "-c", raw)
        with open(raw + ".xz", "wb") as file:
            file.write(packed)
        self.assertEqual(self.masu("image", "import", raw + ".xz").returncode, 0)
        self.assertEqual(self.masu("image", "ls", "-q").stdout, b"debian-12.5_amd64\n")
        bad = self.raw("my disk.raw")
        self.assertIn("give one after the file", self.refusal("image", "import", bad))

    def test_a_name_is_taken_once(self):
        raw = self.raw()
        self.imported(raw)
        self.assertIn("masu image rm web", self.refusal("image", "import", raw, "web"))
        self.assertIn("is not an image name", self.refusal("image", "import", raw, "../web"))

    def test_of_two_imports_of_one_name_at_a_time_one_wins(self):
        raw = self.raw(size=40 * MIB)
        rivals = [self.start("image", "import", raw, "web") for _ in range(3)]
        self.assertEqual(sorted(rival.wait(PATIENCE) for rival in rivals), [0, 1, 1])
        self.assertEqual(self.image_folder(), [".lock", "web"])

    def test_progress_is_plain_lines_in_a_pipe_and_a_bar_on_a_terminal(self):
        raw = self.raw()
        result = self.masu("image", "import", raw, "web")
        self.assertEqual(result.stderr, b"web: copying (3 MiB)\n")
        self.assertRegex(result.stdout, rb"^web is imported: 3 MiB disk, [1-9][0-9.]* KiB stored; boot: ")
        controller, terminal = pty.openpty()
        self.addCleanup(os.close, controller)
        qcow2 = self.convert(raw, "q", "qcow2")
        subprocess.run([MASU, "image", "import", qcow2, "bar"], env=self.environment, check=True,
                       stdout=subprocess.DEVNULL, stderr=terminal, timeout=PATIENCE)
        os.close(terminal)
        shown = os.read(controller, 65536)
        self.assertIn(b"bar: converting qcow2  [", shown)
        self.assertTrue(shown.endswith(b"\r\x1b[K"), "no bar is left behind")


class BootMethodTest(ImageTest):
    def partitioned(self, script, fat_at=None, files=()):
        path = self.path("parted.raw")
        with open(path, "wb") as file:
            file.truncate(48 * MIB)
        run("sfdisk", "-q", path, input=script.encode())
        if fat_at is not None:
            where = f"{path}@@{fat_at * 512}"
            run("mformat", "-i", where, "-T", "65536", "::")
            for folder in ("::/EFI", "::/EFI/BOOT"):
                run("mmd", "-i", where, folder)
            for name in files:
                run("mcopy", "-i", where, "-", f"::/EFI/BOOT/{name}", input=b"loader")
        image = self.imported(path)["boot"]
        self.assertEqual(self.masu("image", "rm", "web").returncode, 0)
        return image["method"], image["partition_table"], image["detail"]

    def test_an_efi_partition_with_a_loader(self):
        esp = "C12A7328-F81F-11D2-BA4B-00A0C93EC93B"
        linux = "0FC63DAF-8483-4772-8E79-3D69D8477DE4"
        script = (f"label: gpt\np1: start=70000, size=2048, type={linux}\n"
                  f"p15: start=2048, size=65536, type={esp}\n")
        self.assertEqual(self.partitioned(script, 2048, ["BOOTX64.EFI"]),
                         ("uefi", "gpt", "EFI/BOOT/BOOTX64.EFI on partition 15"))
        self.assertEqual(self.partitioned(script, 2048, ["OTHER.EFI"])[:2], ("unknown", "gpt"))
        mbr = "label: dos\np1: start=2048, size=65536, type=ef\n"
        self.assertEqual(self.partitioned(mbr, 2048, ["bootx64.efi"])[:2], ("uefi", "mbr"))

    def test_a_menu_in_the_root_partition(self):
        for make, form in ((("mke2fs", "-q", "-t", "ext4", "-d"), "ext4"), (("mkfs.xfs", "-q", "-p"), "xfs")):
            with self.subTest(form):
                path = self.path("menu.raw")
                system = self.path("system")
                with open(path, "wb") as file:
                    file.truncate(308 * MIB)
                run("sfdisk", "-q", path, input=b"label: gpt\np1: start=2048, size=620000\n")
                os.makedirs(self.path("tree/boot/grub"), exist_ok=True)
                with open(self.path("tree/boot/grub/grub.cfg"), "w") as file:
                    file.write("menuentry x {}\n")
                with open(self.path("prototype"), "w") as file:
                    file.write("/dev/null\n0 0\nd--755 0 0\nboot d--755 0 0\ngrub d--755 0 0\ngrub.cfg ---644 0 0 "
                               + self.path("tree/boot/grub/grub.cfg") + "\n$\n$\n$\n")
                with open(system, "wb") as file:
                    file.truncate(620000 * 512)
                run(*make, self.path("tree" if form == "ext4" else "prototype"), system)
                run("dd", f"if={system}", f"of={path}", "bs=1M", "seek=1", "conv=notrunc,sparse")
                boot = self.imported(path, form)["boot"]
                self.assertEqual((boot["method"], boot["partition_table"], boot["detail"]),
                                 ("menu", "gpt", f"/boot/grub/grub.cfg on partition 1 ({form})"))
                os.unlink(system)

    def test_nothing_to_start(self):
        self.assertEqual(self.imported(self.raw(), "plain")["boot"]["method"], "unknown")
        self.assertEqual(self.partitioned("label: dos\np1: start=2048, type=83\n")[:2],
                         ("unknown", "mbr"))


if __name__ == "__main__":
    unittest.main(verbosity=2)
