//! Imports of disks and VM images.

use std::io::{self, Seek as _, SeekFrom, Write as _};
use std::pin::Pin;
use std::sync::atomic::{AtomicU64, Ordering};
use std::sync::{Arc, Mutex};
use std::task::{Context, Poll};
use std::time::Duration;

use tokio::io::{AsyncRead, ReadBuf};
use tokio::sync::Notify;
use xenapi::disk::{Format, Imported};
use xenapi::transfer::{Direction, Stage};
use xenapi::{Ref, Source, TaskError, TransferFailure};

use crate::support::{DISK, Pool, Request, SIZE, start};

const PATIENCE: Duration = Duration::from_millis(400);

/// Bytes without end, none of them zero, of which it is known how many were taken.
struct Counted(Arc<AtomicU64>);

impl AsyncRead for Counted {
    fn poll_read(
        self: Pin<&mut Self>,
        _: &mut Context<'_>,
        buffer: &mut ReadBuf<'_>,
    ) -> Poll<io::Result<()>> {
        let count = buffer.remaining().min(64 << 10);
        buffer.put_slice(&vec![7; count]);
        self.0.fetch_add(count as u64, Ordering::Relaxed);
        Poll::Ready(Ok(()))
    }
}

fn counted() -> (Arc<AtomicU64>, Counted) {
    let count = Arc::new(AtomicU64::new(0));
    (Arc::clone(&count), Counted(count))
}

/// Takes an upload as a host does, and keeps what arrived.
async fn take(pool: Arc<Pool>, mut request: Request, disk: Arc<Mutex<Vec<u8>>>) {
    let task = request.query("task_id").unwrap().to_owned();
    request.accept().await;
    let body = if request.query("chunked").is_some() {
        request.frames(usize::try_from(SIZE).unwrap()).await
    } else {
        request.body().await
    };
    *disk.lock().unwrap() = body.unwrap();
    pool.succeed(&task, &format!("<value>{DISK}</value>"));
    request.closed().await;
}

/// Some bytes that are not zero, and not all the same.
fn noise(length: usize) -> Vec<u8> {
    (0..length).map(|index| u8::try_from(index % 251).unwrap() + 1).collect()
}

#[tokio::test]
async fn a_disk_has_all_bytes_once_the_task_has_succeeded() {
    let disk = Arc::<Mutex<Vec<u8>>>::default();
    let arrived = Arc::clone(&disk);
    let running = start(move |pool, request| take(pool, request, Arc::clone(&arrived))).await;
    let bytes = noise(3_000_001);
    let reports = Arc::<Mutex<Vec<_>>>::default();
    let seen = Arc::clone(&reports);
    let imported = running
        .client
        .import_disk(&Ref::from(DISK), Source::bytes(bytes.clone()))
        .on_progress(move |progress| seen.lock().unwrap().push(progress))
        .await
        .unwrap();
    let length = bytes.len() as u64;
    assert_eq!(imported, Imported { length, sent: length });
    assert!(*disk.lock().unwrap() == bytes);
    let line =
        "1 PUT /import_raw_vdi?vdi=OpaqueRef:disk&format=raw&task_id=OpaqueRef:task1 HTTP/1.1";
    assert_eq!(running.pool.requests(), [line]);
    let reports = reports.lock().unwrap().clone();
    assert!(reports.is_sorted_by(|one, next| one.done <= next.done) && reports.len() > 2);
    assert_eq!((reports.last().unwrap().done, reports[0].total), (length, Some(length)));
    assert!(!running.pool.cancelled().await);
}

#[tokio::test]
async fn an_upload_goes_straight_to_a_host_that_has_the_storage() {
    let disk = Arc::default();
    let running = start(move |pool, request| take(pool, request, Arc::clone(&disk))).await;
    running.pool.set(|facts| facts.storage = vec![2]);
    running.client.import_disk(&Ref::from(DISK), Source::bytes([1; 100])).await.unwrap();
    assert!(running.pool.requests()[0].starts_with("2 PUT "));
    running.pool.set(|facts| facts.storage = vec![]);
    let import = running.client.import_disk(&Ref::from(DISK), Source::bytes([1; 100]));
    let error = import.await.unwrap_err();
    assert!(matches!(error.reason, TransferFailure::NoHost { .. }), "{error:?}");
    assert_eq!(running.pool.calls("task.create"), 1);
}

