//! Running one piece of code: the order, the run, and what it came to.

use std::collections::BTreeMap;
use std::future::IntoFuture;
use std::path::{Path, PathBuf};
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::time::{Duration, Instant};

use bioxen_core::backend::Machine;
use bioxen_core::protocol::zygote::exit_code::EXIT;
use bioxen_core::protocol::zygote::{Exit, How};
use bioxen_core::protocol::{End, Evaluate, Form, LARGEST_REQUEST, Request, Status};
use bioxen_core::{
    Chunk, CodeFacts, Digest, EndedBy, Event, Limit, LuaError, OutputSize, RunContext, RunId,
    RunRecord, Script, Source, Stream, Value, VmName,
};
use bytes::Bytes;
use jiff::Timestamp;
use tokio::io::{AsyncRead, AsyncReadExt};
use tokio::sync::{Notify, OwnedSemaphorePermit};
use uuid::Uuid;

use crate::connection::{Connection, Message, ReceiveError, Turn};
use crate::outcome::{self, Reached};
use crate::vm::{Vm, VmInner};
use crate::watchdog::Watch;

/// How long a worker may take, after a limit or a request to stop, before it is killed from here.
///
/// Embedded workers end themselves after 50 ms; this is behind that.
const PATIENCE: Duration = Duration::from_millis(90);

/// The same for a worker that is not on this machine: its word takes a way that may be long or busy.
const PATIENCE_ELSEWHERE: Duration = Duration::from_secs(1);

fn patience(machine: &dyn Machine) -> Duration {
    if machine.process().is_some() { PATIENCE } else { PATIENCE_ELSEWHERE }
}

/// Bytes of standard input that are sent at once.
const INPUT_AT_ONCE: usize = 64 << 10;

/// Code with its name, or the file that it is in.
pub(crate) struct Code {
    /// With `=` or `@` before it, as Lua wants it.
    pub(crate) name: String,
    pub(crate) source: Result<Bytes, PathBuf>,
    pub(crate) form: Form,
    /// Whether its caller asks for more lines when it is incomplete.
    pub(crate) may_be_incomplete: bool,
}

/// An order to run code. Nothing happens before it is awaited or [`start`](Self::start)ed.
#[must_use = "nothing runs until this is awaited or started"]
pub struct Evaluation {
    vm: Vm,
    code: Code,
    arguments: Vec<Vec<u8>>,
    input: Input,
    working_directory: Option<PathBuf>,
    environment: BTreeMap<String, String>,
    fresh: bool,
    wall_time: Option<Limit<Duration>>,
}

enum Input {
    Bytes(Bytes),
    Reader(Box<dyn AsyncRead + Send + Unpin>),
}

/// Why code could not be run, or its run not be followed. How code *ended* is in its record.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum EvalError {
    /// The script's file cannot be read.
    #[error("script `{path}` cannot be read")]
    Script {
        /// The file.
        path: String,
        /// What the system says.
        source: std::io::Error,
    },
    /// The code is larger than a worker accepts.
    #[error("the code has {bytes} bytes where at most {LARGEST_REQUEST} are accepted")]
    TooLarge {
        /// Its size.
        bytes: usize,
    },
    /// The VM is not running.
    #[error("vm `{vm}` is {state}")]
    NotRunning {
        /// The VM.
        vm: VmName,
        /// `stopped`, or how it failed.
        state: String,
    },
    /// The VM was removed, or its fleet is gone.
    #[error("vm `{vm}` has been removed")]
    Removed {
        /// The VM.
        vm: VmName,
    },
    /// The worker said something that makes no sense. It was ended.
    #[error("the worker of vm `{vm}` broke the protocol: {what}")]
    Protocol {
        /// The VM.
        vm: VmName,
        /// What was seen.
        what: String,
    },
    /// What the script was to read cannot be read.
    #[error("standard input for vm `{vm}` cannot be read")]
    Stdin {
        /// The VM.
        vm: VmName,
        /// What the system says.
        source: std::io::Error,
    },
}

impl EvalError {
    /// What the reader can do about it.
    pub fn hint(&self) -> Option<String> {
        match self {
            Self::Script { path, .. } => {
                Some(format!("check that `{path}` is a file you may read"))
            }
            Self::TooLarge { .. } => Some("load data from a file instead of the code".into()),
            Self::NotRunning { .. } => Some("start it again; its Lua state will be empty".into()),
            Self::Removed { .. } => Some("create a VM of that name again".into()),
            Self::Protocol { .. } => {
                Some("start the VM again; if it repeats, please report it".into())
            }
            Self::Stdin { .. } => None,
        }
    }
}

