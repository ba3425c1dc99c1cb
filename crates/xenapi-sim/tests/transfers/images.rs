//! `/export`, `/import` and `/console`.

use serde_json::{Value, json};
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{MIB, Session, read_answer};

impl Session {
    /// A VM that is off, with a disk that holds something, and an interface.
    async fn vm(&self) -> (String, String) {
        let templates = self.call("VM.get_by_name_label", json!(["Other install media"])).await;
        let vm = self.call("VM.clone", json!([templates[0], "travels"])).await;
        self.call("VM.remove_from_other_config", json!([vm, "disks"])).await;
        self.call("VM.provision", json!([vm])).await;
        let vdi = self.disk(4 * MIB).await;
        self.put(&format!("/import_raw_vdi?vdi={vdi}"), Some(5), b"hello").await;
        let drive = json!({
            "VM": vm, "VDI": vdi, "userdevice": "0", "bootable": true, "mode": "RW", "type": "Disk",
            "unpluggable": false, "empty": false, "other_config": {"owner": ""},
            "qos_algorithm_type": "", "qos_algorithm_params": {},
        });
        self.call("VBD.create", json!([drive])).await;
        let networks = self.call("network.get_all", json!([])).await;
        let interface = json!({
            "VM": vm, "network": networks[0], "device": "0", "MAC": "", "MTU": "1500",
            "other_config": {}, "qos_algorithm_type": "", "qos_algorithm_params": {},
        });
        self.call("VIF.create", json!([interface])).await;
        (vm.as_str().unwrap().to_owned(), vdi)
    }

    async fn record(&self, class: &str, reference: &Value) -> Value {
        self.call(&format!("{class}.get_record"), json!([reference])).await
    }
}

#[tokio::test]
async fn a_vm_comes_back_with_its_disks_and_interfaces() {
    let session = Session::new(1).await;
    let (vm, vdi) = session.vm().await;
    let answer = session.get(0, &format!("/export?ref={vm}")).await;
    session.succeeded(&answer).await;
    assert!(answer.head.starts_with("HTTP/1.0 200"));
    assert!(answer.body.starts_with(b"ova.xml\0"));

    let length = Some(answer.body.len() as u64);
    let imported = session.put("/import", length, &answer.body).await;
    let result = session.succeeded(&imported).await;
    let new = result.split("<value>").find(|part| part.starts_with("OpaqueRef")).unwrap();
    let new = new.split('<').next().unwrap();
    assert_ne!(new, vm);
    let (old, new) =
        (session.record("VM", &json!(vm)).await, session.record("VM", &json!(new)).await);
    for field in [
        "name_label",
        "memory_static_max",
        "VCPUs_max",
        "platform",
        "power_state",
        "HVM_boot_params",
    ] {
        assert_eq!(old[field], new[field], "{field}");
    }
    assert_ne!(old["uuid"], new["uuid"]);
    let drive = session.record("VBD", &new["VBDs"][0]).await;
    assert_eq!((&drive["userdevice"], &drive["bootable"]), (&"0".into(), &true.into()));
    let copy = drive["VDI"].as_str().unwrap();
    assert!(session.export(copy, "").await == session.export(&vdi, "").await);
    let (before, after) = (
        session.record("VIF", &old["VIFs"][0]).await,
        session.record("VIF", &new["VIFs"][0]).await,
    );
    assert_eq!(before["network"], after["network"]);
    assert_ne!(before["MAC"], after["MAC"]);
}

#[tokio::test]
async fn an_import_that_fails_leaves_nothing() {
    let session = Session::new(1).await;
    let (vm, _) = session.vm().await;
    let image = session.get(0, &format!("/export?ref={vm}")).await.body;
    let count = async |class: &str| {
        session.call(&format!("{class}.get_all"), json!([])).await.as_array().unwrap().len()
    };
    let before = (count("VM").await, count("VDI").await, count("VBD").await);
    for bad in [&image[..image.len() / 2], b"no image at all", b""] {
        let answer = session.put("/import", Some(bad.len() as u64), bad).await;
        assert_eq!(session.failed(&answer).await[0], "IMPORT_ERROR");
    }
    assert_eq!(before, (count("VM").await, count("VDI").await, count("VBD").await));
}

