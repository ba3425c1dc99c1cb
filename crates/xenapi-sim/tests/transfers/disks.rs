//! `/import_raw_vdi` and `/export_raw_vdi`.

use std::time::Duration;

use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};

use crate::client::{MIB, Session, read_answer};

#[tokio::test]
async fn a_disk_comes_back_as_it_went_in() {
    let session = Session::new(1).await;
    let vdi = session.disk(4 * MIB).await;
    let mut image = vec![0; 4 * MIB];
    image[MIB + 5..][..5].copy_from_slice(b"hello");
    let length = Some(image.len() as u64);
    let answer = session.put(&format!("/import_raw_vdi?vdi={vdi}"), length, &image).await;
    let result = session.succeeded(&answer).await;
    assert_eq!(result, format!("<value>{vdi}</value>"));
    assert!(session.export(&vdi, "").await == image);
    let uuid = session.call("VDI.get_uuid", json!([vdi])).await;
    let answer = session.get(0, &format!("/export_raw_vdi?vdi={}", uuid.as_str().unwrap())).await;
    assert!(answer.body == image);
    assert!(answer.header("Content-Disposition").unwrap().contains(".raw"));
    assert!(answer.header("Content-Length").is_none());
}

#[tokio::test]
async fn the_answer_to_an_upload_comes_before_it_is_read() {
    let session = Session::new(1).await;
    let vdi = session.disk(2 * MIB).await;
    let mut stream = session.connect(0).await;
    let head = session.put_head(&format!("/import_raw_vdi?vdi={vdi}"), Some(2 * MIB as u64));
    stream.write_all(head.as_bytes()).await.unwrap();
    let mut start = vec![0; 15];
    let read = stream.read_exact(&mut start);
    tokio::time::timeout(Duration::from_secs(10), read).await.unwrap().unwrap();
    assert_eq!(start, b"HTTP/1.1 200 OK");

    let rows = session.call("VBD.get_all_records", json!([])).await;
    let attached = rows.as_object().unwrap().values().any(|vbd| vbd["VDI"] == vdi);
    assert!(attached, "the disk is attached to the host's own VM meanwhile");
    stream.write_all(&vec![7; 2 * MIB]).await.unwrap();
    let mut rest = Vec::new();
    stream.read_to_end(&mut rest).await.unwrap();
    assert!(session.export(&vdi, "").await.iter().all(|byte| *byte == 7));
    let rows = session.call("VBD.get_all_records", json!([])).await;
    assert!(!rows.as_object().unwrap().values().any(|vbd| vbd["VDI"] == vdi));
}

#[tokio::test]
async fn an_upload_may_be_shorter_than_the_disk_or_than_announced_but_not_longer() {
    let session = Session::new(1).await;
    let vdi = session.disk(2 * MIB).await;
    let target = format!("/import_raw_vdi?vdi={vdi}&format=raw");
    session.succeeded(&session.put(&target, Some(3), b"abc").await).await;
    session.succeeded(&session.put(&target, Some(1 << 50), b"ABCDE").await).await;
    session.succeeded(&session.put(&target, Some(0), b"").await).await;
    let bytes = session.export(&vdi, "").await;
    assert!(bytes.starts_with(b"ABCDE\0\0") && bytes.len() == 2 * MIB);

    let long = vec![1; 2 * MIB + 1];
    let answer = session.put(&target, Some(long.len() as u64), &long).await;
    assert_eq!(session.failed(&answer).await[0], "VDI_IO_ERROR");
}

#[tokio::test]
async fn what_cannot_be_read_is_refused() {
    let session = Session::new(1).await;
    let vdi = session.disk(MIB).await;
    for (target, status) in [
        (format!("/import_raw_vdi?vdi={vdi}&format=qcow3"), 404),
        ("/import_raw_vdi".to_owned(), 400),
        ("/import_raw_vdi?vdi=OpaqueRef:0".to_owned(), 500),
    ] {
        assert_eq!(session.put(&target, Some(1), b"x").await.status(), status, "{target}");
    }
    let mut stream = session.connect(0).await;
    let request = format!(
        "PUT /import_raw_vdi?vdi={vdi}&session_id={} HTTP/1.1\r\nTransfer-Encoding: chunked\r\n\r\n",
        session.session
    );
    stream.write_all(request.as_bytes()).await.unwrap();
    assert_eq!(read_answer(&mut stream).await.status(), 404);
    let mut stream = session.connect(0).await;
    let request = format!("GET /export_raw_vdi?vdi={vdi} HTTP/1.1\r\n\r\n");
    stream.write_all(request.as_bytes()).await.unwrap();
    let refused = read_answer(&mut stream).await;
    assert_eq!(refused.status(), 401);
    assert!(refused.header("WWW-Authenticate").unwrap().starts_with("Basic"));
}

#[tokio::test]
async fn a_task_of_the_clients_own_hears_how_it_went() {
    let session = Session::new(1).await;
    let vdi = session.disk(2 * MIB).await;
    let task = session.call("task.create", json!(["upload", ""])).await;
    let task = task.as_str().unwrap();
    let target = format!("/import_raw_vdi?vdi={vdi}&task_id={task}");
    let answer = session.put(&target, Some(5), b"hello").await;
    assert_eq!(answer.task(), task);
    session.succeeded(&answer).await;
}

