//! Starting programs beside files that are being written.
//!
//! A new process has a copy of each file that is open here until a while after it has begun to run its program;
//! and a program that anybody has open to write cannot be run ("Text file busy"). So nothing that may be a
//! program is open to write while a process is started.

use std::io;
use std::path::Path;
use std::sync::{PoisonError, RwLock, RwLockReadGuard};

use tokio::process::{Child, Command};

/// Where programs are looked for.
pub(super) const PATH: &str = "/usr/local/sbin:/usr/local/bin:/usr/sbin:/usr/bin:/sbin:/bin";

/// The machine's program of a name, by its whole path where it is there: to look for it would be left to the
/// new process if that has another `PATH`, which then must be a copy of this one, memory and all.
pub(super) fn program(name: &str) -> Command {
    let mut places = PATH.split(':').map(|directory| Path::new(directory).join(name));
    Command::new(places.find(|path| path.is_file()).unwrap_or_else(|| name.into()))
}

/// Held by many while they have files open to write, and by one who starts a process.
static WRITING: RwLock<()> = RwLock::new(());

/// Starts a program.
pub(super) fn start(command: &mut Command) -> io::Result<Child> {
    let _nobody_writes = WRITING.write().unwrap_or_else(PoisonError::into_inner);
    command.spawn()
}

/// Keeps processes from being started, for as long as a file is open that may be a program.
pub(super) fn writing() -> RwLockReadGuard<'static, ()> {
    WRITING.read().unwrap_or_else(PoisonError::into_inner)
}

#[cfg(test)]
mod tests {
    use std::fs::OpenOptions;
    use std::io::Write as _;
    use std::os::unix::fs::OpenOptionsExt as _;
    use std::sync::atomic::{AtomicBool, Ordering};
    use std::time::Duration;

    use super::*;

    #[tokio::test(flavor = "multi_thread", worker_threads = 4)]
    async fn a_program_can_be_run_once_it_is_written_however_many_others_start() {
        let directory = tempfile::tempdir().unwrap();
        let done = std::sync::Arc::new(AtomicBool::new(false));
        let others: Vec<_> = (0..3)
            .map(|_| {
                let done = std::sync::Arc::clone(&done);
                tokio::spawn(async move {
                    while !done.load(Ordering::Relaxed) {
                        start(&mut Command::new("true")).unwrap().wait().await.unwrap();
                    }
                })
            })
            .collect();
        for number in 0..100 {
            let path = directory.path().join(number.to_string());
            tokio::task::block_in_place(|| {
                let _writing = writing();
                let how = OpenOptions::new().write(true).create_new(true).mode(0o755).open(&path);
                let mut file = how.unwrap();
                std::thread::sleep(Duration::from_millis(1));
                file.write_all(b"#!/bin/sh\nexit 7\n").unwrap();
            });
            let status = start(&mut Command::new(&path)).unwrap().wait().await.unwrap();
            assert_eq!(status.code(), Some(7));
        }
        done.store(true, Ordering::Relaxed);
        for other in others {
            other.await.unwrap();
        }
    }
}
