#!/bin/sh
# Makes the WIM files of the tests with wimlib-imagex (Debian: wimtools). Usage: make.sh FOLDER
set -eu
out=$(cd "$1" && pwd)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
drivers=$work/tree/Windows/System32/drivers
store=$work/tree/Windows/System32/DriverStore/FileRepository
mkdir -p "$drivers" "$store/vioscsi.inf_amd64_0123456789abcdef" "$work/tree/Users"
for n in $(seq 300); do printf 'driver %s' "$n" >"$drivers/inbox$n.sys"; done
seq 2000 >"$drivers/viostor.sys"
printf '[Version]' >"$store/vioscsi.inf_amd64_0123456789abcdef/vioscsi.inf"
: >"$drivers/empty.sys"
find "$work/tree" -exec touch -d @1700000000 {} +
capture() { wimlib-imagex capture "$work/tree" "$out/$1" --boot --no-acls --image-property WINDOWS/ARCH=9 "$2" >/dev/null; }
capture lzx.wim --compress=LZX
capture xpress.wim --compress=XPRESS
capture plain.wim --compress=none
wimlib-imagex capture "$work/tree" "$out/solid.wim" --no-acls --solid >/dev/null
gzip -9nf "$out/plain.wim"
