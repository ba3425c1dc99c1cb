//! What a guest is to become on its first boot, and what cloud-init says of how that went.
//!
//! A [`CloudInit`] gathers users, keys, packages, files, commands and addresses, each checked where it
//! comes in, and makes the [`Seed`] that a guest's cloud-init reads: three files, which
//! [`SeedDisk`](crate::seed_disk::SeedDisk) puts on a disk. The same settings make the same bytes.
//! Afterwards, [`Evidence`] is turned into a [`Verdict`].
//!
//! ```
//! use bioxen_xcp::cloud_init::{AccountName, AuthorizedKey, CloudInit, Command, InstanceId, Sudo, User};
//!
//! let key = "ssh-ed25519 AAAAC3NzaC1lZDI1NTE5AAAAIAABAgMEBQYHCAkKCwwNDg8QERITFBUWFxgZGhscHR4f";
//! let user = User::new(AccountName::new("lua")?)
//!     .authorized_key(AuthorizedKey::new(key)?)
//!     .sudo(Sudo::Everything);
//! let settings = CloudInit::new()
//!     .hostname("assembler".parse()?)
//!     .user(user)
//!     .package("lua5.4".parse()?)
//!     .command(Command::arguments(["touch", "/var/lib/it is ready"])?);
//! let seed = settings.seed(&InstanceId::new("c9b1f2de-5c0f-4d1c-9d5b-8f0f3c1a2b3c")?)?;
//! assert!(seed.user_data().starts_with("#cloud-config\n"));
//! # Ok::<(), Box<dyn std::error::Error>>(())
//! ```
//!
//! # What is the default
//!
//! No user has a password, and none is taken over SSH. The root file system grows to its disk; a guest
//! with a host name finds it in its own `/etc/hosts`; package lists are fetched when packages are asked
//! for. Without interfaces, the guest asks for an address by DHCP on its first one.
//!
//! # A cloud-config of the user's own
//!
//! [`CloudInit::merge`] takes one. Key by key:
//!
//! - What is set here wins, as the steps that follow a boot rely on it: they log in with a key that
//!   they gave, to a host whose key they made.
//! - The lists `users`, `packages`, `write_files`, `bootcmd` and `runcmd` are joined, ours first; an
//!   item of theirs with the user name or the path of one of ours is left out.
//! - Keys that decide how the guest reads its configuration (`merge_how`, `merge_type`, `datasource`,
//!   `datasource_list` and the three lists of modules) are left out.
//! - All else is theirs, and wins over the defaults above.
//!
//! [`Seed::overridden`] says what was left out. Values without quotes stay without, so that the
//! guest's own reader decides what `yes` or `0644` is; aliases are replaced by what they stand for, and
//! comments go.
//!
//! # Traps
//!
//! - `runcmd` is one shell script: a command that fails does not stop it, and cloud-init reports an
//!   error only when the last one failed.
//! - The seed can be read by whoever can read the disk, and by `root` in the guest for as long as it
//!   stays attached.

mod file;
mod merge;
mod network;
mod password;
mod setting;
mod ssh_keys;
mod user;
mod verdict;
mod yaml;

use std::fmt;

pub use bioxen_core::{InterfaceAddress, MacAddress};
use yaml::Node;

pub use file::{Command, FileToWrite};
pub use merge::{CloudConfig, InvalidCloudConfig, Overridden, Why};
pub use network::Interface;
pub use password::{Expiry, NoSalt, PasswordHash};
pub use setting::{
    AccountName, HostName, InstanceId, InvalidSetting, Locale, PackageName, PackageVersion, Server,
    TimeZone,
};
pub use ssh_keys::{AuthorizedKey, HostKey, HostKeyAlgorithm};
pub use user::{Sudo, SudoRule, User};
pub use verdict::{Evidence, Verdict};

/// The largest seed, in bytes. What is larger is better copied once the guest runs.
pub const LARGEST_SEED: usize = 16 << 20;

