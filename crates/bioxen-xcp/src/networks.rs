//! Networks of a pool: internal ones and VLANs, made and removed.
//!
//! What is made here carries our marks from its first moment, and nothing else is ever removed. Wrong
//! requests are refused before anything is made.

use std::fmt;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use serde::Serialize;
use tracing::warn;
use uuid::Uuid;
use xenapi::{AsyncCall, Client, Map, Ref, class, network, pif, wire::FromWire};

use crate::connected_pool::ConnectedPool;
use crate::inventory;
use crate::machine::{Cause, Done, near};
use crate::tags::Tags;

/// Tags that a VLAN can have: 0 means "none", and 4095 is reserved.
const VLAN_TAGS: RangeInclusive<u16> = 1..=4094;

/// How long each thing that is asked of the pool may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A network with whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Listed {
    /// The network.
    #[serde(flatten)]
    pub network: inventory::Network,
    /// Whether it was made by this installation, which can delete it.
    pub ours: bool,
}

/// A network that was made.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Created {
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// Its VLAN, where it has one.
    pub vlan: Option<u16>,
}

/// An interface of a VM on a network.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The VM, template or snapshot.
    pub vm: String,
    /// The number of its interface.
    pub device: String,
}

impl fmt::Display for User {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "`{}` (interface {})", self.vm, self.device)
    }
}

/// Why a network was not made or removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum NetworkError {
    /// A network has the name.
    #[error("there is a network `{name}` already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// The name is none.
    #[error("a network needs a name, and `{name}` is none")]
    Name {
        /// What was given.
        name: String,
    },
    /// There is no such network.
    #[error("there is no network `{name}`")]
    NotFound {
        /// What was looked for.
        name: String,
        /// Names that it may have been.
        near: Vec<String>,
    },
    /// Several networks have the name.
    #[error("{} networks are called `{name}`: {}", uuids.len(), joined(uuids))]
    Ambiguous {
        /// The name.
        name: String,
        /// Their identities.
        uuids: Vec<String>,
    },
    /// A VLAN cannot have this tag.
    #[error("network `{name}` cannot have vlan {tag}: tags are from {} to {}", VLAN_TAGS.start(), VLAN_TAGS.end())]
    Tag {
        /// The network.
        name: String,
        /// The tag.
        tag: u16,
    },
    /// Nothing that a VLAN could be on has the name.
    #[error("`{on}` is neither a network that leads out of the hosts nor an interface of a host")]
    NotPhysical {
        /// What was looked for.
        on: String,
        /// What there is.
        there: Vec<String>,
    },
    /// The VLAN is there.
    #[error("vlan {tag} on `{device}` is there already{}", called(network.as_deref()))]
    VlanTaken {
        /// The tag.
        tag: u16,
        /// The host's interface.
        device: String,
        /// The network that it is.
        network: Option<String>,
    },
    /// It was not made by this installation.
    #[error("network `{name}` was not made by this installation")]
    NotOurs {
        /// The network.
        name: String,
    },
    /// VMs are on it.
    #[error("network `{name}` is in use by {}", joined(users))]
    InUse {
        /// The network.
        name: String,
        /// By which interfaces.
        users: Vec<User>,
    },
    /// The pool did not do it.
    #[error("could not {step} network `{name}`")]
    Pool {
        /// What was to become of it.
        step: &'static str,
        /// The network.
        name: String,
        /// What the pool said.
        source: Box<Cause>,
    },
}

impl NetworkError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::NameTaken { .. } => "use that one, or choose another name".into(),
            Self::Name { .. } => "give it a name that is not blank and not a uuid".into(),
            Self::NotFound { near, .. } if !near.is_empty() => {
                format!("did you mean `{}`?", near.join("` or `"))
            }
            Self::NotFound { .. } => "list the networks with `bioxen network list`".into(),
            Self::Ambiguous { .. } => "give the uuid instead of the name".into(),
            Self::Tag { .. } => "ask those who run the switches for the tag".into(),
            Self::NotPhysical { there, .. } => format!("there are {}", there.join(", ")),
            Self::VlanTaken { network: Some(network), .. } => format!("use network `{network}`"),
            Self::VlanTaken { network: None, .. } => "choose another tag".into(),
            Self::NotOurs { .. } => "only those that were made here are removed here".into(),
            Self::InUse { .. } => "delete those VMs or their interfaces first".into(),
            Self::Pool { source, .. } => {
                return match source.as_ref() {
                    Cause::Call(error) => error.hint(),
                    Cause::Task(error) => error.hint(),
                    Cause::Wait(_) => None,
                };
            }
        })
    }
}

fn joined(all: &[impl fmt::Display]) -> String {
    all.iter().map(ToString::to_string).collect::<Vec<_>>().join(", ")
}

