//! A simulated pool, a connection to it, and VMs that are ours.

use std::sync::Arc;
use std::time::Duration;

use bioxen_core::VmName;
use bioxen_xcp::tags::Tags;
use bioxen_xcp::{
    Care, ConnectedPool, Machine, PoolName, PoolSettings, SecretReference, TrustSettings,
};
use uuid::Uuid;
use xenapi::enums::VmPowerState;
use xenapi::{Ref, class};
use xenapi_sim::{Pool, PoolBuilder};

pub(crate) const OWNER: Uuid = Uuid::from_u128(0xb10);
pub(crate) const MINUTE: Duration = Duration::from_mins(1);
const TEMPLATE: &str = "Debian 12 (cloud-init)";

/// A pool with a controller of it.
pub(crate) struct Lab {
    pub(crate) sim: Pool,
    pub(crate) pool: Arc<ConnectedPool>,
    settings: PoolSettings,
    _password: tempfile::NamedTempFile,
}

pub(crate) async fn lab() -> Lab {
    lab_of(Pool::builder()).await
}

pub(crate) async fn lab_of(builder: PoolBuilder) -> Lab {
    let sim = builder.http().seed(1).password("secret").event_batching(Duration::ZERO);
    let sim = sim.start().await.unwrap();
    let password = tempfile::NamedTempFile::new().unwrap();
    std::fs::write(password.path(), "secret").unwrap();
    let settings = PoolSettings {
        name: PoolName::new("lab").unwrap(),
        addresses: vec![sim.url().parse().unwrap()],
        user: "root".into(),
        password: SecretReference::File(password.path().into()),
        trust: TrustSettings::Nothing,
        guests: bioxen_xcp::GuestSettings::default(),
    };
    let pool = ConnectedPool::open(&settings, OWNER, Care::default()).await.unwrap();
    Lab { sim, pool, settings, _password: password }
}

pub(crate) fn name(name: &str) -> VmName {
    VmName::new(name).unwrap()
}

pub(crate) fn tags(vm: &str) -> Tags {
    Tags { vm: Some(name(vm)), ..Tags::of(OWNER) }
}

impl Lab {
    /// Another controller of the same pool.
    pub(crate) async fn controller(&self, owner: Uuid) -> Arc<ConnectedPool> {
        ConnectedPool::open(&self.settings, owner, Care::default()).await.unwrap()
    }

    /// A VM that is off, made from a template, with these marks.
    pub(crate) async fn vm(&self, name: &str, tags: Option<&Tags>) -> Machine {
        let vms = self.pool.client().vm();
        let template = vms.get_by_name_label(TEMPLATE).await.unwrap().remove(0);
        let vm = vms.clone(&template, name).await.unwrap();
        vms.set_is_a_template(&vm, false).await.unwrap();
        for (key, value) in tags.into_iter().flat_map(Tags::entries) {
            vms.add_to_other_config(&vm, &key, &value).await.unwrap();
        }
        self.caught_up().await;
        let uuid = vms.get_uuid(&vm).await.unwrap();
        Machine::find(&self.pool, &uuid).unwrap().within(MINUTE)
    }

    /// A VM of ours that is off.
    pub(crate) async fn ours(&self, name: &str) -> Machine {
        self.vm(name, Some(&tags(name))).await
    }

    /// A VM of ours that runs, and whose guest has said so.
    pub(crate) async fn running(&self, name: &str) -> Machine {
        let machine = self.ours(name).await;
        machine.start(None).await.unwrap();
        self.heard_of(&machine).await;
        machine
    }

    /// Waits until the guest's tools have been heard of.
    pub(crate) async fn heard_of(&self, machine: &Machine) {
        let heard = self.pool.mirror().wait_until("the guest's tools", MINUTE, |view| {
            let vm = view.get(machine.reference())?;
            view.get(&vm.guest_metrics)?.pv_drivers_detected.then_some(())
        });
        heard.await.unwrap();
    }

    pub(crate) async fn caught_up(&self) {
        self.pool.mirror().barrier(MINUTE).await.unwrap();
    }

    /// What the pool says that a VM is doing.
    pub(crate) async fn state(&self, machine: &Machine) -> VmPowerState {
        self.pool.client().vm().get_power_state(machine.reference()).await.unwrap()
    }

    /// How many rows of the class VM and disks there are.
    pub(crate) async fn counts(&self) -> (usize, usize) {
        let client = self.pool.client();
        let vms = client.vm().get_all().await.unwrap().len();
        (vms, client.vdi().get_all().await.unwrap().len())
    }

    /// The hosts, by name.
    pub(crate) async fn hosts(&self) -> Vec<(Ref<class::Host>, String, Uuid)> {
        let hosts = self.pool.client().host().get_all_records().await.unwrap();
        let mut hosts: Vec<_> = hosts
            .iter()
            .map(|(host, it)| (host.clone(), it.name_label.clone(), it.uuid.parse().unwrap()))
            .collect();
        hosts.sort_by(|one, other| one.1.cmp(&other.1));
        hosts
    }

    /// The storage of this name.
    pub(crate) async fn storage(&self, name: &str) -> (Ref<class::Sr>, Uuid) {
        let srs = self.pool.client().sr();
        let sr = srs.get_by_name_label(name).await.unwrap().remove(0);
        let uuid = srs.get_uuid(&sr).await.unwrap().parse().unwrap();
        (sr, uuid)
    }
}
