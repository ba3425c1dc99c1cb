//! Whether a pool can be used: one step after the other, each with its time, what was found, and what
//! to do about it. Nothing on the pool is changed.
//!
//! ```text
//! name ─▶ port ─▶ tls ─▶ login ─▶ master, version, storage, networks, templates, clock
//! ```
//!
//! The first four need each other: after one that failed, the others are skipped.

use std::net::SocketAddr;
use std::time::{Duration, Instant};

use jiff::Timestamp;
use serde::Serialize;
use tokio::net::TcpStream;
use xenapi::wire::{Request, Value};
use xenapi::{Client, Endpoint, Error, Secret};

use crate::inventory::{self, Storage, Template, TemplateKind};
use crate::pool::{PoolError, PoolSettings};

/// How long resolving a name or opening a connection may take.
const PATIENCE: Duration = Duration::from_secs(10);

/// How long the pool may take for each answer.
const ANSWER_PATIENCE: Duration = Duration::from_secs(30);

/// How far the pool's clock may be off before it is mentioned.
const CLOCK_TOLERANCE: Duration = Duration::from_secs(5);

/// Free space on storage below which it is mentioned: less than most templates need.
const LITTLE_SPACE: u64 = 10 << 30;

/// What came of one step.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Serialize)]
#[serde(rename_all = "snake_case")]
pub enum Outcome {
    /// As it should be.
    Passed,
    /// The pool can be used, but look at this.
    Warning,
    /// The pool cannot be used as long as this is so.
    Failed,
    /// A step that it needs has failed.
    Skipped,
}

/// One step and what came of it.
#[derive(Clone, Debug, PartialEq, Serialize)]
pub struct Step {
    /// What was looked at: `name`, `port`, `tls`, `login`, …
    pub name: &'static str,
    /// What came of it.
    pub outcome: Outcome,
    /// How long it took, in seconds.
    #[serde(serialize_with = "in_seconds")]
    pub took: Duration,
    /// What was found.
    pub detail: String,
    /// What to do about it.
    pub hint: Option<String>,
}

fn in_seconds<S: serde::Serializer>(took: &Duration, serializer: S) -> Result<S::Ok, S::Error> {
    serializer.serialize_f64(took.as_secs_f64())
}

/// What a step found, before it is known how long that took.
struct Finding {
    outcome: Outcome,
    detail: String,
    hint: Option<String>,
}

impl Finding {
    fn passed(detail: impl Into<String>) -> Self {
        Self { outcome: Outcome::Passed, detail: detail.into(), hint: None }
    }

    fn warning(detail: impl Into<String>, hint: impl Into<String>) -> Self {
        Self { outcome: Outcome::Warning, detail: detail.into(), hint: Some(hint.into()) }
    }

    fn failed(detail: impl Into<String>, hint: Option<String>) -> Self {
        Self { outcome: Outcome::Failed, detail: detail.into(), hint }
    }

    /// A failure with all that caused it, on one line.
    fn of(error: &dyn std::error::Error, hint: Option<String>) -> Self {
        let causes = std::iter::successors(Some(error), |error| error.source());
        let texts: Vec<String> = causes.map(ToString::to_string).collect();
        Self::failed(texts.join(": "), hint)
    }
}

/// Names of the steps, in their order.
const STEPS: [&str; 10] = [
    "name",
    "port",
    "tls",
    "login",
    "master",
    "version",
    "storage",
    "networks",
    "templates",
    "clock",
];

/// Checks a pool; `tell` hears of each step as it is done. Returns all of them.
pub async fn check(pool: &PoolSettings, tell: impl FnMut(&Step)) -> Vec<Step> {
    let mut check = Check { steps: Vec::new(), tell };
    if let Some(client) = check.enter(pool).await {
        check.look_around(pool, &client).await;
        if let Err(error) = client.close().await {
            tracing::debug!(%error, "the check could not log out");
        }
    }
    for name in &STEPS[check.steps.len()..] {
        let detail = "needs a step that failed".to_owned();
        let took = Duration::ZERO;
        check.add(Step { name, outcome: Outcome::Skipped, took, detail, hint: None });
    }
    check.steps
}

struct Check<T> {
    steps: Vec<Step>,
    tell: T,
}

impl<T: FnMut(&Step)> Check<T> {
    fn add(&mut self, step: Step) {
        (self.tell)(&step);
        self.steps.push(step);
    }

