//! What happens in a life, and what goes wrong in it: all of it decided by a seed.

use std::time::Duration;

use bioxen_core::{ByteSize, VmSpec};
use xenapi_sim::guest::GuestFault;
use xenapi_sim::{Fault, FaultRule};

use crate::chance::Chance;
use crate::world::TEMPLATE;

/// Some VMs on a pool, from before they are made until nothing of them is left.
#[derive(Clone, Debug)]
pub(crate) struct Story {
    pub(crate) seed: u64,
    /// Whether their guests can be entered.
    pub(crate) enters: bool,
    pub(crate) hosts: usize,
    /// How many controllers there are, each an installation of its own.
    pub(crate) controllers: usize,
    pub(crate) lives: Vec<Life>,
    pub(crate) mishaps: Vec<Mishap>,
}

/// The life of one VM.
#[derive(Clone, Debug)]
pub(crate) struct Life {
    pub(crate) name: String,
    pub(crate) full_copy: bool,
    pub(crate) memory: Option<ByteSize>,
    pub(crate) vcpus: Option<u32>,
    pub(crate) disk: Option<ByteSize>,
    pub(crate) networks: usize,
    /// Whether it is not to outlive its controller.
    pub(crate) is_of_fleet: bool,
    /// How long each step of its making may take, where that is not long.
    pub(crate) patience: Option<Duration>,
    pub(crate) verbs: Vec<Verb>,
    /// Whether it is deleted, or forgotten and left to be collected.
    pub(crate) is_deleted: bool,
}

/// What is asked of a VM that was made.
#[derive(Clone, Copy, Debug)]
pub(crate) enum Verb {
    Start,
    Stop,
    Cut,
    Reboot,
    Suspend,
    Snapshot,
    Restore,
    DeleteSnapshot,
    Copy,
    Grow,
    Collect,
}

/// What goes wrong.
#[derive(Clone, Debug)]
pub(crate) enum Mishap {
    Calls(FaultRule),
    Guests(GuestFault),
    Slow(&'static str, Duration),
    /// What is known of VMs cannot be noted the time of this number.
    Journal(usize),
    /// So long after the moment of this number.
    At(usize, Duration, Act),
}

/// What happens to a pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Act {
    RestartToolstack,
    LoseSessions,
    LoseEvents,
    FillStorage,
    TakeMemory,
    KillHost,
    VanishTemplate,
    VanishVm,
    EndGuest(&'static str),
}

const CALLS: [&str; 22] = [
    "*",
    "VM.*",
    "VDI.*",
    "VBD.*",
    "task.*",
    "event.from",
    "event.inject",
    "session.*",
    "VM.clone",
    "VM.copy",
    "VM.get_record",
    "VM.add_to_other_config",
    "VM.set_name_label",
    "VM.provision",
    "VM.set_memory_limits",
    "VDI.resize",
    "VIF.create",
    "VDI.create",
    "VBD.create",
    "VM.start",
    "VM.hard_shutdown",
    "VM.destroy",
];

const CODES: [&str; 9] = [
    "INTERNAL_ERROR",
    "OTHER_OPERATION_IN_PROGRESS",
    "SR_BACKEND_FAILURE_44",
    "SR_FULL",
    "HOST_NOT_ENOUGH_FREE_MEMORY",
    "HANDLE_INVALID",
    "VDI_IN_USE",
    "VM_BAD_POWER_STATE",
    "OPERATION_NOT_ALLOWED",
];

const VERBS: [Verb; 11] = [
    Verb::Start,
    Verb::Stop,
    Verb::Cut,
    Verb::Reboot,
    Verb::Suspend,
    Verb::Snapshot,
    Verb::Restore,
    Verb::DeleteSnapshot,
    Verb::Copy,
    Verb::Grow,
    Verb::Collect,
];

impl Story {
    /// The story of this seed.
    pub(crate) fn of(seed: u64) -> Self {
        let mut chance = Chance::new(seed);
        let enters = chance.one_in(10);
        let count = if chance.one_in(8) && !enters { 2 + chance.below(3) } else { 1 };
        let is_calm = chance.one_in(12);
        let mishaps = if is_calm { 0 } else { 1 + chance.below(4) };
        Self {
            seed,
            enters,
            hosts: 1 + chance.below(2),
            controllers: count.min(2),
            lives: (0..count).map(|number| Life::of(&mut chance, number, enters)).collect(),
            mishaps: (0..mishaps).map(|_| Mishap::of(&mut chance, enters)).collect(),
        }
    }
}

impl Life {
    fn of(chance: &mut Chance, number: usize, enters: bool) -> Self {
        let verbs = if chance.one_in(2) { 0 } else { chance.below(5) };
        let gib = |chance: &mut Chance, some: &[u64]| Some(ByteSize::gib(chance.of(some)));
        Self {
            name: format!("vm-{number}"),
            full_copy: chance.one_in(4),
            memory: if chance.one_in(2) { gib(chance, &[2, 3, 4]) } else { None },
            vcpus: if chance.one_in(3) { Some(chance.of(&[1, 2, 4])) } else { None },
            disk: if chance.one_in(3) { gib(chance, &[12, 20]) } else { None },
            networks: if chance.one_in(3) { 1 + chance.below(2) } else { 0 },
            is_of_fleet: chance.one_in(2),
            patience: if chance.one_in(10) { Some(chance.millis(60)) } else { None },
            verbs: (0..verbs).map(|_| Verb::of(chance, enters)).collect(),
            is_deleted: !chance.one_in(4),
        }
    }

