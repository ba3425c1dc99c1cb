//! The marks that whatever we make on a pool carries in its `other_config`.
//!
//! A thing is ours if it carries the key `bioxen:owner`, and this installation's if the value is its
//! id. Only what is this installation's is ever deleted.
//!
//! A VM cannot be marked before it is there. Until then it has a name that nothing else can have, its
//! [`MakingLabel`], which says whose it is.

use std::collections::HashMap;
use std::fmt;

use bioxen_core::{RunId, VmName};
use jiff::Timestamp;
use serde::Serialize;
use uuid::Uuid;
use xenapi::Map;

const OWNER: &str = "bioxen:owner";
const VM: &str = "bioxen:vm";
const FLEET: &str = "bioxen:fleet";
const RUN: &str = "bioxen:run";
const EXPIRES: &str = "bioxen:expires";
const ADOPTED: &str = "bioxen:adopted";

const KEYS: [&str; 6] = [OWNER, VM, FLEET, RUN, EXPIRES, ADOPTED];

/// The attempt that a disk is made for.
const ATTEMPT: &str = "bioxen:making";

/// The address that was chosen for an interface, by which others on its network know that it is taken.
pub(crate) const ADDRESS: &str = "bioxen:address";

/// How the names of VMs begin that are being made.
const MAKING: &str = "bioxen:making:";

/// What a thing on a pool says of whose it is.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Tags {
    /// The installation that made it.
    pub owner: Uuid,
    /// The VM that it is, or is part of; networks belong to none.
    pub vm: Option<VmName>,
    /// The controller that made it, where it is not to outlive that.
    pub fleet: Option<Uuid>,
    /// The run that it was made for.
    pub run: Option<RunId>,
    /// When it may be deleted without asking.
    pub expires: Option<Timestamp>,
    /// Whether it was there before us: then it is never deleted by us.
    pub adopted: bool,
}

impl Tags {
    /// Those of an installation's thing that belongs to no VM.
    pub fn of(owner: Uuid) -> Self {
        Self { owner, vm: None, fleet: None, run: None, expires: None, adopted: false }
    }

    /// Reads them; `None` where a thing is not ours. What cannot be read of the rest counts as not
    /// said: a person may have changed it.
    pub fn read(other_config: &Map<String, String>) -> Option<Self> {
        let said = |key: &str| other_config.get(key);
        Some(Self {
            owner: said(OWNER)?.parse().ok()?,
            vm: said(VM).and_then(|name| VmName::new(name.as_str()).ok()),
            fleet: said(FLEET).and_then(|id| id.parse().ok()),
            run: said(RUN).and_then(|id| id.parse().ok()),
            expires: said(EXPIRES).and_then(|time| time.parse().ok()),
            // Whatever it says: what may have been adopted is not deleted.
            adopted: said(ADOPTED).is_some(),
        })
    }

    /// Them as entries of an `other_config`.
    pub fn entries(&self) -> impl Iterator<Item = (String, String)> {
        let some = |key: &str, value: Option<&dyn fmt::Display>| {
            value.map(|value| (key.to_owned(), value.to_string()))
        };
        [
            some(OWNER, Some(&self.owner)),
            some(VM, self.vm.as_ref().map(|vm| vm as &dyn fmt::Display)),
            some(FLEET, self.fleet.as_ref().map(|fleet| fleet as &dyn fmt::Display)),
            some(RUN, self.run.as_ref().map(|run| run as &dyn fmt::Display)),
            some(EXPIRES, self.expires.as_ref().map(|time| time as &dyn fmt::Display)),
            some(ADOPTED, self.adopted.then_some(&true as &dyn fmt::Display)),
        ]
        .into_iter()
        .flatten()
    }

    /// Puts them into an `other_config`, in place of those that were there.
    pub fn write(&self, other_config: &mut Map<String, String>) {
        Self::remove(other_config);
        other_config.extend(self.entries());
    }

    /// Takes all of ours out of an `other_config`.
    pub fn remove(other_config: &mut Map<String, String>) {
        for key in KEYS {
            other_config.remove(key);
        }
    }

    /// What has to be set, or removed where there is no value, to turn the tags of an `other_config`
    /// into these. In this order it may be broken off anywhere: what is adopted says so before it is
    /// ours, and until after that.
    pub(crate) fn changes(
        wanted: Option<&Self>,
        other_config: &Map<String, String>,
    ) -> Vec<(&'static str, Option<String>)> {
        let entries: HashMap<String, String> =
            wanted.map(|tags| tags.entries().collect()).unwrap_or_default();
        let change = |key: &'static str| {
            let (is, to_be) = (other_config.get(key), entries.get(key));
            (is != to_be).then(|| (key, to_be.cloned()))
        };
        let mut changes: Vec<_> = KEYS.into_iter().filter_map(change).collect();
        changes.sort_by_key(|(key, value)| match (*key, value) {
            (OWNER, None) => 0,
            (ADOPTED, Some(_)) => 1,
            (OWNER, Some(_)) => 3,
            (ADOPTED, None) => 4,
            _ => 2,
        });
        changes
    }
}

/// Says of a disk which attempt it is made for, as its name does not.
pub(crate) fn write_attempt(making: Uuid, other_config: &mut Map<String, String>) {
    other_config.insert(ATTEMPT.into(), making.to_string());
}

/// Which attempt a disk is made for, where it says so.
pub(crate) fn read_attempt(other_config: &Map<String, String>) -> Option<Uuid> {
    other_config.get(ATTEMPT)?.parse().ok()
}

