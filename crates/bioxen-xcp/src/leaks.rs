//! What was left behind on a pool by controllers that died, and what has expired: finding and
//! removing it.
//!
//! [`find`] decides by what the mirror shows and the caller knows, and changes nothing. [`collect`]
//! removes what was found, if it is still as it was found.

use std::collections::HashSet;
use std::fmt;
use std::sync::Arc;

use bioxen_core::VmName;
use futures::{StreamExt, stream};
use jiff::{SignedDuration, Timestamp};
use serde::Serialize;
use uuid::Uuid;
use xenapi::enums::VmPowerState;
use xenapi::mirror::View;
use xenapi::{Ref, class, network, vdi, vm};

use crate::connected_pool::ConnectedPool;
use crate::machine::{Done, Machine, MachineError, Marks, bytes, disks};
use crate::tags::{MakingLabel, Tags};

/// How many leaks are removed at a time.
const AT_ONCE: usize = 8;

/// What is known here of an attempt to make a VM.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Attempt {
    /// It goes on.
    Alive,
    /// It was made here and has died.
    Dead,
    /// Nothing.
    Unknown,
}

/// What the one who looks for leaks knows.
#[derive(Clone, Copy)]
pub struct Knowledge<'a> {
    /// Which installation it is.
    pub owner: Uuid,
    /// What time it is.
    pub now: Timestamp,
    /// Whether a controller of this installation lives.
    pub alive: &'a dyn Fn(Uuid) -> bool,
    /// What became of an attempt to make a VM.
    pub attempt: &'a dyn Fn(Uuid) -> Attempt,
    /// Whether a VM of this name is being made by somebody who lives: there are disks for it before it
    /// has them, and it has its name before it is registered as made.
    pub making: &'a dyn Fn(&VmName) -> bool,
    /// The VMs that are registered here, without those whose making was broken off.
    pub vms: &'a HashSet<Uuid>,
}

impl fmt::Debug for Knowledge<'_> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Knowledge")
            .field("owner", &self.owner)
            .field("now", &self.now)
            .field("vms", &self.vms.len())
            .finish_non_exhaustive()
    }
}

/// What a leak is.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Kind {
    /// A VM, with its disks and snapshots.
    Vm,
    /// A snapshot, with its disks.
    Snapshot,
    /// A disk that no VM has.
    Disk,
    /// A network.
    Network,
}

/// Why it is one.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Reason {
    /// The attempt to make it has died.
    AttemptDead {
        /// The attempt.
        attempt: Uuid,
    },
    /// Another installation makes it, or has begun to.
    OfAnother {
        /// The installation.
        owner: Uuid,
    },
    /// By its name an attempt of this installation has made it, by its marks another installation.
    MarkedByAnother {
        /// The other installation.
        owner: Uuid,
    },
    /// By its name an attempt that has died has made it, and it is not off, as such a thing is.
    InUse {
        /// The attempt.
        attempt: Uuid,
    },
    /// Its time is over.
    Expired {
        /// Since then.
        at: Timestamp,
    },
    /// The controller that it was not to outlive is gone.
    ControllerGone {
        /// The controller.
        fleet: Uuid,
    },
    /// It was made here, and is not registered any more.
    Unregistered,
    /// The VM that it belonged to is gone.
    NoVm,
    /// No VM has an interface on it.
    Unused,
}

impl fmt::Display for Reason {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            Self::AttemptDead { .. } => f.write_str("the attempt to make it has died"),
            Self::OfAnother { owner } => {
                write!(f, "another installation, `{owner}`, makes it or did")
            }
            Self::MarkedByAnother { owner } => {
                write!(f, "it has a name of ours, and the marks of installation `{owner}`")
            }
            Self::InUse { .. } => {
                f.write_str("the attempt to make it has died, but somebody uses it")
            }
            Self::Expired { at } => write!(f, "it expired at {at}"),
            Self::ControllerGone { fleet } => write!(f, "its controller `{fleet}` is gone"),
            Self::Unregistered => f.write_str("it was made here and is not registered"),
            Self::NoVm => f.write_str("its vm is gone"),
            Self::Unused => f.write_str("no vm is on it"),
        }
    }
}

