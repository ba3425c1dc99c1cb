//! A driver with a disk store, and a client with keys: what a pool and its user would bring.

use std::collections::BTreeMap;
use std::io::{Cursor, Write};
use std::net::Ipv4Addr;
use std::path::{Path, PathBuf};
use std::process::{Command, Output, Stdio};
use std::sync::Arc;
use std::time::Duration;

use bioxen_testkit::PATIENCE;
use tokio::sync::mpsc;
use tokio::time::timeout;
use uuid::Uuid;
use xenapi_sim::disk::DiskDirectory;
use xenapi_sim::driver::{
    Ended, GuestDriver, Machine, MachineDisk, MachineNic, Order, Report, Reports,
};
use xenapi_sim::guest::{ProcessGuests, ProcessOptions};
use xenapi_sim::store::{DiskId, DiskStore};

/// Whether OpenSSH's client is installed.
pub(crate) fn has_ssh() -> bool {
    let found = ["ssh", "ssh-keygen", "sftp", "scp"].iter().all(|program| {
        // None of them has an option that only succeeds.
        Command::new(program).arg("-?").stderr(Stdio::null()).stdin(Stdio::null()).status().is_ok()
    });
    if !found {
        eprintln!("skipped: there is no `ssh` here (Debian: openssh-client)");
    }
    found
}

pub(crate) struct Rig {
    pub(crate) guests: ProcessGuests,
    pub(crate) store: Arc<DiskDirectory>,
    pub(crate) directory: tempfile::TempDir,
}

/// A booted VM, with what its guest reports.
pub(crate) struct Booted {
    pub(crate) vm: Uuid,
    pub(crate) reports: mpsc::UnboundedReceiver<Report>,
}

impl Rig {
    pub(crate) fn new() -> Self {
        Self::with(ProcessOptions::default())
    }

    pub(crate) fn with(options: ProcessOptions) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let store = Arc::new(DiskDirectory::open(directory.path().join("disks")).unwrap());
        let shared: Arc<dyn DiskStore> = Arc::clone(&store) as Arc<dyn DiskStore>;
        let guests = ProcessGuests::new(directory.path().join("guests"), shared, options).unwrap();
        Self { guests, store, directory }
    }

    /// A disk with a seed on it.
    pub(crate) fn seed(&self, user_data: &str, more: &[(&str, &str)]) -> DiskId {
        let disk = DiskId(Uuid::new_v4());
        let image = seed_image(user_data, more);
        self.store.create(disk, 1 << 20).unwrap().write_at(0, &image).unwrap();
        disk
    }

    pub(crate) fn machine(vm: Uuid, seed: DiskId) -> Machine {
        let disk = MachineDisk {
            position: 1,
            device: "xvdb".into(),
            disk: seed,
            size: 1 << 20,
            read_only: false,
            cd: false,
        };
        let nic = MachineNic {
            device: 0,
            mac: "02:00:00:00:00:01".into(),
            network: Uuid::nil(),
            network_name: "test".into(),
        };
        Machine {
            vm,
            name: "test-vm".into(),
            boot: 1,
            vcpus: 1,
            memory: 1 << 30,
            disks: vec![disk],
            nics: vec![nic],
            platform: BTreeMap::new(),
            xenstore_data: BTreeMap::new(),
        }
    }

    pub(crate) async fn boot_machine(&self, machine: Machine) -> Booted {
        let vm = machine.vm;
        let (sender, reports) = mpsc::unbounded_channel();
        let sink = Reports::new(move |report| drop(sender.send(report)));
        self.guests.boot(machine, sink).await.unwrap();
        Booted { vm, reports }
    }

    /// Boots a new VM with this user-data.
    pub(crate) async fn boot(&self, user_data: &str) -> Booted {
        let seed = self.seed(user_data, &[]);
        self.boot_machine(Self::machine(Uuid::new_v4(), seed)).await
    }

    pub(crate) async fn order(&self, booted: &Booted, order: Order) {
        self.guests.order(booted.vm, order).await.unwrap();
    }

    pub(crate) fn guest_directory(&self, vm: Uuid) -> PathBuf {
        self.directory.path().join("guests").join(vm.to_string())
    }
}

/// A volume with a seed on it, 1 MiB large.
pub(crate) fn seed_image(user_data: &str, more: &[(&str, &str)]) -> Vec<u8> {
    let mut image = Cursor::new(vec![0; 1 << 20]);
    let options = fatfs::FormatVolumeOptions::new().volume_label(*b"cidata     ");
    fatfs::format_volume(&mut image, options).unwrap();
    let volume = fatfs::FileSystem::new(&mut image, fatfs::FsOptions::new()).unwrap();
    let usual = [("user-data", user_data), ("meta-data", "instance-id: i-1\n")];
    for (name, contents) in usual.iter().chain(more) {
        let mut file = volume.root_dir().create_file(name).unwrap();
        file.truncate().unwrap();
        file.write_all(contents.as_bytes()).unwrap();
    }
    volume.unmount().unwrap();
    image.into_inner()
}

impl Booted {
    pub(crate) async fn report(&mut self) -> Report {
        timeout(PATIENCE, self.reports.recv()).await.expect("in time").expect("it goes on")
    }

    /// The address that the guest's agent reports.
    pub(crate) async fn address(&mut self) -> Ipv4Addr {
        match self.report().await {
            Report::Agent(agent) => match agent.addresses[&0][0] {
                std::net::IpAddr::V4(address) => address,
                std::net::IpAddr::V6(address) => panic!("{address}"),
            },
            Report::Ended(ended) => panic!("{ended:?}"),
        }
    }

