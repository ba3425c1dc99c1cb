//! The user's configuration file, and pools by their names in it.

use std::env;

use bioxen_xcp::{Configuration, PoolName, PoolSettings, Project, Settings, XcpngDefaults};

use crate::directories::Directories;
use crate::failure::Failure;

/// Reads the configuration of this user.
pub(crate) fn read() -> Result<Configuration, Failure> {
    let directories = Directories::from_environment().ok_or(Failure::NoHome)?;
    Configuration::read(directories.config.join("config.toml")).map_err(Failure::Configuration)
}

/// The defaults that are in force: those of the command line before those of the environment, of the
/// project in the working directory, and of the user.
pub(crate) fn settings(user: &Configuration, flags: &XcpngDefaults) -> Result<Settings, Failure> {
    let directory = env::current_dir().map_err(Failure::WorkingDirectory)?;
    let project = Project::find(&directory).map_err(Failure::Settings)?;
    // What is not UTF-8 is seen as such, and refused or not found.
    let variable = |name: &str| env::var_os(name).map(|text| text.to_string_lossy().into_owned());
    Settings::resolve(flags, variable, project.as_ref(), user).map_err(Failure::Settings)
}

/// A pool by its name, or the one that is the default, or the only one that there is.
pub(crate) fn pool(name: Option<&str>) -> Result<PoolSettings, Failure> {
    let configuration = read()?;
    let default = match name {
        Some(_) => None,
        None => settings(&configuration, &XcpngDefaults::default())?.xcpng.pool,
    };
    let name = name.or(default.as_ref().map(PoolName::as_str));
    let mut pools = configuration.pools();
    match (name, pools.next(), pools.next()) {
        (None, Some(only), None) => Ok(only.clone()),
        (None, None, _) => Err(Failure::NoPools),
        (None, Some(_), Some(_)) => {
            let names = configuration.pools().map(|pool| format!("`{}`", pool.name));
            Err(Failure::WhichPool { there: names.collect::<Vec<_>>().join(", ") })
        }
        (Some(name), _, _) => {
            configuration.pool(name).cloned().map_err(|error| Failure::Configuration(error.into()))
        }
    }
}
