//! The options that order a virtual machine.

use std::path::PathBuf;
use std::time::Duration;

use bioxen::ByteSize;
use bioxen_core::{CallHomeAddress, MachineSpec, NetworkSpec, SizeClass};
use clap::builder::{PossibleValuesParser, TypedValueParser};
use clap::{Args, ValueHint};

use crate::failure::Failure;

const MACHINE: &str = "Virtual machine";
const GUEST: &str = "Guest";

/// From what it is made, and where: what `vm create` and `run` have in common.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct PlaceOptions {
    /// Pool, by its name in the configuration; may be left out where there is one only
    #[arg(long, value_name = "POOL", help_heading = MACHINE)]
    pool: Option<String>,

    /// Template that it is made from, by name or uuid; `bioxen pool templates` lists them
    #[arg(long, value_name = "TEMPLATE", help_heading = MACHINE)]
    template: Option<String>,

    /// Memory and processors by one word
    #[arg(long, value_name = "SIZE", value_parser = sizes(), help_heading = MACHINE)]
    size: Option<SizeClass>,

    /// Storage repository of its disks; another than the template's makes a full copy
    #[arg(long, value_name = "STORAGE", help_heading = MACHINE)]
    storage: Option<String>,

    /// Host that it is to run on, if that can take it
    #[arg(long, value_name = "HOST", help_heading = MACHINE)]
    host: Option<String>,

    /// Network that it is on, with `,address=10.0.0.7/24` and the like; may be repeated
    ///
    /// After the network's name or uuid may come, each after a comma: address=IP/PREFIX or address=dhcp
    /// (otherwise one of the range that is declared for it, or DHCP),
    /// gateway=IP, dns=IP, mac=MAC, and allow=IP, beyond which the pool lets nothing through.
    #[arg(long, value_name = "NETWORK[,KEY=VALUE…]", help_heading = MACHINE)]
    network: Vec<NetworkSpec>,

    /// User of the guest that Lua runs as [default: bioxen]
    #[arg(long, value_name = "USER", help_heading = GUEST)]
    user: Option<String>,

    /// Port of the guest's SSH server [default: 22]
    #[arg(long, value_name = "PORT", value_parser = clap::value_parser!(u16).range(1..), help_heading = GUEST)]
    ssh_port: Option<u16>,

    /// Package of the guest's distribution to install; may be repeated
    #[arg(long, value_name = "PACKAGE", help_heading = GUEST)]
    package: Vec<String>,

    /// File with a cloud-config to merge with ours
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GUEST)]
    cloud_config: Option<PathBuf>,

    /// File with public keys that may log in besides our own; may be repeated
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, help_heading = GUEST)]
    authorized_keys: Vec<PathBuf>,
}

/// How large it is, and how long it lives: what only `vm create` says.
#[derive(Clone, Debug, Default, Args)]
pub(crate) struct SizeOptions {
    /// Its memory
    #[arg(long, value_name = "SIZE", help_heading = MACHINE)]
    memory: Option<ByteSize>,

    /// Its processors
    #[arg(long, value_name = "COUNT", help_heading = MACHINE)]
    vcpus: Option<u32>,

    /// Size to which its first disk grows
    #[arg(long, value_name = "SIZE", help_heading = MACHINE)]
    disk: Option<ByteSize>,

    /// Let its disks share nothing with the template's
    #[arg(long, help_heading = MACHINE)]
    full_copy: bool,

    /// Have its guest call this machine when it has set itself up, for guests without guest tools
    ///
    /// The address is one of this machine that guests reach, or 0.0.0.0 for the one by which the pool is
    /// reached; without a port it is a free one. It is for guests that ask a DHCP server and tell the pool
    /// nothing.
    #[arg(long, value_name = "ADDRESS[:PORT]", conflicts_with = "no_wait", help_heading = GUEST)]
    call_home: Option<CallHomeAddress>,

    /// Time after which `bioxen vm gc` deletes it, such as 8h or 7d
    #[arg(long, value_name = "TIME", value_parser = humantime::parse_duration, help_heading = MACHINE)]
    ttl: Option<Duration>,
}

fn sizes() -> impl TypedValueParser<Value = SizeClass> {
    PossibleValuesParser::new(SizeClass::ALL.map(SizeClass::name))
        .try_map(|name| name.parse::<SizeClass>())
}

impl PlaceOptions {
    /// The first option that was given, if any was.
    pub(crate) fn first_said(&self) -> Option<&'static str> {
        let said = [
            ("--pool", self.pool.is_some()),
            ("--template", self.template.is_some()),
            ("--size", self.size.is_some()),
            ("--storage", self.storage.is_some()),
            ("--host", self.host.is_some()),
            ("--network", !self.network.is_empty()),
            ("--user", self.user.is_some()),
            ("--ssh-port", self.ssh_port.is_some()),
            ("--package", !self.package.is_empty()),
            ("--cloud-config", self.cloud_config.is_some()),
            ("--authorized-keys", !self.authorized_keys.is_empty()),
        ];
        said.into_iter().find_map(|(option, is_said)| is_said.then_some(option))
    }

    /// The order for a machine; reads the files that are named.
    pub(crate) fn machine(&self) -> Result<MachineSpec, Failure> {
        let read = |path: &PathBuf| {
            std::fs::read_to_string(path)
                .map_err(|source| Failure::ReadOption { path: path.clone(), source })
        };
        let mut authorized_keys = Vec::new();
        for path in &self.authorized_keys {
            let text = read(path)?;
            let lines = text.lines().map(str::trim);
            let keys = lines.filter(|line| !line.is_empty() && !line.starts_with('#'));
            authorized_keys.extend(keys.map(str::to_owned));
        }
        Ok(MachineSpec {
            pool: self.pool.clone(),
            template: self.template.clone(),
            size: self.size,
            storage: self.storage.clone(),
            host: self.host.clone(),
            networks: self.network.clone(),
            user: self.user.clone(),
            port: self.ssh_port,
            packages: self.package.clone(),
            cloud_config: self.cloud_config.as_ref().map(read).transpose()?,
            authorized_keys,
            ..MachineSpec::default()
        })
    }
}

impl SizeOptions {
    /// Puts what was said into an order.
    pub(crate) fn apply(&self, machine: MachineSpec) -> MachineSpec {
        MachineSpec {
            memory: self.memory,
            vcpus: self.vcpus,
            disk: self.disk,
            full_copy: self.full_copy,
            lifetime: self.ttl,
            call_home: self.call_home,
            ..machine
        }
    }
}
