//! The steps that concern the pool alone: from a template to a machine that boots.

use bioxen_core::MacAddress;
use xenapi::mirror::View;
use xenapi::{Map, Ref, class, enums, vbd, vdi, vif, vm};

use super::setup::{self, Setup};
use super::{Attempt, Cause, Failed, Progress, both};
use crate::call_home::Expected;
use crate::plan::{Copy, Growth, Interfaces, Plan, PlannedInterface, StepKind};
use crate::seed_disk::SeedDisk;
use crate::tags::{self, Tags, write_attempt};

/// Keys of `other_config` that would have disks made, or keep a copy from being deleted.
const OF_THE_TEMPLATE: [&str; 2] = ["disks", "default_template"];

/// A seed disk on a pool.
#[derive(Clone, Debug)]
pub(super) struct SeedOnPool {
    pub(super) disk: Ref<class::Vdi>,
    /// How it is attached, once it is.
    pub(super) attachment: Option<Ref<class::Vbd>>,
}

impl Attempt {
    /// The seed disk that a machine still has: the one of its disks that carries our tags.
    pub(super) fn seed_of(&self, vm: &Ref<class::Vm>) -> Option<SeedOnPool> {
        let view = self.order.pool.mirror().view();
        view.get(vm)?.vbds.iter().find_map(|attachment| {
            let disk = view.get(attachment)?.vdi.clone();
            let tags = Tags::read(&view.get(&disk)?.other_config)?;
            let is_ours = tags.owner == self.order.pool.owner();
            let is_its = tags.vm.as_ref() == Some(&self.order.spec.name);
            let attachment = Some(attachment.clone());
            (is_ours && is_its).then_some(SeedOnPool { disk, attachment })
        })
    }

    /// Everything up to a machine that runs.
    pub(super) async fn on_the_pool(
        &self,
        plan: &Plan,
        progress: &mut Progress,
    ) -> Result<(), Failed> {
        let cloned = self.clone_template(plan, progress);
        let (vm, record) = self.step(StepKind::Clone, cloned).await?;
        let macs = match &plan.interfaces {
            Interfaces::These(interfaces) => setup::mac_addresses(interfaces),
            Interfaces::OfTemplate { .. } => Vec::new(),
        };
        // Filling the seed disk takes the longest, and nothing that is done to the machine.
        let seeded = self.seed(&vm, &record, plan, &macs, progress);
        let seeded = self.step(StepKind::Seed, seeded);
        let (shaped, seeded) = tokio::join!(self.shape(&vm, &record, plan, &macs), seeded);
        both(shaped, seeded)?;
        self.step(StepKind::Start, self.start(&vm)).await
    }

    /// Makes a clone the machine that was ordered.
    async fn shape(
        &self,
        vm: &Ref<class::Vm>,
        record: &vm::Record,
        plan: &Plan,
        macs: &[MacAddress],
    ) -> Result<(), Failed> {
        self.step(StepKind::Provision, self.provision(vm, record, plan)).await?;
        self.step(StepKind::Size, self.size(vm, record, plan)).await?;
        if let Some(growth) = &plan.growth {
            self.step(StepKind::Disk, self.grow(record, growth)).await?;
        }
        if let Interfaces::These(interfaces) = &plan.interfaces {
            let made = self.interfaces(vm, record, interfaces, macs);
            self.step(StepKind::Network, made).await?;
        }
        Ok(())
    }

    async fn clone_template(
        &self,
        plan: &Plan,
        progress: &mut Progress,
    ) -> Result<(Ref<class::Vm>, vm::Record), Cause> {
        let pool = &self.order.pool;
        let (template, label) = (&plan.template.reference, self.making.to_string());
        let permit = self.unless_abandoned(pool.cloning(&plan.storage.reference)).await?;
        let vms = pool.client().vm();
        let call = match plan.copy {
            Copy::Clone => vms.clone(template, &label),
            Copy::Full => vms.copy(template, &label, &plan.storage.reference),
        };
        let task = call.start_task().await?.timeout(self.order.deadlines.of(StepKind::Clone));
        let vm = self.unless_abandoned(progress.cloning.insert(task).wait()).await??;
        progress.cloning = None;
        drop(permit);
        progress.vm = Some(vm.clone());
        let record = vms.get_record(&vm).await?;
        if let Some(known) = &mut progress.known {
            known.uuid = Some(record.uuid.clone());
        }
        self.note(progress).await?;
        Ok((vm, record))
    }

