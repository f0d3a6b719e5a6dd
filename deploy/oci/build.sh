#!/bin/bash
# usage: deploy/oci/build.sh PROGRAM IMAGE.tar
# Makes an OCI image of one file, the static program, without a daemon and without root. Its user is 107, as which KubeVirt
# and libvirt run QEMU, so that it may read and write their disks; it needs no capability and a read-only root. Load it with
#   podman load -i IMAGE.tar       or       skopeo copy oci-archive:IMAGE.tar docker://REGISTRY/winject
# and run it with
#   podman run --rm --read-only --cap-drop=ALL --security-opt=no-new-privileges -v "$PWD:/data" winject inspect win.qcow2
set -euo pipefail
program=$(realpath "$1")
out=$(realpath -m "$2")
cd "$(dirname "$0")/../.."
: "${SOURCE_DATE_EPOCH:=$(git log -1 --format=%ct)}"
created=$(date -u -d "@$SOURCE_DATE_EPOCH" +%Y-%m-%dT%H:%M:%SZ)
version=$(sed -n 's/^version = "\(.*\)"/\1/p' Cargo.toml | head -1)
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT

# The disks are mounted at /data. /tmp is for what does not fit into memory, if something is mounted there.
mkdir -p "$work"/root/{data,tmp,usr/bin}
install -m 755 "$program" "$work/root/usr/bin/winject"
chmod 1777 "$work/root/tmp"
find "$work/root" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +

image=$work/image
umoci init --layout "$image"
umoci new --image "$image:$version"

umoci insert --image "$image:$version" --rootless --history.created "$created" --history.created_by "winject $version" "$work/root" /
umoci config --image "$image:$version" --no-history --clear=config.env --created "$created" --architecture amd64 --os linux \
  --config.user 107:107 --config.entrypoint /usr/bin/winject --config.workingdir /data \
  --config.label org.opencontainers.image.title=winject --config.label "org.opencontainers.image.version=$version" \
  --config.label org.opencontainers.image.licenses="MIT OR Apache-2.0"
umoci gc --layout "$image"
find "$image" -exec touch -h -d "@$SOURCE_DATE_EPOCH" {} +
tar -C "$image" --sort=name --owner=0 --group=0 --numeric-owner --format=gnu -cf "$out" .
