//! A whole life of a VM, through the pool: from the seed's upload to a login, and to nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use xenapi_sim::Pool;
use xenapi_sim::guest::ProcessOptions;

use crate::client::{MIB, Session};
use crate::rig::{Client, has_ssh, printed, seed_image};

const PATIENCE: Duration = Duration::from_mins(1);

impl Session {
    /// A VM that is off, with an interface and this seed on its disk.
    async fn vm_with_seed(&self, seed: &[u8]) -> String {
        let templates = self.call("VM.get_by_name_label", json!(["Other install media"])).await;
        let vm = self.call("VM.clone", json!([templates[0], "guest"])).await;
        self.call("VM.remove_from_other_config", json!([vm, "disks"])).await;
        self.call("VM.provision", json!([vm])).await;
        let vdi = self.disk(2 * MIB).await;
        let upload = format!("/import_raw_vdi?vdi={vdi}");
        let answer = self.put(&upload, Some(seed.len() as u64), seed).await;
        self.succeeded(&answer).await;
        let drive = json!({
            "VM": vm, "VDI": vdi, "userdevice": "autodetect", "bootable": false, "mode": "RW",
            "type": "Disk", "unpluggable": true, "empty": false, "other_config": {"owner": ""},
            "qos_algorithm_type": "", "qos_algorithm_params": {},
        });
        self.call("VBD.create", json!([drive])).await;
        let networks = self.call("network.get_all", json!([])).await;
        let interface = json!({
            "VM": vm, "network": networks[0], "device": "0", "MAC": "", "MTU": "1500",
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
        });
        self.call("VIF.create", json!([interface])).await;
        vm.as_str().unwrap().to_owned()
    }

