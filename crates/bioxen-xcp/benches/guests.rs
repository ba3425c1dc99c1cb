//! What it costs to do something in a guest over SSH, beside other ways to do the same.
//!
//! Needs what the tests in `tests/ssh.rs` need. Rounds alternate between the ways, and medians are
//! printed, so that whatever else the machine does falls on all of them alike. `COPY_MIB` changes the size
//! of the copied file.

#[path = "../tests/ssh/server.rs"]
#[allow(dead_code, clippy::unwrap_used, reason = "helpers of tests, not all of them needed here")]
mod server;

use std::io::Write;
use std::path::Path;
use std::process::{Command as Process, Stdio};
use std::time::{Duration, Instant};

use bioxen_core::backend::Link;
use bioxen_core::protocol::{
    Decoder, Evaluate, Form, Hello, Reply, Request, VERSION, decode, encode, encode_into,
};
use bioxen_xcp::ssh::guest::{self, GuestProgram, SshLink};
use bioxen_xcp::ssh::{Command, Connection, Execution, Happening, Input};
use bytes::BytesMut;
use futures::{StreamExt, TryStreamExt};
use server::Server;

const DEADLINE: Duration = Duration::from_mins(2);
const ROUNDS: usize = 9;
const SMALL: usize = 500;
const EXECUTIONS: usize = 25;

/// Connections that are made at the same time.
const AT_ONCE: usize = 20;

type Outcome<T> = Result<T, Box<dyn std::error::Error>>;

fn main() -> Outcome<()> {
    let Some(server) = server::server() else { return Ok(()) };
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    let lines = runtime.block_on(async {
        let mut lines = small(&server).await?;
        lines.extend(copies(&server).await?);
        Outcome::Ok(lines)
    })?;
    let count = std::env::var("GUESTS").ok().and_then(|count| count.parse().ok()).unwrap_or(200);
    let crowd = runtime.block_on(crowd(&server, count))?;
    let mut output = std::io::stdout().lock();
    writeln!(output, "{crowd}")?;
    for (name, unit, mut times) in lines {
        times.sort_unstable();
        let show = |time: Duration| match unit {
            Unit::Microseconds => format!("{:9.1} us", time.as_secs_f64() * 1e6),
            Unit::Milliseconds => format!("{:9.2} ms", time.as_secs_f64() * 1e3),
        };
        let (median, low, high) = (times[times.len() / 2], times[0], times[times.len() - 1]);
        writeln!(
            output,
            "{name:<44}{}  ({} to {})",
            show(median),
            show(low).trim(),
            show(high).trim()
        )?;
    }
    Ok(())
}

#[derive(Clone, Copy)]
enum Unit {
    Microseconds,
    Milliseconds,
}

type Line = (String, Unit, Vec<Duration>);

/// Round trips of a few bytes, and programs that end at once.
async fn small(server: &Server) -> Outcome<Vec<Line>> {
    let connection = Connection::open(&server.target()).await?;
    let mut echo = connection.start(&Command::new("cat")).await?;
    let input = echo.input();
    let mut links = Vec::new();
    for interpreter in ["lua5.4", "luajit"] {
        if !Path::new("/usr/bin").join(interpreter).exists() {
            continue;
        }
        let program = GuestProgram::Shim { interpreter: interpreter.into() };
        links.push((interpreter, guest::start(&connection, &program, DEADLINE).await?.link));
    }
    let mut link = guest::start(&connection, &echoing_worker(), DEADLINE).await?.link;
    let master = Master::start(server)?;
    let (mut echoed, mut linked) = (Vec::new(), Vec::new());
    let (mut executed, mut by_master) = (Vec::new(), Vec::new());
    let mut evaluated = vec![Vec::new(); links.len()];
    for round in 0..=ROUNDS {
        // The first round warms up.
        let is_counted = round > 0;
        let note = |times: &mut Vec<Duration>, began: Instant, count: usize| {
            if is_counted {
                times.push(began.elapsed() / u32::try_from(count).unwrap_or(1));
            }
        };
        let began = Instant::now();
        for _ in 0..SMALL {
            round_trip(&mut echo, &input).await?;
        }
        note(&mut echoed, began, SMALL);
        let began = Instant::now();
        for _ in 0..SMALL {
            link_round_trip(&mut link).await?;
        }
        note(&mut linked, began, SMALL);
        for ((_, link), times) in links.iter_mut().zip(&mut evaluated) {
            let began = Instant::now();
            for _ in 0..SMALL {
                evaluate(link).await?;
            }
            note(times, began, SMALL);
        }
        let began = Instant::now();
        for _ in 0..EXECUTIONS {
            connection.run(&Command::new("true"), "", 10, DEADLINE).await?;
        }
        note(&mut executed, began, EXECUTIONS);
        let began = Instant::now();
        for _ in 0..EXECUTIONS {
            master.run("true")?;
        }
        note(&mut by_master, began, EXECUTIONS);
    }
    let mut figures = vec![("bare channel echo (cat)".to_owned(), Unit::Microseconds, echoed)];
    figures.push(("SshLink: the same echo (cat)".to_owned(), Unit::Microseconds, linked));
    for ((interpreter, _), times) in links.iter().zip(evaluated) {
        figures.push((
            format!("SshLink: return 1+1 ({interpreter}, shim)"),
            Unit::Microseconds,
            times,
        ));
    }
    figures.push(("exec per call: ours".into(), Unit::Milliseconds, executed));
    figures.push(("exec per call: ssh with ControlMaster".into(), Unit::Milliseconds, by_master));
    Ok(figures)
}

