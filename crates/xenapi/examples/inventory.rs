//! Lists the hosts, virtual machines, storage and networks of a pool.
//!
//! ```sh
//! XENAPI_PASSWORD=… cargo run -p xenapi --example inventory -- https://xcp-01 [FINGERPRINT]
//! ```
//!
//! The user is `root`, or what `XENAPI_USER` says. Without a fingerprint that is pinned, or with
//! another than the host's, nothing is sent and the fingerprint that was found is shown.

use std::env;
use std::error::Error as _;
use std::fmt::Write as _;
use std::io;
use std::process::ExitCode;

use xenapi::{Client, Error, Secret, Trust};

#[tokio::main]
async fn main() -> ExitCode {
    match run().await {
        Ok(()) => ExitCode::SUCCESS,
        Err(reason) => {
            eprintln!("error: {reason}");
            ExitCode::FAILURE
        }
    }
}

async fn run() -> Result<(), String> {
    let mut arguments = env::args().skip(1);
    let address = arguments.next().ok_or("usage: inventory https://HOST [FINGERPRINT]")?;
    let password =
        env::var("XENAPI_PASSWORD").map_err(|_| "set XENAPI_PASSWORD to the password")?;
    let user = env::var("XENAPI_USER").unwrap_or_else(|_| "root".into());
    let trust = match arguments.next() {
        Some(pin) => Trust::fingerprint(pin.parse().map_err(|error| format!("{error}"))?),
        None => Trust::none(),
    };
    let builder = Client::builder(&address).map_err(|error| error.to_string())?;
    let ready = builder.trust(trust).originator("inventory").login(user, Secret::from(password));
    let client = ready.connect().await.map_err(|error| explain(&error, &address))?;
    let text = inventory(&client).await.map_err(|error| explain(&error, &address))?;
    client.close().await.map_err(|error| explain(&error, &address))?;
    let mut output = io::stdout();
    io::Write::write_all(&mut output, text.as_bytes()).map_err(|error| error.to_string())
}

async fn inventory(client: &Client) -> Result<String, Error> {
    let hosts = client.host().get_all_records().await?;
    let metrics = client.host_metrics().get_all_records().await?;
    let machines = client.vm().get_all_records().await?;
    let storage = client.sr().get_all_records().await?;
    let networks = client.network().get_all_records().await?;

    let mut text = String::from("Hosts\n");
    for host in hosts.values() {
        let memory = metrics.get(&host.metrics).map_or(0, |metrics| metrics.memory_free);
        let version = host.software_version.get("product_version").map_or("?", String::as_str);
        let _ = writeln!(
            text,
            "  {:<24} {:<16} {version:<8} {:>7} free",
            host.name_label,
            host.address,
            gib(memory)
        );
    }
    text += "\nVirtual machines\n";
    for vm in machines.values() {
        if vm.is_a_template || vm.is_a_snapshot || vm.is_control_domain {
            continue;
        }
        let host = hosts.get(&vm.resident_on).map_or("", |host| &host.name_label);
        let _ = writeln!(
            text,
            "  {:<24} {:<10} {:>2} vCPU {:>7}  {host}",
            vm.name_label,
            vm.power_state,
            vm.vcpus_max,
            gib(vm.memory_static_max)
        );
    }
    text += "\nStorage\n";
    for sr in storage.values() {
        let free = sr.physical_size.saturating_sub(sr.physical_utilisation);
        let shared = if sr.shared { "shared" } else { "local" };
        let _ = writeln!(
            text,
            "  {:<24} {:<10} {shared:<6} {:>7} free",
            sr.name_label,
            sr.r#type,
            gib(free)
        );
    }
    text += "\nNetworks\n";
    for network in networks.values() {
        let _ = writeln!(text, "  {:<24} {}", network.name_label, network.bridge);
    }
    Ok(text)
}

fn gib(bytes: i64) -> String {
    format!("{} GiB", bytes.max(0) >> 30)
}

/// The error with all its causes and what to do next.
fn explain(error: &Error, address: &str) -> String {
    let mut text = error.to_string();
    let mut cause = error.source();
    while let Some(reason) = cause {
        let _ = write!(text, "\n  caused by: {reason}");
        cause = reason.source();
    }
    if let Some(hint) = error.hint() {
        let _ = write!(text, "\n  hint: {hint}");
    }
    if let Error::Tls { source, .. } = error
        && let Some(found) = source.found()
    {
        let _ = write!(text, "\n  to pin it: inventory {address} {found}");
    }
    text
}
