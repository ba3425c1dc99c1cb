//! More or less memory, processors and disk.

use bioxen_core::ByteSize;
use serde::Serialize;
use xenapi::enums::VmPowerState;
use xenapi::mirror::View;
use xenapi::{Ref, class, vm};

use super::asking::Step;
use super::disks::{bytes, disks};
use super::{Cause, Machine, MachineError, Refusal, Stop, Stopped};

/// The least memory that the hypervisor gives a VM.
const LEAST_MEMORY: u64 = 16 << 20;

/// What a VM is to have; what is left out stays as it is.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Resize {
    /// Memory.
    pub memory: Option<ByteSize>,
    /// Processors.
    pub vcpus: Option<u32>,
    /// The size of the disk that it boots from, which can only grow. The guest has to grow what is on it.
    pub disk: Option<ByteSize>,
    /// How to stop it where something cannot be done while it runs; it is started again after that.
    /// Without this, such a thing is refused.
    pub stop_if_needed: Option<Stop>,
}

/// One thing that a VM has some of.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Size {
    /// Memory, in bytes.
    Memory(u64),
    /// Processors.
    Vcpus(u32),
    /// The disk that it boots from, in bytes.
    Disk(u64),
}

/// What came of a change of sizes.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct Resized {
    /// What has changed; what was so before has not.
    pub changed: Vec<Size>,
    /// How it was stopped for that, where it had to be. It runs again.
    pub stopped: Option<Stopped>,
}

/// What a VM has now.
#[derive(Clone, Debug)]
struct Sizes {
    runs: bool,
    memory: u64,
    memory_range: (u64, u64),
    vcpus: u32,
    vcpus_max: u32,
    cores_per_socket: Option<u32>,
    disk: Option<SystemDisk>,
}

#[derive(Clone, Debug)]
struct SystemDisk {
    vdi: Ref<class::Vdi>,
    name: String,
    size: u64,
    can_grow_live: bool,
}

/// What is to be done, and for what of it the VM must be off.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize)]
pub struct ResizePlan {
    /// What is to be changed; what is so already is not.
    pub changes: Vec<Size>,
    /// What of that can only be done while it is off, where it runs.
    pub needs_stop: Vec<String>,
}

impl Sizes {
    fn of(view: &View<'_>, vm: &vm::Record) -> Self {
        let all = disks(view, vm);
        let disk = all.iter().find(|disk| disk.bootable).or(all.first());
        let cores = vm.platform.get("cores-per-socket");
        Self {
            runs: vm.power_state == VmPowerState::Running,
            memory: bytes(vm.memory_dynamic_max),
            memory_range: (bytes(vm.memory_static_min), bytes(vm.memory_static_max)),
            vcpus: u32::try_from(vm.vcpus_at_startup).unwrap_or(0),
            vcpus_max: u32::try_from(vm.vcpus_max).unwrap_or(0),
            cores_per_socket: cores.and_then(|cores| cores.parse().ok()),
            disk: disk.map(|disk| SystemDisk {
                vdi: disk.vdi.clone(),
                name: disk.name.clone(),
                size: disk.size,
                can_grow_live: disk.can_grow_live,
            }),
        }
    }

    /// How to get from here to what is wanted.
    fn plan(&self, wanted: &Resize) -> Result<ResizePlan, Refusal> {
        let mut plan = ResizePlan::default();
        // The disk comes first: it is the most likely to be refused by the pool.
        if let Some(size) = wanted.disk {
            self.plan_disk(&mut plan, size.as_u64())?;
        }
        if let Some(memory) = wanted.memory {
            self.plan_memory(&mut plan, memory)?;
        }
        if let Some(vcpus) = wanted.vcpus {
            self.plan_vcpus(&mut plan, vcpus)?;
        }
        if !self.runs {
            plan.needs_stop.clear();
        }
        Ok(plan)
    }

    fn plan_disk(&self, plan: &mut ResizePlan, size: u64) -> Result<(), Refusal> {
        let disk = self.disk.as_ref().ok_or(Refusal::NoDisk)?;
        if size < disk.size {
            return Err(Refusal::Shrink { disk: disk.name.clone(), is: ByteSize::b(disk.size) });
        }
        if size > disk.size {
            plan.changes.push(Size::Disk(size));
            if !disk.can_grow_live {
                plan.needs_stop.push(format!("growing disk `{}`", disk.name));
            }
        }
        Ok(())
    }

