//! Starting, stopping and moving VMs.

use std::sync::Arc;

use super::tell;
use crate::calls::{Call, Handler, Outcome, later, sr, vdi};
use crate::database::{Database, Row};
use crate::driver::Order;
use crate::error::{ApiError, bare, error, internal};
use crate::guests;
use crate::inner::lock;
use crate::lifecycle;
use crate::operations;
use crate::placement;
use crate::tasks;
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(match message {
        "start" => later!(start),
        "start_on" => later!(start_on),
        "clean_shutdown" => later!(clean_shutdown),
        "hard_shutdown" => later!(hard_shutdown),
        "shutdown" => later!(shutdown),
        "clean_reboot" => later!(clean_reboot),
        "hard_reboot" => later!(hard_reboot),
        "pause" => later!(pause),
        "unpause" => later!(unpause),
        "suspend" => later!(suspend),
        "resume" => later!(resume),
        "resume_on" => later!(resume_on),
        "pool_migrate" => later!(pool_migrate),
        "migrate_send" => later!(migrate_send),
        "power_state_reset" => later!(power_state_reset),
        _ => return None,
    })
}

async fn start(call: Call) -> Outcome {
    start_one(&call, call.subject()?, None, call.flag(1)).await
}

async fn start_on(call: Call) -> Outcome {
    let host = call.reference(1)?;
    call.inner.read().row("host", host)?;
    start_one(&call, call.subject()?, Some(host), call.flag(2)).await
}

/// Starts a VM, on this host or on one that has room.
pub(crate) async fn start_one(call: &Call, vm: Ref, host: Option<Ref>, paused: bool) -> Outcome {
    let inner = &call.inner;
    let operation = if host.is_some() { "start_on" } else { "start" };
    let _busy = operations::begin(call, vm, operation).await?;
    let host = {
        let mut db = inner.write();
        let row = db.row("VM", vm)?.clone();
        check_bootable(&db, &row)?;
        let host = choose(&db, &row, host)?;
        db.set("VM", vm, "scheduled_to_be_resident_on", host);
        host
    };
    if let Err(error) = call.take_time().await {
        inner.write().set("VM", vm, "scheduled_to_be_resident_on", Ref::NULL);
        return Err(error);
    }
    {
        let mut db = inner.write();
        lifecycle::boot(&mut db, vm, host, paused, inner.clock.now());
        placement::refresh_metrics(&mut db, host, inner.clock.now());
    }
    if let Err(problem) = guests::boot(inner, vm).await {
        guests::turned_off(inner, &mut inner.write(), vm);
        let told = [&vm.to_string(), "guest", &problem.message];
        return Err(error("FAILED_TO_START_EMULATOR", told));
    }
    if paused {
        order(call, vm, Order::Pause).await?;
    }
    tell(call, &mut inner.write(), "VM_STARTED", vm);
    Ok(Value::Void)
}

fn choose(db: &Database, vm: &Row, host: Option<Ref>) -> Result<Ref, ApiError> {
    match host {
        Some(host) => placement::can_boot(db, vm, db.row("host", host)?).map(|()| host),
        None => placement::choose(db, vm),
    }
}

fn check_bootable(db: &Database, vm: &Row) -> Result<(), ApiError> {
    let limits =
        ["memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max"];
    let ordered = placement::check_order(limits.map(|field| vm.int(field))).is_ok();
    if !ordered || vm.int("memory_static_max") == 0 {
        return Err(bare("MEMORY_CONSTRAINT_VIOLATION"));
    }
    let (at_startup, most) = (vm.int("VCPUs_at_startup"), vm.int("VCPUs_max"));
    if most < 1 {
        return Err(error("INVALID_VALUE", ["VCPUs_max".to_owned(), most.to_string()]));
    }
    if !(1..=most).contains(&at_startup) {
        let told =
            ["VCPUs-at-startup", &at_startup.to_string(), "it must lie between 1 and VCPUs_max"];
        return Err(error("VALUE_NOT_SUPPORTED", told));
    }
    if let Some(text) = vm.get("platform").at("cores-per-socket") {
        let Ok(cores) = text.parse::<i64>() else {
            return Err(error("INVALID_VALUE", ["platform:cores-per-socket", text]));
        };
        if cores < 1 || most % cores != 0 {
            return Err(error("VCPU_MAX_NOT_CORES_PER_SOCKET_MULTIPLE", [most, cores]));
        }
    }
    let vbds = vm.get("VBDs").ref_items().filter_map(|vbd| db.find("VBD", vbd));
    for vbd in vbds.filter(|vbd| vbd.text("mode") == "RW") {
        let Some(vdi) = db.find("VDI", vbd.reference("VDI")) else { continue };
        if db.find("SR", vdi.reference("SR")).is_some_and(|sr| sr.refs("PBDs").is_empty()) {
            return Err(error("SR_HAS_NO_PBDS", [vdi.reference("SR")]));
        }
        if lifecycle::in_use(db, vdi) && !vdi.flag("sharable") {
            return Err(error("VDI_IN_USE", [vdi.reference]));
        }
    }
    Ok(())
}

