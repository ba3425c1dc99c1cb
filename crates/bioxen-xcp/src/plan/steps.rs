//! The steps of making a virtual machine, in their order.

use std::collections::BTreeMap;
use std::fmt;
use std::time::Duration;

use bioxen_core::ByteSize;
use serde::Serialize;

use super::{Copy, Interfaces, Plan};

/// What a step does. They come in this order; some may be left out.
#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord, Hash, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum StepKind {
    /// Finds out what the names of the spec mean.
    Resolve,
    /// Makes the VM and its disks from the template.
    Clone,
    /// Marks it as ours and makes it a VM.
    Provision,
    /// Sets its memory and processors.
    Size,
    /// Grows its disk.
    Disk,
    /// Makes its interfaces.
    Network,
    /// Makes and attaches the disk with which the guest sets itself up.
    Seed,
    /// Starts it.
    Start,
    /// Learns its address.
    Address,
    /// Logs in.
    Ssh,
    /// Waits until the guest has set itself up.
    CloudInit,
    /// Takes the seed disk away again.
    Unseed,
    /// Copies files into it.
    Files,
    /// Starts Lua in it.
    Lua,
}

impl StepKind {
    /// All of them, in their order.
    pub const ALL: [Self; 14] = [
        Self::Resolve,
        Self::Clone,
        Self::Provision,
        Self::Size,
        Self::Disk,
        Self::Network,
        Self::Seed,
        Self::Start,
        Self::Address,
        Self::Ssh,
        Self::CloudInit,
        Self::Unseed,
        Self::Files,
        Self::Lua,
    ];

    /// Its name in messages and records.
    pub fn name(self) -> &'static str {
        match self {
            Self::Resolve => "resolve",
            Self::Clone => "clone",
            Self::Provision => "provision",
            Self::Size => "size",
            Self::Disk => "disk",
            Self::Network => "network",
            Self::Seed => "seed",
            Self::Start => "start",
            Self::Address => "address",
            Self::Ssh => "ssh",
            Self::CloudInit => "cloud-init",
            Self::Unseed => "unseed",
            Self::Files => "files",
            Self::Lua => "lua",
        }
    }

    /// How long it may take, unless somebody says otherwise.
    pub fn deadline(self) -> Duration {
        match self {
            Self::Clone | Self::Files => Duration::from_hours(1),
            Self::CloudInit => Duration::from_mins(15),
            Self::Start | Self::Address | Self::Seed => Duration::from_mins(5),
            Self::Ssh | Self::Unseed => Duration::from_mins(3),
            Self::Resolve
            | Self::Provision
            | Self::Size
            | Self::Disk
            | Self::Network
            | Self::Lua => Duration::from_mins(2),
        }
    }
}

impl fmt::Display for StepKind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(self.name())
    }
}

/// How long steps may take.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Deadlines(BTreeMap<StepKind, Duration>);

impl Deadlines {
    /// Sets how long a step may take, in place of the usual.
    pub fn set(&mut self, step: StepKind, limit: Duration) {
        self.0.insert(step, limit);
    }

    /// How long a step may take.
    pub fn of(&self, step: StepKind) -> Duration {
        self.0.get(&step).copied().unwrap_or_else(|| step.deadline())
    }

    /// How long what the step does may be waited for: a little less, so that it is told what was waited
    /// for and not only that the step took too long.
    pub(crate) fn within(&self, step: StepKind) -> Duration {
        self.of(step).mul_f64(0.9)
    }
}

/// One step with what it will do.
#[derive(Clone, Debug, PartialEq, Eq, Serialize)]
pub struct Step {
    /// Which it is.
    pub step: StepKind,
    /// What it does.
    pub what: String,
}

impl Plan {
    /// The steps that making it takes, for people.
    pub fn steps(&self) -> Vec<Step> {
        let step = |step, what: String| Step { step, what };
        let (template, storage) = (&self.template.name, &self.storage.name);
        let made = match self.copy {
            Copy::Clone => format!("clone template `{template}` on storage `{storage}`"),
            Copy::Full => format!("copy template `{template}` to storage `{storage}`"),
        };
        let mut steps = vec![
            step(StepKind::Clone, made),
            step(StepKind::Provision, format!("mark it as ours and name it `{}`", self.label)),
            step(
                StepKind::Size,
                format!("{} of memory, {} processors", ByteSize(self.memory), self.vcpus),
            ),
        ];
        if let Some(growth) = &self.growth {
            let (from, to) = (ByteSize(growth.from), ByteSize(growth.to));
            steps.push(step(StepKind::Disk, format!("grow its disk from {from} to {to}")));
        }
        if let Interfaces::These(interfaces) = &self.interfaces {
            let each = interfaces.iter().map(|interface| {
                let how = match (interface.spec.address, &interface.lease) {
                    (Some(address), _) => address.to_string(),
                    (None, Some(lease)) => format!("one of {}", lease.range().addresses()),
                    (None, None) => "DHCP".to_owned(),
                };
                format!("`{}` ({how})", interface.network.name)
            });
            let list = each.collect::<Vec<_>>().join(", ");
            steps.push(step(StepKind::Network, format!("interfaces on {list}")));
        }
        let start = self.host.as_ref().map_or("where the pool sees fit".to_owned(), |host| {
            format!("on host `{}`, if that can take it", host.name)
        });
        let user = &self.user;
        steps.extend([
            step(StepKind::Seed, "make keys, and attach the seed disk".into()),
            step(StepKind::Start, format!("start it {start}")),
            step(StepKind::Address, "learn its address".into()),
            step(StepKind::Ssh, format!("log in as `{user}`, by a key made for it")),
            step(StepKind::CloudInit, "wait until it has set itself up".into()),
            step(StepKind::Unseed, "take the seed disk away".into()),
        ]);
        if self.files > 0 {
            steps.push(step(StepKind::Files, format!("copy {} files into it", self.files)));
        }
        steps.extend([step(StepKind::Lua, "put the worker there and ask it".into())]);
        steps
    }
}
