//! Removing what an attempt has made, when it has come to nothing.

use std::time::Duration;

use bioxen_core::Event;
use jiff::Timestamp;
use xenapi::enums::VmOperation;
use xenapi::mirror::View;
use xenapi::{Ref, Task, class};

use super::{Attempt, Cause, Chain, Progress};
use crate::machine::{Machine, MachineError};
use crate::plan::StepKind;
use crate::tags::{making_label, read_attempt};

/// How long a clone that was cancelled may take to end.
const CANCELLED_WITHIN: Duration = Duration::from_mins(2);

/// How long something may take to appear of which the pool did not say whether it is made.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

impl Attempt {
    /// Removes what was made, and names what could not be removed.
    pub(super) async fn undo(&self, mut progress: Progress, cause: &Cause) -> Vec<String> {
        let mut left = Vec::new();
        if progress.known.is_none() {
            return left;
        }
        if let Some(cloning) = progress.cloning.take() {
            progress.vm = end_cloning(cloning).await;
        }
        let vm = self.order.spec.name.clone();
        if let Err(error) = self.remove_vms(&progress, cause).await {
            left.push(Chain(&error).to_string());
        }
        if let Err(error) = self.remove_seed(&progress, cause).await {
            left.push(format!("its seed disk: {}", Chain(&error)));
        }
        (self.order.report)(Event::MakingUndone { vm, left: left.clone(), at: Timestamp::now() });
        left
    }

    /// Removes the VM, by its reference or else by the name that only this attempt gives.
    async fn remove_vms(&self, progress: &Progress, cause: &Cause) -> Result<(), MachineError> {
        let (pool, label) = (&self.order.pool, making_label(self.making));
        let vms = if let Some(vm) = &progress.vm {
            vec![vm.clone()]
        } else {
            Machine::catch_up(pool, &label).await?;
            if cause.is_unclear() {
                self.await_clone(progress, &label).await;
            }
            let named = pool.mirror().by_name::<class::Vm>(&label);
            named.into_iter().map(|(vm, _)| vm).collect()
        };
        for vm in vms {
            Machine::known(pool, &vm, &label).discard().await?;
        }
        Ok(())
    }

    /// Waits for a clone of which the pool has not said whether it makes it: some time, and for as long as the
    /// template is being copied.
    async fn await_clone(&self, progress: &Progress, label: &str) {
        let mirror = self.order.pool.mirror();
        let plan = progress.known.as_ref().and_then(|known| known.plan.as_ref());
        let is_there = |view: &View<'_>| view.by_name::<class::Vm>(label).next().map(|_| ());
        if mirror.wait_until("the copy", APPEARS_WITHIN, is_there).await.is_ok() {
            return;
        }
        let limit = StepKind::Clone.deadline();
        let settled = mirror.wait_until("the copy", limit, |view| {
            let template = plan.and_then(|plan| view.get(&plan.template.reference));
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

    /// Removes the seed disk where the VM did not have it yet.
    async fn remove_seed(&self, progress: &Progress, cause: &Cause) -> Result<(), MachineError> {
        let (pool, vm) = (&self.order.pool, self.order.spec.name.as_str());
        let disk = match &progress.seed {
            Some(seed) => Some(seed.disk.clone()),
            None if progress.seeding && cause.is_unclear() => {
                let is_its = |view: &View<'_>| self.seed_disk(view);
                let made = pool.mirror().wait_until("the seed disk", APPEARS_WITHIN, is_its);
                made.await.ok()
            }
            None => None,
        };
        match disk {
            Some(disk) => Machine::discard_disk(pool, vm, &disk).await.map(|_| ()),
            None => Ok(()),
        }
    }

    fn seed_disk(&self, view: &View<'_>) -> Option<Ref<class::Vdi>> {
        let mut disks = view.iter::<class::Vdi>();
        let found = disks.find(|(_, disk)| read_attempt(&disk.other_config) == Some(self.making));
        found.map(|(disk, _)| disk)
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
