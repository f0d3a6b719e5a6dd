#!/bin/bash
# usage: deploy/deb.sh BUILT FOLDER
# Makes a Debian package of what deploy/build.sh has put into BUILT. The program is static: it depends on nothing.
set -euo pipefail
built=$(realpath "$1")
out=$(realpath "$2")
cd "$(dirname "$0")/.."
field() { sed -n "s/^$1 = \"\(.*\)\"/\1/p" Cargo.toml | head -1; }
export SOURCE_DATE_EPOCH=${SOURCE_DATE_EPOCH:-$(git log -1 --format=%ct)}
architecture=$(dpkg --print-architecture)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

put() { install -D -m "$1" "$2" "$work/$3"; }
put 755 "$built/bin/winject" usr/bin/winject
for page in "$built"/man/*.1; do
  put 644 "$page" "usr/share/man/man1/${page##*/}"
  gzip -9n "$work/usr/share/man/man1/${page##*/}"
done
put 644 "$built/completions/winject.bash" usr/share/bash-completion/completions/winject
put 644 "$built/completions/winject.zsh" usr/share/zsh/vendor-completions/_winject
put 644 "$built/completions/winject.fish" usr/share/fish/vendor_completions.d/winject.fish
for text in README.md CHANGELOG.md docs/*.md LICENSE-APACHE LICENSE-MIT "$built/winject.cdx.json"; do
  put 644 "$text" "usr/share/doc/winject/${text##*/}"
done
mkdir "$work/DEBIAN"
cat > "$work/DEBIAN/control" <<END
Package: winject
Version: $(field version)
Architecture: $architecture
Section: admin
Priority: optional
Maintainer: The winject authors <winject@localhost>
Installed-Size: $(du -sk --apparent-size "$work/usr" | cut -f1)
Description: $(field description)
 Writes boot drivers, registry entries, driver packages and a first-boot job
 into the image of a Windows machine that moves to KVM.
END
chmod -R u=rwX,go=rX "$work"
find "$work" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
dpkg-deb --root-owner-group --build "$work" "$out/winject_$(field version)_$architecture.deb" >/dev/null
