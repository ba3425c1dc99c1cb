//! A simulated boot: what cloud-init would do with the seed, stage by stage.
//!
//! ```text
//! init-local   find the seed
//! init         bootcmd, write_files, host name, users, host keys        then SSH answers
//! modules-*    passwords, packages, runcmd, the user's script, deferred files, verdict
//! ```
//!
//! What is done once per instance is not repeated when the guest boots again.

use std::io;
use std::net::IpAddr;
use std::process::Stdio;
use std::time::{Duration, SystemTime, UNIX_EPOCH};

use rustix::fs::OFlags;
use serde_json::Value;

use super::accounts::{self, Account};
use super::cloud_config::{CloudConfig, Command, FileToWrite, PowerState, User};
use super::files::Files;
use super::host_keys;
use super::network;
use super::phone_home;
use super::report::BootReport;
use super::sandbox::{Entry, Launch, blocking};
use super::seed::{Seed, UserData};
use super::starting;
use crate::driver::GuestError;

/// Where a boot leaves what it has to say.
pub(super) const RUN: &str = "/run/cloud-init";
const DATA: &str = "/var/lib/cloud/data";
const OUTPUT: &str = "/var/log/cloud-init-output.log";
const PASSWORD_LOGINS: &str = "/etc/ssh/sshd_config.d/50-cloud-init.conf";

/// A boot that is going on.
pub(super) struct CloudInit {
    files: Files,
    entry: Entry,
    seed: Option<Seed>,
    /// Whether this instance is set up for the first time.
    new_instance: bool,
    report: BootReport,
    /// The name that the VM has in its pool.
    vm_name: String,
    /// How far the guest's clock is behind.
    slow: Duration,
}

/// What a boot was told to do when it is over.
pub(super) type Next = Option<PowerState>;

impl CloudInit {
    /// Begins: `found` is the seed with the guest's name of the disk that it was on; `slow` is how far the
    /// guest's clock is behind.
    pub(super) async fn begin(
        files: Files,
        entry: Entry,
        vm_name: String,
        found: Option<(Seed, String)>,
        slow: Duration,
    ) -> Result<Self, GuestError> {
        let datasource =
            found.as_ref().map(|(_, device)| format!("DataSourceNoCloud [seed=/dev/{device}]"));
        let report = BootReport { datasource, started: now(slow), ..BootReport::default() };
        let seed = found.map(|(seed, _)| seed);
        let mut boot = Self { files, entry, seed, new_instance: false, report, vm_name, slow };
        boot.on_files(Self::begin_files).await?;
        Ok(boot)
    }

    fn begin_files(&mut self) -> io::Result<()> {
        self.files.make_directories(&format!("{RUN}/report"))?;
        let machine_id = "/etc/machine-id";
        if self.files.read(machine_id).map_or(true, |id| id.is_empty()) {
            let id = format!("{}\n", uuid::Uuid::new_v4().simple());
            self.files.write(machine_id, id.as_bytes(), 0o444)?;
        }
        let Some(seed) = self.seed.clone() else {
            self.files.write(&format!("{RUN}/disabled"), b"", 0o644)?;
            return self.write_verdict();
        };
        let known = self.files.read_text(&format!("{DATA}/instance-id")).unwrap_or_default();
        self.new_instance = known.trim_end() != seed.instance_id;
        for warning in &seed.warnings {
            self.report.warnings.push(("init", warning.clone()));
        }
        self.enter("init-local")?;
        let id = seed_directory(&seed.instance_id);
        self.files.make_directories(&format!("/var/lib/cloud/instances/{id}/scripts"))?;
        // A link that is not there yet is nothing to be removed.
        let _ = self.files.remove("/var/lib/cloud/instance", false);
        self.files.link("/var/lib/cloud/instance", &format!("instances/{id}"))?;
        self.files.write(
            &format!("{DATA}/instance-id"),
            format!("{}\n", seed.instance_id).as_bytes(),
            0o644,
        )
    }

