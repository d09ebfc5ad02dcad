//! What each signer remembers: a start refuses a memory of somebody else, and one that is damaged; a frozen signer
//! signs nothing.

use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use onespend_adapters::signer::memory::{self, Owner, Summary};

use super::findings::{Area, Findings};
use crate::cli::format::counted;
use crate::config::Config;

/// Permission bits of everybody but the owner.
const OTHERS: u32 = 0o077;

/// Looks at the memory of each signer, also beside the node that uses it.
pub fn check(config: &Config, findings: &mut Findings) {
    for signer in &config.signers {
        let owner = Owner {
            cluster_id: config.cluster.id.clone(),
            network: config.cluster.network,
            signer: signer.name.clone(),
        };
        look(&signer.memory_file(&config.node.data_dir), &owner, findings);
    }
}

fn look(file: &Path, owner: &Owner, findings: &mut Findings) {
    let (name, shown) = (&owner.signer, file.display());
    match std::fs::metadata(file) {
        Err(error) if error.kind() == std::io::ErrorKind::NotFound => {
            findings.ok(Area::Signers, format!("{name} has no memory yet: the first start makes {shown}"));
            return;
        }
        Err(error) => {
            let remedy = "let the user that runs the node reach the memory's folder";
            findings.fail(Area::Signers, format!("{name}'s memory {shown}: {error}"), remedy);
            return;
        }
        Ok(found) => {
            let mode = found.permissions().mode() & 0o7777;
            if mode & OTHERS != 0 {
                let what = format!("others may read or change {name}'s memory {shown} (mode {mode:04o})");
                findings.fail(Area::Signers, what, format!("chmod 600 '{shown}'"));
            }
        }
    }
    match memory::inspect(file, owner) {
        Ok(summary) => judge(name, &summary, findings),
        Err(error) => {
            let remedy = "neither delete nor replace it: see \"What a signer remembers\" in the book of operations; \
                          that of a cluster which this one goes on from is handed on by `onespend signer adopt`";
            findings.fail(Area::Signers, format!("{name}: {error}"), remedy);
        }
    }
}

fn judge(name: &str, summary: &Summary, findings: &mut Findings) {
    if let Some(position) = summary.frozen {
        let at = position.spelled();
        let what = format!("{name} is frozen and signs nothing: the log stood at {at}, below what was signed");
        let remedy =
            "find out why the log lacks what was signed; then, with the node stopped, `onespend signer unfreeze`";
        findings.fail(Area::Signers, what, remedy);
        return;
    }
    let attempts = usize::try_from(summary.attempts).unwrap_or(usize::MAX);
    let highest = summary.highest_fence.map(|fence| format!(", the highest fence is {}", fence.spelled()));
    let highest = highest.unwrap_or_default();
    findings.ok(Area::Signers, format!("{name} remembers {}{highest}", counted(attempts, "attempt", "attempts")));
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::fs::{self, Permissions};
    use std::path::PathBuf;

    use bitcoin::Network;
    use onespend_adapters::signer::memory::Memory;
    use onespend_core::ids::Fence;

    use super::super::findings::Report;
    use super::*;
    use crate::cli::output::Show as _;

    fn owner(cluster_id: &str) -> Owner {
        Owner { cluster_id: cluster_id.to_owned(), network: Network::Regtest, signer: "hot".to_owned() }
    }

    /// A memory that holds nothing yet, and that no process uses.
    fn memory() -> (tempfile::TempDir, PathBuf) {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hot.db");
        drop(Memory::open(&file, owner("demo")).unwrap());
        (folder, file)
    }

    fn tells(look: impl FnOnce(&mut Findings), code: u8, words: &str) {
        let mut findings = Findings::default();
        look(&mut findings);
        let report = Report::of(findings);
        let text = report.text().split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(report.exit().code() == code && text.contains(words), "{code} {words}: {:?} {text}", report.exit());
    }

    #[test]
    fn a_memory_that_is_not_there_is_fine_and_is_not_made() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("hot.db");
        tells(|findings| look(&file, &owner("demo"), findings), 0, "hot has no memory yet: the first start makes");
        assert!(!file.exists());
        // A file where a folder should be.
        fs::write(&file, "").unwrap();
        let below = file.join("hot.db");
        tells(|findings| look(&below, &owner("demo"), findings), 2, "reach the memory's folder");
    }

    #[test]
    fn a_memory_is_its_signers_alone_and_is_looked_at_beside_the_node() {
        let (_folder, file) = memory();
        let running = Memory::open(&file, owner("demo")).unwrap();
        tells(|findings| look(&file, &owner("demo"), findings), 0, "hot remembers 0 attempts");
        drop(running);
        tells(|findings| look(&file, &owner("other"), findings), 2, "belongs to signer hot of cluster demo");
        tells(|findings| look(&file, &owner("other"), findings), 2, "is handed on by `onespend signer adopt`");
        fs::set_permissions(&file, Permissions::from_mode(0o640)).unwrap();
        tells(|findings| look(&file, &owner("demo"), findings), 2, "(mode 0640) remedy: chmod 600");
        fs::set_permissions(&file, Permissions::from_mode(0o600)).unwrap();
        fs::write(&file, "once upon a time, in a file that is no database at all").unwrap();
        tells(|findings| look(&file, &owner("demo"), findings), 2, "neither delete nor replace it");
    }

    /// safety 30: a frozen signer signs nothing until somebody has looked.
    #[test]
    fn a_frozen_signer_is_a_failure() {
        let (_folder, file) = memory();
        let summary = memory::inspect(&file, &owner("demo")).unwrap();
        let signed = Summary { attempts: 1, highest_fence: Some(Fence(50)), ..summary.clone() };
        tells(|findings| judge("hot", &signed, findings), 0, "hot remembers 1 attempt, the highest fence is 0/50");
        let frozen = Summary { frozen: Some(Fence(40)), ..summary };
        tells(|findings| judge("hot", &frozen, findings), 2, "hot is frozen and signs nothing: the log stood at 0/40");
    }
}
