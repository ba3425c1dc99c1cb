//! The worker's standard streams: C stdio on one side, protocol messages on the other.
//!
//! Lua's own `io` library and `print` are kept as they are. The C library's `stdin`, `stdout` and
//! `stderr` are replaced by streams whose reads and writes end up here, so that formats, buffering
//! and error cases are exactly those of stock Lua.
#![expect(unsafe_code, reason = "C stdio streams are made and used through their C interface")]

use std::cell::RefCell;
use std::fs::File;
use std::io::{self, Read, Seek};
use std::ptr;

use bioxen_core::Stream;
use bioxen_core::protocol::{End, Reply, Request, decode};
use libc::{FILE, c_char, c_int, c_void};
use nix::fcntl::{FcntlArg, OFlag, fcntl};
use nix::sys::memfd::{MFdFlags, memfd_create};

use crate::connection::{Connection, Received};
use crate::interrupt::{self, Reason};

/// Output that is collected before it is sent.
const BUFFER: usize = 64 << 10;

unsafe extern "C" {
    #[link_name = "stdin"]
    static mut C_STDIN: *mut FILE;
    #[link_name = "stdout"]
    static mut C_STDOUT: *mut FILE;
    #[link_name = "stderr"]
    static mut C_STDERR: *mut FILE;
    fn fopencookie(
        cookie: *mut c_void,
        mode: *const c_char,
        functions: CookieFunctions,
    ) -> *mut FILE;
    fn __fpurge(stream: *mut FILE);
}

/// `cookie_io_functions_t` of the GNU C library and musl.
#[repr(C)]
struct CookieFunctions {
    read: Option<unsafe extern "C" fn(*mut c_void, *mut c_char, usize) -> isize>,
    write: Option<unsafe extern "C" fn(*mut c_void, *const c_char, usize) -> isize>,
    seek: Option<unsafe extern "C" fn(*mut c_void, *mut libc::off64_t, c_int) -> c_int>,
    close: Option<unsafe extern "C" fn(*mut c_void) -> c_int>,
}

struct Console {
    connection: Connection,
    /// The evaluation that runs.
    evaluation: u64,
    /// Bytes of `waiting_stream` that are not sent yet.
    waiting: Vec<u8>,
    waiting_stream: Stream,
    /// What may still be written.
    allowance: u64,
    cut: (bool, bool),
    input: Vec<u8>,
    input_read: usize,
    input_ended: bool,
}

thread_local! {
    static CONSOLE: RefCell<Option<Console>> = const { RefCell::new(None) };
    static ERRORS_OF_PROGRAMS: RefCell<Option<File>> = const { RefCell::new(None) };
}

fn with<T>(action: impl FnOnce(&mut Console) -> T) -> T {
    CONSOLE.with_borrow_mut(|console| action(console.as_mut().expect("the worker has a console")))
}

/// Replaces the standard streams of C. Done once, before any Lua state opens its `io` library.
pub(crate) fn replace_c_streams() -> io::Result<()> {
    let output = |stream: Stream, buffering: c_int| {
        let functions =
            CookieFunctions { read: None, write: Some(on_write), seek: None, close: None };
        // SAFETY: the functions outlive the stream, and the cookie is a number to them.
        unsafe {
            let file = fopencookie(stream as usize as *mut c_void, c"w".as_ptr(), functions);
            if file.is_null() {
                return Err(io::Error::last_os_error());
            }
            libc::setvbuf(file, ptr::null_mut(), buffering, 16 << 10);
            Ok(file)
        }
    };
    let functions = CookieFunctions { read: Some(on_read), write: None, seek: None, close: None };
    // SAFETY: as above; nothing else uses these three variables while they are replaced.
    unsafe {
        let input = fopencookie(ptr::null_mut(), c"r".as_ptr(), functions);
        if input.is_null() {
            return Err(io::Error::last_os_error());
        }
        C_STDIN = input;
        C_STDOUT = output(Stream::Stdout, libc::_IOLBF)?;
        C_STDERR = output(Stream::Stderr, libc::_IONBF)?;
    }
    Ok(())
}

/// Hands the connection over to the console, through which all messages go from now on.
pub(crate) fn take_connection(connection: Connection) {
    let console = Console {
        connection,
        evaluation: 0,
        waiting: Vec::new(),
        waiting_stream: Stream::Stdout,
        allowance: 0,
        cut: (false, false),
        input: Vec::new(),
        input_read: 0,
        input_ended: false,
    };
    CONSOLE.set(Some(console));
}

