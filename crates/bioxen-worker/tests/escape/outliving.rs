//! Programs that try to live on when their VM is gone.

use bioxen::{Grants, Interpreter, Limit, Limits, VmSpec};
use bioxen_testkit::processes::with_mark;
use bioxen_testkit::{Process, block_on, fleet, own_test_name, wait_until};

use crate::place::worker_of;

/// Starts programs by a shell command that has `SLEEP` in it, removes their VM, and checks that none
/// of them is left.
fn is_gone_with_its_vm(command: &str) {
    let mark = unique_mark();
    let command = command.replace("SLEEP", &format!("sleep {mark}"));
    block_on(async {
        let fleet = fleet();
        let limits = Limits { child_processes: Limit::Of(32), ..Limits::default() };
        let spec = VmSpec::basic("vm").unwrap().grants(Grants::none().spawn()).limits(limits);
        let vm = fleet.create(spec).await.unwrap();
        let worker = worker_of(&vm);
        let code = format!("os.execute([=====[{command}]=====])");
        vm.eval(code).await.unwrap();
        wait_until("it runs", || !with_mark(&mark).is_empty());
        for program in with_mark(&mark) {
            assert_eq!(program.group(), Some(worker.pid), "it has left the group: {command}");
        }
        fleet.remove("vm").await.unwrap();
        wait_until("it is gone", || with_mark(&mark).is_empty());
    });
}

/// A time to sleep that no other process sleeps for.
fn unique_mark() -> String {
    use std::sync::atomic::{AtomicU32, Ordering};
    static NEXT: AtomicU32 = AtomicU32::new(1);
    format!("9{}.{}", std::process::id(), NEXT.fetch_add(1, Ordering::Relaxed))
}

macro_rules! outliving {
    ($($name:ident: $command:expr;)*) => {$(
        #[test]
        fn $name() {
            is_gone_with_its_vm($command);
        }
    )*};
}

outliving! {
    in_the_background: "SLEEP >/dev/null 2>&1 &";
    in_a_shell_in_the_background: "(SLEEP >/dev/null 2>&1 &) &";
    without_hanging_up: "nohup SLEEP >/dev/null 2>&1 &";
    in_a_session_of_its_own: "setsid SLEEP >/dev/null 2>&1 & SLEEP >/dev/null 2>&1 &";
    in_a_session_of_its_own_by_a_fork: "setsid -f SLEEP >/dev/null 2>&1; (setsid SLEEP; SLEEP) >/dev/null 2>&1 &";
    in_a_group_of_its_own: "set -m; SLEEP >/dev/null 2>&1 & disown 2>/dev/null; set +m; SLEEP >/dev/null 2>&1 &";
    by_two_forks: "( ( SLEEP >/dev/null 2>&1 & ) & ) &";
    deaf_to_signals: "(trap '' TERM HUP INT QUIT USR1 USR2 IO ALRM; SLEEP >/dev/null 2>&1) &";
    // Not before it has let go of the shell's output, for the end of which the run waits.
    stopped: "SLEEP >/dev/null 2>&1 & sleep 0.3; kill -STOP $!";
    in_other_namespaces: "unshare -U -p -f SLEEP >/dev/null 2>&1 & unshare -p -f SLEEP >/dev/null 2>&1 & \
        SLEEP >/dev/null 2>&1 &";
    as_a_daemon: "perl -e 'use POSIX; exit if fork; POSIX::setsid(); POSIX::setpgid(0, 0); exit if fork; \
        open(STDOUT, q(>/dev/null)); open(STDERR, q(>/dev/null)); exec qw(SLEEP)'; SLEEP >/dev/null 2>&1 &";
    as_a_child_of_the_zygote: "perl -e 'my $child = syscall(56, 0x8000 | 17, 0, 0, 0, 0); if ($child == 0) { \
        open(STDOUT, q(>/dev/null)); open(STDERR, q(>/dev/null)); exec qw(SLEEP) }'; SLEEP >/dev/null 2>&1 &";
    as_a_child_of_another: "systemd-run --user SLEEP 2>/dev/null; screen -dm SLEEP 2>/dev/null; \
        start-stop-daemon -S -b -x /bin/SLEEP 2>/dev/null; SLEEP >/dev/null 2>&1 &";
    without_any_descriptor: "(exec 0<&- 1>&- 2>&- 3<&- 4<&- 5<&- 6<&- 7<&- 8<&- 9<&-; exec SLEEP) &";
    many: "for i in 1 2 3 4 5 6 7 8; do SLEEP >/dev/null 2>&1 & done";
}

