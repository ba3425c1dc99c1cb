//! Our client, told what to do line by line, as the others are.

use std::fs::File;
use std::io::Write as _;
use std::process::ExitCode;
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, bail};
use serde_json::{Value, json};
use tokio::runtime::Builder;
use tokio::task::JoinSet;
use xenapi::class::Class;
use xenapi::{AnyRecord, Change, Client, Mirror, Ref, Secret, Source, Watch, class};

/// Serves until standard input ends.
pub(crate) fn serve(mut runtime: Builder, words: &[String]) -> Result<ExitCode> {
    let [url, password] = words else { bail!("a URL and a password are needed") };
    let (url, password) = (url.clone(), password.clone());
    let runtime = runtime.enable_all().build()?;
    runtime.block_on(async {
        // In a task, where a program that has more than one thing to do has its calls too.
        tokio::spawn(async move { Ours::connect(url, password).await?.converse().await }).await?
    })?;
    Ok(ExitCode::SUCCESS)
}

struct Ours {
    url: String,
    password: String,
    client: Client,
    watch: Option<Watch>,
    mirror: Option<Mirror>,
}

impl Ours {
    async fn connect(url: String, password: String) -> Result<Self> {
        let client = connect(&url, &password).await?;
        Ok(Self { url, password, client, watch: None, mirror: None })
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
            ["pad", bytes] => self.pad(bytes.parse()?).await,
            ["records"] => self.records().await,
            ["calls", vm, total, at_once] => self.calls(vm, total.parse()?, at_once.parse()?).await,
            ["watch", _, classes @ ..] => self.watch(classes).await,
            ["changes", vm, count, pause] => {
                let pause = Duration::from_millis(pause.parse()?);
                self.changes(vm, count.parse()?, pause).await
            }
            ["mirror", _, classes @ ..] => self.mirror(classes).await,
            ["import", how, disk, path] => self.import(how, disk, path).await,
            ["load", clients, total] => self.load(clients.parse()?, total.parse()?).await,
            _ => bail!("{line} is not for this client"),
        }
    }

    /// Lets each VM have about so many bytes more, as those have that a manager of VMs knows.
    async fn pad(&mut self, bytes: usize) -> Result<Value> {
        let clock = Instant::now();
        let vms = self.client.vm().get_all().await?;
        let part = "{\"by\":\"scheduler\",\"at\":1764138000,\"why\":\"nightly\"},";
        let notes = format!("[{}null]", part.repeat(bytes / part.len()));
        for vm in &vms {
            self.client.vm().add_to_other_config(vm, "manager:history", &notes).await?;
        }
        Ok(json!({"seconds": [clock.elapsed().as_secs_f64()], "count": vms.len()}))
    }

    async fn records(&mut self) -> Result<Value> {
        let clock = Instant::now();
        let records = self.client.vm().get_all_records().await?;
        let seconds = clock.elapsed().as_secs_f64();
        Ok(json!({"seconds": [seconds], "count": records.len()}))
    }

    async fn calls(&mut self, vm: &str, total: u32, at_once: u32) -> Result<Value> {
        let vm = Ref::<class::Vm>::from(vm);
        let each = total / at_once;
        let clock = Instant::now();
        if at_once == 1 {
            ask_power_state(&self.client, &vm, each).await?;
        } else {
            let loops = (0..at_once).map(|_| {
                let (client, vm) = (self.client.clone(), vm.clone());
                async move { ask_power_state(&client, &vm, each).await }
            });
            loops.collect::<JoinSet<_>>().join_all().await.into_iter().collect::<Result<()>>()?;
        }
        let seconds = clock.elapsed().as_secs_f64();
        Ok(json!({"seconds": [seconds], "count": each * at_once}))
    }

    /// Begins to watch; what is there has been told when this is done.
    async fn watch(&mut self, classes: &[&str]) -> Result<Value> {
        let clock = Instant::now();
        let mut watch = self.client.watch(classes_named(classes)?)?;
        let mut count = 0;
        while let Some(change) = watch.next().await {
            match change? {
                Change::Replayed => break,
                Change::Added(..) | Change::Changed(..) | Change::Removed(_) => count += 1,
            }
        }
        self.watch = Some(watch);
        Ok(json!({"seconds": [clock.elapsed().as_secs_f64()], "count": count}))
    }

    /// Changes a VM so many times, and says how long it takes until the watch tells of each.
    async fn changes(&mut self, vm: &str, count: u32, pause: Duration) -> Result<Value> {
        let watch = self.watch.as_mut().context("nothing is watched")?;
        let vm = Ref::<class::Vm>::from(vm);
        // Who changes something is seldom who watches.
        let actor = connect(&self.url, &self.password).await?;
        let mut seconds = Vec::new();
        for number in 0..count {
            let text = format!("change {number} in {:?}", Instant::now());
            // Time in which nothing happens; what happened before is heard meanwhile. It is not always the
            // same, lest changes fall in with what the server or the client do at intervals.
            let pause = pause.mul_f64(1.0 + (f64::from(number) * 0.618).fract());
            let quiet =
                tokio::time::timeout(pause, async { while watch.next().await.is_some() {} });
            let _ = quiet.await;
            let (actor, vm, wanted) = (actor.clone(), vm.clone(), text.clone());
            let clock = Instant::now();
            let acting =
                tokio::spawn(async move { actor.vm().set_name_description(&vm, &wanted).await });
            while let Some(change) = watch.next().await {
                if matches!(change?, Change::Changed(_, AnyRecord::Vm(vm)) if vm.name_description == text)
                {
                    break;
                }
            }
            seconds.push(clock.elapsed().as_secs_f64());
            acting.await??;
        }
        Ok(json!({"seconds": seconds}))
    }

    async fn mirror(&mut self, classes: &[&str]) -> Result<Value> {
        let clock = Instant::now();
        let mirror = Mirror::start(&self.client, classes_named(classes)?)?;
        mirror.ready(Duration::from_mins(2)).await?;
        let seconds = clock.elapsed().as_secs_f64();
        let count = mirror.view().count::<class::Vm>();
        self.mirror = Some(mirror);
        Ok(json!({"seconds": [seconds], "count": count}))
    }

    async fn import(&mut self, how: &str, disk: &str, path: &str) -> Result<Value> {
        let clock = Instant::now();
        let disk = Ref::from(disk);
        let import = self.client.import_disk(&disk, Source::file(File::open(path)?)?);
        let imported = if how == "sparse" { import.skip_zeros().await? } else { import.await? };
        let seconds = clock.elapsed().as_secs_f64();
        Ok(json!({"seconds": [seconds], "count": imported.sent >> 20}))
    }

    /// Several clients, each with a session of its own, that read and write what they find.
    async fn load(&mut self, clients: u32, total: u32) -> Result<Value> {
        let vms = self.client.vm().get_all().await?;
        let mut connected = Vec::new();
        for _ in 0..clients {
            connected.push(connect(&self.url, &self.password).await?);
        }
        let each = total / clients;
        let clock = Instant::now();
        let loops = connected.into_iter().enumerate().map(|(first, client)| {
            let vms: Vec<_> = vms
                .iter()
                .cycle()
                .skip(first * 97)
                .step_by(101)
                .take(each as usize)
                .cloned()
                .collect();
            async move { read_and_write(&client, &vms).await }
        });
        loops.collect::<JoinSet<_>>().join_all().await.into_iter().collect::<Result<()>>()?;
        let seconds = clock.elapsed().as_secs_f64();
        Ok(json!({"seconds": [seconds], "count": each * clients}))
    }
}

