#!/usr/bin/env bash
# Runs the fuzz targets, one after the other, and prints a line for each: how many inputs were run, how much code they
# reach, and whether one of them makes the target panic. Exits 1 if one does; the input lies where the line says.
#
#   FUZZ_S=60 testnet/fuzz.sh [TARGET...]      seconds for each; without names all targets
#
# Works with the toolchain that builds everything else: the coverage that libFuzzer needs is a pass of LLVM. With
# FUZZ_SANITIZER=address the C code in it (libsecp256k1, SQLite) is watched too; that needs a nightly toolchain, or
# RUSTC_BOOTSTRAP=1.
set -euo pipefail
cd "$(dirname "$0")/.."

readonly seconds="${FUZZ_S:-60}" sanitizer="${FUZZ_SANITIZER:-none}"
# The last two need the whole daemon, which is most of the build: FUZZ_NODE=0 leaves them out.
known=(psbt_intake rows log_entries snapshots)
features=(--no-default-features)
if [[ ${FUZZ_NODE:-1} != 0 ]]; then
  known+=(grpc_requests log_records)
  features=()
fi
# One input may take this long, and may grow to this size.
readonly input_seconds=10 input_bytes=65536 memory_mb=2048

out="$(realpath -m "${CARGO_TARGET_DIR:-target}")/fuzz"
readonly out
host="$(rustc -vV | sed -n 's/^host: //p')"
readonly host

targets=("$@")
[[ ${#targets[@]} -gt 0 ]] || targets=("${known[@]}")
cargo fuzz build --fuzz-dir testnet/fuzz --sanitizer "$sanitizer" --target-dir "$out" "${features[@]}"

failed=0
for target in "${targets[@]}"; do
  corpus="$out/corpus/$target" findings="$out/findings/$target" log="$out/$target.log"
  crashes="testnet/fuzz/crashes/$target" folders=("$corpus" "$out/seeds/$target")
  mkdir -p "$corpus" "$findings"
  if [[ -d $crashes ]]; then folders+=("$crashes"); fi
  before="$(find "$findings" -type f | wc -l)"
  status=0
  # What was found before is tried first.
  ONESPEND_FUZZ_SEEDS="$out/seeds/$target" "$out/$host/release/$target" "${folders[@]}" \
    -artifact_prefix="$findings/" -max_total_time="$seconds" -max_len="$input_bytes" \
    -timeout="$input_seconds" -rss_limit_mb="$memory_mb" -print_final_stats=1 >"$log" 2>&1 || status=$?
  runs="$(sed -n 's/^stat::number_of_executed_units: *//p' "$log")"
  cover="$(grep -oE 'cov: [0-9]+' "$log" | tail -1 | cut -d' ' -f2 || true)"
  found=$(($(find "$findings" -type f | wc -l) - before))
  printf 'fuzz: %-14s %9s runs, %6s edges, %d crashes\n' "$target" "${runs:-?}" "${cover:-?}" "$found"
  if [[ $status -ne 0 ]]; then
    failed=1
    printf 'fuzz: %s ended with %d: %s\n' "$target" "$status" "$(grep -m1 -E 'panicked at|ERROR: libFuzzer' "$log" || tail -1 "$log")"
    printf 'fuzz: its output is %s, what it found lies in %s\n' "$log" "$findings"
  fi
done
exit "$failed"
