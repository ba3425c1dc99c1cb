//! What is to go wrong, and how often.

use std::collections::BTreeSet;
use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use serde::{Deserialize, Serialize};
use uuid::Uuid;

use crate::guest::GuestFault;
use crate::inner::lock;
use crate::random::Random;

/// What goes wrong with a call.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Fault {
    /// The answer comes this many milliseconds later.
    DelayMs(u64),
    /// The connection is cut and the call has no effect.
    DropBefore,
    /// The call has its effect, and the connection is cut instead of an answer.
    DropAfter,
    /// The call has its effect, and the answer is cut after this many bytes.
    CutAfter(usize),
    /// The answer is no answer of either protocol.
    Garbage,
    /// The call fails with this code and these parameters, and has no effect.
    Error(Vec<String>),
}

/// A fault with the calls that it befalls.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct FaultRule {
    /// Which calls: `VM.start`, `VM.*` or `*`. `Async.` does not matter.
    pub call: String,
    /// What goes wrong.
    pub fault: Fault,
    /// How many times; for ever when left out.
    #[serde(default)]
    pub times: Option<u32>,
    /// How likely each time, from 0 to 1.
    #[serde(default = "always")]
    pub probability: f64,
}

fn always() -> f64 {
    1.0
}

impl FaultRule {
    /// This fault for each of these calls.
    pub fn new(call: impl Into<String>, fault: Fault) -> Self {
        Self { call: call.into(), fault, times: None, probability: 1.0 }
    }

    /// This many times.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }

    /// Each time with this probability, from 0 to 1.
    #[must_use]
    pub fn probability(mut self, probability: f64) -> Self {
        self.probability = probability;
        self
    }

    fn fits(&self, method: &str) -> bool {
        fits(&self.call, method)
    }
}

/// Whether a name is the wanted one, or begins as one that ends in `*`.
fn fits(wanted: &str, name: &str) -> bool {
    match wanted.strip_suffix('*') {
        Some(start) => name.starts_with(start),
        None => wanted == name,
    }
}

/// Faults of guests with the VMs that they befall, each from a boot on and until the guest ends.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(deny_unknown_fields)]
pub struct GuestFaultRule {
    /// Which VMs, by name or uuid: `web`, `web-*` or `*`.
    pub vm: String,
    /// What goes wrong.
    pub faults: BTreeSet<GuestFault>,
    /// At how many boots; at all when left out.
    #[serde(default)]
    pub times: Option<u32>,
}

impl GuestFaultRule {
    /// These faults at each boot of these VMs.
    pub fn new(vm: impl Into<String>, faults: impl IntoIterator<Item = GuestFault>) -> Self {
        Self { vm: vm.into(), faults: faults.into_iter().collect(), times: None }
    }

    /// At this many boots.
    #[must_use]
    pub fn times(mut self, times: u32) -> Self {
        self.times = Some(times);
        self
    }
}

/// All that is to go wrong with guests.
#[derive(Debug, Default)]
pub(crate) struct GuestFaults {
    rules: Mutex<GuestRules>,
}

#[derive(Debug, Default)]
struct GuestRules {
    last: u64,
    all: Vec<(u64, GuestFaultRule)>,
}

impl GuestFaults {
    /// Adds a rule, and answers its number.
    pub(crate) fn add(&self, rule: GuestFaultRule) -> u64 {
        let mut held = lock(&self.rules);
        held.last += 1;
        let number = held.last;
        held.all.push((number, rule));
        number
    }

    /// Removes a rule, or all; how many went.
    pub(crate) fn remove(&self, number: Option<u64>) -> usize {
        let mut held = lock(&self.rules);
        let before = held.all.len();
        held.all.retain(|(it, _)| number.is_some_and(|number| number != *it));
        before - held.all.len()
    }

    /// All rules that still count, with their numbers.
    pub(crate) fn list(&self) -> Vec<(u64, GuestFaultRule)> {
        lock(&self.rules).all.clone()
    }

    /// What goes wrong with a guest that boots now.
    pub(crate) fn strike(&self, name: &str, uuid: Uuid) -> BTreeSet<GuestFault> {
        let uuid = uuid.hyphenated().to_string();
        let mut faults = BTreeSet::new();
        lock(&self.rules).all.retain_mut(|(_, rule)| {
            if rule.times != Some(0) && (fits(&rule.vm, name) || fits(&rule.vm, &uuid)) {
                faults.extend(&rule.faults);
                rule.times = rule.times.map(|times| times - 1);
            }
            rule.times != Some(0)
        });
        faults
    }
}

