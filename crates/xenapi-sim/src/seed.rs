//! What a pool is made of when it is new.

use crate::calls::vm;
use crate::database::Database;
use crate::inner::HostPlace;
use crate::lifecycle;
use crate::options::{Options, Role};
use crate::placement;
use crate::value::{Ref, Value};

const GIB: i64 = 1 << 30;

/// The objects that the rest of a pool refers to.
pub(crate) struct Made {
    /// The pool.
    pub(crate) pool: Ref,
    /// The hosts, the master first.
    pub(crate) hosts: Vec<HostPlace>,
}

/// Fills an empty database with a pool whose hosts have these addresses.
pub(crate) fn fill(db: &mut Database, options: &Options, addresses: &[String], now: i64) -> Made {
    let main = network(db, "Pool-wide network associated with eth0", "xenbr0", &[]);
    let second = network(db, "Pool-wide network associated with eth1", "xenbr1", &[]);
    let internal = [
        ("is_guest_installer_network", "true"),
        ("is_host_internal_management_network", "true"),
        ("automatic", "false"),
    ];
    network(db, "Host internal management network", "xenapi", &internal);
    let names = (1..).map(|number| format!("xcp-{number:02}"));
    let hosts: Vec<HostPlace> = addresses
        .iter()
        .zip(names)
        .map(|(address, name)| HostPlace {
            host: host(db, options, &name, address, [main, second], now),
            address: address.clone(),
        })
        .collect();
    let places: Vec<Ref> = hosts.iter().map(|place| place.host).collect();
    for (place, number) in places.iter().zip(1..) {
        let name = if places.len() == 1 {
            "Local storage".to_owned()
        } else {
            format!("Local storage {number}")
        };
        let device = [("device", "/dev/sda3")];
        let sr = storage(db, &name, "lvm", "user", 1024 * GIB, false);
        plug(db, sr, &[*place], &device);
    }
    let shared = storage(db, "Shared storage", "nfs", "user", 16 * 1024 * GIB, true);
    plug(db, shared, &places, &[("server", "192.0.2.10"), ("serverpath", "/export/vms")]);
    let isos = storage(db, "ISO library", "iso", "iso", 500 * GIB, true);
    plug(db, isos, &places, &[("location", "192.0.2.10:/export/isos")]);
    for (name, size) in [
        ("debian-12.7.0-amd64-netinst.iso", 631),
        ("ubuntu-24.04-live-server-amd64.iso", 2600),
        ("alpine-virt-3.20.3-x86_64.iso", 62),
    ] {
        image(db, isos, name, size << 20);
    }
    let tools = storage(db, "XCP-ng Tools", "iso", "iso", GIB, true);
    db.set("SR", tools, "is_tools_sr", true);
    plug(db, tools, &places, &[("location", "/opt/xensource/packages/iso")]);
    let guest_tools = image(db, tools, "guest-tools.iso", 11 << 20);
    db.set("VDI", guest_tools, "is_tools_iso", true);
    let pool = pool(db, places[0], shared, options);
    managers(db);
    roles(db);
    templates(db, shared, main);
    many(db, options.vms, shared, main, now);
    for place in &places {
        placement::refresh_metrics(db, *place, now);
    }
    Made { pool, hosts }
}

fn network(db: &mut Database, name: &str, bridge: &str, config: &[(&str, &str)]) -> Ref {
    // The toolstack's own bridge is named after it.
    let bridge = if bridge == "xenapi" { concat!("x", "api") } else { bridge };
    db.insert(
        "network",
        vec![
            ("name_label", name.into()),
            ("bridge", bridge.into()),
            ("MTU", 1500.into()),
            ("managed", true.into()),
            ("other_config", Value::text_map(config.iter().copied())),
        ],
    )
}