async fn connect(url: &str, password: &str) -> Result<Client> {
    let ready = Client::builder(url)?.login("root", Secret::from(password.to_owned()));
    ready.connect().await.context("could not log in")
}

fn classes_named(names: &[&str]) -> Result<Vec<Class>> {
    let class = |name: &&str| Class::find(name).with_context(|| format!("no class {name}"));
    names.iter().map(class).collect()
}

async fn ask_power_state(client: &Client, vm: &Ref<class::Vm>, times: u32) -> Result<()> {
    for _ in 0..times {
        client.vm().get_power_state(vm).await?;
    }
    Ok(())
}

/// Of ten calls, six read a whole record, three read a field, and one writes a field.
async fn read_and_write(client: &Client, vms: &[Ref<class::Vm>]) -> Result<()> {
    for (number, vm) in vms.iter().enumerate() {
        match number % 10 {
            0..6 => drop(client.vm().get_record(vm).await?),
            6..9 => drop(client.vm().get_power_state(vm).await?),
            _ => client.vm().set_name_description(vm, &format!("the {number}th")).await?,
        }
    }
    Ok(())
}

fn tell(answer: &Value) -> Result<()> {
    let mut out = std::io::stdout().lock();
    writeln!(out, "{answer}")?;
    Ok(out.flush()?)
}