    /// Does what must be done before anybody can log in.
    pub(super) async fn init(&mut self) -> Result<(), GuestError> {
        self.on_files(|boot| boot.enter("init")).await?;
        let commands = self.config().boot_commands;
        if !commands.is_empty() && !self.run_script("bootcmd", &commands).await? {
            self.fail(
                "init",
                "('bootcmd', ProcessExecutionError('Unexpected error while running command.'))",
            );
        }
        self.on_files(|boot| {
            if boot.new_instance {
                boot.write_files(false);
            }
            boot.name_host()?;
            if boot.new_instance {
                boot.configure_network()?;
                boot.make_users();
            }
            let given = if boot.new_instance { boot.config().host_keys } else { Vec::new() };
            for problem in host_keys::install(&boot.files, &given)? {
                boot.report.warnings.push(("init", problem));
            }
            Ok(())
        })
        .await?;
        let name = self.host_name();
        if self.entry.has_namespaces() {
            self.run(&["hostname", &name]).await?;
        }
        Ok(())
    }

    /// Keeps programs that are copied into the guest from being run.
    pub(super) async fn refuse_programs(&mut self) -> Result<(), GuestError> {
        if self.run(&["sh", "-c", include_str!("shims/refuse.sh")]).await? {
            return Ok(());
        }
        Err(GuestError { message: "its directories could not be mounted without programs".into() })
    }

    /// Does the rest and gives the verdict; the guest is at `address`, if it has one.
    pub(super) async fn finish(
        mut self,
        fails: bool,
        address: Option<IpAddr>,
    ) -> Result<Next, GuestError> {
        if self.seed.is_none() {
            return Ok(None);
        }
        if let Err(error) = self.modules().await {
            self.fail("modules-final", &format!("('simulator', OSError({:?}))", error.message));
        }
        if fails {
            self.fail(
                "modules-final",
                "('scripts_user', RuntimeError('Runparts: 1 failures (simulated) in 1 attempted \
                 commands'))",
            );
        }
        self.phone_home(address).await;
        let next = if self.new_instance { self.config().power_state } else { None };
        self.report.finished = Some(now(self.slow));
        self.on_files(|boot| {
            let finished = format!("Cloud-init v. 24.4 finished at {}\n", now(boot.slow));
            boot.files.append(OUTPUT, finished.as_bytes(), 0o640)?;
            boot.files.write(
                "/var/lib/cloud/instance/boot-finished",
                finished.as_bytes(),
                0o644,
            )?;
            boot.write_verdict()
        })
        .await?;
        Ok(next)
    }

    async fn modules(&mut self) -> Result<(), GuestError> {
        self.on_files(|boot| boot.enter("modules-config")).await?;
        if !self.new_instance {
            return self.on_files(|boot| boot.enter("modules-final")).await;
        }
        self.on_files(|boot| {
            boot.set_passwords();
            boot.enter("modules-final")
        })
        .await?;
        self.check_packages().await?;
        self.run_user_scripts().await?;
        self.on_files(|boot| {
            boot.write_files(true);
            Ok(())
        })
        .await
    }

    /// Calls whoever wants to know that it is done.
    async fn phone_home(&mut self, address: Option<IpAddr>) {
        let config = self.config();
        let Some(home) = config.phone_home.as_ref().filter(|_| self.new_instance) else { return };
        let instance = self.seed.as_ref().map(|seed| seed.instance_id.clone()).unwrap_or_default();
        let name = self.host_name();
        let fqdn = config.fqdn.clone().unwrap_or_else(|| name.clone());
        let facts = [("instance_id", instance), ("hostname", name), ("fqdn", fqdn)];
        let called = match address {
            Some(address) => phone_home::call(home, address, &facts).await,
            None => Err(format!("Failed to post phone home data to {}: no network", home.url)),
        };
        if let Err(problem) = called {
            self.report.warnings.push(("modules-final", problem));
        }
    }

    fn config(&self) -> CloudConfig {
        match self.seed.as_ref().map(|seed| &seed.user_data) {
            Some(UserData::Config(config)) => (**config).clone(),
            Some(UserData::Nothing | UserData::Script(_)) | None => CloudConfig::default(),
        }
    }

    fn fail(&mut self, stage: &'static str, message: &str) {
        self.report.errors.push((stage, message.to_owned()));
    }