#[tokio::test]
async fn a_host_that_sends_elsewhere_is_followed_before_the_source_is_read() {
    let disk = Arc::<Mutex<Vec<u8>>>::default();
    let (count, source) = counted();
    let (arrived, read) = (Arc::clone(&disk), Arc::clone(&count));
    let running = start(move |pool: Arc<Pool>, mut request| {
        let (arrived, read) = (Arc::clone(&arrived), Arc::clone(&read));
        async move {
            if request.host == 1 {
                assert_eq!(read.load(Ordering::Relaxed), 0);
                request.redirect(&pool.url(2)).await;
            } else {
                take(pool, request, arrived).await;
            }
        }
    })
    .await;
    let import = running.client.import_disk(&Ref::from(DISK), Source::stream(source, 1 << 20));
    import.await.unwrap();
    assert_eq!(disk.lock().unwrap().len(), 1 << 20);
    let hosts: Vec<_> =
        running.pool.requests().iter().map(|line| line.as_bytes()[0] - b'0').collect();
    assert_eq!(hosts, [1, 2]);
}

#[tokio::test]
async fn hosts_that_send_in_circles_are_not_followed_for_ever() {
    let running = start(|pool: Arc<Pool>, mut request| async move {
        let other = pool.url(3 - request.host);
        request.redirect(&other).await;
    })
    .await;
    let import = running.client.import_disk(&Ref::from(DISK), Source::bytes([1; 100]));
    let error = import.await.unwrap_err();
    assert!(matches!(error.reason, TransferFailure::Redirected { .. }), "{error:?}");
    assert!(running.pool.cancelled().await);
}

#[tokio::test]
async fn a_disk_that_is_too_small_is_told_before_anything_is_sent() {
    let running = start(|_, _| async { panic!("nothing should be sent") }).await;
    let (_, source) = counted();
    let import = running.client.import_disk(&Ref::from(DISK), Source::stream(source, SIZE + 1));
    let error = import.await.unwrap_err();
    assert!(matches!(
        error.reason,
        TransferFailure::DiskTooSmall { size: SIZE, length } if length == SIZE + 1
    ));
}

#[tokio::test]
async fn a_task_that_fails_ends_the_upload_with_all_that_is_known() {
    let running = start(|pool: Arc<Pool>, mut request: Request| async move {
        let task = request.query("task_id").unwrap().to_owned();
        request.accept().await;
        pool.fail(&task, &["VDI_IN_USE", DISK, "import"]);
        // It does not read on, and leaves the connection open.
        std::future::pending::<()>().await;
    })
    .await;
    let (_, source) = counted();
    let import = running.client.import_disk(&Ref::from(DISK), Source::stream(source, SIZE));
    let error = import.await.unwrap_err();
    assert_eq!(error.direction, Direction::DiskImport);
    assert_eq!(error.object, DISK);
    assert_eq!(error.host.as_ref().unwrap().to_string(), running.pool.url(1));
    assert!(
        matches!(&error.reason, TransferFailure::Task(said) if said.code() == Some("VDI_IN_USE"))
    );
    assert!(error.reason.hint().unwrap().contains("detach"));
    let text = error.to_string();
    assert!(text.starts_with("could not import into disk `OpaqueRef:disk` at `http://127."));
    assert!(!running.pool.cancelled().await);
}

#[tokio::test]
async fn a_task_that_is_cancelled_or_vanishes_is_told_apart_from_one_that_fails() {
    for vanishes in [false, true] {
        let running = start(move |pool: Arc<Pool>, mut request: Request| async move {
            let task = request.query("task_id").unwrap().to_owned();
            request.accept().await;
            if vanishes {
                pool.destroy(&task);
            } else {
                pool.cancel(&task);
            }
            request.closed().await;
        })
        .await;
        let (_, source) = counted();
        let import = running.client.import_disk(&Ref::from(DISK), Source::stream(source, SIZE));
        let error = import.await.unwrap_err();
        match &error.reason {
            TransferFailure::Task(TaskError::Vanished { .. }) if vanishes => {}
            TransferFailure::Task(TaskError::Cancelled { .. }) if !vanishes => {}
            reason => panic!("{reason:?}"),
        }
        assert_eq!(error.reason.is_retryable(), vanishes);
        assert!(!running.pool.cancelled().await);
    }
}

