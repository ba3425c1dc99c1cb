//! What outlives the process of a pool, however it ended.
#![expect(clippy::unwrap_used, reason = "helpers of tests, as in tests")]

mod support;

use std::io::{BufRead, BufReader};
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use serde_json::json;
use support::Client;
use xenapi_sim::Pool;

async fn start(directory: &Path) -> Pool {
    let builder = Pool::builder().http().password("p").state(directory);
    builder.event_batching(Duration::ZERO).start().await.unwrap()
}

#[tokio::test]
async fn a_pool_goes_on_from_its_state_and_boots_the_vms_that_ran() {
    let directory = tempfile::tempdir().unwrap();
    let pool = start(directory.path()).await;
    let client = Client::login(&pool).await;
    let vm = client.new_vm("kept").await;
    client.ok("VM.start", json!([vm, false, false])).await;
    client.until_agent(&vm).await;
    let off = client.new_vm("off").await;
    let before = client.ok("VM.get_record", json!([vm])).await;
    let token = client.ok("event.from", json!([["vm"], "", 0.1])).await["token"].clone();
    let fingerprint = pool.fingerprint().to_owned();
    pool.stop().await;
    let pool = start(directory.path()).await;
    assert_eq!(pool.fingerprint(), fingerprint);
    let client = Client::login(&pool).await;
    let after = client.ok("VM.get_record", json!([vm])).await;
    for field in ["uuid", "VBDs", "VIFs", "resident_on", "power_state"] {
        assert_eq!(after[field], before[field], "{field}");
    }
    assert_eq!(after["power_state"], "Running");
    client.until_agent(&vm).await;
    client.ok("VM.clean_shutdown", json!([vm])).await;
    assert_eq!(client.ok("VM.get_power_state", json!([off])).await, "Halted");
    let since = client.ok("event.from", json!([["vm"], token, 1.0])).await;
    assert!(since["token"].as_str() > token.as_str());
    assert!(since["events"].as_array().unwrap().iter().any(|event| event["ref"] == vm));
    pool.stop().await;
}

#[tokio::test]
async fn memory_is_lost_with_the_hosts_unless_it_is_on_a_disk() {
    let directory = tempfile::tempdir().unwrap();
    let pool = start(directory.path()).await;
    let client = Client::login(&pool).await;
    let (paused, asleep) = (client.new_vm("paused").await, client.new_vm("asleep").await);
    for vm in [&paused, &asleep] {
        client.ok("VM.start", json!([vm, false, false])).await;
        client.until_agent(vm).await;
    }
    client.ok("VM.pause", json!([paused])).await;
    client.ok("VM.suspend", json!([asleep])).await;
    pool.stop().await;
    let pool = start(directory.path()).await;
    let client = Client::login(&pool).await;
    assert_eq!(client.ok("VM.get_power_state", json!([paused])).await, "Halted");
    assert_eq!(client.ok("VM.get_power_state", json!([asleep])).await, "Suspended");
    client.ok("VM.resume", json!([asleep, false, false])).await;
    client.until_agent(&asleep).await;
    client.ok("VM.clean_shutdown", json!([asleep])).await;
    pool.stop().await;
}

#[tokio::test]
async fn disks_keep_their_bytes_and_those_of_no_object_go() {
    let directory = tempfile::tempdir().unwrap();
    let pool = start(directory.path()).await;
    let client = Client::login(&pool).await;
    let sr = client.ok("SR.get_by_name_label", json!(["Local storage"])).await[0].clone();
    let fields = json!({
        "name_label": "data", "SR": sr, "virtual_size": 1 << 20, "type": "user",
        "sharable": false, "read_only": false, "other_config": {},
    });
    let disk = client.text("VDI.create", json!([fields])).await;
    let uuid = client.text("VDI.get_uuid", json!([disk])).await;
    let id = xenapi_sim::store::DiskId(uuid.parse().unwrap());
    pool.store().write_at(id, 7, b"genome").unwrap();
    pool.stop().await;
    let stray = directory.path().join("disks/00000000-0000-0000-0000-000000000001.raw");
    std::fs::write(&stray, "left by a crash").unwrap();
    let pool = start(directory.path()).await;
    let mut read = [0; 6];
    pool.store().read_at(id, 7, &mut read).unwrap();
    assert_eq!(&read, b"genome");
    assert!(!stray.exists());
    pool.stop().await;
}

