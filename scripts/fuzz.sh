#!/usr/bin/env bash
# Fuzzes every target in the tree, one after the other, for the time given (default 10s each).
set -euo pipefail
cd "$(dirname "$0")/.."

time=${1:-10s}
grep -rlE '^func Fuzz[A-Za-z0-9_]+\(f \*testing\.F\)' --include='*_test.go' . | sort | while read -r file; do
	grep -oE '^func Fuzz[A-Za-z0-9_]+' "$file" | while read -r _ target; do
		echo "== $(dirname "$file"): $target"
		go test -run '^$' -fuzz "^$target\$" -fuzztime "$time" -fuzzminimizetime 5x "$(dirname "$file")" </dev/null
	done
done