#[tokio::test]
async fn transfers_at_one_time_share_one_request_for_events_and_no_row_is_left() {
    let disk = Arc::default();
    let running = start(move |pool, request| take(pool, request, Arc::clone(&disk))).await;
    let import =
        || running.client.import_disk(&Ref::from(DISK), Source::bytes([1; 100])).into_future();
    let transfers = (0..20).map(|_| tokio::spawn(import())).collect::<Vec<_>>();
    for transfer in transfers {
        transfer.await.unwrap().unwrap();
    }
    running.client.close().await.unwrap();
    assert_eq!(running.pool.calls("task.destroy"), 20);
    assert_eq!(running.pool.calls("task.cancel"), 0);
    assert_eq!(running.pool.waiting(), 1);
}

#[tokio::test]
async fn a_connection_that_breaks_is_explained_by_the_task_where_it_can_be() {
    for explained in [true, false] {
        let running = start(move |pool: Arc<Pool>, mut request: Request| async move {
            let task = request.query("task_id").unwrap().to_owned();
            request.accept().await;
            if explained {
                pool.fail(&task, &["VDI_IO_ERROR", "Device I/O errors"]);
            }
            drop(request);
        })
        .await;
        let (_, source) = counted();
        let import = running.client.import_disk(&Ref::from(DISK), Source::stream(source, SIZE));
        let error = import.patience(PATIENCE).await.unwrap_err();
        match error.reason {
            TransferFailure::Task(said) if explained => {
                assert_eq!(said.code(), Some("VDI_IO_ERROR"));
            }
            TransferFailure::Connection(_) if !explained => {}
            reason => panic!("{reason:?}"),
        }
        running.pool.cancelled().await;
    }
}

#[tokio::test]
async fn an_upload_that_ends_in_the_middle_never_counts_as_done() {
    let running = start(|pool: Arc<Pool>, mut request: Request| async move {
        let task = request.query("task_id").unwrap().to_owned();
        request.accept().await;
        pool.succeed(&task, "");
        std::future::pending::<()>().await;
    })
    .await;
    let (_, source) = counted();
    let import = running.client.import_disk(&Ref::from(DISK), Source::stream(source, SIZE));
    let error = import.await.unwrap_err();
    assert!(matches!(error.reason, TransferFailure::EndedEarly), "{error:?}");
}

#[tokio::test]
async fn a_host_that_never_answers_or_never_reads_or_never_ends_is_given_up() {
    for (step, expected) in [Stage::Answer, Stage::Sending, Stage::Task].into_iter().enumerate() {
        let running = start(move |_, mut request: Request| async move {
            if step > 0 {
                request.accept().await;
            }
            if step > 1 {
                request.body().await.unwrap();
            }
            std::future::pending::<()>().await;
        })
        .await;
        let (_, source) = counted();
        let import = running.client.import_disk(&Ref::from(DISK), Source::stream(source, SIZE));
        let error = import.patience(PATIENCE).await.unwrap_err();
        match error.reason {
            // Without an answer it is sent all the same, as some hosts answer last.
            TransferFailure::Stalled { waiting, .. } if step == 0 => {
                assert_eq!(waiting, Stage::Sending);
            }
            TransferFailure::Stalled { waiting, .. } => assert_eq!(waiting, expected),
            reason => panic!("{reason:?}"),
        }
        assert!(running.pool.cancelled().await);
    }
}

#[tokio::test]
async fn a_host_that_does_not_read_holds_the_source_back() {
    let running = start(|_, mut request: Request| async move {
        request.accept().await;
        std::future::pending::<()>().await;
    })
    .await;
    let (count, source) = counted();
    let import = running.client.import_disk(&Ref::from(DISK), Source::stream(source, SIZE));
    let error = import.patience(PATIENCE).await.unwrap_err();
    let taken = count.load(Ordering::Relaxed);
    // What the kernel holds for both ends of a connection, and one block.
    assert!(taken < 16 << 20, "{taken}");
    assert!(error.bytes <= taken && taken <= error.bytes + (1 << 20));
}

