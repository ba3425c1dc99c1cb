//! `event.from`: what changed since a token, waiting for it when nothing did.

use std::collections::{HashMap, HashSet};
use std::time::Duration;

use tokio::time::Instant;

use crate::database::{Change, Database};
use crate::error::{ApiError, error};
use crate::inner::Inner;
use crate::schema::Schema;
use crate::value::{Ref, Value};

/// The longest that a call waits.
const LONGEST: f64 = 24.0 * 3600.0;

/// What a caller wants to hear of.
#[derive(Debug, Default, PartialEq, Eq)]
pub(crate) struct Subscription {
    everything: bool,
    classes: HashSet<usize>,
    objects: HashMap<usize, HashSet<Ref>>,
}

impl Subscription {
    /// Reads a list such as `["vm", "task/OpaqueRef:…", "*"]`.
    pub(crate) fn parse<'a>(entries: impl IntoIterator<Item = &'a str>) -> Result<Self, ApiError> {
        let schema = Schema::get();
        let class =
            |name: &str| schema.classes.iter().position(|class| class.lower == name.to_lowercase());
        let mut subscription = Self::default();
        for entry in entries {
            let broken = || error("EVENT_SUBSCRIPTION_PARSE_FAILURE", [entry]);
            match entry.split_once('/') {
                _ if entry == "*" => subscription.everything = true,
                None if entry.is_empty() => return Err(broken()),
                None => subscription.classes.extend(class(entry)),
                Some((name, reference)) if !name.is_empty() && !reference.contains('/') => {
                    if let (Some(class), Some(reference)) = (class(name), Ref::parse(reference)) {
                        subscription.objects.entry(class).or_default().insert(reference);
                    }
                }
                Some(_) => return Err(broken()),
            }
        }
        Ok(subscription)
    }

    fn wants(&self, class: usize, reference: Ref) -> bool {
        self.everything
            || self.classes.contains(&class)
            || self.objects.get(&class).is_some_and(|objects| objects.contains(&reference))
    }

    fn wants_class(&self, class: usize) -> bool {
        self.everything || self.classes.contains(&class) || self.objects.contains_key(&class)
    }

    /// Whether it is about nothing but tasks: those are told without gathering.
    fn only_tasks(&self) -> bool {
        let task = Schema::get().class("task");
        let classes = self.classes.iter().chain(self.objects.keys());
        !self.everything && classes.into_iter().all(|class| *class == task)
    }
}

/// A point in the history of the pool.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Token {
    rows: u64,
    messages: u64,
}

impl Token {
    /// Reads a token; the empty text is the beginning.
    pub(crate) fn parse(text: &str) -> Result<Self, ApiError> {
        if text.is_empty() {
            return Ok(Self { rows: 0, messages: 0 });
        }
        let parts = text.split_once(',').and_then(|(rows, messages)| {
            Some(Self { rows: rows.parse().ok()?, messages: messages.parse().ok()? })
        });
        parts.ok_or_else(|| error("EVENT_FROM_TOKEN_PARSE_FAILURE", [text]))
    }

    /// Where the pool is now.
    pub(crate) fn now(db: &Database) -> Self {
        Self { rows: db.generation(), messages: db.message_generation() }
    }

    fn is_start(self) -> bool {
        self.rows == 0 && self.messages == 0
    }
}

impl std::fmt::Display for Token {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{:020},{:020}", self.rows, self.messages)
    }
}

