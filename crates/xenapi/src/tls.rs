//! Whom to trust: certificates that were given, or fingerprints that were pinned.
//!
//! In every case the server must sign the handshake with the key of its certificate. Nothing turns
//! this off.

mod fingerprint;
mod verifier;

use std::io;
use std::sync::Arc;

use rustls::pki_types::CertificateDer;
use rustls::pki_types::pem::PemObject as _;
use rustls::{ClientConfig, OtherError};
use tokio_rustls::TlsConnector;

pub use fingerprint::{Fingerprint, InvalidFingerprint};

use verifier::Verifier;

/// Which servers are trusted. Without anything none is, and the error tells what was found.
///
/// Hosts of a pool have a certificate each: where a client may come to speak to several of them,
/// [`Trust::and`] joins what is trusted of each.
#[derive(Clone, Debug, Default)]
pub struct Trust {
    pins: Vec<Fingerprint>,
    certificates: Vec<CertificateDer<'static>>,
}

/// Why a text gives no certificates.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum InvalidPem {
    /// It is no PEM.
    #[error("the certificates are no PEM: {0}")]
    Malformed(String),
    /// It has none.
    #[error("there is no certificate in the PEM")]
    Empty,
}

impl Trust {
    /// Nobody: the first connection fails with the fingerprint of whom it found.
    pub fn none() -> Self {
        Self::default()
    }

    /// Whoever has the certificate with this fingerprint, whatever name or dates it bears.
    pub fn fingerprint(fingerprint: Fingerprint) -> Self {
        Self { pins: vec![fingerprint], ..Self::default() }
    }

    /// Whoever has a certificate that one of these authorities signed for the host's name, or has one
    /// of these certificates itself. The text is PEM with one or more certificates.
    pub fn certificates(pem: &[u8]) -> Result<Self, InvalidPem> {
        let certificates = CertificateDer::pem_slice_iter(pem)
            .collect::<Result<Vec<_>, _>>()
            .map_err(|error| InvalidPem::Malformed(error.to_string()))?;
        if certificates.is_empty() {
            return Err(InvalidPem::Empty);
        }
        Ok(Self { certificates, ..Self::default() })
    }

    /// Whoever this or the other trusts.
    #[must_use]
    pub fn and(mut self, other: Self) -> Self {
        self.pins.extend(other.pins);
        self.certificates.extend(other.certificates);
        self
    }
}

/// Why a server was not trusted.
#[derive(Clone, Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TlsError {
    /// Nothing says whom to trust.
    #[error("its certificate has the fingerprint {found}, and nothing says whether to trust it")]
    Unknown {
        /// The fingerprint of its certificate.
        found: Fingerprint,
    },
    /// Its certificate is not one that was pinned.
    #[error("its certificate has the fingerprint {found} instead of {}", list(.expected))]
    Mismatch {
        /// The fingerprint of its certificate.
        found: Fingerprint,
        /// Fingerprints that were pinned.
        expected: Vec<Fingerprint>,
    },
    /// No authority that is trusted speaks for its certificate.
    #[error("its certificate, with the fingerprint {found}, is not accepted: {reason}")]
    Rejected {
        /// The fingerprint of its certificate.
        found: Fingerprint,
        /// What is wrong with it.
        reason: String,
    },
    /// The handshake failed for another reason.
    #[error("the handshake failed")]
    Handshake(#[source] Arc<io::Error>),
}

fn list(fingerprints: &[Fingerprint]) -> String {
    let texts: Vec<String> = fingerprints.iter().map(Fingerprint::to_string).collect();
    texts.join(" or ")
}

impl TlsError {
    /// The fingerprint of the certificate that the server showed, where it came that far.
    pub fn found(&self) -> Option<&Fingerprint> {
        match self {
            Self::Unknown { found }
            | Self::Mismatch { found, .. }
            | Self::Rejected { found, .. } => Some(found),
            Self::Handshake(_) => None,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unknown { .. } => {
                "compare the fingerprint with the host's own, then pin it".into()
            }
            Self::Mismatch { .. } => {
                "if the host's certificate was replaced, compare the fingerprint with the host's own \
                 and pin the new one; if not, somebody may be in between"
                    .into()
            }
            Self::Rejected { .. } => {
                "give the authority that signed it, or compare its fingerprint with the host's own \
                 and pin it"
                    .into()
            }
            Self::Handshake(_) => "check that the port speaks TLS 1.2 or 1.3".into(),
        }
    }
}

impl From<io::Error> for TlsError {
    /// Finds what the verifier said within what became of it on its way through the handshake.
    fn from(error: io::Error) -> Self {
        let said = error.get_ref().and_then(|inner| match inner.downcast_ref::<rustls::Error>() {
            Some(rustls::Error::Other(OtherError(said))) => said.downcast_ref::<Self>().cloned(),
            _ => None,
        });
        said.unwrap_or_else(|| Self::Handshake(Arc::new(error)))
    }
}

/// What makes TLS of a connection.
#[derive(Clone)]
pub(crate) struct Tls {
    config: Arc<ClientConfig>,
}

impl Tls {
    pub(crate) fn new(trust: Trust) -> Self {
        let provider = Arc::new(rustls::crypto::ring::default_provider());
        let verifier = Verifier::new(trust, Arc::clone(&provider));
        let config = ClientConfig::builder_with_provider(provider)
            .with_safe_default_protocol_versions()
            .expect("ring's suites serve TLS 1.2 and 1.3")
            .dangerous()
            .with_custom_certificate_verifier(Arc::new(verifier))
            .with_no_client_auth();
        Self { config: Arc::new(config) }
    }

    pub(crate) fn connector(&self) -> TlsConnector {
        Arc::clone(&self.config).into()
    }
}

impl std::fmt::Debug for Tls {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.write_str("Tls")
    }
}
