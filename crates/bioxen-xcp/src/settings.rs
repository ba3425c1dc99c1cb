//! Which defaults are in force, and where each comes from.
//!
//! A flag goes before an environment variable, that before the project's own file, that before the
//! user's file. The project's file is `bioxen.toml`, in the working directory or above it: whoever wrote
//! the project chooses there what its VMs are like, and a pool by its name. What that name stands for,
//! whom to trust and what to allow is for the user to say, so a project's file that tries is refused.

use std::collections::BTreeMap;
use std::fs;
use std::io;
use std::path::{Path, PathBuf};

use serde::{Deserialize, Serialize};
use toml_edit::{Document, Item, Table, TableLike, value};

use crate::configuration::{Configuration, VERSION};
use crate::defaults::XcpngDefaults;

/// What a project's file is called.
pub const PROJECT_FILE: &str = "bioxen.toml";

/// What the environment variables begin with; the rest is the name of a default in capitals.
pub const VARIABLE_PREFIX: &str = "BIOXEN_XCPNG_";

/// Where a setting comes from.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
#[serde(tag = "origin", rename_all = "snake_case")]
pub enum Origin {
    /// The command line.
    Flag,
    /// An environment variable.
    Variable {
        /// Its name.
        variable: String,
    },
    /// The project's file.
    Project(Place),
    /// The user's file.
    User(Place),
    /// Nobody said anything.
    Default,
}

/// A place in a file.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Place {
    /// The file.
    pub path: PathBuf,
    /// The line, counted from 1.
    pub line: usize,
}

impl std::fmt::Display for Origin {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        match self {
            Self::Flag => f.write_str("flag"),
            Self::Variable { variable } => write!(f, "environment variable {variable}"),
            Self::Project(Place { path, line }) => write!(f, "project {}:{line}", path.display()),
            Self::User(Place { path, line }) => write!(f, "user {}:{line}", path.display()),
            Self::Default => f.write_str("default"),
        }
    }
}

/// The defaults that are in force.
#[derive(Clone, Debug, Default)]
pub struct Settings {
    /// The defaults.
    pub xcpng: XcpngDefaults,
    origins: BTreeMap<&'static str, Origin>,
}

/// A project's file.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Project {
    path: PathBuf,
    defaults: XcpngDefaults,
    lines: Lines,
}

/// Why there are no settings.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum SettingsError {
    /// The project's file cannot be read.
    #[error("project file `{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// The project's file is no TOML, or says what is not known.
    #[error("project file `{}` makes no sense: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A newer program has written the project's file.
    #[error("project file `{}` has the form {found}, and this program knows {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: i64,
    },
    /// The project's file says what only its user may say.
    #[error("project file `{}`, line {line}, says `{key}`, and {what} are not for a project to say", path.display())]
    NotForProjects {
        /// The file.
        path: PathBuf,
        /// Where it says so.
        line: usize,
        /// What it says.
        key: String,
        /// Of which kind that is.
        what: &'static str,
    },
    /// An environment variable has a value that is none.
    #[error("environment variable `{variable}` makes no sense: {reason}")]
    Variable {
        /// Its name.
        variable: String,
        /// What is wrong.
        reason: String,
    },
}

impl SettingsError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Read { path, .. } => format!("check that `{}` is yours to read", path.display()),
            Self::Malformed { path, .. } => format!("mend `{}` with an editor", path.display()),
            Self::Newer { .. } => "use a newer program".into(),
            Self::NotForProjects { .. } => {
                "take it out; who uses the project names pools with `bioxen pool add NAME URL`, and \
                 grants with `--allow-…`"
                    .into()
            }
            Self::Variable { variable, .. } => format!("correct it, or `unset {variable}`"),
        }
    }
}

