//! Consoles as byte streams.

use std::sync::Arc;

use tokio::io::{AsyncReadExt as _, AsyncWriteExt as _};
use xenapi::{ConsoleError, ConsoleStream, Ref, enums};

use crate::support::{Pool, Request, Running, start};

const CONSOLE: &str = "OpaqueRef:console";

async fn open(running: &Running) -> Result<ConsoleStream, ConsoleError> {
    running.client.open_console(&Ref::from(CONSOLE)).await
}

#[tokio::test]
async fn bytes_go_both_ways_to_the_host_that_runs_the_vm() {
    let running = start(|_, mut request: Request| async move {
        request.write(b"HTTP/1.1 200 OK\r\nConnection: close\r\n\r\nRFB 003.008\n").await.unwrap();
        let mut hello = [0; 12];
        request.stream.read_exact(&mut hello).await.unwrap();
        request.write(&hello).await.unwrap();
    })
    .await;
    running.pool.set(|facts| facts.resident = Some(2));
    let mut console = open(&running).await.unwrap();
    assert_eq!(console.protocol(), &enums::ConsoleProtocol::Rfb);
    assert_eq!(console.host().to_string(), running.pool.url(2));
    let mut hello = [0; 12];
    console.read_exact(&mut hello).await.unwrap();
    assert_eq!(&hello, b"RFB 003.008\n");
    console.write_all(b"RFB 003.889\n").await.unwrap();
    let mut echo = String::new();
    console.read_to_string(&mut echo).await.unwrap();
    assert_eq!(echo, "RFB 003.889\n");
    assert_eq!(running.pool.requests(), ["2 CONNECT /console?ref=OpaqueRef:console HTTP/1.0"]);
}

#[tokio::test]
async fn each_refusal_is_an_error_of_its_own() {
    for status in ["404 Not Found", "503 Connection Limit Exceeded", "500 Internal Error", ""] {
        let running = start(move |_, mut request: Request| async move {
            if !status.is_empty() {
                request.refuse(status).await;
            }
        })
        .await;
        let error = open(&running).await.unwrap_err();
        let matches = match status.split(' ').next().unwrap() {
            "404" => matches!(error, ConsoleError::Missing { .. }),
            "503" => matches!(error, ConsoleError::Busy { .. }),
            "500" => matches!(error, ConsoleError::Refused { status: 500, .. }),
            _ => matches!(error, ConsoleError::Connection { .. }),
        };
        assert!(matches, "{error:?}");
        assert!(error.to_string().contains(CONSOLE) && error.hint().is_some());
        assert_eq!(error.is_retryable(), !matches!(error, ConsoleError::Missing { .. }));
    }
}

#[tokio::test]
async fn a_vm_that_moved_meanwhile_is_followed_to_its_new_host() {
    let running = start(|pool: Arc<Pool>, mut request: Request| async move {
        if request.host == 1 {
            pool.set(|facts| facts.resident = Some(2));
        } else {
            request.accept().await;
        }
    })
    .await;
    let console = open(&running).await.unwrap();
    assert_eq!(console.host().to_string(), running.pool.url(2));
}

#[tokio::test]
async fn a_vm_that_is_on_no_host_and_a_console_that_is_gone_are_told() {
    let running = start(|_, _| async { panic!("nobody should be asked") }).await;
    running.pool.set(|facts| facts.resident = None);
    let error = open(&running).await.unwrap_err();
    assert!(matches!(error, ConsoleError::NotRunning { .. }) && !error.is_retryable());
    running.pool.set(|facts| facts.console = false);
    let error = open(&running).await.unwrap_err();
    assert!(matches!(error, ConsoleError::Gone { .. }) && !error.is_retryable());
}
