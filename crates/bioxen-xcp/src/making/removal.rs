//! Removing a machine with its disks.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep};
use xenapi::{Error, Ref, Task, TaskError, class, enums, vbd};

use crate::connected_pool::ConnectedPool;

/// How long a clone that was cancelled may take to end.
const CANCELLED_WITHIN: Duration = Duration::from_mins(2);

/// How long a disk may be in use after its machine is gone.
const DETACHED_WITHIN: Duration = Duration::from_secs(30);

/// How long a machine may take to be switched off.
const OFF_WITHIN: Duration = Duration::from_mins(2);

/// Why something could not be removed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum RemovalError {
    /// The pool refused, or was not reached.
    #[error("the pool did not do it")]
    Pool(#[from] Error),
    /// The pool began, and failed.
    #[error("the pool could not do it")]
    Task(#[from] TaskError),
}

impl RemovalError {
    /// Whether what was to be removed is not there.
    fn is_gone(&self) -> bool {
        self.code() == Some("HANDLE_INVALID")
    }

    fn code(&self) -> Option<&str> {
        match self {
            Self::Pool(error) => error.code(),
            Self::Task(TaskError::Failed { source, .. }) => Some(source.code()),
            Self::Task(_) => None,
        }
    }
}

/// Removes a machine, whatever it does, with the disks that nobody else uses. One that is gone is
/// removed.
pub async fn remove_machine(pool: &ConnectedPool, vm: &Ref<class::Vm>) -> Result<(), RemovalError> {
    let client = pool.client();
    let record = match client.vm().get_record(vm).await {
        Ok(record) => record,
        Err(error) if error.code() == Some("HANDLE_INVALID") => return Ok(()),
        Err(error) => return Err(error.into()),
    };
    if record.power_state != enums::VmPowerState::Halted {
        let _permit = pool.power_operation().await;
        let off = client.vm().hard_shutdown(vm).start_task().await;
        let off = match off {
            Ok(task) => task.timeout(OFF_WITHIN).await.map_err(RemovalError::from),
            Err(error) => Err(error.into()),
        };
        match off {
            // Somebody else was faster.
            Err(error) if error.code() == Some("VM_BAD_POWER_STATE") || error.is_gone() => {}
            other => other?,
        }
    }
    let mut disks = Vec::new();
    for vbd in &record.vbds {
        let Some(vbd) = attachment(pool, vbd).await? else { continue };
        if vbd.r#type == enums::VbdType::Disk {
            let disk = vbd.vdi.clone().non_null();
            disks.extend(disk.filter(|disk| !is_shared(pool, disk, &record.vbds)));
        }
    }
    match client.vm().destroy(vm).await {
        Err(error) if error.code() == Some("HANDLE_INVALID") => {}
        other => other?,
    }
    for disk in disks {
        remove_disk(pool, &disk).await?;
    }
    Ok(())
}

/// How a disk is attached; `None` where that is gone. What the pool has told of it is enough: a disk stays the
/// same for as long as it is attached.
async fn attachment(
    pool: &ConnectedPool,
    vbd: &Ref<class::Vbd>,
) -> Result<Option<Arc<vbd::Record>>, RemovalError> {
    if let Some(record) = pool.mirror().get(vbd) {
        return Ok(Some(record));
    }
    match pool.client().vbd().get_record(vbd).await {
        Ok(record) => Ok(Some(Arc::new(record))),
        Err(error) if error.code() == Some("HANDLE_INVALID") => Ok(None),
        Err(error) => Err(error.into()),
    }
}

/// Whether another machine has the disk too.
fn is_shared(pool: &ConnectedPool, disk: &Ref<class::Vdi>, own: &[Ref<class::Vbd>]) -> bool {
    let disk = pool.mirror().get(disk);
    disk.is_some_and(|disk| disk.vbds.iter().any(|vbd| !own.contains(vbd)))
}

/// Removes a disk unless somebody uses it. One that is gone is removed.
pub(super) async fn remove_disk(
    pool: &ConnectedPool,
    disk: &Ref<class::Vdi>,
) -> Result<(), RemovalError> {
    let vdis = pool.client().vdi();
    let give_up = Instant::now() + DETACHED_WITHIN;
    let mut delay = Duration::from_millis(50);
    loop {
        match vdis.destroy(disk).await {
            Err(error) if error.code() == Some("HANDLE_INVALID") => return Ok(()),
            // Detaching trails behind the end of the machine.
            Err(error) if error.code() == Some("VDI_IN_USE") && Instant::now() < give_up => {
                sleep(delay).await;
                delay = (delay * 2).min(Duration::from_secs(2));
            }
            other => return Ok(other?),
        }
    }
}

/// Ends a clone that is not wanted any more; returns what it has made all the same.
pub(super) async fn end_cloning(mut task: Task<Ref<class::Vm>>) -> Option<Ref<class::Vm>> {
    if let Err(error) = task.cancel().await {
        // It may be at its end already.
        tracing::debug!(%error, "a clone could not be cancelled");
    }
    task = task.timeout(CANCELLED_WITHIN);
    task.wait().await.ok()
}
