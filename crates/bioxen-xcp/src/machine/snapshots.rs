//! Snapshots of VMs, and the way back to them.

use std::time::Duration;

use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use xenapi::mirror::{View, WaitError};
use xenapi::{Ref, class, enums, vm};

use super::asking::SETTLED_WITHIN;
use super::disks::disks;
use super::find::near;
use super::{Done, Machine, MachineError, PowerState, Refusal};
use crate::tags::{MakingLabel, Tags};

/// A snapshot of a VM: its disks and settings as they were.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Snapshot {
    #[serde(skip)]
    pub(super) reference: Ref<class::Vm>,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// When it was made.
    pub taken: Option<Timestamp>,
    /// Whether it has the VM's memory too: going back to it, the VM is suspended and can go on.
    pub memory: bool,
    /// What its disks take up of their storage, in bytes.
    pub used: u64,
}

/// What came of going back to a snapshot.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
pub struct Restored {
    /// What the VM was doing before.
    pub before: PowerState,
    /// Whether it was started again.
    pub started: bool,
}

/// The snapshots of a VM, the oldest first.
pub(super) fn snapshots(view: &View<'_>, vm: &vm::Record) -> Vec<Snapshot> {
    let mut snapshots: Vec<Snapshot> = vm
        .snapshots
        .iter()
        .filter_map(|reference| {
            let record = view.get(reference)?;
            // One that is there only while a copy is being made is nobody's to go back to.
            if MakingLabel::read(&record.name_label).is_some() {
                return None;
            }
            Some(Snapshot {
                reference: reference.clone(),
                name: record.name_label.clone(),
                uuid: record.uuid.parse().ok()?,
                taken: Some(record.snapshot_time).filter(|time| *time != Timestamp::UNIX_EPOCH),
                memory: record.power_state == enums::VmPowerState::Suspended,
                used: disks(view, record).iter().map(|disk| disk.used).sum(),
            })
        })
        .collect();
    snapshots.sort_by_key(|snapshot| (snapshot.taken, snapshot.uuid));
    snapshots
}

/// The snapshot of this name or uuid.
fn choose<'s>(snapshots: &'s [Snapshot], wanted: &str) -> Result<&'s Snapshot, Refusal> {
    let uuid = wanted.parse::<Uuid>().ok();
    if let Some(found) = snapshots.iter().find(|it| Some(it.uuid) == uuid) {
        return Ok(found);
    }
    let found: Vec<_> = snapshots.iter().filter(|it| it.name == wanted).collect();
    match found.as_slice() {
        [one] => Ok(one),
        [] => {
            let names = snapshots.iter().map(|it| it.name.as_str());
            Err(Refusal::NoSuchSnapshot { snapshot: wanted.into(), near: near(names, wanted) })
        }
        several => {
            let uuids = several.iter().map(|it| it.uuid).collect();
            Err(Refusal::AmbiguousSnapshot { snapshot: wanted.into(), uuids })
        }
    }
}

impl Machine {
    /// Its snapshots, the oldest first.
    pub fn snapshots(&self) -> Result<Vec<Snapshot>, MachineError> {
        let record = self.record()?;
        Ok(snapshots(&self.pool.mirror().view(), &record))
    }

    /// Its snapshot of this name or uuid.
    pub fn snapshot_named(&self, snapshot: &str) -> Result<Snapshot, MachineError> {
        let found = choose(&self.snapshots()?, snapshot).cloned();
        found.map_err(|reason| self.refused("find a snapshot of", reason))
    }

    /// Makes a snapshot of its disks and settings, whatever it is doing. It has no two of one name.
    pub async fn snapshot(&self, name: &str) -> Result<Snapshot, MachineError> {
        let step = self.step("make a snapshot of");
        if name.trim().is_empty() || name.parse::<Uuid>().is_ok() {
            let what = "a snapshot's name is neither empty nor a uuid".into();
            return Err(self.refused(step.name, Refusal::Size { what }));
        }
        if self.snapshots()?.iter().any(|snapshot| snapshot.name == name) {
            return Err(self.refused(step.name, Refusal::SnapshotThere { snapshot: name.into() }));
        }
        let _turns = step.clone_turns(self.storages()?).await?;
        let made = match step.run(|client| client.vm().snapshot(&self.reference, name, None)).await
        {
            Ok(made) => made,
            // It has no other of this name: if one comes, it is this.
            Err(cause) if cause.is_lost() => {
                return self
                    .await_snapshot(SETTLED_WITHIN, |it| it.name == name)
                    .await
                    .map_err(|_| step.failed(cause));
            }
            Err(cause) => return Err(step.failed(cause)),
        };
        let shown = self.await_snapshot(step.left(), |it| it.reference == made);
        shown.await.map_err(|source| step.failed(source))
    }

