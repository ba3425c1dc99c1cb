//! Which operations a VM takes in which state, and what each state looks like.
//!
//! ```text
//! Halted ──start──▶ Running ──pause──▶ Paused ──unpause──▶ Running
//!   ▲                 │  ▲                │
//!   │◀──shutdown──────┘  └──resume── Suspended ◀──suspend── Running
//!   └◀──hard_shutdown── from Running, Paused and Suspended
//! ```
//!
//! Everything here works on a database that the caller has locked; nothing waits.

use crate::database::{Database, Row};
use crate::error::{ApiError, bad_power_state, bare, error, not_allowed};
use crate::value::{Ref, Value};

/// An operation, and the power states that it takes as errors print them.
const OPERATIONS: &[(&str, &str)] = &[
    ("start", "halted"),
    ("start_on", "halted"),
    ("provision", "halted"),
    ("make_into_template", "halted"),
    ("changing_shadow_memory", "halted"),
    ("changing_NVRAM", "halted"),
    ("create_vtpm", "halted"),
    ("unpause", "paused"),
    ("resume", "suspended"),
    ("resume_on", "suspended"),
    ("csvm", "suspended"),
    ("clean_shutdown", "running"),
    ("clean_reboot", "running"),
    ("pause", "running"),
    ("suspend", "running"),
    ("pool_migrate", "running"),
    ("changing_VCPUs_live", "running"),
    ("changing_memory_live", "running"),
    ("changing_shadow_memory_live", "running"),
    ("send_sysrq", "running"),
    ("send_trigger", "running"),
    ("data_source_op", "running"),
    ("call_plugin", "running"),
    ("sysprep", "running"),
    ("changing_VCPUs", "halted"),
    ("changing_static_range", "halted"),
    ("changing_memory_limits", "halted"),
    ("changing_dynamic_range", "halted, running"),
    ("clone", "halted"),
    ("copy", "halted"),
    ("destroy", "halted, suspended"),
    ("export", "halted, suspended"),
    ("create_template", "halted, suspended"),
    ("hard_reboot", "paused, running"),
    ("hard_shutdown", "paused, suspended, running"),
    ("checkpoint", "paused, suspended, running"),
    ("shutdown", "paused, suspended, running"),
    ("get_boot_record", "paused, suspended, running"),
    ("migrate_send", "halted, suspended, running"),
    ("snapshot", "halted, paused, suspended, running"),
    ("revert", "halted, paused, suspended, running"),
    ("metadata_export", "halted, paused, suspended, running"),
    ("power_state_reset", "halted, paused, suspended, running"),
    ("assert_operation_valid", "halted, paused, suspended, running"),
    ("update_allowed_operations", "halted, paused, suspended, running"),
    ("query_services", "halted, paused, suspended, running"),
];

/// Operations that records never show as allowed.
const INTERNAL: &[&str] = &[
    "shutdown",
    "get_boot_record",
    "csvm",
    "power_state_reset",
    "call_plugin",
    "changing_VCPUs",
    "changing_memory_limits",
    "data_source_op",
    "assert_operation_valid",
    "update_allowed_operations",
    "query_services",
    "sysprep",
];

/// What else a template takes.
const ON_TEMPLATES: &[&str] = &[
    "clone",
    "copy",
    "provision",
    "export",
    "metadata_export",
    "changing_dynamic_range",
    "changing_static_range",
    "changing_memory_limits",
    "changing_VCPUs",
    "changing_NVRAM",
    "changing_shadow_memory",
    "assert_operation_valid",
    "update_allowed_operations",
];

/// What a snapshot takes.
const ON_SNAPSHOTS: &[&str] = &[
    "revert",
    "clone",
    "copy",
    "export",
    "metadata_export",
    "destroy",
    "hard_shutdown",
    "assert_operation_valid",
    "update_allowed_operations",
];

/// Whether an operation may begin while another runs.
fn compatible(new: &str, running: &str) -> bool {
    let both = |group: &[&str]| group.contains(&new) && group.contains(&running);
    both(&["clone", "copy", "export"])
        || both(&["snapshot", "checkpoint"])
        || both(&["get_boot_record"])
        || (new == "hard_shutdown" && running != "hard_shutdown")
        || (new == "hard_reboot" && !["hard_shutdown", "hard_reboot"].contains(&running))
        || (running == "migrate_send"
            && ["metadata_export", "clean_shutdown", "clean_reboot"].contains(&new))
}