    /// Notes what the next step found, and returns whether one can go on.
    fn note(&mut self, began: Instant, finding: Finding) -> bool {
        let name = STEPS[self.steps.len()];
        let Finding { outcome, detail, hint } = finding;
        self.add(Step { name, outcome, took: began.elapsed(), detail, hint });
        outcome != Outcome::Failed
    }

    /// The steps up to a session.
    async fn enter(&mut self, pool: &PoolSettings) -> Option<Client> {
        let endpoint = &pool.addresses[0];
        let began = Instant::now();
        let resolved = resolve(endpoint).await;
        let (addresses, finding) = match resolved {
            Ok(addresses) => {
                let texts: Vec<String> = addresses.iter().map(|a| a.ip().to_string()).collect();
                let detail = format!("`{}` is {}", endpoint.host(), texts.join(", "));
                (addresses, Finding::passed(detail))
            }
            Err(finding) => (Vec::new(), finding),
        };
        if !self.note(began, finding) {
            return None;
        }
        let began = Instant::now();
        let finding = open(endpoint, &addresses).await;
        if !self.note(began, finding) {
            return None;
        }
        let began = Instant::now();
        let finding = handshake(pool).await;
        if !self.note(began, finding) {
            return None;
        }
        let began = Instant::now();
        let (client, finding) = log_in(pool).await;
        self.note(began, finding);
        client
    }

    /// The steps that need a session.
    async fn look_around(&mut self, pool: &PoolSettings, client: &Client) {
        let began = Instant::now();
        let hosts = inventory::hosts(client).await;
        let finding = found(&hosts, |hosts| {
            let master = hosts.iter().find(|host| host.master);
            master_finding(pool, client, master.map(|host| host.name.as_str()), hosts.len())
        });
        self.note(began, finding);
        let began = Instant::now();
        let finding = found(&hosts, version_finding);
        self.note(began, finding);
        let began = Instant::now();
        let storage = inventory::storage(client).await;
        self.note(began, found(&storage, storage_finding));
        let began = Instant::now();
        let networks = inventory::networks(client).await;
        let finding = found(&networks, |networks| {
            let usable = networks.iter().filter(|network| network.external && network.hosts > 0);
            match usable.count() {
                0 => Finding::warning(
                    "no network leads out of the hosts",
                    "connect one, or VMs will reach nothing",
                ),
                count => Finding::passed(format!("{count} of {} lead out", networks.len())),
            }
        });
        self.note(began, finding);
        let began = Instant::now();
        let templates = inventory::templates(client).await;
        self.note(began, found(&templates, template_finding));
        let began = Instant::now();
        let finding = clock(client).await.unwrap_or_else(|error| refusal(&error));
        self.note(began, finding);
    }
}

async fn resolve(endpoint: &Endpoint) -> Result<Vec<SocketAddr>, Finding> {
    let looked_up = tokio::net::lookup_host((endpoint.host(), endpoint.port()));
    let hint = || Some("check the name in the pool's address, and this machine's DNS".to_owned());
    match tokio::time::timeout(PATIENCE, looked_up).await {
        Ok(Ok(addresses)) => {
            let addresses: Vec<_> = addresses.collect();
            if addresses.is_empty() {
                let detail = format!("`{}` has no address", endpoint.host());
                return Err(Finding::failed(detail, hint()));
            }
            Ok(addresses)
        }
        Ok(Err(error)) => {
            let detail = format!("`{}` cannot be resolved: {error}", endpoint.host());
            Err(Finding::failed(detail, hint()))
        }
        Err(_) => {
            let detail = format!("resolving `{}` took too long", endpoint.host());
            Err(Finding::failed(detail, hint()))
        }
    }
}

async fn open(endpoint: &Endpoint, addresses: &[SocketAddr]) -> Finding {
    let hint = || {
        let port = endpoint.port();
        Some(format!("check that the host is up and that no firewall holds back port {port}"))
    };
    match tokio::time::timeout(PATIENCE, TcpStream::connect(addresses)).await {
        Ok(Ok(stream)) => {
            let peer = stream.peer_addr().map_or_else(|_| endpoint.to_string(), |a| a.to_string());
            Finding::passed(format!("{peer} is open"))
        }
        Ok(Err(error)) => {
            Finding::failed(format!("port {} cannot be opened: {error}", endpoint.port()), hint())
        }
        Err(_) => {
            let detail = format!("port {} did not open in {PATIENCE:?}", endpoint.port());
            Finding::failed(detail, hint())
        }
    }
}