impl Settings {
    /// Puts the defaults together: those of the command line, of environment variables as `variable`
    /// reads them, of the project and of the user, each before the next. Whoever says a size has said
    /// memory and processors too: those further down do not hold against it.
    pub fn resolve(
        flags: &XcpngDefaults,
        variable: impl Fn(&str) -> Option<String>,
        project: Option<&Project>,
        user: &Configuration,
    ) -> Result<Self, SettingsError> {
        let mut merged = Table::new();
        let mut origins = BTreeMap::new();
        let mut layer = |defaults: &XcpngDefaults, origin: &dyn Fn(&str) -> Origin| {
            let table = defaults.to_table();
            let sized = merged.contains_key("size");
            for name in XcpngDefaults::NAMES {
                let said =
                    merged.contains_key(name) || sized && ["memory", "vcpus"].contains(&name);
                if let (Some(item), false) = (table.get(name), said) {
                    merged.insert(name, item.clone());
                    origins.insert(name, origin(name));
                }
            }
        };
        layer(flags, &|_| Origin::Flag);
        layer(&from_variables(variable)?, &|name| Origin::Variable { variable: name_of(name) });
        if let Some(project) = project {
            layer(&project.defaults, &|name| {
                let line = project.lines.of(&format!("defaults.xcpng.{name}"));
                Origin::Project(Place { path: project.path.clone(), line })
            });
        }
        layer(user.xcpng_defaults(), &|name| user.origin(&format!("defaults.xcpng.{name}")));
        let xcpng = XcpngDefaults::from_known(merged);
        Ok(Self { xcpng, origins })
    }

    /// Where the default of that name comes from.
    pub fn origin(&self, name: &str) -> &Origin {
        self.origins.get(name).unwrap_or(&Origin::Default)
    }
}

/// The environment variable that says the default of that name.
fn name_of(default: &str) -> String {
    format!("{VARIABLE_PREFIX}{}", default.to_ascii_uppercase())
}

fn from_variables(
    variable: impl Fn(&str) -> Option<String>,
) -> Result<XcpngDefaults, SettingsError> {
    let mut all = Table::new();
    for name in XcpngDefaults::NAMES {
        // One that is set to nothing says nothing, as it is with other programs.
        let Some(text) = variable(&name_of(name)).filter(|text| !text.is_empty()) else { continue };
        let item = match text.parse::<i64>() {
            Ok(number) if name == "vcpus" => value(number),
            _ => value(text),
        };
        let alone = Table::from_iter([(name, item.clone())]);
        XcpngDefaults::from_table(alone).map_err(|error| SettingsError::Variable {
            variable: name_of(name),
            reason: error.message().to_owned(),
        })?;
        all.insert(name, item);
    }
    Ok(XcpngDefaults::from_known(all))
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: i64,
    #[serde(default)]
    defaults: Defaults,
}

/// The table `[defaults]` of both files.
#[derive(Debug, Default, Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Defaults {
    #[serde(default)]
    pub(crate) xcpng: XcpngDefaults,
}

/// Keys that a project's file may not have, wherever they stand, and what they are.
const NOT_FOR_PROJECTS: [(&[&str], &str); 4] = [
    (
        &["pools", "networks", "address", "addresses", "url", "jump", "jump_host", "call_home"],
        "addresses",
    ),
    (
        &["user", "username", "password", "secret", "token", "key", "identity", "client_key"],
        "credentials",
    ),
    (
        &["fingerprint", "certificate_authority", "host_key", "verify_ssl", "trust"],
        "certificates and whom to trust",
    ),
    (&["grants", "allow", "read", "write", "net", "env", "spawn"], "grants"),
];

impl Project {
    /// Finds and reads the project's file, in a directory or the nearest above it that has one.
    pub fn find(directory: &Path) -> Result<Option<Self>, SettingsError> {
        for directory in directory.ancestors() {
            let path = directory.join(PROJECT_FILE);
            match fs::read_to_string(&path) {
                Ok(text) => return Self::parse(path, &text).map(Some),
                Err(error) if error.kind() == io::ErrorKind::NotFound => {}
                Err(source) => return Err(SettingsError::Read { path, source }),
            }
        }
        Ok(None)
    }