/// Something that was left behind.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Leak {
    /// What it is.
    pub kind: Kind,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// Why it is a leak.
    pub reason: Reason,
    /// For how long, or how old it is at least; `None` where that cannot be told.
    pub age: Option<SignedDuration>,
    /// What it takes up of storage, in bytes.
    pub size: u64,
    /// Its marks.
    pub tags: Option<Tags>,
}

impl Leak {
    /// Whether it is removed by [`collect`]. Networks are not, as a VM may be about to be put on one, nor is
    /// what may be somebody else's.
    pub fn is_collectable(&self) -> bool {
        match self.reason {
            Reason::OfAnother { .. } | Reason::MarkedByAnother { .. } | Reason::InUse { .. } => {
                false
            }
            Reason::AttemptDead { .. }
            | Reason::Expired { .. }
            | Reason::ControllerGone { .. }
            | Reason::Unregistered
            | Reason::NoVm
            | Reason::Unused => self.kind != Kind::Network,
        }
    }
}

/// What became of a leak.
#[derive(Debug)]
pub struct Outcome {
    /// The leak.
    pub leak: Leak,
    /// What became of it.
    pub fate: Fate,
}

/// What can become of a leak.
#[derive(Debug)]
pub enum Fate {
    /// It was removed.
    Removed {
        /// What that freed of storage, in bytes.
        freed: u64,
    },
    /// Somebody else had removed it.
    Gone,
    /// It is not as it was found, and was left alone.
    Changed,
    /// It is none that is collected: see [`Leak::is_collectable`].
    Kept,
    /// It could not be removed, and is still there, perhaps in part.
    Failed(MachineError),
}

/// Finds what was left behind, VMs first, then by name.
pub fn find(view: &View<'_>, known: &Knowledge<'_>) -> Vec<Leak> {
    let vms = view.iter::<class::Vm>().filter_map(|(_, vm)| vm_leak(view, vm, known));
    let disks = view.iter::<class::Vdi>().filter_map(|(_, vdi)| disk_leak(view, vdi, known));
    let networks = view.iter::<class::Network>().filter_map(|(_, it)| network_leak(it, known));
    let mut leaks: Vec<Leak> = vms.chain(disks).chain(networks).collect();
    leaks.sort_by(|one, other| {
        (&one.kind, &one.name, one.uuid).cmp(&(&other.kind, &other.name, other.uuid))
    });
    leaks
}

fn vm_leak(view: &View<'_>, vm: &vm::Record, known: &Knowledge<'_>) -> Option<Leak> {
    let has_origin = view.get(&vm.snapshot_of).is_some();
    let reason = judge_vm(vm, has_origin, known)?;
    let tags = Tags::read(&vm.other_config);
    let started = view.get(&vm.metrics).map(|metrics| metrics.start_time);
    let since = since(&vm.name_label, &reason, tags.as_ref())
        .or(started.filter(|started| *started != Timestamp::UNIX_EPOCH));
    let own = |vm: &vm::Record| -> u64 {
        let disks = disks(view, vm);
        disks.iter().filter(|disk| disk.goes_with_vm).map(|disk| disk.used).sum()
    };
    let snapshots = vm.snapshots.iter().filter_map(|snapshot| view.get(snapshot));
    Some(Leak {
        kind: if vm.is_a_snapshot { Kind::Snapshot } else { Kind::Vm },
        name: vm.name_label.clone(),
        uuid: vm.uuid.parse().ok()?,
        age: since.map(|since| known.now.duration_since(since)),
        size: own(vm) + snapshots.map(|snapshot| own(snapshot)).sum::<u64>(),
        reason,
        tags,
    })
}

