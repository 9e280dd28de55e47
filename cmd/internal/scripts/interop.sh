#!/bin/sh
# interop.sh BIN: installs the peers from Debian's packages where they are
# missing, and tests the programs in BIN, and the packages, against them.
set -eu
bin=$(cd "$1" && pwd)
packages="restic borgbackup rsync rsnapshot tar libarchive-tools zstd attr acl
  python3 python3-msgpack python3-zstandard python3-cryptography libargon2-1"
missing=
for p in $packages; do
  dpkg-query -W -f '${Status}' "$p" 2>/dev/null | grep -q 'ok installed' || missing="$missing $p"
done
if [ -n "$missing" ]; then
  sudo=
  [ "$(id -u)" = 0 ] || sudo=sudo
  echo "installing:$missing"
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get update -q
  # shellcheck disable=SC2086
  $sudo env DEBIAN_FRONTEND=noninteractive apt-get install -q -y $missing
fi
BK_BIN=$bin exec go test -tags interop -timeout 30m -count 1 ./cmd/internal/interop/... ./format/tar
