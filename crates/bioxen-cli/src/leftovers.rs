//! What was left behind on pools, found and removed by what is remembered here.
//!
//! The pool is looked at first and the registry after that: a VM is noted down before it is made, so
//! that one which has just been begun is never taken for a leak.

use std::collections::HashSet;
use std::sync::Arc;

use bioxen::VmName;
use bioxen_state::{Controller, Phase, Source, State, StateError, Vm};
use bioxen_xcp::ConnectedPool;
use bioxen_xcp::leaks::{self, Attempt, Fate, Knowledge, Leak, Reason};
use bioxen_xcp::machine::MachineError;
use bioxen_xcp::making::{self, DeadAttempt};
use bioxen_xcp::tags::MakingLabel;
use jiff::Timestamp;
use uuid::Uuid;
use xenapi::class;

use crate::failure::Failure;
use crate::registry::{self, Registry};
use crate::shown;

/// What was left behind on one pool.
pub(crate) struct Found {
    /// The pool.
    pub(crate) pool: Arc<ConnectedPool>,
    /// What lies there.
    pub(crate) leaks: Vec<Leak>,
    /// VMs that are remembered and that nobody sees to any more, or whose time is over.
    pub(crate) rows: Vec<Vm>,
}

/// What became of one thing.
pub(crate) enum Outcome {
    /// Something on the pool.
    Leak(leaks::Outcome),
    /// Something on the pool that somebody else has taken into their hands meanwhile.
    Held(Leak),
    /// A VM that was only remembered.
    Forgotten(VmName),
}

impl Outcome {
    /// Whether there is nothing left to be done about it.
    pub(crate) fn is_settled(&self) -> bool {
        match self {
            Self::Leak(outcome) => match outcome.fate {
                Fate::Removed { .. } | Fate::Gone | Fate::Kept => true,
                Fate::Changed | Fate::Failed(_) => false,
            },
            // Whoever has it in their hands sees to it.
            Self::Held(_) | Self::Forgotten(_) => true,
        }
    }
}

/// Finds what was left behind on a pool. Changes nothing.
pub(crate) fn find(registry: &Registry, pool: &Arc<ConnectedPool>) -> Result<Found, Failure> {
    let state = registry.state();
    let view = pool.mirror().view();
    let now = Timestamp::now();
    let mut rows = state.vms().map_err(Failure::State)?;
    rows.retain(|row| row.pool() == pool.name().as_str());
    let abandoned = abandoned(state, &rows)?;
    let is_abandoned = |row: &Vm| abandoned.contains(row.name());
    let vms: HashSet<Uuid> = rows
        .iter()
        .filter(|row| row.phase() == Phase::Ready || !is_abandoned(row))
        .filter_map(|row| row.uuid.as_deref()?.parse().ok())
        .collect();
    let attempt = |attempt: Uuid| {
        let is_its = |row: &&Vm| {
            row.making_label().and_then(MakingLabel::read).is_some_and(|it| it.attempt == attempt)
        };
        match rows.iter().find(is_its) {
            Some(row) if is_abandoned(row) => Attempt::Dead,
            Some(_) => Attempt::Alive,
            None => Attempt::Unknown,
        }
    };
    let known = Knowledge {
        owner: pool.owner(),
        now,
        // Who cannot be asked may live.
        alive: &|controller| state.is_alive(controller).unwrap_or(true),
        attempt: &attempt,
        making: &|name| {
            let row = rows.iter().find(|row| row.name() == name);
            row.is_some_and(|row| row.phase() == Phase::Making && !is_abandoned(row))
        },
        vms: &vms,
    };
    let leaks = leaks::find(&view, &known);
    drop(view);
    // Nobody sees to one that was made without being waited for.
    let is_let_be = |row: &Vm| row.controller().is_none() || is_abandoned(row);
    let expired = |row: &Vm| {
        (row.phase() == Phase::Ready || is_let_be(row)) && row.has_expired(now) && !row.adopted()
    };
    let goes = |row: &Vm| (is_abandoned(row) && row.phase() != Phase::Ready) || expired(row);
    rows.retain(goes);
    Ok(Found { pool: Arc::clone(pool), leaks, rows })
}

fn abandoned(state: &State, rows: &[Vm]) -> Result<HashSet<VmName>, Failure> {
    let mut abandoned = HashSet::new();
    for row in rows {
        let Some(controller) = row.controller() else { continue };
        if !state.is_alive(controller).map_err(Failure::State)? {
            abandoned.insert(row.name().clone());
        }
    }
    Ok(abandoned)
}

