//! The files of a guest, seen from outside and never past its root.
//!
//! Paths are those that the guest uses. They are resolved by the kernel below the guest's root, links
//! included, so that nothing in a guest can point out of it. Every call blocks.

use std::ffi::{OsStr, OsString};
use std::fs::{self, File};
use std::io::{self, Read, Write};
use std::os::fd::{AsRawFd, OwnedFd};
use std::os::unix::fs::PermissionsExt;
use std::sync::{Arc, PoisonError, RwLock, RwLockReadGuard};

use nix::unistd::{Gid, Uid, setfsgid, setfsuid};
use rustix::fs::{
    AtFlags, CWD, FileType, Mode, OFlags, RawDir, ResolveFlags, Stat, Timespec, Timestamps, fstat,
    mkdirat, mknodat, openat2, readlinkat, renameat, statat, symlinkat, unlinkat, utimensat,
};
use rustix::io::Errno;

use super::starting;

/// The longest file that is read as a whole.
const LONGEST: u64 = 4 << 20;

/// The files below a guest's root.
#[derive(Clone, Debug)]
pub(super) struct Files {
    root: Arc<OwnedFd>,
    /// Whether the guest has ended; read for as long as something is done to its files.
    ended: Arc<RwLock<bool>>,
    /// Where the root is on this machine, when guests see that path: it may stand before theirs.
    visible_root: Option<String>,
    /// The user who owns what is made, unless it is the one that this process runs as.
    owner: Option<u32>,
}

impl Files {
    pub(super) fn new(root: OwnedFd, visible_root: Option<String>, owner: Option<u32>) -> Self {
        Self { root: Arc::new(root), ended: Arc::default(), visible_root, owner }
    }

    /// Lets nothing be done any more: what is being done is waited for, the rest fails. Work that was given
    /// up goes on by its thread, and must not meet the next boot.
    pub(super) fn close(&self) {
        *self.ended.write().unwrap_or_else(PoisonError::into_inner) = true;
    }

