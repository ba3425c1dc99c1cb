//! Exports of disks and VM images.

use std::io::{Read as _, Seek as _, SeekFrom};
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use tokio::sync::Notify;
use xenapi::disk::Format;
use xenapi::image::Compression;
use xenapi::transfer::{Direction, Stage};
use xenapi::{Ref, Source, TransferError, TransferFailure};

use crate::support::{DISK, Pool, Request, SIZE, start, start_tls};

const PATIENCE: Duration = Duration::from_millis(400);

/// The whole disk: some bytes here and there, and else zero.
fn disk() -> Vec<u8> {
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    for part in [0, 7, 63] {
        bytes[(part << 20) + 77..(part << 20) + 300_000].fill(9);
    }
    bytes
}

/// Sends these bytes as a host does, closes the connection, and lets the task succeed.
async fn give(pool: Arc<Pool>, mut request: Request, bytes: &[u8]) {
    let task = request.query("task_id").unwrap().to_owned();
    request.accept().await;
    if request.write(bytes).await.is_ok() {
        drop(request);
        pool.succeed(&task, "");
    }
}

fn inner(error: std::io::Error) -> TransferError {
    error.downcast::<TransferError>().unwrap()
}

#[tokio::test]
async fn an_export_gives_the_bytes_of_the_disk_and_its_end_when_the_task_has_succeeded() {
    let running = start(|pool, request| async { give(pool, request, &disk()).await }).await;
    running.pool.set(|facts| facts.storage = vec![2]);
    let mut export = running.client.export_disk(&Ref::from(DISK)).await.unwrap();
    assert_eq!(export.length(), Some(SIZE));
    let mut bytes = Vec::new();
    export.read_to_end(&mut bytes).await.unwrap();
    assert!(bytes == disk());
    assert_eq!(export.progress().done, SIZE);
    assert_eq!(export.read(&mut [0; 10]).await.unwrap(), 0);
    let line =
        "2 GET /export_raw_vdi?vdi=OpaqueRef:disk&format=raw&task_id=OpaqueRef:task1 HTTP/1.1";
    assert_eq!(running.pool.requests(), [line]);
    assert!(!running.pool.cancelled().await);
}

#[tokio::test]
async fn a_disk_goes_there_and_back_by_tls() {
    let kept = Arc::<Mutex<Vec<u8>>>::default();
    let running = start_tls(move |pool: Arc<Pool>, mut request: Request| {
        let kept = Arc::clone(&kept);
        async move {
            let task = request.query("task_id").unwrap().to_owned();
            request.accept().await;
            if request.path() == "/import_raw_vdi" {
                *kept.lock().unwrap() = request.frames(disk().len()).await.unwrap();
            } else {
                let bytes = kept.lock().unwrap().clone();
                request.write(&bytes).await.unwrap();
                request.stream.shutdown().await.unwrap();
            }
            pool.succeed(&task, "");
            request.closed().await;
        }
    })
    .await;
    let import = running.client.import_disk(&Ref::from(DISK), Source::bytes(disk()));
    assert!(import.skip_zeros().await.unwrap().sent < 2_000_000);
    // A VHD ends only with the connection.
    for format in [Format::Raw, Format::Vhd] {
        let export = running.client.export_disk(&Ref::from(DISK)).format(format);
        let mut bytes = Vec::new();
        export.await.unwrap().read_to_end(&mut bytes).await.unwrap();
        assert!(bytes == disk());
    }
}

#[tokio::test]
async fn an_export_is_saved_with_holes_where_the_disk_is_zero() {
    let running = start(|pool, request| async { give(pool, request, &disk()).await }).await;
    let mut file = tempfile::tempfile().unwrap();
    let export = running.client.export_disk(&Ref::from(DISK)).await.unwrap();
    let saved = export.save(file.try_clone().unwrap()).await.unwrap();
    assert_eq!(saved.length, SIZE);
    assert!((900_000..1_200_000).contains(&saved.written), "{}", saved.written);
    let mut bytes = Vec::new();
    file.seek(SeekFrom::Start(0)).unwrap();
    file.read_to_end(&mut bytes).unwrap();
    assert!(bytes == disk());
}