/// Tells a VM's guest what to do.
async fn order(call: &Call, vm: Ref, order: Order) -> Result<(), ApiError> {
    let uuid = call.inner.read().row("VM", vm)?.uuid();
    call.inner.driver.order(uuid, order).await.map_err(|problem| internal(problem.message))
}

async fn clean_shutdown(call: Call) -> Outcome {
    shut_down_one(&call, call.subject()?).await
}

/// Asks a VM's guest to shut down, and waits until it has.
pub(crate) async fn shut_down_one(call: &Call, vm: Ref) -> Outcome {
    let busy = operations::begin(call, vm, "clean_shutdown").await?;
    call.take_time().await?;
    order(call, vm, Order::Shutdown).await?;
    let halted = |db: &Database| {
        db.find("VM", vm).is_none_or(|row| row.text("power_state") == "Halted").then_some(())
    };
    wait_for_guest(call, vm, halted).await?;
    drop(busy);
    Ok(Value::Void)
}

/// Waits for what the guest was asked to do.
async fn wait_for_guest(
    call: &Call,
    vm: Ref,
    done: impl FnMut(&Database) -> Option<()>,
) -> Result<(), ApiError> {
    let limit = call.inner.options.shutdown_limit;
    let mut cancelled = call.inner.cancellable(call.task);
    tokio::select! {
        done = call.inner.wait_until(Call::deadline(limit), done) => match done {
            Some(()) => Ok(()),
            None => Err(error("VM_SHUTDOWN_TIMEOUT", [vm.to_string(), limit.as_secs().to_string()])),
        },
        _ = cancelled.wait_for(|it| *it) => Err(tasks::cancelled(call.task)),
    }
}

async fn hard_shutdown(call: Call) -> Outcome {
    power_off_one(&call, call.subject()?).await
}

/// Turns a VM off.
pub(crate) async fn power_off_one(call: &Call, vm: Ref) -> Outcome {
    let _busy = operations::begin(call, vm, "hard_shutdown").await?;
    call.take_time().await?;
    halt(call, vm).await?;
    tell(call, &mut call.inner.write(), "VM_SHUTDOWN", vm);
    Ok(Value::Void)
}

/// Ends whatever a VM is doing.
pub(super) async fn halt(call: &Call, vm: Ref) -> Result<(), ApiError> {
    lock(&call.inner.booted).remove(&vm);
    order(call, vm, Order::PowerOff).await?;
    let image = {
        let mut db = call.inner.write();
        let row = db.row("VM", vm)?.clone();
        lifecycle::leave_host(&mut db, vm, "Halted");
        placement::refresh_metrics(&mut db, row.reference("resident_on"), call.inner.clock.now());
        db.set("VM", vm, "suspend_VDI", Ref::NULL);
        row.reference("suspend_VDI")
    };
    vdi::remove(call, image).await
}

async fn shutdown(call: Call) -> Outcome {
    let vm = call.subject()?;
    match shut_down_one(&call, vm).await {
        Ok(value) => Ok(value),
        Err(error) if error.code == "HANDLE_INVALID" || error.code == "TASK_CANCELLED" => {
            Err(error)
        }
        Err(_) => power_off_one(&call, vm).await,
    }
}

async fn clean_reboot(call: Call) -> Outcome {
    let vm = call.subject()?;
    let _busy = operations::begin(&call, vm, "clean_reboot").await?;
    call.take_time().await?;
    let before = lock(&call.inner.booted).get(&vm).copied();
    order(&call, vm, Order::Reboot).await?;
    let inner = Arc::clone(&call.inner);
    let rebooted = |_: &Database| (lock(&inner.booted).get(&vm).copied() != before).then_some(());
    wait_for_guest(&call, vm, rebooted).await?;
    Ok(Value::Void)
}

