//! The file service: SFTP version 3 over a guest's root.

use std::collections::HashMap;
use std::ffi::OsString;
use std::fs::{File, Permissions};
use std::io;
use std::os::unix::fs::{FileExt, PermissionsExt};
use std::sync::Arc;

use russh_sftp::protocol::{
    Attrs, Data, File as Listed, FileAttributes, Handle, Name, OpenFlags, Packet, Status,
    StatusCode, Version,
};
use russh_sftp::server::{Handler, StatusReply};
use rustix::fs::{OFlags, Stat};
use tokio::io::DuplexStream;

use crate::guest::files::Files;
use crate::guest::starting;

/// The files and directories that one client may have open.
const MOST_HANDLES: usize = 512;
/// The entries that one answer lists.
const LISTED_AT_ONCE: usize = 128;
/// The most that one read gives: some more than clients ask for.
const LONGEST_READ: u32 = 256 << 10;
const RENAME: &str = "posix-rename@openssh.com";
const FSYNC: &str = "fsync@openssh.com";

/// Serves files until the stream ends.
pub(super) async fn serve(stream: DuplexStream, files: Files, home: String) {
    let service = Service { files, home, open: HashMap::new(), next: 0 };
    russh_sftp::server::run(stream, service).await;
}

struct Service {
    files: Files,
    home: String,
    open: HashMap<String, Open>,
    next: u64,
}

enum Open {
    File { file: Arc<Held>, append: bool },
    Directory { left: Vec<(OsString, Stat)> },
}

/// A file that a client has open.
enum Held {
    /// As the client has it.
    AsAsked(File),
    /// So that it is known: it may be a program, and is only open to write while something is written.
    Known(File),
}

impl Held {
    fn open(files: &Files, path: &str, flags: OFlags, mode: u32) -> io::Result<Self> {
        if !flags.intersects(OFlags::WRONLY | OFlags::RDWR) {
            return files.open(path, flags, mode).map(Self::AsAsked);
        }
        let _writing = starting::writing();
        let file = files.open(path, flags, mode)?;
        let facts = file.metadata()?;
        if !facts.is_file() || facts.permissions().mode() & 0o200 == 0 {
            // It could not be opened again.
            return Ok(Self::AsAsked(file));
        }
        files.open_again(&file, OFlags::PATH).map(Self::Known)
    }

    fn read<T>(&self, files: &Files, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::AsAsked(file) => work(file),
            Self::Known(file) => work(&files.open_again(file, OFlags::RDONLY)?),
        }
    }

    fn write<T>(&self, files: &Files, work: impl FnOnce(&File) -> io::Result<T>) -> io::Result<T> {
        match self {
            Self::AsAsked(file) => work(file),
            Self::Known(file) => {
                let _writing = starting::writing();
                work(&files.open_again(file, OFlags::WRONLY)?)
            }
        }
    }

    fn stat(&self) -> io::Result<Stat> {
        let (Self::AsAsked(file) | Self::Known(file)) = self;
        Ok(rustix::fs::fstat(file)?)
    }
}

type Answer<T> = Result<T, StatusReply>;

impl Service {
    /// The full path: others start at the home directory.
    fn full(&self, path: &str) -> String {
        if path.starts_with('/') { path.to_owned() } else { format!("{}/{path}", self.home) }
    }

    fn keep(&mut self, open: Open) -> Answer<String> {
        if self.open.len() >= MOST_HANDLES {
            return Err(StatusCode::Failure.with_message("too many files are open"));
        }
        self.next += 1;
        let handle = self.next.to_string();
        self.open.insert(handle.clone(), open);
        Ok(handle)
    }

    fn file(&self, handle: &str) -> Answer<(Arc<Held>, bool)> {
        match self.open.get(handle) {
            Some(Open::File { file, append }) => Ok((Arc::clone(file), *append)),
            Some(Open::Directory { .. }) | None => {
                Err(StatusCode::Failure.with_message("there is no such open file"))
            }
        }
    }

    async fn on_files<T: Send + 'static>(
        &self,
        work: impl FnOnce(&Files) -> io::Result<T> + Send + 'static,
    ) -> Answer<T> {
        let files = self.files.clone();
        blocking(move || work(&files)).await
    }

    async fn done(
        &self,
        id: u32,
        work: impl FnOnce(&Files) -> io::Result<()> + Send + 'static,
    ) -> Answer<Status> {
        self.on_files(work).await.map(|()| ok(id))
    }

    async fn attributes(&self, id: u32, path: &str, follow: bool) -> Answer<Attrs> {
        let path = self.full(path);
        let stat = self.on_files(move |files| files.stat(&path, follow)).await?;
        Ok(Attrs { id, attrs: attributes(&stat) })
    }
}

async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Answer<T> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failure(&error)),
        Err(error) => Err(StatusCode::Failure.with_message(error.to_string())),
    }
}

