//! Where a guest's processes live: a root and namespaces of their own, or a directory.
//!
//! ```text
//! <state>/.base/etc           the machine's /etc, without what only its owner may read
//! <state>/<vm>/fs             the guest's root, as far as nothing is mounted over it
//! <state>/<vm>/over/usr, etc  what the guest changed of those
//! <state>/<vm>/mounts         what its first process mounts below its root
//! ```
//!
//! The namespaces hang on their first process, which ends when the pipe to it breaks: however this
//! process ends, no process and no mount of a guest outlives it. All of it is put together by the tools
//! of util-linux, so that no code of ours runs between a fork and an exec.

use std::fs::{self, DirBuilder, File};
use std::io;
use std::os::unix::fs::{DirBuilderExt, PermissionsExt, chown, symlink};
use std::path::{Path, PathBuf};
use std::process::Stdio;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use rustix::fs::{FlockOperation, Mode, OFlags, flock};
use rustix::process::{Pid, Signal, kill_process, kill_process_group};
use tokio::io::{AsyncBufReadExt, AsyncReadExt, BufReader};
use tokio::process::{Child, ChildStdin, Command};
use tokio::time::timeout;

use super::files::Files;
use super::{root, starting};
use crate::driver::GuestError;

/// The user that guests of a pool run by `root` are on this machine: nobody's, so that nothing of the
/// machine is theirs.
const GUEST_USER: u32 = 1_879_000_000;
/// How long the first process may take to build the guest's root.
const PATIENCE: Duration = Duration::from_secs(20);
const INIT: &str = include_str!("init.sh");
const BASE: &str = ".base";
const LOCK: &str = ".lock";
const TEMPORARY: &str = "xenapi-sim-guests-";
/// The variable that marks the processes of a guest without namespaces.
const MARK: &str = "XENAPI_SIM_GUEST";

/// How far a guest is kept apart from the machine that it runs on.
#[derive(Clone, Debug, PartialEq, Eq)]
#[non_exhaustive]
pub enum Isolation {
    /// Its own root, processes, mounts and host name. The network is the machine's.
    Namespaces {
        /// Whether it can change its programs: they then are a layer over the machine's.
        layers: bool,
    },
    /// A directory of its own. Its commands see the machine and have the rights of the simulator.
    Directory {
        /// Why there is no more.
        reason: String,
    },
}

/// A command to be run in a guest.
#[derive(Clone, Debug, Default)]
pub(super) struct Launch {
    pub(super) words: Vec<String>,
    pub(super) environment: Vec<(String, String)>,
    /// The guest's path of the directory to start in; its root if that is not there.
    pub(super) directory: String,
    /// Whether standard input becomes the controlling terminal.
    pub(super) terminal: bool,
}

/// The directory of all guests.
#[derive(Clone, Debug)]
pub(super) struct Place {
    state: PathBuf,
    owner: Option<u32>,
    /// Whether a guest is or was a mere directory, so that its processes are known by their mark alone:
    /// to look for that in all processes of the machine is dear.
    has_marked: Arc<AtomicBool>,
    // Held: no other simulator may use the directory meanwhile.
    _lock: Arc<File>,
}

impl Place {
    /// Makes the directory if need be.
    pub(super) fn open(state: &Path) -> io::Result<Self> {
        fs::create_dir_all(state)?;
        let state = state.canonicalize()?;
        let lock = Arc::new(File::create(state.join(LOCK))?);
        flock(&lock, FlockOperation::NonBlockingLockExclusive).map_err(|_| {
            io::Error::new(io::ErrorKind::ResourceBusy, "another simulator uses it")
        })?;
        // Guests find what they share beside their own directory.
        fs::set_permissions(&state, fs::Permissions::from_mode(0o711))?;
        let owner = rustix::process::geteuid().is_root().then_some(GUEST_USER);
        Ok(Self { state, owner, has_marked: Arc::default(), _lock: lock })
    }