/// Waits for the next message between evaluations.
pub(crate) fn receive() -> io::Result<Received> {
    with(|console| console.connection.receive())
}

/// Sends messages that are not output.
pub(crate) fn send(replies: &[Reply]) -> io::Result<()> {
    with(|console| console.connection.send(replies))
}

/// Prepares for an evaluation that may write so many bytes. Returns whether the controller has
/// already sent more, which can only be its cancelling.
pub(crate) fn begin(evaluation: u64, allowance: Option<u64>) -> bool {
    with(|console| {
        console.evaluation = evaluation;
        console.allowance = allowance.unwrap_or(u64::MAX);
        console.cut = (false, false);
        console.input_ended = false;
        console.connection.has_buffered_bytes()
    })
}

/// Takes a number of bytes off what may still be written; `false` when there are fewer left.
pub(crate) fn spend(bytes: u64) -> bool {
    with(|console| match console.allowance.checked_sub(bytes) {
        Some(left) => {
            console.allowance = left;
            true
        }
        None => false,
    })
}

/// What of an evaluation's output was cut.
pub(crate) fn cut() -> (bool, bool) {
    with(|console| console.cut)
}

/// Moves what C stdio holds back to the console.
pub(crate) fn flush_c_streams() {
    // SAFETY: the streams are ours and open. A failed write was ours too, and has been handled.
    unsafe {
        libc::fflush(C_STDOUT);
        libc::fflush(C_STDERR);
    }
}

/// Moves on what C stdio holds back of any file: an evaluation that has ended has written all that it
/// wrote, also to files that it has left open.
pub(crate) fn flush_all_files() {
    // SAFETY: without a stream all of them are flushed, and each is owned by C stdio.
    unsafe { libc::fflush(ptr::null_mut()) };
}

/// Sends what waits, and forgets input that was not read.
pub(crate) fn finish(end: End) -> io::Result<()> {
    flush_c_streams();
    // SAFETY: the streams are ours and open.
    unsafe {
        __fpurge(C_STDIN);
        libc::clearerr(C_STDIN);
        libc::clearerr(C_STDOUT);
        libc::clearerr(C_STDERR);
    }
    with(|console| {
        console.input.clear();
        console.input_read = 0;
        let outcome = if console.waiting.is_empty() {
            console.connection.send(&[Reply::End(end)])
        } else {
            let output = Reply::Output(console.waiting_stream, &console.waiting);
            console.connection.send(&[output, Reply::End(end)])
        };
        console.waiting.clear();
        // What one large output took is not kept for an idle VM.
        console.waiting.shrink_to(BUFFER);
        outcome
    })
}

/// Sends what waits while an evaluation goes on.
pub(crate) fn send_waiting() {
    flush_c_streams();
    with(Console::send_waiting);
}

/// Makes standard error a file in memory, for programs that Lua starts by `io.popen`: a pipe could
/// fill up while nobody reads it. What is in it becomes the run's standard error.
pub(crate) fn collect_errors_of_programs() -> io::Result<()> {
    let file = memfd_create(c"stderr", MFdFlags::MFD_CLOEXEC)?;
    fcntl(&file, FcntlArg::F_SETFL(OFlag::O_APPEND))?;
    nix::unistd::dup2_stderr(&file)?;
    ERRORS_OF_PROGRAMS.set(Some(File::from(file)));
    Ok(())
}

/// Hands on what programs have written to standard error.
pub(crate) fn take_errors_of_programs() {
    let written = ERRORS_OF_PROGRAMS.with_borrow_mut(|file| -> io::Result<Vec<u8>> {
        let mut written = Vec::new();
        if let Some(file) = file {
            file.seek(io::SeekFrom::Start(0))?;
            file.read_to_end(&mut written)?;
            file.set_len(0)?;
        }
        Ok(written)
    });
    match written {
        Ok(written) if written.is_empty() => {}
        Ok(written) => write(Stream::Stderr, &written),
        Err(error) => write(Stream::Stderr, format!("(standard error lost: {error})").as_bytes()),
    }
}

/// Writes to a stream, past C stdio.
pub(crate) fn write(stream: Stream, bytes: &[u8]) {
    flush_c_streams();
    with(|console| console.write(stream, bytes));
}

