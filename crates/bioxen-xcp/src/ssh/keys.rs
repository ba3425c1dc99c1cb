//! Keys: how a guest is known, and how it knows us.
//!
//! Private parts have no `Debug`, `Display` or `Serialize`, and leave only as a [`Secret`]; whoever
//! makes a key stores it.

use std::fmt;
use std::str::FromStr;
use std::sync::Arc;

use russh::keys::ssh_key::{Fingerprint, LineEnding};
use russh::keys::{Algorithm, HashAlg, PrivateKey};
use xenapi::Secret;

/// The public part of a key, read and written as in `known_hosts` and `authorized_keys`:
/// `ssh-ed25519 AAAA… comment`.
///
/// Two are equal when their keys are, whatever their comments.
#[derive(Clone)]
pub struct PublicKey(russh::keys::PublicKey);

/// The SHA-256 digest of a public key, as OpenSSH shows it: `SHA256:…`.
#[derive(Clone, Copy, PartialEq, Eq, Hash)]
pub struct KeyFingerprint(Fingerprint);

/// The key by which a guest proves who it is. We make it, and cloud-init puts it into place.
pub struct HostKey(PrivateKey);

/// The key by which we prove who we are. Each VM has its own.
#[derive(Clone)]
pub struct ClientKey(Arc<PrivateKey>);

/// Why a text is no key.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidKey {
    /// It is not in OpenSSH's form.
    #[error("this is no {what} key in OpenSSH's form")]
    Malformed {
        /// `public` or `private`.
        what: &'static str,
    },
    /// It is locked with a passphrase.
    #[error("the private key is locked with a passphrase")]
    Locked,
}

impl InvalidKey {
    /// What the reader can do about it.
    pub fn hint(&self) -> &'static str {
        match self {
            Self::Malformed { what: "public" } => {
                "it is one line that starts with its kind, as in a `.pub` file"
            }
            Self::Malformed { .. } => {
                "name the file that `ssh-keygen -t ed25519` wrote, the one without `.pub`"
            }
            Self::Locked => "add it to an agent with `ssh-add`, and log in by the agent",
        }
    }
}

impl PublicKey {
    /// Its digest, which people compare.
    pub fn fingerprint(&self) -> KeyFingerprint {
        KeyFingerprint(self.0.fingerprint(HashAlg::Sha256))
    }

    /// Its kind, as the protocol names it: `ssh-ed25519`.
    pub fn kind(&self) -> String {
        self.0.algorithm().to_string()
    }

    pub(super) fn from_wire(key: russh::keys::PublicKey) -> Self {
        Self(key)
    }

    pub(super) fn algorithm(&self) -> Algorithm {
        self.0.algorithm()
    }
}

impl PartialEq for PublicKey {
    fn eq(&self, other: &Self) -> bool {
        self.0.key_data() == other.0.key_data()
    }
}

impl Eq for PublicKey {}

impl FromStr for PublicKey {
    type Err = InvalidKey;

    fn from_str(text: &str) -> Result<Self, InvalidKey> {
        russh::keys::PublicKey::from_openssh(text.trim())
            .map(Self)
            .map_err(|_| InvalidKey::Malformed { what: "public" })
    }
}

impl fmt::Display for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The type has no other text form, and any key that was made or read has this one.
        f.write_str(&self.0.to_openssh().map_err(|_| fmt::Error)?)
    }
}

impl fmt::Debug for PublicKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "PublicKey({})", self.fingerprint())
    }
}

impl fmt::Display for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl fmt::Debug for KeyFingerprint {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        self.0.fmt(f)
    }
}

impl HostKey {
    /// Makes a new ed25519 key. The comment is for people; the VM's name is a good one.
    pub fn generate(comment: &str) -> Self {
        Self(generate(comment))
    }

    /// Reads a private key in OpenSSH's form.
    pub fn from_openssh(text: &Secret) -> Result<Self, InvalidKey> {
        read(text).map(Self)
    }

