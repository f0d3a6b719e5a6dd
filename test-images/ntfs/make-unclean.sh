#!/bin/sh
# Makes unclean.img.gz: a 6 MiB NTFS volume by mkntfs and ntfs-3g (Debian package ntfs-3g; needs root and FUSE), into
# whose log tests/judges/logfile/make-unclean.py wrote 115 records of format 2.0, the last transaction without its end.
# The result differs from run to run in serial number and times only.
set -eu
cd "$(dirname "$0")"
folder=$(mktemp -d)
trap 'rm -rf "$folder"' EXIT
image=$folder/clean
truncate -s 6M "$image"
PATH=$PATH:/usr/sbin:/sbin
mkntfs -F -Q -L unclean -c 4096 "$image"
mkdir "$folder/mount"
ntfs-3g "$image" "$folder/mount"
mkdir "$folder/mount/big" "$folder/mount/small"
for n in $(seq 1 60); do echo "file number $n" >"$folder/mount/big/some-longer-file-name-$n.txt"; done
for n in 1 2 3; do echo "hello $n" >"$folder/mount/small/f$n"; done
head -c 9000 /dev/zero >"$folder/mount/big/z1.bin"
umount "$folder/mount"
python3 ../../tests/judges/logfile/make-unclean.py --seed 4 --dir 64 --version 2.0 --end lose --count 40 "$image" "$folder/open"
gzip -9n <"$folder/open" >unclean.img.gz