/// Speaks to the pool without a session, so that no password travels before the certificate is known.
async fn handshake(pool: &PoolSettings) -> Finding {
    let endpoint = &pool.addresses[0];
    let builder = match pool.builder().await {
        Ok(builder) => builder,
        Err(error) => return Finding::of(&error, error.hint()),
    };
    let client = builder.timeout(ANSWER_PATIENCE).session(Secret::from(String::new())).build();
    let question = Request::read("system.listMethods", Vec::new()).without_session();
    match client.call::<Value>(question).await {
        // The refusal of a session that is none comes from the pool: it was reached.
        Ok(_) | Err(Error::Api { .. }) if endpoint.is_tls() => {
            Finding::passed("its certificate is the one that is known")
        }
        Ok(_) | Err(Error::Api { .. }) => {
            Finding::passed("not used on this machine's own addresses")
        }
        Err(error) => Finding::of(&error, trust_hint(pool, &error)),
    }
}

/// Where a certificate is not the known one, the command that changes what is known.
fn trust_hint(pool: &PoolSettings, error: &Error) -> Option<String> {
    let found = match error {
        Error::Tls { source, .. } => source.found(),
        _ => None,
    };
    match found {
        Some(_) => Some(format!(
            "if the host's certificate was replaced: `bioxen pool remove {0} --yes`, then `bioxen pool add {0} {1}`",
            pool.name, pool.addresses[0]
        )),
        None => error.hint(),
    }
}

async fn log_in(pool: &PoolSettings) -> (Option<Client>, Finding) {
    match tokio::time::timeout(ANSWER_PATIENCE, pool.connect()).await {
        Ok(Ok(client)) => {
            let detail = format!("as `{}`, the password from {}", pool.user, pool.password);
            (Some(client), Finding::passed(detail))
        }
        Ok(Err(error)) => {
            let hint = match &error {
                PoolError::Client { source, .. } => login_hint(pool, source),
                other => other.hint(),
            };
            (None, Finding::of(&error, hint))
        }
        Err(_) => {
            let detail = format!("the pool did not answer in {ANSWER_PATIENCE:?}");
            (None, Finding::failed(detail, Some("the toolstack on the master may hang".into())))
        }
    }
}

fn login_hint(pool: &PoolSettings, error: &Error) -> Option<String> {
    match error.code() {
        Some("SESSION_AUTHENTICATION_FAILED") => Some(format!(
            "check the user `{}` and the password that {} refers to",
            pool.user, pool.password
        )),
        _ => error.hint(),
    }
}

fn refusal(error: &Error) -> Finding {
    Finding::of(error, error.hint())
}

fn found<T>(listed: &Result<Vec<T>, Error>, judge: impl FnOnce(&[T]) -> Finding) -> Finding {
    match listed {
        Ok(rows) => judge(rows),
        Err(error) => refusal(error),
    }
}

fn master_finding(
    pool: &PoolSettings,
    client: &Client,
    master: Option<&str>,
    hosts: usize,
) -> Finding {
    let name = master.unwrap_or("?");
    let asked = &pool.addresses[0];
    match client.endpoint() {
        Some(answers) if answers != *asked => Finding::warning(
            format!("`{name}`, of {hosts} hosts, at {answers}; `{asked}` is a member"),
            format!("put {answers} first among the pool's addresses"),
        ),
        _ => Finding::passed(format!("`{name}`, of {hosts} {}", plural(hosts, "host"))),
    }
}

fn version_finding(hosts: &[inventory::Host]) -> Finding {
    let mut versions: Vec<&str> = hosts.iter().map(|host| host.version.as_str()).collect();
    versions.sort_unstable();
    versions.dedup();
    let down: Vec<&str> =
        hosts.iter().filter(|host| !host.live || !host.enabled).map(|h| h.name.as_str()).collect();
    if versions.len() > 1 {
        let hint = "finish the pool's upgrade: the master first, then its members";
        return Finding::warning(versions.join(", "), hint);
    }
    let version = versions.first().copied().unwrap_or("?");
    if down.is_empty() {
        Finding::passed(version)
    } else {
        let detail = format!("{version}; down or disabled: {}", down.join(", "));
        Finding::warning(detail, "VMs are placed on the others only")
    }
}