/// The name of a VM while it is being made, which says what its marks are going to say: a clone is born
/// with its name, and gets its marks later.
///
/// ```text
/// bioxen:making:<attempt>:<owner>[:<fleet>]
/// ```
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub struct MakingLabel {
    /// The attempt. Its id was made when that began, and tells the time.
    pub attempt: Uuid,
    /// The installation that makes the VM.
    pub owner: Uuid,
    /// The controller that makes it, where it is not to outlive that.
    pub fleet: Option<Uuid>,
}

impl MakingLabel {
    /// Reads it from a name. Only what is written as we write it is one: a person who makes up a name like
    /// it, or adds to one, has something of their own.
    pub fn read(name: &str) -> Option<Self> {
        let mut ids = name.strip_prefix(MAKING)?.split(':').map(|id| id.parse().ok());
        let label = Self {
            attempt: ids.next()??,
            owner: ids.next()??,
            fleet: match ids.next() {
                Some(fleet) => Some(fleet?),
                None => None,
            },
        };
        (label.to_string() == name).then_some(label)
    }
}

impl fmt::Display for MakingLabel {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let Self { attempt, owner, fleet } = self;
        write!(f, "{MAKING}{attempt}:{owner}")?;
        fleet.map_or(Ok(()), |fleet| write!(f, ":{fleet}"))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn tags() -> Tags {
        Tags {
            owner: Uuid::from_u128(7),
            vm: Some(VmName::new("gc").unwrap()),
            fleet: Some(Uuid::from_u128(8)),
            run: None,
            expires: Some("2027-01-02T03:04:05Z".parse().unwrap()),
            adopted: false,
        }
    }

    /// The tags after each change, as one that is broken off there leaves them.
    fn after_each_change(from: Option<&Tags>, to: Option<&Tags>) -> Vec<Option<Tags>> {
        let mut other_config = Map::default();
        if let Some(from) = from {
            from.write(&mut other_config);
        }
        let mut after = Vec::new();
        for (key, value) in Tags::changes(to, &other_config.clone()) {
            other_config.remove(key);
            after.push(Tags::read(&other_config));
            if let Some(value) = value {
                other_config.insert(key.to_owned(), value);
                after.push(Tags::read(&other_config));
            }
        }
        after
    }

    #[test]
    fn what_is_adopted_never_looks_like_ours_to_delete_on_the_way() {
        let adopted = Tags { adopted: true, ..tags() };
        for (from, to) in [(None, Some(&adopted)), (Some(&adopted), None)] {
            let after = after_each_change(from, to);
            assert_eq!(after.last().unwrap().as_ref(), to);
            assert!(after.iter().flatten().all(|tags| tags.adopted), "{after:?}");
        }
        assert_eq!(after_each_change(Some(&adopted), Some(&adopted)), []);
    }

    #[test]
    fn only_the_tags_that_differ_are_changed() {
        let mut other_config = Map::default();
        tags().write(&mut other_config);
        let later = Tags { expires: None, ..tags() };
        assert_eq!(Tags::changes(Some(&later), &other_config), [(EXPIRES, None)]);
    }

    #[test]
    fn tags_are_read_back_among_the_entries_of_others() {
        let mut other_config = Map::from_iter([("mac_seed".to_owned(), "1".to_owned())]);
        tags().write(&mut other_config);
        assert_eq!(Tags::read(&other_config), Some(tags()));
        assert_eq!(other_config.get("mac_seed").map(String::as_str), Some("1"));
        Tags::of(Uuid::from_u128(9)).write(&mut other_config);
        assert_eq!(Tags::read(&other_config), Some(Tags::of(Uuid::from_u128(9))));
        Tags::remove(&mut other_config);
        assert_eq!(other_config.len(), 1);
    }

    #[test]
    fn a_thing_without_an_owner_that_can_be_read_is_not_ours() {
        let of = |owner: &str| Map::from_iter([(OWNER.to_owned(), owner.to_owned())]);
        assert_eq!(Tags::read(&Map::default()), None);
        assert_eq!(Tags::read(&of("somebody")), None);
    }

    #[test]
    fn the_name_of_a_vm_in_the_making_says_whose_it_is() {
        let (attempt, owner) = (Uuid::now_v7(), Uuid::from_u128(4));
        for fleet in [None, Some(Uuid::from_u128(5))] {
            let label = MakingLabel { attempt, owner, fleet };
            assert_eq!(MakingLabel::read(&label.to_string()), Some(label));
        }
    }

    #[test]
    fn a_name_that_only_looks_like_that_of_a_vm_in_the_making_says_nothing() {
        let (attempt, other) = (Uuid::now_v7(), Uuid::new_v4());
        for name in [
            "web".to_owned(),
            "bioxen:making:web".to_owned(),
            format!("bioxen:making:{attempt}"),
            format!("bioxen:making:{attempt}:web"),
            format!("bioxen:making:{attempt}:{other}:"),
            format!("bioxen:making:{attempt}:{other}:{other}:{other}"),
            format!("bioxen:making:{attempt}:{other} (copy)"),
            format!("Copy of bioxen:making:{attempt}:{other}"),
            format!("bioxen:making:{attempt}:{}", other.to_string().to_uppercase()),
            format!("bioxen:making:{attempt}:{}", other.simple()),
        ] {
            assert_eq!(MakingLabel::read(&name), None, "{name}");
        }
    }

    proptest::proptest! {
        #[test]
        fn whatever_is_read_as_a_label_is_written_as_it_was(
            name in "bioxen:making:[0-9a-f]{8}-[0-9a-f]{4}-[47][0-9a-f]{3}-[0-9a-f]{4}-[0-9a-f]{12}(:[0-9a-f-]{0,36}){0,3}"
        ) {
            if let Some(label) = MakingLabel::read(&name) {
                proptest::prop_assert_eq!(label.to_string(), name);
            }
        }
    }
}
