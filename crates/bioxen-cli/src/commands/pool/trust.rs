//! `bioxen pool trust`: has the certificate of a pool compared, and trusts it from then on.

use std::path::PathBuf;
use std::process::ExitCode;

use bioxen_xcp::{Fingerprint, TrustSettings};
use serde::Serialize;

use super::acquaintance;
use crate::failure::Failure;
use crate::{configuration, json, output};

const AFTER_HELP: &str = "\
For a pool that was imported, or one that has a new certificate. Compare it with what the host itself says:
`xe host-get-server-certificate | openssl x509 -noout -fingerprint -sha256`. Nobody logs in.";

/// Show the fingerprint of a pool's certificate, ask, and trust it from then on
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The pool's name; may be left out where there is one only
    name: Option<String>,
    /// The SHA-256 fingerprint of its certificate, compared before
    #[arg(long, value_name = "SHA256", conflicts_with = "certificate_authority")]
    fingerprint: Option<Fingerprint>,
    /// A PEM file with the certificate of the authority that signed its own
    #[arg(long, value_name = "FILE")]
    certificate_authority: Option<PathBuf>,
    /// Print what is trusted as one JSON object
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Trusted<'a> {
    name: &'a str,
    fingerprint: Option<String>,
    certificate_authority: Option<String>,
}

/// Trusts it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let pool = configuration::pool(arguments.name.as_deref())?;
    let said = acquaintance::said(arguments.fingerprint, arguments.certificate_authority.as_ref())?;
    let trust = match said {
        TrustSettings::Nothing => acquaintance::make(&pool, "was not trusted")?,
        said => said,
    };
    let name = pool.name.as_str();
    let (fingerprint, certificate_authority) = match &trust {
        TrustSettings::Fingerprint(fingerprint) => (Some(fingerprint.to_string()), None),
        TrustSettings::Authority(path) => (None, Some(path.display().to_string())),
        TrustSettings::Nothing => (None, None),
    };
    configuration::read()?.trust_pool(name, &trust).map_err(Failure::Configuration)?;
    let text = match (&fingerprint, &certificate_authority) {
        (Some(fingerprint), _) => {
            format!("pool `{name}` is trusted by the fingerprint {fingerprint}\n")
        }
        (None, Some(path)) => format!("pool `{name}` is trusted by the authority in `{path}`\n"),
        (None, None) => format!("pool `{name}` is on this machine, and has no certificate\n"),
    };
    let rendered = if arguments.json {
        json::render(&Trusted { name, fingerprint, certificate_authority })
    } else {
        text.into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}