    /// Notes a failure that does not keep the boot from going on.
    fn note<T>(&mut self, stage: &'static str, module: &str, done: io::Result<T>) {
        if let Err(error) = done {
            self.fail(stage, &format!("('{module}', OSError({:?}))", error.to_string()));
        }
    }

    fn enter(&mut self, stage: &'static str) -> io::Result<()> {
        self.report.stage = Some(stage);
        self.write_status()
    }

    fn write_status(&self) -> io::Result<()> {
        let status = self.report.status_json();
        let (text, long) = self.report.printed_text();
        self.write_json(&format!("{DATA}/status.json"), &status)?;
        self.write_json(&format!("{RUN}/status.json"), &status)?;
        self.write_json(&format!("{RUN}/report/json"), &self.report.printed_json())?;
        // JSON is YAML.
        self.write_json(&format!("{RUN}/report/yaml"), &self.report.printed_json())?;
        self.files.write(&format!("{RUN}/report/long"), long.as_bytes(), 0o644)?;
        self.files.write(&format!("{RUN}/report/status"), text.as_bytes(), 0o644)
    }

    /// Writes what tells that the boot is over: the last file of them ends the wait for it.
    fn write_verdict(&self) -> io::Result<()> {
        self.write_status()?;
        if self.report.datasource.is_some() {
            let result = self.report.result_json();
            self.write_json(&format!("{DATA}/result.json"), &result)?;
            self.write_json(&format!("{RUN}/result.json"), &result)?;
        }
        let code = format!("{}\n", self.report.exit_code());
        self.put_in_place(&format!("{RUN}/report/code"), code.as_bytes())
    }

    fn write_json(&self, path: &str, value: &Value) -> io::Result<()> {
        self.put_in_place(path, format!("{value:#}\n").as_bytes())
    }

    /// Puts a file in place as a whole, so that nobody reads half of it.
    fn put_in_place(&self, path: &str, contents: &[u8]) -> io::Result<()> {
        let new = format!("{path}.new");
        self.files.write(&new, contents, 0o644)?;
        self.files.rename(&new, path, true)
    }

    fn host_name(&self) -> String {
        let config = self.config();
        let local = self.seed.as_ref().and_then(|seed| seed.local_hostname.clone());
        let name =
            config.hostname.or(config.fqdn).or(local).unwrap_or_else(|| self.vm_name.clone());
        let name = name.split('.').next().unwrap_or_default();
        let good = |character: &char| character.is_ascii_alphanumeric() || *character == '-';
        let name: String = name.chars().map(|c| if good(&c) { c } else { '-' }).take(63).collect();
        if name.trim_matches('-').is_empty() { "localhost".into() } else { name }
    }

    fn name_host(&mut self) -> io::Result<()> {
        let name = self.host_name();
        self.files.write("/etc/hostname", format!("{name}\n").as_bytes(), 0o644)?;
        if !self.files.exists("/etc/hosts") {
            let hosts =
                format!("127.0.0.1\tlocalhost\n127.0.1.1\t{name}\n::1\tlocalhost ip6-localhost\n");
            self.files.write("/etc/hosts", hosts.as_bytes(), 0o644)?;
        }
        Ok(())
    }

    fn configure_network(&self) -> io::Result<()> {
        let Some(network) = self.seed.as_ref().and_then(|seed| seed.network.as_ref()) else {
            return Ok(());
        };
        self.files.write(network::CONFIGURATION, network::kept(network).as_bytes(), 0o600)
    }

    fn write_files(&mut self, deferred: bool) {
        let files = self.config().files;
        for file in files.iter().filter(|file| file.deferred == deferred) {
            let FileToWrite { path, contents, mode, append, .. } = file;
            let done = if *append {
                self.files.append(path, contents, *mode)
            } else {
                self.files.write(path, contents, *mode)
            };
            self.note(if deferred { "modules-final" } else { "init" }, "write_files", done);
        }
    }

