//! The end of a VM, with its snapshots and disks.
//!
//! The VM goes last: whatever is broken off before leaves a VM with our marks, and doing it again does
//! the rest.
//!
//! ```text
//! power off ─▶ snapshots, each after its disks ─▶ disks that no other VM has ─▶ VM
//! ```

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;
use xenapi::enums::VmPowerState;
use xenapi::{AsyncCall, Client, Ref, class, vm};

use super::asking::Step;
use super::disks::{Disk, disks};
use super::{Cause, Done, Machine, MachineError};
use crate::connected_pool::ConnectedPool;
use crate::tags::Tags;

/// How often it is begun again when somebody starts the VM meanwhile, or the pool does not say what
/// became of something.
const TRIES: usize = 3;

/// What a deletion came to.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Deleted {
    /// Whether the VM was there to be deleted.
    pub vm: Done,
    /// How many snapshots went.
    pub snapshots: usize,
    /// How many disks went, without those of snapshots.
    pub disks: usize,
    /// What they took up of their storage, in bytes.
    pub freed: u64,
    /// Disks that are still there: another VM has them, or they did not come with this one.
    pub kept: Vec<Disk>,
}

/// What tells whose a VM is.
pub(crate) struct Marks {
    pub(crate) name: String,
    pub(crate) tags: Option<Tags>,
    pub(crate) is_off: bool,
}

/// How something is destroyed.
#[derive(Clone, Copy)]
enum How {
    /// As a task, which is cancelled when nobody waits for it any more.
    Task,
    /// By one call, which costs the pool less, and goes on whoever waits.
    Call,
}

impl Deleted {
    fn nothing() -> Self {
        Self { vm: Done::Already, snapshots: 0, disks: 0, freed: 0, kept: Vec::new() }
    }
}

impl Machine {
    /// Deletes it with its snapshots and with those disks that came with it and that no other VM has,
    /// running or not. Deleting what is gone succeeds and says so; what was adopted, or was not made by
    /// this installation, is refused.
    pub async fn delete(&self) -> Result<Deleted, MachineError> {
        let step = self.step("delete");
        let before = self.pool.mirror().get(&self.reference);
        step.catch_up().await?;
        // There may be disks left of one that is gone, which the mirror may know of yet.
        let Some(vm) = self.pool.mirror().get(&self.reference).or(before) else {
            return Ok(Deleted::nothing());
        };
        self.check_owned(step, Tags::read(&vm.other_config))?;
        self.remove(step, &vm).await
    }

    /// What the pool says now by which it can be told whose it is; `None` if it is gone.
    pub(crate) async fn marks_now(&self) -> Result<Option<Marks>, MachineError> {
        let step = self.step("look at");
        match step.call(|client| client.vm().get_record(&self.reference)).await {
            Ok(vm) => Ok(Some(Marks {
                tags: Tags::read(&vm.other_config),
                is_off: vm.power_state == VmPowerState::Halted,
                name: vm.name_label,
            })),
            Err(MachineError::Gone { .. }) => Ok(None),
            Err(error) => Err(error),
        }
    }

    /// Deletes it like [`Machine::delete`], for a caller who has seen that it may.
    pub(crate) async fn discard(&self) -> Result<Deleted, MachineError> {
        let step = self.step("delete");
        let before = self.pool.mirror().get(&self.reference);
        step.catch_up().await?;
        // What the mirror has lost by now went away in this moment, its disks perhaps not with it.
        match self.pool.mirror().get(&self.reference).or(before) {
            Some(vm) => self.remove(step, &vm).await,
            None => Ok(Deleted::nothing()),
        }
    }

    /// The VM with this reference, which may have come or gone while the mirror has not heard of it.
    pub(crate) fn known(pool: &Arc<ConnectedPool>, reference: &Ref<class::Vm>, name: &str) -> Self {
        Self::new(pool, reference.clone(), Uuid::nil(), name)
    }

    /// Waits until the mirror shows all that has happened, for a VM of this name that may be gone.
    pub(crate) async fn catch_up(pool: &Arc<ConnectedPool>, vm: &str) -> Result<(), MachineError> {
        Self::gone(pool, vm).step("look for what is left of").catch_up().await
    }

    fn gone(pool: &Arc<ConnectedPool>, name: &str) -> Self {
        Self::known(pool, &Ref::null(), name)
    }

    /// Deletes a disk that was left of a VM of this name.
    pub(crate) async fn discard_disk(
        pool: &Arc<ConnectedPool>,
        vm: &str,
        disk: &Ref<class::Vdi>,
    ) -> Result<Done, MachineError> {
        let gone = Self::gone(pool, vm);
        let (step, reference) = (gone.step("delete a disk of"), disk.to_string());
        gone.destroy(step, How::Call, &reference, |client| client.vdi().destroy(disk)).await
    }