fn failure(error: &io::Error) -> StatusReply {
    let code = match error.kind() {
        io::ErrorKind::NotFound => StatusCode::NoSuchFile,
        io::ErrorKind::PermissionDenied => StatusCode::PermissionDenied,
        _ => StatusCode::Failure,
    };
    code.with_message(error.to_string())
}

fn ok(id: u32) -> Status {
    Status {
        id,
        status_code: StatusCode::Ok,
        error_message: "ok".into(),
        language_tag: "en".into(),
    }
}

fn attributes(stat: &Stat) -> FileAttributes {
    let seconds = |time: i64| Some(u32::try_from(time).unwrap_or(0));
    FileAttributes {
        size: u64::try_from(stat.st_size).ok(),
        // All users of a guest are the one that there is.
        uid: Some(0),
        gid: Some(0),
        permissions: Some(stat.st_mode),
        atime: seconds(stat.st_atime),
        mtime: seconds(stat.st_mtime),
        ..FileAttributes::empty()
    }
}

fn apply(files: &Files, path: &str, wanted: &FileAttributes) -> io::Result<()> {
    if let Some(size) = wanted.size {
        let _writing = starting::writing();
        files.open(path, OFlags::WRONLY, 0)?.set_len(size)?;
    }
    if let Some(mode) = wanted.permissions {
        files.set_mode(path, mode)?;
    }
    if let (Some(accessed), Some(modified)) = (wanted.atime, wanted.mtime) {
        files.set_times(path, accessed, modified)?;
    }
    Ok(())
}

fn open_flags(asked: OpenFlags) -> OFlags {
    let writes = asked.intersects(OpenFlags::WRITE | OpenFlags::APPEND);
    let access = match (asked.contains(OpenFlags::READ), writes) {
        (true, true) => OFlags::RDWR,
        (false, true) => OFlags::WRONLY,
        (_, false) => OFlags::RDONLY,
    };
    let pairs = [
        (OpenFlags::CREATE, OFlags::CREATE),
        (OpenFlags::TRUNCATE, OFlags::TRUNC),
        (OpenFlags::EXCLUDE, OFlags::EXCL),
    ];
    let set = pairs.iter().filter(|(flag, _)| asked.contains(*flag)).map(|(_, flag)| *flag);
    set.fold(access, OFlags::union)
}

impl Handler for Service {
    type Error = StatusReply;

    fn unimplemented(&self) -> StatusReply {
        StatusCode::OpUnsupported.into()
    }

    async fn init(
        &mut self,
        _version: u32,
        _extensions: HashMap<String, String>,
    ) -> Answer<Version> {
        let mut version = Version::new();
        for extension in [RENAME, FSYNC] {
            version.extensions.insert(extension.into(), "1".into());
        }
        Ok(version)
    }

    async fn open(
        &mut self,
        id: u32,
        filename: String,
        pflags: OpenFlags,
        attrs: FileAttributes,
    ) -> Answer<Handle> {
        let path = self.full(&filename);
        let mode = attrs.permissions.unwrap_or(0o644) & 0o7777;
        let flags = open_flags(pflags);
        let file = self.on_files(move |files| Held::open(files, &path, flags, mode)).await?;
        let append = pflags.contains(OpenFlags::APPEND);
        let handle = self.keep(Open::File { file: Arc::new(file), append })?;
        Ok(Handle { id, handle })
    }

    async fn close(&mut self, id: u32, handle: String) -> Answer<Status> {
        match self.open.remove(&handle) {
            Some(_) => Ok(ok(id)),
            None => Err(StatusCode::Failure.with_message("there is no such open file")),
        }
    }

    async fn read(&mut self, id: u32, handle: String, offset: u64, len: u32) -> Answer<Data> {
        let (file, _) = self.file(&handle)?;
        let data = self.on_files(move |files| {
            let mut data = vec![0; len.min(LONGEST_READ) as usize];
            let read = file.read(files, |file| file.read_at(&mut data, offset))?;
            data.truncate(read);
            Ok(data)
        });
        match data.await? {
            data if data.is_empty() && len > 0 => Err(StatusCode::Eof.into()),
            data => Ok(Data { id, data }),
        }
    }

    async fn write(
        &mut self,
        id: u32,
        handle: String,
        offset: u64,
        data: Vec<u8>,
    ) -> Answer<Status> {
        let (file, append) = self.file(&handle)?;
        self.done(id, move |files| {
            file.write(files, |file| {
                let offset = if append { file.metadata()?.len() } else { offset };
                file.write_all_at(&data, offset)
            })
        })
        .await
    }