/// What a guest is to become on its first boot.
#[derive(Clone, Debug, Default)]
#[must_use]
pub struct CloudInit {
    default_user: bool,
    users: Vec<User>,
    ssh_passwords: Option<bool>,
    host_keys: Vec<HostKey>,
    packages: Vec<(PackageName, Option<PackageVersion>)>,
    update: Option<bool>,
    upgrade: Option<bool>,
    files: Vec<FileToWrite>,
    boot_commands: Vec<Command>,
    commands: Vec<Command>,
    hostname: Option<HostName>,
    fqdn: Option<HostName>,
    etc_hosts: Option<EtcHosts>,
    time_zone: Option<TimeZone>,
    locale: Option<Locale>,
    ntp: Option<Vec<Server>>,
    grow_root: Option<bool>,
    call_home: Option<CallHome>,
    interfaces: Vec<Interface>,
    config: Option<CloudConfig>,
}

/// What becomes of a guest's `/etc/hosts`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum EtcHosts {
    /// Nothing.
    Leave,
    /// It gets a line with the guest's own names.
    OwnNames,
    /// It is made from the guest's template at each boot.
    Template,
}

/// A call that the guest makes when it is done, by which its address is learnt: an HTTP POST with its
/// instance id and its names.
#[derive(Clone, Debug, PartialEq, Eq)]
#[must_use]
pub struct CallHome {
    url: String,
    tries: u16,
}

impl CallHome {
    /// Posts to this address, where `$INSTANCE_ID` stands for the instance id; ten times at most, three
    /// seconds apart. It comes after packages and commands: whoever waits has to wait for those.
    pub fn new(url: &str) -> Result<Self, InvalidSetting> {
        let rest = url.strip_prefix("http://").or_else(|| url.strip_prefix("https://"));
        let is_part = |byte: u8| byte.is_ascii_graphic() && !b"\"'<>\\^`{|}".contains(&byte);
        let has_host =
            rest.is_some_and(|rest| !rest.is_empty() && !rest.starts_with(['/', ':', '?']));
        let plain = url.replace("$INSTANCE_ID", "");
        if !has_host || !url.bytes().all(is_part) || plain.contains('$') || url.len() > 2000 {
            let reason = "it starts with `http://` or `https://` and has no blanks";
            return Err(InvalidSetting::new("address to call", url, reason));
        }
        Ok(Self { url: url.to_owned(), tries: 10 })
    }

    /// Sets how often it is tried; at least once.
    pub fn tries(mut self, tries: u16) -> Self {
        self.tries = tries.max(1);
        self
    }

    fn node(&self) -> Node {
        Node::map([
            ("url", Node::text(&self.url)),
            ("post", Node::texts(["instance_id", "hostname", "fqdn"])),
            ("tries", Node::plain(self.tries)),
        ])
    }
}

/// Why settings, each good by itself, make no seed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum SeedError {
    /// Two users have one name.
    #[error("user `{name}` is there twice")]
    SameUser {
        /// The name.
        name: AccountName,
    },
    /// Two files have one path, and the second does not add to the first.
    #[error("file `{path}` is there twice")]
    SameFile {
        /// The path.
        path: String,
    },
    /// Two host keys have one algorithm.
    #[error("there are two host keys of the algorithm {algorithm:?}")]
    SameAlgorithm {
        /// The algorithm.
        algorithm: HostKeyAlgorithm,
    },
    /// Two interfaces have one hardware address.
    #[error("two interfaces have the MAC address `{mac}`")]
    SameMac {
        /// The hardware address.
        mac: MacAddress,
    },
    /// It is too large.
    #[error("the seed has {bytes} bytes, {LARGEST_SEED} are the most")]
    TooLarge {
        /// How large it is.
        bytes: usize,
    },
}

impl SeedError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::SameUser { .. } => "give all settings of a user at once".into(),
            Self::SameFile { .. } => "let the second one add to the first, or leave it out".into(),
            Self::SameAlgorithm { .. } => "a guest has one host key of each algorithm".into(),
            Self::SameMac { .. } => "give each interface its own".into(),
            Self::TooLarge { .. } => "copy large files once the guest runs".into(),
        }
    }
}

impl CloudInit {
    /// Settings that change nothing but what the module says is the default.
    pub fn new() -> Self {
        Self::default()
    }

    /// Makes a user. As soon as there is one, the image's own default user is left out, unless
    /// [`keep_default_user`](Self::keep_default_user) is called.
    pub fn user(mut self, user: User) -> Self {
        self.users.push(user);
        self
    }