fn host(
    db: &mut Database,
    options: &Options,
    name: &str,
    address: &str,
    networks: [Ref; 2],
    now: i64,
) -> Ref {
    let memory = options.host_memory;
    let metrics = db.insert(
        "host_metrics",
        vec![
            ("live", true.into()),
            ("memory_total", memory.into()),
            ("memory_free", memory.into()),
            ("last_updated", Value::Time(now)),
        ],
    );
    let cpus = options.host_cpus.to_string();
    let cpu_info = [
        ("cpu_count", cpus.as_str()),
        ("socket_count", "1"),
        ("vendor", "AuthenticAMD"),
        ("speed", "2794.748"),
        ("modelname", "AMD EPYC 7302P 16-Core Processor"),
        ("family", "23"),
        ("model", "49"),
        ("stepping", "0"),
        (
            "flags",
            "fpu de tsc msr pae mce cx8 apic sep mca cmov pat clflush mmx fxsr sse sse2 ht syscall nx lm",
        ),
        ("features", "178bfbff-f6f83203-2e500800-040001f3"),
        ("features_hvm", "178bfbff-f6f83203-2e500800-040001f3"),
        ("features_pv", "178bfbff-f6f83203-2e500800-040001f3"),
    ];
    let software = [
        ("product_version", "8.3.0"),
        ("product_version_text", "8.3"),
        ("product_version_text_short", "8.3"),
        ("product_brand", "XCP-ng"),
        ("platform_name", "XCP"),
        ("platform_version", "3.4.0"),
        ("build_number", "cloud"),
        ("hostname", "localhost"),
        ("date", "2024-10-07"),
        (concat!("x", "api"), "24.19"),
        ("xen", "4.17.5-3"),
        ("linux", "4.19.0+1"),
        ("network_backend", "openvswitch"),
        ("dbv", "2024.0924"),
    ];
    let host = db.insert(
        "host",
        vec![
            ("name_label", name.into()),
            ("name_description", "Default install".into()),
            ("hostname", name.into()),
            ("address", address.into()),
            ("enabled", true.into()),
            ("metrics", metrics.into()),
            ("API_version_major", 2.into()),
            ("API_version_minor", 21.into()),
            ("API_version_vendor", "XenSource".into()),
            ("cpu_info", Value::text_map(cpu_info)),
            ("software_version", Value::text_map(software)),
            ("capabilities", Value::texts(["xen-3.0-x86_64", "hvm-3.0-x86_32", "hvm-3.0-x86_64"])),
            ("sched_policy", "credit".into()),
            ("edition", "xcp-ng".into()),
            (
                "license_params",
                Value::text_map([("expiry", "20991231T00:00:00Z"), ("sku_type", "free")]),
            ),
            ("memory_overhead", (GIB / 2).into()),
            (
                "other_config",
                Value::text_map([("iscsi_iqn", format!("iqn.2024-01.example:{name}"))]),
            ),
            ("supported_bootloaders", Value::texts(["pygrub", "eliloader"])),
            (
                "bios_strings",
                Value::text_map([("bios-vendor", "Xen"), ("system-manufacturer", "Xen")]),
            ),
            ("virtual_hardware_platform_versions", Value::set([0, 1, 2].map(Value::Int).to_vec())),
            (
                "allowed_operations",
                Value::texts(["vm_migrate", "provision", "vm_resume", "evacuate", "vm_start"]),
            ),
        ],
    );
    for (place, network) in networks.into_iter().enumerate() {
        interface(db, host, network, place, address);
    }
    let dom0 = domain0(db, host, name, now);
    db.set("host", host, "control_domain", dom0);
    host
}

fn interface(db: &mut Database, host: Ref, network: Ref, place: usize, address: &str) {
    let management = place == 0;
    let metrics = db.insert(
        "PIF_metrics",
        vec![("carrier", true.into()), ("speed", 10_000.into()), ("duplex", true.into())],
    );
    let mac = crate::random::mac_address(&host.to_string(), &place.to_string());
    let mut fields = vec![
        ("device", format!("eth{place}").into()),
        ("host", host.into()),
        ("network", network.into()),
        ("MAC", mac.into()),
        ("MTU", 1500.into()),
        ("VLAN", (-1).into()),
        ("physical", true.into()),
        ("currently_attached", true.into()),
        ("management", management.into()),
        ("metrics", metrics.into()),
    ];
    if management {
        fields.push(("ip_configuration_mode", "Static".into()));
        fields.push(("IP", address.into()));
        fields.push(("netmask", "255.0.0.0".into()));
    }
    db.insert("PIF", fields);
}

fn domain0(db: &mut Database, host: Ref, name: &str, now: i64) -> Ref {
    let memory = 4 * GIB;
    let metrics = db.insert(
        "VM_metrics",
        vec![
            ("memory_actual", memory.into()),
            ("VCPUs_number", 4.into()),
            ("start_time", Value::Time(now)),
            ("last_updated", Value::Time(now)),
            ("current_domain_type", "pv".into()),
        ],
    );
    let dom0 = db.insert(
        "VM",
        vec![
            ("name_label", format!("Control domain on host: {name}").into()),
            (
                "name_description",
                "The domain which manages physical devices and manages other domains".into(),
            ),
            ("is_control_domain", true.into()),
            ("power_state", "Running".into()),
            ("resident_on", host.into()),
            ("affinity", host.into()),
            ("memory_static_min", memory.into()),
            ("memory_static_max", memory.into()),
            ("memory_dynamic_min", memory.into()),
            ("memory_dynamic_max", memory.into()),
            ("memory_target", memory.into()),
            ("VCPUs_max", 4.into()),
            ("VCPUs_at_startup", 4.into()),
            ("domid", 0.into()),
            ("domain_type", "pv".into()),
            ("metrics", metrics.into()),
        ],
    );
    lifecycle::refresh(db, dom0);
    dom0
}

