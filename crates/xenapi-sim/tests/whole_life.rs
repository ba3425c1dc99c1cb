//! The whole life of a VM, from a template to nothing: each call that it takes, and how each is refused.
#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]

mod support;

use std::time::Duration;

use serde_json::{Value, json};
use support::{Client, NULL, as_root, pool, raw};
use xenapi_sim::guest::GuestFault;
use xenapi_sim::{GuestFaultRule, Pool};

const GIB: i64 = 1 << 30;
const MIB: i64 = 1 << 20;

impl Client {
    async fn power_state(&self, vm: &str) -> String {
        self.text("VM.get_power_state", json!([vm])).await
    }

    async fn running(&self, name: &str) -> String {
        let vm = self.new_vm(name).await;
        self.ok("VM.start", json!([vm, false, false])).await;
        self.until_agent(&vm).await;
        vm
    }

    async fn first(&self, object: &str, set: &str) -> String {
        let class = if set == "VDI" { "VBD" } else { "VM" };
        let found = self.ok(&format!("{class}.get_{set}"), json!([object])).await;
        found.as_str().or(found[0].as_str()).unwrap().to_owned()
    }

    async fn disk_of(&self, vm: &str) -> String {
        let drive = self.first(vm, "VBDs").await;
        self.first(&drive, "VDI").await
    }

    async fn allows(&self, vm: &str, operation: &str) -> bool {
        let allowed = self.ok("VM.get_allowed_operations", json!([vm])).await;
        allowed.as_array().unwrap().contains(&json!(operation))
    }

    async fn new_disk(&self, size: i64) -> String {
        let sr = self.ok("SR.get_by_name_label", json!(["Local storage"])).await[0].clone();
        let fields = json!({
            "name_label": "data", "SR": sr, "virtual_size": size, "type": "user",
            "sharable": false, "read_only": false, "other_config": {},
        });
        self.text("VDI.create", json!([fields])).await
    }

    async fn free_memory(&self) -> i64 {
        let host = self.ok("host.get_all", json!([])).await[0].clone();
        let exact = self.ok("host.compute_free_memory", json!([host])).await.as_i64().unwrap();
        let metrics = self.ok("host.get_metrics", json!([host])).await;
        let told = self.ok("host_metrics.get_record", json!([metrics])).await;
        assert_eq!(told["memory_free"], exact, "what the metrics tell is what is counted");
        exact
    }
}

fn drive(vm: &str, disk: &str, more: &Value) -> Value {
    let mut fields = json!({
        "VM": vm, "VDI": disk, "userdevice": "autodetect", "bootable": false, "mode": "RW",
        "type": "Disk", "unpluggable": true, "empty": false, "other_config": {},
        "qos_algorithm_type": "", "qos_algorithm_params": {},
    });
    let fields_of = fields.as_object_mut().unwrap();
    fields_of.extend(more.as_object().unwrap().clone());
    fields
}

fn interface(vm: &str, network: &Value, more: &Value) -> Value {
    let mut fields = json!({
        "VM": vm, "network": network, "device": "autodetect", "MAC": "", "MTU": "1500",
        "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
    });
    fields.as_object_mut().unwrap().extend(more.as_object().unwrap().clone());
    fields
}

#[tokio::test]
async fn a_clone_of_a_template_is_a_template_until_it_is_provisioned() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let template = client.ok("VM.get_by_name_label", json!(["Debian 12 (cloud-init)"])).await;
    let vm = client.text("VM.clone", json!([template[0], "one"])).await;
    assert_eq!(client.ok("VM.get_is_a_template", json!([vm])).await, true);
    let refused = client.fails("VM.start", json!([vm, false, false])).await;
    assert_eq!(refused, ["VM_IS_TEMPLATE", &vm, "start"]);
    client.ok("VM.provision", json!([vm])).await;
    let refused = client.fails("VM.provision", json!([vm])).await;
    assert_eq!(refused, ["PROVISION_ONLY_ALLOWED_ON_TEMPLATE"]);
    let blank = client.ok("VM.get_by_name_label", json!(["Other install media"])).await;
    let unready = client.text("VM.clone", json!([blank[0], "two"])).await;
    let refused = client.fails("VM.provision", json!([unready])).await;
    assert_eq!(refused, ["UUID_INVALID", "sr", ""]);
    // The flag goes first, so what is left is a VM without disks.
    assert_eq!(client.ok("VM.get_is_a_template", json!([unready])).await, false);
    client.ok("VM.destroy", json!([unready])).await;
}