    async fn provision(
        &self,
        vm: &Ref<class::Vm>,
        record: &vm::Record,
        plan: &Plan,
    ) -> Result<(), Cause> {
        let vms = self.order.pool.client().vm();
        // Key by key: whoever watches the pool may write keys of their own meanwhile.
        for key in OF_THE_TEMPLATE.into_iter().filter(|key| record.other_config.contains_key(*key))
        {
            vms.remove_from_other_config(vm, key).await?;
        }
        // A template that was a VM of ours may have old tags.
        for (key, value) in Tags::changes(Some(&self.tags(plan)), &record.other_config) {
            if record.other_config.contains_key(key) {
                vms.remove_from_other_config(vm, key).await?;
            }
            if let Some(value) = value {
                vms.add_to_other_config(vm, key, &value).await?;
            }
        }
        vms.provision(vm).await?;
        // Now that its tags tell whose it is, and it is no template any more, it can have its name: whoever looks
        // for leaks takes a template of another name for one that somebody has made of a VM.
        vms.set_name_label(vm, &plan.label).await?;
        Ok(())
    }

    async fn size(
        &self,
        vm: &Ref<class::Vm>,
        record: &vm::Record,
        plan: &Plan,
    ) -> Result<(), Cause> {
        let vms = self.order.pool.client().vm();
        let memory = signed(plan.memory);
        let is_so =
            [record.memory_static_max, record.memory_dynamic_min, record.memory_dynamic_max]
                == [memory; 3];
        if !is_so {
            let least = record.memory_static_min.min(memory);
            vms.set_memory_limits(vm, least, memory, memory, memory).await?;
        }
        let vcpus = i64::from(plan.vcpus);
        // There are never more at the start than there can be.
        if vcpus > record.vcpus_max {
            vms.set_vcpus_max(vm, vcpus).await?;
        }
        if vcpus != record.vcpus_at_startup {
            vms.set_vcpus_at_startup(vm, vcpus).await?;
        }
        if vcpus < record.vcpus_max {
            vms.set_vcpus_max(vm, vcpus).await?;
        }
        let cores = record.platform.get("cores-per-socket").and_then(|n| n.parse::<i64>().ok());
        if cores.is_some_and(|cores| cores < 1 || vcpus % cores != 0) {
            vms.remove_from_platform(vm, "cores-per-socket").await?;
        }
        if let Some(host) = &plan.host {
            vms.set_affinity(vm, &host.reference).await?;
        }
        Ok(())
    }