impl Evaluation {
    pub(crate) fn new(vm: Vm, code: Code, fresh: bool) -> Self {
        Self {
            vm,
            code,
            arguments: Vec::new(),
            input: Input::Bytes(Bytes::new()),
            working_directory: None,
            environment: BTreeMap::new(),
            fresh,
            wall_time: None,
        }
    }

    pub(crate) fn of_script(vm: Vm, script: Script) -> Self {
        let (name, source) = match script.source {
            Source::File(path) => (format!("@{}", path.display()), Err(path)),
            Source::Code { name, code } => (format!("={name}"), Ok(code)),
        };
        Self {
            vm,
            code: Code { name, source, form: Form::Chunk, may_be_incomplete: false },
            arguments: script.arguments,
            input: Input::Bytes(script.stdin),
            working_directory: script.working_directory,
            environment: script.environment,
            fresh: true,
            wall_time: None,
        }
    }

    /// Runs the code in a Lua state of its own, which is gone when it ends.
    pub fn fresh(mut self) -> Self {
        self.fresh = true;
        self
    }

    /// Runs the code in the VM's own Lua state, where what it sets stays.
    pub fn keep_state(mut self) -> Self {
        self.fresh = false;
        self
    }

    /// Sets what error messages and the record call the code.
    pub fn name(mut self, name: impl AsRef<str>) -> Self {
        self.code.name = format!("={}", name.as_ref());
        self
    }

    /// Sets how long the code may run, in place of the VM's own limit.
    pub fn wall_time(mut self, limit: impl Into<Limit<Duration>>) -> Self {
        self.wall_time = Some(limit.into());
        self
    }

    /// Sets what the code reads from standard input, read as the code asks for it.
    pub fn stdin(mut self, reader: impl AsyncRead + Send + Unpin + 'static) -> Self {
        self.input = Input::Reader(Box::new(reader));
        self
    }

    /// Waits until the VM is free, and starts to run the code.
    ///
    /// The run goes on while [`Running`] is not looked at, until its output has filled the
    /// connection's buffers. Dropping [`Running`] cancels it.
    pub async fn start(self) -> Result<Running, EvalError> {
        let code = match self.code.source {
            Ok(code) => code,
            Err(path) => read_script(&path).await?,
        };
        if code.len() > LARGEST_REQUEST - (1 << 20) {
            return Err(EvalError::TooLarge { bytes: code.len() });
        }
        let vm = Arc::clone(&self.vm.inner);
        let (permit, watchdog) = match vm.fleet.upgrade() {
            Some(fleet) if !vm.is_removed() => (fleet.permit().await, fleet.watchdog()),
            _ => return Err(EvalError::Removed { vm: vm.spec.name.clone() }),
        };
        let Some(mut turn) = vm.queue().turn().await else { return Err(not_running(&vm)) };
        let Some(open) = turn.connection() else { return Err(not_running(&vm)) };
        let context = Arc::clone(&open.context);
        let wall_time = self.wall_time.unwrap_or(context.limits.wall_time).bound();
        let number = open.take_number();
        let environment = told_environment(open, self.environment);
        let directory = working_directory(open, self.working_directory.as_deref());
        let microseconds =
            |limit: Duration| u64::try_from(limit.as_micros()).unwrap_or(u64::MAX).max(1);
        let arguments = &self.arguments;
        let request = Request::Evaluate(Evaluate {
            id: number,
            form: self.code.form,
            fresh: self.fresh,
            name: self.code.name.as_str().into(),
            code: &code,
            arguments: arguments.iter().map(|a| serde_bytes::ByteBuf::from(a.clone())).collect(),
            environment,
            working_directory: directory,
            wall_time_us: wall_time.map(microseconds),
            cpu_time_us: context.limits.cpu_time.bound().map(microseconds),
            output: context.limits.output.bound().map(|bound| bound.as_u64()),
        });
        let run = RunId(Uuid::now_v7());
        let (started, clock) = (Timestamp::now(), Instant::now());
        vm.runs.fetch_add(1, Ordering::Relaxed);
        vm.running.fetch_add(1, Ordering::Relaxed);
        vm.events.tell(|| Event::RunStarted { vm: vm.spec.name.clone(), run, at: started });
        let facts = CodeFacts {
            name: self.code.name[1..].to_owned(),
            digest: Digest::of(&code),
            bytes: code.len() as u64,
        };
        let is_program = context.interpreter.program.is_some();
        let machine = Arc::clone(&open.machine);
        let cpu_limit = context.limits.cpu_time.bound().filter(|_| is_program);
        let cpu = cpu_limit.map(|limit| (limit, machine.cpu_time().unwrap_or_default()));
        let grace = if is_program { Duration::ZERO } else { patience(&*machine) };
        let kill_at = wall_time.map(|limit| clock + limit + grace);
        let watch = watchdog.watch(Arc::clone(&machine), kill_at, cpu);
        let send = open.send(&request).await;
        let run = InProgress {
            vm,
            turn,
            machine,
            context,
            run,
            number,
            facts,
            arguments: self.arguments,
            fresh: self.fresh,
            may_be_incomplete: self.code.may_be_incomplete,
            started,
            clock,
            input: self.input,
            heard: None,
            watch,
            cancel: Arc::new(Notify::new()),
            cancelled: false,
            written: [OutputSize::default(); 2],
            _permit: permit,
        };
        let mut running = Running { run: Some(run), end: None };
        if send.is_err() {
            running.end = Some(running.in_progress().died().await);
        }
        Ok(running)
    }
}

