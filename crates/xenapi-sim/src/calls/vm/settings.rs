//! Memory, processors and the few fields whose change is checked.

use crate::calls::{Call, Handler, Outcome};
use crate::database::{Database, Row};
use crate::error::{ApiError, error};
use crate::lifecycle;
use crate::placement::{self, check_order};
use crate::value::{Ref, Value};

pub(super) fn handler(message: &str) -> Option<Handler> {
    Some(Handler::Now(match message {
        "set_memory_limits" => |call| {
            let limits = [call.int(1), call.int(3), call.int(4), call.int(2)];
            set_memory(call, "changing_memory_limits", |_| limits)
        },
        "set_memory" => |call| {
            let bytes = call.int(1);
            set_memory(call, "changing_memory_limits", |vm| {
                [vm.int("memory_static_min").min(bytes), bytes, bytes, bytes]
            })
        },
        "set_memory_dynamic_range" => |call| {
            let (low, high) = (call.int(1), call.int(2));
            set_memory(call, "changing_dynamic_range", |vm| {
                [vm.int("memory_static_min"), low, high, vm.int("memory_static_max")]
            })
        },
        "set_memory_static_range" => |call| {
            let (low, high) = (call.int(1), call.int(2));
            set_memory(call, "changing_static_range", |vm| {
                [low, vm.int("memory_dynamic_min"), vm.int("memory_dynamic_max"), high]
            })
        },
        "set_memory_static_min" => |call| set_one(call, "changing_static_range", 0),
        "set_memory_dynamic_min" => |call| set_one(call, "changing_dynamic_range", 1),
        "set_memory_dynamic_max" => |call| set_one(call, "changing_dynamic_range", 2),
        "set_memory_static_max" => |call| set_one(call, "changing_static_range", 3),
        "set_memory_target_live" | "wait_memory_target_live" => |_| Ok(Value::Void),
        "set_VCPUs_max" => set_vcpus_max,
        "set_VCPUs_at_startup" => set_vcpus_at_startup,
        "set_VCPUs_number_live" => set_vcpus_live,
        "set_is_a_template" => set_is_a_template,
        "set_HVM_shadow_multiplier" | "set_shadow_multiplier_live" => set_shadow,
        "add_to_VCPUs_params_live" => add_vcpus_param,
        "compute_memory_overhead" => {
            |call| Ok(placement::overhead(call.inner.read().row("VM", call.subject()?)?).into())
        }
        "maximise_memory" => maximise,
        "set_suspend_VDI" => set_suspend_vdi,
        "set_actions_after_crash" | "set_blocked_operations" | "set_domain_type" => set_plain,
        "add_to_blocked_operations" => add_blocked,
        "remove_from_blocked_operations" => remove_blocked,
        _ => return None,
    }))
}

const LIMITS: [&str; 4] =
    ["memory_static_min", "memory_dynamic_min", "memory_dynamic_max", "memory_static_max"];

fn set_memory(call: &Call, operation: &str, limits: impl Fn(&Row) -> [i64; 4]) -> Outcome {
    let vm = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("VM", vm)?.clone();
    lifecycle::check(&db, &row, operation)?;
    let limits = limits(&row);
    check_order(limits)?;
    if row.text("power_state") == "Running" {
        check_room(&db, &row, limits[1])?;
    }
    for (field, bytes) in LIMITS.iter().zip(limits) {
        db.set("VM", vm, field, bytes);
    }
    if row.text("power_state") == "Running" {
        db.set("VM", vm, "memory_target", limits[2]);
        db.set("VM_metrics", row.reference("metrics"), "memory_actual", limits[2]);
        placement::refresh_metrics(&mut db, row.reference("resident_on"), call.inner.clock.now());
    }
    note_overhead(&mut db, vm);
    Ok(Value::Void)
}

/// A live change that does not fit tells its numbers in KiB.
fn check_room(db: &Database, vm: &Row, dynamic_min: i64) -> Result<(), ApiError> {
    let Some(host) = db.find("host", vm.reference("resident_on")) else { return Ok(()) };
    let more = dynamic_min - vm.int("memory_dynamic_min");
    let free = placement::free_memory(db, host);
    if more <= free {
        return Ok(());
    }
    Err(error("HOST_NOT_ENOUGH_FREE_MEMORY", [more / 1024, free / 1024]))
}

fn set_one(call: &Call, operation: &str, which: usize) -> Outcome {
    let bytes = call.int(1);
    set_memory(call, operation, |vm| {
        let mut limits = LIMITS.map(|field| vm.int(field));
        limits[which] = bytes;
        limits
    })
}

fn note_overhead(db: &mut Database, vm: Ref) {
    if let Some(overhead) = db.find("VM", vm).map(|row| placement::overhead(row)) {
        db.set("VM", vm, "memory_overhead", overhead);
    }
}

