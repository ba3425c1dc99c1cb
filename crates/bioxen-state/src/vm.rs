//! A VM on a pool, as we remember it.
//!
//! ```text
//! begin ──▶ making ──ready──▶ ready ──deleting──▶ deleting ──forget──▶ (gone)
//!              └───────────────deleting──────────────▲
//! ```

use std::fmt;
use std::net::IpAddr;

use bioxen_core::VmName;
use jiff::Timestamp;
use uuid::Uuid;

use crate::secret::Secret;

/// Where a VM is in its life, as far as its making and deleting go; whether it runs, its pool knows.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum Phase {
    /// It is being made: the pool may have all of it, some of it, or nothing yet.
    Making,
    /// It was made, and can be used when it runs.
    Ready,
    /// It is being deleted, and does not come back.
    Deleting,
}

impl Phase {
    /// Every phase.
    pub const ALL: [Self; 3] = [Self::Making, Self::Ready, Self::Deleting];

    /// The name in records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Making => "making",
            Self::Ready => "ready",
            Self::Deleting => "deleting",
        }
    }
}

impl fmt::Display for Phase {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How a VM's address became known.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
pub enum KnownBy {
    /// The guest's tools told the pool.
    GuestMetrics,
    /// We chose it.
    Static,
    /// The guest told us itself.
    CallHome,
}

impl KnownBy {
    /// Every way.
    pub const ALL: [Self; 3] = [Self::GuestMetrics, Self::Static, Self::CallHome];

    /// The name in records and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::GuestMetrics => "guest_metrics",
            Self::Static => "static",
            Self::CallHome => "call_home",
        }
    }
}

impl fmt::Display for KnownBy {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Where a VM is reached.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Address {
    /// The address.
    pub ip: IpAddr,
    /// How it became known.
    pub known_by: KnownBy,
}

/// Where a VM comes from, and so whether it is ours to delete.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Source {
    /// We make it.
    Template {
        /// The name of the template, or of the VM that it is a clone of.
        name: String,
        /// Its uuid on the pool.
        uuid: String,
        /// The name that no other VM has, under which it is made: by it, what was made is found when
        /// whoever made it was killed before it could write down the uuid.
        making_label: String,
    },
    /// It was there before us, and we never delete it.
    Adopted {
        /// Its uuid on the pool.
        uuid: String,
    },
}

/// A VM that is to be remembered from now on.
#[derive(Clone, Debug)]
pub struct NewVm {
    /// Its name, unique in this installation.
    pub name: VmName,
    /// The name of its pool in the configuration.
    pub pool: String,
    /// The pool's own uuid: names of pools change, and one pool can have two.
    pub pool_uuid: String,
    /// Where it comes from.
    pub source: Source,
    /// When this is; kept to the microsecond.
    pub created: Timestamp,
    /// When it may be deleted without asking; kept to the microsecond.
    pub expires: Option<Timestamp>,
    /// Who sees to it. Without one it outlives everybody from the start.
    pub controller: Option<Uuid>,
    /// What it was asked to be, as JSON.
    pub spec: String,
}

/// A VM that is remembered. What can change of it, apart from its phase and controller, is changed
/// with [`State::update`](crate::State::update).
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Vm {
    pub(crate) name: VmName,
    pub(crate) pool: String,
    pub(crate) pool_uuid: String,
    pub(crate) source: Source,
    pub(crate) phase: Phase,
    pub(crate) controller: Option<Uuid>,
    pub(crate) created: Timestamp,
    /// Its uuid on the pool; `None` while it is being made.
    pub uuid: Option<String>,
    /// When it may be deleted without asking; kept to the microsecond.
    pub expires: Option<Timestamp>,
    /// Where it is reached, once that is known.
    pub address: Option<Address>,
    /// Whom to log in as.
    pub ssh_user: Option<String>,
    /// The port of its SSH server: 22 unless changed; not 0.
    pub ssh_port: u16,
    /// The public key that its SSH server must have, as in `known_hosts`.
    pub host_key: Option<String>,
    /// The private key to log in with, in OpenSSH's form.
    pub client_key: Option<Secret>,
    /// The digest of the seed disk that it was made with.
    pub seed_digest: Option<String>,
    /// Its memory, in bytes.
    pub memory: Option<u64>,
    /// How many virtual processors it has.
    pub vcpus: Option<u32>,
    /// The size of its first disk, in bytes.
    pub disk: Option<u64>,
    /// What it was asked to be, as JSON.
    pub spec: String,
    /// What was last found when it was looked at: cloud-init's verdict, or a fault.
    pub last_verdict: Option<String>,
}

impl Vm {
    pub(crate) fn new(new: NewVm) -> Self {
        let uuid = match &new.source {
            Source::Template { .. } => None,
            Source::Adopted { uuid } => Some(uuid.clone()),
        };
        Self {
            name: new.name,
            pool: new.pool,
            pool_uuid: new.pool_uuid,
            source: new.source,
            phase: Phase::Making,
            controller: new.controller,
            created: to_microsecond(new.created),
            uuid,
            expires: new.expires.map(to_microsecond),
            address: None,
            ssh_user: None,
            ssh_port: 22,
            host_key: None,
            client_key: None,
            seed_digest: None,
            memory: None,
            vcpus: None,
            disk: None,
            spec: new.spec,
            last_verdict: None,
        }
    }

    /// Its name.
    pub fn name(&self) -> &VmName {
        &self.name
    }

    /// The name of its pool in the configuration, as it was then.
    pub fn pool(&self) -> &str {
        &self.pool
    }

    /// The pool's own uuid.
    pub fn pool_uuid(&self) -> &str {
        &self.pool_uuid
    }

    /// Where it comes from.
    pub fn source(&self) -> &Source {
        &self.source
    }

    /// Whether it was there before us, so that we never delete it.
    pub fn adopted(&self) -> bool {
        matches!(self.source, Source::Adopted { .. })
    }

    /// The name under which it is made; `None` for one that was adopted.
    pub fn making_label(&self) -> Option<&str> {
        match &self.source {
            Source::Template { making_label, .. } => Some(making_label),
            Source::Adopted { .. } => None,
        }
    }

    /// Where it is in its life.
    pub fn phase(&self) -> Phase {
        self.phase
    }

    /// Who sees to it: when that controller is dead, nobody does. `None` for one that outlives
    /// whoever made it.
    pub fn controller(&self) -> Option<Uuid> {
        self.controller
    }

    /// Since when it is remembered.
    pub fn created(&self) -> Timestamp {
        self.created
    }

    /// Whether its time is over.
    pub fn has_expired(&self, now: Timestamp) -> bool {
        self.expires.is_some_and(|expires| expires <= now)
    }
}

/// The time as it is kept.
pub(crate) fn to_microsecond(time: Timestamp) -> Timestamp {
    Timestamp::from_microsecond(time.as_microsecond())
        .expect("a time without its last digits is within the same bounds")
}
