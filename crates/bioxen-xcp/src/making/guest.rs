//! The steps in the guest: logging in, waiting for cloud-init, and Lua.

use std::collections::BTreeMap;
use std::net::IpAddr;
use std::path::PathBuf;
use std::pin::pin;
use std::time::{Duration, Instant};

use bioxen_core::backend::StartError;
use bioxen_core::protocol::standalone::Order;
use bioxen_core::{FileCopy, Grants, Interpreter, InterpreterFacts, Isolation, Mechanism, VmSpec};
use bytes::Bytes;
use futures::future::maybe_done;

use super::{Attempt, Cause, Entry, Failed, NoWorkerImage, Progress, WorkerSource, both, machine};
use crate::cloud_init::{Evidence, Verdict};
use crate::connected_pool::ConnectedPool;
use crate::machine::Machine;
use crate::plan::StepKind;
use crate::ssh::files::{FileError, Placed, WorkerImage};
use crate::ssh::guest::{self, GuestError, GuestMachine, GuestProgram, SshLink};
use crate::ssh::{Command, Connection, HostKeyCheck, Next, Reconnect, ReconnectPolicy};
use crate::ssh::{SshError, Target};

/// Where our worker lies in a guest, from the user's home directory.
const WORKER_DIRECTORY: &str = ".cache/bioxen";

/// How long Lua may take to come up.
const LUA_WITHIN: Duration = Duration::from_mins(1);

/// Waits until cloud-init is done, one way or another, and tells all that it says of itself, with a zero byte
/// between two parts. One program, as each costs the guest a start: real cloud-init starts for as long as it
/// takes to log in.
const GROWN: &str = r"cloud-init status --wait --long; printf '\0'
cat /run/cloud-init/status.json; printf '\0'
cat /run/cloud-init/result.json";

/// What of a guest's files and answers is read.
const EVIDENCE: usize = 256 << 10;

/// Interpreters that are tried where our worker does not run.
const INTERPRETERS: [&str; 2] = ["lua5.4", "lua"];

/// Lua that has just come up in a guest, with an empty state.
pub struct GuestLua {
    /// The connection to it.
    pub link: SshLink,
    /// The worker from outside.
    pub machine: GuestMachine,
    /// The interpreter.
    pub interpreter: InterpreterFacts,
    /// What holds it in, within the guest.
    pub isolation: Isolation,
    /// The grants as the guest understood them.
    pub grants: Grants,
    /// The granted variables with their values.
    pub environment: BTreeMap<String, String>,
    /// The directory that relative paths start from, where the worker told it.
    pub working_directory: Option<PathBuf>,
    /// Whether our worker had to be copied.
    pub placed: Option<Placed>,
    /// Why it is the guest's own interpreter that runs, where that was not asked for.
    pub fallback: Option<String>,
}

