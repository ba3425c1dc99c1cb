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
    next: Option<Instant>,
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
        Self { line: Line::new(client), follow: Follow::new(classes), next: None }
    }

    /// Waits for an answer of the server, or for something to go wrong. It is over after an error.
    pub(crate) async fn next(&mut self) -> Result<News, Arc<Error>> {
        if let Some(next) = self.next {
            sleep_until(next).await;
            self.next = None;
        }
        match self.line.attach().await {
            Ok(true) => self.follow.start_over(),
            Ok(false) => {}
            Err(error) => return self.trouble(error),
        }
        let ask = self.follow.ask();
        let limit = if ask.is_replay() { self.line.timeout() } else { POLL_LIMIT };
        match self.line.call::<Batch<AnyRecord>>(&request(&ask), limit).await {
            Ok(batch) => Ok(News::Batch(self.apply(&ask, batch))),
            Err(error) => self.trouble(error),
        }
    }

    fn apply(&mut self, ask: &Ask, batch: Batch<AnyRecord>) -> Applied {
        let anew = self.follow.token().is_empty();
        let (changes, wait) = self.follow.answered(ask, batch);
        let in_step = self.follow.in_step();
        if !in_step {
            debug!(again = ?self.follow.ask().classes, "missed something");
        }
        self.wait(wait);
        let token = self.follow.token().to_owned();
        Applied { changes, in_step, anew, token }
    }

    fn trouble(&mut self, error: Error) -> Result<News, Arc<Error>> {
        let Some(setback) = setback(&error, self.line.can_renew()) else {
            return Err(Arc::new(error));
        };
        let wait = self.follow.failed(setback);
        warn!(error = &error as &dyn std::error::Error, again_in = ?wait, "could not follow events");
        self.wait(wait);
        Ok(News::Trouble(Arc::new(error)))
    }

    fn wait(&mut self, wait: Duration) {
        self.next = (!wait.is_zero()).then(|| Instant::now() + wait);
    }
}

fn request(ask: &Ask) -> Request {
    let text = |text: &str| Value::String(text.to_owned());
    let classes = ask.classes.iter().map(|class| text(&class.name().to_ascii_lowercase()));
    let timeout = if ask.is_replay() { REPLAY } else { POLL };
    let params = vec![Value::Array(classes.collect()), text(&ask.token), Value::Float(timeout)];
    Request::read("event.from", params)
}

/// What the error means for following; nothing, where trying again would not help.
fn setback(error: &Error, can_renew: bool) -> Option<Setback> {
    match error {
        Error::Closed => None,
        Error::Api { source, .. } => match source.code() {
            "SESSION_INVALID" => can_renew.then_some(Setback::Session),
            "HOST_IS_SLAVE" => Some(Setback::Session),
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
