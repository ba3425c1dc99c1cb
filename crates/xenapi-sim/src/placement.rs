//! Memory arithmetic, and which host a VM can boot on.

use crate::database::{Database, Row};
use crate::error::{ApiError, bare, error};
use crate::value::Ref;

const MIB: i64 = 1 << 20;
const PAGE: i64 = 4096;

/// What a VM takes of its host's memory beside its own.
pub(crate) fn overhead(vm: &Row) -> i64 {
    if vm.flag("is_control_domain") {
        return 0;
    }
    let vcpus = vm.int("VCPUs_max").max(1);
    let static_mib = vm.int("memory_static_max") / MIB;
    let shadow = (256 * vcpus + 2 * static_mib) * PAGE;
    #[expect(
        clippy::cast_precision_loss,
        clippy::cast_possible_truncation,
        reason = "the multiplier is a float"
    )]
    let shadow = match vm.get("HVM_shadow_multiplier") {
        crate::value::Value::Float(factor) => (shadow.max(MIB) as f64 * factor) as i64,
        _ => shadow.max(MIB),
    };
    let pages = 38 * vcpus * PAGE;
    let total = 2 * MIB + shadow + pages;
    (total + MIB - 1) / MIB * MIB
}

/// What a VM needs of a host's memory at least.
pub(crate) fn needed(vm: &Row) -> i64 {
    vm.int("memory_dynamic_min") + overhead(vm)
}

/// How much memory a host has left for VMs.
pub(crate) fn free_memory(db: &Database, host: &Row) -> i64 {
    let total =
        db.find("host_metrics", host.reference("metrics")).map_or(0, |it| it.int("memory_total"));
    let resident = host.get("resident_VMs").ref_items();
    let resident: i64 = resident.filter_map(|vm| db.find("VM", vm)).map(|vm| needed(vm)).sum();
    let coming = db.scheduled().filter(|vm| {
        vm.reference("scheduled_to_be_resident_on") == host.reference
            && vm.reference("resident_on").is_null()
    });
    let coming: i64 = coming.map(|vm| needed(vm)).sum();
    total - host.int("memory_overhead") - resident - coming
}

/// Whether a host works.
pub(crate) fn is_live(db: &Database, host: &Row) -> bool {
    db.find("host_metrics", host.reference("metrics")).is_some_and(|it| it.flag("live"))
}

/// Why a VM cannot boot on this host, whatever its memory.
fn obstacle(db: &Database, vm: &Row, host: &Row) -> Result<(), ApiError> {
    if !is_live(db, host) {
        return Err(bare("HOST_NOT_LIVE"));
    }
    if !host.flag("enabled") {
        return Err(error("HOST_DISABLED", [host.reference]));
    }
    let cpus: i64 =
        host.get("cpu_info").at("cpu_count").and_then(|it| it.parse().ok()).unwrap_or(0);
    if vm.int("VCPUs_at_startup") > cpus {
        return Err(error("HOST_NOT_ENOUGH_PCPUS", [vm.int("VCPUs_at_startup"), cpus]));
    }
    for vbd in vm.get("VBDs").ref_items().filter_map(|vbd| db.find("VBD", vbd)) {
        let Some(vdi) = db.find("VDI", vbd.reference("VDI")) else { continue };
        let sr = vdi.reference("SR");
        let plugged = db.find("SR", sr).is_some_and(|sr| {
            sr.get("PBDs").ref_items().filter_map(|pbd| db.find("PBD", pbd)).any(|pbd| {
                pbd.reference("host") == host.reference && pbd.flag("currently_attached")
            })
        });
        if !plugged {
            return Err(error("VM_REQUIRES_SR", [vm.reference, sr]));
        }
    }
    for vif in vm.get("VIFs").ref_items().filter_map(|vif| db.find("VIF", vif)) {
        let network = vif.reference("network");
        let Some(row) = db.find("network", network) else { continue };
        let mut pifs = row.get("PIFs").ref_items().filter_map(|pif| db.find("PIF", pif)).peekable();
        let internal = pifs.peek().is_none();
        let reached = pifs
            .any(|pif| pif.reference("host") == host.reference && pif.flag("currently_attached"));
        if !internal && !reached {
            return Err(error("VM_REQUIRES_NETWORK", [vm.reference, network]));
        }
    }
    Ok(())
}

/// Why a VM cannot boot on this host.
pub(crate) fn can_boot(db: &Database, vm: &Row, host: &Row) -> Result<(), ApiError> {
    obstacle(db, vm, host)?;
    fits(db, vm, host)
}

/// Refuses a VM that needs more memory than a host has free.
pub(crate) fn fits(db: &Database, vm: &Row, host: &Row) -> Result<(), ApiError> {
    let (need, free) = (needed(vm), free_memory(db, host));
    if need <= free { Ok(()) } else { Err(error("HOST_NOT_ENOUGH_FREE_MEMORY", [need, free])) }
}

/// The host for a VM: the one that it leans to, else the one with the most free memory.
pub(crate) fn choose(db: &Database, vm: &Row) -> Result<Ref, ApiError> {
    let possible: Vec<_> = db.rows("host").filter(|host| obstacle(db, vm, host).is_ok()).collect();
    if possible.is_empty() {
        return Err(bare("NO_HOSTS_AVAILABLE"));
    }
    let affinity = vm.reference("affinity");
    if let Some(host) = possible.iter().find(|host| host.reference == affinity)
        && fits(db, vm, host).is_ok()
    {
        return Ok(affinity);
    }
    let roomiest = possible.iter().max_by_key(|host| free_memory(db, host));
    let Some(host) = roomiest else { return Err(bare("NO_HOSTS_AVAILABLE")) };
    fits(db, vm, host)?;
    Ok(host.reference)
}

/// The hosts on which a VM could boot now.
pub(crate) fn possible_hosts(db: &Database, vm: &Row) -> Vec<Ref> {
    let hosts = db.rows("host").filter(|host| can_boot(db, vm, host).is_ok());
    hosts.map(|host| host.reference).collect()
}

/// Refuses limits of memory that are out of order.
pub(crate) fn check_order(limits: [i64; 4]) -> Result<(), ApiError> {
    let [static_min, dynamic_min, dynamic_max, static_max] = limits;
    let ordered = 0 <= static_min
        && static_min <= dynamic_min
        && dynamic_min <= dynamic_max
        && dynamic_max <= static_max;
    if ordered { Ok(()) } else { Err(bare("MEMORY_CONSTRAINT_VIOLATION_ORDER")) }
}

/// Notes how much memory each host has free, as its metrics tell it.
pub(crate) fn refresh_metrics(db: &mut Database, host: Ref, now: i64) {
    let Some(row) = db.find("host", host) else { return };
    let (metrics, free) = (row.reference("metrics"), free_memory(db, row));
    db.set("host_metrics", metrics, "memory_free", free.max(0));
    db.set("host_metrics", metrics, "last_updated", crate::value::Value::Time(now));
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_vm_of_4_gib_and_2_processors_takes_37_mib_more() {
        let mut db = Database::new(1);
        let vm =
            db.insert("VM", vec![("VCPUs_max", 2.into()), ("memory_static_max", (4 << 30).into())]);
        assert_eq!(overhead(db.row("VM", vm).unwrap()), 37 * MIB);
    }

    #[test]
    fn memory_limits_must_be_in_order() {
        assert!(check_order([1, 2, 3, 4]).is_ok());
        assert_eq!(
            check_order([1, 3, 2, 4]).unwrap_err().code,
            "MEMORY_CONSTRAINT_VIOLATION_ORDER"
        );
    }
}