/// Whether this operation ends that one when it begins.
pub(crate) fn cancels(new: &str, running: &str) -> bool {
    let ended =
        ["clean_shutdown", "clean_reboot", "hard_reboot", "pool_migrate", "suspend", "call_plugin"];
    (new == "hard_shutdown" && ended.contains(&running))
        || (new == "hard_reboot" && ["clean_shutdown", "clean_reboot"].contains(&running))
}

/// Whether this VM takes this operation now.
pub(crate) fn check(db: &Database, vm: &Row, operation: &str) -> Result<(), ApiError> {
    let reference = vm.reference;
    if let Some(reason) = vm.get("blocked_operations").at(operation) {
        return Err(error("OPERATION_BLOCKED", [&reference.to_string(), reason]));
    }
    check_power(vm, operation)?;
    for (task, running) in vm.get("current_operations").entries() {
        let running = running.as_str().unwrap_or_default();
        if !compatible(operation, running) {
            let told = ["VM", &reference.to_string(), running, &task.plain()];
            return Err(error("OTHER_OPERATION_IN_PROGRESS", told));
        }
    }
    check_kind(vm, operation)?;
    match operation {
        "clean_shutdown" => check_feature(db, vm, &["feature-shutdown", "feature-poweroff"]),
        "clean_reboot" => check_feature(db, vm, &["feature-shutdown", "feature-reboot"]),
        "changing_VCPUs_live" => check_feature(db, vm, &["feature-vcpu-hotplug"]),
        "suspend" => check_feature(db, vm, &["feature-suspend"]),
        _ => Ok(()),
    }
}

fn check_power(vm: &Row, operation: &str) -> Result<(), ApiError> {
    let state = vm.text("power_state").to_lowercase();
    let expected =
        OPERATIONS.iter().find(|(name, _)| *name == operation).map(|(_, states)| *states);
    let Some(expected) = expected else { return Ok(()) };
    let on_snapshot = ["clone", "copy"].contains(&operation) && vm.flag("is_a_snapshot");
    let dom0 = vm.flag("is_control_domain") && operation.starts_with("changing_");
    let fits = expected.split(", ").any(|it| it == state)
        || (on_snapshot && state == "suspended")
        || (dom0 && state == "running");
    if fits { Ok(()) } else { Err(bad_power_state(vm.reference, expected, &state)) }
}

fn check_kind(vm: &Row, operation: &str) -> Result<(), ApiError> {
    let told = [&vm.reference.to_string(), operation];
    if vm.flag("is_control_domain")
        && !operation.starts_with("changing_")
        && operation != "update_allowed_operations"
    {
        return Err(not_allowed("the operation is not allowed on a control domain"));
    }
    if vm.flag("is_a_snapshot") {
        if !ON_SNAPSHOTS.contains(&operation) {
            return Err(error("VM_IS_SNAPSHOT", told));
        }
    } else if operation == "revert" {
        return Err(bare("REVERT_ONLY_ALLOWED_ON_SNAPSHOT"));
    } else if vm.flag("is_a_template") {
        let own =
            !vm.flag("is_default_template") && ["destroy", "migrate_send"].contains(&operation);
        if !own && !ON_TEMPLATES.contains(&operation) {
            return Err(error("VM_IS_TEMPLATE", told));
        }
        if operation == "destroy" && vm.get("other_config").at("default_template") == Some("true") {
            return Err(bare("VM_CANNOT_DELETE_DEFAULT_TEMPLATE"));
        }
    }
    if operation == "provision" && !vm.flag("is_a_template") {
        return Err(bare("PROVISION_ONLY_ALLOWED_ON_TEMPLATE"));
    }
    Ok(())
}

