//! `bioxen config import`: takes over the configuration of the replaced library.

use std::collections::BTreeMap;
use std::fs;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bioxen_xcp::import::{Fate, Finding, Import, Wishes};
use bioxen_xcp::{Configuration, Endpoint, PoolName, PoolSettings, SecretReference};
use serde::Serialize;

use crate::failure::Failure;
use crate::report::Report;
use crate::table::text;
use crate::{configuration, json, output, shown, table};

const AFTER_HELP: &str = "\
FILE is JSON (xcpng_config.json, xo_config.json, bioxen_config.json) or lines of KEY=VALUE (.env), in any
spelling that the library's versions and documents had. It is not changed. What config.toml has already
stays as it is.

A password in it is moved to a file that only you can read, in `secrets` beside config.toml, which then
refers to it; `--password` says where it is instead. That certificates be trusted unseen is not taken
over: `bioxen pool trust NAME` shows a pool's certificate and asks.

Examples:
  bioxen config import xcpng_config.json --dry-run
  bioxen config import .env --pool lab --password env:LAB_PASSWORD";

/// Take over the configuration of the Python library, and say what became of each key
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// The file
    #[arg(value_name = "FILE")]
    file: PathBuf,
    /// The name to give its pool, instead of its host's
    #[arg(long, value_name = "NAME")]
    pool: Option<PoolName>,
    /// Where the password is: `env:NAME`, `file:PATH` or `cmd:PROGRAM`; that in the file is left there
    #[arg(long, value_name = "WHERE")]
    password: Option<SecretReference>,
    /// Say what would become of it, and write nothing
    #[arg(long)]
    dry_run: bool,
    /// Print what became of it as one JSON object
    #[arg(long)]
    json: bool,
}

/// What was imported.
#[derive(Serialize)]
struct Imported<'a> {
    file: &'a Path,
    configuration: &'a Path,
    dry_run: bool,
    pools: Vec<&'a PoolName>,
    defaults: BTreeMap<&'static str, String>,
    keys: &'a [Finding],
}

/// Imports it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let file = &arguments.file;
    let old = fs::read_to_string(file)
        .map_err(|source| Failure::ReadOld { path: file.clone(), source })?;
    let wishes = Wishes { pool: arguments.pool.clone(), password: arguments.password.clone() };
    let refuse = |source| Failure::Import { path: file.clone(), source };
    let mut configuration = configuration::read()?;
    let mut import = Import::parse(&old, &wishes).map_err(refuse)?;
    import.leave_out_what_is_in(&configuration).map_err(refuse)?;
    let pools = settings(&mut import, arguments, &configuration)?;
    let is_new = !pools.is_empty() || !import.defaults.entries().is_empty();
    if is_new && !arguments.dry_run {
        configuration.add(&pools, &import.defaults).map_err(Failure::Configuration)?;
    }
    let imported = Imported {
        file,
        configuration: configuration.path(),
        dry_run: arguments.dry_run,
        pools: pools.iter().map(|pool| &pool.name).collect(),
        defaults: import.defaults.entries().into_iter().collect(),
        keys: &import.findings,
    };
    let rendered =
        if arguments.json { json::render(&imported) } else { imported.text().into_bytes() };
    output::print(&rendered)?;
    if !arguments.dry_run {
        advise(file, &pools, &import);
    }
    Ok(ExitCode::SUCCESS)
}

/// The pools as they will be. Their passwords are moved before anything refers to them: should this be
/// interrupted, the same import finds them where it would put them.
fn settings(
    import: &mut Import,
    arguments: &Arguments,
    configuration: &Configuration,
) -> Result<Vec<PoolSettings>, Failure> {
    let directory = configuration.path().parent().unwrap_or(Path::new("."));
    let mut all = Vec::new();
    for pool in &import.pools {
        let path = directory.join("secrets").join(pool.name.as_str());
        let secret = match (&pool.password, &arguments.password) {
            (Some(password), _) if !arguments.dry_run => {
                SecretReference::keep_in(&path, password).map_err(Failure::Secret)?
            }
            (None, Some(reference)) => reference.clone(),
            (_, _) => SecretReference::File(path),
        };
        all.push(Import::settings(pool, &secret));
    }
    for pool in &all {
        import.moved(&pool.name, &pool.password);
    }
    Ok(all)
}

/// Says what is left for the user to do.
fn advise(file: &Path, pools: &[PoolSettings], import: &Import) {
    let has_certificate = |pool: &&PoolSettings| pool.addresses.iter().any(Endpoint::is_tls);
    for pool in pools.iter().filter(has_certificate) {
        let mut report =
            Report::new(format!("the certificate of pool `{}` is not trusted yet", pool.name));
        report.hint =
            Some(format!("have it shown, and compare it: `bioxen pool trust {}`", pool.name));
        report.warning();
    }
    if import.findings.iter().any(|finding| matches!(finding.fate, Fate::Moved { .. })) {
        let mut report = Report::new(format!("`{}` still holds a password", file.display()));
        report.hint = Some("delete it when nothing reads it any more".into());
        report.warning();
    }
}

impl Imported<'_> {
    fn text(&self) -> String {
        let cells = |finding: &Finding| {
            let (fate, what) = match &finding.fate {
                Fate::Mapped { to, value, note } => {
                    let note = note.as_ref().map(|note| format!("; {note}")).unwrap_or_default();
                    ("mapped", format!("{to} = {value}{note}"))
                }
                Fate::Moved { to, value } => ("moved", format!("{to} = {value}")),
                Fate::Dropped { why } => ("dropped", why.clone()),
                Fate::Unknown => ("unknown", "nobody knows what it means".into()),
            };
            [shown::plain(&finding.key), fate.into(), shown::plain(&what)]
        };
        let rows = self.keys.iter().map(cells).collect();
        let table = table::render([text("KEY"), text("FATE"), text("BECAME, OR WHY NOT")], rows);
        let path = self.configuration.display();
        let end = match (self.dry_run, self.pools.is_empty() && self.defaults.is_empty()) {
            (true, _) => format!("`{path}` was not changed: this was a dry run"),
            (false, true) => format!("`{path}` was not changed: there is nothing new"),
            (false, false) => format!("`{path}` was changed"),
        };
        format!("{table}\n{end}\n")
    }
}