/// Whether something on the pool is what a row tells of, or part of it.
fn belongs_to(leak: &Leak, row: &Vm) -> bool {
    let uuid = leak.uuid.to_string();
    row.uuid.as_deref() == Some(uuid.as_str())
        || row.making_label() == Some(leak.name.as_str())
        || leak.tags.as_ref().is_some_and(|tags| tags.vm.as_ref() == Some(row.name()))
}

/// Removes what was found, and forgets those VMs of which nothing is left.
pub(crate) async fn collect(
    registry: &Registry,
    controller: &Controller,
    found: Found,
) -> Result<Vec<Outcome>, Failure> {
    let Found { pool, mut leaks, rows } = found;
    let (mut taken, mut outcomes) = (Vec::new(), Vec::new());
    for row in rows {
        if take(registry.state(), controller, &row)? {
            taken.push(row);
            continue;
        }
        let (held, others): (Vec<_>, Vec<_>) =
            leaks.into_iter().partition(|leak| belongs_to(leak, &row));
        outcomes.extend(held.into_iter().map(Outcome::Held));
        leaks = others;
    }
    let collected = leaks::collect(&pool, leaks).await;
    for row in taken {
        let failed = collected.iter().any(|outcome| {
            matches!(outcome.fate, Fate::Failed(_) | Fate::Changed)
                && belongs_to(&outcome.leak, &row)
        });
        if failed || !is_gone(&pool, &row).await? {
            continue;
        }
        match registry.state().forget(row.name()) {
            // Somebody else has, meanwhile.
            Err(error) if error.is_missing() => {}
            outcome => outcome.map_err(Failure::State)?,
        }
        if !collected.iter().any(|outcome| belongs_to(&outcome.leak, &row)) {
            outcomes.push(Outcome::Forgotten(row.name().clone()));
        }
    }
    let collected = collected.into_iter().map(Outcome::Leak);
    Ok(collected.chain(outcomes).collect())
}

/// Takes a row into our hands, if it is as it was found: somebody may have finished the VM since, or may
/// be deleting it.
fn take(state: &State, controller: &Controller, row: &Vm) -> Result<bool, Failure> {
    let Some(now) = state.find_vm(row.name()).map_err(Failure::State)? else { return Ok(true) };
    if now != *row {
        return Ok(false);
    }
    let name = row.name();
    let taken = if row.adopted() {
        state.claim(name, controller)
    } else {
        state.deleting(name, controller)
    };
    match taken {
        Ok(_) => Ok(true),
        Err(StateError::Held { .. }) => Ok(false),
        Err(error) => Err(Failure::State(error)),
    }
}

/// Whether nothing of a VM is left on the pool. One that was adopted has its marks taken off.
async fn is_gone(pool: &Arc<ConnectedPool>, row: &Vm) -> Result<bool, Failure> {
    if row.adopted() {
        return match registry::machine_of(pool, row) {
            Ok(machine) => machine.forget().await.map(|_| true).map_err(Failure::machine),
            Err(MachineError::NotFound { .. }) => Ok(true),
            Err(error) => Err(Failure::machine(error)),
        };
    }
    if let (Phase::Making, Some(attempt)) = (row.phase(), attempt_of(row)) {
        // The pool may have been asked for something that it has not made yet.
        making::remove_attempt(pool, &attempt).await.map_err(Failure::machine)?;
    }
    Ok(!is_there(pool, row))
}

/// What was noted of the attempt to make a VM.
fn attempt_of(row: &Vm) -> Option<DeadAttempt> {
    let Source::Template { uuid, making_label, .. } = row.source() else { return None };
    Some(DeadAttempt {
        vm: row.name().clone(),
        making: MakingLabel::read(making_label)?,
        template: uuid.clone(),
        uuid: row.uuid.clone(),
    })
}

/// Whether the pool has a machine that a row tells of, finished or not.
pub(crate) fn is_there(pool: &ConnectedPool, row: &Vm) -> bool {
    let view = pool.mirror().view();
    let by_uuid = row.uuid.as_deref().and_then(|uuid| view.by_uuid::<class::Vm>(uuid));
    let label = row.making_label().unwrap_or_default();
    by_uuid.is_some() || view.by_name::<class::Vm>(label).next().is_some()
}

/// Why something is a leak, for a person.
pub(crate) fn reason(leak: &Leak) -> String {
    match &leak.reason {
        // Who looks for leaks is not helped by an id.
        Reason::ControllerGone { .. } => "whoever it was made for is gone".to_owned(),
        Reason::Expired { at } => format!("it expired at {}", shown::time(*at)),
        reason => reason.to_string(),
    }
}