    /// The private part in OpenSSH's form, as cloud-init's `ssh_keys` wants it.
    pub fn to_openssh(&self) -> Secret {
        write(&self.0)
    }

    /// The part to pin.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().clone())
    }
}

impl ClientKey {
    /// Makes a new ed25519 key. The comment is for people; the VM's name is a good one.
    pub fn generate(comment: &str) -> Self {
        Self(Arc::new(generate(comment)))
    }

    /// Reads a private key in OpenSSH's form.
    pub fn from_openssh(text: &Secret) -> Result<Self, InvalidKey> {
        read(text).map(|key| Self(Arc::new(key)))
    }

    /// The private part in OpenSSH's form.
    pub fn to_openssh(&self) -> Secret {
        write(&self.0)
    }

    /// The part for the guest's `authorized_keys`.
    pub fn public(&self) -> PublicKey {
        PublicKey(self.0.public_key().clone())
    }

    pub(super) fn private(&self) -> Arc<PrivateKey> {
        Arc::clone(&self.0)
    }
}

fn generate(comment: &str) -> PrivateKey {
    let mut random = russh::keys::key::safe_rng();
    let mut key = PrivateKey::random(&mut random, Algorithm::Ed25519)
        .expect("an ed25519 key can be made of any random bytes");
    key.set_comment(comment);
    key
}

fn read(text: &Secret) -> Result<PrivateKey, InvalidKey> {
    let key = PrivateKey::from_openssh(text.expose())
        .map_err(|_| InvalidKey::Malformed { what: "private" })?;
    if key.is_encrypted() { Err(InvalidKey::Locked) } else { Ok(key) }
}

fn write(key: &PrivateKey) -> Secret {
    let text = key.to_openssh(LineEnding::LF).expect("a key in memory can be written");
    Secret::from(text.as_str())
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_key_is_read_back_from_its_text() {
        let key = ClientKey::generate("vm assembler");
        let again = ClientKey::from_openssh(&key.to_openssh()).unwrap();
        assert_eq!(again.public(), key.public());
        let line = key.public().to_string();
        assert!(line.starts_with("ssh-ed25519 AAAA") && line.ends_with("vm assembler"), "{line}");
        assert_eq!(line.parse::<PublicKey>().unwrap(), key.public());
        assert!(key.to_openssh().expose().starts_with("-----BEGIN OPENSSH PRIVATE KEY-----\n"));
    }

    #[test]
    fn two_keys_differ_and_a_comment_makes_no_difference() {
        let (one, other) = (HostKey::generate("a"), HostKey::generate("a"));
        assert_ne!(one.public(), other.public());
        let line = one.public().to_string();
        let renamed = line.replace(" a", " b").parse::<PublicKey>().unwrap();
        assert_eq!(renamed, one.public());
        assert_eq!(renamed.fingerprint(), one.public().fingerprint());
        assert!(one.public().fingerprint().to_string().starts_with("SHA256:"));
    }

    #[test]
    fn what_is_no_key_is_refused_and_not_repeated() {
        let error = HostKey::from_openssh(&Secret::from("hunter2")).err().unwrap();
        assert_eq!(error, InvalidKey::Malformed { what: "private" });
        assert!(!error.to_string().contains("hunter2"));
        assert!("ssh-ed25519 AAAA".parse::<PublicKey>().is_err());
        assert!("".parse::<PublicKey>().is_err());
    }

    #[test]
    fn a_locked_key_is_refused_with_what_to_do() {
        let locked = "-----BEGIN OPENSSH PRIVATE KEY-----\n\
            b3BlbnNzaC1rZXktdjEAAAAACmFlczI1Ni1jdHIAAAAGYmNyeXB0AAAAGAAAABC8\n";
        assert!(HostKey::from_openssh(&Secret::from(locked)).is_err());
        assert!(InvalidKey::Locked.hint().contains("ssh-add"));
    }
}
