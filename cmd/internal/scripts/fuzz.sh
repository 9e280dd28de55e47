#!/bin/sh
# fuzz.sh TIME: runs every fuzz target of the tree for TIME each. Inputs of some
# kilobytes are hardly minimized: that would take all of the time.
set -eu
time=${1:-10s}
go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do
  for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go 2>/dev/null | sed 's/^func //' | sort -u); do
    echo "== $pkg $target"
    go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 20x "$pkg" </dev/null
  done
done
