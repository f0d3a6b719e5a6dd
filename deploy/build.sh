#!/bin/bash
# usage: deploy/build.sh [FOLDER]     (default: target/packages)
# Builds what people install: the static program, its manual pages and completions, a Debian package, an OCI image and a list
# of all that is in it (CycloneDX). The same source and tools give the same bytes, in whatever folder. Needs cc, and:
#   rustup target add x86_64-unknown-linux-musl; cargo install cargo-deb cargo-cyclonedx; apt-get install umoci jq
set -euo pipefail
out=$(realpath -m "${1:-$(dirname "$0")/../target/packages}")
cd "$(dirname "$0")/.."
target=x86_64-unknown-linux-musl
profile=${PROFILE:-dist}
export CARGO_TARGET_DIR=${CARGO_TARGET_DIR:-target}
# Every time that is written somewhere is that of the last commit.
SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
export SOURCE_DATE_EPOCH
# No path of this machine: of the sources, of the crates and of the compiler.
cargo_home=${CARGO_HOME:-$HOME/.cargo}
export RUSTFLAGS="--remap-path-prefix=$PWD=/winject --remap-path-prefix=$cargo_home=/cargo --remap-path-prefix=$(rustc --print sysroot)=/rust"

cargo build --locked --quiet --profile "$profile" --target $target --bin winject
program=$CARGO_TARGET_DIR/$target/$([ "$profile" = dev ] && echo debug || echo "$profile")/winject
if file -b "$program" | grep -q interpreter; then echo "$program is not static"; exit 1; fi

rm -rf "$out"
mkdir -p "$out"/{bin,man,completions}
install -m 755 "$program" "$out/bin/winject"
"$out/bin/winject" manual --quiet --output-dir "$out/man"
for shell in bash zsh fish; do "$out/bin/winject" completions $shell > "$out/completions/winject.$shell"; done
find "$out" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

# Cargo.toml says which of these files go where; it names them below target/packages.
if [ "$out" = "$(realpath -m target/packages)" ]; then
  cargo deb --quiet --locked --no-build --no-strip --target $target --profile "$profile" --output "$out/"
fi
cargo cyclonedx --quiet --format json --describe binaries --target $target --override-filename winject-sbom
install -m 644 winject-sbom.json "$out/winject.cdx.json"
rm winject-sbom.json
deploy/oci/build.sh "$out/bin/winject" "$out/winject-oci.tar"
ls -l "$out"
