#!/bin/sh
# Makes small.img.gz: a 2 MiB NTFS volume with a few files, by mkntfs and ntfscp (Debian package ntfs-3g).
# The result differs from run to run in serial number and times only.
set -eu
cd "$(dirname "$0")"
image=$(mktemp)
trap 'rm -f "$image" "$image.data"' EXIT
truncate -s 2M "$image"
PATH=$PATH:/usr/sbin mkntfs -F -q -f -p 0 -H 0 -S 0 -c 4096 -s 512 -L small "$image"
printf 'Hello from ntfscp\r\n' > "$image.data"
ntfscp -q "$image" "$image.data" hello.txt
seq 1 3000 > "$image.data"
ntfscp -q "$image" "$image.data" numbers.txt
gzip -9n < "$image" > small.img.gz
