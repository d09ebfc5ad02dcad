#!/usr/bin/env bash
# Lays out what the images hold: programs, the libraries of this machine that they need, and nothing else.
#
#   docs/deploy/container/files.sh ONESPEND BITCOIND FOLDER
#
# bitcoin-cli must lie beside BITCOIND. FOLDER must not be there; it gets one folder per COPY of the Containerfile.
set -euo pipefail

die() { printf 'files: %s\n' "$*" >&2; exit 1; }

[[ $# -eq 3 ]] || die "usage: files.sh ONESPEND BITCOIND FOLDER"
readonly onespend=$1 bitcoind=$2 folder=$3
readonly bitcoin_cli="$(dirname "$bitcoind")/bitcoin-cli"
for program in "$onespend" "$bitcoind" "$bitcoin_cli"; do [[ -x $program ]] || die "there is no $program"; done
[[ ! -e $folder ]] || die "$folder is there already"

# The libraries of a program, and what loads them, by the paths under which this machine finds them.
libraries() { ldd "$1" 2>/dev/null | grep -o '/[^ ]*' || true; }

# A program with its libraries below a root, under a name. Without symbols, its largest part, where there is a `strip`.
put() {
  local program=$1 root=$2 place=$3 library
  install -D -m 755 "$program" "$root$place"
  if command -v strip >/dev/null; then strip "$root$place"; fi
  while read -r library; do
    [[ -n $library && ! -e $root$library ]] || continue
    install -D -m 755 "$library" "$root$library"
  done < <(libraries "$program")
}

# How names become addresses, and who the user is, at home where it may write.
names() {
  local root=$1 user=$2 ids=$3
  install -d "$root/etc" "$root/var/lib" "$root/run"
  printf 'hosts: files dns\n' >"$root/etc/nsswitch.conf"
  printf '%s:x:%s::/var/lib/%s:/nonexistent\n' "$user" "$ids" "$user" >"$root/etc/passwd"
}

umask 022
put "$onespend" "$folder/node" /usr/bin/onespend
names "$folder/node" onespend 10001:10001
install -d -m 755 "$folder/node/etc/onespend"
# Who may speak for a storage of backups.
install -D -m 644 /etc/ssl/certs/ca-certificates.crt "$folder/node/etc/ssl/certs/ca-certificates.crt"
install -d -m 700 "$folder/node-state/onespend" "$folder/node-state/onespend-signer"

# pki.sh needs a shell, and what copies a file.
put "$(command -v dash || command -v sh)" "$folder/pki" /bin/sh
put "$(command -v cp)" "$folder/pki" /bin/cp
install -D -m 755 "$(dirname "$0")/pki.sh" "$folder/pki/usr/bin/pki.sh"
install -d -m 700 "$folder/pki-state/authority" "$folder/pki-state/callers" "$folder/pki-state"/node-{1,2,3}

put "$bitcoind" "$folder/bitcoind" /usr/bin/bitcoind
put "$bitcoin_cli" "$folder/bitcoind" /usr/bin/bitcoin-cli
names "$folder/bitcoind" bitcoind 10002:10001
install -d -m 700 "$folder/bitcoind-state/bitcoind"
# The cookie: the node's group may enter.
install -d -m 750 "$folder/bitcoind-run/bitcoind"
