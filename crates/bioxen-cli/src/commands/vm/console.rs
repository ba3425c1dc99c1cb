//! `bioxen vm console`: the screen or the serial line of a VM, whatever its network does.

use std::io::{self, IsTerminal as _};
use std::net::{Ipv4Addr, SocketAddr};
use std::os::fd::AsFd as _;
use std::process::ExitCode;

use bioxen::VmName;
use bioxen_xcp::Machine;
use nix::sys::termios::{self, SetArg, Termios};
use serde::Serialize;
use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _, copy_bidirectional};
use tokio::net::TcpListener;
use tokio::task::JoinSet;
use xenapi::enums::ConsoleProtocol;
use xenapi::{Client, ConsoleStream, Ref, class};

use crate::failure::Failure;
use crate::registry::{Registry, Remembered};
use crate::report::Report;
use crate::signals::{Signals, Stop};
use crate::{json, output, runtime};

/// Ctrl-]: it means nothing to shells and editors.
const LEAVE: u8 = 0x1d;

/// Show the console of a VM that runs
///
/// Where it is text, it is connected with this terminal; Ctrl-] leaves it. Where it is a screen (VNC),
/// `--listen` opens a port of this machine for a VNC viewer, until Ctrl-C. The port is open to every user of
/// this machine, and to no other machine.
#[derive(Debug, clap::Args)]
pub(crate) struct Arguments {
    /// The VM
    name: VmName,
    /// Open this port for a VNC viewer; without a number, one that is free
    #[arg(long, value_name = "PORT", num_args = 0..=1, default_missing_value = "0")]
    listen: Option<u16>,
    /// Print one JSON object: what the console is, and where a viewer finds it
    #[arg(long)]
    json: bool,
}

#[derive(Serialize)]
struct Shown<'a> {
    name: &'a VmName,
    /// `rfb` for a screen, `vt100` for text.
    protocol: &'a str,
    /// Where a viewer finds it, if `--listen` was given.
    listening: Option<SocketAddr>,
}

/// A console of a VM.
struct Console {
    reference: Ref<class::Console>,
    protocol: ConsoleProtocol,
}

/// Shows it.
pub(crate) fn execute(arguments: &Arguments) -> Result<ExitCode, Failure> {
    let registry = Registry::open()?;
    runtime::block_on(async {
        let mut signals = Signals::listen()?;
        let vm = signals.or_stop(registry.reach(&arguments.name)).await?;
        let outcome = show(arguments, &vm, &mut signals).await;
        vm.close().await;
        outcome
    })
}

async fn show(
    arguments: &Arguments,
    vm: &Remembered,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let console = find(&vm.machine, vm.pool.client(), arguments.listen.is_some()).await?;
    let name = &arguments.name;
    let protocol = console.protocol.to_string();
    if let Some(port) = arguments.listen {
        let address = SocketAddr::from((Ipv4Addr::LOCALHOST, port));
        let failed = |source| Failure::Listen { address, source };
        let listener = TcpListener::bind(address).await.map_err(failed)?;
        let address = listener.local_addr().map_err(failed)?;
        let rendered = if arguments.json {
            json::render(&Shown { name, protocol: &protocol, listening: Some(address) })
        } else {
            format!("the screen of vm `{name}` is at {address}, for a VNC viewer; Ctrl-C ends it\n")
                .into_bytes()
        };
        output::print(&rendered)?;
        return serve(vm.pool.client(), &console.reference, &listener, signals).await;
    }
    if console.protocol == ConsoleProtocol::Vt100 && !arguments.json {
        let stream = open(vm.pool.client(), &console.reference).await?;
        return signals.or_stop(connect(stream)).await;
    }
    let rendered = if arguments.json {
        json::render(&Shown { name, protocol: &protocol, listening: None })
    } else {
        let line = format!(
            "the console of vm `{name}` is a screen: `bioxen vm console {name} --listen` opens a port \
             for a VNC viewer\n"
        );
        line.into_bytes()
    };
    output::print(&rendered)?;
    Ok(ExitCode::SUCCESS)
}

