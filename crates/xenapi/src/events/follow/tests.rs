//! Rules of following a pool, also over random histories.

use std::collections::{BTreeMap, BTreeSet};

use proptest::prelude::*;

use super::*;
use crate::wire::Ref;

fn vm(number: u8) -> AnyRef {
    object(Class::Vm, number)
}

fn object(class: Class, number: u8) -> AnyRef {
    AnyRef::new(class, Ref::from(format!("OpaqueRef:{number}").as_str()))
}

fn batch(token: &str, events: Vec<Event<u32>>, vms: usize) -> Batch<u32> {
    Batch { events, counts: vec![(Class::Vm, vms), (Class::Task, 99)], token: token.into() }
}

fn there(object: AnyRef, record: u32) -> Event<u32> {
    Event { object, sight: Sight::Record(record) }
}

fn gone(object: AnyRef) -> Event<u32> {
    Event { object, sight: Sight::Gone }
}

/// Follows VMs, of which 1 and 2 are there.
fn following() -> Follow {
    let mut follow = Follow::new(&[Class::Vm]);
    let ask = follow.ask(true);
    assert_eq!(ask, Ask { classes: vec![Class::Vm], token: String::new() });
    let (changes, wait) =
        follow.answered(&ask, batch("10", vec![there(vm(1), 1), there(vm(2), 2)], 2));
    assert_eq!(changes, [Change::Added(vm(1), 1), Change::Added(vm(2), 2)]);
    assert!(wait.is_none() && follow.in_step());
    follow
}

#[test]
fn what_happens_is_told_from_token_to_token() {
    let mut follow = following();
    let ask = follow.ask(true);
    assert_eq!(ask.token, "10");
    let events = vec![there(vm(3), 3), there(vm(1), 7), gone(vm(2)), gone(vm(9))];
    let (changes, _) = follow.answered(&ask, batch("11", events, 2));
    let expected = [Change::Added(vm(3), 3), Change::Changed(vm(1), 7), Change::Removed(vm(2))];
    assert_eq!(changes, expected);
    assert_eq!(follow.ask(true).token, "11");
}

#[test]
fn a_deletion_that_was_lost_is_found_by_counting() {
    let mut follow = following();
    let ask = follow.ask(true);
    let (changes, wait) = follow.answered(&ask, batch("20", vec![there(vm(3), 3)], 2));
    assert_eq!(changes, [Change::Added(vm(3), 3)]);
    assert!(wait.unwrap().is_zero() && !follow.in_step());
    let ask = follow.ask(true);
    assert!(ask.is_replay());
    // What changed meanwhile is told by the events since the token, and not here.
    let (changes, _) =
        follow.answered(&ask, batch("25", vec![there(vm(1), 7), there(vm(3), 3)], 2));
    assert_eq!(changes, [Change::Removed(vm(2))]);
    assert_eq!(follow.ask(true).token, "20");
}

#[test]
fn only_the_class_that_does_not_agree_is_told_anew() {
    let mut follow = Follow::new(&[Class::Host, Class::Vm]);
    let ask = follow.ask(true);
    let _ = follow.answered(&ask, batch("1", vec![there(vm(1), 1)], 1));
    let ask = follow.ask(true);
    let _ = follow.answered(&ask, batch("2", vec![], 2));
    assert_eq!(follow.ask(true).classes, [Class::Vm]);
}

#[test]
fn a_count_that_stays_off_is_put_up_with() {
    let mut follow = Follow::new(&[Class::Vm]);
    let ask = follow.ask(true);
    let _ = follow.answered(&ask, batch("1", vec![there(vm(1), 1)], 5));
    assert!(follow.in_step());
    let ask = follow.ask(true);
    let _ = follow.answered(&ask, batch("2", vec![there(vm(2), 2)], 6));
    assert!(follow.in_step());
    let ask = follow.ask(true);
    let _ = follow.answered(&ask, batch("3", vec![], 5));
    assert!(!follow.in_step());
}

#[test]
fn counts_that_never_agree_are_not_asked_about_without_pause() {
    let mut follow = following();
    let mut waits = Vec::new();
    for count in 0..7 {
        let ask = follow.ask(true);
        let (_, wait) = follow.answered(&ask, batch("11", vec![], 100 * count));
        waits.push(wait.unwrap().as_secs());
        let ask = follow.ask(true);
        assert!(ask.is_replay());
        let _ = follow.answered(&ask, batch("12", vec![there(vm(1), 1), there(vm(2), 2)], 2));
    }
    assert_eq!(waits, [0, 1, 2, 4, 8, 16, 30]);
    let ask = follow.ask(true);
    let _ = follow.answered(&ask, batch("13", vec![], 2));
    let ask = follow.ask(true);
    let (_, wait) = follow.answered(&ask, batch("14", vec![], 7));
    assert!(wait.unwrap().is_zero());
}