    /// Waits until the mirror shows a snapshot of which this is true.
    async fn await_snapshot(
        &self,
        limit: Duration,
        is: impl Fn(&Snapshot) -> bool,
    ) -> Result<Snapshot, WaitError> {
        let mirror = self.pool.mirror();
        let shown = mirror.wait_until("the snapshot", limit, |view| {
            let vm = view.get(&self.reference)?;
            snapshots(view, vm).into_iter().find(&is)
        });
        shown.await
    }

    /// Goes back to a snapshot, given by name or uuid. What has happened in the VM since then is lost;
    /// whose it is and when it expires is not. With `start` it is started again if it ran.
    pub async fn restore(&self, snapshot: &str, start: bool) -> Result<Restored, MachineError> {
        let step = self.step("restore");
        let wanted = choose(&self.snapshots()?, snapshot).cloned();
        let wanted = wanted.map_err(|reason| self.refused(step.name, reason))?;
        let before = step.state().await?;
        // The snapshot has the marks of its time, which would come back with it: an adopted VM would be
        // ours to delete. Marking the snapshot first leaves no moment in which they are wrong.
        let tags = Tags::read(&self.record()?.other_config);
        self.retag(step, &wanted.reference, tags.as_ref()).await?;
        {
            let _turn = step.turn().await?;
            let _turns = step.clone_turns(self.storages()?).await?;
            let reverted = step.run(|client| client.vm().revert(&wanted.reference)).await;
            reverted.map_err(|cause| step.failed(cause))?;
        }
        step.catch_up().await?;
        let started = start && before == enums::VmPowerState::Running;
        if started {
            self.start(None).await?;
        }
        Ok(Restored { before: PowerState::from(&before), started })
    }

    /// Deletes a snapshot, given by name or uuid, with its disks.
    pub async fn delete_snapshot(&self, snapshot: &str) -> Result<Done, MachineError> {
        let step = self.step("delete a snapshot of");
        let wanted = choose(&self.snapshots()?, snapshot).cloned();
        let wanted = wanted.map_err(|reason| self.refused(step.name, reason))?;
        self.remove_snapshot(step, &wanted.reference).await
    }

    /// The storage repositories that its disks are on.
    pub(super) fn storages(&self) -> Result<Vec<Ref<class::Sr>>, MachineError> {
        let record = self.record()?;
        let disks = disks(&self.pool.mirror().view(), &record);
        Ok(disks.into_iter().map(|disk| disk.storage_ref).collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn snapshot(number: u128, name: &str) -> Snapshot {
        Snapshot {
            reference: Ref::null(),
            name: name.into(),
            uuid: Uuid::from_u128(number),
            taken: None,
            memory: false,
            used: 0,
        }
    }

    #[test]
    fn a_snapshot_is_found_by_name_or_uuid_where_it_is_the_only_one() {
        let all = [snapshot(1, "fresh"), snapshot(2, "twice"), snapshot(3, "twice")];
        assert_eq!(choose(&all, "fresh").unwrap().uuid.as_u128(), 1);
        assert_eq!(choose(&all, &Uuid::from_u128(3).to_string()).unwrap().uuid.as_u128(), 3);
        let refusal = choose(&all, "twice").unwrap_err();
        assert!(matches!(refusal, Refusal::AmbiguousSnapshot { uuids, .. } if uuids.len() == 2));
        let refusal = choose(&all, "frsh").unwrap_err();
        assert!(matches!(refusal, Refusal::NoSuchSnapshot { near, .. } if near == ["fresh"]));
    }
}
