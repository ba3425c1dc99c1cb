use bioxen_core::{ByteSize, FileCopy, Place, SizeClass};
use xenapi::Ref;

use super::*;

const GIB: u64 = 1 << 30;

fn named<T>(name: &str) -> Named<T> {
    Named { reference: reference(name), uuid: format!("uuid-of-{name}"), name: name.to_owned() }
}

fn reference<T>(name: &str) -> Ref<T> {
    Ref::from(name)
}

/// A pool with one ready template, one installer, two storages and two hosts of 16 and 4 GiB.
fn pool() -> PoolView {
    let template = |name: &str, disks| TemplateView {
        named: named(name),
        disks,
        networks: vec![reference("lan")],
        memory: 2 * GIB,
        least_memory: GIB / 2,
        vcpus: 2,
    };
    let disk = DiskView { device: "0".into(), size: 10 * GIB, storage: reference("shared") };
    let storage = |name: &str, kind: &str, hosts: &[&str]| StorageView {
        named: named(name),
        kind: kind.to_owned(),
        disks: kind != "iso",
        free: Some(100 * GIB),
        hosts: hosts.iter().map(|host| reference(host)).collect(),
    };
    let network =
        |name: &str| NetworkView { named: named(name), range: None, in_use: BTreeSet::new() };
    let host = |name: &str, memory| HostView {
        named: named(name),
        takes_vms: true,
        memory_free: memory * GIB,
    };
    PoolView {
        templates: vec![template("debian", vec![disk]), template("installer", vec![])],
        uuid: "uuid-of-pool".into(),
        networks: vec![network("lan"), network("dmz")],
        storages: vec![
            storage("shared", "nfs", &["large", "small"]),
            storage("local", "lvm", &["small"]),
            storage("media", "iso", &["large"]),
        ],
        hosts: vec![host("large", 16), host("small", 4)],
    }
}

fn spec() -> VmSpec {
    VmSpec::xcpng("gc").unwrap().template("debian")
}

fn plan(spec: &VmSpec) -> Result<Plan, PlanError> {
    Plan::new(spec, &pool())
}

#[test]
fn what_is_not_said_is_the_templates() {
    let plan = plan(&spec()).unwrap();
    assert_eq!((plan.memory, plan.vcpus), (2 * GIB, 2));
    assert_eq!((plan.copy, plan.growth), (Copy::Clone, None));
    assert_eq!(plan.storage.name, "shared");
    assert!(matches!(plan.interfaces, Interfaces::OfTemplate { count: 1 }));
    assert_eq!((plan.user.as_str(), plan.port), ("bioxen", 22));
}

#[test]
fn a_size_says_memory_and_processors_unless_they_are_said() {
    let sized = spec().size(SizeClass::Bioinformatics);
    assert_eq!(plan(&sized).map(|plan| (plan.memory, plan.vcpus)), Ok((8 * GIB, 4)));
    let sized = sized.vcpus(1).memory(ByteSize::gib(3));
    assert_eq!(plan(&sized).map(|plan| (plan.memory, plan.vcpus)), Ok((3 * GIB, 1)));
}

#[test]
fn a_thing_is_found_by_its_uuid_before_its_name() {
    let mut view = pool();
    view.networks[1].named.name = "uuid-of-lan".into();
    let wanted = spec().network(NetworkSpec::new("uuid-of-lan"));
    let Interfaces::These(found) = Plan::new(&wanted, &view).unwrap().interfaces else {
        panic!("the template's interfaces");
    };
    assert_eq!(found[0].network.name, "lan");
}

#[test]
fn a_name_that_two_have_lists_both() {
    let mut view = pool();
    view.networks[1].named.name = "lan".into();
    let error = Plan::new(&spec().network(NetworkSpec::new("lan")), &view).unwrap_err();
    let candidates = vec!["uuid-of-lan".to_owned(), "uuid-of-dmz".to_owned()];
    let (vm, name) = (spec().name, "lan".into());
    assert_eq!(error, PlanError::Ambiguous { vm, what: "network", name, candidates });
}

#[test]
fn a_name_that_nothing_has_shows_what_is_most_like_it() {
    let error = plan(&spec().template("Debain")).unwrap_err();
    assert_eq!(error.to_string(), "vm `gc`: there is no template `Debain` on the pool");
    assert!(error.hint().starts_with("there is `debian`, `installer`"), "{}", error.hint());
}

