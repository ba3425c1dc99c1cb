//! Decides what to ask the server for next, and what its answers say has changed.
//!
//! Nothing here does I/O or knows a clock: answers and failures go in, and changes and times to wait
//! come out. What carries them out is `super::feed`.
//!
//! ```text
//!             ┌──── another session; token refused: everything ────┐
//!             ▼                                                    │
//! replaying (from "") ──all that is there──▶ following (from token) ──changes──▶ …
//!             ▲                                                    │
//!             └──── a count that does not agree: that class ───────┘
//! ```
//!
//! Deletions can be lost: a server remembers some hundred of each class. It therefore says how many objects
//! there are; where that differs from how many are known, the class is told anew and compared. The other
//! classes go on from the token that they had, as records are always the newest, whatever the token.

use std::collections::HashSet;
use std::time::Duration;

use super::Change;
use super::batch::{Batch, Event, Sight};
use crate::any::AnyRef;
use crate::generated::class::Class;

/// The longest time between two tries.
const LONGEST: u64 = 30;

/// The state of following some classes.
#[derive(Debug)]
pub(crate) struct Follow {
    classes: Vec<Followed>,
    token: String,
    /// How often in a row asking failed.
    failures: u32,
    /// How often in a row counts did not agree.
    disagreements: u32,
}

#[derive(Debug)]
struct Followed {
    class: Class,
    known: HashSet<AnyRef>,
    due: Due,
    /// By how much the server's count was off right after it had told everything. Then the difference is
    /// not of our making, such as objects that the user may not see.
    surplus: i64,
}

/// What has to be told of a class before it is in step.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Due {
    Nothing,
    /// What there is: something was missed, and what changed comes with the next events all the same.
    Count,
    /// Everything: what changed is not known either.
    All,
}

/// What to ask for.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Ask {
    pub(crate) classes: Vec<Class>,
    /// Empty for all that is there.
    pub(crate) token: String,
}

impl Ask {
    /// Whether all that is there shall be told.
    pub(crate) fn is_replay(&self) -> bool {
        self.token.is_empty()
    }
}

/// What a failure means for what comes next.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Setback {
    /// The same again.
    Same,
    /// A session that had been good is over, or its host is not the master any more. Another is got at
    /// once.
    StaleSession,
    /// The server does not know the token.
    Token,
}

impl Follow {
    pub(crate) fn new(classes: &[Class]) -> Self {
        let classes = classes.iter().map(|&class| Followed {
            class,
            known: HashSet::new(),
            due: Due::All,
            surplus: 0,
        });
        Self { classes: classes.collect(), token: String::new(), failures: 0, disagreements: 0 }
    }

    /// Whether all that is there has been told.
    pub(crate) fn in_step(&self) -> bool {
        self.classes.iter().all(|followed| followed.due == Due::Nothing)
    }

    /// Where it goes on from.
    pub(crate) fn token(&self) -> &str {
        &self.token
    }

    /// What to ask for next. What was missed of some classes is asked for only if that may be done now; the
    /// others are followed meanwhile.
    pub(crate) fn ask(&self, may_replay: bool) -> Ask {
        let replay = self.token.is_empty() || (may_replay && !self.in_step());
        let asked = self.classes.iter().filter(|followed| !replay || followed.due != Due::Nothing);
        let classes = asked.map(|followed| followed.class).collect();
        Ask { classes, token: if replay { String::new() } else { self.token.clone() } }
    }

    /// Another server, or one that has forgotten what it told: all has to be told anew.
    pub(crate) fn start_over(&mut self) {
        self.token.clear();
        for followed in &mut self.classes {
            followed.due = Due::All;
        }
    }

    /// Takes note of a failure, and says how long to wait before asking again.
    pub(crate) fn failed(&mut self, setback: Setback) -> Duration {
        let earlier = self.failures;
        let later = earlier.saturating_add(1);
        match setback {
            Setback::StaleSession => Duration::ZERO,
            Setback::Same => {
                self.failures = later;
                back_off(earlier)
            }
            Setback::Token => {
                self.failures = later;
                self.start_over();
                earlier.checked_sub(1).map_or(Duration::ZERO, back_off)
            }
        }
    }

