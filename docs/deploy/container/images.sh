#!/usr/bin/env bash
# Builds the images of compose.yaml from programs that are built already. Needs a container engine, and no registry.
#
#   docs/deploy/container/images.sh [ONESPEND [BITCOIND]]
#
# Left out, they are target/release/onespend and what `testnet/bitcoind.sh --find` says (`make build`, `make setup`).
#   ENGINE=podman                                            another engine than docker
#   ONESPEND_IMAGE, ONESPEND_PKI_IMAGE, BITCOIND_IMAGE       other names than compose.yaml has by itself
set -euo pipefail
readonly here="$(cd "$(dirname "$0")" && pwd)"
readonly project="$here/../../.."
readonly engine="${ENGINE:-docker}"

die() { printf 'images: %s\n' "$*" >&2; exit 1; }

readonly onespend="${1:-${CARGO_TARGET_DIR:-$project/target}/release/onespend}"
[[ -x $onespend ]] || die "there is no $onespend: run make build"
bitcoind="${2:-}"
[[ -n $bitcoind ]] || bitcoind=$("$project/testnet/bitcoind.sh" --find) || die "there is no bitcoind: run make setup"

work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
"$here/files.sh" "$onespend" "$bitcoind" "$work/files"

build() {
  printf 'images: building %s\n' "$2" >&2
  "$engine" build --quiet --file "$here/Containerfile" --target "$1" --tag "$2" "$work/files" >/dev/null
}
build node-ready "${ONESPEND_IMAGE:-onespend:local}"
build pki-ready "${ONESPEND_PKI_IMAGE:-onespend-pki:local}"
build bitcoind-ready "${BITCOIND_IMAGE:-onespend-bitcoind:local}"