    async fn grow(&self, record: &vm::Record, growth: &Growth) -> Result<(), Cause> {
        let client = self.order.pool.client();
        for vbd in &record.vbds {
            let vbd = client.vbd().get_record(vbd).await?;
            if vbd.r#type == enums::VbdType::Disk && vbd.userdevice == growth.device {
                client.vdi().resize(&vbd.vdi, signed(growth.to)).await?;
                return Ok(());
            }
        }
        Err(Cause::NoDisk { device: growth.device.clone() })
    }

    async fn interfaces(
        &self,
        vm: &Ref<class::Vm>,
        record: &vm::Record,
        interfaces: &[PlannedInterface],
        macs: &[MacAddress],
    ) -> Result<(), Cause> {
        let vifs = self.order.pool.client().vif();
        for vif in &record.vifs {
            vifs.destroy(vif).await?;
        }
        for (index, (interface, mac)) in interfaces.iter().zip(macs).enumerate() {
            let mut record = vif::Record {
                device: index.to_string(),
                network: interface.network.reference.clone(),
                vm: vm.clone(),
                mac: mac.to_string(),
                mtu: 1500,
                ..vif::Record::default()
            };
            if let Some(address) = interface.spec.address {
                record.other_config.insert(tags::ADDRESS.to_owned(), address.ip().to_string());
            }
            if let Some(allowed) = interface.allowed() {
                record.locking_mode = enums::VifLockingMode::Locked;
                let texts = |is_four: bool| {
                    let of = allowed.iter().filter(move |ip| ip.is_ipv4() == is_four);
                    of.map(ToString::to_string).collect()
                };
                (record.ipv4_allowed, record.ipv6_allowed) = (texts(true), texts(false));
            }
            vifs.create(&record).await?;
        }
        Ok(())
    }

    pub(super) async fn seed(
        &self,
        vm: &Ref<class::Vm>,
        record: &vm::Record,
        plan: &Plan,
        macs: &[MacAddress],
        progress: &mut Progress,
    ) -> Result<(), Cause> {
        let client = self.order.pool.client();
        let call = progress.call.as_ref().map(Expected::url);
        let Setup { seed, entry, overridden } =
            Setup::new(&self.order.spec, plan, &record.uuid, macs, call.as_deref())?;
        progress.warnings.extend(overridden);
        let image = SeedDisk::new(&seed);
        let mut other_config = Map::default();
        self.tags(plan).write(&mut other_config);
        write_attempt(self.making.attempt, &mut other_config);
        let disk = vdi::Record {
            name_label: format!("{} seed", plan.label),
            name_description: "What the guest sets itself up by; it may be deleted".into(),
            sr: plan.storage.reference.clone(),
            virtual_size: signed(image.bytes().len() as u64),
            r#type: enums::VdiType::User,
            other_config,
            ..vdi::Record::default()
        };
        progress.seeding = true;
        let disk = client.vdi().create(&disk).await?;
        progress.seed = Some(SeedOnPool { disk: disk.clone(), attachment: None });
        let mut import = client.import_disk(&disk, xenapi::Source::bytes(image.used().to_vec()));
        if master_has(&self.order.pool.mirror().view(), &plan.storage.reference) {
            import = import.through_master();
        }
        import.await?;
        let attachment = vbd::Record {
            vm: vm.clone(),
            vdi: disk.clone(),
            userdevice: "autodetect".into(),
            mode: enums::VbdMode::Ro,
            r#type: enums::VbdType::Disk,
            unpluggable: true,
            ..vbd::Record::default()
        };
        let attachment = client.vbd().create(&attachment).await?;
        progress.seed = Some(SeedOnPool { disk, attachment: Some(attachment) });
        if let Some(known) = &mut progress.known {
            known.seed = Some(image.digest());
            known.entry = Some(entry);
        }
        self.note(progress).await
    }

    pub(super) async fn start(&self, vm: &Ref<class::Vm>) -> Result<(), Cause> {
        let permit = self.unless_abandoned(self.order.pool.power_operation()).await?;
        let starting = self.order.pool.client().vm().start(vm, false, false).start_task().await?;
        let mut starting = starting.timeout(self.order.deadlines.of(StepKind::Start));
        self.unless_abandoned(starting.wait()).await??;
        drop(permit);
        Ok(())
    }
}

/// Whether the master of a pool is connected to a storage repository.
fn master_has(view: &View<'_>, storage: &Ref<class::Sr>) -> bool {
    let Some((_, pool)) = view.iter::<class::Pool>().next() else { return false };
    view.iter::<class::Pbd>().any(|(_, connection)| {
        connection.sr == *storage && connection.host == pool.master && connection.currently_attached
    })
}

/// A size as the server counts: no disk and no memory comes near the end of its numbers.
fn signed(size: u64) -> i64 {
    i64::try_from(size).unwrap_or(i64::MAX)
}