    /// Makes a directory for temporary files, and removes those that were left by simulators that
    /// are no more.
    pub(super) fn temporary() -> io::Result<Self> {
        let base = std::env::temp_dir();
        for entry in fs::read_dir(&base)?.flatten() {
            let own = entry.file_name().to_string_lossy().starts_with(TEMPORARY);
            // One that is in use, or somebody else's, stays.
            if own && let Ok(left) = Self::open(&entry.path()) {
                left.end_left_over();
                // Whatever stays is in the way of nobody.
                let _ = left.remove_all();
            }
        }
        let name = uuid::Uuid::new_v4().simple();
        // It gets a name that others look for when it is locked already: they would remove it.
        let mut made = Self::open(&base.join(format!(".{TEMPORARY}{name}")))?;
        let path = base.join(format!("{TEMPORARY}{name}"));
        fs::rename(&made.state, &path)?;
        made.state = path;
        Ok(made)
    }

    /// Removes the directory with all that is in it.
    pub(super) fn remove_all(&self) -> io::Result<()> {
        remove_all(&self.state)
    }

    pub(super) fn guest(&self, name: &str) -> PathBuf {
        self.state.join(name)
    }

    /// The names of the guests that have a directory.
    pub(super) fn guests(&self) -> io::Result<Vec<String>> {
        let names = fs::read_dir(&self.state)?.flatten().map(|entry| entry.file_name());
        let names = names.filter_map(|name| name.into_string().ok());
        Ok(names.filter(|name| !name.starts_with('.')).collect())
    }

    /// Ends what still runs of guests that have no namespaces: a start, after a crash, begins so.
    pub(super) fn end_left_over(&self) {
        let prefix = format!("{}/", self.state.display());
        kill_marked(|mark| mark.starts_with(&prefix));
    }

    /// Ends what still runs of a guest and removes its directory. That there is none is no failure.
    pub(super) fn remove(&self, name: &str) -> io::Result<()> {
        let directory = self.guest(name);
        if self.has_marked.load(Ordering::Relaxed) {
            let mark = directory.display().to_string();
            kill_marked(|found| found == mark);
        }
        remove_all(&directory)
    }

    /// Makes what a guest's directory needs, and empties what does not outlive a boot. Blocks.
    fn prepare(&self, name: &str, namespaces: bool) -> io::Result<PathBuf> {
        self.make_base()?;
        let directory = self.guest(name);
        let over = ["usr/bin", "usr/sbin", "usr/lib", "usr/share", "usr.work", "etc", "etc.work"];
        let local = ["bin", "sbin", "lib", "share", "etc", "include"];
        let over = over.iter().map(|name| format!("over/{name}"));
        let local = local.iter().map(|name| format!("over/usr/local/{name}"));
        for name in over.chain(local).chain(["fs".to_owned()]) {
            make_directories(&directory, Path::new(&name), self.owner)?;
        }
        let root = directory.join("fs");
        for name in root::NOT_KEPT {
            remove_all(&root.join(name))?;
        }
        let files = Files::new(open_root(&root)?, None, self.owner);
        root::make(&files)?;
        if namespaces {
            root::make_for_mounts(&files)?;
            for name in root::SEEN_OF_ETC {
                make_directories(&directory, &Path::new("over/etc").join(name), self.owner)?;
            }
            fs::write(directory.join(root::MOUNTS), root::mounts())?;
        }
        Ok(directory)
    }

    /// Copies what everybody may read of the machine's `/etc`, once.
    fn make_base(&self) -> io::Result<()> {
        let base = self.state.join(BASE);
        if base.join("etc").exists() {
            return Ok(());
        }
        let unfinished = base.join(format!("etc.{}", uuid::Uuid::new_v4().simple()));
        fs::create_dir_all(&base)?;
        fs::set_permissions(&base, fs::Permissions::from_mode(0o711))?;
        copy_public(Path::new("/etc"), &unfinished, self.owner, 0)?;
        let passwd = system_accounts(&fs::read_to_string("/etc/passwd").unwrap_or_default());
        let group = fs::read_to_string("/etc/group").unwrap_or_default();
        for (name, contents) in [("passwd", passwd), ("group", group)] {
            let path = unfinished.join(name);
            fs::write(&path, contents)?;
            give(&path, self.owner)?;
        }
        match fs::rename(&unfinished, base.join("etc")) {
            // Another guest's boot was faster.
            Err(_) if base.join("etc").exists() => remove_all(&unfinished),
            other => other,
        }
    }
}

