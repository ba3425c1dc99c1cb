//! The same record as serde's derive has it, of the standard library's types.

use std::collections::BTreeMap;

use serde::Deserialize;

#[derive(Deserialize)]
pub(super) struct Answer {
    #[expect(dead_code, reason = "only read")]
    result: BTreeMap<String, Record>,
}

#[derive(Default, Deserialize)]
#[serde(default)]
#[expect(clippy::struct_excessive_bools, clippy::struct_field_names, reason = "as in the model")]
struct Record {
    #[serde(rename = "HVM_boot_params")]
    hvm_boot_params: BTreeMap<String, String>,
    #[serde(rename = "HVM_boot_policy")]
    hvm_boot_policy: String,
    #[serde(rename = "HVM_shadow_multiplier")]
    hvm_shadow_multiplier: f64,
    #[serde(rename = "NVRAM")]
    nvram: BTreeMap<String, String>,
    #[serde(rename = "PCI_bus")]
    pci_bus: String,
    #[serde(rename = "PV_args")]
    pv_args: String,
    #[serde(rename = "PV_bootloader")]
    pv_bootloader: String,
    #[serde(rename = "PV_bootloader_args")]
    pv_bootloader_args: String,
    #[serde(rename = "PV_kernel")]
    pv_kernel: String,
    #[serde(rename = "PV_legacy_args")]
    pv_legacy_args: String,
    #[serde(rename = "PV_ramdisk")]
    pv_ramdisk: String,
    #[serde(rename = "VBDs")]
    vbds: Vec<String>,
    #[serde(rename = "VCPUs_at_startup")]
    vcpus_at_startup: i64,
    #[serde(rename = "VCPUs_max")]
    vcpus_max: i64,
    #[serde(rename = "VCPUs_params")]
    vcpus_params: BTreeMap<String, String>,
    #[serde(rename = "VGPUs")]
    vgpus: Vec<String>,
    #[serde(rename = "VIFs")]
    vifs: Vec<String>,
    #[serde(rename = "VTPMs")]
    vtpms: Vec<String>,
    #[serde(rename = "VUSBs")]
    vusbs: Vec<String>,
    actions_after_crash: String,
    actions_after_reboot: String,
    actions_after_shutdown: String,
    actions_after_softreboot: String,
    affinity: String,
    allowed_operations: Vec<String>,
    appliance: String,
    #[serde(rename = "attached_PCIs")]
    attached_pcis: Vec<String>,
    bios_strings: BTreeMap<String, String>,
    blobs: BTreeMap<String, String>,
    blocked_operations: BTreeMap<String, String>,
    children: Vec<String>,
    consoles: Vec<String>,
    crash_dumps: Vec<String>,
    current_operations: BTreeMap<String, String>,
    domain_type: String,
    domarch: String,
    domid: i64,
    generation_id: String,
    groups: Vec<String>,
    guest_metrics: String,
    ha_always_run: bool,
    ha_restart_priority: String,
    hardware_platform_version: i64,
    has_vendor_device: bool,
    is_a_snapshot: bool,
    is_a_template: bool,
    is_control_domain: bool,
    is_default_template: bool,
    is_snapshot_from_vmpp: bool,
    is_vmss_snapshot: bool,
    #[serde(rename = "last_boot_CPU_flags")]
    last_boot_cpu_flags: BTreeMap<String, String>,
    last_booted_record: String,
    memory_dynamic_max: i64,
    memory_dynamic_min: i64,
    memory_overhead: i64,
    memory_static_max: i64,
    memory_static_min: i64,
    memory_target: i64,
    metrics: String,
    name_description: String,
    name_label: String,
    order: i64,
    other_config: BTreeMap<String, String>,
    parent: String,
    pending_guidances: Vec<String>,
    pending_guidances_full: Vec<String>,
    pending_guidances_recommended: Vec<String>,
    platform: BTreeMap<String, String>,
    power_state: String,
    protection_policy: String,
    recommendations: String,
    reference_label: String,
    requires_reboot: bool,
    resident_on: String,
    scheduled_to_be_resident_on: String,
    secureboot_certificates_state: String,
    shutdown_delay: i64,
    snapshot_info: BTreeMap<String, String>,
    snapshot_metadata: String,
    snapshot_of: String,
    snapshot_schedule: String,
    snapshot_time: String,
    snapshots: Vec<String>,
    start_delay: i64,
    #[serde(rename = "suspend_SR")]
    suspend_sr: String,
    #[serde(rename = "suspend_VDI")]
    suspend_vdi: String,
    tags: Vec<String>,
    transportable_snapshot_id: String,
    user_version: i64,
    uuid: String,
    version: i64,
    xenstore_data: BTreeMap<String, String>,
}