    /// Waits until something about a VM's guest holds.
    async fn metrics(&self, vm: &str, holds: impl Fn(&Value) -> bool) -> Value {
        let waited = async {
            loop {
                let metrics = self.call("VM.get_guest_metrics", json!([vm])).await;
                let record = self.call("VM_guest_metrics.get_record", json!([metrics])).await;
                if holds(&record) {
                    return record;
                }
                self.call("event.from", json!([["VM_guest_metrics"], "", 0.1])).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.expect("in time")
    }

    /// Makes something happen to the pool, as its tester.
    async fn sim(&self, path: &str) {
        let mut stream = self.connect(0).await;
        let request = format!(
            "POST {path} HTTP/1.1\r\nAuthorization: Basic cm9vdDpzZWNyZXQ=\r\nConnection: close\r\n\
             Content-Length: 0\r\n\r\n"
        );
        stream.write_all(request.as_bytes()).await.unwrap();
        let mut answer = String::new();
        stream.read_to_string(&mut answer).await.unwrap();
        assert!(answer.starts_with("HTTP/1.1 200"), "{path}: {answer}");
    }

    async fn halted(&self, vm: &str) {
        let waited = async {
            while self.call("VM.get_power_state", json!([vm])).await != "Halted" {
                self.call("event.from", json!([["VM"], "", 0.1])).await;
            }
        };
        tokio::time::timeout(PATIENCE, waited).await.expect("in time");
    }
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn a_vm_can_be_logged_into_by_the_address_that_the_pool_tells() {
    if !has_ssh() {
        return;
    }
    let pool = Pool::builder().http().password("secret").seed(3);
    let pool = pool
        .process_guests(ProcessOptions { ssh_port: Some(2222), ..ProcessOptions::default() })
        .start()
        .await
        .unwrap();
    let session = Session::of(pool).await;
    let client = Client::new(2222);
    let vm = session.vm_with_seed(&seed_image(&client.user_data(""), &[])).await;
    session.call("VM.start", json!([vm, false, false])).await;
    let metrics = session.metrics(&vm, |metrics| metrics["networks"]["0/ip"].is_string()).await;
    let address: Ipv4Addr = metrics["networks"]["0/ip"].as_str().unwrap().parse().unwrap();
    assert_eq!(printed(&client.ssh(address, "lua", &["hostname"])), "node\n");

    // It ends when it wants to, when it is told to, and for good.
    client.ssh(address, "lua", &["sudo poweroff"]);
    session.halted(&vm).await;
    session.call("VM.start", json!([vm, false, false])).await;
    session.metrics(&vm, |metrics| metrics["networks"]["0/ip"].is_string()).await;
    printed(&client.ssh(address, "lua", &["true"]));
    session.call("VM.suspend", json!([vm])).await;
    session.call("VM.resume", json!([vm, false, false])).await;
    printed(&client.ssh(address, "lua", &["true"]));
    session.call("VM.clean_shutdown", json!([vm])).await;
    session.halted(&vm).await;
    session.call("VM.destroy", json!([vm])).await;
    session.pool.stop().await;
}

/// Whether somebody answers SSH there.
async fn answers(address: Ipv4Addr) -> bool {
    tokio::net::TcpStream::connect((address, 2222)).await.is_ok()
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whatever_ends_a_vm_ends_the_processes_of_its_guest() {
    let builder = Pool::builder().http().password("secret").seed(4).hosts(2);
    let options = ProcessOptions { ssh_port: Some(2222), ..ProcessOptions::default() };
    let pool = builder.process_guests(options).start().await.unwrap();
    let session = Session::of(pool).await;
    let vm = session.vm_with_seed(&seed_image("#cloud-config\n", &[])).await;
    let uuid = session.call("VM.get_uuid", json!([vm])).await.as_str().unwrap().to_owned();
    let start = async || {
        session.call("VM.start", json!([vm, false, false])).await;
        let metrics = session.metrics(&vm, |metrics| metrics["networks"]["0/ip"].is_string()).await;
        let address: Ipv4Addr = metrics["networks"]["0/ip"].as_str().unwrap().parse().unwrap();
        assert!(answers(address).await);
        address
    };
    let address = start().await;
    session.sim(&format!("/_sim/vms/{uuid}/poweroff")).await;
    assert!(!answers(address).await);
    assert_eq!(session.call("VM.get_power_state", json!([vm])).await, "Halted");

    session.call("VM.set_actions_after_crash", json!([vm, "destroy"])).await;
    let address = start().await;
    session.sim(&format!("/_sim/vms/{uuid}/crash")).await;
    assert!(!answers(address).await);

    let address = start().await;
    let host = session.call("VM.get_resident_on", json!([vm])).await;
    let host = session.call("host.get_uuid", json!([host])).await;
    session.sim(&format!("/_sim/hosts/{}/die", host.as_str().unwrap())).await;
    assert!(!answers(address).await);
    assert_eq!(session.call("VM.get_power_state", json!([vm])).await, "Halted");

    start().await;
    session.sim(&format!("/_sim/vms/{uuid}/reboot")).await;
    assert_eq!(session.call("VM.get_power_state", json!([vm])).await, "Running");
    let metrics = session.metrics(&vm, |metrics| metrics["networks"]["0/ip"].is_string()).await;
    let again: Ipv4Addr = metrics["networks"]["0/ip"].as_str().unwrap().parse().unwrap();
    assert!(answers(again).await);
    session.sim(&format!("/_sim/vms/{uuid}/vanish")).await;
    assert!(!answers(again).await);
    session.pool.stop().await;
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn guests_that_ran_are_booted_again_on_their_state() {
    if !has_ssh() {
        return;
    }
    let directory = tempfile::tempdir().unwrap();
    let start = async || {
        let options = ProcessOptions { ssh_port: Some(2222), ..ProcessOptions::default() };
        let builder = Pool::builder().http().password("secret").state(directory.path());
        Session::of(builder.process_guests(options).start().await.unwrap()).await
    };
    let session = start().await;
    let client = Client::new(2222);
    let vm = session.vm_with_seed(&seed_image(&client.user_data(""), &[])).await;
    session.call("VM.start", json!([vm, false, false])).await;
    let address = |metrics: &Value| -> Ipv4Addr {
        metrics["networks"]["0/ip"].as_str().unwrap().parse().unwrap()
    };
    let metrics = session.metrics(&vm, |metrics| metrics["networks"]["0/ip"].is_string()).await;
    printed(&client.ssh(address(&metrics), "lua", &["echo genome > ~/kept"]));
    session.pool.stop().await;
    assert!(!answers(address(&metrics)).await);
    let session = start().await;
    let metrics = session.metrics(&vm, |metrics| metrics["networks"]["0/ip"].is_string()).await;
    assert_eq!(printed(&client.ssh(address(&metrics), "lua", &["cat ~/kept"])), "genome\n");
    session.pool.stop().await;
}