/// What of `/etc` is a machine's own, or secret, or of no use without the machine's services, or given to
/// guests in another way.
const NOT_COPIED: [&str; 29] = [
    "X11",
    "alternatives",
    "apparmor.d",
    "cloud",
    "fonts",
    "group",
    "group-",
    "gshadow",
    "gshadow-",
    "hostname",
    "hosts",
    "init.d",
    "machine-id",
    "mtab",
    "passwd",
    "passwd-",
    "rc0.d",
    "rc1.d",
    "rc2.d",
    "rc3.d",
    "rc4.d",
    "rc5.d",
    "rc6.d",
    "rcS.d",
    "shadow",
    "shadow-",
    "ssh",
    "ssl",
    "systemd",
];
/// Deep enough for any `/etc`, and an end for one that is made to have none.
const DEEPEST: usize = 16;

fn copy_public(from: &Path, to: &Path, owner: Option<u32>, depth: usize) -> io::Result<()> {
    DirBuilder::new().mode(0o755).create(to)?;
    give(to, owner)?;
    for entry in fs::read_dir(from)?.flatten() {
        let (name, Ok(metadata)) = (entry.file_name(), entry.metadata()) else { continue };
        if depth == 0 && NOT_COPIED.iter().any(|secret| name == *secret) {
            continue;
        }
        let (source, target) = (entry.path(), to.join(&name));
        let public = metadata.permissions().mode() & 0o004 != 0;
        if metadata.is_symlink() {
            symlink(fs::read_link(&source)?, &target)?;
        } else if metadata.is_dir() && public && depth < DEEPEST {
            copy_public(&source, &target, owner, depth + 1)?;
        } else if metadata.is_file() && public && fs::copy(&source, &target).is_ok() {
            give(&target, owner)?;
        }
    }
    Ok(())
}

/// The lines of accounts that no person has.
fn system_accounts(passwd: &str) -> String {
    let number = |line: &str| line.split(':').nth(2).and_then(|uid| uid.parse::<u32>().ok());
    let lines =
        passwd.lines().filter(|line| number(line).is_some_and(|uid| uid < 1000 || uid == 65534));
    lines.flat_map(|line| [line, "\n"]).collect()
}

fn give(path: &Path, owner: Option<u32>) -> io::Result<()> {
    owner.map_or(Ok(()), |owner| chown(path, Some(owner), Some(owner)))
}

fn make_directories(base: &Path, below: &Path, owner: Option<u32>) -> io::Result<()> {
    let mut path = base.to_owned();
    for part in std::iter::once(None).chain(below.components().map(Some)) {
        path.extend(part);
        match DirBuilder::new().mode(if part.is_none() { 0o700 } else { 0o755 }).create(&path) {
            Ok(()) => give(&path, owner)?,
            Err(error) if error.kind() == io::ErrorKind::AlreadyExists => {}
            Err(error) => return Err(error),
        }
    }
    Ok(())
}

/// Removes a tree, also where its owner barred itself from a directory. Links are not followed.
fn remove_all(path: &Path) -> io::Result<()> {
    let gone = |error: io::Error| match error.kind() {
        io::ErrorKind::NotFound => Ok(()),
        _ => Err(error),
    };
    match fs::remove_dir_all(path) {
        Ok(()) => Ok(()),
        Err(error) if error.kind() == io::ErrorKind::PermissionDenied => {
            open_up(path, 0);
            fs::remove_dir_all(path).or_else(gone)
        }
        Err(error) => gone(error),
    }
}