    fn plan_memory(&self, plan: &mut ResizePlan, memory: ByteSize) -> Result<(), Refusal> {
        let size = memory.as_u64();
        if size < LEAST_MEMORY {
            let least = ByteSize::b(LEAST_MEMORY);
            let what = format!("{memory} of memory is too little; the least is {least}");
            return Err(Refusal::Size { what });
        }
        if size != self.memory {
            plan.changes.push(Size::Memory(size));
            let (least, most) = self.memory_range;
            if !(least..=most).contains(&size) {
                plan.needs_stop.push(format!(
                    "{memory} of memory, as it can have {} to {} while it runs",
                    ByteSize::b(least),
                    ByteSize::b(most)
                ));
            }
        }
        Ok(())
    }

    fn plan_vcpus(&self, plan: &mut ResizePlan, vcpus: u32) -> Result<(), Refusal> {
        if vcpus == 0 {
            return Err(Refusal::Size { what: "a vm has at least one processor".into() });
        }
        let most = vcpus.max(self.vcpus_max);
        if let Some(cores) = self.cores_per_socket.filter(|cores| *cores > 0)
            && most > self.vcpus_max
            && !most.is_multiple_of(cores)
        {
            let what =
                format!("it has {cores} cores per socket, and {vcpus} is no multiple of that");
            return Err(Refusal::Size { what });
        }
        if vcpus != self.vcpus {
            plan.changes.push(Size::Vcpus(vcpus));
            if vcpus > self.vcpus_max {
                let max = self.vcpus_max;
                plan.needs_stop
                    .push(format!("{vcpus} processors, as it can have {max} while it runs"));
            }
        }
        Ok(())
    }
}

impl Machine {
    /// Gives it more or less. What can be done while it runs is done so; for the rest it is stopped and
    /// started again if that is allowed, and refused otherwise before anything has changed.
    pub async fn resize(&self, wanted: &Resize) -> Result<Resized, MachineError> {
        let step = self.step("resize");
        let (now, plan) = self.look(step, wanted).await?;
        let mut resized = Resized::default();
        if plan.needs_stop.is_empty() {
            self.apply(step, &now, &plan, now.runs, &mut resized).await?;
            return Ok(resized);
        }
        let Some(how) = wanted.stop_if_needed else {
            return Err(self.refused(step.name, Refusal::NeedsStop { what: plan.needs_stop }));
        };
        resized.stopped = Some(self.stop(how).await?);
        let applied = self.apply(self.step("resize"), &now, &plan, false, &mut resized).await;
        // It ran before, and runs again whatever came of the change.
        let started = self.start(None).await;
        applied?;
        started?;
        Ok(resized)
    }

    /// What [`resize`](Self::resize) would do, and whether it would have to be stopped for it.
    pub async fn plan_resize(&self, wanted: &Resize) -> Result<ResizePlan, MachineError> {
        Ok(self.look(self.step("resize"), wanted).await?.1)
    }

    /// What it has now, and how to get from there to what is wanted.
    async fn look(
        &self,
        step: Step<'_>,
        wanted: &Resize,
    ) -> Result<(Sizes, ResizePlan), MachineError> {
        step.catch_up().await?;
        let record = self.record()?;
        match record.power_state {
            VmPowerState::Halted | VmPowerState::Running => {}
            ref state => return Err(step.in_state(state)),
        }
        let now = Sizes::of(&self.pool.mirror().view(), &record);
        let plan = now.plan(wanted).map_err(|reason| self.refused(step.name, reason))?;
        Ok((now, plan))
    }

    async fn apply(
        &self,
        step: Step<'_>,
        sizes: &Sizes,
        plan: &ResizePlan,
        live: bool,
        resized: &mut Resized,
    ) -> Result<(), MachineError> {
        for change in &plan.changes {
            let changed = match *change {
                Size::Disk(size) => match &sizes.disk {
                    Some(disk) => self.grow(step.part("grow the disk of"), disk, size, live).await,
                    None => Ok(()),
                },
                Size::Memory(size) => self.set_memory(step, sizes, size, live).await,
                Size::Vcpus(count) => self.set_vcpus(step, sizes, count, live).await,
            };
            changed?;
            resized.changed.push(*change);
        }
        step.catch_up().await
    }

    async fn grow(
        &self,
        step: Step<'_>,
        disk: &SystemDisk,
        size: u64,
        live: bool,
    ) -> Result<(), MachineError> {
        let size = signed(size);
        let grown = step.run_on_disk(|client| {
            let disks = client.vdi();
            if live { disks.resize_online(&disk.vdi, size) } else { disks.resize(&disk.vdi, size) }
        });
        grown.await.map_err(|cause| step.failed(cause))
    }

