//! Choosing things of a pool by what a person called them.

use bioxen_core::{MachineSpec, VmName};

use super::error::PlanError;
use super::view::{HostView, Named, NetworkView, PoolView, StorageView, TemplateView};

/// How many names a message lists.
const LISTED: usize = 8;

pub(super) fn template<'v>(
    vm: &VmName,
    machine: &MachineSpec,
    view: &'v PoolView,
) -> Result<&'v TemplateView, PlanError> {
    let ready = || names(view.templates.iter().filter(|t| !t.disks.is_empty()).map(|t| &t.named));
    let Some(name) = &machine.template else {
        return Err(PlanError::NoTemplate { vm: vm.clone(), ready: ready() });
    };
    let template = one(vm, "template", name, &view.templates, |template| &template.named)?;
    if template.disks.is_empty() {
        let template = template.named.name.clone();
        return Err(PlanError::Installer { vm: vm.clone(), template, ready: ready() });
    }
    Ok(template)
}

pub(super) fn storage<'v>(
    vm: &VmName,
    machine: &MachineSpec,
    template: &TemplateView,
    view: &'v PoolView,
) -> Result<&'v StorageView, PlanError> {
    let storage = if let Some(name) = &machine.storage {
        one(vm, "storage", name, &view.storages, |storage| &storage.named)?
    } else {
        let known = template.disks.first().map(|disk| &disk.storage);
        let found = view.storages.iter().find(|storage| Some(&storage.named.reference) == known);
        found.ok_or_else(|| PlanError::NoStorage {
            vm: vm.clone(),
            template: template.named.name.clone(),
        })?
    };
    if storage.disks {
        Ok(storage)
    } else {
        let storage = storage.named.name.clone();
        Err(PlanError::NotForDisks { vm: vm.clone(), storage })
    }
}

pub(super) fn network<'v>(
    vm: &VmName,
    name: &str,
    view: &'v PoolView,
) -> Result<&'v NetworkView, PlanError> {
    one(vm, "network", name, &view.networks, |network| &network.named)
}

pub(super) fn host<'v>(
    vm: &VmName,
    name: &str,
    view: &'v PoolView,
) -> Result<&'v HostView, PlanError> {
    one(vm, "host", name, &view.hosts, |host| &host.named)
}

/// The one thing that has this uuid, or this name.
fn one<'v, V, T: 'v>(
    vm: &VmName,
    what: &'static str,
    wanted: &str,
    all: &'v [V],
    named: impl Fn(&'v V) -> &'v Named<T>,
) -> Result<&'v V, PlanError> {
    if let Some(found) = all.iter().find(|each| named(each).uuid == wanted) {
        return Ok(found);
    }
    let found: Vec<&V> = all.iter().filter(|each| named(each).name == wanted).collect();
    match found[..] {
        [one] => Ok(one),
        [] => {
            let there = all.iter().map(|each| named(each).name.as_str());
            let there = by_nearness(wanted, there.collect());
            Err(PlanError::NotFound { vm: vm.clone(), what, name: wanted.to_owned(), there })
        }
        _ => {
            let candidates = found.iter().map(|each| named(each).uuid.clone()).collect();
            let name = wanted.to_owned();
            Err(PlanError::Ambiguous { vm: vm.clone(), what, name, candidates })
        }
    }
}

/// Some names, those first that are most like the one that was looked for.
fn by_nearness(wanted: &str, mut names: Vec<&str>) -> Vec<String> {
    let wanted = wanted.to_lowercase();
    names.sort_by(|one, other| {
        let likeness = |name: &str| strsim::jaro_winkler(&wanted, &name.to_lowercase());
        likeness(other).total_cmp(&likeness(one)).then(one.cmp(other))
    });
    names.dedup();
    names.into_iter().take(LISTED).map(str::to_owned).collect()
}

/// Names for a message, in their order.
pub(super) fn names<'v, T: 'v>(all: impl Iterator<Item = &'v Named<T>>) -> Vec<String> {
    let mut names: Vec<String> = all.map(|named| named.name.clone()).collect();
    names.sort();
    names.dedup();
    names.truncate(LISTED);
    names
}
