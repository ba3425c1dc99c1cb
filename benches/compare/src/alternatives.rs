//! What `BioXen` is compared with: processes that answer, processes that are forked or started.

use std::io::{self, Read, Write};
use std::os::fd::{AsFd as _, OwnedFd};
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, Stdio};

use bench_report::timed;
use clap::ValueEnum;

/// Debian's name of the interpreter that ours is compared with.
pub(crate) const LUA: &str = "lua5.4";

/// What this program can be in place of measuring.
#[derive(Clone, Copy, PartialEq, ValueEnum)]
pub(crate) enum Helper {
    /// Sends every byte back
    Pong,
    /// Answers a byte with the seconds that a fork, an exit and a wait took
    Fork,
}

impl Helper {
    /// Serves on standard input, which is a socket, until it closes.
    pub(crate) fn run(self) -> io::Result<()> {
        let mut stream = UnixStream::from(io::stdin().as_fd().try_clone_to_owned()?);
        let mut byte = [0];
        while stream.read(&mut byte)? == 1 {
            match self {
                Self::Pong => stream.write_all(&byte)?,
                Self::Fork => stream.write_all(&timed_fork()?.to_ne_bytes())?,
            }
        }
        Ok(())
    }
}

/// Forks, waits for the child's exit, and returns the seconds.
#[expect(unsafe_code, reason = "fork has no safe form")]
fn timed_fork() -> io::Result<f64> {
    use nix::unistd::{ForkResult, fork};
    let (outcome, seconds) = timed(|| {
        // SAFETY: this process has one thread.
        match unsafe { fork() }? {
            // SAFETY: ends the child at once.
            ForkResult::Child => unsafe { nix::libc::_exit(0) },
            ForkResult::Parent { child } => nix::sys::wait::waitpid(child, None),
        }
    });
    outcome?;
    Ok(seconds)
}

/// Another process of this program, connected by a pair of sockets.
pub(crate) struct Partner {
    stream: UnixStream,
    child: Child,
}

impl Partner {
    pub(crate) fn start(helper: Helper) -> io::Result<Self> {
        let (stream, theirs) = UnixStream::pair()?;
        let name = helper.to_possible_value();
        let child = Command::new("/proc/self/exe")
            .arg("--helper")
            .arg(name.as_ref().map_or("", |name| name.get_name()))
            .stdin(OwnedFd::from(theirs))
            .spawn()?;
        Ok(Self { stream, child })
    }

    /// Seconds from writing a byte until one is back.
    pub(crate) fn ping(&mut self) -> io::Result<f64> {
        let mut byte = [1];
        let (outcome, seconds) = timed(|| {
            self.stream.write_all(&byte)?;
            self.stream.read_exact(&mut byte)
        });
        outcome.map(|()| seconds)
    }

    /// The seconds that the partner measured for a fork, an exit and a wait.
    pub(crate) fn fork(&mut self) -> io::Result<f64> {
        let mut answer = [0; 8];
        self.stream.write_all(&[1])?;
        self.stream.read_exact(&mut answer)?;
        Ok(f64::from_ne_bytes(answer))
    }

    /// The connection, for a partner that is to be asked in another way.
    pub(crate) fn stream(&self) -> io::Result<UnixStream> {
        self.stream.try_clone()
    }
}

impl Drop for Partner {
    fn drop(&mut self) {
        let _ = self.stream.shutdown(std::net::Shutdown::Both);
        let _ = self.child.wait();
    }
}

/// Whether a program can be started at all.
pub(crate) fn exists(program: &str) -> bool {
    Command::new(program).arg("-v").output().is_ok()
}

/// Runs a program to its end with its output captured; returns the seconds, unless it failed.
pub(crate) fn spawn(program: &str, arguments: &[&str]) -> Option<f64> {
    let (output, seconds) = timed(|| started(program, arguments)?.wait_with_output());
    output.is_ok_and(|output| output.status.success()).then_some(seconds)
}

/// Runs the same program many times side by side; returns the seconds until the last has ended.
pub(crate) fn spawn_many(program: &str, arguments: &[&str], count: u32) -> Option<f64> {
    let (outcome, seconds) = timed(|| {
        let children: io::Result<Vec<Child>> =
            (0..count).map(|_| started(program, arguments)).collect();
        children?.into_iter().try_for_each(|child| child.wait_with_output().map(drop))
    });
    outcome.is_ok().then_some(seconds)
}

fn started(program: &str, arguments: &[&str]) -> io::Result<Child> {
    let mut command = Command::new(program);
    command.args(arguments).stdin(Stdio::null()).stdout(Stdio::piped()).stderr(Stdio::piped());
    command.spawn()
}
