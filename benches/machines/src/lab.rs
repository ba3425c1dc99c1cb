//! The simulated pool, as a process of its own, and what others need to use it.

use std::fs;
use std::io::{BufRead as _, BufReader};
use std::net::TcpListener;
use std::os::unix::fs::PermissionsExt as _;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitCode, Stdio};
use std::sync::mpsc::sync_channel;
use std::time::Duration;

use anyhow::{Context as _, Result};
use bench_report::{Conversation, system};
use bioxen_xcp::cloud_init::{AccountName, AuthorizedKey, CloudInit, InstanceId, User};
use bioxen_xcp::seed_disk::SeedDisk;
use bioxen_xcp::ssh::ClientKey;
use clap::{Parser as _, ValueEnum as _};
use nix::sys::signal::{Signal, kill};
use nix::unistd::Pid;
use tempfile::TempDir;
use xenapi_sim::cli::{Arguments, run};

use crate::proxy::Proxy;
use crate::{Helper, Setting};

/// The template that VMs are made from.
pub(crate) const TEMPLATE: &str = "Debian 12 (cloud-init)";

/// The user of guests.
pub(crate) const USER: &str = "bioxen";

/// The password of the pool's user `root`.
pub(crate) const PASSWORD: &str = "compare";

/// How long the pool may take to come up, and to end with all its guests.
const PATIENCE: Duration = Duration::from_mins(1);

/// How long a command to a client may take.
const LONGEST: Duration = Duration::from_mins(20);

/// Is the pool, until it is told to end.
pub(crate) fn serve(words: &[String]) -> ExitCode {
    let name = "xenapi-sim".to_owned();
    run(Arguments::parse_from([&name].into_iter().chain(words)))
}

/// A running pool, with a proxy before it that counts calls, and a directory with what its clients need:
/// `config.toml` and `password` for a controller; `key` and `seed` for the others.
pub(crate) struct Lab {
    child: Child,
    proxy: Proxy,
    place: TempDir,
    worker: PathBuf,
}

impl Lab {
    /// Starts a pool with guests that can be entered, which take so long to come up.
    pub(crate) fn with_guests(setting: &Setting, boot_delay: &str) -> Result<Self> {
        // 64 GiB each: enough for all guests.
        let hosts = (setting.machines / 25 + 1).to_string();
        let arguments = ["--guests", "process", "--boot-delay", boot_delay, "--hosts", &hosts];
        Self::start(setting, &arguments)
    }

    /// Starts a pool with these arguments of `xenapi-sim`, and waits until it listens.
    pub(crate) fn start(setting: &Setting, arguments: &[&str]) -> Result<Self> {
        let mut command = this_program(Helper::Simulator)?;
        command.args(["--listen", "127.0.0.1:0", "--http", "--event-batching", "0s"]);
        command.args(arguments).env("XENAPI_SIM_PASSWORD", PASSWORD);
        let mut child = command.stdout(Stdio::piped()).spawn()?;
        let output = child.stdout.take().context("standard output is piped")?;
        let (sender, url) = sync_channel(1);
        std::thread::spawn(move || {
            let mut lines = BufReader::new(output).lines();
            // A pool of several hosts has more to say, and ends when nobody takes it.
            let told = lines.next().and_then(Result::ok).map(|line| sender.send(line));
            lines.for_each(drop);
            told
        });
        let url = url.recv_timeout(PATIENCE).context("the simulated pool did not start")?;
        let address = url.strip_prefix("http://").context("the pool speaks HTTP")?;
        let proxy = Proxy::start(address.trim_end_matches('/'))?;
        let place = TempDir::new()?;
        lay_out(place.path(), &format!("http://{}", proxy.address()))?;
        Ok(Self { child, proxy, place, worker: setting.worker.clone() })
    }

    /// The pool's URL, by way of the proxy.
    pub(crate) fn url(&self) -> String {
        format!("http://{}", self.proxy.address())
    }

    pub(crate) fn proxy(&self) -> &Proxy {
        &self.proxy
    }

    /// The key that opens guests.
    pub(crate) fn key(&self) -> PathBuf {
        self.place.path().join("key")
    }

    /// A new file of so many bytes, to be copied.
    pub(crate) fn file(&self, bytes: usize) -> Result<PathBuf> {
        let path = self.place.path().join("large");
        fs::write(&path, vec![b'x'; bytes])?;
        Ok(path)
    }

    /// A controller of its own process.
    pub(crate) fn controller(&self) -> Result<Conversation> {
        let mut command = this_program(Helper::Controller)?;
        command.arg(self.place.path()).arg(&self.worker);
        Conversation::start("bioxen", command, LONGEST)
    }

    /// The script by `XenAPI` and `paramiko`; `None` where they are not installed.
    pub(crate) fn python(&self, setting: &Setting) -> Result<Option<Conversation>> {
        let Some(mut command) = setting.peers.python() else { return Ok(None) };
        command.args([&self.url(), PASSWORD]).arg(self.place.path());
        command.args([TEMPLATE, USER, &ssh_port().to_string()]);
        Conversation::start("XenAPI and paramiko", command, LONGEST).map(Some)
    }
}

impl Drop for Lab {
    fn drop(&mut self) {
        // It takes its guests along when it is asked to end.
        let number = i32::try_from(self.child.id()).unwrap_or_default();
        let asked = kill(Pid::from_raw(number), Signal::SIGTERM).is_ok();
        let child = &mut self.child;
        let ended =
            asked && system::wait_until(PATIENCE, || child.try_wait().is_ok_and(|it| it.is_some()));
        if !ended {
            let _ = child.kill();
            let _ = child.wait();
        }
    }
}

/// The port of guests' SSH servers: as the simulator has it, 22 where it may be had, and 2222 where not.
pub(crate) fn ssh_port() -> u16 {
    if TcpListener::bind(("127.240.0.1", 22)).is_ok() { 22 } else { 2222 }
}

/// This program as another process of the comparison.
fn this_program(helper: Helper) -> Result<Command> {
    let value = helper.to_possible_value().context("every helper has a name")?;
    let mut command = Command::new(std::env::current_exe()?);
    command.args(["--helper", value.get_name(), "--"]);
    Ok(command)
}

fn lay_out(place: &Path, url: &str) -> Result<()> {
    let write = |name: &str, bytes: &[u8]| -> Result<PathBuf> {
        let path = place.join(name);
        fs::write(&path, bytes)?;
        fs::set_permissions(&path, fs::Permissions::from_mode(0o600))?;
        Ok(path)
    };
    let password = write("password", PASSWORD.as_bytes())?;
    let configuration = format!(
        "version = 1\n[pools.lab]\naddresses = [\"{url}\"]\npassword = \"file:{}\"\n",
        password.display()
    );
    write("config.toml", configuration.as_bytes())?;
    let key = ClientKey::generate("compare-machines");
    write("key", key.to_openssh().expose().as_bytes())?;
    let public = AuthorizedKey::new(&key.public().to_string())?;
    let user = User::new(AccountName::new(USER)?).shell("/bin/sh")?.authorized_key(public);
    let seed = CloudInit::new().user(user).seed(&InstanceId::new("compare-machines")?)?;
    write("seed", SeedDisk::new(&seed).used())?;
    Ok(())
}
