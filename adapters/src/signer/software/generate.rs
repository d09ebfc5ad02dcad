//! A new key, in a file that a software signer reads.

use std::fmt::Write as _;
use std::fs::{self, File};
use std::io::{self, ErrorKind, Write as _};
use std::os::unix::fs::OpenOptionsExt;
use std::path::Path;

use bitcoin::Network;
use bitcoin::bip32::Xpriv;
use miniscript::descriptor::checksum::desc_checksum;
use rustix::rand::{GetRandomFlags, getrandom};
use zeroize::Zeroizing;

use super::keyring::Keyring;
use crate::signer::SignerError;

/// Of what a master key is made (BIP-32 takes 16 to 64).
const SEED_BYTES: usize = 32;
/// Room for a whole text at once: a buffer that grows would leave copies behind.
const TEXT_BYTES: usize = 512;

/// What kind of addresses a key is for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub enum AddressKind {
    /// `wpkh(...)`, by BIP-84.
    Wpkh,
    /// `tr(...)` with the key path alone, by BIP-86.
    Tr,
}

impl AddressKind {
    /// The descriptor's name, and the first step of the path.
    fn parts(self) -> (&'static str, u32) {
        match self {
            Self::Wpkh => ("wpkh", 84),
            Self::Tr => ("tr", 86),
        }
    }
}

/// Makes a master key from the system's randomness, and a file with the private descriptor of its first account, which the
/// owner alone may read and which is on disk at the end. Returns the public descriptor. A file that is there stays as it is.
///
/// # Errors
/// [`SignerError::KeyFile`]: it is there already or cannot be written, or the system gave no randomness. No file is made then.
pub fn generate(path: &Path, network: Network, kind: AddressKind) -> Result<String, SignerError> {
    let fault = |why: String| SignerError::KeyFile { path: path.to_owned(), why };
    let text = new_text(network, kind).map_err(fault)?;
    // What a signer makes of it, before anybody relies on it. It is one line, so one descriptor.
    let keyring = Keyring::parse(&text, &path.display().to_string(), network)?;
    let public = keyring.public_descriptors().collect();
    write_new(path, &text).map_err(|error| match error.kind() {
        ErrorKind::AlreadyExists => fault("is there already, and stays as it is".to_owned()),
        _ => fault(error.to_string()),
    })?;
    Ok(public)
}

/// What the file is to hold.
fn new_text(network: Network, kind: AddressKind) -> Result<Zeroizing<String>, String> {
    let mut master = new_master(network)?;
    let (name, purpose) = kind.parts();
    // SLIP-44: one for all networks without money.
    let coin = u32::from(network != Network::Bitcoin);
    let mut body = Zeroizing::new(String::with_capacity(TEXT_BYTES));
    // Writing to a String cannot fail.
    let _ = write!(body, "{name}({master}/{purpose}h/{coin}h/0h/<0;1>/*)");
    master.private_key.non_secure_erase();
    let checksum = desc_checksum(&body).map_err(|_| "its checksum cannot be computed (BIP-380)".to_owned())?;
    let mut text = Zeroizing::new(String::with_capacity(TEXT_BYTES));
    let _ = writeln!(
        text,
        "# Made by `onespend signer new` for {network}. Whoever has this line has the coins; without it nobody has them.\n\
         {}#{checksum}",
        body.as_str()
    );
    Ok(text)
}

fn new_master(network: Network) -> Result<Xpriv, String> {
    let mut seed = Zeroizing::new([0_u8; SEED_BYTES]);
    // Without flags it waits until the system has gathered enough, and so much of it comes at once (getrandom(2)).
    let filled = getrandom(&mut seed[..], GetRandomFlags::empty())
        .map_err(|error| format!("the system gave no randomness: {error}"))?;
    if filled != SEED_BYTES {
        return Err(format!("the system gave {filled} random bytes of {SEED_BYTES}"));
    }
    Xpriv::new_master(network, &seed[..]).map_err(|_| "the system's randomness made no key; try again".to_owned())
}

fn write_new(path: &Path, text: &str) -> io::Result<()> {
    let mut file = File::options().write(true).create_new(true).mode(0o600).open(path)?;
    let written = file.write_all(text.as_bytes()).and_then(|()| file.sync_all());
    written.and_then(|()| sync_folder_of(path)).inspect_err(|_| {
        // Part of a key, or one that a crash may take away, is not to be found and used.
        let _ = fs::remove_file(path);
    })
}

fn sync_folder_of(path: &Path) -> io::Result<()> {
    let folder = path.parent().filter(|folder| !folder.as_os_str().is_empty());
    File::open(folder.unwrap_or(Path::new(".")))?.sync_all()
}

#[cfg(test)]
mod tests {
    #![allow(clippy::unwrap_used)]
    use std::os::unix::fs::PermissionsExt as _;

    use super::*;
    use crate::signer::software::SoftwareSigner;

    #[test]
    fn a_new_key_is_on_the_path_of_its_kind_and_network_and_is_what_a_signer_reads() {
        let folder = tempfile::tempdir().unwrap();
        for (at, (network, kind, before, path)) in [
            (Network::Bitcoin, AddressKind::Wpkh, "wpkh(xprv", "/84h/0h/0h/<0;1>/*)#"),
            (Network::Bitcoin, AddressKind::Tr, "tr(xprv", "/86h/0h/0h/<0;1>/*)#"),
            (Network::Testnet4, AddressKind::Wpkh, "wpkh(tprv", "/84h/1h/0h/<0;1>/*)#"),
            (Network::Signet, AddressKind::Wpkh, "wpkh(tprv", "/84h/1h/0h/<0;1>/*)#"),
            (Network::Regtest, AddressKind::Tr, "tr(tprv", "/86h/1h/0h/<0;1>/*)#"),
        ]
        .into_iter()
        .enumerate()
        {
            let file = folder.path().join(at.to_string());
            let public = generate(&file, network, kind).unwrap();
            let text = fs::read_to_string(&file).unwrap();
            let lines: Vec<&str> = text.lines().collect();
            assert!(lines.len() == 2 && lines[0].starts_with("# ") && lines[0].contains(&network.to_string()));
            assert!(lines[1].starts_with(before) && lines[1].contains(path), "{network} {kind:?}");
            assert_eq!(fs::metadata(&file).unwrap().permissions().mode() & 0o777, 0o600);
            let signer = SoftwareSigner::from_file("hot", &file, network).unwrap();
            assert_eq!(signer.public_descriptors().collect::<Vec<_>>(), [public.as_str()]);
            assert!(!public.contains("prv"), "{public}");
        }
    }

    #[test]
    fn two_keys_differ_and_none_takes_the_place_of_another() {
        let folder = tempfile::tempdir().unwrap();
        let [one, other] = ["one", "other"].map(|name| folder.path().join(name));
        let new = |file: &Path| generate(file, Network::Regtest, AddressKind::Wpkh);
        assert_ne!(new(&one).unwrap(), new(&other).unwrap());
        let before = fs::read(&one).unwrap();
        let refused = new(&one).unwrap_err().to_string();
        assert!(refused.contains("one: is there already"), "{refused}");
        assert_eq!(fs::read(&one).unwrap(), before);
        let nowhere = folder.path().join("no/such/folder");
        assert!(matches!(new(&nowhere), Err(SignerError::KeyFile { path, .. }) if path == nowhere));
    }
}
