//! A controller of VMs as `bioxen` makes them, told what to do line by line, as the others are.

use std::io::Write as _;
use std::path::{Path, PathBuf};
use std::process::ExitCode;
use std::sync::Arc;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail, ensure};
use bioxen::{Fleet, Group, Place, Vm, VmName, VmSpec};
use bioxen_xcp::making::{Entry, WorkerSource, start_lua};
use bioxen_xcp::ssh::{
    ClientKey, Command, Connection, Execution, Happening, HostKeyCheck, Input, Login, Target,
};
use bioxen_xcp::{Configuration, XcpngBackend};
use serde_json::{Value, json};
use xenapi::Secret;

use crate::bare;
use crate::lab::{TEMPLATE, USER, ssh_port};

/// What is evaluated, and what it gives.
const CODE: &str = "1 + 1";

/// As long as the frame that evaluates.
const FRAME: usize = 100;

/// How long a program in a guest may take.
const DEADLINE: Duration = Duration::from_mins(1);

/// The VM that others enter too.
const SHARED: &str = "shared";

/// Serves until standard input ends.
pub(crate) fn serve(words: &[String]) -> Result<ExitCode> {
    let [place, worker] = words else { bail!("a directory and a worker are needed") };
    let (place, worker) = (PathBuf::from(place), PathBuf::from(worker));
    let runtime = tokio::runtime::Builder::new_multi_thread().enable_all().build()?;
    runtime.block_on(async {
        // In a task, where a program that has more than one thing to do has its calls too.
        tokio::spawn(async move { Controller::new(place, worker)?.converse().await }).await?
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Controller {
    place: PathBuf,
    worker: PathBuf,
    backend: Arc<XcpngBackend>,
    fleet: Fleet,
    echo: Option<(Execution, Input)>,
    crowd: Vec<Vm>,
}

impl Controller {
    fn new(place: PathBuf, worker: PathBuf) -> Result<Self> {
        let configuration = Configuration::read(place.join("config.toml"))?;
        let backend = XcpngBackend::builder(configuration);
        let backend = Arc::new(backend.worker(WorkerSource::File(worker.clone())).build());
        let fleet = Fleet::builder().standby(0).backend(backend.clone()).build();
        Ok(Self { place, worker, backend, fleet, echo: None, crowd: Vec::new() })
    }

    async fn converse(mut self) -> Result<()> {
        tell(&json!({"ready": true}))?;
        loop {
            let line = tokio::task::spawn_blocking(|| std::io::stdin().lines().next()).await?;
            let Some(line) = line.transpose()? else { return Ok(()) };
            let answer = self.carry_out(&line).await;
            tell(&answer.unwrap_or_else(|error| json!({"error": format!("{error:#}")})))?;
        }
    }

    async fn carry_out(&mut self, line: &str) -> Result<Value> {
        let words: Vec<&str> = line.split(' ').collect();
        match words.as_slice() {
            ["log-in"] => {
                self.backend.pool(None).await?;
                Ok(json!({}))
            }
            ["answer"] => self.answer().await,
            ["bare"] => {
                let pool = self.backend.pool(None).await?;
                let seconds = bare::answer(&pool, &self.place).await?;
                Ok(json!({"seconds": [seconds]}))
            }
            ["bare-lives", count] => {
                let pool = self.backend.pool(None).await?;
                let seconds = bare::lives(&pool, &self.place, count.parse()?).await?;
                Ok(json!({"seconds": [seconds]}))
            }
            ["lives", count] => self.lives(count.parse()?).await,
            ["share"] => self.share().await,
            ["evals", count] => self.evals(count.parse()?).await,
            ["echoes", count] => self.echoes(count.parse()?).await,
            ["gather", count] => self.gather(count.parse()?).await,
            ["crowd", each] => self.crowd(each.parse()?).await,
            ["upload", path] => self.upload(Path::new(path)).await,
            ["forget-worker"] => {
                let command = Command::new("rm").arguments(["-rf", ".cache/bioxen"]);
                let output = self.connection().await?.run(&command, "", 1024, DEADLINE).await?;
                ensure!(output.exit.is_success(), "the worker could not be removed");
                Ok(json!({}))
            }
            ["enter", address] => self.enter(address).await,
            ["remove"] => {
                self.fleet.remove(SHARED).await?;
                Ok(json!({}))
            }
            _ => bail!("{line} is not for this client"),
        }
    }

    /// What VMs are to be; the key opens their guests for the others.
    fn spec(&self, name: &str) -> Result<VmSpec> {
        let mut spec = VmSpec::xcpng(name)?.template(TEMPLATE);
        let key = self.key()?.public().to_string();
        if let Place::Xcpng(machine) = &mut spec.place {
            machine.user = Some(USER.into());
            machine.port = Some(ssh_port());
            machine.authorized_keys = vec![key];
        }
        Ok(spec)
    }

    fn key(&self) -> Result<ClientKey> {
        let text = std::fs::read_to_string(self.place.join("key"))?;
        Ok(ClientKey::from_openssh(&Secret::from(text))?)
    }

    async fn answer(&self) -> Result<Value> {
        let spec = self.spec("answer")?;
        let clock = Instant::now();
        let vm = self.fleet.create(spec).await?;
        check(vm.eval(CODE).await?)?;
        let seconds = clock.elapsed().as_secs_f64();
        self.fleet.remove("answer").await?;
        Ok(json!({"seconds": [seconds]}))
    }

    /// A group of VMs is made, used and removed.
    async fn lives(&self, count: usize) -> Result<Value> {
        let spec = self.spec("life")?;
        let clock = Instant::now();
        let group: Group = self.fleet.create_group("life", count, spec).await?;
        let made = clock.elapsed().as_secs_f64();
        for (vm, run) in group.broadcast(CODE).wait().await {
            check(run.with_context(|| vm.to_string())?)?;
        }
        let ran = clock.elapsed().as_secs_f64();
        let removed = group.remove().await;
        if let Some((vm, error)) = removed.failed.into_iter().next() {
            return Err(anyhow::Error::from(error).context(vm));
        }
        let seconds = clock.elapsed().as_secs_f64();
        Ok(json!({"seconds": [seconds], "parts": [made, ran - made, seconds - ran]}))
    }

    /// Makes the VM that others enter too, and says where its guest is.
    async fn share(&mut self) -> Result<Value> {
        self.fleet.create(self.spec(SHARED)?).await?;
        let connection = self.connection().await?;
        let host = connection.address().rsplit_once(':').context("it has a port")?.0.to_owned();
        let echo = connection.start(&Command::new("cat")).await?;
        let input = echo.input();
        self.echo = Some((echo, input));
        Ok(json!({"host": host}))
    }

    async fn connection(&self) -> Result<Connection> {
        let name = VmName::new(SHARED)?;
        self.backend.connection(&name).await.context("the shared VM is not connected")
    }

    async fn evals(&self, count: usize) -> Result<Value> {
        let vm = self.fleet.vm(SHARED)?;
        let mut seconds = Vec::with_capacity(count);
        for _ in 0..count {
            let clock = Instant::now();
            let run = vm.eval(CODE).await?;
            seconds.push(clock.elapsed().as_secs_f64());
            check(run)?;
        }
        Ok(json!({"seconds": seconds}))
    }

    /// As many bytes as an evaluation has, there and back, by `cat`: no worker and no Lua.
    async fn echoes(&mut self, count: usize) -> Result<Value> {
        let (echo, input) = self.echo.as_mut().context("no VM is shared")?;
        let mut seconds = Vec::with_capacity(count);
        for _ in 0..count {
            let clock = Instant::now();
            input.write(&[7; FRAME][..]).await?;
            let mut came = 0;
            while came < FRAME {
                let Happening::Stdout(data) = echo.next().await? else { bail!("no echo came") };
                came += data.len();
            }
            seconds.push(clock.elapsed().as_secs_f64());
        }
        Ok(json!({"seconds": seconds}))
    }

    /// Makes so many VMs, each with a connection and a worker of its own, which all live in the shared VM's
    /// guest.
    async fn gather(&mut self, count: usize) -> Result<Value> {
        let clock = Instant::now();
        let pool = self.backend.pool(None).await?;
        let there = pool.mirror().by_name::<xenapi::class::Vm>(SHARED);
        let (machine, _) = there.into_iter().next().context("no VM is shared")?;
        let host_key = self.connection().await?.host_key().clone();
        let (user, port, login) = (USER.to_owned(), ssh_port(), Login::Key(self.key()?));
        let entry = Entry { user, port, host_key, login };
        for index in 0..count {
            let name = VmName::member(&VmName::new("crowd")?, index)?;
            self.backend.attach(name, Arc::clone(&pool), machine.clone(), entry.clone(), None);
        }
        let spec = VmSpec::xcpng("crowd")?;
        let group = self.fleet.create_group("crowd", count, spec).await?;
        self.crowd = group.members().to_vec();
        Ok(json!({"seconds": [clock.elapsed().as_secs_f64()]}))
    }

    /// All VMs evaluate at once, so many times each.
    async fn crowd(&self, each: usize) -> Result<Value> {
        let clock = Instant::now();
        let loops = self.crowd.iter().cloned().map(|vm| {
            tokio::spawn(async move {
                for _ in 0..each {
                    check(vm.eval(CODE).await?)?;
                }
                Ok::<_, anyhow::Error>(())
            })
        });
        for ended in futures::future::join_all(loops).await {
            ended??;
        }
        let seconds = clock.elapsed().as_secs_f64();
        Ok(json!({"seconds": [seconds], "count": self.crowd.len() * each}))
    }

    /// A file is copied into the guest, over a connection of its own.
    async fn upload(&self, path: &Path) -> Result<Value> {
        let target = self.target(self.connection().await?.address()).await?;
        let clock = Instant::now();
        let connection = Connection::open(&target).await?;
        let files = connection.files().await?;
        files.upload(path, "ours", 0o644, |_| {}).await?;
        connection.close().await;
        Ok(json!({"seconds": [clock.elapsed().as_secs_f64()]}))
    }

    /// Lua is started by way of this address, as in a guest that was there before.
    async fn enter(&self, address: &str) -> Result<Value> {
        let target = self.target(address).await?;
        let clock = Instant::now();
        let connection = Connection::open(&target).await?;
        let worker = WorkerSource::File(self.worker.clone());
        let lua = start_lua(&connection, &VmSpec::xcpng("enter")?, &worker).await?;
        let seconds = clock.elapsed().as_secs_f64();
        let placed = lua.placed.context("our worker does not run in this guest")?;
        drop(lua);
        connection.close().await;
        Ok(json!({"seconds": [seconds], "placed": format!("{placed:?}")}))
    }

    async fn target(&self, address: &str) -> Result<Target> {
        let (host, port) = address.rsplit_once(':').context("it has a port")?;
        let check = HostKeyCheck::Pinned(self.connection().await?.host_key().clone());
        Ok(Target::new(host, USER, check, Login::Key(self.key()?)).port(port.parse()?))
    }
}

/// A run that did not return what it should is not to be taken for a fast one.
fn check(run: bioxen::Run) -> Result<()> {
    let value = run.into_result()?.value().as_f64();
    ensure!(value == Some(2.0), "it gave {value:?}");
    Ok(())
}

fn tell(answer: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}
