//! The certificate that a pool shows, made for it.

use std::io;
use std::path::Path;
use std::sync::Arc;

use sha2::{Digest, Sha256};
use tokio_rustls::TlsAcceptor;
use tokio_rustls::rustls::ServerConfig;
use tokio_rustls::rustls::crypto::ring;
use tokio_rustls::rustls::pki_types::pem::PemObject;
use tokio_rustls::rustls::pki_types::{CertificateDer, PrivateKeyDer};

/// A certificate with its key.
pub(crate) struct Identity {
    /// The certificate as PEM.
    pub(crate) certificate: String,
    /// The SHA-256 of the certificate, as colon-separated pairs of digits.
    pub(crate) fingerprint: String,
    /// What takes TLS connections.
    pub(crate) acceptor: TlsAcceptor,
}

impl Identity {
    /// A certificate of its own for these addresses; a directory keeps it for the next time.
    pub(crate) fn new(addresses: Vec<String>, kept: Option<&Path>) -> io::Result<Self> {
        let paths =
            kept.map(|directory| (directory.join("certificate.pem"), directory.join("key.pem")));
        if let Some((certificate, key)) = &paths
            && certificate.exists()
            && key.exists()
        {
            return Self::of(
                &std::fs::read_to_string(certificate)?,
                &std::fs::read_to_string(key)?,
            );
        }
        let made = rcgen::generate_simple_self_signed(addresses).map_err(io::Error::other)?;
        let (certificate, key) = (made.cert.pem(), made.signing_key.serialize_pem());
        if let Some((certificate_path, key_path)) = &paths {
            replace(key_path, key.as_bytes(), 0o600)?;
            replace(certificate_path, certificate.as_bytes(), 0o644)?;
        }
        Self::of(&certificate, &key)
    }

    fn of(certificate: &str, key: &str) -> io::Result<Self> {
        let der =
            CertificateDer::from_pem_slice(certificate.as_bytes()).map_err(io::Error::other)?;
        let key = PrivateKeyDer::from_pem_slice(key.as_bytes()).map_err(io::Error::other)?;
        let digest = Sha256::digest(&der);
        let pairs: Vec<String> = digest.iter().map(|byte| format!("{byte:02X}")).collect();
        let config = ServerConfig::builder_with_provider(Arc::new(ring::default_provider()))
            .with_safe_default_protocol_versions()
            .map_err(io::Error::other)?
            .with_no_client_auth()
            .with_single_cert(vec![der], key)
            .map_err(io::Error::other)?;
        Ok(Self {
            certificate: certificate.to_owned(),
            fingerprint: pairs.join(":"),
            acceptor: TlsAcceptor::from(Arc::new(config)),
        })
    }
}

/// Puts a file in place as a whole: one that is half there would bar the next start.
fn replace(path: &Path, bytes: &[u8], mode: u32) -> io::Result<()> {
    use std::io::Write;
    use std::os::unix::fs::OpenOptionsExt;
    let fresh = path.with_extension("pem.new");
    let mut options = std::fs::OpenOptions::new();
    let mut file = options.write(true).create(true).truncate(true).mode(mode).open(&fresh)?;
    file.write_all(bytes)?;
    file.sync_all()?;
    std::fs::rename(fresh, path)
}
