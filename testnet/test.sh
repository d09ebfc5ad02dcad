#!/usr/bin/env bash
# Runs the tests against real processes, and beside them, giving way to them, the lint and everything else that is tested.
# `make test` builds first, and says where bitcoind, Python, S3 and Envoy are.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly target="${CARGO_TARGET_DIR:-target}"
readonly cargo="${CARGO:-cargo}"
declare -A beside=()

# start NAME NICENESS COMMAND…: its output goes to a file, and to the terminal if it fails.
start() {
  local name=$1 niceness=$2
  shift 2
  echo "$name: beside the tests; its output: $target/$name.log"
  nice -n "$niceness" "$@" >"$target/$name.log" 2>&1 &
  beside[$name]=$!
}

units() {
  "$cargo" test --release --locked --workspace --lib --bins --no-fail-fast
  "$cargo" test --release --locked --workspace --doc
}

if [[ ${1:-} == units ]]; then
  units
  exit
fi

# shellcheck disable=SC2317 # By the trap.
end() { for process in "${beside[@]}"; do kill "$process" 2>/dev/null || true; done; }
trap end EXIT

# What the test of the Debian package needs; where it is there already this ends at once. Before the lint, which nothing
# waits for.
start cargo-deb 15 testnet/cargo-deb.sh

# In a folder of its own, because cargo locks the one that it works in.
start lint 19 env CARGO_TARGET_DIR="$(realpath "$target")/lint" make --no-print-directory lint
start units 10 "$0" units

# Cargo runs one file of tests after the other. The scenarios wait longest, so they go beside the others; they begin with an s,
# and so do some short ones.
start waiting 0 "$cargo" test --release --locked --workspace --test 's*' --no-fail-fast

failed=0
"$cargo" test --release --locked --workspace --test '[!s]*' --no-fail-fast || failed=$?
for name in waiting units lint cargo-deb; do
  if wait "${beside[$name]}"; then
    grep '^NOT CHECKED' "$target/$name.log" || true
    echo "$name: ok"
  else
    cat "$target/$name.log"
    echo "$name: failed"
    failed=1
  fi
done
beside=()
exit "$failed"
