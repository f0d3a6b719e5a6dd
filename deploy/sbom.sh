#!/bin/bash
# usage: deploy/sbom.sh TARGET
# Prints the list of all crates that the program is built of for this target, as CycloneDX 1.5: name, version, licence, and the
# checksum of Cargo.lock. Without tests, and without crates of other systems and features.
set -euo pipefail
cd "$(dirname "$0")/.."
tree=$(cargo tree --locked --edges no-dev --target "$1" --prefix none | sed 's/ (.*//; s/ v/ /' | sort -u)
cargo metadata --locked --format-version 1 --filter-platform "$1" | jq --sort-keys --arg tree "$tree" --rawfile lock Cargo.lock '
  def key: "\(.name) \(.version)";
  ($tree | split("\n") | map({key: ., value: true}) | from_entries) as $used
  | ([$lock | scan("name = \"([^\"]+)\"\nversion = \"([^\"]+)\"\nsource = [^\n]+\nchecksum = \"([0-9a-f]+)\"")
      | {key: "\(.[0]) \(.[1])", value: .[2]}] | from_entries) as $sums
  | .resolve.root as $root
  | (.packages[] | select(.id == $root)) as $own
  | {
      bomFormat: "CycloneDX", specVersion: "1.5", version: 1,
      metadata: {component: {type: "application", "bom-ref": ($own | key), name: $own.name, version: $own.version,
        licenses: [{expression: $own.license}]}},
      components: [.packages[] | select(.id != $root and $used[key]) | {
        type: "library", "bom-ref": key, name, version, purl: "pkg:cargo/\(.name)@\(.version)",
        licenses: [{expression: (.license | gsub("/"; " OR "))}],
        hashes: [{alg: "SHA-256", content: $sums[key]}]}] | sort_by(."bom-ref")
    }'
