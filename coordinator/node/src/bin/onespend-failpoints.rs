//! The onespend binary with faults that the harness can switch on. Never deploy it.

use std::process::ExitCode;

fn main() -> ExitCode {
    // As in the binary that is deployed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    onespend::cli::run(std::env::args_os())
}
