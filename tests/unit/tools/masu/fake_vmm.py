#!/usr/bin/env python3
"""Stands in for masu-vmm in tests of the command line: the same flags, sockets and files, no VM.

The "kernel" is a script, one command a line, that runs once the VM was started:
  print TEXT          console output (escapes as in Python)
  flood N             N lines of output
  echo                sends console input back until the button is pressed or Stop is asked for
  sleep SECONDS
  exit KIND [REASON]  ends: power_off, reset, panic, triple_fault or error
  crash               dies without a word
  on-button KIND      what the power button does: power_off (the default) or ignore
  on-stop hang        Stop is not answered
  refuse PATH TEXT    requests for PATH get a 400 with TEXT as fault_message
  interface ID ADDR   a network interface whose guest is told ADDR
"""
import argparse
import http.server
import json
import os
import select
import socket
import socketserver
import sys
import threading
import time

STATUS = {"power_off": 0, "stopped": 0, "reset": 0, "panic": 3, "triple_fault": 4, "error": 1}
REASON = {"power_off": "guest powered off", "stopped": "stopped on request"}
REPLAY = 64 * 1024


class Monitor:
    def __init__(self, flags):
        self.flags = flags
        self.state = "Not started"
        self.config = {"drives": []}
        self.script = []
        self.calls = []
        self.lock = threading.Lock()
        self.replay = b""
        self.clients = []
        self.echo = threading.Event()
        self.button = threading.Event()
        self.listener = socket.socket(socket.AF_UNIX)
        self.log = open(flags.console_log, "ab", buffering=0)

    def load(self, path):
        with open(path, encoding="utf-8") as script:
            self.script = [line.rstrip("\n").split(" ", 2) for line in script]
        interfaces = [{"iface_id": i, "guest_network": {"address": a}}
                      for _, i, a in self.setting("interface")]
        if interfaces:
            self.config["network-interfaces"] = interfaces

    def setting(self, name):
        return [line for line in self.script if line[0] == name]

    def output(self, data):
        with self.lock:
            self.log.write(data)
            self.replay = (self.replay + data)[-REPLAY:]
            for client in self.clients:
                try:
                    client.sendall(data)
                except OSError:
                    pass

    def end(self, kind, reason=None):
        with self.lock:
            if self.flags.boot_timer:
                print("milestone   since start\nprocess_start  0.000 ms", file=sys.stderr, flush=True)
            record = {"status": STATUS[kind], "kind": kind,
                      "reason": reason or REASON.get(kind, kind),
                      "wall_time": "2026-01-01T00:00:00.000Z"}
            temporary = self.flags.exit_file + ".new"
            with open(temporary, "w", encoding="utf-8") as file:
                json.dump(record, file)
            os.rename(temporary, self.flags.exit_file)
            os._exit(STATUS[kind])

    def run(self):
        for line in self.script:
            command, rest = line[0], line[1:]
            if command == "print":
                self.output(" ".join(rest).encode().decode("unicode_escape").encode("latin-1"))
            elif command == "flood":
                for number in range(int(rest[0])):
                    self.output(b"%07d\r\n" % number)
            elif command == "echo":
                self.echo.set()
                self.button.wait()
            elif command == "sleep":
                time.sleep(float(rest[0]))
            elif command == "exit":
                self.end(*rest)
            elif command == "crash":
                os._exit(134)
        while True:
            time.sleep(60)

    def press_button(self):
        if any(line[1] == "ignore" for line in self.setting("on-button")):
            return
        self.button.set()
        threading.Timer(0.05, self.end, ["power_off"]).start()

    def accept_waiting(self):
        """Takes in who has connected so far, so that they see all that comes."""
        with self.lock:
            while select.select([self.listener], [], [], 0)[0]:
                client, _ = self.listener.accept()
                client.sendall(self.replay)
                self.clients.append(client)
                threading.Thread(target=self.read_console, args=[client], daemon=True).start()

    def serve_console(self):
        while True:
            select.select([self.listener], [], [])
            self.accept_waiting()

    def read_console(self, client):
        while data := client.recv(4096):
            self.echo.wait()
            self.output(data)


