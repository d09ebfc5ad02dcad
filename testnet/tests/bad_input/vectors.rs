//! The PSBTs that BIP-174 and BIP-371 publish. They are not part of the project: see `shared/vectors` beside it.

use std::fs;
use std::path::{Path, PathBuf};

use anyhow::{Context, Result, ensure};
use bitcoin::base64::Engine;
use bitcoin::base64::prelude::BASE64_STANDARD;
use serde_json::Value;

use crate::draft::Draft;
use crate::refusal::reason_of;
use crate::stage::{HOT, Stage, say};

const FILES: [(&str, usize); 2] = [("bip0174.json", 40), ("bip0371.json", 14)];

/// None of them spends our coins, so each is refused: as malformed, or because its coins are strange.
pub async fn check(stage: &mut Stage) -> Result<()> {
    let Some(folder) = folder() else {
        say("        skipped: there is no folder shared/vectors beside the checkout");
        return Ok(());
    };
    let draft = Draft::new(stage, HOT, "vectors").await?;
    let before = stage.ledger().await;
    for (file, least) in FILES {
        let text = fs::read_to_string(folder.join(file)).with_context(|| file.to_owned())?;
        let vectors: Vec<Value> = serde_json::from_str(&text)?;
        ensure!(vectors.len() >= least, "{file} holds {} vectors, fewer than it did", vectors.len());
        for vector in &vectors {
            let text = |key: &str| vector[key].as_str().unwrap_or_default();
            let what = format!("{file}: {} {}", text("group"), text("case"));
            let mut forms = vec![text("base64").as_bytes().to_vec()];
            forms.extend(BASE64_STANDARD.decode(text("base64")).ok());
            for bytes in forms {
                let ask = async |mut to: crate::door::Clients| to.payment.sign_psbt(draft.request_with(&bytes)).await;
                let status = stage.refuses_somehow(&what, ask).await;
                let reason = status.as_ref().map(reason_of).unwrap_or_default();
                let malformed = text("group").contains("invalid") || text("group").contains("Fails Signer");
                stage
                    .check(&what, !malformed || reason != "FOREIGN_INPUT", || format!("{reason}: not seen as invalid"));
            }
        }
    }
    stage.unchanged("the published vectors", before).await;
    stage.release(&draft.reservation).await
}

fn folder() -> Option<PathBuf> {
    let here = Path::new(env!("CARGO_MANIFEST_DIR"));
    here.ancestors().map(|folder| folder.join("shared/vectors")).find(|folder| folder.is_dir())
}
