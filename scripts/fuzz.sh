#!/usr/bin/env bash
# Runs every fuzz test of the module for the given time each, one after the other.
set -euo pipefail
cd "$(dirname "$0")/.."
time=${1:-30s}
go=${GO:-go}
grep -rlE '^func Fuzz[A-Za-z0-9_]+\(' --include='*_test.go' . | sort | while read -r file; do
  grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | awk '{ print $2 }' | while read -r name; do
    echo "== $(dirname "$file") $name"
    "$go" test -run='^$' -fuzz="^$name\$" -fuzztime="$time" "$(dirname "$file")" </dev/null
  done
done
