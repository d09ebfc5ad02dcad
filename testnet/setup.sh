#!/usr/bin/env bash
# Makes a Debian or Ubuntu machine ready for `make demo` or `make test`. A second run finds everything and does nothing.
#
#   testnet/setup.sh [demo|test|fuzz]      demo (default): what a cluster needs, and what the README calls it with (curl,
#                                          and what makes a Python for testnet/pay.py); test: also promtool, nginx,
#                                          Envoy, an S3 server and what packs Debian packages (but for cargo-deb,
#                                          which testnet/test.sh builds beside the tests, once);
#                                          fuzz: a compiler, and cargo-fuzz
#
# Never prompts. Installs as root, or with `sudo -n`; otherwise prints the exact line to run and exits 1.
set -euo pipefail
# Debian keeps haproxy where a plain user's PATH does not look.
PATH="$PATH:/usr/sbin:/sbin"
cd "$(dirname "$0")/.."

readonly scope="${1:-demo}"
readonly apt_lock_seconds=120 apt_retries=3
readonly cargo_fuzz_version=0.13.2

say() { printf 'setup: %s\n' "$*" >&2; }
die() { say "$*"; exit 1; }
has() { command -v "$1" >/dev/null 2>&1; }
has_header() { has c++ && printf '#include <%s>\n' "$1" | c++ -E -x c++ - >/dev/null 2>&1; }

# Built in, or a module of its own, which Debian's package also switches on.
has_nginx_stream() {
  has nginx || return 1
  nginx -V 2>&1 | tr ' ' '\n' | grep -x -e --with-stream >/dev/null || compgen -G '/etc/nginx/modules-enabled/*stream*.conf' >/dev/null
}

# Each line: is the thing there (whoever installed it)? If not, name the package that brings it.
missing_packages() {
  has cc && has c++ && has make || echo build-essential
  has pkg-config || echo pkg-config
  [[ $scope != fuzz ]] || return 0
  has haproxy || echo haproxy
  has flock || echo util-linux
  # Also for the download of bitcoind, which is built where there is none.
  has curl || echo curl
  ! has apt-get || [[ -e /etc/ssl/certs/ca-certificates.crt ]] || echo ca-certificates # Debian's place for them
  python3 -c 'import ensurepip, venv' >/dev/null 2>&1 || echo python3-venv
  # Needed only to build bitcoind, so only where there is none yet.
  if ! testnet/bitcoind.sh --find >/dev/null 2>&1; then
    has cmake || echo cmake
    has ninja || echo ninja-build
    has_header boost/multi_index_container.hpp || echo libboost-dev
    has_header event2/event.h || echo libevent-dev
  fi
  if [[ $scope == test ]]; then
    has promtool || echo prometheus
    has dpkg-shlibdeps || echo dpkg-dev
    has nginx || echo nginx
    has_nginx_stream || echo libnginx-mod-stream
  fi
}

install_packages() {
  local -a as_root=()
  local line="apt-get update && apt-get install -y --no-install-recommends $*"
  has apt-get || die "this machine has no apt-get; install what these Debian packages bring, then run again: $*"
  if [[ $(id -u) -ne 0 ]]; then
    has sudo && sudo -n true 2>/dev/null || die "missing packages, and sudo would ask for a password. Run this, then try again:
  sudo sh -c '$line'"
    as_root=(sudo -n)
  fi
  local -a apt=(apt-get -o "DPkg::Lock::Timeout=$apt_lock_seconds" -o "Acquire::Retries=$apt_retries")
  say "installing: $*"
  # Indexes that cannot be refreshed may still be good enough to install from.
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${apt[@]}" update >&2 || say "apt-get update failed; trying with the indexes that are there"
  "${as_root[@]}" env DEBIAN_FRONTEND=noninteractive "${apt[@]}" install -y --no-install-recommends "$@" >&2 ||
    die "the packages could not be installed; as root: $line"
  # The harness starts its own; the system's services would only hold ports.
  local package
  for package in "$@"; do
    case "$package" in
      haproxy | nginx | prometheus)
        if has systemctl; then "${as_root[@]}" systemctl disable --now "$package" >/dev/null 2>&1 || true; fi ;;
    esac
  done
}

check_rust() {
  has cargo || die "no Rust toolchain: install one from https://rustup.rs, at least the rust-version that Cargo.toml names"
  local want have
  want=$(sed -n 's/^rust-version = "\(.*\)"$/\1/p' Cargo.toml)
  have=$(cargo --version | cut -d' ' -f2)
  if [[ $(printf '%s\n%s\n' "$want" "$have" | sort -V | head -n1) != "$want" ]]; then
    die "Rust $want or newer is needed, this is $have: run 'rustup update'"
  fi
  [[ $scope == test ]] || return 0
  if ! cargo fmt --version >/dev/null 2>&1 || ! cargo clippy --version >/dev/null 2>&1; then
    has rustup || die "cargo fmt and cargo clippy are needed, and there is no rustup to add them"
    rustup component add rustfmt clippy >&2
  fi
}

[[ $scope == demo || $scope == test || $scope == fuzz ]] || die "usage: testnet/setup.sh [demo|test|fuzz]"
check_rust
mapfile -t packages < <(missing_packages)
if [[ ${#packages[@]} -gt 0 ]]; then
  install_packages "${packages[@]}"
  mapfile -t packages < <(missing_packages)
  [[ ${#packages[@]} -eq 0 ]] || die "still missing after the installation: ${packages[*]}"
fi
if [[ $scope == test ]]; then
  testnet/python.sh >/dev/null
  testnet/envoy.sh >/dev/null
  testnet/s3.sh >/dev/null
fi
if [[ $scope == fuzz ]] && ! has cargo-fuzz; then
  say "installing cargo-fuzz $cargo_fuzz_version"
  cargo install --locked --version "$cargo_fuzz_version" cargo-fuzz >&2 || die "cargo-fuzz could not be installed"
fi
say "ready"