async fn read_script(path: &Path) -> Result<Bytes, EvalError> {
    let refuse = |source| EvalError::Script { path: path.display().to_string(), source };
    let owned = path.to_owned();
    let read = tokio::task::spawn_blocking(move || std::fs::read(owned)).await;
    read.map_err(|error| refuse(std::io::Error::other(error)))?.map(Bytes::from).map_err(refuse)
}

fn not_running(vm: &VmInner) -> EvalError {
    let name = vm.spec.name.clone();
    if vm.is_removed() {
        return EvalError::Removed { vm: name };
    }
    let state = match vm.status() {
        bioxen_core::VmState::Failed { reason, .. } => format!("failed: {reason}"),
        other => other.name().to_owned(),
    };
    EvalError::NotRunning { vm: name, state }
}

/// All variables of a run, unless the worker knows them already.
fn told_environment(
    connection: &mut Connection,
    own: BTreeMap<String, String>,
) -> Option<BTreeMap<String, String>> {
    let mut all = connection.environment.clone();
    all.extend(own);
    if connection.told_environment.as_ref() == Some(&all) {
        return None;
    }
    connection.told_environment = Some(all.clone());
    Some(all)
}

fn working_directory(connection: &Connection, own: Option<&Path>) -> Option<serde_bytes::ByteBuf> {
    let home = connection.working_directory.as_deref();
    let directory = match (home, own) {
        (Some(home), Some(own)) => home.join(own),
        (Some(home), None) => home.to_owned(),
        (None, Some(own)) => own.to_owned(),
        (None, None) => return None,
    };
    Some(serde_bytes::ByteBuf::from(directory.into_os_string().into_encoded_bytes()))
}

impl IntoFuture for Evaluation {
    type Output = Result<Run, EvalError>;
    type IntoFuture = Pin<Box<dyn Future<Output = Self::Output> + Send>>;

    fn into_future(self) -> Self::IntoFuture {
        Box::pin(async move { self.start().await?.finish().await })
    }
}

/// A run in progress. Dropping it cancels the run; its record is still made.
pub struct Running {
    run: Option<InProgress>,
    end: Option<Result<Over, EvalError>>,
}

struct InProgress {
    vm: Arc<VmInner>,
    turn: Turn,
    machine: Arc<dyn Machine>,
    context: Arc<RunContext>,
    run: RunId,
    number: u64,
    facts: CodeFacts,
    arguments: Vec<Vec<u8>>,
    fresh: bool,
    may_be_incomplete: bool,
    started: Timestamp,
    clock: Instant,
    input: Input,
    /// A message that came while input was waited for.
    heard: Option<Result<Message, ReceiveError>>,
    watch: Watch,
    cancel: Arc<Notify>,
    cancelled: bool,
    written: [OutputSize; 2],
    _permit: Option<OwnedSemaphorePermit>,
}

