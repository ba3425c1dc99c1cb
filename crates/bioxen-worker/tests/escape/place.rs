//! Where attempts are made, and how it is seen whether they got through.
//!
//! ```text
//! scratch/
//!   secret/secret.txt     outside of every grant; its text must not get out, nothing here may change
//!   in/ok.txt             granted for reading, with links that lead out of it
//!   out/                  granted for writing
//! ```

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};
use std::time::Duration;

use bioxen::{
    EndedBy, Fleet, Grants, Interpreter, Limit, Limits, Mechanism, Run, Value, Vm, VmSpec, VmState,
};
use bioxen_testkit::{Process, Scratch, Seen, block_on, fleet, interpreter, skip};

/// Makes a test of each attempt.
macro_rules! attempts {
    ($($(#[$attribute:meta])* $name:ident: $attempt:expr;)*) => {$(
        $(#[$attribute])*
        #[test]
        fn $name() {
            $attempt.check();
        }
    )*};
}
pub(crate) use attempts;

/// What an attempt is granted, by name: the paths differ from test to test.
#[derive(Clone, Copy, Default)]
#[expect(clippy::struct_excessive_bools, reason = "independent grants")]
pub(crate) struct Granted {
    pub(crate) read_in: bool,
    pub(crate) write_out: bool,
    pub(crate) read_proc: bool,
    pub(crate) read_libraries: bool,
    pub(crate) spawn: bool,
    pub(crate) net: bool,
}

pub(crate) const NOTHING: Granted = Granted {
    read_in: false,
    write_out: false,
    read_proc: false,
    read_libraries: false,
    spawn: false,
    net: false,
};
pub(crate) const IN: Granted = Granted { read_in: true, ..NOTHING };
pub(crate) const OUT: Granted = Granted { write_out: true, ..NOTHING };
pub(crate) const IN_OUT: Granted = Granted { read_in: true, ..OUT };
pub(crate) const SPAWN: Granted = Granted { spawn: true, ..NOTHING };
pub(crate) const SPAWN_IN_OUT: Granted = Granted { spawn: true, ..IN_OUT };
pub(crate) const SPAWN_NET: Granted = Granted { net: true, ..SPAWN };

/// How an attempt's run is to end.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub(crate) enum Expected {
    /// By itself or by an error: whatever was tried did not work.
    Refused,
    /// As `Refused`, and somewhere in what came back a text that names the grant.
    RefusedNaming(&'static str),
    /// By one of these.
    Ended(&'static [EndedBy]),
}

/// One attempt to get out.
pub(crate) struct Attempt {
    code: String,
    granted: Granted,
    limits: Limits,
    interpreter: Option<&'static str>,
    expected: Expected,
    needs: &'static [Mechanism],
    needs_program: Option<&'static str>,
    prepare: fn(&Scratch),
}

/// An attempt of embedded code that is granted nothing.
///
/// The code may use the globals `SECRET` and `SECRET_DIR`, `IN` and `OUT`, the process numbers
/// `NEIGHBOUR`, `BYSTANDER`, `CONTROLLER` and `ZYGOTE`, `GRANTED_PORT`, `OTHER_PORT`, and the socket
/// paths `STREAM_SOCKET` and `DATAGRAM_SOCKET`. Returning a text that begins with `escaped` says that
/// it got through, for what cannot be seen from outside.
pub(crate) fn attempt(code: impl Into<String>) -> Attempt {
    let wall_time = Limit::Of(Duration::from_secs(20));
    Attempt {
        code: code.into(),
        granted: NOTHING,
        limits: Limits { wall_time, child_processes: Limit::Of(16), ..Limits::default() },
        interpreter: None,
        expected: Expected::Refused,
        needs: &[],
        needs_program: None,
        prepare: |_| {},
    }
}

/// An attempt by a shell command, where starting programs is granted.
pub(crate) fn shell(command: impl AsRef<str>) -> Attempt {
    let variables = [
        "SECRET",
        "SECRET_DIR",
        "IN",
        "OUT",
        "NEIGHBOUR",
        "BYSTANDER",
        "CONTROLLER",
        "ZYGOTE",
        "GRANTED_PORT",
        "OTHER_PORT",
        "STREAM_SOCKET",
        "DATAGRAM_SOCKET",
    ];
    let exports: String =
        variables.iter().map(|name| format!(" .. '{name}=\"' .. {name} .. '\"; '")).collect();
    let command = command.as_ref();
    attempt(format!("os.execute(''{exports} .. [=====[{command}]=====])")).granted(SPAWN)
}

impl Attempt {
    pub(crate) fn granted(mut self, granted: Granted) -> Self {
        self.granted = granted;
        self
    }

    pub(crate) fn limits(mut self, change: impl FnOnce(Limits) -> Limits) -> Self {
        self.limits = change(self.limits);
        self
    }

    pub(crate) fn on(mut self, interpreter: &'static str) -> Self {
        self.interpreter = Some(interpreter);
        self
    }

    /// The message is to name the grant that would allow it.
    pub(crate) fn naming(mut self, flag: &'static str) -> Self {
        self.expected = Expected::RefusedNaming(flag);
        self
    }

    pub(crate) fn ends(mut self, endings: &'static [EndedBy]) -> Self {
        self.expected = Expected::Ended(endings);
        self
    }

    /// Names what holds the attempt back; without it the test tries nothing, and says so.
    pub(crate) fn needs(mut self, mechanisms: &'static [Mechanism]) -> Self {
        self.needs = mechanisms;
        self
    }

    /// Names a program of the system that the attempt is made with.
    pub(crate) fn with_program(mut self, program: &'static str) -> Self {
        self.needs_program = Some(program);
        self
    }

    /// Puts more into the scratch directory before the attempt.
    pub(crate) fn prepared(mut self, prepare: fn(&Scratch)) -> Self {
        self.prepare = prepare;
        self
    }

    /// Makes the attempt, and sees whether it got through.
    pub(crate) fn check(self) {
        let missing_program = self.needs_program.filter(|program| !Path::new(program).exists());
        if let Some(program) = missing_program {
            return skip("an attempt", &format!("there is no {program}"));
        }
        let program = match self.interpreter.map(|name| (name, interpreter(name))) {
            None => Interpreter::Embedded,
            Some((_, Some(found))) => Interpreter::Program(found.program.unwrap_or_default()),
            Some((_, None)) => return,
        };
        block_on(async {
            let place = Place::new(self.prepare).await;
            let spec = place.spec("attacker", self.granted, self.limits.clone());
            let vm = place.fleet.create(spec.interpreter(program)).await;
            let vm = vm
                .unwrap_or_else(|error| panic!("{error}: {:?}", std::error::Error::source(&error)));
            let reached = vm.info().isolation.expect("it runs");
            for mechanism in self.needs {
                if let Some(reason) = reached.missing.get(mechanism) {
                    return skip("an attempt", &format!("{mechanism} is missing here: {reason}"));
                }
            }
            let run = place.attack(&vm, &self.code).await;
            check_ending(&run, self.expected);
            place.check_unharmed(&run).await;
            place.check_goes_on(&vm).await;
            // Some harm is done by the next message only.
            place.check_unharmed(&run).await;
        });
    }
}

fn check_ending(run: &Run, expected: Expected) {
    let by = run.record.ending.ended_by;
    let shown = shown(run);
    match expected {
        Expected::Refused | Expected::RefusedNaming(_) => {
            assert!([EndedBy::Finished, EndedBy::Error].contains(&by), "{by}: {shown}");
        }
        Expected::Ended(endings) => assert!(endings.contains(&by), "{by}: {shown}"),
    }
    if let Expected::RefusedNaming(flag) = expected {
        assert!(shown.contains(flag), "`{flag}` is not in {shown}");
    }
}

/// All that came back of a run.
fn shown(run: &Run) -> String {
    let values: Vec<String> = run.record.values.iter().map(Value::to_string).collect();
    format!(
        "values {}; error {:?}; stdout {:?}; stderr {:?}",
        values.join(", "),
        run.record.error,
        String::from_utf8_lossy(&run.stdout),
        String::from_utf8_lossy(&run.stderr),
    )
}

/// What must not change, as it was before.
#[derive(PartialEq, Debug)]
struct Before {
    files: BTreeMap<PathBuf, Option<Seen>>,
    directories: BTreeMap<PathBuf, Vec<String>>,
    bystander: Standing,
    neighbour: Standing,
}

impl Before {
    /// What is not as it was, in words.
    fn differences(&self, now: &Self) -> Vec<String> {
        let files = self.files.iter().filter(|(name, seen)| now.files.get(*name) != Some(*seen));
        let directories = self
            .directories
            .iter()
            .filter(|(name, names)| now.directories.get(*name) != Some(*names));
        let names = files.map(|(name, _)| name).chain(directories.map(|(name, _)| name));
        let standings = [
            ("bystander", &self.bystander, &now.bystander),
            ("neighbour", &self.neighbour, &now.neighbour),
        ];
        let standings = standings.iter().flat_map(|(name, before, now)| {
            let changed = before.0.iter().zip(&now.0).filter(|(before, now)| before != now);
            changed.map(move |(before, now)| format!("{name}: `{before}` is `{now}`"))
        });
        names.map(|name| format!("`{}`", name.display())).chain(standings).collect()
    }
}

/// What one process may change of another, line by line.
#[derive(PartialEq, Debug)]
struct Standing(Vec<String>);

impl Standing {
    fn of(process: Process) -> Self {
        let read = |file: &str| {
            std::fs::read_to_string(format!("/proc/{}/{file}", process.pid)).unwrap_or_default()
        };
        let stat = read("stat");
        let after_name = stat.rsplit_once(") ").map_or("", |(_, rest)| rest);
        let status = read("status");
        let processors = status.lines().filter(|line| line.starts_with("Cpus_allowed_list"));
        let nice = after_name.split(' ').nth(16).unwrap_or_default();
        let lines =
            [format!("nice {nice}"), format!("oom_score_adj {}", read("oom_score_adj").trim())];
        let limits = read("limits");
        let more = limits
            .lines()
            .chain(processors)
            .map(|line| line.split_whitespace().collect::<Vec<_>>().join(" "));
        Self(lines.into_iter().chain(more).collect())
    }
}

/// A fleet, a neighbour, and the files around it.
pub(crate) struct Place {
    pub(crate) scratch: Scratch,
    pub(crate) fleet: Fleet,
    pub(crate) neighbour: Vm,
    secret: String,
    bystander: Child,
    granted_port: std::net::TcpListener,
    other_port: std::net::TcpListener,
    stream_socket: std::os::unix::net::UnixListener,
    datagram_socket: std::os::unix::net::UnixDatagram,
    before: Option<Before>,
}

impl Drop for Place {
    fn drop(&mut self) {
        let _ = self.bystander.kill();
        let _ = self.bystander.wait();
    }
}

impl Place {
    pub(crate) async fn new(prepare: impl FnOnce(&Scratch)) -> Self {
        let scratch = Scratch::new();
        let secret = format!("SECRET{}{}", std::process::id(), scratch.path().display())
            .replace(|c: char| !c.is_ascii_alphanumeric(), "");
        scratch.file("secret/secret.txt", &secret);
        scratch.file("in/ok.txt", "ok");
        scratch.directory("out");
        scratch.link("in/link.txt", "../secret/secret.txt");
        scratch.link("in/linked", "../secret");
        scratch.link("in/absolute", scratch.at("secret"));
        scratch.link("out/link.txt", "../secret/secret.txt");
        scratch.link("out/linked", "../secret");
        scratch.link("out/dangling", "../secret/made.txt");
        prepare(&scratch);
        let listen = || {
            let listener = std::net::TcpListener::bind("127.0.0.1:0").expect("a port is free");
            listener.set_nonblocking(true).expect("it can be");
            listener
        };
        let stream_socket =
            std::os::unix::net::UnixListener::bind(scratch.at("stream")).expect("a socket");
        stream_socket.set_nonblocking(true).expect("it can be");
        let datagram_socket =
            std::os::unix::net::UnixDatagram::bind(scratch.at("datagram")).expect("a socket");
        datagram_socket.set_nonblocking(true).expect("it can be");
        let fleet = fleet();
        let neighbour = fleet.create(VmSpec::basic("neighbour").expect("a name")).await;
        let neighbour = neighbour.expect("it can be made");
        neighbour.eval("state = 'kept'").await.expect("it runs");
        let bystander = Command::new("sleep").arg("1000").stdin(Stdio::null()).spawn();
        let bystander = bystander.expect("there is a sleep");
        let mut place = Self {
            scratch,
            fleet,
            neighbour,
            secret,
            bystander,
            granted_port: listen(),
            other_port: listen(),
            stream_socket,
            datagram_socket,
            before: None,
        };
        place.before = Some(place.look());
        place
    }

    fn look(&self) -> Before {
        let files = ["secret/secret.txt", "secret/made.txt", "in/ok.txt", "in/link.txt"];
        let names = |name: &str| {
            let entries = std::fs::read_dir(self.scratch.at(name)).into_iter().flatten().flatten();
            let mut names: Vec<String> =
                entries.map(|entry| entry.file_name().display().to_string()).collect();
            names.sort();
            names
        };
        Before {
            files: files
                .iter()
                .map(|name| (PathBuf::from(name), Seen::of(&self.scratch.at(name))))
                .collect(),
            directories: ["", "secret", "in"]
                .iter()
                .map(|name| (PathBuf::from(name), names(name)))
                .collect(),
            bystander: Standing::of(Process::of(self.bystander.id())),
            neighbour: Standing::of(worker_of(&self.neighbour)),
        }
    }

    /// The order for a VM.
    pub(crate) fn spec(&self, name: &str, granted: Granted, limits: Limits) -> VmSpec {
        let port = |listener: &std::net::TcpListener| listener.local_addr().expect("bound").port();
        let mut grants = Grants::none();
        if granted.read_in {
            grants = grants.read(self.scratch.at("in"));
        }
        if granted.write_out {
            grants = grants.write(self.scratch.at("out"));
        }
        if granted.read_proc {
            grants = grants.read("/proc");
        }
        if granted.read_libraries {
            grants = grants.read("/usr/lib");
        }
        if granted.spawn {
            grants = grants.spawn();
        }
        if granted.net {
            let address = format!("127.0.0.1:{}", port(&self.granted_port));
            grants = grants.net(address.parse().expect("an address"));
        }
        VmSpec::basic(name).expect("a name").grants(grants).limits(limits)
    }

    /// Definitions of what an attempt may refer to.
    fn definitions(&self) -> String {
        let port = |listener: &std::net::TcpListener| listener.local_addr().expect("bound").port();
        let path = |name: &str| format!("'{}'", self.scratch.at(name).display());
        let worker = worker_of(&self.neighbour);
        let zygote = worker.parent().map_or(0, |zygote| zygote.pid);
        [
            ("SECRET", path("secret/secret.txt")),
            ("SECRET_DIR", path("secret")),
            ("IN", path("in")),
            ("OUT", path("out")),
            ("NEIGHBOUR", worker.pid.to_string()),
            ("ZYGOTE", zygote.to_string()),
            ("BYSTANDER", self.bystander.id().to_string()),
            ("CONTROLLER", std::process::id().to_string()),
            ("GRANTED_PORT", port(&self.granted_port).to_string()),
            ("OTHER_PORT", port(&self.other_port).to_string()),
            ("STREAM_SOCKET", path("stream")),
            ("DATAGRAM_SOCKET", path("datagram")),
        ]
        .iter()
        .map(|(name, value)| format!("{name} = {value} "))
        .collect()
    }

    /// Runs an attempt's code to its end.
    pub(crate) async fn attack(&self, vm: &Vm, code: &str) -> Run {
        vm.eval(self.definitions()).await.expect("the attacker can be prepared");
        let run =
            tokio::time::timeout(bioxen_testkit::PATIENCE, vm.eval(code.to_owned()).into_future());
        run.await.expect("the run ends").expect("the run ends by itself")
    }

    /// Checks that nothing got out, nothing was touched, and nobody was disturbed.
    pub(crate) async fn check_unharmed(&self, run: &Run) {
        let shown = shown(run);
        assert!(!shown.contains(&self.secret), "the secret got out: {shown}");
        let says_so = |value: &Value| value.as_str().is_some_and(|v| v.starts_with("escaped"));
        assert!(!run.record.values.iter().any(says_so), "{shown}");
        assert!(!run.text().contains("escaped"), "{shown}");
        let before = self.before.as_ref().expect("it was looked at");
        let touched = before.differences(&self.look());
        assert!(touched.is_empty(), "touched: {}; {shown}", touched.join(", "));
        let other = self.other_port.accept();
        assert!(other.is_err(), "a port that was not granted was reached: {shown}");
        assert!(self.stream_socket.accept().is_err(), "a local socket was reached: {shown}");
        let mut space = [0; 64];
        assert!(
            self.datagram_socket.recv(&mut space).is_err(),
            "a local socket was sent to: {shown}"
        );
        assert!(Process::of(self.bystander.id()).is_alive(), "a bystander was ended: {shown}");
        let run = self.neighbour.eval("return state").await.expect("the neighbour goes on");
        assert_eq!(run.value().as_str(), Some("kept"), "the neighbour: {shown}");
        let another = self.fleet.create(VmSpec::basic("another").expect("a name")).await;
        another.unwrap_or_else(|error| panic!("no other VM can be made: {error}; {shown}"));
        self.fleet.remove("another").await.expect("it can be removed");
    }

    /// Checks that the attacker's VM is either still in order, or says that it is not.
    async fn check_goes_on(&self, vm: &Vm) {
        match vm.status() {
            VmState::Running { .. } => {
                let run = vm.eval("return 6 * 7").fresh().await.expect("it runs");
                let by = run.record.ending.ended_by;
                assert_eq!(run.value().as_i64(), Some(42), "{by}: {:?}", run.record.error);
            }
            _ => vm.start().await.expect("it can be started again"),
        }
    }
}

/// The process of a running VM's worker.
pub(crate) fn worker_of(vm: &Vm) -> Process {
    match vm.status() {
        VmState::Running { process: Some(pid), .. } => Process::of(pid),
        other => panic!("it is {other:?}"),
    }
}

/// Checks that what got through would be seen.
mod the_watch {
    use super::*;

    async fn watched(code: &str, granted: fn(&Place) -> Grants) -> (Place, Run) {
        let place = Place::new(|_| {}).await;
        let limits = Limits { child_processes: Limit::Of(16), ..Limits::default() };
        let grants = granted(&place);
        let spec = VmSpec::basic("attacker").expect("a name").grants(grants).limits(limits);
        let vm = place.fleet.create(spec).await.expect("it can be made");
        let run = place.attack(&vm, code).await;
        (place, run)
    }

    async fn is_seen(code: &str, granted: fn(&Place) -> Grants) -> bool {
        let (place, run) = watched(code, granted).await;
        let check = async move { place.check_unharmed(&run).await };
        tokio::spawn(check).await.is_err()
    }

    #[test]
    fn a_secret_that_gets_out_is_seen() {
        let code = "return io.open(SECRET):read('a')";
        let read = |place: &Place| Grants::none().read(place.scratch.at("secret"));
        assert!(block_on(is_seen(code, read)));
    }

    #[test]
    fn a_file_that_is_touched_is_seen() {
        for code in [
            "io.open(SECRET, 'a'):write('x')",
            "os.remove(SECRET)",
            "io.open(SECRET, 'w')",
            "io.open(SECRET_DIR .. '/new', 'w')",
            "os.execute('echo x >> ' .. SECRET)",
        ] {
            let write = |place: &Place| Grants::none().write(place.scratch.at("secret")).spawn();
            assert!(block_on(is_seen(code, write)), "{code}");
        }
    }

    #[test]
    fn what_does_nothing_is_not_seen() {
        assert!(!block_on(is_seen("return 1", |_| Grants::none())));
    }
}