fn called(network: Option<&str>) -> String {
    network.map(|network| format!(": network `{network}`")).unwrap_or_default()
}

/// What is being done to a network.
struct Step<'p> {
    pool: &'p ConnectedPool,
    name: &'p str,
    /// It completes "could not … network".
    verb: &'static str,
}

impl Step<'_> {
    fn failed(&self, cause: impl Into<Cause>) -> NetworkError {
        NetworkError::Pool {
            step: self.verb,
            name: self.name.into(),
            source: Box::new(cause.into()),
        }
    }

    async fn run<R: FromWire + Send + 'static>(
        &self,
        call: impl FnOnce(&Client) -> AsyncCall<R>,
    ) -> Result<R, Cause> {
        let task = call(self.pool.client()).timeout(PATIENCE).start_task().await?;
        Ok(task.timeout(PATIENCE).await?)
    }
}

/// The networks, by name.
pub async fn list(pool: &ConnectedPool) -> Result<Vec<Listed>, xenapi::Error> {
    let networks = inventory::networks(pool.client()).await?;
    let listed = |network: inventory::Network| {
        let record = pool.mirror().by_uuid::<class::Network>(&network.uuid);
        Listed { ours: record.is_some_and(|(_, record)| is_ours(pool, &record)), network }
    };
    Ok(networks.into_iter().map(listed).collect())
}

fn is_ours(pool: &ConnectedPool, network: &network::Record) -> bool {
    Tags::read(&network.other_config).is_some_and(|tags| tags.owner == pool.owner())
}

/// Makes a network that leads nowhere out of the hosts: VMs on one host reach each other.
pub async fn create_internal(pool: &ConnectedPool, name: &str) -> Result<Created, NetworkError> {
    let (_, uuid) = create(pool, name).await?;
    Ok(Created { name: name.into(), uuid, vlan: None })
}

/// Makes a network that is this VLAN, on all hosts, of a network that leads out of them or of an
/// interface (`eth0`). If the pool makes it on some hosts only, it is removed again.
pub async fn create_vlan(
    pool: &ConnectedPool,
    name: &str,
    on: &str,
    tag: u16,
) -> Result<Created, NetworkError> {
    let below = place_of_vlan(pool, name, on, tag).await?;
    let step = Step { pool, name, verb: "create" };
    let (network, uuid) = create(pool, name).await?;
    let made = step
        .run(|client| client.pool().create_vlan_from_pif(&below, &network, i64::from(tag)))
        .await;
    match made {
        Ok(_) => Ok(Created { name: name.into(), uuid, vlan: Some(tag) }),
        Err(cause) => {
            if let Err(cause) = remove(&step, &network).await {
                warn!(network = name, %cause, "could not undo the making of a network");
            }
            Err(step.failed(cause))
        }
    }
}

/// Finds out whether [`create_internal`] could make it, and changes nothing.
pub fn check_internal(pool: &ConnectedPool, name: &str) -> Result<(), NetworkError> {
    check_name(pool, name)
}

/// Finds out whether [`create_vlan`] could make it, and changes nothing.
pub async fn check_vlan(
    pool: &ConnectedPool,
    name: &str,
    on: &str,
    tag: u16,
) -> Result<(), NetworkError> {
    place_of_vlan(pool, name, on, tag).await.map(drop)
}

/// Refuses a VLAN that cannot be, and finds what it goes onto.
async fn place_of_vlan(
    pool: &ConnectedPool,
    name: &str,
    on: &str,
    tag: u16,
) -> Result<Ref<class::Pif>, NetworkError> {
    check_name(pool, name)?;
    if !VLAN_TAGS.contains(&tag) {
        return Err(NetworkError::Tag { name: name.into(), tag });
    }
    let step = Step { pool, name, verb: "create" };
    let pifs = pool.client().pif().get_all_records().timeout(PATIENCE).await;
    let pifs = pifs.map_err(|source| step.failed(source))?;
    below(&pifs, &pool.mirror().snapshot::<class::Network>(), on, tag)
}