fn open_up(path: &Path, depth: usize) {
    let Ok(metadata) = fs::symlink_metadata(path) else { return };
    if !metadata.is_dir() || depth > 128 {
        return;
    }
    // Whatever fails here shows when the tree is removed.
    let _ = fs::set_permissions(path, fs::Permissions::from_mode(0o700));
    for entry in fs::read_dir(path).into_iter().flatten().flatten() {
        open_up(&entry.path(), depth + 1);
    }
}

/// A guest's running sandbox.
#[derive(Debug)]
pub(super) struct Sandbox {
    directory: PathBuf,
    isolation: Isolation,
    files: Files,
    init: Option<Init>,
}

/// The first process of a guest with namespaces.
#[derive(Debug)]
struct Init {
    pid: Pid,
    /// `unshare`, which ends with it.
    keeper: Child,
    // Held: the guest ends with it.
    _lifeline: ChildStdin,
}

impl Sandbox {
    /// Builds a guest's root, in which it sees the shared directories, and starts its first process; where
    /// that cannot be, or nothing is said of what is shared, makes a directory do.
    pub(super) async fn start(
        place: &Place,
        name: &str,
        shared: Option<&[PathBuf]>,
    ) -> Result<Self, GuestError> {
        let (place, name) = (place.clone(), name.to_owned());
        let (owner, has_marked) = (place.owner, Arc::clone(&place.has_marked));
        let namespaces = shared.is_some();
        let directory = blocking(move || place.prepare(&name, namespaces)).await?;
        let visible = directory.join("fs");
        let started = match shared {
            Some(shared) => start_init(&directory, owner, shared).await,
            None => Err("directories were asked for".into()),
        };
        match started {
            Ok((init, layers)) => {
                let root = PathBuf::from(format!("/proc/{}/root", init.pid.as_raw_nonzero()));
                let files =
                    Files::new(open_root(&root).map_err(|error| failure(&error))?, None, owner);
                let isolation = Isolation::Namespaces { layers };
                Ok(Self { directory, isolation, files, init: Some(init) })
            }
            Err(reason) => {
                tracing::warn!(reason, "guests are not isolated");
                has_marked.store(true, Ordering::Relaxed);
                let root = open_root(&visible).map_err(|error| failure(&error))?;
                let files = Files::new(root, Some(visible.display().to_string()), None);
                let isolation = Isolation::Directory { reason };
                Ok(Self { directory, isolation, files, init: None })
            }
        }
    }

    pub(super) fn isolation(&self) -> &Isolation {
        &self.isolation
    }

    pub(super) fn files(&self) -> &Files {
        &self.files
    }

    /// Where the guest asks for its end, seen from outside.
    pub(super) fn control(&self) -> PathBuf {
        self.directory.join("fs").join(&root::CONTROL[1..])
    }

    pub(super) fn entry(&self) -> Entry {
        Entry {
            init: self.init.as_ref().map(|init| init.pid),
            mark: self.directory.display().to_string(),
            files: self.files.clone(),
        }
    }

    /// Waits until the guest's first process has ended; for ever where there is none.
    pub(super) async fn wait(&mut self) {
        match &mut self.init {
            // Whatever it says, the process is not there any more.
            Some(init) => drop(init.keeper.wait().await),
            None => std::future::pending().await,
        }
    }

    /// Kills all of the guest's processes; returns when they are gone, and with them the mounts.
    pub(super) async fn stop(mut self) {
        if let Some(init) = &mut self.init {
            let _ = kill_process(init.pid, Signal::KILL);
            // `unshare` ends when the first process has, and that when all others have.
            if timeout(PATIENCE, init.keeper.wait()).await.is_err() {
                tracing::warn!(guest = %self.directory.display(), "its processes do not end");
            }
            return;
        }
        let mark = self.directory.display().to_string();
        let _ = blocking(move || {
            kill_marked(|found| found == mark);
            Ok(())
        })
        .await;
    }
}

