//! The host by way of which the guests of a pool are reached.

use std::fmt;
use std::path::PathBuf;
use std::str::FromStr;

use serde::{Deserialize, Serialize};
use xenapi::Secret;

use crate::defaults::{GuestUser, InvalidDefault};
use crate::secret_reference::SecretReference;
use crate::ssh::{ClientKey, HostKeyCheck, InvalidKey, Login, PublicKey, SshError, Target};

/// A host by way of which guests are reached. It is known by its key, and sees only what a wire would see.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Jump {
    /// Where it is, and as whom it is entered.
    pub place: JumpPlace,
    /// The key that it must show.
    pub host_key: PublicKey,
    /// How we prove who we are.
    pub identity: Identity,
}

/// How we prove to a host who we are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Identity {
    /// By any key of the agent in `SSH_AUTH_SOCK`.
    Agent,
    /// By the private key in this file, which has no passphrase.
    File(PathBuf),
}

/// A user on a host: `ada@bastion.example`, `ada@bastion.example:2222`, `ada@[fd00::1]:2222`.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct JumpPlace {
    user: GuestUser,
    host: String,
    port: u16,
}

/// Why there is no such host to go by.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidJump {
    /// It is not said where it is.
    #[error("`{0}` is no jump host; write USER@HOST or USER@HOST:PORT")]
    Place(String),
    /// Its user is none.
    #[error(transparent)]
    User(#[from] InvalidDefault),
    /// Its key is none.
    #[error("`host_key` is none: {0}")]
    HostKey(InvalidKey),
    /// It is not said, or said twice, how we prove who we are.
    #[error("either `identity` names a private key, or `agent = true`")]
    Identity,
    /// A private key is not in a file.
    #[error("`identity` is file:PATH, as other programs have to read it too")]
    NotAFile,
}

/// A jump host as it stands in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct SshTable {
    jump: String,
    host_key: String,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    identity: Option<SecretReference>,
    #[serde(default, skip_serializing_if = "std::ops::Not::not")]
    agent: bool,
}

impl Jump {
    pub(crate) fn from_table(table: &SshTable) -> Result<Self, InvalidJump> {
        let identity = match (&table.identity, table.agent) {
            (None, true) => Identity::Agent,
            (Some(SecretReference::File(path)), false) => Identity::File(path.clone()),
            (Some(_), false) => return Err(InvalidJump::NotAFile),
            (None, false) | (Some(_), true) => return Err(InvalidJump::Identity),
        };
        let host_key = table.host_key.parse().map_err(InvalidJump::HostKey)?;
        Ok(Self { place: table.jump.parse()?, host_key, identity })
    }

    pub(crate) fn table(&self) -> SshTable {
        let (identity, agent) = match &self.identity {
            Identity::Agent => (None, true),
            Identity::File(path) => (Some(SecretReference::File(path.clone())), false),
        };
        let (jump, host_key) = (self.place.to_string(), self.host_key.to_string());
        SshTable { jump, host_key, identity, agent }
    }

    /// The way into it; reads the key that is named.
    pub(crate) async fn target(&self) -> Result<Target, SshError> {
        let login = match &self.identity {
            Identity::Agent => Login::Agent(None),
            Identity::File(path) => {
                let unusable = |reason| SshError::Identity { path: path.clone(), reason };
                let text = tokio::fs::read_to_string(path).await;
                let text = Secret::from(text.map_err(|error| unusable(error.to_string()))?);
                let key = ClientKey::from_openssh(&text);
                Login::Key(key.map_err(|error| unusable(error.to_string()))?)
            }
        };
        let JumpPlace { user, host, port } = &self.place;
        let check = HostKeyCheck::Pinned(self.host_key.clone());
        Ok(Target::new(host, user.as_str(), check, login).port(*port))
    }
}

impl JumpPlace {
    /// The user there.
    pub fn user(&self) -> &str {
        self.user.as_str()
    }

    /// The host, by name or address.
    pub fn host(&self) -> &str {
        &self.host
    }

    /// The port of its SSH server.
    pub fn port(&self) -> u16 {
        self.port
    }
}

impl FromStr for JumpPlace {
    type Err = InvalidJump;

    fn from_str(text: &str) -> Result<Self, InvalidJump> {
        let invalid = || InvalidJump::Place(text.escape_debug().to_string());
        let (user, place) = text.split_once('@').ok_or_else(invalid)?;
        let (host, port) = match place.strip_prefix('[').and_then(|rest| rest.split_once(']')) {
            Some((host, "")) => (host, None),
            Some((host, rest)) => (host, Some(rest.strip_prefix(':').ok_or_else(invalid)?)),
            None => place.split_once(':').map_or((place, None), |(host, port)| (host, Some(port))),
        };
        let port = match port.unwrap_or("22").parse() {
            Ok(port) if port != 0 => port,
            _ => return Err(invalid()),
        };
        // Other programs are given it as an argument.
        let is_part = |byte: u8| byte.is_ascii_alphanumeric() || b"-._:".contains(&byte);
        if host.is_empty() || host.starts_with('-') || !host.bytes().all(is_part) {
            return Err(invalid());
        }
        Ok(Self { user: user.parse()?, host: host.to_owned(), port })
    }
}

impl fmt::Display for JumpPlace {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { user, host, port } = self;
        if host.contains(':') {
            write!(f, "{user}@[{host}]:{port}")
        } else {
            write!(f, "{user}@{host}:{port}")
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn table(more: &str) -> Result<Jump, InvalidJump> {
        let key = ClientKey::generate("bastion").public();
        let text = format!("jump = 'ada@bastion'\nhost_key = '{key}'\n{more}");
        Jump::from_table(&toml_edit::de::from_str(&text).unwrap())
    }

    #[test]
    fn a_jump_host_is_read_back_from_its_table() {
        for identity in ["agent = true", "identity = 'file:/home/ada/.ssh/id_ed25519'"] {
            let jump = table(identity).unwrap();
            assert_eq!(Jump::from_table(&jump.table()), Ok(jump.clone()));
            assert_eq!(jump.place.to_string(), "ada@bastion:22");
        }
    }

    #[test]
    fn a_place_is_a_user_on_a_host() {
        for text in ["ada@bastion.example:2222", "ada@[fd00::1]:22", "ada@10.0.0.1:22"] {
            assert_eq!(text.parse::<JumpPlace>().unwrap().to_string(), text);
        }
        for wrong in [
            "bastion",
            "@bastion",
            "ada@",
            "ada@bastion:0",
            "ada@bastion:x",
            "ada@-oProxyCommand=x",
            "ada@a b",
            "ada@[fd00::1]22",
            "-o@bastion",
        ] {
            assert!(wrong.parse::<JumpPlace>().is_err(), "{wrong}");
        }
    }

    #[test]
    fn a_jump_host_has_a_key_and_one_way_to_prove_who_we_are() {
        assert_eq!(table(""), Err(InvalidJump::Identity));
        assert_eq!(table("agent = true\nidentity = 'file:/a'"), Err(InvalidJump::Identity));
        assert_eq!(table("identity = 'env:KEY'"), Err(InvalidJump::NotAFile));
        let keyless = "jump = 'ada@bastion'\nagent = true";
        assert!(toml_edit::de::from_str::<SshTable>(keyless).is_err());
        let wrong = "jump = 'ada@bastion'\nagent = true\nhost_key = 'SHA256:abc'";
        let wrong = Jump::from_table(&toml_edit::de::from_str(wrong).unwrap());
        assert!(matches!(wrong, Err(InvalidJump::HostKey(_))));
    }
}
