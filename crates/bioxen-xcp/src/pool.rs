//! One pool as a user names it: where it is, whom to log in as, and how its certificate is known.

use std::collections::BTreeMap;
use std::fmt;
use std::io;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

use bioxen_core::CallHomeAddress;
use serde::{Deserialize, Serialize};
use xenapi::wire::{Request, Value};
use xenapi::{
    Client, Endpoint, Fingerprint, InvalidAddress, InvalidFingerprint, InvalidPem, Secret,
    TlsError, Trust,
};

use crate::configuration::NoSuchPool;
use crate::guest_settings::{
    GuestSettings, InvalidDeclaration, InvalidJump, Jump, RangeTable, SshTable,
};
use crate::secret_reference::{SecretError, SecretReference};

/// Under which name the pool's server logs what this program does.
const ORIGINATOR: &str = "bioxen";

/// How long the first contact with a pool may take.
const FIRST_CONTACT: Duration = Duration::from_secs(20);

/// The user that every host has.
pub const DEFAULT_USER: &str = "root";

/// A pool's name: 1 to 63 lowercase letters, digits, hyphens and underscores, starting with a letter.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(try_from = "String", into = "String")]
pub struct PoolName(String);

/// Why a text is not a pool's name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not a pool name; use 1 to 63 of a-z, 0-9, `-` and `_`, starting with a letter")]
pub struct InvalidPoolName(String);

impl PoolName {
    /// Checks `name` and wraps it.
    pub fn new(name: impl Into<String>) -> Result<Self, InvalidPoolName> {
        let name = name.into();
        let is_part = |byte: u8| {
            byte.is_ascii_lowercase() || byte.is_ascii_digit() || byte == b'-' || byte == b'_'
        };
        let starts_well = name.starts_with(|first: char| first.is_ascii_lowercase());
        if starts_well && name.len() <= 63 && name.bytes().all(is_part) {
            Ok(Self(name))
        } else {
            Err(InvalidPoolName(name.escape_debug().to_string()))
        }
    }

    /// The name as text.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PoolName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.0)
    }
}

impl FromStr for PoolName {
    type Err = InvalidPoolName;
    fn from_str(name: &str) -> Result<Self, InvalidPoolName> {
        Self::new(name)
    }
}

impl TryFrom<String> for PoolName {
    type Error = InvalidPoolName;
    fn try_from(name: String) -> Result<Self, InvalidPoolName> {
        Self::new(name)
    }
}

impl From<PoolName> for String {
    fn from(name: PoolName) -> Self {
        name.0
    }
}

/// How a pool's certificate is known.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum TrustSettings {
    /// By its fingerprint, which was compared once.
    Fingerprint(Fingerprint),
    /// By an authority whose certificates are in this PEM file.
    Authority(PathBuf),
    /// Not at all: only a pool on this machine, without TLS, can be used so.
    Nothing,
}

/// What it takes to use a pool.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Its name here.
    pub name: PoolName,
    /// Addresses of its hosts; the first that answers is used, best the master's.
    pub addresses: Vec<Endpoint>,
    /// Whom to log in as.
    pub user: String,
    /// Where the password is.
    pub password: SecretReference,
    /// How its certificate is known.
    pub trust: TrustSettings,
    /// Which addresses the guests of its VMs are given, and how they are reached.
    pub guests: GuestSettings,
}

/// A pool's settings as they stand in the configuration.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct PoolTable {
    pub(crate) addresses: Vec<String>,
    #[serde(default = "default_user")]
    pub(crate) user: String,
    pub(crate) password: SecretReference,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) fingerprint: Option<String>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) certificate_authority: Option<PathBuf>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) call_home: Option<CallHomeAddress>,
    #[serde(default, skip_serializing_if = "BTreeMap::is_empty")]
    pub(crate) networks: BTreeMap<String, RangeTable>,
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub(crate) ssh: Option<SshTable>,
}

fn default_user() -> String {
    DEFAULT_USER.into()
}