    fn begin(&self) -> io::Result<Access<'_>> {
        let ended = self.ended.read().unwrap_or_else(PoisonError::into_inner);
        if *ended {
            return Err(io::Error::other("the guest has ended"));
        }
        Ok(Access { _as_guest: AsGuest::become_owner(self.owner), _ended: ended })
    }

    /// The user who owns what is made, unless it is the one that this process runs as.
    pub(super) fn owner(&self) -> Option<u32> {
        self.owner
    }

    /// The path as it is below the root.
    fn inner<'a>(&self, path: &'a str) -> &'a str {
        let stripped = self.visible_root.as_deref().and_then(|root| path.strip_prefix(root));
        match stripped {
            Some("") => "/",
            Some(rest) if rest.starts_with('/') => rest,
            Some(_) | None => path,
        }
    }

    /// The path by which commands in the guest find this one.
    pub(super) fn visible(&self, path: &str) -> String {
        match &self.visible_root {
            Some(root) => format!("{root}{}", self.inner(path)),
            None => path.to_owned(),
        }
    }

    pub(super) fn open(&self, path: &str, flags: OFlags, mode: u32) -> io::Result<File> {
        let _access = self.begin()?;
        let mode =
            if flags.contains(OFlags::CREATE) { Mode::from_raw_mode(mode) } else { Mode::empty() };
        // A pipe or a terminal must not hold us up.
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        Ok(File::from(self.resolve(path, flags, mode)?))
    }

    /// Opens a file that is open in another way.
    pub(super) fn open_again(&self, file: &File, flags: OFlags) -> io::Result<File> {
        let _access = self.begin()?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        let flags = flags | OFlags::CLOEXEC | OFlags::NOCTTY | OFlags::NONBLOCK;
        Ok(File::from(rustix::fs::open(path, flags, Mode::empty())?))
    }

    pub(super) fn read(&self, path: &str) -> io::Result<Vec<u8>> {
        let file = self.open(path, OFlags::RDONLY, 0)?;
        if !file.metadata()?.is_file() {
            return Err(io::Error::new(io::ErrorKind::InvalidInput, "it is no regular file"));
        }
        let mut contents = Vec::new();
        file.take(LONGEST).read_to_end(&mut contents)?;
        Ok(contents)
    }

    pub(super) fn read_text(&self, path: &str) -> io::Result<String> {
        Ok(String::from_utf8_lossy(&self.read(path)?).into_owned())
    }

    /// Writes a file, with the directories that lead to it.
    pub(super) fn write(&self, path: &str, contents: &[u8], mode: u32) -> io::Result<()> {
        self.put(path, contents, mode, OFlags::TRUNC)
    }

    /// Adds to a file, which is made if need be.
    pub(super) fn append(&self, path: &str, contents: &[u8], mode: u32) -> io::Result<()> {
        self.put(path, contents, mode, OFlags::APPEND)
    }

    fn put(&self, path: &str, contents: &[u8], mode: u32, how: OFlags) -> io::Result<()> {
        if let Some((directory, _)) = self.inner(path).rsplit_once('/') {
            self.make_directories(directory)?;
        }
        let _writing = starting::writing();
        let mut file = self.open(path, OFlags::WRONLY | OFlags::CREATE | how, mode)?;
        file.write_all(contents)?;
        let _access = self.begin()?;
        file.set_permissions(fs::Permissions::from_mode(mode))
    }

    pub(super) fn make_directories(&self, path: &str) -> io::Result<()> {
        let path = self.inner(path);
        let mut end = 0;
        while end < path.len() {
            end = path[end + 1..].find('/').map_or(path.len(), |at| end + 1 + at);
            match self.make_directory(&path[..end], 0o755) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            }
        }
        Ok(())
    }

    pub(super) fn make_directory(&self, path: &str, mode: u32) -> io::Result<()> {
        self.in_parent(path, |parent, name| mkdirat(parent, name, Mode::from_raw_mode(mode)))
    }

    pub(super) fn stat(&self, path: &str, follow: bool) -> io::Result<Stat> {
        if follow {
            let _access = self.begin()?;
            return Ok(fstat(self.resolve(
                path,
                OFlags::PATH | OFlags::CLOEXEC,
                Mode::empty(),
            )?)?);
        }
        self.in_parent(path, |parent, name| statat(parent, name, AtFlags::SYMLINK_NOFOLLOW))
    }

    pub(super) fn exists(&self, path: &str) -> bool {
        self.stat(path, true).is_ok()
    }

    /// The names in a directory and what they are, `.` and `..` left out.
    pub(super) fn list(&self, path: &str) -> io::Result<Vec<(OsString, Stat)>> {
        let directory = self.open(path, OFlags::RDONLY | OFlags::DIRECTORY, 0)?;
        let mut buffer = Vec::with_capacity(16 << 10);
        let mut entries = RawDir::new(&directory, buffer.spare_capacity_mut());
        let mut listed = Vec::new();
        while let Some(entry) = entries.next() {
            let entry = entry?;
            let name = entry.file_name();
            if [c".", c".."].contains(&name) {
                continue;
            }
            // One that has gone meanwhile is left out.
            if let Ok(stat) = statat(&directory, name, AtFlags::SYMLINK_NOFOLLOW) {
                let name = OsStr::from_encoded_bytes(name.to_bytes());
                listed.push((name, stat));
            }
        }
        Ok(listed)
    }

    pub(super) fn remove(&self, path: &str, directory: bool) -> io::Result<()> {
        let flags = if directory { AtFlags::REMOVEDIR } else { AtFlags::empty() };
        self.in_parent(path, |parent, name| unlinkat(parent, name, flags))
    }

    pub(super) fn rename(&self, from: &str, to: &str, replace: bool) -> io::Result<()> {
        if !replace && self.stat(to, false).is_ok() {
            return Err(io::ErrorKind::AlreadyExists.into());
        }
        self.in_parent(from, |from_parent, from_name| {
            let target = self.parent(to)?;
            renameat(from_parent, from_name, &target.0, target.1)
        })
    }

    pub(super) fn link(&self, path: &str, target: &str) -> io::Result<()> {
        self.in_parent(path, |parent, name| symlinkat(target, parent, name))
    }

    /// Makes a named pipe.
    pub(super) fn make_pipe(&self, path: &str, mode: u32) -> io::Result<()> {
        let mode = Mode::from_raw_mode(mode);
        self.in_parent(path, |parent, name| mknodat(parent, name, FileType::Fifo, mode, 0))
    }

    pub(super) fn read_link(&self, path: &str) -> io::Result<String> {
        let target = self.in_parent(path, |parent, name| readlinkat(parent, name, Vec::new()))?;
        Ok(target.to_string_lossy().into_owned())
    }

    pub(super) fn set_mode(&self, path: &str, mode: u32) -> io::Result<()> {
        let _access = self.begin()?;
        let file = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        // The way to a file that may be unreadable: by its descriptor.
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        fs::set_permissions(path, fs::Permissions::from_mode(mode & 0o7777))
    }

    pub(super) fn set_times(&self, path: &str, accessed: u32, modified: u32) -> io::Result<()> {
        let time = |seconds: u32| Timespec { tv_sec: seconds.into(), tv_nsec: 0 };
        let times = Timestamps { last_access: time(accessed), last_modification: time(modified) };
        let _access = self.begin()?;
        let file = self.resolve(path, OFlags::PATH | OFlags::CLOEXEC, Mode::empty())?;
        let path = format!("/proc/self/fd/{}", file.as_raw_fd());
        Ok(utimensat(CWD, path, &times, AtFlags::empty())?)
    }

    /// The path without links, dots and repeated slashes; what is not there is kept as it is.
    pub(super) fn real_path(&self, path: &str) -> io::Result<String> {
        let _access = self.begin()?;
        let plain = normal(self.inner(path));
        let Ok(file) = self.resolve(&plain, OFlags::PATH | OFlags::CLOEXEC, Mode::empty()) else {
            return Ok(self.visible(&plain));
        };
        let shown = |fd: i32| fs::read_link(format!("/proc/self/fd/{fd}"));
        let (root, found) = (shown(self.root.as_raw_fd())?, shown(file.as_raw_fd())?);
        let below = found.strip_prefix(&root).ok().and_then(|path| path.to_str());
        Ok(self.visible(&below.map_or(plain, |below| format!("/{below}"))))
    }

    fn resolve(&self, path: &str, flags: OFlags, mode: Mode) -> Result<OwnedFd, Errno> {
        let path = self.inner(path);
        let path = if path.is_empty() { "/" } else { path };
        let resolve = ResolveFlags::IN_ROOT | ResolveFlags::NO_MAGICLINKS;
        loop {
            match openat2(&*self.root, path, flags, mode, resolve) {
                // Something was being renamed on the way.
                Err(Errno::AGAIN) => {}
                result => return result,
            }
        }
    }

    fn parent<'a>(&self, path: &'a str) -> Result<(OwnedFd, &'a str), Errno> {
        let path = self.inner(path).trim_end_matches('/');
        let (directory, name) = path.rsplit_once('/').unwrap_or(("/", path));
        if name.is_empty() || name == "." || name == ".." {
            return Err(Errno::BUSY);
        }
        let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
        Ok((self.resolve(directory, flags, Mode::empty())?, name))
    }

    /// Does something to the last part of a path, which is not followed if it is a link.
    fn in_parent<T>(
        &self,
        path: &str,
        action: impl FnOnce(&OwnedFd, &str) -> Result<T, Errno>,
    ) -> io::Result<T> {
        let _access = self.begin()?;
        let (parent, name) = self.parent(path)?;
        Ok(action(&parent, name)?)
    }
}

