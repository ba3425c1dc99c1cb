//! What a guest's root has before the guest's first process runs.
//!
//! Starting a program costs far more than what most programs do here: so the directories, links and empty
//! files are made by this process, and what is to be mounted over them is written to a table, from which
//! one `mount` takes all of it.

use std::fmt::Write as _;
use std::io;
use std::path::Path;

use super::files::Files;

/// Where a guest asks for its end.
pub(super) const CONTROL: &str = "/run/xenapi-sim/control";
/// The table of mounts, in the guest's directory; `init.sh` has the name too.
pub(super) const MOUNTS: &str = "mounts";
/// What does not outlive a boot.
pub(super) const NOT_KEPT: [&str; 3] = ["run", "tmp", "dev"];
/// What a guest sees of the machine's `/etc`, as it is: large, and of interest only to be read.
pub(super) const SEEN_OF_ETC: [&str; 2] = ["alternatives", "ssl"];

/// Where the machine may have its programs, if not as a link into `/usr`.
const PROGRAMS: [&str; 6] = ["bin", "sbin", "lib", "lib32", "lib64", "libx32"];
const DEVICES: [&str; 6] = ["null", "zero", "full", "random", "urandom", "tty"];

/// Makes what every guest has. Blocks.
pub(super) fn make(files: &Files) -> io::Result<()> {
    for directory in ["/var/lib", "/var/log", "/var/cache", "/home", "/run/xenapi-sim"] {
        files.make_directories(directory)?;
    }
    for (directory, mode) in [("/root", 0o700), ("/tmp", 0o1777), ("/var/tmp", 0o1777)] {
        files.make_directories(directory)?;
        files.set_mode(directory, mode)?;
    }
    files.make_pipe(CONTROL, 0o600)
}

/// Makes what the machine's directories and devices are to be mounted over. Blocks.
pub(super) fn make_for_mounts(files: &Files) -> io::Result<()> {
    for directory in
        ["/proc", "/etc", "/usr", "/sys", "/mnt", "/srv", "/opt", "/dev/pts", "/dev/shm"]
    {
        files.make_directories(directory)?;
    }
    for name in PROGRAMS {
        let (here, there) = (Path::new("/").join(name), format!("/{name}"));
        match here.read_link() {
            // It is the same at every boot, and may be there since the first.
            Ok(target) => match files.link(&there, &target.to_string_lossy()) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                Ok(()) | Err(_) => {}
            },
            Err(_) if here.is_dir() => files.make_directories(&there)?,
            Err(_) => {}
        }
    }
    for name in DEVICES {
        files.write(&format!("/dev/{name}"), b"", 0o644)?;
    }
    let descriptors = [
        ("ptmx", "pts/ptmx"),
        ("fd", "/proc/self/fd"),
        ("stdin", "/proc/self/fd/0"),
        ("stdout", "/proc/self/fd/1"),
        ("stderr", "/proc/self/fd/2"),
    ];
    for (name, target) in descriptors {
        files.link(&format!("/dev/{name}"), target)?;
    }
    Ok(())
}

/// What is mounted below a guest's root when the layers over `/usr` and `/etc` are there, in the form of
/// fstab(5). The targets are relative to the root.
pub(super) fn mounts() -> String {
    let mut table = String::new();
    let mut add = |source: &str, target: &str, kind: &str, options: &str| {
        // Nothing fails that writes to a string.
        let _ = writeln!(table, "{source} {target} {kind} {options} 0 0");
    };
    let of_etc = SEEN_OF_ETC.iter().map(|name| format!("etc/{name}"));
    let programs = PROGRAMS.iter().map(|name| (*name).to_owned());
    for name in of_etc.chain(programs).chain(["opt".to_owned()]) {
        let here = Path::new("/").join(&name);
        if here.is_dir() && !here.is_symlink() {
            add(&format!("/{name}"), &name, "none", "rbind");
        }
    }
    add("proc", "proc", "proc", "defaults");
    for name in DEVICES {
        add(&format!("/dev/{name}"), &format!("dev/{name}"), "none", "bind");
    }
    add("tmpfs", "dev/shm", "tmpfs", "mode=1777");
    add("devpts", "dev/pts", "devpts", "newinstance,ptmxmode=0666,mode=620");
    table
}
