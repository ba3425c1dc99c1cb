//! How a pool's certificate comes to be known: said by the user, or shown and asked about.

use std::path::PathBuf;

use bioxen_xcp::{Fingerprint, PoolSettings, TrustSettings};

use crate::failure::Failure;
use crate::{confirmation, runtime};

/// What the command line says.
pub(super) fn said(
    fingerprint: Option<Fingerprint>,
    authority: Option<&PathBuf>,
) -> Result<TrustSettings, Failure> {
    match (fingerprint, authority) {
        (Some(fingerprint), _) => Ok(TrustSettings::Fingerprint(fingerprint)),
        (None, Some(path)) => {
            let path = std::path::absolute(path)
                .map_err(|source| Failure::Path { path: path.clone(), source })?;
            Ok(TrustSettings::Authority(path))
        }
        (None, None) => Ok(TrustSettings::Nothing),
    }
}

/// Shows the fingerprint of a pool that is met for the first time, and asks whether it is the right one.
/// `otherwise` says what was not done where it is not.
pub(super) fn make(pool: &PoolSettings, otherwise: &str) -> Result<TrustSettings, Failure> {
    let found =
        runtime::block_on(async { pool.present_fingerprint().await.map_err(Failure::Pool) })?;
    let Some(found) = found else { return Ok(TrustSettings::Nothing) };
    let address = pool.addresses[0].clone();
    let question = format!(
        "The certificate of {address} has the SHA-256 fingerprint\n  {found}\n\
         Compare it with what the host itself says:\n  \
         xe host-get-server-certificate | openssl x509 -noout -fingerprint -sha256\n\
         Is it the same, and is it to be trusted from now on?"
    );
    match confirmation::ask(&question)? {
        Some(true) => Ok(TrustSettings::Fingerprint(found)),
        Some(false) => Err(Failure::NotConfirmed { what: format!("{address} {otherwise}") }),
        None => Err(Failure::UnknownCertificate { address, found }),
    }
}
