//! The user's configuration file, and pools by their names in it.

use bioxen_xcp::{Configuration, PoolSettings};

use crate::directories::Directories;
use crate::failure::Failure;

/// Reads the configuration of this user.
pub(crate) fn read() -> Result<Configuration, Failure> {
    let directories = Directories::from_environment().ok_or(Failure::NoHome)?;
    Configuration::read(directories.config.join("config.toml")).map_err(Failure::Configuration)
}

/// A pool by its name, or the only one that there is.
pub(crate) fn pool(name: Option<&str>) -> Result<PoolSettings, Failure> {
    let configuration = read()?;
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