fn check_feature(db: &Database, vm: &Row, features: &[&str]) -> Result<(), ApiError> {
    let metrics = db.find("VM_guest_metrics", vm.reference("guest_metrics"));
    let able = metrics.is_some_and(|metrics| {
        let other = metrics.get("other");
        !metrics.get("PV_drivers_version").entries().is_empty()
            || features.iter().any(|feature| other.at(feature).is_some())
    });
    if able { Ok(()) } else { Err(error("VM_LACKS_FEATURE", [vm.reference])) }
}

/// Writes down what the VM takes now.
pub(crate) fn refresh(db: &mut Database, vm: Ref) {
    let Some(row) = db.find("VM", vm).cloned() else { return };
    let names = OPERATIONS.iter().map(|(name, _)| *name).filter(|name| !INTERNAL.contains(name));
    let allowed = Value::texts(names.filter(|name| check(db, &row, name).is_ok()));
    db.set("VM", vm, "allowed_operations", allowed);
    for vbd in row.refs("VBDs") {
        refresh_vbd(db, &row, vbd);
    }
    for vif in row.refs("VIFs") {
        let Some(vif_row) = db.find("VIF", vif) else { continue };
        let allowed = device_operations(&row, vif_row.flag("currently_attached"));
        db.set("VIF", vif, "allowed_operations", Value::texts(allowed));
    }
}

fn refresh_vbd(db: &mut Database, vm: &Row, vbd: Ref) {
    let Some(row) = db.find("VBD", vbd).cloned() else { return };
    let mut allowed = device_operations(vm, row.flag("currently_attached"));
    if row.text("type") == "CD" {
        let live = vm.text("power_state") == "Running";
        allowed.retain(|operation| !live || !operation.contains("plug"));
        allowed.push(if row.flag("empty") { "insert" } else { "eject" });
    }
    db.set("VBD", vbd, "allowed_operations", Value::texts(allowed));
    refresh_vdi(db, row.reference("VDI"));
}

fn device_operations(vm: &Row, attached: bool) -> Vec<&'static str> {
    match (vm.text("power_state"), attached) {
        ("Running", true) => vec!["attach", "unplug", "unplug_force"],
        ("Running", false) => vec!["attach", "plug"],
        _ => vec!["attach"],
    }
}

/// Writes down what a disk takes now.
pub(crate) fn refresh_vdi(db: &mut Database, vdi: Ref) {
    let Some(row) = db.find("VDI", vdi) else { return };
    let busy = in_use(db, row);
    let always = ["snapshot", "clone", "update", "set_on_boot"].as_slice();
    let free = ["copy", "destroy", "forget", "resize", "resize_online"].as_slice();
    let names = always.iter().chain(if busy { &["resize_online"] } else { free });
    let allowed = Value::texts(names.copied().collect::<Vec<_>>());
    db.set("VDI", vdi, "allowed_operations", allowed);
}

/// Whether a disk is attached to a VM.
pub(crate) fn in_use(db: &Database, vdi: &Row) -> bool {
    let vbds = vdi.get("VBDs").ref_items();
    vbds.into_iter()
        .any(|vbd| db.find("VBD", vbd).is_some_and(|vbd| vbd.flag("currently_attached")))
}

/// The name in the guest of a disk at this position.
pub(crate) fn device_name(position: u32) -> String {
    let mut letters = Vec::new();
    let mut rest = position;
    loop {
        letters.push(b'a' + u8::try_from(rest % 26).unwrap_or_default());
        match rest / 26 {
            0 => break,
            more => rest = more - 1,
        }
    }
    letters.reverse();
    format!("xvd{}", String::from_utf8_lossy(&letters))
}

/// Attaches all of a VM's devices, as a boot does.
pub(crate) fn attach_all(db: &mut Database, vm: &Row) {
    for vbd in vm.refs("VBDs") {
        let Some(row) = db.find("VBD", vbd) else { continue };
        let position = row.text("userdevice").parse().unwrap_or_default();
        let attached = !row.flag("empty") || row.text("type") == "CD";
        db.set("VBD", vbd, "currently_attached", attached);
        db.set("VBD", vbd, "device", device_name(position));
    }
    for vif in vm.refs("VIFs") {
        db.set("VIF", vif, "currently_attached", true);
    }
}