#[tokio::test]
async fn a_running_vm_is_neither_cloned_nor_destroyed() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.running("busy").await;
    for (call, arguments) in [("VM.clone", json!([vm, "x"])), ("VM.copy", json!([vm, "x", NULL]))] {
        let refused = client.fails(call, arguments).await;
        assert_eq!(refused, ["VM_BAD_POWER_STATE", &vm, "halted", "running"]);
    }
    let refused = client.fails("VM.destroy", json!([vm])).await;
    assert_eq!(refused, ["VM_BAD_POWER_STATE", &vm, "halted, suspended", "running"]);
    let refused = client.fails("VM.start", json!([vm, false, false])).await;
    assert_eq!(refused, ["VM_BAD_POWER_STATE", &vm, "halted", "running"]);
    assert!(!client.allows(&vm, "clone").await && client.allows(&vm, "clean_shutdown").await);
}

#[tokio::test]
async fn what_was_destroyed_is_not_there_to_be_destroyed_again() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("gone").await;
    let disk = client.disk_of(&vm).await;
    let refused = client.fails("VM.hard_shutdown", json!([vm])).await;
    let expected = "paused, suspended, running";
    assert_eq!(refused, ["VM_BAD_POWER_STATE", &vm, expected, "halted"]);
    client.ok("VM.destroy", json!([vm])).await;
    assert_eq!(client.fails("VM.destroy", json!([vm])).await, ["HANDLE_INVALID", "VM", &vm]);
    // Its disk is still there, and goes by a call of its own.
    client.ok("VDI.destroy", json!([disk])).await;
    assert_eq!(client.fails("VDI.destroy", json!([disk])).await, ["HANDLE_INVALID", "VDI", &disk]);
}

#[tokio::test]
async fn memory_and_processors_are_set_in_an_order_that_keeps_their_bounds() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("sized").await;
    let limits = json!([vm, GIB, 4 * GIB, 2 * GIB, 4 * GIB]);
    client.ok("VM.set_memory_limits", limits).await;
    let wrong = client.fails("VM.set_memory_limits", json!([vm, GIB, 2 * GIB, GIB, 4 * GIB])).await;
    assert_eq!(wrong, ["MEMORY_CONSTRAINT_VIOLATION_ORDER"]);
    client.ok("VM.set_VCPUs_max", json!([vm, 4])).await;
    client.ok("VM.set_VCPUs_at_startup", json!([vm, 4])).await;
    assert_eq!(client.fails("VM.set_VCPUs_max", json!([vm, 2])).await[0], "INVALID_VALUE");
    client.ok("VM.add_to_platform", json!([vm, "cores-per-socket", "3"])).await;
    let refused = client.fails("VM.start", json!([vm, false, false])).await;
    assert_eq!(refused, ["VCPU_MAX_NOT_CORES_PER_SOCKET_MULTIPLE", "4", "3"]);
    client.ok("VM.remove_from_platform", json!([vm, "cores-per-socket"])).await;
    client.ok("VM.set_HVM_boot_params", json!([vm, {"order": "c", "firmware": "uefi"}])).await;
    client.ok("VM.set_HVM_shadow_multiplier", json!([vm, 1.5])).await;
    client.ok("VM.start", json!([vm, false, false])).await;
    client.until_agent(&vm).await;
    let refused = client.fails("VM.set_memory_limits", json!([vm, GIB, GIB, GIB, GIB])).await;
    assert_eq!(refused, ["VM_BAD_POWER_STATE", &vm, "halted", "running"]);
    client.ok("VM.set_VCPUs_number_live", json!([vm, 2])).await;
    let metrics = client.ok("VM.get_metrics", json!([vm])).await;
    assert_eq!(client.ok("VM_metrics.get_VCPUs_number", json!([metrics])).await, 2);
}

