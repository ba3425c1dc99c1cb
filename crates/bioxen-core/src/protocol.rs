//! The worker protocol: what a controller and a worker say to each other over a byte stream.
//!
//! Pure values and bytes, so that both ends, every transport and the fuzzer share it.
//!
//! A frame is a length (four bytes, most significant first) and that many bytes of `MessagePack`: a map
//! of one entry whose key names the message and whose value is an array of its fields, in the order
//! in which the types below declare them. Fields added later stand at the end, and a reader gives
//! missing ones their default. Lua strings travel as `bin`, so that `str` can stand for what is no
//! data (see [`Value`]).
//!
//! ```text
//! worker      ──▶ Sandboxed, Hello
//! controller  ──▶ Configure                      any time between evaluations; no answer
//! controller  ──▶ Evaluate
//! worker      ──▶ Output*  (NeedInput ◀─▶ Stdin)*  End
//! controller  ──▶ Cancel                         while one evaluates; End still follows
//! controller  ──▶ Shutdown                       the worker exits
//! ```
//!
//! One evaluation at a time; the controller queues. A frame that makes no sense ends the connection.

mod frame;
pub mod standalone;
pub mod zygote;

use std::borrow::Cow;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::{Grants, Isolation, LuaError, Stream, Value};
pub use frame::{Decoder, FrameError, HEADER_LENGTH, decode, encode, encode_into};

/// The version that this program speaks. Controller and worker must agree on it exactly.
pub const VERSION: u32 = 1;

/// The largest frame that a worker accepts: room for very large scripts.
pub const LARGEST_REQUEST: usize = 256 << 20;

/// Tables nested deeper than this are returned as [`Value::Other`].
pub const DEEPEST_VALUE: usize = 32;

/// What a controller says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Request<'a> {
    /// Sets what holds for all evaluations from now on.
    Configure(Configure),
    /// Runs code.
    #[serde(borrow)]
    Evaluate(Evaluate<'a>),
    /// Ends the evaluation with this number, if it still runs.
    Cancel(u64),
    /// Answers `NeedInput`; no bytes mean that there are no more.
    Stdin(#[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// Ends the worker.
    Shutdown,
}

/// What holds for all evaluations of a worker.
#[derive(Clone, Debug, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct Configure {
    /// The most bytes that Lua may hold; `None` is no bound.
    pub memory: Option<u64>,
    /// What the code may touch, paths absolute and free of links: a worker answers a request for
    /// anything else with an error that names the grant, before the operating system would refuse it.
    pub grants: Grants,
}

/// One piece of code to run.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
pub struct Evaluate<'a> {
    /// Counts up on each connection; `Cancel` and `End` carry it.
    pub id: u64,
    /// How the code is to be read.
    pub form: Form,
    /// Whether it gets a Lua state of its own, gone when it ends.
    pub fresh: bool,
    /// What error messages call it.
    #[serde(borrow)]
    pub name: Cow<'a, str>,
    /// Lua source.
    #[serde(borrow, with = "serde_bytes")]
    pub code: &'a [u8],
    /// `arg` and `...`.
    pub arguments: Vec<serde_bytes::ByteBuf>,
    /// All variables that the code sees; `None` leaves those of the last evaluation.
    pub environment: Option<BTreeMap<String, String>>,
    /// The directory to run in; `None` is the VM's own.
    pub working_directory: Option<serde_bytes::ByteBuf>,
    /// The most time from start to end, in microseconds.
    pub wall_time_us: Option<u64>,
    /// The most processor time, in microseconds.
    pub cpu_time_us: Option<u64>,
    /// The most bytes of output and values.
    pub output: Option<u64>,
}

/// How code is to be read.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Form {
    /// A whole chunk, as in a file; a first line that starts with `#` is skipped.
    Chunk,
    /// What a person types: an expression, whose values are returned, or else a chunk. Where more
    /// lines could complete it, it is not run and `End` says [`Status::Incomplete`].
    Input,
}