    pub(crate) async fn ended(&mut self) -> Ended {
        match self.report().await {
            Report::Ended(ended) => ended,
            Report::Agent(agent) => panic!("{agent:?}"),
        }
    }

    /// That the guest reports nothing for a while.
    pub(crate) async fn says_nothing(&mut self) {
        let heard = timeout(Duration::from_millis(300), self.reports.recv()).await;
        assert!(matches!(heard, Err(_) | Ok(None)), "{heard:?}");
    }
}

/// A person's keys and known hosts.
pub(crate) struct Client {
    directory: tempfile::TempDir,
    port: u16,
}

impl Client {
    pub(crate) fn new(port: u16) -> Self {
        let directory = tempfile::tempdir().unwrap();
        let client = Self { directory, port };
        client.make_key("id");
        client.make_key("host");
        client.make_key("other");
        client
    }

    fn make_key(&self, name: &str) {
        let path = self.path(name);
        let words = ["-q", "-t", "ed25519", "-N", "", "-C", name, "-f"];
        assert!(Command::new("ssh-keygen").args(words).arg(path).status().unwrap().success());
    }

    pub(crate) fn path(&self, name: &str) -> PathBuf {
        self.directory.path().join(name)
    }

    pub(crate) fn text(&self, name: &str) -> String {
        std::fs::read_to_string(self.path(name)).unwrap()
    }

    pub(crate) fn public_key(&self) -> String {
        self.text("id.pub").trim().to_owned()
    }

    /// A configuration with a user `lua` and a host key, both of this client.
    pub(crate) fn user_data(&self, more: &str) -> String {
        let private: String = self
            .text("host")
            .lines()
            .map(|line| format!("    {line}\n"))
            .collect::<Vec<_>>()
            .concat();
        format!(
            "#cloud-config\nhostname: node\nusers:\n- name: lua\n  ssh_authorized_keys:\n  - {}\n\
             ssh_keys:\n  ed25519_private: |\n{private}  ed25519_public: {}\n{more}",
            self.public_key(),
            self.text("host.pub").trim(),
        )
    }

    /// Options for a client that trusts only the key in the seed.
    fn options(&self, address: Ipv4Addr, key: &str) -> Vec<String> {
        let known = format!("[{address}]:{} {}", self.port, self.text("host.pub"));
        let plain = format!("{address} {}", self.text("host.pub"));
        std::fs::write(self.path("known_hosts"), known + &plain).unwrap();
        let known_hosts = self.path("known_hosts");
        let options = [
            "BatchMode=yes".into(),
            "StrictHostKeyChecking=yes".into(),
            format!("UserKnownHostsFile={}", known_hosts.display()),
            "GlobalKnownHostsFile=/dev/null".into(),
            format!("IdentityFile={}", self.path(key).display()),
            "IdentitiesOnly=yes".into(),
            "ConnectTimeout=20".into(),
            "LogLevel=ERROR".into(),
            "SendEnv=LC_TEST".into(),
            format!("Port={}", self.port),
        ];
        let options = options.iter().flat_map(|option| ["-o".to_owned(), option.clone()]);
        ["-F".to_owned(), "/dev/null".into()].into_iter().chain(options).collect()
    }

    pub(crate) fn ssh(&self, address: Ipv4Addr, user: &str, words: &[&str]) -> Output {
        self.ssh_with_key(address, user, "id", words)
    }

    pub(crate) fn ssh_with_key(
        &self,
        address: Ipv4Addr,
        user: &str,
        key: &str,
        words: &[&str],
    ) -> Output {
        self.command(address, user, key, words).stdin(Stdio::null()).output().unwrap()
    }

    pub(crate) fn command(
        &self,
        address: Ipv4Addr,
        user: &str,
        key: &str,
        words: &[&str],
    ) -> Command {
        let mut command = Command::new("ssh");
        command.args(self.options(address, key)).arg(format!("{user}@{address}")).args(words);
        command.env("LC_TEST", "passed on");
        command
    }

    /// Runs `sftp` or `scp` with these words.
    pub(crate) fn transfer(&self, program: &str, address: Ipv4Addr, words: &[&str]) -> Command {
        let mut command = Command::new(program);
        command.args(self.options(address, "id")).args(words).stdin(Stdio::null());
        command
    }
}

/// What a command printed; it must have succeeded.
#[track_caller]
pub(crate) fn printed(output: &Output) -> String {
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{}: {errors}", output.status);
    String::from_utf8_lossy(&output.stdout).into_owned()
}

/// What a command complained of; it must have failed.
#[track_caller]
pub(crate) fn complaint(output: &Output) -> String {
    assert!(!output.status.success(), "{}", String::from_utf8_lossy(&output.stdout));
    String::from_utf8_lossy(&output.stderr).into_owned()
}

/// Bytes that no compression makes smaller, the same each time.
pub(crate) fn noise(length: usize) -> Vec<u8> {
    let mut state = 0x9e37_79b9_7f4a_7c15_u64;
    let mut next = || {
        state ^= state << 13;
        state ^= state >> 7;
        state ^= state << 17;
        state.to_le_bytes()[0]
    };
    (0..length).map(|_| next()).collect()
}

pub(crate) fn exists(path: &Path) -> bool {
    path.symlink_metadata().is_ok()
}