#[tokio::test]
async fn each_host_counts_the_memory_of_its_vms_whatever_ends_them() {
    let builder = Pool::builder().http().seed(1).password("s3cret").event_batching(Duration::ZERO);
    let pool = builder.start().await.unwrap();
    let client = Client::login(&pool).await;
    let whole = client.free_memory().await;
    let vm = client.new_vm("counted").await;
    client.ok("VM.set_memory_limits", json!([vm, GIB, 4 * GIB, 4 * GIB, 4 * GIB])).await;
    let overhead = client.ok("VM.compute_memory_overhead", json!([vm])).await.as_i64().unwrap();
    let uuid = client.text("VM.get_uuid", json!([vm])).await;
    for end in ["VM.clean_shutdown", "VM.hard_shutdown", "VM.suspend", "guest", "host"] {
        client.ok("VM.start", json!([vm, false, false])).await;
        client.until_agent(&vm).await;
        assert_eq!(client.free_memory().await, whole - 4 * GIB - overhead, "{end}");
        client.ok("VM.set_memory_dynamic_range", json!([vm, 2 * GIB, 3 * GIB])).await;
        assert_eq!(client.free_memory().await, whole - 2 * GIB - overhead, "{end}");
        if end == "guest" {
            let path = format!("/_sim/vms/{uuid}/poweroff");
            let done = raw(&pool.url(), as_root("POST", &path, "").as_bytes()).await.unwrap();
            assert_eq!(done.status, 200, "{}", done.text());
        } else if end == "host" {
            let host = client.ok("VM.get_resident_on", json!([vm])).await;
            let host = client.text("host.get_uuid", json!([host])).await.parse().unwrap();
            assert!(pool.kill_host(host).await && pool.revive_host(host));
        } else {
            client.ok(end, json!([vm])).await;
        }
        assert_eq!(client.free_memory().await, whole, "{end}");
        if client.power_state(&vm).await == "Suspended" {
            client.ok("VM.resume", json!([vm, false, false])).await;
            assert_eq!(client.free_memory().await, whole - 2 * GIB - overhead);
            client.ok("VM.hard_shutdown", json!([vm])).await;
        }
        client.ok("VM.set_memory_dynamic_range", json!([vm, 4 * GIB, 4 * GIB])).await;
    }
}

#[tokio::test]
async fn a_live_change_of_memory_that_does_not_fit_is_refused_in_kib() {
    let pool = Pool::builder().http().seed(1).host_memory(8 << 30).event_batching(Duration::ZERO);
    let pool = pool.start().await.unwrap();
    let client = Client::login(&pool).await;
    let vm = client.new_vm("growing").await;
    client.ok("VM.set_memory_limits", json!([vm, GIB, 16 * GIB, GIB, GIB])).await;
    client.ok("VM.start", json!([vm, false, false])).await;
    let free = client.free_memory().await;
    let more = json!([vm, 16 * GIB, 16 * GIB]);
    let refused = client.fails("VM.set_memory_dynamic_range", more).await;
    let (needed, free) = ((15 * GIB / 1024).to_string(), (free / 1024).to_string());
    assert_eq!(refused, ["HOST_NOT_ENOUGH_FREE_MEMORY", &needed, &free]);
}

