//! Configurations that a node refuses, with the place of each fault.

use std::fs;
use std::os::unix::fs::PermissionsExt;

use anyhow::{Context, Result};

use crate::folders::{end_of, replaced};
use crate::stage::Stage;

/// Exit code of a command line or configuration that is wrong.
const USAGE: Option<i32> = Some(2);

struct Case {
    what: &'static str,
    config: String,
    /// The line to be named, by its text.
    line: Option<&'static str>,
    says: Vec<&'static str>,
}

/// Each of them ends the program before it listens or opens anything.
pub async fn check(stage: &mut Stage) -> Result<()> {
    let folder = stage.cluster.folder().join("configs");
    fs::create_dir_all(&folder)?;
    let good = fs::read_to_string(stage.cluster.folder().join("node-1").join("config.toml"))?;
    for (number, case) in cases(&good)?.into_iter().enumerate() {
        let file = folder.join(format!("{number}.toml"));
        fs::write(&file, &case.config)?;
        let (code, told) = end_of(&file, &file.with_extension("log"))?;
        stage.check(case.what, code == USAGE, || format!("exit code {code:?}: {told}"));
        for text in &case.says {
            stage.check(case.what, told.contains(text), || format!("does not say {text:?}: {told}"));
        }
        if let Some(line) = case.line {
            let at = case.config.lines().position(|one| one == line).context("the line is not there")? + 1;
            let place = format!("{}:{at}:", file.display());
            stage.check(case.what, told.contains(&place), || format!("does not name {place} {told}"));
        }
        stage.check(case.what, !told.contains("panicked"), || told.clone());
    }
    let (code, told) = end_of(&folder.join("nowhere.toml"), &folder.join("nowhere.log"))?;
    stage.check("no file", code == USAGE && told.contains("nowhere.toml"), || format!("exit code {code:?}: {told}"));
    open_keys(stage, &good)
}

fn cases(good: &str) -> Result<Vec<Case>> {
    let case = |what, config, line, says: &[&'static str]| Case { what, config, line, says: says.to_vec() };
    Ok(vec![
        case(
            "an unknown key",
            replaced(good, "[node]\n", "[node]\ndata_folder = '/tmp'\n")?,
            Some("data_folder = '/tmp'"),
            &["error", "data_folder"],
        ),
        case("an unknown section", format!("{good}\n[colour]\nred = 1\n"), None, &["error", "colour"]),
        case(
            "two faults, both named",
            replaced(
                &replaced(good, "network = 'regtest'", "network = 'mainnet'")?,
                "finality_depth = 6",
                "finality_depth = 0",
            )?,
            Some("finality_depth = 0"),
            &["cluster.network", "cluster.finality_depth"],
        ),
        case("no TOML", replaced(good, "[tls]", "[tls")?, Some("[tls"), &["error"]),
        case(
            "a number for a text",
            replaced(good, "kind = 'software'", "kind = 7")?,
            Some("kind = 7"),
            &["signers[0].kind"],
        ),
        case(
            "the certificate of another node",
            replaced(good, "pki/node-1.", "pki/node-2.")?,
            None,
            &["tls.cert", "node/2", "node/1"],
        ),
        case("a node that is no peer", replaced(good, "[node]\nid = 1\n", "[node]\nid = 9\n")?, None, &["node.id"]),
        case("nothing", String::new(), None, &["error"]),
        case("bytes that are no text", "\u{0}\u{1}".to_owned(), None, &["error"]),
    ])
}

/// A key file that others can read is not used.
fn open_keys(stage: &mut Stage, good: &str) -> Result<()> {
    let root = stage.cluster.folder().to_path_buf();
    let folder = root.join("configs");
    let keys = folder.join("open.xprv");
    fs::copy(root.join("node-1").join("hot.xprv"), &keys)?;
    fs::set_permissions(&keys, fs::Permissions::from_mode(0o644))?;
    let own = root.join("node-1");
    let (own, free) = (own.display().to_string(), onespend_testnet::cluster::Addresses::free()?);
    let taken = stage.cluster.nodes()[0].addresses();
    let mut config = replaced(good, &format!("{own}/hot.xprv"), &keys.display().to_string())?;
    config = replaced(&config, &format!("{own}/data"), &folder.join("data").display().to_string())?;
    for (taken, free) in [(taken.data, free.data), (taken.control, free.control), (taken.health, free.health)] {
        config = replaced(&config, &taken.to_string(), &free.to_string())?;
    }
    let file = folder.join("open-keys.toml");
    fs::write(&file, config)?;
    let (code, told) = end_of(&file, &file.with_extension("log"))?;
    let refused = code.is_some_and(|code| code == 1 || code == 2);
    stage.check("a key file that others can read", refused, || format!("exit code {code:?}: {told}"));
    for text in ["open.xprv", "chmod 600"] {
        stage
            .check("a key file that others can read", told.contains(text), || format!("does not say {text:?}: {told}"));
    }
    stage.check("a key file that others can read", !told.contains("tprv"), || "shows the key".to_owned());
    Ok(())
}