fn storage(
    db: &mut Database,
    name: &str,
    kind: &str,
    content: &str,
    size: i64,
    shared: bool,
) -> Ref {
    db.insert(
        "SR",
        vec![
            ("name_label", name.into()),
            ("type", kind.into()),
            ("content_type", content.into()),
            ("shared", shared.into()),
            ("physical_size", size.into()),
            ("allowed_operations", Value::texts(crate::calls::sr::OPERATIONS)),
        ],
    )
}

fn plug(db: &mut Database, sr: Ref, hosts: &[Ref], config: &[(&str, &str)]) {
    for host in hosts {
        db.insert(
            "PBD",
            vec![
                ("SR", sr.into()),
                ("host", (*host).into()),
                ("device_config", Value::text_map(config.iter().copied())),
                ("currently_attached", true.into()),
            ],
        );
    }
}

/// An ISO image.
fn image(db: &mut Database, sr: Ref, name: &str, size: i64) -> Ref {
    let vdi = db.insert(
        "VDI",
        vec![
            ("name_label", name.into()),
            ("location", name.into()),
            ("SR", sr.into()),
            ("type", "user".into()),
            ("virtual_size", size.into()),
            ("physical_utilisation", size.into()),
            ("read_only", true.into()),
            ("sharable", true.into()),
            ("managed", true.into()),
        ],
    );
    crate::calls::sr::account(db, sr, size, size);
    lifecycle::refresh_vdi(db, vdi);
    vdi
}

fn pool(db: &mut Database, master: Ref, shared: Ref, options: &Options) -> Ref {
    let cpus = (options.host_cpus * i64::try_from(options.hosts).unwrap_or(1)).to_string();
    let sockets = options.hosts.to_string();
    let cpu_info =
        [("cpu_count", cpus.as_str()), ("socket_count", &sockets), ("vendor", "AuthenticAMD")];
    db.insert(
        "pool",
        vec![
            ("master", master.into()),
            ("default_SR", shared.into()),
            ("suspend_image_SR", shared.into()),
            ("crash_dump_SR", shared.into()),
            (
                "other_config",
                Value::text_map([("memory-ratio-hvm", "0.25"), ("memory-ratio-pv", "0.25")]),
            ),
            ("cpu_info", Value::text_map(cpu_info)),
            (
                "restrictions",
                Value::text_map([
                    ("restrict_vlan", "false"),
                    ("restrict_pooling", "false"),
                    ("restrict_ha", "false"),
                ]),
            ),
            ("tls_verification_enabled", true.into()),
        ],
    )
}

fn managers(db: &mut Database) {
    let features = [
        "VDI_CREATE",
        "VDI_DELETE",
        "VDI_ATTACH",
        "VDI_DETACH",
        "VDI_RESIZE",
        "VDI_CLONE",
        "VDI_SNAPSHOT",
        "VDI_UPDATE",
        "SR_UPDATE",
    ];
    for kind in ["lvm", "ext", "nfs", "iso"] {
        let mut own = features.to_vec();
        if kind != "lvm" {
            own.push("VDI_RESIZE_ONLINE");
        }
        let numbered = own.iter().map(|name| (Value::text(name), Value::Int(1))).collect();
        db.insert(
            "SM",
            vec![
                ("name_label", kind.to_uppercase().into()),
                ("type", kind.into()),
                ("vendor", "Simulated".into()),
                ("version", "1.0".into()),
                ("required_api_version", "1.1".into()),
                ("capabilities", Value::texts(&own)),
                ("features", Value::map(numbered)),
            ],
        );
    }
}

fn roles(db: &mut Database) {
    for role in Role::ALL {
        db.insert("role", vec![("name_label", role.name().into())]);
    }
}

/// What distinguishes a template.
struct Template {
    name: &'static str,
    memory_gib: i64,
    vcpus: i64,
    disk_gib: i64,
    /// Whether it has a system on its disk, or only says what disks a VM needs.
    ready: bool,
    windows: bool,
}

const fn installer(name: &'static str, memory_gib: i64, vcpus: i64, disk_gib: i64) -> Template {
    Template { name, memory_gib, vcpus, disk_gib, ready: false, windows: false }
}