#[test]
fn a_template_that_only_installs_is_refused_with_those_that_boot() {
    let error = plan(&spec().template("installer")).unwrap_err();
    let (vm, template, ready) = (spec().name, "installer".into(), vec!["debian".into()]);
    assert_eq!(error, PlanError::Installer { vm, template, ready });
    let none = plan(&VmSpec::xcpng("gc").unwrap()).unwrap_err();
    assert!(matches!(none, PlanError::NoTemplate { .. }));
}

#[test]
fn another_storage_than_the_templates_takes_a_full_copy() {
    let plan = plan(&spec().storage("local").disk(ByteSize::gib(12))).unwrap();
    assert_eq!(plan.copy, Copy::Full);
    assert_eq!(plan.cost.storage_now, 12 * GIB + (2 << 20));
    let growth = Growth { device: "0".into(), from: 10 * GIB, to: 12 * GIB };
    assert_eq!(plan.growth, Some(growth));
    let obstacles: Vec<_> = plan.cost.hosts.iter().map(|fit| fit.obstacle.as_deref()).collect();
    assert_eq!(obstacles, [Some("it does not reach storage `local`"), None]);
}

#[test]
fn what_does_not_fit_is_refused_with_the_figures() {
    let disk = plan(&spec().disk(ByteSize::gib(5))).unwrap_err();
    let text = "vm `gc`: a disk of 5.0 GiB is smaller than that of template `debian`, 10.0 GiB";
    assert_eq!(disk.to_string(), text);
    let full = plan(&spec().storage("local").disk(ByteSize::gib(200))).unwrap_err();
    assert!(matches!(full, PlanError::StorageFull { free, .. } if free == 100 * GIB), "{full}");
    let memory = plan(&spec().memory(ByteSize::gib(64))).unwrap_err();
    assert!(matches!(&memory, PlanError::NoHost { hosts, .. } if hosts.len() == 2), "{memory}");
    let named = plan(&spec().host("small").memory(ByteSize::gib(8))).unwrap_err();
    assert!(matches!(named, PlanError::Host { .. }), "{named}");
    let little = plan(&spec().memory(ByteSize::mib(16))).unwrap_err();
    assert!(matches!(little, PlanError::TooLittleMemory { .. }), "{little}");
    let media = plan(&spec().storage("media")).unwrap_err();
    assert!(matches!(media, PlanError::NotForDisks { .. }), "{media}");
}

#[test]
fn interfaces_that_could_not_work_are_refused() {
    let with = |text: &str| spec().network(text.parse().unwrap());
    let twice =
        with("lan,mac=0a:00:00:00:00:01").network("dmz,mac=0a:00:00:00:00:01".parse().unwrap());
    assert!(matches!(plan(&twice), Err(PlanError::SameMac { .. })));
    let held = with("lan,address=10.0.0.7/24,allow=10.0.0.8");
    assert!(matches!(plan(&held), Err(PlanError::NotAllowed { .. })));
    let many = (0..8).fold(spec(), |spec, _| spec.network(NetworkSpec::new("lan")));
    assert!(matches!(plan(&many), Err(PlanError::TooManyInterfaces { wanted: 8, .. })));
    let mut view = pool();
    view.templates[0].networks.clear();
    assert!(matches!(Plan::new(&spec(), &view), Err(PlanError::NoNetwork { .. })));
}

#[test]
fn the_hypervisors_own_need_is_that_of_its_documentation() {
    // 4 GiB and 2 processors: 37 MiB.
    assert_eq!(overhead(4 * GIB, 2).div_ceil(1 << 20), 37);
}

#[test]
fn steps_that_have_nothing_to_do_are_left_out() {
    let kinds = |spec: &VmSpec| -> Vec<StepKind> {
        plan(spec).unwrap().steps().iter().map(|step| step.step).collect()
    };
    let few = kinds(&spec());
    assert!(!few.contains(&StepKind::Disk) && !few.contains(&StepKind::Network));
    let mut all = spec().disk(ByteSize::gib(20)).network(NetworkSpec::new("dmz"));
    let Place::Xcpng(machine) = &mut all.place else { panic!("another place") };
    machine.files.push(FileCopy { from: "a".into(), to: "a".into() });
    let all = kinds(&all);
    assert_eq!(all, StepKind::ALL[1..]);
}

