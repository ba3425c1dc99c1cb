//! How a pool is to be.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::str::FromStr;
use std::time::Duration;

/// How a pool is to be; `PoolBuilder` fills it in.
#[derive(Clone, Debug)]
pub(crate) struct Options {
    /// Where the master listens.
    pub(crate) listen: SocketAddr,
    /// Whether it speaks HTTP without TLS.
    pub(crate) http: bool,
    /// The password of the user `root`.
    pub(crate) password: String,
    /// More users: name, password, role.
    pub(crate) users: Vec<(String, String, Role)>,
    /// How many hosts there are.
    pub(crate) hosts: usize,
    /// How much memory each has.
    pub(crate) host_memory: i64,
    /// How many processors each has.
    pub(crate) host_cpus: i64,
    /// How many VMs there are from the start.
    pub(crate) vms: usize,
    /// What decides uuids and addresses.
    pub(crate) seed: u64,
    /// How long after a boot the guest's address is known.
    pub(crate) boot_delay: Duration,
    /// How long a wrong password takes.
    pub(crate) login_delay: Duration,
    /// How long `event.from` gathers changes before it answers.
    pub(crate) event_batching: Duration,
    /// How long an operation waits for another on the same object.
    pub(crate) queue_limit: Duration,
    /// How long a guest has for shutting down.
    pub(crate) shutdown_limit: Duration,
    /// How long operations take, by method.
    pub(crate) latencies: HashMap<String, Duration>,
    /// The certificate, as PEM.
    pub(crate) certificate: String,
    /// Where state is kept across restarts.
    pub(crate) state: Option<PathBuf>,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            listen: SocketAddr::from(([127, 0, 0, 1], 0)),
            http: false,
            password: String::new(),
            users: Vec::new(),
            hosts: 1,
            host_memory: 64 << 30,
            host_cpus: 16,
            vms: 0,
            seed: 0,
            boot_delay: Duration::ZERO,
            login_delay: Duration::ZERO,
            event_batching: Duration::from_millis(50),
            queue_limit: Duration::from_hours(2),
            shutdown_limit: Duration::from_mins(20),
            latencies: HashMap::new(),
            certificate: String::new(),
            state: None,
        }
    }
}

/// What a user may do. Each role may do what those below it may.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
pub enum Role {
    /// Look at everything.
    ReadOnly,
    /// Start, stop and look into VMs.
    VmOperator,
    /// Make, change and destroy VMs.
    VmAdmin,
    /// The same, and migrate, snapshot with memory and more.
    VmPowerAdmin,
    /// Everything but users and roles.
    PoolOperator,
    /// Everything.
    PoolAdmin,
}

impl Role {
    /// All roles, the most powerful first.
    pub const ALL: [Self; 6] = [
        Self::PoolAdmin,
        Self::PoolOperator,
        Self::VmPowerAdmin,
        Self::VmAdmin,
        Self::VmOperator,
        Self::ReadOnly,
    ];

    /// The role's name in the Xen API.
    pub fn name(self) -> &'static str {
        match self {
            Self::ReadOnly => "read-only",
            Self::VmOperator => "vm-operator",
            Self::VmAdmin => "vm-admin",
            Self::VmPowerAdmin => "vm-power-admin",
            Self::PoolOperator => "pool-operator",
            Self::PoolAdmin => "pool-admin",
        }
    }
}

/// No role has this name.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error(
    "`{0}` is no role; roles are pool-admin, pool-operator, vm-power-admin, vm-admin, vm-operator and read-only"
)]
pub struct ParseRoleError(String);

impl FromStr for Role {
    type Err = ParseRoleError;

    fn from_str(text: &str) -> Result<Self, ParseRoleError> {
        let role = Self::ALL.into_iter().find(|role| role.name() == text);
        role.ok_or_else(|| ParseRoleError(text.to_owned()))
    }
}
