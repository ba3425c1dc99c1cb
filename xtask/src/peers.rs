//! Clients of the Xen API that others wrote, each against a simulated pool of its own.

use std::io::{BufRead as _, BufReader, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Child, Command, Stdio};

use anyhow::{Context as _, Result};

use crate::program::{program, root, run, target_dir, works};
use crate::python::{self, Environment};
use crate::steps::Outcome;
use crate::tools;

const PASSWORD: &str = "secret";

/// Where the tests by other clients are.
const TESTS: &str = "crates/xenapi-sim/tests";

/// A VM's whole life by `XenAPI` from PyPI.
pub(crate) fn python() -> Result<Outcome> {
    let environment = match python::environment("xtask-xenapi", &["XenAPI==26.21.1"])? {
        Environment::Ready(environment) => environment,
        Environment::Missing(outcome) => return Ok(outcome),
    };
    let pool = Pool::start(&["--boot-delay", "300ms"])?;
    let script = root().join(TESTS).join("python/whole_life.py");
    run(program(environment.join("bin/python"), &[]).arg(script).args([&pool.url, PASSWORD]))?;
    Ok(Outcome::Passed)
}

/// A VM's life by the modules of Ansible.
pub(crate) fn ansible() -> Result<Outcome> {
    let packages = ["ansible==12.3.0", "XenAPI==26.21.1"];
    let environment = match python::environment("xtask-ansible", &packages)? {
        Environment::Ready(environment) => environment,
        Environment::Missing(outcome) => return Ok(outcome),
    };
    // It asks guests to shut down as soon as they run, which those do not hear that still come up.
    let pool = Pool::start(&["--boot-delay", "0s"])?;
    let mut play = program(environment.join("bin/ansible-playbook"), &["-i", "localhost,"]);
    play.args(["-c", "local", "-e", &format!("url={}", pool.url)]);
    play.args(["-e", &format!("password={PASSWORD}")])
        .arg(root().join(TESTS).join("ansible/guest.yml"));
    // Its own settings and what it keeps are to be this test's alone.
    let home = environment.join("home");
    play.env("ANSIBLE_HOME", &home).env_remove("ANSIBLE_CONFIG").env("LC_ALL", "C.UTF-8");
    // Not on this terminal: Ansible refuses one that another program has set to not block.
    let output = play.output().context("could not start ansible-playbook")?;
    eprint!(
        "{}{}",
        String::from_utf8_lossy(&output.stdout),
        String::from_utf8_lossy(&output.stderr)
    );
    anyhow::ensure!(output.status.success(), "the play ended with {}", output.status);
    Ok(Outcome::Passed)
}

/// A mirror of a pool that changes by `xen-api` from npm.
pub(crate) fn node() -> Result<Outcome> {
    if !works(&mut program("npm", &["--version"])) {
        return tools::without("npm is missing; on Debian: `apt-get install npm`");
    }
    let tests = root().join(TESTS).join("node");
    let place = target_dir().join("xtask-xen-api");
    std::fs::create_dir_all(&place).context("could not make a folder for packages of npm")?;
    std::fs::copy(tests.join("package.json"), place.join("package.json"))
        .context("could not copy `package.json`")?;
    let install = ["install", "--ignore-scripts", "--no-audit", "--no-fund", "--loglevel=error"];
    if let Err(error) = run(program("npm", &install).current_dir(&place)) {
        return tools::without(&format!("npm could not install the client: {error:#}"));
    }
    let pool = Pool::start(&["--boot-delay", "300ms"])?;
    let mut mirror = program("node", &[]);
    mirror.arg(tests.join("mirror.mjs")).args([&pool.url, PASSWORD]);
    run(mirror.env("XENAPI_SIM_NODE_MODULES", &place))?;
    Ok(Outcome::Passed)
}

/// Power by the agent with which clusters fence VMs off. It comes with the distribution, and with a client of
/// the Xen API of its own.
pub(crate) fn fencing() -> Result<Outcome> {
    const AGENT: &str = "fence_xenapi";
    if !works(&mut program(AGENT, &["--version"])) {
        return tools::without(
            "fence_xenapi is missing; on Debian: `apt-get install fence-agents`",
        );
    }
    // It knows no certificates but those of the system's authorities.
    let pool = Pool::start(&["--http", "--vms", "1"])?;
    for (action, says) in [
        ("status", "Status: OFF"),
        ("on", "Success: Powered ON"),
        ("status", "Status: ON"),
        ("reboot", "Success: Rebooted"),
        ("off", "Success: Powered OFF"),
        ("off", "Success: Already OFF"),
        ("list", "vm-00001"),
    ] {
        let url = &pool.url;
        let order = format!(
            "action={action}\nsession_url={url}\nusername=root\npassword={PASSWORD}\nplug=vm-00001\n"
        );
        let mut agent = program(AGENT, &[]);
        agent.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::inherit());
        let mut agent = agent.spawn().context("could not start fence_xenapi")?;
        let mut stdin = agent.stdin.take().context("fence_xenapi has no standard input")?;
        stdin.write_all(order.as_bytes()).context("fence_xenapi does not listen")?;
        drop(stdin);
        let output = agent.wait_with_output().context("fence_xenapi does not end")?;
        let said = String::from_utf8_lossy(&output.stdout);
        anyhow::ensure!(said.contains(says), "`{action}` said `{}`, not `{says}`", said.trim());
    }
    Ok(Outcome::Passed)
}

/// A simulated pool, which ends with this.
struct Pool {
    process: Child,
    url: String,
}

impl Pool {
    /// Starts one with these options.
    fn start(options: &[&str]) -> Result<Self> {
        let simulator: PathBuf = target_dir().join("debug/xenapi-sim");
        let mut process = Command::new(&simulator)
            .args(["--listen", "127.0.0.1:0"])
            .args(options)
            .env("XENAPI_SIM_PASSWORD", PASSWORD)
            .stdin(Stdio::null())
            .stdout(Stdio::piped())
            .stderr(Stdio::null())
            .spawn()
            .with_context(|| format!("could not start `{}`", shown(&simulator)))?;
        let output = process.stdout.take().context("the simulator has no standard output")?;
        let mut url = String::new();
        let read = BufReader::new(output).read_line(&mut url);
        let pool = Self { process, url: url.trim().to_owned() };
        read.context("the simulator said no address")?;
        anyhow::ensure!(pool.url.starts_with("http"), "the simulator did not start");
        Ok(pool)
    }
}

fn shown(path: &Path) -> String {
    path.strip_prefix(root()).unwrap_or(path).display().to_string()
}

impl Drop for Pool {
    fn drop(&mut self) {
        // It takes its disks along when it is asked to end.
        let asked = Command::new("kill").arg(self.process.id().to_string()).status();
        if !asked.is_ok_and(|status| status.success()) {
            let _ = self.process.kill();
        }
        let _ = self.process.wait();
    }
}
