//! Carries out what `super::follow` decides.

use std::sync::Arc;
use std::time::Duration;

use tokio::time::{Instant, sleep_until};
use tracing::{debug, warn};

use super::Change;
use super::batch::Batch;
use super::follow::{Ask, Follow, Setback};
use crate::any::AnyRecord;
use crate::client::{Client, Line};
use crate::error::Error;
use crate::generated::class::Class;
use crate::wire::{Request, Value};

/// How long the server waits for something to happen, in seconds. Proxies on the way often cut what lasts
/// for a minute, and old servers want a fraction in every float.
const POLL: f64 = 50.1;
/// For how long an answer is waited for: a connection that died without a sign is given up then.
const POLL_LIMIT: Duration = Duration::from_secs(65);
/// How long the server waits when it is asked for all there is, and nothing is.
const REPLAY: f64 = 0.1;

/// Follows the objects of some classes. It does nothing but in [`Feed::next`].
#[derive(Debug)]
pub(crate) struct Feed {
    line: Line,
    follow: Follow,
    /// When to ask next, if not at once.
    next: Option<Instant>,
    /// When to ask for what was missed, if not at once.
    replay: Option<Instant>,
}

/// What following brought.
#[derive(Debug)]
pub(crate) enum News {
    /// The server answered.
    Batch(Applied),
    /// It could not be asked, and will be again.
    Trouble(Arc<Error>),
}

/// An answer, applied.
#[derive(Debug)]
pub(crate) struct Applied {
    pub(crate) changes: Vec<Change>,
    /// Whether all that is there has been told.
    pub(crate) in_step: bool,
    /// Whether this told everything anew.
    pub(crate) anew: bool,
    pub(crate) token: String,
}

impl Feed {
    /// Follows classes that were checked with [`watchable`](crate::any::watchable).
    pub(crate) fn new(client: &Client, classes: &[Class]) -> Self {
        Self { line: Line::new(client), follow: Follow::new(classes), next: None, replay: None }
    }

    /// Waits for an answer of the server, or for something to go wrong. It is over after an error.
    pub(crate) async fn next(&mut self) -> Result<News, Arc<Error>> {
        if let Some(next) = self.next {
            sleep_until(next).await;
            self.next = None;
        }
        let is_new = match self.line.attach().await {
            Ok(is_new) => is_new,
            Err(error) => return self.trouble(error, true),
        };
        if is_new {
            self.follow.start_over();
        }
        let until_replay = self.replay.map(|at| at.saturating_duration_since(Instant::now()));
        let until_replay = until_replay.filter(|wait| !wait.is_zero() && !self.follow.in_step());
        let ask = self.follow.ask(until_replay.is_none());
        let limit = if ask.is_replay() { self.line.timeout() } else { POLL_LIMIT };
        let request = request(&ask, until_replay);
        match self.line.call::<Batch<AnyRecord>>(&request, limit).await {
            Ok(batch) => Ok(News::Batch(self.apply(&ask, batch))),
            Err(error) => self.trouble(error, is_new),
        }
    }

    fn apply(&mut self, ask: &Ask, batch: Batch<AnyRecord>) -> Applied {
        let anew = self.follow.token().is_empty();
        let (changes, wait) = self.follow.answered(ask, batch);
        if let Some(wait) = wait {
            debug!(?wait, "missed something, and will ask for it");
            self.replay = Some(Instant::now() + wait);
        }
        let token = self.follow.token().to_owned();
        Applied { changes, in_step: self.follow.in_step(), anew, token }
    }

    fn trouble(&mut self, error: Error, is_new: bool) -> Result<News, Arc<Error>> {
        let Some(setback) = setback(&error, is_new, self.line.can_renew()) else {
            return Err(Arc::new(error));
        };
        let wait = self.follow.failed(setback);
        warn!(error = &error as &dyn std::error::Error, again_in = ?wait, "could not follow events");
        self.next = (!wait.is_zero()).then(|| Instant::now() + wait);
        Ok(News::Trouble(Arc::new(error)))
    }
}

fn request(ask: &Ask, until_replay: Option<Duration>) -> Request {
    let text = |text: &str| Value::String(text.to_owned());
    let classes = ask.classes.iter().map(|class| text(&class.name().to_ascii_lowercase()));
    let timeout = match until_replay {
        _ if ask.is_replay() => REPLAY,
        Some(wait) => (wait.as_secs_f64().ceil() + REPLAY).min(POLL),
        None => POLL,
    };
    let params = vec![Value::Array(classes.collect()), text(&ask.token), Value::Float(timeout)];
    Request::read("event.from", params)
}

/// What the error means for following; nothing, where trying again would not help.
fn setback(error: &Error, is_new: bool, can_renew: bool) -> Option<Setback> {
    // A session that is refused as soon as it was got is not got again without a pause.
    let session = if is_new { Setback::Same } else { Setback::StaleSession };
    match error {
        Error::Closed => None,
        Error::Api { source, .. } => match source.code() {
            "SESSION_INVALID" => can_renew.then_some(session),
            "HOST_IS_SLAVE" => Some(session),
            "EVENT_FROM_TOKEN_PARSE_FAILURE" => Some(Setback::Token),
            "SESSION_AUTHENTICATION_FAILED"
            | "SESSION_AUTHORIZATION_FAILED"
            | "RBAC_PERMISSION_DENIED"
            | "PERMISSION_DENIED"
            | "MESSAGE_METHOD_UNKNOWN"
            | "EVENT_SUBSCRIPTION_PARSE_FAILURE" => None,
            _ => Some(Setback::Same),
        },
        Error::Connect { .. }
        | Error::Tls { .. }
        | Error::Transport { .. }
        | Error::Http { .. }
        | Error::Protocol { .. }
        | Error::TooLarge { .. }
        | Error::Timeout { .. } => Some(Setback::Same),
    }
}
