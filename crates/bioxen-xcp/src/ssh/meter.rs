//! What a process in a guest has used so far, as the guest's system tells it.
//!
//! Our worker measures what runs in it. An interpreter of another kind does not, and a limit on its
//! processor time is watched from here. A shell in the guest answers when it is asked; it is asked at the
//! end of each run and, again and again, while the process uses its processor. An idle one costs nothing.

use std::io;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex, MutexGuard, PoisonError};
use std::time::Duration;

use bytes::Bytes;
use tokio::sync::{Mutex as AsyncMutex, Notify};
use tokio::task::JoinHandle;

use super::exec::Input;
use super::{Command, Connection, Execution, Happening, SshError};

/// Answers each number with it, the processor time in nanoseconds and the peak of memory in kibibytes.
const SCRIPT: &str = r#"while read -r number
do
    read -r cpu _ < "/proc/$1/schedstat" || exit
    while read -r key peak _
    do
        case $key in VmHWM:) echo "$number $cpu $peak" ;; esac
    done < "/proc/$1/status" || exit
done"#;

/// How long an answer may take.
const ANSWERED_WITHIN: Duration = Duration::from_secs(2);

/// The pauses between two questions while the process works.
const PAUSES: [Duration; 2] = [Duration::from_millis(10), Duration::from_millis(80)];

/// As many answers alike mean that the process does nothing.
const ALIKE: u32 = 3;

/// Measures one process. Dropping it ends the measuring.
pub(super) struct Meter {
    shared: Arc<Shared>,
    watching: JoinHandle<()>,
}

struct Shared {
    shell: AsyncMutex<Shell>,
    last: Mutex<Sample>,
    works: Notify,
    number: AtomicU64,
}

struct Shell {
    execution: Execution,
    input: Input,
    unread: Vec<u8>,
}

/// What a process has used since it started.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) struct Sample {
    pub(super) cpu_time: Duration,
    pub(super) peak_memory: u64,
}

impl Meter {
    /// Measures the process of that number, once before this returns.
    pub(super) async fn start(connection: &Connection, process: u32) -> Result<Self, SshError> {
        let command =
            Command::new("sh").arguments(["-c", SCRIPT, "sh"]).argument(process.to_string());
        let execution = connection.start(&command).await?;
        let shell = Shell { input: execution.input(), execution, unread: Vec::new() };
        let shared = Arc::new(Shared {
            shell: AsyncMutex::new(shell),
            last: Mutex::default(),
            works: Notify::new(),
            number: AtomicU64::new(0),
        });
        shared.look().await.map_err(|error| SshError::Refused {
            address: connection.address().to_owned(),
            what: "to measure a process".into(),
            reason: error.to_string(),
        })?;
        let watching = tokio::spawn(Arc::clone(&shared).watch());
        Ok(Self { shared, watching })
    }

    /// What it had used when it was last looked at. While it works, that is not long ago.
    pub(super) fn last(&self) -> Sample {
        self.wake();
        *self.shared.lock()
    }

    /// Says that the process may be at work.
    pub(super) fn wake(&self) {
        self.shared.works.notify_one();
    }

    /// Looks at the process now.
    pub(super) async fn look(&self) {
        if let Err(error) = self.shared.look().await {
            tracing::debug!(%error, "a process in a guest was not measured");
        }
    }
}

impl Drop for Meter {
    fn drop(&mut self) {
        self.watching.abort();
    }
}

impl Shared {
    fn lock(&self) -> MutexGuard<'_, Sample> {
        self.last.lock().unwrap_or_else(PoisonError::into_inner)
    }

    /// Looks at the process while it works, until it can be looked at no more.
    async fn watch(self: Arc<Self>) {
        let [shortest, longest] = PAUSES;
        loop {
            self.works.notified().await;
            let (mut alike, mut pause) = (0, shortest);
            while alike < ALIKE {
                let before = *self.lock();
                if self.look().await.is_err() {
                    return;
                }
                alike = if *self.lock() == before { alike + 1 } else { 0 };
                tokio::time::sleep(pause).await;
                pause = (pause * 2).min(longest);
            }
        }
    }

    async fn look(&self) -> io::Result<()> {
        let sample = tokio::time::timeout(ANSWERED_WITHIN, self.ask()).await??;
        *self.lock() = sample;
        Ok(())
    }

    async fn ask(&self) -> io::Result<Sample> {
        let mut shell = self.shell.lock().await;
        // Who asked before may have gone without waiting for the answer.
        let number = self.number.fetch_add(1, Ordering::Relaxed);
        let question = Bytes::from(format!("{number}\n"));
        shell.input.write(question).await.map_err(io::Error::other)?;
        loop {
            let line = shell.line().await?;
            if let Some((answered, sample)) = read(&line)
                && answered == number
            {
                return Ok(sample);
            }
        }
    }
}

impl Shell {
    async fn line(&mut self) -> io::Result<Vec<u8>> {
        loop {
            if let Some(end) = self.unread.iter().position(|byte| *byte == b'\n') {
                return Ok(self.unread.drain(..=end).collect());
            }
            match self.execution.next().await.map_err(io::Error::other)? {
                Happening::Stdout(data) => self.unread.extend_from_slice(&data),
                Happening::Stderr(_) => {}
                Happening::Ended(_) => return Err(io::ErrorKind::UnexpectedEof.into()),
            }
        }
    }
}

fn read(line: &[u8]) -> Option<(u64, Sample)> {
    let mut numbers = std::str::from_utf8(line).ok()?.split_whitespace().map(str::parse::<u64>);
    let mut next = || numbers.next()?.ok();
    let (number, nanoseconds, kibibytes) = (next()?, next()?, next()?);
    let cpu_time = Duration::from_nanos(nanoseconds);
    Some((number, Sample { cpu_time, peak_memory: kibibytes.saturating_mul(1024) }))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn answers_are_three_numbers() {
        let sample = Sample { cpu_time: Duration::from_millis(2), peak_memory: 3 << 10 };
        assert_eq!(read(b"7 2000000 3\n"), Some((7, sample)));
        for other in [&b"7 2000000\n"[..], b"sh: 1: not found\n", b"\xff", b""] {
            assert_eq!(read(other), None);
        }
    }
}
