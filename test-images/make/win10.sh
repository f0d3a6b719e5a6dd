#!/bin/bash
# win10.sh OUT.qcow2 - a 1 GiB disk (GPT: ESP, MSR, NTFS) with a make-believe Windows 10, compressed to some 200 KiB.
# Needs root (FUSE mount), ntfs-3g, gdisk, dosfstools, mtools, qemu-utils, python3.
set -euo pipefail
here=$(cd "$(dirname "$0")" && pwd)
out=$(realpath -m "$1")
export PATH=$PATH:/usr/sbin:/sbin PYTHONDONTWRITEBYTECODE=1
work=$(mktemp -d); trap 'mountpoint -q "$work/mnt" && umount "$work/mnt"; rm -rf "$work"' EXIT
disk=$work/disk.raw
truncate -s 1G "$disk"
sgdisk -o -U 77696E6A-0000-4000-8000-000000000000 \
  -n 1:2048:+64M -t 1:ef00 -c '1:EFI system partition' -u 1:77696E6A-0000-4000-8000-000000000001 \
  -n 2:0:+16M -t 2:0c01 -c '2:Microsoft reserved partition' -u 2:77696E6A-0000-4000-8000-000000000002 \
  -n 3:0:-1M -t 3:0700 -c '3:Basic data partition' -u 3:77696E6A-0000-4000-8000-000000000003 "$disk" >/dev/null
span() { sgdisk -i "$1" "$disk" | awk '/^First sector/ {f=$3} /^Last sector/ {l=$3} END {print f, l - f + 1}'; }
read -r esp_start esp_length < <(span 1)
read -r nt_start nt_length < <(span 3)

# the ESP
truncate -s $((esp_length * 512)) "$work/esp"
mkfs.vfat -F 32 -n SYSTEM -i 77696E6A "$work/esp" >/dev/null
mmd -i "$work/esp" ::/EFI ::/EFI/Boot ::/EFI/Microsoft ::/EFI/Microsoft/Boot
python3 -c 'import sys; sys.path.insert(0, sys.argv[1]); import drivers; open(sys.argv[2], "wb").write(drivers.pe(4096, 99))' "$here" "$work/loader"
mcopy -i "$work/esp" "$work/loader" ::/EFI/Boot/bootx64.efi
mcopy -i "$work/esp" "$work/loader" ::/EFI/Microsoft/Boot/bootmgfw.efi
python3 "$here/windows10.py" --bcd "$work/BCD"
mcopy -i "$work/esp" "$work/BCD" ::/EFI/Microsoft/Boot/BCD

# the Windows volume
truncate -s $((nt_length * 512)) "$work/nt" 2>/dev/null
mkntfs -F -Q -q -c 4096 -s 512 -p "$nt_start" -H 255 -S 63 -L Windows "$work/nt" 2>/dev/null
mkdir "$work/mnt"
ntfs-3g -o big_writes,noatime "$work/nt" "$work/mnt"
w=$work/mnt/Windows s=$work/mnt/Windows/System32
mkdir -p "$s/config" "$s/Boot" "$s/drivers" "$s/DriverStore/FileRepository" "$s/CatRoot/{F750E6C3-38EE-11D1-85E5-00C04FC295EE}" \
  "$w/INF" "$w/Temp" "$w/WinSxS" "$work/mnt/Program Files" "$work/mnt/Users/Public" "$work/mnt/ProgramData"
python3 "$here/windows10.py" "$s/config"
: >"$s/config/SYSTEM.LOG1"; : >"$s/config/SYSTEM.LOG2"; : >"$s/config/SOFTWARE.LOG1"; : >"$s/config/SOFTWARE.LOG2"
# The upper third of the volume stays free: ntfs-3g would scatter the small files over all of it.
head -c 720M /dev/zero >"$work/mnt/filler"
python3 - "$here" "$s" <<'P'
import sys
sys.path.insert(0, sys.argv[1])
import drivers, windows10
programs = ['ntoskrnl.exe', 'hal.dll', 'ci.dll', 'kdcom.dll', 'winload.efi', 'winload.exe', 'winresume.efi', 'pnputil.exe', 'cmd.exe']
for number, name in enumerate(programs + windows10.driver_files()):
    open('%s/%s' % (sys.argv[2], name), 'wb').write(drivers.pe(1024, 1000 + number))
P
for i in efi exe; do ln "$s/winload.$i" "$s/Boot/winload.$i"; done
for i in $(seq -w 0 60); do printf 'component %s\r\n' "$i" >"$w/WinSxS/component-$i.manifest"; done
for i in $(seq -w 0 60); do printf '; class %s\r\n' "$i" >"$w/INF/class$i.inf"; done
ln "$s/drivers/disk.sys" "$w/WinSxS/disk.sys"
rm "$work/mnt/filler"
umount "$work/mnt"
while pgrep -f "ntfs-3g.*$work/nt" >/dev/null; do sleep 0.1; done
for part in "$work/esp $esp_start" "$work/nt $nt_start"; do
  set -- $part
  python3 - "$1" "$disk" $(($2 * 512)) <<'P'
import sys
with open(sys.argv[1], 'rb') as a, open(sys.argv[2], 'r+b') as b:
    at = int(sys.argv[3])
    while True:
        chunk = a.read(1 << 20)
        if not chunk:
            break
        if chunk.strip(b'\0'):
            b.seek(at)
            b.write(chunk)
        at += len(chunk)
P
done
qemu-img convert -c -O qcow2 "$disk" "$out"