/// The way for processes into a running sandbox.
#[derive(Clone, Debug)]
pub(super) struct Entry {
    init: Option<Pid>,
    mark: String,
    files: Files,
}

impl Entry {
    /// The command that runs this in the guest. It leads a session of its own.
    pub(super) fn command(&self, launch: &Launch) -> Command {
        let mut command = if let Some(init) = self.init {
            let mut command = starting::program("nsenter");
            command.arg(format!("--target={}", init.as_raw_nonzero()));
            if self.files.owner().is_none() {
                // This user is the guest's root already, and may not change its groups.
                command.arg("--preserve-credentials");
            }
            command.args(["--user", "--mount", "--pid", "--uts", "--ipc", "--root", "--wd", "--"]);
            command
        } else {
            let mut command = starting::program("setpriv");
            command.args(["--pdeathsig", "KILL", "--"]);
            command
        };
        command.arg("setsid");
        if launch.terminal {
            command.arg("--ctty");
        }
        let enter = "cd -- \"$1\" 2>/dev/null || cd \"$2\"; shift 2; exec \"$@\"";
        command.args(["sh", "-c", enter, "sh"]);
        command.arg(self.files.visible(&launch.directory)).arg(self.files.visible("/"));
        command.args(&launch.words);
        command.env_clear().env("PATH", self.path());
        command.envs(launch.environment.iter().map(|(name, value)| (name, value)));
        if self.init.is_none() {
            command.env(MARK, &self.mark).env("TMPDIR", self.files.visible("/tmp"));
        }
        command.current_dir("/").kill_on_drop(true);
        command
    }

    fn path(&self) -> String {
        if self.has_namespaces() {
            return starting::PATH.to_owned();
        }
        let own = ["/usr/local/sbin", "/usr/local/bin"].map(|path| self.files.visible(path));
        format!("{}:{}", own.join(":"), starting::PATH)
    }

    /// Whether the guest has namespaces of its own.
    pub(super) fn has_namespaces(&self) -> bool {
        self.init.is_some()
    }

    /// Sends a signal to what a command of this guest runs, given the number of the command's process.
    pub(super) fn signal(&self, command: u32, signal: Signal) {
        let target = match self.init {
            // Ours is `nsenter`, which waits for the guest's process.
            Some(_) => child_of(command),
            None => number(command),
        };
        if let Some(target) = target {
            // It may have ended just now.
            let _ = kill_process_group(target, signal);
        }
    }

    /// Sends a signal to every process of the guest, its first one left out. Blocks.
    pub(super) fn signal_all(&self, signal: Signal) {
        for pid in self.processes() {
            let _ = kill_process(pid, signal);
        }
    }

    /// The guest's processes, as this machine numbers them, the first one left out. Blocks.
    pub(super) fn processes(&self) -> Vec<Pid> {
        let Some(init) = self.init else { return marked(|mark| mark == self.mark) };
        let namespace =
            |pid: Pid| fs::read_link(format!("/proc/{}/ns/pid", pid.as_raw_nonzero())).ok();
        let Some(own) = namespace(init) else { return Vec::new() };
        let others = processes().into_iter().filter(|pid| *pid != init);
        others.filter(|pid| namespace(*pid).is_some_and(|found| found == own)).collect()
    }
}