/// Takes away, from inside, what ties the VM to its controller; then the controller is killed.
#[test]
fn nothing_survives_its_controller_even_when_it_has_cut_what_ties_it_to_it() {
    let cut = "perl -e 'use Fcntl; for my $fd (3..63) { open(my $f, \"<&=\", $fd) or next; \
        fcntl($f, F_SETFL, O_NONBLOCK); fcntl($f, 8, 0); fcntl($f, 10, 0); }' ; \
        for fd in 3 4 5 6 7 8 9; do eval \"exec 5<>/proc/self/fd/$fd\" 2>/dev/null; done; SLEEP >/dev/null 2>&1 &";
    nothing_survives(|mark| {
        let command = cut.replace("SLEEP", &format!("sleep {mark}"));
        let limits = Limits { child_processes: Limit::Of(32), ..Limits::default() };
        let spec = VmSpec::basic("vm").unwrap().grants(Grants::none().spawn()).limits(limits);
        be_a_controller(spec, &format!("os.execute([=====[{command}]=====]) print('cut')"));
    });
}

/// The same by machine code, in a program that then stays busy: neither its group nor a signal nor the
/// end of its connection moves it.
#[test]
fn nothing_survives_its_controller_even_when_machine_code_has_cut_what_ties_it_to_it() {
    let Some(lua) = bioxen_testkit::interpreter("lua5.4") else { return };
    nothing_survives(|_| {
        let library = crate::native::library();
        let directory = library.parent().unwrap();
        let spec = VmSpec::basic("vm").unwrap().grants(Grants::none().read(directory));
        let spec = spec.interpreter(Interpreter::Program(lua.program.clone().unwrap_or_default()));
        let code = format!(
            "package.cpath = '{}/?.so' local call = require('probe') for fd = 0, 63 do \
             for command, value in pairs{{[4] = 2048, [8] = 0, [10] = 0}} do \
             call({}, fd, command, value) end end io.write('cut\\n') io.flush() while true do end",
            directory.display(),
            libc::SYS_fcntl
        );
        be_a_controller(spec, &code);
    });
}

/// Starts a controller by `be`, kills it when it is ready, and checks that nothing of it is left.
fn nothing_survives<F: FnOnce(&str)>(be: F) {
    let test = own_test_name(&be);
    if let Some(mark) =
        bioxen_testkit::role().and_then(|role| role.strip_prefix("controller ").map(str::to_owned))
    {
        return be(&mark);
    }
    let body = || {
        nix::sys::prctl::set_child_subreaper(true).unwrap();
        let mark = unique_mark();
        let mut child = bioxen_testkit::test_command(&test, &format!("controller {mark}"))
            .stdout(std::process::Stdio::piped())
            .spawn()
            .unwrap();
        let stdout = std::io::BufReader::new(child.stdout.take().unwrap());
        assert!(
            std::io::BufRead::lines(stdout)
                .any(|line| line.is_ok_and(|line| line.ends_with("ready")))
        );
        let below = Process::of(child.id()).descendants();
        // A keeper, a forker and a worker; or a watcher and a worker.
        let least = if std::env::var_os(bioxen_testkit::STANDALONE).is_some() { 2 } else { 3 };
        assert!(below.len() >= least, "{below:?}");
        child.kill().unwrap();
        child.wait().unwrap();
        for process in below {
            process.wait_for_end();
        }
        wait_until("no program is left", || with_mark(&mark).is_empty());
    };
    if bioxen_testkit::role().is_some() {
        return body();
    }
    let output = bioxen_testkit::test_command(&test, "alone").output().unwrap();
    let (stdout, stderr) =
        (String::from_utf8_lossy(&output.stdout), String::from_utf8_lossy(&output.stderr));
    assert!(output.status.success() && stdout.contains("1 passed"), "{stdout}\n{stderr}");
}

/// Runs code in a VM, says that it is ready when the code has written its first line, and waits to be
/// killed.
fn be_a_controller(spec: VmSpec, code: &str) {
    block_on(async {
        let fleet = fleet();
        let vm = fleet.create(spec).await.unwrap();
        let mut run = vm.eval(code.to_owned()).start().await.unwrap();
        run.next_chunk().await.unwrap().unwrap();
        println!("ready");
        std::future::pending::<()>().await;
    });
}
