//! What happens to the objects of a pool, as it happens.
//!
//! The server is asked for events once and answers when there are some: while nothing happens, one request is
//! waiting and nothing else is sent.
//!
//! ```text
//! Watch, Mirror, Task ──▶ Feed ──asks──▶ server
//!                          ▲ what to ask, what changed, how long to wait: Follow
//! ```

mod batch;
mod feed;
mod follow;
mod watch;

use crate::any::{AnyRecord, AnyRef};

pub use watch::Watch;

pub(crate) use feed::{Applied, Feed, News};

/// What became of an object.
#[derive(Clone, Debug, PartialEq)]
pub enum Change<R = AnyRecord> {
    /// It came, or it was there when watching began.
    Added(AnyRef, R),
    /// It changed. States that it went through since the last change may be left out.
    Changed(AnyRef, R),
    /// It is gone.
    Removed(AnyRef),
    /// All that is there has been told, as it is now.
    Replayed,
}

impl<R> Change<R> {
    /// The object that it is about, if it is about one.
    pub fn object(&self) -> Option<&AnyRef> {
        match self {
            Self::Added(object, _) | Self::Changed(object, _) | Self::Removed(object) => {
                Some(object)
            }
            Self::Replayed => None,
        }
    }
}