/// The pool with addresses declared for a network.
fn pool_with_range(network: &str, range: &str) -> PoolView {
    let mut view = pool();
    let text =
        format!("prefix = 24\ngateway = '10.0.3.1'\ndns = ['10.0.3.2']\naddresses = '{range}'");
    let range = toml_edit::de::from_str(&text).unwrap();
    let ranges = crate::GuestSettings::from_tables([(network.to_owned(), range)].into()).unwrap();
    view.declare(&ranges.ranges);
    view
}

/// What an interface comes to have on a pool when its address is the lowest that it can be.
fn given(spec: &VmSpec, view: &PoolView) -> Vec<String> {
    let plan = Plan::new(spec, view).unwrap();
    let lowest: Vec<IpAddr> = plan.wanted().iter().map(|it| it.lowest().unwrap()).collect();
    let Interfaces::These(interfaces) = plan.with_addresses(lowest).interfaces else {
        panic!("the template's interfaces");
    };
    let of = |interface: &PlannedInterface| {
        let NetworkSpec { address, gateway, name_servers, .. } = &interface.spec;
        let address = address.map_or("dhcp".to_owned(), |address| address.to_string());
        format!("{} {address} {gateway:?} {name_servers:?}", interface.network.name)
    };
    interfaces.iter().map(of).collect()
}

#[test]
fn an_interface_gets_an_address_of_those_that_are_declared_for_its_network() {
    let view = pool_with_range("lan", "10.0.3.1-10.0.3.9");
    let on = |text: &str| spec().network(text.parse().unwrap());
    let declared = "Some(10.0.3.1) [10.0.3.2]";
    assert_eq!(given(&on("lan"), &view), [format!("lan 10.0.3.3/24 {declared}")]);
    assert_eq!(given(&spec(), &view), [format!("lan 10.0.3.3/24 {declared}")], "the template's");
    assert_eq!(
        given(&on("lan,dns=10.0.3.7"), &view),
        ["lan 10.0.3.3/24 Some(10.0.3.1) [10.0.3.7]"]
    );
    for unchanged in ["lan,address=dhcp", "dmz"] {
        let plan = Plan::new(&on(unchanged), &view).unwrap();
        assert!(plan.wanted().is_empty() && plan.chosen_address().is_none(), "{unchanged}");
    }
    let chosen = Plan::new(&on("lan,address=10.0.9.9/24"), &view).unwrap();
    assert!(chosen.wanted().is_empty());
    assert_eq!(chosen.chosen_address(), Some([10, 0, 9, 9].into()));
    let by_uuid = pool_with_range("uuid-of-lan", "10.0.3.9");
    assert_eq!(given(&on("lan"), &by_uuid), [format!("lan 10.0.3.9/24 {declared}")]);
}

#[test]
fn an_address_that_is_in_use_is_not_wanted_and_a_locked_interface_may_use_its_own() {
    let mut view = pool_with_range("lan", "10.0.3.3-10.0.3.4");
    let on = spec().network("lan,allow=10.0.3.77".parse().unwrap());
    view.networks[0].in_use.insert([10, 0, 3, 3].into());
    let plan = Plan::new(&on, &view).unwrap();
    let wanted = plan.wanted();
    assert_eq!(wanted[0].lowest(), Some([10, 0, 3, 4].into()));
    let network = &plan.steps().into_iter().find(|it| it.step == StepKind::Network).unwrap().what;
    assert_eq!(network, "interfaces on `lan` (one of 10.0.3.3-10.0.3.4)");
    let Interfaces::These(given) = plan.with_addresses(wanted[0].lowest()).interfaces else {
        panic!("the template's interfaces");
    };
    assert_eq!(given[0].allowed().unwrap().len(), 2);
    view.networks[0].in_use.insert([10, 0, 3, 4].into());
    assert_eq!(Plan::new(&on, &view).unwrap().wanted()[0].lowest(), None);
}

#[test]
fn addresses_that_are_declared_for_no_network_or_several_are_nobodys() {
    let mut view = pool_with_range("nowhere", "10.0.3.9");
    assert!(view.networks.iter().all(|network| network.range.is_none()));
    for network in &mut view.networks {
        network.named.name = "twin".into();
    }
    let twins = pool_with_range("lan", "10.0.3.9").networks[0].range.clone().unwrap();
    view.declare(&[("twin".to_owned(), twins)].into());
    assert!(view.networks.iter().all(|network| network.range.is_none()));
}