#[tokio::test]
async fn a_host_that_loses_memory_takes_no_more_vms() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("late").await;
    let host = client.ok("host.get_all", json!([])).await[0].clone();
    let uuid = client.text("host.get_uuid", json!([host])).await.parse().unwrap();
    assert!(pool.set_host_memory(uuid, 1 << 30));
    let refused = client.fails("VM.start", json!([vm, false, false])).await;
    assert_eq!(refused[0], "HOST_NOT_ENOUGH_FREE_MEMORY");
    assert_eq!(client.ok("VM.get_possible_hosts", json!([vm])).await, json!([]));
    let refused = client.fails("VM.start_on", json!([vm, host, false, false])).await;
    assert_eq!(refused[0], "HOST_NOT_ENOUGH_FREE_MEMORY");
    assert!(pool.set_host_memory(uuid, 64 << 30));
    client.ok("VM.start_on", json!([vm, host, false, false])).await;
}

#[tokio::test]
async fn disks_grow_and_do_not_shrink() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("grown").await;
    let disk = client.disk_of(&vm).await;
    let size = client.ok("VDI.get_virtual_size", json!([disk])).await.as_i64().unwrap();
    client.ok("VDI.resize", json!([disk, size + 1])).await;
    assert_eq!(client.ok("VDI.get_virtual_size", json!([disk])).await, size + 2 * MIB);
    assert_eq!(client.fails("VDI.resize", json!([disk, size])).await[0], "SR_BACKEND_FAILURE_79");
    let data = client.new_disk(GIB).await;
    client.ok("VBD.create", json!([drive(&vm, &data, &json!({}))])).await;
    client.ok("VM.start", json!([vm, false, false])).await;
    let refused = client.fails("VDI.resize", json!([data, 2 * GIB])).await;
    assert_eq!(refused, ["VDI_IN_USE", &data, "resize"]);
    let refused = client.fails("VDI.destroy", json!([data])).await;
    assert_eq!(refused, ["VDI_IN_USE", &data, "destroy"]);
}

#[tokio::test]
async fn drives_are_plugged_unplugged_and_destroyed_while_the_vm_runs() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.running("plugged").await;
    let free = client.ok("VM.get_allowed_VBD_devices", json!([vm])).await;
    let data = client.new_disk(GIB).await;
    let vbd = client.text("VBD.create", json!([drive(&vm, &data, &json!({}))])).await;
    assert_eq!(client.ok("VBD.get_userdevice", json!([vbd])).await, free[0]);
    let taken = drive(&vm, &data, &json!({"userdevice": free[0]}));
    let refused = client.fails("VBD.create", json!([taken])).await;
    assert_eq!(refused, ["DEVICE_ALREADY_EXISTS", free[0].as_str().unwrap()]);
    let refused = client.fails("VBD.unplug", json!([vbd])).await;
    assert_eq!(refused, ["DEVICE_ALREADY_DETACHED", &vbd]);
    client.ok("VBD.plug", json!([vbd])).await;
    assert_eq!(client.fails("VBD.plug", json!([vbd])).await, ["DEVICE_ALREADY_ATTACHED", &vbd]);
    assert_eq!(client.fails("VBD.destroy", json!([vbd])).await[0], "OPERATION_NOT_ALLOWED");
    client.ok("VBD.unplug", json!([vbd])).await;
    client.ok("VBD.destroy", json!([vbd])).await;
    client.ok("VDI.destroy", json!([data])).await;
    let cd = drive(&vm, NULL, &json!({"type": "CD", "mode": "RO", "empty": true}));
    let cd = client.text("VBD.create", json!([cd])).await;
    assert_eq!(client.fails("VBD.eject", json!([cd])).await, ["VBD_IS_EMPTY", &cd]);
    let iso = client.ok("SR.get_by_name_label", json!(["ISO library"])).await[0].clone();
    let iso = client.ok("SR.get_VDIs", json!([iso])).await[0].clone();
    client.ok("VBD.insert", json!([cd, iso])).await;
    assert_eq!(client.fails("VBD.insert", json!([cd, iso])).await, ["VBD_NOT_EMPTY", &cd]);
    client.ok("VBD.eject", json!([cd])).await;
}

