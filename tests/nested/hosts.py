"""Where masu runs under test: a Host runs programs, on this machine or inside the nested host.

Both speak the protocol of agent.cpp, so a test cannot tell them apart.
"""

import base64
import contextlib
import os
import re
import shlex
import subprocess
import threading
import time


class HostLost(Exception):
    """The host itself ended; nothing is known about the program under test."""


class TimedOut(Exception):
    pass


class Program:
    """A program running on a host. `output` is all it has written so far, `errors` its stderr
    (a program on a terminal has none of its own)."""

    def __init__(self, host, ident, argv):
        self.host = host
        self.ident = ident
        self.argv = argv
        self.output = ""
        self.errors = ""
        self.status = None
        self.echo = None  # a stream that shows the output as it comes
        self._seen = 0
        self._undecoded = {"out": b"", "err": b""}

    def write(self, text):
        data = text.encode() if isinstance(text, str) else text
        for at in range(0, len(data), 2048):
            chunk = base64.b64encode(data[at : at + 2048]).decode()
            self.host._send(f"in {self.ident} {chunk}")

    def close_input(self):
        self.host._send(f"eof {self.ident}")

    def kill(self, signal=9):
        self.host._send(f"kill {self.ident} {int(signal)}")

    def expect(self, pattern, timeout):
        """Waits until the output after the last match holds the pattern; returns the match."""
        compiled = re.compile(pattern, re.M)

        def found():
            match = compiled.search(self.output, self._seen)
            if match:
                self._seen = match.end()
            return match

        what = f"{pattern!r} from {shlex.join(self.argv)}"
        return self.host._wait(found, timeout, what, lambda: self.status is not None, self)

    def wait(self, timeout):
        """Waits for its end; returns its exit status, 128 + signal when killed by one."""
        what = f"the end of {shlex.join(self.argv)}"
        self.host._wait(lambda: self.status is not None, timeout, what, None, self)
        return self.status

    def tail(self, count=30):
        lines = (self.output + self.errors).replace("\r", "").splitlines()
        return "\n".join(lines[-count:])

    def _append(self, tag, data):
        # A character may be cut by a chunk's end; keep its first bytes for the next chunk.
        data = self._undecoded[tag] + data
        try:
            text, rest = data.decode(), b""
        except UnicodeDecodeError as e:
            cut = e.start if len(data) - e.start < 4 else len(data)
            text, rest = data[:cut].decode(errors="replace"), data[cut:]
        self._undecoded[tag] = rest
        if tag == "out":
            self.output += text
            if self.echo:
                self.echo.write(text.replace("\r", ""))
                self.echo.flush()
        else:
            self.errors += text


class Host:
    """Runs programs through an agent on a pipe. `directory` maps a name ("debian", "build") to
    where those files are on this host; `scratch` is a directory for a test's own files; `after_test`
    takes what is to be undone when the test has ended, however it did."""

    nested = False
    patience = 1  # what a test's timeouts are multiplied with

    def __init__(self, command, scratch, log=None, environment=None):
        self.scratch = scratch
        self.after_test = contextlib.ExitStack()
        self._changed = threading.Condition()
        self._programs = {}
        self._next = 1
        self._ready = False
        self._lost = False
        # A harness that is killed leaves no host behind.
        command = ["setpriv", "--pdeathsig", "KILL", *command]
        self._process = subprocess.Popen(
            command, stdin=subprocess.PIPE, stdout=subprocess.PIPE, stderr=log, env=environment
        )
        self._reader = threading.Thread(target=self._read, daemon=True)
        self._reader.start()

    # Programs

    def start(self, *argv, terminal=False, echo=None):
        with self._changed:
            ident = str(self._next)
            self._next += 1
            program = self._programs[ident] = Program(self, ident, [str(a) for a in argv])
            program.echo = echo
        packed = base64.b64encode(b"\0".join(a.encode() for a in program.argv)).decode()
        self._send(f"run {ident} {'pty' if terminal else 'pipe'} {packed}")
        return program

    def run(self, *argv, timeout=60, data=None):
        """Runs a program to its end."""
        program = self.start(*argv)
        if data is not None:
            program.write(data)
        program.close_input()
        try:
            program.wait(timeout)
        except TimedOut:
            program.kill()
            raise
        return program

    def shell(self, script, timeout=60, data=None):
        """Runs a shell script; its status must be 0. Returns what it printed."""
        program = self.run("sh", "-ec", script, timeout=timeout, data=data)
        if program.status != 0:
            raise AssertionError(
                f"status {program.status} from: {script}\n{program.output}{program.errors}"
            )
        return program.output

    def put(self, path, data):
        self.shell(f"cat >{shlex.quote(path)}", data=data)

    def next_number(self):
        """A number unused so far on this host, for names of VMs and files."""
        with self._changed:
            self._next += 1
            return self._next

    def path(self, name):
        """Where a file of the suite ("debian/vmlinuz", "bin/masu") is on this host."""
        raise NotImplementedError

    def cpu_seconds(self):
        """What an emulated host has taken of this machine's processors; nothing for this machine."""
        return None

    def wait_ready(self, timeout):
        self._wait(lambda: self._ready, timeout, "the host's agent", None, None)

    def close(self):
        self._process.terminate()
        try:
            self._process.wait(10)
        except subprocess.TimeoutExpired:
            self._process.kill()
            self._process.wait()

    # The protocol

    def _send(self, line):
        try:
            self._process.stdin.write(line.encode() + b"\n")
            self._process.stdin.flush()
        except OSError as e:
            raise HostLost(str(e)) from e

    def _read(self):
        for raw in self._process.stdout:
            verb, _, rest = raw.decode(errors="replace").strip().partition(" ")
            ident, _, payload = rest.partition(" ")
            with self._changed:
                if verb == "ready":
                    self._ready = True
                program = self._programs.get(ident)
                if program and verb in ("out", "err"):
                    program._append(verb, base64.b64decode(payload))
                elif program and verb == "exit":
                    program.status = int(payload)
                    del self._programs[ident]
                self._changed.notify_all()
        with self._changed:
            self._lost = True
            self._changed.notify_all()

    def _wait(self, condition, timeout, what, hopeless, program):
        timeout *= self.patience
        deadline = time.monotonic() + timeout
        with self._changed:
            while True:
                result = condition()
                if result:
                    return result
                if self._lost:
                    raise HostLost(f"the host ended while waiting for {what}")
                if hopeless and hopeless():
                    raise AssertionError(
                        f"ended with status {program.status} without {what}:\n{program.tail()}"
                    )
                left = deadline - time.monotonic()
                if left <= 0:
                    text = f"after {timeout} s without {what}"
                    raise TimedOut(text + (f":\n{program.tail()}" if program else ""))
                self._changed.wait(left)


class DirectHost(Host):
    """This machine: its KVM runs stock guests."""

    def __init__(self, places, scratch):
        self._places = places
        # VMs of the tests stay apart from those of the person.
        environment = {
            **os.environ,
            "HOME": scratch,
            "XDG_STATE_HOME": f"{scratch}/state",
            "XDG_RUNTIME_DIR": f"{scratch}/run",
        }
        os.mkdir(f"{scratch}/run", 0o700)
        super().__init__([str(places["agent"])], scratch, environment=environment)
        self.wait_ready(10)

    def path(self, name):
        place, _, rest = name.partition("/")
        return f"{self._places[place]}/{rest}"
