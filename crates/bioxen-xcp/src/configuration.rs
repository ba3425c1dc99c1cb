//! The user's configuration file, `config.toml`: which pools there are, and what VMs on them are like.
//!
//! ```toml
//! version = 1
//!
//! [pools.lab]
//! addresses = ["https://xcp-01.example"]
//! user = "root"
//! password = "env:LAB_PASSWORD"
//! fingerprint = "3a:5f:…"        # or certificate_authority = "/etc/ssl/lab.pem"
//!
//! [defaults.xcpng]
//! pool = "lab"
//! template = "Debian 12 (cloud-init)"
//! ```
//!
//! A person may edit it: what they wrote, comments included, stays as it is when a pool is added or
//! removed. What is not known here is refused, so that a misspelt setting is not ignored.

use std::collections::BTreeMap;
use std::fs::{self, File};
use std::io::{self, Write as _};
use std::path::{Path, PathBuf};

use serde::Deserialize;
use toml_edit::{Document, DocumentMut, Item, Table, value};

use crate::defaults::XcpngDefaults;
use crate::pool::{InvalidPool, PoolName, PoolSettings, PoolTable, TrustSettings};
use crate::settings::{Defaults, Lines, Origin, Place};

/// The version of the file's form that this program writes, and the newest that it reads.
pub(crate) const VERSION: i64 = 1;

/// The configuration, as it was when it was read.
#[derive(Clone, Debug)]
pub struct Configuration {
    path: PathBuf,
    pools: BTreeMap<PoolName, PoolSettings>,
    xcpng: XcpngDefaults,
    lines: Lines,
}

#[derive(Deserialize)]
#[serde(deny_unknown_fields)]
struct Contents {
    version: i64,
    #[serde(default)]
    pools: BTreeMap<String, PoolTable>,
    #[serde(default)]
    defaults: Defaults,
}

/// Why there is no such configuration, or it could not be changed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigurationError {
    /// It cannot be read.
    #[error("configuration `{}` cannot be read", path.display())]
    Read {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It cannot be written.
    #[error("configuration `{}` cannot be written", path.display())]
    Write {
        /// The file.
        path: PathBuf,
        /// What the system says.
        source: io::Error,
    },
    /// It is no TOML, or says what is not known.
    #[error("configuration `{}` makes no sense: {reason}", path.display())]
    Malformed {
        /// The file.
        path: PathBuf,
        /// What is wrong, and where.
        reason: String,
    },
    /// A newer program has written it.
    #[error("configuration `{}` has the form {found}, and this program knows {VERSION}", path.display())]
    Newer {
        /// The file.
        path: PathBuf,
        /// Its form.
        found: i64,
    },
    /// One of its pools is none.
    #[error("configuration `{}` names a pool that is none", path.display())]
    Pool {
        /// The file.
        path: PathBuf,
        /// What is wrong.
        source: InvalidPool,
    },
    /// A pool of that name is there.
    #[error("there is a pool `{name}` already")]
    Duplicate {
        /// The name.
        name: PoolName,
    },
    /// There is no such pool.
    #[error(transparent)]
    NoSuchPool(#[from] NoSuchPool),
}

/// There is no pool of that name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("there is no pool `{name}`; there are: {there}")]
pub struct NoSuchPool {
    /// The name.
    pub name: String,
    /// The names that there are.
    pub there: String,
}

impl ConfigurationError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Read { path, .. } | Self::Write { path, .. } => {
                Some(format!("check that `{}` is yours to read and write", path.display()))
            }
            Self::Malformed { path, .. } | Self::Pool { path, .. } => {
                Some(format!("mend `{}` with an editor", path.display()))
            }
            Self::Newer { .. } => Some("use the program that wrote it, or a newer one".into()),
            Self::Duplicate { name } => {
                Some(format!("choose another name, or remove it: `bioxen pool remove {name}`"))
            }
            Self::NoSuchPool(error) => Some(error.hint()),
        }
    }
}

impl NoSuchPool {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        "`bioxen pool list` shows the pools; `bioxen pool add NAME URL` adds one".into()
    }
}

impl Configuration {
    /// Reads the configuration; a file that is not there is an empty one.
    pub fn read(path: impl Into<PathBuf>) -> Result<Self, ConfigurationError> {
        let path = path.into();
        let text = read_text(&path)?.unwrap_or_default();
        Self::parse(path, &text)
    }

