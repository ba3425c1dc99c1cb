//! A simulated XCP-ng pool in one process that speaks the Xen API, for tests of any Xen API client.
//!
//! ```
//! # tokio::runtime::Runtime::new().unwrap().block_on(async {
//! let pool = xenapi_sim::Pool::builder().http().password("secret").seed(1).start().await?;
//! println!("{}: log in as root", pool.url());
//! // The next start of a VM fails as it would on a full pool.
//! pool.fail_next("VM.start", "NO_HOSTS_AVAILABLE", &[]);
//! pool.stop().await;
//! # Ok::<(), xenapi_sim::StartError>(())
//! # }).unwrap();
//! ```
//!
//! Real wire formats (JSON-RPC 1.0 and 2.0, XML-RPC), real semantics (power states, allowed operations,
//! tasks, events, error codes with their parameters), disks as files, and faults on request: through
//! [`Pool`], or over HTTP below `/_sim`. Calls that have no meaning here answer `NOT_IMPLEMENTED` with
//! their name.

#[expect(clippy::unnecessary_wraps, reason = "all handlers of calls have one shape")]
mod calls;
pub mod cli;
mod clock;
mod control;
mod database;
pub mod disk;
mod dispatch;
pub mod driver;
mod error;
mod events;
mod faults;
pub mod guest;
mod guests;
mod http;
mod inner;
mod journal;
mod lifecycle;
mod metrics;
mod operations;
mod options;
mod placement;
mod pool;
mod query;
mod random;
mod routes;
mod schema;
mod seed;
mod sessions;
pub mod store;
mod tasks;
mod tls;
mod value;
mod wire;

pub use clock::Clock;
pub use faults::{Fault, FaultRule, GuestFaultRule};
pub use options::{ParseRoleError, Role};
pub use pool::{Pool, PoolBuilder, StartError};

#[cfg(doctest)]
#[doc = include_str!("../README.md")]
struct Readme;

/// Doors for fuzzing to what is not public.
#[cfg(feature = "fuzzing")]
#[doc(hidden)]
pub mod fuzzing {
    /// Reads a query.
    pub fn query(text: &str) {
        let _ = crate::query::Query::parse(text);
    }
}
