//! Metrics: what hosts measured of themselves, their VMs and their storage.
//!
//! ```no_run
//! use std::time::Duration;
//!
//! use xenapi::metrics::Span;
//! use xenapi::{Client, Ref, class};
//!
//! # async fn example(client: &Client, vm: Ref<class::Vm>) -> Result<(), xenapi::metrics::MetricsError> {
//! let span = Span::last(Duration::from_secs(600));
//! for series in client.metrics().vm(&vm, &span).await? {
//!     if let Some((time, value)) = series.latest() {
//!         println!("{time} {} {value}", series.name);
//!     }
//! }
//! # Ok(())
//! # }
//! ```
//!
//! Hosts keep a value each 5 seconds for 10 minutes, each minute for 2 hours, each hour for a week and
//! each day for a year. [`parse_updates`] and [`parse_archive`] read what they answer, without any I/O.

mod archive;
mod updates;

use std::fmt;
use std::time::Duration;

use jiff::Timestamp;
use tokio::time::timeout;

pub use archive::parse_archive;
pub use updates::parse_updates;

use crate::class;
use crate::client::Client;
use crate::error::Error;
use crate::transfer::{Ask, Stage, Target, TransferFailure, address_of, master_of, open};
use crate::transport::Endpoint;
use crate::wire::Ref;

/// How large an answer may be.
const LIMIT: u64 = 256 << 20;

/// What one source of data measured over time.
#[derive(Clone, Debug, PartialEq)]
pub struct Series {
    /// What kind of object it is about.
    pub kind: Kind,
    /// The UUID of the object.
    pub uuid: String,
    /// What was measured: `cpu0`, `memory`, `vif_0_rx`.
    pub name: String,
    /// How several measurements became one value.
    pub consolidation: Consolidation,
    /// The time from one value to the next.
    pub step: Duration,
    /// The values, the oldest first. Those that are not known are NaN.
    pub points: Vec<(Timestamp, f64)>,
}

impl Series {
    /// The newest value that is known.
    pub fn latest(&self) -> Option<(Timestamp, f64)> {
        self.points.iter().rev().find(|(_, value)| !value.is_nan()).copied()
    }
}

/// What a series is about.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Kind {
    /// A virtual machine.
    Vm,
    /// A host.
    Host,
    /// Storage.
    Sr,
    /// Something else.
    Unknown(String),
}

impl From<&str> for Kind {
    fn from(text: &str) -> Self {
        match text {
            "vm" => Self::Vm,
            "host" => Self::Host,
            "sr" => Self::Sr,
            _ => Self::Unknown(text.to_owned()),
        }
    }
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Vm => "vm",
            Self::Host => "host",
            Self::Sr => "sr",
            Self::Unknown(text) => text,
        })
    }
}

/// How several measurements became one value.
#[derive(Clone, Debug, PartialEq, Eq, PartialOrd, Ord, Hash)]
pub enum Consolidation {
    /// Their average.
    Average,
    /// The least of them.
    Min,
    /// The greatest of them.
    Max,
    /// The last of them.
    Last,
    /// In some other way.
    Unknown(String),
}

impl From<&str> for Consolidation {
    fn from(text: &str) -> Self {
        match text {
            "AVERAGE" => Self::Average,
            "MIN" => Self::Min,
            "MAX" => Self::Max,
            "LAST" => Self::Last,
            _ => Self::Unknown(text.to_owned()),
        }
    }
}

impl fmt::Display for Consolidation {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.pad(match self {
            Self::Average => "AVERAGE",
            Self::Min => "MIN",
            Self::Max => "MAX",
            Self::Last => "LAST",
            Self::Unknown(text) => text,
        })
    }
}

/// Why an answer gives no series.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
#[error("{reason}")]
pub struct InvalidMetrics {
    reason: String,
}

impl InvalidMetrics {
    fn new(reason: impl fmt::Display) -> Self {
        Self { reason: reason.to_string() }
    }
}