    fn make_users(&mut self) {
        let mut config = self.config();
        if self.seed.is_some() && config.users.is_empty() && config == CloudConfig::default() {
            // A seed without a configuration of its own leaves the usual user in place.
            let name = CloudConfig::DEFAULT_USER.to_owned();
            config.users.push(User { name, locked: true, ..User::default() });
        }
        for user in &config.users {
            let done = accounts::add(&self.files, user).and_then(|account| {
                accounts::authorize(&self.files, &account, &user.authorized_keys)?;
                match &user.password {
                    Some(password) => {
                        accounts::set_password(&self.files, &user.name, password, user.locked)
                    }
                    None => Ok(()),
                }
            });
            self.note("init", "users_groups", done);
        }
        let mut keys = config.authorized_keys.clone();
        keys.extend(self.seed.iter().flat_map(|seed| seed.public_keys.clone()));
        let default = config.users.iter().find(|user| user.name == CloudConfig::DEFAULT_USER);
        let default = default.map(|user| &*user.name);
        if let Some(account) = default.and_then(|name| Account::find(&self.files, name)) {
            let done = accounts::authorize(&self.files, &account, &keys);
            self.note("init", "ssh", done);
        }
        if let Some(root) = Account::find(&self.files, "root") {
            let keys = if config.disable_root.unwrap_or(true) {
                keys.iter().map(|key| barred(key, default.unwrap_or("NONE"))).collect()
            } else {
                keys
            };
            let done = accounts::authorize(&self.files, &root, &keys);
            self.note("init", "ssh", done);
        }
    }

    fn set_passwords(&mut self) {
        let config = self.config();
        for (name, password) in &config.passwords {
            let done = accounts::set_password(&self.files, name, password, false);
            self.note("modules-config", "set_passwords", done);
        }
        if let Some(allowed) = config.password_logins {
            let word = if allowed { "yes" } else { "no" };
            let line = format!("PasswordAuthentication {word}\n");
            let done = self.files.write(PASSWORD_LOGINS, line.as_bytes(), 0o600);
            self.note("modules-config", "set_passwords", done);
        }
    }

    /// Simulated guests have the machine's packages: what is not there cannot be had.
    async fn check_packages(&mut self) -> Result<(), GuestError> {
        let wanted = self.config().packages;
        let missing = blocking(move || {
            let names = std::fs::read_dir("/var/lib/dpkg/info").into_iter().flatten().flatten();
            let names: Vec<String> =
                names.filter_map(|entry| entry.file_name().into_string().ok()).collect();
            let is_there = |package: &String| {
                let plain = format!("{package}.list");
                let with_architecture = format!("{package}:");
                names.iter().any(|name| *name == plain || name.starts_with(&with_architecture))
            };
            Ok(wanted.into_iter().filter(|package| !is_there(package)).collect::<Vec<_>>())
        })
        .await?;
        if !missing.is_empty() {
            self.fail("modules-final", &format!(
                "('package_update_upgrade_install', ProcessExecutionError('Unable to locate package {}'))",
                missing.join(", ")
            ));
        }
        Ok(())
    }

    async fn run_user_scripts(&mut self) -> Result<(), GuestError> {
        let mut failed = Vec::new();
        let mut attempted = 0;
        let commands = self.config().run_commands;
        if !commands.is_empty() {
            attempted += 1;
            if !self.run_script("runcmd", &commands).await? {
                failed.push("runcmd");
            }
        }
        if let Some(UserData::Script(script)) =
            self.seed.as_ref().map(|seed| seed.user_data.clone())
        {
            attempted += 1;
            let path = "/var/lib/cloud/instance/scripts/part-001";
            self.on_files(move |boot| boot.files.write(path, &script, 0o700)).await?;
            let path = self.files.visible(path);
            if !self.run(&[&path]).await? {
                failed.push("part-001");
            }
        }
        if !failed.is_empty() {
            self.fail("modules-final", &format!(
                "('scripts_user', RuntimeError('Runparts: {} failures ({}) in {attempted} attempted commands'))",
                failed.len(),
                failed.join(", ")
            ));
        }
        Ok(())
    }

    /// Runs commands one after another as one script; whether the last of them succeeded.
    async fn run_script(&mut self, name: &str, commands: &[Command]) -> Result<bool, GuestError> {
        let lines = commands.iter().map(|command| match command {
            Command::Words(words) => {
                words.iter().map(|word| quote(word)).collect::<Vec<_>>().join(" ") + "\n"
            }
            Command::Line(line) => format!("{line}\n"),
        });
        let script: String = std::iter::once("#!/bin/sh\n".to_owned()).chain(lines).collect();
        let path = format!("/var/lib/cloud/instance/scripts/{name}");
        let to = path.clone();
        self.on_files(move |boot| boot.files.write(&to, script.as_bytes(), 0o700)).await?;
        let path = self.files.visible(&path);
        self.run(&["/bin/sh", &path]).await
    }

