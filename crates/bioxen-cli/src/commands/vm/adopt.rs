//! `bioxen vm adopt`: takes a VM into use that was there before.

use std::net::IpAddr;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::Duration;

use bioxen::VmName;
use bioxen_state::{Address, Controller, KnownBy, NewVm, Source, Vm};
use bioxen_xcp::making::Entry;
use bioxen_xcp::ssh::{ClientKey, HostKeyCheck, InvalidKey, Login, PublicKey, Target};
use bioxen_xcp::{ConnectedPool, Machine};
use clap::ValueHint;
use serde::Serialize;

use crate::failure::Failure;
use crate::registry::{self, Registry};
use crate::signals::Signals;
use crate::{confirmation, json, output, runtime};

const AFTER_HELP: &str = "\
Examples:
  bioxen vm adopt web-01 --name web --user ada --key ~/.ssh/id_ed25519
  bioxen vm adopt web-01 --name web --user ada --agent
  bioxen vm adopt web-01 --name web --user ada --key KEY --host-key 'ssh-ed25519 AAAA…'";

/// Use a VM that was there before: it is never deleted by us
///
/// It must run, with guest tools and an SSH server in it. The server's host key is the one that is given,
/// or the one that it shows, once a person has compared its fingerprint; from then on no other is
/// accepted. The key that we log in with is kept with what is remembered of the VM, for its owner alone; with
/// `--agent` nothing is kept, and the agent in `SSH_AUTH_SOCK` is asked each time.
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The VM on its pool, by name or uuid
    vm: String,
    /// What it is to be called here
    #[arg(long, value_name = "NAME")]
    name: VmName,
    /// The pool; may be left out where there is one only
    #[arg(long, value_name = "POOL")]
    pool: Option<String>,
    /// User of the guest that Lua is to run as
    #[arg(long, value_name = "USER")]
    user: String,
    /// File with the private key to log in with, without a passphrase
    #[arg(long, value_name = "FILE", value_hint = ValueHint::FilePath, required_unless_present = "agent")]
    key: Option<PathBuf>,
    /// Log in by the keys of the agent in `SSH_AUTH_SOCK`, now and later
    #[arg(long, conflicts_with = "key")]
    agent: bool,
    /// Port of the guest's SSH server
    #[arg(long, value_name = "PORT", default_value_t = 22, value_parser = clap::value_parser!(u16).range(1..))]
    port: u16,
    /// Host key that its SSH server must have, as in `known_hosts`
    #[arg(long, value_name = "KEY", conflicts_with = "trust_on_first_use")]
    host_key: Option<PublicKey>,
    /// Take the host key that it shows, without asking
    #[arg(long)]
    trust_on_first_use: bool,
    /// Give up after this time
    #[arg(long, value_name = "TIME", default_value = "2m", value_parser = humantime::parse_duration)]
    timeout: Duration,
    /// Print one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Adopted<'a> {
    name: &'a VmName,
    uuid: String,
    pool: &'a str,
    address: IpAddr,
    host_key: String,
    fingerprint: String,
}

/// A guest that was entered.
struct Entered {
    address: IpAddr,
    entry: Entry,
}

/// Adopts it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let login = match &arguments.key {
        Some(path) => Login::Key(read_key(path)?),
        None => Login::Agent(None),
    };
    let registry = Registry::open()?;
    registry.ensure_free(&arguments.name)?;
    runtime::block_on(async {
        let mut signals = Signals::listen()?;
        let pool = signals.or_stop(registry.connect(arguments.pool.as_deref())).await?;
        let outcome = signals.or_stop(Box::pin(adopt(arguments, &registry, &pool, login))).await;
        registry::close(&pool).await;
        outcome
    })
}

fn read_key(path: &Path) -> Result<ClientKey, Failure> {
    let text = std::fs::read_to_string(path)
        .map_err(|source| Failure::ReadOption { path: path.to_owned(), source })?;
    let key = ClientKey::from_openssh(&xenapi::Secret::from(text));
    key.map_err(|source: InvalidKey| Failure::Key { path: path.to_owned(), source })
}