/// Why settings make no pool.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum InvalidPool {
    /// Its name is none.
    #[error(transparent)]
    Name(#[from] InvalidPoolName),
    /// One of its addresses is none.
    #[error("pool `{pool}` has an address that is none")]
    Address {
        /// The pool.
        pool: PoolName,
        /// What is wrong.
        source: InvalidAddress,
    },
    /// It has no address.
    #[error("pool `{pool}` has no address")]
    NoAddress {
        /// The pool.
        pool: PoolName,
    },
    /// Its fingerprint is none.
    #[error("pool `{pool}` has a fingerprint that is none")]
    Fingerprint {
        /// The pool.
        pool: PoolName,
        /// What is wrong.
        source: InvalidFingerprint,
    },
    /// The addresses that it declares for a network are none.
    #[error("pool `{pool}` declares addresses for network `{network}` that cannot be given")]
    Range {
        /// The pool.
        pool: PoolName,
        /// The network.
        network: String,
        /// What is wrong.
        source: Box<InvalidDeclaration>,
    },
    /// The jump host to its guests is none.
    #[error("pool `{pool}` has a jump host that is none")]
    Jump {
        /// The pool.
        pool: PoolName,
        /// What is wrong.
        source: Box<InvalidJump>,
    },
    /// It says twice how its certificate is known.
    #[error("pool `{pool}` has both a fingerprint and a certificate authority")]
    TwoTrusts {
        /// The pool.
        pool: PoolName,
    },
}

impl PoolSettings {
    pub(crate) fn from_table(name: &str, table: PoolTable) -> Result<Self, InvalidPool> {
        let name = PoolName::new(name)?;
        let pool = || name.clone();
        let addresses: Vec<Endpoint> = table
            .addresses
            .iter()
            .map(|address| address.parse())
            .collect::<Result<_, _>>()
            .map_err(|source| InvalidPool::Address { pool: pool(), source })?;
        if addresses.is_empty() {
            return Err(InvalidPool::NoAddress { pool: pool() });
        }
        let trust = match (table.fingerprint, table.certificate_authority) {
            (Some(_), Some(_)) => return Err(InvalidPool::TwoTrusts { pool: pool() }),
            (Some(fingerprint), None) => TrustSettings::Fingerprint(
                fingerprint
                    .parse()
                    .map_err(|source| InvalidPool::Fingerprint { pool: pool(), source })?,
            ),
            (None, Some(path)) => TrustSettings::Authority(path),
            (None, None) => TrustSettings::Nothing,
        };
        let mut guests =
            GuestSettings::from_tables(table.networks).map_err(|(network, source)| {
                InvalidPool::Range { pool: pool(), network, source: Box::new(source) }
            })?;
        guests.call_home = table.call_home;
        let jump = table.ssh.as_ref().map(Jump::from_table).transpose();
        guests.jump =
            jump.map_err(|source| InvalidPool::Jump { pool: pool(), source: Box::new(source) })?;
        Ok(Self { name, addresses, user: table.user, password: table.password, trust, guests })
    }

    pub(crate) fn to_table(&self) -> PoolTable {
        let (fingerprint, certificate_authority) = match &self.trust {
            TrustSettings::Fingerprint(fingerprint) => (Some(fingerprint.to_string()), None),
            TrustSettings::Authority(path) => (None, Some(path.clone())),
            TrustSettings::Nothing => (None, None),
        };
        PoolTable {
            addresses: self.addresses.iter().map(ToString::to_string).collect(),
            user: self.user.clone(),
            password: self.password.clone(),
            fingerprint,
            certificate_authority,
            call_home: self.guests.call_home,
            networks: self.guests.range_tables(),
            ssh: self.guests.jump.as_ref().map(Jump::table),
        }
    }

    /// Connects and logs in, to the first address that answers.
    pub async fn connect(&self) -> Result<Client, PoolError> {
        let password = self
            .password
            .resolve()
            .await
            .map_err(|source| PoolError::Password { pool: self.name.clone(), source })?;
        let ready = self.builder().await?.login(self.user.clone(), password);
        ready.connect().await.map_err(|source| self.failure(source))
    }