const fn ready(name: &'static str, memory_gib: i64, vcpus: i64, disk_gib: i64) -> Template {
    Template { name, memory_gib, vcpus, disk_gib, ready: true, windows: false }
}

const TEMPLATES: [Template; 11] = [
    installer("AlmaLinux 9", 2, 1, 10),
    installer("Debian Bookworm 12", 1, 1, 10),
    installer("Other install media", 4, 1, 8),
    installer("Red Hat Enterprise Linux 9", 2, 1, 10),
    installer("Rocky Linux 9", 2, 1, 10),
    installer("Ubuntu Jammy Jellyfish 22.04", 2, 1, 10),
    installer("Ubuntu Noble Numbat 24.04", 2, 1, 10),
    Template { windows: true, ..installer("Windows Server 2022 (64-bit)", 4, 2, 32) },
    ready("Alpine 3.20 (cloud-init)", 1, 1, 2),
    ready("Debian 12 (cloud-init)", 2, 2, 10),
    ready("Ubuntu 24.04 (cloud-init)", 2, 2, 20),
];

const RECOMMENDATIONS: &str = "<restrictions><restriction field=\"memory-static-max\" max=\"1649267441664\"/>\
    <restriction field=\"vcpus-max\" max=\"32\"/><restriction property=\"number-of-vbds\" max=\"255\"/>\
    <restriction property=\"number-of-vifs\" max=\"7\"/></restrictions>";

fn templates(db: &mut Database, sr: Ref, network: Ref) {
    for template in TEMPLATES {
        let vm = vm::creation_insert(db, template_fields(&template));
        if template.ready {
            let name = format!("{} system", template.name);
            disk(db, vm, sr, &name, template.disk_gib * GIB, "0", true);
            card(db, vm, network);
            lifecycle::refresh(db, vm);
        }
    }
}

fn template_fields(template: &Template) -> Vec<(&'static str, Value)> {
    let disks = format!(
        "<provision><disk device=\"0\" size=\"{}\" sr=\"\" bootable=\"true\" type=\"system\"/></provision>",
        template.disk_gib * GIB
    );
    let config = if template.ready {
        vec![("base_template_name", "Other install media"), ("install-methods", "")]
    } else {
        vec![
            ("default_template", "true"),
            ("install-methods", "cdrom,nfs,http,ftp"),
            ("disks", &disks),
        ]
    };
    let order = if template.ready { "cdn" } else { "dcn" };
    let mut fields = machine_fields(template.name, template.memory_gib * GIB, template.vcpus);
    fields.extend([
        ("is_a_template", true.into()),
        ("is_default_template", (!template.ready).into()),
        ("HVM_boot_params", Value::text_map([("order", order), ("firmware", "bios")])),
        ("other_config", Value::text_map(config)),
        ("recommendations", RECOMMENDATIONS.into()),
    ]);
    if template.windows {
        let platform = [
            ("viridian", "true"),
            ("nx", "true"),
            ("acpi", "1"),
            ("apic", "true"),
            ("pae", "true"),
        ];
        fields.retain(|(name, _)| *name != "platform");
        fields.push(("platform", Value::text_map(platform)));
    }
    fields
}

/// The usual fields of a VM.
fn machine_fields(name: &str, memory: i64, vcpus: i64) -> Vec<(&'static str, Value)> {
    let platform = [
        ("timeoffset", "0"),
        ("nx", "true"),
        ("acpi", "1"),
        ("apic", "true"),
        ("pae", "true"),
        ("hpet", "true"),
        ("viridian", "false"),
        ("vga", "std"),
        ("videoram", "8"),
    ];
    vec![
        ("name_label", name.into()),
        ("memory_static_min", (GIB / 2).min(memory).into()),
        ("memory_static_max", memory.into()),
        ("memory_dynamic_min", memory.into()),
        ("memory_dynamic_max", memory.into()),
        ("memory_target", memory.into()),
        ("VCPUs_max", vcpus.into()),
        ("VCPUs_at_startup", vcpus.into()),
        ("actions_after_shutdown", "destroy".into()),
        ("actions_after_reboot", "restart".into()),
        ("actions_after_crash", "restart".into()),
        ("HVM_boot_policy", "BIOS order".into()),
        ("HVM_boot_params", Value::text_map([("order", "cdn"), ("firmware", "bios")])),
        ("platform", Value::text_map(platform)),
        ("domain_type", "hvm".into()),
        ("user_version", 1.into()),
        ("hardware_platform_version", 0.into()),
    ]
}