async fn adopt(
    arguments: &Arguments,
    registry: &Registry,
    pool: &Arc<ConnectedPool>,
    login: Login,
) -> Result<ExitCode, Failure> {
    let machine = Machine::find(pool, &arguments.vm).map_err(Failure::machine)?;
    let machine = machine.within(arguments.timeout);
    let entered = enter(arguments, pool, &machine, login).await?;
    let controller = registry.controller()?;
    let begun = registry.state().begin(begin(arguments, pool, &machine, &controller));
    begun.map_err(Failure::State)?;
    if let Err(error) = machine.adopt(&arguments.name).await {
        registry.state().forget(&arguments.name).map_err(Failure::State)?;
        return Err(Failure::machine(error));
    }
    remember(registry, &arguments.name, &machine, &entered)?;
    let Entered { address, entry } = entered;
    let fingerprint = entry.host_key.fingerprint();
    let name = &arguments.name;
    let rendered = if arguments.json {
        json::render(&Adopted {
            name,
            uuid: machine.uuid().to_string(),
            pool: pool.name().as_str(),
            address,
            host_key: entry.host_key.to_string(),
            fingerprint: fingerprint.to_string(),
        })
    } else {
        format!("vm `{name}` is adopted, at {address}; its host key is {fingerprint}\n")
            .into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

/// Logs in to its guest, once its host key is known.
async fn enter(
    arguments: &Arguments,
    pool: &ConnectedPool,
    machine: &Machine,
    login: Login,
) -> Result<Entered, Failure> {
    let address = machine.address().await.map_err(Failure::machine)?;
    let check = match &arguments.host_key {
        Some(key) => HostKeyCheck::Pinned(key.clone()),
        None => HostKeyCheck::TrustOnFirstUse,
    };
    let target = Target::new(address.to_string(), &arguments.user, check, login.clone())
        .port(arguments.port);
    let connection = pool.enter(&target).await.map_err(Failure::ssh)?;
    let host_key = connection.host_key().clone();
    connection.close().await;
    if arguments.host_key.is_none() && !arguments.trust_on_first_use {
        ask(&arguments.name, address, &host_key).await?;
    }
    let entry = Entry { user: arguments.user.clone(), port: arguments.port, host_key, login };
    Ok(Entered { address, entry })
}

async fn ask(name: &VmName, address: IpAddr, found: &PublicKey) -> Result<(), Failure> {
    let fingerprint = found.fingerprint();
    let question = format!(
        "The SSH server at {address} shows the host key\n  {fingerprint}\n\
         Compare it with what the guest itself says:\n  \
         ssh-keygen -lf /etc/ssh/ssh_host_{}_key.pub\n\
         Is it the same, and is it to be trusted from now on?",
        found.kind().trim_start_matches("ssh-")
    );
    match confirmation::ask_beside(question).await? {
        Some(true) => Ok(()),
        Some(false) => Err(Failure::NotConfirmed { what: format!("vm `{name}` was not adopted") }),
        None => Err(Failure::UnknownHostKey { address, found: Box::new(found.clone()) }),
    }
}

fn begin(
    arguments: &Arguments,
    pool: &ConnectedPool,
    machine: &Machine,
    controller: &Controller,
) -> NewVm {
    NewVm {
        name: arguments.name.clone(),
        pool: pool.name().to_string(),
        pool_uuid: registry::pool_uuid(pool),
        source: Source::Adopted { uuid: machine.uuid().to_string() },
        created: jiff::Timestamp::now(),
        expires: None,
        controller: Some(controller.id()),
        spec: "{}".to_owned(),
    }
}

fn remember(
    registry: &Registry,
    name: &VmName,
    machine: &Machine,
    entered: &Entered,
) -> Result<(), Failure> {
    let details = machine.details().map_err(Failure::machine)?;
    let state = registry.state();
    let Entered { address, entry } = entered;
    let write = |vm: &mut Vm| {
        vm.address = Some(Address { ip: *address, known_by: KnownBy::GuestMetrics });
        vm.ssh_user = Some(entry.user.clone());
        vm.ssh_port = entry.port;
        vm.host_key = Some(entry.host_key.to_string());
        vm.client_key = entry.client_key().map(registry::secret);
        vm.memory = Some(details.memory);
        vm.vcpus = Some(details.vcpus);
        vm.disk = details.disks.first().map(|disk| disk.size);
    };
    state.update(name, write).map_err(Failure::State)?;
    state.ready(name).map_err(Failure::State)?;
    state.release(name).map(drop).map_err(Failure::State)
}
