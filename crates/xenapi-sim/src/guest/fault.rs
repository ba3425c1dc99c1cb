//! What may go wrong with a guest, on request.

use std::collections::BTreeSet;
use std::fmt;
use std::str::FromStr;

use serde::{Deserialize, Serialize};

use crate::driver::{GuestError, Machine};

/// Something that goes wrong with a guest from its next boot on.
///
/// Written as in `ssh-stalls`. A VM asks for faults itself by the key [`GuestFault::KEY`] of its
/// `xenstore_data`, with their names between spaces or commas.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize, Deserialize)]
#[serde(rename_all = "kebab-case")]
#[non_exhaustive]
pub enum GuestFault {
    /// Its agent reports, and has no address to report.
    NoAddress,
    /// It has addresses and no agent: nothing is reported of it.
    NoTools,
    /// Connections to its SSH server are refused.
    SshRefuses,
    /// Connections to its SSH server are accepted, and nothing more comes.
    SshStalls,
    /// Its SSH server has another key than it was given.
    WrongHostKey,
    /// cloud-init reports a failure at the end.
    CloudInitFails,
    /// It restarts once while it is being set up.
    RebootsDuringSetup,
    /// It crashes while it is being set up.
    CrashesDuringSetup,
    /// It does not answer a request to shut down or restart.
    IgnoresShutdown,
    /// Its clock is a year slow, as its `date` and cloud-init's own times tell. What a program asks the
    /// kernel for is right: there is one clock for all guests.
    WrongClock,
    /// Programs that were copied into it cannot be run: `Permission denied`, as on file systems mounted so.
    ProgramsRefused,
}

impl GuestFault {
    /// All of them.
    pub const ALL: [Self; 11] = [
        Self::NoAddress,
        Self::NoTools,
        Self::SshRefuses,
        Self::SshStalls,
        Self::WrongHostKey,
        Self::CloudInitFails,
        Self::RebootsDuringSetup,
        Self::CrashesDuringSetup,
        Self::IgnoresShutdown,
        Self::WrongClock,
        Self::ProgramsRefused,
    ];

    /// The key of `xenstore_data` by which a VM asks for faults.
    pub const KEY: &str = "vm-data/xenapi-sim/faults";

    /// Its name.
    pub fn name(self) -> &'static str {
        match self {
            Self::NoAddress => "no-address",
            Self::NoTools => "no-tools",
            Self::SshRefuses => "ssh-refuses",
            Self::SshStalls => "ssh-stalls",
            Self::WrongHostKey => "wrong-host-key",
            Self::CloudInitFails => "cloud-init-fails",
            Self::RebootsDuringSetup => "reboots-during-setup",
            Self::CrashesDuringSetup => "crashes-during-setup",
            Self::IgnoresShutdown => "ignores-shutdown",
            Self::WrongClock => "wrong-clock",
            Self::ProgramsRefused => "programs-refused",
        }
    }

    /// The faults that a machine asks for.
    pub(crate) fn of(machine: &Machine) -> Result<BTreeSet<Self>, GuestError> {
        let asked = machine.xenstore_data.get(Self::KEY).map_or("", String::as_str);
        let failed = |error| GuestError { message: format!("{}: {error}", Self::KEY) };
        Self::parse_list(asked).map_err(failed)
    }

    /// The faults that a text names; the first word that names none is the error.
    pub fn parse_list(text: &str) -> Result<BTreeSet<Self>, UnknownFault> {
        let words = text.split([' ', ',']).filter(|word| !word.is_empty());
        words.map(str::parse).collect()
    }
}

impl fmt::Display for GuestFault {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// A word that names no fault.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("`{given}` is no fault of a guest; they are {}", names())]
pub struct UnknownFault {
    given: String,
}

fn names() -> String {
    GuestFault::ALL.map(|fault| format!("`{fault}`")).join(", ")
}

impl FromStr for GuestFault {
    type Err = UnknownFault;
    fn from_str(name: &str) -> Result<Self, UnknownFault> {
        let fault = Self::ALL.into_iter().find(|fault| fault.name() == name);
        fault.ok_or_else(|| UnknownFault { given: name.to_owned() })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn faults_are_read_from_a_list_of_names() {
        let faults = GuestFault::parse_list("ssh-stalls, no-address").unwrap();
        assert_eq!(faults, BTreeSet::from([GuestFault::NoAddress, GuestFault::SshStalls]));
        let error = GuestFault::parse_list("ssh-stalls melts").unwrap_err().to_string();
        assert!(
            error.starts_with("`melts` is no fault of a guest; they are `no-address`"),
            "{error}"
        );
        for fault in GuestFault::ALL {
            assert_eq!(fault.to_string().parse(), Ok(fault));
            assert_eq!(serde_json::to_value(fault).unwrap(), fault.name());
        }
    }
}