    pub(crate) fn parse(path: PathBuf, text: &str) -> Result<Self, ConfigurationError> {
        if text.trim().is_empty() {
            let (pools, xcpng, lines) = Default::default();
            return Ok(Self { path, pools, xcpng, lines });
        }
        check_version(&path, text)?;
        let malformed = |reason| ConfigurationError::Malformed { path: path.clone(), reason };
        let document = Document::parse(text).map_err(|error| malformed(error.to_string()))?;
        let lines = Lines::of_document(&document);
        let contents: Contents =
            toml_edit::de::from_str(text).map_err(|error| malformed(error.to_string()))?;
        if contents.version != VERSION {
            let reason =
                format!("there is no form {}; write `version = {VERSION}`", contents.version);
            return Err(ConfigurationError::Malformed { path, reason });
        }
        let pools = contents.pools.into_iter().map(|(name, table)| {
            let pool = PoolSettings::from_table(&name, table)?;
            Ok((pool.name.clone(), pool))
        });
        match pools.collect() {
            Ok(pools) => Ok(Self { path, pools, xcpng: contents.defaults.xcpng, lines }),
            Err(source) => Err(ConfigurationError::Pool { path, source }),
        }
    }

    /// Where it is.
    pub fn path(&self) -> &Path {
        &self.path
    }

    /// All pools, by name.
    pub fn pools(&self) -> impl ExactSizeIterator<Item = &PoolSettings> {
        self.pools.values()
    }

    /// The pool of that name.
    pub fn pool(&self, name: &str) -> Result<&PoolSettings, NoSuchPool> {
        self.find_pool(name).ok_or_else(|| {
            let names: Vec<String> = self.pools.keys().map(|name| format!("`{name}`")).collect();
            let there = if names.is_empty() { "none".to_owned() } else { names.join(", ") };
            NoSuchPool { name: name.escape_debug().to_string(), there }
        })
    }

    /// The pool of that name, if there is one.
    pub fn find_pool(&self, name: &str) -> Option<&PoolSettings> {
        PoolName::new(name).ok().and_then(|name| self.pools.get(&name))
    }

    /// What VMs of type `xcpng` are like where nobody says otherwise.
    pub fn xcpng_defaults(&self) -> &XcpngDefaults {
        &self.xcpng
    }

    /// Where a key comes from, written with dots: `pools.lab.user`.
    pub fn origin(&self, key: &str) -> Origin {
        if !self.lines.contain(key) {
            return Origin::Default;
        }
        Origin::User(Place { path: self.path.clone(), line: self.lines.of(key) })
    }

    /// Adds a pool to the file. What else is in it stays as it is; two programs that change it at the
    /// same time take turns. When this fails the file is as it was.
    pub fn add_pool(&mut self, pool: &PoolSettings) -> Result<(), ConfigurationError> {
        self.add(std::slice::from_ref(pool), &XcpngDefaults::default())
    }

    /// Adds pools and defaults to the file, all or none. Defaults that are there already stay as they are.
    pub fn add(
        &mut self,
        pools: &[PoolSettings],
        defaults: &XcpngDefaults,
    ) -> Result<(), ConfigurationError> {
        self.change(|present, document| {
            for pool in pools {
                if present.pools.contains_key(&pool.name) {
                    return Err(ConfigurationError::Duplicate { name: pool.name.clone() });
                }
                put(document, &["pools"], pool.name.as_str(), to_toml(&pool.to_table()).into());
            }
            let there = present.xcpng.to_table();
            for (name, item) in defaults.to_table() {
                if !there.contains_key(&name) {
                    put(document, &["defaults", "xcpng"], &name, item);
                }
            }
            Ok(())
        })
    }

    /// Changes how a pool's certificate is known.
    pub fn trust_pool(
        &mut self,
        name: &str,
        trust: &TrustSettings,
    ) -> Result<(), ConfigurationError> {
        self.change(|present, document| {
            let pool = PoolSettings { trust: trust.clone(), ..present.pool(name)?.clone() };
            let table = to_toml(&pool.to_table());
            for key in ["fingerprint", "certificate_authority"] {
                let pools = document.get_mut("pools").and_then(Item::as_table_like_mut);
                let Some(there) = pools
                    .and_then(|pools| pools.get_mut(pool.name.as_str()))
                    .and_then(Item::as_table_like_mut)
                else {
                    continue;
                };
                match table.get(key) {
                    Some(item) => there.insert(key, item.clone()),
                    None => there.remove(key),
                };
            }
            Ok(())
        })
    }

    /// Removes a pool from the file.
    pub fn remove_pool(&mut self, name: &str) -> Result<(), ConfigurationError> {
        self.change(|present, document| {
            let pool = present.pool(name)?;
            if let Some(pools) = document.get_mut("pools").and_then(Item::as_table_like_mut) {
                pools.remove(pool.name.as_str());
            }
            Ok(())
        })
    }

