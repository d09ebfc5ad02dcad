#!/usr/bin/env bash
# Makes the Debian package of the program that is built already, and prints its path: `make deb` builds first.
#
#   docs/deploy/debian/package.sh [OPTION…]      options of cargo deb, such as --output FOLDER
#
# Compiles nothing of the project. Needs target/release/onespend (`make build`); cargo-deb comes by testnet/cargo-deb.sh.
set -euo pipefail
cd "$(dirname "$0")/../../.."

readonly release="${CARGO_TARGET_DIR:-target}/release"
readonly program="$release/onespend"
readonly extras="$release/package"

die() { printf 'package: %s\n' "$*" >&2; exit 1; }

[[ -x $program ]] || die "there is no $program: run make build"
maker=$(testnet/cargo-deb.sh) || die "there is no cargo-deb, and it could not be built"
PATH="$(dirname "$maker"):$PATH"

rm -rf "$extras"
mkdir -p "$extras/man" "$extras/completions"
"$program" man "$extras/man"
# Without a name and a time inside, so that the same program makes the same package.
gzip --no-name --best "$extras/man"/*.1
"$program" completions bash >"$extras/completions/onespend"
"$program" completions zsh >"$extras/completions/_onespend"
"$program" completions fish >"$extras/completions/onespend.fish"

# Symbols are most of the program. A panic names its file and line without them.
exec cargo deb --no-build --locked --strip --package onespend "$@"
