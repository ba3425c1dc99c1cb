//! What can go wrong with a VM on a pool.

use std::time::Duration;

use bioxen_core::ByteSize;
use uuid::Uuid;
use xenapi::mirror::WaitError;
use xenapi::{Failure, FailureKind, TaskError};

use super::details::LEARN_ADDRESS;
use super::{Candidate, PowerState};

/// Why something did not become of a VM.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MachineError {
    /// No VM has the name or the uuid.
    #[error("there is no vm `{name}` on pool `{pool}`")]
    NotFound {
        /// What was looked for.
        name: String,
        /// Where.
        pool: String,
        /// Names that it may have been.
        near: Vec<String>,
    },
    /// Several VMs have the name.
    #[error("{} vms are called `{name}`: {}", candidates.len(), listed(candidates))]
    Ambiguous {
        /// The name.
        name: String,
        /// All of them, by uuid.
        candidates: Vec<Candidate>,
    },
    /// What has the name is something else.
    #[error("`{name}` is a {kind} and no vm")]
    NotAVm {
        /// What was looked for.
        name: String,
        /// What it is.
        kind: &'static str,
    },
    /// It has gone since it was found.
    #[error("vm `{vm}` is gone")]
    Gone {
        /// The VM.
        vm: String,
    },
    /// Nothing was asked of the pool, as it could not be done.
    #[error("could not {step} vm `{vm}`: {reason}")]
    Refused {
        /// The VM.
        vm: String,
        /// What was to become of it.
        step: &'static str,
        /// Why not.
        reason: Box<Refusal>,
    },
    /// It is not in a state in which it can be done.
    #[error("could not {step} vm `{vm}`: it is {state}")]
    State {
        /// The VM.
        vm: String,
        /// What was to become of it.
        step: &'static str,
        /// The state that it is in.
        state: PowerState,
    },
    /// No host takes it.
    #[error("could not {step} vm `{vm}`: no host takes it: {}", reasons(hosts))]
    NoHost {
        /// The VM.
        vm: String,
        /// What was to become of it.
        step: &'static str,
        /// Each host with why it does not.
        hosts: Vec<(String, String)>,
    },
    /// The pool has no turn for it: as many operations are under way as are allowed at once.
    #[error("could not {step} vm `{vm}`: it had no turn within {after:?}")]
    NoTurn {
        /// The VM.
        vm: String,
        /// What was to become of it.
        step: &'static str,
        /// How long it waited.
        after: Duration,
    },
    /// The pool did not do it.
    #[error("could not {step} vm `{vm}`")]
    Pool {
        /// The VM.
        vm: String,
        /// What was to become of it, or what of that.
        step: &'static str,
        /// What the pool said.
        source: Box<Cause>,
    },
}

/// What came from a pool instead of a result.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum Cause {
    /// A call had no result.
    #[error(transparent)]
    Call(#[from] xenapi::Error),
    /// A task had none.
    #[error(transparent)]
    Task(#[from] TaskError),
    /// What was waited for did not come.
    #[error(transparent)]
    Wait(#[from] WaitError),
}

impl Cause {
    /// What the pool said, where it said anything.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Call(error) => error.failure(),
            Self::Task(error) => error.failure(),
            Self::Wait(_) => None,
        }
    }

    /// The pool's error code, where there is one.
    pub fn code(&self) -> Option<&str> {
        self.failure().map(Failure::code)
    }

    /// Whether the pool was not reached, or did not answer.
    pub fn is_unreachable(&self) -> bool {
        use xenapi::Error as E;
        let Self::Call(error) = self else { return false };
        matches!(error, E::Connect { .. } | E::Tls { .. } | E::Transport { .. } | E::Timeout { .. })
    }

    /// Whether the pool does not let this user do it.
    pub fn is_forbidden(&self) -> bool {
        matches!(self.code(), Some("RBAC_PERMISSION_DENIED" | "PERMISSION_DENIED"))
    }

    /// Whether the pool may have done it although there is no result, or was kept from it.
    pub(crate) fn is_unclear(&self) -> bool {
        match self {
            Self::Call(error) => error.may_have_run(),
            Self::Task(error) => {
                error.may_have_run() || matches!(error, TaskError::Cancelled { .. })
            }
            Self::Wait(_) => true,
        }
    }

    /// Whether the way to the pool was lost, so that what it was asked may yet be done.
    pub(super) fn is_lost(&self) -> bool {
        match self {
            Self::Call(error) => error.may_have_run(),
            Self::Task(error) => {
                matches!(error, TaskError::Vanished { .. } | TaskError::Lost { .. })
            }
            Self::Wait(_) => false,
        }
    }

    /// Whether it says that this object is not there any more.
    pub(crate) fn says_gone(&self, reference: &str) -> bool {
        self.failure().is_some_and(|failure| match failure.kind() {
            FailureKind::HandleInvalid { handle, .. } => handle == reference,
            _ => false,
        })
    }

    fn hint(&self) -> Option<String> {
        const NO_TOOLS: [&str; 4] = [
            "VM_LACKS_FEATURE",
            "VM_LACKS_FEATURE_SUSPEND",
            "VM_LACKS_FEATURE_VCPU_HOTPLUG",
            "VM_MISSING_PV_DRIVERS",
        ];
        let code = self.code().unwrap_or_default();
        if NO_TOOLS.contains(&code) {
            return Some("install the guest tools in it, or wait until they have started".into());
        }
        match code {
            "SR_BACKEND_FAILURE_44" | "SR_FULL" | "SR_SUSPEND_SPACE_INSUFFICIENT" => {
                return Some(
                    "the storage is full: free some of it, `bioxen vm gc` removes what was left"
                        .into(),
                );
            }
            "HOST_NOT_ENOUGH_FREE_MEMORY" => {
                return Some("stop or move a VM there, or take less memory".into());
            }
            "OPERATION_BLOCKED" => {
                return Some(
                    "somebody blocked this for the VM: `xe vm-param-list` shows it".into(),
                );
            }
            _ => {}
        }
        match self {
            Self::Call(error) => error.hint(),
            Self::Task(error) => error.hint(),
            Self::Wait(_) => None,
        }
    }
}

