#!/bin/bash
# Builds the service program for all three CPUs: build.sh FOLDER. With --stand-in only the stand-in for the tests.
#
# The same source gives the same bytes, from whatever folder: the compiler's version is fixed, paths are left out, and
# the compiler is called directly, because Cargo mixes the package's path into the symbols. Neither Windows nor its SDK is
# needed: imports go by name and library, and the linker is the toolchain's own.
set -euo pipefail
version=1.95.0
here=$(cd "$(dirname "${BASH_SOURCE[0]}")" && pwd)
out=${1:?usage: build.sh FOLDER [--stand-in]}
mkdir -p "$out"
out=$(cd "$out" && pwd)
targets=(x86_64-pc-windows-msvc:amd64 i686-pc-windows-msvc:x86 aarch64-pc-windows-msvc:arm64)
rustc() { command rustup run "$version" rustc "$@"; }
if ! rustup run "$version" rustc --version >/dev/null 2>&1; then
  rustup toolchain install --profile minimal "$version" >&2
fi
have=$(rustup target list --installed --toolchain "$version")
for pair in "${targets[@]}"; do
  grep -qx "${pair%%:*}" <<<"$have" || rustup target add --toolchain "$version" "${pair%%:*}" >&2
done
case $(rustc --version) in "rustc $version "*) ;; *) echo "build.sh: rustc $version is needed" >&2; exit 1 ;; esac
work=$(mktemp -d)
trap 'rm -r "$work"' EXIT
cd "$here"
unset RUSTFLAGS CARGO_ENCODED_RUSTFLAGS
export CARGO_PKG_VERSION
CARGO_PKG_VERSION=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml)

# compile TARGET NAME SOURCE FLAG...
compile() {
  rustc --edition 2024 --target "$1" --crate-name "$2" "$3" --remap-path-prefix "$here=firstboot" -D warnings \
    -C metadata=winject-firstboot -C opt-level=z -C panic=abort -C debuginfo=0 -C codegen-units=1 "${@:4}"
}
# link TARGET NAME SOURCE OUTPUT
link() {
  local subsystem=6.00 # Windows Vista
  case $1 in aarch64-*) subsystem=6.02 ;; esac
  compile "$1" "$2" "$3" --crate-type bin --extern "winject_firstboot=$work/lib$1.rlib" -o "$4" -C lto=fat \
    -C linker=rust-lld -C linker-flavor=lld-link -C link-arg=/NODEFAULTLIB -C link-arg=/ENTRY:start \
    -C link-arg=/SUBSYSTEM:CONSOLE,$subsystem -C link-arg=/OPT:REF -C link-arg=/OPT:ICF -C link-arg=/Brepro \
    -C link-arg=/DEBUG:NONE -C link-arg=/DYNAMICBASE -C link-arg=/NXCOMPAT
}
for pair in "${targets[@]}"; do
  target=${pair%%:*}
  compile "$target" winject_firstboot src/lib.rs --crate-type rlib -C embed-bitcode=yes -o "$work/lib$target.rlib"
  if [ "${2:-}" = --stand-in ]; then
    link "$target" stand_in tests/stand_in.rs "$out/stand-in.exe"
    break
  fi
  link "$target" firstboot src/main.rs "$out/${pair##*:}.exe"
done