class Handler(http.server.BaseHTTPRequestHandler):
    protocol_version = "HTTP/1.1"
    monitor = None

    def log_message(self, *_):
        pass

    def reply(self, status, body=None):
        data = b"" if body is None else json.dumps(body).encode()
        self.send_response(status)
        if data:
            self.send_header("Content-Type", "application/json")
            self.send_header("Content-Length", str(len(data)))
        self.end_headers()
        if data:  # a client that has its answer may be gone
            self.wfile.write(data)

    def do_GET(self):
        monitor = self.monitor
        answers = {"/": {"id": monitor.flags.id, "state": monitor.state, "vmm_version": "0",
                         "app_name": "Fake"},
                   "/vm/config": monitor.config,
                   "/boot-timer": {"kvm_ready": 1},
                   "/snapshot/create": {"state": "done", "memory_form": "whole"},
                   "/network-interfaces/net0/firewall": {
                       "flows": 3, "conntrack_allowance_exceeded": 2,
                       "conntrack_allowance_available": 7,
                       "verdicts": {"no_rule": {"packets": 5, "bytes": 300},
                                    "source_mac": {"packets": 0, "bytes": 0}},
                       "rules": [{"id": "sgr-1", "packets": 4, "bytes": 240}]}}
        if self.path in answers:
            self.reply(200, answers[self.path])
        else:
            self.reply(400, {"fault_message": "no such path"})

    def do_PATCH(self):
        self.do_PUT()

    def do_PUT(self):
        monitor = self.monitor
        body = json.loads(self.rfile.read(int(self.headers["Content-Length"])))
        if self.path == "/boot-source":
            if "kernel_image_path" in body:
                monitor.load(body["kernel_image_path"])
        for _, path, text in monitor.setting("refuse"):
            if path == self.path or path == body.get("action_type"):
                self.reply(400, {"fault_message": text})
                return
        if self.path.startswith("/drives/"):
            monitor.config["drives"].append(body)
        elif self.path == "/snapshot/load":
            monitor.state = "Running" if body["resume_vm"] else "Paused"
            monitor.config["snapshot/load"] = body
            monitor.config["network-interfaces"] = body.get("network_overrides", [])
        elif self.path == "/snapshot/create":
            os.mkdir(body["directory"])
            with open(body["directory"] + "/manifest.json", "w", encoding="utf-8") as file:
                json.dump({"saved_ms": 1, "memory_bytes": 1, "memory_stored_bytes": 1, "drives": [],
                           "metadata": body["metadata"]}, file)
            monitor.config["snapshot/create"] = body
        elif self.path == "/vm":
            monitor.state = "Running" if body["state"] == "Resumed" else "Paused"
        elif self.path == "/actions":
            self.act(body["action_type"])
            return
        else:
            monitor.config[self.path[1:]] = body
            if body.get("guest_network", {}).get("shared_link"):  # a network of VMs
                monitor.config.setdefault("network-interfaces", []).append(body)
            if self.path.endswith("/security-groups"):
                monitor.config["ruled_while"] = monitor.state
        self.reply(204)

    def act(self, action):
        monitor = self.monitor
        if action == "InstanceStart":
            monitor.state = "Running"
            monitor.accept_waiting()
            self.reply(204)
            threading.Thread(target=monitor.run, daemon=True).start()
        elif action == "PowerButton":
            self.reply(204)
            monitor.press_button()
        elif action == "Stop":
            if monitor.setting("on-stop"):
                time.sleep(3600)
            self.reply(204)
            self.wfile.flush()
            monitor.end("stopped")
        else:
            self.reply(400, {"fault_message": "unknown action"})


class Server(socketserver.ThreadingMixIn, socketserver.UnixStreamServer):
    daemon_threads = True


def main():
    parser = argparse.ArgumentParser()
    for flag in ("api-sock", "console", "console-log", "exit-file", "log-path", "level",
                 "metrics-path", "id", "ready-fd", "transport", "http-api-max-payload-size"):
        parser.add_argument("--" + flag)
    parser.add_argument("--no-reboot", action="store_true")
    parser.add_argument("--boot-timer", action="store_true")
    parser.add_argument("--no-jail", action="store_true")
    for flag in ("jail-read", "jail-write", "jail-socket"):
        parser.add_argument("--" + flag, action="append")
    flags = parser.parse_args()
    if os.environ.get("FAKE_VMM") == "fail-early":
        print("error /dev/kvm: there is none; load the kvm module", file=sys.stderr)
        sys.exit(1)
    monitor = Monitor(flags)
    if not flags.no_jail:
        monitor.config["jail"] = {"read": flags.jail_read or [], "write": flags.jail_write or [],
                                  "socket": flags.jail_socket or []}
    Handler.monitor = monitor
    with open(flags.log_path, "a", encoding="utf-8") as log:
        log.write("info fake: started\n")
    monitor.listener.bind(flags.console)
    monitor.listener.listen()
    threading.Thread(target=monitor.serve_console, daemon=True).start()
    server = Server(flags.api_sock, Handler)
    os.write(int(flags.ready_fd), b"1")
    os.close(int(flags.ready_fd))
    server.serve_forever()


main()