#[tokio::test]
async fn a_disk_belongs_to_one_running_vm_at_a_time() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let (one, two) = (client.running("one").await, client.new_vm("two").await);
    let disk = client.disk_of(&one).await;
    client.ok("VBD.create", json!([drive(&two, &disk, &json!({}))])).await;
    let refused = client.fails("VM.start", json!([two, false, false])).await;
    assert_eq!(refused, ["VDI_IN_USE", &disk]);
    assert_eq!(client.power_state(&two).await, "Halted");
}

#[tokio::test]
async fn interfaces_are_locked_to_addresses_that_are_some() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("locked").await;
    let network = client.ok("network.get_all", json!([])).await[0].clone();
    let locked = json!({
        "locking_mode": "locked", "ipv4_allowed": ["10.0.0.7"], "ipv6_allowed": ["fd00::7"],
    });
    let vif = client.text("VIF.create", json!([interface(&vm, &network, &locked)])).await;
    let record = client.ok("VIF.get_record", json!([vif])).await;
    assert_eq!(
        (&record["locking_mode"], &record["ipv4_allowed"]),
        (&json!("locked"), &json!(["10.0.0.7"]))
    );
    let wrong = json!({"ipv4_allowed": ["fd00::7"]});
    let refused = client.fails("VIF.create", json!([interface(&vm, &network, &wrong)])).await;
    assert_eq!(refused, ["INVALID_IP_ADDRESS_SPECIFIED", "ipv4_allowed"]);
    client.ok("VIF.add_ipv4_allowed", json!([vif, "10.0.0.8"])).await;
    let refused = client.fails("VIF.add_ipv4_allowed", json!([vif, "10.0.0"])).await;
    assert_eq!(refused, ["INVALID_IP_ADDRESS_SPECIFIED", "ipv4_allowed"]);
    let allowed = client.ok("VIF.get_ipv4_allowed", json!([vif])).await;
    assert_eq!(allowed, json!(["10.0.0.7", "10.0.0.8"]));
    client.ok("VIF.set_ipv4_allowed", json!([vif, []])).await;
    client.ok("VIF.set_locking_mode", json!([vif, "disabled"])).await;
    let wrong = interface(&vm, &network, &json!({"MAC": "hello"}));
    assert_eq!(client.fails("VIF.create", json!([wrong])).await, ["MAC_INVALID", "hello"]);
    let free = client.ok("VM.get_allowed_VIF_devices", json!([vm])).await;
    assert!(!free.as_array().unwrap().contains(&record["device"]));
    client.ok("VIF.destroy", json!([vif])).await;
}

#[tokio::test]
async fn networks_and_vlans_come_and_go_unless_they_are_in_use() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let fields = json!({
        "name_label": "private", "name_description": "", "MTU": 1500, "other_config": {}, "tags": [],
    });
    let network = client.ok("network.create", json!([fields])).await;
    let vm = client.new_vm("on it").await;
    let vif = client.text("VIF.create", json!([interface(&vm, &network, &json!({}))])).await;
    let refused = client.fails("network.destroy", json!([network])).await;
    assert_eq!(refused, ["NETWORK_CONTAINS_VIF", &vif]);
    client.ok("VIF.destroy", json!([vif])).await;
    let pifs = client.ok("PIF.get_all", json!([])).await;
    let pif = pifs[0].as_str().unwrap();
    let vlan = client.text("VLAN.create", json!([pif, 70, network])).await;
    let refused = client.fails("VLAN.create", json!([pif, 70, network])).await;
    assert_eq!(refused, ["PIF_VLAN_EXISTS", pif]);
    assert_eq!(
        client.fails("VLAN.create", json!([pif, 5000, network])).await[0],
        "VLAN_TAG_INVALID"
    );
    assert_eq!(client.fails("network.destroy", json!([network])).await[0], "NETWORK_CONTAINS_PIF");
    client.ok("VM.destroy", json!([vm])).await;
    client.ok("VLAN.destroy", json!([vlan])).await;
    client.ok("network.destroy", json!([network])).await;
    let refused = client.fails("network.destroy", json!([network])).await;
    assert_eq!(refused, ["HANDLE_INVALID", "network", network.as_str().unwrap()]);
}

