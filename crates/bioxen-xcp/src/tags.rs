//! The marks that whatever we make on a pool carries in its `other_config`.
//!
//! A thing is ours if it carries the key `bioxen:owner`, and this installation's if the value is its
//! id. Only what is this installation's is ever deleted.
//!
//! A VM cannot be marked before it is there. Until then it has a name that nothing else can have, its
//! [`making_label`], which was noted down before.

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
}

impl Tags {
    /// Those of an installation's thing that belongs to no VM.
    pub fn of(owner: Uuid) -> Self {
        Self { owner, vm: None, fleet: None, run: None, expires: None }
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
        for key in [OWNER, VM, FLEET, RUN, EXPIRES] {
            other_config.remove(key);
        }
    }
}

/// The name of a VM while it is being made.
pub fn making_label(making: Uuid) -> String {
    format!("{MAKING}{making}")
}

/// Whether a name is that of a VM which is being made, and by which attempt.
pub fn read_making_label(name: &str) -> Option<Uuid> {
    name.strip_prefix(MAKING)?.parse().ok()
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
        }
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
    fn the_name_of_a_vm_in_the_making_says_which_attempt_it_is() {
        let making = Uuid::from_u128(3);
        assert_eq!(read_making_label(&making_label(making)), Some(making));
        assert_eq!(read_making_label("bioxen:making:web"), None);
        assert_eq!(read_making_label("web"), None);
    }
}
