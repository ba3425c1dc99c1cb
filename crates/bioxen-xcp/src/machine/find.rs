//! Decides which VM is meant by a name or a uuid.

use std::sync::Arc;

use serde::Serialize;
use uuid::Uuid;
use xenapi::mirror::View;
use xenapi::{Ref, class, vm};

use super::{MachineError, PowerState};

/// How alike two names are that one may be mistaken for the other.
const ALIKE: f64 = 0.7;

/// A VM that may have been meant.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Candidate {
    #[serde(skip)]
    pub(super) reference: Ref<class::Vm>,
    /// Its name.
    pub name: String,
    /// Its identity.
    pub uuid: Uuid,
    /// What it is doing.
    pub state: PowerState,
    #[serde(skip)]
    pub(super) kind: Kind,
}

/// What rows of the class `VM` stand for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Kind {
    Vm,
    Template,
    Snapshot,
    ControlDomain,
}

impl Kind {
    pub(super) fn of(record: &vm::Record) -> Self {
        if record.is_a_snapshot {
            Self::Snapshot
        } else if record.is_control_domain {
            Self::ControlDomain
        } else if record.is_a_template {
            Self::Template
        } else {
            Self::Vm
        }
    }

    fn name(self) -> &'static str {
        match self {
            Self::Vm => "VM",
            Self::Template => "template",
            Self::Snapshot => "snapshot",
            Self::ControlDomain => "control domain",
        }
    }
}

/// All rows of the class `VM`.
pub(super) fn candidates(view: &View<'_>) -> Vec<Candidate> {
    let candidate = |(reference, record): (Ref<class::Vm>, &Arc<vm::Record>)| {
        Some(Candidate {
            reference,
            name: record.name_label.clone(),
            uuid: record.uuid.parse().ok()?,
            state: PowerState::from(&record.power_state),
            kind: Kind::of(record),
        })
    };
    view.iter::<class::Vm>().filter_map(candidate).collect()
}

/// The one of this uuid or name.
pub(super) fn choose<'c>(
    candidates: &'c [Candidate],
    wanted: &str,
    pool: &str,
) -> Result<&'c Candidate, MachineError> {
    let uuid = wanted.parse::<Uuid>().ok();
    let by_uuid = candidates.iter().filter(|it| Some(it.uuid) == uuid);
    let mut meant: Vec<_> = by_uuid.collect();
    if meant.is_empty() {
        meant = candidates.iter().filter(|it| it.name == wanted).collect();
    }
    let vms: Vec<_> = meant.iter().copied().filter(|it| it.kind == Kind::Vm).collect();
    match (vms.as_slice(), meant.first()) {
        ([one], _) => Ok(one),
        ([], Some(other)) => {
            Err(MachineError::NotAVm { name: wanted.into(), kind: other.kind.name() })
        }
        ([], None) => {
            let names = candidates.iter().filter(|it| it.kind == Kind::Vm);
            let near = near(names.map(|it| it.name.as_str()), wanted);
            Err(MachineError::NotFound { name: wanted.into(), pool: pool.into(), near })
        }
        (several, _) => {
            let mut candidates: Vec<_> = several.iter().map(|&it| it.clone()).collect();
            candidates.sort_by_key(|it| it.uuid);
            Err(MachineError::Ambiguous { name: wanted.into(), candidates })
        }
    }
}

/// At most three of these names that may have been meant, the most alike first.
pub(crate) fn near<'n>(names: impl Iterator<Item = &'n str>, wanted: &str) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    let mut alike: Vec<(f64, &str)> = names
        .map(|name| (strsim::jaro_winkler(&name.to_lowercase(), &wanted), name))
        .filter(|(likeness, _)| *likeness >= ALIKE)
        .collect();
    alike.sort_by(|one, other| other.0.total_cmp(&one.0).then(one.1.cmp(other.1)));
    alike.dedup_by_key(|(_, name)| *name);
    alike.into_iter().take(3).map(|(_, name)| name.to_owned()).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    fn row(number: u128, name: &str, kind: Kind) -> Candidate {
        Candidate {
            reference: Ref::null(),
            name: name.into(),
            uuid: Uuid::from_u128(number),
            state: PowerState::Halted,
            kind,
        }
    }

    fn rows() -> Vec<Candidate> {
        vec![
            row(1, "assembler", Kind::Vm),
            row(2, "twin", Kind::Vm),
            row(3, "twin", Kind::Vm),
            row(4, "assembler", Kind::Snapshot),
            row(5, "Debian 12", Kind::Template),
            row(6, "Control domain", Kind::ControlDomain),
        ]
    }

    #[test]
    fn a_name_or_a_uuid_finds_its_vm_and_no_snapshot_of_the_same_name() {
        let rows = rows();
        let found = |wanted: &str| choose(&rows, wanted, "lab").unwrap().uuid.as_u128();
        assert_eq!(found("assembler"), 1);
        assert_eq!(found(&Uuid::from_u128(3).to_string()), 3);
    }

    #[test]
    fn a_name_that_several_have_lists_them() {
        let Err(MachineError::Ambiguous { candidates, .. }) =
            choose(&rows(), "twin", "lab").cloned()
        else {
            panic!("it found one");
        };
        assert_eq!(candidates.iter().map(|it| it.uuid.as_u128()).collect::<Vec<_>>(), [2, 3]);
    }

    #[test]
    fn what_is_no_vm_is_called_what_it_is() {
        let rows = rows();
        for (wanted, is) in [
            ("Debian 12", "template"),
            ("Control domain", "control domain"),
            ("00000000-0000-0000-0000-000000000004", "snapshot"),
        ] {
            let error = choose(&rows, wanted, "lab").unwrap_err();
            assert!(matches!(error, MachineError::NotAVm { kind, .. } if kind == is), "{error:?}");
        }
    }

    #[test]
    fn a_name_that_is_not_there_brings_up_the_near_ones() {
        let error = choose(&rows(), "Asembler", "lab").unwrap_err();
        let MachineError::NotFound { near, .. } = &error else { panic!("{error:?}") };
        assert_eq!(near, &["assembler"]);
        assert!(error.hint().unwrap().contains("`assembler`"), "{error:?}");
        let error = choose(&rows(), "zzz", "lab").unwrap_err();
        assert!(matches!(&error, MachineError::NotFound { near, .. } if near.is_empty()));
    }
}
