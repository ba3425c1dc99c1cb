//! From a flat list of keys to pools and defaults, and the fate of each key.

use std::collections::{BTreeMap, BTreeSet};
use std::num::NonZeroU32;

use xenapi::Secret;

use super::address::{address, is_uuid, name_of};
use super::reading::Entry;
use super::spellings::{Meaning, meaning};
use super::{Fate, Finding, Import, ImportError, ImportedPool, Wishes, sizes};
use crate::defaults::{Label, NamePrefix, XcpngDefaults};
use crate::pool::{DEFAULT_USER, PoolName};

/// A pool in the making.
struct Draft {
    pool: ImportedPool,
    /// The name that the file gives it.
    label: Option<PoolName>,
    /// Findings that show its name once it is known: their places, and the setting below the pool.
    shown: Vec<(usize, &'static str)>,
}

/// An import under way.
pub(super) struct Work<'a> {
    entries: Vec<Entry>,
    wishes: &'a Wishes,
    drafts: Vec<Draft>,
    defaults: XcpngDefaults,
    /// The key that each default was taken from.
    taken: BTreeMap<Meaning, (String, String)>,
    findings: Vec<Finding>,
    /// Findings on the pool that is the default.
    default_pools: Vec<(usize, String)>,
}

impl<'a> Work<'a> {
    pub(super) fn new(mut entries: Vec<Entry>, wishes: &'a Wishes) -> Self {
        // Of several spellings the first in the table counts, in whichever order the file has them.
        entries.sort_by_key(|entry| (entry.section.clone(), meaning(&entry.name).1));
        Self {
            entries,
            wishes,
            drafts: Vec::new(),
            defaults: XcpngDefaults::default(),
            taken: BTreeMap::new(),
            findings: Vec::new(),
            default_pools: Vec::new(),
        }
    }

    pub(super) fn sections(&mut self) {
        let entries = std::mem::take(&mut self.entries);
        let sections: BTreeSet<_> = entries.iter().map(|entry| entry.section.clone()).collect();
        for section in sections {
            let of_it = entries.iter().filter(|entry| entry.section == section);
            let (of_pool, others): (Vec<&Entry>, Vec<&Entry>) =
                of_it.partition(|entry| meaning(&entry.name).0.is_of_pool());
            self.pool(section.as_deref(), &of_pool);
            for entry in others {
                self.other(entry);
            }
        }
    }

    fn find(&mut self, entry: &Entry, fate: Fate) -> usize {
        self.findings.push(Finding { key: entry.key.clone(), fate });
        self.findings.len() - 1
    }

    fn drop(&mut self, entry: &Entry, why: impl Into<String>) {
        self.find(entry, Fate::Dropped { why: why.into() });
    }

    fn map(&mut self, entry: &Entry, to: &str, value: String, note: Option<&str>) -> usize {
        let note = note.map(str::to_owned);
        self.find(entry, Fate::Mapped { to: to.to_owned(), value, note })
    }

    /// What one section says of a pool. Its host may be what the section is called.
    fn pool(&mut self, section: Option<&str>, entries: &[&Entry]) {
        let mut first: BTreeMap<Meaning, &Entry> = BTreeMap::new();
        for entry in entries {
            let meaning = meaning(&entry.name).0;
            match (entry.value.text(), first.get(&meaning)) {
                (Err(why), _) => self.drop(entry, why),
                (Ok(text), Some(before)) => {
                    let same = before.value.text().is_ok_and(|known| known == text);
                    let (before, says) = (&before.key, if same { "the same" } else { "otherwise" });
                    self.drop(entry, format!("`{before}` says {says}, and comes first"));
                }
                (Ok(_), None) => {
                    first.insert(meaning, entry);
                }
            }
        }
        let host = text_of(&first, Meaning::Host).or_else(|| section.map(str::to_owned));
        let address = match host.as_deref().map(address) {
            Some(Ok(found)) => Some(found),
            Some(Err(why)) => {
                if let Some(entry) = first.remove(&Meaning::Host) {
                    self.drop(entry, why);
                }
                None
            }
            None => None,
        };
        let password = match &self.wishes.password {
            Some(_) => None,
            None => {
                text_of(&first, Meaning::Password).filter(|text| is_usable(text)).map(Secret::from)
            }
        };
        let user = text_of(&first, Meaning::User).unwrap_or_else(|| DEFAULT_USER.to_owned());
        let label = text_of(&first, Meaning::PoolLabel)
            .filter(|label| !is_uuid(label))
            .and_then(|label| PoolName::new(label).ok());
        match address {
            Some((address, note)) if password.is_some() || self.wishes.password.is_some() => {
                let key = |meaning| first.get(&meaning).map(|entry| entry.key.clone());
                let password_key = password.as_ref().and_then(|_| key(Meaning::Password));
                let name = label.clone().unwrap_or_else(|| name_of(&address));
                let pool = ImportedPool { name, address, user, password, password_key };
                self.draft(Draft { pool, label, shown: Vec::new() }, &first, note);
            }
            found => self.no_pool(&first, found.is_some()),
        }
    }

