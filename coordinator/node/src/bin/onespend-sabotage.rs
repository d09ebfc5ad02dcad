//! The onespend binary with one guard taken away, so that the harness can prove that it notices. Never deploy it.

use std::io::Write as _;
use std::process::ExitCode;

fn main() -> ExitCode {
    if let Err(why) = onespend_adapters::sabotage::chosen() {
        let _nobody_listens = writeln!(std::io::stderr(), "error: {why}");
        return ExitCode::FAILURE;
    }
    // As in the binary that is deployed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    onespend::cli::run(std::env::args_os())
}
