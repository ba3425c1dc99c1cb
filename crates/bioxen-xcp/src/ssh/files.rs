//! Files to and from a guest, over SFTP.
//!
//! An upload is written beside its target under a name of its own and takes the target's place when it
//! is complete, so nobody in the guest sees half a file. Pieces travel without waiting for each
//! other's answers.

use std::io;
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

use bioxen_core::Digest;
use bytes::Bytes;
use russh_sftp::client::error::Error as SftpError;
use russh_sftp::client::{Config, SftpSession};
use russh_sftp::protocol::{FileAttributes, OpenFlags, StatusCode};
use sha2::Digest as _;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};

use super::{Command, Connection, SshError};

/// Pieces that are under way at once: enough to keep a fast link busy, and few enough that a slow one
/// answers the last of them in time.
const PIECES: usize = 16;

/// The size of a piece. SSH cuts it into packets.
const PIECE: u32 = 255 << 10;

/// Bytes that are copied at once between a file of ours and the channel.
const BUFFER: usize = 256 << 10;

/// How long the guest may take to digest a file.
const DIGEST_PATIENCE: Duration = Duration::from_mins(1);

/// File transfers to and from one guest, over a channel of their own.
pub struct Files {
    session: SftpSession,
    connection: Connection,
}

/// Why a file could not be copied.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum FileError {
    /// SFTP could not be started.
    #[error(transparent)]
    Ssh(#[from] SshError),
    /// A file of this machine.
    #[error("`{path}` cannot be {what}")]
    Local {
        /// The file.
        path: String,
        /// What was to be done with it.
        what: &'static str,
        /// What the system says.
        source: io::Error,
    },
    /// A file in the guest.
    #[error("`{path}` in the guest cannot be {what}: {reason}")]
    Remote {
        /// The file.
        path: String,
        /// What was to be done with it.
        what: &'static str,
        /// What the guest says.
        reason: String,
        /// Whether there is no such file or directory.
        missing: bool,
    },
    /// What arrived is not what was sent.
    #[error("`{path}` in the guest is {found} after it was written, and should be {expected}")]
    Damaged {
        /// The file.
        path: String,
        /// Digest of what was sent.
        expected: Digest,
        /// What the guest has.
        found: String,
    },
}

impl FileError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Ssh(error) => error.hint(),
            Self::Local { path, .. } => format!("check that `{path}` is there and yours"),
            Self::Remote { missing: true, .. } => {
                "check the path; directories on the way are made only when that is asked for".into()
            }
            Self::Remote { .. } => {
                "check that the guest's user may do this, and that its disk has room".into()
            }
            Self::Damaged { .. } => "check the guest's disk and memory; then copy it again".into(),
        }
    }
}

/// Our worker's program, with its digest.
#[derive(Clone, Debug)]
pub struct WorkerImage {
    bytes: Bytes,
    digest: Digest,
}

impl WorkerImage {
    /// The program in these bytes.
    pub fn new(bytes: impl Into<Bytes>) -> Self {
        let bytes = bytes.into();
        let digest = Digest::of(&bytes);
        Self { bytes, digest }
    }

    /// Its digest.
    pub fn digest(&self) -> Digest {
        self.digest
    }
}

/// What came of putting a worker into place.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Placed {
    /// It was there already.
    Present,
    /// It was copied, and is as it should be.
    Copied,
}

impl Connection {
    /// Opens a channel for files.
    pub async fn files(&self) -> Result<Files, SshError> {
        let channel = self.channel().await?;
        self.wait("SFTP to start", channel.request_subsystem(true, "sftp"))
            .await?
            .map_err(|error| self.failure(error, "SFTP"))?;
        let config = Config {
            max_packet_len: 256 << 10,
            max_concurrent_reads: PIECES,
            max_concurrent_writes: PIECES,
            max_write_packet_len: PIECE,
            // Counted from when a piece is handed over, so it includes those before it.
            request_timeout_secs: self.patience().answer.as_secs().saturating_mul(4).max(4),
        };
        let starting = SftpSession::new_with_config(channel.into_stream(), config);
        let session = self.wait("SFTP to start", starting).await?.map_err(|error| {
            if self.is_closed() {
                return self.lost();
            }
            let (address, what) = (self.address().to_owned(), "SFTP".to_owned());
            SshError::Refused { address, what, reason: error.to_string() }
        })?;
        Ok(Files { session, connection: self.clone() })
    }
}

