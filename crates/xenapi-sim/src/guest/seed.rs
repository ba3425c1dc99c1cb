//! What a guest is told at its first boot: the `NoCloud` seed on a disk labelled `cidata`.

use std::io::{Read, Seek};

use serde_json::Value;

use super::cloud_config::CloudConfig;
use super::fat::{FatError, Volume};
use super::yaml;

/// The longest file of a seed that is read.
const LONGEST_FILE: u64 = 1 << 20;

/// A seed: what its files say, parsed.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct Seed {
    /// Which instance this is: a new one is set up anew, a known one only booted.
    pub instance_id: String,
    /// The name that `meta-data` gives to the guest.
    pub local_hostname: Option<String>,
    /// Keys that `meta-data` gives to the default user.
    pub public_keys: Vec<String>,
    /// What is to be done.
    pub user_data: UserData,
    /// The network's configuration, unless there is none.
    pub network: Option<Value>,
    /// What is wrong with the seed without keeping the guest from booting.
    pub warnings: Vec<String>,
}

/// The `user-data` of a seed.
#[derive(Clone, Debug, Default, PartialEq)]
pub enum UserData {
    /// There is nothing in it.
    #[default]
    Nothing,
    /// It is a cloud-config.
    Config(Box<CloudConfig>),
    /// It is a script to be run.
    Script(Vec<u8>),
}

/// Why a disk is not a seed, or not one that a guest would accept.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// The disk is something else.
    #[error("the disk is no seed: {reason}")]
    NotASeed {
        /// How that shows.
        reason: String,
    },
    /// The label is right, and what is on it is damaged.
    #[error("the seed is damaged: {reason}")]
    Damaged {
        /// What is wrong.
        reason: String,
    },
    /// A file that must be there is not.
    #[error("the seed has no `{name}`")]
    Missing {
        /// The file.
        name: &'static str,
    },
    /// A file cannot be understood, and guests reject the whole seed for it.
    #[error("`{name}` of the seed cannot be used: {reason}")]
    Unusable {
        /// The file.
        name: &'static str,
        /// What is wrong with it.
        reason: String,
    },
}

/// Reads the seed from a disk.
///
/// The disk may hold anything: whatever it is, this returns, and holds a few MiB at most.
pub fn read_seed(disk: impl Read + Seek) -> Result<Seed, SeedError> {
    let mut volume = Volume::open(disk).map_err(|error| not_a_seed(error.to_string()))?;
    match volume.label() {
        Some(label) if label.eq_ignore_ascii_case("cidata") => {}
        Some(label) => return Err(not_a_seed(format!("its label is `{label}`, not `cidata`"))),
        None => return Err(not_a_seed("its root directory has no label".into())),
    }
    let user_data = file(&mut volume, "user-data")?.ok_or(missing("user-data"))?;
    let meta_data = file(&mut volume, "meta-data")?.ok_or(missing("meta-data"))?;
    let network = file(&mut volume, "network-config")?;

    let mut seed =
        Seed { network: network.map(|text| parse_network(&text)).transpose()?, ..Seed::default() };
    seed.read_meta_data(&meta_data)?;
    seed.read_user_data(user_data);
    Ok(seed)
}

fn file(
    volume: &mut Volume<impl Read + Seek>,
    name: &'static str,
) -> Result<Option<Vec<u8>>, SeedError> {
    volume.file(name, LONGEST_FILE).map_err(|error| match error {
        FatError::TooLong { .. } => SeedError::Unusable { name, reason: error.to_string() },
        FatError::NotFat(_) | FatError::Damaged(_) | FatError::Read(_) => {
            SeedError::Damaged { reason: error.to_string() }
        }
    })
}

/// A network configuration that says nothing makes guests drop the whole seed.
fn parse_network(text: &[u8]) -> Result<Value, SeedError> {
    let unusable = |reason| SeedError::Unusable { name: "network-config", reason };
    match yaml::parse(text).map_err(unusable)? {
        Value::Null => Err(unusable("it is empty".into())),
        Value::Object(map) => match map.get("network").cloned() {
            Some(inner) => Ok(inner),
            None => Ok(Value::Object(map)),
        },
        _ => Err(unusable("it is not a map".into())),
    }
}

impl Seed {
    fn read_meta_data(&mut self, text: &[u8]) -> Result<(), SeedError> {
        let unusable = |reason| SeedError::Unusable { name: "meta-data", reason };
        let meta_data = match yaml::parse(text).map_err(unusable)? {
            Value::Null => serde_json::Map::new(),
            Value::Object(map) => map,
            _ => return Err(unusable("it is not a map".into())),
        };
        self.instance_id = (meta_data.get("instance-id").and_then(yaml::text))
            .unwrap_or_else(|| "iid-datasource-nocloud".into());
        self.local_hostname = meta_data.get("local-hostname").and_then(yaml::text);
        self.public_keys = match meta_data.get("public-keys") {
            Some(Value::Object(keys)) => keys.values().flat_map(yaml::texts).collect(),
            Some(keys) => yaml::texts(keys),
            None => Vec::new(),
        };
        Ok(())
    }

    fn read_user_data(&mut self, text: Vec<u8>) {
        if text.trim_ascii().is_empty() {
            return;
        }
        if text.starts_with(b"#!") {
            self.user_data = UserData::Script(text);
        } else if text.starts_with(b"#cloud-config") {
            match yaml::parse(&text) {
                Ok(Value::Object(map)) => {
                    let (config, warnings) = CloudConfig::from_map(&map);
                    self.user_data = UserData::Config(Box::new(config));
                    self.warnings.extend(warnings);
                }
                Ok(Value::Null) => {}
                Ok(_) => self.warnings.push("Failed loading yaml blob. It is not a map.".into()),
                Err(reason) => {
                    self.warnings
                        .push(format!("Failed loading yaml blob. Invalid format: {reason}"));
                }
            }
        } else {
            let start = String::from_utf8_lossy(text.get(..24).unwrap_or(&text)).into_owned();
            self.warnings.push(format!(
                "Unhandled non-multipart (text/x-not-multipart) userdata: '{}...'",
                start.escape_debug()
            ));
        }
    }
}

fn not_a_seed(reason: String) -> SeedError {
    SeedError::NotASeed { reason }
}

fn missing(name: &'static str) -> SeedError {
    SeedError::Missing { name }
}