#[tokio::test]
async fn a_guest_that_does_not_shut_down_is_waited_for_until_the_call_is_cancelled() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    pool.guest_fault(GuestFaultRule::new("deaf", [GuestFault::IgnoresShutdown]).times(1));
    let vm = client.running("deaf").await;
    for call in ["VM.clean_shutdown", "VM.clean_reboot"] {
        let task = client.text(&format!("Async.{call}"), json!([vm])).await;
        let operation = call.strip_prefix("VM.").unwrap();
        client.until(&vm, "current_operations", &json!({ (task.as_str()): operation })).await;
        client.ok("task.cancel", json!([task])).await;
        assert_eq!(client.wait(&task).await["status"], "cancelled", "{call}");
        assert_eq!(client.power_state(&vm).await, "Running");
    }
    client.ok("VM.hard_reboot", json!([vm])).await;
    client.until_agent(&vm).await;
    // The fault was for one boot.
    client.ok("VM.clean_shutdown", json!([vm])).await;
    assert_eq!(client.power_state(&vm).await, "Halted");
}

#[tokio::test]
async fn a_guest_that_does_not_shut_down_in_time_makes_the_call_fail() {
    let builder = Pool::builder().http().seed(1).event_batching(Duration::ZERO);
    let pool = builder.shutdown_limit(Duration::from_millis(20)).start().await.unwrap();
    let client = Client::login(&pool).await;
    pool.guest_fault(GuestFaultRule::new("*", [GuestFault::IgnoresShutdown]));
    let vm = client.running("deaf").await;
    let refused = client.fails("VM.clean_shutdown", json!([vm])).await;
    assert_eq!(refused, ["VM_SHUTDOWN_TIMEOUT", &vm, "0"]);
    client.ok("VM.shutdown", json!([vm])).await;
    assert_eq!(client.power_state(&vm).await, "Halted");
}

#[tokio::test]
async fn an_address_may_never_be_told() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    pool.guest_fault(GuestFaultRule::new("lost", [GuestFault::NoAddress]));
    let vm = client.running("lost").await;
    let metrics = client.ok("VM.get_guest_metrics", json!([vm])).await;
    assert_eq!(client.ok("VM_guest_metrics.get_networks", json!([metrics])).await, json!({}));
}

#[tokio::test]
async fn reboots_keep_the_vm_running_and_replace_what_its_agent_said() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.running("again").await;
    for call in ["VM.clean_reboot", "VM.hard_reboot"] {
        let before = client.ok("VM.get_guest_metrics", json!([vm])).await;
        client.ok(call, json!([vm])).await;
        assert_eq!(client.power_state(&vm).await, "Running");
        assert_ne!(client.ok("VM.get_guest_metrics", json!([vm])).await, before, "{call}");
        client.until_agent(&vm).await;
    }
}

#[tokio::test]
async fn a_suspended_vm_keeps_its_disks_and_gives_its_memory_back() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.running("asleep").await;
    let disk = client.disk_of(&vm).await;
    client.ok("VM.suspend", json!([vm])).await;
    let record = client.ok("VM.get_record", json!([vm])).await;
    assert_eq!(record["power_state"], "Suspended");
    let image = record["suspend_VDI"].as_str().unwrap();
    assert_eq!(client.ok("VDI.get_type", json!([image])).await, "suspend");
    assert_eq!(client.fails("VDI.destroy", json!([disk])).await[0], "VDI_IN_USE");
    let refused = client.fails("VM.start", json!([vm, false, false])).await;
    assert_eq!(refused, ["VM_BAD_POWER_STATE", &vm, "halted", "suspended"]);
    client.ok("VM.resume", json!([vm, true, false])).await;
    assert_eq!(client.power_state(&vm).await, "Paused");
    client.ok("VM.unpause", json!([vm])).await;
    assert_eq!(client.fails("VDI.get_type", json!([image])).await[0], "HANDLE_INVALID");
    client.ok("VM.suspend", json!([vm])).await;
    client.ok("VM.destroy", json!([vm])).await;
    let left = client.ok("VDI.get_all_records_where", json!(["field \"type\"=\"suspend\""])).await;
    assert_eq!(left, json!({}));
}