    /// Takes in the answer to what was asked, and says what has changed. Where that shows that something
    /// was missed, it also says how long to wait before asking for that.
    pub(crate) fn answered<R>(
        &mut self,
        ask: &Ask,
        batch: Batch<R>,
    ) -> (Vec<Change<R>>, Option<Duration>) {
        self.failures = 0;
        let was_in_step = self.in_step();
        let mut changes = Vec::with_capacity(batch.events.len());
        if ask.is_replay() {
            self.replay(ask, batch.events, &mut changes);
            if self.token.is_empty() {
                self.token = batch.token;
            }
        } else {
            self.apply(batch.events, &mut changes);
            self.token = batch.token;
        }
        self.compare(ask, &batch.counts);
        if self.in_step() {
            if !ask.is_replay() {
                self.disagreements = 0;
            }
            return (changes, None);
        }
        let is_news = was_in_step || ask.is_replay();
        let wait = is_news.then(|| {
            let earlier = self.disagreements;
            self.disagreements = earlier.saturating_add(1);
            earlier.checked_sub(1).map_or(Duration::ZERO, back_off)
        });
        (changes, wait)
    }

    /// Takes in all that is there: what is not told again is gone.
    fn replay<R>(&mut self, ask: &Ask, events: Vec<Event<R>>, changes: &mut Vec<Change<R>>) {
        let mut before: Vec<(HashSet<AnyRef>, Due)> = Vec::with_capacity(self.classes.len());
        for followed in &mut self.classes {
            before.push(if ask.classes.contains(&followed.class) {
                let due = std::mem::replace(&mut followed.due, Due::Nothing);
                (std::mem::take(&mut followed.known), due)
            } else {
                (HashSet::new(), Due::Nothing)
            });
        }
        for Event { object, sight } in events {
            let Some(place) = self.place(object.class()) else { continue };
            let (known, due) = &mut before[place];
            let was_known = known.remove(&object);
            let followed = &mut self.classes[place];
            match sight {
                Sight::Record(record) => {
                    followed.known.insert(object.clone());
                    if !was_known || *due == Due::All {
                        changes.push(change(was_known, object, record));
                    }
                }
                Sight::Unseen => {
                    followed.due = Due::All;
                    if was_known {
                        followed.known.insert(object);
                    }
                }
                Sight::Gone if was_known => changes.push(Change::Removed(object)),
                Sight::Gone => {}
            }
        }
        changes.extend(before.into_iter().flat_map(|(known, _)| known).map(Change::Removed));
    }

    fn apply<R>(&mut self, events: Vec<Event<R>>, changes: &mut Vec<Change<R>>) {
        for Event { object, sight } in events {
            let Some(place) = self.place(object.class()) else { continue };
            let followed = &mut self.classes[place];
            match sight {
                Sight::Record(record) => {
                    let is_new = followed.known.insert(object.clone());
                    changes.push(change(!is_new, object, record));
                }
                Sight::Unseen => followed.due = Due::All,
                Sight::Gone => {
                    if followed.known.remove(&object) {
                        changes.push(Change::Removed(object));
                    }
                }
            }
        }
    }

    fn place(&self, class: Class) -> Option<usize> {
        self.classes.binary_search_by_key(&class, |followed| followed.class).ok()
    }

    /// Looks whether as many objects are known as there are.
    fn compare(&mut self, ask: &Ask, counts: &[(Class, usize)]) {
        if counts.is_empty() {
            return;
        }
        for followed in &mut self.classes {
            // Messages are not kept where servers count.
            if followed.class == Class::Message || !ask.classes.contains(&followed.class) {
                continue;
            }
            let count = counts.iter().find(|(class, _)| *class == followed.class);
            let count = count.map_or(0, |(_, count)| *count);
            let surplus = signed(count) - signed(followed.known.len());
            if ask.is_replay() {
                followed.surplus = surplus;
            } else if followed.due != Due::All {
                let agrees = surplus == followed.surplus;
                followed.due = if agrees { Due::Nothing } else { Due::Count };
            }
        }
    }
}

fn change<R>(was_known: bool, object: AnyRef, record: R) -> Change<R> {
    if was_known { Change::Changed(object, record) } else { Change::Added(object, record) }
}

fn signed(count: usize) -> i64 {
    i64::try_from(count).unwrap_or(i64::MAX)
}

/// 1, 2, 4 … 30 seconds.
fn back_off(earlier: u32) -> Duration {
    Duration::from_secs(1_u64.checked_shl(earlier).unwrap_or(LONGEST).clamp(1, LONGEST))
}

#[cfg(test)]
mod tests;
