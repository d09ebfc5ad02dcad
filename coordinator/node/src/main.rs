//! The onespend binary: the daemon and the command line.

use std::process::ExitCode;

fn main() -> ExitCode {
    // Before anything else makes a TLS configuration: ring is the only provider of this program. It fails only if
    // there is one already, which would be ring as well.
    let _ = rustls::crypto::ring::default_provider().install_default();
    onespend::cli::run(std::env::args_os())
}
