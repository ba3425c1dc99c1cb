//! SSH keys: those that may log in, and those by which a guest is known.

use std::fmt;
use std::str::FromStr;

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use xenapi::Secret;

use super::setting::InvalidSetting;

/// The algorithms of keys that may log in, as they name themselves.
const ALGORITHMS: [&str; 7] = [
    "ssh-ed25519",
    "ssh-rsa",
    "ecdsa-sha2-nistp256",
    "ecdsa-sha2-nistp384",
    "ecdsa-sha2-nistp521",
    "sk-ssh-ed25519@openssh.com",
    "sk-ecdsa-sha2-nistp256@openssh.com",
];

const BEGIN: &str = "-----BEGIN OPENSSH PRIVATE KEY-----";
const END: &str = "-----END OPENSSH PRIVATE KEY-----";
const MAGIC: &[u8] = b"openssh-key-v1\0";

/// A public key that may log in: a line as in `authorized_keys`, with its options if it has any.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AuthorizedKey(String);

impl AuthorizedKey {
    /// Checks the line; a line break at its end is dropped.
    pub fn new(line: &str) -> Result<Self, InvalidSetting> {
        let line = line.trim();
        let invalid = |reason| InvalidSetting::new("SSH public key", line, reason);
        if line.contains(PRIVATE) {
            return Err(InvalidSetting::hidden("SSH public key", "it is a private key"));
        }
        if line.contains(|letter: char| letter.is_control() && letter != '\t') {
            return Err(invalid("it is one line"));
        }
        find_key(line).map_err(invalid)?;
        Ok(Self(line.to_owned()))
    }

    /// The line.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

const PRIVATE: &str = "PRIVATE KEY";

impl FromStr for AuthorizedKey {
    type Err = InvalidSetting;
    fn from_str(line: &str) -> Result<Self, InvalidSetting> {
        Self::new(line)
    }
}

/// The algorithm and the key itself in a line of `authorized_keys`.
fn find_key(line: &str) -> Result<(&str, Vec<u8>), &'static str> {
    let mut words = words(line);
    let algorithm = words
        .by_ref()
        .take(2)
        .find(|word| ALGORITHMS.contains(word))
        .ok_or("it starts with no known algorithm, such as `ssh-ed25519`")?;
    let encoded = words.next().ok_or("the key itself is missing")?;
    let blob = STANDARD.decode(encoded).map_err(|_| "the key itself is damaged")?;
    let (name, rest) = field(&blob).ok_or("the key itself is cut short")?;
    if name != algorithm.as_bytes() || rest.is_empty() {
        return Err("the key itself is of another algorithm than it says");
    }
    Ok((algorithm, blob))
}

/// The words of a line; blanks between double quotes are part of a word, as in options.
fn words(line: &str) -> impl Iterator<Item = &str> {
    let (mut quoted, mut escaped) = (false, false);
    let is_blank = move |letter: char| {
        quoted ^= letter == '"' && !escaped;
        escaped = letter == '\\' && !escaped;
        !quoted && (letter == ' ' || letter == '\t')
    };
    line.split(is_blank).filter(|word| !word.is_empty())
}

/// A field with its length before it, and what follows.
fn field(bytes: &[u8]) -> Option<(&[u8], &[u8])> {
    let (length, rest) = bytes.split_first_chunk()?;
    rest.split_at_checked(usize::try_from(u32::from_be_bytes(*length)).ok()?)
}

/// The algorithm of a host key.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum HostKeyAlgorithm {
    /// Ed25519.
    Ed25519,
    /// ECDSA on one of the NIST curves.
    Ecdsa,
    /// RSA.
    Rsa,
}

impl HostKeyAlgorithm {
    pub(super) fn name(self) -> &'static str {
        match self {
            Self::Ed25519 => "ed25519",
            Self::Ecdsa => "ecdsa",
            Self::Rsa => "rsa",
        }
    }
}

/// A key by which a guest is known over SSH, so that its first connection is already verified.
#[derive(Clone)]
pub struct HostKey {
    pub(super) algorithm: HostKeyAlgorithm,
    pub(super) private: Secret,
    pub(super) public: String,
}

impl HostKey {
    /// Takes the private key as OpenSSH writes it, without a passphrase, and its public line. They have
    /// to belong to each other.
    pub fn new(private: Secret, public: &str) -> Result<Self, InvalidSetting> {
        let invalid = |reason| InvalidSetting::hidden("SSH host key", reason);
        let public = AuthorizedKey::new(public)?.0;
        let (name, blob) = find_key(&public).map_err(invalid)?;
        if !public.starts_with(name) {
            return Err(invalid("its public line has options"));
        }
        let algorithm = match name {
            "ssh-ed25519" => HostKeyAlgorithm::Ed25519,
            "ssh-rsa" => HostKeyAlgorithm::Rsa,
            name if name.starts_with("ecdsa-") => HostKeyAlgorithm::Ecdsa,
            _ => return Err(invalid("keys in hardware cannot be a host's")),
        };
        check_private(private.expose(), &blob).map_err(invalid)?;
        Ok(Self { algorithm, private, public })
    }