#[tokio::test]
async fn a_difference_to_an_older_snapshot_is_a_vhd_of_unknown_length() {
    let running = start(|pool, request| async { give(pool, request, b"conectix").await }).await;
    let export = running.client.export_disk(&Ref::from(DISK)).base(&Ref::from("OpaqueRef:old"));
    let mut export = export.await.unwrap();
    assert_eq!(export.length(), None);
    let mut text = String::new();
    export.read_to_string(&mut text).await.unwrap();
    assert_eq!(text, "conectix");
    let export = running.client.export_disk(&Ref::from(DISK)).format(Format::Vhd);
    drop(export.await.unwrap());
    let requests = running.pool.requests();
    assert!(requests[0].contains("&format=vhd&base=OpaqueRef:old&task_id="));
    assert!(requests[1].contains("&format=vhd&task_id="));
}

#[tokio::test]
async fn an_export_that_is_cut_or_whose_task_fails_never_ends_well() {
    for fails in [false, true] {
        let running = start(move |pool: Arc<Pool>, mut request: Request| async move {
            let task = request.query("task_id").unwrap().to_owned();
            request.accept().await;
            request.write(&vec![5; 100_000]).await.unwrap();
            drop(request);
            if fails {
                pool.fail(&task, &["VDI_IO_ERROR", "Device I/O errors"]);
            } else {
                pool.succeed(&task, "");
            }
        })
        .await;
        let mut export = running.client.export_disk(&Ref::from(DISK)).await.unwrap();
        let mut bytes = Vec::new();
        let error = inner(export.read_to_end(&mut bytes).await.unwrap_err());
        assert_eq!((error.direction, error.bytes), (Direction::DiskExport, 100_000));
        match error.reason {
            TransferFailure::Task(said) if fails => {
                assert_eq!(said.code(), Some("VDI_IO_ERROR"));
            }
            TransferFailure::Truncated { found: 100_000, expected: SIZE } if !fails => {}
            reason => panic!("{reason:?}"),
        }
        assert!(!running.pool.cancelled().await);
    }
}

#[tokio::test]
async fn a_task_that_fails_while_nothing_comes_ends_the_export() {
    let running = start(|pool: Arc<Pool>, mut request: Request| async move {
        let task = request.query("task_id").unwrap().to_owned();
        request.accept().await;
        pool.fail(&task, &["VDI_IO_ERROR", "Device I/O errors"]);
        std::future::pending::<()>().await;
    })
    .await;
    let export = running.client.export_disk(&Ref::from(DISK)).await.unwrap();
    let error = export.save(tempfile::tempfile().unwrap()).await.unwrap_err();
    assert!(matches!(error.reason, TransferFailure::Task(_)), "{error:?}");
}

#[tokio::test]
async fn a_host_that_refuses_never_answers_never_sends_or_never_ends_is_given_up() {
    for step in 0..4 {
        let running = start(move |_, mut request: Request| async move {
            match step {
                0 => return request.refuse("404 Not Found").await,
                1 => {}
                2 => request.accept().await,
                _ => {
                    request.accept().await;
                    request.write(&vec![1; usize::try_from(SIZE).unwrap()]).await.unwrap();
                }
            }
            std::future::pending::<()>().await;
        })
        .await;
        let export = running.client.export_disk(&Ref::from(DISK)).patience(PATIENCE).await;
        let error = match export {
            Ok(export) => export.save(tempfile::tempfile().unwrap()).await.unwrap_err(),
            Err(error) => error,
        };
        let waiting = match error.reason {
            TransferFailure::Refused { status: 404, excerpt, .. } if step == 0 => {
                assert_eq!(excerpt, "<html>no such luck</html>");
                continue;
            }
            TransferFailure::Stalled { waiting, .. } => waiting,
            reason => panic!("{reason:?}"),
        };
        assert_eq!(waiting, [Stage::Answer, Stage::Receiving, Stage::Task][step - 1]);
        assert!(running.pool.cancelled().await);
    }
}

