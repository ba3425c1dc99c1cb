//! The fleet of one command: made for its VMs, and gone with all of them when it ends.

use bioxen::{Fleet, Vm, VmSpec};

use crate::failure::Failure;

/// A fleet in which nothing stands by: a command knows how many VMs it needs.
pub(crate) fn new() -> Fleet {
    Fleet::builder().standby(0).build()
}

/// Makes a VM.
pub(crate) async fn create(fleet: &Fleet, spec: VmSpec) -> Result<Vm, Failure> {
    fleet.create(spec).await.map_err(Failure::Create)
}

/// Ends all VMs. What the command has done stays done even if they resist.
pub(crate) async fn shut_down(fleet: &Fleet) {
    if let Err(error) = fleet.shutdown().await {
        tracing::warn!(%error, "the vms were not cleaned up");
    }
}