async fn round_trip(echo: &mut Execution, input: &Input) -> Outcome<()> {
    // As long as the frame that evaluates.
    input.write(&[7; 100][..]).await?;
    let mut came = 0;
    while came < 100 {
        let Happening::Stdout(data) = echo.next().await? else { return Err("no echo".into()) };
        came += data.len();
    }
    Ok(())
}

/// A worker that introduces itself and from then on sends back what it is sent: the link, and nothing
/// that Lua costs.
fn echoing_worker() -> GuestProgram {
    let hello = Hello { protocol: VERSION, interpreter: "cat".into(), platform: "any".into() };
    let frame: Vec<String> =
        encode(&Reply::Hello(hello)).iter().map(|byte| format!("\\{byte:03o}")).collect();
    let script = format!("printf '{}'; exec cat", frame.concat());
    GuestProgram::Other { path: "/bin/sh".into(), arguments: vec!["-c".into(), script] }
}

async fn link_round_trip(link: &mut SshLink) -> Outcome<()> {
    link.send(&[7; 100]).await?;
    let mut space = BytesMut::new();
    while space.len() < 100 {
        if link.receive(&mut space).await? == 0 {
            return Err("no echo".into());
        }
    }
    Ok(())
}

async fn evaluate(link: &mut SshLink) -> Outcome<()> {
    let mut frame = Vec::new();
    let request = Request::Evaluate(Evaluate {
        id: 1,
        form: Form::Input,
        fresh: false,
        name: "=bench".into(),
        code: b"return 1+1",
        arguments: Vec::new(),
        environment: None,
        working_directory: None,
        wall_time_us: None,
        cpu_time_us: None,
        output: None,
    });
    encode_into(&mut frame, &request);
    link.send(&frame).await?;
    let mut decoder = Decoder::new(1 << 20);
    loop {
        if let Some(payload) = decoder.next_payload()? {
            return match decode(&payload)? {
                Reply::End(_) => Ok(()),
                other => Err(format!("{other:?}").into()),
            };
        }
        let space: &mut BytesMut = decoder.space();
        if link.receive(space).await? == 0 {
            return Err("the worker is gone".into());
        }
    }
}

/// Many guests, each with a connection and a worker of its own, that evaluate at the same time.
async fn crowd(server: &Server, count: usize) -> Outcome<String> {
    let began = Instant::now();
    let program = GuestProgram::Shim { interpreter: "lua5.4".into() };
    let connecting = (0..count).map(|_| async {
        let connection = Connection::open(&server.target()).await?;
        Outcome::Ok(guest::start(&connection, &program, DEADLINE).await?.link)
    });
    let links: Vec<SshLink> =
        futures::stream::iter(connecting).buffer_unordered(AT_ONCE).try_collect().await?;
    let connected = began.elapsed();
    let began = Instant::now();
    let evaluating = links.into_iter().map(|mut link| async move {
        for _ in 0..SMALL {
            evaluate(&mut link).await?;
        }
        Outcome::Ok(link)
    });
    let links = futures::future::try_join_all(evaluating).await?;
    let evaluations = u32::try_from(links.len() * SMALL)?;
    let rate = f64::from(evaluations) / began.elapsed().as_secs_f64();
    let status = std::fs::read_to_string("/proc/self/status")?;
    let memory = status.lines().find_map(|line| line.strip_prefix("VmRSS:")).unwrap_or("?").trim();
    Ok(format!("{count} guests: up in {connected:.1?}, {rate:.0} evaluations/s, {memory} resident"))
}