/// All that is to go wrong with calls.
pub(crate) struct Faults {
    any: AtomicBool,
    rules: Mutex<Rules>,
}

struct Rules {
    next: u64,
    all: Vec<(u64, FaultRule)>,
    random: Random,
}

impl Faults {
    /// No faults; the seed decides those that come with a probability.
    pub(crate) fn new(seed: u64) -> Self {
        let rules = Rules { next: 1, all: Vec::new(), random: Random::new(seed ^ 0xfa) };
        Self { any: AtomicBool::new(false), rules: Mutex::new(rules) }
    }

    /// Adds a rule, and answers its number.
    pub(crate) fn add(&self, rule: FaultRule) -> u64 {
        let mut held = lock(&self.rules);
        let number = held.next;
        held.next += 1;
        held.all.push((number, rule));
        self.any.store(true, Ordering::Release);
        number
    }

    /// Removes a rule, or all; how many went.
    pub(crate) fn remove(&self, number: Option<u64>) -> usize {
        let mut held = lock(&self.rules);
        let before = held.all.len();
        held.all.retain(|(it, _)| number.is_some_and(|number| number != *it));
        self.any.store(!held.all.is_empty(), Ordering::Release);
        before - held.all.len()
    }

    /// All rules that still count, with their numbers.
    pub(crate) fn list(&self) -> Vec<(u64, FaultRule)> {
        lock(&self.rules).all.clone()
    }

    /// What goes wrong with this call, in the order of the rules.
    pub(crate) fn strike(&self, method: &str) -> Vec<Fault> {
        if !self.any.load(Ordering::Acquire) {
            return Vec::new();
        }
        let mut held = lock(&self.rules);
        let Rules { all: rules, random, .. } = &mut *held;
        let mut faults = Vec::new();
        rules.retain_mut(|(_, rule)| {
            if rule.times == Some(0) {
                return false;
            }
            if rule.fits(method) && (rule.probability >= 1.0 || random.unit() < rule.probability) {
                faults.push(rule.fault.clone());
                rule.times = rule.times.map(|times| times - 1);
            }
            rule.times != Some(0)
        });
        self.any.store(!held.all.is_empty(), Ordering::Release);
        faults
    }
}

impl Fault {
    /// How long the answer is delayed.
    pub(crate) fn delay(&self) -> Option<Duration> {
        match self {
            Self::DelayMs(millis) => Some(Duration::from_millis(*millis)),
            Self::DropBefore
            | Self::DropAfter
            | Self::CutAfter(_)
            | Self::Garbage
            | Self::Error(_) => None,
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_rule_counts_down_and_goes() {
        let faults = Faults::new(1);
        faults.add(FaultRule::new("VM.*", Fault::Garbage).times(2));
        assert!(faults.strike("host.get_all").is_empty());
        assert_eq!(faults.strike("VM.start"), [Fault::Garbage]);
        assert_eq!(faults.strike("VM.clone"), [Fault::Garbage]);
        assert!(faults.strike("VM.clone").is_empty());
        assert!(faults.list().is_empty());
    }

    #[test]
    fn guests_are_struck_by_name_or_uuid_as_often_as_asked() {
        let faults = GuestFaults::default();
        let uuid = Uuid::from_u128(7);
        faults.add(GuestFaultRule::new("web-*", [GuestFault::SshRefuses]).times(1));
        faults.add(GuestFaultRule::new(uuid.to_string(), [GuestFault::NoAddress]));
        assert!(faults.strike("db", Uuid::nil()).is_empty());
        let both = BTreeSet::from([GuestFault::SshRefuses, GuestFault::NoAddress]);
        assert_eq!(faults.strike("web-1", uuid), both);
        assert_eq!(faults.strike("web-1", uuid), BTreeSet::from([GuestFault::NoAddress]));
        assert_eq!((faults.list().len(), faults.remove(None)), (1, 1));
        assert!(faults.strike("web-1", uuid).is_empty());
    }

    #[test]
    fn a_seed_decides_which_calls_are_struck() {
        let strikes = |seed| {
            let faults = Faults::new(seed);
            faults.add(FaultRule::new("*", Fault::DropAfter).probability(0.5));
            (0..64).map(|_| faults.strike("VM.start").len()).collect::<Vec<_>>()
        };
        assert_eq!(strikes(1), strikes(1));
        assert_ne!(strikes(1), strikes(2));
        assert!((16..48).contains(&strikes(3).iter().sum::<usize>()));
    }
}
