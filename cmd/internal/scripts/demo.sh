#!/bin/sh
# demo.sh BIN: the main job on real input. Backs up the source of the Go
# installation, with a few cat pictures among it, into one repository, and moves
# the history, without the cats, into another one with another cipher.
set -eu
bin=$(cd "$1" && pwd)
PATH=$bin:$PATH
goroot=$(go env GOROOT)
work=$(mktemp -d "${TMPDIR:-/tmp}/bk-demo.XXXXXX")
trap 'rm -rf "$work"' EXIT INT TERM

say() { printf '\n\033[1m%s\033[0m\n' "$*"; }
run() { printf '$ %s\n' "$*"; "$@"; }

export BK_PASSPHRASE='correct horse' BK_IMPORT_PASSPHRASE='battery staple' BK_CACHE_DIR="$work/cache"
export BK_REPO="$work/old" BK_IMPORT_REPO="$work/new"

say "Real input: the source of the Go installation, and some cats."
mkdir "$work/home"
cp -a "$goroot/src" "$work/home/src"
mkdir "$work/home/pictures"
for n in Tom Minka Felix; do
  cp "$goroot/src/image/testdata/video-001.jpeg" "$work/home/pictures/$n.cat.jpg"
  printf '%s' "$n" >> "$work/home/pictures/$n.cat.jpg"
done
cp "$goroot/src/image/testdata/video-001.png" "$work/home/pictures/holiday.png"
du -sh "$work/home"

say "1. A repository as one may have had for ten years: AES-256-GCM, Rabin chunks."
run bk-init --cipher aes-256-gcm --chunker rabin
run bk-backup --host laptop --tag monday "$work/home"
printf 'a diary\n' > "$work/home/diary.txt"
rm -r "$work/home/src/cmd"
cp "$goroot/src/image/testdata/video-005.gray.jpeg" "$work/home/pictures/Kitty.cat.jpg"
run bk-backup --host laptop --tag tuesday "$work/home"
run bk-snapshots

say "2. Another repository: XChaCha20-Poly1305, and better compression."
BK_PASSPHRASE=$BK_IMPORT_PASSPHRASE run bk-init -r "$BK_IMPORT_REPO" --cipher xchacha20-poly1305 --compression zstd:7

say "3. The main job: everything moves but the cats."
echo "$ bk-export --all | bk-filter --drop '*.cat.jpg' | bk-import"
bk-export --all | bk-filter --drop '*.cat.jpg' | bk-import
BK_PASSPHRASE=$BK_IMPORT_PASSPHRASE run bk-snapshots -r "$BK_IMPORT_REPO"

say "4. Cats before and after:"
run bk-find '*.cat.jpg'
echo "--"
BK_PASSPHRASE=$BK_IMPORT_PASSPHRASE run bk-find -r "$BK_IMPORT_REPO" '*.cat.jpg'

say "5. The same again adds nothing:"
bk-export --all | bk-filter --drop '*.cat.jpg' | bk-import

say "6. The newest snapshot of the new repository, restored and compared:"
export BK_PASSPHRASE=$BK_IMPORT_PASSPHRASE BK_REPO=$BK_IMPORT_REPO
run bk-restore "latest:$work/home" --target "$work/restored"
rm "$work"/home/pictures/*.cat.jpg
if diff -r "$work/home" "$work/restored"; then
  say "Equal to the source, byte for byte, without the cats."
else
  say "The restored tree differs." >&2
  exit 1
fi