/// Why a row of the class VM is a leak, if it is one.
fn judge_vm(vm: &vm::Record, has_origin: bool, known: &Knowledge<'_>) -> Option<Reason> {
    let tags = Tags::read(&vm.other_config);
    if tags.as_ref().is_some_and(|tags| tags.adopted) || vm.is_control_domain {
        return None;
    }
    // One that is being made may be a template yet, or a snapshot to be copied.
    if let Some(label) = MakingLabel::read(&vm.name_label) {
        return judge_labelled(vm, label, tags.as_ref(), known);
    }
    let tags = tags.filter(|tags| tags.owner == known.owner)?;
    if vm.is_a_snapshot {
        return (!has_origin).then_some(Reason::NoVm);
    }
    if vm.is_a_template {
        return None;
    }
    if let Some(at) = tags.expires.filter(|at| *at <= known.now) {
        return Some(Reason::Expired { at });
    }
    match tags.fleet {
        Some(fleet) if (known.alive)(fleet) => None,
        Some(fleet) => Some(Reason::ControllerGone { fleet }),
        None if tags.vm.as_ref().is_some_and(|vm| (known.making)(vm)) => None,
        None => {
            let registered = vm.uuid.parse().is_ok_and(|uuid| known.vms.contains(&uuid));
            (!registered).then_some(Reason::Unregistered)
        }
    }
}

/// Why something is a leak that has the name of what is being made.
fn judge_labelled(
    vm: &vm::Record,
    label: MakingLabel,
    tags: Option<&Tags>,
    known: &Knowledge<'_>,
) -> Option<Reason> {
    let reason = judge_attempt(label, known)?;
    if matches!(reason, Reason::OfAnother { .. }) {
        return Some(reason);
    }
    match tags {
        // It may have them from a template that another installation has made.
        Some(tags) if tags.owner != known.owner => {
            Some(Reason::MarkedByAnother { owner: tags.owner })
        }
        None if vm.power_state != VmPowerState::Halted => {
            Some(Reason::InUse { attempt: label.attempt })
        }
        Some(_) | None => Some(reason),
    }
}

/// Why an attempt leaves leaks, if it does: what was noted of it goes before what its label says.
fn judge_attempt(label: MakingLabel, known: &Knowledge<'_>) -> Option<Reason> {
    let MakingLabel { attempt, owner, fleet } = label;
    if owner != known.owner {
        return Some(Reason::OfAnother { owner });
    }
    match ((known.attempt)(attempt), fleet) {
        (Attempt::Alive, _) => None,
        (Attempt::Dead, _) => Some(Reason::AttemptDead { attempt }),
        (Attempt::Unknown, Some(fleet)) if (known.alive)(fleet) => None,
        (Attempt::Unknown, Some(fleet)) => Some(Reason::ControllerGone { fleet }),
        // It was noted before it was begun, so that somebody has forgotten it since.
        (Attempt::Unknown, None) => Some(Reason::Unregistered),
    }
}

fn disk_leak(view: &View<'_>, vdi: &vdi::Record, known: &Knowledge<'_>) -> Option<Leak> {
    let has_vm = has_vm(view, vdi);
    let reason = judge_disk(vdi, has_vm, known)?;
    let tags = Tags::read(&vdi.other_config);
    let since = since(&vdi.name_label, &reason, tags.as_ref());
    Some(Leak {
        kind: Kind::Disk,
        name: vdi.name_label.clone(),
        uuid: vdi.uuid.parse().ok()?,
        age: since.map(|since| known.now.duration_since(since)),
        size: bytes(vdi.physical_utilisation),
        reason,
        tags,
    })
}

/// Whether a disk is one of a VM that is there. Drives stay in the mirror a moment longer than theirs.
fn has_vm(view: &View<'_>, vdi: &vdi::Record) -> bool {
    vdi.vbds.iter().any(|vbd| view.get(vbd).is_some_and(|vbd| view.get(&vbd.vm).is_some()))
}