/// A large file there and back, by us and by `scp`; both connect first.
async fn copies(server: &Server) -> Outcome<Vec<Line>> {
    let size = std::env::var("COPY_MIB").ok().and_then(|size| size.parse().ok()).unwrap_or(200);
    let here = tempfile::tempdir()?;
    let (source, back) = (here.path().join("source"), here.path().join("back"));
    std::fs::write(&source, vec![b'x'; size << 20])?;
    let shared = server.shared();
    let (ours, theirs) = (shared.join("ours"), shared.join("theirs"));
    let mut lines: [Vec<Duration>; 4] = Default::default();
    for _ in 0..5 {
        let began = Instant::now();
        let files = Connection::open(&server.target()).await?.files().await?;
        files.upload(&source, &ours.display().to_string(), 0o644, |_| {}).await?;
        lines[0].push(began.elapsed());
        lines[1].push(scp(server, &source.display().to_string(), &remote(server, &theirs))?);
        let began = Instant::now();
        let files = Connection::open(&server.target()).await?.files().await?;
        files.download(&ours.display().to_string(), &back, |_| {}).await?;
        lines[2].push(began.elapsed());
        lines[3].push(scp(server, &remote(server, &ours), &back.display().to_string())?);
    }
    let names = ["upload: ours", "upload: scp", "download: ours", "download: scp"];
    let pairs = names.into_iter().zip(lines);
    Ok(pairs
        .map(|(name, times)| (format!("{name}, {size} MiB"), Unit::Milliseconds, times))
        .collect())
}

fn remote(server: &Server, path: &Path) -> String {
    format!("{}@127.0.0.1:{}", server.user(), path.display())
}

/// What OpenSSH's programs need to know.
fn options(server: &Server) -> Vec<String> {
    let key = server.write_key();
    [
        &format!("IdentityFile={}", key.display()),
        "IdentitiesOnly=yes",
        "StrictHostKeyChecking=no",
        "UserKnownHostsFile=/dev/null",
        "LogLevel=ERROR",
        &format!("Port={}", server.port()),
    ]
    .into_iter()
    .flat_map(|option| ["-o".to_owned(), option.to_owned()])
    .collect()
}

fn scp(server: &Server, from: &str, to: &str) -> Outcome<Duration> {
    let began = Instant::now();
    let status = Process::new("scp").arg("-q").args(options(server)).args([from, to]).status()?;
    if !status.success() {
        return Err(format!("scp: {status}").into());
    }
    Ok(began.elapsed())
}

/// A connection of OpenSSH's own that its programs share.
struct Master {
    options: Vec<String>,
    target: String,
    _place: tempfile::TempDir,
}

impl Master {
    fn start(server: &Server) -> Outcome<Self> {
        let place = tempfile::tempdir()?;
        let mut options = options(server);
        options.extend(["-o".into(), format!("ControlPath={}/master", place.path().display())]);
        let target = format!("{}@127.0.0.1", server.user());
        let status = Process::new("ssh")
            .args(&options)
            .args(["-o", "ControlMaster=yes", "-o", "ControlPersist=yes", "-fN", &target])
            .stdin(Stdio::null())
            .stdout(Stdio::null())
            .stderr(Stdio::null())
            .status()?;
        if !status.success() {
            return Err(format!("ssh: {status}").into());
        }
        Ok(Self { options, target, _place: place })
    }

    fn run(&self, command: &str) -> Outcome<()> {
        let mut process = Process::new("ssh");
        let status = process.args(&self.options).args([&self.target, command]).status()?;
        if status.success() { Ok(()) } else { Err(format!("ssh: {status}").into()) }
    }
}

impl Drop for Master {
    fn drop(&mut self) {
        let mut process = Process::new("ssh");
        let process = process.args(&self.options).args(["-O", "exit", &self.target]);
        let _ = process.stderr(Stdio::null()).status();
    }
}