fn set_vcpus_max(call: &Call) -> Outcome {
    let (vm, count) = (call.subject()?, call.int(1));
    let mut db = call.inner.write();
    let row = db.row("VM", vm)?.clone();
    lifecycle::check(&db, &row, "changing_VCPUs")?;
    if count < 1 || count < row.int("VCPUs_at_startup") {
        let name = if count < 1 {
            "VCPU values must be at least 1"
        } else {
            "VCPUs_max must not be below VCPUs_at_startup"
        };
        return Err(error("INVALID_VALUE", [name, &count.to_string()]));
    }
    db.set("VM", vm, "VCPUs_max", count);
    note_overhead(&mut db, vm);
    Ok(Value::Void)
}

fn set_vcpus_at_startup(call: &Call) -> Outcome {
    let (vm, count) = (call.subject()?, call.int(1));
    let mut db = call.inner.write();
    let row = db.row("VM", vm)?.clone();
    lifecycle::check(&db, &row, "changing_VCPUs")?;
    if count < 1 || count > row.int("VCPUs_max") {
        let name = if count < 1 {
            "VCPU values must be at least 1"
        } else {
            "VCPUs_at_startup must not be above VCPUs_max"
        };
        return Err(error("INVALID_VALUE", [name, &count.to_string()]));
    }
    db.set("VM", vm, "VCPUs_at_startup", count);
    Ok(Value::Void)
}

fn set_vcpus_live(call: &Call) -> Outcome {
    let (vm, count) = (call.subject()?, call.int(1));
    let mut db = call.inner.write();
    let row = db.row("VM", vm)?.clone();
    lifecycle::check(&db, &row, "changing_VCPUs_live")?;
    if count < 1 || count > row.int("VCPUs_max") {
        return Err(error(
            "INVALID_VALUE",
            ["VCPU count must be between 1 and VCPUs_max", &count.to_string()],
        ));
    }
    db.set("VM", vm, "VCPUs_at_startup", count);
    db.set("VM_metrics", row.reference("metrics"), "VCPUs_number", count);
    Ok(Value::Void)
}

fn set_is_a_template(call: &Call) -> Outcome {
    let (vm, is_template) = (call.subject()?, call.flag(1));
    let mut db = call.inner.write();
    let row = db.row("VM", vm)?.clone();
    if is_template && !row.flag("is_a_template") {
        lifecycle::check(&db, &row, "make_into_template")?;
    }
    if !is_template {
        // What was a default template is an ordinary VM from now on.
        db.set("VM", vm, "is_default_template", false);
        let config = row.get("other_config").without(&"default_template".into());
        db.set("VM", vm, "other_config", config);
    }
    db.set("VM", vm, "is_a_template", is_template);
    lifecycle::refresh(&mut db, vm);
    Ok(Value::Void)
}

fn set_shadow(call: &Call) -> Outcome {
    let vm = call.subject()?;
    let mut db = call.inner.write();
    db.row("VM", vm)?;
    db.set("VM", vm, "HVM_shadow_multiplier", call.args[1].clone());
    note_overhead(&mut db, vm);
    Ok(Value::Void)
}

fn add_vcpus_param(call: &Call) -> Outcome {
    let vm = call.subject()?;
    let mut db = call.inner.write();
    let params =
        db.row("VM", vm)?.get("VCPUs_params").with(call.args[1].clone(), call.args[2].clone());
    db.set("VM", vm, "VCPUs_params", params);
    Ok(Value::Void)
}

fn maximise(call: &Call) -> Outcome {
    let db = call.inner.read();
    let row = db.row("VM", call.subject()?)?;
    let mib = 1 << 20;
    let room = call.int(1) - placement::overhead(row);
    Ok(Value::Int((room / mib * mib).max(0)))
}

fn set_suspend_vdi(call: &Call) -> Outcome {
    let vm = call.subject()?;
    let mut db = call.inner.write();
    let row = db.row("VM", vm)?;
    if row.text("power_state") != "Suspended" {
        return Err(crate::error::bad_power_state(vm, "suspended", row.text("power_state")));
    }
    db.set("VM", vm, "suspend_VDI", call.args[1].clone());
    Ok(Value::Void)
}

fn set_plain(call: &Call) -> Outcome {
    let vm = call.subject()?;
    let field = call.method.message.name.trim_start_matches("set_");
    let mut db = call.inner.write();
    db.row("VM", vm)?;
    db.set("VM", vm, field, call.args[1].clone());
    lifecycle::refresh(&mut db, vm);
    Ok(Value::Void)
}

fn add_blocked(call: &Call) -> Outcome {
    let vm = call.subject()?;
    let mut db = call.inner.write();
    let before = db.row("VM", vm)?.get("blocked_operations").clone();
    if before.at(call.text(1)).is_some() {
        let told = ["VM", "blocked_operations", &vm.to_string(), call.text(1)];
        return Err(error("MAP_DUPLICATE_KEY", told));
    }
    let after = before.with(call.args[1].clone(), call.args[2].clone());
    db.set("VM", vm, "blocked_operations", after);
    lifecycle::refresh(&mut db, vm);
    Ok(Value::Void)
}

fn remove_blocked(call: &Call) -> Outcome {
    let vm = call.subject()?;
    let mut db = call.inner.write();
    let after = db.row("VM", vm)?.get("blocked_operations").without(&call.args[1]);
    db.set("VM", vm, "blocked_operations", after);
    lifecycle::refresh(&mut db, vm);
    Ok(Value::Void)
}
