//! A connection to a worker over a socket pair.

use std::io;

use async_trait::async_trait;
use bioxen_core::backend::Link;
use bytes::BytesMut;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::UnixStream;

/// Room that is made before each read: a full chunk of output and its header.
const ROOM: usize = 68 << 10;

pub(crate) struct SocketLink(pub(crate) UnixStream);

#[async_trait]
impl Link for SocketLink {
    async fn send(&mut self, frame: &[u8]) -> io::Result<()> {
        self.0.write_all(frame).await
    }

    async fn receive(&mut self, space: &mut BytesMut) -> io::Result<usize> {
        // Small answers must not make each connection keep a large buffer.
        let room = if space.capacity() - space.len() < 512 { 2 << 10 } else { 0 };
        let room = if space.len() > 1024 { ROOM } else { room };
        space.reserve(room);
        self.0.read_buf(space).await
    }
}
