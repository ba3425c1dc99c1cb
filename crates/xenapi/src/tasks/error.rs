//! How a task can end without its result.

use std::sync::Arc;
use std::time::Duration;

use crate::error::Error;
use crate::failure::Failure;
use crate::wire::DecodeError;

/// Why there is no result of a task.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TaskError {
    /// It failed.
    #[error("`{task}` failed")]
    Failed {
        /// The message that it carried out, or its label.
        task: String,
        /// What the server said.
        source: Failure,
    },
    /// It was cancelled.
    #[error("`{task}` was cancelled")]
    Cancelled {
        /// The message that it carried out, or its label.
        task: String,
    },
    /// It is gone from the server, which did not say how it ended.
    #[error("`{task}` is gone from the server, and its outcome is unknown")]
    Vanished {
        /// The message that it carried out, or its label.
        task: String,
    },
    /// Its result could not be understood.
    #[error("could not understand the result of `{task}`")]
    Protocol {
        /// The message that it carried out, or its label.
        task: String,
        /// Where reading it stopped.
        source: DecodeError,
    },
    /// The deadline passed. It goes on at the server.
    #[error("`{task}` did not end within {after:?}")]
    Timeout {
        /// The message that it carried out, or its label.
        task: String,
        /// How long it was waited for.
        after: Duration,
    },
    /// The server cannot be asked any more. It goes on there.
    #[error("could not follow `{task}` to its end")]
    Lost {
        /// The message that it carried out, or its label.
        task: String,
        /// Why not.
        source: Arc<Error>,
    },
}

impl TaskError {
    /// What the server said, where it said that the task failed.
    pub fn failure(&self) -> Option<&Failure> {
        match self {
            Self::Failed { source, .. } => Some(source),
            Self::Lost { source, .. } => source.failure(),
            Self::Cancelled { .. }
            | Self::Vanished { .. }
            | Self::Protocol { .. }
            | Self::Timeout { .. } => None,
        }
    }

    /// The server's error code, where the task failed with one.
    pub fn code(&self) -> Option<&str> {
        self.failure().map(Failure::code)
    }

    /// Whether the same message can succeed later without anything being changed for it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Failed { source, .. } => source.is_retryable(),
            Self::Cancelled { .. }
            | Self::Vanished { .. }
            | Self::Protocol { .. }
            | Self::Timeout { .. }
            | Self::Lost { .. } => false,
        }
    }

    /// Whether the message may have been carried out, or may be yet.
    pub fn may_have_run(&self) -> bool {
        match self {
            Self::Vanished { .. }
            | Self::Protocol { .. }
            | Self::Timeout { .. }
            | Self::Lost { .. } => true,
            Self::Failed { .. } | Self::Cancelled { .. } => false,
        }
    }

    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Failed { source, .. } => source.hint()?.into(),
            Self::Cancelled { .. } => return None,
            Self::Vanished { .. } | Self::Protocol { .. } | Self::Timeout { .. } => {
                "look whether it took effect before calling again".into()
            }
            Self::Lost { source, .. } => source.hint()?,
        })
    }
}
