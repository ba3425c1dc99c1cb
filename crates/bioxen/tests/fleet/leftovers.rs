//! What is left when a fleet, or a VM of it, is gone: nothing.

use std::process::Stdio;

use bioxen::{Fleet, Grants, Limit, Limits};
use bioxen_testkit::processes::{open_descriptors, with_mark};
use bioxen_testkit::{
    Process, Scratch, block_on, fleet, in_own_process, own_test_name, role, test_command,
    wait_until, worker_program,
};

use crate::common::{ENDLESS, begun, check_works, create, spec, worker_of};

/// Runs a test in a process whose temporary files go to a directory that is empty before and after.
fn leaves_nothing<F: FnOnce()>(body: F) {
    if role().is_some() {
        return body();
    }
    let test = own_test_name(&body);
    let temporary = Scratch::new();
    let home = Scratch::new();
    let output = test_command(&test, "alone")
        .env("TMPDIR", temporary.path())
        .env("HOME", home.path())
        .env_remove("XDG_RUNTIME_DIR")
        .output()
        .expect("a test can be run again");
    let stderr = String::from_utf8_lossy(&output.stderr);
    let stdout = String::from_utf8_lossy(&output.stdout);
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
    assert_eq!(temporary.names(), [""; 0], "temporary files are left");
    assert_eq!(home.names(), [""; 0], "files in the home directory are left");
}

/// Runs something and checks that this process has the descriptors and descendants afterwards that it
/// had before. Done twice, since the first time opens what stays open by intention, such as the
/// runtime's own descriptors.
fn nothing_is_left_of(action: impl Fn()) {
    action();
    let before = open_descriptors();
    action();
    wait_until("no process is left", || Process::current().descendants().is_empty());
    wait_until("no descriptor is left", || open_descriptors().len() <= before.len());
}

#[test]
fn a_dropped_fleet_leaves_no_process_descriptor_or_file() {
    leaves_nothing(|| {
        let builder =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = builder.unwrap();
        nothing_is_left_of(|| {
            runtime.block_on(async {
                let fleet = Fleet::builder().worker_program(worker_program()).standby(3).build();
                for n in 0..10 {
                    check_works(&create(&fleet, &format!("vm-{n}")).await).await;
                }
                let vm = fleet.vm("vm-3").unwrap();
                let running = begun(&vm, ENDLESS).await;
                drop(fleet);
                drop((vm, running));
            });
        });
    });
}

#[test]
fn a_fleet_that_was_shut_down_leaves_no_process_descriptor_or_file() {
    leaves_nothing(|| {
        let builder =
            tokio::runtime::Builder::new_multi_thread().worker_threads(1).enable_all().build();
        let runtime = builder.unwrap();
        nothing_is_left_of(|| {
            runtime.block_on(async {
                let fleet = Fleet::builder().worker_program(worker_program()).standby(3).build();
                let vm = create(&fleet, "vm").await;
                check_works(&vm).await;
                let net = Grants::none().net("127.0.0.1:9".parse().unwrap());
                check_works(&fleet.create(spec("net").grants(net)).await.unwrap()).await;
                drop(vm);
                fleet.shutdown().await.unwrap();
                assert_eq!(Process::current().descendants(), [], "already when it returns");
            });
        });
    });
}

#[test]
fn a_removed_vm_leaves_no_process_and_no_descriptor() {
    in_own_process(|| {
        block_on(async {
            let fleet = fleet();
            create(&fleet, "first").await;
            let (processes, descriptors) =
                (Process::current().descendants().len(), open_descriptors().len());
            for n in 0..30 {
                let name = format!("vm-{n}");
                let vm = create(&fleet, &name).await;
                check_works(&vm).await;
                drop(vm);
                fleet.remove(&name).await.unwrap();
            }
            wait_until("no process is left", || {
                Process::current().descendants().len() == processes
            });
            wait_until("no descriptor is left", || open_descriptors().len() <= descriptors);
        });
    });
}

/// What a process's descriptors refer to.
fn descriptors_of(process: Process) -> Vec<String> {
    let entries = std::fs::read_dir(format!("/proc/{}/fd", process.pid)).unwrap().flatten();
    let target = |entry: std::fs::DirEntry| std::fs::read_link(entry.path()).ok();
    entries.filter_map(target).map(|target| target.display().to_string()).collect()
}

#[test]
fn a_worker_has_no_connection_but_its_own() {
    in_own_process(|| {
        block_on(async {
            let fleet = fleet();
            for name in ["one", "two", "three"] {
                create(&fleet, name).await;
            }
            for vm in fleet.vms() {
                let open = descriptors_of(worker_of(&vm));
                let sockets = open.iter().filter(|target| target.starts_with("socket:")).count();
                assert_eq!(sockets, 1, "besides its own it has one of the zygote: {open:?}");
            }
        });
    });
}