/// Why nothing was asked of the pool.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum Refusal {
    /// There is no such host.
    #[error("there is no host `{host}`")]
    NoSuchHost {
        /// What was looked for.
        host: String,
        /// Names that it may have been.
        near: Vec<String>,
    },
    /// Several hosts have the name.
    #[error("several hosts are called `{host}`")]
    AmbiguousHost {
        /// The name.
        host: String,
    },
    /// It is there already.
    #[error("it runs on host `{host}` already")]
    SameHost {
        /// The host.
        host: String,
    },
    /// It runs on another host than the one that was named.
    #[error("it runs on host `{host}`")]
    OtherHost {
        /// Where it runs.
        host: String,
    },
    /// The host takes no VMs.
    #[error("host `{host}` takes no vms")]
    HostDisabled {
        /// The host.
        host: String,
    },
    /// The host is down.
    #[error("host `{host}` is down")]
    HostDown {
        /// The host.
        host: String,
    },
    /// A disk is where the host does not reach it.
    #[error("disk `{disk}` is on storage `{storage}`, which host `{host}` does not reach")]
    Storage {
        /// The disk.
        disk: String,
        /// Where it is.
        storage: String,
        /// The host.
        host: String,
    },
    /// The host has too little memory free.
    #[error("host `{host}` has no room for it: it needs {needed}, {free} is free")]
    Memory {
        /// The host.
        host: String,
        /// What it needs.
        needed: ByteSize,
        /// What is free there.
        free: ByteSize,
    },
    /// Some of it can only be done while it is off.
    #[error("it must be stopped for {}", what.join(" and "))]
    NeedsStop {
        /// What.
        what: Vec<String>,
    },
    /// A disk cannot be made smaller.
    #[error("disk `{disk}` has {is} and cannot be made smaller")]
    Shrink {
        /// The disk.
        disk: String,
        /// Its size.
        is: ByteSize,
    },
    /// It has no disk.
    #[error("it has no disk")]
    NoDisk,
    /// A size is none that a VM can have.
    #[error("{what}")]
    Size {
        /// What is wrong.
        what: String,
    },
    /// It does not carry the marks of this installation.
    #[error("it was not made by this installation{}", by(*owner))]
    NotOurs {
        /// Whose it is, where it is marked.
        owner: Option<Uuid>,
    },
    /// It is adopted.
    #[error("it was adopted, and what was adopted is never deleted")]
    Adopted,
    /// It was made by this installation, and cannot be adopted or forgotten.
    #[error("it was made by this installation")]
    Made,
    /// Another VM of this installation has the name.
    #[error("there is a vm `{name}` already")]
    NameTaken {
        /// The name.
        name: String,
    },
    /// It has no such snapshot.
    #[error("it has no snapshot `{snapshot}`")]
    NoSuchSnapshot {
        /// What was looked for.
        snapshot: String,
        /// Names that it may have been.
        near: Vec<String>,
    },
    /// Several snapshots have the name.
    #[error("{} of its snapshots are called `{snapshot}`", uuids.len())]
    AmbiguousSnapshot {
        /// The name.
        snapshot: String,
        /// Their identities.
        uuids: Vec<Uuid>,
    },
    /// It has a snapshot of this name.
    #[error("it has a snapshot `{snapshot}` already")]
    SnapshotThere {
        /// The name.
        snapshot: String,
    },
}