#[test]
fn while_something_missed_may_not_be_asked_for_the_rest_is_followed() {
    let mut follow = following();
    let ask = follow.ask(true);
    let (_, wait) = follow.answered(&ask, batch("11", vec![], 1));
    assert!(wait.is_some());
    let ask = follow.ask(false);
    assert_eq!(ask.token, "11");
    let (changes, wait) = follow.answered(&ask, batch("12", vec![there(vm(3), 3)], 2));
    assert_eq!(changes, [Change::Added(vm(3), 3)]);
    // It is known already, and for when that was planned.
    assert!(wait.is_none() && !follow.in_step());
    assert!(follow.ask(true).is_replay());
    // What was missed may come after all.
    let ask = follow.ask(false);
    let _ = follow.answered(&ask, batch("13", vec![gone(vm(1))], 2));
    assert!(follow.in_step());
}

#[test]
fn messages_are_not_counted() {
    let mut follow = Follow::new(&[Class::Message]);
    let message = object(Class::Message, 1);
    let answer = Batch {
        events: vec![there(message, 1)],
        counts: vec![(Class::Message, 0)],
        token: "1".into(),
    };
    let ask = follow.ask(true);
    let _ = follow.answered(&ask, answer);
    let ask = follow.ask(true);
    let answer =
        Batch::<u32> { counts: vec![(Class::Message, 7)], token: "2".into(), ..Default::default() };
    let _ = follow.answered(&ask, answer);
    assert!(follow.in_step());
}

#[test]
fn an_event_without_its_record_has_the_class_told_anew() {
    let mut follow = following();
    let ask = follow.ask(true);
    let unseen = Event { object: vm(1), sight: Sight::Unseen };
    let (changes, _) = follow.answered(&ask, batch("11", vec![unseen], 2));
    assert_eq!(changes, []);
    let ask = follow.ask(true);
    assert!(ask.is_replay());
    let (changes, _) =
        follow.answered(&ask, batch("12", vec![there(vm(1), 7), there(vm(2), 2)], 2));
    assert_eq!(changes, [Change::Changed(vm(1), 7), Change::Changed(vm(2), 2)]);
}

#[test]
fn failures_are_followed_by_longer_and_longer_waits_until_an_answer() {
    let mut follow = following();
    let waits: Vec<_> = (0..7).map(|_| follow.failed(Setback::Same).as_secs()).collect();
    assert_eq!(waits, [1, 2, 4, 8, 16, 30, 30]);
    let ask = follow.ask(true);
    assert_eq!(ask.token, "10");
    let _ = follow.answered(&ask, batch("11", vec![], 2));
    assert_eq!(follow.failed(Setback::Same).as_secs(), 1);
}

#[test]
fn a_session_that_is_over_is_replaced_at_once_however_often() {
    let mut follow = following();
    for _ in 0..100 {
        assert!(follow.failed(Setback::StaleSession).is_zero());
    }
    assert_eq!(follow.failed(Setback::Same).as_secs(), 1);
}

#[test]
fn another_server_tells_everything_and_the_differences_are_found() {
    let mut follow = following();
    follow.start_over();
    let ask = follow.ask(true);
    assert!(ask.is_replay() && !follow.in_step());
    let (changes, _) = follow.answered(&ask, batch("3", vec![there(vm(2), 7), there(vm(3), 3)], 2));
    let expected = [Change::Changed(vm(2), 7), Change::Added(vm(3), 3), Change::Removed(vm(1))];
    assert_eq!(changes, expected);
    assert_eq!(follow.ask(true).token, "3");
}

#[test]
fn a_token_that_is_refused_is_given_up() {
    let mut follow = following();
    assert!(follow.failed(Setback::Token).is_zero());
    assert!(follow.ask(true).is_replay());
}

/// A server that remembers only some deletions.
#[derive(Debug)]
struct Server {
    clock: u32,
    /// When each object came and last changed.
    rows: BTreeMap<(Class, u8), (u32, u32)>,
    deletions: Vec<(Class, u8, u32, u32)>,
    memory: usize,
    /// References are never used again.
    made: u8,
}

impl Server {
    fn new(memory: usize) -> Self {
        Self { clock: 0, rows: BTreeMap::new(), deletions: Vec::new(), memory, made: 0 }
    }

    fn create(&mut self, class: Class) {
        self.clock += 1;
        self.made += 1;
        self.rows.insert((class, self.made), (self.clock, self.clock));
    }

    fn pick(&self, pick: u8) -> Option<(Class, u8)> {
        let place = usize::from(pick).checked_rem(self.rows.len())?;
        self.rows.keys().nth(place).copied()
    }