    fn parse(path: PathBuf, text: &str) -> Result<Self, SettingsError> {
        let malformed = |reason| SettingsError::Malformed { path: path.clone(), reason };
        let document = Document::parse(text).map_err(|error| malformed(error.to_string()))?;
        let lines = Lines::of_document(&document);
        if let Some(found) = document.get("version").and_then(Item::as_integer)
            && found > VERSION
        {
            return Err(SettingsError::Newer { path, found });
        }
        for (key, line) in &lines.0 {
            if let Some(what) = forbidden(key) {
                let (key, line) = (key.clone(), *line);
                return Err(SettingsError::NotForProjects { path, line, key, what });
            }
        }
        let contents: Contents =
            toml_edit::de::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if contents.version != VERSION {
            let reason =
                format!("there is no form {}; write `version = {VERSION}`", contents.version);
            return Err(malformed(reason));
        }
        Ok(Self { defaults: contents.defaults.xcpng, path, lines })
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }
}

fn forbidden(key: &str) -> Option<&'static str> {
    let last = key.rsplit('.').next().unwrap_or(key);
    let is_grant = last.starts_with("allow_") || last.starts_with("allow-");
    let known = NOT_FOR_PROJECTS.iter().find(|(keys, _)| keys.contains(&last));
    known.map(|(_, what)| *what).or(is_grant.then_some("grants"))
}

/// On which line of a file each key stands.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Lines(BTreeMap<String, usize>);

impl Lines {
    /// Looks through a document for its keys.
    pub(crate) fn of_document<S: AsRef<str>>(document: &Document<S>) -> Self {
        let mut lines = BTreeMap::new();
        note(document.as_table(), "", document.raw(), &mut lines);
        Self(lines)
    }

    /// The line of a key as it is written with dots; 1 where it is not known.
    pub(crate) fn of(&self, key: &str) -> usize {
        self.0.get(key).copied().unwrap_or(1)
    }

    /// Whether the key stands in the file.
    pub(crate) fn contain(&self, key: &str) -> bool {
        self.0.contains_key(key)
    }
}

