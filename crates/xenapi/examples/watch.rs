//! Shows what happens to the virtual machines and tasks of a pool until it is interrupted.
//!
//! ```sh
//! XENAPI_PASSWORD=… cargo run -p xenapi --example watch -- https://xcp-01 [FINGERPRINT]
//! ```
//!
//! The user is `root`, or what `XENAPI_USER` says.

use std::error::Error;
use std::io::Write as _;
use std::process::ExitCode;
use std::{env, io};

use xenapi::class::Class;
use xenapi::{AnyRecord, Change, Client, Secret, Trust};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("error: {error}");
            let mut cause = error.source();
            while let Some(reason) = cause {
                eprintln!("  caused by: {reason}");
                cause = reason.source();
            }
            if let Some(hint) = error.downcast_ref().and_then(xenapi::Error::hint) {
                eprintln!("  hint: {hint}");
            }
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), Box<dyn Error>> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().ok_or("usage: watch https://HOST [FINGERPRINT]")?;
    let password =
        env::var("XENAPI_PASSWORD").map_err(|_| "set XENAPI_PASSWORD to the password")?;
    let user = env::var("XENAPI_USER").unwrap_or_else(|_| "root".into());
    let trust = match arguments.next() {
        Some(pin) => Trust::fingerprint(pin.parse()?),
        None => Trust::none(),
    };
    let builder = Client::builder(&address)?.trust(trust).originator("watch");
    let client = builder.login(user, Secret::from(password)).connect().await?;
    let mut watch = client.watch([Class::Vm, Class::Task])?;
    let mut output = io::stdout();
    while let Some(change) = watch.next().await {
        match change? {
            Change::Added(object, record) => writeln!(output, "+ {object} {}", describe(&record))?,
            Change::Changed(object, record) => {
                writeln!(output, "~ {object} {}", describe(&record))?;
            }
            Change::Removed(object) => writeln!(output, "- {object}")?,
            Change::Replayed => writeln!(output, "= that is all there is now")?,
        }
    }
    Ok(())
}

fn describe(record: &AnyRecord) -> String {
    match record {
        AnyRecord::Vm(vm) => format!("{} is {}", vm.name_label, vm.power_state),
        AnyRecord::Task(task) => {
            format!("{} is {} at {:.0} %", task.name_label, task.status, task.progress * 100.0)
        }
        record => record.class().to_string(),
    }
}
