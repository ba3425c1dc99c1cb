//! Copies a disk of a pool into a file, or a file into a disk, and shows how far it is.
//!
//! ```sh
//! XENAPI_PASSWORD=… cargo run -p xenapi --example disk -- export https://xcp-01 UUID FILE [FINGERPRINT]
//! XENAPI_PASSWORD=… cargo run -p xenapi --example disk -- import https://xcp-01 UUID FILE [FINGERPRINT]
//! ```
//!
//! The user is `root`, or what `XENAPI_USER` says. A file whose name ends in `.vhd` is a VHD, and any other
//! raw. A raw import leaves out zeros, so the disk must be new.

use std::env;
use std::error::Error;
use std::fmt::Write as _;
use std::fs::File;
use std::io::{self, IsTerminal as _};
use std::path::Path;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use xenapi::disk::Format;
use xenapi::{Client, Secret, Source, TransferError, TransferProgress, Trust};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {}", explain(&*error));
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let arguments: Vec<String> = env::args().skip(1).collect();
    let (direction, address, uuid, path, pin) = match arguments.as_slice() {
        [direction, address, uuid, path] => (direction, address, uuid, path, None),
        [direction, address, uuid, path, pin] => (direction, address, uuid, path, Some(pin)),
        _ => return Err("usage: disk export|import https://HOST UUID FILE [FINGERPRINT]".into()),
    };
    if !["export", "import"].contains(&direction.as_str()) {
        return Err(format!("`{direction}` is neither `export` nor `import`").into());
    }
    let password =
        env::var("XENAPI_PASSWORD").map_err(|_| "set XENAPI_PASSWORD to the password")?;
    let user = env::var("XENAPI_USER").unwrap_or_else(|_| "root".into());
    let trust = match pin {
        Some(pin) => Trust::fingerprint(pin.parse()?),
        None => Trust::none(),
    };
    let builder = Client::builder(address)?.trust(trust).originator("disk");
    let client = builder.login(user, Secret::from(password)).connect().await?;
    let disk = client.vdi().get_by_uuid(uuid).await?;
    let vhd = Path::new(path).extension().is_some_and(|end| end.eq_ignore_ascii_case("vhd"));
    let format = if vhd { Format::Vhd } else { Format::Raw };
    let started = Instant::now();
    let moved = if direction == "import" {
        let file = File::open(path).map_err(|error| format!("could not open `{path}`: {error}"))?;
        let import = client.import_disk(&disk, Source::file(file)?).format(format);
        let imported = import.skip_zeros().on_progress(meter()).await?;
        format!("{} bytes for a source of {}", imported.sent, imported.length)
    } else {
        let export = client.export_disk(&disk).format(format).on_progress(meter()).await?;
        let file = File::create(path);
        let file = file.map_err(|error| format!("could not create `{path}`: {error}"))?;
        let saved = export.save(file).await?;
        format!("{} bytes, {} of them written", saved.length, saved.written)
    };
    client.close().await?;
    eprintln!("{moved}, in {:.1?}", started.elapsed());
    Ok(())
}

/// Shows progress on a terminal, ten times a second at most.
fn meter() -> impl FnMut(TransferProgress) + Send + 'static {
    let shown = io::stderr().is_terminal();
    let mut next = Instant::now();
    move |progress| {
        let over = progress.total == Some(progress.done);
        if shown && (over || Instant::now() >= next) {
            next = Instant::now() + Duration::from_millis(100);
            let end = if over { "\n" } else { "" };
            match progress.total {
                Some(total) => {
                    eprint!("\r{} of {} MiB{end}", progress.done >> 20, total >> 20);
                }
                None => eprint!("\r{} MiB", progress.done >> 20),
            }
        }
    }
}

/// The error with all its causes and what to do next.
fn explain(error: &(dyn Error + 'static)) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(reason) = cause {
        let _ = write!(text, "\n  caused by: {reason}");
        cause = reason.source();
    }
    let hint = match (error.downcast_ref::<TransferError>(), error.downcast_ref::<xenapi::Error>())
    {
        (Some(error), _) => error.hint(),
        (None, Some(error)) => error.hint(),
        (None, None) => None,
    };
    if let Some(hint) = hint {
        let _ = write!(text, "\n  hint: {hint}");
    }
    text
}
