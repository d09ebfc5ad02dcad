//! The configuration file, as `config check` sees it; its faults are sorted by what they are about.

use std::path::Path;

use super::findings::{Area, Findings};
use crate::config::{Config, Fault, Place, Severity};

/// The configuration, unless it says too little to look at anything else.
pub fn check(file: &Path, findings: &mut Findings) -> Option<Config> {
    match Config::load_strictly(file) {
        Ok(config) => {
            let what = format!(
                "{} is valid: node {} of cluster {} on {}",
                file.display(),
                config.node.id,
                config.cluster.id,
                config.cluster.network
            );
            findings.ok(Area::Configuration, what);
            tell(&config.warnings, file, findings);
            Some(config)
        }
        Err(faults) => {
            tell(&faults.faults, file, findings);
            without_files(file)
        }
    }
}

/// What the file says if only the files that it names are at fault.
fn without_files(file: &Path) -> Option<Config> {
    let text = std::fs::read_to_string(file).ok()?;
    let environment: Vec<(String, String)> = std::env::vars_os()
        .filter_map(|(name, value)| Some((name.into_string().ok()?, value.into_string().ok()?)))
        .collect();
    Config::parse(&text, file, &environment).ok()
}

fn tell(faults: &[Fault], file: &Path, findings: &mut Findings) {
    for fault in faults {
        let (area, what) = (about(&fault.key), describe(fault, file));
        match fault.severity {
            Severity::Error => findings.fail(area, what, &fault.why),
            Severity::Warning => findings.warn(area, what, &fault.why),
        }
    }
}

fn describe(fault: &Fault, file: &Path) -> String {
    let key = if fault.key.is_empty() { String::new() } else { format!("{}: ", fault.key) };
    match &fault.place {
        Place::File { line, .. } => format!("{key}{} ({}, line {line})", fault.what, file.display()),
        Place::Environment(name) => format!("{key}{} (variable {name})", fault.what),
    }
}

fn about(key: &str) -> Area {
    match key {
        "tls.ca" | "tls.cert" | "tls.key" => Area::Certificates,
        "node.data_dir" => Area::DataFolder,
        key if key.starts_with("signers[") => Area::Signers,
        key if key.starts_with("backup.") => Area::Backups,
        key if key.starts_with("bitcoind.") => Area::Bitcoind,
        _ => Area::Configuration,
    }
}