#[tokio::test]
async fn a_restored_vm_keeps_its_uuid_and_addresses() {
    let session = Session::new(1).await;
    let (vm, _) = session.vm().await;
    let old = session.record("VM", &json!(vm)).await;
    let mac = session.record("VIF", &old["VIFs"][0]).await["MAC"].clone();
    let image =
        session.get(0, &format!("/export?uuid={}", old["uuid"].as_str().unwrap())).await.body;
    session.call("VM.destroy", json!([vm])).await;
    let answer = session.put("/import?restore=true", Some(image.len() as u64), &image).await;
    session.succeeded(&answer).await;
    let new = session.call("VM.get_by_uuid", json!([old["uuid"]])).await;
    let new = session.record("VM", &new).await;
    assert_eq!(session.record("VIF", &new["VIFs"][0]).await["MAC"], mac);
}

#[tokio::test]
async fn a_running_vm_is_not_exported_and_shows_its_screen() {
    let session = Session::new(1).await;
    let (vm, _) = session.vm().await;
    session.call("VM.start", json!([vm, false, false])).await;
    let refused = session.get(0, &format!("/export?ref={vm}")).await;
    assert_eq!(refused.status(), 500);
    assert!(String::from_utf8_lossy(&refused.body).contains("VM_BAD_POWER_STATE"));

    let console = session.record("VM", &json!(vm)).await["consoles"][0].clone();
    let uuid = session.record("console", &console).await["uuid"].as_str().unwrap().to_owned();
    let connect = |uuid: &str| {
        format!("CONNECT /console?uuid={uuid}&session_id={} HTTP/1.0\r\n\r\n", session.session)
    };
    let mut stream = session.connect(0).await;
    stream.write_all(connect(&uuid).as_bytes()).await.unwrap();
    let mut bytes = Vec::new();
    while !bytes.ends_with(b"RFB 003.008\n") {
        assert!(stream.read_buf(&mut bytes).await.unwrap() > 0);
    }
    assert!(bytes.starts_with(b"HTTP/1.1 200 OK\r\n"));
    stream.write_all(b"RFB 003.008\n\x01\x01").await.unwrap();
    let mut init = vec![0; 2 + 4 + 24 + 9];
    stream.read_exact(&mut init).await.unwrap();
    assert!(init.ends_with(b"XCP-ng VM"));
    stream.write_all(&[3, 0, 0, 0, 0, 0, 2, 208, 1, 144]).await.unwrap();
    let mut update = [9; 4];
    stream.read_exact(&mut update).await.unwrap();
    assert_eq!(update, [0; 4]);

    let mut stream = session.connect(0).await;
    let none = connect("8d5b1d5c-0000-0000-0000-000000000000");
    stream.write_all(none.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status(), 404);
}

#[tokio::test]
async fn what_is_measured_is_kept_in_archives() {
    let session = Session::new(2).await;
    let (vm, _) = session.vm().await;
    let uuid = session.call("VM.get_uuid", json!([vm])).await.as_str().unwrap().to_owned();
    assert_eq!(session.get(0, &format!("/vm_rrd?uuid={uuid}")).await.status(), 404);
    let host = session.call("host.get_by_name_label", json!([""])).await;
    assert_eq!(host, json!([]));
    let hosts = session.call("host.get_all_records", json!([])).await;
    let last = session.host(1).split(':').next().unwrap().to_owned();
    let hosts = hosts.as_object().unwrap();
    let second = hosts.iter().find(|(_, host)| host["address"] == last.as_str()).unwrap().0;
    let place = json!([vm, second, false, false]);
    session.call("VM.start_on", place).await;

    let target = format!("/vm_rrd?uuid={uuid}&json=true");
    assert_eq!(session.get(0, &target).await.status(), 302, "it runs on the other host");
    let kept: Value = serde_json::from_slice(&session.get(1, &target).await.body).unwrap();
    let names: Vec<&str> = kept["ds"]
        .as_array()
        .unwrap()
        .iter()
        .map(|source| source["name"].as_str().unwrap())
        .collect();
    assert!(names.contains(&"cpu0") && names.contains(&"memory"), "{names:?}");
    let rows = |rra: &Value| rra["database"].as_array().unwrap().len();
    let archives = kept["rra"].as_array().unwrap();
    assert_eq!(
        archives.iter().map(rows).collect::<Vec<_>>(),
        [120, 120, 120, 120, 168, 168, 168, 365, 365, 365]
    );
    assert!(archives.iter().all(|rra| rra["database"][0].as_array().unwrap().len() == names.len()));
    let xml = String::from_utf8(session.get(0, "/host_rrd").await.body).unwrap();
    assert!(xml.contains("<name>cpu_avg</name>") && xml.ends_with("</rrd>"), "{xml:.300}");
}