    /// The client that is to be, before it knows who logs in.
    pub(crate) async fn builder(&self) -> Result<xenapi::Builder, PoolError> {
        let trust = match &self.trust {
            TrustSettings::Fingerprint(fingerprint) => Trust::fingerprint(*fingerprint),
            TrustSettings::Authority(path) => {
                let (pool, path) = (self.name.clone(), path.clone());
                let pem = match tokio::fs::read(&path).await {
                    Ok(pem) => pem,
                    Err(source) => return Err(PoolError::ReadAuthority { pool, path, source }),
                };
                Trust::certificates(&pem).map_err(|source| PoolError::Authority {
                    pool,
                    path,
                    source,
                })?
            }
            TrustSettings::Nothing => Trust::none(),
        };
        let addresses = self.addresses.iter().map(ToString::to_string);
        let builder = addresses.fold(None, |builder: Option<xenapi::Builder>, address| {
            let added = match builder {
                None => Client::builder(&address),
                Some(builder) => builder.or(&address),
            };
            Some(added.expect("an endpoint is written as it is read"))
        });
        let builder = builder.expect("a pool has an address");
        Ok(builder.trust(trust).originator(ORIGINATOR))
    }

    /// What went wrong with this pool, as an error that names it.
    pub fn failure(&self, source: xenapi::Error) -> PoolError {
        PoolError::Client { pool: self.name.clone(), source: Box::new(source) }
    }

    /// The fingerprint that a pool's certificate has now, at its first address. Nobody logs in.
    ///
    /// It is what the other side says of itself: before it is trusted, a person compares it with the
    /// host's own. `None` where no TLS is used.
    pub async fn present_fingerprint(&self) -> Result<Option<Fingerprint>, PoolError> {
        if !self.addresses[0].is_tls() {
            return Ok(None);
        }
        let untrusting = Self { trust: TrustSettings::Nothing, ..self.clone() };
        let client = untrusting.builder().await?.session(Secret::from(String::new())).build();
        let question = Request::read("system.listMethods", Vec::new()).without_session();
        match client.call::<Value>(question).timeout(FIRST_CONTACT).await {
            Ok(_) => Ok(None),
            Err(xenapi::Error::Tls { source, endpoint }) => match source.found() {
                Some(found) => Ok(Some(*found)),
                None => Err(self.failure(xenapi::Error::Tls { source, endpoint })),
            },
            Err(error) => Err(self.failure(error)),
        }
    }
}