/// Why Lua did not come up in a guest.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum LuaError {
    /// There is no worker to copy.
    #[error(transparent)]
    Image(#[from] NoWorkerImage),
    /// It could not be copied.
    #[error("our worker could not be put into the guest")]
    File(#[source] Box<FileError>),
    /// It could not be started.
    #[error("Lua could not be started in the guest")]
    Guest(#[source] Box<GuestError>),
    /// The guest was not reached.
    #[error("the guest was not reached")]
    Ssh(#[source] Box<SshError>),
    /// It is not held in as was demanded, or what was granted is not there.
    #[error(transparent)]
    Start(#[from] StartError),
}

impl From<FileError> for LuaError {
    fn from(error: FileError) -> Self {
        Self::File(Box::new(error))
    }
}

impl From<SshError> for LuaError {
    fn from(error: SshError) -> Self {
        Self::Ssh(Box::new(error))
    }
}

impl From<GuestError> for LuaError {
    fn from(error: GuestError) -> Self {
        Self::Guest(Box::new(error))
    }
}

impl LuaError {
    /// What the reader can do about it.
    pub fn hint(&self) -> String {
        match self {
            Self::Image(error) => error.hint(),
            Self::File(error) => error.hint(),
            Self::Guest(error) => error.hint(),
            Self::Ssh(error) => error.hint(),
            Self::Start(error) => error.hint(),
        }
    }
}

impl Attempt {
    pub(super) async fn in_the_guest(
        &self,
        address: IpAddr,
        progress: &mut Progress,
    ) -> Result<(Connection, GuestLua), Failed> {
        let entry = progress.known.as_ref().and_then(|known| known.entry.clone());
        let reached = async {
            let entry = entry.ok_or(Cause::Abandoned)?;
            let limit = self.order.deadlines.within(StepKind::Ssh);
            let reaching = Box::pin(reach(&self.order.pool, address, &entry, limit));
            Ok(self.unless_abandoned(reaching).await??)
        };
        let connection = self.step(StepKind::Ssh, reached).await?;
        // The guest's user is there, so that the worker can go on its way while cloud-init is waited for.
        let preparing = prepare(&connection, &self.order.worker);
        let mut preparing = Box::pin(maybe_done(preparing));
        let grown = async {
            let mut verdict = pin!(self.cloud_init(&connection, progress));
            tokio::select! {
                verdict = &mut verdict => return verdict,
                () = &mut preparing => {}
            }
            verdict.await
        };
        self.step(StepKind::CloudInit, grown).await?;
        // The pool takes the seed away while the guest is at work.
        let unseeded = self.step(StepKind::Unseed, self.unseed(progress));
        let prepared = async {
            preparing.as_mut().await;
            match preparing.as_mut().take_output() {
                Some(prepared) => prepared,
                None => unreachable!("it was waited for, and nobody has taken it before"),
            }
        };
        let (unseeded, lua) = tokio::join!(unseeded, self.lua(&connection, prepared));
        let ((), lua) = both(unseeded, lua)?;
        drop(preparing);
        if let Some(known) = &mut progress.known {
            known.ready = true;
        }
        self.note(progress).await.map_err(|cause| (Some(StepKind::Lua), cause))?;
        progress.warnings.extend(lua.fallback.clone());
        Ok((connection, lua))
    }

    /// Copies files into the guest, and starts Lua there.
    async fn lua(
        &self,
        connection: &Connection,
        prepared: impl Future<Output = Result<Option<Prepared>, LuaError>>,
    ) -> Result<GuestLua, Failed> {
        let files = self.order.spec.machine().map_or(&[][..], |machine| &machine.files);
        if !files.is_empty() {
            let copied = async {
                let copying = Box::pin(copy_in(connection, files));
                Ok(self.unless_abandoned(copying).await??)
            };
            self.step(StepKind::Files, copied).await?;
        }
        let started = async {
            let starting =
                async { start_prepared(connection, &self.order.spec, prepared.await?).await };
            Ok(self.unless_abandoned(starting).await??)
        };
        self.step(StepKind::Lua, started).await
    }

    /// Waits for cloud-init's own verdict.
    async fn cloud_init(
        &self,
        connection: &Connection,
        progress: &mut Progress,
    ) -> Result<(), Cause> {
        let limit = self.order.deadlines.within(StepKind::CloudInit);
        let run =
            async |command: Command| connection.run(&command, Bytes::new(), EVIDENCE, limit).await;
        // Its words differ from version to version; what it says is read below.
        let said = run(Command::new("sh").arguments(["-c", GROWN])).await?.stdout;
        let mut parts = said.split(|byte| *byte == 0);
        let mut evidence = Evidence {
            status_command: parts.next(),
            status_file: parts.next(),
            result_file: parts.next(),
            log: None,
        };
        match evidence.verdict() {
            Some(Verdict::Error { .. }) => {
                let end = ["-c", "100000", "/var/log/cloud-init.log"];
                let log = run(Command::new("tail").arguments(end)).await?.stdout;
                evidence.log = Some(&log);
                let errors = match evidence.verdict() {
                    Some(Verdict::Error { errors }) => errors,
                    _ => Vec::new(),
                };
                Err(Cause::CloudInit { errors })
            }
            Some(Verdict::Done { warnings }) => {
                progress.warnings.extend(warnings);
                Ok(())
            }
            Some(Verdict::Disabled { reason }) => {
                progress.warnings.push(format!("cloud-init is disabled: {reason}"));
                Ok(())
            }
            Some(Verdict::NotStarted | Verdict::Running { .. }) => Err(Cause::CloudInit {
                errors: vec!["it says that it is done, and that it is not".into()],
            }),
            None => {
                // We are logged in by a key that came with the seed: something has read it.
                progress.warnings.push("the guest does not say what became of its seed".into());
                Ok(())
            }
        }
    }

    /// Takes the seed disk away: it holds the guest's private key. Where the guest does not let go of it,
    /// it is left until the machine is deleted.
    async fn unseed(&self, progress: &mut Progress) -> Result<(), Cause> {
        let Some(seed) = progress.seed.clone() else { return Ok(()) };
        let machine::SeedOnPool { disk, attachment } = seed;
        let client = self.order.pool.client();
        if let Some(attachment) = attachment {
            let unplugged = client.vbd().unplug(&attachment).await;
            match unplugged {
                Err(error) if error.code() == Some("DEVICE_ALREADY_DETACHED") => {}
                Err(error) if error.failure().is_some() => {
                    let what = super::Chain(&error);
                    progress.warnings.push(format!("the seed disk stays attached: {what}"));
                    return Ok(());
                }
                other => other?,
            }
            client.vbd().destroy(&attachment).await?;
        }
        let vm = self.order.spec.name.as_str();
        let removed = Machine::discard_disk(&self.order.pool, vm, &disk).await;
        removed.map_err(|error| Cause::Removal(Box::new(error)))?;
        progress.seed = None;
        Ok(())
    }
}

/// Logs in to a guest, which may be starting: tries again while that can help. The pool says by which way.
pub async fn reach(
    pool: &ConnectedPool,
    address: IpAddr,
    entry: &Entry,
    give_up_after: Duration,
) -> Result<Connection, SshError> {
    let check = HostKeyCheck::Pinned(entry.host_key.clone());
    let (user, login) = (entry.user.as_str(), entry.login.clone());
    let target = Target::new(address.to_string(), user, check, login).port(entry.port);
    let policy = ReconnectPolicy {
        // A guest that refuses costs nobody much, and one that has just come up is not to be waited for.
        first_delay: Duration::from_millis(5),
        longest_delay: Duration::from_millis(500),
        give_up_after,
    };
    let (started, mut reconnect) = (Instant::now(), Reconnect::new(policy));
    loop {
        let error = match pool.enter(&target).await {
            Ok(connection) => return Ok(connection),
            Err(error) => error,
        };
        match reconnect.failed(started.elapsed(), &error) {
            Next::TryAfter(delay) => tokio::time::sleep(delay).await,
            Next::GiveUp => return Err(error),
        }
    }
}

/// Copies files and directories into a guest.
pub async fn copy_in(connection: &Connection, copies: &[FileCopy]) -> Result<u64, FileError> {
    let files = connection.files().await?;
    let mut bytes = 0;
    for copy in copies {
        bytes += files.upload_tree(&copy.from, &copy.to, |_| {}).await?;
    }
    Ok(bytes)
}

/// Starts Lua in a guest as a VM's spec orders it: by our worker, which is put there first, or by the
/// guest's own interpreter where our worker does not run.
pub async fn start_lua(
    connection: &Connection,
    spec: &VmSpec,
    worker: &WorkerSource,
) -> Result<GuestLua, LuaError> {
    let prepared = prepare(connection, worker).await?;
    start_prepared(connection, spec, prepared).await
}

/// Our worker in a guest.
struct Prepared {
    path: String,
    placed: Placed,
}

/// Puts our worker into a guest; `None` where none is to be there.
async fn prepare(
    connection: &Connection,
    worker: &WorkerSource,
) -> Result<Option<Prepared>, LuaError> {
    match worker.image().await? {
        Some(image) => place(connection, &image).await.map(Some),
        None => Ok(None),
    }
}

/// Starts Lua in a guest that is prepared for it.
async fn start_prepared(
    connection: &Connection,
    spec: &VmSpec,
    prepared: Option<Prepared>,
) -> Result<GuestLua, LuaError> {
    let names = spec.grants.env.iter();
    let environment: BTreeMap<_, _> =
        names.filter_map(|name| Some((name.clone(), std::env::var(name).ok()?))).collect();
    let Some(Prepared { path, placed }) = prepared else {
        let reason = "no worker is to be copied into guests";
        return by_shim(connection, spec, environment, reason, None).await;
    };
    let order = Box::new(Order::of(spec, environment.clone()));
    let program = GuestProgram::Worker { path, order };
    match guest::start(connection, &program, LUA_WITHIN).await {
        Ok(started) => of_worker(started, spec, environment, placed),
        Err(GuestError::Refused { source, .. }) => {
            Err(source.into_start_error(spec.name.as_str()).into())
        }
        // It did not even run: another processor, no room to run things, an older system.
        Err(error @ GuestError::Introduction { .. }) => {
            let reason = format!("our worker does not run in this guest: {}", super::Chain(&error));
            by_shim(connection, spec, environment, &reason, Some(error)).await
        }
        Err(error) => Err(error.into()),
    }
}

async fn place(connection: &Connection, image: &WorkerImage) -> Result<Prepared, LuaError> {
    let files = connection.files().await?;
    let digest = image.digest().to_string();
    let short: String = digest.trim_start_matches("sha256:").chars().take(16).collect();
    // Its name is what makes it a worker; others of it may lie there too.
    let directory = format!("{WORKER_DIRECTORY}/{short}");
    files.make_directories(&directory).await?;
    let path = format!("{directory}/{}", bioxen_worker::PROGRAM_NAME);
    let placed = files.put_worker(image, &path).await?;
    Ok(Prepared { path, placed })
}

fn of_worker(
    started: guest::GuestWorker,
    spec: &VmSpec,
    environment: BTreeMap<String, String>,
    placed: Placed,
) -> Result<GuestLua, LuaError> {
    let guest::GuestWorker { link, machine, hello, accepted, isolation } = started;
    let isolation = isolation.unwrap_or_default();
    isolation.meets(spec)?;
    let accepted = accepted.ok_or_else(|| GuestError::Introduction {
        program: "the worker".into(),
        reason: "it did not answer its order".into(),
    })?;
    let (version, program) = match accepted.program {
        Some(program) => (program.version, Some(program.path)),
        None => (hello.interpreter, None),
    };
    Ok(GuestLua {
        link,
        machine,
        interpreter: InterpreterFacts { version, program, platform: accepted.platform },
        isolation,
        grants: accepted.grants,
        environment,
        working_directory: Some(accepted.working_directory),
        placed: Some(placed),
        fallback: None,
    })
}

/// Starts the guest's own interpreter. Nothing holds it in there, and the record says so.
async fn by_shim(
    connection: &Connection,
    spec: &VmSpec,
    environment: BTreeMap<String, String>,
    reason: &str,
    worker: Option<GuestError>,
) -> Result<GuestLua, LuaError> {
    let mut isolation = Isolation::default();
    for mechanism in Mechanism::ALL {
        isolation.missed(mechanism, reason);
    }
    isolation.meets(spec)?;
    let names: Vec<String> = match &spec.interpreter {
        Interpreter::Embedded => INTERPRETERS.map(str::to_owned).into(),
        Interpreter::Program(path) => vec![path.display().to_string()],
    };
    let mut failure = worker;
    for interpreter in names {
        let program = GuestProgram::Shim { interpreter: interpreter.clone() };
        match guest::start(connection, &program, LUA_WITHIN).await {
            Ok(started) => {
                let guest::GuestWorker { link, machine, hello, .. } = started;
                return Ok(GuestLua {
                    link,
                    machine,
                    interpreter: InterpreterFacts {
                        version: hello.interpreter,
                        program: Some(interpreter.into()),
                        platform: hello.platform,
                    },
                    isolation,
                    grants: spec.grants.clone(),
                    environment,
                    working_directory: spec.working_directory.clone(),
                    placed: None,
                    fallback: Some(reason.to_owned()),
                });
            }
            // Of our worker's failure more can be learnt than of an interpreter that is not there.
            Err(error) => failure = failure.or(Some(error)),
        }
    }
    match failure {
        Some(error) => Err(error.into()),
        None => unreachable!("at least one interpreter was tried"),
    }
}