    /// Runs a program to its end; whether it succeeded. What it prints goes to the log.
    async fn run(&mut self, words: &[&str]) -> Result<bool, GuestError> {
        let log = self
            .on_files(|boot| {
                boot.files.append(OUTPUT, b"", 0o640)?;
                boot.files.open(OUTPUT, OFlags::WRONLY | OFlags::APPEND, 0)
            })
            .await?;
        let home = self.files.visible("/root");
        let variables = [("HOME", &*home), ("USER", "root"), ("LOGNAME", "root")];
        let launch = Launch {
            words: words.iter().map(|word| (*word).to_owned()).collect(),
            environment: variables.map(|(name, value)| (name.into(), value.into())).to_vec(),
            directory: "/".into(),
            terminal: false,
        };
        let failed = |error: io::Error| GuestError { message: format!("`{}`: {error}", words[0]) };
        let mut command = self.entry.command(&launch);
        let errors = log.try_clone().map_err(failed)?;
        command.stdin(Stdio::null()).stdout(log).stderr(errors);
        let mut child = starting::start(&mut command).map_err(failed)?;
        Ok(child.wait().await.map_err(failed)?.success())
    }

    /// Does something with the guest's files, on a thread that may block.
    async fn on_files<T: Send + 'static>(
        &mut self,
        work: impl FnOnce(&mut Self) -> io::Result<T> + Send + 'static,
    ) -> Result<T, GuestError> {
        let mut moved = Self {
            files: self.files.clone(),
            entry: self.entry.clone(),
            seed: self.seed.clone(),
            new_instance: self.new_instance,
            report: std::mem::take(&mut self.report),
            vm_name: self.vm_name.clone(),
            slow: self.slow,
        };
        let (moved, done) = blocking(move || {
            let done = work(&mut moved);
            Ok((moved, done))
        })
        .await?;
        (self.report, self.new_instance) = (moved.report, moved.new_instance);
        done.map_err(|error| GuestError { message: format!("the guest's files: {error}") })
    }
}

/// Whether the guest's SSH takes passwords.
pub(super) fn takes_passwords(files: &Files) -> bool {
    let config = files.read_text(PASSWORD_LOGINS).unwrap_or_default();
    config.lines().any(|line| line.trim() == "PasswordAuthentication yes")
}

/// A key of root's that only tells whom to log in as.
fn barred(key: &str, user: &str) -> String {
    format!(
        "no-port-forwarding,no-agent-forwarding,no-X11-forwarding,command=\"echo 'Please login as the \
         user \\\"{user}\\\" rather than the user \\\"root\\\".';echo;exit 142\" {}",
        key.trim()
    )
}

/// A word for a shell.
fn quote(word: &str) -> String {
    format!("'{}'", word.replace('\'', "'\\''"))
}

/// An instance's directory: its id, as far as that can be a name.
fn seed_directory(id: &str) -> String {
    let good = |c: char| c.is_ascii_alphanumeric() || "-_.".contains(c);
    let name: String = id.chars().map(|c| if good(c) { c } else { '_' }).take(128).collect();
    if name.trim_matches('.').is_empty() { "_".into() } else { name }
}

/// What the clock of a guest shows that is this far behind.
fn now(slow: Duration) -> f64 {
    let since = SystemTime::now().duration_since(UNIX_EPOCH).unwrap_or_default();
    since.saturating_sub(slow).as_secs_f64()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn words_are_quoted_for_the_shell() {
        assert_eq!(quote("it's $HOME"), "'it'\\''s $HOME'");
    }

    #[test]
    fn an_instance_id_cannot_lead_out_of_its_directory() {
        assert_eq!(seed_directory("../../etc"), ".._.._etc");
        assert_eq!(seed_directory(".."), "_");
        assert_eq!(seed_directory("i-0abc"), "i-0abc");
    }
}