/// Why a disk is a leak, if it is one.
fn judge_disk(vdi: &vdi::Record, has_vm: bool, known: &Knowledge<'_>) -> Option<Reason> {
    let tags = Tags::read(&vdi.other_config).filter(|tags| tags.owner == known.owner)?;
    if has_vm || tags.adopted || vdi.is_a_snapshot {
        return None;
    }
    if let Some(label) = MakingLabel::read(&vdi.name_label) {
        return judge_attempt(label, known).filter(|it| !matches!(it, Reason::OfAnother { .. }));
    }
    let in_the_making = tags.vm.as_ref().is_some_and(|vm| (known.making)(vm));
    let of_a_living_controller = tags.fleet.is_some_and(|fleet| (known.alive)(fleet));
    (!in_the_making && !of_a_living_controller).then_some(Reason::NoVm)
}

fn network_leak(network: &Arc<network::Record>, known: &Knowledge<'_>) -> Option<Leak> {
    let tags = Tags::read(&network.other_config).filter(|tags| tags.owner == known.owner)?;
    if !network.vifs.is_empty() {
        return None;
    }
    Some(Leak {
        kind: Kind::Network,
        name: network.name_label.clone(),
        uuid: network.uuid.parse().ok()?,
        reason: Reason::Unused,
        age: None,
        size: 0,
        tags: Some(tags),
    })
}

/// Since when something is there at least: ids that were made with the time in them tell it.
fn since(name: &str, reason: &Reason, tags: Option<&Tags>) -> Option<Timestamp> {
    if let Reason::Expired { at } = reason {
        return Some(*at);
    }
    let attempt = MakingLabel::read(name).map(|label| label.attempt);
    let run = tags.and_then(|tags| tags.run).map(|run| run.0);
    let (seconds, _) = attempt.or(run)?.get_timestamp()?.to_unix();
    Timestamp::from_second(i64::try_from(seconds).ok()?).ok()
}

/// Removes what was found, several at a time. What cannot be removed does not keep the others: each
/// has its outcome, in the order of the leaks.
pub async fn collect(pool: &Arc<ConnectedPool>, leaks: Vec<Leak>) -> Vec<Outcome> {
    stream::iter(leaks)
        .map(|leak| async move {
            let fate = if leak.is_collectable() {
                collect_one(pool, &leak).await.unwrap_or_else(Fate::Failed)
            } else {
                Fate::Kept
            };
            Outcome { leak, fate }
        })
        .buffered(AT_ONCE)
        .collect()
        .await
}

async fn collect_one(pool: &Arc<ConnectedPool>, leak: &Leak) -> Result<Fate, MachineError> {
    let uuid = leak.uuid.to_string();
    match leak.kind {
        Kind::Vm | Kind::Snapshot => collect_vm(pool, leak, &uuid).await,
        Kind::Disk => collect_disk(pool, leak, &uuid).await,
        Kind::Network => Ok(Fate::Kept),
    }
}

async fn collect_vm(
    pool: &Arc<ConnectedPool>,
    leak: &Leak,
    uuid: &str,
) -> Result<Fate, MachineError> {
    let Some((reference, _)) = pool.mirror().by_uuid::<class::Vm>(uuid) else {
        return Ok(Fate::Gone);
    };
    let Some(machine) = Machine::of(pool, &reference) else { return Ok(Fate::Gone) };
    let Some(now) = machine.marks_now().await? else { return Ok(Fate::Gone) };
    // Finished, adopted, registered anew, given more time or started by somebody.
    if now.name != leak.name || now.tags != leak.tags || !may_go(pool.owner(), &now) {
        return Ok(Fate::Changed);
    }
    let deleted = machine.discard().await?;
    Ok(if deleted.vm == Done::Now { Fate::Removed { freed: deleted.freed } } else { Fate::Gone })
}

/// Whether something with these marks is this installation's to remove, whatever a caller takes for a leak.
fn may_go(owner: Uuid, marks: &Marks) -> bool {
    match &marks.tags {
        Some(tags) => tags.owner == owner && !tags.adopted,
        None => marks.is_off && MakingLabel::read(&marks.name).is_some_and(|it| it.owner == owner),
    }
}

