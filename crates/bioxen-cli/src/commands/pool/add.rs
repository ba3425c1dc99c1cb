//! `bioxen pool add`: gives a pool a name, once it is known whom one talks to.

use std::path::PathBuf;
use std::process::ExitCode;

use bioxen_xcp::{
    DEFAULT_USER, Endpoint, Fingerprint, PoolName, PoolSettings, SecretReference, TrustSettings,
    inventory,
};
use serde::Serialize;

use super::acquaintance;
use super::listing::ask_pool;
use crate::failure::Failure;
use crate::{configuration, json, output, runtime, shown};

const AFTER_HELP: &str = "\
The certificate of a host is its own, so the first contact shows its fingerprint and asks. Compare it with
what the host itself says: `xe host-get-server-certificate | openssl x509 -noout -fingerprint -sha256`.
Without a terminal to ask on, give it with --fingerprint, or the authority that signed it.

The password is never written down here, only where it is:
  env:NAME      in an environment variable
  file:PATH     in a file
  cmd:PROGRAM   what a program prints, such as `cmd:pass show lab`

Examples:
  bioxen pool add lab https://xcp-01.example --password env:LAB_PASSWORD
  bioxen pool add lab https://xcp-01 https://xcp-02 --password file:/run/secrets/lab --fingerprint 3a:5f:…";

/// Name a pool: shows its certificate's fingerprint, asks, logs in once, and keeps the settings
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The name to give it
    name: PoolName,
    /// Addresses of its hosts, best the master's first
    #[arg(required = true, value_name = "URL")]
    addresses: Vec<Endpoint>,
    /// Whom to log in as
    #[arg(long, default_value = DEFAULT_USER)]
    user: String,
    /// Where the password is: `env:NAME`, `file:PATH` or `cmd:PROGRAM`
    #[arg(long, value_name = "WHERE")]
    password: SecretReference,
    /// The SHA-256 fingerprint of its certificate, compared before
    #[arg(long, value_name = "SHA256", conflicts_with = "certificate_authority")]
    fingerprint: Option<Fingerprint>,
    /// A PEM file with the certificate of the authority that signed its own
    #[arg(long, value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// Keep the settings without contacting the pool
    #[arg(long)]
    no_check: bool,
    /// Print what was added as one JSON object
    #[arg(long)]
    json: bool,
}

/// What was added.
#[derive(Serialize)]
struct Added<'a> {
    name: &'a PoolName,
    fingerprint: Option<String>,
    version: Option<String>,
    hosts: Option<usize>,
}

/// Adds it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let mut configuration = configuration::read()?;
    if configuration.find_pool(arguments.name.as_str()).is_some() {
        let name = arguments.name.clone();
        let error = bioxen_xcp::ConfigurationError::Duplicate { name };
        return Err(Failure::Configuration(error));
    }
    let mut pool = PoolSettings {
        name: arguments.name.clone(),
        addresses: arguments.addresses.clone(),
        user: arguments.user.clone(),
        password: arguments.password.clone(),
        trust: acquaintance::said(arguments.fingerprint, arguments.certificate_authority.as_ref())?,
        guests: bioxen_xcp::GuestSettings::default(),
    };
    let hosts = if arguments.no_check {
        None
    } else {
        if pool.trust == TrustSettings::Nothing {
            pool.trust = acquaintance::make(&pool, "was not trusted or added")?;
        }
        let ask = async |client: &xenapi::Client| inventory::hosts(client).await;
        Some(runtime::block_on(async { ask_pool(&pool, ask).await })?)
    };
    configuration.add_pool(&pool).map_err(Failure::Configuration)?;
    let version = hosts.as_ref().and_then(|hosts| hosts.first()).map(|host| host.version.clone());
    let fingerprint = match &pool.trust {
        TrustSettings::Fingerprint(fingerprint) => Some(fingerprint.to_string()),
        TrustSettings::Authority(_) | TrustSettings::Nothing => None,
    };
    let added =
        Added { name: &pool.name, fingerprint, version, hosts: hosts.as_ref().map(Vec::len) };
    let rendered = if arguments.json { json::render(&added) } else { added.text().into_bytes() };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

impl Added<'_> {
    fn text(&self) -> String {
        let what = match (&self.version, self.hosts) {
            (Some(version), Some(hosts)) => {
                let noun = if hosts == 1 { "host" } else { "hosts" };
                format!(": {}, {hosts} {noun}", shown::plain(version))
            }
            _ => ", which was not contacted".to_owned(),
        };
        format!("added pool `{}`{what}\n", self.name)
    }
}