fn storage_finding(storage: &[Storage]) -> Finding {
    let usable: Vec<&Storage> = storage.iter().filter(|sr| sr.disks && sr.hosts > 0).collect();
    if usable.is_empty() {
        let hint = Some("connect a storage repository for disks".to_owned());
        return Finding::failed("no storage for disks is connected", hint);
    }
    match usable.iter().find(|sr| sr.default) {
        None => Finding::warning(
            format!("{} for disks, none the default", usable.len()),
            "set a default, or name one for each VM",
        ),
        Some(default) => match default.free {
            Some(free) if free < LITTLE_SPACE => Finding::warning(
                format!("the default, `{}`, has {} GiB free", default.name, free >> 30),
                "free some space, or name another for each VM",
            ),
            _ => Finding::passed(format!(
                "{} for disks, the default is `{}`",
                usable.len(),
                default.name
            )),
        },
    }
}

fn template_finding(templates: &[Template]) -> Finding {
    let ready = templates.iter().filter(|template| template.kind == TemplateKind::Ready).count();
    match ready {
        0 => Finding::warning(
            format!("{} that need an installer, none with a disk", templates.len()),
            "make or import a template with a disk that has cloud-init",
        ),
        _ => Finding::passed(format!("{ready} of {} have a disk", templates.len())),
    }
}

/// Compares the pool's clock with the middle of the time that asking took.
async fn clock(client: &Client) -> Result<Finding, Error> {
    let pools = client.pool().get_all_records().await?;
    let Some(pool) = pools.values().next() else {
        return Ok(Finding::failed("the pool has no record of itself", None));
    };
    let before = Timestamp::now();
    let theirs = client.host().get_servertime(&pool.master).await?;
    let after = Timestamp::now();
    let width = after.duration_since(before);
    let middle = before + width / 2;
    let off = theirs.duration_since(middle).unsigned_abs();
    // The server tells whole seconds.
    let uncertain = width.unsigned_abs() / 2 + Duration::from_secs(1);
    if off > CLOCK_TOLERANCE + uncertain {
        let side = if theirs > middle { "ahead" } else { "behind" };
        let detail = format!("the pool's clock is {} s {side}", off.as_secs());
        let hint = "set up time synchronisation on its hosts: records would carry wrong times";
        return Ok(Finding::warning(detail, hint));
    }
    Ok(Finding::passed(format!("within {:.1} s of this machine's", uncertain.as_secs_f64())))
}

fn plural(count: usize, noun: &str) -> String {
    if count == 1 { noun.to_owned() } else { format!("{noun}s") }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn repository(name: &str, default: bool, free: u64) -> Storage {
        Storage {
            name: name.into(),
            uuid: String::new(),
            kind: "ext".into(),
            disks: true,
            default,
            shared: false,
            hosts: 1,
            size: Some(1 << 40),
            free: Some(free),
        }
    }

    #[test]
    fn storage_must_be_there_and_should_have_a_default_with_space() {
        let outcome = |storage: &[Storage]| storage_finding(storage).outcome;
        assert_eq!(outcome(&[]), Outcome::Failed);
        assert_eq!(outcome(&[repository("a", false, 1 << 40)]), Outcome::Warning);
        assert_eq!(outcome(&[repository("a", true, 1 << 30)]), Outcome::Warning);
        assert_eq!(outcome(&[repository("a", true, 1 << 40)]), Outcome::Passed);
        let unplugged = Storage { hosts: 0, ..repository("a", true, 1 << 40) };
        assert_eq!(outcome(&[unplugged]), Outcome::Failed);
    }

    #[tokio::test]
    async fn a_pool_whose_name_is_none_fails_at_the_first_step_and_skips_the_rest() {
        let pool = settings("https://no-such-host.invalid");
        let mut told = Vec::new();
        let steps = check(&pool, |step| told.push(step.name)).await;
        assert_eq!(told, STEPS);
        assert_eq!(steps[0].outcome, Outcome::Failed);
        assert!(steps[0].hint.is_some());
        assert!(steps[1..].iter().all(|step| step.outcome == Outcome::Skipped));
    }

    #[tokio::test]
    async fn a_port_that_is_closed_fails_at_the_second_step() {
        let listener = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let port = listener.local_addr().unwrap().port();
        drop(listener);
        let steps = check(&settings(&format!("https://127.0.0.1:{port}")), |_| {}).await;
        let outcomes: Vec<_> = steps[..3].iter().map(|step| step.outcome).collect();
        assert_eq!(outcomes, [Outcome::Passed, Outcome::Failed, Outcome::Skipped]);
    }

    fn settings(address: &str) -> PoolSettings {
        PoolSettings {
            name: crate::PoolName::new("lab").unwrap(),
            addresses: vec![address.parse().unwrap()],
            user: "root".into(),
            password: "env:NOT_SET".parse().unwrap(),
            trust: crate::TrustSettings::Nothing,
            guests: crate::GuestSettings::default(),
        }
    }
}