async fn hard_reboot(call: Call) -> Outcome {
    let vm = call.subject()?;
    let _busy = operations::begin(&call, vm, "hard_reboot").await?;
    call.take_time().await?;
    lock(&call.inner.booted).remove(&vm);
    order(&call, vm, Order::PowerOff).await?;
    {
        let mut db = call.inner.write();
        let row = db.row("VM", vm)?.clone();
        lifecycle::restart(&mut db, &row, call.inner.clock.now());
    }
    guests::boot_again(&call.inner, vm).await;
    tell(&call, &mut call.inner.write(), "VM_REBOOTED", vm);
    Ok(Value::Void)
}

async fn pause(call: Call) -> Outcome {
    change_state(&call, "pause", Order::Pause, "Paused", "VM_PAUSED").await
}

async fn unpause(call: Call) -> Outcome {
    change_state(&call, "unpause", Order::Unpause, "Running", "VM_UNPAUSED").await
}

async fn change_state(
    call: &Call,
    operation: &'static str,
    to_guest: Order,
    state: &'static str,
    message: &'static str,
) -> Outcome {
    let vm = call.subject()?;
    let _busy = operations::begin(call, vm, operation).await?;
    call.take_time().await?;
    order(call, vm, to_guest).await?;
    let mut db = call.inner.write();
    db.set("VM", vm, "power_state", state);
    lifecycle::refresh(&mut db, vm);
    tell(call, &mut db, message, vm);
    Ok(Value::Void)
}

async fn suspend(call: Call) -> Outcome {
    let vm = call.subject()?;
    let _busy = operations::begin(&call, vm, "suspend").await?;
    let image = {
        let mut db = call.inner.write();
        let row = db.row("VM", vm)?.clone();
        suspend_image(&call, &mut db, &row)?
    };
    if let Err(error) = call.take_time().await {
        vdi::remove(&call, image).await?;
        return Err(error);
    }
    order(&call, vm, Order::Suspend).await?;
    let mut db = call.inner.write();
    let host = db.row("VM", vm)?.reference("resident_on");
    db.set("VM", vm, "suspend_VDI", image);
    lifecycle::leave_host(&mut db, vm, "Suspended");
    placement::refresh_metrics(&mut db, host, call.inner.clock.now());
    tell(&call, &mut db, "VM_SUSPENDED", vm);
    Ok(Value::Void)
}

/// The disk for a VM's memory.
pub(super) fn suspend_image(call: &Call, db: &mut Database, vm: &Row) -> Result<Ref, ApiError> {
    let pool = db.find("pool", call.inner.pool).map(|pool| pool.reference("suspend_image_SR"));
    let host =
        db.find("host", vm.reference("resident_on")).map(|host| host.reference("suspend_image_sr"));
    let candidates = [Some(vm.reference("suspend_SR")), pool, host];
    let sr = candidates.into_iter().flatten().find(|sr| db.find("SR", *sr).is_some());
    let Some(sr) = sr else { return Err(error("VM_NO_SUSPEND_SR", [vm.reference])) };
    let size = vm.int("memory_static_max") * 126 / 100 + (100 << 20);
    sr::check_space(db, sr, size).map_err(|_| bare("SR_SUSPEND_SPACE_INSUFFICIENT"))?;
    let fields = vec![
        ("name_label", "Suspend image".into()),
        ("type", "suspend".into()),
        ("SR", sr.into()),
        ("virtual_size", size.into()),
    ];
    vdi::insert(db, fields)
}

async fn resume(call: Call) -> Outcome {
    resume_one(&call, None, call.flag(1)).await
}

async fn resume_on(call: Call) -> Outcome {
    let host = call.reference(1)?;
    call.inner.read().row("host", host)?;
    resume_one(&call, Some(host), call.flag(2)).await
}