    /// Makes the image's default user (`debian`, `ubuntu`, …) too.
    pub fn keep_default_user(mut self) -> Self {
        self.default_user = true;
        self
    }

    /// Says whether passwords are taken over SSH.
    pub fn ssh_passwords(mut self, taken: bool) -> Self {
        self.ssh_passwords = Some(taken);
        self
    }

    /// Gives the guest a key of its own; those that the image came with are deleted, and none is made.
    pub fn host_key(mut self, key: HostKey) -> Self {
        self.host_keys.push(key);
        self
    }

    /// Installs a package.
    pub fn package(mut self, name: PackageName) -> Self {
        self.packages.push((name, None));
        self
    }

    /// Installs packages.
    pub fn packages(mut self, names: impl IntoIterator<Item = PackageName>) -> Self {
        self.packages.extend(names.into_iter().map(|name| (name, None)));
        self
    }

    /// Installs a package in this version.
    pub fn package_version(mut self, name: PackageName, version: PackageVersion) -> Self {
        self.packages.push((name, Some(version)));
        self
    }

    /// Says whether the lists of packages are fetched first.
    pub fn package_update(mut self, update: bool) -> Self {
        self.update = Some(update);
        self
    }

    /// Says whether all packages are brought up to date first.
    pub fn package_upgrade(mut self, upgrade: bool) -> Self {
        self.upgrade = Some(upgrade);
        self
    }

    /// Writes a file.
    pub fn file(mut self, file: FileToWrite) -> Self {
        self.files.push(file);
        self
    }

    /// Runs a command once, near the end of the first boot. Commands run in their order.
    pub fn command(mut self, command: Command) -> Self {
        self.commands.push(command);
        self
    }

    /// Runs a command early in every boot, before there are networks.
    pub fn boot_command(mut self, command: Command) -> Self {
        self.boot_commands.push(command);
        self
    }

    /// Names the guest.
    pub fn hostname(mut self, name: HostName) -> Self {
        self.hostname = Some(name);
        self
    }

    /// Names the guest with its domain.
    pub fn fqdn(mut self, name: HostName) -> Self {
        self.fqdn = Some(name);
        self
    }

    /// Says what becomes of `/etc/hosts`.
    pub fn etc_hosts(mut self, managed: EtcHosts) -> Self {
        self.etc_hosts = Some(managed);
        self
    }

    /// Sets the time zone.
    pub fn time_zone(mut self, zone: TimeZone) -> Self {
        self.time_zone = Some(zone);
        self
    }

    /// Sets the locale.
    pub fn locale(mut self, locale: Locale) -> Self {
        self.locale = Some(locale);
        self
    }

    /// Sets the clock by these servers, or by the distribution's own if there are none.
    pub fn ntp(mut self, servers: impl IntoIterator<Item = Server>) -> Self {
        self.ntp = Some(servers.into_iter().collect());
        self
    }

    /// Says whether the root file system grows to its disk.
    pub fn grow_root(mut self, grow: bool) -> Self {
        self.grow_root = Some(grow);
        self
    }

    /// Lets the guest call when it is done.
    pub fn call_home(mut self, call: CallHome) -> Self {
        self.call_home = Some(call);
        self
    }

    /// Sets how an interface gets its address. In the guest it is called `eth0`, `eth1` and so on, in
    /// the order of these calls; interfaces that none is for stay down.
    pub fn interface(mut self, interface: Interface) -> Self {
        self.interfaces.push(interface);
        self
    }

    /// Adds a cloud-config of the user's own, by the rules at the top of this module; it replaces one
    /// that was added before.
    pub fn merge(mut self, config: CloudConfig) -> Self {
        self.config = Some(config);
        self
    }