#[tokio::test]
async fn a_directory_is_of_one_pool_at_a_time() {
    let directory = tempfile::tempdir().unwrap();
    let pool = start(directory.path()).await;
    let refused = Pool::builder().http().state(directory.path()).start().await.unwrap_err();
    assert!(refused.hint().starts_with("end the other pool"), "{refused}: {}", refused.hint());
    pool.stop().await;
}

/// A pool in a process of its own.
struct Process {
    child: Child,
    url: String,
}

impl Process {
    fn start(directory: &Path) -> Self {
        let mut command = Command::new(env!("CARGO_BIN_EXE_xenapi-sim"));
        command.args(["--listen", "127.0.0.1:0", "--http", "--event-batching", "0s", "--state"]);
        command.arg(directory).env("XENAPI_SIM_PASSWORD", "p");
        let mut child = command.stdout(Stdio::piped()).spawn().unwrap();
        let mut url = String::new();
        BufReader::new(child.stdout.take().unwrap()).read_line(&mut url).unwrap();
        Self { child, url: url.trim().to_owned() }
    }

    fn kill(&mut self) {
        self.child.kill().unwrap();
        self.child.wait().unwrap();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        // It may have been killed already.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

/// Makes and changes VMs for as long as the pool answers; the last name that each was told to have.
async fn work(url: &str, round: usize) -> Vec<(String, String)> {
    let Ok(client) = Client::login_as(url, "root", "p").await else { return Vec::new() };
    let mut kept = Vec::new();
    let Ok(template) = client.call("VM.get_by_name_label", json!(["Debian 12 (cloud-init)"])).await
    else {
        return kept;
    };
    for number in 0.. {
        let name = format!("{round}-{number}");
        let Ok(vm) = client.call("VM.clone", json!([template[0], name])).await else { break };
        let vm = vm.as_str().unwrap().to_owned();
        kept.push((vm.clone(), name.clone()));
        if client.call("VM.provision", json!([vm])).await.is_err()
            || client.call("VM.start", json!([vm, false, false])).await.is_err()
        {
            break;
        }
        let renamed = format!("{name} runs");
        if client.call("VM.set_name_label", json!([vm, renamed])).await.is_err() {
            break;
        }
        if let Some(last) = kept.last_mut() {
            last.1 = renamed;
        }
    }
    kept
}

#[tokio::test(flavor = "multi_thread", worker_threads = 2)]
async fn whenever_the_process_is_killed_what_it_told_is_kept() {
    let directory = tempfile::tempdir().unwrap();
    let mut kept: Vec<(String, String)> = Vec::new();
    for round in 0..6 {
        let mut process = Process::start(directory.path());
        let url = process.url.clone();
        let worker = tokio::spawn(async move { work(&url, round).await });
        // Somewhere in the middle of the work, and elsewhere each time.
        tokio::time::sleep(Duration::from_millis(60 + 47 * round as u64)).await;
        process.kill();
        kept.extend(worker.await.unwrap());
        let again = Process::start(directory.path());
        let client = Client::login_as(&again.url, "root", "p").await.unwrap();
        for (vm, name) in &kept {
            let record = client.ok("VM.get_record", json!([vm])).await;
            let found = record["name_label"].as_str().unwrap();
            // A change that was not answered may have been made.
            assert!(found.starts_with(name.as_str()), "{found}, not {name}");
            let state = if name.ends_with("runs") { "Running" } else { "Halted or Running" };
            assert!(state.contains(record["power_state"].as_str().unwrap()), "{name}: {record}");
            assert_eq!(record["current_operations"], json!({}));
            assert_eq!(record["VBDs"].as_array().unwrap().len(), 1, "{name} has its disk");
            for drive in record["VBDs"].as_array().unwrap() {
                let disk = client.ok("VBD.get_VDI", json!([drive])).await;
                client.ok("VDI.get_uuid", json!([disk])).await;
            }
        }
    }
    assert!(kept.len() > 6, "little was done in between: {}", kept.len());
}
