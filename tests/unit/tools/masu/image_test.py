"""Tests of `masu image` and of `masu run` on images, end to end, with fake_vmm.py as the monitor.

Needs MASU_EXE (the program), MASU_VMM (the fake), and qemu-img, xz, zstd, sfdisk and mtools.
"""
import gzip
import hashlib
import json
import lzma
import os
import pty
import signal
import subprocess
import unittest

from cli_test import MASU, PATIENCE, CliTest, eventually

MIB = 1 << 20


def run(*command, **keywords):
    return subprocess.run(command, check=True, capture_output=True, **keywords).stdout


class ImageTest(CliTest):
    def path(self, name):
        return os.path.join(self.folder, name)

    def raw(self, name="disk.raw", size=3 * MIB):
        """A disk with data at its begin and end, and a hole between."""
        path = self.path(name)
        with open(path, "wb") as file:
            file.write(hashlib.sha512(b"begin").digest() * 1024)
            file.seek(size - 4096 - 512)
            file.write(b"end" * 100)
            file.truncate(size)
        return path

    def content(self, path):
        with open(path, "rb") as file:
            return file.read()

    def convert(self, raw, name, driver, *options):
        run("qemu-img", "convert", "-f", "raw", "-O", driver, *options, raw, self.path(name))
        return self.path(name)

    def images(self):
        return json.loads(self.masu("image", "ls", "--output", "json").stdout)

    def image(self, name):
        return json.loads(self.masu("image", "inspect", name, "--output", "json").stdout)

    def imported(self, path, name="web"):
        result = self.masu("image", "import", path, name)
        self.assertEqual(result.returncode, 0, result.stderr.decode())
        return self.image(name)

    def refusal(self, *arguments, environment=None):
        result = self.masu(*arguments, environment=environment)
        self.assertEqual((result.returncode, result.stdout), (1, b""), result.stderr.decode())
        last = result.stderr.decode().splitlines()[-1]
        self.assertTrue(last.startswith("masu: "), last)
        return last

    def image_folder(self):
        folder = os.path.join(self.folder, "state", "images")
        return sorted(os.listdir(folder)) if os.path.exists(folder) else []


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
