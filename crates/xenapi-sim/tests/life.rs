//! The life of VMs, as callers see it.

mod support;

use std::time::Duration;

use serde_json::json;
use support::{Client, NULL, pool};
use xenapi_sim::Pool;

#[tokio::test]
async fn a_vm_waits_for_the_operation_before_it() {
    let pool = pool().await;
    pool.set_latency("VM.start", Duration::from_millis(300));
    let client = Client::login(&pool).await;
    let vm = client.new_vm("busy").await;
    let start = client.text("Async.VM.start", json!([vm, false, false])).await;
    client.until(&vm, "current_operations", &json!({ (start.as_str()): "start" })).await;
    let allowed = client.ok("VM.get_allowed_operations", json!([vm])).await;
    assert!(!allowed.as_array().unwrap().contains(&json!("clone")));
    // The snapshot conflicts with the start: it is made when the VM runs.
    let snapshot = client.text("VM.snapshot", json!([vm, "later"])).await;
    let info = client.ok("VM.get_snapshot_info", json!([snapshot])).await;
    assert_eq!(info["power-state-at-snapshot"], "Running");
    assert_eq!(client.wait(&start).await["status"], "success");
    assert_eq!(client.ok("VM.get_current_operations", json!([vm])).await, json!({}));
}

#[tokio::test]
async fn an_operation_that_waits_too_long_tells_what_it_waited_for() {
    let builder = Pool::builder().http().seed(1).event_batching(Duration::ZERO);
    let pool = builder.queue_limit(Duration::from_millis(20)).start().await.unwrap();
    pool.set_latency("VM.start", Duration::from_hours(1));
    let client = Client::login(&pool).await;
    let vm = client.new_vm("busy").await;
    let start = client.text("Async.VM.start", json!([vm, false, false])).await;
    client.until(&vm, "current_operations", &json!({ (start.as_str()): "start" })).await;
    let failure = client.fails("VM.clone", json!([vm, "x"])).await;
    assert_eq!(failure, ["OTHER_OPERATION_IN_PROGRESS", "VM", &vm, "start", &start]);
    client.ok("task.cancel", json!([start])).await;
    let record = client.wait(&start).await;
    assert_eq!(record["status"], "cancelled");
    assert_eq!(record["error_info"], json!(["TASK_CANCELLED", start]));
    assert_eq!(client.ok("VM.get_power_state", json!([vm])).await, "Halted");
}

#[tokio::test]
async fn a_hard_shutdown_ends_a_clean_one() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("stubborn").await;
    client.ok("VM.start", json!([vm, false, false])).await;
    client.until_agent(&vm).await;
    pool.set_latency("VM.clean_shutdown", Duration::from_hours(1));
    let clean = client.text("Async.VM.clean_shutdown", json!([vm])).await;
    client.until(&vm, "current_operations", &json!({ (clean.as_str()): "clean_shutdown" })).await;
    client.ok("VM.hard_shutdown", json!([vm])).await;
    assert_eq!(client.wait(&clean).await["status"], "cancelled");
    assert_eq!(client.ok("VM.get_power_state", json!([vm])).await, "Halted");
    assert_eq!(client.ok("VM.get_resident_on", json!([vm])).await, NULL);
}

#[tokio::test]
async fn a_pool_that_is_full_says_so() {
    let builder = Pool::builder().http().seed(1).event_batching(Duration::ZERO);
    let pool = builder.host_memory(8 << 30).start().await.unwrap();
    let client = Client::login(&pool).await;
    let vm = client.new_vm("first").await;
    client.ok("VM.start", json!([vm, false, false])).await;
    let host = client.ok("VM.get_resident_on", json!([vm])).await;
    let free = client.ok("host.compute_free_memory", json!([host])).await.as_i64().unwrap();
    let other = client.new_vm("second").await;
    let gib = 1_i64 << 30;
    client.ok("VM.set_memory_limits", json!([other, gib, 4 * gib, 4 * gib, 4 * gib])).await;
    let overhead = client.ok("VM.compute_memory_overhead", json!([other])).await.as_i64().unwrap();
    assert_eq!(overhead, 37 << 20);
    let needed = (4 * gib + overhead).to_string();
    let failure = client.fails("VM.start", json!([other, false, false])).await;
    assert_eq!(failure, ["HOST_NOT_ENOUGH_FREE_MEMORY", &needed, &free.to_string()]);
    let why = client.fails("VM.assert_can_boot_here", json!([other, host])).await;
    assert_eq!(why[0], "HOST_NOT_ENOUGH_FREE_MEMORY");
    client.ok("host.disable", json!([host])).await;
    assert_eq!(
        client.fails("VM.start", json!([other, false, false])).await,
        ["NO_HOSTS_AVAILABLE"]
    );
    let why = client.fails("VM.assert_can_boot_here", json!([other, host])).await;
    assert_eq!(why, ["HOST_DISABLED", host.as_str().unwrap()]);
    assert_eq!(client.ok("VM.get_power_state", json!([other])).await, "Halted");
}

