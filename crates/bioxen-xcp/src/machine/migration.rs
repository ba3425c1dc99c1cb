//! Moving a running VM to another host of its pool.

use std::sync::Arc;

use bioxen_core::ByteSize;
use xenapi::enums::VmPowerState;
use xenapi::mirror::View;
use xenapi::{Map, Ref, class, vm};

use super::asking::Step;
use super::disks::bytes;
use super::{Done, Machine, MachineError, Refusal};

/// Why a VM cannot be moved to a host, whatever that one has free.
fn obstacle(view: &View<'_>, vm: &vm::Record, to: &Ref<class::Host>) -> Result<(), Refusal> {
    let Some(host) = view.get(to) else {
        return Err(Refusal::NoSuchHost { host: to.to_string(), near: Vec::new() });
    };
    let name = host.name_label.clone();
    if vm.resident_on == *to {
        return Err(Refusal::SameHost { host: name });
    }
    if !view.get(&host.metrics).is_some_and(|metrics| metrics.live) {
        return Err(Refusal::HostDown { host: name });
    }
    if !host.enabled {
        return Err(Refusal::HostDisabled { host: name });
    }
    let vdis = vm.vbds.iter().filter_map(|vbd| view.get(&view.get(vbd)?.vdi));
    for vdi in vdis {
        // A storage that is not there any more is for the pool to complain of.
        let Some(sr) = view.get(&vdi.sr) else { continue };
        let mut pbds = sr.pbds.iter().filter_map(|pbd| view.get(pbd));
        if !pbds.any(|pbd| pbd.host == *to && pbd.currently_attached) {
            let (disk, storage) = (vdi.name_label.clone(), sr.name_label.clone());
            return Err(Refusal::Storage { disk, storage, host: name });
        }
    }
    Ok(())
}

impl Machine {
    /// Moves it to this host of the pool, while it runs. Refused before anything is asked where it is
    /// known that it cannot be: the host is the same, down or disabled, does not reach a disk, or has
    /// too little memory.
    pub async fn migrate(&self, host: &str) -> Result<Done, MachineError> {
        let step = self.step("move");
        let (record, to) = self.look_there(step, host).await?;
        let _turn = step.turn().await?;
        self.check_memory(step, &record, &to).await?;
        let options = Map::from_iter([("live".to_owned(), "true".to_owned())]);
        let moved =
            step.run(|client| client.vm().pool_migrate(&self.reference, &to, &options)).await;
        let done = match moved {
            Ok(()) => Done::Now,
            Err(cause) if cause.code() == Some("VM_BAD_POWER_STATE") => {
                return Err(step.in_state(&step.state().await?));
            }
            Err(cause) if cause.is_unclear() => {
                let runs_on = self.pool.client().vm().get_resident_on(&self.reference).await;
                match runs_on {
                    Ok(runs_on) if runs_on == to => Done::Already,
                    Ok(_) | Err(_) => return Err(step.failed(cause)),
                }
            }
            Err(cause) => return Err(step.failed(cause)),
        };
        step.catch_up().await?;
        Ok(done)
    }

    /// Finds out whether it could be moved to this host now, and changes nothing.
    pub async fn check_migration(&self, host: &str) -> Result<(), MachineError> {
        let step = self.step("move");
        let (record, to) = self.look_there(step, host).await?;
        self.check_memory(step, &record, &to).await
    }

    /// The host with this name, which could take it but for its memory.
    async fn look_there(
        &self,
        step: Step<'_>,
        host: &str,
    ) -> Result<(Arc<vm::Record>, Ref<class::Host>), MachineError> {
        let to = self.pool.host(host).map_err(|reason| self.refused(step.name, reason))?;
        step.catch_up().await?;
        let record = self.record()?;
        if record.power_state != VmPowerState::Running {
            return Err(step.in_state(&record.power_state));
        }
        obstacle(&self.pool.mirror().view(), &record, &to)
            .map_err(|reason| self.refused(step.name, reason))?;
        Ok((record, to))
    }

    async fn check_memory(
        &self,
        step: Step<'_>,
        vm: &vm::Record,
        to: &Ref<class::Host>,
    ) -> Result<(), MachineError> {
        let free = self.pool.client().host().compute_free_memory(to).timeout(step.left()).await;
        let free = bytes(free.map_err(|source| step.failed(source))?);
        let needed = bytes(vm.memory_dynamic_min) + bytes(vm.memory_overhead);
        if needed <= free {
            return Ok(());
        }
        let host = self.pool.host_name(to);
        let (needed, free) = (ByteSize::b(needed), ByteSize::b(free));
        Err(self.refused(step.name, Refusal::Memory { host, needed, free }))
    }
}