    /// Its algorithm.
    pub fn algorithm(&self) -> HostKeyAlgorithm {
        self.algorithm
    }

    /// Its public line.
    pub fn public(&self) -> &str {
        &self.public
    }
}

impl fmt::Debug for HostKey {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("HostKey").field("public", &self.public).finish_non_exhaustive()
    }
}

/// Checks that a private key can be read without a passphrase and has this public part.
fn check_private(text: &str, public: &[u8]) -> Result<(), &'static str> {
    let body = text.trim().strip_prefix(BEGIN).and_then(|text| text.strip_suffix(END));
    let body: String =
        body.ok_or("its private part is not in OpenSSH's form")?.split_ascii_whitespace().collect();
    let bytes = STANDARD.decode(body).map_err(|_| "its private part is damaged")?;
    let cut = "its private part is cut short";
    let rest = bytes.strip_prefix(MAGIC).ok_or("its private part is not in OpenSSH's form")?;
    let (cipher, rest) = field(rest).ok_or(cut)?;
    let (_, rest) = field(rest).ok_or(cut)?;
    let (_, rest) = field(rest).ok_or(cut)?;
    let (count, rest) = rest.split_first_chunk::<4>().ok_or(cut)?;
    let (found, _) = field(rest).ok_or(cut)?;
    match () {
        () if cipher != b"none" => Err("its private part has a passphrase"),
        () if u32::from_be_bytes(*count) != 1 => Err("its private part holds several keys"),
        () if found != public => Err("its public and private parts are of different keys"),
        () => Ok(()),
    }
}

#[cfg(test)]
pub(super) mod tests {
    use super::*;

    pub(in super::super) const PUBLIC: &str =
        "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f a test";

    /// What [`PUBLIC`]'s private part looks like from outside; its secret fields are no key.
    pub(in super::super) fn private() -> Secret {
        private_of(PUBLIC, b"none")
    }

    fn private_of(public: &str, cipher: &[u8]) -> Secret {
        let (_, blob) = find_key(public).unwrap();
        let mut bytes = MAGIC.to_vec();
        for part in [cipher, b"none", b""] {
            bytes.extend(u32::try_from(part.len()).unwrap().to_be_bytes());
            bytes.extend(part);
        }
        bytes.extend(1_u32.to_be_bytes());
        bytes.extend(u32::try_from(blob.len()).unwrap().to_be_bytes());
        bytes.extend(blob);
        Secret::from(format!("{BEGIN}\n{}\n{END}\n", STANDARD.encode(bytes)))
    }

    #[test]
    fn keys_with_options_and_comments_are_taken() {
        for line in [
            PUBLIC.to_owned(),
            format!("{PUBLIC}\n"),
            format!(r#"command="echo \"ssh-rsa x\"",no-pty {PUBLIC}"#),
            format!("restrict {PUBLIC} ada@lab: #1 'quoted'"),
        ] {
            assert_eq!(AuthorizedKey::new(&line).unwrap().as_str(), line.trim());
        }
    }

    #[test]
    fn what_is_no_key_is_refused() {
        let other = PUBLIC.replace("ssh-ed25519", "ssh-rsa");
        let two = format!("{PUBLIC}\n{PUBLIC}");
        for line in ["", "ssh-ed25519", "ssh-ed25519 AAAA", "ssh-dss AAAA", &other, &two] {
            assert!(AuthorizedKey::new(line).is_err(), "{line}");
        }
        let error = AuthorizedKey::new(private().expose()).unwrap_err().to_string();
        assert!(error.contains("private key") && !error.contains("b3Bl"), "{error}");
    }

    #[test]
    fn a_host_key_s_parts_have_to_belong_to_each_other() {
        let key = HostKey::new(private(), PUBLIC).unwrap();
        assert_eq!(key.algorithm(), HostKeyAlgorithm::Ed25519);
        let other = PUBLIC.replace("BAgME", "BAgMF");
        let error = HostKey::new(private(), &other).unwrap_err().to_string();
        assert!(error.contains("different keys"), "{error}");
        let error = HostKey::new(private_of(PUBLIC, b"aes256-ctr"), PUBLIC).unwrap_err();
        assert!(error.to_string().contains("passphrase"), "{error}");
        assert!(HostKey::new("hunter2".into(), PUBLIC).is_err());
    }
}