#[tokio::test]
async fn a_start_changes_all_that_hangs_on_the_vm() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("whole").await;
    let before = client.ok("VM.get_record", json!([vm])).await;
    client.ok("VM.start", json!([vm, false, false])).await;
    let after = client.ok("VM.get_record", json!([vm])).await;
    assert_ne!(before["guest_metrics"], after["guest_metrics"]);
    assert_eq!(after["power_state"], "Running");
    assert!(after["domid"].as_i64().unwrap() > 0);
    let host = client.ok("host.get_record", json!([after["resident_on"]])).await;
    assert!(host["resident_VMs"].as_array().unwrap().contains(&json!(vm)));
    let disk = client.ok("VBD.get_record", json!([after["VBDs"][0]])).await;
    assert_eq!((&disk["currently_attached"], &disk["device"]), (&json!(true), &json!("xvda")));
    let console = client.ok("console.get_record", json!([after["consoles"][0]])).await;
    assert_eq!(console["protocol"], "rfb");
    client.ok("VM.hard_shutdown", json!([vm])).await;
    let ended = client.ok("VM.get_record", json!([vm])).await;
    assert_eq!((&ended["domid"], &ended["consoles"]), (&json!(-1), &json!([])));
    // What the guest said last stays until the next start.
    assert_eq!(ended["guest_metrics"], after["guest_metrics"]);
    assert_eq!(client.ok("VBD.get_currently_attached", json!([after["VBDs"][0]])).await, false);
}

#[tokio::test]
async fn clones_get_addresses_of_their_own_and_a_seed_decides_them() {
    let macs = async || {
        let pool = pool().await;
        let client = Client::login(&pool).await;
        let mut macs = Vec::new();
        for name in ["one", "two"] {
            let vm = client.new_vm(name).await;
            let vifs = client.ok("VM.get_VIFs", json!([vm])).await;
            macs.push(client.text("VIF.get_MAC", json!([vifs[0]])).await);
        }
        macs
    };
    let (first, again) = (macs().await, macs().await);
    assert_ne!(first[0], first[1]);
    assert_eq!(first, again);
    let octet = u8::from_str_radix(&first[0][..2], 16).unwrap();
    assert_eq!(octet & 3, 2, "locally administered and not for many");
}

#[tokio::test]
async fn storage_that_is_full_takes_no_more_disks() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let sr = client.ok("SR.get_by_name_label", json!(["Local storage"])).await[0].clone();
    let record = client.ok("SR.get_record", json!([sr])).await;
    let disk = |size: i64| {
        json!([{
            "name_label": "d", "SR": sr, "virtual_size": size, "type": "user", "sharable": false,
            "read_only": false, "other_config": {},
        }])
    };
    let size = record["physical_size"].as_i64().unwrap();
    let one = client.ok("VDI.create", disk(size / 2 + 1)).await;
    assert_eq!(client.ok("SR.get_virtual_allocation", json!([sr])).await, size / 2 + (2 << 20));
    let full = client.fails("VDI.create", disk(size / 2 + 1)).await;
    assert_eq!((full[0].as_str(), full.len()), ("SR_BACKEND_FAILURE_44", 4));
    client.ok("VDI.destroy", json!([one])).await;
    assert_eq!(client.ok("SR.get_physical_utilisation", json!([sr])).await, 0);
    assert_eq!(client.fails("VDI.create", disk(3000 << 30)).await[0], "SR_BACKEND_FAILURE_79");
    let uuid = record["uuid"].as_str().unwrap().parse().unwrap();
    assert!(pool.fill_storage(uuid, true));
    assert_eq!(client.fails("VDI.create", disk(1)).await[0], "SR_BACKEND_FAILURE_44");
    assert!(pool.fill_storage(uuid, false));
    client.ok("VDI.create", disk(1)).await;
}

