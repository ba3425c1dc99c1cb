//! The shortest way from a template to an answer: what takes the pool's and the guest's time, and no more.

use std::path::Path;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bioxen_xcp::ConnectedPool;
use bioxen_xcp::ssh::{ClientKey, Command, Connection, HostKeyCheck, Login, Target};
use futures::future::join_all;
use xenapi::{Ref, Secret, Source, class, enums, vbd, vdi};

use crate::lab::{TEMPLATE, USER, ssh_port};

/// How long the guest may take.
const PATIENCE: Duration = Duration::from_mins(2);

/// A VM with a seed disk that was prepared, by the fewest calls that there can be, one after another; then a
/// login as soon as the guest takes one, cloud-init's word that it is done, and the guest's own Lua. Returns
/// how long that took; the VM is removed.
pub(crate) async fn answer(pool: &ConnectedPool, place: &Path) -> Result<f64> {
    let way = Way::new(pool, place).await?;
    let clock = Instant::now();
    let vm = way.start().await?;
    let answered = way.enter(&vm).await;
    let seconds = clock.elapsed().as_secs_f64();
    remove(pool, &vm).await?;
    answered.map(|()| seconds)
}

/// So many VMs go this way side by side, within the bounds of our own care for the pool. Returns how long it
/// took until the last one was removed.
pub(crate) async fn lives(pool: &ConnectedPool, place: &Path, count: usize) -> Result<f64> {
    let way = Way::new(pool, place).await?;
    let clock = Instant::now();
    let starting = join_all((0..count).map(|_| async {
        let vm = way.start().await?;
        let answered = way.enter(&vm).await;
        answered.map(|()| vm)
    }));
    let vms = starting.await.into_iter().collect::<Result<Vec<_>>>()?;
    for removed in join_all(vms.iter().map(|vm| remove(pool, vm))).await {
        removed?;
    }
    Ok(clock.elapsed().as_secs_f64())
}

/// Removes a VM with its disks, which nobody else has.
async fn remove(pool: &ConnectedPool, vm: &Ref<class::Vm>) -> Result<()> {
    let client = pool.client();
    let attachments = client.vm().get_record(vm).await?.vbds;
    client.vm().hard_shutdown(vm).await?;
    let mut disks = Vec::new();
    for attachment in &attachments {
        let attachment = client.vbd().get_record(attachment).await?;
        if attachment.r#type == enums::VbdType::Disk {
            disks.push(attachment.vdi);
        }
    }
    client.vm().destroy(vm).await?;
    for disk in &disks {
        client.vdi().destroy(disk).await?;
    }
    Ok(())
}

/// What is known before the way begins.
struct Way<'p> {
    pool: &'p ConnectedPool,
    template: Ref<class::Vm>,
    storage: Ref<class::Sr>,
    image: Vec<u8>,
    key: ClientKey,
}

impl<'p> Way<'p> {
    async fn new(pool: &'p ConnectedPool, place: &Path) -> Result<Self> {
        let image = std::fs::read(place.join("seed"))?;
        let key = std::fs::read_to_string(place.join("key"))?;
        let key = ClientKey::from_openssh(&Secret::from(key))?;
        let templates = pool.mirror().by_name::<class::Vm>(TEMPLATE);
        let (template, _) = templates.into_iter().next().context("there is no such template")?;
        let pools = pool.client().pool().get_all_records().await?;
        let storage = pools.values().next().context("there is a pool")?.default_sr.clone();
        Ok(Self { pool, template, storage, image, key })
    }

    async fn start(&self) -> Result<Ref<class::Vm>> {
        let Self { pool, template, storage, .. } = self;
        let client = pool.client();
        let permit = pool.cloning(storage).await;
        let vm = client.vm().clone(template, "bare").await?;
        drop(permit);
        client.vm().provision(&vm).await?;
        let disk = vdi::Record {
            name_label: "bare seed".into(),
            sr: storage.clone(),
            virtual_size: 2 << 20,
            r#type: enums::VdiType::User,
            ..vdi::Record::default()
        };
        let disk = client.vdi().create(&disk).await?;
        client.import_disk(&disk, Source::bytes(self.image.clone())).await?;
        let attachment = vbd::Record {
            vm: vm.clone(),
            vdi: disk,
            userdevice: "autodetect".into(),
            mode: enums::VbdMode::Ro,
            r#type: enums::VbdType::Disk,
            ..vbd::Record::default()
        };
        client.vbd().create(&attachment).await?;
        let permit = pool.power_operation().await;
        client.vm().start(&vm, false, false).await?;
        drop(permit);
        Ok(vm)
    }

    async fn enter(&self, vm: &Ref<class::Vm>) -> Result<()> {
        let told = self.pool.mirror().wait_until("its address", PATIENCE, |view| {
            let metrics = view.get(&view.get(vm)?.guest_metrics)?;
            metrics.networks.get("0/ip").cloned()
        });
        let address = told.await?;
        let login = Login::Key(self.key.clone());
        let target =
            Target::new(address, USER, HostKeyCheck::TrustOnFirstUse, login).port(ssh_port());
        let give_up = Instant::now() + PATIENCE;
        let connection = loop {
            match Connection::open(&target).await {
                Ok(connection) => break connection,
                Err(error) if Instant::now() > give_up => bail!(error),
                Err(_) => tokio::time::sleep(Duration::from_millis(1)).await,
            }
        };
        let grown = Command::new("cloud-init").arguments(["status", "--wait"]);
        connection.run(&grown, "", 1024, PATIENCE).await?;
        let lua = Command::new("lua5.4").arguments(["-e", "print(1 + 1)"]);
        let output = connection.run(&lua, "", 1024, PATIENCE).await?;
        ensure!(output.stdout == b"2\n", "it said {}", String::from_utf8_lossy(&output.stdout));
        Ok(())
    }
}
