#!/usr/bin/env bash
# Prints the path of a bitcoind of at least version 30, and nothing else on stdout.
#
#   testnet/bitcoind.sh           find one, or download one, or build one
#   testnet/bitcoind.sh --find    only look; exit 1 when there is none
#   testnet/bitcoind.sh --build   skip $BITCOIND_EXE, PATH and the download
#   QUIET=1                       the progress of a build goes to a file: something else is shown meanwhile
#
# Order: $BITCOIND_EXE, PATH, the project's cache, an official release (pinned by SHA-256), a build from source.
# The source of Bitcoin Core comes through Cargo: crate libbitcoinkernel-sys carries it, Cargo.lock pins it, and because
# testnet/Cargo.toml lists it under cfg(any()), `cargo build` never compiles it.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly cache="${XDG_CACHE_HOME:-$HOME/.cache}/onespend/bitcoind"
readonly mode="${1:-}"
readonly least_major=30 # as docs/src/operations.md wants it, and OLDEST_SUPPORTED_VERSION
readonly lock_seconds=3600 version_seconds=20 connect_seconds=4 download_seconds=300
readonly kib_per_job=$((1400 * 1024)) # what one compiler needs at its worst

readonly release=31.0
# From the release's SHA256SUMS.
readonly release_sha256_x86_64=d3e4c58a35b1d0a97a457462c94f55501ad167c660c245cb1ffa565641c65074
readonly release_sha256_aarch64=4de1d568dedd48604f75132421bc0abeca432639589b49a3909c81db3a813112

readonly crate=libbitcoinkernel-sys crate_version=0.4.1
readonly -a cmake_options=(
  -DCMAKE_BUILD_TYPE=None -DCMAKE_CXX_FLAGS=-O1 -DCMAKE_C_FLAGS=-O1
  -DENABLE_WALLET=OFF -DENABLE_IPC=OFF -DBUILD_TESTS=OFF -DBUILD_BENCH=OFF -DBUILD_TX=OFF -DBUILD_UTIL=OFF
  -DBUILD_BITCOIN_BIN=OFF -DBUILD_CLI=ON -DENABLE_EXTERNAL_SIGNER=OFF -DWITH_EMBEDDED_ASMAP=OFF
)

say() { printf 'bitcoind: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }

# Does it run, and is it new enough? Its first line reads "Bitcoin Core daemon version v31.0.0".
usable() {
  local line major
  line=$(timeout "$version_seconds" "$1" -version 2>/dev/null | head -n1) || return 1
  major=$(sed -n 's/.*version v\([0-9]\+\)\..*/\1/p' <<<"$line")
  [[ -n $major && $major -ge $least_major ]]
}

found() { printf '%s\n' "$1"; exit 0; }

# A folder in the cache counts only with its stamp, which is written last and names what was made.
cached() { [[ -f $1/stamp ]] && sha256sum --check --status "$1/stamp" 2>/dev/null && usable "$1/bin/bitcoind"; }

key_of_build() {
  local digest
  digest=$(printf '%s\n' "${cmake_options[@]}" | sha256sum | cut -c1-8)
  printf 'core-%s-%s-%s-%s' "$crate" "$crate_version" "$(uname -m)" "$digest"
}
readonly release_home="$cache/core-$release-$(uname -m)"
readonly build_home="$cache/$(key_of_build)"

# Stamps what lies in $1 and moves it to $2 in one step: other processes see all of it or nothing.
publish() {
  local work=$1 home=$2
  usable "$work/bin/bitcoind" || die "what was made does not run"
  sha256sum "$work/bin/bitcoind" "$work/bin/bitcoin-cli" | sed "s#$work/#$home/#" >"$work/stamp"
  sync "$work/stamp" "$work/bin/bitcoind"
  chmod 755 "$work"
  rm -rf "$home"
  mv -T "$work" "$home"
}

# Returns 1 (and the caller builds) where there is no network, no release for this machine, or the digest differs.
download() {
  local work=$1 want name
  case "$(uname -s)-$(uname -m)" in
    Linux-x86_64) want=$release_sha256_x86_64 ;;
    Linux-aarch64) want=$release_sha256_aarch64 ;;
    *) return 1 ;;
  esac
  command -v curl >/dev/null || { say "no curl, so no download"; return 1; }
  name="bitcoin-$release-$(uname -m)-linux-gnu.tar.gz"
  say "trying the official release $release"
  curl --fail --silent --show-error --location --connect-timeout "$connect_seconds" --max-time "$download_seconds" \
    --output "$work/$name" "https://bitcoincore.org/bin/bitcoin-core-$release/$name" || { say "no download here"; return 1; }
  echo "$want  $work/$name" | sha256sum --check --status || { say "the download is not what was pinned: not used"; return 1; }
  tar -xzf "$work/$name" -C "$work" --strip-components=1 "bitcoin-$release/bin/bitcoind" "bitcoin-$release/bin/bitcoin-cli" || return 1
  rm -f "$work/$name"
  usable "$work/bin/bitcoind"
}