#[test]
fn a_worker_inherits_nothing_that_its_controller_has_open() {
    in_own_process(|| {
        block_on(async {
            let scratch = Scratch::new();
            // As a shell does for `bioxen run script.lua 5<secret`.
            let inherited = std::fs::File::open(scratch.file("secret", "x")).unwrap();
            let flags = nix::fcntl::FcntlArg::F_SETFD(nix::fcntl::FdFlag::empty());
            nix::fcntl::fcntl(&inherited, flags).unwrap();
            let fleet = fleet();
            let vm = create(&fleet, "vm").await;
            let open = descriptors_of(worker_of(&vm));
            assert!(!open.iter().any(|target| target.contains("secret")), "{open:?}");
        });
    });
}

fn spawning() -> (Grants, Limits) {
    let limits = Limits { child_processes: Limit::Of(32), ..Limits::default() };
    (Grants::none().spawn(), limits)
}

#[test]
fn programs_that_a_vm_has_left_behind_are_gone_with_it() {
    in_own_process(|| {
        block_on(async {
            let fleet = fleet();
            let (grants, limits) = spawning();
            let vm = fleet.create(spec("vm").grants(grants).limits(limits)).await.unwrap();
            let mark = format!("4321.{}", std::process::id());
            let code = format!("os.execute('sleep {mark} </dev/null >/dev/null 2>&1 &')");
            vm.eval(code).await.unwrap().into_result().unwrap();
            wait_until("it sleeps", || !with_mark(&mark).is_empty());
            fleet.remove("vm").await.unwrap();
            wait_until("it is gone", || with_mark(&mark).is_empty());
        });
    });
}

/// The part of a controller that is about to be killed: VMs that are idle, busy, and have programs.
fn be_a_controller(mark: &str) {
    block_on(async {
        let fleet = Fleet::builder().worker_program(worker_program()).standby(2).build();
        create(&fleet, "idle").await;
        let busy = create(&fleet, "busy").await;
        let _running = begun(&busy, ENDLESS).await;
        let (grants, limits) = spawning();
        let vm = fleet.create(spec("spawning").grants(grants).limits(limits)).await.unwrap();
        let code = format!(
            "os.execute('sleep {mark} </dev/null >/dev/null 2>&1 &') print('x') os.execute('sleep {mark}')"
        );
        let mut spawned = vm.eval(code).start().await.unwrap();
        spawned.next_chunk().await.unwrap().unwrap();
        wait_until("both sleep", || with_mark(&format!("sleep {mark}")).len() >= 2);
        println!("ready");
        std::future::pending::<()>().await;
    });
}

/// Starts a controller, lets `end` end it, and checks that nothing of it is left.
fn nothing_survives<F: FnOnce(Process, &[Process])>(end: F) {
    let test = own_test_name(&end);
    if let Some(mark) = role().and_then(|role| role.strip_prefix("controller ").map(str::to_owned))
    {
        return be_a_controller(&mark);
    }
    in_own_process_named(&test, || {
        // Whatever loses its parent becomes a child of this process, so nothing escapes the count.
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let mark = format!("5432.{}", std::process::id());
        let mut child = test_command(&test, &format!("controller {mark}"))
            .stdout(Stdio::piped())
            .spawn()
            .unwrap();
        let mut lines =
            std::io::BufRead::lines(std::io::BufReader::new(child.stdout.take().unwrap()));
        assert!(lines.any(|line| line.is_ok_and(|line| line.ends_with("ready"))));
        let controller = Process::of(child.id());
        let below = controller.descendants();
        assert!(below.len() >= 6, "zygote, workers, standby workers and programs: {below:?}");
        end(controller, &below);
        child.wait().unwrap();
        for process in below {
            process.wait_for_end();
        }
        wait_until("no program is left", || with_mark(&format!("sleep {mark}")).is_empty());
        let alive: Vec<_> =
            Process::current().descendants().into_iter().filter(|p| p.is_alive()).collect();
        assert_eq!(alive, []);
    });
}

fn in_own_process_named(test: &str, body: impl FnOnce()) {
    if role().is_some() {
        return body();
    }
    let output = test_command(test, "alone").output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
}

#[test]
fn nothing_survives_a_controller_that_is_killed() {
    nothing_survives(|controller, _| {
        controller.signal(nix::sys::signal::Signal::SIGKILL);
    });
}

#[test]
fn nothing_survives_a_controller_and_its_zygote_that_are_killed() {
    nothing_survives(|controller, _| {
        for zygote in controller.children() {
            zygote.signal(nix::sys::signal::Signal::SIGKILL);
            zygote.wait_for_end();
        }
        controller.signal(nix::sys::signal::Signal::SIGKILL);
    });
}

#[test]
fn nothing_survives_a_controller_that_is_killed_while_its_zygote_is_stopped() {
    nothing_survives(|controller, below| {
        let zygotes = controller.children();
        for zygote in &zygotes {
            zygote.signal(nix::sys::signal::Signal::SIGSTOP);
        }
        controller.signal(nix::sys::signal::Signal::SIGKILL);
        for worker in below.iter().filter(|process| !zygotes.contains(process)) {
            worker.wait_for_end();
        }
        for zygote in &zygotes {
            zygote.signal(nix::sys::signal::Signal::SIGCONT);
        }
    });
}