    async fn set_memory(
        &self,
        step: Step<'_>,
        sizes: &Sizes,
        memory: u64,
        live: bool,
    ) -> Result<(), MachineError> {
        let step = step.part("change the memory of");
        let least = signed(sizes.memory_range.0.min(memory));
        let memory = signed(memory);
        let changed = step.run(|client| {
            let (vms, vm) = (client.vm(), &self.reference);
            if live {
                vms.set_memory_dynamic_range(vm, memory, memory)
            } else {
                vms.set_memory_limits(vm, least, memory, memory, memory)
            }
        });
        changed.await.map_err(|cause| self.powered(step, cause))
    }

    async fn set_vcpus(
        &self,
        step: Step<'_>,
        sizes: &Sizes,
        vcpus: u32,
        live: bool,
    ) -> Result<(), MachineError> {
        let step = step.part("change the processors of");
        let count = i64::from(vcpus);
        if live {
            let changed =
                step.run(|client| client.vm().set_vcpus_number_live(&self.reference, count));
            return changed.await.map_err(|cause| self.powered(step, cause));
        }
        // The most comes first: the server refuses more at startup than that.
        if vcpus > sizes.vcpus_max {
            step.set(|client| client.vm().set_vcpus_max(&self.reference, count)).await?;
        }
        step.set(|client| client.vm().set_vcpus_at_startup(&self.reference, count)).await
    }

    /// Names the state where that is what it failed for.
    fn powered(&self, step: Step<'_>, cause: Cause) -> MachineError {
        match (cause.code(), self.record()) {
            (Some("VM_BAD_POWER_STATE"), Ok(record)) => step.in_state(&record.power_state),
            _ => step.failed(cause),
        }
    }
}

/// Sizes are far below what a signed number holds.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}

#[cfg(test)]
mod tests {
    use super::*;

    const GIB: u64 = 1 << 30;

    fn sizes(runs: bool) -> Sizes {
        Sizes {
            runs,
            memory: 2 * GIB,
            memory_range: (GIB, 4 * GIB),
            vcpus: 2,
            vcpus_max: 4,
            cores_per_socket: Some(2),
            disk: Some(SystemDisk {
                vdi: Ref::null(),
                name: "system".into(),
                size: 10 * GIB,
                can_grow_live: false,
            }),
        }
    }

    fn memory(gib: u64) -> Resize {
        Resize { memory: Some(ByteSize::gib(gib)), ..Resize::default() }
    }

    fn vcpus(count: u32) -> Resize {
        Resize { vcpus: Some(count), ..Resize::default() }
    }

    fn disk(gib: u64) -> Resize {
        Resize { disk: Some(ByteSize::gib(gib)), ..Resize::default() }
    }

    #[test]
    fn what_a_running_vm_can_have_is_done_while_it_runs() {
        for (wanted, changes, stops) in [
            (memory(4), vec![Size::Memory(4 * GIB)], 0),
            (memory(1), vec![Size::Memory(GIB)], 0),
            (memory(2), vec![], 0),
            (memory(5), vec![Size::Memory(5 * GIB)], 1),
            (vcpus(4), vec![Size::Vcpus(4)], 0),
            (vcpus(1), vec![Size::Vcpus(1)], 0),
            (vcpus(6), vec![Size::Vcpus(6)], 1),
            (disk(10), vec![], 0),
            (disk(12), vec![Size::Disk(12 * GIB)], 1),
        ] {
            let plan = sizes(true).plan(&wanted).unwrap();
            assert_eq!((plan.changes, plan.needs_stop.len()), (changes.clone(), stops));
            let plan = sizes(false).plan(&wanted).unwrap();
            assert_eq!((plan.changes, plan.needs_stop.len()), (changes, 0));
        }
    }

    #[test]
    fn a_disk_whose_storage_can_do_it_grows_while_the_vm_runs() {
        let mut sizes = sizes(true);
        sizes.disk.as_mut().unwrap().can_grow_live = true;
        assert_eq!(sizes.plan(&disk(12)).unwrap().needs_stop, [""; 0]);
    }

    #[test]
    fn sizes_that_no_vm_can_have_are_refused() {
        let refused = |wanted: &Resize| sizes(false).plan(wanted).unwrap_err();
        assert!(matches!(refused(&disk(9)), Refusal::Shrink { .. }));
        assert!(matches!(refused(&vcpus(0)), Refusal::Size { .. }));
        assert!(matches!(refused(&vcpus(5)), Refusal::Size { .. }), "cores per socket");
        let little = Resize { memory: Some(ByteSize::mib(8)), ..Resize::default() };
        assert!(matches!(refused(&little), Refusal::Size { .. }));
        let bare = Sizes { disk: None, ..sizes(false) };
        assert_eq!(bare.plan(&disk(20)), Err(Refusal::NoDisk));
    }
}