#[tokio::test]
async fn snapshots_are_taken_running_and_halted_and_go_with_their_disks() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let disks = client.ok("VDI.get_all", json!([])).await.as_array().unwrap().len();
    let vm = client.running("kept").await;
    let live = client.text("VM.snapshot", json!([vm, "live"])).await;
    client.ok("VM.clean_shutdown", json!([vm])).await;
    let halted = client.text("VM.snapshot", json!([vm, "halted"])).await;
    assert_eq!(client.ok("VM.get_snapshots", json!([vm])).await, json!([live, halted]));
    for (snapshot, state) in [(&live, "Running"), (&halted, "Halted")] {
        let info = client.ok("VM.get_snapshot_info", json!([snapshot])).await;
        assert_eq!(info["power-state-at-snapshot"], state);
        let refused = client.fails("VM.start", json!([snapshot, false, false])).await;
        assert_eq!(refused, ["VM_IS_SNAPSHOT", snapshot, "start"]);
    }
    assert_eq!(client.fails("VM.revert", json!([vm])).await, ["REVERT_ONLY_ALLOWED_ON_SNAPSHOT"]);
    client.ok("VM.set_name_label", json!([vm, "changed"])).await;
    client.ok("VM.start", json!([vm, false, false])).await;
    client.ok("VM.revert", json!([live])).await;
    let record = client.ok("VM.get_record", json!([vm])).await;
    assert_eq!((&record["name_label"], &record["power_state"]), (&json!("kept"), &json!("Halted")));
    assert_eq!(record["parent"], json!(live));
    client.ok("VM.start", json!([vm, false, false])).await;
    client.ok("VM.hard_shutdown", json!([vm])).await;
    for gone in [&live, &halted, &vm] {
        let disk = client.disk_of(gone).await;
        client.ok("VM.destroy", json!([gone])).await;
        client.ok("VDI.destroy", json!([disk])).await;
    }
    let left = client.ok("VDI.get_all", json!([])).await.as_array().unwrap().len();
    assert_eq!(left, disks, "no disk of any of them is left");
}

#[tokio::test]
async fn a_snapshot_becomes_a_vm_by_a_clone_of_it() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.running("origin").await;
    let snapshot = client.text("VM.snapshot", json!([vm, "base"])).await;
    let copy = client.text("VM.clone", json!([snapshot, "copy"])).await;
    client.ok("VM.set_is_a_template", json!([copy, false])).await;
    client.ok("VM.start", json!([copy, false, false])).await;
    assert_eq!(client.ok("VM.get_is_a_snapshot", json!([copy])).await, false);
    assert_ne!(client.disk_of(&copy).await, client.disk_of(&vm).await);
}

#[tokio::test]
async fn a_vm_moves_within_the_pool_if_the_other_host_has_room() {
    let builder = Pool::builder().http().seed(1).hosts(2).event_batching(Duration::ZERO);
    let pool = builder.start().await.unwrap();
    let client = Client::login(&pool).await;
    let hosts = client.ok("host.get_all", json!([])).await;
    let vm = client.new_vm("mover").await;
    client.ok("VM.start_on", json!([vm, hosts[0], false, false])).await;
    let uuid = client.text("host.get_uuid", json!([hosts[1]])).await.parse().unwrap();
    assert!(pool.set_host_memory(uuid, 1 << 30));
    let destination = client.ok("host.migrate_receive", json!([hosts[1], NULL, {}])).await;
    let send = json!([vm, destination, true, {}, {}, {}]);
    let full = "HOST_NOT_ENOUGH_FREE_MEMORY";
    assert_eq!(client.fails("VM.pool_migrate", json!([vm, hosts[1], {}])).await[0], full);
    assert_eq!(client.fails("VM.migrate_send", send.clone()).await[0], full);
    assert!(pool.set_host_memory(uuid, 64 << 30));
    client.ok("VM.migrate_send", send).await;
    assert_eq!(client.ok("VM.get_resident_on", json!([vm])).await, hosts[1]);
    client.ok("VM.pool_migrate", json!([vm, hosts[0], {"live": "true"}])).await;
    assert_eq!(client.ok("VM.get_resident_on", json!([vm])).await, hosts[0]);
}