#[derive(Clone, Copy, Debug, PartialEq)]
enum Start {
    /// Seconds of the host's clock.
    At(i64),
    /// Seconds before now.
    Ago(i64),
}

/// Of which time metrics are wanted, and how closely.
#[derive(Clone, Debug, PartialEq)]
pub struct Span {
    start: Start,
    interval: Option<Duration>,
    consolidation: Option<Consolidation>,
}

impl Span {
    /// Since a time, by the host's clock.
    pub fn since(time: Timestamp) -> Self {
        Self { start: Start::At(time.as_second().max(0)), interval: None, consolidation: None }
    }

    /// The last so many seconds, whatever the host's clock says. At least one.
    pub fn last(time: Duration) -> Self {
        let seconds = i64::try_from(time.as_secs()).unwrap_or(i64::MAX).max(1);
        Self { start: Start::Ago(seconds), interval: None, consolidation: None }
    }

    /// One value for each such time: 5 seconds, a minute, an hour or a day. The closest that there is for
    /// all of the time, unless set.
    #[must_use]
    pub fn every(self, interval: Duration) -> Self {
        Self { interval: Some(interval), ..self }
    }

    /// Only values that were consolidated so; all, unless set.
    #[must_use]
    pub fn consolidation(self, consolidation: Consolidation) -> Self {
        Self { consolidation: Some(consolidation), ..self }
    }

    /// What to ask of the host.
    async fn target(&self, client: &Client, host: &Ref<class::Host>) -> Result<Target, Error> {
        let start = match self.start {
            Start::At(second) => second,
            // Old servers do not know what a start before the epoch should mean, so it is counted here.
            Start::Ago(seconds) => {
                let now = client.host().get_servertime(host).await?;
                now.as_second().saturating_sub(seconds).max(0)
            }
        };
        let mut target = Target::new("/rrd_updates").with("start", &start.to_string());
        target = target.with("json", "true");
        if let Some(interval) = self.interval {
            target = target.with("interval", &interval.as_secs().to_string());
        }
        if let Some(consolidation) = &self.consolidation {
            target = target.with("cf", &consolidation.to_string());
        }
        Ok(target)
    }
}

/// Why there are no metrics.
#[derive(Debug, thiserror::Error)]
#[error("could not get the metrics of `{object}`{}", at(.host.as_ref()))]
pub struct MetricsError {
    /// The reference of the object that they are about.
    pub object: String,
    /// The host that was asked, once it was known.
    pub host: Option<Endpoint>,
    /// What went wrong.
    #[source]
    pub reason: MetricsFailure,
}

fn at(host: Option<&Endpoint>) -> String {
    host.map_or_else(String::new, |host| format!(" from `{host}`"))
}

impl MetricsError {
    /// What the reader can do about it, where something general can be said.
    pub fn hint(&self) -> Option<String> {
        match &self.reason {
            MetricsFailure::Transfer(failure) => failure.hint(),
            MetricsFailure::Invalid(_) => None,
        }
    }

    /// Whether asking again later can succeed without anything being changed for it.
    pub fn is_retryable(&self) -> bool {
        match &self.reason {
            MetricsFailure::Transfer(failure) => failure.is_retryable(),
            MetricsFailure::Invalid(_) => false,
        }
    }
}

/// What went wrong in getting metrics.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum MetricsFailure {
    /// They did not arrive.
    #[error(transparent)]
    Transfer(#[from] TransferFailure),
    /// They could not be understood.
    #[error("the answer could not be understood")]
    Invalid(#[from] InvalidMetrics),
}

impl From<Error> for MetricsFailure {
    fn from(error: Error) -> Self {
        TransferFailure::from(error).into()
    }
}

impl Client {
    /// What hosts measured.
    pub fn metrics(&self) -> Metrics<'_> {
        Metrics(self)
    }
}

/// Asks for metrics, each of the host that has them.
#[derive(Clone, Copy, Debug)]
pub struct Metrics<'c>(&'c Client);

