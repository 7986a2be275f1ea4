#!/bin/sh
# Every ACPI table, for several machines: iasl must disassemble it, and compile what it understood
# back to the same bytes, without an error or a warning. Usage: iasl_test.sh DUMP_TABLES_PROGRAM
set -eu
dump=$1
command -v iasl >/dev/null || { echo "skipped: no iasl here (Debian package acpica-tools)"; exit 77; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

complain() { # MACHINE TABLE WHAT LOG
    echo "machine ($1): $2: $3"
    cat "$4"
    exit 1
}

# vCPUs, PCI, virtio-mmio devices
for machine in "1 1 0" "4 1 3" "32 1 32" "2 0 1" "1 0 0"; do
    folder=$work/$(echo "$machine" | tr ' ' -)
    mkdir "$folder"
    # shellcheck disable=SC2086
    "$dump" "$folder" $machine
    for table in DSDT FACP APIC XSDT; do
        [ -e "$folder/$table.dat" ] || { echo "machine ($machine): no $table"; exit 1; }
    done
    for table in "$folder"/*.dat; do
        name=$(basename "$table" .dat)
        log=$folder/$name.log
        again=$folder/again-$name
        iasl -d "$table" >"$log" 2>&1 || complain "$machine" "$name" "iasl -d fails" "$log"
        if grep -Eiq 'error|warning|invalid|incorrect' "$log"; then
            complain "$machine" "$name" "iasl -d complains" "$log"
        fi
        iasl -oa -p "$again" "$folder/$name.dsl" >"$log" 2>&1 ||
            complain "$machine" "$name" "iasl does not compile it again" "$log"
        grep -q ' 0 Errors, 0 Warnings' "$log" ||
            complain "$machine" "$name" "iasl compiles it with warnings" "$log"
        # The header names the compiler and has its checksum.
        cmp -i 36 "$table" "$again.aml" >"$log" 2>&1 ||
            complain "$machine" "$name" "iasl understood something else" "$log"
    done
done

# _OSC, run by ACPICA's interpreter: the guest asks for all control and gets the PCIe capabilities;
# an unknown UUID and revision are named as such, and nothing is granted in silence.
folder=$work/4-1-3
osc() { # UUID REVISION EXPECTED
    acpiexec -b "execute \\_SB.PCI0._OSC ($1) $2 3 (000000001F0000001F010000)" -di \
        "$folder/FACP.dat" "$folder/DSDT.dat" >"$folder/osc.log" 2>&1 </dev/null ||
        complain "4 1 3" DSDT "acpiexec fails" "$folder/osc.log"
    grep -q "$3" "$folder/osc.log" || complain "4 1 3" DSDT "_OSC does not return $3" "$folder/osc.log"
}
osc 5B4DDB33F71F1C4096577441C03DD766 1 "10 00 00 00 1F 00 00 00 10 00 00 00"
osc 5B4DDB33F71F1C4096577441C03DD766 2 "18 00 00 00 1F 00 00 00 10 00 00 00"
osc 5B4DDB33F71F1C4096577441C03DD700 1 "04 00 00 00 1F 00 00 00 1F 01 00 00"
