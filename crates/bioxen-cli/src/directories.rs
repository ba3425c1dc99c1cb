//! Where things are kept: `BIOXEN_HOME`, or the XDG directories. Nothing is made here.

use std::env;
use std::path::{Path, PathBuf};

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

    /// Each by its name, with the environment variable that says where it is, if one does.
    pub(crate) fn entries(&self) -> [(&'static str, &Path, Option<&'static str>); 4] {
        self.entries_by(|name| env::var_os(name).is_some_and(|path| Path::new(&path).is_absolute()))
    }

    fn entries_by(
        &self,
        is_said: impl Fn(&str) -> bool,
    ) -> [(&'static str, &Path, Option<&'static str>); 4] {
        let by = |base| ["BIOXEN_HOME", base].into_iter().find(|variable| is_said(variable));
        [
            ("config", &self.config, by("XDG_CONFIG_HOME")),
            ("data", &self.data, by("XDG_DATA_HOME")),
            ("state", &self.state, by("XDG_STATE_HOME")),
            ("cache", &self.cache, by("XDG_CACHE_HOME")),
        ]
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
    fn each_directory_names_the_variable_that_says_it() {
        let variables = |variables: &[(&str, &str)]| {
            let directories = find(variables).unwrap();
            let is_said = |name: &str| variables.iter().any(|(known, _)| *known == name);
            directories.entries_by(is_said).map(|(_, _, variable)| variable)
        };
        assert_eq!(variables(&[("HOME", "/h"), ("BIOXEN_HOME", "/b")]), [Some("BIOXEN_HOME"); 4]);
        let one = variables(&[("HOME", "/h"), ("XDG_DATA_HOME", "/d")]);
        assert_eq!(one, [None, Some("XDG_DATA_HOME"), None, None]);
    }

    #[test]
    fn a_relative_directory_is_ignored_and_no_home_is_no_place() {
        let directories = find(&[("HOME", "/h"), ("XDG_CACHE_HOME", "c")]).unwrap();
        assert_eq!(directories.cache, PathBuf::from("/h/.cache/bioxen"));
        assert_eq!(find(&[]), None);
    }
}