/// Takes dots and repeated slashes out.
fn normal(path: &str) -> String {
    let mut parts: Vec<&str> = Vec::new();
    for part in path.split('/') {
        match part {
            "" | "." => {}
            ".." => drop(parts.pop()),
            part => parts.push(part),
        }
    }
    format!("/{}", parts.join("/"))
}

trait FromBytes {
    fn from_encoded_bytes(bytes: &[u8]) -> OsString;
}

impl FromBytes for OsStr {
    fn from_encoded_bytes(bytes: &[u8]) -> OsString {
        use std::os::unix::ffi::OsStrExt;
        Self::from_bytes(bytes).to_owned()
    }
}

/// Held while something is done to a guest's files.
struct Access<'a> {
    _as_guest: AsGuest,
    _ended: RwLockReadGuard<'a, bool>,
}

/// While it lives, this thread's file accesses are those of the guests' user: what is made belongs to
/// it, and what it may not do is refused.
struct AsGuest {
    before: Option<(Uid, Gid)>,
}

impl AsGuest {
    fn become_owner(owner: Option<u32>) -> Self {
        let before = owner.map(|owner| {
            let group = setfsgid(Gid::from_raw(owner));
            (setfsuid(Uid::from_raw(owner)), group)
        });
        Self { before }
    }
}

