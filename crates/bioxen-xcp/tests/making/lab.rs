//! A simulated pool whose guests can be entered, and a controller of it.

use std::sync::{Arc, Mutex};
use std::time::Duration;

use bioxen_core::{Event, VmSpec};
use bioxen_xcp::making::{MakeOrder, NoJournal, WorkerSource};
use bioxen_xcp::plan::Deadlines;
use bioxen_xcp::{Care, ConnectedPool, GuestSettings, PoolName, PoolSettings, TrustSettings};
use uuid::Uuid;
use xenapi_sim::Pool;
use xenapi_sim::guest::ProcessOptions;

pub(crate) struct Lab {
    pub(crate) sim: Pool,
    pub(crate) pool: Arc<ConnectedPool>,
    pub(crate) settings: PoolSettings,
    pub(crate) events: Arc<Mutex<Vec<Event>>>,
    port: u16,
    _password: tempfile::NamedTempFile,
}

/// The template that guests are made from.
pub(crate) const TEMPLATE: &str = "Debian 12 (cloud-init)";

impl Lab {
    pub(crate) async fn new() -> Self {
        Self::with(GuestSettings::default()).await
    }

    /// A pool of which this is declared.
    pub(crate) async fn with(guests: GuestSettings) -> Self {
        let port = if nix::unistd::geteuid().is_root() { 22 } else { 2222 };
        let options = ProcessOptions { ssh_port: Some(port), ..ProcessOptions::default() };
        let sim = Pool::builder()
            .http()
            .event_batching(Duration::ZERO)
            .process_guests(options)
            .start()
            .await
            .unwrap();
        let password = tempfile::NamedTempFile::new().unwrap();
        std::fs::write(password.path(), sim.password()).unwrap();
        let settings = PoolSettings {
            name: PoolName::new("sim").unwrap(),
            addresses: vec![sim.url().parse().unwrap()],
            user: "root".into(),
            password: format!("file:{}", password.path().display()).parse().unwrap(),
            trust: TrustSettings::Nothing,
            guests,
        };
        let pool = ConnectedPool::open(&settings, Uuid::now_v7(), Care::default()).await.unwrap();
        Self { sim, pool, settings, events: Arc::default(), port, _password: password }
    }

    /// The same pool for another controller.
    pub(crate) async fn another(&self) -> Arc<ConnectedPool> {
        ConnectedPool::open(&self.settings, Uuid::now_v7(), Care::default()).await.unwrap()
    }

    pub(crate) fn spec(&self, name: &str) -> VmSpec {
        let mut spec = VmSpec::xcpng(name).unwrap().template(TEMPLATE);
        let bioxen_core::Place::Xcpng(machine) = &mut spec.place else { panic!("another place") };
        machine.port = Some(self.port);
        spec
    }

    pub(crate) fn order(&self, spec: VmSpec) -> MakeOrder {
        let events = Arc::clone(&self.events);
        MakeOrder {
            pool: Arc::clone(&self.pool),
            spec,
            fleet: None,
            run: None,
            worker: WorkerSource::Find,
            journal: Arc::new(NoJournal),
            deadlines: Deadlines::default(),
            report: Arc::new(move |event| events.lock().unwrap().push(event)),
        }
    }

    /// The names of all VMs and disks that are not there from the start.
    pub(crate) async fn ours(&self) -> Vec<String> {
        let client = self.pool.client();
        let vms = client.vm().get_all_records().await.unwrap();
        let ours = |vm: &&xenapi::vm::Record| {
            !vm.is_a_template && !vm.is_control_domain && !vm.name_label.is_empty()
        };
        let mut names: Vec<String> =
            vms.values().filter(ours).map(|vm| vm.name_label.clone()).collect();
        let disks = client.vdi().get_all_records().await.unwrap();
        let from_the_start = |name: &str| name.contains("(cloud-init)") || name.contains(".iso");
        let disks = disks.values().map(|disk| disk.name_label.clone());
        names.extend(disks.filter(|name| !from_the_start(name)));
        names.sort();
        names
    }
}