#[tokio::test]
async fn a_host_that_answers_last_gets_everything_too() {
    let disk = Arc::<Mutex<Vec<u8>>>::default();
    let arrived = Arc::clone(&disk);
    let running = start(move |pool: Arc<Pool>, mut request: Request| {
        let arrived = Arc::clone(&arrived);
        async move {
            let task = request.query("task_id").unwrap().to_owned();
            *arrived.lock().unwrap() = request.body().await.unwrap();
            request.accept().await;
            pool.succeed(&task, "");
            request.closed().await;
        }
    })
    .await;
    let bytes = noise(1 << 20);
    let import = running.client.import_disk(&Ref::from(DISK), Source::bytes(bytes.clone()));
    import.patience(PATIENCE).await.unwrap();
    assert!(*disk.lock().unwrap() == bytes);
}

#[tokio::test]
async fn a_refusal_that_comes_last_is_an_error_and_not_waited_for_again() {
    let running = start(|_, mut request: Request| async move {
        request.body().await.unwrap();
        request.refuse("507 Insufficient Storage").await;
    })
    .await;
    let import = running.client.import_disk(&Ref::from(DISK), Source::bytes(noise(1 << 20)));
    let error = import.patience(Duration::from_secs(2)).await.unwrap_err();
    assert!(matches!(error.reason, TransferFailure::Refused { status: 507, .. }), "{error:?}");
}

#[tokio::test]
async fn dropping_an_import_closes_its_connection_and_takes_its_task_away() {
    let steps = Arc::new((Notify::new(), Notify::new()));
    let done = Arc::clone(&steps);
    let running = start(move |_, mut request: Request| {
        let done = Arc::clone(&done);
        async move {
            request.accept().await;
            done.0.notify_one();
            request.closed().await;
            done.1.notify_one();
        }
    })
    .await;
    let mut file = tempfile::tempfile().unwrap();
    file.write_all(&noise(8 << 20)).unwrap();
    let import = running.client.import_disk(&Ref::from(DISK), Source::file(file).unwrap());
    let import = std::future::IntoFuture::into_future(import);
    tokio::select! {
        result = import => panic!("{result:?}"),
        () = steps.0.notified() => {}
    }
    steps.1.notified().await;
    assert!(running.pool.cancelled().await);
}

#[tokio::test]
async fn a_source_that_is_too_short_or_breaks_is_told_apart() {
    let running = start(|_, mut request: Request| async move {
        request.accept().await;
        request.closed().await;
    })
    .await;
    let source = Source::stream(io::Cursor::new(noise(1000)), 2000);
    let error = running.client.import_disk(&Ref::from(DISK), source).await.unwrap_err();
    assert!(matches!(
        error.reason,
        TransferFailure::SourceTooShort { found: 1000, expected: 2000 }
    ));
    assert!(running.pool.cancelled().await);
}

/// A file of the disk's size, nine tenths of which are zero: written or left out.
fn sparse_file() -> (std::fs::File, Vec<u8>) {
    let mut file = tempfile::tempfile().unwrap();
    let mut bytes = vec![0; usize::try_from(SIZE).unwrap()];
    for part in [0, 11, 12, 40] {
        bytes[part << 20..(part << 20) + 1_000_000].copy_from_slice(&noise(1_000_000));
        file.seek(SeekFrom::Start((part as u64) << 20)).unwrap();
        file.write_all(&bytes[part << 20..(part << 20) + 1_000_000]).unwrap();
    }
    file.seek(SeekFrom::Start(20 << 20)).unwrap();
    file.write_all(&vec![0; 5 << 20]).unwrap();
    file.set_len(SIZE).unwrap();
    (file, bytes)
}

#[tokio::test]
async fn zeros_are_left_out_of_a_new_disk_and_it_has_them_all_the_same() {
    let disk = Arc::<Mutex<Vec<u8>>>::default();
    let arrived = Arc::clone(&disk);
    let running = start(move |pool, request| take(pool, request, Arc::clone(&arrived))).await;
    let (file, bytes) = sparse_file();
    let sources =
        [Source::file(file).unwrap(), Source::stream(io::Cursor::new(bytes.clone()), SIZE)];
    for source in sources {
        let import = running.client.import_disk(&Ref::from(DISK), source).skip_zeros();
        let imported = import.await.unwrap();
        assert_eq!(imported.length, SIZE);
        assert!((4_000_000..4_600_000).contains(&imported.sent), "{}", imported.sent);
        assert!(*disk.lock().unwrap() == bytes);
    }
    assert!(running.pool.requests().iter().all(|line| line.contains("chunked=true")));
}

