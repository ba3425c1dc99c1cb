//! `bioxen pool list`: the pools that have a name. Contacts none of them.

use std::process::ExitCode;

use bioxen_xcp::{PoolName, PoolSettings, TrustSettings};
use serde::Serialize;

use crate::failure::Failure;
use crate::table::text;
use crate::{configuration, json, output, table};

/// List the pools that have a name, without contacting them
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// Print one JSON array of objects
    #[arg(long)]
    json: bool,
}

/// A pool's settings, as they are shown.
#[derive(Serialize)]
pub(super) struct Row<'a> {
    name: &'a PoolName,
    addresses: Vec<String>,
    user: &'a str,
    password: String,
    fingerprint: Option<String>,
    certificate_authority: Option<String>,
}

impl<'a> Row<'a> {
    pub(super) fn of(pool: &'a PoolSettings) -> Self {
        let (fingerprint, certificate_authority) = match &pool.trust {
            TrustSettings::Fingerprint(fingerprint) => (Some(fingerprint.to_string()), None),
            TrustSettings::Authority(path) => (None, Some(path.display().to_string())),
            TrustSettings::Nothing => (None, None),
        };
        Self {
            name: &pool.name,
            addresses: pool.addresses.iter().map(ToString::to_string).collect(),
            user: &pool.user,
            password: pool.password.to_string(),
            fingerprint,
            certificate_authority,
        }
    }

    /// How its certificate is known, in words.
    pub(super) fn trust(&self) -> String {
        match (&self.fingerprint, &self.certificate_authority) {
            (Some(fingerprint), _) => format!("fingerprint {fingerprint}"),
            (None, Some(path)) => format!("authority {path}"),
            (None, None) => "this machine only".into(),
        }
    }

    /// Its settings, each with its name.
    pub(super) fn entries(&self) -> Vec<[String; 2]> {
        [
            ("addresses", self.addresses.join(", ")),
            ("user", self.user.to_owned()),
            ("password", self.password.clone()),
            ("certificate", self.trust()),
        ]
        .map(|(name, value)| [name.to_owned(), value])
        .into()
    }
}

/// Lists them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let configuration = configuration::read()?;
    let rows: Vec<Row> = configuration.pools().map(Row::of).collect();
    let rendered = if arguments.json {
        json::render(&rows)
    } else {
        let columns =
            [text("POOL"), text("ADDRESSES"), text("USER"), text("PASSWORD"), text("CERTIFICATE")];
        let cells = |row: &Row| {
            [
                row.name.to_string(),
                row.addresses.join("\n"),
                row.user.to_owned(),
                row.password.clone(),
                shortened(&row.trust()),
            ]
        };
        table::render(columns, rows.iter().map(cells).collect()).into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

/// Enough of a fingerprint to recognise it; `pool show` has all of it.
fn shortened(trust: &str) -> String {
    match trust.strip_prefix("fingerprint ") {
        Some(digits) => format!("{}…", digits.chars().take(23).collect::<String>()),
        None => trust.to_owned(),
    }
}