/// How a run is over: as its worker told it, or by its worker's death.
enum Over {
    Told(Box<End>),
    Died { ended_by: EndedBy, exit: Option<Exit> },
}

impl Over {
    /// Whether the code called `os.exit`.
    fn is_exit(&self) -> bool {
        match self {
            Self::Told(end) => end.exit_code.is_some(),
            Self::Died { exit, .. } => exit.is_some_and(|exit| exit.how == How::Exited(EXIT)),
        }
    }
}

/// Cancels a run from elsewhere. Clones cancel the same run.
#[derive(Clone)]
pub struct Canceller(Arc<Notify>);

impl Canceller {
    /// Asks the run to end. A repeat, or a run that has ended, changes nothing.
    pub fn cancel(&self) {
        self.0.notify_one();
    }
}

impl Running {
    /// The next bytes that the code wrote, or `None` when it is over.
    pub async fn next_chunk(&mut self) -> Result<Option<Chunk>, EvalError> {
        while self.end.is_none() {
            let Some(run) = self.run.as_mut() else { return Ok(None) };
            match run.step().await {
                Step::Output(chunk) => return Ok(Some(chunk)),
                Step::Over(over) => self.end = Some(over),
            }
        }
        Ok(None)
    }

    /// A handle that cancels this run.
    pub fn canceller(&self) -> Canceller {
        let cancel = self.run.as_ref().map(|run| Arc::clone(&run.cancel));
        Canceller(cancel.unwrap_or_default())
    }

    /// The run's identity.
    pub fn id(&self) -> Option<RunId> {
        self.run.as_ref().map(|run| run.run)
    }

    /// Waits for the end. The [`Run`] holds the output that [`next_chunk`](Self::next_chunk) has
    /// not returned.
    pub async fn finish(mut self) -> Result<Run, EvalError> {
        let (mut stdout, mut stderr) = (Vec::new(), Vec::new());
        while let Some(chunk) = self.next_chunk().await? {
            match chunk.stream {
                Stream::Stdout => stdout.extend_from_slice(&chunk.data),
                Stream::Stderr => stderr.extend_from_slice(&chunk.data),
            }
        }
        let (Some(run), Some(over)) = (self.run.take(), self.end.take()) else {
            unreachable!("a run that is not dropped ends once");
        };
        let over = over?;
        let incomplete = run.may_be_incomplete
            && matches!(&over, Over::Told(end) if end.status == Status::Incomplete);
        let exited = over.is_exit();
        Ok(Run { record: run.close(over), stdout, stderr, incomplete, exited })
    }

    fn in_progress(&mut self) -> &mut InProgress {
        self.run.as_mut().expect("a run that has just been started is in progress")
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        let Some(mut run) = self.run.take() else { return };
        let end = self.end.take();
        match (end, tokio::runtime::Handle::try_current()) {
            (Some(Ok(over)), _) => drop(run.close(over)),
            (Some(Err(_)), _) => {}
            // The worker is told to stop, and the connection is free again when it has.
            (None, Ok(runtime)) => {
                run.cancel.notify_one();
                runtime.spawn(async move {
                    loop {
                        if let Step::Over(over) = run.step().await {
                            return over.map(|over| drop(run.close(over)));
                        }
                    }
                });
            }
            (None, Err(_)) => run.machine.kill(),
        }
    }
}

enum Step {
    Output(Chunk),
    Over(Result<Over, EvalError>),
}

/// What there was to wait for.
enum Heard {
    Message(Result<Message, ReceiveError>),
    Cancel,
}

impl InProgress {
    async fn step(&mut self) -> Step {
        loop {
            match self.hear().await {
                Heard::Message(Ok(message)) => {
                    if let Some(step) = self.take(message).await {
                        return step;
                    }
                }
                Heard::Message(Err(ReceiveError::Closed)) => return Step::Over(self.died().await),
                Heard::Message(Err(ReceiveError::Nonsense(error))) => {
                    return Step::Over(Err(self.broke_protocol(&error.to_string())));
                }
                Heard::Cancel => self.send_cancel().await,
            }
        }
    }

    async fn hear(&mut self) -> Heard {
        if let Some(message) = self.heard.take() {
            return Heard::Message(message);
        }
        let Some(connection) = self.turn.connection() else {
            return Heard::Message(Err(ReceiveError::Closed));
        };
        tokio::select! {
            biased;
            message = connection.receive() => Heard::Message(message),
            () = self.cancel.notified(), if !self.cancelled => Heard::Cancel,
        }
    }

