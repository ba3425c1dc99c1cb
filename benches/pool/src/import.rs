//! Bringing a disk into the pool, nine tenths of which are zeros.

use std::fs::File;
use std::io::{BufWriter, Write as _};
use std::path::{Path, PathBuf};
use std::process::{Command, Stdio};
use std::time::{Duration, Instant};

use anyhow::{Context as _, Result, ensure};
use bench_report::{Report, Row, Samples, Target, Unit, timed};
use serde_json::json;

use crate::Setting;
use crate::client::{Client, Kind};
use crate::raw::Raw;
use crate::simulator::Simulator;

const BLOCK: usize = 1 << 20;

/// How long an upload may take.
const PATIENCE: Duration = Duration::from_mins(2);

pub(crate) fn measure(setting: &Setting, report: &mut Report) -> Result<()> {
    if Command::new("curl").arg("--version").output().is_err() {
        report.note("imports were not compared with curl: it is not there");
        return Ok(());
    }
    let mebibytes = if setting.effort.quick { 256 } else { 2048 };
    let image = Image::create(mebibytes)?;
    let simulator = Simulator::of(0)?;
    let raw = Raw::log_in(&simulator)?;
    let mut client =
        Client::start(Kind::Ours, setting, simulator.url())?.context("it is built in")?;
    let [mut sparse, mut plain, mut curl] = [(); 3].map(|()| Samples::default());
    for _ in 0..setting.effort.of(10) {
        for (how, samples) in [("sparse", &mut sparse), ("plain", &mut plain)] {
            let disk = new_disk(&raw, mebibytes)?;
            let command = format!("import {how} {disk} {}", image.path.display());
            samples.extend(client.ask(&command)?.seconds());
            raw.ask("VDI.destroy", json!([disk]))?;
        }
        let disk = new_disk(&raw, mebibytes)?;
        let (outcome, seconds) = timed(|| by_curl(&raw, &disk, &image.path));
        outcome?;
        curl.push(seconds);
        raw.ask("VDI.destroy", json!([disk]))?;
    }
    let what = format!("raw import of {mebibytes} MiB with 90 % zeros");
    let row = Row::new(format!("{what}, zeros left out"), Unit::Time, &sparse);
    report.add(row.against("curl -T", &curl).target(Target::RatioAtMost(0.3)));
    let row = Row::new(format!("{what}, sent whole"), Unit::Time, &plain);
    report.add(row.against("curl -T", &curl).target(Target::RatioAtMost(1.1)));
    Ok(())
}

/// An image of which one block in ten holds something, and which is no sparse file.
struct Image {
    path: PathBuf,
}

impl Image {
    fn create(mebibytes: u32) -> Result<Self> {
        let name = format!("compare-pool-{}.raw", std::process::id());
        let image = Self { path: std::env::temp_dir().join(name) };
        let mut file = BufWriter::with_capacity(BLOCK, File::create(&image.path)?);
        let zeros = vec![0; BLOCK];
        let mut state = 1_u64;
        let mut noise = || {
            // Marsaglia's xorshift: nothing that could be compressed or taken for zeros.
            state ^= state << 13;
            state ^= state >> 7;
            state ^= state << 17;
            state.to_ne_bytes()
        };
        for number in 0..mebibytes {
            if number % 10 == 3 {
                let bytes: Vec<u8> = (0..BLOCK / 8).flat_map(|_| noise()).collect();
                file.write_all(&bytes)?;
            } else {
                file.write_all(&zeros)?;
            }
        }
        file.flush()?;
        Ok(image)
    }
}

impl Drop for Image {
    fn drop(&mut self) {
        let _ = std::fs::remove_file(&self.path);
    }
}

fn new_disk(raw: &Raw, mebibytes: u32) -> Result<String> {
    let pools = raw.ask("pool.get_all", json!([]))?;
    let storage = raw.ask("pool.get_default_SR", json!([pools[0]]))?;
    let disk = raw.ask(
        "VDI.create",
        json!([{
            "name_label": "compare", "name_description": "", "SR": storage, "type": "user",
            "virtual_size": u64::from(mebibytes) << 20, "sharable": false, "read_only": false,
            "other_config": {}, "xenstore_data": {}, "sm_config": {}, "tags": [],
        }]),
    )?;
    Ok(disk.as_str().context("a disk is text")?.to_owned())
}

/// The same end by other means: the upload, and the success of its task.
fn by_curl(raw: &Raw, disk: &str, image: &Path) -> Result<()> {
    let task = raw.ask("task.create", json!(["compare", ""]))?;
    let task = task.as_str().context("a task is text")?;
    let url = format!(
        "{}/import_raw_vdi?vdi={disk}&format=raw&session_id={}&task_id={task}",
        raw.url(),
        raw.session()
    );
    let mut curl = Command::new("curl");
    // Without the header it would wait up to a second to be told to go on, which the server never does.
    curl.args(["--silent", "--show-error", "--fail", "--header", "Expect:", "--upload-file"]);
    curl.arg(image).arg(url);
    let status = curl.stdout(Stdio::null()).status()?;
    ensure!(status.success(), "curl: {status}");
    let until = Instant::now() + PATIENCE;
    loop {
        let status = raw.ask("task.get_status", json!([task]))?;
        match status.as_str() {
            Some("success") => break,
            Some("pending") => {
                ensure!(Instant::now() < until, "the task of the upload never ended");
            }
            _ => anyhow::bail!("the task of the upload: {status}"),
        }
    }
    raw.ask("task.destroy", json!([task])).map(drop)
}
