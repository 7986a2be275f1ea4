"""The life of a VM: reboot, stop, console, panic, triple fault, dead monitors, ps."""

import json

from guests import SPARED, Vm, run_small
from suite import check, test


def masu(host, *arguments, timeout=60):
    return host.run(host.path("bin/masu"), *arguments, timeout=timeout)


@test(cost=25)
def reboot_restarts_the_same_vm(host):
    """The first boot reboots, the second powers off: one `masu run`, one disk, status 0."""
    disk = f"{host.scratch}/reboot-{host.next_number()}.raw"
    host.shell(f"truncate -s 1M {disk}")
    vm = run_small(
        host,
        """if [ "$(head -c 6 /dev/vda)" = booted ]; then echo BOOT=second; else
          echo BOOT=first; echo booted | dd of=/dev/vda conv=fsync 2>/dev/null; reboot -f; fi""",
        "--disk", disk,
    )  # fmt: skip
    check(vm.wait(120) == 0, f"status {vm.program.status}:\n{vm.program.tail()}")
    check("BOOT=first" in vm.output and "BOOT=second" in vm.output, vm.program.tail())


@test(cost=10)
def no_reboot_ends_at_the_first(host):
    vm = run_small(host, "echo BOOT=$(cut -d' ' -f1 /proc/uptime); reboot -f", "--no-reboot")
    check(vm.wait(90) == 0, f"status {vm.program.status}:\n{vm.program.tail()}")
    check(vm.output.count("BOOT=") == 1, vm.program.tail())


@test(cost=15)
def stop_kills_a_guest_that_ignores_the_button(host):
    vm = run_small(host, "echo DEAF; while true; do sleep 1; done")
    vm.expect("^DEAF", 60)
    stop = masu(host, "stop", "--time", "3", vm.name)
    check(stop.status == 0, f"masu stop: {stop.errors}")
    check("did not switch itself off" in stop.errors, f"masu stop: {stop.errors}")
    # Stopped because it was asked for: no error, but never shown as a power-off.
    check(vm.wait(30) == 0, vm.program.tail())
    listed = masu(host, "ps", "-a").output.splitlines()
    mine = [line for line in listed if line.split()[:1] == [vm.name]]
    check(len(mine) == 1, "\n".join(listed))
    check("stopped" in mine[0] and "powered off" not in mine[0], mine[0])


@test(cost=20)
def detached_vm_and_its_console(host):
    """run -d returns at once; ps and inspect show it; console types into it; logs keep what it
    printed; rm forgets it."""
    job = "echo WAITING; while read -r line; do echo GOT=$line; [ \"$line\" = end ] && break; done"
    vm = run_small(host, job, "--detach")
    check(vm.wait(30) == 0, vm.program.tail())
    listed = json.loads(masu(host, "ps", "--output", "json").output)
    check(any(v["name"] == vm.name for v in listed), f"ps does not list it: {listed}")
    console = host.start(host.path("bin/masu"), "console", vm.name, terminal=True)
    try:
        console.expect("WAITING", 60)
        console.write("hello\n")
        console.expect("GOT=hello", 60)
        console.write("\x01d")
        check(console.wait(20) == 0, f"Ctrl-A D: {console.tail()}")
        check(vm.inspect()["state"].lower() == "running", "leaving the console stopped the VM")
        again = host.start(host.path("bin/masu"), "console", vm.name, terminal=True)
        again.write("end\n")
        again.expect("GUEST-DONE=0", 60)
        again.wait(60)
    finally:
        masu(host, "kill", vm.name)
    logs = masu(host, "logs", vm.name)
    check("GOT=hello" in logs.output, f"logs: {logs.tail()}")
    check(masu(host, "rm", vm.name).status == 0, "rm refuses a stopped VM")
    listed = json.loads(masu(host, "ps", "--all", "--output", "json").output)
    check(not any(v["name"] == vm.name for v in listed), "rm left it in the list")


@test(cost=15)
def a_running_vm_has_its_name_a_boot_timer_and_console_keys(host):
    """Its name is refused to another; Ctrl-A H shows the keys, Ctrl-A X ends it."""
    first = run_small(host, "echo UP; while true; do sleep 1; done", "--boot-timer")
    first.expect("^UP", 60)
    timer = first.inspect()["boot_timer"]
    times = {name: value for name, value in timer.items() if isinstance(value, (int, float))}
    check(len(times) >= 4, f"the boot timer says {timer}")
    check(all(value >= 0 for value in times.values()), f"a time before the start: {timer}")
    second = run_small(host, "true", name=first.name)
    check(second.wait(30) == 1, f"status {second.program.status}")
    check(first.name in second.output, second.output)
    first.type("\x01h")
    first.expect(r"(?i)ctrl-a", 20)
    first.type("\x01x")
    first.wait(30)
    check(first.program.status is not None, "Ctrl-A X does not leave")


@test(cost=20)
def a_dead_monitor_holds_neither_its_state_nor_its_disk(host):
    """It is never shown as running; its disk was refused to others, and is no more."""
    disk = f"{host.scratch}/locked-{host.next_number()}.raw"
    host.shell(f"truncate -s 1M {disk}")
    vm = run_small(host, "echo UP; while true; do sleep 1; done", "--disk", disk)
    vm.expect("^UP", 60)
    refused = run_small(host, "true", "--disk", disk)
    check(refused.wait(30) == 1 and disk in refused.output, refused.program.tail())
    vm.kill_monitor()
    check(vm.wait(30) != 0, "status 0 although the monitor was killed")
    state = vm.inspect()["state"].lower()
    check(state != "running", f"inspect says {state}")
    again = run_small(host, "true", "--disk", disk)
    check(again.wait() == 0, again.program.tail())


@test(cost=15)
def state_survives_a_killed_command_line(host):
    vm = run_small(host, "echo UP; while true; do sleep 1; done", "--detach")
    vm.wait(30)
    check(vm.inspect()["state"].lower() == "running", "not running after run -d")
    masu(host, "kill", vm.name)


@test(cost=20)
def panics_at_boot_are_bounded(host):
    """No init: the kernel panics and resets (panic=-1), each time again."""
    vm = Vm(host, "--kernel", host.path("debian/vmlinux"), "--append", f"quiet {SPARED}", "--memory", "256M")
    status = vm.wait(240)
    check(status not in (0, 128 + 9), f"status {status}")
    last = vm.output.strip().splitlines()[-1]
    check("panic" in last.lower(), f"the last line is: {last}")
    check(1 < vm.output.count("Kernel panic") < 30, vm.program.tail())


@test(cost=15)
def panic_in_a_running_guest(host):
    vm = run_small(host, "echo 1 >/proc/sys/kernel/sysrq; echo c >/proc/sysrq-trigger", "--no-reboot")
    check(vm.wait(90) != 0, "a panic counts as a clean end")
    check("panic" in vm.output.lower(), vm.program.tail())


@test(cost=15)
def triple_fault_ends_with_a_reason(host):
    """reboot=t without a working ACPI or keyboard reset is the kernel's triple fault."""
    vm = run_small(host, "reboot -f", "--no-reboot", append="reboot=t,force")
    status = vm.wait(90)
    check(status != 0, f"status {status}")
    check("triple fault" in vm.output.lower(), vm.program.tail())


@test(cost=5)
def doctor_says_hardware(host):
    """Wherever this suite runs guests, doctor must find a KVM that runs them."""
    doctor = masu(host, "doctor")
    check(doctor.status == 0, f"status {doctor.status}: {doctor.output}{doctor.errors}")
    report = json.loads(masu(host, "doctor", "--output", "json").output)
    check(report["runs_directly"], json.dumps(report))