impl Refusal {
    fn hint(&self, vm: &str) -> Option<String> {
        Some(match self {
            Self::NoSuchHost { near, .. } | Self::NoSuchSnapshot { near, .. }
                if !near.is_empty() =>
            {
                did_you_mean(near)
            }
            Self::NoSuchHost { .. } => "list the hosts with `bioxen pool hosts`".into(),
            Self::AmbiguousHost { .. } => "give the uuid of one: `bioxen pool hosts`".into(),
            Self::SameHost { .. } | Self::NoDisk => return None,
            Self::OtherHost { .. } => format!("move it with `bioxen vm migrate {vm}`"),
            Self::HostDisabled { .. } | Self::HostDown { .. } => "choose another host".into(),
            Self::Storage { .. } => {
                "choose a host that reaches the storage, or keep the disk on shared storage".into()
            }
            Self::Memory { .. } => "stop a VM there, or choose another host".into(),
            Self::NeedsStop { .. } => "stop it first, or allow that with `--stop-if-needed`".into(),
            Self::Shrink { .. } => "ask for at least that much".into(),
            Self::Size { .. } => "ask for another size".into(),
            Self::NotOurs { owner: None } => {
                "look whether it is the VM that was meant; the pool's own tools can delete it"
                    .into()
            }
            Self::NotOurs { owner: Some(_) } => "ask where it was made".into(),
            Self::Adopted => {
                format!(
                    "forget it with `bioxen vm forget {vm}`; the pool's own tools can delete it"
                )
            }
            Self::Made => format!("remove it with `bioxen vm delete {vm}`"),
            Self::NameTaken { .. } => "choose another name".into(),
            Self::NoSuchSnapshot { .. } => format!("list them with `bioxen vm snapshots {vm}`"),
            Self::AmbiguousSnapshot { uuids, .. } => {
                let uuids: Vec<_> = uuids.iter().map(ToString::to_string).collect();
                format!("give one of their uuids: {}", uuids.join(", "))
            }
            Self::SnapshotThere { .. } => {
                "choose another name, or delete that one with `bioxen vm snapshot --delete`".into()
            }
        })
    }
}

impl MachineError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::NotFound { near, .. } if !near.is_empty() => Some(did_you_mean(near)),
            Self::NotFound { .. } => Some("list the VMs with `bioxen vm list`".into()),
            Self::Ambiguous { .. } => Some("give the uuid instead of the name".into()),
            Self::NotAVm { kind: "snapshot", .. } => {
                Some("name the VM, and then the snapshot".into())
            }
            Self::NotAVm { kind: "template", .. } => {
                Some("make a VM of it with `bioxen vm create --template`".into())
            }
            Self::NotAVm { .. } => Some("control domains are the pool's own".into()),
            Self::Gone { .. } => Some("somebody else deleted it: `bioxen vm list`".into()),
            Self::Refused { vm, reason, .. } => reason.hint(vm),
            Self::State { vm, state, .. } => match state {
                PowerState::Halted => Some(format!("start it with `bioxen vm start {vm}`")),
                PowerState::Paused | PowerState::Suspended => {
                    Some(format!("let it go on with `bioxen vm resume {vm}`"))
                }
                PowerState::Running => Some(format!("stop it with `bioxen vm stop {vm}`")),
                PowerState::Unknown => Some("see what the pool's own tools say of it".into()),
            },
            Self::NoHost { .. } => {
                Some("stop or move a VM, take less memory, or bring a host back".into())
            }
            Self::NoTurn { .. } => Some("try again when the pool is less busy".into()),
            Self::Pool { step: LEARN_ADDRESS, .. } => {
                Some("see that its guest has booted, and that guest tools run in it".into())
            }
            Self::Pool { vm, source, .. } => {
                Some(source.hint().unwrap_or_else(|| match source.code() {
                    Some("VM_BAD_POWER_STATE") => {
                        format!("its state has changed meanwhile: see `bioxen vm show {vm}`")
                    }
                    _ => "find out what the pool says with `bioxen pool check`".into(),
                }))
            }
        }
    }

    /// Whether it took longer than it might.
    pub fn is_timeout(&self) -> bool {
        match self {
            Self::NoTurn { .. } => true,
            Self::Pool { source, .. } => {
                matches!(
                    source.as_ref(),
                    Cause::Task(TaskError::Timeout { .. }) | Cause::Wait(WaitError::Timeout { .. })
                )
            }
            _ => false,
        }
    }

    /// The pool's error code, where there is one.
    pub fn code(&self) -> Option<&str> {
        if let Self::Pool { source, .. } = self { source.code() } else { None }
    }
}

fn did_you_mean(near: &[String]) -> String {
    format!("did you mean `{}`?", near.join("` or `"))
}

fn listed(candidates: &[Candidate]) -> String {
    let row = |it: &Candidate| format!("{} ({})", it.uuid, it.state);
    candidates.iter().map(row).collect::<Vec<_>>().join(", ")
}

fn reasons(hosts: &[(String, String)]) -> String {
    if hosts.is_empty() {
        return "there is none".into();
    }
    let row = |(host, reason): &(String, String)| format!("`{host}`: {reason}");
    hosts.iter().map(row).collect::<Vec<_>>().join("; ")
}

fn by(owner: Option<Uuid>) -> String {
    owner.map(|owner| format!(" but by `{owner}`")).unwrap_or_default()
}