    /// Reads the file anew, changes it, and puts it in the place of the old one.
    fn change(
        &mut self,
        change: impl FnOnce(&Self, &mut DocumentMut) -> Result<(), ConfigurationError>,
    ) -> Result<(), ConfigurationError> {
        let refuse = |source| ConfigurationError::Write { path: self.path.clone(), source };
        let directory = self.path.parent().unwrap_or(Path::new("."));
        create_private(directory).map_err(refuse)?;
        let lock = File::create(self.path.with_extension("lock")).map_err(refuse)?;
        lock.lock().map_err(refuse)?;
        let text = read_text(&self.path)?.unwrap_or_default();
        let present = Self::parse(self.path.clone(), &text)?;
        let mut document: DocumentMut = text.parse().map_err(|error: toml_edit::TomlError| {
            ConfigurationError::Malformed { path: self.path.clone(), reason: error.to_string() }
        })?;
        if !document.contains_key("version") {
            document.insert("version", value(VERSION));
        }
        change(&present, &mut document)?;
        let mut text = document.to_string();
        if !text.ends_with('\n') {
            text.push('\n');
        }
        let changed = Self::parse(self.path.clone(), &text)?;
        replace(&self.path, &text).map_err(refuse)?;
        *self = changed;
        Ok(())
    }
}

fn read_text(path: &Path) -> Result<Option<String>, ConfigurationError> {
    match fs::read_to_string(path) {
        Ok(text) => Ok(Some(text)),
        Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
        Err(source) => Err(ConfigurationError::Read { path: path.to_owned(), source }),
    }
}

/// Refuses a form that is newer before anything in it is found to be unknown.
fn check_version(path: &Path, text: &str) -> Result<(), ConfigurationError> {
    let document: Result<DocumentMut, _> = text.parse();
    let found = document.ok().and_then(|document| document.get("version")?.as_integer());
    match found {
        Some(found) if found > VERSION => {
            Err(ConfigurationError::Newer { path: path.to_owned(), found })
        }
        _ => Ok(()),
    }
}

/// Puts an item into a table of a document, and makes the tables above it where there are none.
fn put(document: &mut DocumentMut, tables: &[&str], name: &str, item: Item) {
    let mut inner: Option<&mut dyn toml_edit::TableLike> = Some(document.as_table_mut());
    for table in tables {
        inner = inner.and_then(|outer| {
            outer.entry(table).or_insert_with(implicit_table).as_table_like_mut()
        });
    }
    // What was parsed before has no other kinds of items here.
    if let Some(inner) = inner {
        inner.insert(name, item);
    }
}

fn implicit_table() -> Item {
    let mut table = Table::new();
    table.set_implicit(true);
    Item::Table(table)
}

fn to_toml(pool: &PoolTable) -> Table {
    toml_edit::ser::to_document(pool).expect("settings have a form in TOML").as_table().clone()
}

/// Makes a directory, for its owner alone.
pub(crate) fn create_private(directory: &Path) -> io::Result<()> {
    let mut builder = fs::DirBuilder::new();
    builder.recursive(true);
    #[cfg(unix)]
    std::os::unix::fs::DirBuilderExt::mode(&mut builder, 0o700);
    builder.create(directory)
}

