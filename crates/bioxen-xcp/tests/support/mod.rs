//! A simulated pool whose guests can be entered, as a controller is told of it.

use std::time::Duration;

use bioxen_core::{Place, VmSpec};
use bioxen_testkit::PATIENCE;
use bioxen_xcp::tags::Tags;
use bioxen_xcp::{
    Configuration, PoolName, PoolSettings, TrustSettings, XcpngBackend, XcpngBuilder,
};
use tempfile::TempDir;
use uuid::Uuid;
use xenapi::{Client, Ref, class};
use xenapi_sim::Pool;
use xenapi_sim::guest::ProcessOptions;

/// The template that guests are made from.
const TEMPLATE: &str = "Debian 12 (cloud-init)";

/// The memory of its host: enough for all VMs that tests make at once.
const HOST_MEMORY: u64 = 256 << 30;

pub(crate) struct SimulatedPool {
    pub(crate) sim: Pool,
    configuration: Configuration,
    port: u16,
    // Held for its password file.
    _files: TempDir,
}

impl SimulatedPool {
    pub(crate) async fn start(options: ProcessOptions) -> Self {
        let port = if nix::unistd::geteuid().is_root() { 22 } else { 2222 };
        let options = ProcessOptions { ssh_port: Some(port), ..options };
        let sim = Pool::builder()
            .http()
            .host_memory(HOST_MEMORY)
            .event_batching(Duration::ZERO)
            .process_guests(options)
            .start()
            .await
            .unwrap();
        let files = tempfile::tempdir().unwrap();
        let password = files.path().join("password");
        std::fs::write(&password, sim.password()).unwrap();
        let settings = PoolSettings {
            name: PoolName::new("sim").unwrap(),
            addresses: vec![sim.url().parse().unwrap()],
            user: "root".into(),
            password: format!("file:{}", password.display()).parse().unwrap(),
            trust: TrustSettings::Nothing,
            guests: bioxen_xcp::GuestSettings::default(),
        };
        let mut configuration = Configuration::read(files.path().join("config.toml")).unwrap();
        configuration.add_pool(&settings).unwrap();
        Self { sim, configuration, port, _files: files }
    }

    /// Settings for a backend that makes its VMs on this pool.
    pub(crate) fn backend(&self) -> XcpngBuilder {
        XcpngBackend::builder(self.configuration.clone())
    }

    /// The order for a VM whose guest can be entered.
    pub(crate) fn spec(&self, name: &str) -> VmSpec {
        let mut spec = VmSpec::xcpng(name).unwrap().template(TEMPLATE);
        let Place::Xcpng(machine) = &mut spec.place else { panic!("another place") };
        machine.port = Some(self.port);
        spec
    }

    /// A session of somebody who looks on.
    pub(crate) async fn onlooker(&self) -> Client {
        self.configuration.pool("sim").unwrap().connect().await.unwrap()
    }
}

/// The machines of a controller, by the VM that each of them is.
pub(crate) async fn machines(onlooker: &Client, fleet: Uuid) -> Vec<(String, Ref<class::Vm>)> {
    let vms = onlooker.vm().get_all_records().await.unwrap();
    let tags = |vm: &xenapi::vm::Record| Tags::read(&vm.other_config);
    let of_fleet = vms.iter().filter_map(|(vm, record)| {
        let tags = tags(record).filter(|tags| tags.fleet == Some(fleet))?;
        Some((tags.vm?.to_string(), vm.clone()))
    });
    of_fleet.collect()
}

/// The disks that no machine has, those of the pool from its start left out.
async fn ownerless_disks(onlooker: &Client) -> Vec<Ref<class::Vdi>> {
    let disks = onlooker.vdi().get_all_records().await.unwrap();
    let ownerless = disks.into_iter().filter(|(_, disk)| {
        disk.vbds.is_empty() && !disk.name_label.contains(".iso") && !disk.is_tools_iso
    });
    ownerless.map(|(disk, _)| disk).collect()
}

/// Checks that no machine of a controller is there, and no disk that was one's: such a disk is nobody's
/// for a moment only.
pub(crate) async fn nothing_is_left_of(onlooker: &Client, fleet: Uuid) {
    assert_eq!(machines(onlooker, fleet).await, []);
    let mut suspects = ownerless_disks(onlooker).await;
    let going = async {
        while !suspects.is_empty() {
            let now = ownerless_disks(onlooker).await;
            suspects.retain(|disk| now.contains(disk));
            tokio::time::sleep(Duration::from_millis(20)).await;
        }
    };
    tokio::time::timeout(PATIENCE, going).await.expect("no disk is left");
}
