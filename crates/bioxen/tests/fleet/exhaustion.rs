//! Machines that have run out of something.

use std::error::Error as _;
use std::process::Command;

use bioxen::backend::StartError;
use bioxen::{CreateError, EndedBy, Grants, StartVmError};
use bioxen_testkit::processes::open_descriptors;
use bioxen_testkit::{Scratch, block_on, fleet, in_own_process, skip};
use nix::sys::resource::{Resource, getrlimit, setrlimit};

use crate::common::{ENDLESS, begun, check_works, create, ended, spec};

#[test]
fn without_descriptors_no_vm_is_made_and_the_others_go_on() {
    in_own_process(|| {
        block_on(async {
            let fleet = fleet();
            let first = create(&fleet, "first").await;
            check_works(&first).await;
            let (usual, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let few = u64::try_from(open_descriptors().len()).unwrap() + 8;
            setrlimit(Resource::RLIMIT_NOFILE, few, most).unwrap();
            let mut vms = vec![first];
            let error = loop {
                match fleet.create(spec(&format!("vm-{}", vms.len()))).await {
                    Ok(vm) => vms.push(vm),
                    Err(error) => break error,
                }
                assert!(vms.len() < 20, "the limit is not felt");
            };
            let CreateError::Start(StartVmError::Start { source, .. }) = &error else {
                panic!("{error}")
            };
            assert!(matches!(source, StartError::Exhausted { .. }), "{source:?}");
            assert!(source.source().is_some() && error.hint().unwrap().contains("ulimit -n"));
            assert_eq!(fleet.stats().vms, vms.len(), "nothing is left of the attempt");
            for vm in &vms {
                check_works(vm).await;
            }
            fleet.remove("first").await.unwrap();
            drop(vms.remove(0));
            create(&fleet, "in-its-place").await;
            setrlimit(Resource::RLIMIT_NOFILE, usual, most).unwrap();
            for n in 0..20 {
                create(&fleet, &format!("more-{n}")).await;
            }
        });
    });
}

#[test]
fn without_descriptors_for_the_first_vm_the_error_says_so() {
    in_own_process(|| {
        block_on(async {
            let fleet = fleet();
            let (usual, most) = getrlimit(Resource::RLIMIT_NOFILE).unwrap();
            let open = u64::try_from(open_descriptors().len()).unwrap();
            for room in 0..8 {
                setrlimit(Resource::RLIMIT_NOFILE, open + room, most).unwrap();
                match fleet.create(spec("vm")).await {
                    Ok(_) => fleet.remove("vm").await.unwrap(),
                    Err(error) => {
                        let chain = [error.to_string(), error.source().unwrap().to_string()];
                        let CreateError::Start(StartVmError::Start { source, .. }) = error else {
                            panic!("{chain:?}")
                        };
                        assert!(
                            matches!(source, StartError::Exhausted { .. }),
                            "with room for {room}: {source:?}"
                        );
                    }
                }
                fleet.shutdown().await.unwrap();
            }
            setrlimit(Resource::RLIMIT_NOFILE, usual, most).unwrap();
            check_works(&create(&fleet, "vm").await).await;
        });
    });
}

/// Writes more than fits, and returns what Lua was told.
const FILL: &str = "local f = assert(io.open(PATH, 'w')) local piece = ('x'):rep(65536) \
    for _ = 1, 64 do \
      local ok, message = f:write(piece) \
      if ok then ok, message = f:flush() end \
      if not ok then pcall(f.close, f) return message end \
    end";

async fn check_full_disk(path: &std::path::Path) {
    let fleet = fleet();
    let vm = fleet.create(spec("vm").grants(Grants::none().write(path))).await.unwrap();
    let other = create(&fleet, "other").await;
    let running = begun(&other, ENDLESS).await;
    let code = FILL.replace("PATH", &format!("'{}'", path.display()));
    let run = ended(vm.eval(code).await, EndedBy::Finished);
    let message = run.value().as_str().unwrap_or_default().to_owned();
    assert!(message.contains("No space left on device"), "{message}");
    check_works(&vm).await;
    drop(running);
    check_works(&other).await;
}

#[test]
fn a_full_device_is_an_error_in_lua_and_nothing_else() {
    block_on(check_full_disk(std::path::Path::new("/dev/full")));
}

/// A small file system, for as long as it lives.
struct SmallDisk(Scratch);

impl SmallDisk {
    fn mount() -> Option<Self> {
        let scratch = Scratch::new();
        let options = ["-t", "tmpfs", "-o", "size=128k", "bioxen-test"];
        let mounted = Command::new("mount").args(options).arg(scratch.path()).output();
        mounted.is_ok_and(|output| output.status.success()).then_some(Self(scratch))
    }
}

impl Drop for SmallDisk {
    fn drop(&mut self) {
        let _ = Command::new("umount").arg("-l").arg(self.0.path()).output();
    }
}

#[test]
fn a_full_disk_is_an_error_in_lua_and_nothing_else() {
    let Some(disk) = SmallDisk::mount() else {
        return skip("a full disk", "a small file system cannot be mounted here");
    };
    block_on(check_full_disk(&disk.0.file("data", "")));
}

#[test]
fn a_vm_that_opens_too_many_files_hears_so_and_goes_on() {
    block_on(async {
        let scratch = Scratch::new();
        let path = scratch.file("data", "x");
        let fleet = fleet();
        let vm = fleet.create(spec("vm").grants(Grants::none().read(&path))).await.unwrap();
        let code = format!(
            "local t = {{}} for i = 1, 100 do local f, m = io.open('{}') \
             if not f then return i, m end t[i] = f end",
            path.display()
        );
        let run = ended(vm.eval(code).fresh().await, EndedBy::Finished);
        let [opened, message] = &run.record.values[..] else { panic!("{:?}", run.record.values) };
        assert!((40..=64).contains(&opened.as_i64().unwrap()), "{opened}");
        assert!(message.as_str().unwrap().contains("Too many open files"), "{message}");
        check_works(&vm).await;
    });
}
