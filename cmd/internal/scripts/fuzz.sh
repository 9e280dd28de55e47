#!/bin/sh
# fuzz.sh TIME: runs every fuzz target of the tree for TIME each. Inputs of some
# kilobytes are hardly minimized: that would take all of the time.
#
# Go's fuzzing engine sometimes fails a clean run with nothing but "context
# deadline exceeded" when its time ends while a worker is busy (golang/go#75804).
# Such a run names no failing input and is repeated; a finding never is.
set -eu
time=${1:-10s}
log=$(mktemp)
trap 'rm -f "$log"' EXIT

fuzz() { # package target
  for try in 1 2 3 4 5; do
    if go test -run '^$' -fuzz "^$2\$" -fuzztime "$time" -fuzzminimizetime 20x "$1" </dev/null >"$log" 2>&1; then
      cat "$log"
      return 0
    fi
    cat "$log"
    grep -q '^ *context deadline exceeded$' "$log" || return 1
    ! grep -q -e 'Failing input written' -e 'panic:' -e '_test.go:' "$log" || return 1
    echo "-- the fuzzing engine's own deadline (try $try), again"
  done
  return 1
}

go list -f '{{.ImportPath}} {{.Dir}}' ./... | while read -r pkg dir; do
  for target in $(grep -ho '^func Fuzz[A-Za-z0-9_]*' "$dir"/*_test.go 2>/dev/null | sed 's/^func //' | sort -u); do
    echo "== $pkg $target"
    fuzz "$pkg" "$target"
  done
done
