//! `bioxen sim`, each time in a home of its own.

use std::net::{SocketAddr, TcpListener, TcpStream};
use std::os::unix::fs::PermissionsExt as _;
use std::path::PathBuf;
use std::process::Command;
use std::time::{Duration, Instant};

use bioxen_xcp::Configuration;
use serde_json::Value;
use tempfile::TempDir;
use tokio::runtime::Runtime;

use crate::support::{Ended, command};

/// How long something that another process does may take.
const PATIENCE: Duration = Duration::from_secs(30);

/// A home without anything in it; a pool that still runs in it ends with it.
pub(crate) struct Home {
    directory: TempDir,
}

impl Home {
    pub(crate) fn new() -> Self {
        Self { directory: tempfile::tempdir().unwrap() }
    }

    pub(crate) fn run(&self, arguments: &[&str]) -> Ended {
        let mut command = command(arguments);
        command.env("BIOXEN_HOME", self.directory.path());
        command.output().expect("the command can be started").into()
    }

    pub(crate) fn sim(&self, arguments: &[&str]) -> Ended {
        self.run(&[&["sim"], arguments].concat())
    }

    /// Starts the pool, and answers what is told of it.
    pub(crate) fn start(&self, arguments: &[&str]) -> Value {
        let started = self.sim(&[&["start", "--json"], arguments].concat());
        assert_eq!((started.code, started.stderr.as_str()), (Some(0), ""), "{started:?}");
        started.json()
    }

