"""What tests of images share: disks in all formats, and the folder of images.

Needs qemu-img, beside what cli_fixture.py needs.
"""
import hashlib
import json
import os
import subprocess

from cli_fixture import CliTest

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