/// The interface of a host that a VLAN goes onto, or why it cannot.
fn below(
    pifs: &Map<Ref<class::Pif>, pif::Record>,
    networks: &[(Ref<class::Network>, Arc<network::Record>)],
    on: &str,
    tag: u16,
) -> Result<Ref<class::Pif>, NetworkError> {
    let name = |network: &Ref<class::Network>| {
        let found = networks.iter().find(|(reference, _)| reference == network);
        found.map(|(_, record)| record.name_label.as_str())
    };
    let meant = |pif: &pif::Record| {
        let network = networks.iter().find(|(reference, _)| *reference == pif.network);
        pif.device == on || network.is_some_and(|(_, it)| it.name_label == on || it.uuid == on)
    };
    // Those below a bond carry nothing of their own.
    let can_be = |pif: &pif::Record| pif.vlan < 0 && pif.bond_slave_of.is_null();
    let possible = || pifs.iter().filter(|(_, pif)| can_be(pif));
    let Some((below, pif)) = possible().find(|(_, pif)| meant(pif)) else {
        let mut there: Vec<String> = possible()
            .map(|(_, pif)| match name(&pif.network) {
                Some(network) => format!("`{}` (`{network}`)", pif.device),
                None => format!("`{}`", pif.device),
            })
            .collect();
        there.sort();
        there.dedup();
        return Err(NetworkError::NotPhysical { on: on.into(), there });
    };
    let same =
        pifs.values().find(|other| other.device == pif.device && other.vlan == i64::from(tag));
    match same {
        None => Ok(below.clone()),
        Some(other) => Err(NetworkError::VlanTaken {
            tag,
            device: pif.device.clone(),
            network: name(&other.network).map(str::to_owned),
        }),
    }
}

fn check_name(pool: &ConnectedPool, name: &str) -> Result<(), NetworkError> {
    if name.trim().is_empty() || name.parse::<Uuid>().is_ok() {
        return Err(NetworkError::Name { name: name.into() });
    }
    if pool.mirror().view().by_name::<class::Network>(name).next().is_some() {
        return Err(NetworkError::NameTaken { name: name.into() });
    }
    Ok(())
}

/// Makes the network itself, with our marks.
async fn create(
    pool: &ConnectedPool,
    name: &str,
) -> Result<(Ref<class::Network>, Uuid), NetworkError> {
    check_name(pool, name)?;
    let step = Step { pool, name, verb: "create" };
    let wanted = network::Record {
        name_label: name.into(),
        other_config: Tags::of(pool.owner()).entries().collect(),
        ..network::Record::default()
    };
    let made = step.run(|client| client.network().create(&wanted)).await;
    let made = made.map_err(|cause| step.failed(cause))?;
    let shown = pool.mirror().wait_for(&made, "the network", PATIENCE, |record| {
        record.map(|record| record.uuid.parse().unwrap_or_default())
    });
    let uuid = shown.await.map_err(|source| step.failed(source))?;
    Ok((made, uuid))
}

/// Deletes a network that was made here, given by name or uuid. Refused as long as interfaces of VMs
/// are on it.
pub async fn delete(pool: &ConnectedPool, name_or_uuid: &str) -> Result<Done, NetworkError> {
    let (network, record) = deletable(pool, name_or_uuid)?;
    let name = record.name_label.as_str();
    let step = Step { pool, name, verb: "delete" };
    match remove(&step, &network).await {
        Ok(done) => Ok(done),
        // Somebody was quicker than the mirror.
        Err(cause) if cause.code() == Some("NETWORK_CONTAINS_VIF") => {
            let caught_up = pool.mirror().barrier(PATIENCE).await;
            caught_up.map_err(|source| step.failed(source))?;
            let now = pool.mirror().get(&network);
            let users = now.map(|record| self::users(pool, &record)).unwrap_or_default();
            if users.is_empty() {
                return Err(step.failed(cause));
            }
            Err(NetworkError::InUse { name: name.into(), users })
        }
        Err(cause) => Err(step.failed(cause)),
    }
}

/// Finds out whether [`delete`] could remove it, and changes nothing.
pub fn check_deletion(pool: &ConnectedPool, name_or_uuid: &str) -> Result<(), NetworkError> {
    deletable(pool, name_or_uuid).map(drop)
}

/// The network of this name or uuid, if it is ours and unused.
fn deletable(
    pool: &ConnectedPool,
    name_or_uuid: &str,
) -> Result<(Ref<class::Network>, Arc<network::Record>), NetworkError> {
    let (network, record) = choose(pool, name_or_uuid)?;
    let name = record.name_label.as_str();
    if !is_ours(pool, &record) {
        return Err(NetworkError::NotOurs { name: name.into() });
    }
    let users = users(pool, &record);
    if !users.is_empty() {
        return Err(NetworkError::InUse { name: name.into(), users });
    }
    Ok((network, record))
}

fn choose(
    pool: &ConnectedPool,
    wanted: &str,
) -> Result<(Ref<class::Network>, Arc<network::Record>), NetworkError> {
    if let Some(found) = pool.mirror().by_uuid::<class::Network>(wanted) {
        return Ok(found);
    }
    let mut found = pool.mirror().by_name::<class::Network>(wanted);
    if found.len() > 1 {
        let mut uuids: Vec<_> = found.iter().map(|(_, record)| record.uuid.clone()).collect();
        uuids.sort();
        return Err(NetworkError::Ambiguous { name: wanted.into(), uuids });
    }
    found.pop().ok_or_else(|| {
        let all = pool.mirror().snapshot::<class::Network>();
        let names = all.iter().map(|(_, record)| record.name_label.as_str());
        NetworkError::NotFound { name: wanted.into(), near: near(names, wanted) }
    })
}

