//! The keys by which a guest's SSH server is known: those of the seed, or made at the first boot.

use std::io;

use russh::keys::PrivateKey;
use russh::keys::ssh_key::LineEnding;
use russh::keys::ssh_key::private::{Ed25519Keypair, KeypairData};
use rustix::rand::{GetRandomFlags, getrandom};

use super::files::Files;

/// The kinds that the server can use; RSA is not among them.
const KINDS: [&str; 2] = ["ed25519", "ecdsa"];

fn path(kind: &str) -> String {
    format!("/etc/ssh/ssh_host_{kind}_key")
}

/// Puts the given keys in place (`ed25519_private`, …) and, if then there is none, makes one. Returns
/// what is wrong with keys that cannot be used.
pub(super) fn install(files: &Files, given: &[(String, String)]) -> io::Result<Vec<String>> {
    let mut problems = Vec::new();
    for (name, key) in given {
        let Some((kind, part)) = name.rsplit_once('_') else { continue };
        if !KINDS.contains(&kind) {
            if part == "private" {
                problems.push(format!("host keys of the kind `{kind}` cannot be used here"));
            }
            continue;
        }
        // The public one is computed from the private one.
        if part == "private" {
            match PrivateKey::from_openssh(key.trim()) {
                Ok(parsed) => write(files, kind, &parsed)?,
                Err(error) => {
                    problems.push(format!("the host key `{name}` cannot be used: {error}"));
                }
            }
        }
    }
    if KINDS.iter().all(|kind| !files.exists(&path(kind))) {
        write(files, "ed25519", &random()?)?;
    }
    Ok(problems)
}

/// The keys that the guest has.
pub(super) fn load(files: &Files) -> Vec<PrivateKey> {
    let texts = KINDS.iter().filter_map(|kind| files.read_text(&path(kind)).ok());
    texts.filter_map(|text| PrivateKey::from_openssh(text).ok()).collect()
}

/// A key that nobody has seen before.
pub(super) fn random() -> io::Result<PrivateKey> {
    let mut seed = [0; 32];
    getrandom(&mut seed, GetRandomFlags::empty())?;
    let pair = KeypairData::Ed25519(Ed25519Keypair::from_seed(&seed));
    PrivateKey::new(pair, "root@guest").map_err(io::Error::other)
}

fn write(files: &Files, kind: &str, key: &PrivateKey) -> io::Result<()> {
    let private = key.to_openssh(LineEnding::LF).map_err(io::Error::other)?;
    let public = key.public_key().to_openssh().map_err(io::Error::other)?;
    files.write(&path(kind), private.as_bytes(), 0o600)?;
    files.write(&format!("{}.pub", path(kind)), format!("{public}\n").as_bytes(), 0o644)
}
