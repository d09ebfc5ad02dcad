//! What is fuzzed: each module has `feed`, which gives bytes to the product's own readers and panics where an answer is
//! wrong, and `seeds`, from which the fuzzer begins. The fuzzers in `targets/` and the replay in
//! `testnet/tests/fuzz_replay.rs` call the same functions.
#![allow(clippy::unwrap_used, clippy::expect_used, clippy::panic)] // A panic is what a fuzzer looks for.

#[cfg(feature = "node")]
pub mod grpc_requests;
pub mod history;
pub mod log_entries;
#[cfg(feature = "node")]
pub mod log_records;
pub mod psbt_intake;
pub mod rows;
pub mod snapshots;

/// Writes seeds where `ONESPEND_FUZZ_SEEDS` says, before the fuzzer reads that folder; nothing without it.
pub fn plant(seeds: &[Vec<u8>]) {
    let Some(folder) = std::env::var_os("ONESPEND_FUZZ_SEEDS").map(std::path::PathBuf::from) else { return };
    std::fs::create_dir_all(&folder).unwrap();
    for (number, seed) in seeds.iter().enumerate() {
        std::fs::write(folder.join(format!("seed-{number:03}")), seed).unwrap();
    }
}
