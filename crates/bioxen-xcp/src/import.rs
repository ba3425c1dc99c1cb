//! Configuration of the library that BioXen replaces, in all of its spellings, as ours.
//!
//! A file is JSON (`xcpng_config.json`, `xo_config.json`, `bioxen_config.json`) or lines of `KEY=VALUE`
//! (`.env`). What it says becomes pools and defaults, and for each key there is a [`Finding`] of what
//! became of it. Nothing is read or written here, and no value of an unknown key, nor any password, is
//! in what a finding shows.

mod address;
mod reading;
mod sizes;
mod spellings;
mod work;

use serde::Serialize;
use xenapi::{Endpoint, Secret};

use crate::configuration::Configuration;
use crate::defaults::XcpngDefaults;
use crate::pool::{PoolName, PoolSettings, TrustSettings};
use crate::secret_reference::SecretReference;
use work::Work;

pub use reading::Unreadable;

/// What an old configuration comes to.
#[derive(Debug)]
pub struct Import {
    /// The pools that it names.
    pub pools: Vec<ImportedPool>,
    /// What its VMs are like.
    pub defaults: XcpngDefaults,
    /// What became of each key, in the order in which they were looked at.
    pub findings: Vec<Finding>,
}

/// A pool of an old configuration.
#[derive(Debug)]
pub struct ImportedPool {
    /// Its name here.
    pub name: PoolName,
    /// Where it is.
    pub address: Endpoint,
    /// Whom to log in as.
    pub user: String,
    /// The password that stood in the file; `None` where it is somewhere else.
    pub password: Option<Secret>,
    /// The key that the password stood under.
    password_key: Option<String>,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Finding {
    /// The key as it stood in the file, with dots where it is within others.
    pub key: String,
    /// What became of it.
    #[serde(flatten)]
    pub fate: Fate,
}

/// What became of a key.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "fate", rename_all = "snake_case")]
pub enum Fate {
    /// It is a setting of ours.
    Mapped {
        /// Which.
        to: String,
        /// The value there.
        value: String,
        /// What is to be known about that.
        #[serde(skip_serializing_if = "Option::is_none")]
        note: Option<String>,
    },
    /// It is a secret, which is now kept apart and referred to.
    Moved {
        /// The setting that refers to it.
        to: String,
        /// The reference.
        value: String,
    },
    /// It is not taken over.
    Dropped {
        /// Why.
        why: String,
    },
    /// Nobody knows what it means.
    Unknown,
}

/// Why an old configuration cannot be taken over.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ImportError {
    /// It has none of the forms.
    #[error(transparent)]
    Unreadable(#[from] Unreadable),
    /// One name was given, and there are several pools.
    #[error("it names {count} pools, and `{name}` can be the name of one")]
    SeveralPools {
        /// The name.
        name: PoolName,
        /// How many there are.
        count: usize,
    },
    /// There is another pool of that name.
    #[error("there is another pool `{name}` already, at {address}")]
    Taken {
        /// The name.
        name: PoolName,
        /// Where that pool is.
        address: Endpoint,
    },
}

impl ImportError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Unreadable(_) => {
                "it must be a JSON object, as in xcpng_config.json, or lines of KEY=VALUE, as in .env"
                    .into()
            }
            Self::SeveralPools { .. } => "leave out `--pool`: each is named after its host".into(),
            Self::Taken { name, .. } => {
                format!("give this one another name with `--pool`, or `bioxen pool remove {name}`")
            }
        }
    }
}

/// What to do with a configuration that its file does not say.
#[derive(Clone, Debug, Default)]
pub struct Wishes {
    /// The name of its only pool; otherwise it is named after its host.
    pub pool: Option<PoolName>,
    /// Where the passwords of its pools are; otherwise those in the file are moved away.
    pub password: Option<SecretReference>,
}

impl Import {
    /// Takes over the text of an old configuration.
    pub fn parse(text: &str, wishes: &Wishes) -> Result<Self, ImportError> {
        let mut work = Work::new(reading::read(text)?, wishes);
        work.sections();
        work.name_pools()?;
        Ok(work.finish())
    }

    /// The settings of a pool, when its password was moved to where `secret` refers.
    pub fn settings(pool: &ImportedPool, secret: &SecretReference) -> PoolSettings {
        PoolSettings {
            name: pool.name.clone(),
            addresses: vec![pool.address.clone()],
            user: pool.user.clone(),
            password: secret.clone(),
            trust: TrustSettings::Nothing,
            guests: crate::GuestSettings::default(),
        }
    }

    /// Takes out what a configuration has already, and says so: a pool that is the same, and defaults, which
    /// stay as they are. A pool of the same name that is another is refused.
    pub fn leave_out_what_is_in(&mut self, present: &Configuration) -> Result<(), ImportError> {
        for pool in &self.pools {
            if let Some(there) = present.find_pool(pool.name.as_str())
                && (!there.addresses.contains(&pool.address) || there.user != pool.user)
            {
                let address = there.addresses[0].clone();
                return Err(ImportError::Taken { name: pool.name.clone(), address });
            }
        }
        let is_there = |pool: &ImportedPool| present.find_pool(pool.name.as_str()).is_some();
        for pool in self.pools.extract_if(.., |pool| is_there(pool)) {
            let setting = format!("pools.{}.", pool.name);
            self.findings
                .iter_mut()
                .filter(|finding| finding.fate.goes_to(|to| to.starts_with(&setting)))
                .for_each(|finding| finding.drop(format!("pool `{}` is there already", pool.name)));
        }
        let mut kept = self.defaults.to_table();
        for (name, value) in present.xcpng_defaults().entries() {
            kept.remove(name);
            let setting = format!("defaults.xcpng.{name}");
            self.findings
                .iter_mut()
                .filter(|finding| finding.fate.goes_to(|to| to == setting))
                .for_each(|finding| finding.drop(format!("{setting} is `{value}` already")));
        }
        self.defaults = XcpngDefaults::from_known(kept);
        Ok(())
    }

    /// Says where a pool's password was moved to.
    pub fn moved(&mut self, pool: &PoolName, secret: &SecretReference) {
        let Some(found) = self.pools.iter().find(|known| known.name == *pool) else { return };
        let Some(key) = &found.password_key else { return };
        let to = format!("pools.{pool}.password");
        for finding in self.findings.iter_mut().filter(|finding| finding.key == *key) {
            finding.fate = Fate::Moved { to: to.clone(), value: secret.to_string() };
        }
    }
}

impl Fate {
    fn goes_to(&self, is_setting: impl Fn(&str) -> bool) -> bool {
        match self {
            Self::Mapped { to, .. } | Self::Moved { to, .. } => is_setting(to),
            Self::Dropped { .. } | Self::Unknown => false,
        }
    }
}

impl Finding {
    fn drop(&mut self, why: String) {
        self.fate = Fate::Dropped { why };
    }
}

#[cfg(test)]
#[path = "import/tests.rs"]
mod tests;
