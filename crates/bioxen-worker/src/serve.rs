//! The life of a worker: one message after another, until its connection closes.

use std::borrow::Cow;
use std::ffi::OsStr;
use std::io;
use std::os::unix::ffi::OsStrExt;
use std::path::{Path, PathBuf};
use std::time::Duration;

use bioxen_core::Isolation;
use bioxen_core::protocol::{
    Configure, End, Evaluate, Hello, Reply, Request, Status, VERSION, decode,
};

use crate::connection::{Connection, Received};
use crate::console;
use crate::interrupt::{self, Reason};
use crate::lua::{self, Memory, Outcome, State};

/// What the built-in interpreter takes. A zygote prepares it once, for all workers that it forks.
pub(crate) struct Prepared {
    memory: &'static Memory,
    state: State,
}

impl Prepared {
    pub(crate) fn new() -> io::Result<Self> {
        console::replace_c_streams()?;
        let memory = Memory::leak();
        let state = State::new(memory).ok_or_else(|| io::Error::other("no memory for Lua"))?;
        Ok(Self { memory, state })
    }
}

struct Worker {
    memory: &'static Memory,
    state: State,
    /// The directory that runs start in.
    home: Option<PathBuf>,
    /// Processor time at the end of the last evaluation. What is used between two, to read the next
    /// request, counts for the next one, and asking the system once for each is enough.
    cpu_time: u64,
}

/// What the next message asks of the worker's loop.
enum Next {
    GoOn,
    Leave,
}

/// Serves a controller until it hangs up. `home` is the working directory of the VM.
pub(crate) fn serve(
    connection: Connection,
    prepared: Prepared,
    isolation: Isolation,
    home: Option<PathBuf>,
) -> io::Result<()> {
    prepared.state.reseed();
    interrupt::install(connection.raw_reader())?;
    console::take_connection(connection);
    let hello = Hello {
        protocol: VERSION,
        interpreter: lua::version(),
        platform: format!("{}-{}", std::env::consts::OS, std::env::consts::ARCH),
    };
    console::send(&[Reply::Sandboxed(isolation), Reply::Hello(hello)])?;
    let Prepared { memory, state } = prepared;
    let mut worker = Worker { memory, state, home, cpu_time: interrupt::process_cpu_time() };
    loop {
        let payload = match console::receive() {
            Ok(Received::Payload(payload)) => payload,
            Ok(Received::Closed | Received::Interrupted) => return Ok(()),
            Err(error) => return give_up(&error.to_string()),
        };
        let request = match decode(&payload) {
            Ok(request) => request,
            Err(error) => return give_up(&error.to_string()),
        };
        match worker.handle(request)? {
            Next::GoOn => {}
            Next::Leave => return Ok(()),
        }
    }
}

/// Says why the worker cannot go on, and ends it.
fn give_up(reason: &str) -> io::Result<()> {
    console::send(&[Reply::Fatal(Cow::Borrowed(reason))])?;
    Err(io::Error::other(reason.to_owned()))
}

impl Worker {
    fn handle(&mut self, request: Request) -> io::Result<Next> {
        match request {
            Request::Configure(configure) => self.configure(configure),
            Request::Evaluate(evaluate) => {
                let end = self.evaluate(&evaluate);
                console::finish(end)?;
            }
            // It came after the end of what it was meant for.
            Request::Cancel(_) | Request::Stdin(_) => {}
            Request::Shutdown => return Ok(Next::Leave),
        }
        Ok(Next::GoOn)
    }

    fn configure(&mut self, configure: Configure) {
        self.memory.set_limit(configure.memory);
        lua::set_grants(configure.grants);
    }

    fn evaluate(&mut self, request: &Evaluate) -> End {
        lua::set_exit_code(None);
        if let Some(environment) = &request.environment {
            lua::set_environment(environment.clone());
        }
        self.memory.restart_peak();
        let started = self.cpu_time;
        let already_cancelled = console::begin(request.id, request.output);
        let limit = |microseconds: Option<u64>| microseconds.map(Duration::from_micros);
        interrupt::begin(limit(request.wall_time_us), limit(request.cpu_time_us), started);
        if already_cancelled {
            interrupt::request(Reason::Cancelled);
        }
        let mut outcome = match self.enter_directory(request) {
            Ok(()) => self.run(request),
            Err(outcome) => outcome,
        };
        console::flush_all_files();
        console::take_errors_of_programs();
        let reason = interrupt::end();
        let exit_code = lua::take_exit_code();
        if let Some(reason) = reason {
            outcome.status = reason.status();
            outcome.values.clear();
            outcome.error = None;
        }
        self.cpu_time = interrupt::process_cpu_time();
        End {
            id: request.id,
            status: outcome.status,
            values: outcome.values,
            error: outcome.error,
            exit_code: exit_code.filter(|_| reason == Some(Reason::Exit)),
            cpu_time_us: Some(self.cpu_time.saturating_sub(started) / 1000),
            peak_memory: Some(self.memory.peak()),
            cut: console::cut(),
            state_lost: false,
        }
    }

    fn enter_directory(&self, request: &Evaluate) -> Result<(), Outcome> {
        let own = request.working_directory.as_ref().map(|path| Path::new(OsStr::from_bytes(path)));
        let Some(directory) = own.or(self.home.as_deref()) else { return Ok(()) };
        lua::set_working_directory(directory).map_err(|error| {
            let shown = directory.display();
            Outcome::failed(format!("cannot enter the working directory `{shown}`: {error}"))
        })
    }

    fn run(&mut self, request: &Evaluate) -> Outcome {
        let Evaluate { form, name, code, arguments, .. } = request;
        if !request.fresh {
            return self.state.evaluate(*form, name, code, arguments);
        }
        if self.memory.wants_collection() {
            // An evaluation that ended by its memory limit leaves garbage up to the limit.
            self.state.collect_garbage(self.memory);
        }
        match State::new(self.memory) {
            Some(mut state) => {
                state.reseed();
                state.evaluate(*form, name, code, arguments)
            }
            None => Outcome { status: Status::Memory, values: Vec::new(), error: None },
        }
    }
}
