//! Byte streams to a server: TCP, or TLS whose certificate was accepted.

use std::io::{self, IoSlice};
use std::net::SocketAddr;
use std::pin::Pin;
use std::task::{Context, Poll};
use std::time::Duration;

use rustls::pki_types::ServerName;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, lookup_host};
use tokio_rustls::client::TlsStream;

use super::{Deadline, Endpoint};
use crate::error::{Error, Waiting};
use crate::tls::Tls;

/// How long it may take to connect, whatever the call's own deadline.
const CONNECT: Duration = Duration::from_secs(10);

/// A connection to a server.
#[derive(Debug)]
pub(crate) enum Stream {
    Plain(TcpStream),
    Tls(Box<TlsStream<TcpStream>>),
}

/// Connects, and makes sure that the server is who it should be.
pub(crate) async fn dial(
    endpoint: &Endpoint,
    tls: &Tls,
    deadline: Deadline,
) -> Result<Stream, Error> {
    let deadline = deadline.sooner(CONNECT);
    let tcp = deadline
        .wait(endpoint, Waiting::Connection, connect(endpoint))
        .await?
        .map_err(|source| Error::Connect { endpoint: endpoint.clone(), source })?;
    if !endpoint.is_tls() {
        return Ok(Stream::Plain(tcp));
    }
    let name = ServerName::try_from(endpoint.host().to_owned()).map_err(|error| {
        let source = io::Error::new(io::ErrorKind::InvalidInput, error);
        Error::Connect { endpoint: endpoint.clone(), source }
    })?;
    let stream = deadline
        .wait(endpoint, Waiting::Handshake, tls.connector().connect(name, tcp))
        .await?
        .map_err(|error| Error::Tls { endpoint: endpoint.clone(), source: error.into() })?;
    Ok(Stream::Tls(Box::new(stream)))
}

async fn connect(endpoint: &Endpoint) -> io::Result<TcpStream> {
    let addresses: Vec<SocketAddr> =
        lookup_host((endpoint.host(), endpoint.port())).await?.collect();
    // A name says nothing about where it leads, so this cannot be told from the address alone.
    if !endpoint.is_tls() && !addresses.iter().all(|address| address.ip().is_loopback()) {
        let reason = "plain HTTP is only for loopback addresses";
        return Err(io::Error::new(io::ErrorKind::PermissionDenied, reason));
    }
    let stream = TcpStream::connect(addresses.as_slice()).await?;
    stream.set_nodelay(true)?;
    Ok(stream)
}

impl AsyncRead for Stream {
    fn poll_read(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_read(context, buffer),
            Self::Tls(stream) => Pin::new(stream).poll_read(context, buffer),
        }
    }
}

impl AsyncWrite for Stream {
    fn poll_write(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write(context, bytes),
            Self::Tls(stream) => Pin::new(stream).poll_write(context, bytes),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        context: &mut Context<'_>,
        slices: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_write_vectored(context, slices),
            Self::Tls(stream) => Pin::new(stream).poll_write_vectored(context, slices),
        }
    }

    fn is_write_vectored(&self) -> bool {
        match self {
            Self::Plain(stream) => stream.is_write_vectored(),
            Self::Tls(stream) => stream.is_write_vectored(),
        }
    }

    fn poll_flush(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_flush(context),
            Self::Tls(stream) => Pin::new(stream).poll_flush(context),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            Self::Plain(stream) => Pin::new(stream).poll_shutdown(context),
            Self::Tls(stream) => Pin::new(stream).poll_shutdown(context),
        }
    }
}