impl Files {
    /// Copies a file of this machine to the guest, with these permissions (as in `0o644`).
    ///
    /// `progress` hears how many bytes have gone. When this fails the target is as it was.
    pub async fn upload(
        &self,
        source: &Path,
        target: &str,
        mode: u32,
        progress: impl FnMut(u64),
    ) -> Result<u64, FileError> {
        let local = |what| {
            move |error| FileError::Local {
                path: source.display().to_string(),
                what,
                source: error,
            }
        };
        let file = tokio::fs::File::open(source).await.map_err(local("opened"))?;
        self.upload_from(file, target, mode, progress).await.map_err(|error| match error {
            FileError::Local { what, source: error, .. } => local(what)(error),
            other => other,
        })
    }

    /// Copies all that `source` yields to a file in the guest.
    pub async fn upload_from(
        &self,
        source: impl AsyncRead,
        target: &str,
        mode: u32,
        progress: impl FnMut(u64),
    ) -> Result<u64, FileError> {
        let beside = beside(target);
        let written = self.write_whole(source, &beside, mode, progress).await;
        let placed = match written {
            Ok(count) => self.replace(&beside, target).await.map(|()| count),
            Err(error) => Err(error),
        };
        if placed.is_err() && !self.connection.is_closed() {
            // It may not be there; the failure itself says more than this one.
            let _ = self.ask(self.session.remove_file(&beside)).await;
        }
        placed
    }