impl Metrics<'_> {
    /// What a host measured of itself and of the VMs that it runs.
    pub async fn host(
        &self,
        host: &Ref<class::Host>,
        span: &Span,
    ) -> Result<Vec<Series>, MetricsError> {
        let get = async |at: &mut Option<Endpoint>| {
            let hosts = [address_of(self.0, host).await?];
            let target = span.target(self.0, host).await?.with("host", "true");
            Ok(parse_updates(self.get(&hosts, &target, at).await?)?)
        };
        of(host, get).await
    }

    /// What was measured of a running VM, by the host that runs it.
    pub async fn vm(&self, vm: &Ref<class::Vm>, span: &Span) -> Result<Vec<Series>, MetricsError> {
        let get = async |at: &mut Option<Endpoint>| {
            let uuid = self.0.vm().get_uuid(vm).await?;
            let host = self.resident(vm).await?;
            let hosts = [address_of(self.0, &host).await?];
            let target = span.target(self.0, &host).await?.with("vm_uuid", &uuid);
            // Old servers give other VMs as well.
            let mut series = parse_updates(self.get(&hosts, &target, at).await?)?;
            series.retain(|series| series.kind == Kind::Vm && series.uuid == uuid);
            Ok(series)
        };
        of(vm, get).await
    }

    /// All that is kept of a VM, also of one that is halted.
    pub async fn vm_archive(&self, vm: &Ref<class::Vm>) -> Result<Vec<Series>, MetricsError> {
        let get = async |at: &mut Option<Endpoint>| {
            let uuid = self.0.vm().get_uuid(vm).await?;
            let hosts = [address_of(self.0, &self.resident(vm).await?).await?];
            let body = self.get(&hosts, &Target::new("/vm_rrd").with("uuid", &uuid), at).await?;
            Ok(parse_archive(&Kind::Vm, &uuid, &body)?)
        };
        of(vm, get).await
    }

    /// All that is kept of a host.
    pub async fn host_archive(&self, host: &Ref<class::Host>) -> Result<Vec<Series>, MetricsError> {
        let get = async |at: &mut Option<Endpoint>| {
            let uuid = self.0.host().get_uuid(host).await?;
            let hosts = [address_of(self.0, host).await?];
            let body = self.get(&hosts, &Target::new("/host_rrd"), at).await?;
            Ok(parse_archive(&Kind::Host, &uuid, &body)?)
        };
        of(host, get).await
    }

    /// The host that runs the VM; the master, which keeps what is known of those that do not run.
    async fn resident(&self, vm: &Ref<class::Vm>) -> Result<Ref<class::Host>, Error> {
        match self.0.vm().get_resident_on(vm).await?.non_null() {
            Some(host) => Ok(host),
            None => master_of(self.0).await,
        }
    }

    async fn get(
        &self,
        hosts: &[Endpoint],
        target: &Target,
        at: &mut Option<Endpoint>,
    ) -> Result<Vec<u8>, TransferFailure> {
        let after = self.0.timeout();
        let ask = Ask::get(target);
        let getting = async {
            let mut opened = open(self.0, hosts, &ask, None, at).await?;
            let answer = opened.answer.unwrap_or_default();
            opened.exchange.body(&answer, LIMIT).await.map_err(TransferFailure::Connection)
        };
        match timeout(after, getting).await {
            Ok(result) => result,
            Err(_) => Err(TransferFailure::Stalled { after, waiting: Stage::Answer }),
        }
    }
}

/// Says of what and of which host, where getting metrics fails.
async fn of<T>(
    object: &Ref<T>,
    get: impl AsyncFnOnce(&mut Option<Endpoint>) -> Result<Vec<Series>, MetricsFailure>,
) -> Result<Vec<Series>, MetricsError> {
    let mut host = None;
    let result = get(&mut host).await;
    result.map_err(|reason| MetricsError { object: object.to_string(), host, reason })
}