#[tokio::test]
async fn all_is_sent_where_zeros_cannot_be_left_out() {
    let disk = Arc::<Mutex<Vec<u8>>>::default();
    let arrived = Arc::clone(&disk);
    let running = start(move |pool: Arc<Pool>, mut request: Request| {
        let arrived = Arc::clone(&arrived);
        async move {
            if request.query("chunked").is_some() {
                pool.fail(request.query("task_id").unwrap(), &["INTERNAL_ERROR", "no"]);
                request.refuse("404 Not Found").await;
            } else {
                take(pool, request, arrived).await;
            }
        }
    })
    .await;
    let (file, bytes) = sparse_file();
    let (other, _) = sparse_file();
    let import = running.client.import_disk(&Ref::from(DISK), Source::file(file).unwrap());
    assert_eq!(import.skip_zeros().await.unwrap().sent, SIZE);
    assert!(*disk.lock().unwrap() == bytes);
    assert!(!running.pool.cancelled().await);
    assert_eq!(running.pool.calls("task.destroy"), 2);
    // This kind of storage gives out disks with what was on them before.
    running.pool.set(|facts| facts.kind = "cslg");
    let import = running.client.import_disk(&Ref::from(DISK), Source::file(other).unwrap());
    assert_eq!(import.skip_zeros().await.unwrap().sent, SIZE);
    let asked: Vec<_> =
        running.pool.requests().iter().map(|line| line.contains("chunked")).collect();
    assert_eq!(asked, [true, false, false]);
}

#[tokio::test]
async fn a_vhd_is_sent_as_it_is() {
    let disk = Arc::<Mutex<Vec<u8>>>::default();
    let arrived = Arc::clone(&disk);
    let running = start(move |pool, request| take(pool, request, Arc::clone(&arrived))).await;
    let import = running.client.import_disk(&Ref::from(DISK), Source::bytes(vec![0; 1 << 20]));
    import.format(Format::Vhd).skip_zeros().await.unwrap();
    assert_eq!(disk.lock().unwrap().len(), 1 << 20);
    let requests = running.pool.requests();
    assert!(requests[0].contains("format=vhd") && !requests[0].contains("chunked"));
}

#[tokio::test]
async fn an_image_becomes_vms_whose_references_are_typed() {
    let running = start(|pool: Arc<Pool>, mut request: Request| async move {
        let task = request.query("task_id").unwrap().to_owned();
        request.accept().await;
        request.body().await.unwrap();
        let value = |name: &str| format!("<value>OpaqueRef:{name}</value>");
        let values = value("vm") + &value("snapshot");
        pool.succeed(&task, &format!("<value><array><data>{values}</data></array></value>"));
        request.closed().await;
    })
    .await;
    let image = || Source::bytes(noise(100_000));
    let vms = running.client.import_vm(image()).await.unwrap();
    assert_eq!(vms, [Ref::from("OpaqueRef:vm"), Ref::from("OpaqueRef:snapshot")]);
    running.pool.set(|facts| facts.storage = vec![2]);
    let import = running.client.import_vm(image()).storage(&Ref::from("OpaqueRef:sr"));
    import.restore().force().await.unwrap();
    let requests = running.pool.requests();
    assert!(requests[0].starts_with("1 PUT /import?task_id="));
    assert!(requests[1].starts_with("2 PUT /import?sr_id=OpaqueRef:sr&restore=true&force=true&"));
}

#[tokio::test]
async fn the_tasks_own_progress_is_told_too() {
    let running = start(|pool: Arc<Pool>, mut request: Request| async move {
        let task = request.query("task_id").unwrap().to_owned();
        request.accept().await;
        request.body().await.unwrap();
        pool.progress(&task, 0.5);
        // Until the client has heard of it.
        let mut half = [0];
        let _ = tokio::io::AsyncReadExt::read(&mut request.stream, &mut half).await;
    })
    .await;
    let (sender, mut progress) = tokio::sync::watch::channel(0.0);
    let import = running.client.import_disk(&Ref::from(DISK), Source::bytes([1; 1000]));
    let import = import.on_progress(move |progress| {
        sender.send_replace(progress.task);
    });
    tokio::select! {
        result = std::future::IntoFuture::into_future(import) => panic!("{result:?}"),
        half = progress.wait_for(|task| *task > 0.4) => drop(half.unwrap()),
    }
}