    /// Makes the seed for the guest with this identity.
    pub fn seed(&self, instance: &InstanceId) -> Result<Seed, SeedError> {
        self.check()?;
        let mut meta = vec![("instance-id", Node::text(instance.as_str()))];
        if let Some(name) = self.fqdn.as_ref().or(self.hostname.as_ref()) {
            meta.push(("local-hostname", Node::text(name.as_str())));
        }
        let (user_data, overridden) =
            merge::merge(self.settings(), self.config.as_ref(), self.defaults());
        let network =
            (!self.interfaces.is_empty()).then(|| network::node(&self.interfaces).write());
        let seed = Seed {
            meta_data: Node::map(meta).write(),
            user_data: format!("#cloud-config\n{}", user_data.write()),
            network_config: network,
            overridden,
        };
        let bytes = seed.files().map(|(_, content)| content.len()).sum();
        if bytes > LARGEST_SEED { Err(SeedError::TooLarge { bytes }) } else { Ok(seed) }
    }

    fn check(&self) -> Result<(), SeedError> {
        let names: Vec<_> = self.users.iter().map(User::name).collect();
        let macs: Vec<_> = self.interfaces.iter().map(|interface| interface.mac).collect();
        let algorithms: Vec<_> = self.host_keys.iter().map(HostKey::algorithm).collect();
        let paths: Vec<_> =
            self.files.iter().filter(|file| !file.appends()).map(|file| &file.path).collect();
        if let Some(name) = repeated(&names) {
            Err(SeedError::SameUser { name: (*name).clone() })
        } else if let Some(path) = repeated(&paths) {
            Err(SeedError::SameFile { path: (*path).clone() })
        } else if let Some(algorithm) = repeated(&algorithms) {
            Err(SeedError::SameAlgorithm { algorithm: *algorithm })
        } else if let Some(mac) = repeated(&macs) {
            Err(SeedError::SameMac { mac: *mac })
        } else {
            Ok(())
        }
    }

    /// What was asked for, in the order in which it is written.
    fn settings(&self) -> Vec<(&'static str, Node)> {
        let mut settings = self.names();
        settings.extend(self.accounts());
        settings.extend(self.software());
        let commands = |list: &[Command]| Node::List(list.iter().map(Command::node).collect());
        if !self.files.is_empty() {
            settings.push(("write_files", Node::List(self.file_nodes())));
        }
        if !self.boot_commands.is_empty() {
            settings.push(("bootcmd", commands(&self.boot_commands)));
        }
        if !self.commands.is_empty() {
            settings.push(("runcmd", commands(&self.commands)));
        }
        if let Some(grow) = self.grow_root {
            settings.extend(growth(grow));
        }
        settings.extend(self.call_home.iter().map(|call| ("phone_home", call.node())));
        settings
    }

    fn names(&self) -> Vec<(&'static str, Node)> {
        let mut settings = Vec::new();
        if let Some(name) = self.hostname.as_ref().or(self.fqdn.as_ref()) {
            let label = name.as_str().split('.').next().unwrap_or_default();
            settings.push(("hostname", Node::text(label)));
        }
        let full = self.hostname.iter().find(|name| name.as_str().contains('.'));
        if let Some(name) = self.fqdn.as_ref().or(full) {
            settings.push(("fqdn", Node::text(name.as_str())));
        }
        if let Some(managed) = self.etc_hosts {
            let value = match managed {
                EtcHosts::Leave => Node::plain(false),
                EtcHosts::OwnNames => Node::text("localhost"),
                EtcHosts::Template => Node::plain(true),
            };
            settings.push(("manage_etc_hosts", value));
        }
        if let Some(zone) = &self.time_zone {
            settings.push(("timezone", Node::text(zone.as_str())));
        }
        if let Some(locale) = &self.locale {
            settings.push(("locale", Node::text(locale.as_str())));
        }
        if let Some(servers) = &self.ntp {
            let mut ntp = vec![("enabled", Node::plain(true))];
            if !servers.is_empty() {
                ntp.push(("servers", Node::texts(servers)));
            }
            settings.push(("ntp", Node::map(ntp)));
        }
        settings
    }

    fn accounts(&self) -> Vec<(&'static str, Node)> {
        let mut settings = Vec::new();
        let default = self.default_user.then(|| Node::text("default"));
        let users: Vec<_> = default.into_iter().chain(self.users.iter().map(User::node)).collect();
        if !users.is_empty() {
            settings.push(("users", Node::List(users)));
        }
        if let Some(taken) = self.ssh_passwords {
            settings.push(("ssh_pwauth", Node::plain(taken)));
        }
        let expiring: Vec<_> = self.users.iter().filter_map(User::expiring_password).collect();
        if !expiring.is_empty() {
            let passwords = [("expire", Node::plain(true)), ("users", Node::List(expiring))];
            settings.push(("chpasswd", Node::map(passwords)));
        }
        if !self.host_keys.is_empty() {
            settings.push(("ssh_deletekeys", Node::plain(true)));
            settings.push(("ssh_keys", self.host_key_nodes()));
        }
        settings
    }

