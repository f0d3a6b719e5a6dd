#!/bin/bash
# usage: deploy/build.sh [FOLDER [PROGRAM]]     (default: target/packages, and the static program, which is built)
# Builds what people install: the static program, its manual pages and completions, a Debian package, an OCI image and a list of
# all crates in them (CycloneDX). The same source and tools give the same bytes. Needs cc, and:
#   rustup target add x86_64-unknown-linux-musl; apt-get install jq umoci
set -euo pipefail
cd "$(dirname "$0")/.."
out=$(realpath -m "${1:-target/packages}")
target=x86_64-unknown-linux-musl
# Every time that is written somewhere is that of the last commit.
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}

program=${2:-}
if [ -z "$program" ]; then
  profile=${PROFILE:-dist}
  # No path of this machine: of the sources, of the crates and of the compiler.
  RUSTFLAGS="--remap-path-prefix=$PWD=/winject --remap-path-prefix=${CARGO_HOME:-$HOME/.cargo}=/cargo"
  export RUSTFLAGS="$RUSTFLAGS --remap-path-prefix=$(rustc --print sysroot)=/rust"
  cargo build --locked --profile "$profile" --target $target --bin winject
  program=${CARGO_TARGET_DIR:-target}/$target/$([ "$profile" = dev ] && echo debug || echo "$profile")/winject
fi
program=$(realpath "$program")
rm -rf "$out"
mkdir -p "$out"/{bin,man,completions}
install -m 755 "$program" "$out/bin/winject"
"$out/bin/winject" manual --quiet --output-dir "$out/man"
for shell in bash zsh fish; do "$out/bin/winject" completions $shell > "$out/completions/winject.$shell"; done
deploy/sbom.sh $target > "$out/winject.cdx.json"
deploy/deb.sh "$out" "$out"
deploy/oci/build.sh "$out/bin/winject" "$out/winject-oci.tar"
find "$out" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
