#!/bin/sh
# Runs every fuzz target of the module in turn, each for the time given.
set -eu
time=${1:-30s}
grep -rl --include='*_test.go' '^func Fuzz' . | while IFS= read -r file; do
	dir=$(dirname "$file")
	sed -n 's/^func \(Fuzz[A-Za-z0-9_]*\)(.*/\1/p' "$file" | while IFS= read -r target; do
		printf '%s %s\n' "$dir" "$target"
		"${GO:-go}" test -run '^$' -fuzz "^$target\$" -fuzztime "$time" "./$dir"
	done
done
