//! The onespend binary with one guard taken away, so that the harness can prove that it notices. Never deploy it.

use std::io::Write as _;
use std::process::ExitCode;

use onespend_adapters::sabotage::{Guard, chosen};
use onespend_core::sabotage::{Rule, take_away};

fn main() -> ExitCode {
    match chosen() {
        Ok(Some(Guard::AnchorRule)) => take_away(Rule::Anchor),
        Ok(Some(Guard::ExposedNeverExpires)) => take_away(Rule::ExposedNeverExpires),
        // Looked up where it would have been kept.
        Ok(Some(Guard::IntentBeforeSignature | Guard::SyncBeforeAck | Guard::RequestCache) | None) => {}
        Err(why) => {
            let _nobody_listens = writeln!(std::io::stderr(), "error: {why}");
            return ExitCode::FAILURE;
        }
    }
    // As in the binary that is deployed.
    let _ = rustls::crypto::ring::default_provider().install_default();
    onespend::cli::run(std::env::args_os())
}
