//! Where things are kept: `BIOXEN_HOME`, or the XDG directories. Nothing is made here.

use std::env;
use std::path::PathBuf;

use serde::Serialize;

/// The directories of this user.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub(crate) struct Directories {
    /// Configuration that a person writes.
    pub(crate) config: PathBuf,
    /// Packages and other data.
    pub(crate) data: PathBuf,
    /// History and what else is remembered.
    pub(crate) state: PathBuf,
    /// What can be made again.
    pub(crate) cache: PathBuf,
}

impl Directories {
    /// The directories by this process's environment; `None` when it names no home.
    pub(crate) fn from_environment() -> Option<Self> {
        Self::find(|name| env::var_os(name).map(PathBuf::from))
    }

    fn find(variable: impl Fn(&str) -> Option<PathBuf>) -> Option<Self> {
        // The XDG specification has relative paths ignored.
        let variable = |name: &str| variable(name).filter(|path| path.is_absolute());
        if let Some(root) = variable("BIOXEN_HOME") {
            let below = |name: &str| root.join(name);
            return Some(Self {
                config: below("config"),
                data: below("data"),
                state: below("state"),
                cache: below("cache"),
            });
        }
        let home = variable("HOME");
        let base = |name: &str, fallback: &str| {
            let root = variable(name).or_else(|| home.as_ref().map(|home| home.join(fallback)));
            root.map(|root| root.join("bioxen"))
        };
        Some(Self {
            config: base("XDG_CONFIG_HOME", ".config")?,
            data: base("XDG_DATA_HOME", ".local/share")?,
            state: base("XDG_STATE_HOME", ".local/state")?,
            cache: base("XDG_CACHE_HOME", ".cache")?,
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn find(variables: &[(&str, &str)]) -> Option<Directories> {
        Directories::find(|name| {
            variables.iter().find(|(known, _)| *known == name).map(|(_, value)| value.into())
        })
    }

    #[test]
    fn bioxen_home_holds_everything() {
        let directories = find(&[("BIOXEN_HOME", "/b"), ("HOME", "/h")]).unwrap();
        assert_eq!(directories.state, PathBuf::from("/b/state"));
        assert_eq!(directories.config, PathBuf::from("/b/config"));
    }

    #[test]
    fn without_it_the_xdg_directories_are_used() {
        let directories = find(&[("HOME", "/h"), ("XDG_CACHE_HOME", "/c")]).unwrap();
        assert_eq!(directories.state, PathBuf::from("/h/.local/state/bioxen"));
        assert_eq!(directories.cache, PathBuf::from("/c/bioxen"));
    }

    #[test]
    fn a_relative_directory_is_ignored_and_no_home_is_no_place() {
        let directories = find(&[("HOME", "/h"), ("XDG_CACHE_HOME", "c")]).unwrap();
        assert_eq!(directories.cache, PathBuf::from("/h/.cache/bioxen"));
        assert_eq!(find(&[]), None);
    }
}