source_folder() {
  local manifest
  cargo fetch --locked --quiet >&2
  manifest=$(cargo metadata --format-version 1 --locked --offline 2>/dev/null |
    grep -o "\"manifest_path\":\"[^\"]*/$crate-$crate_version/Cargo.toml\"" | head -n1 | cut -d'"' -f4)
  [[ -n $manifest ]] || die "cargo metadata does not name $crate $crate_version"
  printf '%s/bitcoin' "$(dirname "$manifest")"
}

jobs() {
  local by_memory cores
  cores=$(nproc)
  by_memory=$(($(awk '/^MemAvailable:/ { print $2 }' /proc/meminfo) / kib_per_job))
  echo $((by_memory < 1 ? 1 : by_memory < cores ? by_memory : cores))
}

compile() { NINJA_STATUS='[%f/%t %es] ' nice -n 5 ninja -C "$1/build" -j "$(jobs)" bitcoind bitcoin-cli; }

build() {
  local work=$1 source log="$cache/build.log"
  local tool
  for tool in cmake ninja c++; do command -v "$tool" >/dev/null || die "$tool is missing: run testnet/setup.sh"; done
  source=$(source_folder)
  say "building Bitcoin Core from $crate $crate_version: about 6 minutes on two cores that have nothing else to do, once"
  cp -R "$source" "$work/source"
  chmod -R u+w "$work/source" # Cargo's registry may be read-only
  cmake -S "$work/source" -B "$work/build" -G Ninja "${cmake_options[@]}" >"$log" 2>&1 ||
    { tail -n 40 "$log" >&2; die "cmake failed; all of its output: $log"; }
  if [[ -n ${QUIET:-} ]]; then
    say "its progress: $log"
    compile "$work" >>"$log" 2>&1 || { tail -n 40 "$log" >&2; die "the build failed; all of its output: $log"; }
  else
    compile "$work" >&2 || die "the build failed"
  fi
  mkdir -p "$work/bin"
  install -s "$work/build/bin/bitcoind" "$work/build/bin/bitcoin-cli" "$work/bin/"
  rm -rf "$work/source" "$work/build"
}

# --- look ---
if [[ $mode != --build ]]; then
  if [[ -n ${BITCOIND_EXE:-} ]]; then
    # Somebody chose it: a bad choice is an error, not a reason to look elsewhere.
    usable "$BITCOIND_EXE" || die "BITCOIND_EXE=$BITCOIND_EXE does not answer -version, or is older than $least_major"
    found "$BITCOIND_EXE"
  fi
  if in_path=$(command -v bitcoind); then
    if usable "$in_path"; then found "$in_path"; fi
    say "$in_path is older than $least_major or does not run: not used"
  fi
  if cached "$release_home"; then found "$release_home/bin/bitcoind"; fi
fi
if cached "$build_home"; then found "$build_home/bin/bitcoind"; fi
if [[ $mode == --find ]]; then exit 1; fi

# --- make: one process at a time; the others wait here and then find it in the cache ---
mkdir -p "$cache"
exec 9>"$cache/.lock"
flock -n 9 || { say "another process is making one: waiting"; flock -w "$lock_seconds" 9 || die "$cache/.lock is held for too long"; }
if [[ $mode != --build ]] && cached "$release_home"; then found "$release_home/bin/bitcoind"; fi
if cached "$build_home"; then found "$build_home/bin/bitcoind"; fi

rm -rf "$cache"/.making-* # whatever an interrupted run left; the lock says that nobody is in there
work=$(mktemp -d "$cache/.making-XXXXXX")
trap 'rm -rf "$work"' EXIT
trap 'exit 130' INT TERM
if [[ $mode != --build ]] && download "$work"; then
  publish "$work" "$release_home"
  found "$release_home/bin/bitcoind"
fi
find "$work" -mindepth 1 -delete # what a refused download left
build "$work"
publish "$work" "$build_home"
say "built: $build_home/bin/bitcoind"
found "$build_home/bin/bitcoind"