    /// Deletes it, whosever it is, as the mirror showed it a moment ago.
    async fn remove(&self, step: Step<'_>, vm: &vm::Record) -> Result<Deleted, MachineError> {
        let mut deleted = Deleted::nothing();
        let (going, kept) =
            disks(&self.pool.mirror().view(), vm).into_iter().partition(|it| it.goes_with_vm);
        deleted.kept = kept;
        let mut runs = vm.power_state != VmPowerState::Halted;
        let mut tries = 0;
        loop {
            tries += 1;
            match self.remove_once(step, runs, &going, &mut deleted).await {
                Err(error) if tries == TRIES => return Err(error),
                // Somebody has started it.
                Err(_) if self.runs(step).await? => runs = true,
                outcome => return outcome.map(|()| deleted),
            }
        }
    }

    async fn runs(&self, step: Step<'_>) -> Result<bool, MachineError> {
        match step.state().await {
            Ok(state) => Ok(state != VmPowerState::Halted),
            Err(MachineError::Gone { .. }) => Ok(false),
            Err(error) => Err(error),
        }
    }

    async fn remove_once(
        &self,
        step: Step<'_>,
        runs: bool,
        going: &[Disk],
        deleted: &mut Deleted,
    ) -> Result<(), MachineError> {
        if runs {
            let _turn = step.turn().await?;
            match self.cut_power(step).await {
                Ok(_) | Err(MachineError::Gone { .. }) => {}
                Err(error) => return Err(error),
            }
        }
        for snapshot in self.all_snapshots() {
            let part = step.part("delete a snapshot of");
            if self.remove_snapshot(part, &snapshot).await? == Done::Now {
                deleted.snapshots += 1;
            }
        }
        for disk in going {
            if self.remove_disk(step.part("delete a disk of"), &disk.vdi).await? == Done::Now {
                deleted.disks += 1;
                deleted.freed += disk.used;
            }
        }
        deleted.vm = self.remove_row(step, &self.reference).await?;
        Ok(())
    }

    /// All rows that are snapshots of it, those too that are there for a copy.
    fn all_snapshots(&self) -> Vec<Ref<class::Vm>> {
        let view = self.pool.mirror().view();
        let ours = view
            .iter::<class::Vm>()
            .filter(|(_, record)| record.is_a_snapshot && record.snapshot_of == self.reference);
        ours.map(|(reference, _)| reference).collect()
    }

    /// Removes a snapshot with its disks, these first.
    pub(super) async fn remove_snapshot(
        &self,
        step: Step<'_>,
        snapshot: &Ref<class::Vm>,
    ) -> Result<Done, MachineError> {
        let mirror = self.pool.mirror();
        let Some(record) = mirror.get(snapshot) else { return Ok(Done::Already) };
        let own: Vec<_> =
            disks(&mirror.view(), &record).into_iter().filter(|it| it.goes_with_vm).collect();
        let memory = record.suspend_vdi.clone().non_null();
        for disk in own.into_iter().map(|disk| disk.vdi).chain(memory) {
            self.remove_disk(step, &disk).await?;
        }
        self.remove_row(step, snapshot).await
    }

    /// Destroys a disk.
    async fn remove_disk(
        &self,
        step: Step<'_>,
        disk: &Ref<class::Vdi>,
    ) -> Result<Done, MachineError> {
        let reference = disk.to_string();
        self.destroy(step, How::Task, &reference, |client| client.vdi().destroy(disk)).await
    }

    /// Destroys a row of the class VM, and waits until the mirror shows that.
    async fn remove_row(&self, step: Step<'_>, vm: &Ref<class::Vm>) -> Result<Done, MachineError> {
        let reference = vm.to_string();
        let done =
            self.destroy(step, How::Task, &reference, |client| client.vm().destroy(vm)).await?;
        let mirror = self.pool.mirror();
        let shown =
            mirror.wait_for(vm, "it to be gone", step.left(), |vm| vm.is_none().then_some(()));
        shown.await.map_err(|source| step.failed(source))?;
        Ok(done)
    }

    async fn destroy(
        &self,
        step: Step<'_>,
        how: How,
        reference: &str,
        call: impl Fn(&Client) -> AsyncCall<()>,
    ) -> Result<Done, MachineError> {
        let mut tries = 0;
        loop {
            tries += 1;
            let outcome = match how {
                How::Task => step.run_on_disk(&call).await,
                How::Call => step.call_on_disk(&call).await,
            };
            match outcome {
                Ok(()) => return Ok(Done::Now),
                Err(cause) if cause.says_gone(reference) => {
                    // If it was not clear whether it went the last time, then it did.
                    return Ok(if tries > 1 { Done::Now } else { Done::Already });
                }
                Err(cause) if tries < TRIES && is_worth_another(&cause) => {}
                Err(cause) => return Err(step.failed(cause)),
            }
        }
    }
}

/// Whether the pool may not have heard, or may have lost what it heard: asking twice to destroy
/// something does no harm.
fn is_worth_another(cause: &Cause) -> bool {
    match cause {
        Cause::Call(xenapi::Error::Transport { .. }) => true,
        cause => cause.is_unclear(),
    }
}
