//! Consoles of VMs as byte streams: the screen as RFB, or a serial line.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::time::timeout;
use tracing::debug;

use crate::client::Client;
use crate::error::Error;
use crate::transfer::{Ask, Exchange, Target, address_of};
use crate::transport::{Endpoint, Stream};
use crate::wire::Ref;
use crate::{class, console, enums};

/// What goes to and comes from a console: bytes of its [`protocol`](ConsoleStream::protocol).
///
/// It ends when the VM stops or moves to another host, and when this is dropped.
#[derive(Debug)]
pub struct ConsoleStream {
    exchange: Exchange<Stream>,
    host: Endpoint,
    protocol: enums::ConsoleProtocol,
}

/// Why a console could not be opened.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConsoleError {
    /// A call that comes before it failed, or the host could not be reached.
    #[error("could not open console `{console}`")]
    Call {
        /// The reference of the console.
        console: String,
        /// What failed.
        source: Error,
    },
    /// There is no such console any more: they vanish when their VM stops.
    #[error("there is no console `{console}`")]
    Gone {
        /// The reference of the console.
        console: String,
    },
    /// Its VM runs nowhere.
    #[error("console `{console}` shows nothing, as vm `{vm}` is on no host")]
    NotRunning {
        /// The reference of the console.
        console: String,
        /// The reference of the VM.
        vm: String,
    },
    /// The host does not know it.
    #[error("host `{host}` has no console `{console}`")]
    Missing {
        /// The reference of the console.
        console: String,
        /// The host that has the VM.
        host: Endpoint,
    },
    /// The pool allows one session with each console, and there is one.
    #[error("console `{console}` at `{host}` is in use, and one session at a time is allowed")]
    Busy {
        /// The reference of the console.
        console: String,
        /// The host that has the VM.
        host: Endpoint,
    },
    /// The host refused, as it does when it does not run the VM.
    #[error("host `{host}` refused console `{console}` with HTTP status {status}: {excerpt}")]
    Refused {
        /// The reference of the console.
        console: String,
        /// The host that was asked.
        host: Endpoint,
        /// The status.
        status: u16,
        /// How its page begins.
        excerpt: String,
    },
    /// The connection broke before the console was open. Hosts that do not run the VM just close it.
    #[error("host `{host}` closed the connection instead of opening console `{console}`")]
    Connection {
        /// The reference of the console.
        console: String,
        /// The host that was asked.
        host: Endpoint,
        /// What the system said.
        source: io::Error,
    },
    /// The host did not answer.
    #[error("host `{host}` did not open console `{console}` within {after:?}")]
    Timeout {
        /// The reference of the console.
        console: String,
        /// The host that was asked.
        host: Endpoint,
        /// How long it was waited for.
        after: Duration,
    },
}

impl ConsoleError {
    /// Whether the console may open later without anything being changed for it.
    pub fn is_retryable(&self) -> bool {
        match self {
            Self::Call { source, .. } => source.is_retryable(),
            // It waits for somebody to start the VM, and then it is another console.
            Self::Gone { .. } | Self::NotRunning { .. } | Self::Missing { .. } => false,
            // The VM may be on its way to another host.
            Self::Refused { status, .. } => !matches!(status, 401 | 403),
            Self::Busy { .. } | Self::Connection { .. } | Self::Timeout { .. } => true,
        }
    }

    /// What the reader can do about it, where something general can be said.
    pub fn hint(&self) -> Option<String> {
        Some(match self {
            Self::Call { source, .. } => source.hint()?,
            Self::Gone { .. } | Self::NotRunning { .. } | Self::Missing { .. } => {
                "start the VM, and list its consoles again".into()
            }
            Self::Busy { .. } => {
                "close the other session, or set `pool.limit_console_sessions` to false".into()
            }
            Self::Refused { status: 401 | 403, .. } => {
                "log in as a user with a role that allows it".into()
            }
            Self::Refused { .. } | Self::Connection { .. } | Self::Timeout { .. } => {
                "the VM may just have moved to another host: try again".into()
            }
        })
    }
}

impl Client {
    /// Opens a console of a running VM at the host that it runs on.
    ///
    /// Where the VM moves to another host meanwhile, it is followed once.
    pub async fn open_console(
        &self,
        console: &Ref<class::Console>,
    ) -> Result<ConsoleStream, ConsoleError> {
        let failed = |source: Error| {
            let console = console.to_string();
            match source.code() {
                Some("HANDLE_INVALID") => ConsoleError::Gone { console },
                _ => ConsoleError::Call { console, source },
            }
        };
        let record = self.console().get_record(console).await.map_err(failed)?;
        let resident = self.vm().get_resident_on(&record.vm).await.map_err(failed)?;
        let error = match self.connect(console, &record, &resident).await {
            Ok(stream) => return Ok(stream),
            Err(error) => error,
        };
        let now = self.vm().get_resident_on(&record.vm).await.map_err(failed)?;
        if now == resident {
            return Err(error);
        }
        debug!(%console, vm = %record.vm, %error, "following the VM to another host");
        self.connect(console, &record, &now).await
    }

    /// Opens it at this host.
    async fn connect(
        &self,
        console: &Ref<class::Console>,
        record: &console::Record,
        resident: &Ref<class::Host>,
    ) -> Result<ConsoleStream, ConsoleError> {
        let name = console.to_string();
        if resident.is_null() {
            return Err(ConsoleError::NotRunning { console: name, vm: record.vm.to_string() });
        }
        let called = |source| ConsoleError::Call { console: name.clone(), source };
        let host = address_of(self, resident).await.map_err(called)?;
        let (_, session) = self.attached().await.map_err(called)?;
        let mut exchange = Exchange::new(self.dial(&host).await.map_err(called)?);
        let target = Target::new("/console").with("ref", &name);
        let opening = async {
            let head = Ask::connect(&target).head(&host, &session)?;
            exchange.send(&head).await?;
            exchange.answer().await
        };
        let after = self.timeout();
        let answer = match timeout(after, opening).await {
            Ok(Ok(answer)) => answer,
            Ok(Err(source)) => {
                return Err(ConsoleError::Connection { console: name, host, source });
            }
            Err(_) => return Err(ConsoleError::Timeout { console: name, host, after }),
        };
        match answer.status {
            200..=299 => Ok(ConsoleStream { exchange, host, protocol: record.protocol.clone() }),
            404 => Err(ConsoleError::Missing { console: name, host }),
            503 => Err(ConsoleError::Busy { console: name, host }),
            status => {
                // A page whose end does not come is not worth waiting for.
                let page = timeout(Duration::from_secs(2), exchange.excerpt(&answer)).await;
                let excerpt = page.unwrap_or_default();
                Err(ConsoleError::Refused { console: name, host, status, excerpt })
            }
        }
    }
}

impl ConsoleStream {
    /// The host at the other end.
    pub fn host(&self) -> &Endpoint {
        &self.host
    }

    /// What is spoken: RFB for a screen, VT100 for a serial line.
    pub fn protocol(&self) -> &enums::ConsoleProtocol {
        &self.protocol
    }
}

impl AsyncRead for ConsoleStream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().exchange).poll_read(context, buffer)
    }
}

impl AsyncWrite for ConsoleStream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().exchange).poll_write(context, bytes)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.get_mut().exchange).poll_write_vectored(context, slices)
    }

    fn is_write_vectored(&self) -> bool {
        self.exchange.is_write_vectored()
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().exchange).poll_flush(context)
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.get_mut().exchange).poll_shutdown(context)
    }
}
