//! Files to and from the guest.

use std::fs;
use std::os::unix::fs::PermissionsExt;
use std::path::Path;

use bioxen_xcp::ssh::files::{FileError, Files, Placed, WorkerImage};
use bioxen_xcp::ssh::{Command, Connection};
use nix::sys::signal::Signal;

use crate::server::{Server, server};

const MEBIBYTE: usize = 1 << 20;

async fn connect() -> Option<(Server, Connection, Files)> {
    let server = server()?;
    let connection = Connection::open(&server.target()).await.unwrap();
    let files = connection.files().await.unwrap();
    Some((server, connection, files))
}

fn bytes(count: usize) -> Vec<u8> {
    (0_u8..=250).cycle().take(count).collect()
}

fn text(path: &Path) -> &str {
    path.to_str().unwrap()
}

fn names(directory: &Path) -> Vec<String> {
    let entries = fs::read_dir(directory).unwrap();
    entries.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect()
}

#[tokio::test]
async fn a_file_goes_there_and_comes_back_with_its_progress_and_permissions() {
    let Some((server, _connection, files)) = connect().await else { return };
    let (here, there) = (tempfile::tempdir().unwrap(), server.shared());
    let (source, back) = (here.path().join("source"), here.path().join("back"));
    let target = there.join("it's a \"name\" $(id)");
    let content = bytes(20 * MEBIBYTE + 12345);
    fs::write(&source, &content).unwrap();
    let mut seen = Vec::new();
    let sent = files.upload(&source, text(&target), 0o640, |count| seen.push(count)).await.unwrap();
    assert_eq!(sent, content.len() as u64);
    assert!(seen.is_sorted() && seen.last() == Some(&sent));
    assert!(fs::read(&target).unwrap() == content);
    assert_eq!(fs::metadata(&target).unwrap().permissions().mode() & 0o7777, 0o640);
    let mut seen = 0;
    let came = files.download(text(&target), &back, |count| seen = count).await.unwrap();
    assert_eq!((came, seen), (sent, sent));
    assert!(fs::read(&back).unwrap() == content);
    assert_eq!(names(&there).len(), 1);
    assert_eq!(names(here.path()).len(), 2);
}

#[tokio::test]
async fn an_upload_takes_the_place_of_a_file_that_is_there() {
    let Some((server, _connection, files)) = connect().await else { return };
    let target = server.shared().join("file");
    for content in ["first", "second, longer", "", "x"] {
        files.upload_from(content.as_bytes(), text(&target), 0o600, |_| {}).await.unwrap();
        assert_eq!(fs::read(&target).unwrap(), content.as_bytes());
    }
    assert_eq!(names(&server.shared()), ["file"]);
}

#[tokio::test]
async fn what_cannot_be_copied_says_why_and_leaves_nothing() {
    let Some((server, _connection, files)) = connect().await else { return };
    let there = server.shared();
    let error = files.upload_from(&b"x"[..], "/no/such/place", 0o600, |_| {}).await.unwrap_err();
    assert!(matches!(error, FileError::Remote { missing: true, .. }), "{error}");
    let error = files.upload_from(&b"x"[..], "/proc/x", 0o600, |_| {}).await.unwrap_err();
    assert!(matches!(error, FileError::Remote { .. }), "{error}");
    let directory = there.join("directory");
    fs::create_dir(&directory).unwrap();
    let error = files.upload_from(&b"x"[..], text(&directory), 0o600, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("replaced"), "{error}");
    let here = tempfile::tempdir().unwrap();
    let missing = here.path().join("missing");
    let error = files.upload(&missing, text(&there.join("a")), 0o600, |_| {}).await.unwrap_err();
    assert!(error.to_string().contains(text(&missing)), "{error}");
    let error = files.download("/no/such", &here.path().join("b"), |_| {}).await.unwrap_err();
    assert!(error.to_string().contains("`/no/such` in the guest"), "{error}");
    assert!(names(here.path()).is_empty());
    assert_eq!(names(&there), ["directory"]);
}

#[tokio::test]
async fn directories_are_made_as_far_as_they_are_missing() {
    let Some((server, _connection, files)) = connect().await else { return };
    let deep = server.shared().join("a/b c/d");
    for _ in 0..2 {
        files.make_directories(text(&deep)).await.unwrap();
        assert!(deep.is_dir());
    }
    files.upload_from(&b""[..], text(&deep.join("file")), 0o600, |_| {}).await.unwrap();
    let error = files.make_directories(text(&deep.join("file/e"))).await.unwrap_err();
    assert!(error.to_string().contains("it is a file"), "{error}");
    assert!(files.make_directories("/proc/x").await.is_err());
}

#[tokio::test]
async fn a_worker_is_copied_once_and_again_only_when_it_was_changed() {
    let Some((server, _connection, files)) = connect().await else { return };
    let path = server.shared().join("worker");
    let image = WorkerImage::new(bytes(3 * MEBIBYTE));
    let place = async || files.put_worker(&image, text(&path)).await.unwrap();
    assert_eq!(place().await, Placed::Copied);
    assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o7777, 0o755);
    assert_eq!(place().await, Placed::Present);
    // Whoever logs in owns the file, so it may be changed here only by way of the guest.
    let other = [bytes(3 * MEBIBYTE - 1), b"!".to_vec()].concat();
    files.upload_from(&other[..], text(&path), 0o600, |_| {}).await.unwrap();
    assert_eq!(place().await, Placed::Copied);
    assert_eq!(files.digest(text(&path)).await.unwrap(), Some(image.digest().to_string()));
    assert_eq!(files.digest("/no/such").await.unwrap(), None);
}

#[tokio::test]
async fn a_connection_that_is_lost_in_the_middle_ends_the_copy() {
    let Some((server, connection, files)) = connect().await else { return };
    let target = server.shared().join("file");
    let endless = tokio::io::repeat(b'x');
    let kill = |count: u64| {
        if count > 5 << 20 {
            server.signal_children(Signal::SIGKILL);
        }
    };
    let error = files.upload_from(endless, text(&target), 0o600, kill).await.unwrap_err();
    assert!(connection.is_closed());
    assert!(error.to_string().contains("lost"), "{error}");
    assert!(!target.exists());
}

#[tokio::test]
async fn files_and_programs_share_a_connection() {
    let Some((server, connection, files)) = connect().await else { return };
    let target = server.shared().join("file");
    let content = bytes(10 * MEBIBYTE);
    let copying = files.upload_from(&content[..], text(&target), 0o600, |_| {});
    let command = Command::new("echo").argument("here");
    let deadline = std::time::Duration::from_mins(1);
    let running = async {
        for _ in 0..20 {
            let output = connection.run(&command, "", 100, deadline).await.unwrap();
            assert_eq!(output.stdout, b"here\n");
        }
    };
    let (copied, ()) = tokio::join!(copying, running);
    assert_eq!(copied.unwrap(), content.len() as u64);
}
