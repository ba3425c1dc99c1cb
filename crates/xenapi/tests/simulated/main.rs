//! The client against a simulated pool: tasks, events and the mirror from end to end.

#![expect(clippy::unwrap_used, reason = "clippy does not see that helpers are parts of tests")]

mod mirror;
mod tasks;
mod watch;

use std::time::Duration;

use xenapi::{Client, Secret};
use xenapi_sim::{Pool, PoolBuilder};

const MINUTE: Duration = Duration::from_mins(1);

/// A pool without delays, and a client of it.
async fn pool(builder: PoolBuilder) -> (Pool, Client) {
    let pool = builder.http().password("secret").event_batching(Duration::ZERO).start().await;
    let pool = pool.unwrap();
    let client = Client::builder(&pool.url()).unwrap().login("root", Secret::from("secret"));
    let client = client.connect().await.unwrap();
    (pool, client)
}