#[tokio::test]
async fn a_disk_in_use_is_refused_by_the_task() {
    let session = Session::new(1).await;
    let vdi = session.disk(2 * MIB).await;
    let target = format!("/import_raw_vdi?vdi={vdi}");
    let mut stream = session.connect(0).await;
    stream.write_all(session.put_head(&target, Some(9)).as_bytes()).await.unwrap();
    let mut start = vec![0; 15];
    stream.read_exact(&mut start).await.unwrap();
    let refused = session.failed(&session.put(&target, Some(1), b"x").await).await;
    assert_eq!(refused, ["VDI_IN_USE", &vdi]);
}

#[tokio::test]
async fn a_cancelled_upload_ends_and_lets_the_disk_go() {
    let session = Session::new(1).await;
    let vdi = session.disk(2 * MIB).await;
    let task = session.call("task.create", json!(["upload", ""])).await;
    let target = format!("/import_raw_vdi?vdi={vdi}&task_id={}", task.as_str().unwrap());
    let mut stream = session.connect(0).await;
    stream.write_all(session.put_head(&target, Some(9)).as_bytes()).await.unwrap();
    let mut start = vec![0; 15];
    stream.read_exact(&mut start).await.unwrap();
    session.call("task.cancel", json!([task])).await;
    let ended = session.ended(task.as_str().unwrap()).await;
    assert_eq!(
        (&ended["status"], &ended["error_info"][0]),
        (&"cancelled".into(), &"TASK_CANCELLED".into())
    );
    session.call("VDI.destroy", json!([vdi])).await;
}

#[tokio::test]
async fn a_host_that_does_not_see_the_storage_sends_the_client_on() {
    let session = Session::new(3).await;
    let storages = session.call("SR.get_all_records", json!([])).await;
    let pbds = session.call("PBD.get_all_records", json!([])).await;
    let hosts = session.call("host.get_all_records", json!([])).await;
    let address = |host: usize| session.host(host).split(':').next().unwrap().to_owned();
    let last = hosts
        .as_object()
        .unwrap()
        .iter()
        .find(|(_, host)| host["address"] == address(2))
        .unwrap()
        .0;
    // A storage that only the last host has.
    let own = storages.as_object().unwrap().iter().find(|(_, sr)| {
        let hosts: Vec<_> = sr["PBDs"]
            .as_array()
            .unwrap()
            .iter()
            .map(|pbd| &pbds[pbd.as_str().unwrap()]["host"])
            .collect();
        sr["content_type"] == "user" && hosts.len() == 1 && hosts[0] == last.as_str()
    });
    let (sr, _) = own.expect("a host has storage of its own");
    let vdi = session.disk_on(sr, 2 * MIB).await;
    for target in
        [format!("/export_raw_vdi?vdi={vdi}"), format!("/export_raw_vdi?vdi={vdi}&format=vhd")]
    {
        let answer = session.get(0, &target).await;
        assert_eq!(answer.status(), 302);
        assert_eq!(
            answer.header("Location").unwrap(),
            format!("http://{}{target}", session.host(2))
        );
        assert_eq!(session.get(2, &target).await.status(), 200);
    }
}

#[tokio::test]
async fn a_disk_goes_to_another_as_vhd_and_in_frames() {
    let session = Session::new(1).await;
    let (one, two) = (session.disk(8 * MIB).await, session.disk(8 * MIB).await);
    let frame = |offset: u64, data: &[u8]| {
        let length = u32::try_from(data.len()).unwrap().to_le_bytes();
        [&offset.to_le_bytes()[..], &length, data].concat()
    };
    let stream = [frame(5 << 20, b"data"), frame(0, b"")].concat();
    let target = format!("/import_raw_vdi?vdi={one}&chunked=true");
    session.succeeded(&session.put(&target, Some(stream.len() as u64), &stream).await).await;

    let image = session.export(&one, "&format=vhd").await;
    assert!(image.starts_with(b"conectix") && image.len() < 3 * MIB);
    let target = format!("/import_raw_vdi?vdi={two}&format=vhd");
    session.succeeded(&session.put(&target, Some(image.len() as u64), &image).await).await;
    assert!(session.export(&two, "").await == session.export(&one, "").await);
    let cut = session.put(&target, Some(image.len() as u64), &image[..image.len() / 2]).await;
    assert_eq!(session.failed(&cut).await[0], "VDI_IO_ERROR");
}

#[tokio::test]
async fn a_sparse_upload_ends_with_its_last_frame_whatever_length_was_announced() {
    let session = Session::new(1).await;
    let vdi = session.disk(8 * MIB).await;
    let target = format!("/import_raw_vdi?vdi={vdi}&chunked=true");
    let mut stream = session.connect(0).await;
    stream.write_all(session.put_head(&target, Some(100)).as_bytes()).await.unwrap();
    // One empty frame; the client goes on holding the connection.
    stream.write_all(&[0; 12]).await.unwrap();
    session.succeeded(&read_answer(&mut stream).await).await;
}

#[tokio::test]
async fn a_storage_alone_gets_a_disk_of_the_uploads_size() {
    let session = Session::new(1).await;
    let sr = session.storage().await;
    let target = format!("/import_raw_vdi?sr_id={sr}");
    let answer = session.put(&target, Some(2 * MIB as u64), &vec![3; 2 * MIB]).await;
    let result = session.succeeded(&answer).await;
    let vdi = result.trim_start_matches("<value>").trim_end_matches("</value>");
    assert_eq!(session.call("VDI.get_name_label", json!([vdi])).await, "Imported VDI");
    assert!(session.export(vdi, "").await.iter().all(|byte| *byte == 3));
}