/// The interfaces on a network.
fn users(pool: &ConnectedPool, network: &network::Record) -> Vec<User> {
    let view = pool.mirror().view();
    let user = |vif: &Ref<class::Vif>| {
        let vif = view.get(vif)?;
        let vm = view.get(&vif.vm).map_or_else(|| vif.vm.to_string(), |vm| vm.name_label.clone());
        Some(User { vm, device: vif.device.clone() })
    };
    let mut users: Vec<_> = network.vifs.iter().filter_map(user).collect();
    users.sort_by(|one, other| (&one.vm, &one.device).cmp(&(&other.vm, &other.device)));
    users
}

/// Removes a network with its VLANs, these first: the network keeps our marks until the end.
async fn remove(step: &Step<'_>, network: &Ref<class::Network>) -> Result<Done, Cause> {
    let client = step.pool.client();
    let pifs = match client.network().get_pifs(network).timeout(PATIENCE).await {
        Ok(pifs) => pifs,
        Err(error) if error.code() == Some("HANDLE_INVALID") => return Ok(Done::Already),
        Err(error) => return Err(error.into()),
    };
    for pif in pifs {
        let gone = |code: Option<&str>| code == Some("HANDLE_INVALID");
        let vlan = match client.pif().get_vlan_master_of(&pif).timeout(PATIENCE).await {
            Ok(vlan) if vlan.is_null() => continue,
            Ok(vlan) => vlan,
            Err(error) if gone(error.code()) => continue,
            Err(error) => return Err(error.into()),
        };
        match step.run(|client| client.vlan().destroy(&vlan)).await {
            Err(cause) if !gone(cause.code()) => return Err(cause),
            Ok(()) | Err(_) => {}
        }
    }
    let done = match step.run(|client| client.network().destroy(network)).await {
        Ok(()) => Done::Now,
        Err(cause) if cause.says_gone(&network.to_string()) => Done::Already,
        Err(cause) => return Err(cause),
    };
    let mirror = step.pool.mirror();
    let shown = mirror.wait_for(network, "the network to be gone", PATIENCE, |record| {
        record.is_none().then_some(())
    });
    shown.await?;
    Ok(done)
}

#[cfg(test)]
mod tests {
    use super::*;

    type Networks = Vec<(Ref<class::Network>, Arc<network::Record>)>;

    fn network(name: &str) -> (Ref<class::Network>, Arc<network::Record>) {
        let record = network::Record { name_label: name.into(), ..Default::default() };
        (name.into(), Arc::new(record))
    }

    fn pif(device: &str, vlan: i64, network: &str) -> (Ref<class::Pif>, pif::Record) {
        let record = pif::Record {
            device: device.into(),
            vlan,
            network: network.into(),
            ..Default::default()
        };
        (format!("{device}.{vlan}").as_str().into(), record)
    }

    fn there() -> (Map<Ref<class::Pif>, pif::Record>, Networks) {
        let mut slave = pif("eth2", -1, "bonded");
        slave.1.bond_slave_of = "bond".into();
        let pifs = [pif("eth0", -1, "lan"), pif("eth1", -1, "wan"), pif("eth0", 7, "lab"), slave];
        (pifs.into_iter().collect(), ["lan", "wan", "lab", "bonded"].map(network).to_vec())
    }

    #[test]
    fn a_vlan_goes_onto_an_interface_named_by_device_or_network() {
        let (pifs, networks) = there();
        let on = |on: &str| below(&pifs, &networks, on, 9).unwrap().to_string();
        assert_eq!(on("eth0"), "eth0.-1");
        assert_eq!(on("wan"), "eth1.-1");
    }

    #[test]
    fn a_vlan_that_is_there_names_its_network() {
        let (pifs, networks) = there();
        let error = below(&pifs, &networks, "lan", 7).unwrap_err();
        assert_eq!(error.to_string(), "vlan 7 on `eth0` is there already: network `lab`");
        assert!(below(&pifs, &networks, "wan", 7).is_ok());
    }

    #[test]
    fn what_no_vlan_can_be_on_lists_what_one_can() {
        let (pifs, networks) = there();
        for on in ["lab", "eth2", "nowhere"] {
            let error = below(&pifs, &networks, on, 9).unwrap_err();
            assert!(matches!(error, NetworkError::NotPhysical { .. }), "{on}: {error}");
            assert_eq!(error.hint().unwrap(), "there are `eth0` (`lan`), `eth1` (`wan`)");
        }
    }
}