    fn host_key_nodes(&self) -> Node {
        let mut parts = Vec::new();
        for key in &self.host_keys {
            let name = key.algorithm.name();
            parts.push((format!("{name}_private"), Node::text(key.private.expose())));
            parts.push((format!("{name}_public"), Node::text(&key.public)));
        }
        Node::map(parts.iter().map(|(name, value)| (name.as_str(), value.clone())))
    }

    fn software(&self) -> Vec<(&'static str, Node)> {
        let mut settings = Vec::new();
        if let Some(update) = self.update {
            settings.push(("package_update", Node::plain(update)));
        }
        if let Some(upgrade) = self.upgrade {
            settings.push(("package_upgrade", Node::plain(upgrade)));
        }
        let package = |(name, version): &(PackageName, Option<PackageVersion>)| match version {
            None => Node::text(name.as_str()),
            Some(version) => Node::texts([name.as_str(), version.as_str()]),
        };
        if !self.packages.is_empty() {
            settings.push(("packages", Node::List(self.packages.iter().map(package).collect())));
        }
        settings
    }

    fn file_nodes(&self) -> Vec<Node> {
        let is_users =
            |file: &FileToWrite| self.users.iter().any(|user| file.belongs_to(user.name()));
        self.files.iter().map(|file| file.node(is_users(file))).collect()
    }

    fn defaults(&self) -> Vec<(&'static str, Node)> {
        let mut defaults = vec![("ssh_pwauth", Node::plain(false))];
        defaults.extend(growth(true));
        if !self.packages.is_empty() {
            defaults.push(("package_update", Node::plain(true)));
        }
        if self.hostname.is_some() || self.fqdn.is_some() {
            defaults.push(("manage_etc_hosts", Node::text("localhost")));
        }
        defaults
    }
}

fn growth(grow: bool) -> [(&'static str, Node); 2] {
    let mut partition = vec![("mode", Node::text(if grow { "auto" } else { "off" }))];
    if grow {
        partition.push(("devices", Node::texts(["/"])));
    }
    [("growpart", Node::map(partition)), ("resize_rootfs", Node::plain(grow))]
}

/// A value that is there twice.
fn repeated<T: PartialEq>(values: &[T]) -> Option<&T> {
    values
        .iter()
        .enumerate()
        .find(|(index, value)| values[..*index].contains(value))
        .map(|(_, v)| v)
}

/// The files that cloud-init reads on a guest's first boot, in the form of its source `NoCloud`.
#[derive(Clone, PartialEq, Eq)]
pub struct Seed {
    meta_data: String,
    user_data: String,
    network_config: Option<String>,
    overridden: Vec<Overridden>,
}

impl Seed {
    /// The guest's identity and name.
    pub fn meta_data(&self) -> &str {
        &self.meta_data
    }

    /// The cloud-config. It holds whatever secrets the settings hold.
    pub fn user_data(&self) -> &str {
        &self.user_data
    }

    /// How the interfaces get their addresses; `None` leaves that to the guest.
    pub fn network_config(&self) -> Option<&str> {
        self.network_config.as_deref()
    }

    /// What the user's cloud-config said and the guest will not see.
    pub fn overridden(&self) -> &[Overridden] {
        &self.overridden
    }

    /// The files by their names, in the order in which they are written.
    pub fn files(&self) -> impl Iterator<Item = (&'static str, &str)> {
        let network = self.network_config().map(|content| ("network-config", content));
        [("meta-data", self.meta_data()), ("user-data", self.user_data())]
            .into_iter()
            .chain(network)
    }
}

impl fmt::Debug for Seed {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        // The contents may hold secrets.
        let sizes = self.files().map(|(name, content)| (name, content.len()));
        f.debug_map().entries(sizes).finish()
    }
}

#[cfg(test)]
mod tests;
