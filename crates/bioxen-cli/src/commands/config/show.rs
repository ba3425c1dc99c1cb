//! `bioxen config show`: the settings that are in force, and where each comes from.

use std::process::ExitCode;

use bioxen_xcp::{Configuration, Origin, PoolSettings, Settings, TrustSettings, XcpngDefaults};
use serde::Serialize;

use crate::directories::Directories;
use crate::failure::Failure;
use crate::table::text;
use crate::{configuration, json, output, shown, table};

const AFTER_HELP: &str = "\
A setting comes from the first of: the command line; an environment variable; bioxen.toml of the project;
config.toml of the user; the default. Secrets are shown as where they are.";

/// Show the settings that are in force
#[derive(Debug, clap::Args)]
#[command(after_help = AFTER_HELP)]
pub(crate) struct Arguments {
    /// Show where each comes from
    #[arg(long)]
    origin: bool,
    /// Print one JSON array of objects, each with its origin
    #[arg(long)]
    json: bool,
}

/// A setting, its value and where that comes from.
#[derive(Serialize)]
struct Row {
    name: String,
    value: String,
    #[serde(flatten)]
    origin: Origin,
}

/// Shows them.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let configuration = configuration::read()?;
    let settings = configuration::settings(&configuration, &XcpngDefaults::default())?;
    let mut rows = directories()?;
    rows.extend(configuration.pools().flat_map(|pool| of_pool(pool, &configuration)));
    rows.extend(defaults(&settings));
    let rendered = if arguments.json {
        json::render(&rows)
    } else if arguments.origin {
        let cells = |row: &Row| {
            [row.name.clone(), shown::plain(&row.value), shown::plain(&row.origin.to_string())]
        };
        let columns = [text("SETTING"), text("VALUE"), text("ORIGIN")];
        table::render(columns, rows.iter().map(cells).collect()).into_bytes()
    } else {
        let cells = |row: &Row| [row.name.clone(), shown::plain(&row.value)];
        table::render([text("SETTING"), text("VALUE")], rows.iter().map(cells).collect())
            .into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

fn directories() -> Result<Vec<Row>, Failure> {
    let directories = Directories::from_environment().ok_or(Failure::NoHome)?;
    let row = |(name, path, variable): (&str, &std::path::Path, Option<&str>)| Row {
        name: format!("directories.{name}"),
        value: path.display().to_string(),
        origin: match variable {
            Some(variable) => Origin::Variable { variable: variable.to_owned() },
            None => Origin::Default,
        },
    };
    Ok(directories.entries().map(row).into())
}

fn of_pool(pool: &PoolSettings, configuration: &Configuration) -> Vec<Row> {
    let addresses: Vec<String> = pool.addresses.iter().map(ToString::to_string).collect();
    let trust = match &pool.trust {
        TrustSettings::Fingerprint(fingerprint) => Some(("fingerprint", fingerprint.to_string())),
        TrustSettings::Authority(path) => {
            Some(("certificate_authority", path.display().to_string()))
        }
        TrustSettings::Nothing => None,
    };
    let own = [
        ("addresses", addresses.join(", ")),
        ("user", pool.user.clone()),
        ("password", pool.password.to_string()),
    ];
    own.into_iter()
        .chain(trust)
        .map(|(setting, value)| (setting.to_owned(), value))
        .chain(pool.guests.entries())
        .map(|(setting, value)| {
            let name = format!("pools.{}.{setting}", pool.name);
            Row { origin: configuration.origin(&name), name, value }
        })
        .collect()
}

fn defaults(settings: &Settings) -> Vec<Row> {
    let row = |(name, value): (&str, String)| Row {
        name: format!("defaults.xcpng.{name}"),
        value,
        origin: settings.origin(name).clone(),
    };
    settings.xcpng.entries().into_iter().map(row).collect()
}