    fn touch(&mut self, pick: u8) {
        self.clock += 1;
        let now = self.clock;
        if let Some(times) = self.pick(pick).and_then(|row| self.rows.get_mut(&row)) {
            times.1 = now;
        }
    }

    fn delete(&mut self, pick: u8) {
        if let Some(row) = self.pick(pick)
            && let Some((came, _)) = self.rows.remove(&row)
        {
            self.clock += 1;
            self.deletions.push((row.0, row.1, came, self.clock));
            if self.deletions.len() > self.memory {
                self.deletions.remove(0);
            }
        }
    }

    fn restart(&mut self) {
        self.deletions.clear();
    }

    /// As a server does: one event for each object at most, with its state of now.
    fn answer(&self, ask: &Ask) -> Batch<u32> {
        let since: u32 = ask.token.parse().unwrap_or(0);
        let asked = |class: &Class| ask.classes.contains(class);
        let mut events = Vec::new();
        for (&(class, number), &(_, changed)) in &self.rows {
            if asked(&class) && changed > since {
                events.push(there(object(class, number), changed));
            }
        }
        for &(class, number, came, left) in &self.deletions {
            if asked(&class) && came <= since && left > since {
                events.push(gone(object(class, number)));
            }
        }
        let count = |class| self.rows.keys().filter(|row| row.0 == class).count();
        let counts = [Class::Vm, Class::Host].map(|class| (class, count(class)));
        Batch { events, counts: counts.into(), token: format!("{:05}", self.clock) }
    }

    fn state(&self) -> BTreeMap<AnyRef, u32> {
        let rows = self.rows.iter();
        rows.map(|(&(class, number), &(_, changed))| (object(class, number), changed)).collect()
    }
}

#[derive(Clone, Debug)]
enum Act {
    Create(Class),
    Touch(u8),
    Delete(u8),
    /// The follower asks once, and may ask for what it missed or not.
    Ask(bool),
    /// The toolstack restarts: it forgets deletions, and sessions end.
    Restart,
    /// An answer is lost on its way.
    Lose,
}

fn act() -> impl Strategy<Value = Act> {
    let class = prop_oneof![Just(Class::Vm), Just(Class::Host)];
    prop_oneof![
        4 => class.prop_map(Act::Create),
        4 => any::<u8>().prop_map(Act::Touch),
        4 => any::<u8>().prop_map(Act::Delete),
        4 => any::<bool>().prop_map(Act::Ask),
        1 => Just(Act::Restart),
        1 => Just(Act::Lose),
    ]
}

/// Applies changes as they are told, and refuses those that make no sense.
fn apply(mirror: &mut BTreeMap<AnyRef, u32>, changes: Vec<Change<u32>>) {
    for change in changes {
        match change {
            Change::Added(object, record) => assert_eq!(mirror.insert(object, record), None),
            Change::Changed(object, record) => assert!(mirror.insert(object, record).is_some()),
            Change::Removed(object) => assert!(mirror.remove(&object).is_some()),
            Change::Replayed => unreachable!("only streams tell it"),
        }
    }
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 2000, ..ProptestConfig::default() })]

    #[test]
    fn a_mirror_in_step_equals_the_server_whatever_happened(
        acts in prop::collection::vec(act(), 0..80),
        memory in 0_usize..6,
    ) {
        let mut server = Server::new(memory);
        let mut follow = Follow::new(&[Class::Vm, Class::Host]);
        let mut mirror = BTreeMap::new();
        for act in acts {
            match act {
                Act::Create(class) => server.create(class),
                Act::Touch(pick) => server.touch(pick),
                Act::Delete(pick) => server.delete(pick),
                Act::Restart => {
                    server.restart();
                    let _ = follow.failed(Setback::StaleSession);
                    follow.start_over();
                }
                Act::Lose => drop(follow.failed(Setback::Same)),
                Act::Ask(may_replay) => {
                    let ask = follow.ask(may_replay);
                    let (changes, _) = follow.answered(&ask, server.answer(&ask));
                    apply(&mut mirror, changes);
                    if follow.in_step() && !ask.is_replay() {
                        prop_assert_eq!(&mirror, &server.state());
                    }
                    // What is known to be there is what is in the mirror.
                    let known: BTreeSet<_> =
                        follow.classes.iter().flat_map(|class| class.known.iter()).collect();
                    prop_assert_eq!(known, mirror.keys().collect());
                }
            }
        }
        // Once nothing happens any more, a few questions are enough.
        for _ in 0..4 {
            let ask = follow.ask(true);
            let (changes, _) = follow.answered(&ask, server.answer(&ask));
            apply(&mut mirror, changes);
        }
        prop_assert!(follow.in_step());
        prop_assert_eq!(mirror, server.state());
    }
}
