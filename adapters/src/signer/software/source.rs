//! Reading secrets from a file or an environment variable, and refusing those that others can read.

use std::path::Path;

use zeroize::Zeroizing;

use crate::secret_file::{self, MAX_SECRET_BYTES};
use crate::signer::SignerError;

pub(super) fn read_file(path: &Path) -> Result<Zeroizing<String>, SignerError> {
    secret_file::read(path).map_err(|why| SignerError::KeyFile { path: path.to_owned(), why })
}

pub(super) fn read_variable(variable: &str) -> Result<Zeroizing<String>, SignerError> {
    let fault = |why: &str| SignerError::Environment { variable: variable.to_owned(), why: why.to_owned() };
    // Asking for such a name is a panic of the standard library on some systems.
    if variable.is_empty() || variable.contains(['=', '\0']) {
        return Err(fault("is not the name of a variable"));
    }
    let value = std::env::var_os(variable).ok_or_else(|| fault("is not set"))?;
    let text = value.into_string().map_err(|_| fault("is not UTF-8 text"))?;
    let text = Zeroizing::new(text);
    if text.len() > MAX_SECRET_BYTES {
        return Err(fault("is larger than 65536 bytes"));
    }
    Ok(text)
}
