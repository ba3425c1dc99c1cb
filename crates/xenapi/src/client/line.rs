//! Calls that depend on the session they are made in.
//!
//! Other calls go on in a new session as if nothing had happened. Who follows events must know: with the
//! session the server may have lost its memory of what it told.

use std::time::Duration;

use super::session::Attached;
use super::{Client, Read, Remedy, check_status, decode, read};
use crate::error::Error;
use crate::transport::{Deadline, Post};
use crate::wire::{self, FromWire, Request};

/// How often nobody may be there before another login, perhaps elsewhere, is tried.
const PATIENCE: u32 = 3;

/// A client's calls one after another, that are never moved to another session unnoticed.
#[derive(Debug)]
pub(crate) struct Line {
    client: Client,
    used: Option<Attached>,
    /// The session that was used last is over.
    broken: bool,
    /// How often in a row nobody was there.
    absences: u32,
}

impl Line {
    pub(crate) fn new(client: &Client) -> Self {
        Self { client: client.clone(), used: None, broken: false, absences: 0 }
    }

    /// How long a call may take that does not say so itself.
    pub(crate) fn timeout(&self) -> Duration {
        self.client.shared.timeout
    }

    /// Whether a session that ended can be replaced.
    pub(crate) fn can_renew(&self) -> bool {
        self.client.shared.login.can_renew()
    }

    /// Makes sure that there is a session, and says whether it is another one than that of the last call.
    pub(crate) async fn attach(&mut self) -> Result<bool, Error> {
        let shared = &self.client.shared;
        let failed = self.used.as_ref().filter(|_| self.broken);
        let attached = shared.attach(failed, Deadline::new(shared.timeout)).await?;
        let another = self.used.as_ref() != Some(&attached);
        self.used = Some(attached);
        self.broken = false;
        Ok(another)
    }

    /// Calls once, in the session that [`Line::attach`] found and beside the limit of requests. Where the
    /// session turns out to be over, the next [`Line::attach`] gets another.
    pub(crate) async fn call<R: FromWire + Send + 'static>(
        &mut self,
        request: &Request,
        timeout: Duration,
    ) -> Result<R, Error> {
        let Some(attached) = self.used.clone() else { return Err(Error::Closed) };
        let result = self.send(&attached, request, Deadline::new(timeout), read::<R>).await;
        match &result {
            Ok(_) => self.absences = 0,
            Err(error) => self.note(error, &attached),
        }
        Ok(*result?.downcast::<R>().expect("`read` made it of this very type"))
    }

    async fn send(
        &self,
        attached: &Attached,
        request: &Request,
        deadline: Deadline,
        read: Read,
    ) -> Result<Box<dyn std::any::Any + Send>, Error> {
        let Attached { endpoint, protocol, session } = attached;
        let body = wire::encode(request, Some(session.expose()), *protocol);
        let post = Post {
            path: protocol.path(),
            content_type: protocol.content_type(),
            body: &body,
            effect: request.effect,
        };
        let transport = &self.client.shared.transport;
        let response = transport.post_beside(endpoint, &post, deadline).await?;
        check_status(endpoint, &response)?;
        let method = || request.wire_name().into_owned();
        decode(*protocol, response.body, read)
            .await
            .map_err(|source| Error::Protocol {
                endpoint: endpoint.clone(),
                method: method(),
                source,
            })?
            .map_err(|source| Error::Api { method: method(), source })
    }

    fn note(&mut self, error: &Error, attached: &Attached) {
        if let Error::Connect { .. } = error {
            // A short absence is no reason to leave sessions behind.
            self.absences += 1;
            self.broken = self.absences > PATIENCE;
            return;
        }
        self.absences = 0;
        match self.client.shared.remedy(error, attached) {
            Some(Remedy::Renew) => self.broken = true,
            Some(Remedy::Follow(master)) => {
                self.client.shared.move_to(attached, master);
                self.broken = true;
            }
            None => {}
        }
    }
}
