//! Removing what an attempt has made, when it has come to nothing.

use std::sync::Arc;
use std::time::Duration;

use bioxen_core::{Event, VmName};
use jiff::Timestamp;
use uuid::Uuid;
use xenapi::enums::VmOperation;
use xenapi::mirror::View;
use xenapi::{Ref, Task, class};

use super::{Attempt, Cause, Chain, Progress};
use crate::connected_pool::ConnectedPool;
use crate::machine::{Machine, MachineError};
use crate::plan::StepKind;
use crate::tags::{making_label, read_attempt};

/// How long a clone that was cancelled may take to end.
const CANCELLED_WITHIN: Duration = Duration::from_mins(2);

/// How long something may take to appear of which the pool did not say whether it is made.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// An attempt to make a VM whose controller has died, as far as that had noted down what it was doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadAttempt {
    /// The VM.
    pub vm: VmName,
    /// Which attempt it was.
    pub making: Uuid,
    /// The uuid of the template, or VM, of which it was to be a copy.
    pub template: String,
    /// The identity of the VM on the pool, where that was known.
    pub uuid: Option<String>,
}

/// Removes all that an attempt has made whose controller has died. When this has succeeded nothing of it is
/// on the pool, and nothing comes any more, so that it can be forgotten; a repeat does nothing. A VM that was
/// adopted meanwhile is refused.
pub async fn remove_attempt(
    pool: &Arc<ConnectedPool>,
    attempt: &DeadAttempt,
) -> Result<(), MachineError> {
    let DeadAttempt { vm, making, template, uuid } = attempt;
    Machine::catch_up(pool, vm.as_str()).await?;
    let template = pool.mirror().by_uuid::<class::Vm>(template).map(|(template, _)| template);
    let made = Made { pool, vm, making: *making, template };
    match uuid {
        Some(uuid) => {
            if let Some((vm, _)) = pool.mirror().by_uuid::<class::Vm>(uuid) {
                made.remove_vm(&vm).await?;
            }
        }
        None => made.remove_unseen(true).await?,
    }
    made.remove_disk(None, true).await
}

impl Attempt {
    /// Removes what was made, and names what could not be removed.
    pub(super) async fn undo(&self, mut progress: Progress, cause: &Cause) -> Vec<String> {
        let mut left = Vec::new();
        let Some(known) = &progress.known else { return left };
        let template = known.plan.as_ref().map(|plan| plan.template.reference.clone());
        if let Some(cloning) = progress.cloning.take() {
            progress.vm = end_cloning(cloning).await;
        }
        let (pool, vm) = (&self.order.pool, &self.order.spec.name);
        let made = Made { pool, vm, making: self.making, template };
        let removed = match &progress.vm {
            Some(vm) => made.remove_vm(vm).await,
            None => made.remove_unseen(cause.is_unclear()).await,
        };
        if let Err(error) = removed {
            left.push(Chain(&error).to_string());
        }
        let disk = progress.seed.map(|seed| seed.disk);
        let is_unclear = progress.seeding && cause.is_unclear();
        if let Err(error) = made.remove_disk(disk, is_unclear).await {
            left.push(format!("its seed disk: {}", Chain(&error)));
        }
        let (vm, at) = (vm.clone(), Timestamp::now());
        (self.order.report)(Event::MakingUndone { vm, left: left.clone(), at });
        left
    }
}

/// What an attempt has made, or may have.
struct Made<'a> {
    pool: &'a Arc<ConnectedPool>,
    vm: &'a VmName,
    making: Uuid,
    template: Option<Ref<class::Vm>>,
}

impl Made<'_> {
    /// Removes the VM: by its marks, or by the name that only this attempt gives before there are any.
    async fn remove_vm(&self, vm: &Ref<class::Vm>) -> Result<(), MachineError> {
        let machine = Machine::known(self.pool, vm, self.vm.as_str());
        match machine.marks_now().await? {
            None => Ok(()),
            Some((name, _)) if name == making_label(self.making) => {
                machine.discard().await.map(|_| ())
            }
            Some(_) => machine.delete().await.map(|_| ()),
        }
    }

    /// Removes the VM of which only the name is known. Where the pool has not said whether it makes it, it may
    /// be yet to come.
    async fn remove_unseen(&self, is_unclear: bool) -> Result<(), MachineError> {
        let label = making_label(self.making);
        Machine::catch_up(self.pool, self.vm.as_str()).await?;
        if is_unclear {
            self.await_clone(&label).await;
        }
        for (vm, _) in self.pool.mirror().by_name::<class::Vm>(&label) {
            self.remove_vm(&vm).await?;
        }
        Ok(())
    }

    /// Waits for a clone of which the pool has not said whether it makes it: some time, and for as long as the
    /// template is being copied.
    async fn await_clone(&self, label: &str) {
        let mirror = self.pool.mirror();
        let is_there = |view: &View<'_>| view.by_name::<class::Vm>(label).next().map(|_| ());
        if mirror.wait_until("the copy", APPEARS_WITHIN, is_there).await.is_ok() {
            return;
        }
        let limit = StepKind::Clone.deadline();
        let settled = mirror.wait_until("the copy", limit, |view| {
            let template = self.template.as_ref().and_then(|template| view.get(template));
            let is_being_copied = template.is_some_and(|template| {
                let mut operations = template.current_operations.values();
                operations.any(|it| matches!(it, VmOperation::Clone | VmOperation::Copy))
            });
            is_there(view).or((!is_being_copied).then_some(()))
        });
        if let Err(error) = settled.await {
            tracing::debug!(vm = label, %error, "it may yet be copied");
        }
    }

    /// Removes the seed disk where the VM does not have it, as before it is attached. Where the pool has not
    /// said whether it makes it, it may be yet to come.
    async fn remove_disk(
        &self,
        known: Option<Ref<class::Vdi>>,
        is_unclear: bool,
    ) -> Result<(), MachineError> {
        let is_its = |view: &View<'_>| {
            let mut disks = view.iter::<class::Vdi>();
            let its = disks.find(|(_, it)| read_attempt(&it.other_config) == Some(self.making));
            its.map(|(disk, _)| disk)
        };
        let disk = match known {
            None if is_unclear => {
                let mirror = self.pool.mirror();
                mirror.wait_until("the seed disk", APPEARS_WITHIN, is_its).await.ok()
            }
            known => known,
        };
        match disk {
            Some(disk) => {
                Machine::discard_disk(self.pool, self.vm.as_str(), &disk).await.map(|_| ())
            }
            None => Ok(()),
        }
    }
}

/// Ends a clone that is not wanted any more; returns what it has made all the same.
async fn end_cloning(mut task: Task<Ref<class::Vm>>) -> Option<Ref<class::Vm>> {
    if let Err(error) = task.cancel().await {
        // It may be at its end already.
        tracing::debug!(%error, "a clone could not be cancelled");
    }
    task = task.timeout(CANCELLED_WITHIN);
    task.wait().await.ok()
}
