//! Which mechanisms keep a VM apart from the rest of the machine, as reached and not as wished.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

/// One way in which the operating system holds a VM in.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Mechanism {
    /// A process of its own, in a process group of its own.
    Process,
    /// `no_new_privs`: no set-user-id program can raise what the VM may do.
    NoNewPrivileges,
    /// All Linux capabilities dropped (or none held).
    Capabilities,
    /// Resource limits of the process: address space, open files, no core dumps.
    ResourceLimits,
    /// Landlock: files outside the grants cannot be opened.
    LandlockFiles,
    /// Landlock: TCP ports outside the grants cannot be bound or connected to.
    LandlockNetwork,
    /// No address can be reached but those granted, by host and port. Landlock knows ports only, so
    /// this holds where no network is granted.
    NetworkHosts,
    /// Landlock: no signal and no abstract socket reaches outside the VM.
    LandlockScope,
    /// Seccomp: system calls outside a short list fail.
    Seccomp,
    /// A network namespace without any interface.
    NetworkNamespace,
    /// Namespaces for System V objects and the host name.
    IpcNamespace,
    /// A cgroup that bounds memory and processes of the VM and of what it starts.
    Cgroup,
}

impl Mechanism {
    /// Every mechanism, in the order in which they are reported.
    pub const ALL: [Self; 12] = [
        Self::Process,
        Self::NoNewPrivileges,
        Self::Capabilities,
        Self::ResourceLimits,
        Self::LandlockFiles,
        Self::LandlockNetwork,
        Self::NetworkHosts,
        Self::LandlockScope,
        Self::Seccomp,
        Self::NetworkNamespace,
        Self::IpcNamespace,
        Self::Cgroup,
    ];

    /// Its name in records, flags and messages.
    pub fn name(self) -> &'static str {
        match self {
            Self::Process => "process",
            Self::NoNewPrivileges => "no_new_privileges",
            Self::Capabilities => "capabilities",
            Self::ResourceLimits => "resource_limits",
            Self::LandlockFiles => "landlock_files",
            Self::LandlockNetwork => "landlock_network",
            Self::NetworkHosts => "network_hosts",
            Self::LandlockScope => "landlock_scope",
            Self::Seccomp => "seccomp",
            Self::NetworkNamespace => "network_namespace",
            Self::IpcNamespace => "ipc_namespace",
            Self::Cgroup => "cgroup",
        }
    }
}

impl fmt::Display for Mechanism {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// Why a text names no mechanism.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{0}` is not an isolation mechanism; known are {known}", known = known())]
pub struct UnknownMechanism(String);

fn known() -> String {
    Mechanism::ALL.map(Mechanism::name).join(", ")
}

impl FromStr for Mechanism {
    type Err = UnknownMechanism;
    fn from_str(text: &str) -> Result<Self, UnknownMechanism> {
        Self::ALL
            .into_iter()
            .find(|mechanism| mechanism.name() == text)
            .ok_or_else(|| UnknownMechanism(text.escape_debug().to_string()))
    }
}

/// The isolation that one VM has: what is active, and why the rest is not.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Isolation {
    /// Mechanisms that were switched on and confirmed by the kernel.
    pub active: BTreeSet<Mechanism>,
    /// Mechanisms that are not active, each with the reason.
    pub missing: BTreeMap<Mechanism, String>,
}

impl Isolation {
    /// Notes that `mechanism` is active.
    pub fn reached(&mut self, mechanism: Mechanism) {
        self.missing.remove(&mechanism);
        self.active.insert(mechanism);
    }

    /// Notes that `mechanism` is not active, and why.
    pub fn missed(&mut self, mechanism: Mechanism, reason: impl Into<String>) {
        self.active.remove(&mechanism);
        self.missing.insert(mechanism, reason.into());
    }

    /// Notes what came of trying to switch `mechanism` on.
    pub fn note<E: fmt::Display>(&mut self, mechanism: Mechanism, outcome: Result<(), E>) {
        match outcome {
            Ok(()) => self.reached(mechanism),
            Err(reason) => self.missed(mechanism, reason.to_string()),
        }
    }

    /// The demanded mechanisms that are not active.
    pub fn lacking(&self, demanded: &BTreeSet<Mechanism>) -> BTreeSet<Mechanism> {
        demanded.difference(&self.active).copied().collect()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn every_mechanism_is_read_back_by_its_name() {
        for mechanism in Mechanism::ALL {
            assert_eq!(mechanism.name().parse(), Ok(mechanism));
            let json = serde_json::to_string(&mechanism).unwrap();
            assert_eq!(json, format!("\"{mechanism}\""));
        }
        assert!("magic".parse::<Mechanism>().unwrap_err().to_string().contains("seccomp"));
    }

    #[test]
    fn what_was_demanded_and_not_reached_is_lacking() {
        let mut isolation = Isolation::default();
        isolation.reached(Mechanism::Seccomp);
        isolation.note(Mechanism::Cgroup, Err("no controller"));
        let demanded = BTreeSet::from([Mechanism::Seccomp, Mechanism::Cgroup]);
        assert_eq!(isolation.lacking(&demanded), BTreeSet::from([Mechanism::Cgroup]));
    }
}