    fn draft(
        &mut self,
        mut draft: Draft,
        first: &BTreeMap<Meaning, &Entry>,
        note: Option<&'static str>,
    ) {
        for (meaning, entry) in first {
            let to = match meaning {
                Meaning::Host => {
                    let other_server = entry.name.starts_with("xo_").then_some(OTHER_SERVER);
                    let value = draft.pool.address.to_string();
                    let finding = self.map(entry, "", value, note.or(other_server));
                    (finding, "addresses")
                }
                Meaning::User => {
                    let user = draft.pool.user.clone();
                    (self.map(entry, "", user, None), "user")
                }
                Meaning::Password => match (&draft.pool.password, &self.wishes.password) {
                    (Some(_), _) => {
                        let fate = Fate::Moved { to: String::new(), value: String::new() };
                        (self.find(entry, fate), "password")
                    }
                    (None, Some(secret)) => {
                        let secret = secret.to_string();
                        (self.map(entry, "", secret, Some("as `--password` says")), "password")
                    }
                    (None, None) => continue,
                },
                _ => {
                    let value = entry.value.text().unwrap_or_default();
                    let finding = self.find(entry, Fate::Unknown);
                    self.default_pools.push((finding, value));
                    continue;
                }
            };
            draft.shown.push(to);
        }
        let twin = self.drafts.iter().position(|known| {
            known.pool.address == draft.pool.address && known.pool.user == draft.pool.user
        });
        match twin {
            Some(twin) => {
                for (finding, _) in draft.shown {
                    let why = "this pool stands in the file before".to_owned();
                    self.findings[finding].drop(why);
                }
                let known = &mut self.drafts[twin];
                known.label = known.label.take().or(draft.label);
            }
            None => self.drafts.push(draft),
        }
    }

    /// A section that makes no pool: its keys say why.
    fn no_pool(&mut self, first: &BTreeMap<Meaning, &Entry>, has_address: bool) {
        for (meaning, entry) in first {
            let why = match meaning {
                Meaning::PoolLabel => {
                    let value = entry.value.text().unwrap_or_default();
                    let finding = self.find(entry, Fate::Unknown);
                    self.default_pools.push((finding, value));
                    continue;
                }
                Meaning::Password if entry.value.text().is_ok_and(|text| !is_usable(&text)) => {
                    "it is no password: one has one line, and no zero byte"
                }
                _ if has_address => {
                    "there is no password with it; say where one is with `--password`"
                }
                _ => "there is no address of a pool with it",
            };
            self.drop(entry, why);
        }
    }

    /// What is said of VMs, and what is not taken over.
    fn other(&mut self, entry: &Entry) {
        let meaning = meaning(&entry.name).0;
        let text = match (meaning, entry.value.text()) {
            (Meaning::Unknown, _) => {
                self.find(entry, Fate::Unknown);
                return;
            }
            (Meaning::NotTaken(why), _) | (_, Err(why)) => return self.drop(entry, why),
            (_, Ok(text)) => text,
        };
        let (default, note) = match default(meaning, &text) {
            Ok(default) => default,
            Err(why) => return self.drop(entry, why),
        };
        let Some((name, value)) = default.entries().pop() else { return };
        let slot = Meaning::of_default(name);
        if let Some((key, known)) = self.taken.get(&slot) {
            let says = if *known == value { "the same" } else { "otherwise" };
            let why = format!("`{key}` says {says}, and comes first");
            return self.drop(entry, why);
        }
        self.taken.insert(slot, (entry.key.clone(), value.clone()));
        let mut merged = self.defaults.to_table();
        merged.extend(default.to_table());
        self.defaults = XcpngDefaults::from_known(merged);
        self.map(entry, &format!("defaults.xcpng.{name}"), value, note);
    }

