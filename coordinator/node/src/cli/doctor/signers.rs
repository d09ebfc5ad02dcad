//! Where the keys are. Their permissions are judged with the configuration; here is what is well.

use std::os::unix::fs::PermissionsExt as _;

use super::findings::{Area, Findings};
use crate::config::{Config, SignerConfig, SignerKeys};

/// Names each signer whose keys are in place.
pub fn check(config: &Config, findings: &mut Findings) {
    if findings.failed(Area::Signers) {
        return;
    }
    if config.signers.is_empty() {
        findings
            .ok(Area::Signers, "none: this node can lead, but only for wallets that are watched or signed elsewhere");
    }
    for signer in &config.signers {
        findings.ok(Area::Signers, describe(signer));
    }
}

fn describe(signer: &SignerConfig) -> String {
    let name = &signer.name;
    match &signer.keys {
        Some(SignerKeys::File(file)) => {
            let mode = std::fs::metadata(file).map_or(0, |metadata| metadata.permissions().mode() & 0o7777);
            format!("{name}: {} (mode {mode:04o})", file.display())
        }
        Some(SignerKeys::Environment(variable)) => format!("{name}: from the variable {variable}"),
        None => name.clone(),
    }
}
