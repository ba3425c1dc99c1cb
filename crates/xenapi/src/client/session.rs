//! Which host is spoken to, on which wire and in which session.
//!
//! One task at a time logs in; the others wait for it and take what it got.

use std::fmt;
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use tokio::runtime::Handle;
use tracing::debug;

use super::{HOPS, check_status};
use crate::error::{Error, Waiting};
use crate::failure::Failure;
use crate::secrecy::Secret;
use crate::tasks::Hub;
use crate::transport::{Deadline, Endpoint, Post, Response, Transport};
use crate::wire::{self, Protocol, Request, Value};

/// How long logging out may take when nobody waits for it.
const FAREWELL: Duration = Duration::from_secs(5);

/// How a session is come by.
#[derive(Debug)]
pub(super) enum Login {
    Password { user: String, password: Secret },
    Session(Secret),
}

impl Login {
    pub(super) fn can_renew(&self) -> bool {
        matches!(self, Self::Password { .. })
    }
}

/// A host, a wire and a session that work together.
#[derive(Clone, Debug)]
pub(crate) struct Attached {
    pub(crate) endpoint: Endpoint,
    pub(crate) protocol: Protocol,
    pub(crate) session: Secret,
}

impl PartialEq for Attached {
    fn eq(&self, other: &Self) -> bool {
        self.endpoint == other.endpoint && self.session.expose() == other.session.expose()
    }
}

/// What all clones of a client share.
pub(crate) struct Shared {
    pub(crate) transport: Arc<Transport>,
    pub(super) login: Login,
    pub(crate) timeout: Duration,
    addresses: Vec<Endpoint>,
    originator: String,
    state: Mutex<State>,
    /// Held while logging in.
    flight: tokio::sync::Mutex<()>,
    pub(crate) tasks: Arc<Hub>,
}

#[derive(Default)]
struct State {
    attached: Option<Attached>,
    /// The master, where a member named one.
    master: Option<Endpoint>,
    /// Why no login is tried any more.
    refused: Option<Failure>,
    closed: bool,
}

impl Shared {
    pub(super) fn new(
        transport: Arc<Transport>,
        addresses: Vec<Endpoint>,
        login: Login,
        originator: String,
        timeout: Duration,
    ) -> Self {
        let (state, flight) = (Mutex::default(), tokio::sync::Mutex::default());
        let tasks = Arc::default();
        Self { transport, login, timeout, addresses, originator, state, flight, tasks }
    }

    fn state(&self) -> MutexGuard<'_, State> {
        self.state.lock().unwrap_or_else(PoisonError::into_inner)
    }

    pub(crate) fn attached(&self) -> Option<Attached> {
        self.state().attached.clone()
    }

    /// Lets the next login go to the master that this host named, unless somebody else did meanwhile.
    pub(super) fn move_to(&self, attached: &Attached, master: Endpoint) {
        let mut state = self.state();
        if state.attached.as_ref() == Some(attached) {
            state.master = Some(master);
        }
    }

    /// What to send with: what there is, unless it is what just failed.
    pub(crate) async fn attach(
        &self,
        failed: Option<&Attached>,
        deadline: Deadline,
    ) -> Result<Attached, Error> {
        if let Some(attached) = self.usable(failed)? {
            return Ok(attached);
        }
        let waited =
            deadline.wait(&self.addresses[0], Waiting::Session, self.flight.lock()).await?;
        let attached = match self.usable(failed)? {
            Some(attached) => attached,
            None => self.log_in(deadline).await?,
        };
        drop(waited);
        Ok(attached)
    }

    fn usable(&self, failed: Option<&Attached>) -> Result<Option<Attached>, Error> {
        let state = self.state();
        if state.closed {
            return Err(Error::Closed);
        }
        if let Some(failure) = &state.refused {
            return Err(Error::Api { method: LOGIN.into(), source: failure.clone() });
        }
        Ok(state.attached.clone().filter(|attached| Some(attached) != failed))
    }

    /// Logs in at the master, or at the first address that answers and wherever that leads.
    async fn log_in(&self, deadline: Deadline) -> Result<Attached, Error> {
        let master = self.state().master.take();
        let mut nobody = None;
        for address in master.iter().chain(&self.addresses) {
            match self.log_in_from(address.clone(), deadline).await {
                Ok(attached) => return Ok(self.keep(attached)),
                Err(error) if is_absence(&error) => {
                    debug!(endpoint = %address, "no answer, trying the next address");
                    nobody.get_or_insert(error);
                }
                Err(error) => {
                    self.note_refusal(&error);
                    return Err(error);
                }
            }
        }
        Err(nobody.unwrap_or(Error::Closed))
    }

    fn keep(&self, attached: Attached) -> Attached {
        let mut state = self.state();
        state.master = Some(attached.endpoint.clone());
        state.attached = Some(attached.clone());
        attached
    }

    /// A wrong password does not become right by trying it again, but locks accounts.
    fn note_refusal(&self, error: &Error) {
        if let Some(failure) = error.failure()
            && failure.code() == "SESSION_AUTHENTICATION_FAILED"
        {
            self.state().refused = Some(failure.clone());
        }
    }

    async fn log_in_from(
        &self,
        mut endpoint: Endpoint,
        deadline: Deadline,
    ) -> Result<Attached, Error> {
        let mut hops = 0;
        loop {
            let error = match self.log_in_at(&endpoint, deadline).await {
                Ok(attached) => return Ok(attached),
                Err(error) => error,
            };
            let master = match error.failure().map(|failure| (failure.code(), failure.params())) {
                Some(("HOST_IS_SLAVE", [master, ..])) if hops < HOPS => endpoint.with_host(master),
                _ => return Err(error),
            };
            debug!(member = %endpoint, master = %master, "following to the pool's master");
            endpoint = master;
            hops += 1;
        }
    }

    /// Gets a session from this host, on the first wire that it speaks.
    async fn log_in_at(&self, endpoint: &Endpoint, deadline: Deadline) -> Result<Attached, Error> {
        let (request, session) = self.first_request();
        let mut failed = None;
        for protocol in Protocol::ALL {
            let given = session.map(Secret::expose);
            let response = self.post(endpoint, protocol, &request, given, deadline).await?;
            if !speaks(protocol, &response) {
                debug!(%endpoint, ?protocol, status = response.status, "not spoken here");
                if let Err(error) = check_status(endpoint, &response) {
                    failed.get_or_insert(error);
                }
                continue;
            }
            let method = request.wire_name();
            let answer = wire::decode::<Value>(protocol, response.body).map_err(|source| {
                Error::Protocol {
                    endpoint: endpoint.clone(),
                    method: method.clone().into(),
                    source,
                }
            })?;
            let answer = answer.map_err(|source| Error::Api { method: method.into(), source })?;
            let session = match (session, answer) {
                (Some(session), _) => session.clone(),
                (None, Value::String(session)) => Secret::from(session),
                (None, _) => Secret::from(""),
            };
            return Ok(Attached { endpoint: endpoint.clone(), protocol, session });
        }
        Err(failed.unwrap_or_else(|| Error::Http {
            endpoint: endpoint.clone(),
            status: 200,
            excerpt: "an answer to neither JSON-RPC nor XML-RPC".into(),
        }))
    }

    /// What is sent first: the login or, with a session that was given, something that does no harm.
    fn first_request(&self) -> (Request, Option<&Secret>) {
        match &self.login {
            Login::Password { user, password } => {
                let params = [user.as_str(), password.expose(), "1.0", &self.originator];
                let params = params.map(|param| Value::String(param.into())).into();
                (Request::write(LOGIN, params).without_session(), None)
            }
            Login::Session(session) => (Request::read("pool.get_all", vec![]), Some(session)),
        }
    }

    pub(super) async fn close(&self) -> Result<(), Error> {
        let attached = {
            let mut state = self.state();
            state.closed = true;
            state.attached.take()
        };
        match attached.filter(|_| self.login.can_renew()) {
            Some(attached) => log_out(&self.transport, &attached, self.timeout.min(FAREWELL)).await,
            None => Ok(()),
        }
    }
}