impl Drop for AsGuest {
    fn drop(&mut self) {
        if let Some((user, group)) = self.before {
            setfsuid(user);
            setfsgid(group);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn files() -> (tempfile::TempDir, Files) {
        let directory = tempfile::tempdir().unwrap();
        let root =
            rustix::fs::open(directory.path(), OFlags::PATH | OFlags::DIRECTORY, Mode::empty());
        (directory, Files::new(root.unwrap(), None, None))
    }

    #[test]
    fn nothing_is_done_to_the_files_of_a_guest_that_has_ended() {
        let (_directory, files) = files();
        let again = files.clone();
        files.write("/a", b"1", 0o644).unwrap();
        again.close();
        assert!(
            files.write("/a", b"2", 0o644).is_err() && files.make_directory("/b", 0o755).is_err()
        );
        assert!(files.remove("/a", false).is_err() && files.read("/a").is_err());
    }

    #[test]
    fn links_and_dots_do_not_lead_out_of_the_root() {
        let (directory, files) = files();
        std::fs::write(directory.path().join("secret"), "inside").unwrap();
        files.link("/out", "/../../../../secret").unwrap();
        files.link("/etc", "/").unwrap();
        assert_eq!(files.read("/out").unwrap(), b"inside");
        assert_eq!(files.read("/etc/../../../etc/secret").unwrap(), b"inside");
        files.write("/etc/new/file", b"x", 0o640).unwrap();
        assert!(directory.path().join("new/file").is_file());
        assert!(files.read("/etc/passwd").is_err());
    }

    #[test]
    fn a_link_is_removed_and_not_what_it_points_to() {
        let (_directory, files) = files();
        files.write("/kept", b"x", 0o600).unwrap();
        files.link("/link", "/kept").unwrap();
        assert_eq!(files.read_link("/link").unwrap(), "/kept");
        files.remove("/link", false).unwrap();
        assert!(files.exists("/kept"));
        assert_eq!(files.real_path("/./a/..//kept").unwrap(), "/kept");
    }

    #[test]
    fn directories_are_listed_and_renamed() {
        let (_directory, files) = files();
        files.write("/a/b/c", b"x", 0o600).unwrap();
        files.rename("/a/b", "/d", false).unwrap();
        assert!(files.rename("/a", "/d", false).is_err());
        let names: Vec<OsString> = files.list("/").unwrap().into_iter().map(|(n, _)| n).collect();
        assert_eq!(names.len(), 2, "{names:?}");
        files.remove("/d/c", false).unwrap();
        files.remove("/d", true).unwrap();
        files.set_mode("/a", 0o700).unwrap();
        assert_eq!(files.stat("/a", true).unwrap().st_mode & 0o777, 0o700);
        assert!(files.remove("/", true).is_err());
    }
}
