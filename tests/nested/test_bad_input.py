"""What a person gets wrong ends with one sentence that names the thing, and status 1."""

from suite import Skip, check, test


def refused(host, *arguments, names, timeout=60):
    """Runs masu; it must fail with status 1 and one line that holds every one of `names`."""
    result = host.run(host.path("bin/masu"), "run", *arguments, timeout=timeout)
    text = result.errors.strip()
    check(result.status == 1, f"status {result.status}: {result.output}{text}")
    check(len(text.splitlines()) == 1, f"not one line:\n{text}")
    for name in names:
        check(name.lower() in text.lower(), f"{name!r} is not in: {text}")
    return text


def file_with(host, name, script):
    path = f"{host.scratch}/{name}"
    host.shell(f"({script}) >{path}")
    return path


def small_vm(host):
    return ("--kernel", host.path("debian/vmlinux"), "--initrd", host.path("small/initramfs"))


@test(cost=3)
def a_kernel_that_is_missing(host):
    refused(host, "--kernel", "/no/such/vmlinuz", names=["/no/such/vmlinuz"])


@test(cost=3)
def a_kernel_that_is_empty(host):
    path = file_with(host, "empty", "true")
    refused(host, "--kernel", path, names=[path])


@test(cost=3)
def a_kernel_that_is_cut_off(host):
    vmlinuz = file_with(host, "cut-vmlinuz", f"head -c 100000 {host.path('debian/vmlinuz')}")
    refused(host, "--kernel", vmlinuz, names=[vmlinuz])
    vmlinux = file_with(host, "cut-vmlinux", f"head -c 100000 {host.path('debian/vmlinux')}")
    refused(host, "--kernel", vmlinux, names=[vmlinux])


@test(cost=3)
def a_kernel_that_is_none(host):
    path = file_with(host, "text", "seq 1 100000")
    refused(host, "--kernel", path, names=[path])
    directory = host.scratch
    refused(host, "--kernel", directory, names=[directory, "directory"])


@test(cost=3)
def an_initrd_larger_than_memory(host):
    path = file_with(host, "big-initrd", "true")
    host.shell(f"truncate -s 300M {path}")
    refused(host, "--kernel", host.path("debian/vmlinux"), "--initrd", path, "--memory", "128M",
            names=[path, "memory"])  # fmt: skip


@test(cost=3)
def a_command_line_too_long(host):
    refused(host, *small_vm(host), "--append", "x" * 3000, names=["command line"])


@test(cost=3)
def a_disk_that_is_missing(host):
    refused(host, *small_vm(host), "--disk", "/no/such/disk.raw", names=["/no/such/disk.raw"])


@test(cost=3)
def a_disk_that_is_a_directory(host):
    refused(host, *small_vm(host), "--disk", host.scratch, names=[host.scratch, "directory"])


@test(cost=3)
def an_unknown_key_in_the_config_file(host):
    path = file_with(host, "config.json", """echo '{"machine-config": {"vcpu_cuont": 1}}'""")
    vmm = host.path("bin/masu-vmm")
    result = host.run(vmm, "--api-sock", f"{host.scratch}/bad.sock", "--config-file", path)
    check(result.status != 0, f"status {result.status}")
    check("vcpu_cuont" in result.errors, result.errors)


@test(cost=3)
def no_dev_kvm(host):
    if not host.nested:
        raise Skip("takes /dev/kvm away, which only the nested host can spare")
    host.shell("mv /dev/kvm /dev/kvm-away")
    try:
        refused(host, *small_vm(host), names=["/dev/kvm"])
        doctor = host.run(host.path("bin/masu"), "doctor")
        check(doctor.status == 1 and "/dev/kvm" in doctor.output, doctor.output)
    finally:
        host.shell("mv /dev/kvm-away /dev/kvm")


@test(cost=3)
def no_permission_on_dev_kvm(host):
    if host.run("sh", "-c", "[ $(stat -c %a /dev/kvm) = 600 ]").status != 0:
        raise Skip("others may use /dev/kvm here")
    state = f"/tmp/nobody-{host.next_number()}"
    host.shell(f"mkdir {state} && chown 65534 {state}")
    result = host.run("setpriv", "--reuid=65534", "--clear-groups", "env", f"MASU_STATE_DIR={state}",
                      host.path("bin/masu"), "run", *small_vm(host))  # fmt: skip
    check(result.status == 1, f"status {result.status}")
    check("/dev/kvm" in result.errors and "permission" in result.errors.lower(), result.errors)
    check("jail" not in result.errors, result.errors)
    check(len(result.errors.strip().splitlines()) == 1, result.errors)