/// Answers with what changed after the token, as soon as something did.
pub(crate) async fn from(
    inner: &Inner,
    session: &str,
    subscription: &Subscription,
    token: Token,
    timeout: f64,
) -> Result<Value, ApiError> {
    let sane = timeout.is_finite() && (0.0..=LONGEST).contains(&timeout);
    let deadline = Instant::now() + Duration::from_secs_f64(if sane { timeout } else { LONGEST });
    let batching = inner.options.event_batching;
    let mut changes = inner.changes();
    let mut gather = !token.is_start() && !subscription.only_tasks();
    loop {
        if gather && !batching.is_zero() {
            tokio::time::sleep_until((Instant::now() + batching).min(deadline)).await;
        }
        changes.borrow_and_update();
        crate::sessions::check(inner, session)?;
        let (events, counts, now) = look(&inner.read(), subscription, token);
        if !events.is_empty() || token.is_start() || Instant::now() >= deadline {
            return Ok(batch(events, counts, now));
        }
        // Either something changed or the time is over: the next look tells which.
        let _ = tokio::time::timeout_at(deadline, changes.changed()).await;
        gather = !subscription.only_tasks();
    }
}

/// An event, with what its order in the batch depends on.
type Told = (u8, Value);

fn look(db: &Database, wanted: &Subscription, since: Token) -> (Vec<Told>, Value, Token) {
    let schema = Schema::get();
    let message = schema.class("message");
    let mut events = Vec::new();
    let mut counts = Vec::new();
    for (class, info) in schema.classes.iter().enumerate() {
        if !info.events {
            continue;
        }
        let count = i32::try_from(db.count(class)).unwrap_or(i32::MAX);
        counts.push((Value::text(&info.lower), Value::Count(count)));
        if !wanted.wants_class(class) {
            continue;
        }
        let since = if class == message { since.messages } else { since.rows };
        for change in db.changes(class, since) {
            events.extend(told(&info.lower, class == message, change, |reference| {
                wanted.wants(class, reference)
            }));
        }
    }
    (events, Value::map(counts), Token::now(db))
}

fn told(
    class: &str,
    is_message: bool,
    change: Change,
    wants: impl Fn(Ref) -> bool,
) -> Option<Told> {
    let (rank, operation, reference, generation, row) = match change {
        Change::Added(row) => (1, "add", row.reference, row.modified, Some(row)),
        Change::Modified(row) => (2, "mod", row.reference, row.modified, Some(row)),
        Change::Deleted { reference, at } => (3, "del", reference, at, None),
    };
    if !wants(reference) {
        return None;
    }
    let mut members = vec![
        ("id", Value::text(generation.to_string())),
        ("timestamp", Value::text("0.0")),
        ("class", Value::text(class)),
        ("operation", Value::text(operation)),
        ("ref", Value::Ref(reference)),
    ];
    if let Some(row) = row {
        members.push(("snapshot", Value::Record(row)));
    }
    Some((if is_message { 0 } else { rank }, Value::members(members)))
}

fn batch(mut events: Vec<Told>, counts: Value, now: Token) -> Value {
    events.sort_by_key(|(rank, _)| *rank);
    let events = Value::set(events.into_iter().map(|(_, event)| event).collect());
    Value::members(vec![
        ("events", events),
        ("valid_ref_counts", counts),
        ("token", Value::text(now.to_string())),
    ])
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn subscriptions_are_read_as_the_server_reads_them() {
        let parse = |entries: &[&str]| Subscription::parse(entries.iter().copied());
        assert_eq!(parse(&["vm"]), parse(&["VM"]));
        assert_eq!(parse(&["no_such_class"]), Ok(Subscription::default()));
        assert!(parse(&["*"]).unwrap().everything);
        assert!(parse(&["task/OpaqueRef:NULL"]).unwrap().only_tasks());
        assert!(parse(&["a/b/c"]).is_err());
        assert!(parse(&[""]).is_err());
    }

    #[test]
    fn tokens_sort_as_text() {
        let (early, late) = (Token { rows: 9, messages: 1 }, Token { rows: 10, messages: 0 });
        assert!(early.to_string() < late.to_string());
        assert_eq!(Token::parse(&late.to_string()), Ok(late));
        assert_eq!(Token::parse("x").unwrap_err().code, "EVENT_FROM_TOKEN_PARSE_FAILURE");
    }
}