/// Makes a VM one that runs, or stands paused, on this host.
pub(crate) fn boot(db: &mut Database, vm: Ref, host: Ref, paused: bool, now: i64) {
    let Some(row) = db.find("VM", vm).cloned() else { return };
    attach_all(db, &row);
    let domid = db.next_domain();
    let hvm = !row.text("HVM_boot_policy").is_empty() || row.text("domain_type") != "pv";
    db.update(
        "VM_metrics",
        row.reference("metrics"),
        &[
            ("start_time", Value::Time(now)),
            ("last_updated", Value::Time(now)),
            ("VCPUs_number", row.int("VCPUs_at_startup").into()),
            ("memory_actual", row.int("memory_dynamic_max").into()),
            ("hvm", hvm.into()),
            ("current_domain_type", if hvm { "hvm" } else { "pv" }.into()),
            ("state", Value::texts(Vec::<&str>::new())),
        ],
    );
    let address = db.find("host", host).map(|it| it.text("address").to_owned()).unwrap_or_default();
    // A paravirtual guest has a line of text beside its screen.
    let protocols: &[&str] = if hvm { &["rfb"] } else { &["rfb", "vt100"] };
    for protocol in protocols {
        let console =
            db.insert("console", vec![("VM", vm.into()), ("protocol", (*protocol).into())]);
        let uuid = db.find("console", console).map(|it| it.uuid()).unwrap_or_default();
        db.set("console", console, "location", format!("https://{address}/console?uuid={uuid}"));
    }
    db.delete("VM_guest_metrics", row.reference("guest_metrics"));
    let metrics = db.insert("VM_guest_metrics", vec![("last_updated", Value::Time(now))]);
    db.update(
        "VM",
        vm,
        &[
            ("guest_metrics", metrics.into()),
            ("resident_on", host.into()),
            ("scheduled_to_be_resident_on", Ref::NULL.into()),
            ("domid", domid.into()),
            ("power_state", if paused { "Paused" } else { "Running" }.into()),
        ],
    );
    refresh(db, vm);
}

/// Makes the rows of a running VM those of one that has just booted, on the same host.
pub(crate) fn restart(db: &mut Database, vm: &Row, now: i64) {
    for console in vm.refs("consoles") {
        db.delete("console", console);
    }
    boot(db, vm.reference, vm.reference("resident_on"), false, now);
}

/// Takes a VM off its host: nothing of it runs.
pub(crate) fn leave_host(db: &mut Database, vm: Ref, state: &'static str) {
    let Some(row) = db.find("VM", vm).cloned() else { return };
    if state == "Halted" {
        for vbd in row.refs("VBDs") {
            db.set("VBD", vbd, "currently_attached", false);
            db.set("VBD", vbd, "device", "");
        }
        for vif in row.refs("VIFs") {
            db.set("VIF", vif, "currently_attached", false);
        }
    }
    for console in row.refs("consoles") {
        db.delete("console", console);
    }
    db.update(
        "VM_metrics",
        row.reference("metrics"),
        &[
            ("memory_actual", 0.into()),
            ("VCPUs_number", 0.into()),
            ("current_domain_type", "unspecified".into()),
        ],
    );
    db.update(
        "VM",
        vm,
        &[
            ("power_state", state.into()),
            ("resident_on", Ref::NULL.into()),
            ("scheduled_to_be_resident_on", Ref::NULL.into()),
            ("domid", (-1).into()),
        ],
    );
    refresh(db, vm);
}

