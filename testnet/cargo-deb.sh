#!/usr/bin/env bash
# Prints the path of the cargo-deb that makes the Debian package. Builds it from crates.io in the project's cache when it is
# missing: in a temporary folder, then one rename, so a half-made one is never taken for a good one.
set -euo pipefail

readonly version=3.8.0
readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/onespend/cargo-deb"
readonly home="$cache/$version-$(uname -m)"
readonly lock_seconds=3600
say() { printf 'cargo-deb: %s\n' "$*" >&2; }

# Another version in PATH is left alone, and not used.
if in_path=$(command -v cargo-deb) && [[ " $("$in_path" --version 2>/dev/null)" == *" $version" ]]; then
  printf '%s\n' "$in_path"
  exit
fi

if [[ ! -x $home/bin/cargo-deb ]]; then
  mkdir -p "$cache"
  exec 9>"$cache/.lock"
  if ! flock -n 9; then
    say "another process is building it: waiting"
    flock -w "$lock_seconds" 9 || { say "$cache/.lock is held for too long"; exit 1; }
  fi
  if [[ ! -x $home/bin/cargo-deb ]]; then # another process may have made it meanwhile
    rm -rf "$cache"/.making-*             # whatever an interrupted run left; nobody else is in here
    work=$(mktemp -d "$cache/.making-XXXXXX")
    trap 'rm -rf "$work"' EXIT
    say "building version $version: a few minutes, once"
    # Quick to build matters more than quick to run: it packs one program. Cargo locks the folder that it builds in, so
    # that is none of the project's.
    CARGO_PROFILE_RELEASE_OPT_LEVEL=1 CARGO_PROFILE_RELEASE_LTO=off CARGO_PROFILE_RELEASE_CODEGEN_UNITS=16 \
      "${CARGO:-cargo}" install --locked --version "$version" --root "$work/made" --target-dir "$work/build" cargo-deb >&2 ||
      { say "cargo install failed (is there a network?)"; exit 1; }
    "$work/made/bin/cargo-deb" --version >&2 # what it is for
    rm -rf "$home"
    mv -T "$work/made" "$home"
  fi
fi
printf '%s\n' "$home/bin/cargo-deb"
