//! Removing what an attempt has made, when it has come to nothing.

use std::collections::HashSet;
use std::sync::Arc;
use std::time::Duration;

use bioxen_core::{Event, VmName};
use jiff::Timestamp;
use xenapi::enums::{StorageOperation, VmOperation};
use xenapi::mirror::View;
use xenapi::{Ref, Task, class};

use super::{Attempt, Cause, Chain, Progress};
use crate::connected_pool::ConnectedPool;
use crate::machine::{Machine, MachineError};
use crate::plan::StepKind;
use crate::tags::{MakingLabel, read_attempt};

/// How long a clone that was cancelled may take to end.
const CANCELLED_WITHIN: Duration = Duration::from_mins(2);

/// How long something may take to appear that was asked for a moment ago, and of which the pool did not say
/// whether it is made.
const APPEARS_WITHIN: Duration = Duration::from_secs(5);

/// An attempt to make a VM whose controller has died, as far as that had noted down what it was doing.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct DeadAttempt {
    /// The VM.
    pub vm: VmName,
    /// Which attempt it was.
    pub making: MakingLabel,
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
        None => made.remove_unseen(Doubt::Asker).await?,
    }
    made.remove_disk(None, Doubt::Asker).await
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
            None => made.remove_unseen(Doubt::of(cause)).await,
        };
        let disk = progress.seed.map(|seed| seed.disk);
        let stays = removed.is_err() && disk.as_ref().is_some_and(|disk| is_attached(pool, disk));
        if let Err(error) = removed {
            left.push(Chain(&error).to_string());
        }
        let doubt = if progress.seeding { Doubt::of(cause) } else { Doubt::None };
        // What the VM has cannot go before it, and is collected with it.
        if !stays && let Err(error) = made.remove_disk(disk, doubt).await {
            left.push(format!("its seed disk: {}", Chain(&error)));
        }
        let (vm, at) = (vm.clone(), Timestamp::now());
        (self.order.report)(Event::MakingUndone { vm, left: left.clone(), at });
        left
    }
}

/// Whether a VM has a disk, as the mirror shows it.
fn is_attached(pool: &ConnectedPool, disk: &Ref<class::Vdi>) -> bool {
    pool.mirror().view().iter::<class::Vbd>().any(|(_, attachment)| attachment.vdi == *disk)
}

/// Why there may be more of an attempt than is known, if there may be.
#[derive(Clone, Copy, PartialEq, Eq)]
enum Doubt {
    /// All of it is known.
    None,
    /// The pool was asked for something, and its answer was lost: it may not have begun with it yet.
    Answer,
    /// Whoever asked is dead. The pool is at work on it, has done it, or was never asked. What was on the wire
    /// when they died carries their label or marks, and is found by those if it comes after all.
    Asker,
}

impl Doubt {
    fn of(cause: &Cause) -> Self {
        if cause.is_unclear() { Self::Answer } else { Self::None }
    }
}

/// What an attempt has made, or may have.
struct Made<'a> {
    pool: &'a Arc<ConnectedPool>,
    vm: &'a VmName,
    making: MakingLabel,
    template: Option<Ref<class::Vm>>,
}

impl Made<'_> {
    /// Removes the VM: by its marks, or by the name that only this attempt gives before there are any.
    async fn remove_vm(&self, vm: &Ref<class::Vm>) -> Result<(), MachineError> {
        let machine = Machine::known(self.pool, vm, self.vm.as_str());
        match machine.marks_now().await? {
            None => Ok(()),
            Some(marks) if marks.name == self.making.to_string() => {
                machine.discard().await.map(|_| ())
            }
            Some(_) => machine.delete().await.map(|_| ()),
        }
    }

    /// Removes the VM of which only the name is known. Where it is in doubt whether there is one, it may be yet
    /// to come.
    async fn remove_unseen(&self, doubt: Doubt) -> Result<(), MachineError> {
        let label = self.making.to_string();
        Machine::catch_up(self.pool, self.vm.as_str()).await?;
        let clone = Unseen {
            what: "the copy",
            limit: StepKind::Clone.deadline(),
            is_there: &|view| view.by_name::<class::Vm>(&label).next().is_some(),
            under_way: &|view| {
                let template = self.template.as_ref().and_then(|template| view.get(template));
                let operations = template.map(|template| template.current_operations.iter());
                let copies = operations.into_iter().flatten();
                copies
                    .filter(|(_, it)| matches!(it, VmOperation::Clone | VmOperation::Copy))
                    .map(|(task, _)| task.clone())
                    .collect()
            },
        };
        self.wait_for(&clone, doubt).await;
        for (vm, _) in self.pool.mirror().by_name::<class::Vm>(&label) {
            self.remove_vm(&vm).await?;
        }
        Ok(())
    }

    /// Removes the seed disk where the VM does not have it, as before it is attached. Where it is in doubt
    /// whether there is one, it may be yet to come.
    async fn remove_disk(
        &self,
        known: Option<Ref<class::Vdi>>,
        doubt: Doubt,
    ) -> Result<(), MachineError> {
        let its = |view: &View<'_>| {
            let mut disks = view.iter::<class::Vdi>();
            let attempt = Some(self.making.attempt);
            disks.find(|(_, it)| read_attempt(&it.other_config) == attempt).map(|(disk, _)| disk)
        };
        let disk = match known {
            None if doubt != Doubt::None => {
                let seed = Unseen {
                    what: "the seed disk",
                    limit: StepKind::Seed.deadline(),
                    is_there: &|view| its(view).is_some(),
                    under_way: &|view| {
                        let storages = view.iter::<class::Sr>();
                        let operations = storages.flat_map(|(_, storage)| {
                            let all = storage.current_operations.clone().into_iter();
                            all.filter(|(_, it)| *it == StorageOperation::VdiCreate)
                        });
                        operations.map(|(task, _)| task).collect()
                    },
                };
                self.wait_for(&seed, doubt).await;
                its(&self.pool.mirror().view())
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

    /// Waits for something that may be yet to come: for as long as the pool is at work on anything of its kind
    /// that it has begun by now, or may have.
    async fn wait_for(&self, unseen: &Unseen<'_>, doubt: Doubt) {
        let Unseen { what, limit, is_there, under_way } = unseen;
        let mirror = self.pool.mirror();
        let there = |view: &View<'_>| is_there(view).then_some(());
        match doubt {
            Doubt::None => return,
            Doubt::Answer => {
                if mirror.wait_until(what, APPEARS_WITHIN, there).await.is_ok() {
                    return;
                }
            }
            Doubt::Asker => {}
        }
        let begun = under_way(&mirror.view());
        let settled = mirror.wait_until(what, *limit, |view| {
            (is_there(view) || begun.is_disjoint(&under_way(view))).then_some(())
        });
        if let Err(error) = settled.await {
            tracing::debug!(vm = %self.vm, %error, "it may yet come");
        }
    }
}

/// Something that was asked for, and of which it is not known whether it is made.
struct Unseen<'a> {
    what: &'static str,
    /// How long making it may take.
    limit: Duration,
    is_there: &'a (dyn Fn(&View<'_>) -> bool + Sync),
    /// The tasks of the pool that may be making it.
    under_way: &'a (dyn Fn(&View<'_>) -> HashSet<String> + Sync),
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
