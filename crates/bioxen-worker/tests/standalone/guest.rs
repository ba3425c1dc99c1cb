//! One worker that runs by itself, spoken to frame by frame.

use std::io::{self, Read, Write};
use std::net::Shutdown;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::process::{Child, Command, ExitStatus, Stdio};

use bioxen::{Interpreter, Isolation, VmSpec};
use bioxen_core::protocol::standalone::{Accepted, Answer, Opening, Order, Refusal};
use bioxen_core::protocol::{
    Configure, Decoder, End, Evaluate, Form, Hello, Reply, Request, decode, encode,
};
use bioxen_testkit::{Process, Wire, interpreter, wait_until};
use bytes::Bytes;

/// The program, as this package builds it.
pub(crate) const PROGRAM: &str = env!("CARGO_BIN_EXE_bioxen-guest-worker");

pub(crate) struct Guest {
    pub(crate) child: Child,
    reader: Option<Box<dyn Read>>,
    writer: Option<Box<dyn Write>>,
    /// What both of them are, if that is so.
    socket: Option<UnixStream>,
    decoder: Decoder,
    evaluations: u64,
}

pub(crate) fn command() -> Command {
    let mut command = Command::new(PROGRAM);
    command.arg(bioxen_worker::SERVE);
    command
}

/// An order for a worker.
pub(crate) fn order(change: impl FnOnce(VmSpec) -> VmSpec) -> Order {
    let environment = [("GIVEN".to_owned(), "value".to_owned())].into();
    Order::of(&change(VmSpec::basic("vm").unwrap()), environment)
}

/// An order for another interpreter, if this machine has it.
pub(crate) fn order_on(name: &str, change: impl FnOnce(VmSpec) -> VmSpec) -> Option<Order> {
    let program = interpreter(name)?.program?;
    Some(order(|spec| change(spec.interpreter(Interpreter::Program(program)))))
}

impl Guest {
    pub(crate) fn start(wire: Wire) -> Self {
        Self::start_by(command(), wire)
    }

    pub(crate) fn start_by(mut command: Command, wire: Wire) -> Self {
        let (reader, writer): (Box<dyn Read>, Box<dyn Write>);
        let (stdin, stdout, socket): (OwnedFd, OwnedFd, _);
        match wire {
            Wire::Pipes => {
                let ((their_in, our_out), (our_in, their_out)) =
                    (io::pipe().unwrap(), io::pipe().unwrap());
                (reader, writer) = (Box::new(our_in), Box::new(our_out));
                (stdin, stdout, socket) = (their_in.into(), their_out.into(), None);
            }
            Wire::Socket => {
                let (ours, theirs) = UnixStream::pair().unwrap();
                let another = || ours.try_clone().unwrap();
                (reader, writer) = (Box::new(another()), Box::new(another()));
                stdout = theirs.try_clone().unwrap().into();
                (stdin, socket) = (theirs.into(), Some(ours));
            }
        }
        command.stdin(stdin).stdout(stdout).stderr(Stdio::piped());
        let child = command.spawn().unwrap();
        drop(command);
        let decoder = Decoder::new(1 << 20);
        let (reader, writer) = (Some(reader), Some(writer));
        Self { child, reader, writer, socket, decoder, evaluations: 0 }
    }

    pub(crate) fn send(&mut self, bytes: &[u8]) {
        // A worker that has ended says why; that is what is to be seen.
        let _ = self.writer.as_mut().unwrap().write_all(bytes);
    }

    pub(crate) fn payload(&mut self) -> Option<Bytes> {
        loop {
            if let Some(payload) = self.decoder.next_payload().unwrap() {
                return Some(payload);
            }
            let mut space = [0; 4096];
            match self.reader.as_mut().unwrap().read(&mut space) {
                Ok(0) | Err(_) => return None,
                Ok(count) => self.decoder.space().extend_from_slice(&space[..count]),
            }
        }
    }

    pub(crate) fn answer(&mut self) -> Answer {
        decode(&self.payload().expect("it answers")).unwrap()
    }

    pub(crate) fn order(&mut self, order: &Order) -> Answer {
        self.send(&encode(&Opening::Order(order.clone())));
        self.answer()
    }

    /// Has an order accepted, and reads the introduction.
    pub(crate) fn accepted(&mut self, order: &Order) -> (Accepted, Isolation, Hello) {
        let accepted = match self.order(order) {
            Answer::Accepted(accepted) => accepted,
            Answer::Refused(refusal) => panic!("{refusal}"),
        };
        if accepted.program.is_some() {
            self.send(bioxen_worker::SHIM.as_bytes());
        }
        let payload = self.payload().expect("it is held in");
        let Reply::Sandboxed(isolation) = decode(&payload).unwrap() else { panic!("{payload:?}") };
        let payload = self.payload().expect("it introduces itself");
        let Reply::Hello(hello) = decode(&payload).unwrap() else { panic!("{payload:?}") };
        let grants = accepted.grants.clone();
        self.send(&encode(&Request::Configure(Configure { memory: None, grants })));
        (accepted, isolation, hello)
    }

    pub(crate) fn refused(&mut self, order: &Order) -> Refusal {
        match self.order(order) {
            Answer::Refused(refusal) => refusal,
            Answer::Accepted(accepted) => panic!("{accepted:?}"),
        }
    }

    /// Starts an evaluation.
    pub(crate) fn begin(&mut self, code: &str) {
        self.evaluations += 1;
        let evaluate = Evaluate {
            id: self.evaluations,
            form: Form::Chunk,
            fresh: false,
            name: "test".into(),
            code: code.as_bytes(),
            arguments: Vec::new(),
            environment: None,
            working_directory: None,
            wall_time_us: None,
            cpu_time_us: None,
            output: None,
        };
        self.send(&encode(&Request::Evaluate(evaluate)));
    }

    /// Starts an evaluation and waits until it has written something.
    pub(crate) fn begun(&mut self, code: &str) {
        self.begin(code);
        let payload = self.payload().expect("it runs");
        assert!(matches!(decode(&payload), Ok(Reply::Output(..))), "{payload:?}");
    }

    pub(crate) fn cancel(&mut self) {
        self.send(&encode(&Request::Cancel(self.evaluations)));
    }

    pub(crate) fn end(&mut self) -> End {
        loop {
            let payload = self.payload().expect("it goes on");
            match decode(&payload).unwrap() {
                Reply::End(end) => return end,
                Reply::Output(..) => {}
                other => panic!("{other:?}"),
            }
        }
    }

    pub(crate) fn evaluate(&mut self, code: &str) -> End {
        self.begin(code);
        self.end()
    }

    /// Closes both directions.
    pub(crate) fn hang_up(&mut self) {
        self.writer = None;
        self.reader = None;
        self.socket = None;
    }

    /// Closes the direction in which the worker reads, and goes on reading what it says.
    pub(crate) fn stop_writing(&mut self) {
        self.writer = None;
        if let Some(socket) = &self.socket {
            socket.shutdown(Shutdown::Write).unwrap();
        }
    }

    pub(crate) fn watcher(&self) -> Process {
        Process::of(self.child.id())
    }

    /// Waits for the end of the program that was started. Returns how it ended and what it said.
    pub(crate) fn wait(&mut self) -> (ExitStatus, String) {
        let mut status = None;
        wait_until("the program has ended", || {
            status = self.child.try_wait().unwrap();
            status.is_some()
        });
        let mut said = String::new();
        let mut stderr = self.child.stderr.take().unwrap();
        stderr.read_to_string(&mut said).unwrap();
        (status.unwrap(), said)
    }
}

impl Drop for Guest {
    fn drop(&mut self) {
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}