    async fn send_cancel(&mut self) {
        self.cancelled = true;
        if self.context.interpreter.program.is_some() {
            // An interpreter of another kind does not listen while it runs code.
            return self.watch.kill_now(EndedBy::Cancelled);
        }
        self.watch.kill_by(Instant::now() + patience(&*self.machine), EndedBy::Cancelled);
        if let Some(connection) = self.turn.connection() {
            // When this fails the worker is gone, which is heard next.
            let _ = connection.send(&Request::Cancel(self.number)).await;
        }
    }

    async fn take(&mut self, message: Message) -> Option<Step> {
        match message {
            Message::Output(chunk) => {
                self.written[chunk.stream as usize].bytes += chunk.data.len() as u64;
                let written: u64 = self.written.iter().map(|size| size.bytes).sum();
                let limit = self.context.limits.output.bound();
                if limit.is_some_and(|limit| written > limit.as_u64()) {
                    let what =
                        format!("it wrote {written} bytes, more than its limit lets through");
                    return Some(Step::Over(Err(self.broke_protocol(&what))));
                }
                Some(Step::Output(chunk))
            }
            Message::NeedInput => match self.give_input().await {
                Ok(()) => None,
                Err(source) => {
                    let vm = self.vm.spec.name.clone();
                    self.machine.kill();
                    Some(Step::Over(Err(EvalError::Stdin { vm, source })))
                }
            },
            Message::End(end) if end.id == self.number => {
                // It ended by itself just as its time was up, and does not live to do more.
                if self.watch.end().is_some() {
                    return Some(Step::Over(self.died().await));
                }
                self.written[0].cut = end.cut.0;
                self.written[1].cut = end.cut.1;
                if self.context.interpreter.program.is_some() {
                    self.machine.measure().await;
                }
                Some(Step::Over(Ok(Over::Told(end))))
            }
            Message::End(end) => {
                let what = format!("it ended evaluation {} while {} runs", end.id, self.number);
                Some(Step::Over(Err(self.broke_protocol(&what))))
            }
            Message::Fatal(reason) => Some(Step::Over(Err(self.broke_protocol(&reason)))),
        }
    }

    async fn give_input(&mut self) -> std::io::Result<()> {
        let bytes = match &mut self.input {
            Input::Bytes(bytes) => bytes.split_to(bytes.len().min(INPUT_AT_ONCE)),
            Input::Reader(reader) => {
                let mut space = bytes::BytesMut::with_capacity(INPUT_AT_ONCE);
                let cancelled = self.cancel.notified();
                let Some(connection) = self.turn.connection() else { return Ok(()) };
                tokio::select! {
                    read = reader.read_buf(&mut space) => { read?; }
                    () = cancelled => {
                        // Heard again by the next step, which tells the worker.
                        self.cancel.notify_one();
                        return Ok(());
                    }
                    // A worker whose time is up while it waits.
                    message = connection.receive() => {
                        self.heard = Some(message);
                        return Ok(());
                    }
                }
                space.freeze()
            }
        };
        if let Some(connection) = self.turn.connection() {
            // When this fails the worker is gone, which is heard next.
            let _ = connection.send(&Request::Stdin(&bytes)).await;
        }
        Ok(())
    }

    fn broke_protocol(&mut self, what: &str) -> EvalError {
        self.machine.kill();
        self.turn.close();
        self.vm.note_failure(&self.machine, &format!("its worker broke the protocol: {what}"));
        EvalError::Protocol { vm: self.vm.spec.name.clone(), what: what.to_owned() }
    }

    /// The worker has closed its connection: finds out how it ended.
    async fn died(&mut self) -> Result<Over, EvalError> {
        let ours = self.was_killed_for();
        self.machine.kill();
        let exit = tokio::time::timeout(Duration::from_secs(10), self.machine.ended()).await;
        let exit = exit.ok().flatten();
        self.turn.close();
        if self.vm.is_removed() && ours.is_none() {
            return Ok(Over::Died { ended_by: EndedBy::Cancelled, exit });
        }
        let ended_by = outcome::died_of(exit, ours);
        self.vm.note_failure(&self.machine, &format!("its worker ended ({ended_by})"));
        Ok(Over::Died { ended_by, exit })
    }