/// Why a pool could not be used.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PoolError {
    /// There is no pool of that name.
    #[error(transparent)]
    NoSuchPool(#[from] NoSuchPool),
    /// There is not exactly one, and none was named.
    #[error("which pool? {}", if there.is_empty() { "there is none".to_owned() } else { format!("there are {}", there.join(", ")) })]
    Which {
        /// Their names.
        there: Vec<String>,
    },
    /// The password could not be had.
    #[error("could not get the password of pool `{pool}`")]
    Password {
        /// The pool.
        pool: PoolName,
        /// Why.
        source: SecretError,
    },
    /// The certificates of its authority cannot be read.
    #[error("the certificate authority of pool `{pool}`, `{}`, cannot be read", path.display())]
    ReadAuthority {
        /// The pool.
        pool: PoolName,
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The file with the certificates of its authority holds none.
    #[error("the certificate authority of pool `{pool}`, `{}`, cannot be used", path.display())]
    Authority {
        /// The pool.
        pool: PoolName,
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidPem,
    },
    /// It did not tell what it holds.
    #[error("could not learn what pool `{pool}` holds")]
    Mirror {
        /// The pool.
        pool: PoolName,
        /// What happened.
        source: Box<xenapi::mirror::WaitError>,
    },
    /// It could not be reached, or refused.
    #[error("could not use pool `{pool}`")]
    Client {
        /// The pool.
        pool: PoolName,
        /// What happened.
        source: Box<xenapi::Error>,
    },
}

impl PoolError {
    /// Whether the pool was not reached, or not in a way that can be trusted.
    pub fn is_unreachable(&self) -> bool {
        use xenapi::Error as E;
        let Self::Client { source, .. } = self else { return false };
        matches!(
            source.as_ref(),
            E::Connect { .. } | E::Tls { .. } | E::Transport { .. } | E::Timeout { .. }
        )
    }

    /// Whether the pool does not let this user in, or not do this.
    pub fn is_forbidden(&self) -> bool {
        let Self::Client { source, .. } = self else { return false };
        let refusals = [
            "SESSION_AUTHENTICATION_FAILED",
            "SESSION_AUTHORIZATION_FAILED",
            "RBAC_PERMISSION_DENIED",
            "PERMISSION_DENIED",
        ];
        source.code().is_some_and(|code| refusals.contains(&code))
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NoSuchPool(error) => Some(error.hint()),
            Self::Which { there } if there.is_empty() => {
                Some("add one with `bioxen pool add`".into())
            }
            Self::Which { .. } => Some("name one with `--pool`".into()),
            Self::Password { source, .. } => Some(source.hint()),
            Self::ReadAuthority { .. } | Self::Authority { .. } => {
                Some("name a file with certificates in PEM form".into())
            }
            Self::Mirror { pool, .. } => {
                Some(format!("find out where it fails with `bioxen pool check {pool}`"))
            }
            Self::Client { pool, source } => match source.as_ref() {
                xenapi::Error::Connect { .. } | xenapi::Error::Timeout { .. } => {
                    Some(format!("find out where it fails with `bioxen pool check {pool}`"))
                }
                xenapi::Error::Tls { source: TlsError::Unknown { .. }, .. } => Some(format!(
                    "have its certificate shown, and compare it: `bioxen pool trust {pool}`"
                )),
                other => other.hint(),
            },
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn range() -> RangeTable {
        toml_edit::de::from_str("addresses = '10.0.3.100-10.0.3.199'\nprefix = 24").unwrap()
    }

    #[test]
    fn settings_are_read_back_from_their_table() {
        let key = crate::ssh::ClientKey::generate("bastion").public();
        let jump = format!("jump = 'ada@bastion'\nagent = true\nhost_key = '{key}'");
        let table = PoolTable {
            addresses: vec!["https://xcp-01.example".into(), "https://[fd00::2]:8443".into()],
            user: "ada".into(),
            password: "env:LAB".parse().unwrap(),
            fingerprint: None,
            certificate_authority: Some("/etc/ssl/lab.pem".into()),
            call_home: Some("0.0.0.0:8740".parse().unwrap()),
            networks: [("Lab network".to_owned(), range())].into(),
            ssh: Some(toml_edit::de::from_str(&jump).unwrap()),
        };
        let settings = PoolSettings::from_table("lab", table).unwrap();
        let again = PoolSettings::from_table("lab", settings.to_table()).unwrap();
        assert_eq!(again, settings);
    }

    #[test]
    fn settings_that_make_no_pool_say_which_and_why() {
        let table = |addresses: &[&str], fingerprint: Option<&str>| PoolTable {
            addresses: addresses.iter().map(|&address| address.into()).collect(),
            user: "root".into(),
            password: "env:LAB".parse().unwrap(),
            fingerprint: fingerprint.map(Into::into),
            certificate_authority: None,
            call_home: None,
            networks: BTreeMap::new(),
            ssh: None,
        };
        let error = |name, table| PoolSettings::from_table(name, table).unwrap_err().to_string();
        assert!(error("Lab", table(&["https://a"], None)).contains("`Lab`"));
        assert!(error("lab", table(&[], None)).contains("no address"));
        assert!(error("lab", table(&["ftp://a"], None)).contains("`lab`"));
        assert!(error("lab", table(&["https://a"], Some("12"))).contains("fingerprint"));
    }
}