    /// What is ordered.
    pub(crate) fn spec(&self, port: u16) -> VmSpec {
        let mut spec = VmSpec::xcpng(self.name.as_str()).unwrap().template(TEMPLATE);
        if let Some(memory) = self.memory {
            spec = spec.memory(memory);
        }
        if let Some(vcpus) = self.vcpus {
            spec = spec.vcpus(vcpus);
        }
        if let Some(disk) = self.disk {
            spec = spec.disk(disk);
        }
        for _ in 0..self.networks {
            spec = spec.network("Pool-wide network associated with eth0".parse().unwrap());
        }
        let bioxen_core::Place::Xcpng(machine) = &mut spec.place else { panic!("another place") };
        machine.full_copy = self.full_copy;
        machine.port = Some(port);
        spec
    }
}

impl Verb {
    fn of(chance: &mut Chance, enters: bool) -> Self {
        let verb = chance.of(&VERBS);
        match verb {
            // Guests that are processes have no memory that could be kept.
            Self::Suspend if enters => Self::Stop,
            verb => verb,
        }
    }
}

impl Mishap {
    fn of(chance: &mut Chance, enters: bool) -> Self {
        match chance.below(10) {
            0..=4 => Self::Calls(calls(chance)),
            5 => Self::Slow(chance.of(&["VM.*", "VDI.*", "VM.clone"]), chance.millis(80)),
            6 if enters => Self::Guests(chance.of(&GuestFault::ALL)),
            6 => Self::Guests(chance.of(&[GuestFault::NoAddress, GuestFault::IgnoresShutdown])),
            7 if chance.one_in(3) => Self::Journal(1 + chance.below(4)),
            _ => {
                let act = chance.of(&[
                    Act::RestartToolstack,
                    Act::LoseSessions,
                    Act::LoseEvents,
                    Act::FillStorage,
                    Act::TakeMemory,
                    Act::KillHost,
                    Act::VanishTemplate,
                    Act::VanishVm,
                    Act::EndGuest("poweroff"),
                    Act::EndGuest("reboot"),
                    Act::EndGuest("crash"),
                ]);
                Self::At(chance.below(12), chance.millis(20), act)
            }
        }
    }
}

fn calls(chance: &mut Chance) -> FaultRule {
    let call = chance.of(&CALLS);
    let fault = match chance.below(8) {
        0 | 1 => Fault::DropBefore,
        2 | 3 => Fault::DropAfter,
        4 => Fault::CutAfter(chance.below(200)),
        5 => Fault::Garbage,
        6 => Fault::DelayMs(chance.below(200) as u64),
        _ => {
            let code = chance.of(&CODES);
            Fault::Error([code, "OpaqueRef:x", "x"].map(str::to_owned).to_vec())
        }
    };
    let rule = FaultRule::new(call, fault);
    let often = if call.ends_with('*') { 0.1 } else { 0.5 };
    let times = 1 + u32::try_from(chance.below(3)).expect("it is below 3");
    rule.probability(often).times(times)
}