    /// Why the worker was killed from here, if it was.
    fn was_killed_for(&self) -> Option<EndedBy> {
        let wanted = self.turn.is_revoked() || self.cancelled;
        self.watch.killed_for().or(wanted.then_some(EndedBy::Cancelled))
    }

    /// Makes the record and tells it.
    fn close(self, over: Over) -> RunRecord {
        let duration = self.clock.elapsed();
        let (ended_by, end, exit) = match over {
            Over::Told(mut end) => {
                if end.status == Status::Incomplete && !self.may_be_incomplete {
                    end.status = Status::Error;
                    end.error.get_or_insert_with(unfinished);
                }
                (outcome::ended_by(end.status), Some(end), None)
            }
            Over::Died { ended_by, exit } => (ended_by, None, exit),
        };
        let told_cpu = end.as_ref().and_then(|end| end.cpu_time_us);
        let told_peak = end.as_ref().and_then(|end| end.peak_memory);
        let cpu_time =
            told_cpu.or(exit.and_then(|exit| exit.cpu_time_us)).map(Duration::from_micros);
        let peak_memory =
            told_peak.or_else(|| self.machine.peak_memory()).or(exit.and_then(|e| e.peak_resident));
        let reached = Reached {
            duration,
            cpu_time,
            memory: peak_memory,
            output: self.written.iter().map(|size| size.bytes).sum(),
        };
        let limits = &self.context.limits;
        let ending = outcome::ending(ended_by, end.as_deref(), limits, &reached, self.fresh);
        let (values, error) = end.map_or_else(Default::default, |end| (end.values, end.error));
        let record = RunRecord {
            format: 1,
            run: self.run,
            context: self.context,
            code: self.facts,
            arguments: self.arguments,
            fresh: self.fresh,
            started: self.started,
            duration,
            cpu_time,
            peak_memory,
            stdout: self.written[0],
            stderr: self.written[1],
            values,
            error,
            ending,
        };
        self.vm.running.fetch_sub(1, Ordering::Relaxed);
        self.vm.events.tell(|| Event::RunEnded { record: Arc::new(record.clone()) });
        record
    }
}

/// For an interpreter that does not say where the code breaks off.
fn unfinished() -> LuaError {
    let message = "the code ends in the middle of a statement".to_owned();
    LuaError { message, traceback: None, value: None }
}

/// One run that is over: its record and what it wrote.
#[derive(Clone, Debug)]
pub struct Run {
    /// What ran, where and under what, and how it ended.
    pub record: RunRecord,
    /// What it wrote to standard output, exactly.
    pub stdout: Vec<u8>,
    /// What it wrote to standard error, exactly.
    pub stderr: Vec<u8>,
    /// Whether the input is the beginning of something longer; then nothing was run.
    pub incomplete: bool,
    /// Whether the code ended itself by `os.exit`.
    pub exited: bool,
}

/// A run that did not finish.
#[derive(Clone, Debug, thiserror::Error)]
#[error("run in vm `{vm}` ended by {ended_by}{what}", vm = .0.record.context.vm, ended_by = .0.record.ending.ended_by, what = what(.0))]
pub struct RunFailed(pub Box<Run>);

fn what(run: &Run) -> String {
    let error = run.record.error.as_ref().map(|error| format!(": {error}"));
    let limit = run.record.ending.limit.as_ref().map(|limit| format!(": the limit is {limit}"));
    error.or(limit).unwrap_or_default()
}

impl Run {
    /// The run itself when it finished, an error otherwise.
    pub fn into_result(self) -> Result<Self, RunFailed> {
        if self.record.ending.ended_by == EndedBy::Finished {
            Ok(self)
        } else {
            Err(RunFailed(Box::new(self)))
        }
    }

    /// The first value that the code returned; `nil` when it returned none.
    pub fn value(&self) -> &Value {
        self.record.values.first().unwrap_or(&Value::Nil)
    }

    /// Standard output as text; what is not UTF-8 is replaced.
    pub fn text(&self) -> std::borrow::Cow<'_, str> {
        String::from_utf8_lossy(&self.stdout)
    }

    /// The error that ended it.
    pub fn error(&self) -> Option<&LuaError> {
        self.record.error.as_ref()
    }
}