async fn collect_disk(
    pool: &Arc<ConnectedPool>,
    leak: &Leak,
    uuid: &str,
) -> Result<Fate, MachineError> {
    let vm = leak.tags.as_ref().and_then(|tags| tags.vm.as_ref());
    let vm = vm.map_or(leak.name.as_str(), VmName::as_str);
    Machine::catch_up(pool, vm).await?;
    let found: Option<(Ref<class::Vdi>, bool)> = {
        let view = pool.mirror().view();
        view.by_uuid::<class::Vdi>(uuid).map(|(reference, vdi)| {
            let tags = Tags::read(&vdi.other_config);
            let same = tags == leak.tags && vdi.name_label == leak.name;
            let ours = tags.is_some_and(|tags| tags.owner == pool.owner() && !tags.adopted);
            (reference, same && ours && !has_vm(&view, vdi))
        })
    };
    match found {
        None => Ok(Fate::Gone),
        Some((_, false)) => Ok(Fate::Changed),
        Some((disk, true)) => Ok(match Machine::discard_disk(pool, vm, &disk).await? {
            Done::Now => Fate::Removed { freed: leak.size },
            Done::Already => Fate::Gone,
        }),
    }
}

#[cfg(test)]
mod tests {
    use xenapi::Map;

    use super::*;

    const OWNER: Uuid = Uuid::from_u128(1);
    const ALIVE: Uuid = Uuid::from_u128(2);
    const DEAD: Uuid = Uuid::from_u128(3);
    const FOREIGN: Uuid = Uuid::from_u128(4);
    const REGISTERED: Uuid = Uuid::from_u128(5);

    fn time(text: &str) -> Timestamp {
        text.parse().unwrap()
    }

