#!/usr/bin/env bash
# Prints the path of a Python that has what testnet/requirements.txt pins. Makes it in the project's cache when it is
# missing: in a temporary folder, then one rename, so a half-made one is never taken for a good one.
set -euo pipefail
cd "$(dirname "$0")"

readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/onespend/python"
readonly lock_seconds=600
say() { printf 'python: %s\n' "$*" >&2; }

key=$( (python3 --version; cat requirements.txt) | sha256sum | cut -c1-16)
readonly home="$cache/$key"

if [[ ! -x $home/bin/python ]]; then
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock -w "$lock_seconds" 9 || { say "another process has held $cache/.lock for ${lock_seconds} s"; exit 1; }
  if [[ ! -x $home/bin/python ]]; then # another process may have made it meanwhile
    rm -rf "$cache"/.making-*        # whatever an interrupted run left; nobody else is in here
    work=$(mktemp -d "$cache/.making-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "making $home"
    python3 -m venv "$work"
    "$work/bin/python" -m pip install --quiet --only-binary :all: --requirement requirements.txt >&2 ||
      { say "pip could not install testnet/requirements.txt (is there a network?)"; exit 1; }
    "$work/bin/python" -c 'import grpc, grpc_status, grpc_tools.protoc' # what it is for
    mv -T "$work" "$home"
    trap - EXIT
  fi
fi
printf '%s\n' "$home/bin/python"