#[tokio::test]
async fn a_reader_that_stops_holds_the_host_back_and_costs_no_patience() {
    let sent = Arc::new(AtomicU64::new(0));
    let count = Arc::clone(&sent);
    let running = start(move |pool: Arc<Pool>, mut request: Request| {
        let count = Arc::clone(&count);
        async move {
            let task = request.query("task_id").unwrap().to_owned();
            request.accept().await;
            for _ in 0..SIZE >> 16 {
                request.write(&vec![3; 1 << 16]).await.unwrap();
                count.fetch_add(1 << 16, Ordering::Relaxed);
            }
            drop(request);
            pool.succeed(&task, "");
        }
    })
    .await;
    let export = running.client.export_disk(&Ref::from(DISK)).patience(PATIENCE);
    let mut export = export.await.unwrap();
    export.read_exact(&mut [0; 1000]).await.unwrap();
    settle(&sent).await;
    assert!(sent.load(Ordering::Relaxed) < 16 << 20);
    // The reader does something else for longer than it would wait for the host.
    tokio::time::pause();
    tokio::time::advance(PATIENCE * 3).await;
    tokio::time::resume();
    let read = tokio::io::copy(&mut export, &mut tokio::io::sink()).await.unwrap();
    assert_eq!(read, SIZE - 1000);
}

#[tokio::test]
async fn dropping_an_export_closes_its_connection_and_takes_its_task_away() {
    let ended = Arc::new(Notify::new());
    let end = Arc::clone(&ended);
    let running = start(move |_, mut request: Request| {
        let end = Arc::clone(&end);
        async move {
            request.accept().await;
            while request.write(&vec![3; 1 << 16]).await.is_ok() {}
            end.notify_one();
        }
    })
    .await;
    let mut export = running.client.export_disk(&Ref::from(DISK)).await.unwrap();
    export.read_exact(&mut [0; 1000]).await.unwrap();
    drop(export);
    ended.notified().await;
    assert!(running.pool.cancelled().await);
}

#[tokio::test]
async fn an_image_comes_in_chunks_from_the_host_that_has_the_disks() {
    let running = start(|pool: Arc<Pool>, mut request: Request| async move {
        if request.host == 1 {
            request.redirect(&pool.url(2)).await;
        } else {
            give(pool, request, &vec![8; 1_000_000]).await;
        }
    })
    .await;
    let export = running.client.export_vm(&Ref::from("OpaqueRef:vm"));
    let mut export = export.compression(Compression::Zstd).await.unwrap();
    assert_eq!(export.host().to_string(), running.pool.url(2));
    let mut total = 0;
    while let Some(chunk) = next(&mut export).await {
        let chunk = chunk.unwrap();
        assert!(!chunk.is_empty() && chunk.iter().all(|byte| *byte == 8));
        total += chunk.len();
    }
    assert_eq!(total, 1_000_000);
    assert!(next(&mut export).await.is_none());
    let path = "GET /export?ref=OpaqueRef:vm&use_compression=zstd&task_id=OpaqueRef:task1 HTTP/1.1";
    assert_eq!(running.pool.requests(), [format!("1 {path}"), format!("2 {path}")]);
}

/// Lets everything else run until this does not grow any more.
async fn settle(count: &AtomicU64) {
    loop {
        let before = count.load(Ordering::Relaxed);
        for _ in 0..5000 {
            tokio::task::yield_now().await;
        }
        if before > 0 && count.load(Ordering::Relaxed) == before {
            return;
        }
    }
}

async fn next<S: futures_core::Stream + Unpin>(stream: &mut S) -> Option<S::Item> {
    std::future::poll_fn(|context| std::pin::Pin::new(&mut *stream).poll_next(context)).await
}