    fn with_knowledge<R>(look: impl FnOnce(&Knowledge<'_>) -> R) -> R {
        let attempt = |id: Uuid| match id {
            ALIVE => Attempt::Alive,
            DEAD => Attempt::Dead,
            _ => Attempt::Unknown,
        };
        look(&Knowledge {
            owner: OWNER,
            now: time("2027-01-02T00:00:00Z"),
            alive: &|id| id == ALIVE,
            attempt: &attempt,
            making: &|vm| vm.as_str() == "coming",
            vms: &HashSet::from([REGISTERED]),
        })
    }

    fn tags() -> Tags {
        Tags { vm: Some(VmName::new("web").unwrap()), ..Tags::of(OWNER) }
    }

    fn config(tags: Option<&Tags>) -> Map<String, String> {
        tags.map(|tags| tags.entries().collect()).unwrap_or_default()
    }

    fn vm(name: &str, tags: Option<&Tags>) -> vm::Record {
        vm::Record {
            name_label: name.into(),
            uuid: Uuid::from_u128(9).to_string(),
            other_config: config(tags),
            ..Default::default()
        }
    }

    fn label(attempt: Uuid) -> MakingLabel {
        MakingLabel { attempt, owner: OWNER, fleet: None }
    }

    fn making(attempt: Uuid) -> String {
        label(attempt).to_string()
    }

    fn marks(name: &str, tags: Option<Tags>) -> Marks {
        Marks { name: name.into(), tags, is_off: true }
    }

    #[test]
    fn a_vm_is_a_leak_for_what_its_marks_say() {
        let ours = tags();
        let expired = Tags { expires: Some(time("2027-01-01T00:00:00Z")), ..tags() };
        let later = Tags { expires: Some(time("2027-01-03T00:00:00Z")), ..tags() };
        let coming = Tags { vm: Some(VmName::new("coming").unwrap()), ..tags() };
        let of = |fleet| Tags { fleet: Some(fleet), ..tags() };
        let adopted = Tags { adopted: true, ..expired.clone() };
        let foreign = Tags { owner: FOREIGN, ..expired.clone() };
        let at = time("2027-01-01T00:00:00Z");
        for (tags, reason) in [
            (None, None),
            (Some(&ours), Some(Reason::Unregistered)),
            (Some(&expired), Some(Reason::Expired { at })),
            (Some(&later), Some(Reason::Unregistered)),
            (Some(&coming), None),
            (Some(&of(ALIVE)), None),
            (Some(&of(DEAD)), Some(Reason::ControllerGone { fleet: DEAD })),
            (Some(&adopted), None),
            (Some(&foreign), None),
        ] {
            let found = with_knowledge(|known| judge_vm(&vm("web", tags), false, known));
            assert_eq!(found, reason, "{tags:?}");
        }
    }

    #[test]
    fn a_registered_vm_is_a_leak_only_when_it_has_expired() {
        let registered =
            |tags: &Tags| vm::Record { uuid: REGISTERED.to_string(), ..vm("web", Some(tags)) };
        let expired = Tags { expires: Some(time("2027-01-01T00:00:00Z")), ..tags() };
        with_knowledge(|known| {
            assert_eq!(judge_vm(&registered(&tags()), false, known), None);
            assert!(judge_vm(&registered(&expired), false, known).is_some());
        });
    }

    #[test]
    fn what_is_being_made_follows_its_attempt_marked_or_not() {
        let ours = tags();
        let foreign = Tags { owner: FOREIGN, ..tags() };
        for (attempt, tags, reason) in [
            (ALIVE, None, None),
            (ALIVE, Some(&ours), None),
            (DEAD, None, Some(Reason::AttemptDead { attempt: DEAD })),
            (DEAD, Some(&ours), Some(Reason::AttemptDead { attempt: DEAD })),
            (DEAD, Some(&foreign), Some(Reason::MarkedByAnother { owner: FOREIGN })),
            // Whoever forgot it did so after it was begun.
            (REGISTERED, None, Some(Reason::Unregistered)),
        ] {
            for template in [false, true] {
                let record = vm::Record { is_a_template: template, ..vm(&making(attempt), tags) };
                let found = with_knowledge(|known| judge_vm(&record, false, known));
                assert_eq!(found, reason, "{attempt} {tags:?}");
            }
        }
    }

    #[test]
    fn what_nobody_has_noted_down_follows_its_controller() {
        let of = |fleet| MakingLabel { fleet: Some(fleet), ..label(FOREIGN) }.to_string();
        let ours = tags();
        for tags in [None, Some(&ours)] {
            with_knowledge(|known| {
                assert_eq!(judge_vm(&vm(&of(ALIVE), tags), false, known), None);
                let gone = Some(Reason::ControllerGone { fleet: DEAD });
                assert_eq!(judge_vm(&vm(&of(DEAD), tags), false, known), gone);
            });
        }
    }

    #[test]
    fn what_another_installation_makes_is_never_taken_for_ours() {
        let ours = tags();
        let theirs = MakingLabel { owner: FOREIGN, fleet: Some(DEAD), ..label(DEAD) }.to_string();
        for tags in [None, Some(&ours)] {
            let found = with_knowledge(|known| judge_vm(&vm(&theirs, tags), false, known));
            assert_eq!(found, Some(Reason::OfAnother { owner: FOREIGN }), "{tags:?}");
        }
    }

    #[test]
    fn what_is_being_made_and_runs_without_marks_is_somebodys() {
        let running = vm::Record { power_state: VmPowerState::Running, ..vm(&making(DEAD), None) };
        let found = with_knowledge(|known| judge_vm(&running, false, known));
        assert_eq!(found, Some(Reason::InUse { attempt: DEAD }));
    }

    #[test]
    fn a_snapshot_is_a_leak_when_its_vm_is_gone() {
        let snapshot = |tags: Option<&Tags>| vm::Record {
            is_a_snapshot: true,
            is_a_template: true,
            ..vm("before", tags)
        };
        with_knowledge(|known| {
            assert_eq!(judge_vm(&snapshot(Some(&tags())), true, known), None);
            assert_eq!(judge_vm(&snapshot(Some(&tags())), false, known), Some(Reason::NoVm));
            assert_eq!(judge_vm(&snapshot(None), false, known), None);
        });
    }

    #[test]
    fn a_disk_is_a_leak_when_no_vm_has_it_and_none_is_to_get_it() {
        let disk = |name: &str, tags: Option<&Tags>| vdi::Record {
            name_label: name.into(),
            other_config: config(tags),
            ..Default::default()
        };
        let ours = tags();
        let coming = Tags { vm: Some(VmName::new("coming").unwrap()), ..tags() };
        let living = Tags { fleet: Some(ALIVE), ..tags() };
        let foreign = Tags { owner: FOREIGN, ..tags() };
        for (name, tags, has_vm, reason) in [
            ("seed", Some(&ours), false, Some(Reason::NoVm)),
            ("seed", Some(&ours), true, None),
            ("seed", Some(&coming), false, None),
            ("seed", Some(&living), false, None),
            ("seed", Some(&foreign), false, None),
            ("seed", None, false, None),
            (&making(ALIVE), Some(&ours), false, None),
            (&making(DEAD), Some(&ours), false, Some(Reason::AttemptDead { attempt: DEAD })),
        ] {
            let found = with_knowledge(|known| judge_disk(&disk(name, tags), has_vm, known));
            assert_eq!(found, reason, "{name} {tags:?}");
        }
    }

    #[test]
    fn only_what_is_marked_as_ours_or_named_by_an_attempt_may_go() {
        let ours = making(DEAD);
        let theirs = MakingLabel { owner: FOREIGN, ..label(DEAD) }.to_string();
        let adopted = Tags { adopted: true, ..tags() };
        let foreign = Tags { owner: FOREIGN, ..tags() };
        let running = Marks { is_off: false, ..marks(&ours, None) };
        for (marks, may) in [
            (marks("web", Some(tags())), true),
            (marks("web", None), false),
            (marks(&ours, None), true),
            (marks(&format!("{ours} (copy)"), None), false),
            (marks(&theirs, None), false),
            (marks("web", Some(adopted)), false),
            (marks(&ours, Some(foreign)), false),
            (running, false),
        ] {
            assert_eq!(may_go(OWNER, &marks), may, "{} {:?}", marks.name, marks.tags);
        }
    }

    #[test]
    fn networks_and_what_others_may_be_making_are_never_collected() {
        let network = |tags: Option<&Tags>, vifs: Vec<Ref<class::Vif>>| network::Record {
            uuid: Uuid::from_u128(6).to_string(),
            other_config: config(tags),
            vifs,
            ..Default::default()
        };
        let ours = Tags::of(OWNER);
        with_knowledge(|known| {
            let leak = network_leak(&Arc::new(network(Some(&ours), vec![])), known).unwrap();
            assert!(!leak.is_collectable());
            for reason in [
                Reason::OfAnother { owner: FOREIGN },
                Reason::MarkedByAnother { owner: FOREIGN },
                Reason::InUse { attempt: DEAD },
            ] {
                assert!(!Leak { kind: Kind::Vm, reason, ..leak.clone() }.is_collectable());
            }
            let used = network(Some(&ours), vec!["vif".into()]);
            assert_eq!(network_leak(&Arc::new(used), known), None);
            assert_eq!(network_leak(&Arc::new(network(None, vec![])), known), None);
        });
    }

    #[test]
    fn an_id_with_the_time_in_it_tells_how_old_a_leak_is() {
        let made = time("2027-01-01T12:00:00Z");
        let seconds = u64::try_from(made.as_second()).unwrap();
        let attempt = Uuid::new_v7(uuid::Timestamp::from_unix(uuid::NoContext, seconds, 0));
        let gone = Reason::ControllerGone { fleet: DEAD };
        assert_eq!(since(&making(attempt), &gone, None), Some(made));
        assert_eq!(since(&making(DEAD), &gone, None), None);
        assert_eq!(since("web", &gone, Some(&tags())), None);
    }
}