#[tokio::test]
async fn a_host_leaves_the_pool_only_when_it_is_dead() {
    let builder = Pool::builder().http().seed(1).hosts(2).event_batching(Duration::ZERO);
    let pool = builder.start().await.unwrap();
    let client = Client::login(&pool).await;
    let hosts = client.ok("host.get_all", json!([])).await;
    let master = client.ok("pool.get_all_records", json!([])).await;
    let master = master.as_object().unwrap().values().next().unwrap()["master"].clone();
    let other = if hosts[0] == master { &hosts[1] } else { &hosts[0] };
    let name = |host: &Value| host.as_str().unwrap().to_owned();
    let refused = client.fails("host.destroy", json!([master])).await;
    assert_eq!(refused, ["HOST_CANNOT_DESTROY_SELF", &name(&master)]);
    let refused = client.fails("host.destroy", json!([other])).await;
    assert_eq!(refused, ["HOST_IS_LIVE", &name(other)]);
    let vm = client.new_vm("victim").await;
    client.ok("VM.start_on", json!([vm, other, false, false])).await;
    let uuid = client.text("host.get_uuid", json!([other])).await.parse().unwrap();
    assert!(pool.kill_host(uuid).await);
    assert_eq!(client.power_state(&vm).await, "Halted");
    client.ok("host.destroy", json!([other])).await;
    assert_eq!(client.ok("host.get_all", json!([])).await, json!([master]));
    client.ok("VM.start", json!([vm, false, false])).await;
}

#[tokio::test]
async fn a_template_may_vanish_between_two_calls() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let template = client.ok("VM.get_by_name_label", json!(["Debian 12 (cloud-init)"])).await;
    let template = template[0].as_str().unwrap();
    let disk = client.disk_of(template).await;
    let uuid = client.text("VM.get_uuid", json!([template])).await.parse().unwrap();
    assert!(pool.vanish(uuid).await);
    assert!(!pool.vanish(uuid).await);
    let refused = client.fails("VM.clone", json!([template, "x"])).await;
    assert_eq!(refused, ["HANDLE_INVALID", "VM", template]);
    assert_eq!(client.fails("VDI.get_uuid", json!([disk])).await, ["HANDLE_INVALID", "VDI", &disk]);
}

#[tokio::test]
async fn a_clone_does_not_fit_on_storage_that_is_full() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let template = client.ok("VM.get_by_name_label", json!(["Debian 12 (cloud-init)"])).await;
    let template = template[0].as_str().unwrap();
    let disk = client.disk_of(template).await;
    let sr = client.ok("VDI.get_SR", json!([disk])).await;
    let uuid = client.text("SR.get_uuid", json!([sr])).await.parse().unwrap();
    let before = client.ok("VDI.get_all", json!([])).await.as_array().unwrap().len();
    assert!(pool.fill_storage(uuid, true));
    let refused = client.fails("VM.clone", json!([template, "x"])).await;
    assert_eq!(refused[0], "SR_BACKEND_FAILURE_44");
    assert_eq!(client.ok("VM.get_by_name_label", json!(["x"])).await, json!([]));
    let after = client.ok("VDI.get_all", json!([])).await.as_array().unwrap().len();
    assert_eq!(after, before, "no half of a clone is left");
}
