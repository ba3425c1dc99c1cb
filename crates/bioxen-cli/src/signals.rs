//! Ctrl-C and its kind: the first asks the run to stop, the second ends the command at once.

use std::future::Future;

use tokio::signal::unix::{self, SignalKind};

use crate::failure::Failure;

/// Why the command was asked to stop.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) enum Stop {
    /// SIGINT: Ctrl-C.
    Interrupt,
    /// SIGTERM.
    Terminate,
}

impl Stop {
    /// What a shell sees when a process ends by this signal.
    pub(crate) fn exit_code(self) -> u8 {
        match self {
            Self::Interrupt => 130,
            Self::Terminate => 143,
        }
    }
}

/// The requests to stop that this process gets, from the moment of listening on.
pub(crate) struct Signals {
    interrupt: unix::Signal,
    terminate: Option<unix::Signal>,
}

impl Signals {
    /// Takes the signals over from their default action. Needs a runtime.
    pub(crate) fn listen() -> Result<Self, Failure> {
        let terminate = Some(listen_for(SignalKind::terminate())?);
        Ok(Self { terminate, ..Self::listen_for_interrupt()? })
    }

    /// Takes over Ctrl-C alone, for a command that does not always listen: SIGTERM ends it as ever.
    pub(crate) fn listen_for_interrupt() -> Result<Self, Failure> {
        Ok(Self { interrupt: listen_for(SignalKind::interrupt())?, terminate: None })
    }

    /// Waits for the next one. Dropping the future loses none.
    pub(crate) async fn next(&mut self) -> Stop {
        let terminate = async {
            match &mut self.terminate {
                Some(signal) => signal.recv().await,
                None => std::future::pending().await,
            }
        };
        tokio::select! {
            _ = self.interrupt.recv() => Stop::Interrupt,
            _ = terminate => Stop::Terminate,
        }
    }

    /// Waits for `work`, which is dropped at the first request to stop.
    pub(crate) async fn or_stop<T>(
        &mut self,
        work: impl Future<Output = Result<T, Failure>>,
    ) -> Result<T, Failure> {
        tokio::select! {
            outcome = work => outcome,
            stop = self.next() => Err(Failure::Stopped(stop)),
        }
    }
}

fn listen_for(kind: SignalKind) -> Result<unix::Signal, Failure> {
    unix::signal(kind).map_err(Failure::Runtime)
}