    async fn lstat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        self.attributes(id, &path, false).await
    }

    async fn stat(&mut self, id: u32, path: String) -> Answer<Attrs> {
        self.attributes(id, &path, true).await
    }

    async fn fstat(&mut self, id: u32, handle: String) -> Answer<Attrs> {
        let (file, _) = self.file(&handle)?;
        let stat = blocking(move || file.stat()).await?;
        Ok(Attrs { id, attrs: attributes(&stat) })
    }

    async fn setstat(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        let path = self.full(&path);
        self.done(id, move |files| apply(files, &path, &attrs)).await
    }

    async fn fsetstat(&mut self, id: u32, handle: String, attrs: FileAttributes) -> Answer<Status> {
        let (file, _) = self.file(&handle)?;
        let apply = move |file: &File| {
            if let Some(size) = attrs.size {
                file.set_len(size)?;
            }
            if let Some(mode) = attrs.permissions {
                file.set_permissions(Permissions::from_mode(mode & 0o7777))?;
            }
            if let Some(modified) = attrs.mtime {
                let since = std::time::Duration::from_secs(modified.into());
                file.set_modified(std::time::UNIX_EPOCH + since)?;
            }
            Ok(())
        };
        self.done(id, move |files| file.write(files, apply)).await
    }

    async fn opendir(&mut self, id: u32, path: String) -> Answer<Handle> {
        let path = self.full(&path);
        let mut left = self.on_files(move |files| files.list(&path)).await?;
        left.reverse();
        let handle = self.keep(Open::Directory { left })?;
        Ok(Handle { id, handle })
    }

    async fn readdir(&mut self, id: u32, handle: String) -> Answer<Name> {
        let Some(Open::Directory { left }) = self.open.get_mut(&handle) else {
            return Err(StatusCode::Failure.with_message("there is no such open directory"));
        };
        let rest = left.split_off(left.len().saturating_sub(LISTED_AT_ONCE));
        if rest.is_empty() {
            return Err(StatusCode::Eof.into());
        }
        let entry = |(name, stat): &(OsString, Stat)| {
            Listed::new(name.to_string_lossy().into_owned(), attributes(stat))
        };
        Ok(Name { id, files: rest.iter().rev().map(entry).collect() })
    }

    async fn remove(&mut self, id: u32, filename: String) -> Answer<Status> {
        let path = self.full(&filename);
        self.done(id, move |files| files.remove(&path, false)).await
    }

    async fn mkdir(&mut self, id: u32, path: String, attrs: FileAttributes) -> Answer<Status> {
        let path = self.full(&path);
        let mode = attrs.permissions.unwrap_or(0o755) & 0o7777;
        self.done(id, move |files| files.make_directory(&path, mode)).await
    }

    async fn rmdir(&mut self, id: u32, path: String) -> Answer<Status> {
        let path = self.full(&path);
        self.done(id, move |files| files.remove(&path, true)).await
    }

    async fn realpath(&mut self, id: u32, path: String) -> Answer<Name> {
        let path = self.full(if path == "." { "" } else { &path });
        let real = self.on_files(move |files| files.real_path(&path)).await?;
        Ok(Name { id, files: vec![Listed::dummy(real)] })
    }

    async fn rename(&mut self, id: u32, oldpath: String, newpath: String) -> Answer<Status> {
        let (from, to) = (self.full(&oldpath), self.full(&newpath));
        self.done(id, move |files| files.rename(&from, &to, false)).await
    }

    async fn readlink(&mut self, id: u32, path: String) -> Answer<Name> {
        let path = self.full(&path);
        let target = self.on_files(move |files| files.read_link(&path)).await?;
        Ok(Name { id, files: vec![Listed::dummy(target)] })
    }

    /// The two paths come in the order of OpenSSH, which is not that of the draft.
    async fn symlink(&mut self, id: u32, linkpath: String, targetpath: String) -> Answer<Status> {
        let (target, link) = (linkpath, self.full(&targetpath));
        self.done(id, move |files| files.link(&link, &target)).await
    }

    async fn extended(&mut self, id: u32, request: String, data: Vec<u8>) -> Answer<Packet> {
        let mut texts = Texts(&data);
        match request.as_str() {
            RENAME => {
                let paths = (texts.next(), texts.next());
                let (Some(from), Some(to)) = paths else {
                    return Err(StatusCode::BadMessage.into());
                };
                let (from, to) = (self.full(&from), self.full(&to));
                let status = self.done(id, move |files| files.rename(&from, &to, true)).await?;
                Ok(Packet::Status(status))
            }
            FSYNC => {
                let handle = texts.next().ok_or(StatusCode::BadMessage)?;
                let (file, _) = self.file(&handle)?;
                self.done(id, move |files| file.write(files, File::sync_all))
                    .await
                    .map(Packet::Status)
            }
            _ => Err(StatusCode::OpUnsupported.into()),
        }
    }
}

/// The texts in an extended request, each behind its length.
struct Texts<'a>(&'a [u8]);

impl Iterator for Texts<'_> {
    type Item = String;

    fn next(&mut self) -> Option<String> {
        let (length, rest) = self.0.split_first_chunk::<4>()?;
        let length = usize::try_from(u32::from_be_bytes(*length)).ok()?;
        let (text, rest) = rest.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }
}
