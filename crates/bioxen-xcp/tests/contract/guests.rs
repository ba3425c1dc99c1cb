//! Subjects of the contract that live in guests.

use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::sync::{Arc, Mutex, OnceLock, Weak};
use std::time::Duration;

use bioxen::{Fleet, Interpreter, Vm};
use bioxen_testkit::contract::{Elsewhere, Subject};
use bioxen_testkit::{guest_worker_program, interpreter};
use bioxen_xcp::XcpngBackend;
use bioxen_xcp::making::WorkerSource;
use bioxen_xcp::ssh::files::WorkerImage;
use bioxen_xcp::ssh::{Command, Exit};
use bytes::Bytes;
use futures::future::BoxFuture;
use nix::sys::signal::Signal;
use tempfile::TempDir;
use tokio::runtime::Runtime;
use xenapi::Client;
use xenapi_sim::guest::ProcessOptions;

use crate::support::{SimulatedPool, nothing_is_left_of};

/// How long a command in a guest may take.
const PATIENCE: Duration = Duration::from_mins(1);

/// What workers and interpreters are called in a guest.
const WORKERS: &str = "^(bioxen-worker|lua)";

/// The pool, while a case needs it.
struct Common {
    // Dropped before its runtime.
    pool: Option<SimulatedPool>,
    onlooker: Client,
    shared: TempDir,
    runtime: Runtime,
}

impl Common {
    fn get() -> Arc<Self> {
        static COMMON: Mutex<Weak<Common>> = Mutex::new(Weak::new());
        let mut common = COMMON.lock().unwrap();
        if let Some(there) = common.upgrade() {
            return there;
        }
        let new = Arc::new(Self::start());
        *common = Arc::downgrade(&new);
        new
    }

    fn start() -> Self {
        let shared = tempfile::Builder::new().prefix("bioxen-shared-").tempdir().unwrap();
        // Guests come here as another user.
        std::fs::set_permissions(shared.path(), PermissionsExt::from_mode(0o755)).unwrap();
        let options =
            ProcessOptions { shared: vec![shared.path().to_owned()], ..ProcessOptions::default() };
        let runtime = Runtime::new().unwrap();
        let (pool, onlooker) = runtime.block_on(async {
            let pool = SimulatedPool::start(options).await;
            let onlooker = pool.onlooker().await;
            (pool, onlooker)
        });
        Self { pool: Some(pool), onlooker, shared, runtime }
    }

    fn pool(&self) -> &SimulatedPool {
        self.pool.as_ref().expect("it is there until the end")
    }
}

impl Drop for Common {
    fn drop(&mut self) {
        if let Some(pool) = self.pool.take() {
            self.runtime.block_on(pool.sim.stop());
        }
    }
}

/// The guests of one case.
struct Guests {
    common: Arc<Common>,
    backend: Arc<XcpngBackend>,
}

impl Elsewhere for Guests {
    fn shared(&self) -> PathBuf {
        self.common.shared.path().to_owned()
    }

    fn signal(&self, vm: &Vm, signal: Signal) -> BoxFuture<'_, bool> {
        let vm = vm.name().clone();
        Box::pin(async move {
            let connection = self.backend.connection(&vm).await.expect("its guest is entered");
            // Who watches over a worker is older than it. The dead do not count.
            let pkill = Command::new("pkill")
                .arguments(["--newest", "--runstates", "D,R,S,T", "--signal", signal.as_str()])
                .argument(WORKERS);
            let output = connection.run(&pkill, Bytes::new(), 4096, PATIENCE).await.unwrap();
            output.exit == Exit::Code(0)
        })
    }

    fn check_that_nothing_is_left(&self) -> BoxFuture<'_, ()> {
        let (onlooker, fleet) = (self.common.onlooker.clone(), self.backend.fleet());
        // The onlooker's connections belong to the runtime that the pool has.
        let looking =
            self.common.runtime.spawn(async move { nothing_is_left_of(&onlooker, fleet).await });
        Box::pin(async move { looking.await.unwrap() })
    }
}

fn worker() -> WorkerSource {
    static WORKER: OnceLock<WorkerImage> = OnceLock::new();
    let read = || WorkerImage::new(std::fs::read(guest_worker_program()).unwrap());
    WorkerSource::Image(WORKER.get_or_init(read).clone())
}

fn subject(kind: &str, worker: WorkerSource, interpreter: Interpreter) -> Subject {
    let common = Common::get();
    let backend = Arc::new(common.pool().backend().worker(worker).build());
    let fleet = Fleet::builder().backend(Arc::clone(&backend) as _).standby(0).build();
    let guests = Guests { common: Arc::clone(&common), backend };
    let spec = move |vm: &str| common.pool().spec(vm).interpreter(interpreter.clone());
    Subject::in_fleet(fleet, kind, spec).elsewhere(guests)
}

/// The interpreter in our worker.
pub(crate) fn embedded() -> Subject {
    subject("embedded", worker(), Interpreter::Embedded)
}

/// An interpreter of the guest, held in by our worker. The guests have the programs of this machine.
pub(crate) fn program(name: &'static str) -> Option<Subject> {
    let path = interpreter(name)?.program?;
    Some(subject(name, worker(), Interpreter::Program(path)))
}

/// The guest's own interpreter without our worker.
pub(crate) fn bare() -> Option<Subject> {
    interpreter("lua5.4")?;
    Some(subject("lua5.4", WorkerSource::None, Interpreter::Embedded))
}
