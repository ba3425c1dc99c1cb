//! Copies of VMs.
//!
//! A copy has the name of its making until it is finished, so that one which is broken off is found.

use bioxen_core::{RunId, VmName};
use jiff::Timestamp;
use tracing::warn;
use uuid::Uuid;
use xenapi::enums::VmPowerState;
use xenapi::{Ref, class};

use super::asking::{SETTLED_WITHIN, Step};
use super::{Cause, Deleted, Machine, MachineError, Refusal};
use crate::tags::{MakingLabel, Tags};

/// What a copy of a VM is to be.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NewVm {
    /// Its name.
    pub name: VmName,
    /// The attempt to make it, which was noted down before.
    pub making: Uuid,
    /// The controller that makes it, where it is not to outlive that.
    pub fleet: Option<Uuid>,
    /// The run that it is made for.
    pub run: Option<RunId>,
    /// When it may be deleted without asking.
    pub expires: Option<Timestamp>,
}

impl NewVm {
    /// One that stays until it is deleted.
    pub fn new(name: VmName, making: Uuid) -> Self {
        Self { name, making, fleet: None, run: None, expires: None }
    }

    /// Its name until it is finished, where this installation makes it.
    pub fn label(&self, owner: Uuid) -> MakingLabel {
        MakingLabel { attempt: self.making, owner, fleet: self.fleet }
    }
}

/// A copy that is not finished: it has its marks but not its name. Dropped like this it stays on the
/// pool, to be collected as a leak.
///
/// Its disks are those of the VM that it was copied from, and its guest takes itself for that one: to
/// become somebody else it needs a seed disk with another instance id, to be attached before the
/// making is finished.
#[derive(Debug)]
#[must_use = "it is not finished"]
pub struct UnfinishedCopy {
    machine: Machine,
}

impl UnfinishedCopy {
    /// The copy, which is off. It goes by the name that it is to have, though the pool still shows its
    /// label.
    pub fn machine(&self) -> &Machine {
        &self.machine
    }

    /// Gives it its name.
    pub async fn finish(self) -> Result<Machine, MachineError> {
        let Self { machine } = self;
        let name = machine.name();
        let step = machine.step("name");
        step.set(|client| client.vm().set_name_label(&machine.reference, name)).await?;
        let mirror = machine.pool.mirror();
        let shown = mirror.wait_for(&machine.reference, "its name", step.left(), |vm| {
            vm.is_none_or(|vm| vm.name_label == name).then_some(())
        });
        shown.await.map_err(|source| step.failed(source))?;
        Ok(machine)
    }

    /// Deletes it again.
    pub async fn abandon(self) -> Result<Deleted, MachineError> {
        self.machine.discard().await
    }
}

impl Machine {
    /// Makes a VM that is like this one, with disks, addresses and marks of its own: of its disks where
    /// it is off, and otherwise of a snapshot, which is removed again.
    pub async fn clone_as(&self, new: &NewVm) -> Result<UnfinishedCopy, MachineError> {
        let step = self.step("copy");
        if self.is_taken(&new.name) {
            let name = new.name.to_string();
            return Err(self.refused(step.name, Refusal::NameTaken { name }));
        }
        let label = new.label(self.pool.owner()).to_string();
        let _turns = step.clone_turns(self.storages()?).await?;
        let tags = Tags {
            vm: Some(new.name.clone()),
            fleet: new.fleet,
            run: new.run,
            expires: new.expires,
            ..Tags::of(self.pool.owner())
        };
        let copy = match step.state().await? {
            VmPowerState::Halted => match self.copy_disks(step, &self.reference, &label).await {
                // Somebody has started it.
                Err(cause) if cause.code() == Some("VM_BAD_POWER_STATE") => None,
                copy => Some(copy.map_err(|cause| step.failed(cause))?),
            },
            _ => None,
        };
        let (copy, snapshot) = match copy {
            Some(copy) => (copy, None),
            None => self.copy_snapshot(step, &label).await?,
        };
        step.catch_up().await?;
        let Some(machine) = Self::of(&self.pool, &copy) else {
            return Err(MachineError::Gone { vm: new.name.to_string() });
        };
        // It is called by its label yet, which says nothing to anybody who reads of a failure.
        let machine = Self { name: new.name.to_string(), ..machine.within(self.patience) };
        let unfinished = UnfinishedCopy { machine };
        match self.make_its_own(step, &copy, snapshot.as_ref(), &tags).await {
            Ok(()) => Ok(unfinished),
            Err(error) => {
                let undone = match &snapshot {
                    Some(snapshot) => self.remove_snapshot(step, snapshot).await.map(|_| ()),
                    None => Ok(()),
                };
                if let Err(error) = unfinished.abandon().await.and(undone) {
                    warn!(vm = label, %error, "could not undo a copy, which is left to be collected");
                }
                Err(error)
            }
        }
    }

    /// Makes a copy a VM with marks of its own, and removes the snapshot that it was made of.
    async fn make_its_own(
        &self,
        step: Step<'_>,
        copy: &Ref<class::Vm>,
        snapshot: Option<&Ref<class::Vm>>,
        tags: &Tags,
    ) -> Result<(), MachineError> {
        self.retag(step, copy, Some(tags)).await?;
        let Some(snapshot) = snapshot else { return Ok(()) };
        // What is copied from a snapshot is a template at first.
        step.set(|client| client.vm().set_is_a_template(copy, false)).await?;
        self.remove_snapshot(step.part("delete a snapshot of"), snapshot).await?;
        step.catch_up().await
    }

    fn is_taken(&self, name: &VmName) -> bool {
        let owner = self.pool.owner();
        let view = self.pool.mirror().view();
        view.iter::<class::Vm>().any(|(_, vm)| {
            !vm.is_a_snapshot
                && Tags::read(&vm.other_config)
                    .is_some_and(|tags| tags.owner == owner && tags.vm.as_ref() == Some(name))
                && vm.name_label == name.as_str()
        })
    }

    /// Copies the disks and settings of a VM that is off, or of a snapshot.
    async fn copy_disks(
        &self,
        step: Step<'_>,
        from: &Ref<class::Vm>,
        label: &str,
    ) -> Result<Ref<class::Vm>, Cause> {
        match step.run(|client| client.vm().clone(from, label)).await {
            // Nothing else can have this name: if it comes, it is this copy.
            Err(cause) if cause.is_lost() => {
                let mirror = self.pool.mirror();
                let made = mirror.wait_until("the copy", SETTLED_WITHIN, |view| {
                    let mut named = view.by_name::<class::Vm>(label);
                    named.find(|(_, vm)| !vm.is_a_snapshot).map(|(copy, _)| copy)
                });
                made.await.map_err(|_| cause)
            }
            copy => copy,
        }
    }

    /// Copies a snapshot that is made for this; the copy and the snapshot.
    async fn copy_snapshot(
        &self,
        step: Step<'_>,
        label: &str,
    ) -> Result<(Ref<class::Vm>, Option<Ref<class::Vm>>), MachineError> {
        let snapshot = step.run(|client| client.vm().snapshot(&self.reference, label, None)).await;
        let snapshot = snapshot.map_err(|cause| step.failed(cause))?;
        match self.copy_disks(step, &snapshot, label).await {
            Ok(copy) => Ok((copy, Some(snapshot))),
            Err(cause) => {
                step.catch_up().await?;
                let part = step.part("delete a snapshot of");
                if let Err(error) = self.remove_snapshot(part, &snapshot).await {
                    warn!(vm = %self.name, %error, "could not remove the snapshot for a copy");
                }
                Err(step.failed(cause))
            }
        }
    }
}