/// Puts a text in the place of a file, whole or not at all, also when the machine stops meanwhile.
fn replace(path: &Path, text: &str) -> io::Result<()> {
    let directory = path.parent().unwrap_or(Path::new("."));
    // Only its owner may read it: that is how such files are made.
    let mut file = tempfile::NamedTempFile::new_in(directory)?;
    file.write_all(text.as_bytes())?;
    file.as_file().sync_all()?;
    file.persist(path)?;
    File::open(directory)?.sync_all()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn pool(name: &str) -> PoolSettings {
        let table = PoolTable {
            addresses: vec!["https://xcp-01.example".into()],
            user: "root".into(),
            password: "env:LAB_PASSWORD".parse().unwrap(),
            fingerprint: Some("ab".repeat(32)),
            certificate_authority: None,
            call_home: None,
            networks: BTreeMap::new(),
            ssh: None,
        };
        PoolSettings::from_table(name, table).unwrap()
    }

    fn in_a_directory(test: impl FnOnce(&Path)) {
        let directory = tempfile::tempdir().unwrap();
        test(&directory.path().join("bioxen/config.toml"));
    }

    #[test]
    fn a_pool_that_was_added_is_there_for_the_next_reader() {
        in_a_directory(|path| {
            let mut configuration = Configuration::read(path).unwrap();
            configuration.add_pool(&pool("lab")).unwrap();
            assert_eq!(Configuration::read(path).unwrap().pool("lab").unwrap(), &pool("lab"));
            let error = configuration.add_pool(&pool("lab")).unwrap_err();
            assert!(matches!(error, ConfigurationError::Duplicate { .. }), "{error}");
            configuration.remove_pool("lab").unwrap();
            assert_eq!(Configuration::read(path).unwrap().pools().len(), 0);
            let error = configuration.remove_pool("lab").unwrap_err().to_string();
            assert_eq!(error, "there is no pool `lab`; there are: none");
        });
    }

    #[test]
    fn what_a_person_wrote_stays_as_it_is() {
        in_a_directory(|path| {
            let written = "# my pools\nversion = 1\n\n[pools.old] # the first\naddresses = ['https://a']\npassword = 'env:A'\nfingerprint = '";
            let written = format!("{written}{}'\n", "0".repeat(64));
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            fs::write(path, &written).unwrap();
            let mut configuration = Configuration::read(path).unwrap();
            configuration.add_pool(&pool("lab")).unwrap();
            configuration.remove_pool("lab").unwrap();
            assert_eq!(fs::read_to_string(path).unwrap(), written);
        });
    }

    #[test]
    fn what_is_not_known_is_refused_with_its_place() {
        let parse = |text: &str| Configuration::parse("c.toml".into(), text);
        let error = parse("version = 1\npolls = 2\n").unwrap_err().to_string();
        assert!(error.contains("polls") && error.contains("c.toml"), "{error}");
        let error = parse("version = 2\nnew = true\n").unwrap_err();
        assert!(matches!(error, ConfigurationError::Newer { found: 2, .. }), "{error}");
        assert!(
            parse("version = 1\n[pools.A]\naddresses=['https://a']\npassword='env:A'").is_err()
        );
        assert!(parse("[pools]\n").is_err(), "a form that is not told cannot be relied on");
    }

    #[test]
    fn defaults_are_added_where_there_are_none() {
        in_a_directory(|path| {
            fs::create_dir_all(path.parent().unwrap()).unwrap();
            let written = "version = 1\n\n[defaults.xcpng]\nvcpus = 8 # many\n";
            fs::write(path, written).unwrap();
            let mut configuration = Configuration::read(path).unwrap();
            let imported = toml_edit::de::from_str("vcpus = 2\nmemory = '2GiB'\n").unwrap();
            configuration.add(&[pool("lab")], &imported).unwrap();
            let text = fs::read_to_string(path).unwrap();
            assert!(text.contains("vcpus = 8 # many\nmemory = \"2GiB\"\n"), "{text}");
            assert_eq!(configuration.xcpng_defaults().entries().len(), 2);
            assert_eq!(Configuration::read(path).unwrap().pools().len(), 1);
            let error = configuration.add(&[pool("old"), pool("lab")], &imported).unwrap_err();
            assert!(matches!(error, ConfigurationError::Duplicate { .. }), "{error}");
            assert_eq!(fs::read_to_string(path).unwrap(), text, "all or none");
        });
        in_a_directory(|path| {
            let defaults = toml_edit::de::from_str("vcpus = 2").unwrap();
            Configuration::read(path).unwrap().add(&[], &defaults).unwrap();
            let text = fs::read_to_string(path).unwrap();
            assert_eq!(text, "version = 1\n\n[defaults.xcpng]\nvcpus = 2\n");
        });
    }

    #[test]
    fn how_a_certificate_is_known_can_be_changed() {
        in_a_directory(|path| {
            let mut configuration = Configuration::read(path).unwrap();
            configuration.add_pool(&pool("lab")).unwrap();
            let authority = TrustSettings::Authority("/etc/ssl/lab.pem".into());
            configuration.trust_pool("lab", &authority).unwrap();
            let read = Configuration::read(path).unwrap();
            assert_eq!(read.pool("lab").unwrap().trust, authority);
            configuration.trust_pool("lab", &pool("lab").trust).unwrap();
            assert_eq!(Configuration::read(path).unwrap().pool("lab").unwrap(), &pool("lab"));
            assert!(configuration.trust_pool("other", &authority).is_err());
        });
    }

    #[test]
    fn a_key_has_a_place_or_is_a_default() {
        let text = "version = 1\n[pools.lab]\naddresses = ['https://a']\n\npassword = 'env:A'\n";
        let configuration = Configuration::parse("c.toml".into(), text).unwrap();
        assert_eq!(configuration.origin("pools.lab.password").to_string(), "user c.toml:5");
        assert_eq!(configuration.origin("pools.lab.user"), Origin::Default);
    }

    #[cfg(unix)]
    #[test]
    fn only_its_owner_can_read_it() {
        use std::os::unix::fs::PermissionsExt as _;
        in_a_directory(|path| {
            Configuration::read(path).unwrap().add_pool(&pool("lab")).unwrap();
            let mode = fs::metadata(path).unwrap().permissions().mode();
            assert_eq!(mode & 0o777, 0o600);
        });
    }
}
