//! A cgroup for a VM that may start programs: bounds its processes and the memory of all of them.
//!
//! Used where this process may make one below its own: as root, or where a group was delegated to
//! it. Both versions are served; version 1 has a hierarchy for each controller. A group is removed
//! when its VM has ended; one that a crash has left is removed by the next program that makes one.

use std::fs;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::atomic::{AtomicU64, Ordering};

use bioxen_core::{Limit, Limits};

const ROOT: &str = "/sys/fs/cgroup";
const PREFIX: &str = "bioxen-";

static NEXT: AtomicU64 = AtomicU64::new(0);

/// A cgroup, as one directory for each hierarchy. Removed when dropped, if its processes are gone.
#[derive(Debug)]
pub struct Cgroup {
    directories: Vec<PathBuf>,
}

/// A place in which groups can be made, and the names of its limits.
struct Hierarchy {
    parent: PathBuf,
    processes: Option<&'static str>,
    memory: Option<&'static str>,
}

impl Cgroup {
    /// Makes a group with these limits, or says why that cannot be done here.
    pub fn create(limits: &Limits) -> Result<Self, String> {
        let hierarchies =
            find_hierarchies(&fs::read_to_string("/proc/self/cgroup").unwrap_or_default());
        if !hierarchies.iter().any(|hierarchy| hierarchy.processes.is_some()) {
            return Err("no cgroup controller for processes is mounted".into());
        }
        let number = NEXT.fetch_add(1, Ordering::Relaxed);
        let name = format!("{PREFIX}{}-{number}", std::process::id());
        let mut group = Self { directories: Vec::new() };
        for hierarchy in hierarchies {
            remove_stale(&hierarchy.parent);
            let directory = hierarchy.parent.join(&name);
            fs::create_dir(&directory).map_err(|error| describe(&directory, &error))?;
            group.directories.push(directory.clone());
            let bound = |file: &str, value: String| {
                let path = directory.join(file);
                fs::write(&path, value).map_err(|error| describe(&path, &error))
            };
            if let (Some(file), Limit::Of(processes)) =
                (hierarchy.processes, limits.child_processes)
            {
                // The worker itself is one of them.
                bound(file, (u64::from(processes) + 1).to_string())?;
            }
            if let (Some(file), Limit::Of(memory)) = (hierarchy.memory, limits.memory) {
                // The worker's own pages come on top of what Lua may hold.
                bound(file, memory.as_u64().saturating_add(16 << 20).to_string())?;
            }
        }
        Ok(group)
    }

    /// The directories that a process enters by writing its number to `cgroup.procs` there.
    pub fn directories(&self) -> &[PathBuf] {
        &self.directories
    }

    /// Removes the group; `false` while it still has processes.
    pub fn remove(&mut self) -> bool {
        self.directories.retain(|directory| {
            matches!(fs::remove_dir(directory), Err(error) if error.kind() != io::ErrorKind::NotFound)
        });
        self.directories.is_empty()
    }
}

impl Drop for Cgroup {
    fn drop(&mut self) {
        self.remove();
    }
}

fn describe(path: &Path, error: &io::Error) -> String {
    format!("{}: {error}", path.display())
}

/// Reads `/proc/self/cgroup`: lines of `number:controllers:path`.
fn find_hierarchies(text: &str) -> Vec<Hierarchy> {
    text.lines()
        .filter_map(|line| {
            let mut fields = line.splitn(3, ':').skip(1);
            let (controllers, path) = (fields.next()?, fields.next()?.trim_start_matches('/'));
            match controllers {
                "" => {
                    let parent = Path::new(ROOT).join(path);
                    let enabled = fs::read_to_string(parent.join("cgroup.subtree_control")).ok()?;
                    let has = |name| enabled.split_whitespace().any(|word| word == name);
                    has("pids").then(|| Hierarchy {
                        processes: Some("pids.max"),
                        memory: has("memory").then_some("memory.max"),
                        parent,
                    })
                }
                "pids" => Some(Hierarchy {
                    parent: Path::new(ROOT).join("pids").join(path),
                    processes: Some("pids.max"),
                    memory: None,
                }),
                "memory" => Some(Hierarchy {
                    parent: Path::new(ROOT).join("memory").join(path),
                    processes: None,
                    memory: Some("memory.limit_in_bytes"),
                }),
                _ => None,
            }
        })
        .collect()
}

/// Removes groups whose controller is gone.
fn remove_stale(parent: &Path) {
    let Ok(entries) = fs::read_dir(parent) else { return };
    for entry in entries.flatten() {
        let name = entry.file_name();
        let controller = name
            .to_str()
            .and_then(|name| name.strip_prefix(PREFIX))
            .and_then(|rest| rest.split('-').next())
            .and_then(|number| number.parse::<u32>().ok());
        if controller.is_some_and(|number| !Path::new(&format!("/proc/{number}")).exists()) {
            let _ = fs::remove_dir(entry.path());
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn version_1_has_a_hierarchy_for_each_controller() {
        let text = "9:pids:/\n6:memory:/user\n3:cpu,cpuacct:/\n0::/\n";
        let found = find_hierarchies(text);
        let parents: Vec<_> = found.iter().map(|hierarchy| hierarchy.parent.clone()).collect();
        assert!(parents.contains(&PathBuf::from("/sys/fs/cgroup/pids/")), "{parents:?}");
        assert!(parents.contains(&PathBuf::from("/sys/fs/cgroup/memory/user")), "{parents:?}");
    }
}