impl Console {
    fn write(&mut self, stream: Stream, bytes: &[u8]) {
        // After `os.exit` only message handlers and finalisers run, which the process would not have
        // survived to see.
        if !interrupt::is_running() || interrupt::pending() == Some(Reason::Exit) {
            return;
        }
        let allowed = usize::try_from(self.allowance).unwrap_or(usize::MAX).min(bytes.len());
        self.allowance -= allowed as u64;
        if allowed < bytes.len() {
            match stream {
                Stream::Stdout => self.cut.0 = true,
                Stream::Stderr => self.cut.1 = true,
            }
            interrupt::request(Reason::Output);
        }
        let bytes = &bytes[..allowed];
        if stream != self.waiting_stream || self.waiting.len() + bytes.len() > BUFFER {
            self.send_waiting();
            self.waiting_stream = stream;
        }
        if bytes.len() > BUFFER {
            return self.send_output(&[Reply::Output(stream, bytes)]);
        }
        self.waiting.extend_from_slice(bytes);
        if bytes.last().is_some_and(|last| *last != b'\n') {
            // Only an explicit flush, or a full buffer, hands over a part of a line.
            self.send_waiting();
        } else {
            interrupt::output_waits();
        }
    }

    fn send_waiting(&mut self) {
        if !self.waiting.is_empty() {
            let waiting = std::mem::take(&mut self.waiting);
            self.send_output(&[Reply::Output(self.waiting_stream, &waiting)]);
            self.waiting = waiting;
            self.waiting.clear();
        }
        interrupt::output_sent();
    }

    fn send_output(&mut self, replies: &[Reply]) {
        if self.connection.send(replies).is_err() {
            leave();
        }
    }

    fn read(&mut self, space: &mut [u8]) -> io::Result<usize> {
        if self.input_read == self.input.len() && !self.input_ended {
            self.ask_for_input()?;
        }
        let available = &self.input[self.input_read..];
        let count = available.len().min(space.len());
        space[..count].copy_from_slice(&available[..count]);
        self.input_read += count;
        Ok(count)
    }

    fn ask_for_input(&mut self) -> io::Result<()> {
        self.send_waiting();
        interrupt::waiting_for_input(true);
        self.connection.send(&[Reply::NeedInput(self.evaluation)])?;
        let received = self.connection.receive_or_interrupt();
        interrupt::waiting_for_input(false);
        let payload = match received? {
            Received::Payload(payload) => payload,
            Received::Interrupted => return Ok(()),
            Received::Closed => leave(),
        };
        match decode(&payload).map_err(io::Error::other)? {
            Request::Stdin(bytes) => {
                self.input_ended = bytes.is_empty();
                self.input.clear();
                self.input.extend_from_slice(bytes);
                self.input_read = 0;
            }
            Request::Cancel(_) => interrupt::request(Reason::Cancelled),
            Request::Shutdown => leave(),
            Request::Configure(_) | Request::Evaluate(_) => {
                return Err(io::Error::other("a request arrived where input was asked for"));
            }
        }
        Ok(())
    }
}

/// Ends the worker: nobody listens any more.
fn leave() -> ! {
    // SAFETY: ends the process at once, from inside a callback of C.
    unsafe { libc::_exit(0) }
}

unsafe extern "C" fn on_write(cookie: *mut c_void, bytes: *const c_char, length: usize) -> isize {
    let stream =
        if cookie as usize == Stream::Stderr as usize { Stream::Stderr } else { Stream::Stdout };
    if stream == Stream::Stderr {
        // What was written to standard output before comes first, be it a part of a line.
        // SAFETY: the stream is ours, open, and another one than is being written to.
        unsafe { libc::fflush(C_STDOUT) };
    }
    // SAFETY: C stdio passes so many valid bytes.
    let bytes = unsafe { std::slice::from_raw_parts(bytes.cast::<u8>(), length) };
    with(|console| console.write(stream, bytes));
    length.cast_signed()
}

unsafe extern "C" fn on_read(_: *mut c_void, space: *mut c_char, length: usize) -> isize {
    flush_c_streams();
    // SAFETY: C stdio passes room for so many bytes.
    let space = unsafe { std::slice::from_raw_parts_mut(space.cast::<u8>(), length) };
    match with(|console| console.read(space)) {
        Ok(count) => count.cast_signed(),
        Err(_) => -1,
    }
}