#[tokio::test]
async fn vms_move_between_the_hosts_of_a_pool() {
    let pool = Pool::builder()
        .http()
        .seed(1)
        .hosts(3)
        .event_batching(Duration::ZERO)
        .start()
        .await
        .unwrap();
    let client = Client::login(&pool).await;
    let hosts = client.ok("host.get_all", json!([])).await;
    assert_eq!(hosts.as_array().unwrap().len(), 3);
    let vm = client.new_vm("wanderer").await;
    client.ok("VM.start_on", json!([vm, hosts[1], false, false])).await;
    assert_eq!(client.ok("VM.get_resident_on", json!([vm])).await, hosts[1]);
    client.ok("VM.pool_migrate", json!([vm, hosts[2], {"live": "true"}])).await;
    assert_eq!(client.ok("VM.get_resident_on", json!([vm])).await, hosts[2]);
    client.ok("host.evacuate", json!([hosts[2]])).await;
    let now = client.ok("VM.get_resident_on", json!([vm])).await;
    assert_ne!(now, hosts[2]);
    let uuid = client.text("host.get_uuid", json!([now])).await.parse().unwrap();
    assert!(pool.kill_host(uuid).await);
    assert_eq!(client.ok("VM.get_power_state", json!([vm])).await, "Halted");
    assert_eq!(
        client.fails("VM.start_on", json!([vm, now, false, false])).await,
        ["HOST_NOT_LIVE"]
    );
}

#[tokio::test]
async fn a_guest_without_an_agent_is_never_heard_of() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("silent").await;
    let uuid = client.text("VM.get_uuid", json!([vm])).await.parse().unwrap();
    pool.mute_guest(uuid, true);
    client.ok("VM.start", json!([vm, false, false])).await;
    let metrics = client.ok("VM.get_guest_metrics", json!([vm])).await;
    assert_eq!(client.ok("VM_guest_metrics.get_networks", json!([metrics])).await, json!({}));
    assert_eq!(client.fails("VM.clean_shutdown", json!([vm])).await, ["VM_LACKS_FEATURE", &vm]);
    let vbds = client.ok("VM.get_VBDs", json!([vm])).await;
    client.ok("VBD.set_unpluggable", json!([vbds[0], true])).await;
    assert_eq!(client.fails("VBD.unplug", json!([vbds[0]])).await, ["VM_MISSING_PV_DRIVERS", &vm]);
    pool.mute_guest(uuid, false);
    client.ok("VM.hard_reboot", json!([vm])).await;
    client.until_agent(&vm).await;
    client.ok("VM.clean_shutdown", json!([vm])).await;
}

#[tokio::test]
async fn operations_can_be_blocked() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("precious").await;
    client.ok("VM.add_to_blocked_operations", json!([vm, "destroy", "it is precious"])).await;
    let failure = client.fails("VM.destroy", json!([vm])).await;
    assert_eq!(failure, ["OPERATION_BLOCKED", &vm, "it is precious"]);
    let allowed = client.ok("VM.get_allowed_operations", json!([vm])).await;
    assert!(!allowed.as_array().unwrap().contains(&json!("destroy")));
    client.ok("VM.remove_from_blocked_operations", json!([vm, "destroy"])).await;
    client.ok("VM.destroy", json!([vm])).await;
}

#[tokio::test]
async fn a_checkpoint_comes_back_suspended() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("remembered").await;
    client.ok("VM.start", json!([vm, false, false])).await;
    let checkpoint = client.text("VM.checkpoint", json!([vm, "with memory"])).await;
    assert_eq!(client.ok("VM.get_power_state", json!([checkpoint])).await, "Suspended");
    client.ok("VM.revert", json!([checkpoint])).await;
    assert_eq!(client.ok("VM.get_power_state", json!([vm])).await, "Suspended");
    client.ok("VM.resume", json!([vm, false, false])).await;
    assert_eq!(client.ok("VM.get_power_state", json!([vm])).await, "Running");
    assert_eq!(client.ok("VM.get_suspend_VDI", json!([vm])).await, NULL);
}

#[tokio::test]
async fn a_vm_is_copied_to_other_storage() {
    let pool = pool().await;
    let client = Client::login(&pool).await;
    let template =
        client.ok("VM.get_by_name_label", json!(["Alpine 3.20 (cloud-init)"])).await[0].clone();
    let local = client.ok("SR.get_by_name_label", json!(["Local storage"])).await[0].clone();
    let iso = client.ok("SR.get_by_name_label", json!(["ISO library"])).await[0].clone();
    assert_eq!(
        client.fails("VM.copy", json!([template, "c", iso])).await[0],
        "OPERATION_NOT_ALLOWED"
    );
    let copy = client.text("VM.copy", json!([template, "c", local])).await;
    let vbds = client.ok("VM.get_VBDs", json!([copy])).await;
    let disk = client.ok("VBD.get_VDI", json!([vbds[0]])).await;
    assert_eq!(client.ok("VDI.get_SR", json!([disk])).await, local);
}
