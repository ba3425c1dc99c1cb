//! The process that runs one Lua VM: interpreter, limits, sandbox and worker protocol.
//!
//! A *zygote* is started once per fleet for each kind of worker. It prepares what all of them share
//! (the Lua library, the system-call filter) and forks a *worker* for each VM, so that making a VM
//! costs no program start.
//! A worker holds itself in, introduces itself and then evaluates what its controller sends, one
//! piece of code after another. It links no async runtime and no TLS.
//!
//! Any program can be its own worker by calling [`become_worker_if_asked`] before anything else.
//!
//! ```text
//! controller ──order + socket──▶ zygote ──fork──▶ worker: sandbox, Sandboxed, Hello, serve
//!     ▲ └───────────────────evaluations over the socket─────────────▶ │
//!     └──────Forked, Ended──────────┘◀───────────reaped───────────────┘
//! ```
//!
//! Where there is no zygote, in a guest, `bioxen-worker serve` is a worker by itself, which speaks to its
//! controller over standard input and output; see `standalone`.
//!
//! A worker ends when its socket closes, when its controller is gone, however that went (see
//! `lifeline`), and by its own hand when code runs on after its limit (see `interrupt`).

#[cfg(target_os = "linux")]
mod cgroup;
#[cfg(target_os = "linux")]
mod connection;
#[cfg(target_os = "linux")]
mod console;
#[cfg(target_os = "linux")]
mod gate;
mod interpreter;
#[cfg(target_os = "linux")]
mod interrupt;
#[cfg(target_os = "linux")]
mod lifeline;
#[cfg(target_os = "linux")]
mod lua;
#[cfg(target_os = "linux")]
mod sandbox;
#[cfg(target_os = "linux")]
mod serve;
#[cfg(target_os = "linux")]
mod standalone;
#[cfg(target_os = "linux")]
mod worker;
#[cfg(target_os = "linux")]
mod zygote;

use std::path::Path;
use std::process::ExitCode;
use std::sync::atomic::{AtomicBool, Ordering};

/// The name under which a program is started to be a worker.
pub const PROGRAM_NAME: &str = "bioxen-worker";

/// The second argument of a zygote, or of a worker that runs by itself, that is to apply no system-call filter, because this kernel was
/// seen to hang when it should.
pub const UNFILTERED: &str = "unfiltered";

/// The argument of a worker that runs by itself, for one VM.
pub const SERVE: &str = "serve";

#[cfg(target_os = "linux")]
pub use cgroup::Cgroup;
pub use interpreter::ask_version;

static CAN_BE_WORKER: AtomicBool = AtomicBool::new(false);

/// The version of the built-in Lua.
#[cfg(target_os = "linux")]
pub use lua::version as embedded_version;

/// The worker for interpreters that are programs of their own: Lua source that speaks the protocol on
/// standard input and output, under Lua 5.1 to 5.4 and `LuaJIT`.
pub const SHIM: &str = include_str!("shim.lua");

/// The piece of Lua, given to `INTERPRETER -e`, that reads the shim from standard input and runs it.
pub fn shim_bootstrap() -> String {
    let length = SHIM.len();
    format!("assert((loadstring or load)(io.stdin:read({length}),'=bioxen'))()")
}

/// Becomes a worker and never returns when this process was started as one, under the name
/// [`PROGRAM_NAME`]; returns at once otherwise.
///
/// Call it first in `main`, before any thread is started.
pub fn become_worker_if_asked() {
    CAN_BE_WORKER.store(true, Ordering::Relaxed);
    let name = std::env::args_os().next();
    let asked = name.is_some_and(|name| {
        Path::new(&name).file_name().is_some_and(|file_name| file_name == PROGRAM_NAME)
    });
    if asked {
        #[expect(clippy::exit, reason = "the caller's `main` must not go on")]
        std::process::exit(i32::from(run() != Outcome::Done));
    }
}

/// Whether this program becomes a worker when it is started under the name [`PROGRAM_NAME`]: it has asked
/// whether it was.
pub fn can_be_worker() -> bool {
    CAN_BE_WORKER.load(Ordering::Relaxed)
}

/// The `main` of the program `bioxen-worker`.
pub fn main() -> ExitCode {
    match run() {
        Outcome::Done => ExitCode::SUCCESS,
        Outcome::Failed => ExitCode::FAILURE,
    }
}

#[derive(PartialEq, Eq)]
enum Outcome {
    Done,
    Failed,
}

#[cfg(target_os = "linux")]
fn run() -> Outcome {
    let lives_alone = std::env::args_os().nth(1).is_some_and(|argument| argument == SERVE);
    let lived = if lives_alone { standalone::main() } else { zygote::main() };
    match lived {
        Ok(()) => Outcome::Done,
        Err(reason) => {
            eprintln!("{PROGRAM_NAME}: {reason}");
            Outcome::Failed
        }
    }
}

#[cfg(not(target_os = "linux"))]
fn run() -> Outcome {
    eprintln!("{PROGRAM_NAME}: VMs of type `basic` need Linux");
    Outcome::Failed
}