    pub(crate) fn status(&self) -> Value {
        self.sim(&["status", "--json"]).json()
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn configuration(&self) -> Configuration {
        Configuration::read(self.path("config/config.toml")).unwrap()
    }

    /// Kills the pool's process; returns when it has ended.
    fn kill(&self) {
        let pid = self.status()["pid"].to_string();
        assert!(Command::new("kill").args(["-9", &pid]).status().unwrap().success());
        let start = Instant::now();
        // For a moment it may still be there and not answer any more, which is another code.
        while self.sim(&["status"]).code != Some(3) {
            assert!(start.elapsed() < PATIENCE, "process {pid} does not end");
        }
    }
}

impl Drop for Home {
    fn drop(&mut self) {
        self.sim(&["stop"]);
    }
}

fn address(told: &Value) -> SocketAddr {
    told["urls"][0].as_str().unwrap().strip_prefix("https://").unwrap().parse().unwrap()
}

#[test]
fn a_simulated_pool_is_started_found_and_ended() {
    let home = Home::new();
    let none = home.sim(&["status"]);
    assert_eq!(none, Ended::with(3, "the simulated pool does not run\n", ""));
    let told = home.start(&["--hosts", "2"]);
    assert_eq!(told["already"], false);
    assert!(address(&told).ip().is_loopback() && TcpStream::connect(address(&told)).is_ok());
    let password = home.path("state/sim/password").metadata().unwrap().permissions().mode();
    assert_eq!(password & 0o777, 0o600);
    let listed = home.run(&["pool", "list", "--json"]).json();
    let reference = format!("file:{}", home.path("state/sim/password").display());
    assert_eq!((&listed[0]["name"], &listed[0]["password"]), (&"sim".into(), &reference.into()));
    assert_eq!(home.run(&["pool", "check", "sim"]).code, Some(0));
    assert_eq!(home.run(&["pool", "hosts", "sim", "--json"]).json().as_array().unwrap().len(), 2);
    let status = home.status();
    let counts = [&status["hosts"], &status["vms"], &status["running"]];
    assert_eq!(
        (&status["state"], counts.map(Value::as_u64)),
        (&"running".into(), [Some(2), Some(0), Some(0)])
    );
    let stopped = home.sim(&["stop"]);
    assert_eq!(stopped, Ended::well("stopped the simulated pool\n"));
    assert!(TcpStream::connect(address(&told)).is_err());
    assert_eq!(home.configuration().pools().len(), 0);
    assert_eq!(home.sim(&["stop"]), Ended::well("the simulated pool does not run\n"));
}

#[test]
fn a_second_start_says_that_it_runs_and_changes_nothing() {
    let home = Home::new();
    let first = home.start(&[]);
    let second = home.start(&["--port", "1"]);
    assert_eq!((&second["already"], &second["pid"]), (&true.into(), &first["pid"]));
    let url = first["urls"][0].as_str().unwrap();
    let said = home.sim(&["start"]);
    assert_eq!(said, Ended::well(&format!("simulated pool `sim` runs already: {url}\n")));
    // Its name is given again where somebody took it away.
    assert_eq!(home.run(&["pool", "remove", "sim", "--yes"]).code, Some(0));
    home.start(&[]);
    assert_eq!(home.configuration().pools().len(), 1);
}

#[test]
fn a_pool_that_crashed_is_found_and_said() {
    let home = Home::new();
    let told = home.start(&["--guests", "none"]);
    home.kill();
    let status = home.sim(&["status"]);
    assert_eq!(status.code, Some(3));
    assert!(status.stdout.starts_with("the simulated pool has crashed: it was at https://127."));
    assert!(
        status.stderr.contains("ended without being told to\n  hint: start it again"),
        "{status:?}"
    );
    assert_eq!(home.status()["state"], "crashed");
    let again = home.start(&["--guests", "none"]);
    assert_ne!(again["pid"], told["pid"]);
    assert_eq!(again["fingerprint"], told["fingerprint"], "it is the same pool");
    assert_eq!(home.run(&["pool", "check", "sim"]).code, Some(0), "its new address is known");
    home.kill();
    let stopped = home.sim(&["stop"]);
    assert_eq!(stopped, Ended::well("the simulated pool had crashed; nothing of it runs\n"));
    assert_eq!(home.status()["state"], "stopped");
    assert_eq!(home.configuration().pools().len(), 0);
}

#[test]
fn a_pool_of_somebody_else_keeps_its_name() {
    let home = Home::new();
    let add = ["pool", "add", "sim", "http://127.0.0.1:1", "--password", "env:X", "--no-check"];
    assert_eq!(home.run(&add).code, Some(0));
    let refused = home.sim(&["start"]);
    assert_eq!((refused.code, refused.stdout.as_str()), (Some(4), ""), "{refused:?}");
    assert!(refused.stderr.contains("hint: if it is of no use any more, remove it"), "{refused:?}");
    assert_eq!(home.sim(&["stop"]).code, Some(0));
    assert_eq!(home.configuration().pools().len(), 1);
    assert_eq!(home.status()["state"], "stopped");
}

#[test]
fn a_port_that_is_taken_is_named_with_the_log() {
    let home = Home::new();
    let taken = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = taken.local_addr().unwrap();
    let refused = home.sim(&["start", "--port", &address.port().to_string()]);
    let log = home.path("state/sim/log");
    let expected = format!(
        "error: the simulated pool did not start: could not listen on {address}: Address already in use \
         (os error 98)\n  hint: see what it wrote to `{}`\n",
        log.display()
    );
    assert_eq!(refused, Ended::with(1, "", &expected));
    assert_eq!(home.status()["state"], "stopped");
    assert_eq!(home.configuration().pools().len(), 0);
}

#[test]
fn vms_outlive_a_stop_and_their_guests_do_not() {
    let home = Home::new();
    home.start(&[]);
    let runtime = Runtime::new().unwrap();
    runtime.block_on(start_a_vm(&home));
    let status = home.status();
    assert_eq!((&status["vms"], &status["running"]), (&1.into(), &1.into()));
    let guest = runtime.block_on(guest(&home));
    assert!(answers(guest));
    assert_eq!(home.sim(&["start", "--fresh", "--yes"]).code, Some(4), "it runs");
    assert_eq!(home.sim(&["stop"]).code, Some(0));
    assert!(!answers(guest));
    home.start(&[]);
    assert_eq!(home.status()["running"], 1);
    assert!(answers(runtime.block_on(self::guest(&home))));
    home.kill();
    assert!(!answers(guest), "guests end with the pool, however it ends");
    let refused = home.sim(&["start", "--fresh"]);
    assert_eq!(refused.code, Some(1), "{refused:?}");
    home.start(&["--fresh", "--yes"]);
    assert_eq!(home.status()["vms"], 0);
}

fn answers(guest: std::net::IpAddr) -> bool {
    [22, 2222].iter().any(|port| {
        let Ok(mut stream) = TcpStream::connect((guest, *port)) else { return false };
        // Another server of this machine may listen on all addresses: a guest says what it is.
        let mut greeting = [0; 64];
        stream.set_read_timeout(Some(PATIENCE)).unwrap();
        let read = std::io::Read::read(&mut stream, &mut greeting).unwrap_or_default();
        String::from_utf8_lossy(&greeting[..read]).contains("xenapi-sim")
    })
}

pub(crate) async fn client(home: &Home) -> xenapi::Client {
    home.configuration().pool("sim").unwrap().connect().await.unwrap()
}

async fn start_a_vm(home: &Home) {
    let client = client(home).await;
    let templates = client.vm().get_by_name_label("Debian 12 (cloud-init)").await.unwrap();
    let vm = client.vm().clone(&templates[0], "guest").await.unwrap();
    client.vm().provision(&vm).await.unwrap();
    client.vm().start(&vm, false, false).await.unwrap();
    client.close().await.unwrap();
}

/// The address of the guest that runs.
async fn guest(home: &Home) -> std::net::IpAddr {
    let client = client(home).await;
    let start = Instant::now();
    let address = loop {
        let metrics = client.vm_guest_metrics().get_all_records().await.unwrap();
        let told = metrics.values().find_map(|row| row.networks.get("0/ip")?.parse().ok());
        if let Some(address) = told {
            break address;
        }
        assert!(start.elapsed() < PATIENCE, "no guest tells its address");
    };
    client.close().await.unwrap();
    address
}
