//! Making a copy of a machine: with disks like its, and an identity of its own.
//!
//! What is copied takes itself for its origin until it boots with a seed of its own. So the seed is
//! attached before the copy has its name, and with that the guest gets another host key, another name
//! and another key of ours; what it was set up with before stays as it is.

use bioxen_core::{MachineSpec, VmSpec};
use xenapi::{Ref, class, enums, vm};

use super::{
    Attempt, Cause, Failed, Known, Made, MakeError, MakeOrder, Origin, Progress, Until, attempt,
};
use crate::machine::{Machine, NewVm, UnfinishedCopy};
use crate::plan::{Copy, Cost, Interfaces, Named, Plan, PlanError, StepKind};
use crate::tags::Tags;

/// The order for a copy of a machine that was made by this one: the same, without what the guest has
/// done already and what belongs to one machine alone.
pub fn copy_spec(origin: &MachineSpec) -> MachineSpec {
    MachineSpec {
        packages: Vec::new(),
        cloud_config: None,
        files: Vec::new(),
        lifetime: None,
        host: None,
        ..origin.clone()
    }
}

/// Makes a copy of a machine and starts it, without waiting for its guest: [`finish`](super::finish) does
/// that later. The order's sizes and template count for nothing.
///
/// When this fails, or its future is dropped, it is as with [`make`](super::make).
pub async fn start_copy(order: MakeOrder, origin: Machine) -> Result<Known, MakeError> {
    let origin = Origin::Machine(Box::new(origin));
    Ok(attempt(order, origin, Until::Started).await?.known())
}

/// Makes a copy of a machine and starts Lua in it. The order's sizes and template count for nothing.
///
/// When this fails, or its future is dropped, it is as with [`make`](super::make).
pub async fn make_copy(order: MakeOrder, origin: Machine) -> Result<Made, MakeError> {
    let origin = Origin::Machine(Box::new(origin));
    Ok(attempt(order, origin, Until::Lua).await?.made())
}

/// Decides how a copy is made: as large as its origin, on the same storage and networks.
pub(super) fn plan(spec: &VmSpec, origin: &Machine) -> Result<Plan, Cause> {
    let machine = spec.machine().cloned().unwrap_or_default();
    let address = |network: &bioxen_core::NetworkSpec| {
        let chosen = network.address.map(|address| address.ip());
        chosen.or_else(|| network.allowed.first().copied())
    };
    if let Some(address) = machine.networks.iter().find_map(address) {
        let (vm, origin) = (spec.name.clone(), origin.name().to_owned());
        return Err(PlanError::AddressTaken { vm, origin, address }.into());
    }
    let details = origin.details()?;
    let view = origin.pool().mirror().view();
    let named = Named::new(origin.reference().clone(), &details.uuid.to_string(), &details.name);
    let Some(disk) = details.disks.iter().find(|disk| disk.bootable).or(details.disks.first())
    else {
        return Err(Cause::NoDisk { device: "0".into() });
    };
    let storage = view.get(&disk.storage_ref).map(|sr| sr.uuid.clone()).unwrap_or_default();
    let size: u64 = details.disks.iter().map(|disk| disk.size).sum();
    let storage = Named::new(disk.storage_ref.clone(), &storage, &disk.storage);
    Ok(Plan {
        vm: spec.name.clone(),
        label: spec.name.to_string(),
        template: named,
        copy: Copy::Clone,
        storage,
        memory: details.memory,
        vcpus: details.vcpus,
        growth: None,
        interfaces: Interfaces::OfTemplate { count: details.interfaces.len() },
        host: None,
        lifetime: machine.lifetime,
        user: machine.user.clone().unwrap_or_else(|| crate::plan::DEFAULT_USER.into()),
        port: machine.port.unwrap_or(crate::plan::DEFAULT_PORT),
        files: 0,
        cost: Cost {
            storage_now: crate::seed_disk::SMALLEST as u64,
            storage_at_most: size + crate::seed_disk::SMALLEST as u64,
            memory: details.memory,
            hosts: Vec::new(),
        },
    })
}

impl Attempt {
    /// Everything up to a copy that runs.
    pub(super) async fn copy_on_the_pool(
        &self,
        origin: &Machine,
        plan: &Plan,
        progress: &mut Progress,
    ) -> Result<(), Failed> {
        let copied = self.copy_machine(origin, plan, progress);
        let (copy, record) = self.step(StepKind::Clone, copied).await?;
        let vm = copy.machine().reference().clone();
        let seeded = async {
            self.remove_old_seeds(&record).await?;
            self.seed(&vm, &record, plan, &[], progress).await?;
            copy.finish().await.map(drop).map_err(Cause::from)
        };
        self.step(StepKind::Seed, seeded).await?;
        self.step(StepKind::Start, self.start(&vm)).await?;
        Ok(())
    }

    async fn copy_machine(
        &self,
        origin: &Machine,
        plan: &Plan,
        progress: &mut Progress,
    ) -> Result<(UnfinishedCopy, vm::Record), Cause> {
        let Tags { fleet, run, expires, .. } = self.tags(plan);
        let new = NewVm {
            fleet,
            run,
            expires,
            ..NewVm::new(self.order.spec.name.clone(), self.making.attempt)
        };
        let copy =
            origin.clone().within(self.order.deadlines.of(StepKind::Clone)).clone_as(&new).await?;
        let vm: Ref<class::Vm> = copy.machine().reference().clone();
        progress.vm = Some(vm.clone());
        let record = self.order.pool.client().vm().get_record(&vm).await?;
        if let Some(known) = &mut progress.known {
            known.uuid = Some(record.uuid.clone());
        }
        self.note(progress).await?;
        Ok((copy, record))
    }

    /// Removes copies of seed disks that the origin still had: the guest would take the first that it
    /// finds.
    async fn remove_old_seeds(&self, record: &vm::Record) -> Result<(), Cause> {
        let client = self.order.pool.client();
        for attachment in &record.vbds {
            let drive = client.vbd().get_record(attachment).await?;
            let Some(disk) = drive.vdi.clone().non_null() else { continue };
            if drive.r#type != enums::VbdType::Disk {
                continue;
            }
            let marks = Tags::read(&client.vdi().get_other_config(&disk).await?);
            if marks.is_some_and(|marks| marks.owner == self.order.pool.owner()) {
                client.vbd().destroy(attachment).await?;
                let vm = self.order.spec.name.as_str();
                let removed = Machine::discard_disk(&self.order.pool, vm, &disk).await;
                removed.map_err(|error| Cause::Removal(Box::new(error)))?;
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_order_for_a_copy_leaves_out_what_the_guest_has_done_already() {
        let origin = MachineSpec {
            packages: vec!["lua5.4".into()],
            cloud_config: Some("runcmd: [reboot]".into()),
            host: Some("xcp-01".into()),
            user: Some("ada".into()),
            authorized_keys: vec!["ssh-ed25519 AAAA".into()],
            ..MachineSpec::default()
        };
        let copy = copy_spec(&origin);
        assert_eq!((copy.packages.len(), copy.cloud_config, copy.host), (0, None, None));
        assert_eq!(copy.user.as_deref(), Some("ada"));
        assert_eq!(copy.authorized_keys, origin.authorized_keys);
    }
}
