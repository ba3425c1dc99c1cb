//! A session's terminal, seen from the server.

use std::io;
use std::os::fd::OwnedFd;
use std::pin::Pin;
use std::task::{Context, Poll};

use russh::Sig;
use rustix::fs::{Mode, OFlags};
use rustix::pty::{OpenptFlags, ioctl_tiocgptpeer, unlockpt};
use rustix::termios::{Winsize, tcsetwinsize};
use tokio::io::{AsyncWrite, AsyncWriteExt};
use tokio::net::unix::pipe;
use tokio::process::Child;

use super::session::TerminalSize;
use crate::guest::booted::Guest;
use crate::guest::sandbox::blocking;

const PIECE: usize = 16 << 10;

/// The server's end of a terminal: its screen.
#[derive(Debug)]
pub(super) struct Terminal {
    master: OwnedFd,
    // Not a pipe, and read like one.
    screen: pipe::Receiver,
}

impl Terminal {
    /// Opens a terminal in the guest: its screen and its keyboard, and the end that the command gets.
    pub(super) async fn open(
        guest: &Guest,
        size: TerminalSize,
    ) -> io::Result<(Self, Keyboard, OwnedFd)> {
        let (files, own) = (guest.files.clone(), guest.entry.has_namespaces());
        let opened = blocking(move || {
            let master: OwnedFd = if own {
                files.open("/dev/pts/ptmx", OFlags::RDWR, 0)?.into()
            } else {
                let flags = OFlags::RDWR | OFlags::NOCTTY | OFlags::CLOEXEC | OFlags::NONBLOCK;
                rustix::fs::open("/dev/ptmx", flags, Mode::empty())?
            };
            unlockpt(&master)?;
            let flags = OpenptFlags::RDWR | OpenptFlags::NOCTTY | OpenptFlags::CLOEXEC;
            let slave = ioctl_tiocgptpeer(&master, flags)?;
            Ok((master, slave))
        });
        let (master, slave) = opened.await.map_err(io::Error::other)?;
        let screen = pipe::Receiver::from_owned_fd_unchecked(master.try_clone()?)?;
        let keyboard = Keyboard(pipe::Sender::from_owned_fd_unchecked(master.try_clone()?)?);
        let terminal = Self { master, screen };
        terminal.resize(size);
        Ok((terminal, keyboard, slave))
    }

    pub(super) fn resize(&self, size: TerminalSize) {
        let cells = |count: u32| u16::try_from(count).unwrap_or(u16::MAX);
        let size = Winsize {
            ws_row: cells(size.rows),
            ws_col: cells(size.columns),
            ws_xpixel: 0,
            ws_ypixel: 0,
        };
        // A terminal without a size works as well.
        let _ = tcsetwinsize(&self.master, size);
    }

    /// Carries what is shown to the client, until the command has ended or nobody has the terminal open
    /// any more.
    pub(super) async fn copy_until_end(
        &self,
        child: &mut Child,
        to: &mut (impl AsyncWrite + Unpin),
    ) {
        let mut buffer = vec![0; PIECE];
        loop {
            let read = tokio::select! {
                biased;
                read = self.read(&mut buffer) => read,
                _ = child.wait() => break,
            };
            match read {
                Ok(count) if count > 0 && to.write_all(&buffer[..count]).await.is_ok() => {}
                Ok(_) | Err(_) => return,
            }
        }
        // What the command left, and not what others in the background still have to say.
        while let Ok(count) = self.screen.try_read(&mut buffer) {
            if count == 0 || to.write_all(&buffer[..count]).await.is_err() {
                return;
            }
        }
    }

    async fn read(&self, buffer: &mut [u8]) -> io::Result<usize> {
        loop {
            self.screen.readable().await?;
            match self.screen.try_read(buffer) {
                Err(error) if error.kind() == io::ErrorKind::WouldBlock => {}
                result => return result,
            }
        }
    }
}

/// Writes to a terminal, as its user does.
pub(super) struct Keyboard(pipe::Sender);

impl AsyncWrite for Keyboard {
    fn poll_write(
        mut self: Pin<&mut Self>,
        context: &mut Context<'_>,
        bytes: &[u8],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.0).poll_write(context, bytes)
    }

    fn poll_flush(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.0).poll_flush(context)
    }

    /// The end of input: what the key for it sends.
    fn poll_shutdown(mut self: Pin<&mut Self>, context: &mut Context<'_>) -> Poll<io::Result<()>> {
        const END_OF_INPUT: &[u8] = &[4];
        Pin::new(&mut self.0).poll_write(context, END_OF_INPUT).map_ok(|_| ())
    }
}

/// A signal's name, as the protocol has it.
pub(super) fn shown_signal(signal: i32) -> Sig {
    match signal {
        libc::SIGABRT => Sig::ABRT,
        libc::SIGALRM => Sig::ALRM,
        libc::SIGFPE => Sig::FPE,
        libc::SIGHUP => Sig::HUP,
        libc::SIGILL => Sig::ILL,
        libc::SIGINT => Sig::INT,
        libc::SIGKILL => Sig::KILL,
        libc::SIGPIPE => Sig::PIPE,
        libc::SIGQUIT => Sig::QUIT,
        libc::SIGSEGV => Sig::SEGV,
        libc::SIGTERM => Sig::TERM,
        libc::SIGUSR1 => Sig::USR1,
        other => Sig::Custom(format!("{other}@xenapi-sim")),
    }
}