fn note(table: &dyn TableLike, above: &str, text: &str, lines: &mut BTreeMap<String, usize>) {
    for (name, item) in table.iter() {
        let key = if above.is_empty() { name.to_owned() } else { format!("{above}.{name}") };
        let span = table.key(name).and_then(toml_edit::Key::span).or_else(|| item.span());
        let start = span.map_or(0, |span| span.start);
        let line = text.as_bytes().iter().take(start).filter(|byte| **byte == b'\n').count() + 1;
        lines.insert(key.clone(), line);
        if let Some(inner) = item.as_table_like() {
            note(inner, &key, text, lines);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn project(text: &str) -> Result<Project, SettingsError> {
        Project::parse("/work/bioxen.toml".into(), &format!("version = 1\n{text}"))
    }

    fn user(text: &str) -> Configuration {
        Configuration::parse("/home/config.toml".into(), &format!("version = 1\n{text}")).unwrap()
    }

    fn none(_: &str) -> Option<String> {
        None
    }

    #[test]
    fn a_flag_goes_before_a_variable_that_before_the_project_that_before_the_user() {
        let user = user(
            "[defaults.xcpng]\nsize = 'light'\ntemplate = 'u'\nnetwork = 'u'\nstorage = 'u'\n",
        );
        let project = project("[defaults.xcpng]\nnetwork = 'p'\nstorage = 'p'\nvcpus = 3\n");
        let project = project.unwrap();
        let flags = XcpngDefaults { storage: Some("f".parse().unwrap()), ..Default::default() };
        let variable = |name: &str| match name {
            "BIOXEN_XCPNG_VCPUS" => Some("4".to_owned()),
            "BIOXEN_XCPNG_STORAGE" => Some("v".to_owned()),
            "BIOXEN_XCPNG_SIZE" => Some(String::new()),
            _ => None,
        };
        let settings = Settings::resolve(&flags, variable, Some(&project), &user).unwrap();
        let origins = [
            ("template", "u", "user /home/config.toml:4"),
            ("size", "light", "user /home/config.toml:3"),
            ("vcpus", "4", "environment variable BIOXEN_XCPNG_VCPUS"),
            ("network", "p", "project /work/bioxen.toml:3"),
            ("storage", "f", "flag"),
        ];
        let found: Vec<_> = settings.xcpng.entries();
        let found = found
            .iter()
            .map(|(name, text)| (*name, text.as_str(), settings.origin(name).to_string()));
        assert!(found.eq(origins.map(|(name, text, origin)| (name, text, origin.to_owned()))));
        assert_eq!(settings.origin("host"), &Origin::Default);
    }

    #[test]
    fn a_size_holds_against_the_memory_that_is_said_further_down() {
        let user = user("[defaults.xcpng]\nmemory = '8GiB'\nvcpus = 8\n");
        let project = project("[defaults.xcpng]\nsize = 'light'\nvcpus = 2\n").unwrap();
        let flags = XcpngDefaults::default();
        let settings = Settings::resolve(&flags, none, Some(&project), &user).unwrap();
        let found = settings.xcpng.entries();
        assert_eq!(found, [("size", "light".to_owned()), ("vcpus", "2".to_owned())]);
    }

    #[test]
    fn a_variable_that_makes_no_sense_is_named() {
        let variable = |name: &str| (name == "BIOXEN_XCPNG_VCPUS").then(|| "many".to_owned());
        let error = Settings::resolve(&XcpngDefaults::default(), variable, None, &user(""));
        let error = error.unwrap_err();
        assert!(error.to_string().contains("BIOXEN_XCPNG_VCPUS"), "{error}");
        let settings = Settings::resolve(&XcpngDefaults::default(), none, None, &user("")).unwrap();
        assert_eq!(settings.xcpng, XcpngDefaults::default());
    }

    #[test]
    fn a_project_says_no_addresses_credentials_trust_or_grants() {
        for (text, key, what) in [
            ("[pools.lab]\naddresses = ['https://a']", "pools", "addresses"),
            ("[defaults.xcpng]\naddress = '10.0.0.1'", "defaults.xcpng.address", "addresses"),
            ("[networks.lab]\nprefix = 24", "networks", "addresses"),
            ("[defaults.xcpng]\npassword = 'env:A'", "defaults.xcpng.password", "credentials"),
            ("[defaults.xcpng]\nfingerprint = 'a'", "defaults.xcpng.fingerprint", "trust"),
            ("[grants]\nread = ['/']", "grants", "grants"),
            ("[defaults.xcpng]\nallow_read = ['/']", "defaults.xcpng.allow_read", "grants"),
            ("defaults = { xcpng = { user = 'root' } }", "defaults.xcpng.user", "credentials"),
        ] {
            match project(text).unwrap_err() {
                SettingsError::NotForProjects { key: found, what: kind, .. } => {
                    assert_eq!(found, key);
                    assert!(kind.contains(what), "{kind}");
                }
                other => panic!("{text}: {other}"),
            }
        }
    }

    #[test]
    fn a_project_file_that_is_not_understood_is_refused() {
        for text in ["[defaults.xcpng]\nmemroy = '1GiB'", "[defaults]\nbasic = {}", "[", "x = 1"] {
            let error = project(text).unwrap_err();
            assert!(matches!(error, SettingsError::Malformed { .. }), "{error}");
        }
        let parse = |text: &str| Project::parse("p".into(), text).unwrap_err();
        assert!(matches!(parse("version = 2\nnew = 1"), SettingsError::Newer { found: 2, .. }));
        assert!(matches!(parse("version = 0"), SettingsError::Malformed { .. }));
        assert!(matches!(parse("[defaults.xcpng]"), SettingsError::Malformed { .. }));
    }

    #[test]
    fn the_nearest_project_file_is_read() {
        let directory = tempfile::tempdir().unwrap();
        let inner = directory.path().join("a/b");
        fs::create_dir_all(&inner).unwrap();
        assert_eq!(Project::find(&inner).unwrap(), None);
        let far = directory.path().join(PROJECT_FILE);
        fs::write(&far, "version = 1\n").unwrap();
        assert_eq!(Project::find(&inner).unwrap().unwrap().path(), far);
        let near = directory.path().join("a").join(PROJECT_FILE);
        fs::write(&near, "version = 1\n").unwrap();
        assert_eq!(Project::find(&inner).unwrap().unwrap().path(), near);
        fs::write(&near, "version = ").unwrap();
        assert!(Project::find(&inner).is_err());
    }
}
