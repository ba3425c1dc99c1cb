//! A whole life of a VM, through the pool: from the seed's upload to a login, and to nothing.

use std::net::Ipv4Addr;
use std::time::Duration;

use serde_json::{Value, json};
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
