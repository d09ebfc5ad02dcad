//! Compiles the `.proto` files with protox, so that no protoc is needed.

use std::error::Error;
use std::path::PathBuf;

use protox::prost::Message as _;

const FILES: [&str; 8] = [
    "onespend/v1/types.proto",
    "onespend/v1/errors.proto",
    "onespend/v1/wallet.proto",
    "onespend/v1/reservation.proto",
    "onespend/v1/payment.proto",
    "onespend/v1/chain.proto",
    "onespend/v1/cluster.proto",
    "onespend/peer/v1/raft.proto",
];

fn main() -> Result<(), Box<dyn Error>> {
    println!("cargo:rerun-if-changed=proto");
    // protox keeps comments: the lint test reads them, and so do people who use reflection.
    let descriptors = protox::compile(FILES, ["proto"])?;
    let out_dir = PathBuf::from(std::env::var("OUT_DIR")?);
    std::fs::write(out_dir.join("onespend_descriptor.bin"), descriptors.encode_to_vec())?;
    tonic_prost_build::configure().bytes(".").compile_fds(descriptors)?;
    Ok(())
}
