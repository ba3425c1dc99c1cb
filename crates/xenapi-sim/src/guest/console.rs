//! `CONNECT /console`: the screen of a VM, as a byte stream.
//!
//! The screen speaks RFB 3.8 and stays dark: a viewer connects, learns its size, and is told that nothing
//! has changed.

use std::io;

use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt, BufReader};

use crate::disk::transfer::{named, refuse};
use crate::http::{Answer, Exchange};
use crate::inner::Inner;
use crate::value::Ref;

const WIDTH: u16 = 720;
const HEIGHT: u16 = 400;
const NAME: &str = "XCP-ng VM";
/// The longest text that a viewer may put in the clipboard.
const LONGEST: u32 = 1 << 20;

/// Answers `CONNECT /console`.
pub(crate) async fn console(mut exchange: Exchange) -> io::Result<()> {
    if exchange.session().await?.is_none() {
        return Ok(());
    }
    let found = {
        let (db, head) = (exchange.inner.read(), &exchange.head);
        let console = named(&db, "console", head.query("uuid").or_else(|| head.query("ref")));
        console.map(|console| {
            let reference = console.unwrap_or(Ref::NULL);
            let console = db.find("console", reference)?;
            let vm = db.find("VM", console.reference("VM"))?;
            let protocol = console.text("protocol").to_owned();
            Some((reference, vm.reference("resident_on"), protocol))
        })
    };
    let own = exchange.inner.hosts[exchange.host].host;
    match found {
        Ok(Some((console, host, protocol))) if host == own => {
            let head = b"HTTP/1.1 200 OK\r\nConnection: keep-alive\r\nCache-Control: no-cache, no-store\r\n\r\n";
            exchange.stream.write_all(head).await?;
            let early = std::mem::take(&mut exchange.early);
            let (read, write) = tokio::io::split(exchange.stream);
            let read = BufReader::new(early.as_slice().chain(read));
            let inner = exchange.inner;
            let shown = async {
                if protocol == "rfb" { screen(read, write).await } else { echo(read, write).await }
            };
            tokio::select! {
                shown = shown => shown,
                () = over(&inner, console) => Ok(()),
            }
        }
        Ok(Some(_)) => {
            let text = "The VM does not run on this host.";
            exchange.answer(&Answer::html(403, "Forbidden", text)).await
        }
        Ok(None) => exchange.answer(&Answer::html(404, "Not Found", "There is no console.")).await,
        Err(error) if error.code == "HANDLE_INVALID" => {
            exchange.answer(&Answer::html(404, "Not Found", "There is no console.")).await
        }
        Err(error) => refuse(&mut exchange, error).await,
    }
}

/// Waits until the domain that a console belongs to has ended.
async fn over(inner: &Inner, console: Ref) {
    let mut changes = inner.changes();
    while inner.read().find("console", console).is_some() {
        if changes.changed().await.is_err() {
            return;
        }
    }
}

/// A terminal with nobody behind it: shows what is typed.
async fn echo(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    write.write_all(b"\r\nxenapi-sim login: ").await?;
    tokio::io::copy(&mut read, &mut write).await.map(drop)
}

/// A dark screen.
async fn screen(
    mut read: impl AsyncRead + Unpin,
    mut write: impl AsyncWrite + Unpin,
) -> io::Result<()> {
    write.write_all(b"RFB 003.008\n").await?;
    let mut version = [0; 12];
    read.read_exact(&mut version).await?;
    // One kind of security: none. The HTTP head has asked for a session.
    write.write_all(&[1, 1]).await?;
    read.read_u8().await?;
    write.write_u32(0).await?;
    let _shared = read.read_u8().await?;
    write.write_all(&server_init()).await?;
    loop {
        match read.read_u8().await? {
            0 => skip(&mut read, 19).await?,
            2 => {
                skip(&mut read, 1).await?;
                let count = read.read_u16().await?;
                skip(&mut read, u64::from(count) * 4).await?;
            }
            3 => {
                skip(&mut read, 9).await?;
                // An update with no rectangle in it.
                write.write_all(&[0, 0, 0, 0]).await?;
            }
            4 => skip(&mut read, 7).await?,
            5 => skip(&mut read, 5).await?,
            6 => {
                skip(&mut read, 3).await?;
                let length = read.read_u32().await?;
                if length > LONGEST {
                    return Err(io::ErrorKind::InvalidData.into());
                }
                skip(&mut read, length.into()).await?;
            }
            _ => return Err(io::ErrorKind::InvalidData.into()),
        }
    }
}

/// The screen's size, the form of its pixels, and its name.
fn server_init() -> Vec<u8> {
    let mut message = Vec::new();
    message.extend_from_slice(&WIDTH.to_be_bytes());
    message.extend_from_slice(&HEIGHT.to_be_bytes());
    // 32 bits a pixel, 24 of them used, in true colour; the largest values and shifts of the three.
    message.extend_from_slice(&[32, 24, 0, 1, 0, 255, 0, 255, 0, 255, 16, 8, 0, 0, 0, 0]);
    message.extend_from_slice(&u32::try_from(NAME.len()).unwrap_or(0).to_be_bytes());
    message.extend_from_slice(NAME.as_bytes());
    message
}

async fn skip(read: &mut (impl AsyncRead + Unpin), count: u64) -> io::Result<()> {
    let skipped = tokio::io::copy(&mut read.take(count), &mut tokio::io::sink()).await?;
    if skipped == count { Ok(()) } else { Err(io::ErrorKind::UnexpectedEof.into()) }
}