async fn start_init(
    directory: &Path,
    owner: Option<u32>,
    shared: &[PathBuf],
) -> Result<(Init, bool), String> {
    let mut command = match owner {
        Some(owner) => {
            let mut command = starting::program("setpriv");
            command.arg(format!("--reuid={owner}")).arg(format!("--regid={owner}"));
            command.args(["--clear-groups", "--", "unshare"]);
            command
        }
        None => starting::program("unshare"),
    };
    command.args(["--user", "--map-root-user", "--mount", "--pid", "--uts", "--ipc", "--fork"]);
    command.args(["--kill-child=KILL", "--", "sh", "-c", INIT, "sh"]).args(shared);
    command.env_clear().env("PATH", starting::PATH).current_dir(directory).kill_on_drop(true);
    command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
    let mut keeper = starting::start(&mut command)
        .map_err(|error| format!("`unshare` cannot be run: {error}"))?;
    let (lifeline, output) = (keeper.stdin.take(), keeper.stdout.take());
    let (Some(lifeline), Some(output)) = (lifeline, output) else {
        return Err("`unshare` was started without its pipes".into());
    };
    let mut line = String::new();
    let mut output = BufReader::new(output);
    let read = timeout(PATIENCE, output.read_line(&mut line)).await;
    let layers = match line.trim_end() {
        "ready with" => true,
        "ready without" => false,
        _ => {
            let _ = keeper.start_kill();
            return Err(match read {
                Ok(_) => complaint(&mut keeper).await,
                Err(_) => "its root was not built in time".into(),
            });
        }
    };
    let pid = keeper.id().and_then(child_of).ok_or("its first process cannot be found")?;
    Ok((Init { pid, keeper, _lifeline: lifeline }, layers))
}

/// The last thing that a failed process had to say.
async fn complaint(keeper: &mut Child) -> String {
    let mut text = Vec::new();
    if let Some(errors) = keeper.stderr.take() {
        let _ = timeout(PATIENCE, errors.take(64 << 10).read_to_end(&mut text)).await;
    }
    let text = String::from_utf8_lossy(&text);
    let line = text.lines().find(|line| !line.trim().is_empty() && !line.contains("dmesg"));
    line.unwrap_or("its root could not be built").trim().to_owned()
}

fn open_root(path: &Path) -> io::Result<std::os::fd::OwnedFd> {
    let flags = OFlags::PATH | OFlags::DIRECTORY | OFlags::CLOEXEC;
    Ok(rustix::fs::open(path, flags, Mode::empty())?)
}

fn number(pid: u32) -> Option<Pid> {
    Pid::from_raw(i32::try_from(pid).ok()?)
}

fn child_of(pid: u32) -> Option<Pid> {
    let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).ok()?;
    number(children.split_whitespace().next()?.parse().ok()?)
}

fn processes() -> Vec<Pid> {
    let entries = fs::read_dir("/proc").into_iter().flatten().flatten();
    entries.filter_map(|entry| number(entry.file_name().to_str()?.parse().ok()?)).collect()
}

/// The processes whose mark is wanted.
fn marked(wanted: impl Fn(&str) -> bool) -> Vec<Pid> {
    let is_marked = |pid: &Pid| {
        let path = format!("/proc/{}/environ", pid.as_raw_nonzero());
        let Ok(environment) = fs::read(path) else { return false };
        let mut variables = environment.split(|byte| *byte == 0);
        let mark = variables.find_map(|variable| {
            std::str::from_utf8(variable).ok()?.strip_prefix(MARK)?.strip_prefix('=')
        });
        mark.is_some_and(&wanted)
    };
    let own = rustix::process::getpid();
    processes().into_iter().filter(|pid| *pid != own).filter(is_marked).collect()
}

/// Kills marked processes, and those that they start meanwhile.
fn kill_marked(wanted: impl Fn(&str) -> bool) {
    for _ in 0..100 {
        let found = marked(&wanted);
        if found.is_empty() {
            return;
        }
        for pid in found {
            let _ = kill_process(pid, Signal::KILL);
        }
    }
}

/// Runs what blocks on a thread that may.
pub(super) async fn blocking<T: Send + 'static>(
    work: impl FnOnce() -> io::Result<T> + Send + 'static,
) -> Result<T, GuestError> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done.map_err(|error| failure(&error)),
        Err(error) => Err(GuestError { message: error.to_string() }),
    }
}

fn failure(error: &io::Error) -> GuestError {
    GuestError { message: format!("the guest's files: {error}") }
}