fn disk(db: &mut Database, vm: Ref, sr: Ref, name: &str, size: i64, position: &str, system: bool) {
    let used = size.min(2 << 20);
    let uuid = db.random.uuid();
    let vdi = db.insert(
        "VDI",
        vec![
            ("name_label", name.into()),
            ("uuid", Value::Uuid(uuid)),
            ("location", uuid.hyphenated().to_string().into()),
            ("SR", sr.into()),
            ("type", if system { "system" } else { "user" }.into()),
            ("virtual_size", size.into()),
            ("physical_utilisation", used.into()),
            ("managed", true.into()),
        ],
    );
    crate::calls::sr::account(db, sr, used, size);
    db.insert(
        "VBD",
        vec![
            ("VM", vm.into()),
            ("VDI", vdi.into()),
            ("userdevice", position.into()),
            ("bootable", system.into()),
            ("mode", "RW".into()),
            ("type", "Disk".into()),
            ("unpluggable", (!system).into()),
            ("other_config", Value::text_map([("owner", "")])),
        ],
    );
}

fn card(db: &mut Database, vm: Ref, network: Ref) {
    let seed =
        db.find("VM", vm).and_then(|row| row.get("other_config").at("mac_seed").map(str::to_owned));
    let mac = crate::random::mac_address(&seed.unwrap_or_default(), "0");
    db.insert(
        "VIF",
        vec![
            ("VM", vm.into()),
            ("network", network.into()),
            ("device", "0".into()),
            ("MAC", mac.into()),
            ("MAC_autogenerated", true.into()),
            ("MTU", 1500.into()),
        ],
    );
}

/// Many VMs that are off, each with a disk, an empty CD drive, an interface and metrics.
fn many(db: &mut Database, count: usize, sr: Ref, network: Ref, now: i64) {
    let mut allowed: Option<[Value; 4]> = None;
    for number in 1..=count {
        let mut fields = machine_fields(&format!("vm-{number:05}"), GIB, 1);
        let seed = db.random.uuid().hyphenated().to_string();
        fields.push((
            "other_config",
            Value::text_map([
                ("mac_seed", seed.as_str()),
                ("base_template_name", "Debian 12 (cloud-init)"),
            ]),
        ));
        fields.push(("tags", Value::texts([format!("group-{}", number % 10)])));
        fields.push(("domid", (-1).into()));
        fields.push(("memory_overhead", (11_i64 << 20).into()));
        fields.push(("recommendations", RECOMMENDATIONS.into()));
        let metrics = db.insert("VM_metrics", vec![("last_updated", Value::Time(now))]);
        let guest = db.insert("VM_guest_metrics", vec![("last_updated", Value::Time(now))]);
        fields.push(("metrics", metrics.into()));
        fields.push(("guest_metrics", guest.into()));
        if let Some([vm, ..]) = &allowed {
            fields.push(("allowed_operations", vm.clone()));
        }
        let vm = db.insert("VM", fields);
        disk(db, vm, sr, &format!("vm-{number:05} system"), 10 * GIB, "0", true);
        card(db, vm, network);
        let cd = vec![
            ("VM", vm.into()),
            ("userdevice", "3".into()),
            ("mode", "RO".into()),
            ("type", "CD".into()),
            ("empty", true.into()),
        ];
        db.insert("VBD", cd);
        match &allowed {
            // The first one's operations are those of all: working them out takes its time.
            None => {
                lifecycle::refresh(db, vm);
                allowed = first_operations(db, vm);
            }
            Some([_, disk, vdi, interface]) => {
                let values = [disk.clone(), vdi.clone(), interface.clone()];
                share_operations(db, vm, values);
            }
        }
    }
}

fn first_operations(db: &Database, vm: Ref) -> Option<[Value; 4]> {
    let row = db.find("VM", vm)?;
    let vbd = db.find("VBD", *row.refs("VBDs").first()?)?;
    let vdi = db.find("VDI", vbd.reference("VDI"))?;
    let vif = db.find("VIF", *row.refs("VIFs").first()?)?;
    Some([row, vbd, vdi, vif].map(|row| row.get("allowed_operations").clone()))
}

fn share_operations(db: &mut Database, vm: Ref, [disk, vdi, interface]: [Value; 3]) {
    let Some(row) = db.find("VM", vm).cloned() else { return };
    if let Some(first) = row.refs("VBDs").first() {
        db.set("VBD", *first, "allowed_operations", disk);
        let image = db.find("VBD", *first).map(|vbd| vbd.reference("VDI")).unwrap_or_default();
        db.set("VDI", image, "allowed_operations", vdi);
    }
    for vif in row.refs("VIFs") {
        db.set("VIF", vif, "allowed_operations", interface.clone());
    }
}