/// Its console: text before a screen, unless it is a screen that is wanted.
async fn find(machine: &Machine, client: &Client, screen: bool) -> Result<Console, Failure> {
    let failed = |source| {
        let vm = machine.name().to_owned();
        Failure::Consoles { vm, source: Box::new(source) }
    };
    let mut consoles = Vec::new();
    for reference in client.vm().get_consoles(machine.reference()).await.map_err(failed)? {
        let protocol = client.console().get_protocol(&reference).await.map_err(failed)?;
        consoles.push(Console { reference, protocol });
    }
    let wanted = if screen { ConsoleProtocol::Rfb } else { ConsoleProtocol::Vt100 };
    let is_wanted = |console: &Console| console.protocol == wanted;
    match consoles.iter().position(is_wanted) {
        Some(index) => Ok(consoles.swap_remove(index)),
        None if screen => Err(Failure::NoConsole { vm: machine.name().to_owned() }),
        None => consoles
            .into_iter()
            .next()
            .ok_or_else(|| Failure::NoConsole { vm: machine.name().to_owned() }),
    }
}

async fn open(client: &Client, console: &Ref<class::Console>) -> Result<ConsoleStream, Failure> {
    client.open_console(console).await.map_err(|error| Failure::Console(Box::new(error)))
}

/// Gives each viewer a connection of its own, until it is to stop.
async fn serve(
    client: &Client,
    console: &Ref<class::Console>,
    listener: &TcpListener,
    signals: &mut Signals,
) -> Result<ExitCode, Failure> {
    let mut viewers = JoinSet::new();
    loop {
        let accepted = tokio::select! {
            accepted = listener.accept() => accepted,
            stop = signals.next() => match stop {
                // That is how it is ended.
                Stop::Interrupt => return Ok(ExitCode::SUCCESS),
                Stop::Terminate => return Err(Failure::Stopped(stop)),
            },
            Some(_) = viewers.join_next() => continue,
        };
        let (mut viewer, _) = match accepted {
            Ok(accepted) => accepted,
            Err(error) => {
                tracing::debug!(%error, "a viewer was lost before it was there");
                continue;
            }
        };
        match open(client, console).await {
            Ok(mut stream) => {
                viewers.spawn(async move {
                    if let Err(error) = copy_bidirectional(&mut viewer, &mut stream).await {
                        tracing::debug!(%error, "a viewer was lost");
                    }
                });
            }
            // Others may fare better, and this one may try again.
            Err(failure) => Report::new(failure.in_one_line()).warning(),
        }
    }
}

/// The terminal without its own doing, until this is dropped.
struct Raw(Option<Termios>);

impl Raw {
    fn begin() -> Result<Self, Failure> {
        let stdin = io::stdin();
        if !stdin.is_terminal() {
            return Ok(Self(None));
        }
        let failed = |error: nix::Error| Failure::Terminal(error.into());
        let before = termios::tcgetattr(stdin.as_fd()).map_err(failed)?;
        let mut raw = before.clone();
        termios::cfmakeraw(&mut raw);
        termios::tcsetattr(stdin.as_fd(), SetArg::TCSANOW, &raw).map_err(failed)?;
        Ok(Self(Some(before)))
    }
}

impl Drop for Raw {
    fn drop(&mut self) {
        if let Some(before) = &self.0 {
            // A terminal that is gone needs no mending.
            let _ = termios::tcsetattr(io::stdin().as_fd(), SetArg::TCSANOW, before);
        }
    }
}

/// Connects a console with this terminal until either ends.
async fn connect(stream: ConsoleStream) -> Result<ExitCode, Failure> {
    let _raw = Raw::begin()?;
    let (mut from, mut to) = tokio::io::split(stream);
    let mut stdout = tokio::io::stdout();
    let showing = async {
        let mut buffer = vec![0; 4096];
        loop {
            // A console that breaks off is one that has ended: its VM was stopped or moved.
            let count = from.read(&mut buffer).await.unwrap_or(0);
            if count == 0 {
                return Ok(());
            }
            stdout.write_all(&buffer[..count]).await.map_err(Failure::output)?;
            stdout.flush().await.map_err(Failure::output)?;
        }
    };
    let typing = async {
        let (mut stdin, mut buffer) = (tokio::io::stdin(), vec![0; 1024]);
        loop {
            let count = stdin.read(&mut buffer).await.map_err(Failure::Terminal)?;
            let typed = &buffer[..count];
            let end = typed.iter().position(|key| *key == LEAVE);
            let sent = to.write_all(&typed[..end.unwrap_or(count)]).await;
            if count == 0 || end.is_some() || sent.is_err() {
                return Ok(());
            }
        }
    };
    let ended: Result<(), Failure> = tokio::select! {
        ended = showing => ended,
        ended = typing => ended,
    };
    ended.map(|()| ExitCode::SUCCESS)
}