/// Writes what a guest's agent says into its metrics.
pub(crate) fn note_agent(db: &mut Database, vm: Ref, agent: &crate::driver::Agent, now: i64) {
    let Some(metrics) = db.find("VM", vm).map(|row| row.reference("guest_metrics")) else { return };
    let [major, minor, micro, build] = agent.version.map(|part| part.to_string());
    let version = [("major", major), ("minor", minor), ("micro", micro), ("build", build)];
    let mut networks = Vec::new();
    for (device, addresses) in &agent.addresses {
        let of_kind = |v4: bool| addresses.iter().filter(move |it| it.is_ipv4() == v4);
        if let Some(first) = of_kind(true).next() {
            networks.push((format!("{device}/ip"), first.to_string()));
        }
        for (family, v4) in [("ipv4", true), ("ipv6", false)] {
            for (place, address) in of_kind(v4).enumerate() {
                networks.push((format!("{device}/{family}/{place}"), address.to_string()));
            }
        }
    }
    let features = agent.features.iter().map(|feature| (feature.as_str(), "1"));
    let other =
        features.chain([("data-ts", "1"), ("platform-feature-multiprocessor-suspend", "1")]);
    db.update(
        "VM_guest_metrics",
        metrics,
        &[
            ("PV_drivers_version", Value::text_map(version)),
            ("PV_drivers_detected", true.into()),
            ("PV_drivers_up_to_date", true.into()),
            ("os_version", Value::text_map(&agent.os_version)),
            ("networks", Value::text_map(networks)),
            ("other", Value::text_map(other)),
            ("can_use_hotplug_vbd", "yes".into()),
            ("can_use_hotplug_vif", "yes".into()),
            ("live", true.into()),
            ("last_updated", Value::Time(now)),
        ],
    );
    refresh(db, vm);
}

#[cfg(test)]
mod tests {
    use super::*;

    fn vm(state: &'static str) -> (Database, Ref) {
        let mut db = Database::new(1);
        let vm = db.insert("VM", vec![("power_state", state.into())]);
        (db, vm)
    }

    fn code(db: &Database, vm: Ref, operation: &str) -> Vec<String> {
        match check(db, db.row("VM", vm).unwrap(), operation) {
            Ok(()) => Vec::new(),
            Err(error) => [vec![error.code], error.params].concat(),
        }
    }

    #[test]
    fn power_state_errors_name_states_as_the_server_does() {
        let (db, vm) = vm("Running");
        let told = vm.to_string();
        assert_eq!(code(&db, vm, "start"), ["VM_BAD_POWER_STATE", &told, "halted", "running"]);
        let expected = ["VM_BAD_POWER_STATE", &told, "halted, suspended", "running"];
        assert_eq!(code(&db, vm, "destroy"), expected);
        let (db, vm) = self::vm("Halted");
        let expected =
            ["VM_BAD_POWER_STATE", &vm.to_string(), "paused, suspended, running", "halted"];
        assert_eq!(code(&db, vm, "hard_shutdown"), expected);
    }

    #[test]
    fn templates_and_snapshots_take_little() {
        let (mut db, vm) = vm("Halted");
        assert_eq!(code(&db, vm, "provision"), ["PROVISION_ONLY_ALLOWED_ON_TEMPLATE"]);
        assert_eq!(code(&db, vm, "revert"), ["REVERT_ONLY_ALLOWED_ON_SNAPSHOT"]);
        db.set("VM", vm, "is_a_template", true);
        assert_eq!(code(&db, vm, "start"), ["VM_IS_TEMPLATE", &vm.to_string(), "start"]);
        assert!(code(&db, vm, "clone").is_empty());
        assert!(code(&db, vm, "destroy").is_empty());
        db.set("VM", vm, "is_a_snapshot", true);
        assert_eq!(code(&db, vm, "start"), ["VM_IS_SNAPSHOT", &vm.to_string(), "start"]);
        assert!(code(&db, vm, "revert").is_empty());
    }

    #[test]
    fn a_guest_without_an_agent_cannot_be_asked_to_shut_down() {
        let (mut db, vm) = vm("Halted");
        let host = db.insert("host", vec![]);
        boot(&mut db, vm, host, false, 0);
        assert_eq!(code(&db, vm, "clean_shutdown"), ["VM_LACKS_FEATURE", &vm.to_string()]);
        note_agent(&mut db, vm, &crate::driver::usual_agent(std::collections::BTreeMap::new()), 0);
        assert!(code(&db, vm, "clean_shutdown").is_empty());
        let allowed = db.row("VM", vm).unwrap().get("allowed_operations").clone();
        assert!(allowed.items().contains(&"clean_shutdown".into()));
        assert!(!allowed.items().contains(&"start".into()));
    }

    #[test]
    fn disks_are_named_like_spreadsheet_columns() {
        let names = [0, 3, 25, 26, 27, 51, 52].map(device_name);
        assert_eq!(names, ["xvda", "xvdd", "xvdz", "xvdaa", "xvdab", "xvdaz", "xvdba"]);
    }
}
