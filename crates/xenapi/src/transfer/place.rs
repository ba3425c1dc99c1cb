//! Which host to go to, and the way there.

use std::io;
use std::time::Duration;

use tokio::time::timeout;
use tracing::debug;

use super::exchange::{Answer, redirect};
use super::{Ask, Exchange, TransferFailure};
use crate::class;
use crate::client::Client;
use crate::error::{Error, Waiting};
use crate::secrecy::Secret;
use crate::transport::{Endpoint, Stream};
use crate::wire::Ref;

/// How often a transfer is sent on from host to host.
const HOPS: usize = 3;

/// A host that was asked and has answered well, or not at all so far.
#[derive(Debug)]
pub(crate) struct Opened {
    pub(crate) exchange: Exchange<Stream>,
    pub(crate) host: Endpoint,
    pub(crate) answer: Option<Answer>,
}

/// Where to reach the storage: at the master, which is spoken to anyway, or else at any other host that is
/// connected to it.
pub(crate) async fn with_storage(
    client: &Client,
    storage: &Ref<class::Sr>,
) -> Result<Vec<Endpoint>, TransferFailure> {
    let mut hosts = Vec::new();
    for pbd in client.sr().get_pbds(storage).await? {
        let record = match client.pbd().get_record(&pbd).await {
            // It can have been destroyed since it was listed.
            Err(error) if error.code() == Some("HANDLE_INVALID") => continue,
            record => record?,
        };
        if record.currently_attached {
            hosts.push(record.host);
        }
    }
    let (master, _) = client.attached().await?;
    if hosts.contains(&master_of(client).await?) {
        return Ok(vec![master]);
    }
    let mut endpoints = Vec::with_capacity(hosts.len());
    for host in &hosts {
        endpoints.push(master.with_host(&client.host().get_address(host).await?));
    }
    if endpoints.is_empty() {
        return Err(TransferFailure::NoHost { storage: storage.to_string() });
    }
    Ok(endpoints)
}

/// Where a host is spoken to: as the client speaks to the master, or at the host's own address.
pub(crate) async fn address_of(
    client: &Client,
    host: &Ref<class::Host>,
) -> Result<Endpoint, Error> {
    let (master, _) = client.attached().await?;
    // The client's way to the master may be one that the pool knows nothing of, as through a tunnel.
    if master_of(client).await? == *host {
        return Ok(master);
    }
    Ok(master.with_host(&client.host().get_address(host).await?))
}

/// The pool's master, which is the host that sessions are at.
pub(crate) async fn master_of(client: &Client) -> Result<Ref<class::Host>, Error> {
    // Of the one pool that there is: one call, where its reference and then its master would be two.
    let pools = client.pool().get_all_records().await?;
    Ok(pools.values().next().map_or_else(Ref::null, |pool| pool.master.clone()))
}

/// Asks the first of the hosts that can be reached, and follows where it leads.
///
/// Where the answer does not come within `early`, if that is given, the host is taken at its word that
/// it has not given: some first prepare the disk, or answer last.
pub(crate) async fn open(
    client: &Client,
    hosts: &[Endpoint],
    ask: &Ask<'_>,
    early: Option<Duration>,
    host: &mut Option<Endpoint>,
) -> Result<Opened, TransferFailure> {
    let (_, session) = client.attached().await?;
    let (mut exchange, mut at) = reach(client, hosts, ask, &session).await?;
    for _ in 0..=HOPS {
        *host = Some(at.clone());
        let answer = match early {
            Some(early) => match timeout(early, exchange.answer()).await {
                Ok(answer) => answer,
                Err(_) => return Ok(Opened { exchange, host: at, answer: None }),
            },
            None => exchange.answer().await,
        };
        let answer = answer.map_err(TransferFailure::Connection)?;
        if answer.is_success() {
            return Ok(Opened { exchange, host: at, answer: Some(answer) });
        }
        if !answer.is_redirect() {
            return Err(refused(&mut exchange, &answer).await);
        }
        let location = answer.location.unwrap_or_default();
        let Some(to) = redirect(&at, &location).filter(|to| *to != at) else {
            return Err(TransferFailure::Redirected { location });
        };
        debug!(from = %at, %to, "following to the host that has the storage");
        (exchange, at) = reach(client, std::slice::from_ref(&to), ask, &session).await?;
    }
    Err(TransferFailure::Redirected { location: at.to_string() })
}

pub(super) async fn refused(exchange: &mut Exchange<Stream>, answer: &Answer) -> TransferFailure {
    // A page whose end does not come is not worth waiting for.
    let page = timeout(Duration::from_secs(2), exchange.excerpt(answer)).await;
    let excerpt = page.unwrap_or_default();
    TransferFailure::Refused { status: answer.status, excerpt, source: None }
}

/// Connects to the first host that is there, and sends it the head of the request.
async fn reach(
    client: &Client,
    hosts: &[Endpoint],
    ask: &Ask<'_>,
    session: &Secret,
) -> Result<(Exchange<Stream>, Endpoint), TransferFailure> {
    let mut nobody = None;
    for host in hosts {
        match client.dial(host).await {
            Ok(stream) => {
                let mut exchange = Exchange::new(stream);
                let sent = match ask.head(host, session) {
                    Ok(head) => exchange.send(&head).await,
                    Err(error) => Err(error),
                };
                sent.map_err(TransferFailure::Connection)?;
                return Ok((exchange, host.clone()));
            }
            Err(error) if is_absence(&error) => {
                debug!(%host, "no answer, trying the next host");
                nobody.get_or_insert(error);
            }
            Err(error) => return Err(error.into()),
        }
    }
    Err(nobody.map_or_else(
        || TransferFailure::Connection(io::ErrorKind::AddrNotAvailable.into()),
        TransferFailure::Call,
    ))
}

/// Whether nobody was there, so that another host may be tried.
fn is_absence(error: &Error) -> bool {
    match error {
        Error::Connect { .. } => true,
        Error::Timeout { waiting, .. } => {
            matches!(waiting, Waiting::Connection | Waiting::Handshake)
        }
        _ => false,
    }
}