async fn resume_one(call: &Call, host: Option<Ref>, paused: bool) -> Outcome {
    let vm = call.subject()?;
    let operation = if host.is_some() { "resume_on" } else { "resume" };
    let _busy = operations::begin(call, vm, operation).await?;
    let host = {
        let mut db = call.inner.write();
        let row = db.row("VM", vm)?.clone();
        if row.reference("suspend_VDI").is_null() {
            return Err(error("VM_HAS_NO_SUSPEND_VDI", [vm]));
        }
        let host = choose(&db, &row, host)?;
        db.set("VM", vm, "scheduled_to_be_resident_on", host);
        host
    };
    if let Err(error) = call.take_time().await {
        call.inner.write().set("VM", vm, "scheduled_to_be_resident_on", Ref::NULL);
        return Err(error);
    }
    // A guest whose memory is gone, with an earlier simulator or by a revert, boots instead.
    let remembers = lock(&call.inner.booted).contains_key(&vm);
    if remembers {
        order(call, vm, Order::Resume).await?;
    }
    let image = {
        let mut db = call.inner.write();
        let row = db.row("VM", vm)?.clone();
        let metrics = row.reference("guest_metrics");
        let kept = db.find("VM_guest_metrics", metrics).map(|row| row.members());
        lifecycle::boot(&mut db, vm, host, paused, call.inner.clock.now());
        // A resumed guest goes on: what its agent said stays true.
        if let Some(kept) = kept {
            let fresh = db.row("VM", vm)?.reference("guest_metrics");
            let fields: Vec<_> = kept.into_iter().filter(|(name, _)| *name != "uuid").collect();
            db.update("VM_guest_metrics", fresh, &fields);
        }
        db.set("VM", vm, "suspend_VDI", Ref::NULL);
        lifecycle::refresh(&mut db, vm);
        tell(call, &mut db, "VM_RESUMED", vm);
        placement::refresh_metrics(&mut db, host, call.inner.clock.now());
        row.reference("suspend_VDI")
    };
    vdi::remove(call, image).await?;
    if !remembers {
        guests::boot_again(&call.inner, vm).await;
    }
    if paused {
        order(call, vm, Order::Pause).await?;
    }
    Ok(Value::Void)
}

async fn pool_migrate(call: Call) -> Outcome {
    let (vm, host) = (call.subject()?, call.reference(1)?);
    let _busy = operations::begin(&call, vm, "pool_migrate").await?;
    {
        let mut db = call.inner.write();
        let row = db.row("VM", vm)?.clone();
        let target = db.row("host", host)?;
        if row.reference("resident_on") != host {
            placement::can_boot(&db, &row, target)?;
        }
        db.set("VM", vm, "scheduled_to_be_resident_on", host);
    }
    if let Err(error) = call.take_time().await {
        call.inner.write().set("VM", vm, "scheduled_to_be_resident_on", Ref::NULL);
        return Err(error);
    }
    arrive(&call, vm, host)?;
    Ok(Value::Void)
}

/// Makes a running VM one of another host.
pub(crate) fn arrive(call: &Call, vm: Ref, host: Ref) -> Result<(), ApiError> {
    let mut db = call.inner.write();
    let before = db.row("VM", vm)?.reference("resident_on");
    let domain = db.next_domain();
    let moved = before != host;
    db.set("VM", vm, "resident_on", host);
    db.set("VM", vm, "scheduled_to_be_resident_on", Ref::NULL);
    if moved {
        db.set("VM", vm, "domid", domain);
    }
    let address = db.row("host", host)?.text("address").to_owned();
    for console in db.row("VM", vm)?.refs("consoles") {
        let uuid = db.row("console", console)?.uuid();
        db.set("console", console, "location", format!("https://{address}/console?uuid={uuid}"));
    }
    for host in [before, host] {
        placement::refresh_metrics(&mut db, host, call.inner.clock.now());
    }
    tell(call, &mut db, "VM_MIGRATED", vm);
    Ok(())
}

async fn migrate_send(call: Call) -> Outcome {
    let vm = call.subject()?;
    let target = call.args[1].at("host").and_then(Ref::parse).unwrap_or_default();
    if call.inner.read().find("host", target).is_none() {
        return Err(error("CANNOT_CONTACT_HOST", [call.args[1].at("host").unwrap_or_default()]));
    }
    let _busy = operations::begin(&call, vm, "migrate_send").await?;
    let running = {
        let db = call.inner.read();
        let row = db.row("VM", vm)?;
        let running = row.text("power_state") == "Running";
        if running && row.reference("resident_on") != target {
            placement::fits(&db, row, db.row("host", target)?)?;
        }
        running
    };
    call.take_time().await?;
    for (disk, place) in call.args[3].entries() {
        vdi::move_to(&mut call.inner.write(), disk.as_ref(), place.as_ref())?;
    }
    if running {
        arrive(&call, vm, target)?;
    }
    Ok(vm.into())
}

async fn power_state_reset(call: Call) -> Outcome {
    let vm = call.subject()?;
    let _busy = operations::begin(&call, vm, "power_state_reset").await?;
    halt(&call, vm).await?;
    Ok(Value::Void)
}