const LOGIN: &str = "session.login_with_password";

/// Whether the answer is one of this wire. Servers that do not speak JSON answer in XML or with a
/// page.
fn speaks(protocol: Protocol, response: &Response) -> bool {
    let kind = response.content_type.split(';').next().unwrap_or_default().trim();
    let matches = match protocol {
        Protocol::JsonRpc2 | Protocol::JsonRpc1 => kind == "application/json",
        Protocol::XmlRpc => kind.ends_with("/xml"),
    };
    response.status == 200 && matches
}

/// Whether nobody was there to ask, so that the next address may be tried.
fn is_absence(error: &Error) -> bool {
    match error {
        Error::Connect { .. } => true,
        Error::Timeout { waiting, .. } => {
            matches!(waiting, Waiting::Connection | Waiting::Handshake)
        }
        _ => false,
    }
}

async fn log_out(
    transport: &Transport,
    attached: &Attached,
    timeout: Duration,
) -> Result<(), Error> {
    let Attached { endpoint, protocol, session } = attached;
    let request = Request::write("session.logout", vec![]);
    let body = wire::encode(&request, Some(session.expose()), *protocol);
    let post = Post {
        path: protocol.path(),
        content_type: protocol.content_type(),
        body: &body,
        effect: request.effect,
    };
    let response = transport.post(endpoint, &post, Deadline::new(timeout)).await?;
    check_status(endpoint, &response)?;
    match wire::decode::<()>(*protocol, response.body) {
        Ok(Ok(())) => Ok(()),
        // It is over, which is all that was wanted.
        Ok(Err(failure)) if failure.code() == "SESSION_INVALID" => Ok(()),
        Ok(Err(source)) => Err(Error::Api { method: request.method.into(), source }),
        Err(source) => {
            let method = request.method.into();
            Err(Error::Protocol { endpoint: endpoint.clone(), method, source })
        }
    }
}

impl Drop for Shared {
    fn drop(&mut self) {
        let state = self.state.get_mut().unwrap_or_else(PoisonError::into_inner);
        let Some(attached) = state.attached.take() else { return };
        if let (true, Ok(runtime)) = (self.login.can_renew(), Handle::try_current()) {
            let transport = Arc::clone(&self.transport);
            // Nobody is left to own this task: it ends by its deadline, or with the runtime.
            runtime.spawn(async move {
                if let Err(error) = log_out(&transport, &attached, FAREWELL).await {
                    debug!(endpoint = %attached.endpoint, %error, "could not log out");
                }
            });
        }
    }
}

impl fmt::Debug for Shared {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Shared").field("addresses", &self.addresses).finish_non_exhaustive()
    }
}