/// What a worker says.
#[derive(Debug, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Reply<'a> {
    /// First of all: the process is held in, this far.
    Sandboxed(Isolation),
    /// Then: the interpreter is ready.
    Hello(Hello),
    /// Bytes that the code wrote.
    Output(Stream, #[serde(borrow, with = "serde_bytes")] &'a [u8]),
    /// The code reads standard input and waits; the controller answers with `Stdin`.
    NeedInput(u64),
    /// The evaluation is over.
    End(End),
    /// The worker cannot go on, and why. It exits after this.
    Fatal(Cow<'a, str>),
}

/// A worker's introduction.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Hello {
    /// [`VERSION`], as the worker knows it.
    pub protocol: u32,
    /// What the interpreter calls itself: `Lua 5.4.9`.
    pub interpreter: String,
    /// Operating system and processor: `linux-x86_64`; `unknown` where the interpreter cannot tell.
    pub platform: String,
}

/// How an evaluation ended, as the worker saw it.
#[derive(Clone, Debug, PartialEq, Serialize, Deserialize)]
pub struct End {
    /// Which evaluation.
    pub id: u64,
    /// How.
    pub status: Status,
    /// What it returned.
    pub values: Vec<Value>,
    /// The error that ended it.
    pub error: Option<LuaError>,
    /// The code that it passed to `os.exit`.
    pub exit_code: Option<i32>,
    /// Processor time used, in microseconds.
    pub cpu_time_us: Option<u64>,
    /// The most bytes that Lua held at once.
    pub peak_memory: Option<u64>,
    /// Whether standard output and standard error were cut at the limit.
    pub cut: (bool, bool),
    /// Whether the persistent Lua state was lost, although the worker goes on.
    #[serde(default)]
    pub state_lost: bool,
}

/// How an evaluation ended.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Status {
    /// It returned, or called `os.exit`.
    Finished,
    /// A Lua error.
    Error,
    /// The input wants more lines; nothing was run.
    Incomplete,
    /// Its time was up.
    WallTime,
    /// Its processor time was up.
    CpuTime,
    /// It needed more memory than allowed.
    Memory,
    /// It wrote or returned more than allowed.
    Output,
    /// It was cancelled.
    Cancelled,
}

#[cfg(test)]
mod tests {
    use super::*;

    fn round_trip<'a, T>(message: &T, buffer: &'a mut Vec<u8>) -> T
    where
        T: Serialize + Deserialize<'a>,
    {
        *buffer = encode(message);
        decode(&buffer[HEADER_LENGTH..]).expect("what we wrote can be read")
    }

    #[test]
    fn an_evaluation_survives_the_wire() {
        let request = Request::Evaluate(Evaluate {
            id: 7,
            form: Form::Input,
            fresh: true,
            name: "=input".into(),
            code: b"return '\0\xff'",
            arguments: vec![serde_bytes::ByteBuf::from(*b"\xfe")],
            environment: Some([("A".to_owned(), "b".to_owned())].into()),
            working_directory: None,
            wall_time_us: Some(1),
            cpu_time_us: None,
            output: Some(u64::MAX),
        });
        assert_eq!(round_trip(&request, &mut Vec::new()), request);
    }

    #[test]
    fn output_is_decoded_in_place() {
        let frame = encode(&Reply::Output(Stream::Stderr, b"abc"));
        let Ok(Reply::Output(Stream::Stderr, data)) = decode(&frame[HEADER_LENGTH..]) else {
            panic!("not the same message");
        };
        assert!(frame.as_ptr_range().contains(&data.as_ptr()));
    }

    #[test]
    fn a_message_is_a_map_of_one_name_and_an_array_of_fields() {
        // What the shim, which has no serde, relies on.
        let frame = encode(&Reply::NeedInput(5));
        assert_eq!(frame, [&[0, 0, 0, 13, 0x81, 0xaa][..], b"need_input", &[5]].concat());
        let frame = encode(&Reply::Output(Stream::Stdout, b"x"));
        let expected =
            [&[0, 0, 0, 19, 0x81, 0xa6][..], b"output", &[0x92, 0xa6], b"stdout", &[0xc4, 1], b"x"];
        assert_eq!(frame, expected.concat());
    }
}