    async fn write_whole(
        &self,
        source: impl AsyncRead,
        path: &str,
        mode: u32,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, FileError> {
        let flags = OpenFlags::CREATE | OpenFlags::TRUNCATE | OpenFlags::WRITE;
        let failed = |error| self.remote(path, "created", &error);
        // Until it is complete nobody else has business with it.
        let attributes = permissions(0o600);
        let opening = self.session.open_with_flags_and_attributes(path, flags, attributes);
        let mut file = self.ask(opening).await?.map_err(failed)?;
        let mut source = std::pin::pin!(source);
        let mut buffer = vec![0; BUFFER];
        let mut count = 0;
        loop {
            let read = source.read(&mut buffer).await.map_err(|source| FileError::Local {
                path: "the source".into(),
                what: "read",
                source,
            })?;
            if read == 0 {
                break;
            }
            let writing =
                self.connection.wait("the guest to take a piece", file.write_all(&buffer[..read]));
            writing.await?.map_err(|error| self.interrupted(path, "written", &error))?;
            count += read as u64;
            progress(count);
        }
        let flushing = self.connection.wait("the guest to take the last piece", file.flush());
        flushing.await?.map_err(|error| self.interrupted(path, "written", &error))?;
        self.ask(file.set_metadata(permissions(mode)))
            .await?
            .map_err(|error| self.remote(path, "written", &error))?;
        let closing = self.connection.wait("the guest to close a file", file.close());
        closing.await?.map_err(|error| self.interrupted(path, "written", &error))?;
        Ok(count)
    }

    /// Puts a file in the place of another, in one step where the guest can.
    async fn replace(&self, from: &str, to: &str) -> Result<(), FileError> {
        // SFTP's own renaming replaces nothing that exists.
        let moving = Command::new("mv").arguments(["-f", "-T", "--", from, to]);
        match self.ask(self.session.rename(from, to)).await? {
            Ok(()) => Ok(()),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::Failure => {
                let moved =
                    self.connection.run(&moving, Bytes::new(), 1024, DIGEST_PATIENCE).await?;
                if moved.exit.is_success() {
                    return Ok(());
                }
                let reason = String::from_utf8_lossy(&moved.stderr).trim().to_owned();
                let path = to.to_owned();
                Err(FileError::Remote { path, what: "replaced", reason, missing: false })
            }
            Err(error) => Err(self.remote(to, "replaced", &error)),
        }
    }

    /// Copies a file of the guest to this machine.
    ///
    /// It too is written beside its target first. `progress` hears how many bytes have come.
    pub async fn download(
        &self,
        source: &str,
        target: &Path,
        progress: impl FnMut(u64),
    ) -> Result<u64, FileError> {
        let local = |what| {
            move |error| FileError::Local {
                path: target.display().to_string(),
                what,
                source: error,
            }
        };
        let directory = target.parent().filter(|parent| !parent.as_os_str().is_empty());
        let beside = tempfile::Builder::new()
            .prefix(".bioxen-")
            .tempfile_in(directory.unwrap_or(Path::new(".")))
            .map_err(local("created"))?;
        let (file, beside) = beside.into_parts();
        let mut file = tokio::fs::File::from_std(file);
        let count = self.download_to(source, &mut file, progress).await.map_err(|e| match e {
            FileError::Local { what, source: error, .. } => local(what)(error),
            other => other,
        })?;
        file.flush().await.map_err(local("written"))?;
        beside.persist(target).map_err(|error| local("replaced")(error.error))?;
        Ok(count)
    }

    /// Copies a file of the guest into `target`.
    pub async fn download_to(
        &self,
        source: &str,
        target: impl AsyncWrite,
        mut progress: impl FnMut(u64),
    ) -> Result<u64, FileError> {
        let opening = self.session.open(source);
        let mut file =
            self.ask(opening).await?.map_err(|error| self.remote(source, "opened", &error))?;
        let mut target = std::pin::pin!(target);
        let mut buffer = vec![0; BUFFER];
        let mut count = 0;
        loop {
            let reading = self.connection.wait("the guest to send a piece", file.read(&mut buffer));
            let read = reading.await?.map_err(|error| self.interrupted(source, "read", &error))?;
            if read == 0 {
                return Ok(count);
            }
            target.write_all(&buffer[..read]).await.map_err(|error| FileError::Local {
                path: "the target".into(),
                what: "written",
                source: error,
            })?;
            count += read as u64;
            progress(count);
        }
    }

    /// Whether there is a directory of this name in the guest.
    pub async fn is_directory(&self, path: &str) -> Result<bool, FileError> {
        match self.ask(self.session.metadata(path)).await? {
            Ok(metadata) => Ok(metadata.is_dir()),
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => {
                Ok(false)
            }
            Err(error) => Err(self.remote(path, "looked at", &error)),
        }
    }

    /// The names of the files and directories in a directory of the guest; `None` where it is none.
    pub(super) async fn entries(&self, path: &str) -> Result<Option<Vec<String>>, FileError> {
        let metadata = self.ask(self.session.metadata(path)).await?;
        let metadata = metadata.map_err(|error| self.remote(path, "looked at", &error))?;
        if !metadata.is_dir() {
            return Ok(None);
        }
        let entries = self.ask(self.session.read_dir(path)).await?;
        let entries = entries.map_err(|error| self.remote(path, "read", &error))?;
        let is_plain = |kind: russh_sftp::protocol::FileType| kind.is_dir() || kind.is_file();
        let names =
            entries.filter(|entry| is_plain(entry.file_type())).map(|entry| entry.file_name());
        // The guest is not to choose where its files go here.
        Ok(Some(names.filter(|name| !name.contains('/') && name != "..").collect()))
    }

    /// Makes a directory, and those that lead to it, as far as they are not there.
    pub async fn make_directories(&self, path: &str) -> Result<(), FileError> {
        let ends = path.match_indices('/').map(|(index, _)| index).filter(|&index| index > 0);
        for end in ends.chain([path.len()]) {
            let part = &path[..end];
            match self.ask(self.session.metadata(part)).await? {
                Ok(metadata) if metadata.is_dir() => continue,
                Ok(_) => {
                    let (path, reason) = (part.to_owned(), "it is a file".to_owned());
                    return Err(FileError::Remote {
                        path,
                        what: "entered",
                        reason,
                        missing: false,
                    });
                }
                Err(_) => {}
            }
            let made = self.ask(self.session.create_dir(part)).await?;
            if let Err(error) = made {
                // Somebody else may have been faster.
                let present = self.ask(self.session.metadata(part)).await?;
                if !present.is_ok_and(|metadata| metadata.is_dir()) {
                    return Err(self.remote(part, "made", &error));
                }
            }
        }
        Ok(())
    }

    /// Makes sure that our worker is at `path`, whole and ready to be run. Its directory must be there.
    pub async fn put_worker(&self, image: &WorkerImage, path: &str) -> Result<Placed, FileError> {
        let expected = image.digest.to_string();
        if self.digest(path).await?.is_some_and(|found| found == expected) {
            // It may have lost its permissions.
            let setting = self.session.set_metadata(path, permissions(0o755));
            self.ask(setting).await?.map_err(|error| self.remote(path, "made runnable", &error))?;
            return Ok(Placed::Present);
        }
        self.upload_from(&image.bytes[..], path, 0o755, |_| {}).await?;
        match self.digest(path).await? {
            Some(found) if found == expected => Ok(Placed::Copied),
            found => Err(FileError::Damaged {
                path: path.to_owned(),
                expected: image.digest,
                found: found.unwrap_or_else(|| "gone".into()),
            }),
        }
    }

    /// The SHA-256 digest of a file in the guest, as [`Digest`] writes it; `None` if there is no file.
    ///
    /// The guest computes it where it has `sha256sum`; otherwise the file is read.
    pub async fn digest(&self, path: &str) -> Result<Option<String>, FileError> {
        match self.ask(self.session.metadata(path)).await? {
            Ok(metadata) if metadata.is_dir() => {
                let (path, reason) = (path.to_owned(), "it is a directory".to_owned());
                return Err(FileError::Remote { path, what: "read", reason, missing: false });
            }
            Ok(_) => {}
            Err(SftpError::Status(status)) if status.status_code == StatusCode::NoSuchFile => {
                return Ok(None);
            }
            Err(error) => return Err(self.remote(path, "looked at", &error)),
        }
        let summing = Command::new("sha256sum").arguments(["-b", "--", path]);
        let output = self.connection.run(&summing, Bytes::new(), 4096, DIGEST_PATIENCE).await?;
        if output.exit.is_success()
            && let Some(digits) = read_sum(&output.stdout)
        {
            return Ok(Some(format!("sha256:{digits}")));
        }
        let mut hasher = Hashing(sha2::Sha256::new());
        self.download_to(path, &mut hasher, |_| {}).await?;
        let digits: Vec<String> =
            hasher.0.finalize().iter().map(|byte| format!("{byte:02x}")).collect();
        Ok(Some(format!("sha256:{}", digits.concat())))
    }

    /// Waits for one answer of the guest's file system.
    async fn ask<T: Send>(&self, answer: impl Future<Output = T> + Send) -> Result<T, SshError> {
        self.connection.wait("an answer about a file", answer).await
    }

    fn remote(&self, path: &str, what: &'static str, error: &SftpError) -> FileError {
        if self.connection.is_closed() {
            return self.connection.lost().into();
        }
        let (reason, missing) = match error {
            SftpError::Status(status) => {
                let missing = status.status_code == StatusCode::NoSuchFile;
                let reason = match status.status_code {
                    StatusCode::NoSuchFile => "there is no such file or directory".to_owned(),
                    StatusCode::PermissionDenied => "permission denied".to_owned(),
                    _ => status.error_message.clone(),
                };
                (reason, missing)
            }
            SftpError::Timeout => ("it does not answer".to_owned(), false),
            other => (other.to_string(), false),
        };
        FileError::Remote { path: path.to_owned(), what, reason, missing }
    }

    fn interrupted(&self, path: &str, what: &'static str, error: &io::Error) -> FileError {
        if self.connection.is_closed() {
            return self.connection.lost().into();
        }
        let (path, reason) = (path.to_owned(), error.to_string());
        FileError::Remote { path, what, reason, missing: false }
    }
}

/// A name beside a file that nobody else uses.
fn beside(target: &str) -> String {
    static COUNT: AtomicU64 = AtomicU64::new(0);
    let count = COUNT.fetch_add(1, Ordering::Relaxed);
    let mark = format!(".bioxen-{}-{count}-", std::process::id());
    match target.rsplit_once('/') {
        Some((directory, name)) => format!("{directory}/{mark}{name}"),
        None => format!("{mark}{target}"),
    }
}

fn permissions(mode: u32) -> FileAttributes {
    let mut attributes = FileAttributes::empty();
    attributes.permissions = Some(mode & 0o7777);
    attributes
}

/// The digits at the start of a line of `sha256sum`, behind the backslash that marks odd names.
fn read_sum(line: &[u8]) -> Option<String> {
    let line = line.strip_prefix(b"\\").unwrap_or(line);
    let digits = std::str::from_utf8(line.get(..64)?).ok()?;
    digits.bytes().all(|digit| digit.is_ascii_hexdigit()).then(|| digits.to_owned())
}

/// Digests what is written to it.
struct Hashing(sha2::Sha256);

impl AsyncWrite for &mut Hashing {
    fn poll_write(
        mut self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
        bytes: &[u8],
    ) -> std::task::Poll<io::Result<usize>> {
        self.0.update(bytes);
        std::task::Poll::Ready(Ok(bytes.len()))
    }

    fn poll_flush(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }

    fn poll_shutdown(
        self: std::pin::Pin<&mut Self>,
        _: &mut std::task::Context<'_>,
    ) -> std::task::Poll<io::Result<()>> {
        std::task::Poll::Ready(Ok(()))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_file_is_written_beside_its_target() {
        let (one, other) = (beside("/opt/worker"), beside("/opt/worker"));
        assert!(one.starts_with("/opt/.bioxen-") && one.ends_with("-worker"), "{one}");
        assert_ne!(one, other);
        assert!(!beside("worker").contains('/'));
        assert!(beside("/worker").starts_with("/.bioxen-"));
    }

    #[test]
    fn a_sum_is_read_whatever_the_file_is_called() {
        let digits = "0123456789abcdef".repeat(4);
        assert_eq!(read_sum(format!("{digits} *a\n").as_bytes()), Some(digits.clone()));
        assert_eq!(read_sum(format!("\\{digits} *a\\nb\n").as_bytes()), Some(digits));
        assert_eq!(read_sum(b"sha256sum: a: No such file"), None);
        assert_eq!(read_sum(b""), None);
    }
}