    pub(super) fn name_pools(&mut self) -> Result<(), ImportError> {
        if let Some(name) = &self.wishes.pool {
            match self.drafts.as_mut_slice() {
                [] => {}
                [only] => only.pool.name = name.clone(),
                several => {
                    let (name, count) = (name.clone(), several.len());
                    return Err(ImportError::SeveralPools { name, count });
                }
            }
        }
        let mut names = BTreeSet::new();
        for draft in &mut self.drafts {
            let wished = draft.pool.name.clone();
            let mut number = 2;
            while !names.insert(draft.pool.name.clone()) {
                let beginning: String = wished.as_str().chars().take(50).collect();
                draft.pool.name = PoolName::new(format!("{beginning}-{number}"))
                    .expect("a name with a number behind it is a name");
                number += 1;
            }
            for (finding, setting) in &draft.shown {
                if let Fate::Mapped { to, .. } | Fate::Moved { to, .. } =
                    &mut self.findings[*finding].fate
                {
                    *to = format!("pools.{}.{setting}", draft.pool.name);
                }
            }
        }
        Ok(())
    }

    pub(super) fn finish(mut self) -> Import {
        if let [only] = self.drafts.as_slice() {
            self.defaults.pool = Some(only.pool.name.clone());
        }
        for (finding, value) in self.default_pools {
            let of_that_name = self.drafts.iter().find(|draft| {
                draft.pool.name.as_str() == value || self.drafts.len() == 1 && draft.label.is_some()
            });
            let fate = match of_that_name {
                Some(draft) => {
                    let value = draft.pool.name.to_string();
                    self.defaults.pool = Some(draft.pool.name.clone());
                    Fate::Mapped { to: "defaults.xcpng.pool".into(), value, note: None }
                }
                None => Fate::Dropped { why: "a pool is known here by its address".into() },
            };
            self.findings[finding].fate = fate;
        }
        let pools = self.drafts.into_iter().map(|draft| draft.pool).collect();
        Import { pools, defaults: self.defaults, findings: self.findings }
    }
}

fn text_of(entries: &BTreeMap<Meaning, &Entry>, meaning: Meaning) -> Option<String> {
    entries.get(&meaning)?.value.text().ok()
}

const OTHER_SERVER: &str = "if Xen Orchestra answers there, put the address of the pool's master in its \
    place: the pool itself is spoken to";

/// The default that a text of some meaning comes to, and what is to be known about it.
fn default(meaning: Meaning, text: &str) -> Result<(XcpngDefaults, Option<&'static str>), String> {
    let mut all = XcpngDefaults::default();
    let mut note = None;
    let label = || text.trim().parse::<Label>().map_err(|error| error.to_string());
    match meaning {
        Meaning::Template => all.template = Some(label()?),
        Meaning::Network => all.network = Some(label()?),
        Meaning::Storage => all.storage = Some(label()?),
        Meaning::GuestUser => {
            all.ssh_user = Some(text.trim().parse().map_err(|error| format!("{error}"))?);
        }
        Meaning::Memory => {
            all.memory = Some(sizes::memory(text)?);
            note = Some("units were powers of 1024");
        }
        Meaning::Disk => {
            all.disk = Some(sizes::disk(text)?);
            note = Some("units were powers of 1024");
        }
        Meaning::DiskOrStorage => match sizes::disk(text) {
            Ok(disk) => all.disk = Some(disk),
            Err(_) => all.storage = Some(label()?),
        },
        Meaning::Vcpus => {
            let number: Result<NonZeroU32, _> = text.trim().parse();
            all.vcpus = Some(number.map_err(|_| "it is no number of processors".to_owned())?);
        }
        Meaning::SizeClass => {
            let text = text.trim().to_lowercase();
            let class = if text == "lightweight" { "light" } else { &text };
            all.size = Some(class.parse().map_err(|error| format!("{error}"))?);
        }
        Meaning::NamePrefix => {
            let lower = text.trim().to_lowercase();
            let prefix: NamePrefix = lower.parse().map_err(|error| format!("{error}"))?;
            note = (prefix.as_str() != text.trim()).then_some("names are in lowercase here");
            all.name_prefix = Some(prefix);
        }
        Meaning::Host
        | Meaning::User
        | Meaning::Password
        | Meaning::PoolLabel
        | Meaning::NotTaken(_)
        | Meaning::Unknown => unreachable!("these are no defaults"),
    }
    Ok((all, note))
}

/// Whether a text can be a password in a file, of which the last line break is no part.
fn is_usable(password: &str) -> bool {
    !password.is_empty() && !password.contains(['\n', '\r', '\0'])
}
